"""One whole job, timed: from rows to a tuned model, by this kit, by Trainer with peft, by a bare loop, or by the tutorial that pads to the end.

    python tools/bench/jobs.py WORK METHOD WHO [--precision fp32] [--epochs 3] [--steps N] [--rows N]

Prints one line of JSON. Imports and the reading of files are not counted; making the model, tokenising, training and one evaluation per epoch are.
"""
import argparse, json, os, sys, tempfile, time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.update(FTKIT_QUIET="1", IN_TEST="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
DATA = Path(os.environ.get("FTKIT_DATA") or ROOT.parent / "shared" / "data")
VALID = 400  # rows to validate on, at most
SCRATCH = Path(os.environ.get("FTKIT_BENCH") or Path(tempfile.gettempdir()) / "ftkit-bench")
MINI = ROOT / "ftkit" / "zoo" / "bert_mini"

import numpy as np
import torch
from torch.nn import functional as F
import ftkit as ft


# ---- what is worked on: rows to train and to validate on

def sst2(rows):
    "Real sentences, two labels; 3 to 75 tokens."
    read = lambda f: [dict(zip(("text", "label"), l.rstrip("\n").split("\t"))) for l in open(DATA / "sst2" / f"{f}.tsv", encoding="utf-8").readlines()[1:]]
    return read("train")[:rows], read("dev")[:VALID]


def varied(rows):
    "Instructions with answers from four collections, 14 to 256 tokens; the label is the collection."
    found = []
    for f in ("alpaca_gpt4_en", "lima", "llms_from_scratch", "dolly_sample"):
        found += [dict(text=" ".join((r["instruction"], r["input"], r["output"])), label=f) for r in map(json.loads, open(DATA / "instructions" / f"{f}.jsonl", encoding="utf-8"))]
    found = [found[i] for i in np.random.default_rng(0).permutation(len(found))]
    return found[400:][:rows], found[:VALID]


def pictures(rows):
    "Fashion-MNIST as colour pictures of 32 x 32, ten labels."
    z = np.load(DATA / "fashion_mnist" / "fashion_mnist.npz")
    make = lambda x, y, n: (np.pad(x[:n], ((0, 0), (2, 2), (2, 2)))[..., None].repeat(3, -1), y[:n].astype(np.int64))
    return make(z["train_images"], z["train_labels"], rows), make(z["test_images"], z["test_labels"], VALID)


def wide_pictures(rows):
    "The same pictures, three times as wide and high."
    return tuple((x.repeat(3, 1).repeat(3, 2), y) for x, y in pictures(rows))


# ---- the models: the bundled one, or an architecture with random weights in a folder, the same for all

@dataclass
class Work:
    "Data, the way they are asked about, and a model."
    data: object
    kind: str = "text"  # "text", "image" or "causal"
    layers: int = 4
    width: int = 192
    bundled: bool = False

    def model(self, labels):
        "The model for peers and for tasks of this file; the same weights for all."
        import transformers as t
        t.logging.set_verbosity_error()
        torch.manual_seed(0)
        size = dict(num_hidden_layers=self.layers, hidden_size=self.width, num_attention_heads=max(2, self.width // 64 if self.width > 192 else 6), intermediate_size=4 * self.width)
        if self.bundled: return t.AutoModelForSequenceClassification.from_pretrained(MINI, num_labels=labels, dtype=torch.float32)
        if self.kind == "text": return t.BertForSequenceClassification(t.BertConfig(vocab_size=8192, num_labels=labels, **size))
        if self.kind == "image" and not self.width:
            import timm
            return Plain(timm.create_model("resnet50", num_classes=labels))
        if self.kind == "image": return t.ViTForImageClassification(t.ViTConfig(image_size=32, patch_size=4, num_labels=labels, hidden_dropout_prob=0.0, **size))
        return t.GPT2LMHeadModel(t.GPT2Config(vocab_size=8192, n_positions=512, n_layer=self.layers, n_embd=self.width, n_head=size["num_attention_heads"], bos_token_id=2, eos_token_id=2))

    def folder(self, labels):
        "The same model as a folder that `finetune` opens."
        if self.bundled: return "bert-mini"
        to = SCRATCH / f"bert-{self.layers}x{self.width}"
        if not (to / "model.safetensors").exists():
            import transformers as t
            tokenizer = t.AutoTokenizer.from_pretrained(MINI)
            tokenizer.model_max_length = 512
            tokenizer.save_pretrained(to)
            self.model(labels).bert.save_pretrained(to)
        return str(to)


WORKS = {"sst2": Work(sst2, bundled=True), "varied": Work(varied), "sst2-512": Work(sst2), "sst2-12": Work(sst2, layers=12, width=256), "sst2-base": Work(sst2, layers=12, width=768), "varied-base": Work(varied, layers=12, width=768),
         "pictures": Work(pictures, "image"), "pictures-12": Work(pictures, "image", layers=12, width=256), "resnet50": Work(wide_pictures, "image", width=0), "pictures-base": Work(pictures, "image", layers=12, width=768), "causal": Work(varied, "causal"), "causal-base": Work(varied, "causal", layers=12, width=768)}
METHODS = {"full": ft.Full(), "lora": ft.LoRA(dropout=0.05), "head": ft.Head(), "top2": ft.Freeze(2), "top6": ft.Freeze(6)}
RATES = {"full": 1e-4, "lora": 5e-4, "head": 1e-3, "top2": 1e-4, "top6": 1e-4}


class Plain(torch.nn.Module):
    "A model of pictures whose answer is called logits."
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, pixel_values): return type("Out", (), {"logits": self.model(pixel_values)})


# ---- this kit

def picture_rows(pictures, labels):
    "Pictures decoded once, kept as bytes."
    from ftkit.data.pictures import Geometry, PictureRows
    return PictureRows(torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), {"label": labels}, Geometry(pictures.shape[1]))


class Pictures:
    "Ten labels for pictures: a task of ten lines."
    name, metric, greater_is_better, classes = "image-classification", "accuracy", True, list(range(10))
    def collate(self, rows, index):
        x = rows.pixels(rows.pictures[index])
        if getattr(rows, "flip", False): x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x)
        return {"pixel_values": x, "labels": rows.column("label", index)}
    def forward(self, model, batch): return model(pixel_values=batch["pixel_values"]).logits
    def loss(self, out, batch): return F.cross_entropy(out.float(), batch["labels"], reduction="sum"), len(out)
    def metrics(self): return ft.tasks.text_classification.TextMetrics(self)


