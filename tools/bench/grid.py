"""Quality of autotuning: complete training steps in every execution config, compared with the selected one"""

import os
import statistics
import tempfile
import time
from dataclasses import asdict

from .record import BERT, JOB_METHODS, SPEED, TEXT, Declared

WORKS = ("sst2", "varied", "pictures", "sst2-base")
DECLARED = Declared(
    what="a training step in every execution config, compared with the one selected by autotuning",
    measures=(*SPEED, *TEXT, *BERT, *JOB_METHODS, "tools/bench/job.py", "tools/bench/work.py"),
    epochs=200,
    needs="FTKIT_DATA with sst2, instructions and fashion_mnist",
)


def setting(work: str, method: str, rows: int = 32) -> tuple:
    "A model with a method attached, its task, the batch used for autotuning, and a complete batch."
    from ftkit.methods.base import set_modes
    from ftkit.speed.execution import median_length_batch

    from . import work as works

    w = works.WORKS[work]
    train, _ = w.data(200)
    names = works.names_of(w, train)
    model, task, found = w.model(len(names)), works.task_of(w, names), works.encode(w, train, names)
    works.METHODS[method].attach(model)
    set_modes(model)
    return (
        model,
        task,
        task.collate(found, median_length_batch(found, rows)),
        task.collate(found, median_length_batch(found, rows, tokens=10**9)),
    )


def step(model, task, batch, optimizer, precision: str):
    "One step of training."
    import torch

    from ftkit.speed.execution import autocast

    with autocast(precision, torch.device("cpu")):
        loss, n = task.loss(task.forward(model, batch), batch)
    (loss / n).backward()
    optimizer.step()
    optimizer.zero_grad()


def grid(model, task, batch, repeats: int) -> dict:
    "Median seconds of a step in every execution config; the first round is not counted."
    import torch

    from ftkit.models.cpu_kernels import cpu_kernels
    from ftkit.speed.execution import candidate_configs

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, times = torch.optim.AdamW(trained, lr=1e-5, fused=True), {w: [] for w in candidate_configs()}
    for _ in range(repeats + 1):
        for way, t in times.items():
            with way.used(), cpu_kernels(model):
                began = time.perf_counter()
                step(model, task, batch, optimizer, way.precision)
            t.append(time.perf_counter() - began)
    return {w: statistics.median(t[1:]) for w, t in times.items()}


def against_grid(work: str, method: str, repeats: int) -> dict:
    "The config selected by autotuning, its duration, and the median seconds of a step in every config."
    import torch

    from ftkit.speed.execution import autotune

    model, task, part, batch = setting(work, method)
    with tempfile.TemporaryDirectory() as home:
        os.environ["FTKIT_HOME"] = home
        began = time.perf_counter()
        picked = autotune(model, task, part, device=torch.device("cpu"))
        took = time.perf_counter() - began
    medians = grid(model, task, batch, repeats)
    ratio = medians[picked] / min(medians.values())
    best = min(medians, key=medians.get)
    print(f"{work:10s}{method:6s}picked {picked} in {took:.2f} s: {ratio:.2f} of the best, {best}", flush=True)
    return dict(
        work=work,
        method=method,
        picked=asdict(picked),
        seconds=took,
        ratio=ratio,
        grid=[{**asdict(w), "seconds": m} for w, m in medians.items()],
    )


def measure(repeats: int = 7, only: tuple = ()) -> dict:
    "Every workload, with full fine-tuning and LoRA."
    return dict(rows=[against_grid(w, m, repeats) for w in only or WORKS for m in ("full", "lora")])
