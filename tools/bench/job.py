"""One complete job, timed: from rows to a fine-tuned model, by ftkit or by another tool.

    python tools/bench/job.py WORK METHOD WHO [--precision fp32] [--epochs 3] [--steps N] [--rows N]

The other tools are Trainer with peft, a plain loop, and the tutorial that pads everything. Prints one line of JSON.
Imports and reading files are not counted; creating the model, tokenising, training and one evaluation per epoch are.
"""

import argparse
import importlib
import json
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
import numpy as np  # noqa: E402
import torch  # noqa: E402

import ftkit as ft  # noqa: E402
from ftkit.data.encoded import EncodedDataset  # noqa: E402
from tools.bench.work import (  # noqa: E402  it sets the environment
    METHODS,
    MINI,
    SCRATCH,
    VALID,
    WORKS,
    encode,
    flipped,
    names_of,
    task_of,
    varied,
)

IMPORTED = (
    "datasets",
    "peft",
    "ftkit.api",
    "ftkit.data.splits",
    "ftkit.tasks.text_classification",
    "ftkit.speed.feature_cache",
)
RATES = {"full": 1e-4, "lora": 5e-4, "head": 1e-3, "top2": 1e-4, "top6": 1e-4}


# ---- ftkit


def kit(a, work, train, valid):
    "`finetune` for text; for other tasks, the same functions with a ten-line task."
    if work.kind != "text":
        return by_parts(a, work, train, valid)
    from datasets import Dataset

    options = {} if a.precision == "own" else {"precision": a.precision}
    run = ft.finetune(
        work.folder(len({r["label"] for r in train})),
        Dataset.from_list(train),
        METHODS[a.method],
        valid=Dataset.from_list(valid),
        epochs=a.epochs,
        steps=a.steps,
        batch_size=a.batch,
        lr=RATES[a.method],
        load_best=False,
        max_length=256 if work.data is varied else None,
        allow_leakage=True,
        cache_features=None if a.cache else False,
        **options,
    )
    return dict(
        loss=float(run.history["loss"].mean()),
        quality=run.metrics["accuracy"],
        precision=run.resources["precision"],
        way=asdict(run.inferred.execution),
        inside=run.resources["seconds"],
    )


def by_parts(a, work, train, valid):
    "The steps of `finetune`, for a task that is not registered."
    from ftkit.data.batching import DataLoader
    from ftkit.methods.base import set_modes
    from ftkit.speed.execution import autotune, median_length_batch

    model, method = work.model(10), METHODS[a.method]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = names_of(work, train)
    task, rows, held = task_of(work, names), encode(work, train, names), encode(work, valid, names)
    if a.flip:
        rows = EncodedDataset(rows.columns, flipped)
    method.attach(model.to(device))
    set_modes(model)
    batches = DataLoader(rows, task.collate, a.batch)
    precision = "auto" if a.precision == "own" else a.precision
    way = autotune(model, task, task.collate(rows, median_length_batch(rows, a.batch)), precision, device)
    with way.used():
        learner = fitted(a, model, task, method, batches, held, way, device)
    return dict(
        loss=float(np.mean([h["loss"] for h in learner.history])),
        quality=learner.history[-1][f"valid_{task.metric}"],
        precision=way.precision,
        way=asdict(way),
    )


def fitted(a, model, task, method, batches, held, way, device):
    "The learner after its fit, with the feature cache if requested."
    from ftkit.speed.execution import autocast
    from ftkit.speed.feature_cache import cached
    from ftkit.tasks.base import evaluate
    from ftkit.training.learner import Learner

    if a.cache:
        learning = (batches.rows, lambda: autocast(way.precision, device), way.precision)
        task = cached(task, model, [learning, (held, nullcontext, "fp32")], a.epochs, device=device)
        batches.collate = task.collate
    return Learner(
        model,
        batches,
        lambda learner, b: task.loss(task.forward(learner.model, b), b),
        method,
        epochs=a.epochs,
        steps=a.steps,
        lr=RATES[a.method],
        precision=way.precision,
        load_best=False,
        evaluate=lambda learner: evaluate(learner.model, task, held, device=device),
        metric=task.metric,
        greater_is_better=task.greater_is_better,
    ).fit()


# ---- the other tools


