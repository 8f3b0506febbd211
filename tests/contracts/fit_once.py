"Fit a tiny BERT once and write its weights; started alone and by `accelerate launch`."

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
import torch
from tiny import bert, loader, texts
from torch.nn import functional as F

import ftkit as ft
from ftkit.deltas.io import write_tensors
from ftkit.training.learner import Learner

rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
ids, labels = texts(30)  # the last batch is uneven, so that counts matter
model, method = bert(), ft.LoRA(r=4) + ft.BitFit()
torch.manual_seed(3)
method.attach(model)


def step(learner, batch):
    return (
        F.cross_entropy(model(input_ids=batch["x"]).logits, batch["y"], reduction="sum"),
        len(batch["y"]),
    )


learner = Learner(
    model,
    loader(ids, labels, names=("x", "y"), batch_size=7, rank=rank, world=world),
    step,
    method,
    epochs=2,
    lr=1e-3,
    device="cpu",
    output_dir=sys.argv[1] + "-state",
).fit()
if rank == 0:
    write_tensors(
        sys.argv[1],
        {n: p for n, p in model.named_parameters()},
        {"world": str(learner.world), "loss": str(learner.history[-1]["loss"])},
    )
