"""The docs: every page is processed once and looked at, rendered where there is Quarto, and planted faults are seen"""

import ast
import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import NBS, ROOT, child, pages

from tools.callouts import quotes_to_callouts
from tools.docs import anchors, lint, read
from tools.pages import settings


def write(path, *sources, code=()):
    cells = [dict(cell_type="markdown", id=f"m{i}", metadata={}, source=s) for i, s in enumerate(sources)]
    cells += [
        dict(cell_type="code", id=f"c{i}", metadata={}, source=s, outputs=[], execution_count=None)
        for i, s in enumerate(code)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)), encoding="utf-8")


FINE = [
    "# A\n\n> promise",
    (
        "[b](sub/b.ipynb#the-idea) and ![a dot](dot.png), `[code](is-left-alone.md)`\n\n$x^2 + \\alpha$\n\n:::"
        " {.callout-tip}\nText\n:::"
    ),
    "$$y = x$$ {#eq-y}\n\nas in @eq-y",
]


@pytest.fixture
def site(tmp_path):
    write(tmp_path / "a.ipynb", *FINE, code=["#| echo: false\n1 + 1"])
    write(tmp_path / "sub" / "b.ipynb", "# B\n\n> promise", "## The idea")
    (tmp_path / "dot.png").write_bytes(b"")
    (tmp_path / "_quarto.yml").write_text(
        "website: {sidebar: {contents: [a.ipynb, {section: S, contents: [sub/b.ipynb]}]}}", encoding="utf-8"
    )
    return tmp_path


def test_lint_is_silent_on_clean_pages(site):
    assert lint(site, site / "_quarto.yml") == []


@pytest.mark.parametrize(
    "text, code, fault",
    [
        ("[x](gone.ipynb)", "", "link to nothing"),
        ("[x](sub/b.ipynb#gone)", "", "no such anchor"),
        ("![alt](gone.png)", "", "missing image"),
        ("![](dot.png)", "", "without alt text"),
        ('<img src="dot.png">', "", "without alt text"),
        ("::: {.callout-tip}\nText", "", "does not balance"),
        ("::: {.callout-tipp}\nText\n:::", "", "unknown callout"),
        ("see @fig-gone", "", "reference without a target"),
        ("$\\frac{1$", "", "LaTeX"),
        ("", "#| fig-alt: [a\n1", "no YAML"),
    ],
)
def test_lint_sees(site, text, code, fault):
    write(site / "a.ipynb", *FINE, text, code=[code] if code else [])
    assert [said for page, said in lint(site, site / "_quarto.yml") if fault in said], fault


def test_lint_sees_a_wrong_sidebar(site):
    write(site / "c.ipynb", "# C\n\n> promise")
    (site / "sub" / "b.ipynb").rename(site / "sub" / "d.ipynb")
    said = "\n".join(fault for _, fault in lint(site, site / "_quarto.yml"))
    assert "sidebar entry without a page: sub/b.ipynb" in said and "does not list: c.ipynb" in said


def test_callouts():
    text = "before\n\n> **Tip:** first\n> second\n\n> a plain quote\n\n```\n> **Tip:** code\n```"
    assert (
        quotes_to_callouts(text)
        == "before\n\n\n::: {.callout-tip}\nfirst\nsecond\n:::\n\n> a plain quote\n\n```\n> **Tip:** code\n```"
    )


OPEN = 25  # lines of an exported cell that the site shows unfolded
SITE = f"{settings()['doc_host']}{settings()['doc_baseurl']}/"
BLOB = f"{settings()['git_url']}/blob/{settings()['branch']}/"


@pytest.fixture(scope="session")
def processed(tmp_path_factory) -> Path:
    "All pages as they go to Quarto, made once in the warmed process; the checkout stays as it is."
    to = tmp_path_factory.mktemp("docs") / "_proc"
    done = child("import sys; from pathlib import Path; from tools.docs import process; process(Path(sys.argv[1]))", to)
    assert done.returncode == 0, done.stderr[-4000:]
    return to


def cells(path: Path) -> list[dict]:
    "The cells of a notebook, with their source as one string."
    return [
        cell | {"source": "".join(cell["source"])} for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    ]


def exported(cell: dict) -> bool:
    return cell["cell_type"] == "code" and bool(re.search(r"^#\|\s*exports?\b", cell["source"], re.M))


def code(source: str) -> str:
    "The source without its directives."
    return re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip()


def names(source: str) -> list[str]:
    "What a cell defines for users, in order."
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for node in ast.parse(source).body if isinstance(node, kinds) and not node.name.startswith("_")]


def module_file(notebook: list[dict]) -> str:
    "Where a page exports to, from the top of the project."
    [target] = [m[1] for cell in notebook if (m := re.match(r"#\|\s*default_exp\s+(\S+)", cell["source"]))]
    return f"ftkit/{target.replace('.', '/')}.py"


def faults(notebook: list[dict], page: list[dict]):
    "What is wrong about the exported code of a processed page, as sentences."
    ids = [cell["id"] for cell in page]
    kept = [cell["id"] for cell in notebook if cell["id"] in ids]
    if kept != [name for name in ids if name in kept]:
        yield "the cells stand in another order than in the notebook"
    for cell in filter(exported, notebook):
        shown = [c for c in page if c["id"] == cell["id"]]
        body, defined = code(cell["source"]), names(cell["source"])
        label = body.split("\n")[0]
        if (
            not shown
            or code(shown[0]["source"]) != body
            or re.search(r"#\|\s*(echo|include):\s*false", shown[0]["source"])
        ):
            yield f"not shown: {label}"
            continue
        summary = re.findall(r'^#\| code-fold: true\n#\| code-summary: "(.+)"$', shown[0]["source"], re.M)
        if bool(summary) != (len(body.split("\n")) > OPEN) or any(
            set(defined) - set(text.split(", ")) for text in summary
        ):
            yield f"folded though short, or open though long, or without its symbols: {label}"
        below = page[ids.index(cell["id"]) + 1]["source"]
        links = re.findall(r"`(\w+)` \[source\]\((\S+?)#L(\w+)\)", below) if below.startswith("::: {.symbols}") else []
        if [name for name, _, _ in links] != defined:
            yield f"documents {[name for name, _, _ in links]}, defines {defined}: {label}"
        file = module_file(notebook)
        lines = ["", *(ROOT / file).read_text(encoding="utf-8").split("\n")]
        for name, target, number in links:
            if (
                target != BLOB + file
                or not number.isdigit()
                or not re.match(rf"(async )?(def|class) {name}\b", lines[int(number)])
            ):
                yield f"the source of {name} is not at {target}#L{number}"


