"Two processes reach the weights of one at the same global batch."
import os, subprocess, sys
from pathlib import Path
import conftest
import torch
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).parent / "fit_once.py"


def read(path):
    with safe_open(path, "pt") as f: return {k: f.get_tensor(k) for k in f.keys()}, f.metadata()


def test_two_gloo_processes_equal_one(tmp_path):
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    alone = conftest.child("import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')", SCRIPT, one, env=env)
    assert alone.returncode == 0, alone.stderr[-2000:]
    # accelerate's flag for several local processes is --multi_gpu, also where ACCELERATE_USE_CPU puts them on the CPU with gloo
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    both = subprocess.run([*launch, str(SCRIPT), str(two)], env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert both.returncode == 0, both.stderr[-3000:]
    (a, said_one), (b, said_two) = read(one), read(two)
    assert said_one["world"] == "1" and said_two["world"] == "2"
    assert a.keys() == b.keys() and all(torch.allclose(a[n], b[n], atol=1e-6) for n in a)
    assert abs(float(said_one["loss"]) - float(said_two["loss"])) < 1e-5
