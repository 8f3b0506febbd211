"""Fits beside other programs: one busy loop per core, against the same fits on a quiet machine

In one process, quiet and busy in turns, after a warm-up fit. ftkit imported first (waiting threads sleep), torch imported
first (they spin, and fewer threads are taken). `--against` names another checkout of this project to measure beside this one.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from .record import BERT, FIT, ROOT, SPEED, TEXT, Declared

DECLARED = Declared(
    what="seconds of ten fits with one busy loop per core beside them, over their seconds on a quiet machine",
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
for turn in range({turns}):
    quiet = fits({fits})
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    time.sleep(1)
    try:
        busy = fits({fits})
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    print("turn", quiet, busy)
"""


def turns_of(first: str, root: Path, fits: int, turns: int, **env) -> list[tuple[float, float]]:
    "Quiet and busy seconds of some fits, turn by turn, in a process that imports `first` first."
    with tempfile.TemporaryDirectory() as home:
        whole = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")}
        whole |= dict(PYTHONPATH=str(root), FTKIT_HOME=home, HF_HOME=f"{home}/hf", HF_HUB_OFFLINE="1", FTKIT_QUIET="1", **env)
        code = CODE.format(first=first, fits=fits, turns=turns)
        done = subprocess.run([sys.executable, "-c", code], env=whole, cwd=home, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return [tuple(map(float, line.split()[1:])) for line in done.stdout.splitlines() if line.startswith("turn ")]


def measure(fits: int = 10, turns: int = 3, against: str = "") -> dict:
    "By case: quiet and busy seconds of each turn, their ratio, and what sleeping threads cost when quiet."
    cases = {"ftkit first": ("ftkit", ROOT, {}), "torch first": ("torch", ROOT, {}), "ftkit first, threads spin": ("ftkit", ROOT, {"OMP_WAIT_POLICY": "ACTIVE"})}
    if against:
        cases["before"] = ("ftkit", Path(against).resolve(), {})
    found = {}
    for name, (first, root, env) in cases.items():
        each = turns_of(first, root, fits, turns, **env)
        found[name] = dict(quiet=[q for q, _ in each], busy=[b for _, b in each], ratio=statistics.median(b / q for q, b in each))
        print(f"{name}: {found[name]['ratio']:.2f} times its quiet time", flush=True)
    cost = statistics.median(found["ftkit first"]["quiet"]) / statistics.median(found["ftkit first, threads spin"]["quiet"])
    print(json.dumps(dict(quiet_cost=cost)))
    return dict(cases=found, quiet_cost=cost)
