# %%
#| hide
# Colab only: install ftkit next to the preinstalled torch
import sys
if "google.colab" in sys.modules:
    %pip install -q "ftkit @ git+https://github.com/ftkit/ftkit"

# %% [md]
# Contrastive tuning

> A trunk learns from pictures without names: two views of one picture belong together

# %%
#| default_exp recipes.contrastive

# %% [md]
- **You will** build InfoNCE from scratch, tune a trunk with SimCLR, MoCo and supervised contrast, judge it by a probe, and recognise a collapse.
- **You need** [augmentation](../data/70_augmentation.ipynb) and [evaluation](../74_evaluation.ipynb).
- **Runs in** about 55 s on a laptop; 30 minutes to read.
- **Paper** Chen et al. 2020, [SimCLR](https://arxiv.org/abs/2002.05709); He et al. 2020, [MoCo](https://arxiv.org/abs/1911.05722); Khosla et al. 2020, [SupCon](https://arxiv.org/abs/2004.11362).

# %%
#| export
from copy import deepcopy
from dataclasses import dataclass, field
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from ftkit.checkpoints import load
from ftkit.core import FtError, resolve, say, seed_everything
from ftkit.data.augmentation import Augmented
from ftkit.data.batching import Batches
from ftkit.methods.core import method as make_method
from ftkit.train import Learner

# %%
import ftkit as ft
from torchvision.transforms import v2
from ftkit.data.digits import digits
from ftkit.evaluation import features, linear_probe, neighbours
from ftkit.show import bars, curves, table
from ftkit.teach import Exercise, agrees, close

# %% [md]
## The idea

# %% [md]
Names are dear, pictures are not. Take a picture, change it twice at random: two **views**. Whatever a name would say of them, it is the same for both; so a trunk that gives both the same vector, and other pictures other ones, has learned what the changes leave alone. InfoNCE says this as a question with one right answer: *which of these is the other view of mine?*

$$\ell_i = -\log \frac{e^{\cos(z_i, z_i')/\tau}}{\sum_{j} e^{\cos(z_i, z_j')/\tau}}$$

It is cross-entropy; the classes are the pictures of the batch, and $\tau$ says how hard it looks at the nearest wrong ones.

# %%
torch.manual_seed(0)
a, b = F.normalize(torch.randn(4, 8), dim=1), F.normalize(torch.randn(4, 8), dim=1)
naive = torch.stack([-((a[i] @ b[i] / 0.1).exp() / sum((a[i] @ b[j] / 0.1).exp() for j in range(4))).log() for i in range(4)]).mean()
naive

# %% [md]
## Build it

# %% [md]
### The losses

# %%
#| export
def info_nce(
    a,  # (rows, width), what is asked
    b,  # (rows, width), row i belongs to row i of `a`
    others=None,  # (any, width), more wrong answers
    temperature: float = 0.1,
) -> torch.Tensor:  # a mean
    "Which row of b is mine? Source: van den Oord et al. 2018, CPC."
    a, b = F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)
    z = a @ (b if others is None else torch.cat([b, others])).T / temperature
    return F.cross_entropy(z, torch.arange(len(a), device=a.device))

# %%
assert torch.isclose(info_nce(a, b), naive)
info_nce(a, a), info_nce(a, b)

# %% [md]
**SimCLR** asks both views, and lets all other views of the batch be wrong answers, those of the own side too. **Supervised contrast** has several right answers: all views of pictures with the same name.

# %%
#| export
def nt_xent(a, b, temperature: float = 0.1) -> torch.Tensor:
    "Each view finds its other among all views of the batch. Source: Chen et al. 2020, SimCLR."
    z = F.normalize(torch.cat([a, b]).float(), dim=1)
    sim = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(sim, torch.arange(len(z), device=z.device).roll(len(a)))

