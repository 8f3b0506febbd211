"""The support matrix: every method on a tiny model of every family, tested with the invariants"""

import os

from .record import Declared

DECLARED = Declared(
    what="every method on every family: works, or refuses with a reason",
    measures=("ftkit/testing/invariants.py", "ftkit/models/anatomy.py", "ftkit/deltas/io.py", "ftkit/methods/*.py"),
    epochs=160,
)


def measure(only: tuple = ()) -> dict:
    "A cell for each method and family, from `matrix_cell`; with `only`, for some methods."
    os.environ.update(FTKIT_QUIET="1", IN_TEST="1", HF_HUB_OFFLINE="1")
    from ftkit.core import METHODS
    from ftkit.testing.invariants import FAMILIES, matrix_cell

    cells = []
    for name in only or METHODS:
        cells += [{"name": name, **matrix_cell(name, family)} for family in FAMILIES]
        print(f"{name:18s}{[c['cell'] for c in cells[-len(FAMILIES) :]]}", flush=True)
    return dict(families=list(FAMILIES), cells=cells)
