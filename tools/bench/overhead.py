"""The learner's overhead over a plain PyTorch loop on the same batches: paired, alternating, in CPU time.

The plain loop runs with PyTorch's kernels, and again with ftkit's kernels, which shows the overhead of the loop alone.
"""

import os
import statistics
import time
from contextlib import nullcontext

from .record import BERT, SPEED, TEXT, Declared

DECLARED = Declared(
    what="CPU time of the learner relative to a plain PyTorch loop on the same batches",
    measures=(
        "ftkit/training/learner.py",
        *SPEED,
        *TEXT,
        *BERT,
        "ftkit/methods/base.py",
        "ftkit/methods/lora.py",
        "ftkit/datasets/reviews.py",
    ),
    epochs=150,
)


def setting(method, steps: int) -> tuple:
    "A model with a method attached, and batches: the same for both loops."
    import ftkit as ft
    from ftkit.core import seed_everything
    from ftkit.data.batching import DataLoader
    from ftkit.datasets.reviews import reviews
    from ftkit.tasks.text_classification import TextClassification

    seed_everything(0)
    task = TextClassification(classes=["negative", "positive"])
    ck = ft.load("bert-mini", task=task, classes=task.classes)
    data = reviews(rows=32 * steps, seed=0)
    method.attach(ck.model)
    return ck.model, task, DataLoader(task.encode(data, ck.processor), task.collate, 32)


def bare(method, steps: int, kernels: bool = False) -> tuple:
    "A plain PyTorch loop: forward, loss, backward, clip, step. Returns CPU seconds and the model."
    import torch

    from ftkit.methods.base import set_modes
    from ftkit.models.cpu_kernels import cpu_kernels, keep_heap
    from ftkit.training.learner import lr_multiplier

    model, task, batches = setting(method, steps)
    groups = method.param_groups(model)
    peaks = [g["lr"] for g in groups]
    optimizer = torch.optim.AdamW(groups, fused=True)
    params = [p for g in groups for p in g["params"]]
    set_modes(model)
    started = time.process_time()
    with keep_heap("cpu") if kernels else nullcontext(), cpu_kernels(model, "cpu" if kernels else "meta"):
        for i, (batch,) in enumerate(batches):
            loss, n = task.loss(task.forward(model, batch), batch)
            (loss / n).backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            for g, peak in zip(optimizer.param_groups, peaks):
                g["lr"] = peak * lr_multiplier(i, steps)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return time.process_time() - started, model


def ours(method, steps: int) -> tuple:
    "The learner on the same batches. Returns CPU seconds and the model."
    from ftkit.training.learner import Learner

    model, task, batches = setting(method, steps)
    learner = Learner(
        model,
        batches,
        lambda learner, b: task.loss(task.forward(learner.model, b), b),
        method,
        steps=steps,
        device="cpu",
    )
    started = time.process_time()
    learner.fit()
    return time.process_time() - started, model


LOOPS = {"learner": ours, "bare loop": bare, "bare loop, same kernels": lambda m, s: bare(m, s, kernels=True)}


def overhead(method, rounds: int, steps: int) -> list[dict]:
    "CPU time of the learner relative to each plain loop, per round, and the largest difference of the weights."
    seconds, ends = {name: [] for name in LOOPS}, {}
    for i in range(rounds):
        for name in list(LOOPS)[:: -1 if i % 2 else 1]:
            t, ends[name] = LOOPS[name](method, steps)
            seconds[name].append(t)
    found = []
    for name in list(LOOPS)[1:]:
        pairs = zip(ends["learner"].parameters(), ends[name].parameters())
        gap = max((x - y).abs().max().item() for x, y in pairs)
        low, median, high = statistics.quantiles([a / b for a, b in zip(seconds["learner"], seconds[name])], n=4)
        found.append(
            dict(
                method=repr(method),
                against=name,
                median=median,
                low=low,
                high=high,
                rounds=rounds,
                steps=steps,
                largest_weight_difference=gap,
            )
        )
        print(f"{method!r:<10} learner / {name}: median {median:.3f}, quartiles {low:.3f} to {high:.3f}", flush=True)
    return found


def measure(rounds: int = 20, steps: int = 30) -> dict:
    "Full fine-tuning and LoRA."
    os.environ.update(FTKIT_QUIET="1", IN_TEST="1", HF_HUB_OFFLINE="1")
    import ftkit as ft

    return dict(rows=[r for m in (ft.Full(), ft.LoRA()) for r in overhead(m, rounds, steps)])