class NextToken:
    "The loss of a causal language model: a task of ten lines."
    name, metric, greater_is_better, classes = "text-generation", "loss", False, [0]
    def collate(self, rows, index):
        ids, mask = rows.rectangle(index)
        return {"input_ids": ids, "attention_mask": mask}
    def forward(self, model, batch): return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    def loss(self, out, batch):
        targets = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)[:, 1:]
        return F.cross_entropy(out[:, :-1].reshape(-1, out.shape[-1]).float(), targets.reshape(-1), reduction="sum", ignore_index=-100), int(batch["attention_mask"][:, 1:].sum())
    def metrics(self): return MeanLoss(self)


class MeanLoss:
    "Streams the mean loss."
    def __init__(self, task): self.task, self.sum, self.count = task, 0.0, 0
    def update(self, out, batch):
        s, n = self.task.loss(out, batch)
        self.sum, self.count = self.sum + float(s), self.count + n
    def compute(self): return {"loss": self.sum / self.count}


def names_of(work, train) -> list:
    "The classes of a work."
    return sorted({r["label"] for r in train}) if work.kind == "text" else list(range(10))


def task_of(work, names):
    "The task: the registered one for text, else one of this file."
    from ftkit.tasks.text_classification import TextClassification
    return {"text": TextClassification(classes=names), "image": Pictures(), "causal": NextToken()}[work.kind]


def encode(work, part, names):
    "Rows for these tasks."
    if work.kind == "image": return picture_rows(*part)
    from transformers import AutoTokenizer
    from ftkit.tasks.text_classification import token_rows
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    tokenizer.model_max_length = 512
    rows = token_rows([r["text"] for r in part], tokenizer, 256)
    if work.kind == "text": rows.columns["label"] = np.array([names.index(r["label"]) for r in part])
    return rows


def kit(a, work, train, valid):
    "`finetune` for text; the same verbs with a ten-line task elsewhere."
    if work.kind != "text": return by_parts(a, work, train, valid)
    from datasets import Dataset
    options = {} if a.precision == "own" else {"precision": a.precision}
    run = ft.finetune(work.folder(len({r["label"] for r in train})), Dataset.from_list(train), METHODS[a.method], valid=Dataset.from_list(valid), epochs=a.epochs, steps=a.steps, batch_size=a.batch,
                      lr=RATES[a.method], keep="last", max_length=256 if work.data is varied else None, keep_leaks=True, cache=None if a.cache else False, **options)
    return dict(loss=float(run.history["loss"].mean()), quality=run.metrics["accuracy"], precision=run.resources["precision"], way=run.spec["way"], inside=run.resources["seconds"])


