"""What all tests share: the project on the path, no network, own caches; sweeps that run as a sample or whole"""

import os
import random
import sys
import tempfile
from collections import Counter, defaultdict
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
SEED = os.environ.get("FTKIT_SEED") or date.today().strftime("%Y%m%d")  # what samples are drawn by: a new one every day
sys.path.insert(0, str(ROOT))
import ftkit  # noqa: E402, F401  before torch, so that waiting threads sleep on a busy machine
from tools.warm import Done, Warm  # noqa: E402

_home = tempfile.TemporaryDirectory(prefix="ftkit-tests-", ignore_cleanup_errors=True)
os.environ.update(
    IN_TEST="1",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="agg",
    FTKIT_HOME=f"{_home.name}/ftkit",
    HF_HOME=f"{_home.name}/hf",
    PYTHONUTF8="1",
    PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
)


_warm = Warm()  # starts with the first child, after the environment above was set
_spent = Counter()  # CPU seconds of the children of `_warm`, which are not children of this process


def child(code: str, *argv, env: dict | None = None, cwd=None, **options) -> Done:
    """Python code in a process of its own, forked from one that has imported everything; `env` is added to this
    process's.
    """
    done = _warm.run(code, *argv, env={**os.environ, **(env or {})}, cwd=cwd or ROOT, **options)
    _spent["children"] += done.cpu
    return done


def pages() -> list[str]:
    "All notebooks, in reading order, as paths relative to nbs/."
    found = (p.relative_to(NBS) for p in NBS.rglob("*.ipynb"))
    return sorted(p.as_posix() for p in found if not any(part[0] in "._" for part in p.parts))


def drawn(values, n: int, what: str) -> list:
    "`n` of the values, drawn by the seed of this run and the name of what they are drawn for."
    values = list(values)
    return random.Random(f"{SEED} {what}").sample(values, min(n, len(values)))


def cover(cases: list[tuple], least: int, rng: random.Random) -> list[int]:
    """Indices of cases in which every value of every column occurs, and at least `least` of them.

    Greedy: of cases in random order always the one that brings most values that are still missing."""
    order = rng.sample(range(len(cases)), len(cases))
    missing = {(column, value) for case in cases for column, value in enumerate(case)}
    found = []
    while missing:
        best = max(order, key=lambda i: len(missing & set(enumerate(cases[i]))))
        found.append(best)
        order.remove(best)
        missing -= set(enumerate(cases[best]))
    return sorted(found + order[: max(0, least - len(found))])


def whole(config) -> bool:
    "Whether sweeps run whole: --all or FTKIT_ALL=1, and where tests were asked for by name."
    asked = config.option.all or os.environ.get("FTKIT_ALL", "0") not in ("", "0")
    return asked or bool(config.option.keyword) or any("::" in arg for arg in config.args)


def pytest_addoption(parser):
    parser.addoption(
        "--all",
        action="store_true",
        help="every case of every sweep (or FTKIT_ALL=1); without it, a sample drawn by FTKIT_SEED",
    )
    parser.addoption(
        "--cpu",
        action="store_true",
        help="tell what every file and the dearest tests cost in seconds of CPU, child processes included",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than ten seconds")
    config.addinivalue_line("markers", "fast: belongs to `make test-fast`")
    config.addinivalue_line(
        "markers",
        "sweep(*names, least=0): of the cases of this test a sample runs, in which every value of the named "
        "parameters occurs and which has at least `least` cases; --all runs all",
    )
    config.addinivalue_line("markers", "whole: runs with --all only")
    config.ftkit_swept = [0, 0]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    "Draw the sample of each sweep, by the seed and the name of the test."
    sweeps = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sweep"):
            sweeps[item.nodeid.partition("[")[0]].append(item)
    left_out = {item for item in items if item.get_closest_marker("whole") and not whole(config)}
    for name, cases in sweeps.items():
        marker = cases[0].get_closest_marker("sweep")
        values = [tuple(repr(case.callspec.params[n]) for n in marker.args) for case in cases]
        kept = (
            range(len(cases))
            if whole(config)
            else cover(values, marker.kwargs.get("least", 0), random.Random(f"{SEED} {name}"))
        )
        left_out |= {cases[i] for i in set(range(len(cases))) - set(kept)}
        config.ftkit_swept[0] += len(kept)
        config.ftkit_swept[1] += len(cases)
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def swept(config) -> str:
    "A line on what of the sweeps runs."
    ran, there = config.ftkit_swept
    return f"sweeps: {ran} of {there} cases run, drawn by FTKIT_SEED={SEED}" + (
        "" if ran == there else " (--all runs every case)"
    )


def pytest_report_collectionfinish(config):
    return swept(config)


def pytest_terminal_summary(terminalreporter, config):
    terminalreporter.write_line(swept(config))
    if config.option.cpu:
        tell_costs(terminalreporter.write_line, _spent)


def tell_costs(write, spent: Counter):
    "Seconds of CPU by file, and of the dearest tests."
    tests = {name: s for name, s in spent.items() if "::" in name}
    files = Counter()
    for name, s in tests.items():
        files[name.partition("::")[0]] += s
    write(
        f"{sum(tests.values()):8.1f} s of CPU in {len(tests)} tests, fixtures included; imports and the warmed process"
        " aside"
    )
    for name, s in files.most_common():
        write(f"{s:8.1f} s  {name}")
    for name, s in Counter(tests).most_common(40):
        write(f"{s:8.1f} s  {name}")


def seconds() -> float:
    "Seconds of CPU of this process and all its children, those of the warmed process included."
    return sum(os.times()[:4]) + _spent["children"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    before = seconds()
    try:
        return (yield)
    finally:
        _spent[item.nodeid] += seconds() - before


def pytest_unconfigure(config):
    _warm.__exit__()


def pytest_generate_tests(metafunc):
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", pages())


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture
def one_way(monkeypatch):
    """All fits of a test are computed in one way, as on a quiet machine, where an answer is kept.

    On a busy one each fit asks again how this machine computes fastest, and two runs that are compared may be told
    differently.
    """
    from torch import get_num_threads

    from ftkit.speed.execution import ExecutionConfig

    monkeypatch.setattr(
        "ftkit.api.autotune",
        lambda model, task, batch, precision, *rest: ExecutionConfig(
            "fp32" if precision == "auto" else precision, get_num_threads()
        ),
    )


# The same for code that runs in a child; a run that is resumed keeps its way and must not ask.
ONE_WAY = """
import ftkit.api as api
from ftkit.speed.execution import ExecutionConfig
def asked_once(model, task, batch, precision, *rest):
    assert "resume" not in sys.argv, "a resumed run keeps the way it was computed in"
    return ExecutionConfig("fp32" if precision == "auto" else precision, 1)
api.autotune = asked_once
"""
