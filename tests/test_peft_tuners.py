"""Every tuner of peft on every family: it works and goes away without a trace, or it is refused in one sentence."""

import copy

import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner

import ftkit as ft
from ftkit.core import FtError
from ftkit.testing.invariants import FAMILIES, model_outputs, snapshot, tiny_model, train_steps

KINDS = sorted(k.value.lower() for k in PEFT_TYPE_TO_TUNER_MAPPING)
NO_UPDATES = [k.value.lower() for k, t in PEFT_TYPE_TO_TUNER_MAPPING.items() if not issubclass(t, BaseTuner)] + [
    "xlora",
    "poly",
]
OPTIONS = {
    "oft": dict(oft_block_size=8, r=0),
    "c3a": dict(block_size=8),
    "road": dict(group_size=4),
    "randlora": dict(r=4),
    "shira": dict(r=4),
    "miss": dict(r=8),
    "vblora": dict(vector_length=8),
    "vera": dict(r=8, save_projection=False),
    "fourierft": dict(n_frequency=20),
    "waveft": dict(n_frequency=20),
    "boft": dict(boft_block_size=8),
}


def sentence(error: FtError):
    "One sentence for people: not a bare key, no trace of a stack, not a page."
    said = str(error)
    assert 30 < len(said) < 500 and "\n" not in said and "Traceback" not in said and said[0].isalpha(), said


@pytest.mark.filterwarnings("ignore")
@pytest.mark.sweep("family", least=12)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tuner_works_or_is_refused(kind, family, tmp_path):
    model, batch = tiny_model(family)
    fresh = copy.deepcopy(model)
    before, modules = snapshot(model), {n: id(m) for n, m in model.named_modules()}
    flags, base = {n: p.requires_grad for n, p in model.named_parameters()}, model_outputs(model, batch)
    try:
        method = ft.Peft(kind, OPTIONS.get(kind, {}))
        on = method.attach(model)
    except FtError as e:
        sentence(e)
        assert kind not in ("lora", "vera") or family == "resnet", e
    else:
        assert on.added(), "nothing was wrapped, so the head alone would train"
        train_steps(method, model, batch)
        tuned = model_outputs(model, batch)
        assert tuned.shape == base.shape and not torch.equal(tuned, base)
        try:
            ft.load_delta(fresh, ft.save_delta(model, tmp_path))
        except FtError as e:
            sentence(e)
        else:
            assert torch.allclose(model_outputs(fresh.eval(), batch), tuned, atol=1e-5), (
                "the loaded delta answers differently"
            )
        twin = copy.deepcopy(model)
        try:
            method.merge(twin)
        except FtError as e:
            sentence(e)
            assert torch.equal(model_outputs(twin, batch), tuned), "a merge that was refused changed the model"
        else:
            assert (model_outputs(twin.eval(), batch) - tuned).abs().max() < 1e-3 * tuned.abs().max(), (
                "merged, it answers differently"
            )
        method.detach(model)
    after = snapshot(model)
    assert {n: id(m) for n, m in model.named_modules()} == modules, "another structure is left behind"
    assert after.keys() == before.keys() and all(torch.equal(after[n], t) for n, t in before.items())
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    assert torch.equal(model_outputs(model.eval(), batch), base)


@pytest.mark.parametrize("kind", NO_UPDATES)
def test_what_learns_inputs_is_refused_by_its_name(kind):
    with pytest.raises(FtError) as e:
        ft.Peft(kind)
    sentence(e.value)
    assert kind in str(e.value)


def test_options_are_checked_when_they_are_given():
    assert ft.Peft("vera", {"r": 8}) == ft.Peft("vera", (("r", 8),))
    with pytest.raises(FtError, match="rank_of_it"):
        ft.Peft("vera", {"rank_of_it": 8})
    with pytest.raises(FtError, match="pairs"):
        ft.Peft("vera", ("r", 8))
