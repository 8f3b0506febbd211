"""Cells that the tests do not run (`#| slow`): the recipes of the bundled checkpoints, a few steps on tiny data; the
options of the runs on real checkpoints
"""

import ast
import gzip
import json
import shutil
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import NBS, child, pages

import ftkit as ft
from ftkit.api import make_spec
from ftkit.core import atomic_write
from ftkit.datasets.reviews import reviews
from ftkit.models.checkpoints import ZOO

TEXTS = 800  # segments


def is_defined(node: ast.stmt) -> bool:
    "Whether a statement of a lesson cell is needed by the recipe: imports, definitions, names in capitals."
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name) and target.id.isupper() for target in node.targets)
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))


def recipe(page: str) -> list[str]:
    "The code of a page's recipe: its slow cells, and what the lesson cells above define."
    found = []
    for cell in json.loads((NBS / page).read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or source.startswith(("#| hide", "#| code-fold")):
            continue
        if not source.startswith("#| slow"):
            source = "\n".join(ast.unparse(n) for n in ast.parse(source).body if is_defined(n))
        found.append(source)
    return found


@pytest.fixture
def work(tmp_path):
    "A work folder as bert-mini's recipe leaves it, and folders for the checkpoints."
    texts = [f"{text} {i}" for i, text in enumerate(reviews(TEXTS, difficulty=2)["text"][:])]
    half = TEXTS // 2
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "texts.json").write_text(json.dumps({"books": texts[:half], "reviews": texts[half:]}))
    vectors = np.random.default_rng(0).standard_normal((TEXTS, 384)).astype(np.float16)
    np.save(tmp_path / "work" / "sentences.npy", vectors)
    for mini in ZOO.iterdir():
        if (mini / "card.json").exists():
            (tmp_path / "zoo" / mini.name).mkdir(parents=True)
            shutil.copy(mini / "card.json", tmp_path / "zoo" / mini.name)
    return tmp_path


def run(page: str, work, smaller: dict[str, str], last: str | None = None, **env: str):
    "Run a recipe in a process of its own, with smaller numbers; `last` replaces its last cell."
    cells = recipe(page)
    if last is not None:
        cells = [*cells[: max(i for i, c in enumerate(cells) if "READY:" in c)], last]
    code = "\n".join(cells)
    for old, new in {"import ZOO\n": f"import ZOO\nZOO = Path({str(work / 'zoo')!r})\n", **smaller}.items():
        assert old in code, old
        code = code.replace(old, new)
    done = child("from pathlib import Path\n" + code, env={"FTKIT_WORK": str(work / "work"), **env}, cwd=str(work))
    assert done.returncode == 0, done.stderr[-2000:]


def check(work, name: str, steps: int):
    "The checkpoint that a recipe wrote opens, and its card is that of this run."
    folder = work / "zoo" / name
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["steps"] == steps and card["held_out"] and (folder / "README.md").exists()
    assert ft.load(str(folder), processor=False).source == "folder"


@pytest.mark.parametrize("mini, notebook", [("gpt", "zoo/20_gpt_mini.ipynb"), ("t5", "zoo/30_t5_mini.ipynb")])
def test_text_recipes(work, mini, notebook):
    run(notebook, work, {"),\n    4096,": "),\n    512,"}, **{f"FTKIT_{mini.upper()}_STEPS": "3"})
    check(work, f"{mini}_mini", 3)


def test_the_recipe_with_a_teacher(work):
    "A copy of bert-mini in 32 bits is the teacher."
    teacher = ft.load("bert-mini")
    teacher.model.save_pretrained(work / "teacher")
    teacher.processor.save_pretrained(work / "teacher")
    source = work / "text"
    source.mkdir()
    texts = json.loads((work / "work" / "texts.json").read_text())["books"]
    for name in ("sentences_extra", "wikitext2_valid_test", "us_speeches", "books"):
        with gzip.open(source / f"{name}.txt.gz", "wt", encoding="utf-8") as f:
            f.write("\n".join(texts))
    with gzip.open(source / "movie_reviews.jsonl.gz", "wt", encoding="utf-8") as f:
        f.write("\n".join(json.dumps({"text": t}) for t in texts))
    env = dict(FTKIT_PRETRAIN=str(source), FTKIT_TEACHER=str(work / "teacher"), FTKIT_STEPS="3")
    run(
        "zoo/10_bert_mini.ipynb",
        work,
        {"),\n    4096,\n    2e-3,\n    8192,": "),\n    512,\n    2e-3,\n    300,"},
        **env,
    )
    check(work, "bert_mini", 3)


def test_the_recipes_for_images(work):
    labels = np.arange(200) % 10
    images = np.random.default_rng(0).integers(0, 255, (200, 28, 28), dtype=np.uint8)
    known = {f"{part}_{kind}": v for part in ("train", "test") for kind, v in (("images", images), ("labels", labels))}
    (work / "data" / "fashion_mnist").mkdir(parents=True)
    with atomic_write(work / "data" / "fashion_mnist" / "fashion_mnist.npz", "wb") as f:
        np.savez(f, **known)
    last = "learn, held = world(0, 30), world(1, 12)\nfor name in MINIS:\n    pretrain(name, learn, held)"
    env = dict(FTKIT_DATA=str(work / "data"), FTKIT_PICTURE_STEPS="2,1", FTKIT_PICTURE_PRECISION="fp32")
    run("zoo/40_image_minis.ipynb", work, {"ROWS = 96": "ROWS = 75"}, last, **env)
    check(work, "resnet_mini", 3)
    check(work, "vit_mini", 3)


def slow_fits() -> list[tuple[str, ast.Call]]:
    "The calls of `ft.finetune` in slow cells, with their pages."
    found = []
    for page in pages():
        for cell in json.loads((NBS / page).read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and source.startswith(("#| slow", "#| gpu", "#| net")):
                calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
                found += [(page, n) for n in calls if ast.unparse(n.func) == "ft.finetune"]
    return found


def test_slow_fits_have_options_that_exist():
    found = slow_fits()
    assert len(found) > 20
    for page, call in found:
        call.func = ast.Name("make_spec", ast.Load())
        code = compile(ast.fix_missing_locations(ast.Expression(call)), page, "eval")
        assert eval(
            code, {"ft": ft, "make_spec": make_spec, "os": SimpleNamespace(environ=defaultdict(str))}
        ).training.epochs