def image_sets(a, train, valid):
    "Trainer's image datasets, with random flips for training if requested, and its collator."
    from datasets import Dataset, Features, Image, Value
    from torchvision.transforms.v2 import RandomHorizontalFlip
    from transformers import default_data_collator

    features = Features({"image": Image(), "label": Value("int64")})

    def dataset(part, flip):
        change = RandomHorizontalFlip(0.5 if flip else 0.0)

        def pixels(image):
            x = torch.from_numpy(np.array(change(image.convert("RGB"))))
            return x.permute(2, 0, 1).float().div_(127.5).sub_(1.0)

        def transform(rows):
            return {"pixel_values": [pixels(p) for p in rows["image"]], "labels": rows["label"]}

        return Dataset.from_dict({"image": list(part[0]), "label": part[1]}, features=features).with_transform(
            transform
        )

    return dataset(train, a.flip), dataset(valid, False), default_data_collator


def text_sets(work, names, train, valid, tutorial):
    "Trainer's text datasets, and the collator that pads them; the tutorial pads to max length when tokenising."
    from datasets import Dataset
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling, DataCollatorWithPadding

    tokenizer = AutoTokenizer.from_pretrained(MINI)
    tokenizer.model_max_length = 512
    limit = 256 if work.data is varied or work.bundled else 512
    padding = {"padding": "max_length"} if tutorial else {}

    def tokens(rows):
        found = tokenizer(rows["text"], truncation=True, max_length=limit, **padding)
        return found | ({"labels": [names.index(y) for y in rows["label"]]} if work.kind == "text" else {})

    def dataset(part):
        return Dataset.from_list(part).map(tokens, batched=True, remove_columns=["text", "label"])

    collator = DataCollatorWithPadding(tokenizer)
    if work.kind == "causal":
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    return dataset(train), dataset(valid), collator


def arguments(a, work, tutorial):
    "Trainer's arguments: those that its documentation recommends for speed, or those of its tutorial."
    from transformers import TrainingArguments

    speed = {}
    if not tutorial:
        speed = dict(bf16=a.precision == "bf16", warmup_steps=0.1, weight_decay=0.01)
        if work.kind != "image":
            speed["train_sampling_strategy"] = "group_by_length"
    return TrainingArguments(
        output_dir=str(SCRATCH / "trainer"),
        **(dict(max_steps=a.steps) if a.steps else dict(num_train_epochs=a.epochs)),
        per_device_train_batch_size=a.batch,
        per_device_eval_batch_size=64,
        learning_rate=RATES[a.method],
        eval_strategy="epoch" if not a.steps else "no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=work.kind != "image",
        prediction_loss_only=work.kind == "causal",
        **speed,
    )


def accuracy(predicted):
    "Trainer's metric."
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def trainer(a, work, train, valid, tutorial=False):
    "Trainer and peft, configured as documented: grouped by length, padded to the longest sequence of a batch."
    from transformers import Trainer

    names = names_of(work, train)
    sets = image_sets(a, train, valid) if work.kind == "image" else text_sets(work, names, train, valid, tutorial)
    t = Trainer(
        PEER[a.method](work.model(len(names)), work),
        arguments(a, work, tutorial),
        train_dataset=sets[0],
        eval_dataset=sets[1],
        data_collator=sets[2],
        compute_metrics=accuracy if work.kind != "causal" else None,
    )
    t.train()
    if a.steps:
        t.evaluate()
    last = {k: v for logged in t.state.log_history for k, v in logged.items()}
    quality = last["eval_loss" if work.kind == "causal" else "eval_accuracy"]
    return dict(loss=last["train_loss"], quality=quality, precision=a.precision)


def with_lora(model, work):
    "LoRA on all linear layers of the blocks, as in ftkit."
    from peft import LoraConfig, TaskType, get_peft_model

    kind = {
        "text": dict(task_type=TaskType.SEQ_CLS),
        "causal": dict(task_type=TaskType.CAUSAL_LM, fan_in_fan_out=True),
        "image": dict(modules_to_save=["classifier"]),
    }[work.kind]
    targets = sorted(
        {
            n
            for n, m in model.named_modules()
            if type(m).__name__ in ("Linear", "Conv1D") and (".layer." in n or ".layers." in n or ".h." in n)
        }
    )
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=targets, **kind))


