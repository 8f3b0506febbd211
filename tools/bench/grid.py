"""How well the probe chooses: whole training steps in every way, beside the way it picked.

    python tools/bench grid [--only sst2,sst2-base]
"""
import os, statistics, sys, tempfile, time
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import torch
import jobs
from ftkit.kernels import faster
from ftkit.methods.core import set_modes
from ftkit.probe import autocast, ordinary, probed, ways

CPU = torch.device("cpu")


def setting(work, method, rows=32):
    "A model with a method on it, its task, the batch that the probe sees, and a whole one."
    w = jobs.WORKS[work]
    train, _ = w.data(200)
    names = jobs.names_of(w, train)
    model, task, found = w.model(len(names)), jobs.task_of(w, names), jobs.encode(w, train, names)
    jobs.METHODS[method].attach(model)
    set_modes(model)
    return model, task, task.collate(found, ordinary(found, rows)), task.collate(found, ordinary(found, rows, tokens=10**9))


def step(model, task, batch, optimizer, precision):
    "One step of training."
    with autocast(precision, CPU): loss, n = task.loss(task.forward(model, batch), batch)
    (loss / n).backward()
    optimizer.step()
    optimizer.zero_grad()


def against_grid(work, method, repeats=7):
    "What the probe picked and took, and the median seconds of a step in every way."
    model, task, part, batch = setting(work, method)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    with tempfile.TemporaryDirectory() as home:
        os.environ["FTKIT_HOME"] = home
        began = time.perf_counter()
        picked = probed(model, task, part, device=CPU)
        took = time.perf_counter() - began
    times = {w: [] for w in ways()}
    for i in range(repeats + 1):
        for way, t in times.items():
            with way.used(), faster(CPU):
                began = time.perf_counter()
                step(model, task, batch, optimizer, way.precision)
            if i: t.append(time.perf_counter() - began)
    medians = {w: statistics.median(t) for w, t in times.items()}
    ratio = medians[picked] / min(medians.values())
    print(f"{work:10s}{method:6s}picked {picked} in {took:.2f} s: {ratio:.2f} of the best, {min(medians, key=medians.get)}", flush=True)
    return dict(work=work, method=method, picked=asdict(picked), seconds=took, ratio=ratio, grid=[{**asdict(w), "seconds": m} for w, m in medians.items()])


def grid(works):
    "Every work, full and LoRA."
    return [against_grid(w, m) for w in works for m in ("full", "lora")]
