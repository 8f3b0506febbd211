"""The form of a page, as a machine can see it: what CONTRIBUTING.md promises about every notebook and module"""

import ast
import json
import re
import subprocess
from functools import lru_cache
from statistics import median

import pytest
from conftest import NBS, ROOT, pages

from tools import address
from tools import format as formatter

COLAB = re.compile(r'''#\| hide
# Colab only: install ftkit next to the preinstalled torch
import sys

if "google\.colab" in sys\.modules:
    %pip install -q "ftkit(?:\[([\w,]+)\])? @ git\+(https://\S+)"''')
pytestmark = pytest.mark.fast
CARD = ["You will", "You need", "Runs in", "Paper"]
FLAGS = {"slow", "gpu", "net"}


class Cell:
    def __init__(self, raw):
        self.raw, self.kind, self.source = raw, raw["cell_type"], "".join(raw["source"])
        self.outputs = raw.get("outputs", [])
        lines = self.source.split("\n")
        self.directives = {
            m[1]: m[2].strip() for m in (re.match(r"#\|\s*([\w-]+):?\s*(.*)", line) for line in lines) if m
        }
        self.lines = [line for line in lines if not line.startswith("#|")]
        self.code = self.kind == "code"
        self.hidden = self.code and "hide" in self.directives
        self.exported = self.code and bool(self.directives.keys() & {"export", "exports", "exporti"})
        self.runs = self.code and self.directives.get("eval") != "false" and not FLAGS & self.directives.keys()

    @property
    def tree(self):
        "The parsed code, without IPython's magics."
        try:
            return ast.parse("\n".join(re.sub(r"^(\s*)(%{1,2}\w|!(?!=)).*", r"\1pass", line) for line in self.lines))
        except SyntaxError:
            return ast.parse("")


@lru_cache
def notebook(page):
    return json.loads((NBS / page).read_text(encoding="utf-8"))


@lru_cache
def cells(page):
    return [Cell(raw) for raw in notebook(page)["cells"]]


def public(page):
    "The public functions and classes that a page exports."
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [node for cell in cells(page) if cell.exported for node in cell.tree.body if isinstance(node, kinds)]
    return [node for node in found if not node.name.startswith("_")]


def assertions(page):
    "How many things a page asserts: `assert a and b` are two, and so are the calls that check by themselves."
    number = 0
    for cell in cells(page):
        if cell.runs and not cell.exported:
            tests = [node.test for node in ast.walk(cell.tree) if isinstance(node, ast.Assert)]
            number += sum(
                len(t.values) if isinstance(t, ast.BoolOp) and isinstance(t.op, ast.And) else 1 for t in tests
            )
            number += len(re.findall(r"\b(?:check_method|expect_fail|raises)\(|\.test\(", cell.source))
    return number


SHARED = ("_base.ipynb", "_peft_bridge.ipynb")


def teaches(page):
    "Pages of a method, a task or the start: they have exercises. What methods or tasks share has its page beside them."
    return page.startswith(("start/", "methods/", "tasks/")) and not page.endswith(SHARED)


def test_there_are_pages():
    assert pages()


def test_first_cell_installs_on_colab(page):
    "ftkit from the address of settings.ini, with exactly the extras of which the page imports something."
    found = COLAB.fullmatch(cells(page)[0].source.strip())
    assert found, "run `make address`"
    config = address.settings()
    assert (found[1] or "") == ",".join(address.needed(notebook(page)["cells"], config)), "run `make address`"
    assert found[2] == config["git_url"], "run `make address`"


@pytest.mark.parametrize(
    "source, extras",
    [
        ("import torch\nfrom ftkit.core import library", []),
        ("from bitsandbytes.functional import quantize_4bit", ["quant"]),
        ('bits = library("bitsandbytes").functional', ["quant"]),
        (
            (
                "def late():\n    try: from torchmetrics.detection import MeanAveragePrecision\n    except ImportError:"
                " raise"
            ),
            ["detection"],
        ),
        ("%matplotlib inline\nimport onnx, jiwer", ["export", "speech"]),
        ('"import bitsandbytes"', []),
    ],
)
def test_extras_are_seen(source, extras):
    assert (
        address.needed(
            [dict(cell_type="code", source=source), dict(cell_type="markdown", source="import onnx")],
            address.settings(),
        )
        == extras
    )


