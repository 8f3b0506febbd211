"The trunk on every kind of model: cut, computed once, entered at the boundary; and an entry for every kind of change."

import re
from contextlib import nullcontext

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers as hf
from torch.nn import functional as F

import ftkit as ft
from ftkit.data.batching import DataLoader
from ftkit.data.encoded import DenseColumn, EncodedDataset, RaggedColumn
from ftkit.methods.base import set_modes
from ftkit.models.cpu_kernels import cpu_kernels
from ftkit.speed.array_store import cache
from ftkit.speed.feature_cache import (
    FILL_BATCH_SIZE,
    CachedTask,
    NotCacheable,
    cache_key,
    cached,
    call_order,
    canonical_order,
    code_key,
    find_frozen_prefix,
    find_units,
    first_trainable,
    frozen_tensors,
    outputs_and_grads,
    replaced,
    verify_equivalence,
)
from ftkit.tasks.base import Task
from ftkit.training.learner import Learner


class Texts(Task):
    "Ten lines of a task on token ids."

    def forward(self, model, batch):
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    def loss(self, outputs, batch):
        return F.cross_entropy(outputs, batch["labels"], reduction="sum"), len(outputs)


class Pictures(Texts):
    "And on pictures."

    def forward(self, model, batch):
        out = model(batch["x"])
        return getattr(out, "logits", out)


def image_rows(n=20, size=64, seed=0):
    rng = np.random.default_rng(seed)
    images = DenseColumn(rng.standard_normal((n, 3, size, size)).astype(np.float32))
    return EncodedDataset({"x": images, "labels": DenseColumn(rng.integers(0, 3, n))})


def text_rows(n=40, seed=0, last=None):
    rng = np.random.default_rng(seed)
    rows = [rng.integers(3, 60, k).tolist() + ([last] if last else []) for k in rng.integers(3, 12, n)]
    ids = RaggedColumn(rows, mask="attention_mask")
    return EncodedDataset({"input_ids": ids, "labels": DenseColumn(rng.integers(0, 3, n))})


small = dict(
    vocab_size=60, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48, num_labels=3
)
t5 = dict(
    vocab_size=60,
    d_model=32,
    d_kv=8,
    d_ff=48,
    num_layers=3,
    num_decoder_layers=3,
    num_heads=4,
    decoder_start_token_id=0,
    pad_token_id=0,
    eos_token_id=1,
    num_labels=3,
    dropout_rate=0.0,
)


class T5Texts(Texts):
    def forward(self, model, batch):
        return model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            decoder_input_ids=batch["input_ids"],
            decoder_attention_mask=batch["attention_mask"],
        ).logits


TEXTS = {
    "bert": (lambda: hf.BertForSequenceClassification(hf.BertConfig(**small)), Texts),
    "distilbert": (
        lambda: hf.DistilBertForSequenceClassification(
            hf.DistilBertConfig(vocab_size=60, dim=32, n_layers=4, n_heads=4, hidden_dim=48, num_labels=3)
        ),
        Texts,
    ),
    "gpt2": (
        lambda: hf.GPT2ForSequenceClassification(
            hf.GPT2Config(
                vocab_size=60,
                n_embd=32,
                n_layer=4,
                n_head=4,
                n_positions=40,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=1,
                num_labels=3,
            )
        ),
        Texts,
    ),
    "llama": (lambda: hf.LlamaForSequenceClassification(hf.LlamaConfig(**small, pad_token_id=0)), Texts),
    "t5": (lambda: hf.T5ForSequenceClassification(hf.T5Config(**t5)), T5Texts),
}
PICTURES = {
    "timm resnet": lambda: timm.create_model("resnet18", num_classes=3),
    "timm vit": lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4, num_classes=3),
    "timm convnext": lambda: timm.create_model("convnext_atto", num_classes=3),
    "torchvision resnet": lambda: torchvision.models.resnet18(num_classes=3),
    "torchvision vit": lambda: torchvision.models.VisionTransformer(64, 16, 4, 4, 32, 48, num_classes=3),
    "transformers vit": lambda: hf.ViTForImageClassification(
        hf.ViTConfig(
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=48,
            image_size=64,
            patch_size=16,
            num_labels=3,
        )
    ),
}
ALL = [*TEXTS, *PICTURES]
NOISE = re.compile(
    r"(key|k_lin|k_proj|c_attn|qkv|in_proj)[._]bias$"
)  # a key's bias cancels in the softmax: its gradient is rounding, which Adam enlarges


