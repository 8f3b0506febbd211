"Every method on every family: it keeps the laws, or refuses with a reason. What comes out is the support matrix of the docs."
import json
from pathlib import Path

import pytest
from ftkit.core import METHODS, write_json
from ftkit.testing import FAMILIES, cell

FILE = Path(__file__).resolve().parents[1] / "bench" / "matrix.json"
found = []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_cell(method, family):
    c = cell(method, family)
    found.append({"name": method, **c})
    assert c["cell"] in ("works", "cannot"), c["note"]
    if c["cell"] == "cannot": assert len(c["note"]) > 40 and c["note"].endswith((".", "method.", "target_modules`.")) and "Traceback" not in c["note"]


def test_most_cells_work_and_the_file_says_what_was_run():
    if len(found) < len(METHODS) * len(FAMILIES): pytest.skip("only part of the matrix was run")
    works = sum(c["cell"] == "works" for c in found)
    assert works >= 0.8 * len(found)
    write_json(FILE, dict(families=list(FAMILIES), cells=found))
    assert json.loads(FILE.read_text(encoding="utf-8"))["cells"] == found
