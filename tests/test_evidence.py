"""Every figure that a page prints from a file is measured, by a measurement that is there, and a stale one says so"""

import ast
import json
import re
import subprocess
import sys
from functools import lru_cache
from types import SimpleNamespace

import pytest
from conftest import NBS, ROOT, pages

from ftkit.core import Evidence, FtError, code_hash, evidence, evidence_folder, write_json
from tools.bench import __main__ as bench
from tools.bench import record

KEYS = {
    "name",
    "what",
    "command",
    "commit",
    "clean",
    "date",
    "seeds",
    "versions",
    "machine",
    "yardstick",
    "modules",
    "values",
}
CARD = {
    "name",
    "architecture",
    "steps",
    "tokens_per_step",
    "rows_per_step",
    "seed",
    "hours",
    "weights",
    "held_out",
    "teacher",
    "text",
    "data",
    "licence",
    "history",
}
METRIC = r"(?:accuracy|AUC|F1|loss|perplexity|BLEU|ROUGE\S*|WER|exact match)"
NUMBER = r"(?:\d+(?:\.\d+)?\s*%|0?\.\d+|\d+\.\d+)"
TYPED = re.compile(
    rf"\b{METRIC}\s+(?:of|is|was|reaches|reached|=|from|to)\s+(?:about |nearly )?{NUMBER}"
    rf"|{NUMBER}\s+(?:of\s+)?(?:points of )?{METRIC}\b|{NUMBER}\s+(?:times|x|×)\s+(?:as fast|faster|slower)",
    re.I,
)


@pytest.fixture(params=record.measured())
def name(request):
    return request.param


