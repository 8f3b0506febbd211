"""What recipes will need, in thirty lines each and by public hooks only: a second model, a delta switched off, a
replaced backward, state that resumes.
"""

import copy

import pytest
import torch
from tiny import bert, flat, gpt, loader, resnet, t5, texts
from torch.nn import functional as F

import ftkit as ft
from ftkit.methods.base import attached
from ftkit.training.learner import Learner


def accuracy(model, ids, labels):
    with torch.no_grad():
        return (model(input_ids=ids).logits.argmax(-1) == labels).float().mean().item()


# ---- DPO: the reference is the policy with its delta off


def sequence_logp(model, ids, decoder=None):
    "Summed log-probability of each sequence under a decoder, or of `decoder` under an encoder-decoder."
    if decoder is None:
        logits, target = model(input_ids=ids).logits[:, :-1], ids[:, 1:]
    else:
        logits, target = model(input_ids=ids, labels=decoder).logits, decoder
    return logits.log_softmax(-1).gather(-1, target[..., None]).squeeze(-1).sum(-1)


def dpo_step(method, beta=0.5, encoder_decoder=False):
    def step(learner, batch):
        model = learner.model

        def pair(k):
            return (batch["prompt"], batch[k]) if encoder_decoder else (torch.cat([batch["prompt"], batch[k]], 1), None)

        with torch.no_grad(), method.disabled(model):
            reference = {k: sequence_logp(model, *pair(k)) for k in ("chosen", "rejected")}
        policy = {k: sequence_logp(model, *pair(k)) for k in ("chosen", "rejected")}
        margin = (policy["chosen"] - reference["chosen"]) - (policy["rejected"] - reference["rejected"])
        learner.state["margin"] = float(margin.detach().mean())
        return {"dpo": (-F.logsigmoid(beta * margin).sum(), len(margin))}

    return step


@pytest.mark.parametrize("make, encoder_decoder", [(gpt, False), (t5, True)])
def test_dpo_prefers_the_chosen_and_leaves_the_reference_alone(make, encoder_decoder):
    model, method = make(), ft.LoRA(r=4)
    base = copy.deepcopy(model).eval()
    method.attach(model)
    prompt, _ = texts(24, 4)
    chosen, rejected = torch.full((24, 3), 10), torch.full((24, 3), 20)
    batches = loader(prompt, chosen, rejected, names=("prompt", "chosen", "rejected"))
    learner = Learner(
        model, batches, dpo_step(method, encoder_decoder=encoder_decoder), method, epochs=6, lr=5e-3, device="cpu"
    ).fit()
    assert learner.history[0]["loss"] == pytest.approx(
        0.6931, abs=1e-3
    )  # log 2: policy and reference are the same at the start
    assert learner.history[-1]["loss"] < 0.4 and learner.state["margin"] > 1
    kw = dict(input_ids=prompt, labels=chosen) if encoder_decoder else dict(input_ids=prompt)
    with torch.no_grad(), method.disabled(model):
        assert torch.equal(model(**kw).logits, base(**kw).logits)


# ---- distillation: a frozen teacher beside the student


@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_distillation_moves_the_student_to_the_teacher_and_nothing_else(family):
    if family == "bert":
        inputs, teacher, student, call = texts(32)[0], bert(3), bert(3), lambda m, x: m(input_ids=x).logits
    else:
        inputs, teacher, student, call = torch.randn(32, 3, 32, 32), resnet(3), resnet(3), lambda m, x: m(x)
    for p in teacher.parameters():
        p.data = p.data + 0.2 * torch.randn_like(p) * p.data.std().nan_to_num(0)
    teacher.requires_grad_(False)
    before = flat(teacher)

    def step(learner, batch):
        with torch.no_grad():
            target = (call(learner.models["teacher"], batch["x"]) / 2).softmax(-1)
        said = (call(learner.models["student"], batch["x"]) / 2).log_softmax(-1)
        return {"kd": (F.kl_div(said, target, reduction="sum") * 4, len(target))}

    learner = Learner(
        {"student": student, "teacher": teacher}, loader(inputs, names=("x",)), step, epochs=15, lr=3e-3, device="cpu"
    ).fit()
    assert learner.history[-1]["loss"] < 0.5 * learner.history[0]["loss"]
    assert torch.equal(flat(teacher), before) and not teacher.training


# ---- EWC: a penalty from a Fisher estimate kept in the state


