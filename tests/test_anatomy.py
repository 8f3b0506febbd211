"Blocks in order, roles complete and the head found, on architectures of transformers, timm and torchvision, and on plain modules."
import pytest
import torch
from torch import nn
from architectures import TIMM, TORCHVISION, TRANSFORMERS, from_timm, from_torchvision, from_transformers
from ftkit.structure import anatomy, linear, over_vocabulary, own_parameters


def all_in_place(model, blocks, head):
    "What must hold of every cut, and the cut."
    cut = anatomy(model)
    names = [n for n, _ in model.named_modules()]
    assert len(cut.blocks) == blocks, cut.blocks
    assert cut.head == head
    assert [names.index(b) for b in cut.blocks] == sorted(names.index(b) for b in cut.blocks)
    assert not any(a != b and a.startswith(b + ".") for a in cut.blocks for b in cut.blocks)
    for name, m in model.named_modules():  # every matrix, convolution and norm of a block plays a role
        if cut.block_of(name) is None or not own_parameters(m): continue
        if linear(m) or isinstance(m, nn.modules.conv._ConvNd) or "norm" in type(m).__name__.lower(): assert any(name in paths for paths in cut.roles.values()), name
    return cut


@pytest.mark.sweep(least=16)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name):
    *_, blocks, attentions, head = TRANSFORMERS[name]
    model = from_transformers(name)
    cut = all_in_place(model, blocks, head)
    inside = sum(isinstance(m, nn.MultiheadAttention) for m in model.modules())  # holds its output projection itself
    for role in ("query", "key", "value") if attentions else (): assert len(cut.roles[role]) >= attentions, role
    assert len(cut.roles.get("query", [])) == attentions and len(cut.roles.get("output", [])) >= attentions - inside
    if "ffn" in cut.roles: assert {cut.block_of(p) for p in cut.roles["ffn"]} == set(range(blocks))
    assert cut.roles["norm"] and (cut.roles.get("embed") or cut.roles.get("conv"))


@pytest.mark.sweep(least=6)
@pytest.mark.parametrize("name", TIMM)
def test_timm(name): all_in_place(from_timm(name), *TIMM[name])


@pytest.mark.sweep(least=3)
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name): all_in_place(from_torchvision(name), *TORCHVISION[name])


def test_how_many(): assert len(TRANSFORMERS) >= 45 and len(TIMM) >= 20 and len(TORCHVISION) >= 6
