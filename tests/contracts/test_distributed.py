"Two processes reach the weights of one at the same global batch."

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import conftest
import pytest
import torch
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).parent / "fit_once.py"


ENV = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
RUN = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"


def read(path):
    with safe_open(path, "pt") as f:
        return {k: f.get_tensor(k) for k in f.keys()}, f.metadata()


def forked(out: Path):
    "Two processes with the environment that a launcher gives them."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def one(rank: int):
        place = dict(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="2",
            LOCAL_WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        return conftest.child(RUN, SCRIPT, out, env=ENV | place, timeout=300)

    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(one, range(2)):
            assert done.returncode == 0, done.stderr[-3000:]


def launched(out: Path):
    "Two processes that `accelerate launch` starts."
    # accelerate's flag for several local processes is --multi_gpu, also where ACCELERATE_USE_CPU puts them on the CPU
    # with gloo
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]
    both = subprocess.run(
        [*launch, str(SCRIPT), str(out)], env=os.environ | ENV, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert both.returncode == 0, both.stderr[-3000:]


@pytest.mark.parametrize("start", [forked, pytest.param(launched, marks=pytest.mark.whole)])
def test_two_gloo_processes_equal_one(start, tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    alone = conftest.child(RUN, SCRIPT, one, env=ENV)
    assert alone.returncode == 0, alone.stderr[-2000:]
    start(two)
    (a, said_one), (b, said_two) = read(one), read(two)
    assert said_one["world"] == "1" and said_two["world"] == "2"
    assert a.keys() == b.keys() and all(torch.allclose(a[n], b[n], atol=1e-6) for n in a)
    assert abs(float(said_one["loss"]) - float(said_two["loss"])) < 1e-5