def test_ewc_keeps_the_first_task_and_its_state_resumes(tmp_path):
    ids, first = texts(48)
    second = 1 - first  # the same words, the opposite answer

    def train(model, labels, steps, penalty=0.0, anchor=None, out=None):
        def step(learner, batch):
            loss = {
                "ce": (
                    F.cross_entropy(model(input_ids=batch["x"]).logits, batch["y"], reduction="sum"),
                    len(batch["y"]),
                )
            }
            if penalty:
                loss["ewc"] = penalty * sum(
                    (learner.state["fisher"][n] * (p - learner.state["anchor"][n]).square()).sum()
                    for n, p in model.named_parameters()
                )
            return loss

        learner = Learner(
            model,
            loader(ids, labels, names=("x", "y")),
            step,
            steps=steps,
            lr=2e-3,
            device="cpu",
            output_dir=out,
            save_steps=5 if out else None,
        )
        if anchor:
            learner.state.update(anchor)
        return learner

    model = bert()
    fisher = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    learner = train(model, first, 60)
    learner.on(
        "after_backward",
        lambda learner: [fisher[n].add_(p.grad.square()) for n, p in model.named_parameters() if p.grad is not None],
    ).fit()
    assert accuracy(model, ids, first) > 0.95
    anchor = {
        "fisher": {n: f / f.max().clamp(min=1e-12) for n, f in fisher.items()},
        "anchor": {n: p.detach().clone() for n, p in model.named_parameters()},
    }
    free, held = copy.deepcopy(model), copy.deepcopy(model)
    train(free, second, 40).fit()
    model = free
    forgotten = accuracy(free, ids, first)
    model = held
    kept_learner = train(held, second, 40, penalty=1e4, anchor=anchor, out=tmp_path).fit()
    assert accuracy(held, ids, first) > forgotten + 0.2
    model = bert()
    again = train(model, second, 40, penalty=1e4, out=tmp_path).resume()
    assert torch.equal(again.state["fisher"]["classifier.weight"], kept_learner.state["fisher"]["classifier.weight"])


# ---- PCGrad: a replaced way from losses to gradients


def pcgrad(learner, losses):
    "Project each loss's gradient off those it conflicts with. Source: Yu et al. 2020."
    grads = [
        torch.autograd.grad(loss, learner.params, retain_graph=True, allow_unused=True) for loss in losses.values()
    ]
    vectors = [
        torch.cat([torch.zeros_like(p).reshape(-1) if g is None else g.reshape(-1) for g, p in zip(gs, learner.params)])
        for gs in grads
    ]
    projected = []
    for i, v in enumerate(vectors):
        w = v.clone()
        for j, other in enumerate(vectors):
            if i != j and (dot := w @ other) < 0:
                w = w - dot / other.square().sum() * other
        projected.append(w)
    at, total = 0, sum(projected)
    for p in learner.params:
        piece = total[at : at + p.numel()].view_as(p)
        p.grad = piece.clone() if p.grad is None else p.grad + piece
        at += p.numel()


def test_pcgrad_removes_the_conflict():
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.data.zero_()
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 1.0]])
    seen = []

    def step(learner, batch):
        return {"a": (-(model(a)).sum(), 1), "b": (-(model(b)).sum(), 1)}

    Learner(
        model,
        loader(torch.zeros(1), names=("x",)),
        step,
        steps=1,
        lr=1e-2,
        max_grad_norm=None,
        device="cpu",
        backward=pcgrad,
    ).on("after_backward", lambda learner: seen.append(model.weight.grad.clone())).fit()
    ga, gb = -a[0], -b[0]
    expected = (ga - (ga @ gb) / (gb @ gb) * gb) + (gb - (gb @ ga) / (ga @ ga) * ga)
    assert ga @ gb < 0 and torch.allclose(seen[0][0], expected)


def test_pcgrad_trains_two_heads_on_a_bert():
    ids, labels = texts(32)
    model = TwoHeads()
    learner = Learner(
        model, loader(ids, labels, names=("x", "y")), two_head_step, epochs=12, lr=3e-3, device="cpu", backward=pcgrad
    ).fit()
    assert learner.history[-1]["loss"] < 0.5 * learner.history[0]["loss"]


# ---- EMA: an event and a state that resumes


def ema(learner, decay=0.9):
    held = learner.state.setdefault("ema", {})
    for n, p in learner.model.named_parameters():
        held[n] = p.detach().clone() if n not in held else held[n].lerp(p.detach(), 1 - decay)


def test_ema_resumes_to_the_same_average(tmp_path):
    ids, labels = texts(32)

    def make(**kw):
        model = bert()

        def step(learner, batch):
            return (
                F.cross_entropy(model(input_ids=batch["x"]).logits, batch["y"], reduction="sum"),
                len(batch["y"]),
            )

        return Learner(model, loader(ids, labels, names=("x", "y")), step, steps=12, lr=1e-3, device="cpu", **kw).on(
            "after_step", ema
        )

    whole = make().fit()
    make(output_dir=tmp_path, save_steps=5).on(
        "after_step", lambda learner: setattr(learner, "stop", learner.step_count == 7)
    ).fit()
    taken_up = make(output_dir=tmp_path).resume()
    assert taken_up.step_count == 5
    taken_up.fit()
    assert all(torch.equal(whole.state["ema"][n], taken_up.state["ema"][n]) for n in whole.state["ema"])
    assert torch.equal(flat(whole.model), flat(taken_up.model))


