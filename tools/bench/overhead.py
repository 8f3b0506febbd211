"""The learner's overhead over a bare PyTorch loop on the same batches: paired, alternating, in CPU time of this process.

    python tools/bench --overhead [--pairs 20] [--steps 30]
"""
import argparse, json, os, statistics, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.update(FTKIT_QUIET="1", IN_TEST="1", HF_HUB_OFFLINE="1")

import torch
import ftkit as ft
from ftkit.core import seed_everything, versions, write_json
from ftkit.data.batching import Batches
from ftkit.data.reviews import reviews
from ftkit.methods.core import set_modes
from ftkit.tasks.text_classification import TextClassification
from ftkit.train import Learner, factor


def setting(method, steps):
    "A model with a method on it, and batches: the same for both loops."
    seed_everything(0)
    task = TextClassification(classes=["negative", "positive"])
    ck = ft.load("bert-mini", task=task, classes=task.classes)
    data = reviews(rows=32 * steps, seed=0)
    method.attach(ck.model)
    return ck.model, task, Batches(task.encode(data, ck.processor), task.collate, 32)


def bare(method, steps):
    "What one would write by hand: forward, loss, backward, clip, step."
    model, task, batches = setting(method, steps)
    groups = method.param_groups(model)
    peaks = [g["lr"] for g in groups]
    optimizer = torch.optim.AdamW(groups, fused=True)
    params = [p for g in groups for p in g["params"]]
    set_modes(model)
    started = time.process_time()
    for i, (batch,) in enumerate(batches):
        loss, n = task.loss(task.forward(model, batch), batch)
        (loss / n).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for g, peak in zip(optimizer.param_groups, peaks): g["lr"] = peak * factor(i, steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.process_time() - started, model


def ours(method, steps):
    "The learner on the same batches."
    model, task, batches = setting(method, steps)
    learner = Learner(model, batches, lambda l, b: task.loss(task.forward(l.model, b), b), method, steps=steps, device="cpu")
    started = time.process_time()
    learner.fit()
    return time.process_time() - started, model


def overhead(method, pairs, steps):
    "The ratio of CPU times, pair by pair."
    ratios = []
    for i in range(pairs):
        first, second = (ours, bare) if i % 2 else (bare, ours)
        (a, m1), (b, m2) = first(method, steps), second(method, steps)
        if i == 0: gap = max((x - y).abs().max().item() for x, y in zip(m1.parameters(), m2.parameters()))
        ratios.append(a / b if i % 2 else b / a)
    quarter = statistics.quantiles(ratios, n=4)
    return dict(method=repr(method), median=statistics.median(ratios), low=quarter[0], high=quarter[2], pairs=pairs, steps=steps, largest_weight_difference=gap)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--pairs", type=int, default=20)
    p.add_argument("--steps", type=int, default=30)
    a = p.parse_args()
    rows = [overhead(m, a.pairs, a.steps) for m in (ft.Full(), ft.LoRA())]
    for r in rows: print(f"{r['method']:<10} learner / bare loop, CPU time: median {r['median']:.3f} (quartiles {r['low']:.3f} to {r['high']:.3f}, {r['pairs']} pairs of {r['steps']} steps); weights differ by {r['largest_weight_difference']:.1e}")
    write_json(ROOT / "bench" / "overhead.json", dict(rows=rows, threads=torch.get_num_threads(), versions=versions()))


if __name__ == "__main__": main()
