"""Fits while other programs run: with one busy loop per core, compared with the same fits on an idle machine

Every turn runs each case in its own process: a warm-up fit, ten fits on the idle machine, ten while the loops
run. Cases: ftkit imported first (waiting threads sleep after some microseconds), torch imported first (they spin,
and fewer threads are used), and, on the idle machine only, ftkit first with libgomp's default spinning. `--against`
names another checkout of this project to compare with this one.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from .record import BERT, FIT, ROOT, SPEED, TEXT, Declared

DECLARED = Declared(
    what="seconds of ten fits while one busy loop per core runs, relative to an idle machine",
    measures=("ftkit/__init__.py", *FIT, *SPEED, *TEXT, *BERT, "ftkit/methods/lora.py"),
    epochs=250,
)
CODE = """
import os
import subprocess
import sys
import time
import {first}
import ftkit as ft

def fits(n):
    began = time.perf_counter()
    for seed in range(n):
        ft.finetune("bert-mini", "reviews", "lora", steps=12, batch_size=32, valid=None, seed=seed, progress=False)
    return time.perf_counter() - began

cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
fits(1)
print("quiet", fits({fits}))
if {beside}:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    time.sleep(1)
    try:
        print("busy", fits({fits}))
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
"""
SPIN = {"GOMP_SPINCOUNT": "300000"}  # libgomp's default
SETTINGS = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def seconds_of(first: str, root: Path, fits: int, beside: bool = True, **env) -> dict[str, float]:
    "Seconds of `fits` fits on the idle machine and while the loops run, in a process that imports `first` first."
    with tempfile.TemporaryDirectory() as home:
        whole = {k: v for k, v in os.environ.items() if k not in SETTINGS}
        whole |= dict(
            PYTHONPATH=str(root), FTKIT_HOME=home, HF_HOME=f"{home}/hf", HF_HUB_OFFLINE="1", FTKIT_QUIET="1", **env
        )
        code = CODE.format(first=first, fits=fits, beside=beside)
        done = subprocess.run([sys.executable, "-c", code], env=whole, cwd=home, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found = dict(line.split() for line in done.stdout.splitlines() if line.startswith(("quiet ", "busy ")))
    return {name: float(seconds) for name, seconds in found.items()}


def measure(fits: int = 10, turns: int = 3, against: str = "") -> dict:
    "By case: the seconds of each turn, the median ratio, and the cost of sleeping threads on an idle machine."
    cases = {"ftkit first": ("ftkit", ROOT), "torch first": ("torch", ROOT)}
    if against:
        cases["before"] = ("ftkit", Path(against).resolve())
    each = {name: [] for name in (*cases, "spin")}
    for turn in range(turns):
        for name, case in cases.items():
            each[name].append(seconds_of(*case, fits))
            if name == "ftkit first":
                each["spin"].append(seconds_of(*case, fits, beside=False, **SPIN))
            print(f"turn {turn + 1}, {name}: {each[name][-1]}", flush=True)
    ratios = {name: statistics.median(s["busy"] / s["quiet"] for s in each[name]) for name in cases}
    costs = [ours["quiet"] / theirs["quiet"] for ours, theirs in zip(each["ftkit first"], each["spin"])]
    print(ratios, f"sleeping costs {costs}", flush=True)
    return dict(seconds=each, ratios=ratios, quiet_costs=costs)
