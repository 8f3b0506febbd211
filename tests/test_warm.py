"""The warmed process from which pages and tests start: children are processes of their own, and stay that"""

import os

import pytest
from conftest import ROOT, child

from tools import pages, warm

FIT = """
import torch, ftkit as ft
from ftkit.testing.invariants import tiny_model, train_steps
torch.set_num_threads(2)
wide = torch.randn(800, 800, requires_grad=True)
(wide @ wide).square().sum().backward()
model, batch = tiny_model()
method = ft.LoRA()
method.attach(model)
train_steps(method, model, batch)
print(torch.get_num_threads(), bool(wide.grad.isfinite().all()))
"""


def test_a_child_computes_with_two_threads():
    "It would hang if its parent had computed with two."
    for _ in range(2):
        done = child(FIT)
        assert done.returncode == 0 and done.stdout.splitlines()[-1] == "2 True", done.stderr[-2000:]


def test_a_child_is_as_good_as_an_interpreter_of_its_own(tmp_path):
    code = (
        "import os, sys; x = 1; print(sys.argv, os.environ['ASKED'], os.getcwd(), __name__, file=sys.stderr);"
        " sys.exit(int(sys.argv[1]))"
    )
    first = child(code, 3, env={"ASKED": "yes"}, cwd=tmp_path)
    assert (
        first.returncode == 3
        and first.stderr == f"['-c', '3'] yes {os.path.realpath(tmp_path)} __main__\n"
        and first.stdout == ""
    )
    second = child("print('x' in globals(), 'ASKED' in __import__('os').environ)")
    assert second.stdout == "False False\n"
    failed = child("1 / 0")
    assert failed.returncode == 1 and failed.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert child("import sys; sys.exit('a sentence')").stderr == "a sentence\n"
    assert child("import tempfile; t = tempfile.TemporaryDirectory(); print(t.name)").stdout.strip() not in map(
        str, os.scandir(tmp_path)
    )


def test_children_draw_different_numbers():
    code = "import numpy, random; print(numpy.random.rand(), random.random())"
    assert len({x for _ in range(3) for x in child(code).stdout.split()}) == 6


def test_what_hangs_is_ended_with_its_children():
    done = child("import subprocess; subprocess.run(['sleep', '100'])", timeout=0.5)
    assert done.stopped and done.returncode == -9


def test_a_fresh_interpreter_answers_the_same(tmp_path):
    "What is used where the system cannot fork."
    task = dict(
        code="import sys; print(sys.argv[1]); sys.exit(4)", argv=["a"], env=dict(os.environ), cwd=str(ROOT), timeout=60
    )
    done = warm.fresh(task)
    assert (done.returncode, done.stdout, done.stderr) == (4, "a\n", "") and done.cpu > 0
    assert warm.fresh(task | dict(code="import time; time.sleep(60)", timeout=0.5)).stopped


@pytest.mark.parametrize("factor, dear", [(1.0, False), (1.8, False), (3.0, True)])
def test_a_page_is_dear_by_its_part_of_the_run(factor, dear):
    recorded = pages.shares({f"{i}": 10.0 for i in range(50)})
    for machine in (1, 4):  # seconds of a slower machine change nothing
        seconds = {name: 10.0 * machine for name in recorded} | {"7": 10.0 * factor * machine}
        assert list(pages.dear(seconds, recorded)) == ["7"] * dear
