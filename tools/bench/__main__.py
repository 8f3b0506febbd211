"""Speed of whole jobs, side by side: every row in processes of its own, alternating, several times; medians, quartiles and peak memory.

    python tools/bench [jobs] [--repeats 5] [--only sst2,varied]
    python tools/bench cache | sweep | grid | peak | overhead | methods | transfer

Writes bench/PART.json, and for jobs the table bench/jobs.md and the picture bench/jobs.png.
"""
import argparse, json, math, os, statistics, subprocess, sys, tempfile
from pathlib import Path

HERE, ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# Work, methods, options of the job, and who runs it in which precision ("own": as each picks by itself; Trainer's own is fp32).
SAME = ("trainer fp32", "kit fp32", "trainer bf16", "kit bf16", "kit own")
PLAIN = ("trainer fp32", "kit fp32", "kit own")
PLAN = [
    ("sst2", ("full", "lora"), "--rows 1000", (*SAME, "bare fp32")),
    ("varied", ("full", "lora"), "--rows 200", SAME),
    ("pictures", ("full", "lora"), "--rows 600", SAME),
    ("causal", ("full", "lora"), "--rows 80", SAME),
    ("sst2-base", ("full", "lora"), "--rows 320 --steps 5", SAME),
    ("varied-base", ("full", "lora"), "--rows 96 --steps 4 --batch 8", PLAIN),
    ("pictures-base", ("full", "lora"), "--rows 160 --steps 3", PLAIN),
    ("causal-base", ("full", "lora"), "--rows 96 --steps 4 --batch 8", PLAIN),
    ("sst2-512", ("full",), "--rows 200", ("tutorial fp32", "kit fp32", "kit own")),
    ("sst2-12", ("head",), "--rows 500 --epochs 10", PLAIN),
    ("sst2-12", ("top2",), "--rows 500 --epochs 10", PLAIN),
    ("sst2-12", ("head", "top6"), "--rows 500 --epochs 1", PLAIN),
    ("pictures-12", ("head",), "--rows 300 --epochs 3", PLAIN),
    ("pictures-12", ("head",), "--rows 300 --epochs 3 --flip", PLAIN),
]


def run(work, method, who, options, home):
    "One job in a fresh process, with caches of its own unless told to share them."
    name, precision = who.split()
    env = dict(os.environ, FTKIT_HOME=str(home), PYTHONWARNINGS="ignore")
    done = subprocess.run([sys.executable, str(HERE / "jobs.py"), work, method, name, "--precision", precision, *options.split()], capture_output=True, text=True, env=env)
    try: return json.loads(done.stdout.strip().splitlines()[-1]) | dict(ran=who, options=options)
    except (ValueError, IndexError): raise SystemExit(f"{work} {method} {who} failed:\n{done.stderr[-2000:]}")


def measure(plan, repeats):
    "All rows of a plan, everyone in turn, in alternating order."
    runs = []
    for work, methods, options, whos in plan:
        for method in methods:
            for i in range(repeats):
                for who in whos[::-1] if i % 2 else whos:
                    with tempfile.TemporaryDirectory() as home: runs.append(run(work, method, who, options, home) | dict(repeat=i))
                    r = runs[-1]
                    print(f"{work:14s}{method:6s}{who:14s}{r['seconds']:8.1f} s{r['peak'] / 1e6:9.0f} MB   loss {r['loss'] or 0:.4f}  {r['quality']:.4f}  {r['precision']}", flush=True)
    return runs


def summary(runs):
    "One line per work, method and options: seconds of each, and how many times the kit is faster."
    rows = []
    for key in dict.fromkeys((r["work"], r["method"], r["options"]) for r in runs):
        mine = [r for r in runs if (r["work"], r["method"], r["options"]) == key]
        times = {w: [r["seconds"] for r in mine if r["ran"] == w] for w in dict.fromkeys(r["ran"] for r in mine)}
        mid = {w: statistics.median(t) for w, t in times.items()}
        peak = {w: statistics.median(r["peak"] for r in mine if r["ran"] == w) for w in times}
        base = "tutorial" if "tutorial fp32" in mid else "trainer"
        def ratio(precision, ours):
            pairs = [a / b for a, b in zip(times.get(f"{base} {precision}", []), times.get(f"kit {ours}", []))]
            return dict(median=round(statistics.median(pairs), 2), low=round(min(pairs), 2), high=round(max(pairs), 2)) if pairs else None
        rows.append(dict(work=key[0], method=key[1], options=key[2], against=base, seconds={w: round(s, 2) for w, s in mid.items()}, peak_mb={w: round(p / 1e6) for w, p in peak.items()},
                         fp32=ratio("fp32", "fp32"), bf16=ratio("bf16", "bf16"), own=ratio("fp32", "own"), repeats=len(next(iter(times.values()))),
                         picked=sorted({r["precision"] for r in mine if r["ran"] == "kit own"})))
    return rows


