"""How near a step of full fine-tuning comes to the fastest product of matrices, and whether the probe chose well.

    python tools/bench peak [--layers 12 --width 768]
"""
import statistics, sys, tempfile, os, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
os.environ.update(FTKIT_QUIET="1", IN_TEST="1")

import torch


def clock(f, repeats):
    "The median time of a call, in seconds."
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        f()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def product_peak(dtype, tokens, width, way):
    "Operations per second of the products that a block makes, at their fastest."
    found = []
    with way.used():
        for n, m in ((width, width), (width, 4 * width), (4 * width, width)):
            x, w = torch.randn(tokens, n, dtype=dtype), torch.randn(m, n, dtype=dtype)
            found.append(2 * tokens * n * m / clock(lambda: torch.nn.functional.linear(x, w), 7))
    return max(found)


def step_of(layers, width, rows, length, dropout):
    "A function (way) -> None that makes one step of full fine-tuning, and its operations."
    import transformers as t
    from ftkit.kernels import faster
    from ftkit.train import Learner
    torch.manual_seed(0)
    p = 0.1 if dropout else 0.0
    model = t.BertForSequenceClassification(t.BertConfig(vocab_size=8192, num_hidden_layers=layers, hidden_size=width, num_attention_heads=width // 64, intermediate_size=4 * width, hidden_dropout_prob=p, attention_probs_dropout_prob=p))
    ids, labels = torch.randint(3, 8192, (rows, length)), torch.randint(0, 2, (rows,))
    from ftkit.data.batching import Batches, Rows
    from ftkit.tasks.text_classification import TextClassification
    import numpy as np
    task = TextClassification(classes=["0", "1"])
    data = Rows(ids.tolist(), {"label": labels.numpy()})
    def run(way, steps):
        with way.used():
            Learner(model, Batches(data, task.collate, rows), lambda l, b: task.loss(task.forward(l.model, b), b), steps=steps, lr=1e-5, precision=way.precision, device="cpu", progress=False).fit()
    blocks = sum(p.numel() for n, p in model.named_parameters() if "layer." in n and p.ndim == 2)
    return run, 6 * blocks * rows * length + 6 * layers * 2 * rows * length * length * width


def peak(layers=12, width=768, rows=32, length=64, repeats=3):
    "Shares of the peak, for each way, and the probe's choice against the best of the grid."
    from dataclasses import asdict
    from ftkit.probe import Way, ways
    threads = torch.get_num_threads()
    run, operations = step_of(layers, width, rows, length, dropout=True)
    tops = {"fp32": max(product_peak(torch.float32, rows * length, width, Way("fp32", threads, o)) for o in (False, True)), "fp32 default": product_peak(torch.float32, rows * length, width, Way("fp32", threads)), "bf16": product_peak(torch.bfloat16, rows * length, width, Way("bf16", threads))}
    found = []
    for way in [w for w in ways() if w.threads == threads]:
        run(way, 1)
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            run(way, 2)
            times.append((time.perf_counter() - began) / 2)
        t = statistics.median(times)
        found.append(dict(**asdict(way), seconds=t, gflops=operations / t / 1e9, share=operations / t / tops[way.precision], of_default=operations / t / tops["fp32 default"]))
        print(f"{way}: {t:.3f} s a step, {operations / t / 1e9:.0f} GFLOP/s, {operations / t / tops[way.precision]:.0%} of the {way.precision} peak", flush=True)
    print({k: f"{v / 1e9:.0f} GFLOP/s" for k, v in tops.items()})
    return dict(layers=layers, width=width, rows=rows, length=length, peaks={k: v / 1e9 for k, v in tops.items()}, ways=found)
