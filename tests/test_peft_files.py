"""Deltas go both ways: what is saved here opens with peft alone, and what peft saved opens here, to equal answers."""

import copy
import json
import random
import warnings

import peft
import pytest
import torch
from conftest import SEED
from safetensors.torch import load_file, save_file

import ftkit as ft
from ftkit.models.record import record
from ftkit.testing.invariants import snapshot, tiny_model

warnings.filterwarnings("ignore", category=FutureWarning)
SEQ = dict(task_type="SEQ_CLS")
pytestmark = pytest.mark.fast
OURS = {
    "lora": ft.LoRA(r=4),
    "lora on some": ft.LoRA(r=2, target_modules="query,value"),
    "rslora": ft.LoRA(r=4, use_rslora=True),
    "pissa": ft.LoRA(r=4, init="pissa"),
    "dora": ft.DoRA(r=4),
    "ia3": ft.IA3(),
    "loha": ft.LoHa(r=4),
    "lokr": ft.LoKr(r=4),
    "adalora": ft.AdaLoRA(target_r=2, init_r=4),
    "vera": ft.Peft("vera"),
}
THEIRS = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False, **SEQ),
    "all": lambda: peft.LoraConfig(r=3, lora_alpha=5, target_modules="all-linear", use_rslora=True, **SEQ),
    "regex": lambda: peft.LoraConfig(r=2, target_modules=r".*layer\.[12]\.attention\.self\.query", **SEQ),
    "ranks": lambda: peft.LoraConfig(r=2, target_modules=["query", "value"], rank_pattern={"value": 4}, **SEQ),
    "pissa": lambda: peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights="pissa", **SEQ),
    "dora": lambda: peft.LoraConfig(r=4, target_modules=["query", "value"], use_dora=True, **SEQ),
    "ia3": lambda: peft.IA3Config(
        target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"], **SEQ
    ),
    "loha": lambda: peft.LoHaConfig(r=4, target_modules=["query", "value"], **SEQ),
    "lokr": lambda: peft.LoKrConfig(r=4, target_modules=["query", "value"], **SEQ),
    "adalora": lambda: peft.AdaLoraConfig(
        target_r=2, init_r=4, tinit=2, tfinal=2, deltaT=1, total_step=12, target_modules=["query", "value"], **SEQ
    ),
}


def say(model, batch):
    "Logits in evaluation mode."
    with torch.no_grad():
        return model.eval()(**batch).logits


def stir(params):
    "Give all numbers a small push, so that nothing is zero."
    torch.manual_seed(3)
    with torch.no_grad():
        for p in params:
            p += 0.05 * torch.randn_like(p)


@pytest.mark.parametrize("name", OURS)
def test_ours_open_with_peft(name, tmp_path):
    model, batch = tiny_model()
    base = copy.deepcopy(model)
    on = OURS[name].attach(model, steps=10)
    stir(on.parameters().values())
    ft.save_delta(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path)
    assert torch.allclose(say(theirs, batch), say(model, batch), atol=1e-5)


@pytest.mark.parametrize("name", THEIRS)
def test_theirs_open_here(name, tmp_path):
    base, batch = tiny_model()
    fresh = copy.deepcopy(base)
    made = peft.get_peft_model(base, THEIRS[name]())
    stir(p for p in made.parameters() if p.requires_grad)
    if name == "adalora":
        prune(made, batch)
    made.save_pretrained(tmp_path)
    on = ft.load_delta(fresh, tmp_path)
    assert torch.allclose(say(fresh, batch), say(made, batch), atol=1e-5), on.method
    assert torch.allclose(say(on.method.merge(fresh), batch), say(made, batch), atol=1e-4)


def prune(made, batch):
    "Train AdaLoRA until ranks have fallen."
    optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=1e-2)
    for step in range(1, 13):
        made.train()(**batch).loss.backward()
        optimizer.step()
        made.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    left = [int((p != 0).sum()) for n, p in made.named_parameters() if "lora_E" in n]
    assert sum(left) < 4 * len(left)


def test_a_kind_without_a_place_is_refused(tmp_path):
    model, batch = tiny_model()
    made = peft.get_peft_model(copy.deepcopy(model), THEIRS["lora"]())
    made.save_pretrained(tmp_path)
    gpt = tiny_model("gpt")[0]
    with pytest.raises(ft.FtError, match="query"):
        ft.load_delta(gpt, tmp_path)


LACKING = {
    "half of the layers": lambda k: "layer.0" not in k and "layer.1." not in k,
    "one tensor": lambda k: not k.endswith("layer.1.attention.self.query.lora_B.weight"),
    "every B": lambda k: "lora_B" not in k,
    "everything": lambda k: False,
}


def saved_by_peft(folder, config=None):
    "A base, and what peft saved of an adapter on it."
    base, batch = tiny_model()
    made = peft.get_peft_model(copy.deepcopy(base), config or THEIRS["lora"]())
    stir(p for p in made.parameters() if p.requires_grad)
    made.save_pretrained(folder)
    return base, batch, made


def keep_only(folder, keep):
    "Take tensors out of an adapter's file."
    file = folder / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if keep(k)}, file, {"format": "pt"})


def refused(model, folder, match) -> str:
    "What is said when a delta is not loaded; the model stays as it was."
    before, modules = snapshot(model), [(n, id(m)) for n, m in model.named_modules()]
    with pytest.raises(ft.FtError, match=match) as e:
        ft.load_delta(model, folder)
    assert [(n, id(m)) for n, m in model.named_modules()] == modules and not record(model).attachments
    after = snapshot(model)
    assert after.keys() == before.keys() and all(torch.equal(after[n], t) for n, t in before.items())
    return str(e.value)


