"What requires a gradient is what the method trains, whatever a tuner of peft adds beside it."
import warnings

import pytest
import torch

import ftkit as ft
from ftkit.core import FtError
from ftkit.structure import rows
from ftkit.testing import tiny

OPTIONS = {
    "boft": (("boft_block_size", 8),),
    "c3a": (("block_size", 8),),
    "fourierft": (("n_frequency", 20),),
    "oft": (("oft_block_size", 8), ("r", 0)),
    "miss": (("r", 8),),
    "randlora": (("r", 4),),
    "road": (("group_size", 4),),
    "shira": (("r", 4),),
    "vblora": (("vector_length", 8),),
    "vera": (("r", 8), ("save_projection", False)),
    "waveft": (("n_frequency", 20),),
}
TUNERS = ("lora", "loha", "lokr", "ia3", "oft", "boft", "vera", "fourierft", "hra", "vblora", "c3a", "road", "miss", "delora", "randlora", "shira", "waveft", "ln_tuning")


def one_step(method, model, batch):
    "Every parameter that requires a gradient, in an optimiser of one's own; what it moved."
    chosen = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(chosen, lr=0.1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.train()
    model(**batch).loss.backward()
    optimizer.step()
    return {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}


def test_adaloras_count_of_ranks_does_not_train():
    model, batch = tiny()
    method = ft.AdaLoRA()
    on = method.attach(model, steps=10)
    counts = [p for n, p in model.named_parameters() if "ranknum" in n]
    assert len(counts) == len(on.handles[0].ranks()) and not any(p.requires_grad for p in counts)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(on.parameters())
    for r in rows(on.anatomy):
        if r["kind"] == "block": assert 0 < r["trains"] <= r["added"], "no weight of the base is drawn as trained"
    assert one_step(method, model, batch) <= set(on.parameters())


@pytest.mark.parametrize("name", TUNERS)
def test_a_tuner_leaves_nothing_trainable_that_the_method_does_not_train(name):
    model, batch = tiny()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try: on = ft.Peft(name, OPTIONS.get(name, ()), on="norm" if name == "ln_tuning" else "query,value").attach(model)
        except FtError as e: pytest.skip(f"this version of peft has no such tuner: {e}")
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in on.parameters().values()}  # some are shared by layers
    assert on.added() and sum(r["added"] for r in rows(on.anatomy)) >= sum(p.numel() for p in set(on.added().values()))
    assert one_step(on.method, model, batch) <= set(on.parameters())


def test_what_trained_before_trains_again_after_a_method_was_taken_off():
    model, _ = tiny()
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    ft.AdaLoRA().attach(model, steps=10, keep="cpu")
    ft.AdaLoRA().detach(model)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
