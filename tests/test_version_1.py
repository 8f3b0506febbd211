"Runs, deltas and stopped runs that the version before `RunSpec` wrote: they are loaded, and go on to the same weights."

import json
import shutil

import pytest
from conftest import ROOT

import ftkit as ft
from ftkit.methods.base import attached

FILES = ROOT / "tests" / "version_1"
NAMES = ["bitfit", "lora", "linear_probe"]
TEXTS = ["a fine film", "a dull film", "warm and funny", "slow and cold", "truly great fun", "truly bad work"]


def expected(name):
    return json.loads((FILES / name / "expected.json").read_text())


def check_weights(model, name):
    "Sums and norms of all trained tensors: those of the fit that wrote the files, up to rounding on another machine."
    found = attached(model).parameters()
    wanted = expected(name)["weights"]
    assert found.keys() == wanted.keys()
    for n, (total, norm) in wanted.items():
        assert float(found[n].detach().double().sum()) == pytest.approx(total, abs=2e-3 + 1e-3 * norm), n
        assert float(found[n].detach().double().norm()) == pytest.approx(norm, rel=1e-3, abs=1e-4), n


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_loaded(name, tmp_path):
    run = ft.load_run(FILES / name / "run")
    assert run.metrics == pytest.approx(expected(name)["metrics"])
    check_weights(run.model, name)
    if name != "linear_probe":
        for found, wanted in zip(run.predict(TEXTS).to_dict("records"), expected(name)["predictions"]):
            assert {k: v for k, v in found.items() if isinstance(v, str)} == {
                k: v for k, v in wanted.items() if isinstance(v, str)
            }
    again = ft.load_run(run.save(tmp_path))  # in the format of this version
    assert again.spec == run.spec and again.inferred == run.inferred


@pytest.mark.parametrize("name", NAMES)
def test_a_delta_is_loaded(name):
    run = json.loads((FILES / name / "run" / "run.json").read_text())["spec"]
    ck = ft.load(run["checkpoint"], task=run["task"], classes=run["classes"] or None, seed=run["seed"])
    ft.load_delta(ck.model, FILES / name / "run" / "delta")
    check_weights(ck.model, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_goes_on_to_the_same_weights(name, tmp_path):
    folder = shutil.copytree(FILES / name / "stopped", tmp_path / "run")
    run = ft.resume(folder)
    assert run.history.step.max() == {"bitfit": 8, "lora": 7, "linear_probe": 6}[name]
    check_weights(run.model, name)
    assert ft.resume(folder).metrics == run.metrics  # the identity of the earlier version is kept
