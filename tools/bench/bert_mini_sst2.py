"""bert-mini on real sentences (SST-2): full fine-tuning from pretrained and random weights, at three sizes.

The epoch is selected on the validation set, and the test set is evaluated once.
"""

import os
from pathlib import Path

from .record import BERT, FIT, ROOT, TEXT, Declared

BUDGET = {200: 150, 1000: 250, 6920: 650}  # training examples -> optimiser steps
DECLARED = Declared(
    what="bert-mini on SST-2, from pretrained and from random weights, at three dataset sizes",
    measures=(*FIT, *TEXT, *BERT, "ftkit/methods/base.py", "ftkit/methods/full.py"),
    epochs=300,
    seeds=(0, 1, 2),
    needs="FTKIT_DATA with sst2",
)


def file_of(name: str) -> Path:
    "The file of a split of SST-2: train, dev or test."
    return Path(os.environ.get("FTKIT_DATA") or ROOT.parent / "shared" / "data") / "sst2" / f"{name}.tsv"


def lines_of(name: str) -> dict:
    "The texts and labels of a split."
    pairs = [line.split("\t") for line in file_of(name).read_text(encoding="utf-8").splitlines()[1:]]
    return {"text": [t for t, _ in pairs], "label": [label for _, label in pairs]}


def one(rows: int, seed: int, pretrained: bool) -> tuple[float, float]:
    "Accuracy on the validation and test sets after fine-tuning on `rows` examples."
    import numpy as np
    from datasets import Dataset

    import ftkit as ft
    from ftkit.tasks.base import evaluate

    train, test = lines_of("train"), lines_of("test")
    chosen = np.random.default_rng(seed).permutation(len(train["text"]))[:rows]
    data = {k: [v[i] for i in chosen] for k, v in train.items()}
    run = ft.finetune(
        "bert-mini", data, "full", valid=str(file_of("dev")), steps=BUDGET[rows], seed=seed, pretrained=pretrained
    )
    held = run.task.encode(Dataset.from_dict(test), run.processor)
    return run.metrics["accuracy"], evaluate(run.model, run.task, held)["accuracy"]


def measure(seeds: tuple = DECLARED.seeds) -> dict:
    "Means over seeds, the standard deviation on the validation set, and every value."
    os.environ["FTKIT_QUIET"] = "1"
    import numpy as np

    found = []
    for rows in BUDGET:
        for start in ("pretrained", "random"):
            each = np.array([one(rows, seed, start == "pretrained") for seed in seeds])
            valid, test = each.T
            spread = float(valid.std(ddof=1)) if len(seeds) > 1 else 0.0
            found.append(
                {
                    "rows": rows,
                    "start": start,
                    "accuracy": float(valid.mean()),
                    "spread": spread,
                    "test accuracy": float(test.mean()),
                    "all": each.tolist(),
                }
            )
            print(rows, start, f"{valid.mean():.3f} on validation, {test.mean():.3f} on test", flush=True)
    return dict(rows=found)
