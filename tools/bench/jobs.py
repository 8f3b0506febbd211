"""Speed of complete jobs compared with other tools: every run in its own process, alternating, several times"""

import json
import math
import statistics
import tempfile

from .processes import job
from .record import BERT, FIT, JOB_METHODS, SPEED, TEXT, Declared

# Tool and precision ("own": the default of each tool; fp32 for Trainer).
SAME = ("trainer fp32", "kit fp32", "trainer bf16", "kit bf16", "kit own")
PLAIN = ("trainer fp32", "kit fp32", "kit own")
# Workload, methods, options of the job, tools, and number of repeats.
PLAN = [
    ("sst2", ("full", "lora"), "--rows 1000", (*SAME, "bare fp32"), 3),
    ("varied", ("full", "lora"), "--rows 200", SAME, 3),
    ("pictures", ("full", "lora"), "--rows 600", SAME, 3),
    ("causal", ("full", "lora"), "--rows 80", SAME, 3),
    ("sst2-base", ("full", "lora"), "--rows 320 --steps 5", SAME, 3),
    ("varied-base", ("full", "lora"), "--rows 96 --steps 4 --batch 8", PLAIN, 3),
    ("pictures-base", ("full", "lora"), "--rows 160 --steps 3", PLAIN, 3),
    ("causal-base", ("full", "lora"), "--rows 96 --steps 4 --batch 8", PLAIN, 3),
    ("sst2-512", ("full",), "--rows 200", ("tutorial fp32", "kit fp32", "kit own"), 1),
    ("sst2-12", ("head",), "--rows 500 --epochs 10", PLAIN, 3),
    ("sst2-12", ("top2",), "--rows 500 --epochs 10", PLAIN, 3),
    ("sst2-12", ("head", "top6"), "--rows 500 --epochs 1", PLAIN, 3),
    ("pictures-12", ("head",), "--rows 300 --epochs 3", PLAIN, 3),
    ("pictures-12", ("head",), "--rows 300 --epochs 3 --flip", PLAIN, 3),
]
DECLARED = Declared(
    what="complete jobs compared with Trainer and peft: seconds and peak memory, alternating",
    measures=(*FIT, *SPEED, *TEXT, *BERT, *JOB_METHODS, "tools/bench/job.py", "tools/bench/work.py"),
    epochs=3500,
    needs="FTKIT_DATA with sst2, instructions and fashion_mnist",
)


def run(work: str, method: str, who: str, options: str) -> dict:
    "One job in a new process, with its own caches."
    name, precision = who.split()
    with tempfile.TemporaryDirectory() as home:
        found = job(work, method, name, "--precision", precision, *options.split(), home=home)
    return found | dict(ran=who, options=options)


def told(r: dict) -> str:
    "A run as one line of text."
    sizes = f"{r['seconds']:8.1f} s{r['peak'] / 1e6:9.0f} MB"
    results = f"loss {r['loss'] or 0:.4f}  {r['quality']:.4f}  {r['precision']}"
    return f"{r['work']:14s}{r['method']:6s}{r['ran']:14s}{sizes}   {results}"


def all_runs(plan: list, repeats: int) -> list[dict]:
    "Every run of a plan, in alternating order of the tools; `repeats=0` uses the number given in the plan."
    runs = []
    cases = [(work, method, *rest) for work, methods, *rest in plan for method in methods]
    for work, method, options, whos, usual in cases:
        for i in range(repeats or usual):
            for who in whos[::-1] if i % 2 else whos:
                runs.append(run(work, method, who, options) | dict(repeat=i))
                print(told(runs[-1]), flush=True)
    return runs


def ratio(peers: list[float], ours: list[float]) -> dict | None:
    "Speed-up over another tool, run by run: median, minimum and maximum."
    pairs = [a / b for a, b in zip(peers, ours)]
    if not pairs:
        return None
    return dict(median=round(statistics.median(pairs), 2), low=round(min(pairs), 2), high=round(max(pairs), 2))


def summarised(key: tuple, mine: list[dict]) -> dict:
    "The row of one workload, method and options."
    times = {w: [r["seconds"] for r in mine if r["ran"] == w] for w in dict.fromkeys(r["ran"] for r in mine)}
    peak = {w: statistics.median(r["peak"] for r in mine if r["ran"] == w) for w in times}
    base = "tutorial" if "tutorial fp32" in times else "trainer"
    against = {
        column: ratio(times.get(f"{base} {theirs}", []), times.get(f"kit {ours}", []))
        for column, theirs, ours in (("fp32", "fp32", "fp32"), ("bf16", "bf16", "bf16"), ("own", "fp32", "own"))
    }
    return dict(
        work=key[0],
        method=key[1],
        options=key[2],
        against=base,
        seconds={w: round(statistics.median(t), 2) for w, t in times.items()},
        peak_mb={w: round(p / 1e6) for w, p in peak.items()},
        **against,
        repeats=len(next(iter(times.values()))),
        picked=sorted({r["precision"] for r in mine if r["ran"] == "kit own"}),
    )


def summary(runs: list[dict]) -> list[dict]:
    "One row per workload, method and options: seconds of each tool, and the speed-up of ftkit."
    groups = {}
    for r in runs:
        groups.setdefault((r["work"], r["method"], r["options"]), []).append(r)
    return [summarised(key, mine) for key, mine in groups.items()]


def geometric(rows: list[dict], column: str) -> dict | None:
    "The geometric mean of a column of ratios over full and LoRA jobs against Trainer."
    kept = [r for r in rows if r[column] and r["against"] == "trainer" and r["method"] in ("full", "lora")]
    found = [r[column]["median"] for r in kept]
    if not found:
        return None
    return dict(mean=round(math.exp(statistics.mean(map(math.log, found))), 2), least=min(found), rows=len(found))


def measure(repeats: int = 0, only: tuple = ()) -> dict:
    "All runs, a row for each job, and the means; with `only`, for some workloads."
    runs = all_runs([r for r in PLAN if not only or r[0] in only], repeats)
    rows = summary(runs)
    means = {c: geometric(rows, c) for c in ("fp32", "bf16", "own")}
    print(json.dumps(means))
    return dict(means=means, rows=rows, runs=runs)
