"""Blocks in order, roles complete and the head found, on architectures of transformers, timm and torchvision, and on
plain modules.
"""

from collections import Counter

import pytest
import timm
import torch
import transformers
from architectures import (
    IMAGE,
    PAIR,
    T5,
    TEXT,
    TIMM,
    TORCHVISION,
    TRANSFORMERS,
    from_timm,
    from_torchvision,
    from_transformers,
)
from torch import nn

import ftkit as ft
from ftkit.models.anatomy import anatomy, has_direct_parameters, is_linear
from ftkit.testing.invariants import check_method


def all_in_place(model, blocks, head):
    "What must hold of every cut, and the cut."
    cut = anatomy(model)
    names = [n for n, _ in model.named_modules()]
    assert len(cut.blocks) == blocks, cut.blocks
    assert cut.head == head
    assert [names.index(b) for b in cut.blocks] == sorted(names.index(b) for b in cut.blocks)
    assert not any(a != b and a.startswith(b + ".") for a in cut.blocks for b in cut.blocks)
    for name, m in model.named_modules():  # every matrix, convolution and norm of a block plays a role
        if cut.block_of(name) is None or not has_direct_parameters(m):
            continue
        if is_linear(m) or isinstance(m, nn.modules.conv._ConvNd) or "norm" in type(m).__name__.lower():
            assert any(name in paths for paths in cut.roles.values()), name
    return cut


@pytest.mark.sweep(least=16)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name):
    *_, blocks, attentions, head = TRANSFORMERS[name]
    model = from_transformers(name)
    cut = all_in_place(model, blocks, head)
    inside = sum(isinstance(m, nn.MultiheadAttention) for m in model.modules())  # holds its output projection itself
    for role in ("query", "key", "value") if attentions else ():
        assert len(cut.roles[role]) >= attentions, role
    assert len(cut.roles.get("query", [])) == attentions and len(cut.roles.get("output", [])) >= attentions - inside
    if "ffn" in cut.roles:
        assert {cut.block_of(p) for p in cut.roles["ffn"]} == set(range(blocks))
    assert cut.roles["norm"] and (cut.roles.get("embed") or cut.roles.get("conv"))


@pytest.mark.parametrize(
    "name",
    [
        "qwen3",
        "qwen3 with experts",
        "olmo2",
        "gemma2",
        "cohere",
        "stablelm",
        "llama",
        "bert",
        "roberta",
        "gpt2",
        "t5",
        "bart",
        "vit",
        "dinov2",
        "whisper",
    ],
)
def test_the_width_is_the_hidden_size(name):
    """A learning rate that is scaled by the width must not follow norms of queries and keys, which are as long as a
    head.
    """
    assert anatomy(from_transformers(name)).width == 32


@pytest.mark.sweep(least=6)
@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    all_in_place(from_timm(name), *TIMM[name])


@pytest.mark.sweep(least=3)
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    all_in_place(from_torchvision(name), *TORCHVISION[name])


def test_how_many():
    assert len(TRANSFORMERS) >= 45 and len(TIMM) >= 20 and len(TORCHVISION) >= 6


