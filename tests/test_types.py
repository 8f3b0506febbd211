"""Types: pyright finds nothing in the package, and every argument of a public function or method has a type"""

import ast
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec

import pytest
from conftest import ROOT

TYPED = ("torch", "transformers", "datasets", "numpy", "pandas", "matplotlib", "pillow", "pyright")
MODULES = [m for m in sorted((ROOT / "ftkit").rglob("*.py")) if m.name not in ("_modidx.py", "__init__.py")]


def pinned_versions() -> dict[str, str]:
    "The versions in constraints.txt."
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.M))


def untyped(body: list, prefix: str = ""):
    "(function, argument) for public functions, and methods of public classes."
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from untyped(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and (node.name == "__init__" or not node.name.startswith("_")):
            a = node.args
            every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
            own = every[1:] if prefix and every and every[0].arg in ("self", "cls") else every
            yield from ((prefix + node.name, arg.arg) for arg in own if arg.annotation is None)


@pytest.mark.fast
def test_public_arguments_have_types():
    trees = {m.relative_to(ROOT).as_posix(): ast.parse(m.read_text(encoding="utf-8")) for m in MODULES}
    assert not [(name, *found) for name, tree in trees.items() for found in untyped(tree.body)]


def test_an_argument_without_a_type_is_found():
    code = "class A:\n    def f(self, x, *more): ...\n    def _g(self, y): ...\ndef h(z: int, k=1): ..."
    assert [*untyped(ast.parse(code).body)] == [("A.f", "x"), ("A.f", "more"), ("h", "k")]


@pytest.mark.skipif(not find_spec("pyright"), reason="pyright is not installed")
def test_pyright_finds_nothing():
    tested = pinned_versions()
    for name in TYPED:
        if metadata.version(name) != tested[name]:
            pytest.skip(f"types are checked with {name} {tested[name]}")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"],
        cwd=ROOT,
        env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
    )
    report = json.loads(done.stdout)
    errors = [d for d in report["generalDiagnostics"] if d["severity"] == "error"]
    assert report["summary"]["filesAnalyzed"] > 100
    assert not errors, "\n".join(f"{d['file']}:{d['range']['start']['line'] + 1} {d['message']}" for d in errors)
