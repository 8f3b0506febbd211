"""Every method on one checkpoint and one task: quality at three sizes of data, what trains, what is stored, seconds, and milliseconds to answer.

    python tools/bench methods [--repeats 3] [--only lora,full]
"""
import json, os, statistics, sys, tempfile, time
from pathlib import Path

os.environ.update(FTKIT_QUIET="1", IN_TEST="1", HF_HUB_OFFLINE="1")
SIZES = {64: 6, 320: 4, 1280: 3}  # rows to learn from -> epochs
VALID = 300
NOT_HERE = ("visual_prompt",)  # for pictures


def answer_ms(model, batch, others, rounds=15):
    "Milliseconds for a batch, and how many times those of the base, in alternation."
    import torch
    def once(m):
        began = time.perf_counter()
        with torch.inference_mode(): m(**batch)
        return 1000 * (time.perf_counter() - began)
    for m in (model, others): once(m.eval())
    pairs = [(once(model), once(others)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(a / b for a, b in pairs)


def one(name, data, seed, epochs):
    "One fine-tuning, measured."
    import ftkit as ft
    last = name in ("adalora", "diff_pruning")  # these end with what is left after pruning
    return ft.finetune("bert-mini", data["train"], name, valid=data["valid"], epochs=epochs, seed=seed, keep_leaks=True, keep="last" if last else "best")


def stored(model):
    "Bytes of the delta on disk."
    import ftkit as ft
    with tempfile.TemporaryDirectory() as folder: return sum(f.stat().st_size for f in ft.save_delta(model, folder).rglob("*") if f.is_file())


def measured(name, repeats):
    "All there is to know of one method."
    import ftkit as ft
    from ftkit.data.reviews import splits
    from ftkit.methods.core import attached
    found = dict(method=name, quality={}, seconds={})
    for rows, epochs in SIZES.items():
        runs = [one(name, splits(train=rows, valid=VALID, difficulty=(1, 2), seed=s), s, epochs) for s in range(repeats)]
        found["quality"][str(rows)] = [r.metrics["accuracy"] for r in runs]
        found["seconds"][str(rows)] = [r.resources["seconds"] for r in runs]
        if rows == 320:
            run, on = runs[0], attached(runs[0].model)
            base = ft.load("bert-mini", task=run.task, classes=run.task.classes, seed=0)
            batch = base.processor(splits(train=32, valid=32, difficulty=(1, 2))["train"]["text"][:], padding=True, return_tensors="pt")
            head = sum(p.numel() for n, p in on.trained.items() if on.anatomy.in_head(n))
            found |= dict(repr=repr(run.method), trainable=on.size(), head=head, total=run.resources["total"], bytes=stored(run.model), merges=run.method.merges,
                          peak=statistics.median(r.resources["peak_memory"] for r in runs))
            found["ms"], found["times_base"] = answer_ms(run.model, batch, base.model)
            if run.method.merges: found["ms_merged"], found["times_base_merged"] = answer_ms(run.method.merge(run.model), batch, base.model)
    return found


def start_of():
    "What the model says before it has learned, and the larger class."
    import ftkit as ft
    from ftkit.data.reviews import splits
    from ftkit.run import evaluate_rows
    from ftkit.tasks.text_classification import TextClassification
    valid, found = splits(train=64, valid=VALID, difficulty=(1, 2))["valid"], []
    task = TextClassification(classes=["negative", "positive"])
    for seed in range(3):
        ck = ft.load("bert-mini", task=task, classes=task.classes, seed=seed)
        found.append(evaluate_rows(ck.model, task, task.encode(valid, ck.processor))["accuracy"])
    labels = valid["label"][:]
    return dict(start=found, majority=max(labels.count(c) for c in set(labels)) / len(labels))


def methods(repeats, only):
    "A row for each method; with some only, the others stay as they were measured before."
    from ftkit.core import METHODS, read_json
    file, old = Path(__file__).resolve().parents[2] / "bench" / "methods.json", []
    if only and file.exists(): old = [r for r in read_json(file)["rows"] if r["method"] not in only]
    rows = []
    for name in METHODS:
        if name in NOT_HERE or only and name not in only: continue
        rows.append(measured(name, repeats))
        q = {k: f"{statistics.mean(v):.1%}" for k, v in rows[-1]["quality"].items()}
        print(f"{name:18s}{rows[-1]['trainable']:>10,} trained  {q}  {rows[-1]['bytes'] / 1e3:8.0f} kB  x{rows[-1]['times_base']:.2f} to answer", flush=True)
    return dict(rows=old + rows, sizes=SIZES, valid=VALID, **start_of())
