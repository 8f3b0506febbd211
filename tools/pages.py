"""Run the pages by nbdev's rules: `run` keeps the outputs in the notebooks, `test` only runs and times them"""
import argparse, os, re, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
STOP = 600  # seconds after which a page is taken to hang


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
    return (cell["cell_type"] != "code" or "nbdev_export(" in "".join(cell["source"])
            or found.get("eval", "").lower() == "false" or bool(flags & found.keys()))


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
        clean_nb(nb, allowed_metadata_keys=settings().get("allowed_metadata_keys", "").split())
        temporary = page.with_name(f".{page.name}.tmp")
        write_nb(nb, temporary)
        os.replace(temporary, page)


def environment(workers: int, home: str):
    "What a page sees: offline, its own empty caches, and its share of the cores."
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    return os.environ | dict(
        IN_TEST="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", FTKIT_HOME=f"{home}/ftkit", HF_HOME=f"{home}/hf", PYTHONUTF8="1",
        IPYTHONDIR=f"{home}/ipython", OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", threads), TOKENIZERS_PARALLELISM="false")


def launch(page: Path, save: bool, flags: set, workers: int, offline=True):
    "Run one page in a process of its own. Returns (page, wall seconds, CPU seconds, fault or '')."
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        env = environment(workers, home)
        if not offline:
            env = {k: v for k, v in env.items() if not k.endswith("OFFLINE") and k not in ("HF_HOME", "FTKIT_HOME", "IN_TEST")}
        args = [sys.executable, str(Path(__file__)), "one", str(page), "--flags", " ".join(flags)] + ["--save"] * save
        try:
            done = subprocess.run(args, env=env, capture_output=True, text=True, encoding="utf-8", errors="replace",
                                  timeout=STOP if offline else None)
            cpu = re.findall(r"^CPU seconds ([\d.]+)$", done.stdout, re.M)
            fault = "" if done.returncode == 0 else (done.stderr or done.stdout)[-6000:] or f"exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            cpu, fault = [], f"stopped after {STOP} seconds"
    return page, time.perf_counter() - start, float(cpu[-1]) if cpu else 0.0, fault


def many(found, save, skip, workers, offline=True):
    "Run pages, print a table of seconds; True if all ran."
    if not found:
        print("FAILED: no page was found to run")
        return False
    before = {p for p in NBS.rglob("*") if ".ipynb" not in p.name}
    faults = []
    with ThreadPoolExecutor(workers) as pool:
        for page, wall, cpu, fault in pool.map(lambda p: launch(p, save, skip, workers, offline), found):
            name = page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else str(page)
            print(f"{'FAILED' if fault else 'ok':7}{wall:6.1f} s {cpu:6.1f} s of CPU  {name}", flush=True)
            if fault:
                faults.append((name, fault))
    left = sorted(str(p.relative_to(ROOT)) for p in {p for p in NBS.rglob("*") if ".ipynb" not in p.name} - before
                  if "__pycache__" not in p.parts and ".ipynb_checkpoints" not in p.parts)
    if left:
        faults.append(("nbs", "the pages left files behind: " + ", ".join(left[:8])))
    for name, fault in faults:
        print(f"\n{'=' * 30} {name}\n{fault}")
    print(f"{len(found)} pages ran, {len(faults)} faults" if faults else f"{len(found)} pages ran, all passed")
    return not faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["run", "test", "one"])
    parser.add_argument("pages", nargs="*", help="notebooks or folders; all of nbs/ without")
    parser.add_argument("--flags", default=None, help="for run and test: flags to run that are normally skipped (slow gpu net)")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--save", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    if args.command == "one":
        fault = execute(Path(args.pages[0]), args.save, set((args.flags or "").split()))
        print(f"\nCPU seconds {time.process_time():.1f}")
        if fault:
            sys.exit(fault)
        return
    forced = set((args.flags or "").split())
    skip = set(settings().get("tst_flags", "").split()) - forced
    save = args.command == "run"
    workers = args.workers or (1 if save else min(2, os.cpu_count() or 1))
    good = many(pages(args.pages), save, skip, workers, offline=not forced)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