SINGLE = {  # a block that stands alone: the class, its options, and the blocks
    "bert": ("BertForSequenceClassification", dict(TEXT, num_hidden_layers=1), ["bert.encoder.layer.0"]),
    "distilbert": (
        "DistilBertForSequenceClassification",
        dict(vocab_size=60, dim=32, n_layers=1, n_heads=4, hidden_dim=48),
        ["distilbert.transformer.layer.0"],
    ),
    "gpt2": ("GPT2LMHeadModel", dict(vocab_size=60, n_embd=32, n_layer=1, n_head=4), ["transformer.h.0"]),
    "llama": ("LlamaForCausalLM", dict(TEXT, num_hidden_layers=1), ["model.layers.0"]),
    "mixtral": (
        "MixtralForCausalLM",
        dict(TEXT, num_hidden_layers=1, num_key_value_heads=2, num_local_experts=4),
        ["model.layers.0"],
    ),
    "t5": (
        "T5ForConditionalGeneration",
        dict(T5, num_layers=1, num_decoder_layers=1),
        ["encoder.block.0", "decoder.block.0"],
    ),
    "t5 with one layer below": (
        "T5ForConditionalGeneration",
        dict(T5, num_layers=1, num_decoder_layers=2),
        ["encoder.block.0", "decoder.block.0", "decoder.block.1"],
    ),
    "bart": (
        "BartForConditionalGeneration",
        dict(PAIR, encoder_layers=1, decoder_layers=1),
        ["model.encoder.layers.0", "model.decoder.layers.0"],
    ),
    "vit": ("ViTForImageClassification", dict(IMAGE, num_hidden_layers=1), None),
    "clip": (
        "CLIPModel",
        dict(text_config=dict(TEXT, num_hidden_layers=1), vision_config=dict(IMAGE, num_hidden_layers=1)),
        ["text_model.encoder.layers.0", "vision_model.encoder.layers.0"],
    ),
    "swin": (
        "SwinForImageClassification",
        dict(image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 4], window_size=4),
        ["swin.encoder.layers.0.blocks.0", "swin.encoder.layers.1.blocks.0"],
    ),
    "deberta": ("DebertaV2ForSequenceClassification", dict(TEXT, num_hidden_layers=1), ["deberta.encoder.layer.0"]),
    "mobilebert": (
        "MobileBertForSequenceClassification",
        dict(TEXT, num_hidden_layers=1, true_hidden_size=32, intra_bottleneck_size=16, embedding_size=16),
        ["mobilebert.encoder.layer.0"],
    ),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_layer_is_one_block(name):
    kind, options, blocks = SINGLE[name]
    kind = getattr(transformers, kind)
    cut = anatomy(kind(kind.config_class(**options)))
    assert cut.repeats == {} and (cut.blocks == blocks if blocks else len(cut.blocks) == 1), cut.blocks
    if name != "swin":
        assert {cut.block_of(p) for p in cut.roles["query"]} == set(range(len(cut.blocks)))


def albert(**options):
    options = dict(TEXT, embedding_size=16, num_hidden_layers=4) | options
    torch.manual_seed(0)
    return transformers.AlbertForSequenceClassification(transformers.AlbertConfig(**options)).eval()


ROW = "albert.encoder.albert_layer_groups.{}.albert_layers.{}"


@pytest.mark.parametrize(
    "options, blocks",
    [
        (dict(num_hidden_layers=1), {(0, 0): 1}),
        (dict(), {(0, 0): 4}),
        (dict(num_hidden_layers=12), {(0, 0): 12}),
        (dict(num_hidden_groups=2), {(0, 0): 2, (1, 0): 2}),
        (dict(num_hidden_groups=4), {(i, 0): 1 for i in range(4)}),
        (dict(num_hidden_layers=5, num_hidden_groups=2), {(0, 0): 3, (1, 0): 2}),
        (dict(inner_group_num=2), {(0, 0): 4, (0, 1): 4}),
        (dict(num_hidden_groups=2, inner_group_num=2), {(g, i): 2 for g in range(2) for i in range(2)}),
    ],
)
def test_albert_is_cut_into_the_layers_it_has_and_counts_their_uses(options, blocks):
    model, calls = albert(**options), Counter()
    cut = anatomy(model)
    assert cut.blocks == [ROW.format(*b) for b in blocks] and cut.head == ["classifier"]
    assert cut.repeats == {ROW.format(*b): n for b, n in blocks.items() if n > 1}
    for b in cut.blocks:
        model.get_submodule(b).register_forward_hook(lambda *_, b=b: calls.update([b]))
    model(torch.arange(6)[None])
    assert calls == {ROW.format(*b): n for b, n in blocks.items()}
    assert "embedding_hidden_mapping_in" in " ".join(cut.stem) and ("same weights" in repr(cut)) == bool(cut.repeats)


SHARED = {  # other families whose layers are used again: the class, its options, an input, and how often
    "funnel": (
        "FunnelForSequenceClassification",
        dict(vocab_size=60, block_sizes=[1, 2], block_repeats=[1, 2], d_model=32, n_head=4, d_head=8, d_inner=48),
        torch.arange(3, 11)[None],
        [1, 2, 2],
    ),
    "perceiver": (
        "PerceiverForImageClassificationLearned",
        dict(
            num_latents=8,
            d_latents=32,
            num_blocks=3,
            num_self_attends_per_block=2,
            num_self_attention_heads=4,
            num_cross_attention_heads=4,
            image_size=32,
        ),
        torch.randn(1, 3, 32, 32),
        [1, 3, 3, 1],
    ),
}


