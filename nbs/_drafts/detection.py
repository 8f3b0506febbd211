# %%
#| hide
# Colab only: install ftkit next to the preinstalled torch
import sys
if "google.colab" in sys.modules:
    %pip install -q "ftkit @ git+https://github.com/ftkit/ftkit"

# %% [md]
# Object detection

> What is in a picture, and where: boxes with names

# %%
#| default_exp tasks.object_detection

# %% [md]
- **You will** put a detector on a pretrained trunk, train it on pictures with boxes, draw what it finds, and judge it as COCO does.
- **You need** [image classification](50_image_classification.ipynb).
- **Runs in** about 60 s on a laptop; 25 minutes to read.
- **Paper** Tian et al. 2019, [FCOS](https://arxiv.org/abs/1904.01355); Lin et al. 2017, [Feature Pyramid Networks](https://arxiv.org/abs/1612.03144).

# %%
#| export
from collections import OrderedDict
from dataclasses import dataclass, field
import numpy as np
import torch
from PIL import Image
from torch import nn
from ftkit.core import FtError
from ftkit.data.cleaning import label_lists
from ftkit.data.pictures import Geometry, PictureRows, geometry, in_threads, opened

# %%
import tempfile
import ftkit as ft
from pathlib import Path
from ftkit.data.scenes import SHAPES, scenes
from ftkit.gallery import gallery
from ftkit.show import table
from ftkit.tasks.core import Task
from ftkit.teach import Exercise, agrees, close

# %% [md]
## The idea

# %% [md]
A detector asks at every place of a picture's maps: is this place inside an object, of which class, and how far is it from here to the four sides of its box? **FCOS** asks just that, and nothing of anchors in many shapes. How good a box is says its overlap with the true one, the intersection over the union:

$$\mathrm{IoU}(A, B) = \frac{|A \cap B|}{|A \cup B|}.$$

# %%
def naive_iou(a, b):
    "By counting whole pixels."
    inside = lambda box: {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}
    return len(inside(a) & inside(b)) / len(inside(a) | inside(b))
naive_iou((0, 0, 10, 10), (5, 0, 15, 10))

# %% [md]
## Build it

# %% [md]
### Boxes

# %%
#| export
def iou(
    a,  # (n, 4), corners (x0, y0, x1, y1)
    b,  # (m, 4)
) -> torch.Tensor:  # (n, m), from 0 to 1
    "The overlap of every box with every other."
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    shared, size = (high - low).clamp(min=0).prod(-1), lambda x: (x[:, 2:] - x[:, :2]).prod(-1)
    return shared / (size(a)[:, None] + size(b) - shared)

# %%
pair = torch.tensor([[0., 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
assert torch.allclose(iou(pair, pair)[0], torch.tensor([1, naive_iou((0, 0, 10, 10), (5, 0, 15, 10)), 0]))
iou(pair, pair)

# %% [md]
A box that ends before it begins, or lies outside of its picture, is a slip of whoever drew it. It is found before training and named.

# %%
#| export
def boxes_of(
    value,  # list of (x0, y0, x1, y1) in pixels
    size: tuple,  # width and height of the picture
    row: int,  # for messages
) -> np.ndarray:  # (boxes, 4)
    "A row's boxes. Raises `FtError` for one that is none."
    boxes = np.asarray([list(map(float, b)) for b in value or ()], np.float32).reshape(-1, 4)
    for b in boxes:
        if not (b[0] < b[2] and b[1] < b[3]): raise FtError(f"Row {row}: the box {b.tolist()} ends before it begins; boxes are (x0, y0, x1, y1) in pixels, not (x, y, width, height).")
        if b.min() < -1 or b[2] > size[0] + 1 or b[3] > size[1] + 1: raise FtError(f"Row {row}: the box {b.tolist()} reaches out of its picture of {size[0]} x {size[1]} pixels.")
    return boxes

# %%
assert boxes_of([[1, 2, 5, 6]], (10, 10), 0).shape == (1, 4) and boxes_of(None, (10, 10), 0).shape == (0, 4)
for b in ([5, 5, 3, 9], [0, 0, 20, 5]):
    try: boxes_of([b], (10, 10), 7)
    except FtError as e: print("•", e)
    else: assert False, "must be refused"

# %% [md]
### A detector on a trunk

# %% [md]
What a trunk gives at three sizes goes through a **feature pyramid**, which carries what the coarse maps know into the fine ones; the FCOS head of torchvision asks its questions there. The trunk is pretrained; pyramid and head are new, and count as head.

# %%
#| export
class Pyramid(nn.Module):
    "A trunk of timm, and a feature pyramid over its maps. Source: Lin et al. 2017."
    def __init__(self,
        trunk,  # a model of timm that gives maps of several sizes
        channels: int = 64,
        levels: int = 3,  # maps, from the finest on that is not the stem's
    ):
        from torchvision.ops import FeaturePyramidNetwork
        super().__init__()
        told = trunk.feature_info
        if len({f["reduction"] for f in told}) < levels + 1: raise FtError(f"{type(trunk).__name__} has maps of one size only, and a feature pyramid needs {levels}; take a network of convolutions such as resnet-mini or resnet50.")
        self.trunk, self.out_channels, self.at = trunk, channels, list(range(1, 1 + levels))
        self.reductions = [told[i]["reduction"] for i in self.at]
        self.fpn = FeaturePyramidNetwork([told[i]["num_chs"] for i in self.at], channels)

    def forward(self, x):
        "Maps by their level, finest first."
        maps = self.trunk.forward_intermediates(x, indices=self.at, intermediates_only=True)
        return self.fpn(OrderedDict((str(i), m) for i, m in enumerate(maps)))

def detector(
    model,  # a checkpoint's model, without a head
    classes: int,
    convolutions: int = 2,  # before each of the head's questions
):
    "An FCOS detector of torchvision on a trunk. Raises `FtError` for trunks without maps of several sizes."
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOSHead
    body = Pyramid(getattr(model, "timm_model", model))
    anchors = AnchorGenerator(tuple((r,) for r in body.reductions), ((1.0,),) * len(body.reductions))
    out = FCOS(body, classes, image_mean=[0.0] * 3, image_std=[1.0] * 3, anchor_generator=anchors, head=FCOSHead(body.out_channels, 1, classes, convolutions), score_thresh=0.05, detections_per_img=50, _skip_resize=True)
    out.config, out._ft_new = getattr(model, "config", None), tuple(n for n, _ in out.named_parameters() if not n.startswith("backbone.trunk."))
    return out

# %%
ck = ft.load("resnet-mini", task="object-detection", num_labels=6, seed=0)
with torch.inference_mode(): said, = ck.model.eval()(torch.zeros(1, 3, 64, 64))
assert set(said) == {"boxes", "scores", "labels"} and len(ck.anatomy.blocks) == 8
assert all(not n.startswith("backbone.trunk") for n in ck.new)
ck.anatomy

# %% [md]
### The task

# %%
#| export
def squeezed(values, side: int) -> tuple:
    "Pictures of one size in bytes, (rows, 3, side, side), and the sizes they had, (rows, 2)."
    found = in_threads(lambda v: opened(v)[0].convert("RGB"), values)
    pixels = np.stack([np.asarray(p.resize((side, side), Image.Resampling.BILINEAR)) for p in found])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), np.array([p.size for p in found], np.float32)

class BoxRows(PictureRows):
    "Pictures of one size with boxes; mirrored at random where that is asked."
    boxes, names, flip = None, None, False  # boxes and label numbers: a tensor for each row

    def batch(self, index) -> dict:
        "A batch: pictures, the sizes they had, and where known boxes and label numbers."
        x, boxes = self.pixels(self.pictures[torch.as_tensor(index)]), [self.boxes[i].clone() for i in index] if self.boxes else None
        mirrored = torch.rand(len(x)) < 0.5 if self.flip else torch.zeros(len(x), dtype=torch.bool)
        x[mirrored] = x[mirrored].flip(-1)
        for b, m in zip(boxes or (), mirrored):
            if m: b[:, [0, 2]] = x.shape[-1] - b[:, [2, 0]]
        known = {"boxes": boxes, "labels": [self.names[i] for i in index]} if boxes is not None else {}
        return {"pixel_values": x, "size": self.column("size", index), **known}

# %%
#| export
@dataclass
class ObjectDetection:
    "Boxes with names."
    classes: list = field(default_factory=list)  # class names
    columns: dict = field(default_factory=lambda: {"image": "image", "boxes": "boxes", "labels": "labels"})  # role -> column name
    side: int = 64  # pixels a side to which pictures are brought
    flip: bool = True  # mirror half of the pictures while training
    threshold: float = 0.3  # least score of a box that `predict` returns
    name = "object-detection"
    head = "AutoModel"
    metric = "map_50"
    greater_is_better = True

    def wrap(self, model): return detector(model, len(self.classes))
    def encode(self, data, processor) -> BoxRows:
        "Pictures of one size, boxes and label numbers, from a datasets.Dataset or a plain list of pictures."
        told, table = geometry(processor), hasattr(data, "column_names")
        pixels, sizes = squeezed(data[self.columns["image"]][:] if table else list(data), self.side)
        rows = BoxRows(pixels, {"size": sizes}, Geometry(self.side, None, told.mean, told.std))
        if table and self.columns["boxes"] in data.column_names: rows.boxes, rows.names = targets(self, data, sizes)
        return rows
    def for_training(self, rows):
        rows.flip = self.flip
        return rows
    def collate(self, rows, index) -> dict: return rows.batch(np.asarray(index))
    def forward(self, model, batch):
        "While training the losses; else the boxes found, in pixels of the pictures as they came."
        if model.training and "boxes" in batch: return model(list(batch["pixel_values"]), [{"boxes": b, "labels": y} for b, y in zip(batch["boxes"], batch["labels"])])
        found = model.eval()(list(batch["pixel_values"]))
        return [{**f, "boxes": f["boxes"] * (s.repeat(2) / self.side)} for f, s in zip(found, batch["size"])]
    def loss(self, outputs, batch) -> tuple:
        "Summed losses of class, box and centre, and the number of rows."
        return sum(outputs.values()) * len(batch["pixel_values"]), len(batch["pixel_values"])
    def metrics(self): return BoxMetrics(self)
    def predict(self, outputs) -> list:
        "Boxes, labels and scores above the threshold, one dict per picture."
        keep = [o["scores"] >= self.threshold for o in outputs]
        return [{"boxes": [[round(float(v), 1) for v in b] for b in o["boxes"][k]], "labels": [self.classes[int(i)] for i in o["labels"][k]], "scores": [round(float(v), 3) for v in o["scores"][k]]} for o, k in zip(outputs, keep)]
    def show(self, rows, batch):
        "A batch as pictures with boxes."
        from ftkit.gallery import gallery
        return gallery([rows.drawn(x) for x in batch["pixel_values"]], boxes=[b.tolist() for b in batch["boxes"]], names=[[str(self.classes[int(k)]) for k in y] for y in batch["labels"]])

# %%
#| export
def targets(task, data, sizes) -> tuple:
    "Boxes at the size of the task, and label numbers: a tensor for each row. Raises `FtError` where their numbers differ."
    place, boxes, names = {str(c): i for i, c in enumerate(task.classes)}, [], []
    for i, (value, labels, size) in enumerate(zip(data[task.columns["boxes"]][:], label_lists(data, task.columns["labels"]), sizes)):
        b = boxes_of(value, size, i)
        if len(b) != len(labels): raise FtError(f"Row {i} has {len(b)} boxes and {len(labels)} labels.")
        boxes.append(torch.from_numpy(b * np.tile(task.side / size, 2).astype(np.float32)))
        names.append(torch.tensor([place[n] for n in labels], dtype=torch.long))
    return boxes, names

class BoxMetrics:
    "Mean average precision as COCO has it, by torchmetrics. It keeps every box until the end, as the definition asks."
    def __init__(self, task):
        try: from torchmetrics.detection import MeanAveragePrecision
        except ImportError: raise FtError("Detection is judged by torchmetrics and pycocotools: pip install 'ftkit[detection]'.") from None
        self.task, self.meter = task, MeanAveragePrecision()
    def update(self, outputs, batch):
        scale = [s.repeat(2) / self.task.side for s in batch["size"]]
        self.meter.update([{k: v.cpu() for k, v in o.items()} for o in outputs], [{"boxes": (b * s).cpu(), "labels": y.cpu()} for b, y, s in zip(batch["boxes"], batch["labels"], scale)])
    def compute(self) -> dict:
        "map (mean over overlaps from 0.5 to 0.95), map_50, map_75, and recall with up to ten boxes."
        found = self.meter.compute()
        return {k: float(found[k]) for k in ("map_50", "map", "map_75")} | {"recall": float(found["mar_10"])}

# %%
task = ObjectDetection(classes=list(SHAPES))
data = scenes(8, seed=3)
rows = task.encode(data, ck.processor)
batch = task.collate(rows, [0, 1])
assert isinstance(task, Task) and batch["pixel_values"].shape == (2, 3, 64, 64) and [len(b) for b in batch["boxes"]] == [len(b) for b in data["boxes"][:2]]
torch.manual_seed(0)
seen = [task.for_training(rows).batch([0])["boxes"][0] for _ in range(8)]
assert len({tuple(b.flatten().tolist()) for b in seen}) == 2  # as it is, and mirrored
rows.flip = False
losses = task.forward(ck.model.train(), batch)
assert task.loss(losses, batch)[1] == 2
{k: round(float(v), 3) for k, v in losses.items()}

# %% [md]
A perfect answer scores one, and the metric is torchmetrics':

# %%
meter = task.metrics()
exact = [{"boxes": b, "scores": torch.ones(len(b)), "labels": y} for b, y in zip(batch["boxes"], batch["labels"])]
meter.update(exact, batch)
assert meter.compute()["map"] == 1.0
meter.compute()

# %% [md]
## Train it

# %% [md]
Generated scenes of one to three shapes. Look first:

# %%
shown = ft.show_batch("resnet-mini", scenes(8, seed=3), task="object-detection", n=6)
assert "6 pictures" in shown.alt
shown

# %%
run = ft.finetune("resnet-mini", scenes(480, seed=0), "full", task="object-detection", valid=scenes(100, seed=1), epochs=14, batch_size=16, lr=1e-3, keep="last", seed=0)
assert run.metrics["map_50"] >= 0.6 and run.resources["seconds"] <= 60
run

# %%
test = scenes(6, seed=7)
said = run.predict(test["image"])
assert list(said.columns) == ["image", "boxes", "labels", "scores"]
gallery(test["image"], [f"{len(b)} there" for b in test["boxes"]], said.boxes.tolist(), [[f"{l} {100 * s:.0f}" for l, s in zip(ls, ss)] for ls, ss in zip(said.labels, said.scores)], across=3)

# %% [md]
Against random weights, with the same steps:

# %%
blank = ft.finetune("resnet-mini", scenes(480, seed=0), "full", task="object-detection", valid=scenes(100, seed=1), epochs=5, batch_size=16, lr=1e-3, keep="last", seed=0, pretrained=False)
same = ft.finetune("resnet-mini", scenes(480, seed=0), "full", task="object-detection", valid=scenes(100, seed=1), epochs=5, batch_size=16, lr=1e-3, keep="last", seed=0)
assert same.metrics["map_50"] > blank.metrics["map_50"]
table([{"start": n, **r.metrics} for n, r in (("pretrained", same), ("random", blank))])

# %% [md]
Saved and opened again, it finds the same.

# %%
folder = Path(tempfile.mkdtemp())
run.save(folder)
again = ft.load_run(folder).predict(test["image"])
assert again.boxes.tolist() == said.boxes.tolist()

# %% [md]
## When it goes wrong

# %%
odd = scenes(12, seed=3).to_list()
odd[4]["boxes"][0] = [10.0, 10.0, 6.0, 8.0]
for wrong in (lambda: ft.finetune("resnet-mini", odd, "full", task="object-detection", steps=1), lambda: ft.finetune("vit-mini", "scenes", "full", task="object-detection", steps=1)):
    try: wrong()
    except FtError as e: print("•", e)
    else: assert False, "must be refused"

# %% [md]
## On a real model

# %% [md]
ResNet-50 with ImageNet weights, pictures of 512 pixels: a GPU with 12 GB. Needs the network; set `FTKIT_REAL=1` and `FTKIT_BOXES` to a data set with the columns image, boxes, labels.

# %%
#| slow
#| gpu
#| net
import os
if os.environ.get("FTKIT_REAL") and os.environ.get("FTKIT_BOXES"):
    real = ft.finetune("resnet50", os.environ["FTKIT_BOXES"], ft.Freeze(top=8), task="object-detection", side=512, batch_size=8, epochs=12)
    print(real)

# %% [md]
## Summary

# %% [md]
- A trunk, a pyramid over its maps, and a head that asks at every place: inside what, and how far to the sides.
- Boxes that end before they begin, or reach out of their picture, are named with their row.
- Judged by mean average precision at an overlap of one half, and averaged over stricter ones.

# %% [md]
## Exercises

# %%
def overlap(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    s = max(0, w) * max(0, h)
    return s / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - s)
box = lambda rng: (lambda x, y: (x, y, x + rng.randint(1, 9), y + rng.randint(1, 9)))(rng.randint(0, 5), rng.randint(0, 5))
iou_q = Exercise("Write `overlap(a, b)` for two boxes (x0, y0, x1, y1).", agrees(overlap, lambda rng: (box(rng), box(rng))), hint="The shared part may be empty: `max(0, …)`.", solution="shared / (area a + area b - shared)")
iou_q.test(overlap, [lambda a, b: 0.5, lambda a, b: float(a == b)])
iou_q

# %%
half_q = Exercise("Two boxes of the same size overlap by half of their area. What is their IoU?", close(1 / 3, 1e-3), hint="The union is one and a half.", solution="0.5 / 1.5")
half_q.test(0.33333, [0.5])
half_q

# %%
places_q = Exercise("A map with one place for every 8 pixels, of a picture with 64 pixels a side: at how many places is the question asked?", check=lambda n: n == 64 or "8 x 8", hint="64 / 8 along each side.", solution="64")
places_q.test(right=64, wrong=[8, 4096])
places_q

# %% [md]
## See also

# %% [md]
- [Scenes](../data/65_scenes.ipynb), [gallery](../22_gallery.ipynb)
- [Image classification](50_image_classification.ipynb)

# %%
#| hide
#| eval: false
from nbdev import nbdev_export; nbdev_export()
