"""The training loop beside plain PyTorch: schedule, clipping, groups, order, best weights, resuming; small models"""

import itertools

import pytest
import torch
from tiny import bert, loader, resnet, texts
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

import ftkit as ft
from ftkit.core import seed_everything
from ftkit.data.batching import DataLoader
from ftkit.data.encoded import DenseColumn, EncodedDataset
from ftkit.data.splits import DataSpec
from ftkit.runs import Run
from ftkit.tasks.text_classification import TextClassification
from ftkit.training.learner import Learner, lr_multiplier

pytestmark = pytest.mark.fast
X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 9, 24)[:, None]


def squares(learner, batch):
    "Squared outputs of a linear layer: a loss whose gradients differ in size from batch to batch."
    return learner.model(batch["x"]).square().sum(), len(batch["x"])


def linear() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 2)


def classify(learner, batch):
    return F.cross_entropy(learner.model(input_ids=batch["x"]).logits, batch["y"], reduction="sum"), len(batch["y"])


def rows(n: int = 32, **options) -> DataLoader:
    return loader(*texts(n), names=("x", "y"), **options)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_steps_equal_those_of_plain_pytorch(schedule, clip):
    "AdamW with clipping before the step, and transformers' learning rates where they begin above zero."
    from transformers import get_scheduler

    batches = loader(X, names=("x",), batch_size=4, shuffle=False, bucket=False)
    learner = Learner(
        linear(),
        batches,
        squares,
        epochs=2,
        lr=1e-2,
        warmup_steps=3,
        lr_schedule=schedule,
        max_grad_norm=clip,
        weight_decay=0.1,
        device="cpu",
    ).fit()
    model = linear()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    theirs = get_scheduler(name, torch.optim.SGD([torch.zeros(1)], lr=1e-2), 3, 12)
    rates = []
    for step, x in enumerate([*X.split(4)] * 2):
        warming = 1e-2 * (step + 1) / 3  # ours ends at the peak, theirs begins at zero
        rates.append(warming if step < 3 else theirs.get_last_lr()[0])
        optimizer.param_groups[0]["lr"] = rates[-1]
        (model(x).square().sum() / len(x)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip or float("inf"))
        optimizer.step()
        optimizer.zero_grad()
        theirs.optimizer.step()
        theirs.step()
    assert [h["lr"] for h in learner.history] == pytest.approx(rates)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(learner.model.parameters(), model.parameters()))


def test_the_schedule_ends_above_zero_and_reaches_its_peak():
    for kind in ("linear", "cosine", "constant"):
        factors = [lr_multiplier(step, 20, 0.2, kind) for step in range(20)]
        assert factors[:4] == [0.25, 0.5, 0.75, 1.0] and factors[4] == 1.0 and min(factors) > 0


def test_frozen_parameters_stay_bit_for_bit():
    model = bert()
    method = ft.LoRA(r=2)
    on = method.attach(model)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    Learner(model, rows(), classify, method, epochs=1, lr=1e-2, device="cpu").fit()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(on.parameters())


def test_batchnorm_of_a_frozen_backbone_keeps_its_statistics():
    "Also where LoRA trains in every block, so that no module lies below what trains."
    model = resnet()
    method = ft.LoRA(r=2)
    method.attach(model)
    before = {n: b.clone() for n, b in model.named_buffers()}

    def step(learner, batch):
        return (F.cross_entropy(model(batch["x"]), batch["y"], reduction="sum"), len(batch["y"]))

    Learner(
        model,
        loader(torch.randn(16, 3, 32, 32), torch.arange(16) % 2, names=("x", "y")),
        step,
        method,
        epochs=1,
        device="cpu",
    ).fit()
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())


@pytest.mark.parametrize("load_best, at", [(True, 2), (False, 4)])
def test_the_weights_that_are_kept(load_best, at):
    "Those of the best validation, or of the last."
    losses, seen = iter([3.0, 1.0, 2.0, 1.5]), []

    def validate(learner):
        seen.append(learner.model.weight.detach().clone())
        return {"loss": next(losses)}

    batches = loader(X, names=("x",), batch_size=8)
    learner = Learner(
        linear(), batches, squares, epochs=4, lr=1e-2, device="cpu", evaluate=validate, load_best=load_best
    ).fit()
    assert torch.equal(learner.model.weight, seen[at - 1]) and learner.best["metrics"] == {"loss": 1.0}
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(seen, 2))


def test_early_stopping_counts_validations():
    losses = iter([3.0, 1.0, 2.0, 1.5, 0.5])
    batches = loader(X, names=("x",), batch_size=8)
    learner = Learner(
        linear(),
        batches,
        squares,
        epochs=5,
        device="cpu",
        evaluate=lambda learner: {"loss": next(losses)},
        early_stopping_patience=2,
    ).fit()
    assert learner.epoch == 4


def test_weight_decay_spares_biases_and_norms():
    model = bert()
    method = ft.Full()
    on = method.attach(model)
    decay = {id(p): g["weight_decay"] for g in method.param_groups(model, 1e-3, weight_decay=0.1) for p in g["params"]}
    for n, p in on.parameters().items():
        assert decay[id(p)] == (0.0 if n.endswith("bias") or "LayerNorm" in n else 0.1), n
    model = bert()
    scales = ft.IA3()
    on = scales.attach(model)
    decay = {id(p): g["weight_decay"] for g in scales.param_groups(model, 1e-3, weight_decay=0.1) for p in g["params"]}
    assert {decay[id(p)] for n, p in on.added().items()} == {0.0}, "what begins at one is not pulled to zero"