def sup_con(
    a,
    b,
    labels,  # (rows,), of both views
    temperature: float = 0.1,
) -> torch.Tensor:
    "All views of the same label are right answers. Source: Khosla et al. 2020, the loss with the sum outside."
    z, y = F.normalize(torch.cat([a, b]).float(), dim=1), torch.cat([labels, labels])
    sim = z @ z.T / temperature
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_p = sim - sim.masked_fill(own, -torch.inf).logsumexp(1, keepdim=True)
    right = (y[:, None] == y) & ~own
    return -(log_p.masked_fill(~right, 0).sum(1) / right.sum(1)).mean()

# %% [md]
Each against a slow and plain version, one pair at a time, on the same batch in double precision:

# %%
def slow_nt_xent(a, b, t=0.1):
    z = [v / v.norm() for v in (*a, *b)]
    total = 0.0
    for i in range(len(z)):
        j = (i + len(a)) % len(z)
        total += -torch.log(torch.exp(z[i] @ z[j] / t) / sum(torch.exp(z[i] @ z[k] / t) for k in range(len(z)) if k != i))
    return total / len(z)
def slow_sup_con(a, b, y, t=0.1):
    z, y, total = [v / v.norm() for v in (*a, *b)], [*y.tolist()] * 2, 0.0
    for i in range(len(z)):
        rest = sum(torch.exp(z[i] @ z[k] / t) for k in range(len(z)) if k != i)
        right = [p for p in range(len(z)) if p != i and y[p] == y[i]]
        total += -sum(torch.log(torch.exp(z[i] @ z[p] / t) / rest) for p in right) / len(right)
    return total / len(z)

# %%
a, b, y = torch.randn(6, 5), torch.randn(6, 5), torch.tensor([0, 0, 1, 1, 2, 2])
assert abs(nt_xent(a, b) - slow_nt_xent(a, b)) < 1e-5 and abs(sup_con(a, b, y) - slow_sup_con(a, b, y)) < 1e-5
assert abs(sup_con(a, b, torch.arange(6)) - nt_xent(a, b)) < 1e-5  # each picture a class of its own: SimCLR
nt_xent(a, b), sup_con(a, b, y)

# %% [md]
**MoCo** wants many wrong answers without a large batch. It keeps the vectors of earlier batches in a **queue**, and so that these stay comparable, they come from a second trunk that follows the first slowly, by a **momentum**: $\theta' \leftarrow m\,\theta' + (1 - m)\,\theta$.

# %%
#| export
def moco_loss(a, b, queue, temperature: float = 0.1) -> torch.Tensor:
    "The own key against a queue of others. Source: He et al. 2020, MoCo."
    a, b = F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)
    z = torch.cat([(a * b).sum(1, keepdim=True), a @ queue.T], 1) / temperature
    return F.cross_entropy(z, torch.zeros(len(a), dtype=torch.long, device=a.device))

@torch.no_grad()
def follow(slow, fast, momentum: float = 0.99):
    "Move one module a little towards another; statistics are copied."
    for p, q in zip(slow.parameters(), fast.parameters()): p.lerp_(q.detach().to(p), 1 - momentum)
    for p, q in zip(slow.buffers(), fast.buffers()): p.copy_(q)

# %%
queue = F.normalize(torch.randn(7, 5), dim=1)
def slow_moco(a, b, q, t=0.1):
    total = 0.0
    for x, k in zip(a, b):
        x, k = x / x.norm(), k / k.norm()
        mine = torch.exp(x @ k / t)
        total += -torch.log(mine / (mine + sum(torch.exp(x @ v / t) for v in q)))
    return total / len(a)
assert abs(moco_loss(a, b, queue) - slow_moco(a, b, queue)) < 1e-5
fast, slow = nn.Linear(3, 3), nn.Linear(3, 3)
apart = (fast.weight - slow.weight).abs().max()
follow(slow, fast, 0.9)
assert torch.isclose((fast.weight - slow.weight).abs().max(), 0.9 * apart)
moco_loss(a, b, queue)

# %% [md]
### Collapse

# %% [md]
There is a cheap way to make all views alike: one vector for everything. A loss that only pulls together ends there, and so does a good one with a bad rate. Two numbers tell it early: how far vectors spread in each direction, which is $1/\sqrt{d}$ for vectors that fill the sphere, and in how many directions at all, the **effective rank**.

