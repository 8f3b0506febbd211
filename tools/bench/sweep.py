"""The cost of twenty learning rates for one head: consecutive processes that share a cache directory"""

import tempfile

from .processes import job
from .record import FIT, JOB_METHODS, SPEED, TEXT, Declared

DECLARED = Declared(
    what="twenty heads on one frozen backbone, a process each, in forward passes of the backbone",
    measures=(*FIT, *SPEED, *TEXT, *JOB_METHODS, "tools/bench/job.py", "tools/bench/work.py"),
    epochs=250,
    needs="FTKIT_DATA with sst2",
)


def measure(rows: int = 4000, runs: int = 20, work: str = "sst2-base") -> dict:
    "Seconds of lookup, caching and training for each learning rate, and of one epoch without the cache."
    with tempfile.TemporaryDirectory() as home:
        fixed = (work, "head", "kit", "--rows", rows)
        job(*fixed, "--steps", 1, "--cache", 0, home=home)
        without = job(*fixed, "--epochs", 1, "--cache", 0, home=home)
        each = [job(*fixed, "--epochs", 3, "--rate", 10 ** (-4 + i / 8), home=home) for i in range(runs)]
    inside = [r["inside"] for r in each]
    passes = sum(inside) / without["inside"]
    others = sum(inside[1:]) / (runs - 1)
    print(f"{runs} runs of 3 epochs: {passes:.2f} passes; the first {inside[0]:.2f} s, the others {others:.2f} s each")
    return dict(
        work=work,
        rows=rows,
        runs=runs,
        one_epoch_without=without["inside"],
        seconds=inside,
        total=sum(inside),
        passes=passes,
        whole=[r["seconds"] for r in each],
    )
