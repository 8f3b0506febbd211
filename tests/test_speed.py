"""What is computed faster is the same thing: packing, accumulation, kernels, the optimiser's state; and memory does
not grow
"""

import gc
import threading

import numpy as np
import psutil
import pytest
import torch
from torch.nn import functional as F

import ftkit as ft
from ftkit.core import ProcessSetting, seed_everything
from ftkit.data.batching import DataLoader, pack
from ftkit.data.encoded import DenseColumn, EncodedDataset, RaggedColumn
from ftkit.models.cpu_kernels import cpu_kernels, trim_heap
from ftkit.tasks.base import evaluate
from ftkit.testing.invariants import tiny_model
from ftkit.training.learner import Learner


def language_model(kind):
    import transformers as t

    seed_everything(0)
    if kind == "gpt2":
        return t.GPT2LMHeadModel(
            t.GPT2Config(
                vocab_size=97,
                n_positions=64,
                n_layer=2,
                n_embd=32,
                n_head=4,
                resid_pdrop=0,
                embd_pdrop=0,
                attn_pdrop=0,
                bos_token_id=1,
                eos_token_id=1,
            )
        )
    size = dict(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**size)),
        "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**size)),
    }[kind]()


def texts(n=24):
    rng = np.random.default_rng(0)
    ids = [rng.integers(3, 97, size=rng.integers(3, 20)).tolist() for _ in range(n)]
    return EncodedDataset({"input_ids": RaggedColumn(ids)})


def targets(ids, known):
    return ids.masked_fill(~known, -100)[:, 1:].reshape(-1)


def next_token_loss(logits, wanted):
    return F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), wanted, reduction="sum", ignore_index=-100)


def unpacked_loss(model, rows, index):
    ids, mask = rows.columns["input_ids"].padded(index)
    return next_token_loss(
        model(input_ids=ids, attention_mask=mask, use_cache=False).logits, targets(ids, mask == 1)
    ), int(mask[:, 1:].sum())


def packed_loss(model, rows, index):
    ids, mask = rows.columns["input_ids"].padded(index)
    position = rows.columns["position"].padded(index)[0]
    wanted = targets(ids, (mask == 1) & (position > 0))
    return next_token_loss(model(input_ids=ids, position_ids=position, use_cache=False).logits, wanted), int(
        (wanted >= 0).sum()
    )


