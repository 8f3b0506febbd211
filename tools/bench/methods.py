"""Every method on one checkpoint and task: accuracy at three dataset sizes, parameters, bytes and cost"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from .record import BERT, FIT, SPEED, TEXT, Declared

SIZES = {64: 6, 320: 4, 1280: 3}  # training examples -> epochs
VALID = 300
NOT_HERE = ("vpt",)  # for images
LAST = ("adalora", "diff_pruning")  # these end with the pruned model
DECLARED = Declared(
    what="every method on bert-mini and reviews, at three dataset sizes: accuracy, seconds, memory, bytes",
    measures=(*FIT, *SPEED, *TEXT, *BERT, "ftkit/methods/*.py", "ftkit/datasets/reviews.py"),
    epochs=1400,
    seeds=(0, 1, 2, 3, 4),
)


def answer_ms(model, batch, others, rounds: int = 15) -> tuple[float, float]:
    "Milliseconds for a batch, and the ratio to the base model's, measured in alternation."
    import torch

    def once(m):
        began = time.perf_counter()
        with torch.inference_mode():
            m(**batch)
        return 1000 * (time.perf_counter() - began)

    for m in (model, others):
        once(m.eval())
    pairs = [(once(model), once(others)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(a / b for a, b in pairs)


def one(name: str, rows: int, epochs: int, seed: int):
    "One fine-tuning run."
    import ftkit as ft
    from ftkit.datasets.reviews import splits

    data = splits(train=rows, valid=VALID, difficulty=(1, 2), seed=seed)
    best = name not in LAST
    return ft.finetune(
        "bert-mini",
        data["train"],
        name,
        valid=data["valid"],
        epochs=epochs,
        seed=seed,
        allow_leakage=True,
        load_best=best,
    )


def stored(model) -> int:
    "Bytes of the delta on disk."
    import ftkit as ft

    with tempfile.TemporaryDirectory() as folder:
        return sum(f.stat().st_size for f in Path(ft.save_delta(model, folder)).rglob("*") if f.is_file())


def costs(runs: list) -> dict:
    "Trainable parameters, stored bytes, peak memory, and inference time before and after merging."
    import ftkit as ft
    from ftkit.datasets.reviews import splits
    from ftkit.methods.base import attached

    run, on = runs[0], attached(runs[0].model)
    base = ft.load("bert-mini", task=run.task, classes=run.task.classes, seed=0)
    texts = splits(train=32, valid=32, difficulty=(1, 2))["train"]["text"][:]
    batch = base.processor(texts, padding=True, return_tensors="pt")
    head = sum(p.numel() for n, p in on.trained.items() if on.anatomy.in_head(n))
    peak = statistics.median(r.resources["peak_memory"] for r in runs)
    found = dict(
        repr=repr(run.method),
        trainable=on.size(),
        head=head,
        total=run.resources["total"],
        bytes=stored(run.model),
        mergeable=run.method.mergeable,
        peak=peak,
    )
    found["ms"], found["times_base"] = answer_ms(run.model, batch, base.model)
    if run.method.mergeable:
        found["ms_merged"], found["times_base_merged"] = answer_ms(run.method.merge(run.model), batch, base.model)
    return found


def measured(name: str, seeds: tuple) -> dict:
    "The row of one method."
    found = dict(method=name, quality={}, seconds={})
    for rows, epochs in SIZES.items():
        runs = [one(name, rows, epochs, seed) for seed in seeds]
        found["quality"][str(rows)] = [r.metrics["accuracy"] for r in runs]
        found["seconds"][str(rows)] = [r.resources["seconds"] for r in runs]
        if rows == 320:
            found |= costs(runs)
    quality = {k: f"{statistics.mean(v):.1%}" for k, v in found["quality"].items()}
    print(f"{name:18s}{found['trainable']:>10,} trained  {quality}  {found['bytes'] / 1e3:8.0f} kB", flush=True)
    return found


def start_of() -> dict:
    "The accuracy before training, and that of the majority-class baseline."
    import ftkit as ft
    from ftkit.datasets.reviews import splits
    from ftkit.tasks.base import evaluate
    from ftkit.tasks.text_classification import TextClassification

    valid, found = splits(train=64, valid=VALID, difficulty=(1, 2))["valid"], []
    task = TextClassification(classes=["negative", "positive"])
    for seed in range(3):
        ck = ft.load("bert-mini", task=task, classes=task.classes, seed=seed)
        found.append(evaluate(ck.model, task, task.encode(valid, ck.processor))["accuracy"])
    labels = valid["label"][:]
    return dict(start=found, majority=max(labels.count(c) for c in set(labels)) / len(labels))


def measure(seeds: tuple = DECLARED.seeds, only: tuple = ()) -> dict:
    "A row for each method; with `only`, for some methods."
    os.environ.update(FTKIT_QUIET="1", IN_TEST="1", HF_HUB_OFFLINE="1")
    from ftkit.core import METHODS

    rows = [measured(name, seeds) for name in METHODS if name not in NOT_HERE and (not only or name in only)]
    return dict(rows=rows, sizes=SIZES, valid=VALID, **start_of())