def learning_rates(method, model) -> dict:
    "The learning rate of each trained parameter, by name."
    names = {id(p): n for n, p in method.attach(model).parameters().items()}
    return {names[id(p)]: g["lr"] for g in method.param_groups(model, 1e-3) for p in g["params"]}


def test_every_parameter_has_its_own_learning_rate():
    rates = learning_rates(ft.LoRA(r=2, loraplus_lr_ratio=16.0), bert())
    assert {r for n, r in rates.items() if "lora_A" in n} == {1e-3}
    assert {r for n, r in rates.items() if "lora_B" in n} == {16 * 1e-3}
    rates = learning_rates(ft.LayerwiseLR(layer_decay=0.5, head_lr=None), bert())
    lower, upper = (next(r for n, r in rates.items() if f"layer.{i}." in n) for i in (0, 1))
    assert rates["bert.embeddings.word_embeddings.weight"] == pytest.approx(lower / 2) and lower == pytest.approx(
        upper / 2
    )
    assert rates["classifier.weight"] == pytest.approx(1e-2)
    rates = learning_rates(ft.BitFit(lr=1e-3) + ft.LNTuning(lr=1e-2), bert())
    both = rates["bert.embeddings.LayerNorm.bias"], rates["bert.embeddings.LayerNorm.weight"]
    assert both[0] == both[1] == pytest.approx(10 * rates["bert.encoder.layer.0.output.dense.bias"]), (
        "where two name the same, the larger"
    )


def test_freeze_trains_the_blocks_it_names():
    on = ft.Freeze(num_trainable_blocks=1).attach(bert())
    blocks = {on.anatomy.block_of(n) for n in on.trained}
    assert (
        1 in blocks
        and 0 not in blocks
        and "classifier.weight" in on.trained
        and "bert.embeddings.word_embeddings.weight" not in on.trained
    )
    assert {n for n in on.trained if "layer.1." in n} == {
        n for n, _ in on.anatomy.model.named_parameters() if "layer.1." in n
    }


def test_the_order_of_rows_follows_seed_and_epoch():
    orders = [[tuple(b) for b in rows(seed=s).plan(e)] for s, e in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert orders[0] == orders[1] and orders[0] != orders[2] and orders[0] != orders[3]
    for order in orders:
        assert sorted(i for batch in order for i in batch) == list(range(32))
    shares = [
        DataLoader(EncodedDataset({"row": DenseColumn(range(30))}), lambda rows, index: list(index), 8, rank=r, world=2)
        for r in (0, 1)
    ]
    assert sorted(i for b in shares for step in b for part in step for i in part) == list(range(30))


def dropping() -> BertForSequenceClassification:
    "A BERT with dropout, whose training depends on the state of the generators."
    seed_everything(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=60,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            hidden_dropout_prob=0.3,
            num_labels=2,
        )
    )


def test_resuming_restores_generators_and_the_state_of_the_optimiser(tmp_path):
    def make(**options):
        return Learner(dropping(), rows(), classify, steps=10, lr=1e-2, device="cpu", **options)

    whole = make().fit()
    make(output_dir=tmp_path, save_steps=5).on(
        "after_step", lambda learner: setattr(learner, "stop", learner.step_count == 5)
    ).fit()
    again = make(output_dir=tmp_path)
    again.resume().stop = False
    again.fit()
    assert again.step_count == 10
    for (n, a), b in zip(whole.model.named_parameters(), again.model.parameters()):
        assert torch.equal(a, b), n


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulation_changes_no_gradient(accumulate):
    def gradient(n):
        seen = []
        learner = Learner(bert(), rows(7, batch_size=7, gradient_accumulation_steps=n), classify, steps=1, device="cpu")
        learner.on("after_backward", lambda learner: seen.append([p.grad.clone() for p in learner.params])).fit()
        return seen[0]

    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradient(1), gradient(accumulate)))


class Letters:
    "A tokenizer: one token for each letter."

    model_max_length = 40
    eos_token_id, pad_token_id, unk_token_id = None, 0, None

    def __call__(self, texts, **options):
        return {"input_ids": [[7 + ord(c) % 50 for c in t] for t in texts]}


def test_predictions_come_in_the_order_of_the_input():
    task = TextClassification(classes=["no", "yes"])
    words = ["abcdefgh", "b", "abc", "zz", "abcdefghijk"]
    spec = ft.RunSpec("bert", DataSpec("words"), ft.Full(), ft.Supervised(task))
    run = Run({"model": bert().eval()}, Letters(), spec.recipe, spec, None, {}, {}, [])
    together = list(run.predict(words).score)
    assert together == pytest.approx([run.predict([w]).score[0] for w in words], abs=1e-5) and len(
        set(together)
    ) == len(words)


def test_gradients_of_lora_are_those_of_peft():
    "Our backward pass keeps less; its gradients are the same."
    import peft

    base = bert()
    torch.manual_seed(1)
    theirs = peft.get_peft_model(
        bert(),
        peft.LoraConfig(
            r=4, lora_alpha=12, target_modules=["query", "value"], init_lora_weights=False, task_type="SEQ_CLS"
        ),
    )
    on = ft.LoRA(r=4, alpha=12, target_modules="query,value").attach(base)
    plain = {n.removeprefix("base_model.model."): p for n, p in theirs.named_parameters()}
    with torch.no_grad():
        for n, p in on.added().items():
            p.copy_(plain[n])
    ids, labels = texts(8)
    for model in (base, theirs):
        F.cross_entropy(model(input_ids=ids).logits, labels).backward()
    for n, p in on.added().items():
        assert torch.allclose(p.grad, plain[n].grad, atol=1e-7), n