@pytest.mark.parametrize("quick", [False, True], ids=["plain", "kernels"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
def test_packed_rows_have_the_loss_and_the_gradients_of_unpacked_ones(kind, quick):
    model, rows = language_model(kind), texts()
    packed = pack(rows.columns["input_ids"], 32)
    assert len(packed) < len(rows) and packed.lengths.sum() == rows.lengths.sum()
    found = []
    for loss, data in ((unpacked_loss, rows), (packed_loss, packed)):
        model.zero_grad()
        with cpu_kernels(model, "cpu" if quick else "meta"):
            total, count = loss(model, data, np.arange(len(data)))
            total.backward()
        found.append((total.item(), count, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (a, n, plain), (b, m, together) = found
    assert n == m and abs(a - b) < 1e-3
    assert len(plain) == len(together) and all(torch.allclose(x, y, atol=1e-3) for x, y in zip(plain, together))


def test_what_is_packed_wrongly_has_another_loss():
    model, rows = language_model("gpt2"), texts()
    packed = pack(rows.columns["input_ids"], 32)
    everything = np.arange(len(packed))
    ids, mask = packed.columns["input_ids"].padded(everything)
    position = packed.columns["position"].padded(everything)[0]
    with torch.no_grad():
        right = packed_loss(model, packed, np.arange(len(packed)))[0]
        wrong = next_token_loss(
            model(input_ids=ids, attention_mask=mask, use_cache=False).logits,
            targets(ids, (mask == 1) & (position > 0)),
        )
    assert abs(right - wrong) > 1e-2


def trained(accumulate, **options):
    model, rows = language_model("gpt2"), texts(16)

    def collate(rows, index):
        return {"index": torch.as_tensor(index)}

    def step(learner, batch):
        return unpacked_loss(learner.model, rows, batch["index"].numpy())

    learner = Learner(
        model, DataLoader(rows, collate, 8, accumulate), step, epochs=2, lr=1e-3, device="cpu", **options
    ).fit()
    return torch.cat([p.detach().reshape(-1) for p in learner.model.parameters()])


def test_four_micro_batches_of_two_are_one_batch_of_eight_by_tokens():
    assert torch.allclose(trained(1), trained(4), atol=1e-5)


def test_the_eight_bit_optimiser_trains_and_resumes(tmp_path):
    pytest.importorskip("bitsandbytes")

    def model():
        return torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 1))

    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    rows = EncodedDataset({"y": DenseColumn(x[:, 0].numpy())})

    def learner(out=None, **options):
        seed_everything(1)

        def step(learner, b):
            return ((learner.model(b["x"])[:, 0] - b["y"]).square().sum(), len(b["y"]))

        return Learner(
            model(),
            DataLoader(rows, lambda r, i: {"x": x[i], **r.batch(i)}, 16),
            step,
            epochs=4,
            lr=1e-2,
            device="cpu",
            optimizer="adamw8bit",
            output_dir=out,
            **options,
        )

    whole = learner().fit()
    assert whole.history[-1]["loss"] < 0.7 * whole.history[0]["loss"]
    states = [s for s in whole.optimizers["model"].state.values() if "state1" in s]
    assert any(s["state1"].dtype == torch.uint8 for s in states)
    learner(tmp_path).on("after_epoch", lambda learner: setattr(learner, "stop", learner.epoch == 2)).fit()
    again = learner(tmp_path)
    again.resume()
    again.stop = False
    again.fit()
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters()))


def stored(model, batch):
    "Bytes kept for the backward pass, each storage once, parameters aside."
    own, seen = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}, {}

    def note(t):
        if t.untyped_storage().data_ptr() not in own:
            seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        out = model(**batch).logits
    del out
    return sum(seen.values())


def test_lora_keeps_less_than_peft():
    from unittest import mock

    import transformers as t

    import ftkit.methods.lora_linear  # noqa: F401

    seed_everything(0)
    config = t.BertConfig(
        vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256
    )
    batch = dict(input_ids=torch.randint(3, 200, (8, 40)), attention_mask=torch.ones(8, 40, dtype=torch.long))

    def kept(light):
        model = t.BertForSequenceClassification(config)
        with mock.patch(
            "ftkit.methods.lora_linear.use_efficient_lora",
            (lambda m: 0) if not light else ft.methods.lora_linear.use_efficient_lora,
        ):
            ft.LoRA(dropout=0.05).attach(model)
        with cpu_kernels(model, "cpu" if light else "meta"):
            return stored(model.train(), batch)

    ours, theirs = kept(True), kept(False)
    assert ours <= 0.7 * theirs, f"{ours / theirs:.2f}"


def resident():
    gc.collect()
    trim_heap()
    return psutil.Process().memory_info().rss


def labelled(ids, labels):
    tokens = RaggedColumn(ids, mask="attention_mask")
    return EncodedDataset({"input_ids": tokens, "labels": DenseColumn(labels)})


def test_evaluation_does_not_grow_with_the_number_of_batches():
    model, task, rows = small_job()

    def peak(batches):
        part = labelled([[5, 6, 7]] * (4 * batches), np.zeros(4 * batches, np.int64))
        evaluate(model, task, part, batch_size=4)
        return resident()

    peak(10)
    assert peak(1000) - peak(10) < 4e6


def small_job():
    from ftkit.tasks.text_classification import TextClassification

    seed_everything(0)
    return (
        tiny_model(num_labels=2)[0],
        TextClassification(classes=["no", "yes"]),
        labelled([[5, 6, 7, 8]] * 64, np.arange(64) % 2),
    )


