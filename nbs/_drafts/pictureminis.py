# %%
#| hide
# Colab only: install ftkit next to the preinstalled torch
import sys
if "google.colab" in sys.modules:
    %pip install -q "ftkit @ git+https://github.com/ftkit/ftkit"

# %% [md]
# resnet-mini and vit-mini

> A network of convolutions and one of attention, small enough for a course and really pretrained on letters, cloth, shapes and clouds

# %% [md]
- **You will** see what two small picture networks were pretrained on, and measure what that is worth on pictures they never saw.
- **You need** [image classification](../tasks/50_image_classification.ipynb).
- **Runs in** about 40 s on a laptop without the slow cells; the pretraining takes half an hour for each on two cores.
- **Paper** He et al. 2016, [Deep Residual Learning](https://arxiv.org/abs/1512.03385); Dosovitskiy et al. 2021, [ViT](https://arxiv.org/abs/2010.11929).

# %%
import json, os
from pathlib import Path
import numpy as np
import timm, torch
import ftkit as ft
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F
from ftkit.checkpoints import ZOO
from ftkit.core import atomic, seed_everything, write_json
from ftkit.data.batching import Batches
from ftkit.data.pictures import PictureRows
from ftkit.data.scenes import SHAPES, TEXTURES, paint
from ftkit.data.digits import digits
from ftkit.gallery import gallery
from ftkit.show import bars, curves, table
from ftkit.train import Learner

# %% [md]
## The idea

# %% [md]
A picture network that was trained on many kinds of pictures knows edges, strokes, textures and forms before it sees yours. ImageNet with its million photographs is one way to get there; it needs days on a GPU, and its pictures cannot be passed on. Here four small worlds stand in for it, three of them generated:

- **letters** in many fonts, bent, turned and blurred: which one is it? (No digits: those are kept for the test.)
- **cloth**, the photographs of Fashion-MNIST: what is worn?
- **shapes** on textures: which shape, which texture?
- **clouds**, smooth random fields: how rough, along which direction, and is there a haze somewhere?

One trunk answers all of these questions, each through a head of its own, and in the end the heads are thrown away.

# %%
r = np.random.default_rng(0)
SIDE = 48
def cloud(rough, angle, haze, r, side=SIDE):
    "A random field with a slope of its spectrum, a direction or None, and a bright haze or not."
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    if angle is not None: fy, fx = fx * np.sin(angle) + fy * np.cos(angle), 3.0 * (fx * np.cos(angle) - fy * np.sin(angle))
    f = np.hypot(fy, fx); f[0, 0] = 1
    x = np.fft.irfft2(np.fft.rfft2(r.standard_normal((side, side))) * f ** -rough, (side, side))
    x = (x - x.mean()) / x.std() * 0.13 + r.uniform(0.35, 0.6)
    if haze:
        ys, xs = np.mgrid[:side, :side] / side - r.uniform(0.2, 0.8, 2)[:, None, None]
        x = x + r.uniform(0.15, 0.35) * np.exp(-(ys ** 2 / r.uniform(0.005, 0.03) + xs ** 2 / r.uniform(0.005, 0.03)))
    return (255 * x.clip(0, 1)).astype(np.uint8)
some = [(k / 2, a, h) for k, a, h in ((1, None, 0), (2, None, 1), (4, None, 0), (3, 0.0, 0), (3, 0.8, 1), (2, 1.6, 0))]
tiles = [cloud(*s, r) for s in some]
assert all(t.shape == (SIDE, SIDE) for t in tiles)
gallery(tiles, [f"rough {a}, {'any way' if b is None else f'{b} rad'}{', haze' if c else ''}" for a, b, c in some])

# %% [md]
## The cards

# %%
cards = {n: json.loads((ZOO / n / "card.json").read_text()) for n in ("resnet_mini", "vit_mini") if (ZOO / n / "card.json").exists()}
sizes = {n: sum(f.stat().st_size for f in (ZOO / n).iterdir()) for n in cards}
assert cards and all(s < 10e6 for s in sizes.values())
table([{"": k, **{c["name"]: str(c[k]) for c in cards.values()}} for k in ("architecture", "steps", "rows_per_step", "seed", "hours", "held_out", "data", "licence")])

# %%
models = {c["name"]: ft.load(c["name"], task="image-classification", num_labels=10, seed=0) for c in cards.values()}
assert all(m.source == "bundled" and m.processor.data_config["input_size"] == (3, SIDE, SIDE) for m in models.values())
models["resnet-mini"].anatomy

# %%
curves([{"step": h["step"], **{f"{c['name']} loss": h["loss"]}} for c in cards.values() for h in c["history"]], title="Pretraining, all questions together")

# %%
ends = {c["name"]: (c["history"][0]["loss"], c["history"][-1]["loss"]) for c in cards.values()}
assert all(b < 0.7 * a for a, b in ends.values())
ends

# %% [md]
## The proof

# %% [md]
Handwritten digits, scikit-learn's, 8 × 8 pixels: none of the four worlds has any. A **linear probe** learns one linear map on what the trunk says of each picture, and nothing else; it is run on the pretrained trunk and on a random one.

# %%
train, test = digits(200), digits(400, "test")
gallery(train["image"][:12], [str(y) for y in train["label"][:12]])

# %%
probe = {(n, p): ft.finetune(n, train, "head", task="image-classification", valid=test, pretrained=p, epochs=40, seed=0, lr=3e-2).metrics["accuracy"] for n in models for p in (True, False)}
assert all(probe[n, True] > probe[n, False] + 0.15 for n in models)
bars([{"trunk": f"{n}, {'pretrained' if p else 'random'}", "accuracy of a linear probe": a} for (n, p), a in probe.items()], "accuracy of a linear probe", "trunk")

# %% [md]
And with everything training, where random weights can learn as well:

# %%
whole = {(n, p): ft.finetune(n, train, "full", task="image-classification", valid=test, pretrained=p, epochs=12, seed=0).metrics["accuracy"] for n in models for p in (True, False)}
assert all(1 - whole[n, True] < 0.7 * (1 - whole[n, False]) for n in models)
table([{"model": n, "pretrained": whole[n, True], "random": whole[n, False]} for n in models])

# %% [md]
## The recipe

# %% [md]
Everything below made the checkpoints. `make zoo` runs it where the pictures of Fashion-MNIST are at hand (`FTKIT_DATA`); a run that is stopped goes on where it stood.

# %%
#| slow
DATA, WORK = Path(os.environ.get("FTKIT_DATA", "data")), Path(os.environ.get("FTKIT_WORK", "picture_minis_work"))
READY = (DATA / "fashion_mnist" / "fashion_mnist.npz").exists()
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghijmnqrtuy&?!@#%$+=*<>"
HEADS = dict(letter=len(CHARACTERS), cloth=10, shape=len(SHAPES), texture=len(TEXTURES), rough=5, direction=5, haze=2)
MINIS = {
    "resnet_mini": dict(architecture="resnet18", model_args=dict(channels=[32, 64, 128, 256], stem_width=32), steps=9_000, lr=2e-3, told="ResNet-18 with 32 to 256 channels"),
    "vit_mini": dict(architecture="vit_tiny_patch16_224", model_args=dict(img_size=SIDE, patch_size=8, embed_dim=128, depth=6, num_heads=4), steps=12_000, lr=1e-3, told="ViT: 6 blocks of width 128, 4 heads, patches of 8 pixels"),
}
ROWS = 96

# %% [md]
**Letters**, in the fonts that travel with matplotlib.

# %%
#| slow
def fonts():
    "Files of fonts that have Latin letters."
    from matplotlib import font_manager
    return sorted(f.fname for f in font_manager.fontManager.ttflist if "mpl-data" in f.fname and not any(s in f.fname for s in ("cmsy", "cmex", "cmmi", "Size", "Math", "Display", "NonUni")))
def letter(c, font, r):
    "A character, bright on dark, in the middle."
    picture = Image.new("L", (SIDE, SIDE))
    f = ImageFont.truetype(font, int(r.integers(26, 44)))
    a, b, x, y = f.getbbox(c)
    ImageDraw.Draw(picture).text(((SIDE - x - a) / 2 + r.uniform(-3, 3), (SIDE - y - b) / 2 + r.uniform(-3, 3)), c, fill=255, font=f, stroke_width=int(r.integers(0, 2)))
    return np.asarray(picture)

# %%
#| slow
def world(seed, n):
    "Pictures (rows, 3, side, side) and a label for each head, -1 where it is not asked."
    r, pictures, labels = np.random.default_rng(seed), [], []
    def put(x, **known):
        pictures.append(np.broadcast_to(x[None] if x.ndim == 2 else np.moveaxis(x, -1, 0), (3, SIDE, SIDE)))
        labels.append([known.get(h, -1) for h in HEADS])
    files, cloth = fonts(), np.load(DATA / "fashion_mnist" / "fashion_mnist.npz")
    part = "train" if seed == 0 else "test"
    for i in range(n):
        k = int(r.integers(len(CHARACTERS)))
        put(letter(CHARACTERS[k], files[int(r.integers(len(files)))], r), letter=k)
        s, t = int(r.integers(len(SHAPES))), int(r.integers(len(TEXTURES)))
        put(paint(SIDE, [SHAPES[s]], r, (0.2, 0.4), r.uniform(0.3, 0.6), r.uniform(0.01, 0.08), TEXTURES[t])[0], shape=s, texture=t)
        rough, way, haze = int(r.integers(5)), int(r.integers(5)), int(r.integers(2))
        put(cloud(0.5 + 0.4 * rough, None if way == 4 else way * np.pi / 4, haze, r), rough=rough, direction=way, haze=haze)
        j = int(r.integers(len(cloth[f"{part}_labels"])))if i >= len(cloth[f"{part}_labels"]) else i
        put(np.asarray(Image.fromarray(cloth[f"{part}_images"][j]).resize((SIDE, SIDE), Image.Resampling.BILINEAR)), cloth=int(cloth[f"{part}_labels"][j]))
    return PictureRows(torch.from_numpy(np.stack(pictures)), {"labels": np.array(labels)})

# %% [md]
**Changes.** Every picture is turned, sheared, scaled and moved, made coarse, inverted, brightened and sprinkled with noise, all at random, and a whole batch at once. Being made coarse matters: pictures of 8 or 28 pixels a side are among those to come.

# %%
#| slow
def changed(x):
    "A batch of pictures from 0 to 1, each changed in its own way."
    n, u = len(x), lambda a, b, *s: torch.empty(len(x), *s).uniform_(a, b)
    angle, scale, shear = u(-0.35, 0.35), u(0.75, 1.25), u(-0.2, 0.2)
    turn = torch.stack([torch.stack([angle.cos() * scale, -angle.sin() + shear, u(-0.15, 0.15)], 1), torch.stack([angle.sin(), angle.cos() * scale * u(0.85, 1.18), u(-0.15, 0.15)], 1)], 1)
    x = F.grid_sample(x, F.affine_grid(turn, x.shape, align_corners=False), padding_mode="reflection", align_corners=False)
    for side in (8, 12, 20, 28):
        some = torch.rand(n) < 0.12
        if some.any(): x[some] = F.interpolate(F.interpolate(x[some], size=side, mode="area"), size=SIDE, mode="bilinear", antialias=False)
    x = torch.where(u(0, 1, 1, 1, 1) < 0.3, 1 - x, x)
    x = torch.where(u(0, 1, 1, 1, 1) < 0.2, x.mean(1, keepdim=True), x)
    x = (x - 0.5) * u(0.4, 1.2, 1, 1, 1) + 0.5 + u(-0.2, 0.2, 1, 1, 1) + u(-0.1, 0.1, 3, 1, 1) * (u(0, 1, 1, 1, 1) < 0.5)
    return (x + u(0, 0.06, 1, 1, 1) * torch.randn_like(x)).clamp(0, 1)

# %%
#| slow
def collate(rows, index):
    index = torch.as_tensor(np.asarray(index))
    return dict(x=(changed(rows.pictures[index].float() / 255) - 0.5) / 0.5, y=rows.column("labels", index))
def step(learner, b):
    "The cross-entropy of every question, each a mean over the rows that are asked."
    h = learner.models["trunk"](b["x"])
    losses = {n: F.cross_entropy(learner.models[n](h).float(), b["y"][:, i], ignore_index=-1, label_smoothing=0.05) for i, n in enumerate(HEADS)}
    learner.state.setdefault("seen", []).append(float(sum(v.detach() for v in losses.values())))
    return losses

# %%
#| slow
def held_out(models, rows):
    "Accuracy of every head on rows that were held out, unchanged."
    models["trunk"].eval()
    x = (rows.pictures.float() / 255 - 0.5) / 0.5
    with torch.inference_mode(): h = torch.cat([models["trunk"](p) for p in x.split(200)])
    y = torch.as_tensor(rows.columns["labels"])
    with torch.inference_mode(): said = {n: models[n](h).argmax(-1) == y[:, i] for i, n in enumerate(HEADS)}
    return {n: round(float(s[y[:, i] >= 0].float().mean()), 3) for i, (n, s) in enumerate(said.items())}

# %% [md]
**The folder** is one of timm, as its hub has them.

# %%
#| slow
def write(name, kind, models, learner, accuracy):
    "The checkpoint's folder, with its card."
    from safetensors.torch import save_file
    to, trunk = ZOO / name, models["trunk"]
    to.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() if v.is_floating_point() else v for k, v in trunk.state_dict().items()}, to / "model.safetensors", {"format": "pt"})
    cfg = dict(architecture=kind["architecture"], input_size=[3, SIDE, SIDE], fixed_input_size=True, interpolation="bilinear", crop_pct=1.0, crop_mode="center", mean=[0.5] * 3, std=[0.5] * 3, num_classes=0,
               first_conv="conv1" if "resnet" in name else "patch_embed.proj", classifier="fc" if "resnet" in name else "head", license="apache-2.0")
    write_json(to / "config.json", dict(architecture=kind["architecture"], num_classes=0, num_features=trunk.num_features, model_args=kind["model_args"], pretrained_cfg=cfg))
    seen, every = learner.state["seen"], max(1, len(learner.state["seen"]) // 40)
    card = dict(name=name.replace("_", "-"), architecture=f"{kind['told']}; pictures of {SIDE} pixels a side", steps=learner.step_count, rows_per_step=ROWS, seed=0, hours=round(learner.seconds / 3600, 2), held_out=accuracy,
                data="Fashion-MNIST, 10,000 of its pictures (MIT); generated letters, shapes on textures, and random fields", licence="Apache-2.0",
                history=[{"step": i + every, "loss": round(float(np.mean(seen[i:i + every])), 4)} for i in range(0, len(seen) - every + 1, every)])
    write_json(to / "card.json", card)
    with atomic(to / "README.md") as f: f.write(f"""---
license: apache-2.0
library_name: timm
---

# {card["name"]}

{card["architecture"]}; 16-bit weights, without a head. Pretrained in {card["steps"]:,} steps of {ROWS} pictures to name letters, cloth, shapes, textures and what random fields are like. For courses and tests; not for production.

Pictures: {card["data"]}.

The recipe and the proof of transfer are on the page `zoo/40_picture_minis`; the curve is in `card.json`.
""")

# %%
#| slow
def pretrain(name, rows, held):
    "Run the recipe for one of them; write the checkpoint and its card."
    kind = MINIS[name]
    steps = int(os.environ.get("FTKIT_PICTURE_STEPS", kind["steps"]))
    seed_everything(0)
    trunk = timm.create_model(kind["architecture"], num_classes=0, **kind["model_args"])
    models = {"trunk": trunk, **{n: torch.nn.Linear(trunk.num_features, k) for n, k in HEADS.items()}}
    learner = Learner(models, Batches(rows, collate, ROWS, seed=3), step, steps=steps, lr=kind["lr"], weight_decay=0.05, schedule="cosine", warmup=300, precision=os.environ.get("FTKIT_PICTURE_PRECISION", "fp32"), out=WORK / name, save_every=1000, keep="last")
    if (WORK / name / "last.json").exists(): learner.resume()
    learner.fit()
    write(name, kind, models, learner, held_out(models, held))

# %%
#| slow
if READY:
    learn, held = world(0, 12_000), world(1, 800)
    for name in os.environ.get("FTKIT_PICTURE_MINIS", "resnet_mini,vit_mini").split(","): pretrain(name, learn, held)

# %% [md]
## Summary

# %% [md]
- Four small worlds, seven questions, one trunk; the heads are thrown away.
- Both checkpoints are ordinary folders of timm; nothing else is needed to use them.
- What they are worth is measured against the same architectures from random weights, on pictures of another kind.

# %% [md]
## See also

# %% [md]
- [Image classification](../tasks/50_image_classification.ipynb)
- [Scenes](../data/65_scenes.ipynb): the shapes and textures