@pytest.mark.parametrize("name", SHARED)
def test_other_families_that_use_layers_again(name):
    kind, options, x, uses = SHARED[name]
    kind = getattr(transformers, kind)
    model, calls = kind(kind.config_class(**options)).eval(), Counter()
    cut = anatomy(model)
    for b in cut.blocks:
        model.get_submodule(b).register_forward_hook(lambda *_, b=b: calls.update([b]))
    model(x)
    assert [cut.repeats.get(b, 1) for b in cut.blocks] == [calls[b] for b in cut.blocks] == uses


class Looped(nn.Module):
    "One block, listed six times."

    def __init__(self):
        super().__init__()
        block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.embed, self.layers, self.head = nn.Linear(8, 16), nn.ModuleList([block] * 6), nn.Linear(16, 2)


class Alone(nn.Module):
    "One block behind another module."

    def __init__(self, container):
        super().__init__()
        self.embed, self.layers, self.head = (
            nn.Linear(8, 16),
            container(nn.TransformerEncoderLayer(16, 2, 32)),
            nn.Linear(16, 2),
        )


def test_plain_modules_with_one_block():
    cut = anatomy(Looped())
    assert cut.blocks == ["layers.0"] and cut.repeats == {"layers.0": 6} and cut.head == ["head"]
    for container in (lambda m: nn.ModuleList([m]), nn.Sequential):
        cut = anatomy(Alone(container))
        assert cut.blocks == ["layers.0"] and cut.repeats == {} and cut.head == ["head"]


def test_timm_with_one_block():
    cut = anatomy(timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=3))
    assert cut.blocks == ["blocks.0"] and cut.head == ["head"]
    assert anatomy(timm.create_model("resnet10t", num_classes=3)).head == ["fc"]


BATCH = dict(
    input_ids=torch.tensor([[3, 4, 5, 6], [7, 8, 9, 0]]),
    attention_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    labels=torch.tensor([0, 1]),
)


@pytest.mark.parametrize(
    "method",
    [
        ft.LoRA(),
        ft.Adapter(),
        ft.PromptTuning(),
        ft.PrefixTuning(),
        ft.IA3(),
        ft.FISHMask(),
        ft.DoRA(),
        ft.BitFit(),
        ft.Freeze(num_trainable_blocks=1),
        ft.GradualUnfreeze(),
        ft.LayerwiseLR(),
    ],
    ids=str,
)
@pytest.mark.sweep(least=5)
def test_methods_on_a_model_that_shares_one_layer(method):
    for model in (albert(), one_layer()):
        verdict = check_method(method, model, BATCH)
        assert verdict.ok, verdict


def one_layer():
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(transformers.BertConfig(**dict(TEXT, num_hidden_layers=1))).eval()


def test_freezing_says_what_it_means_for_a_shared_layer(capsys):
    model = albert()
    on = ft.Freeze(num_trainable_blocks=1).attach(model)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if "embedding" in n} and on.anatomy.repeats
    assert "1 block, used 4 times with the same weights" in capsys.readouterr().out
    with pytest.raises(ft.FtError, match="1 block, used 4 times with the same weights; use 1"):
        ft.Freeze(num_trainable_blocks=2).attach(albert())
    with pytest.raises(ft.FtError, match="2 blocks, but .* has 1 block; use 1,"):
        ft.Freeze(num_trainable_blocks=2).attach(one_layer())


def test_schedules_and_rates_say_what_they_mean_for_a_shared_layer(capsys):
    model = albert(num_hidden_groups=2)
    on = ft.GradualUnfreeze().attach(model, steps=9)
    assert "2 blocks, each used 2 times with the same weights: when a block is unfrozen" in capsys.readouterr().out
    free = []
    for step in (0, 3, 6):
        on.handles[0].at(step)
        free.append([next(model.get_submodule(b).parameters()).requires_grad for b in on.anatomy.blocks])
    assert free == [[False, False], [False, True], [True, True]]
    with pytest.raises(ft.FtError, match="unfreezes 4 blocks, but .* used 4 times with the same weights"):
        ft.GradualUnfreeze(schedule=((0, 0), (0.5, 4))).attach(albert(), steps=9)
    plan = ft.LayerwiseLR(layer_decay=0.5, lr=1.0, head_lr=1.0).plan(anatomy(albert()))
    assert "one learning rate for all layers that use it" in capsys.readouterr().out
    assert {
        n.partition("albert.")[2].split(".")[0]: r
        for n, r in plan.train.items()
        if "albert_layers" in n or "word_emb" in n
    } == {"encoder": 0.5, "embeddings": 0.25}
