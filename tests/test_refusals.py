"""What people run into with methods, each answered by one clear sentence that names what was wrong, and leaves the
model as it was.
"""

import copy

import pytest

import ftkit as ft
from ftkit.models.record import record
from ftkit.testing.invariants import snapshot, tiny_model

pytestmark = pytest.mark.fast
CASES = {
    "a typo in a selector": ("bert", lambda m: ft.LoRA(target_modules="querry").attach(m), "querry", "query"),
    "half a match": ("bert", lambda m: ft.LoRA(target_modules="query,valuee").attach(m), "valuee", "value"),
    "no such block": ("bert", lambda m: ft.LoRA(layers=(7,)).attach(m), "7", "blocks"),
    "a rank larger than the layer": ("bert", lambda m: ft.LoRA(r=64).attach(m), "64", "32"),
    "a prompt longer than the context": (
        "bert",
        lambda m: ft.PromptTuning(num_virtual_tokens=60).attach(m),
        "60",
        "40",
    ),
    "biases that are not there": ("t5", lambda m: ft.BitFit().attach(m), "bias", "LNTuning"),
    "a prefix without attention": ("resnet", lambda m: ft.PrefixTuning().attach(m), "ResNet", "LoRA"),
    "four bits that were not read": ("bert", lambda m: ft.QLoRA().attach(m), "4 bits", "loading"),
    "a part of a fused matrix": ("gpt", lambda m: ft.Select("query").attach(m), "c_attn", "query"),
    "two of one kind in one place": (
        "bert",
        lambda m: (ft.LoRA(r=8) + ft.LoRA(r=4)).attach(m),
        "already",
        "target_modules=",
    ),
    "two prompts": ("bert", lambda m: (ft.PromptTuning() + ft.PTuning()).attach(m), "already", "prompt"),
    "a part of a sum without a place": (
        "resnet",
        lambda m: (ft.LoRA() + ft.PrefixTuning()).attach(m),
        "ResNet",
        "LoRA",
    ),
    "a name that is taken": ("bert", lambda m: [ft.BitFit().attach(m) for _ in range(2)], "BitFit", "name"),
    "pruning without a schedule": ("bert", lambda m: ft.AdaLoRA().attach(m), "steps", "follow"),
    "pruning after one step": ("bert", lambda m: ft.AdaLoRA().attach(m, steps=1), "at least 2", "LoRA"),
    "singular directions of filters": ("resnet", lambda m: ft.LoRA(init="pissa").attach(m), "PiSSA", "zero"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_and_nothing_changed(name):
    family, wrong, *words = CASES[name]
    model = tiny_model(family)[0]
    before, modules = snapshot(model), [n for n, _ in model.named_modules()]
    flags = [p.requires_grad for p in model.parameters()]
    with pytest.raises(ft.FtError) as e:
        wrong(model)
    said = str(e.value)
    assert all(w in said for w in words) and "\n" not in said and len(said) < 400, said
    if name == "a name that is taken":
        return
    assert [n for n, _ in model.named_modules()] == modules and not record(model).attachments, said
    assert flags == [p.requires_grad for p in model.parameters()]
    assert all((t == snapshot(model)[n]).all() for n, t in before.items())


def test_a_merge_into_four_bits():
    model, _ = tiny_model(method=ft.QLoRA())
    on = ft.QLoRA().attach(model)
    with pytest.raises(ft.FtError, match="4-bit.*any_base"):
        on.method.merge(model)


def test_an_adapter_for_another_base(tmp_path):
    model = tiny_model()[0]
    ft.Adapter().attach(model)
    ft.save_delta(model, tmp_path)
    with pytest.raises(ft.FtError, match="another base"):
        ft.load_delta(tiny_model(seed=1)[0], tmp_path)


def test_a_delta_of_four_bits_opens_on_a_full_base_only_when_asked(tmp_path):
    model, batch = tiny_model(method=ft.QLoRA())
    on = ft.QLoRA(r=2).attach(model)
    for p in on.parameters().values():
        p.data += 0.05
    ft.save_delta(model, tmp_path)
    full = tiny_model()[0]
    with pytest.raises(ft.FtError, match="any_base=True"):
        ft.load_delta(copy.deepcopy(full), tmp_path)
    opened = ft.load_delta(full, tmp_path, any_base=True)
    tuned = model.eval()(**batch).logits
    assert (full.eval()(**batch).logits - tuned).abs().max() < 0.3 * tuned.abs().max()
    assert opened.method.merge(full) is full and not any("lora" in n for n, _ in full.named_modules())