@lru_cache
def cells(page):
    return json.loads((NBS / page).read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def flags(cell):
    "The directives of a cell, without their values."
    return set(re.findall(r"^#\|\s*([\w-]+)", source(cell), re.M))


def lessons(page):
    "The syntax trees of the code cells that a page does not export."
    for cell in cells(page):
        if cell["cell_type"] == "code" and not flags(cell) & {"export", "exports", "exporti"}:
            yield ast.parse(re.sub(r"^(\s*)(%{1,2}\w|!(?!=)).*", r"\1pass", source(cell), flags=re.M))


def calls(tree):
    "The calls of `evidence` in a cell; those inside `try` show an error and read nothing."
    tried = {id(n) for t in ast.walk(tree) if isinstance(t, ast.Try) for n in ast.walk(t)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and id(node) not in tried
            and getattr(node.func, "attr", getattr(node.func, "id", "")) == "evidence"
        ):
            yield node


# ---- pages

RESULTS = ("start", "methods", "tasks", "recipes", "families", "cases", "practice", "guides", "zoo")


def test_a_page_reads_evidence_that_is_there(page):
    for call in (c for tree in lessons(page) for c in calls(tree)):
        assert len(call.args) == 1 and isinstance(call.args[0], ast.Constant), "a name in the call can be checked"
        assert call.args[0].value in record.measured()
        evidence(call.args[0].value)


def test_six_pages_read_evidence():
    reading = {page for page in pages() for tree in lessons(page) for _ in calls(tree)}
    assert {
        "practice/10_speed.ipynb",
        "practice/30_methods.ipynb",
        "guides/40_support_matrix.ipynb",
        "guides/50_choose_a_method.ipynb",
        "zoo/10_bert_mini.ipynb",
        "zoo/40_image_minis.ipynb",
        "index.ipynb",
    } <= reading


def test_a_page_says_when_its_figures_were_measured(page):
    text = "\n".join(map(source, cells(page)))
    for tree in lessons(page):
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and any(c is node.value for c in calls(node)):
                assert f"{node.targets[0].id}.caption" in text


def test_a_page_reads_stored_figures_in_no_other_way(page):
    "No path into the folder of evidence, and no result kept in the output of a cell that does not run here."
    for tree in lessons(page):
        said = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        assert not [text for text in said if re.fullmatch(r"(?:.*/)?(?:bench|evidence)(?:/.*)?", text)]
    kept = [
        source(c)
        for c in cells(page)
        if c["cell_type"] == "code" and flags(c) & {"slow", "gpu", "net"} and c["outputs"]
    ]
    assert not kept


def test_no_measured_figure_is_typed(page):
    prose = [
        re.sub(r"`[^`]*`|\]\([^)]*\)|\$\$.*?\$\$|\$[^$]*\$", " ", source(c), flags=re.S)
        for c in cells(page)
        if c["cell_type"] == "markdown"
    ]
    assert not [m[0] for text in prose for m in TYPED.finditer(text)], (
        "measure it in a cell, or read it with `evidence`"
    )
    if page.partition("/")[0] in RESULTS:  # pages of the internals draw made-up numbers, and say so
        pairs = [
            pair
            for tree in lessons(page)
            for d in ast.walk(tree)
            if isinstance(d, ast.Dict)
            for pair in zip(d.keys, d.values)
        ]
        typed = [
            (k.value, v.value)
            for k, v in pairs
            if isinstance(k, ast.Constant) and isinstance(v, ast.Constant) and isinstance(v.value, float)
        ]
        assert not [pair for pair in typed if re.fullmatch(METRIC, str(pair[0]), re.I)]


@pytest.mark.parametrize(
    "text, typed",
    [
        ("It reaches an accuracy of 76.6 % on SST-2.", True),
        ("84.5 % accuracy", True),
        ("AUC is 0.93", True),
        ("3.2 times faster than Trainer", True),
        ("Accuracy on the test set is in the table.", False),
        ("a learning rate of 0.1 and 80 % of the rows", False),
    ],
)
def test_what_counts_as_typed(text, typed):
    assert bool(TYPED.search(text)) == typed


def test_a_checkpoint_card_holds_its_pretraining_only():
    for card in (ROOT / "ftkit" / "zoo").glob("*/card.json"):
        assert json.loads(card.read_text(encoding="utf-8")).keys() <= CARD, "what a checkpoint is worth is evidence"


# ---- files


def test_every_file_has_its_measurement():
    files = {p.name for p in record.EVIDENCE.iterdir()}
    assert files == {f"{n}.json" for n in record.measured()} | {"STALE.json"} and evidence_folder() == record.EVIDENCE
    for n in record.names():
        assert record.measured_files(n, record.load(n).DECLARED) and record.load(n).DECLARED.epochs > 0


def test_a_file_says_how_it_was_measured(name):
    declared, found = record.load(name).DECLARED, evidence(name)
    assert KEYS - {"values"} <= found.record.keys() and found.record["name"] == name and found.values
    assert re.fullmatch(r"[0-9a-f]{40}", found.record["commit"]) and re.match(r"\d{4}-\d\d-\d\dT", found.record["date"])
    assert found.record["seeds"] == list(declared.seeds)
    assert (
        all(re.fullmatch(r"[0-9a-f]{64}", h) for h in found.record["modules"].values())
        and len(found.record["modules"]) > 1
    )


def test_stale_files(capsys):
    "A file whose modules have changed is measured again, or listed in STALE.json with a reason; a fresh one is not."
    allowed = json.loads(record.STALE.read_text(encoding="utf-8"))["stale_allowed"]
    stale = {n: files for n in record.measured() if (files := record.changed(n))}
    with capsys.disabled():
        for n in allowed.keys() & stale.keys():
            since, reason = allowed[n]["since"][:7], allowed[n]["reason"]
            print(f"\nstale: {n}, measured at {since}, {len(stale[n])} files changed since. {reason}", end="")
    assert not stale.keys() - allowed.keys(), f"make evidence NAME=..., or say why not yet in STALE.json: {stale}"
    assert not allowed.keys() - stale.keys(), "not stale, and listed in STALE.json"
    for n, entry in allowed.items():
        assert (
            entry.keys() == {"reason", "since"}
            and len(entry["reason"]) > 20
            and entry["since"] == evidence(n).record["commit"]
        )


def test_evidence_is_small():
    assert sum(p.stat().st_size for p in record.EVIDENCE.iterdir()) < 2**20


# ---- the functions


@pytest.mark.parametrize(
    "other, same",
    [
        ("def f(x):\n    'Twice.'\n    return 2 * x  # twice\n", True),
        ("def f(x): return (2\n    * x)\n", True),
        ("'A module'\ndef f(x): return 2 * x\n", True),
        ("def f(x): return 3 * x\n", False),
        ("def f(x, y=None): return 2 * x\n", False),
        ("def f(x): return 2 * x\nf(1)\n", False),
        ("def f(x): return '2' * x\n", False),
    ],
)
def test_hash_of_code(tmp_path, other, same):
    for n, text in (("a", "def f(x): return 2 * x\n"), ("b", other)):
        (tmp_path / f"{n}.py").write_text(text, encoding="utf-8")
    assert (code_hash(tmp_path / "a.py") == code_hash(tmp_path / "b.py")) == same


def made(**changes):
    "Evidence of a module that is as it was, with some fields of its record changed."
    machine = dict(cpu="A processor", capability="AVX2", cores=2, threads=2, accelerator=None, system="Linux")
    now = {"ftkit/core/files.py": code_hash(ROOT / "ftkit" / "core" / "files.py")}
    record = dict(commit="0123456789" * 4, date="2026-01-02T03:04:05+00:00", clean=True, machine=machine, modules=now)
    return Evidence("made", {}, record | changes)


def test_caption():
    assert (
        made().caption == "measured 2026-01-02, commit 0123456, on A processor, AVX2, 2 threads"
        and not made().changed()
    )
    stale = made(modules={"ftkit/core/files.py": "0" * 64, "ftkit/gone.py": "1" * 64})
    assert stale.changed() == ["ftkit/core/files.py", "ftkit/gone.py"]
    assert stale.caption == made().caption + "; the measured code has changed since"
    assert "commit 0123456 with uncommitted changes, on" in made(clean=False).caption
    assert "commits aaaaaaa to bbbbbbb, on" in made(parts={"a" * 40: [], "b" * 40: []}).caption
    unknown = dict.fromkeys(made().record["machine"])
    assert made(machine=unknown).caption.endswith("on an unrecorded machine")


def test_unknown_name():
    with pytest.raises(FtError, match="methods"):
        evidence("metods")


def fake(measure, measures=("ftkit/core/files.py",)):
    return SimpleNamespace(DECLARED=record.Declared("a test", measures, 1.0), measure=measure)


def test_a_record_is_whole(monkeypatch):
    monkeypatch.setattr(record, "yardstick", lambda: 2.0)
    monkeypatch.setattr(record, "load", lambda name: fake(lambda: {"rows": [1]}))
    found = record.record("peak")
    assert found.keys() == KEYS and found["values"] == {"rows": [1]} and found["yardstick"]["epochs"] >= 0
    assert found["modules"].keys() == {"ftkit/core/files.py", "tools/bench/peak.py"} and found["machine"]["threads"] > 0
    monkeypatch.setattr(record, "load", lambda name: fake(lambda: {}, ("ftkit/not_here.py",)))
    with pytest.raises(ValueError, match="not_here"):
        record.record("peak")


def test_code_that_changes_during_a_measurement_is_refused(monkeypatch):
    hashes = iter([{"a": "1"}, {"a": "2"}])
    monkeypatch.setattr(record, "yardstick", lambda: 2.0)
    monkeypatch.setattr(record, "load", lambda name: fake(dict))
    monkeypatch.setattr(record, "measured_files", lambda *_: next(hashes))
    with pytest.raises(SystemExit, match="changed while it ran"):
        record.record("peak")


def test_only_what_was_measured_as_stated_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "record", lambda name, **options: dict(name=name, options=options))
    monkeypatch.setattr(record, "EVIDENCE", tmp_path)

    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["bench", *argv])
        bench.main()

    run("peak", "--layers", "2")
    assert not list(tmp_path.iterdir())
    run("methods", "--seeds", "0,1", "--only", "lora", "--out", str(tmp_path / "two.json"))
    assert json.loads((tmp_path / "two.json").read_text(encoding="utf-8"))["options"] == {
        "seeds": [0, 1],
        "only": ["lora"],
    }
    run("peak")
    assert json.loads((tmp_path / "peak.json").read_text(encoding="utf-8")) == {"name": "peak", "options": {}}


