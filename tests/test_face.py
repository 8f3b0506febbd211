"The public face: what it promises, what it refuses, and in how many words."

import shutil

import pandas as pd
import pytest
import torch

import ftkit as ft
from ftkit.models.checkpoints import ZOO
from ftkit.testing.invariants import tiny_model

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("one_way")]
FRAME = pd.DataFrame(
    {
        "text": [f"{w} film number {i}" for i in range(30) for w in ("a wonderful", "an awful")],
        "label": ["pos", "neg"] * 30,
    }
)


def one_sentence(e):
    text = str(e.value)
    assert len(text) < 400 and "\n" not in text, text
    return text


def test_names_that_are_not_built_are_not_there():
    for name in ("recommend", "diagnose", "evaluate", "export", "nonsense"):
        with pytest.raises(AttributeError):
            getattr(ft, name)


def test_names_of_the_previous_version_warn_and_work():
    with pytest.warns(FutureWarning, match="'Head' is now 'LinearProbe'"):
        assert ft.Head is ft.LinearProbe
    with pytest.warns(FutureWarning, match="'on' is now 'target_modules'"):
        assert ft.LoRA(on="query") == ft.LoRA(target_modules="query")
    with pytest.warns(FutureWarning, match="'norm_tuning' is now 'ln_tuning'"):
        assert ft.method("norm_tuning") == ft.LNTuning()
    with pytest.raises(ft.FtError, match="given twice"), pytest.warns(FutureWarning):
        ft.LoRA(on="query", target_modules="value")


@pytest.mark.parametrize(
    "kind, wrong",
    [
        (ft.ConfigError, lambda tmp: ft.LoRA(r=0)),
        (ft.ConfigError, lambda tmp: ft.method("lora", rank=4)),
        (ft.ConfigError, lambda tmp: ft.finetune("bert-mini", "reviews", steps=0)),
        (ft.DataError, lambda tmp: ft.finetune("bert-mini", [{"text": "a", "label": "b"}])),
        (ft.DataError, lambda tmp: ft.finetune("bert-mini", tmp / "nowhere.csv")),
        (ft.CheckpointError, lambda tmp: ft.load(tmp)),
        (ft.CheckpointError, lambda tmp: ft.load_run(tmp)),
        (ft.UnsupportedError, lambda tmp: ft.BitFit().attach(tiny_model("t5")[0])),
    ],
)
def test_an_error_says_its_kind(kind, wrong, tmp_path):
    with pytest.raises(kind) as e:
        wrong(tmp_path)
    assert isinstance(e.value, ft.FtError) and isinstance(e.value, ValueError) == (
        kind in (ft.ConfigError, ft.DataError)
    )


