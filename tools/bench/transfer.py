"""What pretraining is worth on real pictures: both minis, two sets, three sizes, four methods, pretrained and random, five seeds.

    FTKIT_DATA=... python tools/bench transfer [--only resnet-mini] [--repeats 5]

The error is 1 - accuracy on digits and 1 - AUC on X-rays (PneumoniaMNIST, where it is at hand). Every run has the same steps, and is judged once, on the set's own test part.
Each method runs at its own rate. What suits pretrained weights need not suit random ones; so at 200 rows all of the model is also trained at six rates, and each start is given its best, chosen on the rows it is judged by: an upper bound for both.
"""
import os, statistics
from pathlib import Path

METHODS = ("head", "gradual_unfreeze", "full", "lora")
SIZES = {50: 40, 200: 80, 1000: 160}  # rows -> optimiser steps
RATES = (0.2, 0.5, 1, 2, 5, 10)  # times a method's own


def xrays():
    "PneumoniaMNIST's train and test parts as rows, or None."
    import numpy as np
    from ftkit.data.pictures import of_values
    file = Path(os.environ.get("FTKIT_DATA", "data")) / "pneumonia_mnist" / "pneumonia_mnist.npz"
    if not file.exists(): return None
    z = np.load(file)
    return tuple(of_values(list(z[f"{p}_images"]), z[f"{p}_labels"].tolist(), ["normal", "pneumonia"]) for p in ("train", "test"))


def sets():
    "name -> (rows to draw from, test rows, metric)."
    from ftkit.data.digits import digits
    found = {"digits": (digits(1197), digits(600, "test"), "accuracy")}
    if (real := xrays()): found["pneumonia"] = (*real, "auc")
    return found


def drawn(pool, seed, size):
    "Rows of a seed."
    import numpy as np
    return pool.select(np.random.default_rng([seed, size]).permutation(len(pool))[:size])


def one(mini, train, test, metric, method, steps, pretrained, seed, lr=None) -> dict:
    "One run, judged once."
    import ftkit as ft
    from ftkit.run import evaluate_rows
    run = ft.finetune(mini, train, method, task="image-classification", valid=None, steps=steps, batch_size=32, seed=seed, pretrained=pretrained, lr=lr, progress=False, keep="last", precision="fp32")
    return {metric: evaluate_rows(run.model, run.task, run.task.encode(test, run.processor))[metric], "seconds": run.resources["seconds"]}


def transfer(seeds, minis):
    "All runs, and one line for each mini, set, size and method."
    os.environ["FTKIT_QUIET"] = "1"
    rows = []
    for mini in minis or ("resnet-mini", "vit-mini"):
        for name, (pool, test, metric) in sets().items():
            for size, steps in SIZES.items():
                for method in METHODS:
                    found = {True: [], False: []}
                    for seed in range(seeds):
                        train = drawn(pool, seed, size)
                        for start in found: found[start].append(one(mini, train, test, metric, method, steps, start, seed)[metric])
                    mean = {s: statistics.fmean(v) for s, v in found.items()}
                    rows.append(dict(mini=mini, data=name, rows=size, method=method, metric=metric, pretrained=mean[True], random=mean[False], spread=statistics.stdev(found[True]) if seeds > 1 else 0.0,
                                     taken_away=1 - (1 - mean[True]) / max(1e-9, 1 - mean[False]), all=found))
                    print(f"{mini:12s}{name:11s}{size:5d}  {method:17s}{mean[True]:.3f} against {mean[False]:.3f}: {rows[-1]['taken_away']:+.0%} of the error", flush=True)
            rows.append(at_its_best(mini, name, pool, test, metric, seeds))
            print(f"{mini:12s}{name:11s}  200  {'full, best rates':17s}{rows[-1]['pretrained']:.3f} against {rows[-1]['random']:.3f}: {rows[-1]['taken_away']:+.0%} of the error", flush=True)
    return rows


def at_its_best(mini, name, pool, test, metric, seeds, size=200) -> dict:
    "All of the model trained on 200 rows, each start at the best of six rates."
    from statistics import fmean
    import ftkit as ft
    own = ft.Full().plan(ft.load(mini, task="image-classification", num_labels=2, seed=0).anatomy).lr
    found = {s: {k * own: fmean(one(mini, drawn(pool, seed, size), test, metric, "full", SIZES[size], s, seed, k * own)[metric] for seed in range(seeds)) for k in RATES} for s in (True, False)}
    best = {s: max(v.values()) for s, v in found.items()}
    return dict(mini=mini, data=name, rows=size, method="full, best rates", metric=metric, pretrained=best[True], random=best[False], taken_away=1 - (1 - best[True]) / max(1e-9, 1 - best[False]), all={str(s): v for s, v in found.items()})
