"""A package outside of ftkit, as its users write them: registered by entry points (see test_outside.py) and otherwise
unknown to it. A task with two inputs, and recipes with other models, losses, gradients and callbacks of their own.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.nn import functional as F

import ftkit as ft
from ftkit.data.batching import DataLoader
from ftkit.data.encoded import DenseColumn, EncodedDataset, RaggedColumn
from ftkit.data.fields import Field
from ftkit.tasks.base import Task, evaluate, tokenize
from ftkit.tasks.text_regression import RegressionMetrics


@dataclass
class TextSimilarity(Task):
    "How similar two texts are, from 0 to 1: the cosine of their mean token vectors. Each text has lengths of its own."

    bound: tuple[Field, ...] | None = None
    classes: list = field(default_factory=list)
    max_length: int | None = None
    metric: str = "rmse"
    mean, std = 0.0, 1.0  # the metrics are in units of the target
    name = "text-similarity"
    head = "AutoModel"
    problem = "regression"

    def default_fields(self) -> tuple[Field, ...]:
        return Field("first"), Field("second"), Field("similarity", "number", is_input=False)

    def encode(self, data: Any, processor: Any) -> EncodedDataset:
        columns = {}
        for name in ("first", "second"):
            ids = tokenize(self.values(data, name), processor, self.max_length)
            columns[name] = RaggedColumn(flat=ids.flat, offsets=ids.offsets, pad=ids.pad, mask=f"{name}_mask")
        if self.values(data, "similarity") is not None:
            columns["labels"] = DenseColumn(np.asarray(self.values(data, "similarity"), np.float32))
        return EncodedDataset(columns)

    def forward(self, model, batch):
        vectors = []
        for name in ("first", "second"):
            states = model(input_ids=batch[name], attention_mask=batch[f"{name}_mask"]).last_hidden_state
            mask = batch[f"{name}_mask"][..., None]
            vectors.append((states * mask).sum(1) / mask.sum(1))
        return F.cosine_similarity(*vectors)

    def loss(self, outputs, batch):
        return (outputs.float() - batch["labels"]).square().sum(), len(outputs)

    def in_units(self, outputs):
        return outputs.double().cpu().numpy()

    def metrics(self):
        return RegressionMetrics(self)

    def predict(self, outputs):
        return [{"similarity": float(v)} for v in outputs]


@dataclass(frozen=True)
class Distillation(ft.Recipe):
    "A student learns the outputs of a frozen teacher, an earlier run. Source: Hinton et al. 2015."

    teacher: str = ""  # folder of the run
    temperature: float = 2.0
    name = "distillation"

    def build_models(self, checkpoint):
        teacher = ft.load_run(self.teacher).model
        return {"student": checkpoint.model, "teacher": teacher.requires_grad_(False)}

    def training_step(self, learner, batch):
        t = self.temperature
        with torch.no_grad():
            target = (self.task.forward(learner.models["teacher"], batch) / t).softmax(-1)
        said = (self.task.forward(learner.model, batch) / t).log_softmax(-1)
        return {"kd": (F.kl_div(said, target, reduction="sum") * t * t, len(target))}


@dataclass(frozen=True)
class CoTraining(ft.Recipe):
    "Two models that both train and learn from each other, each with its own optimiser. Source: Zhang et al. 2018."

    weight: float = 0.5
    name = "mutual-learning"

    def build_models(self, checkpoint):
        peer = deepcopy(checkpoint.model)
        return {"model": checkpoint.model, "peer": peer}

    def optimizers(self):
        return {"peer": ft.training.optim.OptimizerArgs(lr=1e-4)}

    def training_step(self, learner, batch):
        found, logits = {}, {name: self.task.forward(m, batch) for name, m in learner.models.items()}
        for name, other in (("model", "peer"), ("peer", "model")):
            own, target = logits[name].log_softmax(-1), logits[other].detach().softmax(-1)
            found[name] = self.task.loss(logits[name], batch)
            found[f"{name}_from_{other}"] = (self.weight * F.kl_div(own, target, reduction="sum"), len(own))
        return found


@dataclass(frozen=True)
class DPO(ft.Recipe):
    "Preferences without a reward model; the reference is the model with its method off. Source: Rafailov et al. 2023."

    beta: float = 0.5
    task: Task | str = "text-generation"
    name, metric, greater_is_better = "dpo", "loss", False

    def default_fields(self) -> tuple[Field, ...]:
        return Field("prompt"), *(Field(n, is_input=False) for n in ("chosen", "rejected"))

    def encode(self, data: Any, processor: Any, training: bool = False) -> EncodedDataset:
        columns, prompts = {}, self.values(data, "prompt")
        for name in ("chosen", "rejected"):
            texts = [f"{p} {a}" for p, a in zip(prompts, self.values(data, name))]
            ids = tokenize(texts, processor, 64, side="right")
            columns[name] = RaggedColumn(flat=ids.flat, offsets=ids.offsets, pad=ids.pad, mask=f"{name}_mask")
        return EncodedDataset(columns)

    def collate(self, rows, index):
        return rows.batch(index)

    def logp(self, model, batch, name):
        ids, mask = batch[name], batch[f"{name}_mask"]
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
        return (logits.gather(-1, ids[:, 1:, None]).squeeze(-1) * mask[:, 1:]).sum(-1)

    def margin(self, learner, batch):
        with torch.no_grad(), learner.method.disabled(learner.model):
            reference = self.logp(learner.model, batch, "chosen") - self.logp(learner.model, batch, "rejected")
        return self.logp(learner.model, batch, "chosen") - self.logp(learner.model, batch, "rejected") - reference

    def training_step(self, learner, batch):
        margin = self.margin(learner, batch)
        return {"dpo": (-F.logsigmoid(self.beta * margin).sum(), len(margin))}

    @torch.no_grad()
    def evaluate(self, learner, rows):
        batches = DataLoader(rows, self.collate, 8, shuffle=False)
        margins = torch.cat([self.margin(learner, batch) for (batch,) in batches])
        return {"loss": float(-F.logsigmoid(self.beta * margins).mean()), "margin": float(margins.mean())}


@dataclass(frozen=True)
class EWC(ft.Recipe):
    "Weights that mattered for an earlier task stay near their values. Source: Kirkpatrick et al. 2017."

    previous: str = ""  # a table with the data of the earlier task
    strength: float = 100.0
    name = "ewc"

    def callbacks(self):
        return [Fisher(self)]

    def training_step(self, learner, batch):
        fisher, anchor = learner.state["fisher"], learner.state["anchor"]
        moved = {n: p - anchor[n] for n, p in learner.model.named_parameters() if n in fisher}
        penalty = sum((fisher[n] * d.square()).sum() for n, d in moved.items())
        return {"task": self.task.loss(self.task.forward(learner.model, batch), batch), "ewc": self.strength * penalty}


class Fisher(ft.Callback):
    "Estimates the diagonal Fisher information on the earlier task, once; a resumed run has it in its state."

    def __init__(self, recipe):
        self.recipe = recipe

    def before_fit(self, learner):
        if "fisher" in learner.state:
            return
        task, model = self.recipe.task, learner.model.eval()
        rows = task.encode(Dataset.from_csv(self.recipe.previous), learner.checkpoint.processor)
        params = {n: p for n, p in model.named_parameters() if p.requires_grad}
        fisher = {n: torch.zeros_like(p) for n, p in params.items()}
        for start in range(0, len(rows), 8):
            batch = task.collate(rows, range(start, min(start + 8, len(rows))))
            grads = torch.autograd.grad(task.loss(task.forward(model, batch), batch)[0], [*params.values()])
            for n, g in zip(params, grads):
                fisher[n] += g.square() / len(rows)
        anchor = {n: p.detach().clone() for n, p in params.items()}
        learner.state.update(fisher=fisher, anchor=anchor)


@dataclass(frozen=True)
class PCGrad(ft.Recipe):
    "Gradients of two losses, of even and odd examples, without what conflicts. Source: Yu et al. 2020."

    name = "pcgrad"

    def training_step(self, learner, batch):
        outputs, found = self.task.forward(learner.model, batch), {}
        for name, start in (("even", 0), ("odd", 1)):
            part = {"labels": batch["labels"][start::2]}
            found[name] = self.task.loss(outputs[start::2], part)
        return found

    def backward(self, learner, losses):
        params, grads = learner.params, []
        for loss in losses.values():
            found = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
            grads.append(
                torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(found, params)])
            )
        total = torch.zeros_like(grads[0])
        for i, own in enumerate(grads):
            for j, other in enumerate(grads):
                dot = own @ other
                own = own - dot / other.square().sum() * other if i != j and dot < 0 else own
            total += own
        for p, piece in zip(params, total.split([p.numel() for p in params])):
            p.grad = piece.view_as(p) if p.grad is None else p.grad + piece.view_as(p)


@dataclass(frozen=True)
class EMA(ft.Recipe):
    "Evaluation by an exponential moving average of the weights. Source: Polyak and Juditsky 1992."

    decay: float = 0.8
    name = "ema"

    def training_step(self, learner, batch):
        return self.task.loss(self.task.forward(learner.model, batch), batch)

    def callbacks(self):
        return [Average(self.decay)]

    def evaluate(self, learner, rows):
        averaged = deepcopy(learner.model)
        averaged.load_state_dict(learner.state.get("ema", {}), strict=False)
        return evaluate(averaged, self.task, rows, device=learner.device)


class Average(ft.Callback):
    def __init__(self, decay):
        self.decay = decay

    def after_step(self, learner):
        held = learner.state.setdefault("ema", {})
        for n, p in learner.model.named_parameters():
            held[n] = held[n].lerp(p.detach(), 1 - self.decay) if n in held else p.detach().clone()


@dataclass(frozen=True)
class Reinforce(ft.Recipe):
    "The model writes in the loop, and what is rewarded becomes more likely. Source: Williams 1992."

    length: int = 4  # tokens to write
    task: Task | str = "text-generation"
    name, metric, greater_is_better = "reinforce", "reward", True

    def rollout(self, model, batch):
        "Written ids, and the fraction of them in the first quarter of the vocabulary."
        options = dict(do_sample=True, max_new_tokens=self.length, min_new_tokens=self.length, pad_token_id=0)
        training = model.training
        with torch.no_grad():
            ids = model.eval().generate(batch["input_ids"], attention_mask=batch["attention_mask"], **options)
        model.train(training)
        return ids, (ids[:, -self.length :] < model.config.vocab_size // 4).float().mean(1)

    def training_step(self, learner, batch):
        ids, reward = self.rollout(learner.model, batch)
        learner.log({"reward": float(reward.mean())})
        advantage = (reward - reward.mean()) / (reward.std() + 1e-6)
        logp = learner.model(input_ids=ids).logits[:, -self.length - 1 : -1].log_softmax(-1)
        logp = logp.gather(-1, ids[:, -self.length :, None]).squeeze(-1).sum(-1)
        return {"reinforce": (-(advantage * logp).sum(), len(ids))}

    def evaluate(self, learner, rows):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            rewards = [self.rollout(learner.model, b)[1] for (b,) in DataLoader(rows, self.collate, 8, shuffle=False)]
        return {"reward": float(torch.cat(rewards).mean())}


POINTS = {
    "ftkit.tasks": {"text-similarity": TextSimilarity},
    "ftkit.recipes": {r.name: r for r in (Distillation, CoTraining, DPO, EWC, PCGrad, EMA, Reinforce)},
}


def install(folder: Path):
    "Write this package and its metadata, as an installer does, into a folder of `sys.path`."
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ftkit_outside.py").write_text(Path(__file__).read_text())
    info = folder / "ftkit_outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ftkit-outside\nVersion: 1.0\n")
    lines = []
    for group, points in POINTS.items():
        lines += [f"[{group}]", *(f"{name} = ftkit_outside:{kind.__name__}" for name, kind in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