# ---- two heads on one trunk


class TwoHeads(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = bert().bert
        torch.manual_seed(1)
        self.heads = torch.nn.ModuleDict({"first": torch.nn.Linear(32, 2), "last": torch.nn.Linear(32, 3)})

    def forward(self, ids):
        pooled = self.trunk(input_ids=ids).pooler_output
        return {name: head(pooled) for name, head in self.heads.items()}


def two_head_step(learner, batch):
    out = learner.model(batch["x"])
    return {
        "first": (F.cross_entropy(out["first"], batch["y"], reduction="sum"), len(batch["y"])),
        "last": (F.cross_entropy(out["last"], batch["x"][:, -1] % 3, reduction="sum"), len(batch["y"])),
    }


def test_two_heads_both_learn():
    ids, labels = texts(64)
    model = TwoHeads()
    Learner(
        model, loader(ids, labels, names=("x", "y"), batch_size=16), two_head_step, epochs=20, lr=3e-3, device="cpu"
    ).fit()
    with torch.no_grad():
        out = model(ids)
    assert (out["first"].argmax(-1) == labels).float().mean() > 0.95
    assert (out["last"].argmax(-1) == ids[:, -1] % 3).float().mean() > 0.6


# ---- generation inside the loop


class Rollouts:
    "An endless source of batches that the current model writes itself."

    def __init__(self, model, prompts, length=4):
        self.model, self.prompts, self.length, self.position = model, prompts, length, 0

    def __iter__(self):
        while True:
            self.position += 1
            self.model.eval()
            with torch.no_grad():
                written = self.model.generate(
                    self.prompts, do_sample=True, max_new_tokens=self.length, min_new_tokens=self.length, pad_token_id=0
                )
            self.model.train()
            yield {"ids": written, "reward": (written[:, -self.length :] < 30).float().mean(1)}

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


@pytest.mark.parametrize("make", [gpt, t5])
def test_generation_in_the_loop_raises_the_reward(make):
    model, method = make(), ft.Full()
    method.attach(model)
    prompts, _ = texts(32, 4)
    encoder_decoder = make is t5

    def step(learner, batch):
        advantage = (batch["reward"] - batch["reward"].mean()) / (batch["reward"].std() + 1e-6)
        learner.state.setdefault("rewards", []).append(float(batch["reward"].mean()))
        logp = (
            sequence_logp(model, prompts, batch["ids"][:, 1:].contiguous())
            if encoder_decoder
            else sequence_logp(model, batch["ids"])
        )
        return {"reinforce": (-(advantage * logp).sum(), len(advantage))}

    torch.manual_seed(0)
    learner = Learner(model, Rollouts(model, prompts), step, method, steps=40, lr=1e-2, device="cpu").fit()
    rewards = learner.state["rewards"]
    assert learner.step_count == 40 and sum(rewards[-5:]) / 5 > rewards[0] + 0.3


# ---- accumulation, and counts that differ


@pytest.mark.parametrize("make", [bert, gpt, t5])
def test_four_micro_batches_equal_one_batch_with_uneven_token_counts(make):
    ids, _ = texts(8)
    labels = ids.clone()
    for row in range(8):
        labels[row, 2 + row % 6 :] = -100
    if make is bert:
        labels = labels[:, 0] - 5

    def step(learner, batch):
        if make is bert:
            return F.cross_entropy(learner.model(input_ids=batch["x"]).logits, batch["y"], reduction="sum"), len(
                batch["y"]
            )
        logits = learner.model(
            input_ids=batch["x"], **({"labels": batch["y"].clamp(min=0)} if make is t5 else {})
        ).logits
        return F.cross_entropy(logits.flatten(0, 1), batch["y"].flatten(), reduction="sum", ignore_index=-100), int(
            (batch["y"] != -100).sum()
        )

    def gradient(n):
        seen = []
        Learner(
            make(),
            loader(ids, labels, names=("x", "y"), batch_size=8, gradient_accumulation_steps=n),
            step,
            steps=1,
            device="cpu",
        ).on(
            "after_backward",
            lambda learner: seen.append(torch.cat([p.grad.reshape(-1) for p in learner.params if p.grad is not None])),
        ).fit()
        return seen[0]

    assert torch.allclose(gradient(1), gradient(4), atol=1e-6)


def test_batchnorm_statistics_stay_where_the_trunk_is_frozen():
    model, x, y = resnet(), torch.randn(32, 3, 32, 32), torch.randint(0, 2, (32,))
    before = {n: b.clone() for n, b in model.named_buffers()}
    method = ft.LinearProbe()
    method.attach(model)

    def step(learner, batch):
        return (F.cross_entropy(model(batch["x"]), batch["y"], reduction="sum"), len(batch["y"]))

    Learner(model, loader(x, y, names=("x", "y")), step, method, epochs=2, device="cpu").fit()
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())
    assert attached(model).parameters().keys() == {"fc.weight", "fc.bias"}
