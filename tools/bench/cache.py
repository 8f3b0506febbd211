"""What the trunk's cache reaches of what the formula allows, and what twenty head-only runs cost.

    python tools/bench cache [--rows N] [--epochs 3,10,30] [--only sst2-base]
    python tools/bench sweep [--rows 1000] [--only sst2-base]

Each run is a process of its own. The limit is counted in operations: f below the boundary, a above it,
(f + 3a) E without the cache and (f + 3a) + 3a (E - 1) with it.
"""
import json, os, subprocess, sys, tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]


# Full-size models of text, pictures, and pictures by convolution; rows for a head alone, whose fixed costs weigh more, and for two blocks.
ROWS = {"sst2-base": (1200, 400), "pictures-base": (800, 120), "resnet50": (2000, 600)}


def job(*args, home):
    "One job in a fresh process."
    done = subprocess.run([sys.executable, str(HERE / "jobs.py"), *map(str, args)], capture_output=True, text=True, env=dict(os.environ, FTKIT_HOME=str(home), PYTHONWARNINGS="ignore"))
    try: return json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError): raise SystemExit(f"{args} failed:\n{done.stderr[-2000:]}")


def operations(work, method):
    "Operations of a forward pass below the boundary and above it."
    import jobs, torch
    from ftkit.methods.core import set_modes
    from ftkit.trunk import find_trunk
    from torch.utils.flop_counter import FlopCounterMode
    w = jobs.WORKS[work]
    train, _ = w.data(8)
    names = jobs.names_of(w, train)
    model, task, rows = w.model(len(names)), jobs.task_of(w, names), jobs.encode(w, train, names)
    jobs.METHODS[method].attach(model)
    set_modes(model)
    trunk = find_trunk(model, task, rows)
    batch = task.collate(rows, range(8))
    counter = FlopCounterMode(display=False, depth=None)
    with counter, torch.no_grad(): task.forward(model, batch)
    found = {k.partition(".")[2]: sum(v.values()) for k, v in counter.get_flop_counts().items()}
    below = sum(found.get(u, 0) for u in trunk.units)
    return below, counter.get_total_flops() - below


def limit(below, above, epochs):
    "How many times faster the cache can make a job."
    return (below + 3 * above) * epochs / ((below + 3 * above) + 3 * above * (epochs - 1))


def efficiency(rows, epochs, works, precision="fp32"):
    "Seconds with and without the cache, beside the limit; rows are those of each work unless given."
    found, given = [], rows
    for work in works or ROWS:
        for method, usual in zip(("head", "top2"), ROWS.get(work, (600, 600))):
            rows = given or usual
            below, above = operations(work, method)
            for e in epochs:
                with tempfile.TemporaryDirectory() as home:
                    probe = job(work, method, "kit", "--rows", rows, "--steps", 1, "--precision", precision, "--cache", 0, home=home)  # the probe's answer is there for both
                    off, on = (job(work, method, "kit", "--rows", rows, "--epochs", e, "--precision", precision, "--cache", c, home=home) for c in (0, 1))
                allowed, reached = limit(below, above, e), off["seconds"] / on["seconds"]
                found.append(dict(work=work, method=method, epochs=e, rows=rows, off=off["seconds"], on=on["seconds"], reached=reached, limit=allowed, share=reached / allowed, quality=(off["quality"], on["quality"]), way=probe["way"]))
                print(f"{work:12s}{method:6s}E={e:<4d}{off['seconds']:7.1f} s {on['seconds']:7.1f} s   {reached:5.2f} of {allowed:5.2f}: {reached / allowed:.0%}", flush=True)
    return found


def sweep(rows, work, runs=20):
    "Twenty learning rates for one head, one process after the other, on one shelf."
    with tempfile.TemporaryDirectory() as home:
        job(work, "head", "kit", "--rows", rows, "--steps", 1, "--cache", 0, home=home)
        without = job(work, "head", "kit", "--rows", rows, "--epochs", 1, "--cache", 0, home=home)
        each = [job(work, "head", "kit", "--rows", rows, "--epochs", 3, "--rate", 10 ** (-4 + i / 8), home=home) for i in range(runs)]
    inside = [r["inside"] for r in each]
    found = dict(work=work, rows=rows, runs=runs, one_epoch_without=without["inside"], seconds=inside, total=sum(inside), passes=sum(inside) / without["inside"], whole=[r["seconds"] for r in each])
    print(f"{runs} runs of 3 epochs: {sum(inside):.1f} s of search, filling and training; one epoch without the cache {without['inside']:.1f} s: {found['passes']:.2f} passes; the first {inside[0]:.2f} s, the others {sum(inside[1:]) / (runs - 1):.2f} s each", flush=True)
    return found