def test_methods_by_name_and_by_value_are_one():
    assert ft.method("lora", r=8) == ft.LoRA(r=8) and ft.method("lora + bitfit") == ft.LoRA() + ft.BitFit()
    assert eval(
        repr(ft.LoRA(r=4, target_modules="query,value") + ft.Freeze(num_trainable_blocks=1)),
        vars(ft) | {n: getattr(ft, n) for n in ("LoRA", "Freeze")},
    ) == ft.LoRA(r=4, target_modules="query,value") + ft.Freeze(num_trainable_blocks=1)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: ft.finetune("bert-mimi", FRAME), "Did you mean 'bert-mini'"),
        (lambda: ft.finetune("bert-mini", FRAME, method="lorra"), "Did you mean 'lora'"),
        (lambda: ft.finetune("bert-mini", FRAME, method=ft.LoRA(target_modules="qury")), "It has: query"),
        (lambda: ft.finetune("bert-mini", FRAME, method=ft.LoRA(target_modules="query,valuee")), "'valuee'"),
        (lambda: ft.finetune("bert-mini", FRAME, method=ft.Freeze(num_trainable_blocks=9)), "has 4"),
        (lambda: ft.finetune("bert-mini", FRAME, task="text-clasification"), "text-classification"),
        (lambda: ft.finetune("bert-mini", FRAME, text="txt"), "text, label"),
        (lambda: ft.finetune("bert-mini", FRAME.assign(label="one")), "at least two classes"),
        (lambda: ft.finetune("bert-mini", FRAME.head(0)), "empty|no rows"),
        (lambda: ft.finetune("bert-mini", FRAME, patiense=3), "patience"),
        (
            lambda: ft.finetune("bert-mini", FRAME, lr=1e6, epochs=2, max_grad_norm=None, lr_schedule="constant"),
            "learning rate",
        ),
        (lambda: ft.LoRA(r=0), "rank"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(ft.FtError, match=words) as e:
        call()
    one_sentence(e)


def test_empty_rows_are_counted_and_dropped_only_when_told():
    frame = pd.concat([FRAME, pd.DataFrame({"text": ["", None], "label": ["pos", "neg"]})], ignore_index=True)
    with pytest.raises(ft.FtError, match="drop_invalid=True") as e:
        ft.finetune("bert-mini", frame)
    assert "2" in one_sentence(e)
    assert ft.finetune("bert-mini", frame, drop_invalid=True, steps=1, show_progress=False).inferred.rows == 48


def test_chinese_is_refused_with_an_english_vocabulary():
    frame = pd.DataFrame(
        {
            "text": [f"这部电影真的非常精彩{'好' * i}" for i in range(20)]
            + [f"这部电影真的非常糟糕{'坏' * i}" for i in range(20)],
            "label": [1] * 20 + [0] * 20,
        }
    )
    with pytest.raises(ft.FtError, match="multilingual"):
        ft.finetune("bert-mini", frame)


def test_a_truncated_checkpoint_and_a_folder_that_is_none(tmp_path):
    with pytest.raises(ft.FtError, match="config.json"):
        ft.load(str(tmp_path))
    shutil.copytree(ZOO / "bert_mini", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ft.FtError, match="damaged"):
        ft.load(str(tmp_path / "cut"), task="text-classification", num_labels=2)


def test_a_hub_format_folder_works_with_every_method(tmp_path):
    "Any `save_pretrained` directory: here a BERT with random weights, its pooler missing."
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    BertForMaskedLM(
        BertConfig(
            vocab_size=8192,
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=96,
            max_position_embeddings=64,
        )
    ).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(ZOO / "bert_mini").save_pretrained(tmp_path)
    for name in ("full", "linear_probe", "freeze", "bitfit", "lora"):
        run = ft.finetune(str(tmp_path), FRAME, method=name, steps=3, show_progress=False)
        assert {"bert.pooler.dense", "classifier"} <= set(ft.anatomy(run.model).head), (
            "a newly initialised pooler counts as head"
        )
        saved = run.save(tmp_path / name)
        assert torch.equal(
            torch.tensor(ft.load_run(saved).predict(["a film"]).score), torch.tensor(run.predict(["a film"]).score)
        )


def test_an_interrupt_leaves_a_usable_model():
    class Interrupt(ft.Callback):
        def after_step(self, learner):
            if learner.step_count == 2:
                raise KeyboardInterrupt

    run = ft.finetune("bert-mini", FRAME, steps=10, show_progress=False, callbacks=[Interrupt()])
    assert run.resources["interrupted"] and len(run.history) == 2 and len(run.predict(["a film"])) == 1


def test_tensorboard_gets_the_numbers_of_the_history(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = dict(steps=6, eval_steps=2, eval_on_start=True, show_progress=False)
    run = ft.finetune("bert-mini", FRAME, callbacks=[ft.TensorBoard(tmp_path)], **options)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(run.history.columns) - {"step", "epoch"}
    for name in ("loss", "lr", "valid_accuracy"):
        known = run.history[["step", name]].dropna()
        written = {e.step: e.value for e in events.Scalars(name)}
        assert list(written) == known.step.tolist() and pytest.approx(list(written.values())) == known[name].tolist()


def test_saved_sizes_and_equal_logits_on_a_fresh_base(tmp_path):
    whole = (
        sum(p.numel() for p in ft.load("bert-mini", task="text-classification", num_labels=2).model.parameters()) * 4
    )
    for name in ("lora", "bitfit", "linear_probe"):
        run = ft.finetune("bert-mini", FRAME, method=name, steps=3, show_progress=False)
        run.save(tmp_path / name)
        size = sum(f.stat().st_size for f in (tmp_path / name / "delta").rglob("*") if f.is_file())
        assert size < 0.1 * whole
        fresh = ft.load("bert-mini", task="text-classification", classes=run.inferred.classes, seed=99).model
        ft.load_delta(fresh, tmp_path / name / "delta")
        batch = run.processor(["a fine film"], return_tensors="pt")
        assert torch.equal(fresh.eval()(**batch).logits, run.model(**batch).logits)


def test_random_weights_are_the_same_architecture():
    a, b = (ft.load("bert-mini", task="text-classification", num_labels=2, pretrained=p).model for p in (True, False))
    assert [(n, p.shape) for n, p in a.named_parameters()] == [(n, p.shape) for n, p in b.named_parameters()]
    assert not torch.equal(a.bert.embeddings.word_embeddings.weight, b.bert.embeddings.word_embeddings.weight)
