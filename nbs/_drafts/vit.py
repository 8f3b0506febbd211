# %%
#| hide
# Colab only: install ftkit next to the preinstalled torch
import sys
if "google.colab" in sys.modules:
    %pip install -q "ftkit @ git+https://github.com/ftkit/ftkit"

# %% [md]
# ViT

> A picture as a row of patches: attention to look at, prompts to add, and every method tried

# %% [md]
- **You will** see a picture become a row of tokens, look at attention before and after tuning, add patches that are learned, and see how each method fares.
- **You need** [image classification](../tasks/50_image_classification.ipynb) and [visual prompts](../methods/64_visual_prompt.ipynb).
- **Runs in** about 55 s on a laptop; 20 minutes to read.
- **Paper** Dosovitskiy et al. 2021, [ViT](https://arxiv.org/abs/2010.11929); Jia et al. 2022, [Visual Prompt Tuning](https://arxiv.org/abs/2203.12119).

# %%
import io, os
import numpy as np
import torch
import ftkit as ft
from PIL import Image
from ftkit.core import METHODS
from ftkit.data.digits import digits
from ftkit.gallery import gallery
from ftkit.lab import silence, tradeoff
from ftkit.saliency import overlay, rollout
from ftkit.show import bars, table
from ftkit.testing import law_7

# %% [md]
## The idea

# %% [md]
A vision transformer cuts a picture into patches, makes a token of each by one linear map, adds where it lay, and goes on as BERT does: $h = [\,\mathrm{cls};\, E p_1 + e_1;\, \dots;\, E p_n + e_n\,]$. So everything that was ever tried on BERT can be tried here: low-rank updates of queries and values, adapters, prefixes, prompts. Convolution's knowledge that near things belong together is not built in; it is learned, from many pictures, which is why a ViT without pretraining does badly on few.

# %%
ck = ft.load("vit-mini", task="image-classification", num_labels=10, seed=0)
patches = ck.model.timm_model.patch_embed(torch.zeros(1, 3, 48, 48))
assert patches.shape == (1, 36, 128) and len(ck.anatomy.blocks) == 6 and ck.anatomy.fused
ck.anatomy

# %% [md]
## Attention, before and after

# %% [md]
Where does the first token take its knowledge from? Rolled out through all blocks, for the same digits before tuning and after.

# %%
few, many = digits(200), digits(500, "test")
start = ft.finetune("vit-mini", few, "head", task="image-classification", valid=many, steps=1, seed=0)
tuned = ft.finetune("vit-mini", few, "full", task="image-classification", valid=many, epochs=10, seed=0)
some = many["image"][:5]
flows = {n: [rollout(r, p) for p in some] for n, r in (("before", start), ("after", tuned))}
ink = [np.asarray(Image.open(io.BytesIO(p["bytes"])).resize((48, 48))).ravel() for p in some]
on_ink = {n: float(np.mean([np.corrcoef(f.ravel(), i)[0, 1] for f, i in zip(fs, ink)])) for n, fs in flows.items()}
assert tuned.metrics["accuracy"] > start.metrics["accuracy"] + 0.2
on_ink

# %%
gallery([*some, *(overlay(np.asarray(Image.open(io.BytesIO(p["bytes"])).convert("RGB").resize((48, 48))), f) for fs in flows.values() for p, f in zip(some, fs))], ["picture"] * 5 + [n for n in flows for _ in some], across=5)

# %% [md]
## Patches that are learned

# %% [md]
A visual prompt is a few more tokens, the same for every picture, which are learned while all else stays. Deep ones are put before every block.

# %%
prompts = {n: ft.finetune("vit-mini", few, m, task="image-classification", valid=many, epochs=10, seed=0) for n, m in (("head", "head"), ("prompts before the first block", ft.VisualPrompt(deep=False)), ("prompts before every block", ft.VisualPrompt(deep=True)))}
assert prompts["prompts before every block"].metrics["accuracy"] > prompts["head"].metrics["accuracy"] - 0.02
bars([{"method": n, "accuracy": r.metrics["accuracy"], "trainable %": 100 * r.resources["trainable"] / r.resources["total"]} for n, r in prompts.items()], "accuracy", beside="trainable %")

# %% [md]
## Every method

# %% [md]
Two hundred digits, the same steps for all, each method at its own rate. What cannot work here says why.

# %%
train = digits(200)
rows, reasons = [], []
for name in METHODS:
    try:
        with silence(True): run = ft.finetune("vit-mini", train, name, task="image-classification", valid=many, steps=28, seed=0)
        rows.append({"method": name, "accuracy": run.metrics["accuracy"], "trainable %": 100 * run.resources["trainable"] / run.resources["total"], "seconds": run.resources["seconds"]})
    except ft.FtError as e: reasons.append({"method": name, "why not": str(e)})
assert len(rows) >= 20 and all(r["accuracy"] > 0.2 for r in rows)
table(sorted(rows, key=lambda r: -r["accuracy"]))

# %%
table(reasons)

# %%
tradeoff(rows, "trainable %", "accuracy", title="ViT: what trains, and what it brings")

# %% [md]
## It learns

# %%
run = ft.finetune("vit-mini", train, "lora", task="image-classification", valid=many, epochs=10, seed=0)
law_7(run, many)

# %% [md]
## On a real model

# %% [md]
ViT-B/16 on the photographs of your folder: a GPU with 8 GB (a T4 is plenty). Needs the network; set `FTKIT_REAL=1` and `FTKIT_PICTURES` to a folder of class folders.

# %%
#| slow
#| gpu
#| net
if os.environ.get("FTKIT_REAL") and os.environ.get("FTKIT_PICTURES"):
    real = ft.finetune("vit_base_patch16_224", os.environ["FTKIT_PICTURES"], "gradual_unfreeze", task="image-classification", augment="standard", epochs=10)
    print(real, real.resources)

# %% [md]
## See also

# %% [md]
- [ResNet](40_resnet.ipynb), the other family
- [vit-mini](../zoo/40_picture_minis.ipynb): what it was pretrained on
