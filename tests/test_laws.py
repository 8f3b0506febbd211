"Every law on sums of methods, and what deltas must do beyond the laws."

import pytest
import torch

import ftkit as ft
from ftkit.testing import LAWS, check_method, tiny

SUMS = [
    "lora + bitfit",
    "freeze + lora",
    "lora + prefix + adapter",
    "prompt + ia3",
    "sparse + norm_tuning",
    "adalora + bitfit",
]


@pytest.mark.sweep("method", "law")
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("method", SUMS)
def test_law(method, law):
    model, batch = tiny()
    verdict = check_method(method, model, batch, {law: LAWS[law]})
    assert verdict.ok, verdict


def test_a_delta_opens_with_peft_alone(tmp_path):
    from peft import PeftModel

    model, batch = tiny()
    on = ft.LoRA(r=4).attach(model)
    for p in on.parameters().values():
        p.data += 0.1 * torch.randn_like(p)
    ft.save_delta(model, tmp_path)
    base, _ = tiny()
    batch = {k: v for k, v in batch.items() if k != "labels"}
    assert torch.allclose(
        PeftModel.from_pretrained(base, str(tmp_path)).eval()(**batch).logits, model.eval()(**batch).logits, atol=1e-6
    )


def test_merging_one_of_two_deltas_leaves_the_other():
    model, batch = tiny()
    names = [n for n, _ in model.named_modules()]
    places = {"a": ft.LoRA(on="query,value"), "b": ft.LoRA(on="value,ffn")}
    for name, method in places.items():
        for p in method.attach(model, name).added().values():
            p.data += 0.1 * torch.randn_like(p)
    both = model.eval()(**batch).logits
    with places["b"].off(model, "b"):
        only_a = model(**batch).logits
    assert not torch.allclose(both, only_a, atol=1e-3)
    places["a"].merge(model, "a")
    assert torch.allclose(model(**batch).logits, both, atol=1e-5)
    with places["b"].off(model, "b"):
        assert torch.allclose(model(**batch).logits, only_a, atol=1e-5)
    places["b"].merge(model, "b")
    assert torch.allclose(model(**batch).logits, both, atol=1e-5)
    assert [n for n, _ in model.named_modules()] == names


def test_law_7_refuses_a_run_that_learned_nothing():
    from ftkit.data.reviews import splits
    from ftkit.testing import law_7

    data = splits(train=64, valid=40, difficulty=1)
    run = ft.finetune("bert-mini", data["train"], method="head", valid=data["valid"], steps=1, lr=1e-9, progress=False)
    with pytest.raises(AssertionError, match="learned too little"):
        law_7(run, data["valid"])