def setting(name):
    "A model, a task and rows of a family."
    torch.manual_seed(0)
    if name in TEXTS:
        return TEXTS[name][0](), TEXTS[name][1](), text_rows(last=1 if name == "t5" else None)
    return PICTURES[name](), Pictures(), image_rows()


def trained(name, method, cache_it, shuffle=True, batch_size=8, epochs=2):
    "The trained values after a few epochs, and the task that was used."
    model, task, rows = setting(name)
    method.attach(model)
    set_modes(model)
    if cache_it:
        task = cached(task, model, [(rows, torch.no_grad, "fp32")], insist=True)
    torch.manual_seed(1)
    batches = DataLoader(rows, task.collate, batch_size, shuffle=shuffle)

    def step(learner, batch):
        return task.loss(task.forward(learner.model, batch), batch)

    Learner(model, batches, step, method, epochs=epochs, device="cpu").fit()
    return {n: p.detach().clone() for n, p in model.named_parameters()}, task


@pytest.mark.sweep("name", "method")
@pytest.mark.parametrize(
    "method", [ft.LinearProbe(), ft.Freeze(num_trainable_blocks=1), ft.Freeze(num_trainable_blocks=2)], ids=repr
)
@pytest.mark.parametrize("name", ALL)
def test_cached_training_ends_where_training_does(name, method):
    cache().clear()
    whole, _ = trained(name, method, False)
    fresh, task = trained(name, method, True)
    reused, _ = trained(name, method, True)
    assert isinstance(task, CachedTask) and len(cache().table) == 1
    for n, w in whole.items():
        assert torch.equal(fresh[n], reused[n]), n
        if not NOISE.search(n):
            assert torch.allclose(w, fresh[n], rtol=1e-5, atol=1e-5 * float(w.abs().max())), n


@pytest.mark.sweep(least=4)
@pytest.mark.parametrize("name", ALL)
def test_on_canonical_batches_the_weights_are_equal_bit_for_bit(name):
    ends = [trained(name, ft.Freeze(num_trainable_blocks=1), c, shuffle=False, batch_size=64)[0] for c in (False, True)]
    assert all(torch.equal(w, ends[1][n]) for n, w in ends[0].items())


def test_lora_in_the_upper_blocks():
    whole, cache_it = (trained("bert", ft.LoRA(r=2, layers=(3,)), c)[0] for c in (False, True))
    assert all(torch.allclose(w, cache_it[n], rtol=1e-5, atol=1e-6) for n, w in whole.items())


def attached_setting(method=ft.Freeze(num_trainable_blocks=1), name="bert"):
    "A tiny BERT with a method on it, a task, rows, what trains, and one forward pass."
    model, task, rows = setting(name)
    params = list(method.attach(model).parameters().values())
    set_modes(model)
    return model, task, rows, params, lambda: task.forward(model, task.collate(rows, [0, 1, 2]))


def test_the_proof_refuses_what_is_a_little_off():
    class Lying(CachedTask):
        def collate(self, rows, index):
            batch = super().collate(rows, index)
            return batch | ({"prefix": {k: v + 0.01 for k, v in batch["prefix"].items()}} if "prefix" in batch else {})

    model, task, rows, params, _ = attached_setting()
    batch = task.collate(rows, [0, 1, 2])
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            outputs_and_grads(task, model, params, batch), outputs_and_grads(task, model, params, batch), strict=True
        )
    )
    set_modes(model)
    trunk = find_frozen_prefix(model, task, rows)
    verify_equivalence(CachedTask(task, trunk), rows)
    with pytest.raises(NotCacheable, match="differ"):
        verify_equivalence(Lying(task, trunk), rows)


def test_units_are_done_where_training_begins():
    model, _, _, params, run = attached_setting()
    units, stop = find_units(model, params, run)
    log = call_order(model, run)
    at = first_trainable(log, model, {id(p) for p in params})
    assert (
        log[at] == (stop, True)
        and {(u, False) for u in units} <= set(log[:at])
        and not {(u, True) for u in units} & set(log[at:])
    )