# %%
#| export
@torch.no_grad()
def collapse(
    z,  # (rows, width), vectors of different pictures
) -> dict:  # spread, from 0 to about 1; rank; named: "" or what it is
    "Whether vectors have become one, or lie along a line. Source: Chen and He 2021, SimSiam; Roy and Vetterli 2007, effective rank."
    z = F.normalize(z.float(), dim=1)
    spread = float(z.std(0).mean() * z.shape[1] ** 0.5)
    s = torch.linalg.svdvals(z - z.mean(0))
    p = s / s.sum().clamp(min=1e-12)
    rank = float((-(p * p.clamp(min=1e-12).log()).sum()).exp()) if s.sum() > 1e-6 else 1.0
    named = "complete: all pictures have one vector" if spread < 0.05 else "of dimensions: the vectors lie along few directions" if rank < min(3.0, 0.1 * min(z.shape)) else ""
    return {"spread": spread, "rank": rank, "named": named}

# %%
fine, one, line = torch.randn(64, 32), torch.ones(64, 32) + 1e-3 * torch.randn(64, 32), torch.randn(64, 1) * torch.randn(1, 32)
assert collapse(fine)["named"] == "" and "complete" in collapse(one)["named"] and "dimensions" in collapse(line)["named"]
table([{"vectors": n, **collapse(z)} for n, z in (("fill the sphere", fine), ("one", one), ("a line", line))])

# %% [md]
### The recipe

# %% [md]
Two views of each picture, a trunk, and behind it a small network that is thrown away afterwards (the loss may destroy there what a later task wants). The loop is the kit's; what is tuned can be any method: all of the trunk, its top blocks, or LoRA. A contrastive loss looks at a whole batch, so a batch cannot be cut into parts: when memory runs out that is said, and not mended behind your back.

# %%
#| export
class Views:
    "Two changed views of chosen rows, and their labels where there are any."
    def __init__(self, augment): self.augment = augment
    def __call__(self, rows, index) -> dict:
        change, index = Augmented(rows, self.augment), torch.as_tensor(np.asarray(index))
        labels = {"labels": rows.column("label", index)} if "label" in rows.columns else {}
        return {"a": change.pixels(rows.pictures[index]), "b": change.pixels(rows.pictures[index]), **labels}

class WholeBatches(Batches):
    "Batches that are never cut. Raises `FtError` when memory runs out."
    def halve(self): raise FtError(f"Memory ran out with {self.batch_size} rows, and a contrastive loss needs its batch whole; take a smaller batch_size, or tune less of the trunk.")

def before_head(
    model,
    x,  # pixels
    head: str,  # the head's first module
) -> torch.Tensor:  # (rows, width)
    "What a model hands to its head."
    kept = {}
    hook = model.get_submodule(head).register_forward_pre_hook(lambda m, a: kept.update(h=a[0]))
    try: model(x)
    finally: hook.remove()
    return kept["h"].flatten(1)

# %%
#| export
class Contrast:
    "The step of contrastive tuning: named losses of a batch of views."
    def __init__(self, kind: str, head: str, temperature: float, queue: int, momentum: float):
        self.kind, self.head, self.temperature, self.size, self.momentum = kind, head, temperature, queue, momentum

    def seen(self, learner, x, names=("model", "project")): return learner.models[names[1]](before_head(learner.models[names[0]], x, self.head))

    def __call__(self, learner, batch):
        a = self.seen(learner, batch["a"])
        learner.state.setdefault("collapse", []).append(collapse(a.detach()))
        if self.kind == "moco": return {"contrast": self.against_queue(learner, a, batch["b"])}
        b = self.seen(learner, batch["b"])
        return {"contrast": sup_con(a, b, batch["labels"], self.temperature) if self.kind == "supcon" else nt_xent(a, b, self.temperature)}

    def against_queue(self, learner, a, x):
        with torch.no_grad(): b = F.normalize(self.seen(learner, x, ("slow", "slow project")).float(), dim=1)
        queue = learner.state.get("queue")
        if queue is None: queue = F.normalize(torch.randn(self.size, b.shape[1], device=b.device), dim=1)
        learner.state["queue"] = torch.cat([b, queue])[:self.size]
        return moco_loss(a, b, queue, self.temperature)

    def behind(self, learner):
        "Let the slow trunk follow."
        follow(learner.models["slow"], learner.models["model"], self.momentum)
        follow(learner.models["slow project"], learner.models["project"], self.momentum)