def test_exported_code_is_shown(page, processed):
    "In its place, folded where it is long; below it its symbols in their order, linked to the lines that define them."
    assert list(faults(cells(NBS / page), cells(processed / page))) == []


def test_all_symbols_are_documented(processed):
    defined = [
        name for page in pages() for cell in cells(NBS / page) if exported(cell) for name in names(cell["source"])
    ]
    documented = [
        name
        for page in pages()
        for cell in cells(processed / page)
        for name in re.findall(r"`(\w+)` \[source\]", cell["source"])
    ]
    assert documented == defined
    assert len(defined) > 400


def plant(page: list[dict], fault: str) -> None:
    "Spoil a processed page."
    at = next(i for i, c in enumerate(page) if c["source"].startswith("#| code-fold: true"))
    many = next(c for c in page if c["source"].startswith("::: {.symbols}") and c["source"].count("[source]") > 1)
    if fault == "signature":
        page[at]["source"] = "def f(): ..."
    elif fault == "hidden":
        page[at]["source"] = "#| echo: false\n" + page[at]["source"]
    elif fault == "gone":
        del page[at]
    elif fault == "moved":
        page[at - 1], page[at] = page[at], page[at - 1]
    elif fault == "open":
        page[at]["source"] = code(page[at]["source"])
    elif fault == "unnamed":
        named = next(cell for cell in page if re.search('code-summary: "(?!Constants)', cell["source"]))
        named["source"] = re.sub("(code-summary: ).*", r'\1"Code"', named["source"])
    elif fault == "order":
        parts = many["source"].removeprefix("::: {.symbols}\n").removesuffix("\n:::").split("\n\n")
        many["source"] = "::: {.symbols}\n" + "\n\n".join(reversed(parts)) + "\n:::"
    elif fault == "line":
        many["source"] = re.sub(r"#L(\d+)", lambda m: f"#L{int(m[1]) + 1}", many["source"])
    elif fault == "module":
        many["source"] = many["source"].replace("ftkit/training/learner.py", "ftkit/data/splits.py")


@pytest.mark.parametrize(
    "fault", ["signature", "hidden", "gone", "moved", "open", "unnamed", "order", "line", "module"]
)
def test_faults_in_shown_code_are_seen(processed, fault):
    notebook, page = cells(NBS / "training/10_learner.ipynb"), cells(processed / "training/10_learner.ipynb")
    spoilt = copy.deepcopy(page)
    plant(spoilt, fault)
    assert list(faults(notebook, spoilt)) and not list(faults(notebook, page))


@pytest.fixture(scope="session")
def places(processed) -> dict[str, tuple[str, set]]:
    "Addresses of the site: the page that is there, and its anchors."
    found = {}
    for page in pages():
        folder, _, file = page.rpartition("/")
        address = f"{folder}/{re.sub(r'^[0-9]+_', '', file)}".strip("/").replace(".ipynb", ".html")
        found[address] = page, anchors(read(processed / page))
    return found


def test_names_lead_to_their_symbols(page, processed, places):
    """Names in backticks became links: the anchor is there, and a name of the page's own module leads to the page
    itself.
    """
    own = {name for cell in cells(NBS / page) if exported(cell) for name in names(cell["source"])}
    for cell in cells(processed / page):
        if cell["cell_type"] == "markdown":
            for name, address, anchor in re.findall(
                rf"\[`([^`]+)`\]\({re.escape(SITE)}(\S+?)#([^)\s]+)\)", cell["source"]
            ):
                there, ids = places[address]
                assert anchor in ids, f"{name}: there is no {address}#{anchor}"
                assert there == page or name.removesuffix("()") not in own, f"{name} of this page leads to {there}"


def test_a_name_of_two_modules_is_not_guessed():
    text = """
from tools.published import Lookup
asked = (
    ("ftkit.runs", {}),
    ("ftkit.experiments.compare", {}),
    ("ftkit.api", {"learning_curves": "ftkit.runs"}),
    (None, {}),
)
found = [Lookup(module, imported).doc("learning_curves") for module, imported in asked]
print(*[str(where).rpartition("/")[2] for where in found])
"""
    assert child(text).stdout.split() == [
        "runs.html#learning_curves",
        "compare.html#learning_curves",
        "runs.html#learning_curves",
        "None",
    ]


def test_pages_are_sound(processed):
    "Links, images, anchors, callouts, cell options, references, LaTeX, the sidebar."
    assert lint(processed, ROOT / "_quarto.yml") == []


def copy_project(to: Path) -> None:
    "The project, apart from what git ignores."
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("quarto"), reason="Quarto is not installed: pages are checked, not rendered")
def test_quarto_renders(tmp_path):
    "A copy, so that the checkout stays as it is."
    copy_project(tmp_path)
    done = subprocess.run(
        [sys.executable, "tools/docs.py", "--build"], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert (tmp_path / "_docs" / "index.html").exists()
