"""Every method on every family: it keeps the laws, or refuses with a reason.

What comes out is the support matrix of the docs.
"""

import pytest

from ftkit.core import METHODS, evidence, versions
from ftkit.testing.invariants import FAMILIES, matrix_cell

found = []


@pytest.mark.sweep("method", "family")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_cell(method, family):
    c = matrix_cell(method, family)
    found.append({"name": method, **c})
    assert c["cell"] in ("works", "cannot"), c["note"]
    if c["cell"] == "cannot":
        assert (
            len(c["note"]) > 40
            and c["note"].endswith((".", "method.", "target_modules`."))
            and "Traceback" not in c["note"]
        )


def test_the_stored_matrix_is_what_was_run():
    "Of the cells that ran here, sampled or all; `make evidence NAME=matrix` measures the whole matrix."
    stored = evidence("matrix")
    cells = {(c["name"], c["family"]): (c["cell"], c["note"]) for c in stored.values["cells"]}
    assert cells.keys() == {(method, family) for method in METHODS for family in FAMILIES}
    assert sum(cell == "works" for cell, _ in cells.values()) >= 0.8 * len(cells)
    if stored.record["versions"] != versions():
        pytest.skip("the stored matrix was measured with other versions of the libraries")
    other = {
        (c["name"], c["family"]): (c["cell"], c["note"])
        for c in found
        if cells[c["name"], c["family"]] != (c["cell"], c["note"])
    }
    assert not other, "make evidence NAME=matrix"