def only(model, work, top):
    "Freeze all but the head and the top blocks."
    marks = ["classifier", "pooler"] if top else ["classifier"]
    marks += [f"layer.{work.layers - i}." for i in range(1, top + 1)] + [
        f"layers.{work.layers - i}." for i in range(1, top + 1)
    ]
    for n, p in model.named_parameters():
        p.requires_grad_(
            any(m in n for m in marks) or (top > 0 and n in ("vit.layernorm.weight", "vit.layernorm.bias"))
        )
    return model


def bare(a, work, train, valid):
    "A plain PyTorch loop with ftkit's batches."
    from ftkit.data.batching import DataLoader

    names = names_of(work, train)
    model, task = PEER[a.method](work.model(len(names)), work), task_of(work, names)
    rows, held = encode(work, train, names), encode(work, valid, names)
    params = [p for p in model.parameters() if p.requires_grad]
    batches = DataLoader(rows, task.collate, a.batch)
    optimizer = torch.optim.AdamW(params, lr=RATES[a.method], weight_decay=0.01, fused=True)
    total, done = a.steps or a.epochs * len(batches), 0
    while done < total:
        done = epoch(a, model, task, batches, optimizer, params, done, total)
        model.eval()
        meter = task.metrics()
        with torch.inference_mode():
            for (batch,) in DataLoader(held, task.collate, 64, shuffle=False):
                meter.update(task.forward(model, batch), batch)
    return dict(loss=None, quality=meter.compute()["accuracy"], precision=a.precision)


def epoch(a, model, task, batches, optimizer, params, done, total) -> int:
    "One epoch of the plain loop, or the remaining steps; returns the number of steps done."
    from ftkit.speed.execution import autocast
    from ftkit.training.learner import lr_multiplier

    model.train()
    for (batch,) in batches:
        with autocast(a.precision, torch.device("cpu")):
            loss, n = task.loss(task.forward(model, batch), batch)
        (loss / n).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for g in optimizer.param_groups:
            g["lr"] = RATES[a.method] * lr_multiplier(done, total)
        optimizer.step()
        optimizer.zero_grad()
        done += 1
        if done >= total:
            break
    return done


PEER = {
    "full": lambda m, w: m,
    "lora": with_lora,
    "head": lambda m, w: only(m, w, 0),
    "top2": lambda m, w: only(m, w, 2),
    "top6": lambda m, w: only(m, w, 6),
}
WHO = {"kit": kit, "trainer": trainer, "bare": bare, "tutorial": lambda *a: trainer(*a, tutorial=True)}


def asked():
    "The command line."
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("work", choices=WORKS)
    p.add_argument("method", choices=METHODS)
    p.add_argument("who", choices=WHO)
    p.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "own"])
    p.add_argument("--epochs", type=int, default=3)
    p.add_argument("--steps", type=int)
    p.add_argument("--rows", type=int, default=2000)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--flip", action="store_true", help="flip training images at random")
    p.add_argument("--rate", type=float, help="the learning rate, for ftkit")
    p.add_argument("--cache", type=int, default=1, help="0 disables ftkit's cache of frozen layers")
    return p.parse_args()


def main():
    a = asked()
    work = WORKS[a.work]
    if a.rate:
        RATES[a.method] = a.rate
    train, valid = work.data(a.rows)
    few = min(VALID, 40 if a.work.endswith("-base") else a.rows // 5)
    valid = tuple(x[:few] for x in valid) if work.kind == "image" else valid[:few]
    if a.who == "kit" and work.kind == "text":
        work.folder(len({r["label"] for r in train}))
    for module in IMPORTED:  # imports are not counted for any tool
        importlib.import_module(module)
    from datasets import disable_progress_bars
    from transformers import Trainer  # noqa: F401

    from ftkit.runs import PeakMemory

    disable_progress_bars()
    with PeakMemory() as memory:
        began = time.perf_counter()
        found = WHO[a.who](a, work, train, valid)
        seconds = time.perf_counter() - began
    told = dict(work=a.work, method=a.method, who=a.who, asked=a.precision, seconds=seconds, peak=memory.peak)
    print(json.dumps(told | found))


if __name__ == "__main__":
    main()
