"""Run the pages by nbdev's rules: `run` keeps the outputs in the notebooks, `test` only runs them and compares what
they cost
"""

import argparse
import json
import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools.warm import STOP, Warm  # noqa: E402

NBS = ROOT / "nbs"
COSTS = ROOT / "tests" / "page_costs.json"


def settings():
    "The DEFAULT section of settings.ini."
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def pages(names=()):
    "The notebooks named (files or folders), or all of nbs/, in reading order."
    found = []
    for name in map(Path, names or [NBS]):
        found += sorted(name.rglob("*.ipynb")) if name.is_dir() else [name]
    missing = [str(page) for page in found if not page.exists()]
    if missing:
        sys.exit(f"there is no page {', '.join(missing)}")
    return [p.resolve() for p in found if not any(part[0] in "._" for part in p.parts[-3:])]


def directives(cell):
    "The `#|` lines at the top of a code cell, as {name: value}."
    lines = [re.match(r"#\|\s*([\w-]+):?\s*(.*)", line) for line in "".join(cell["source"]).splitlines()]
    return {m[1]: m[2].strip() for m in lines if m}


def skipped(cell, flags):
    "nbdev_test's rule: is this a cell that does not run?"
    found = directives(cell)
    return cell["cell_type"] != "code" or found.get("eval", "").lower() == "false" or bool(flags & found.keys())


def execute(page: Path, save: bool, flags: set):
    "Run one page in this process; with `save`, write its outputs back, cleaned. Returns the traceback or None."
    from execnb.nbio import read_nb, write_nb
    from execnb.shell import CaptureShell
    from nbdev.clean import clean_nb

    os.chdir(page.parent)
    sys.path.insert(0, str(ROOT))
    nb = read_nb(page)
    shell = CaptureShell(page)
    try:
        shell.run_all(nb, exc_stop=True, preproc=lambda cell: skipped(cell, flags))
    except BaseException:
        return shell.prettytb(fname=page.relative_to(ROOT))
    if save:
        allowed = {
            key: settings().get(key, "").split() for key in ("allowed_metadata_keys", "allowed_cell_metadata_keys")
        }
        clean_nb(nb, **allowed)
        temporary = page.with_name(f".{page.name}.tmp")
        write_nb(nb, temporary)
        os.replace(temporary, page)


def cores() -> int:
    "Cores that this process may use."
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(workers: int, home: str, offline: bool):
    "What all pages see: no network and an empty hub folder for the run, and a share of the cores each."
    threads = str(max(1, cores() // workers))
    env = os.environ | dict(
        PYTHONUTF8="1", OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", threads), TOKENIZERS_PARALLELISM="false"
    )
    if offline:
        return env | dict(IN_TEST="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=f"{home}/hf")
    return {k: v for k, v in env.items() if not k.endswith("OFFLINE") and k not in ("HF_HOME", "FTKIT_HOME", "IN_TEST")}


ONE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from tools import pages; pages.one(sys.argv[2], sys.argv[3] =="
    " 'save', set(sys.argv[4:]))"
)


def launch(warm: Warm, page: Path, save: bool, flags: set, offline=True):
    "Run one page in a process of its own, with caches of its own. Returns (page, what it left, fault or '')."
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        own = dict(IPYTHONDIR=f"{home}/ipython") | (dict(FTKIT_HOME=f"{home}/ftkit") if offline else {})
        done = warm.run(
            ONE, ROOT, page, "save" if save else "test", *flags, env=own, timeout=STOP if offline else 10**9
        )
    if done.stopped:
        return page, done, f"stopped after {STOP} seconds"
    return (
        page,
        done,
        "" if done.returncode == 0 else (done.stderr or done.stdout)[-6000:] or f"exit status {done.returncode}",
    )


def one(page: str, save: bool, flags: set):
    "Run one page in this process, which ends with its traceback if it has one."
    if fault := execute(Path(page), save, flags):
        sys.exit(fault)


def shares(seconds: dict) -> dict:
    "Each page's part of what all pages together cost."
    whole = sum(seconds.values())
    return {name: s / whole for name, s in seconds.items()}


def dear(seconds: dict, recorded: dict) -> dict:
    """Pages that cost more than twice their recorded part of the run, with a sentence each.

    Shares, since machines differ and seconds do not compare; a page of less than half a mean page's cost is never
    dear.
    """
    found, least = shares(seconds), 0.5 / len(seconds)
    return {
        name: (
            f"cost {100 * share:.2f} % of the run; recorded are {100 * recorded[name]:.2f} % (python tools/pages.py"
            " test --record writes new ones)"
        )
        for name, share in found.items()
        if name in recorded and share > max(2 * recorded[name], least)
    }


def many(found, save, skip, workers, offline=True, costs=None):
    "Run pages, print a table of seconds; True if all ran. `costs`: the file of recorded shares, `record` writes it."
    if not found:
        print("FAILED: no page was found to run")
        return False
    before = {p for p in NBS.rglob("*") if ".ipynb" not in p.name}
    faults, seconds = [], {}
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
        Warm(environment(workers, home, offline)) as warm,
        ThreadPoolExecutor(workers) as pool,
    ):
        for page, done, fault in pool.map(lambda p: launch(warm, p, save, skip, offline), found):
            name = page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else str(page)
            seconds[name] = done.cpu
            print(f"{'FAILED' if fault else 'ok':7}{done.wall:6.1f} s {done.cpu:6.1f} s of CPU  {name}", flush=True)
            if fault:
                faults.append((name, fault))
    left = sorted(
        str(p.relative_to(ROOT))
        for p in {p for p in NBS.rglob("*") if ".ipynb" not in p.name} - before
        if "__pycache__" not in p.parts and ".ipynb_checkpoints" not in p.parts
    )
    if left:
        faults.append(("nbs", "the pages left files behind: " + ", ".join(left[:8])))
    if costs == "record" and not faults:
        COSTS.write_text(
            json.dumps({name: round(share, 5) for name, share in shares(seconds).items()}, indent=1) + "\n",
            encoding="utf-8",
        )
    elif costs == "compare" and not faults:
        faults += dear(seconds, json.loads(COSTS.read_text(encoding="utf-8"))).items()
    for name, fault in faults:
        print(f"\n{'=' * 30} {name}\n{fault}")
    print(
        f"{len(found)} pages ran in {sum(seconds.values()):.0f} s of CPU, "
        + (f"{len(faults)} faults" if faults else "all passed")
    )
    return not faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["run", "test"])
    parser.add_argument("pages", nargs="*", help="notebooks or folders; all of nbs/ without")
    parser.add_argument("--flags", default=None, help="flags to run that are normally skipped (slow gpu net)")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument(
        "--record",
        action="store_true",
        help="keep what each page costs as its part of the run, for later runs to compare with",
    )
    args = parser.parse_intermixed_args()
    forced = set((args.flags or "").split())
    skip = set(settings().get("tst_flags", "").split()) - forced
    save = args.command == "run"
    workers = args.workers or min(2, cores())
    costs = "record" if args.record else "compare" if not (save or forced or args.pages) else None
    good = many(pages(args.pages), save, skip, workers, offline=not forced, costs=costs)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
