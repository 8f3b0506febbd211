# %%
#| hide
# Colab only: install ftkit next to the preinstalled torch
import sys
if "google.colab" in sys.modules:
    %pip install -q "ftkit @ git+https://github.com/ftkit/ftkit"

# %% [md]
# Advice

> How much memory and time will it take? Asked before, and measured after

# %%
#| default_exp advice

# %% [md]
- **You will** predict what a fine-tuning takes from two small batches, and check the prediction.
- **You need** [the verbs](70_api.ipynb).
- **Runs in** about 40 s on a laptop; 15 minutes to read.
- **Paper** Chen et al. 2016, [Sublinear Memory Cost](https://arxiv.org/abs/1604.06174), on where memory goes.

# %%
#| export
import time
from dataclasses import dataclass, field
import numpy as np
import torch
from ftkit.api import build, device_of, parted, read_data

from ftkit.methods.core import attached, describe, from_description, method as make_method, set_modes
from ftkit.probe import autocast
from ftkit.tasks.core import to_device

# %%
import ftkit as ft
from ftkit.data.scenes import shapes
from ftkit.show import table

# %% [md]
## The idea

# %% [md]
Memory in training has four parts. **Weights**; **gradients**, one number for each that trains; the **optimiser's** state, two more for Adam; and **activations**, what the forward pass leaves behind for the backward one. The first three are counted from names and sizes. The last depends on the model, the method and the length of what is read, and grows with the rows of a batch as a straight line:

$$M(n) = W + 4\,(1 + 2)\,P_{\text{trains}} + a + b\,n.$$

So two small batches tell the line, and the line tells the rest; time likewise.

# %%
weight = torch.randn(64, 64, requires_grad=True)
kept = []
with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t): out = (torch.randn(10, 64) @ weight).relu()
assert sum(kept) >= 2 * 10 * 64 * 4  # the input for the weight's gradient, the output for relu's
kept

# %% [md]
## Build it

# %%
#| export
class Kept:
    "A context that counts the bytes which a forward pass leaves behind for the backward one."
    def __init__(self, model): self.known, self.bytes = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}, 0
    def __enter__(self):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda t: t)
        self.hooks.__enter__()
        return self
    def pack(self, t):
        at = t.untyped_storage().data_ptr()
        if at not in self.known: self.known.add(at); self.bytes += t.untyped_storage().nbytes()
        return t
    def __exit__(self, *error): self.hooks.__exit__(*error)

def line(
    small: tuple,  # (rows, value)
    large: tuple,
    rows: int,
) -> float:
    "A straight line through two points, at a third place; never below the larger one's share of one row."
    (n, a), (m, b) = small, large
    slope = (b - a) / (m - n)
    return max(b + slope * (rows - m), rows * b / m * 0.5)

# %%
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
with Kept(model) as k: model(torch.randn(4, 8, requires_grad=True)).sum()
assert k.bytes >= 2 * 4 * 8 * 4 and line((1, 10), (2, 15), 4) == 25
k.bytes

# %%
#| export
@dataclass(eq=False)
class Estimate:
    "What a fine-tuning will take."
    memory: dict  # part -> bytes
    steps: int
    step_seconds: float  # of one optimiser step
    batch_size: int
    trains: int  # parameters
    delta: int  # bytes of what will be saved
    @property
    def peak(self) -> int: return sum(self.memory.values())
    @property
    def seconds(self) -> float: return self.steps * self.step_seconds
    def fits(self, gigabytes: float) -> bool:
        "Whether it fits a memory, a tenth of which is left free."
        return self.peak < 0.9e9 * gigabytes
    def table(self) -> list: return [{"part": n, "memory": b} for n, b in self.memory.items()] + [{"part": "together", "memory": self.peak}]
    def __repr__(self):
        from ftkit.show import bytes_, number, seconds
        return f"Estimate({bytes_(self.peak)} of memory, {seconds(self.seconds)} for {self.steps} steps of {self.batch_size} rows; {number(self.trains)} parameters train, {bytes_(self.delta)} to save)"

