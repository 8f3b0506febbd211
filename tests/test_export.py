"""The package is what the notebooks export, and importing it is light"""

import json
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser

import pytest
from conftest import NBS, ROOT, child, pages

from tools import format as formatter

PACKAGE = ROOT / "ftkit"
HEAVY = ("torch", "transformers", "datasets", "pandas", "numpy", "matplotlib", "peft", "sklearn")


def modules():
    return {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts}


def test_package_equals_notebooks(tmp_path):
    for name in ("settings.ini", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(NBS, tmp_path / "nbs", ignore=shutil.ignore_patterns(".*", "_*"))
    (tmp_path / "ftkit").mkdir()
    shutil.copy(PACKAGE / "__init__.py", tmp_path / "ftkit")
    code = "from nbdev.export import nb_export\nimport sys\nfor page in sys.argv[1:]: nb_export('nbs/' + page)"
    done = child(code, *pages(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    formatter.ruff("format", "--quiet", "--config", ROOT / "ruff.toml", tmp_path / "ftkit")
    fresh = {
        p.relative_to(tmp_path / "ftkit").as_posix(): p.read_text(encoding="utf-8")
        for p in (tmp_path / "ftkit").rglob("*.py")
    }
    stale = [
        name
        for name, text in fresh.items()
        if not (PACKAGE / name).exists() or (PACKAGE / name).read_text(encoding="utf-8") != text
    ]
    assert not stale, "run `make export`"
    assert len(fresh) >= len(modules()) / 2


def test_no_orphan_modules():
    targets = {"__init__.py", "_modidx.py", "core/__init__.py", "recipes/__init__.py"}  # written by hand
    for page in pages():
        for cell in json.loads((NBS / page).read_text(encoding="utf-8"))["cells"]:
            targets |= {
                m.replace(".", "/") + ".py"
                for m in re.findall(r"^#\|\s*default_exp\s+(\S+)", "".join(cell["source"]), re.M)
            }
    orphans = {
        m
        for m in modules() - targets
        if not (m.endswith("/__init__.py") and not (PACKAGE / m).read_text(encoding="utf-8").strip())
    }
    assert not orphans, "modules that no notebook exports"


def test_no_public_name_is_a_submodule():
    import ftkit

    stems = {p.stem for p in PACKAGE.iterdir()}
    assert not stems & set(ftkit.__all__), "`ft.name()` would turn into a module"


def test_version():
    import ftkit

    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    assert ftkit.__version__ == parser["DEFAULT"]["version"]


STARTS = {
    "import": "import ftkit",
    "list": (
        "import ftkit.cli\nsys.argv = ['ftkit', 'list']\ntry: ftkit.cli.main()\nexcept SystemExit as e: assert not"
        " e.code, e.code"
    ),
}


@pytest.mark.parametrize("what, most", [("import", 20), ("list", 150)])
def test_starting_is_light(what, most):
    "Counted in modules, which no busy machine changes."
    code = (
        f"import json, sys\nbefore = set(sys.modules)\n{STARTS[what]}\nprint(json.dumps(sorted(set(sys.modules) -"
        " before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert not set(HEAVY) & set(loaded)
    assert len(loaded) <= most, loaded