def test_the_list_names_every_measurement():
    told = bench.listing()
    assert all(re.search(rf"^  {n}\s+[\d.]+\s+(fresh|stale|not measured)\s", told, re.M) for n in record.names())


def test_changed_sees_new_and_changed_and_gone_files(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "EVIDENCE", tmp_path)
    now = record.measured_files("peak", record.load("peak").DECLARED)
    first, second, *_ = now
    before = {k: v for k, v in now.items() if k != second} | {first: "0" * 64, "ftkit/gone.py": "1" * 64}
    write_json(tmp_path / "peak.json", {"modules": before})
    assert record.changed("peak") == sorted([first, second, "ftkit/gone.py"])


READ = """
import sys
sys.path.insert(0, sys.argv[1])
import ftkit
from ftkit.core import evidence, evidence_folder
assert ftkit.__file__.startswith(sys.argv[1]) and str(evidence_folder()).startswith(sys.argv[1])
for name in sys.argv[2:]: print(name, evidence(name).caption)
assert not {"torch", "numpy"} & set(sys.modules)
"""


def test_an_installed_package_has_it(tmp_path):
    "As a wheel lays it out; nothing there reads this clone."
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build",
        "--build-base",
        str(tmp_path / "base"),
        "--build-lib",
        str(tmp_path / "lib"),
    ]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    files = {p.stem for p in (tmp_path / "lib" / "ftkit" / "evidence").iterdir()}
    assert files == set(record.measured())
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "lib"), *record.measured()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("measured 20") == len(record.measured())
