"""The planted faults of tools/mutations.py fit the package as it is; `make mutations` runs them"""

import ast

import pytest
from conftest import ROOT

from tools.mutations import MUTATIONS, plant

pytestmark = pytest.mark.fast


def test_every_fault_finds_its_place(tmp_path):
    for file in {m.file for m in MUTATIONS}:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text((ROOT / "ftkit" / file).read_text(encoding="utf-8"), encoding="utf-8")
    for mutation in MUTATIONS:
        before = plant(mutation, tmp_path)
        after = (tmp_path / mutation.file).read_text(encoding="utf-8")
        assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(before)), mutation.what
        (tmp_path / mutation.file).write_text(before, encoding="utf-8")


def test_every_fault_names_tests_that_exist():
    assert len(MUTATIONS) >= 20 and len({m.what for m in MUTATIONS}) == len(MUTATIONS)
    for test in " ".join(m.tests for m in MUTATIONS).split():
        file, _, name = test.partition("::")
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef)
        }
        assert name.partition("[")[0] in functions, test
