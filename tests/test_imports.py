"""Nothing is imported that a job does not use, counted in modules, which no busy machine changes"""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

BARE = """
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
AutoTokenizer.from_pretrained("ftkit/zoo/bert_mini")
AutoModelForSequenceClassification.from_pretrained("ftkit/zoo/bert_mini")
"""
JOB = """
import ftkit as ft
rows = {"text": ["a fine film", "a dull film"] * 4, "label": ["good", "bad"] * 4}
ft.finetune("bert-mini", rows, METHOD, steps=1, valid=None, show_progress=False)
"""
UNUSED = {"bitsandbytes", "matplotlib", "sklearn", "timm", "torchmetrics", "IPython"}


def fresh(code: str, **env) -> list[str]:
    "What an interpreter of its own prints, by lines."
    whole = {
        k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    } | env
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=whole, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def modules(code: str) -> set[str]:
    "The modules that an interpreter of its own holds after some code."
    return set(json.loads(fresh(code + "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))")[-1]))


def packages(names: set[str]) -> set[str]:
    return {n.partition(".")[0] for n in names}


@pytest.fixture(scope="module")
def bare():
    return modules(BARE)


@pytest.mark.parametrize("method, more", [("linear_probe", 1.35), ("lora", 1.75)])
def test_a_job_imports_what_it_uses(bare, method, more):
    found = modules(JOB.replace("METHOD", repr(method)))
    unused = UNUSED | ({"peft"} if method == "linear_probe" else set())
    assert not packages(found) & (unused - packages(bare))
    assert len(found) <= more * len(bare), f"{len(found)} modules; a script with transformers alone has {len(bare)}"


@pytest.mark.parametrize("first, second", [("ftkit", "torch"), ("torch", "ftkit")])
def test_waiting_threads_sleep_where_ftkit_comes_first(first, second):
    setting = "import os; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert fresh(f"import {first}\nimport {second}\n{setting}") == ["1000" if first == "ftkit" else "None"]


def test_a_setting_of_the_users_stays():
    policy = "import ftkit, os; print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))"
    assert fresh(policy, OMP_WAIT_POLICY="ACTIVE") == ["ACTIVE None"]
    assert fresh(policy, GOMP_SPINCOUNT="0") == ["None 0"]


def test_argument_checks_of_distributions_stay_on():
    "Importing bitsandbytes, as 4-bit weights need it, and compiling switch them off for the whole process."
    pytest.importorskip("bitsandbytes")
    code = """
import torch
from ftkit.core import import_library
import_library("peft")
from ftkit.methods.qlora import quantization_kwargs
quantization_kwargs()
from peft.import_utils import is_bnb_available
from transformers.utils import is_bitsandbytes_available
import peft.helpers
assert is_bnb_available() and is_bitsandbytes_available() and peft.helpers.bnb
try:
    torch.distributions.Beta(torch.tensor(0.0), torch.tensor(0.0))
    print("no error")
except ValueError:
    print("an error")
"""
    assert fresh(code)[-1] == "an error"
