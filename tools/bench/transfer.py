"""The effect of pretraining on real images: two minis, datasets and initialisations, three sizes, four methods.

The error is 1 - accuracy on digits and 1 - AUC on X-rays (PneumoniaMNIST). Every run has the same steps and is
evaluated once, on the test set. Each method uses its own learning rate. A learning rate that suits pretrained weights
need not suit random ones; so at 200 rows the whole model is also trained at six learning rates, and each
initialisation uses the best of them, selected on the test rows: an upper bound for both.
"""

import os
import statistics
from pathlib import Path

from .record import FIT, IMAGES, ROOT, Declared

METHODS = ("linear_probe", "gradual_unfreeze", "full", "lora")
SIZES = {50: 40, 200: 80, 1000: 160}  # training examples -> optimiser steps
RATES = (0.2, 0.5, 1, 2, 5, 10)  # relative to the method's own
DECLARED = Declared(
    what="resnet-mini and vit-mini from pretrained and from random weights, on digits and X-rays",
    measures=(
        *FIT,
        *IMAGES,
        *(f"ftkit/methods/{m}.py" for m in ("base", *METHODS, "lora_linear", "peft_bridge")),
        "ftkit/datasets/digits.py",
        "ftkit/zoo/resnet_mini/model.safetensors",
        "ftkit/zoo/vit_mini/model.safetensors",
    ),
    epochs=2100,
    seeds=(0, 1, 2, 3, 4),
    needs="FTKIT_DATA with pneumonia_mnist",
)


def xrays() -> tuple:
    "PneumoniaMNIST's train and test splits as rows."
    import numpy as np

    from ftkit.data.images import image_dataset

    data = Path(os.environ.get("FTKIT_DATA") or ROOT.parent / "shared" / "data")
    z = np.load(data / "pneumonia_mnist" / "pneumonia_mnist.npz")
    names = ["normal", "pneumonia"]
    return tuple(image_dataset(list(z[f"{p}_images"]), z[f"{p}_labels"].tolist(), names) for p in ("train", "test"))


def sets() -> dict:
    "name -> (rows to sample from, test rows, metric)."
    from ftkit.datasets.digits import digits

    return {"digits": (digits(1197), digits(600, "test"), "accuracy"), "pneumonia": (*xrays(), "auc")}


def drawn(pool, seed: int, size: int):
    "A random sample of `size` rows for a seed."
    import numpy as np

    return pool.select(np.random.default_rng([seed, size]).permutation(len(pool))[:size])


def one(mini: str, train, test, metric: str, method: str, steps: int, pretrained: bool, seed: int, lr=None) -> float:
    "The metric of one run, evaluated once."
    import ftkit as ft
    from ftkit.tasks.base import evaluate

    run = ft.finetune(
        mini,
        train,
        method,
        task="image-classification",
        valid=None,
        steps=steps,
        batch_size=32,
        seed=seed,
        pretrained=pretrained,
        lr=lr,
        show_progress=False,
        load_best=False,
        precision="fp32",
    )
    return evaluate(run.model, run.task, run.task.encode(test, run.processor))[metric]


def line(mini: str, data: str, rows: int, method: str, metric: str, mean: dict, every: dict, **more) -> dict:
    "One row of the table, which is also printed."
    gone = 1 - (1 - mean[True]) / max(1e-9, 1 - mean[False])
    means = f"{mean[True]:.3f} against {mean[False]:.3f}"
    print(f"{mini:12s}{data:11s}{rows:5d}  {method:17s}{means}: {gone:+.0%} of the error", flush=True)
    return dict(
        mini=mini,
        data=data,
        rows=rows,
        method=method,
        metric=metric,
        pretrained=mean[True],
        random=mean[False],
        **more,
        taken_away=gone,
        all={str(k).lower(): v for k, v in every.items()},
    )


def compared(mini: str, name: str, pool, test, metric: str, size: int, method: str, seeds: tuple) -> dict:
    "One method at one size, from pretrained and from random weights."
    found = {True: [], False: []}
    for seed in seeds:
        train = drawn(pool, seed, size)
        for start in found:
            found[start].append(one(mini, train, test, metric, method, SIZES[size], start, seed))
    mean = {s: statistics.fmean(v) for s, v in found.items()}
    spread = statistics.stdev(found[True]) if len(seeds) > 1 else 0.0
    return line(mini, name, size, method, metric, mean, found, spread=spread)


def at_its_best(mini: str, name: str, pool, test, metric: str, seeds: tuple, size: int = 200) -> dict:
    "The whole model trained on 200 rows, each initialisation at the best of six learning rates."
    import ftkit as ft

    own = ft.Full().plan(ft.load(mini, task="image-classification", num_labels=2, seed=0).anatomy).lr
    found = {True: {}, False: {}}
    for start, by_rate in found.items():
        for k in RATES:
            runs = [
                one(mini, drawn(pool, s, size), test, metric, "full", SIZES[size], start, s, k * own) for s in seeds
            ]
            by_rate[k * own] = statistics.fmean(runs)
    best = {s: max(v.values()) for s, v in found.items()}
    return line(mini, name, size, "full, best rates", metric, best, found)


def measure(seeds: tuple = DECLARED.seeds, only: tuple = ("resnet-mini", "vit-mini")) -> dict:
    "All runs, and one row for each mini, dataset, size and method."
    os.environ["FTKIT_QUIET"] = "1"
    rows = []
    for mini in only:
        for name, (pool, test, metric) in sets().items():
            rows += [
                compared(mini, name, pool, test, metric, size, method, seeds) for size in SIZES for method in METHODS
            ]
            rows.append(at_its_best(mini, name, pool, test, metric, seeds))
    return dict(rows=rows)
