"Every law on sums of methods, and what deltas must do beyond the laws."

import pytest
import torch

import ftkit as ft
from ftkit.testing.invariants import INVARIANTS, check_method, tiny_model

SUMS = [
    "lora + bitfit",
    "freeze + lora",
    "lora + prefix_tuning + adapter",
    "prompt_tuning + ia3",
    "fish_mask + ln_tuning",
    "adalora + bitfit",
]


@pytest.mark.sweep("method", "check")
@pytest.mark.parametrize("check", INVARIANTS)
@pytest.mark.parametrize("method", SUMS)
def test_law(method, check):
    model, batch = tiny_model()
    verdict = check_method(method, model, batch, {check: INVARIANTS[check]})
    assert verdict.ok, verdict


def test_a_delta_opens_with_peft_alone(tmp_path):
    from peft import PeftModel

    model, batch = tiny_model()
    on = ft.LoRA(r=4).attach(model)
    for p in on.parameters().values():
        p.data += 0.1 * torch.randn_like(p)
    ft.save_delta(model, tmp_path)
    base, _ = tiny_model()
    batch = {k: v for k, v in batch.items() if k != "labels"}
    assert torch.allclose(
        PeftModel.from_pretrained(base, str(tmp_path)).eval()(**batch).logits, model.eval()(**batch).logits, atol=1e-6
    )


def test_merging_one_of_two_deltas_leaves_the_other():
    model, batch = tiny_model()
    names = [n for n, _ in model.named_modules()]
    places = {"a": ft.LoRA(target_modules="query,value"), "b": ft.LoRA(target_modules="value,ffn")}
    for name, method in places.items():
        for p in method.attach(model, name).added().values():
            p.data += 0.1 * torch.randn_like(p)
    both = model.eval()(**batch).logits
    with places["b"].disabled(model, "b"):
        only_a = model(**batch).logits
    assert not torch.allclose(both, only_a, atol=1e-3)
    places["a"].merge(model, "a")
    assert torch.allclose(model(**batch).logits, both, atol=1e-5)
    with places["b"].disabled(model, "b"):
        assert torch.allclose(model(**batch).logits, only_a, atol=1e-5)
    places["b"].merge(model, "b")
    assert torch.allclose(model(**batch).logits, both, atol=1e-5)
    assert [n for n, _ in model.named_modules()] == names


def test_law_7_refuses_a_run_that_learned_nothing():
    from ftkit.datasets.reviews import splits
    from ftkit.testing.invariants import check_learns

    data = splits(train=64, valid=40, difficulty=1)
    run = ft.finetune(
        "bert-mini", data["train"], method="linear_probe", valid=data["valid"], steps=1, lr=1e-9, show_progress=False
    )
    with pytest.raises(AssertionError, match="learned too little"):
        check_learns(run, data["valid"])