# %%
#| export
@dataclass(eq=False)
class Contrasted:
    "What contrastive tuning leaves: a model whose trunk was tuned, and what happened on the way."
    model: nn.Module = field(repr=False)
    processor: object = field(repr=False)
    kind: str
    steps: list = field(repr=False)  # one row per step
    ends: dict  # spread, rank and name of a collapse, at the end
    @property
    def history(self) -> pd.DataFrame: return pd.DataFrame(self.steps)
    def plot(self):
        "The loss, and how far the vectors spread."
        from ftkit.show import curves
        return curves(self.steps, title=f"Contrastive tuning, {self.kind}")

# %%
#| export
KINDS = ("simclr", "moco", "supcon")

def contrast(
    checkpoint: str,  # as for finetune
    data,  # as for finetune; labels are used by "supcon" only
    kind: str = "simclr",  # or "moco", "supcon"
    method="full",  # what of the trunk is tuned
    augment="standard",  # what makes views
    steps: int = 100,
    batch_size: int = 64,
    lr: float = None,  # None takes the method's own
    temperature: float = 0.1,
    queue: int = 1024,  # earlier keys that MoCo keeps
    momentum: float = 0.99,  # of MoCo's second trunk
    pretrained: bool = True,
    seed: int = 0,
) -> Contrasted:
    "Tune a trunk so that views of one picture belong together. Raises `FtError` for unknown kinds, and where names are missing."
    if kind not in KINDS: raise FtError(f"There is no contrastive loss {kind!r}; there are: {', '.join(KINDS)}.")
    data, task = unnamed(data, kind)
    seed_everything(seed)
    ck = load(checkpoint, task=task, classes=task.classes, pretrained=pretrained)
    rows, on, head = task.encode(data, ck.processor), make_method(method), ck.anatomy.head[0]
    width = before_head(ck.model.eval(), task.collate(rows, [0])["pixel_values"], head).shape[1]
    on.attach(ck.model, steps=steps)
    models = {"model": ck.model, "project": nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64))}
    step = Contrast(kind, head, temperature, queue, momentum)
    if kind == "moco": models |= {n: deepcopy(models[m]).requires_grad_(False) for n, m in (("slow", "model"), ("slow project", "project"))}
    learner = Learner(models, WholeBatches(rows, Views(augment), batch_size, seed=seed), step, on, steps=steps, lr=lr, keep="last", schedule="cosine")
    if kind == "moco": learner.on("after_step", step.behind)
    learner.fit()
    ends = learner.state["collapse"][-1]
    if ends["named"]: say(f"Collapse {ends['named']} (spread {ends['spread']:.2f}, rank {ends['rank']:.1f}). A smaller rate, stronger changes or a larger batch help.")
    return Contrasted(ck.model, ck.processor, kind, [h | {"spread": c["spread"]} for h, c in zip(learner.history, learner.state["collapse"])], ends)

def unnamed(data, kind: str) -> tuple:
    "Rows and a task that encodes them; without labels unless the loss asks for them."
    from ftkit.data.cleaning import label_names
    from ftkit.data.sources import read
    data = read(data) if not hasattr(data, "column_names") else data
    named = "label" in data.column_names
    if kind == "supcon" and not named: raise FtError("Supervised contrast needs names, in a column label; simclr and moco need none.")
    if kind != "supcon" and named: data = data.remove_columns("label")
    return data, resolve("task", "image-classification")(classes=label_names(data, "label") if kind == "supcon" else ["none", "one"])

