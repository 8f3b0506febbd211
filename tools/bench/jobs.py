"""One whole job, timed: from rows to a tuned model, by this kit, by Trainer with peft, by a bare loop, by the tutorial.

    python tools/bench/jobs.py WORK METHOD WHO [--precision fp32] [--epochs 3] [--rows N]

Prints one line of JSON. Imports and the reading of files are not counted; making the model, tokenising, training and
one evaluation per epoch are.
"""
import argparse, gzip, json, os, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.update(FTKIT_QUIET="1", IN_TEST="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
DATA = Path(os.environ.get("FTKIT_DATA") or ROOT.parent / "shared" / "data")

import numpy as np
import torch
import ftkit as ft


# What is worked on: rows to train and to validate on, a checkpoint, and a task.

def sst2(rows):
    "Real sentences, two labels."
    read = lambda f: [dict(zip(("text", "label"), l.rstrip("\n").split("\t"))) for l in open(DATA / "sst2" / f"{f}.tsv", encoding="utf-8").readlines()[1:]]
    return read("train")[:rows or None], read("dev")[:400]


def varied(rows):
    "Instructions and answers from four collections, 14 to 256 tokens; the label is the collection."
    found = []
    for f in ("alpaca_gpt4_en", "lima", "llms_from_scratch", "dolly_sample"):
        found += [dict(text=" ".join((r["instruction"], r["input"], r["output"])), label=f) for r in map(json.loads, open(DATA / "instructions" / f"{f}.jsonl", encoding="utf-8"))]
    found = [found[i] for i in np.random.default_rng(0).permutation(len(found))]
    return found[400:][:rows or None], found[:400]


def make(work, folder):
    "The checkpoint of a work: the bundled one, or a full-size architecture with random weights, as a folder."
    if not work.endswith("-base"): return "bert-mini"
    if not (folder / "config.json").exists():
        from transformers import AutoTokenizer, BertConfig, BertForMaskedLM
        tokenizer = AutoTokenizer.from_pretrained(ROOT / "ftkit/zoo/bert_mini")
        torch.manual_seed(0)
        BertForMaskedLM(BertConfig(vocab_size=len(tokenizer))).save_pretrained(folder)
        tokenizer.model_max_length = 512
        tokenizer.save_pretrained(folder)
    return str(folder)


WORKS = {"sst2": sst2, "varied": varied, "sst2-base": sst2, "varied-base": varied}
METHODS = {"full": ft.Full(), "lora": ft.LoRA(dropout=0.05), "head": ft.Head(), "top2": ft.Freeze(2)}
RATES = {"full": 1e-4, "lora": 5e-4, "head": 1e-3, "top2": 1e-4}


def kit(a, train, valid, checkpoint):
    "`finetune`, as anyone would call it."
    from datasets import Dataset
    run = ft.finetune(checkpoint, Dataset.from_list(train), METHODS[a.method], valid=Dataset.from_list(valid), epochs=a.epochs, batch_size=a.batch, lr=RATES[a.method], keep="last",
                      max_length=a.max_length, keep_leaks=True, **({"precision": a.precision} if a.precision != "own" else {}), **json.loads(a.options))
    return dict(loss=float(run.history["loss"].mean()), accuracy=run.metrics["accuracy"], precision=run.resources["precision"])


def trainer(a, train, valid, checkpoint, tutorial=False):
    "Trainer and peft, set up as their documentation says: like lengths together, padded to the longest of the batch."
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments
    if checkpoint == "bert-mini": checkpoint = str(ROOT / "ftkit/zoo/bert_mini")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    names = sorted({r["label"] for r in train})
    limit = a.max_length or min(512, tokenizer.model_max_length)
    def encode(rows): return tokenizer(rows["text"], truncation=True, max_length=limit, **({"padding": "max_length"} if tutorial else {})) | {"labels": [names.index(l) for l in rows["label"]]}
    sets = [Dataset.from_list(d).map(encode, batched=True, remove_columns=["text", "label"]) for d in (train, valid)]
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=len(names), dtype=torch.float32)
    model = METHOD_OF_PEERS[a.method](model)
    grouped = {} if tutorial else dict(train_sampling_strategy="group_by_length", bf16=a.precision == "bf16", warmup_steps=0.1, weight_decay=0.01)
    args = TrainingArguments(output_dir="/tmp/ftkit-bench-trainer", num_train_epochs=a.epochs, per_device_train_batch_size=a.batch, per_device_eval_batch_size=64, learning_rate=RATES[a.method],
                             eval_strategy="epoch", save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=torch.cuda.is_available(), use_cpu=not torch.cuda.is_available(), **grouped)
    accuracy = lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())}
    t = Trainer(model, args, train_dataset=sets[0], eval_dataset=sets[1], data_collator=DataCollatorWithPadding(tokenizer), compute_metrics=accuracy)
    t.train()
    logs = t.state.log_history
    return dict(loss=next((l["train_loss"] for l in reversed(logs) if "train_loss" in l), None), accuracy=[l["eval_accuracy"] for l in logs if "eval_accuracy" in l][-1], precision=a.precision)


def with_lora(model):
    from peft import LoraConfig, get_peft_model
    return get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.05, target_modules=["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]))


def only(model, keep):
    for n, p in model.named_parameters(): p.requires_grad_(any(k in n for k in keep(model)))
    return model


METHOD_OF_PEERS = {
    "full": lambda m: m,
    "lora": with_lora,
    "head": lambda m: only(m, lambda m: ["classifier"]),
    "top2": lambda m: only(m, lambda m: ["classifier", "pooler"] + [f"layer.{m.config.num_hidden_layers - i}." for i in (1, 2)]),
}
WHO = {"kit": kit, "trainer": trainer, "tutorial": lambda *a: trainer(*a, tutorial=True)}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("work", choices=WORKS)
    p.add_argument("method", choices=METHODS)
    p.add_argument("who", choices=WHO)
    p.add_argument("--precision", default="fp32")
    p.add_argument("--epochs", type=int, default=3)
    p.add_argument("--rows", type=int)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--max-length", type=int)
    p.add_argument("--options", default="{}")
    a = p.parse_args()
    train, valid = WORKS[a.work](a.rows)
    checkpoint = make(a.work, Path(os.environ.get("FTKIT_BENCH") or "/tmp/ftkit-bench") / a.work)
    import datasets, transformers, peft  # noqa: F401  not counted, for nobody
    from transformers import Trainer  # noqa: F401
    datasets.disable_progress_bars(); transformers.logging.set_verbosity_error()
    from ftkit.run import Memory
    with Memory() as memory:
        began = time.perf_counter()
        found = WHO[a.who](a, train, valid, checkpoint)
        seconds = time.perf_counter() - began
    print(json.dumps(dict(work=a.work, method=a.method, who=a.who, seconds=seconds, peak=memory.peak, **found)))


if __name__ == "__main__": main()
