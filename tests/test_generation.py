"""Writing with a method on the model: with and without the cache of keys and values, alone and in company, from
left-padded beginnings.
"""

import pytest
import torch

import ftkit as ft
from ftkit.core import METHODS
from ftkit.models.cpu_kernels import cpu_kernels
from ftkit.models.record import record
from ftkit.tasks.text_generation import TextGeneration
from ftkit.testing.invariants import tiny_model

LONGEST = 6


def leftward(input_ids, attention_mask):
    "The same rows, with their padding at the left."
    gap = attention_mask.shape[1] - attention_mask.sum(1, keepdim=True)
    at = (torch.arange(attention_mask.shape[1]) - gap) % attention_mask.shape[1]
    return {"input_ids": input_ids.gather(1, at), "attention_mask": attention_mask.gather(1, at)}


def stirred(name, family):
    "A tiny model with a method whose parameters are no longer at their start; skips what the method refuses."
    method = ft.method(name)
    model, batch = tiny_model(family, method=method)
    try:
        on = method.attach(model, steps=10)
    except ft.FtError as e:
        pytest.skip(str(e))
    torch.manual_seed(1)
    with torch.no_grad():
        for p in on.parameters().values():
            p += 0.05 * torch.randn_like(p)
    given = {k: batch[k] for k in ("input_ids", "attention_mask")}
    if family == "gpt":
        given = leftward(**given)
    return model.eval(), given


def written(model, given, **how):
    "The ids that a model writes, greedily."
    with torch.no_grad(), cpu_kernels(model):
        out = model.generate(
            **given, max_new_tokens=LONGEST, min_new_tokens=LONGEST, do_sample=False, pad_token_id=0, **how
        )
    return out[:, -LONGEST:]


@pytest.mark.sweep("name", "family")
@pytest.mark.parametrize("family", ["gpt", "t5"])
@pytest.mark.parametrize("name", METHODS)
def test_the_cache_of_keys_changes_nothing(name, family):
    model, given = stirred(name, family)
    assert torch.equal(written(model, given), written(model, given, use_cache=False))


@pytest.mark.sweep("name", "family")
@pytest.mark.parametrize("family", ["gpt", "t5"])
@pytest.mark.parametrize("name", METHODS)
def test_alone_as_in_company(name, family):
    model, given = stirred(name, family)
    together = written(model, given)
    for row in range(len(together)):
        keep = given["attention_mask"][row].bool()
        alone = written(model, {k: v[row : row + 1, keep] for k, v in given.items()})
        assert torch.equal(alone[0], together[row]), f"row {row}"


def test_padding_is_not_the_end():
    "A tokenizer whose padding is its end: the end is still learned, and padding is not."
    tokenizer = ft.load("gpt-mini").processor
    tokenizer.pad_token = tokenizer.eos_token
    task = TextGeneration()
    from datasets import Dataset

    rows = task.encode(Dataset.from_dict({"text": ["a film", "a much longer film than the other one"]}), tokenizer)
    batch = task.collate(rows, [0, 1])
    targets = task.targets(batch)
    assert (targets == tokenizer.eos_token_id).sum() == 2 and batch["count"] == int((targets != -100).sum()) == int(
        rows.lengths.sum()
    ) - 2


@pytest.mark.usefixtures("one_way")
def test_a_language_model_resumes(tmp_path, monkeypatch):
    "A run of another task that was interrupted goes on to the weights it would have had."
    from ftkit.datasets.reviews import reviews
    from ftkit.training.learner import Learner

    ask, fire = (
        dict(method="lora", task="text-generation", steps=6, batch_size=8, seed=0, valid=None, precision="fp32"),
        Learner.fire,
    )

    def stopped(self, event):
        if event == "after_step" and self.step_count == 5:
            raise KeyboardInterrupt
        fire(self, event)

    whole = ft.finetune("gpt-mini", reviews(64, difficulty=1), **ask)
    with monkeypatch.context() as m:
        m.setattr(Learner, "fire", stopped)
        part = ft.finetune("gpt-mini", reviews(64, difficulty=1), output_dir=tmp_path, save_steps=2, **ask)
    assert part.resources["interrupted"] and len(part.history) == 5
    again = ft.resume(tmp_path)
    assert any(not torch.equal(a, b) for a, b in zip(whole.model.parameters(), part.model.parameters()))
    for (n, a), b in zip(whole.model.named_parameters(), again.model.parameters()):
        assert torch.equal(a, b), n


def test_an_untied_head_over_the_vocabulary_is_not_new():
    "A large language model's own head is pretrained: LoRA leaves it alone."
    from transformers import LlamaConfig, LlamaForCausalLM

    from ftkit.models.checkpoints import new_head_parameters

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            tie_word_embeddings=False,
        )
    )
    record(model).new_parameters = tuple(new_head_parameters(model))
    assert record(model).new_parameters == () and not ft.LoRA().attach(model).trained