def test_a_replaced_forward_is_put_back_after_an_error():
    model, _, _, _, run = attached_setting()
    before = vars(model.bert.embeddings).get("forward")
    with (
        pytest.raises(ZeroDivisionError),
        replaced(model, ["bert.embeddings"], lambda n, forward: lambda *a, **k: 1 / 0),
    ):
        run()
    assert vars(model.bert.embeddings).get("forward") is before and torch.isfinite(run()).all()


def test_the_key_covers_what_lies_below_and_no_more():
    model, task, rows, _, _ = attached_setting()
    names = [n for n, _ in frozen_tensors(find_frozen_prefix(model, task, rows))]
    assert any("layer.2." in n for n in names) and not any("layer.3." in n or "classifier" in n for n in names)
    assert code_key(Texts.forward).lstrip().startswith("def forward") and len(code_key(type(model))) == 64


def test_where_everything_trains_the_task_stays_as_it_is():
    model, task, rows, _, _ = attached_setting(ft.Full())
    assert cached(task, model, [(rows, torch.no_grad, "fp32")]) is task
    with pytest.raises(ft.FtError, match="every block has trainable parameters"):
        cached(task, model, [(rows, torch.no_grad, "fp32")], insist=True)


def test_with_dropout_on_t5_keeps_its_encoder():
    model, task, rows = (
        hf.T5ForSequenceClassification(hf.T5Config(**{**t5, "dropout_rate": 0.1})),
        T5Texts(),
        text_rows(last=1),
    )
    ft.Freeze(num_trainable_blocks=1).attach(model)
    set_modes(model)
    trunk = find_frozen_prefix(model, task, rows)
    assert trunk.blocks() == 3 and all("encoder" in u for u in trunk.units if ".block." in u)
    assert cached(task, model, [(rows, nullcontext, "fp32")], insist=True).stores


@pytest.mark.parametrize("name", ["bert", "timm resnet", "gpt2"])
def test_what_is_kept_in_16_bits_is_what_autocast_computes(name):
    def outputs(way):
        model, task, rows, _, _ = attached_setting(ft.Freeze(num_trainable_blocks=1), name)

        def context():
            return torch.autocast("cpu", torch.bfloat16)

        if way:
            task = cached(task, model, [(rows, context, "bf16")], insist=True)
        index = canonical_order(rows)[:FILL_BATCH_SIZE]
        with cpu_kernels(model), context(), torch.no_grad():
            return task.forward(model.eval(), task.collate(rows, index))

    plain, kept = outputs(False), outputs(True)
    assert torch.allclose(plain.float(), kept.float(), atol=0.02 * plain.abs().max().item())


def test_t5s_position_bias_crosses():
    model, task, rows = setting("t5")
    ft.Freeze(num_trainable_blocks=2).attach(model)
    set_modes(model)
    shapes = [
        s[0]
        for s in (find_frozen_prefix(model, task, rows).shapes[k] for k in find_frozen_prefix(model, task, rows).across)
    ]
    assert (-1, -2, 32) in shapes and any(s.count(-2) == 2 for s in shapes)


# ---------------------------------------------------------------- never stale: a change of any kind is another entry


def entry(name="bert", method=ft.Freeze(num_trainable_blocks=1), change=None, precision="fp32"):
    "The key of an entry, after a change to the model, the task or the rows."
    model, task, rows = setting(name)
    if change:
        model, task, rows = (
            new if new is not None else old
            for new, old in zip(change(model, task, rows) or (None,) * 3, (model, task, rows))
        )
    method.attach(model)
    set_modes(model)
    return cache_key(find_frozen_prefix(model, task, rows), task, rows, precision)


def weight(name, move):
    "A change to one tensor."

    def change(model, task, rows):
        with torch.no_grad():
            move(model.get_parameter(name))

    return change


def rebuilt(**config):
    "The same weights in a model that is built otherwise."

    def change(model, task, rows):
        other = hf.BertForSequenceClassification(hf.BertConfig(**{**small, **config}))
        other.load_state_dict(model.state_dict())
        return other, None, None

    return change


def data(**kw):
    return lambda model, task, rows: (None, None, text_rows(**kw))


def edited(move):
    "A change to the encoded rows."

    def change(model, task, rows):
        ids, labels = rows.columns.values()
        move(ids, labels)
        ids = RaggedColumn(flat=ids.flat, offsets=ids.offsets, pad=ids.pad, mask=ids.mask)
        return None, None, EncodedDataset({"input_ids": ids, "labels": labels})

    return change


