"""Data, models and tasks of the complete jobs, the same for ftkit and for the other tools"""

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.update(FTKIT_QUIET="1", IN_TEST="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
DATA = Path(os.environ.get("FTKIT_DATA") or ROOT.parent / "shared" / "data")
VALID = 400  # maximum number of validation rows
SCRATCH = Path(os.environ.get("FTKIT_BENCH") or Path(tempfile.gettempdir()) / "ftkit-bench")
MINI = ROOT / "ftkit" / "zoo" / "bert_mini"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import ftkit as ft  # noqa: E402
from ftkit.data.encoded import DenseColumn, EncodedDataset  # noqa: E402
from ftkit.tasks.base import Task  # noqa: E402

# ---- data: training and validation rows


def sst2(rows):
    "Real sentences, two labels; 3 to 75 tokens."

    def read(part):
        lines = (DATA / "sst2" / f"{part}.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]
        return [dict(zip(("text", "label"), line.split("\t"), strict=True)) for line in lines]

    return read("train")[:rows], read("dev")[:VALID]


def varied(rows):
    "Instructions with responses from four collections, 14 to 256 tokens; the label is the collection."
    found = []
    for f in ("alpaca_gpt4_en", "lima", "llms_from_scratch", "dolly_sample"):
        found += [
            dict(text=" ".join((r["instruction"], r["input"], r["output"])), label=f)
            for r in map(json.loads, open(DATA / "instructions" / f"{f}.jsonl", encoding="utf-8"))
        ]
    found = [found[i] for i in np.random.default_rng(0).permutation(len(found))]
    return found[400:][:rows], found[:VALID]


def pictures(rows):
    "Fashion-MNIST as colour images of 32 x 32, ten labels."
    z = np.load(DATA / "fashion_mnist" / "fashion_mnist.npz")

    def make(x, y, n):
        wide = np.pad(x[:n], ((0, 0), (2, 2), (2, 2)))
        return wide[..., None].repeat(3, -1), y[:n].astype(np.int64)

    return make(z["train_images"], z["train_labels"], rows), make(z["test_images"], z["test_labels"], VALID)


def wide_pictures(rows):
    "The same images, enlarged three times in both directions."
    return tuple((x.repeat(3, 1).repeat(3, 2), y) for x, y in pictures(rows))


# ---- models: the bundled one, or an architecture with random weights in a folder, the same for all


@dataclass
class Work:
    "Data, the kind of task, and a model."

    data: object
    kind: str = "text"  # "text", "image" or "causal"
    layers: int = 4
    width: int = 192
    bundled: bool = False

    def model(self, labels):
        "The model for the other tools and for the tasks of this file; the same weights for all."
        import transformers as t

        t.logging.set_verbosity_error()
        torch.manual_seed(0)
        if self.bundled:
            return t.AutoModelForSequenceClassification.from_pretrained(MINI, num_labels=labels, dtype=torch.float32)
        return {"text": self.text, "image": self.image, "causal": self.causal}[self.kind](t, labels)

    def size(self) -> dict:
        "Layers, width and heads, with the names used by the configurations of BERT and ViT."
        heads = max(2, self.width // 64 if self.width > 192 else 6)
        return dict(
            num_hidden_layers=self.layers,
            hidden_size=self.width,
            num_attention_heads=heads,
            intermediate_size=4 * self.width,
        )

    def text(self, t, labels):
        "A BERT."
        return t.BertForSequenceClassification(t.BertConfig(vocab_size=8192, num_labels=labels, **self.size()))

    def image(self, t, labels):
        "A ViT, or ResNet-50 where no width is given."
        if not self.width:
            import timm

            return Plain(timm.create_model("resnet50", num_classes=labels))
        config = t.ViTConfig(image_size=32, patch_size=4, num_labels=labels, hidden_dropout_prob=0.0, **self.size())
        return t.ViTForImageClassification(config)

    def causal(self, t, labels):
        "A GPT-2."
        config = t.GPT2Config(
            vocab_size=8192,
            n_positions=512,
            n_layer=self.layers,
            n_embd=self.width,
            n_head=self.size()["num_attention_heads"],
            bos_token_id=2,
            eos_token_id=2,
        )
        return t.GPT2LMHeadModel(config)

    def folder(self, labels):
        "The same model as a folder for `finetune`."
        if self.bundled:
            return "bert-mini"
        to = SCRATCH / f"bert-{self.layers}x{self.width}"
        if not (to / "model.safetensors").exists():
            import transformers as t

            tokenizer = t.AutoTokenizer.from_pretrained(MINI)
            tokenizer.model_max_length = 512
            tokenizer.save_pretrained(to)
            self.model(labels).bert.save_pretrained(to)
        return str(to)


WORKS = {
    "sst2": Work(sst2, bundled=True),
    "varied": Work(varied),
    "sst2-512": Work(sst2),
    "sst2-12": Work(sst2, layers=12, width=256),
    "sst2-base": Work(sst2, layers=12, width=768),
    "varied-base": Work(varied, layers=12, width=768),
    "pictures": Work(pictures, "image"),
    "pictures-12": Work(pictures, "image", layers=12, width=256),
    "resnet50": Work(wide_pictures, "image", width=0),
    "pictures-base": Work(pictures, "image", layers=12, width=768),
    "causal": Work(varied, "causal"),
    "causal-base": Work(varied, "causal", layers=12, width=768),
}
METHODS = {
    "full": ft.Full(),
    "lora": ft.LoRA(dropout=0.05),
    "head": ft.LinearProbe(),
    "top2": ft.Freeze(2),
    "top6": ft.Freeze(6),
}


class Plain(torch.nn.Module):
    "Wraps an image model so that its output has an attribute `logits`."

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return type("Out", (), {"logits": self.model(pixel_values)})


# ---- tasks of this file


def picture_rows(images, labels):
    "Images decoded once and stored as bytes."
    from ftkit.data.image_preprocessing import ImagePreprocessing
    from ftkit.data.images import ImageColumn

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    column = ImageColumn(pixels, ImagePreprocessing(images.shape[1]))
    return EncodedDataset({"pixel_values": column, "labels": DenseColumn(labels)})


class Pictures(Task):
    "Image classification with ten labels: a minimal task."

    name, metric, greater_is_better, classes = "image-classification", "accuracy", True, list(range(10))

    def forward(self, model, batch):
        return model(pixel_values=batch["pixel_values"]).logits

    def loss(self, out, batch):
        return F.cross_entropy(out.float(), batch["labels"], reduction="sum"), len(out)

    def metrics(self):
        return ft.tasks.text_classification.TextMetrics(self)


class NextToken(Task):
    "The loss of a causal language model: a minimal task."

    name, metric, greater_is_better, classes = "text-generation", "loss", False, [0]

    def forward(self, model, batch):
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits

    def loss(self, out, batch):
        targets = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)[:, 1:]
        return F.cross_entropy(
            out[:, :-1].reshape(-1, out.shape[-1]).float(), targets.reshape(-1), reduction="sum", ignore_index=-100
        ), int(batch["attention_mask"][:, 1:].sum())

    def metrics(self):
        return MeanLoss(self)


class MeanLoss:
    "Accumulates the mean loss."

    def __init__(self, task):
        self.task, self.sum, self.count = task, 0.0, 0

    def update(self, out, batch):
        s, n = self.task.loss(out, batch)
        self.sum, self.count = self.sum + float(s), self.count + n

    def compute(self):
        return {"loss": self.sum / self.count}


def names_of(work, train) -> list:
    "The classes of a workload."
    return sorted({r["label"] for r in train}) if work.kind == "text" else list(range(10))


def task_of(work, names):
    "The task: the registered one for text, otherwise one of this file."
    from ftkit.tasks.text_classification import TextClassification

    return {"text": TextClassification(classes=names), "image": Pictures(), "causal": NextToken()}[work.kind]


def encode(work, part, names):
    "Rows for these tasks."
    if work.kind == "image":
        return picture_rows(*part)
    from transformers import AutoTokenizer

    from ftkit.tasks.base import tokenize

    tokenizer = AutoTokenizer.from_pretrained(MINI)
    tokenizer.model_max_length = 512
    columns = {"input_ids": tokenize([r["text"] for r in part], tokenizer, 256)}
    if work.kind == "text":
        columns["labels"] = DenseColumn([names.index(r["label"]) for r in part])
    return EncodedDataset(columns)


def flipped(batch):
    "A batch of images, each flipped or not, at random."
    x = batch["pixel_values"]
    return batch | {"pixel_values": torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x)}