# %%
#| export
def estimate(
    checkpoint: str,  # as for finetune
    data,  # as for finetune
    method="lora",
    task: str = "text-classification",
    columns: dict = None,  # role -> column name; None finds them
    valid=0.2,
    epochs: int = 3,
    steps: int = None,  # optimiser steps; overrides epochs
    batch_size: int = 32,  # rows per optimiser step
    accumulate: int = 1,  # micro-batches a step is cut into
    max_length: int = None,
    precision: str = "fp32",
    pretrained: bool = True,
    seed: int = 0,
    clean: bool = False,
    **asked,  # options of the task
) -> Estimate:
    "Predict memory and time of a fine-tuning from two small batches. Raises `FtError` as finetune does."
    spec = dict(checkpoint=str(checkpoint), task=task, asked=parted(asked, task, max_length)[0], method=describe(make_method(method)), columns=dict(columns or {}), max_length=max_length, pretrained=pretrained, seed=seed, learner={})
    found = read_data(spec, data, valid, clean=clean)
    ck, asks = build(spec)
    some = found.train.select(range(min(len(found.train), 64)))
    rows, device = asks.encode(some, ck.processor), device_of(spec)
    on = from_description(spec["method"])
    total = steps or epochs * -(-len(found.train) // batch_size)
    on.attach(ck.model.to(device), steps=total)
    for h in attached(ck.model).handles: h.at(total)  # the dearest phase, where there are several
    set_modes(ck.model)
    micro = max(1, -(-batch_size // accumulate))
    small, large = (measured(asks, ck.model, rows, min(n, len(rows), micro), device, precision) for n in (2, 6))
    at = lambda i: line((small[0], small[i]), (large[0], large[i]), micro) if large[0] > small[0] else large[i] * micro / large[0]
    return summed(attached(ck.model), ck.model, int(at(1)), at(2) * accumulate, total, batch_size)

# %%
#| export
def measured(task, model, rows, n: int, device, precision: str) -> tuple:
    "Rows, bytes that a forward pass leaves behind, and the least of three times for a step, in seconds."
    order, times = np.argsort(rows.lengths, kind="stable")[-n:], []
    batch = to_device(task.collate(rows, order), device)
    for i in range(4):
        began = time.perf_counter()
        with Kept(model) as kept, autocast(precision, device):
            total, count = task.loss(task.forward(model, batch), batch)
        (total / count).backward()
        if device.type == "cuda": torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    for p in model.parameters(): p.grad = None
    return n, kept.bytes, min(times[1:])

def summed(on, model, activations: int, seconds: float, steps: int, batch_size: int) -> Estimate:
    "The parts of an estimate."
    trains = list(on.parameters().values())
    size = sum(p.numel() * p.element_size() for p in trains)
    weights = sum(p.numel() * p.element_size() for p in {id(p): p for p in model.parameters()}.values())
    parts = {"weights": weights, "gradients": size, "optimiser": 2 * size, "activations": activations, "best weights, kept": size}
    return Estimate(parts, steps, seconds, batch_size, sum(p.numel() for p in trains), size)

# %% [md]
## Is it right?

# %% [md]
An architecture of real size with random weights, on pictures of 128 pixels, three steps: predicted, and then done.

# %%
options = dict(task="image-classification", steps=3, batch_size=16, pretrained=False, valid=None, precision="fp32")
data = shapes(48, 128, seed=0)
said = estimate("resnet18", data, "full", **options)
said

# %%
table(said.table())

# %%
run = ft.finetune("resnet18", data, "full", **options, keep="last")
took = dict(predicted_memory=said.peak - said.memory["weights"] - said.memory["best weights, kept"], measured_memory=run.resources["peak_memory"], predicted_seconds=said.seconds, measured_seconds=run.resources["seconds"])
assert 0.4 < took["predicted_memory"] / took["measured_memory"] < 2.5 and 0.3 < took["predicted_seconds"] / took["measured_seconds"] < 3
took

# %% [md]
LoRA has next to no gradients and no optimiser; activations are what is left, and checkpointing or smaller micro-batches are what helps:

# %%
less = {n: estimate("resnet18", data, m, **options, **o) for n, m, o in (("full", "full", {}), ("LoRA", "lora", {}), ("LoRA, four micro-batches", "lora", dict(accumulate=4)), ("head", "head", {}))}
assert less["LoRA, four micro-batches"].memory["activations"] < less["LoRA"].memory["activations"] and less["head"].peak < less["full"].peak and less["full"].fits(8)
table([{"method": n, "memory": e.peak, **{f"{k} memory": v for k, v in e.memory.items()}} for n, e in less.items()])

# %% [md]
## See also

# %% [md]
- [The verbs](70_api.ipynb), and [choosing a method](guides/50_choose_a_method.ipynb)

# %%
#| hide
#| eval: false
from nbdev import nbdev_export; nbdev_export()