def test_a_hundred_refits_leave_no_memory_behind():
    model, task, rows = small_job()

    def refit():
        on = ft.LoRA(r=2).attach(model)
        Learner(
            model,
            DataLoader(rows, task.collate, 32),
            lambda learner, b: task.loss(task.forward(learner.model, b), b),
            on.method,
            steps=2,
            device="cpu",
        ).fit()
        on.method.detach(model)

    for _ in range(10):
        refit()
    before = resident()
    for _ in range(100):
        refit()
    assert resident() < 1.01 * before


def test_jobs_that_are_compared_are_computed_in_one_way_and_none_pays_for_the_question(monkeypatch):
    import time

    from ftkit import api
    from ftkit.speed.execution import ExecutionConfig

    asked, clock, pause = [], time.perf_counter, 1e6
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + pause * len(asked))

    def slow(model, task, batch, precision, device, steps):
        asked.append(steps)  # which the clock takes for a million seconds
        return ExecutionConfig("bf16" if len(asked) > 1 else "fp32", torch.get_num_threads())

    monkeypatch.setattr(api, "autotune", slow)
    found = ft.compare("bert-mini", "reviews", ["bitfit", "linear_probe", "lora"], steps=2)
    assert asked == [1, 2], "the first run, which is thrown away, and the first that counts"
    assert [r["precision"] for r in found.runs] == ["bf16"] * 3
    alone = ft.finetune("bert-mini", "reviews", "bitfit", steps=2, valid=None)
    assert len(asked) == 3 and 0 < alone.resources["seconds"] < pause


def test_a_setting_of_the_process_holds_until_the_last_of_overlapping_blocks_ends():
    value = ["before"]
    setting = ProcessSetting(lambda: value[0], lambda new: value.__setitem__(0, new))
    first, second = setting.set_to("first"), setting.set_to("second")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert value == ["second"]
    second.__exit__(None, None, None)
    assert value == ["before"]


def test_overlapping_fits_in_two_threads_leave_nothing_behind():
    "Kernels are on the layers of the models that train; settings of the process return with the last fit."
    from ftkit.models.cpu_kernels import MALLOC, MATMUL_PRECISION, attention, dropout
    from ftkit.speed.execution import THREADS

    settings = (MALLOC, MATMUL_PRECISION, THREADS)
    before = F.dropout, F.scaled_dot_product_attention, torch.get_num_threads(), torch.get_float32_matmul_precision()
    gates = [threading.Event() for _ in range(3)]
    seen, runs = [], {}

    class First(ft.Callback):
        def before_fit(self, learner):
            gates[0].set()
            assert gates[1].wait(60)  # the second fit has begun

    class Second(ft.Callback):
        def before_fit(self, learner):
            assert gates[0].wait(60)
            gates[1].set()

        def after_step(self, learner):
            assert gates[2].wait(60)  # the first fit has ended
            seen.append((F.dropout, F.scaled_dot_product_attention, *(len(s.values) > 0 for s in settings[2:])))

    def fit(name, callback, precision):
        execution = ft.ExecutionConfig(threads=1, onednn=precision)
        table = {"text": [f"text {i} {i % 2}" for i in range(16)], "label": [i % 2 for i in range(16)]}
        options = dict(steps=3, batch_size=8, valid=None, show_progress=False, cache_features=False, lr=1e-3)
        runs[name] = ft.finetune("bert-mini", table, "full", execution=execution, callbacks=[callback], **options)
        if name == "first":
            gates[2].set()

    threads = [
        threading.Thread(target=fit, args=("first", First(), True)),
        threading.Thread(target=fit, args=("second", Second(), False)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(runs) == 2 and len(seen) == 3
    assert all(d is before[0] and s is before[1] and in_use for d, s, in_use in seen)
    after = F.dropout, F.scaled_dot_product_attention, torch.get_num_threads(), torch.get_float32_matmul_precision()
    assert after == before and dropout is not F.dropout and attention is not F.scaled_dot_product_attention
    assert not any(setting.values for setting in settings)
    assert not any("forward" in vars(m) for run in runs.values() for m in run.model.modules())
