"""Run the pages with nbdev's rules: `run` saves the outputs in the notebooks, `test` only runs them and compares their
cost
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
    "The given notebooks (files or folders), or all of nbs/, in reading order."
    found = []
    for name in map(Path, names or [NBS]):
        found += sorted(name.rglob("*.ipynb")) if name.is_dir() else [name]
    missing = [str(page) for page in found if not page.exists()]
    if missing:
        sys.exit(f"no such page: {', '.join(missing)}")
    return [p.resolve() for p in found if not any(part[0] in "._" for part in p.parts[-3:])]


def directives(cell):
    "The `#|` lines at the top of a code cell, as {name: value}."
    lines = [re.match(r"#\|\s*([\w-]+):?\s*(.*)", line) for line in "".join(cell["source"]).splitlines()]
    return {m[1]: m[2].strip() for m in lines if m}


def skipped(cell, flags):
    "Whether a cell is not run, by the rules of nbdev_test."
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
    for cell in nb.cells:
        if not skipped(cell, flags):
            cell.outputs = []  # a cell that shows nothing now would keep what it showed before
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
    "The environment of all pages: no network, an empty hub folder, and a fraction of the cores each."
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
    "Run one page in its own process, with its own caches. Returns (page, its result, fault or '')."
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
    "Run one page in this process, which exits with the traceback if there is one."
    if fault := execute(Path(page), save, flags):
        sys.exit(fault)


def shares(seconds: dict) -> dict:
    "Each page's fraction of the total cost."
    whole = sum(seconds.values())
    return {name: s / whole for name, s in seconds.items()}


def dear(seconds: dict, recorded: dict) -> dict:
    """Pages that cost more than twice their recorded fraction of the run, with a message each.

    Fractions are used because seconds on different machines are not comparable; a page that costs less than half of
    the mean is never reported.
    """
    found, least = shares(seconds), 0.5 / len(seconds)
    return {
        name: (
            f"cost {100 * share:.2f} % of the run; the recorded value is {100 * recorded[name]:.2f} % (python"
            " tools/pages.py test --record updates it)"
        )
        for name, share in found.items()
        if name in recorded and share > max(2 * recorded[name], least)
    }


def many(found, save, skip, workers, offline=True, costs=None):
    "Run pages, print a table of seconds; True if all passed. `costs`: compare recorded fractions or `record` them."
    if not found:
        print("FAILED: no page found")
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
        faults.append(("nbs", "the pages left files: " + ", ".join(left[:8])))
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
    parser.add_argument("pages", nargs="*", help="notebooks or folders; default: all of nbs/")
    parser.add_argument("--flags", default=None, help="flags to run that are normally skipped (slow gpu net)")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument(
        "--record",
        action="store_true",
        help="save the cost of each page as its fraction of the run, for comparison in later runs",
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
