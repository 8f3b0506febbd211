"""What all tests share: the project on the path, no network, caches of their own"""
import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
sys.path.insert(0, str(ROOT))
from tools.warm import Done, Warm  # noqa: E402

_home = tempfile.TemporaryDirectory(prefix="ftkit-tests-", ignore_cleanup_errors=True)
os.environ.update(IN_TEST="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", MPLBACKEND="agg",
                  FTKIT_HOME=f"{_home.name}/ftkit", HF_HOME=f"{_home.name}/hf", PYTHONUTF8="1",
                  PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))


_warm = Warm()  # starts with the first child, after the environment above was set


def child(code: str, *argv, env: dict | None = None, cwd=None) -> Done:
    "Python code in a process of its own, forked from one that has imported everything; `env` is added to this process's."
    return _warm.run(code, *argv, env={**os.environ, **(env or {})}, cwd=cwd or ROOT)


def pages():
    "All notebooks, in reading order, as paths relative to nbs/."
    found = (p.relative_to(NBS) for p in NBS.rglob("*.ipynb"))
    return sorted(p.as_posix() for p in found if not any(part[0] in "._" for part in p.parts))


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than ten seconds")


def pytest_unconfigure(config):
    _warm.__exit__()


def pytest_generate_tests(metafunc):
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", pages())


@pytest.fixture(scope="session")
def root():
    return ROOT