# %% [md]
## Train it

# %% [md]
A thousand digits without their names, from a trunk that never saw digits. What is asked is what the trunk knows before and after, read by a linear probe and by its neighbours from 100 named ones.

# %%
pool, few, test = digits(900), digits(100, seed=2), digits(500, "test")
def judged(ck):
    "What a trunk knows of digits."
    f = [features(ck, d, task) for d in (few, test)]
    return {"linear probe": linear_probe(*f), "5 neighbours": neighbours(*f)}
task = ft.tasks.image_classification.ImageClassification(classes=list("0123456789"))
start = judged(ft.load("resnet-mini", task="image-classification", num_labels=10, seed=0))
start

# %% [md]
Views of digits: no flips, which would turn a digit into something else; small turns, moves, and other strokes of the pen.

# %%
views = v2.Compose([v2.RandomAffine(15, translate=(0.1, 0.1), scale=(0.8, 1.15), shear=10), v2.ColorJitter(0.4, 0.4), v2.GaussianBlur(5, (0.1, 2.0))])

# %%
tuned = {k: contrast("resnet-mini", pool, k, augment=views, steps=110, batch_size=96, lr=3e-4) for k in KINDS}
rows = [{"trunk": "at the start", **start}] + [{"trunk": k, **judged(t), "spread": t.ends["spread"], "rank": t.ends["rank"]} for k, t in tuned.items()]
table(rows)

# %%
at = {r["trunk"]: r for r in rows}
assert at["simclr"]["5 neighbours"] > start["5 neighbours"] + 0.02 and at["supcon"]["linear probe"] > start["linear probe"] + 0.02
assert not tuned["simclr"].ends["named"]
tuned["simclr"].plot()

# %% [md]
`supcon` has used the names of all 900, which the other two never saw, so it is no contest; it shows what names are worth.

# %% [md]
## When it goes wrong

# %% [md]
A rate that is far too high, and no change between the views, so that the question is trivial:

# %%
broken = contrast("resnet-mini", pool, "moco", augment=lambda p: p, steps=25, batch_size=64, lr=1.0, temperature=5.0)
broken.ends

# %%
for wrong in (lambda: contrast("resnet-mini", pool, "simclrr"), lambda: contrast("resnet-mini", pool.remove_columns("label"), "supcon")):
    try: wrong()
    except FtError as e: print("•", e)
    else: assert False, "must be refused"

# %% [md]
## Summary

# %% [md]
- InfoNCE is cross-entropy over the batch: which one is my other view?
- SimCLR takes wrong answers from the batch, MoCo from a queue, supervised contrast has several right ones.
- A tuned trunk is judged by a probe and by neighbours; a collapse is named.

# %% [md]
## Exercises

# %%
chance_q = Exercise("A trunk gives 64 pictures random vectors in very many dimensions. What is InfoNCE, about?", close(float(np.log(64)), 0.05), hint="All 64 answers look alike.", solution="log(64), about 4.16")
chance_q.test(4.1589, [0.0, 64.0])
chance_q

# %%
count_q = Exercise("SimCLR with a batch of 64 pictures: how many wrong answers has each view?", check=lambda n: n == 126 or "All 128 views, without itself and its other one.", hint="Two views of each.", solution="126")
count_q.test(right=126, wrong=[63, 127])
count_q

# %%
slow_q = Exercise("Momentum 0.99: after how many steps has the slow trunk gone half of the way to a fast one that stands still?", check=lambda n: 68 <= n <= 70 or "0.99 ** n = 0.5", hint="A logarithm.", solution="log(0.5) / log(0.99), about 69")
slow_q.test(right=69, wrong=[50, 99])
slow_q

# %% [md]
## See also

# %% [md]
- [Augmentation](../data/70_augmentation.ipynb): what views are made of
- [Evaluation](../74_evaluation.ipynb): probes and neighbours

# %%
#| hide
#| eval: false
from nbdev import nbdev_export; nbdev_export()