def test_the_address_is_one_setting():
    assert not [path.relative_to(ROOT).as_posix() for path in address.stale()], "run `make address`"


def test_another_address_reaches_every_place(tmp_path):
    "In a copy: no file names the old address any more, and a second change is made as well as the first."
    for name in ("settings.ini", "README.md", "nbs/index.ipynb", "nbs/methods/35_qlora.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    links = "https://colab.research.google.com/github/{0}/blob/main/x.ipynb https://{1}.github.io/{2}/x.html"
    old = address.settings()
    (tmp_path / "README.md").write_text(
        links.format(f"{old['user']}/{old['repo']}", old["user"], old["repo"]), encoding="utf-8"
    )
    for user, repo in (("someone", "fine-kit"), ("a-b", "ftkit-2")):
        ini = tmp_path / "settings.ini"
        ini.write_text(
            re.sub(
                r"(?m)^git_url = .*$", f"git_url = https://github.com/{user}/{repo}", ini.read_text(encoding="utf-8")
            ),
            encoding="utf-8",
        )
        changed = address.stale(tmp_path)
        assert {path.name for path in changed} == {"settings.ini", "README.md", "index.ipynb", "35_qlora.ipynb"}
        for path, text in changed.items():
            path.write_text(text, encoding="utf-8")
        assert not address.stale(tmp_path)
        assert (tmp_path / "README.md").read_text(encoding="utf-8") == links.format(f"{user}/{repo}", user, repo)
        assert f"ftkit[quant] @ git+https://github.com/{user}/{repo}" in (
            tmp_path / "nbs/methods/35_qlora.ipynb"
        ).read_text(encoding="utf-8")


def test_title_cell_is_a_title_and_a_promise(page):
    title = next(cell for cell in cells(page) if cell.kind == "markdown")
    assert re.fullmatch(r"# \S[^\n]*\n\n> \S[^\n]*", title.source.strip()), (
        "anything else in the title cell is lost in the docs"
    )


def test_card(page):
    if page == "index.ipynb":
        pytest.skip("the front page has no card")
    early = [cell.source for cell in cells(page)[:6] if cell.kind == "markdown"]
    assert any(re.findall(r"^- \*\*([\w ]+)\*\*", source, re.M) == CARD for source in early), (
        f"a card has four lines: {CARD}"
    )


def test_headings_stand_alone(page):
    if page == "index.ipynb":
        pytest.skip("the front page is also the README")
    crowded = [
        c.source.split("\n")[0]
        for c in cells(page)[1:]
        if c.kind == "markdown" and c.source.startswith("## ") and "\n" in c.source.strip()
    ]
    assert not crowded


def test_sections(page):
    if page == "index.ipynb":
        pytest.skip("the front page has its own order")
    heads = re.findall(r"^## (.+)$", "\n".join(c.source for c in cells(page) if c.kind == "markdown"), re.M)
    want = ["Summary", "Exercises", "See also"] if teaches(page) else ["See also"]
    assert [head for head in want if head not in heads] == []


FOLDED = {"jupyter": {"source_hidden": True}}  # JupyterLab shows such a cell as one line
DOTS = "...  # your answer"


def folded(page):
    "The places of the cells that define exercises."
    return [i for i, cell in enumerate(cells(page)) if "exercises" in cell.directives]


def exercises(page):
    "The numbers of a page's exercises, as its folded cell defines them."
    return [
        int(n) for i in folded(page) for n in re.findall(r"^exercise_(\d+) = Exercise\(", cells(page)[i].source, re.M)
    ]


def test_exercises(page):
    "One folded cell holds all checks, hints and answers, each proved; it shows nothing."
    titled = any(cell.source.strip() == "## Exercises" for cell in cells(page) if cell.kind == "markdown")
    assert len(folded(page)) == titled, "a section of exercises has exactly one cell with `#| exercises`"
    numbers = exercises(page)
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= (3 if teaches(page) else 2 if titled else 0)
    for cell in [cells(page)[i] for i in folded(page)]:
        assert cell.source.startswith("#| code-fold: true\n#| exercises\n# ")
        assert cell.raw["metadata"] == FOLDED and not cell.outputs and cell.source.endswith(";")
        proved = [
            int(n) for n in re.findall(r"^exercise_(\d+)\.test\(right=", re.sub(r"\(\s+", "(", cell.source), re.M)
        ]
        assert proved == numbers, "each exercise is proved by its `.test(right=..., wrong=...)`"


def test_exercises_can_be_done(page):
    "Per exercise the question, an answer cell that holds no answer, and a check cell, in this order."
    for place in folded(page):
        after = cells(page)[place + 1 :]
        for n in exercises(page):
            question, answer, check, *after = after
            assert question.kind == "markdown" and re.fullmatch(rf"### Exercise {n}\n\n\S.+", question.source, re.S)
            stub = re.fullmatch(rf"(?:@.*\n)?(?:def|class) (\w+)(?:\(.*\))?:\n    {re.escape(DOTS)}", answer.source)
            assert answer.code and (stub or answer.source == f"answer_{n} = {DOTS}"), answer.source
            assert check.code and check.source == f"exercise_{n}.check({stub[1] if stub else f'answer_{n}'})"
            told = "".join("".join(out.get("data", {}).get("text/plain", "")) for out in check.outputs)
            assert not check.outputs or "Not attempted yet" in told
        assert after[0].source.startswith("## "), "nothing else stands between the exercises"


def test_answers_are_nowhere_else(page):
    "The page that teaches exercises shows how they are made."
    lesson = page == "84_teach.ipynb"
    open_ = [
        c
        for i, c in enumerate(cells(page))
        if c.code and i not in folded(page) and not (lesson and i < folded(page)[0])
    ]
    assert not [
        c.source[:60] for c in open_ if re.search(r"\bsolution=|\bhint=|\.test\(\s*right=|\bExercise\(", c.source)
    ]


def test_badge_opens_this_page(page):
    for name in re.findall(
        r"colab\.research\.google\.com/github/[\w-]+/ftkit/blob/main/([^\"')\s]+)", json.dumps(notebook(page))
    ):
        assert name == f"nbs/{page}"


def test_every_public_symbol_is_asserted_about(page):
    symbols = [node.name for node in public(page)]
    assert assertions(page) >= len(symbols), f"{assertions(page)} assertions for {len(symbols)} symbols: {symbols}"


def test_modules_are_imported_before_they_are_used(page):
    "`ft.tasks.base` is there only if something has imported it: the process that runs the pages has, a notebook not."
    packages = {p.name for p in (ROOT / "ftkit").iterdir() if p.is_dir()} - {"core"}
    used = [
        node for cell in cells(page) if cell.code for node in ast.walk(cell.tree) if isinstance(node, ast.Attribute)
    ]
    assert not [n.attr for n in used if ast.unparse(n.value) == "ft" and n.attr in packages]


def test_every_public_symbol_says_what_it_does(page):
    bare = [node.name for node in public(page) if not ast.get_docstring(node)]
    assert not bare


def test_functions_and_classes_are_short(page):
    "A function has at most 40 lines beside its signature and docstring, a class 90 in all."
    long = []
    for cell in cells(page):
        for node in ast.walk(cell.tree) if cell.exported else ():
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[bool(ast.get_docstring(node)) :]
                if body and node.end_lineno - body[0].lineno + 1 > 40:
                    long.append(node.name)
            elif isinstance(node, ast.ClassDef) and node.end_lineno - node.lineno + 1 > 90:
                long.append(node.name)
    assert not long


def test_lesson_cells_are_short(page):
    lessons = [
        cell
        for cell in cells(page)
        if cell.code and not (cell.exported or cell.hidden or "exercises" in cell.directives)
    ]
    lengths = [sum(map(bool, map(str.strip, cell.lines))) for cell in lessons]
    assert not lengths or median(lengths) <= 14, f"lesson cells have a median of {median(lengths)} lines; at most 14"


def test_lessons_have_100_columns(page):
    wide = [
        line for cell in cells(page) if formatter.kind(cell.raw) == "lesson" for line in cell.lines if len(line) > 100
    ]
    assert not wide


def test_hidden_cells(page):
    hidden = [c for c in cells(page)[1:] if c.hidden]
    assert len(hidden) <= 2, "a page that hides more is a test in disguise"


def test_imports_stand_alone(page):
    mixed = []
    for cell in cells(page):
        if cell.code and not cell.hidden:
            kinds = {isinstance(node, (ast.Import, ast.ImportFrom)) for node in cell.tree.body}
            if kinds == {True, False}:
                mixed.append(cell.lines[0][:60])
    assert not mixed, "cells that mix imports and code break the docs build"


def test_export_says_where_to(page):
    to = [cell.directives["default_exp"] for cell in cells(page) if "default_exp" in cell.directives]
    if any(cell.exported for cell in cells(page)):
        stem = re.sub(r"^\d+_", "", page.rpartition("/")[2].removesuffix(".ipynb"))
        folder = page.rpartition("/")[0].replace("/", ".")
        assert to == [f"{folder}.{stem}".lstrip(".")], "one notebook, one module, of the same name"
    else:
        assert not to


def test_run_all_writes_no_module(page):
    """`make export` does; on a page it would end in a traceback in Colab, and write what a student typed into the
    package in a clone.
    """
    assert not [cell.source for cell in cells(page) if "nbdev_export" in cell.source]


def test_code_is_shown_on_the_site(page):
    "nbdev leaves out the source of `#| export` cells, and shows that of `#| exports` cells."
    assert not [
        cell.lines[0][:60] for cell in cells(page) if cell.code and cell.directives.keys() & {"export", "exporti"}
    ]


def test_size(page):
    assert len(cells(page)) <= 90
    assert (NBS / page).stat().st_size <= 200 * 1024


def test_stored_outputs(page):
    faults = [
        "an error is stored: " + out.get("ename", "")
        for c in cells(page)
        for out in c.outputs
        if out["output_type"] == "error"
    ]
    lessons = [
        c
        for c in cells(page)
        if c.runs
        and not c.hidden
        and not c.exported
        and c.tree.body
        and isinstance(c.tree.body[-1], ast.Expr)
        and not c.source.rstrip().endswith(";")
    ]
    empty = [c.lines[-1][:60] for c in lessons if not c.outputs]
    # A call may show nothing; a page that was not run shows nothing anywhere.
    if len(empty) > max(1, len(lessons) // 5):
        faults.append(
            f"{len(empty)} of {len(lessons)} cells that show a value have no output (make pages): {empty[:4]}"
        )
    assert not faults


def test_nothing_is_stored_from_stderr(page):
    """Jupyter shows it on pink: warnings, logs and progress bars as text.

    A bar in HTML or of widgets is no lesson either, nor the space it left.
    """
    pink = ["".join(out["text"])[:100] for c in cells(page) for out in c.outputs if out.get("name") == "stderr"]
    assert not pink, "mend what writes it, then `make pages`"
    bars = [
        c.lines[-1][:60]
        for c in cells(page)
        for out in c.outputs
        if out["output_type"] == "display_data"
        and (not out["data"] or re.search("IProgress|<progress|widget-view", json.dumps(out["data"])))
    ]
    assert not bars, "a progress bar is stored"


def test_stored_clean(page):
    nb = notebook(page)
    assert nb["metadata"].keys() <= {"kernelspec", "accelerator", "colab"}
    assert (nb["nbformat"], nb["nbformat_minor"]) == (4, 5)
    assert len({c.raw["id"] for c in cells(page)}) == len(cells(page))
    kept = [FOLDED if i in folded(page) else {} for i in range(len(cells(page)))]
    dirty = [
        c.raw["id"]
        for c, known in zip(cells(page), kept)
        if c.raw["metadata"] != known
        or c.raw.get("execution_count")
        or any(o.get("execution_count") for o in c.outputs)
    ]
    assert not dirty, "run `make clean`"


def test_figures_have_alt_text(page):
    bare = []
    for cell in cells(page):
        for out in cell.outputs:
            data = out.get("data", {})
            html = "".join(data.get("text/html", "")) + "".join(data.get("image/svg+xml", ""))
            bare += [tag[:60] for tag in re.findall(r"<img\b[^>]*>", html) if not re.search(r"\balt=[\"'][^\"']+", tag)]
            if (
                "image/png" in data
                and "fig-alt" not in cell.directives
                and "alt=" not in html
                and not out.get("metadata")
            ):
                bare.append(f"picture of: {cell.lines[-1][:60]}")
    assert not bare


def test_no_two_pages_differ_by_number_only():
    seen = {}
    for page in pages():
        seen.setdefault(re.sub(r"(^|/)\d+_", r"\1", page), []).append(page)
    assert not [same for same in seen.values() if len(same) > 1]


def test_folders_carry_no_numbers():
    assert not [page for page in pages() if re.match(r"\d|.*/\d+_[^/]*/", page.rpartition("/")[0])]


def test_modules_are_short():
    modules = [p for p in (ROOT / "ftkit").rglob("*.py") if p.name != "_modidx.py"]
    long = {
        p.relative_to(ROOT).as_posix(): n
        for p in modules
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > 650
    }
    assert not long


def test_everything_is_formatted():
    pages_ = [page.relative_to(ROOT).as_posix() for page in formatter.formatted(formatter.all_pages())]
    plain = formatter.ruff("format", "--check", *formatter.PLAIN, check=False)
    assert not pages_ and plain.returncode == 0, f"run `make format`: {pages_} {plain.stdout}"


def test_nothing_is_found_by_ruff():
    done = formatter.ruff("check", "--output-format", "concise", *formatter.PLAIN, "nbs", check=False)
    assert done.returncode == 0, done.stdout


def test_methods_and_tasks_do_not_know_each_other():
    wrong = []
    for here, there in (("methods", "tasks"), ("tasks", "methods")):
        for module in (ROOT / "ftkit" / here).rglob("*.py"):
            if re.search(rf"^\s*(?:from|import) (?:ftkit\.|\.+){there}\b", module.read_text(encoding="utf-8"), re.M):
                wrong.append(module.name)
    assert not wrong


def test_no_path_of_one_machine():
    "Neither in what was written nor in what a page printed."
    pattern = re.compile(
        "|".join(
            [
                r"(?<![\w.~])/(?:" + "root|work|tmp" + r")/\w",
                r"/home/" + r"\w+/",
                r"[A-Z]:\\+Users",
                "site" + "-packages/",
            ]
        )
    )
    kinds = {".py", ".ipynb", ".md", ".yml", ".ini", ".txt", ".json", ".toml", ".css", ".scss", ""}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    faults = []
    for name in listed.splitlines():
        path = ROOT / name
        if path.suffix in kinds and path.is_file() and path.stat().st_size < 2**20:
            text = path.read_text(encoding="utf-8", errors="replace")
            # Pictures and other binary outputs are base64, in which any letters may meet.
            text = re.sub(r'"image/[^"]*":\s*(?:"[^"]*"|\[[^\]]*\])', "", text)
            text = re.sub(r"base64,[A-Za-z0-9+/=\\n]+", "", text)
            faults += [f"{name}: {text[max(0, m.start() - 20) : m.end() + 20]!r}" for m in pattern.finditer(text)]
    assert not faults
