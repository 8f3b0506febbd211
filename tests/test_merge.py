"""A merge answers as the model with its delta did, or refuses and leaves everything as it was."""

import copy
import warnings

import pytest
import torch
from architectures import from_transformers
from timm.layers import ScaledStdConv2d, StdConv2d
from torch import nn
from torch.nn.utils import parametrizations

import ftkit as ft
from ftkit.core import FtError
from ftkit.deltas.multi import MultiAdapter, merge_weighted
from ftkit.methods.base import canonical
from ftkit.methods.hooks import first_output, try_small_input
from ftkit.testing.invariants import snapshot, tiny_model

TIED = ("gpt2", "bert for masked words", "t5", "bart", "whisper", "opt", "bloom", "gemma", "electra")
IDS = torch.tensor([[5, 8, 30, 41]])


def stir(on, by: float = 0.05):
    "Give what was added values, as training would."
    torch.manual_seed(1)
    for p in on.added().values():
        p.data.add_(by * torch.randn_like(p))


def sharing(model) -> list:
    "Paths of the modules that share a weight with another."
    holders = {}
    for path, m in model.named_modules():
        for p in m._parameters.values():
            if p is not None and p.ndim > 1:
                holders.setdefault(id(p), []).append(path)
    return [path for group in holders.values() if len(group) > 1 for path in group]


def tied_model(name):
    "A tiny model whose word embeddings and head are one table."
    kind = {"electra": "ElectraForMaskedLM"}.get(name)
    if kind is None:
        return from_transformers(name).eval()
    import transformers

    like = from_transformers(name)
    return getattr(transformers, kind)(like.config).eval()


@pytest.mark.sweep("end", least=6)
@pytest.mark.parametrize("end", [0, -1])
@pytest.mark.parametrize("name", TIED)
def test_a_shared_weight_is_parted_when_one_end_of_it_is_merged(name, end, tmp_path, capsys):
    model = tied_model(name)
    paths = sharing(model)
    assert len(paths) > 1, f"{name} is no example: nothing in it is shared"
    on = ft.LoRA(target_modules=f"query,{paths[end]}", r=4).attach(model)
    stir(on)
    given, before = try_small_input(model)
    assert given is not None
    others = {p: model.get_submodule(p).weight.detach().clone() for p in paths if p != paths[end]}
    on.method.merge(model)
    scale = before.abs().max()
    assert (first_output(model, given) - before).abs().max() < 1e-4 * scale
    assert all(torch.equal(model.get_submodule(p).weight, w) for p, w in others.items()), "the other end moved along"
    assert "has its own" in capsys.readouterr().out
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = type(model).from_pretrained(tmp_path).eval()
    assert (first_output(again, given) - before).abs().max() < 1e-4 * scale, (
        "saved and read again, it is tied once more"
    )


def test_other_updates_of_a_shared_weight_are_parted_too():
    "Diff pruning adds to a matrix as LoRA does."
    model, _ = tiny_model("gpt")
    on = ft.DiffPruning(target_modules="embed,ffn", density=0.1).attach(model, steps=0)
    stir(on)
    table = model.lm_head.weight.detach().clone()
    given, before = try_small_input(model)
    on.method.merge(model)
    assert torch.allclose(first_output(model, given), before, atol=1e-5) and torch.equal(model.lm_head.weight, table)


def test_a_sum_of_deltas_leaves_the_other_end_alone(tmp_path):
    base, _ = tiny_model("gpt")
    for i in range(2):
        model = copy.deepcopy(base)
        on = ft.LoRA(target_modules="embed,query", r=2).attach(model)
        stir(on, 0.02 * (i + 1))
        ft.save_delta(model, tmp_path / str(i))
    deltas = MultiAdapter(base, {str(i): tmp_path / str(i) for i in range(2)})
    given, _ = try_small_input(base)
    with deltas.using("1"):
        before = first_output(deltas.model, given)
    table = base.lm_head.weight.detach().clone()
    whole = merge_weighted(deltas, {"0": 0.0, "1": 1.0})
    assert torch.allclose(first_output(whole, given), before, atol=1e-5)
    assert torch.equal(whole.lm_head.weight, table) and whole.config.tie_word_embeddings is False