def by_parts(a, work, train, valid):
    "What `finetune` does, for a task that is not registered."
    from dataclasses import asdict
    from ftkit.data.batching import Batches
    from ftkit.methods.core import set_modes
    from ftkit.probe import autocast, ordinary, probed
    from ftkit.run import evaluate_rows
    from ftkit.train import Learner
    from ftkit.trunk import cached
    model, method, device = work.model(10), METHODS[a.method], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = names_of(work, train)
    task, rows, held = task_of(work, names), encode(work, train, names), encode(work, valid, names)
    rows.flip = a.flip
    method.attach(model.to(device))
    set_modes(model)
    batches = Batches(rows, task.collate, a.batch)
    way = probed(model, task, task.collate(rows, ordinary(rows, a.batch)), "auto" if a.precision == "own" else a.precision, device)
    with way.used():
        if a.cache:
            task = cached(task, model, [(rows, lambda: autocast(way.precision, device), way.precision), (held, nullcontext, "fp32")], a.epochs, device=device)
            batches.collate = task.collate
        learner = Learner(model, batches, lambda l, b: task.loss(task.forward(l.model, b), b), method, epochs=a.epochs, steps=a.steps, lr=RATES[a.method], precision=way.precision, keep="last",
                          validate=lambda l: evaluate_rows(l.model, task, held, device=device), metric=task.metric, greater_is_better=task.greater_is_better).fit()
    return dict(loss=float(np.mean([h["loss"] for h in learner.history])), quality=learner.history[-1][f"valid_{task.metric}"], precision=way.precision, way=asdict(way))


# ---- the peers

def trainer(a, work, train, valid, tutorial=False):
    "Trainer and peft, set up as their documentation says: like lengths together, padded to the longest of the batch."
    from datasets import Dataset, Features, Image, Value
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling, DataCollatorWithPadding, Trainer, TrainingArguments, default_data_collator
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    tokenizer.model_max_length = 512
    names = names_of(work, train)
    if work.kind == "image":
        from torchvision.transforms.v2 import RandomHorizontalFlip
        def sets_of(part, flip=False):
            found = Dataset.from_dict({"image": list(part[0]), "label": part[1]}, features=Features({"image": Image(), "label": Value("int64")}))
            changed = RandomHorizontalFlip(0.5 if flip else 0.0)
            return found.with_transform(lambda rows: {"pixel_values": [torch.from_numpy(np.array(changed(p.convert("RGB")))).permute(2, 0, 1).float().div_(127.5).sub_(1.0) for p in rows["image"]], "labels": rows["label"]})
        collator = default_data_collator
    else:
        limit = 256 if work.data is varied or work.bundled else 512
        def tokens(rows): return tokenizer(rows["text"], truncation=True, max_length=limit, **({"padding": "max_length"} if tutorial else {})) | ({"labels": [names.index(l) for l in rows["label"]]} if work.kind == "text" else {})
        def sets_of(part, flip=False): return Dataset.from_list(part).map(tokens, batched=True, remove_columns=["text", "label"])
        collator = DataCollatorWithPadding(tokenizer) if work.kind == "text" else DataCollatorForLanguageModeling(tokenizer, mlm=False)
    model = PEER[a.method](work.model(len(names)), work)
    grouped = {} if tutorial else dict(bf16=a.precision == "bf16", warmup_steps=0.1, weight_decay=0.01, **({} if work.kind == "image" else {"train_sampling_strategy": "group_by_length"}))
    length = dict(max_steps=a.steps) if a.steps else dict(num_train_epochs=a.epochs)
    args = TrainingArguments(output_dir=str(SCRATCH / "trainer"), **length, per_device_train_batch_size=a.batch, per_device_eval_batch_size=64, learning_rate=RATES[a.method], eval_strategy="epoch" if not a.steps else "no",
                             save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=torch.cuda.is_available(), use_cpu=not torch.cuda.is_available(), remove_unused_columns=work.kind != "image",
                             prediction_loss_only=work.kind == "causal", **grouped)
    accuracy = (lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())}) if work.kind != "causal" else None
    t = Trainer(model, args, train_dataset=sets_of(train, a.flip), eval_dataset=sets_of(valid), data_collator=collator, compute_metrics=accuracy)
    t.train()
    if a.steps: t.evaluate()
    last = {k: v for l in t.state.log_history for k, v in l.items()}
    return dict(loss=last["train_loss"], quality=last["eval_loss" if work.kind == "causal" else "eval_accuracy"], precision=a.precision)


