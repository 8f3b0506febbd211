"""Options, lengths, folders and settings as people give them: each does what it says, or is refused before anything
is loaded.
"""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

import ftkit as ft
import ftkit.training.learner
from ftkit.core import FtError
from ftkit.data.encoded import RaggedColumn
from ftkit.models.checkpoints import ZOO, load, max_positions
from ftkit.tasks.base import tokenize

WORDS = "a fine film with a warm ending and a cast that shines".split()


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    rows = [(" ".join(rng.permutation(WORDS)) + f" {mark} {i}", mark) for i in range(16) for mark in ("good", "bad")]
    return pd.DataFrame(rows, columns=["text", "label"])


def quick(data, method="linear_probe", checkpoint="bert-mini", **options):
    return ft.finetune(checkpoint, data, method, **{"steps": 1, "batch_size": 8, "show_progress": False, **options})


# ---- numbers

WRONG = [
    dict(steps=0),
    dict(steps=-3),
    dict(steps=1.5),
    dict(steps=float("nan")),
    dict(steps="10"),
    dict(steps=True),
    dict(steps=None, epochs=0),
    dict(steps=None, epochs=-1),
    dict(steps=None, epochs=float("inf")),
    dict(batch_size=0),
    dict(batch_size=2.5),
    dict(gradient_accumulation_steps=0),
    dict(max_length=0),
    dict(seed=-1),
    dict(lr=-1e-3),
    dict(lr=float("nan")),
    dict(eval_every=0),
    dict(early_stopping_patience=0),
    dict(save_steps=-1),
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_numbers_that_mean_nothing_are_refused_before_the_data_is_read(wrong):
    name = next(n for n in wrong if n != "steps" or wrong[n] is not None)
    with pytest.raises(FtError, match=f"{name} must be a"):
        quick("no such file.csv", **wrong)


@pytest.mark.parametrize("steps", [np.int64(2), np.int32(2), 2.0, torch.tensor(2)], ids=lambda s: type(s).__name__)
def test_whole_numbers_of_any_type_are_counts(table, steps, tmp_path):
    run = quick(table, steps=steps, batch_size=np.int64(8), seed=np.int64(1), output_dir=tmp_path / "run")
    assert len(run.history) == 2 and run.spec.training.batch_size == 8
    json.dumps(run.spec.to_dict())


def test_half_an_epoch_is_half_the_batches(table):
    rows = round(0.8 * len(table))
    assert len(quick(table, steps=None, epochs=0.5, batch_size=4).history) == round(0.5 * math.ceil(rows / 4))
    assert len(quick(table, steps=None, epochs=np.float32(1.5), batch_size=rows // 2).history) == 3


def test_a_learning_rate_of_zero_moves_nothing(table):
    before = load("bert-mini", "text-classification", classes=["bad", "good"], seed=0).model.classifier.weight
    run = quick(table, lr=0, steps=2)
    assert torch.equal(run.model.classifier.weight, before)


# ---- lengths


def saved(folder, name="bert_mini", **settings):
    "A bundled checkpoint in a folder of its own, with settings of its tokenizer changed."
    source = ZOO / name
    auto = transformers.AutoModelForSeq2SeqLM if name.startswith("t5") else transformers.AutoModel
    auto.from_pretrained(source).save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    for k, v in settings.items():
        setattr(tokenizer, k, v)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_no_text_is_longer_than_the_model_has_positions(tmp_path, table):
    folder = saved(tmp_path / "m", model_max_length=100_000)
    ck = load(folder, "text-classification", num_labels=2)
    assert ck.processor.model_max_length == max_positions(ck.model) == ck.model.config.max_position_embeddings
    long = table.assign(text=table.text + " and so on" * 400)
    assert quick(long, checkpoint=folder).metrics


def test_roberta_counts_from_behind_its_padding():
    config = transformers.RobertaConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
    )
    assert max_positions(transformers.RobertaModel(config)) == 40 - config.pad_token_id - 1
    config = transformers.T5Config(vocab_size=60, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
    assert max_positions(transformers.T5EncoderModel(config)) == 0, "distances do not end"


def test_a_length_beyond_the_positions_is_refused(table):
    with pytest.raises(FtError, match="max_length=9000 exceeds the positions of bert-mini"):
        quick(table, max_length=9000)
    with pytest.raises(FtError, match="max_new_tokens=9000 exceeds"):
        quick(table[["text"]], "lora", checkpoint="gpt-mini", task="text-generation", max_new_tokens=9000)
    with pytest.raises(FtError, match="12 of them are used"):
        quick(table, ft.PromptTuning(num_virtual_tokens=12), max_length=max_positions(load("bert-mini").model))


@pytest.mark.parametrize("method", ["prompt_tuning", "ptuning", "hard_prompt"])
def test_a_prompt_leaves_room_for_itself(table, method):
    long = table.assign(text=table.text + " and so on" * 400)
    assert quick(long, method, batch_size=2, valid=None).history.loss.notna().all()


def test_a_beginning_keeps_its_end_and_leaves_room_for_what_is_written(table):
    run = quick(table[["text"]], "lora", checkpoint="gpt-mini", task="text-generation", max_new_tokens=5)
    most = max_positions(run.model)
    long = "the soup was good and the room was kind . " * most + "Finally , the garden"
    rows = run.task.encode([long, "short"], run.processor)
    assert rows.lengths[0] == min(512, most - 5) and run.processor.decode(
        rows.columns["input_ids"].flat[: rows.lengths[0]]
    ).endswith("Finally , the garden")
    assert len(run.predict([long, "short"])) == 2


def test_a_target_that_is_cut_has_no_end(table):
    processor = load("t5-mini").processor
    whole, cut = (tokenize(["a fine film with a warm ending"], processor, n, end=True) for n in (None, 4))
    assert whole.flat[-1] == processor.eos_token_id and cut.lengths[0] <= 4 and cut.flat[-1] != processor.eos_token_id


# ---- texts


@pytest.mark.parametrize(
    "name, written",
    [("bert-mini", "[SEP] and [CLS] and [PAD]"), ("gpt-mini", "<|endoftext|>"), ("t5-mini", "</s> <pad>")],
)
def test_special_tokens_in_peoples_texts_are_text(name, written):
    processor = load(name).processor
    plain, with_ = (tokenize([t], processor).flat.tolist() for t in ("a film", f"a film {written} of it"))
    for special in processor.all_special_ids:
        assert with_.count(special) == plain.count(special)


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, pd.NA, pd.NaT], ids=str)
def test_a_missing_text_is_not_a_word(table, missing):
    run = quick(table)
    with pytest.raises(FtError, match="text in row 1 is missing"):
        run.predict(["a film", missing])


def test_half_of_a_character_is_named(table):
    run = quick(table)
    with pytest.raises(FtError, match="row 0 .* surrogate"):
        run.predict(["cut here \ud83d"])
    assert len(run.predict(["whole \U0001f600", "ümlaut", "\u200b"])) == 3


def test_an_empty_beginning_is_refused(table):
    run = quick(table[["text"]], "lora", checkpoint="gpt-mini", task="text-generation")
    with pytest.raises(FtError, match="no tokens for the text in row 1"):
        run.predict(["The film", ""])


def test_a_tokenizer_without_unknown_words(tmp_path, table):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {w: i for i, w in enumerate(["<pad>", *sorted({w for t in table.text for w in t.split()})])}
    inner = Tokenizer(models.WordLevel(words))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>").save_pretrained(tmp_path)
    sizes = dict(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(tmp_path)
    run = quick(table, checkpoint=str(tmp_path))
    assert len(run.predict(["a fine film"])) == 1
    with pytest.raises(FtError, match="no unknown token"):
        run.predict(["an unheard word"])


# ---- folders


def test_a_reused_folder_holds_the_second_run_only(table, tmp_path, monkeypatch):
    first = quick(table, "linear_probe", steps=3, lr=2e-2, output_dir=tmp_path / "run")
    other = table.assign(text=table.text + " again", label=table.label.map({"good": "bad", "bad": "good"}))

    def killed(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("ftkit.training.learner.optimizer_step", killed)
        with pytest.raises(RuntimeError):
            quick(other, "linear_probe", steps=5, lr=1e-3, output_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists() and not (tmp_path / "run" / "delta").exists()
    resumed = ft.resume(tmp_path / "run")
    straight = quick(other, "linear_probe", steps=5, lr=1e-3)
    assert len(resumed.history) == 5 and resumed.metrics == straight.metrics != first.metrics
    assert torch.equal(resumed.model.classifier.weight, straight.model.classifier.weight)


@pytest.mark.parametrize("change", [dict(lr=1e-3), dict(seed=7), dict(steps=9), dict(method="bitfit")], ids=str)
def test_a_state_of_another_run_is_not_taken_up(table, tmp_path, change):
    asked = dict(method="linear_probe", steps=4, lr=2e-2)
    quick(table, output_dir=tmp_path / "a", **asked)
    quick(table, output_dir=tmp_path / "b", **{**asked, **change})
    for file in (tmp_path / "b" / "state").iterdir():
        file.unlink()
    for file in (tmp_path / "a" / "state").iterdir():
        file.rename(tmp_path / "b" / "state" / file.name)
    with pytest.raises(FtError, match="another run"):
        ft.resume(tmp_path / "b")


def test_a_run_whose_base_was_moved_goes_on_from_where_it_is_now(table, tmp_path, monkeypatch):
    from ftkit.models.checkpoints import ZOO

    shutil.copytree(ZOO / "bert_mini", tmp_path / "here")
    asked = dict(method="linear_probe", steps=4, batch_size=4, lr=2e-2, seed=0, show_progress=False, save_steps=2)
    straight = ft.finetune(tmp_path / "here", table, **asked)
    update, count = ftkit.training.learner.optimizer_step, []

    def killed(*args):
        count.append(1)
        if len(count) == 4:
            raise RuntimeError("killed")
        return update(*args)

    with monkeypatch.context() as patched:
        patched.setattr("ftkit.training.learner.optimizer_step", killed)
        with pytest.raises(RuntimeError):
            ft.finetune(tmp_path / "here", table, output_dir=tmp_path / "run", **asked)
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(FtError):
        ft.resume(tmp_path / "run")
    resumed = ft.resume(tmp_path / "run", checkpoint=tmp_path / "there")
    assert torch.equal(resumed.model.classifier.weight, straight.model.classifier.weight)
    assert ft.load_run(tmp_path / "run").spec.checkpoint == str(tmp_path / "there")


# ---- BatchNorm


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [{"image": rng.integers(0, 255, (32, 32, 3)).astype(np.uint8), "label": "ab"[i % 2]} for i in range(21)]


@pytest.mark.parametrize("rows, batch_size", [(17, 16), (17, 4), (5, 2)])
def test_an_epoch_whose_last_batch_would_hold_one_row(images, rows, batch_size):
    run = ft.finetune(
        "resnet-mini",
        images[:rows],
        "full",
        task="image-classification",
        epochs=1,
        batch_size=batch_size,
        valid=None,
        show_progress=False,
    )
    assert run.history.loss.notna().all() and len(run.history) == rows // batch_size


def test_one_row_a_step_with_batchnorm_says_so():
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2
    )
    model = transformers.ResNetForImageClassification(config)
    method = ft.Full()
    method.attach(model)
    pixels = torch.randn(2, 3, 4, 4)  # one place is left in the last stage
    rows = [{"pixel_values": pixels[i : i + 1], "labels": torch.tensor([i])} for i in range(2)]

    class Batches(list):
        def state_dict(self):
            return {}

    learner = ft.Learner(
        model, Batches(rows), lambda learner, batch: learner.model(**batch).loss, method, steps=2, show_progress=False
    )
    with pytest.raises(FtError, match="BatchNorm cannot train on a batch of one example"):
        learner.fit()


# ---- settings for writing


@pytest.mark.parametrize(
    "setting",
    [
        dict(min_length=20),
        dict(forced_eos_token_id=5),
        dict(no_repeat_ngram_size=1),
        dict(suppress_tokens=[1]),
        dict(min_new_tokens=9),
    ],
    ids=str,
)
def test_a_checkpoints_settings_for_writing_do_not_rule_the_tuned_model(tmp_path, setting, capsys):
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(ZOO / "t5_mini")
    plain = load("t5-mini", "text2text-generation")
    for k, v in setting.items():
        setattr(model.generation_config, k, v)
    model.save_pretrained(tmp_path)
    plain.processor.save_pretrained(tmp_path)
    mine = load(str(tmp_path), "text2text-generation")
    ids = plain.processor("a fine film <extra_id_0>", return_tensors="pt").input_ids
    wrote = [m.eval().generate(ids, max_new_tokens=12, do_sample=False) for m in (plain.model, mine.model)]
    assert torch.equal(*wrote)
    assert next(iter(setting)) in capsys.readouterr().out


# ---- metrics, comparisons


@pytest.mark.parametrize(
    "task, checkpoint, metric",
    [("text-classification", "bert-mini", "f1"), ("text-generation", "gpt-mini", "perplexity")],
)
def test_another_metric_decides(table, task, checkpoint, metric):
    data = table if task == "text-classification" else table[["text"]]
    run = quick(data, checkpoint=checkpoint, method="lora", task=task, metric=metric)
    assert run.task.metric == metric and run.task.greater_is_better == (metric == "f1")
    with pytest.raises(FtError, match="There is no metric 'bleu'"):
        quick(data, "lora", checkpoint=checkpoint, task=task, metric="bleu")


def test_a_comparison_goes_on_without_a_method_that_is_refused(table, capsys):
    found = ft.compare(
        "bert-mini",
        table,
        ["linear_probe", ft.VisualPrompt(kind="pixels"), "bitfit"],
        steps=1,
        batch_size=8,
        show_progress=False,
    )
    assert list(found.table.method) == ["LinearProbe()", "BitFit()"]
    ((name, why),) = found.refused.items()
    assert "VisualPrompt" in name and why
    assert why in repr(found) and f"{name} was skipped" in capsys.readouterr().out
    with pytest.raises(FtError):
        ft.compare("bert-mini", table, [ft.VisualPrompt(kind="pixels")], steps=1, show_progress=False)


@pytest.mark.parametrize(
    "seeds, expected", [(np.int64(2), [0, 1]), (range(3, 5), [3, 4]), (np.array([1, 5]), [1, 5])], ids=str
)
def test_seeds_of_any_type(table, seeds, expected):
    found = ft.compare("bert-mini", table, ["linear_probe"], seeds=seeds, steps=1, batch_size=8, show_progress=False)
    assert [r["seed"] for r in found.runs] == expected


def test_rows_stand_at_the_side_that_is_asked():
    rows = RaggedColumn([[5, 6, 7], [8]], pad=0, side="left")
    assert rows.padded([0, 1])[0].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert rows.padded([0, 1], side="right")[0].tolist() == [[5, 6, 7], [8, 0, 0]]
