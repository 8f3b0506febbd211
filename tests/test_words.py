"""The field's words: a private vocabulary stays out of names, docstrings, messages and prose"""

import ast
import re

import pytest
from conftest import NBS, ROOT, pages
from test_style import cells, notebook

# word -> what the field says
INSTEAD = {
    "picture": "image (or figure, for a drawing)",
    "pictures": "images",
    "trunk": "backbone, or frozen prefix",
    "law": "invariant",
    "laws": "invariants",
    "kin": "variants",
    "shelf": "registry, or cache directory",
    "told": "given",
    "hear": "attend to",
    "hears": "attends to",
    "heard": "attended to, captured",
    "speak": "be active",
    "speaks": "is active",
    "mend": "fix",
    "mended": "fixed",
    "rubbish": "garbage",
    "dear": "expensive",
    "dearer": "slower, more expensive",
    "surest": "most confident",
    "whoever": "a majority-class baseline, or name it",
    "likeliest": "most probable",
    "commoner": "more frequent",
}
HOUSE = re.compile(rf"\b({'|'.join(INSTEAD)})\b", re.I)
NAMES = re.compile(rf"(?:^|_)({'|'.join(INSTEAD)})(?:_|$)", re.I)


def prose(page: str) -> list[str]:
    "Markdown without code, and the docstrings and sentences of a page's code."
    texts = []
    for cell in cells(page):
        if cell.kind == "markdown":
            texts.append(re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|\$[^$]*\$", " ", cell.source, flags=re.S))
        elif cell.exported:
            for node in ast.walk(cell.tree):
                if isinstance(node, ast.Constant) and re.search(r"[A-Z.].* .* ", str(node.value)):
                    texts.append(re.sub(r"`[^`]*`", " ", str(node.value)))
    return texts


DATA = ("datasets/", "zoo/")  # what is generated, and what checkpoints were trained on


@pytest.mark.fast
def test_prose_uses_the_words_of_the_field(page):
    if page.startswith(DATA) or not notebook(page):
        pytest.skip("the words of its data are data")
    found = [(m[0], INSTEAD[m[0].lower()]) for text in prose(page) for m in HOUSE.finditer(text)]
    assert not found


@pytest.mark.fast
def test_names_use_the_words_of_the_field():
    found = set()
    for path in sorted((ROOT / "ftkit").rglob("*.py")):
        if path.name == "_modidx.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names = [node.name]
            elif isinstance(node, ast.arg):
                names = [node.arg]
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names = [node.id]
            found |= {(path.name, name, INSTEAD[m[1].lower()]) for name in names for m in NAMES.finditer(name)}
    assert not found


def test_there_are_pages_to_read():
    assert len(pages()) > 50 and (NBS / "index.ipynb").exists()
