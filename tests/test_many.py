"Several deltas on one base, on every family: each row of a batch gets the answer of the model that was tuned for it."

import copy

import pytest
import torch

import ftkit as ft
from ftkit.deltas.multi import MultiAdapter, merge_weighted
from ftkit.models.record import record
from ftkit.testing.invariants import FAMILIES, model_outputs, tiny_model

KINDS = {
    "lora": ft.LoRA(r=3),
    "dora": ft.DoRA(r=2),
    "loha": ft.LoHa(r=2),
    "lokr": ft.LoKr(r=2),
    "ia3": ft.IA3(),
    "adapter": ft.Adapter(bottleneck_dim=4),
    "parallel": ft.Adapter(bottleneck_dim=4, placement="parallel"),
}

REFUSED = {
    "gpt": ("loha", "lokr"),
    "resnet": ("ia3",),
}  # peft puts these on bare modules only: Conv1D and filters that LoRA has not wrapped


def stirred(model, method, seed):
    "A model with a method whose parameters are no longer at their start."
    on = method.attach(model, steps=10)
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in on.parameters().values():
            p += 0.05 * torch.randn_like(p)
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_their_own(family, tmp_path):
    base, batch = tiny_model(family)
    alone, folders = {}, {}
    for i, (name, method) in enumerate(KINDS.items()):
        if name in REFUSED.get(family, ()):
            continue
        model = copy.deepcopy(base)
        try:
            stirred(model, method, i)
        except ft.FtError:
            continue
        alone[name], folders[name] = model_outputs(model, batch), ft.save_delta(model, tmp_path / name)
    plain = model_outputs(base, batch)
    deltas = MultiAdapter(base, folders)
    assert len(alone) >= 5
    for name in alone:
        with deltas.using(name) as model:
            assert torch.allclose(model_outputs(model, batch), alone[name], atol=1e-5), name
    names = [list(alone)[(3 * i + 1) % len(alone)] for i in range(len(plain))]
    with deltas.rows(names) as model:
        mixed = model_outputs(model, batch)
    assert torch.allclose(mixed, torch.stack([alone[n][i] for i, n in enumerate(names)]), atol=1e-5)
    assert torch.allclose(model_outputs(base, batch), plain, atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "gpt", "resnet"])
def test_a_weighted_sum(family, tmp_path):
    base, batch = tiny_model(family)
    kinds = {"lora": ft.LoRA(r=3), "other": ft.LoRA(r=2) if family == "gpt" else ft.LoKr(r=2)}
    folders = {
        n: ft.save_delta(stirred(copy.deepcopy(base), m, i), tmp_path / n) for i, (n, m) in enumerate(kinds.items())
    }
    one = copy.deepcopy(base)
    on = ft.load_delta(one, folders["lora"])
    alone = model_outputs(one.eval(), batch)
    same = merge_weighted(MultiAdapter(copy.deepcopy(base), folders), {"lora": 1.0, "other": 0.0})
    assert torch.allclose(model_outputs(same.eval(), batch), alone, atol=1e-4) and on is not None
    half = merge_weighted(MultiAdapter(copy.deepcopy(base), folders), {"lora": 0.5, "other": 0.5})
    assert not record(half).attachments and [n for n, _ in half.named_modules()] == [n for n, _ in base.named_modules()]


def test_what_cannot_share_a_batch_says_so(tmp_path):
    base, batch = tiny_model()
    folders = {
        n: ft.save_delta(stirred(copy.deepcopy(base), m, 0), tmp_path / n)
        for n, m in (("bitfit", ft.BitFit()), ("prompt", ft.PromptTuning(num_virtual_tokens=4)), ("lora", ft.LoRA()))
    }
    deltas = MultiAdapter(base, folders)
    for n in ("bitfit", "prompt"):
        with pytest.raises(ft.FtError, match="using"):
            with deltas.rows([n, "lora"]):
                pass
        with deltas.using(n) as model:
            model_outputs(model, batch)
    with pytest.raises(ft.FtError, match="rows"):
        with deltas.rows(["lora"]) as model:
            model_outputs(model, batch)
    with pytest.raises(ft.FtError, match="lora"):
        deltas.known(["loar"])