def with_lora(model, work):
    "All matrices of the blocks, as this kit does."
    from peft import LoraConfig, TaskType, get_peft_model
    kind = {"text": dict(task_type=TaskType.SEQ_CLS), "causal": dict(task_type=TaskType.CAUSAL_LM, fan_in_fan_out=True), "image": dict(modules_to_save=["classifier"])}[work.kind]
    targets = sorted({n for n, m in model.named_modules() if type(m).__name__ in ("Linear", "Conv1D") and (".layer." in n or ".layers." in n or ".h." in n)})
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=targets, **kind))


def only(model, work, top):
    "Freeze all but the head and the top blocks."
    marks = ["classifier", "pooler"] if top else ["classifier"]
    marks += [f"layer.{work.layers - i}." for i in range(1, top + 1)] + [f"layers.{work.layers - i}." for i in range(1, top + 1)]
    for n, p in model.named_parameters(): p.requires_grad_(any(m in n for m in marks) or (top > 0 and n in ("vit.layernorm.weight", "vit.layernorm.bias")))
    return model


def bare(a, work, train, valid):
    "What one would write by hand, with the batches of this kit."
    from ftkit.data.batching import Batches
    from ftkit.probe import autocast
    from ftkit.train import factor
    names = names_of(work, train)
    model, task, device = PEER[a.method](work.model(len(names)), work), task_of(work, names), torch.device("cpu")
    rows, held = encode(work, train, names), encode(work, valid, names)
    params = [p for p in model.parameters() if p.requires_grad]
    batches, optimizer = Batches(rows, task.collate, a.batch), torch.optim.AdamW(params, lr=RATES[a.method], weight_decay=0.01, fused=True)
    total, done = a.steps or a.epochs * len(batches), 0
    while done < total:
        model.train()
        for batch, in batches:
            with autocast(a.precision, device): loss, n = task.loss(task.forward(model, batch), batch)
            (loss / n).backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            for g in optimizer.param_groups: g["lr"] = RATES[a.method] * factor(done, total)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if done >= total: break
        model.eval()
        meter = task.metrics()
        with torch.inference_mode():
            for batch, in Batches(held, task.collate, 64, shuffle=False): meter.update(task.forward(model, batch), batch)
    return dict(loss=None, quality=meter.compute()["accuracy"], precision=a.precision)


PEER = {"full": lambda m, w: m, "lora": with_lora, "head": lambda m, w: only(m, w, 0), "top2": lambda m, w: only(m, w, 2), "top6": lambda m, w: only(m, w, 6)}
WHO = {"kit": kit, "trainer": trainer, "bare": bare, "tutorial": lambda *a: trainer(*a, tutorial=True)}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("work", choices=WORKS)
    p.add_argument("method", choices=METHODS)
    p.add_argument("who", choices=WHO)
    p.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "own"])
    p.add_argument("--epochs", type=int, default=3)
    p.add_argument("--steps", type=int)
    p.add_argument("--rows", type=int, default=2000)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--flip", action="store_true", help="pictures are flipped at random")
    p.add_argument("--rate", type=float, help="the learning rate, for the kit")
    p.add_argument("--cache", type=int, default=1, help="0 keeps the kit from caching what is frozen")
    a = p.parse_args()
    work = WORKS[a.work]
    if a.rate: RATES[a.method] = a.rate
    train, valid = work.data(a.rows)
    few = min(VALID, 40 if a.work.endswith("-base") else a.rows // 5)
    valid = tuple(x[:few] for x in valid) if work.kind == "image" else valid[:few]
    if a.who == "kit" and work.kind == "text": work.folder(len({r["label"] for r in train}))
    import datasets, peft, transformers  # noqa: F401  their import is not counted, for nobody
    import ftkit.api, ftkit.data.splits, ftkit.tasks.text_classification, ftkit.trunk  # noqa: F401
    from transformers import Trainer  # noqa: F401
    datasets.disable_progress_bars()
    from ftkit.run import Memory
    with Memory() as memory:
        began = time.perf_counter()
        found = WHO[a.who](a, work, train, valid)
        seconds = time.perf_counter() - began
    print(json.dumps(dict(work=a.work, method=a.method, who=a.who, asked=a.precision, seconds=seconds, peak=memory.peak, **found)))


if __name__ == "__main__": main()