class OtherForward(Texts):
    def forward(self, model, batch):
        return model(input_ids=batch["input_ids"].clone(), attention_mask=batch["attention_mask"]).logits


class OtherCollate(Texts):
    def collate(self, rows, index):
        return dict(super().collate(rows, index))


EMBED, LOW = "bert.embeddings.", "bert.encoder.layer.0."
CHANGES = {
    **{
        f"weight {n}": weight(n, lambda p: p.view(-1)[0].add_(1e-6))
        for n in (
            EMBED + "word_embeddings.weight",
            EMBED + "position_embeddings.weight",
            EMBED + "token_type_embeddings.weight",
            EMBED + "LayerNorm.weight",
            EMBED + "LayerNorm.bias",
            LOW + "attention.self.query.weight",
            LOW + "attention.self.key.bias",
            LOW + "attention.self.value.weight",
            LOW + "attention.output.dense.bias",
            LOW + "attention.output.LayerNorm.weight",
            LOW + "intermediate.dense.weight",
            LOW + "output.dense.weight",
            LOW + "output.LayerNorm.bias",
            "bert.encoder.layer.2.output.dense.weight",
        )
    },
    "weights swapped": weight(LOW + "intermediate.dense.weight", lambda p: p.copy_(p.flip(0))),
    "activation": rebuilt(hidden_act="relu"),
    "norm's epsilon": rebuilt(layer_norm_eps=1e-6),
    "attention function": rebuilt(attn_implementation="eager"),
    "heads": rebuilt(num_attention_heads=2),
    "other rows": data(seed=1),
    "one row less": data(n=39),
    "a token": edited(lambda ids, labels: ids.flat.__setitem__(7, 33)),
    "the padding": edited(lambda ids, labels: setattr(ids, "pad", 1)),
    "a row's end": edited(lambda ids, labels: ids.offsets.__setitem__(3, ids.offsets[3] - 1)),
    "a column": edited(lambda ids, labels: setattr(labels, "values", labels.values[::-1].copy())),
    "the task's forward": lambda model, task, rows: (None, OtherForward(), None),
    "the task's collate": lambda model, task, rows: (None, OtherCollate(), None),
}
OTHERWISE = {
    "blocks trained": dict(method=ft.Freeze(num_trainable_blocks=2)),
    "precision": dict(precision="bf16"),
    "dtype": dict(change=lambda model, task, rows: (model.double(), None, None)),
}


def test_thirty_kinds_of_change_thirty_misses(monkeypatch):
    keys = {n: entry(change=c) for n, c in CHANGES.items()} | {n: entry(**k) for n, k in OTHERWISE.items()}
    same, again = entry(), entry()
    torch.set_num_threads((before := torch.get_num_threads()) + 1)
    keys["threads"] = entry()
    torch.set_num_threads(before)
    monkeypatch.setattr("ftkit.speed.feature_cache.versions", lambda: {"torch": "0"})
    keys["versions"] = entry()
    assert same == again and same not in keys.values()
    assert len(keys) >= 30 and len(set(keys.values())) == len(keys)


def test_pictures_that_nobody_reads_again_are_not_made_into_decimals_again(monkeypatch, tmp_path):
    "From the boundary on the pictures are blank, and the outcome is the same."
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path))
    from ftkit.data import images

    torch.manual_seed(0)
    model, r = timm.create_model("resnet18", num_classes=3), np.random.default_rng(0)
    column = images.ImageColumn(torch.from_numpy(r.integers(0, 255, (20, 3, 64, 64), dtype=np.uint8)))
    rows = EncodedDataset({"x": column, "labels": DenseColumn(r.integers(0, 3, 20))})
    ft.LinearProbe().attach(model)
    set_modes(model)
    task = Pictures()
    found = cached(task, model, [(rows, nullcontext, "fp32")], insist=True)
    whole = task.forward(model.eval(), task.collate(rows, [3, 1, 7]))
    monkeypatch.setattr(images.ImageColumn, "pixels", lambda *a: pytest.fail("made again"))
    assert torch.allclose(found.forward(model, found.collate(rows, [3, 1, 7])), whole, rtol=1e-4, atol=1e-5)
