"""What a measurement declares about itself, and the file in which its result is saved.

A measurement is a file of this folder with `DECLARED = Declared(...)` and `measure(...) -> dict`. Its result, as
measured without options, is `bench/evidence/NAME.json`; pages read that with `ftkit.core.evidence("NAME")`.
"""

import importlib
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EVIDENCE = ROOT / "bench" / "evidence"
STALE = EVIDENCE / "STALE.json"

# What several measurements have in common, relative to the repository.
FIT = ("ftkit/api.py", "ftkit/runs.py", "ftkit/training/learner.py", "ftkit/models/anatomy.py")
SPEED = (
    "ftkit/models/cpu_kernels.py",
    "ftkit/speed/execution.py",
    "ftkit/speed/feature_cache.py",
    "ftkit/speed/array_store.py",
)
TEXT = ("ftkit/tasks/text_classification.py", "ftkit/data/batching.py")
IMAGES = ("ftkit/tasks/image_classification.py", "ftkit/data/batching.py", "ftkit/data/images.py")
BERT = ("ftkit/zoo/bert_mini/model.safetensors", "ftkit/zoo/bert_mini/tokenizer.json")
JOB_METHODS = tuple(
    f"ftkit/methods/{m}.py" for m in ("base", "full", "linear_probe", "freeze", "lora", "lora_linear", "peft_bridge")
)


@dataclass(frozen=True)
class Declared:
    "What a measurement declares before it runs."

    what: str  # one line
    measures: tuple[str, ...]  # the files it measures: patterns relative to the repository
    epochs: float  # duration in epochs of bert-mini (all parameters, on `reviews`)
    seeds: tuple[int, ...] = (0,)
    needs: str = ""  # data that is not part of the package


def names() -> list[str]:
    "The names of all measurements: the files of this folder that define `DECLARED`."
    found = (p for p in HERE.glob("[a-z]*.py") if re.search(r"^DECLARED = ", p.read_text(encoding="utf-8"), re.M))
    return sorted(p.stem for p in found)


def measured() -> list[str]:
    "The measurements that have a stored result."
    return [name for name in names() if (EVIDENCE / f"{name}.json").exists()]


def load(name: str):
    "The module of a measurement."
    return importlib.import_module(f"tools.bench.{name}")


def measured_files(name: str, declared: Declared) -> dict[str, str]:
    "The hash of each measured file and of the measurement itself. Raises `ValueError` for a pattern without a file."
    from ftkit.core import code_hash

    found = {f"tools/bench/{name}.py"}
    for pattern in declared.measures:
        files = {p.relative_to(ROOT).as_posix() for p in ROOT.glob(pattern)}
        if not files:
            raise ValueError(f"{name} measures {pattern}, but no such file exists")
        found |= {f for f in files if not f.endswith("/__init__.py")}
    return {f: code_hash(ROOT / f) for f in sorted(found)}


def changed(name: str) -> list[str]:
    "The files that differ from those that `name` measured: changed, deleted or new."
    from ftkit.core import read_json

    before = read_json(EVIDENCE / f"{name}.json")["modules"]
    now = measured_files(name, load(name).DECLARED)
    return sorted(f for f in before.keys() | now.keys() if before.get(f) != now.get(f))


def git(*args: str) -> str:
    "The output of a git command; empty if git is not available."
    try:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def machine() -> dict:
    "The processor, its cores and threads, and the accelerator."
    import torch

    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)$", info.read_text(), re.M) if info.exists() else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return dict(
        cpu=model[1] if model else platform.processor(),
        capability=torch.backends.cpu.get_cpu_capability(),
        cores=cores,
        threads=torch.get_num_threads(),
        accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        system=platform.system(),
    )


YARDSTICK = """
import os
os.environ["FTKIT_QUIET"] = "1"
import ftkit as ft
for _ in range(2): run = ft.finetune("bert-mini", "reviews", "full", epochs=1, seed=0, progress=False)
print(run.resources["seconds"])
"""


def yardstick() -> float:
    "Seconds of one epoch of bert-mini on this machine, all parameters, on `reviews`; the second of two."
    done = subprocess.run([sys.executable, "-c", YARDSTICK], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return float(done.stdout.splitlines()[-1])


def command(name: str, options: dict) -> str:
    "The command that repeats the measurement."
    if not options:
        return f"make evidence NAME={name}"
    told = {k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in options.items()}
    return f"python tools/bench {name}" + "".join(f" --{k} {v}" for k, v in told.items())


def record(name: str, **options) -> dict:
    "Measure, and return the content of the file. The hashes are computed before and must be the same after."
    from ftkit.core import versions

    module = load(name)
    files, epoch, began = measured_files(name, module.DECLARED), yardstick(), time.perf_counter()
    epochs = module.DECLARED.epochs
    print(f"{name}: about {epochs:g} epochs of bert-mini, here {epochs * epoch / 60:.0f} minutes", flush=True)
    values = module.measure(**options)
    took = time.perf_counter() - began
    if measured_files(name, module.DECLARED) != files:
        raise SystemExit(f"{name}: what it measures was changed while it ran; measure it again")
    return dict(
        name=name,
        what=module.DECLARED.what,
        command=command(name, options),
        commit=git("rev-parse", "HEAD"),
        clean=not git("status", "--porcelain", "--", *files),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seeds=list(module.DECLARED.seeds),
        versions=versions(),
        machine=machine(),
        yardstick=dict(seconds=round(epoch, 3), epochs=round(took / epoch, 1)),
        modules=files,
        values=values,
    )
