"""The speed-up of the feature cache compared with the limit given by the formula: complete jobs with and without it.

Each run has its own process. The limit is counted in operations: f below the boundary, a above it,
(f + 3a) E without the cache and (f + 3a) + 3a (E - 1) with it.
"""

import tempfile

from .processes import job
from .record import FIT, JOB_METHODS, SPEED, TEXT, Declared

# Full-size models; number of rows for a head alone, where fixed costs matter more, and for two blocks.
ROWS = {"sst2-base": (1200, 400), "pictures-base": (800, 120), "resnet50": (2000, 600)}
DECLARED = Declared(
    what="jobs with and without the cache of frozen layers, compared with the limit given by the formula",
    measures=(*FIT, *SPEED, *TEXT, *JOB_METHODS, "tools/bench/job.py", "tools/bench/work.py"),
    epochs=3000,
    needs="FTKIT_DATA with sst2 and fashion_mnist",
)


def operations(work: str, method: str) -> tuple[int, int]:
    "Operations of a forward pass below the boundary and above it."
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ftkit.methods.base import set_modes
    from ftkit.speed.feature_cache import find_frozen_prefix

    from . import work as works

    w = works.WORKS[work]
    train, _ = w.data(8)
    names = works.names_of(w, train)
    model, task, rows = w.model(len(names)), works.task_of(w, names), works.encode(w, train, names)
    works.METHODS[method].attach(model)
    set_modes(model)
    trunk = find_frozen_prefix(model, task, rows)
    batch = task.collate(rows, range(8))
    counter = FlopCounterMode(display=False, depth=None)
    with counter, torch.no_grad():
        task.forward(model, batch)
    found = {k.partition(".")[2]: sum(v.values()) for k, v in counter.get_flop_counts().items()}
    below = sum(found.get(u, 0) for u in trunk.units)
    return below, counter.get_total_flops() - below


def limit(below: float, above: float, epochs: int) -> float:
    "The largest possible speed-up by the cache."
    return (below + 3 * above) * epochs / ((below + 3 * above) + 3 * above * (epochs - 1))


def case(work: str, method: str, rows: int, epochs: int, allowed: float) -> dict:
    "One job without and with the cache; both use the result of the same autotuning."
    common = ("--rows", rows, "--precision", "fp32")
    with tempfile.TemporaryDirectory() as home:
        probe = job(work, method, "kit", *common, "--steps", 1, "--cache", 0, home=home)
        off, on = (job(work, method, "kit", *common, "--epochs", epochs, "--cache", c, home=home) for c in (0, 1))
    reached = off["seconds"] / on["seconds"]
    seconds = f"{off['seconds']:7.1f} s {on['seconds']:7.1f} s"
    print(f"{work:14s}{method:6s}E={epochs:<4d}{seconds}   {reached:5.2f} of {allowed:5.2f}", flush=True)
    return dict(
        work=work,
        method=method,
        epochs=epochs,
        rows=rows,
        disabled=off["seconds"],
        on=on["seconds"],
        reached=reached,
        limit=allowed,
        share=reached / allowed,
        quality=(off["quality"], on["quality"]),
        way=probe["way"],
    )


def measure(epochs: tuple = (3, 10, 30), rows: int = 0, only: tuple = ()) -> dict:
    "Seconds with and without the cache, and the limit; `rows=0` uses the number of rows of each workload."
    found = []
    for work in only or ROWS:
        for method, usual in zip(("head", "top2"), ROWS[work]):
            below, above = operations(work, method)
            found += [case(work, method, rows or usual, e, limit(below, above, e)) for e in epochs]
    return dict(rows=found)