class Block(nn.Module):
    "A convolution with a norm and an activation."

    def __init__(self, conv):
        super().__init__()
        self.conv, self.norm = conv, nn.BatchNorm2d(conv.out_channels)
        self.mix = nn.Conv2d(conv.out_channels, conv.out_channels, 1)

    def forward(self, x):
        return self.mix(torch.relu(self.norm(self.conv(x))))


class Net(nn.Module):
    "Three blocks and a head."

    def __init__(self, make):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 1)
        self.layers = nn.ModuleList([Block(make()) for _ in range(3)])
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.mean((2, 3)))


CONVS = {
    "weight standardisation": lambda: StdConv2d(8, 8, 3, padding=1),
    "scaled weight standardisation": lambda: ScaledStdConv2d(8, 8, 3, padding=1),
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1)),
    "old weight norm": lambda: nn.utils.weight_norm(nn.Conv2d(8, 8, 3, padding=1)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(8, 8, 3, padding=1)),
}
CONV_METHODS = {
    "lora": ft.LoRA(r=2, target_modules="*.conv"),
    "loha": ft.LoHa(r=2, target_modules="*.conv"),
    "dora": ft.DoRA(r=2, target_modules="*.conv"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("method", CONV_METHODS)
@pytest.mark.parametrize("kind", CONVS)
def test_a_weight_that_its_layer_transforms_is_not_added_to(kind, method):
    model, x = Net(CONVS[kind]).eval(), torch.randn(2, 3, 8, 8)
    try:
        on = CONV_METHODS[method].attach(model)
    except FtError:
        return  # it cannot be put there at all
    stir(on, 0.2)
    with torch.no_grad():
        before, numbers = model(x), snapshot(model)
        try:
            on.method.merge(model)
        except FtError as e:
            assert "conv" in str(e) and "save_delta" in str(e)
            assert all(torch.equal(t, numbers[n]) for n, t in snapshot(model).items()) and not on.merged
        else:
            assert method == "dora" and "norm" not in kind, "only a size may be folded in"
        assert torch.allclose(model(x), before, atol=1e-5)


def test_plain_convolutions_merge():
    model, x = Net(lambda: nn.Conv2d(8, 8, 3, padding=1)).eval(), torch.randn(2, 3, 8, 8)
    on = ft.LoRA(r=2).attach(model)
    stir(on, 0.2)
    with torch.no_grad():
        before = model(x)
        assert torch.allclose(on.method.merge(model)(x), before, atol=1e-5)


def test_a_weight_that_the_model_uses_without_its_layer_is_put_back():
    "SigLIP pools with an attention of torch, which reads the matrix of its output layer and never calls it."
    model = from_transformers("siglip").eval()
    place = next(n for n, _ in model.named_modules() if n.endswith("attention.out_proj") and "head" in n)
    on = ft.LoRA(r=2, target_modules=place).attach(model)
    stir(on, 0.3)
    batch = dict(input_ids=IDS, pixel_values=torch.randn(1, 3, 32, 32))
    with torch.no_grad():
        before = model(**batch).logits_per_image
        numbers = snapshot(model)
        with pytest.raises(FtError, match="undone"):
            on.method.merge(model)
        assert torch.allclose(model(**batch).logits_per_image, before, atol=1e-5) and on.added()
    after = snapshot(model)
    assert after.keys() == numbers.keys() and all(torch.allclose(after[n], t, atol=1e-6) for n, t in numbers.items())


def test_a_sum_that_cannot_be_merged_is_not_merged_in_half():
    model, batch = tiny_model()
    on = (ft.LoRA(r=2) + ft.Adapter(bottleneck_dim=4)).attach(model)
    stir(on)
    numbers, names = snapshot(model), [n for n, _ in model.named_modules()]
    with pytest.raises(FtError, match="cannot be merged"):
        on.method.merge(model)
    assert [n for n, _ in model.named_modules()] == names
    assert all(torch.equal(t, numbers[n]) for n, t in snapshot(model).items())


def test_a_merge_in_bfloat16_is_not_refused_for_its_rounding():
    model, _ = tiny_model("gpt")
    model = model.to(torch.bfloat16)
    on = ft.LoRA(r=4).attach(model)
    stir(on)
    on.method.merge(model)
    assert on.merged and not [n for n, _ in model.named_parameters() if canonical(n) != n]