def geometric(rows, column):
    "The geometric mean of a column of ratios over full and LoRA jobs against Trainer."
    found = [r[column]["median"] for r in rows if r[column] and r["against"] == "trainer" and r["method"] in ("full", "lora")]
    return dict(mean=round(math.exp(statistics.mean(map(math.log, found))), 2), least=min(found), rows=len(found)) if found else None


def table(rows) -> str:
    "The summary as Markdown."
    cell = lambda r: f"{r['median']:.2f}" + (f" ({r['low']:.2f} to {r['high']:.2f})" if r["low"] != r["high"] else "") if r else ""
    seconds = lambda r, w: f"{r['seconds'][w]:.1f}" if w in r["seconds"] else ""
    lines = ["| work | method | options | peer, s | kit, s | same fp32 | same bf16 | as each picks | picked | peer, MB | kit, MB |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        peer = f"{r['against']} fp32"
        lines.append(f"| {r['work']} | {r['method']} | {r['options'].replace('--', '')} | {seconds(r, peer)} | {seconds(r, 'kit fp32')} | {cell(r['fp32'])} | {cell(r['bf16'])} | {cell(r['own'])} | {', '.join(r['picked'])} | {r['peak_mb'].get(peer, '')} | {r['peak_mb'].get('kit fp32', '')} |")
    return "\n".join(lines) + "\n"


def jobs(repeats, only):
    "Measure, and keep every run; with some works only, the others stay as they were measured before."
    from ftkit.core import read_json
    from ftkit.show import bars
    runs, file, old = measure([r for r in PLAN if not only or r[0] in only], repeats), ROOT / "bench" / "jobs.json", []
    if only and file.exists(): old = [r for r in read_json(file)["runs"] if r["work"] not in only]
    rows = summary(old + runs)
    means = {c: geometric(rows, c) for c in ("fp32", "bf16", "own")}
    (ROOT / "bench" / "jobs.md").write_text(table(rows))
    shown = [{"job": f"{r['work']}, {r['method']}, {r['options'].split()[-1]}", "times faster": r["own"]["median"]} for r in rows if r["own"]]
    bars(shown, "times faster", "job", baseline=1.0, sort=False, title="Times faster than the peer, as each picks").save(ROOT / "bench" / "jobs.png")
    print(table(rows), json.dumps(means), sep="\n")
    return dict(means=means, rows=rows, runs=old + runs)


def kept(part, works, by="work") -> list:
    "With some works only, the rows of the others, as they were measured before."
    from ftkit.core import read_json
    file = ROOT / "bench" / f"{part}.json"
    return [r for r in read_json(file)["rows"] if r[by] not in works] if works and file.exists() else []


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("part", nargs="?", default="jobs", choices=["jobs", "cache", "sweep", "grid", "peak", "overhead", "methods", "transfer"])
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--rows", type=int, help="rows to work on, where a part does not have its own number")
    p.add_argument("--epochs", default="3,10,30")
    p.add_argument("--only", default="", help="works, separated by commas")
    a = p.parse_args()
    import torch
    from ftkit.core import versions, write_json
    sys.path.insert(0, str(HERE))
    import cache, grid, methods, overhead, peak, transfer
    works = list(filter(None, a.only.split(",")))
    parts = dict(jobs=lambda: jobs(a.repeats, set(works)), cache=lambda: dict(rows=kept("cache", works) + cache.efficiency(a.rows, [int(e) for e in a.epochs.split(",")], works)),
                 sweep=lambda: cache.sweep(a.rows or 4000, *works[:1] or ["sst2-base"]), grid=lambda: dict(rows=grid.grid(works or ["sst2", "varied", "pictures", "sst2-base"])), peak=lambda: peak.peak(), overhead=lambda: dict(rows=overhead.rows()), methods=lambda: methods.methods(a.repeats, works),
                 transfer=lambda: dict(rows=kept("transfer", works, "mini") + transfer.transfer(a.repeats, works)))
    found = parts[a.part]()
    write_json(ROOT / "bench" / f"{a.part}.json", found | dict(machine=dict(cpu=torch.backends.cpu.get_cpu_capability(), threads=torch.get_num_threads()), versions=versions()))


if __name__ == "__main__": main()