@pytest.mark.parametrize("what", LACKING)
def test_a_file_that_lacks_tensors_is_refused_and_they_are_named(what, tmp_path):
    base, _, _ = saved_by_peft(tmp_path)
    keep_only(tmp_path, LACKING[what])
    assert "lora_B" in refused(base, tmp_path, "lacks") or what == "half of the layers"


@pytest.mark.parametrize("name", ["loha", "ia3", "dora"])
def test_other_tuners_files_must_be_complete_too(name, tmp_path):
    base, _, _ = saved_by_peft(tmp_path, THEIRS[name]())
    first = sorted(k for k in load_file(tmp_path / "adapter_model.safetensors") if "layer.2" in k)[0]
    keep_only(tmp_path, lambda k: k != first)
    refused(base, tmp_path, "layer.2")


def test_a_head_that_was_not_saved_is_said(tmp_path):
    base, _, _ = saved_by_peft(tmp_path)
    keep_only(tmp_path, lambda k: "classifier" not in k)
    with pytest.warns(UserWarning, match="Missing in .*classifier.weight"):
        ft.load_delta(base, tmp_path)


def test_tensors_without_a_place_are_named_all_together(tmp_path):
    base, _, _ = saved_by_peft(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file(
        {**load_file(file), "base_model.model.bert.pooler.dense.weight": torch.ones(32, 32), "strange": torch.ones(2)},
        file,
        {"format": "pt"},
    )
    said = refused(base, tmp_path, "no matching parameter")
    assert "pooler.dense.weight (32, 32)" in said and "strange (2,)" in said


CHOSEN = {
    "some layers": dict(target_modules=["query", "value"], layers_to_transform=[1]),
    "all but one": dict(target_modules=["query", "value"], exclude_modules=["layer.0.attention.self.query"]),
    "embeddings too": dict(target_modules=["query", "word_embeddings"]),
    "more modules saved": dict(target_modules=["query"], modules_to_save=["classifier"]),
}


@pytest.mark.parametrize("what", CHOSEN)
def test_modules_are_chosen_as_peft_chooses_them(what, tmp_path):
    base, batch, made = saved_by_peft(tmp_path, peft.LoraConfig(r=2, init_lora_weights=False, **CHOSEN[what], **SEQ))
    ft.load_delta(base, tmp_path)
    assert torch.allclose(say(base, batch), say(made, batch), atol=1e-5)


PROMPTS = {
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, **SEQ),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4, **SEQ),
    "p-tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=8, **SEQ),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_of_peft_are_refused_by_their_kind(name, tmp_path):
    base, _, _ = saved_by_peft(tmp_path, PROMPTS[name]())
    assert "PeftModel.from_pretrained" in refused(base, tmp_path, "TUNING")


def test_pickled_tensors_are_not_read(tmp_path):
    base, _, _ = saved_by_peft(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    refused(base, tmp_path, "pickle")


@pytest.mark.parametrize("family", ["gpt"])
@pytest.mark.parametrize(
    "method",
    [ft.LoHa(r=2), ft.LoKr(r=2), ft.LoKr(r=2, decompose_factor=4, target_modules="query"), ft.LoHa(r=6)],
    ids=repr,
)
def test_what_peft_cannot_put_on_conv1d_opens_there_as_lora(method, family, tmp_path):
    model, batch = tiny_model(family)
    base, fresh = copy.deepcopy(model), copy.deepcopy(model)
    on = method.attach(model)
    stir(on.parameters().values())
    ft.save_delta(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path)
    assert torch.allclose(say(theirs, batch), say(model, batch), atol=1e-4)
    assert type(ft.load_delta(fresh, tmp_path).method) is type(method) and torch.equal(
        say(fresh, batch), say(model, batch)
    )


VALUES = (None, -1, 0, 3, 1e9, "", "x", "../x", [], ["x"], {}, {"x": 1}, True, False)


def mutated(value, rng):
    "JSON with one part of it changed."
    value = copy.deepcopy(value)
    at = value
    while True:
        key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if isinstance(at[key], (dict, list)) and at[key] and rng.random() < 0.6:
            at = at[key]
        else:
            break
    if rng.random() < 0.3:
        del at[key]
    else:
        at[key] = rng.choice(VALUES)
    return value


@pytest.mark.sweep(least=12)
@pytest.mark.parametrize("number", range(120))
def test_damaged_descriptions_are_refused_in_a_sentence(number, tmp_path):
    rng = random.Random(f"{SEED} adapter {number}")
    ours = number % 2
    if ours:
        base, _ = tiny_model()
        model = copy.deepcopy(base)
        ft.LoRA(r=2).attach(model)
        ft.save_delta(model, tmp_path)
    else:
        base, _, _ = saved_by_peft(tmp_path)
    file = tmp_path / ("ftkit.json" if ours else "adapter_config.json")
    changed = mutated(json.loads(file.read_text(encoding="utf-8")), rng)
    file.write_text(json.dumps(changed), encoding="utf-8")
    names = [n for n, _ in base.named_parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ft.load_delta(base, tmp_path)
        except ft.FtError as e:
            assert "\n" not in str(e) and [n for n, _ in base.named_parameters()] == names, (SEED, number, changed)
