"""The package is what the notebooks export, and importing it is light"""
import json
import re
import shutil
import subprocess
import sys
import time
from configparser import ConfigParser
from statistics import median

import pytest
from conftest import NBS, ROOT, pages

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
    done = subprocess.run([sys.executable, "-c", code, *pages()], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    fresh = {p.relative_to(tmp_path / "ftkit").as_posix(): p.read_text(encoding="utf-8") for p in (tmp_path / "ftkit").rglob("*.py")}
    stale = [name for name, text in fresh.items() if not (PACKAGE / name).exists() or (PACKAGE / name).read_text(encoding="utf-8") != text]
    assert not stale, "run `make export`"


def test_no_orphan_modules():
    targets = {"__init__.py", "_modidx.py"}
    for page in pages():
        for cell in json.loads((NBS / page).read_text(encoding="utf-8"))["cells"]:
            targets |= {m.replace(".", "/") + ".py" for m in re.findall(r"^#\|\s*default_exp\s+(\S+)", "".join(cell["source"]), re.M)}
    orphans = {m for m in modules() - targets if not (m.endswith("/__init__.py") and not (PACKAGE / m).read_text(encoding="utf-8").strip())}
    assert not orphans, "modules that no notebook exports"


def test_no_public_name_is_a_submodule():
    import ftkit
    stems = {p.stem if p.name != "__init__.py" else p.parent.name for p in PACKAGE.rglob("*.py")}
    assert not stems & set(ftkit.__all__), "`ft.name()` would turn into a module"


def test_version():
    import ftkit
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    assert ftkit.__version__ == parser["DEFAULT"]["version"]


def seconds(*args):
    "The median of five starts, each by the clock that a busy machine disturbs least, and what was said."
    taken = []
    for _ in range(5):
        wall = time.perf_counter()
        done = subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True)
        wall = time.perf_counter() - wall
        assert done.returncode == 0, done.stderr[-2000:]
        cpu = re.search(r"cpu ([\d.]+)", done.stderr)
        taken.append(min(wall, float(cpu[1])) if cpu else wall)
    return median(taken), done


@pytest.mark.parametrize("what", ["import", "list"])
def test_starting_is_light(what):
    act = {"import": "import ftkit", "list": "import ftkit.cli\nsys.argv = ['ftkit', 'list']\ntry: ftkit.cli.main()\nexcept SystemExit as e: assert not e.code, e.code"}[what]
    if what == "list" and not (PACKAGE / "cli.py").exists():
        pytest.skip("the command line is not there yet")
    code = f"import sys, time\nt = time.process_time()\n{act}\nheavy = [m for m in {HEAVY!r} if m in sys.modules]\n" \
           "assert not heavy, heavy\nprint('cpu', time.process_time() - t, file=sys.stderr)"
    took, _ = seconds("-c", code)
    assert took < 0.3
