"""Throughput of a full fine-tuning step relative to the fastest matrix product, in every execution config"""

import os
import statistics
import time
from dataclasses import asdict

from .record import SPEED, TEXT, Declared

DECLARED = Declared(
    what="throughput of a full fine-tuning step of a full-size BERT, relative to the fastest matrix products",
    measures=("ftkit/training/learner.py", *SPEED, *TEXT),
    epochs=60,
)


def clock(f, repeats: int) -> float:
    "The median time of a call, in seconds."
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        f()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def product_peak(dtype, tokens: int, width: int, way) -> float:
    "Operations per second of the fastest matrix product of a block."
    import torch

    found = []
    with way.used():
        for n, m in ((width, width), (width, 4 * width), (4 * width, width)):
            x, w = torch.randn(tokens, n, dtype=dtype), torch.randn(m, n, dtype=dtype)
            seconds = clock(lambda x=x, w=w: torch.nn.functional.linear(x, w), 7)
            found.append(2 * tokens * n * m / seconds)
    return max(found)


def bert(layers: int, width: int):
    "A BERT of the given size with random weights."
    import torch
    import transformers as t

    torch.manual_seed(0)
    return t.BertForSequenceClassification(
        t.BertConfig(
            vocab_size=8192,
            num_hidden_layers=layers,
            hidden_size=width,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
        )
    )


def step_of(layers: int, width: int, rows: int, length: int) -> tuple:
    "A function (way, steps) -> None that trains all parameters, and the operations of one step."
    import torch

    from ftkit.data.batching import DataLoader
    from ftkit.data.encoded import DenseColumn, EncodedDataset, RaggedColumn
    from ftkit.tasks.text_classification import TextClassification
    from ftkit.training.learner import Learner

    model = bert(layers, width)
    ids, labels = torch.randint(3, 8192, (rows, length)), torch.randint(0, 2, (rows,))
    task = TextClassification(classes=["0", "1"])
    tokens = RaggedColumn(ids.tolist(), mask="attention_mask")
    data = EncodedDataset({"input_ids": tokens, "labels": DenseColumn(labels.numpy())})

    def run(way, steps):
        loss = lambda learner, b: task.loss(task.forward(learner.model, b), b)  # noqa: E731
        options = dict(steps=steps, lr=1e-5, precision=way.precision, device="cpu", show_progress=False)
        with way.used():
            Learner(model, DataLoader(data, task.collate, rows), loss, **options).fit()

    blocks = sum(p.numel() for n, p in model.named_parameters() if "layer." in n and p.ndim == 2)
    return run, 6 * blocks * rows * length + 6 * layers * 2 * rows * length * length * width


def tops_of(tokens: int, width: int) -> dict:
    "The fastest matrix products in each precision, in operations per second."
    import torch

    from ftkit.speed.execution import ExecutionConfig

    threads = torch.get_num_threads()
    plain = {
        onednn: product_peak(torch.float32, tokens, width, ExecutionConfig("fp32", threads, onednn))
        for onednn in (False, True)
    }
    half = product_peak(torch.bfloat16, tokens, width, ExecutionConfig("bf16", threads))
    return {"fp32": max(plain.values()), "fp32 default": plain[False], "bf16": half}


def measure(layers: int = 12, width: int = 768, rows: int = 32, length: int = 64, repeats: int = 3) -> dict:
    "Seconds of a step and its fraction of the peak, for each execution config."
    os.environ.update(FTKIT_QUIET="1", IN_TEST="1")
    import torch

    from ftkit.speed.execution import candidate_configs

    run, operations = step_of(layers, width, rows, length)
    tops, found = tops_of(rows * length, width), []
    for way in [w for w in candidate_configs() if w.threads == torch.get_num_threads()]:
        run(way, 1)
        t = clock(lambda way=way: run(way, 2), repeats) / 2
        shares = dict(share=operations / t / tops[way.precision], of_default=operations / t / tops["fp32 default"])
        found.append(dict(**asdict(way), seconds=t, gflops=operations / t / 1e9, **shares))
        print(f"{way}: {t:.3f} s a step, {shares['share']:.0%} of the {way.precision} peak", flush=True)
    peaks = {k: v / 1e9 for k, v in tops.items()}
    return dict(layers=layers, width=width, rows=rows, length=length, peaks=peaks, ways=found)
