# %%
#| hide
# Colab only: install ftkit next to the preinstalled torch
import sys
if "google.colab" in sys.modules:
    %pip install -q "ftkit @ git+https://github.com/ftkit/ftkit"

# %% [md]
# ResNet

> Convolutions in stages: what is special about tuning them, and every method tried

# %% [md]
- **You will** see what a network of convolutions has and has not, what its BatchNorm does to a small target set, and how each method fares on it.
- **You need** [image classification](../tasks/50_image_classification.ipynb) and [gradual unfreezing](../methods/25_gradual_unfreeze.ipynb).
- **Runs in** about 55 s on a laptop; 20 minutes to read.
- **Paper** He et al. 2016, [Deep Residual Learning](https://arxiv.org/abs/1512.03385); Ioffe and Szegedy 2015, [BatchNorm](https://arxiv.org/abs/1502.03167).

# %%
import os
import ftkit as ft
from ftkit.core import METHODS
from ftkit.data.digits import digits
from ftkit.lab import silence, tradeoff
from ftkit.show import table
from ftkit.testing import law_7

# %% [md]
## The idea

# %% [md]
A residual network is a row of blocks that each add something to what passes through, $h_{l+1} = h_l + F_l(h_l)$, in stages of falling size and growing width. It has no tokens, no attention and no positions: methods that add to queries, keys or prompts have nothing to hold on to. What it has is convolutions, which low-rank updates fit as they fit matrices (a $k \times k$ filter is a matrix that is applied everywhere), and **BatchNorm**, which carries a memory of the data that no gradient touches.

# %%
ck = ft.load("resnet-mini", task="image-classification", num_labels=10, seed=0)
assert len(ck.anatomy.blocks) == 8 and not ck.anatomy.roles.get("query") and len(ck.anatomy.roles["conv"]) > 16
ck.anatomy

# %% [md]
## BatchNorm and small sets

# %% [md]
In training mode a BatchNorm normalises by the batch at hand and moves its running statistics towards it. Full fine-tuning lets it. Eight pictures in a batch are few to estimate a mean from; here is what that does.

# %%
few, many = digits(80), digits(500, "test")
on = lambda **o: ft.finetune("resnet-mini", few, task="image-classification", valid=many, epochs=8, batch_size=8, seed=0, **o)
moved, still = on(method=ft.Select(on="conv,norm", train_bn=True)), on(method=ft.Select(on="conv,norm"))
drift = lambda r: sum(float((b - ck.model.get_buffer(n)).abs().sum()) for n, b in r.model.named_buffers() if n.endswith("running_mean"))
assert drift(still) == 0 and drift(moved) > 0
table([{"statistics": n, "moved by": drift(r), **r.metrics} for n, r in (("move", moved), ("stay", still))])

# %% [md]
## Every method

# %% [md]
Two hundred digits, the same steps for all, each method at its own rate. What cannot work on convolutions says why.

# %%
train = digits(200)
rows, reasons = [], []
for name in METHODS:
    try:
        with silence(True): run = ft.finetune("resnet-mini", train, name, task="image-classification", valid=many, steps=28, seed=0)
        rows.append({"method": name, "accuracy": run.metrics["accuracy"], "trainable %": 100 * run.resources["trainable"] / run.resources["total"], "seconds": run.resources["seconds"]})
    except ft.FtError as e: reasons.append({"method": name, "why not": str(e)})
assert len(rows) >= 14 and all(r["accuracy"] > 0.2 for r in rows)
table(sorted(rows, key=lambda r: -r["accuracy"]))

# %%
table(reasons)

# %%
tradeoff(rows, "trainable %", "accuracy", title="ResNet: what trains, and what it brings")

# %% [md]
## It learns

# %%
run = ft.finetune("resnet-mini", train, "lora", task="image-classification", valid=many, epochs=10, seed=0)
law_7(run, many)

# %% [md]
## On a real model

# %% [md]
ResNet-50 on the photographs of your folder: a GPU with 8 GB (a T4 is plenty). Needs the network; set `FTKIT_REAL=1` and `FTKIT_PICTURES` to a folder of class folders.

# %%
#| slow
#| gpu
#| net
if os.environ.get("FTKIT_REAL") and os.environ.get("FTKIT_PICTURES"):
    real = ft.finetune("resnet50", os.environ["FTKIT_PICTURES"], "gradual_unfreeze", task="image-classification", augment="standard", epochs=10)
    print(real, real.resources)

# %% [md]
## See also

# %% [md]
- [ViT](50_vit.ipynb), the other family
- [resnet-mini](../zoo/40_picture_minis.ipynb): what it was pretrained on
