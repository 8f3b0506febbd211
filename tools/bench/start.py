"""From the start of a process to the end of a one-step job: CPU seconds and modules, compared with a script that uses
Trainer and a plain one.

Every job has its own process, in turns; all compute in 32 bits (the checkpoint is stored in 16 bits, which transformers
would keep). `--against` names another checkout of this project to compare with this one.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from .record import BERT, FIT, ROOT, SPEED, TEXT, Declared

DECLARED = Declared(
    what="CPU seconds from process start to the end of a one-step job, compared with Trainer and a plain script",
    measures=(
        "ftkit/__init__.py",
        "ftkit/core/process.py",
        *FIT,
        *SPEED,
        *TEXT,
        *BERT,
        "ftkit/models/checkpoints.py",
        "ftkit/methods/peft_bridge.py",
    ),
    epochs=60,
)
MODEL = "ftkit/zoo/bert_mini"
END = "\nimport sys\nprint(len(sys.modules))\n"
OURS = """
import sys
import ftkit as ft
ft.finetune("bert-mini", sys.argv[1], sys.argv[2], text="text", label="label", steps=1, batch_size=64, progress=False)
"""
BARE = """
import csv
import sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
rows = list(csv.DictReader(open(sys.argv[1], encoding="utf-8")))
tokenizer = AutoTokenizer.from_pretrained(sys.argv[3])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[3], num_labels=2, dtype=torch.float32)
def batch(rows):
    labels = torch.tensor([int(r["label"] == "positive") for r in rows])
    return tokenizer([r["text"] for r in rows], padding=True, return_tensors="pt"), labels
trained = model.parameters() if sys.argv[2] == "lora" else model.classifier.parameters()
optimizer = torch.optim.AdamW(trained, lr=5e-4)
inputs, labels = batch(rows[:64])
torch.nn.functional.cross_entropy(model.train()(**inputs).logits, labels).backward()
optimizer.step()
inputs, labels = batch(rows[64:])
with torch.no_grad():
    print((model.eval()(**inputs).logits.argmax(-1) == labels).float().mean())
"""
TRAINER = """
import csv
import sys
import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding
from transformers import Trainer, TrainingArguments
rows = list(csv.DictReader(open(sys.argv[1], encoding="utf-8")))
tokenizer = AutoTokenizer.from_pretrained(sys.argv[3])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[3], num_labels=2, dtype=torch.float32)
if sys.argv[2] == "lora":
    from peft import LoraConfig, get_peft_model
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"]))
else:
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith("classifier"))
rows = [{**tokenizer(r["text"]), "label": int(r["label"] == "positive")} for r in rows]
data = Dataset.from_list(rows)
arguments = TrainingArguments(sys.argv[4], max_steps=1, per_device_train_batch_size=64, eval_strategy="epoch",
                              report_to=[], disable_tqdm=True, save_strategy="no", use_cpu=True)
Trainer(model, arguments, train_dataset=data.select(range(64)), eval_dataset=data.select(range(64, 80)),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda e: {"accuracy": float((np.argmax(e.predictions, -1) == e.label_ids).mean())}).train()
"""


def cost(code: str, *argv, root: Path, home: str) -> tuple[float, int]:
    "CPU seconds of a process that runs the code, and the number of modules loaded at its end."
    own = dict(
        PYTHONPATH=str(root),
        FTKIT_HOME=f"{home}/ftkit",
        HF_HOME=f"{home}/hf",
        HF_HUB_OFFLINE="1",
        PYTHONWARNINGS="ignore",
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code + END, *map(str, argv)],
        env=os.environ | own,
        cwd=home,
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, int(done.stdout.split()[-1])


def table_of_rows(folder: str) -> Path:
    "80 generated reviews as a CSV file: 64 for training."
    from ftkit.datasets.reviews import reviews

    path = Path(folder, "reviews.csv")
    reviews(rows=80, seed=0).to_pandas()[["text", "label"]].to_csv(path, index=False)
    return path


def measure(repeats: int = 5, against: str = "") -> dict:
    "Seconds by job and method, and the ratios of each repeat with their median."
    jobs = {"ftkit": (OURS, ROOT), "trainer": (TRAINER, ROOT), "bare": (BARE, ROOT)}
    if against:
        jobs["before"] = (OURS, Path(against).resolve())
    seconds, modules = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        rows = table_of_rows(folder)
        for turn in range(repeats):
            for method in ("lora", "linear_probe"):
                for name in list(jobs)[:: -1 if turn % 2 else 1]:
                    code, root = jobs[name]
                    with tempfile.TemporaryDirectory() as home:
                        spent, modules[f"{name} {method}"] = cost(
                            code, rows, method, ROOT / MODEL, home, root=root, home=home
                        )
                    seconds.setdefault(f"{name} {method}", []).append(round(spent, 2))
    ratios = {}
    for method in ("lora", "linear_probe"):
        for name in list(jobs)[1:]:
            each = [a / b for a, b in zip(seconds[f"ftkit {method}"], seconds[f"{name} {method}"])]
            ratios[f"{method}: ftkit / {name}"] = dict(
                median=round(statistics.median(each), 3), each=[round(r, 3) for r in each]
            )
    print(json.dumps(dict(modules=modules, ratios=ratios), indent=1))
    return dict(seconds=seconds, modules=modules, ratios=ratios)
