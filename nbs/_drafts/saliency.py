# %%
#| hide
# Colab only: install ftkit next to the preinstalled torch
import sys
if "google.colab" in sys.modules:
    %pip install -q "ftkit @ git+https://github.com/ftkit/ftkit"

# %% [md]
# Saliency

> Where a picture model looks: by covering, by gradients, and by attention

# %%
#| default_exp saliency

# %% [md]
- **You will** draw which parts of a picture an answer rests on, in three ways, and test a map before you believe it.
- **You need** [image classification](tasks/50_image_classification.ipynb).
- **Runs in** about 40 s on a laptop; 20 minutes to read.
- **Paper** Zeiler and Fergus 2014, [occlusion](https://arxiv.org/abs/1311.2901); Selvaraju et al. 2017, [Grad-CAM](https://arxiv.org/abs/1610.02391); Abnar and Zuidema 2020, [attention rollout](https://arxiv.org/abs/2005.00928).

# %%
#| export
import numpy as np
import torch
from torch.nn import functional as F
from ftkit.core import FtError
from ftkit.run import Run
from ftkit.structure import anatomy

# %%
import ftkit as ft
from ftkit.data.scenes import SHAPES, paint
from ftkit.show import table
from ftkit.data.pictures import of_values

# %% [md]
## The idea

# %% [md]
A model that is right for the wrong reason is right until the reason goes away: a hospital's mark in the corner of an X-ray, the snow behind a wolf. A **saliency map** gives each place of a picture a number, how much the answer rests on it. The plainest way needs nothing but the model: cover a place, ask again, and see what is lost,

$$s(i) = z_k(x) - z_k(x \text{ without } i).$$

# %%
x = torch.tensor([[0., 0, 0], [0, 5, 0], [0, 0, 0]])
score = lambda x: (x * torch.tensor([[0., 0, 0], [0, 2, 0], [0, 0, 1]])).sum()
lost = torch.stack([score(x) - score(x.clone().index_put_((torch.tensor(i), torch.tensor(j)), torch.tensor(0.))) for i in range(3) for j in range(3)]).view(3, 3)
assert lost.argmax() == 4 and (lost > 0).sum() == 1
lost

# %% [md]
## Build it

# %% [md]
All maps need the same start: one picture as the model reads it, and the class that is asked about.

# %%
#| export
def prepared(
    run: Run,
    picture,  # in any form
    label: str = None,  # the class asked about; None takes the likeliest
) -> tuple:  # pixels (1, channels, side, side), the class's number, the rows they came from
    "A picture as the model reads it. Raises `FtError` for a class that the model does not have."
    rows = run.task.encode([picture], run.processor)
    x = run.task.collate(rows, [0])["pixel_values"].to(run.device)
    if label is not None and str(label) not in map(str, run.task.classes): raise FtError(f"There is no class {label!r}; there are: {', '.join(map(str, run.task.classes))}.")
    run.model.eval()
    with torch.no_grad(): z = run.task.forward(run.model, {"pixel_values": x})[0]
    return x, int(z.argmax()) if label is None else list(map(str, run.task.classes)).index(str(label)), rows

# %% [md]
**Covering.** A grey square moves over the picture; what a place counts is what is lost on average while it is covered.

# %%
#| export
@torch.inference_mode()
def occlusion(
    run: Run,
    picture,
    label: str = None,  # the class asked about; None takes the likeliest
    share: float = 0.25,  # of the side, that is covered at a time
    steps: int = 12,  # places along each side
) -> np.ndarray:  # (side, side): log-odds lost where a place is covered
    "How much the answer rests on each place, by covering it. Source: Zeiler and Fergus 2014."
    x, k, _ = prepared(run, picture, label)
    side, wide = x.shape[-1], max(1, round(share * x.shape[-1]))
    at = [round(a) for a in np.linspace(0, side - wide, steps)]
    covered, lost, seen = x.repeat(len(at) ** 2, 1, 1, 1), np.zeros((side, side)), np.zeros((side, side))
    places = [(i, j) for i in at for j in at]
    for c, (i, j) in zip(covered, places): c[:, i:i + wide, j:j + wide] = x.mean()
    odds = torch.cat([run.task.forward(run.model, {"pixel_values": p}).float() for p in (x, *covered.split(64))])
    drop = (odds[0, k] - odds[1:, k]).cpu().numpy()
    for d, (i, j) in zip(drop, places): lost[i:i + wide, j:j + wide] += d; seen[i:i + wide, j:j + wide] += 1
    return lost / seen.clip(1)

# %% [md]
**Grad-CAM.** The last maps of a network of convolutions are weighted by how much the class would gain from more of each: $\mathrm{ReLU}\big(\sum_c \bar g_c A_c\big)$. In a ViT the tokens stand in for the places.

# %%
#| export
def as_maps(
    h: torch.Tensor,  # (1, channels, height, width), or (1, tokens, width) with tokens in rows of the picture behind a few others
) -> torch.Tensor:  # (1, channels, height, width)
    "What a block gives, as maps over the picture."
    if h.ndim == 4: return h
    side = int(h.shape[1] ** 0.5)
    return h[:, h.shape[1] - side * side:].transpose(1, 2).unflatten(2, (side, side))

def grad_cam(
    run: Run,
    picture,
    label: str = None,  # the class asked about; None takes the likeliest
    block: int = -1,  # whose output is looked at
) -> np.ndarray:  # (side, side), from 0 to 1
    "Where the maps of a block speak for a class. Source: Selvaraju et al. 2017."
    x, k, _ = prepared(run, picture, label)
    kept = {}
    def keep(m, a, out): kept["h"] = out[0] if isinstance(out, tuple) else out; kept["h"].requires_grad_() if not kept["h"].requires_grad else None; return out
    hook = run.model.get_submodule(anatomy(run.model).blocks[block]).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            z = run.task.forward(run.model, {"pixel_values": x})
            g, = torch.autograd.grad(z[0, k], kept["h"])
    finally: hook.remove()
    maps, grads = as_maps(kept["h"].detach()), as_maps(g)
    cam = (maps * grads.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()
    cam = F.interpolate(cam, size=x.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    return (cam / cam.max().clamp(min=1e-12)).cpu().numpy()

# %% [md]
**Rollout.** In a ViT each block's attention says from where each token took what. Multiplied through all blocks, with half of every token passing by on the residual path, it says from which patches the first token took its knowledge. It asks nothing about a class.

# %%
#| export
@torch.inference_mode()
def rollout(
    run: Run,
    picture,
) -> np.ndarray:  # (side, side), from 0 to 1
    "From which patches the first token took what it knows. Raises `FtError` on models without attention. Source: Abnar and Zuidema 2020."
    x, _, _ = prepared(run, picture)
    seen, hooks = [], []
    for name, m in run.model.named_modules():
        if hasattr(m, "qkv") and hasattr(m, "num_heads"):
            def look(m, a):
                q, k, _ = m.qkv(a[0]).unflatten(2, (3, m.num_heads, -1)).permute(2, 0, 3, 1, 4)
                q, k = getattr(m, "q_norm", lambda t: t)(q), getattr(m, "k_norm", lambda t: t)(k)
                seen.append((q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1).mean(1)[0])
            hooks.append(m.register_forward_pre_hook(look))
    try: run.task.forward(run.model, {"pixel_values": x})
    finally: [h.remove() for h in hooks]
    if not seen: raise FtError(f"{run.spec['checkpoint']} has no attention that can be rolled out; take grad_cam or occlusion.")
    flow = torch.eye(len(seen[0]))
    for a in seen: flow = (0.5 * a.cpu() + 0.5 * torch.eye(len(a))) @ flow
    side = int((len(flow) - 1) ** 0.5)
    out = F.interpolate(flow[0, -side * side:].view(1, 1, side, side), size=x.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    return ((out - out.min()) / (out.max() - out.min()).clamp(min=1e-12)).numpy()

# %%
#| export
def overlay(
    picture,  # (height, width, 3) in bytes
    heat: np.ndarray,  # (height, width); what is below zero counts as zero
) -> np.ndarray:  # (height, width, 3), uint8
    "A picture in grey, reddened and brightened where the map is high."
    from ftkit.gallery import picture_of
    grey = picture_of(picture).mean(2, keepdims=True) / 255
    h = (heat.clip(0) / max(1e-12, heat.max()))[..., None]
    return (255 * (grey * (0.55 + 0.45 * h) * (1 - 0.6 * h) + h * np.array([0.85, 0.25, 0.1]))).clip(0, 255).astype(np.uint8)

# %% [md]
## Try it

# %%
def scene(i, r):
    "A shape in one half of a picture, and where it lies."
    return paint(48, [SHAPES[i]], r, (0.2, 0.26), 0.5, 0.03)
r = np.random.default_rng(0)
learn = of_values([scene(i % 6, r)[0] for i in range(300)], [SHAPES[i % 6] for i in range(300)])
run = ft.finetune("resnet-mini", learn, "full", task="image-classification", epochs=6, seed=0)
look = ft.finetune("vit-mini", learn, "full", task="image-classification", epochs=6, seed=0)
run.metrics["accuracy"], look.metrics["accuracy"]

# %%
r = np.random.default_rng(9)
shown = [scene(i, r) for i in (0, 3, 4, 5)]
maps = {"covering": [occlusion(run, p) for p, _ in shown], "Grad-CAM": [grad_cam(run, p) for p, _ in shown], "ViT covering": [occlusion(look, p) for p, _ in shown], "ViT rollout": [rollout(look, p) for p, _ in shown]}
assert all(m.shape == (48, 48) and np.isfinite(m).all() for ms in maps.values() for m in ms)

# %%
from ftkit.gallery import gallery

# %%
gallery([p for p, _ in shown] + [overlay(p, m) for ms in maps.values() for (p, _), m in zip(shown, ms)], ["picture"] * 4 + [n for n in maps for _ in shown], across=4)

# %% [md]
## Before you believe a map

# %% [md]
Here it is known where the shape is, so a map can be judged: which share of it lies in the box, and which share would lie there if it said nothing? On pictures where nobody knows, a map can still be tested: a model whose weights are random must not give the same one.

# %%
def inside(heat, box):
    "The share of a map that lies in a box."
    x0, y0, x1, y1 = map(int, box)
    h = heat.clip(0)
    return h[y0:y1, x0:x1].sum() / max(1e-12, h.sum())
tests = [scene(i % 6, np.random.default_rng(100 + i)) for i in range(18)]
nothing = np.mean([inside(np.ones((48, 48)), b[0]) for _, b in tests])
judged = {"says nothing": nothing, "covering": np.mean([inside(occlusion(run, p), b[0]) for p, b in tests]), "Grad-CAM": np.mean([inside(grad_cam(run, p), b[0]) for p, b in tests]),
          "ViT covering": np.mean([inside(occlusion(look, p), b[0]) for p, b in tests]), "ViT rollout": np.mean([inside(rollout(look, p), b[0]) for p, b in tests])}
assert judged["covering"] > 1.3 * nothing
table([{"map": n, "share in the box": v} for n, v in judged.items()])

# %%
blank = ft.finetune("resnet-mini", learn, "head", task="image-classification", steps=1, pretrained=False, seed=0)
apart = np.mean([np.corrcoef(occlusion(run, p, "star").ravel(), occlusion(blank, p, "star").ravel())[0, 1] for p, _ in tests[:6]])
assert apart < 0.8
apart

# %% [md]
## When it goes wrong

# %%
for wrong in (lambda: rollout(run, shown[0][0]), lambda: occlusion(run, shown[0][0], "hexagon")):
    try: wrong()
    except FtError as e: print("•", e)
    else: assert False, "must be refused"

# %%
assert as_maps(torch.zeros(1, 37, 8)).shape == (1, 8, 6, 6) and prepared(run, shown[0][0])[0].shape == (1, 3, 48, 48)
overlay(shown[0][0], maps["covering"][0]).shape

# %% [md]
## Summary

# %% [md]
- `occlusion` works on every model and asks what is lost; `grad_cam` is quick and coarse; `rollout` needs attention and asks about no class.
- A map is a measurement like any other: test it where the truth is known, and against random weights.

# %% [md]
## See also

# %% [md]
- [Evaluation](74_evaluation.ipynb)
- [Image classification](tasks/50_image_classification.ipynb)

# %%
#| hide
#| eval: false
from nbdev import nbdev_export; nbdev_export()
