"""Prompts, prefixes, adapters and default targets, whatever a model's attention, padding and experts are: right, or
one sentence.
"""

import copy

import pytest
import torch
import transformers as hf
from torch import nn

import ftkit as ft
from ftkit.deltas.multi import MultiAdapter
from ftkit.methods.base import method as named
from ftkit.methods.hooks import first_output, try_small_input
from ftkit.methods.peft_bridge import target_matrices
from ftkit.models.cpu_kernels import attention, dropout
from ftkit.testing.invariants import model_outputs, tiny_model

SIZES = dict(
    vocab_size=60,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=64,
)
ROTARY = dict(**SIZES, num_key_value_heads=2, head_dim=8, pad_token_id=0, bos_token_id=1, eos_token_id=2)
WINDOW = dict(**ROTARY, sliding_window=6)
FEW = dict(num_experts=4, num_local_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
GPT2 = dict(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)
DECODERS = {  # name -> (class, options)
    "llama": ("LlamaForCausalLM", ROTARY),
    "llama, eager": ("LlamaForCausalLM", dict(**ROTARY, attn_implementation="eager")),
    "mistral, window": ("MistralForCausalLM", WINDOW),
    "gemma 2, soft caps": ("Gemma2ForCausalLM", WINDOW),
    "gemma 3": ("Gemma3ForCausalLM", WINDOW),
    "gpt-oss, sinks": ("GptOssForCausalLM", WINDOW | dict(num_local_experts=4, num_experts_per_tok=2)),
    "mixtral, experts": ("MixtralForCausalLM", ROTARY | dict(num_local_experts=4)),
    "phi 3, fused": ("Phi3ForCausalLM", ROTARY),
    "gpt-neox, fused": ("GPTNeoXForCausalLM", SIZES | dict(pad_token_id=0)),
    "gpt-bigcode, one head of keys": ("GPTBigCodeForCausalLM", GPT2 | dict(multi_query=True)),
    "gpt 2": ("GPT2LMHeadModel", GPT2),
    "opt": (
        "OPTForCausalLM",
        dict(
            vocab_size=60,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=48,
            word_embed_proj_dim=32,
            max_position_embeddings=64,
        ),
    ),
}
EXPERTS = {
    "gpt-oss": DECODERS["gpt-oss, sinks"],
    "mixtral": DECODERS["mixtral, experts"],
    "qwen 3": ("Qwen3MoeForCausalLM", ROTARY | FEW),
    "qwen 2, a shared expert": ("Qwen2MoeForCausalLM", ROTARY | FEW | dict(shared_expert_intermediate_size=24)),
    "granite, two stacks": ("GraniteMoeForCausalLM", ROTARY | dict(num_local_experts=4, num_experts_per_tok=2)),
    "olmoe": ("OlmoeForCausalLM", ROTARY | FEW),
}


def made(kind: str, options: dict, seed: int = 0):
    "A model with random weights, none of them at exactly zero."
    options = dict(options)
    how = options.pop("attn_implementation", None)
    torch.manual_seed(seed)
    kind = getattr(hf, kind)
    config = kind.config_class(**options)
    if how:
        config._attn_implementation = how
    model = kind(config)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn_like(p)
    return model.eval()


def stirred(model, method, name="default"):
    "A model with a method whose added parameters are large enough to be seen."
    on = method.attach(model, name)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in on.added().values():
            p += 0.5 * torch.randn_like(p)
    return on


def padded(side: str, lengths=(9, 4, 6)):
    "Texts of several lengths, as one batch, and each alone."
    texts = [torch.arange(3, 3 + n) * (i + 3) % 50 + 5 for i, n in enumerate(lengths)]
    ids, mask = (
        torch.zeros(len(texts), max(lengths), dtype=torch.long),
        torch.zeros(len(texts), max(lengths), dtype=torch.long),
    )
    for row, text in enumerate(texts):
        place = slice(0, len(text)) if side == "right" else slice(max(lengths) - len(text), None)
        ids[row, place], mask[row, place] = text, 1
    return ids, mask, texts


@pytest.mark.sweep("name", "side", "method")
@pytest.mark.parametrize("method", ["prompt_tuning", "ptuning", "hard_prompt", "prefix_tuning"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_a_row_is_answered_as_alone(name, side, method):
    model = made(*DECODERS[name])
    stirred(model, named(method))
    ids, mask, texts = padded(side)
    places = {} if "prompt" in method or method == "ptuning" else {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    if name.startswith("gpt 2") or name == "opt" or name.startswith("gpt-bigcode"):
        places = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    together = model(input_ids=ids, attention_mask=mask, **places).logits
    for row, text in enumerate(texts):
        alone = model(input_ids=text[None], attention_mask=torch.ones_like(text)[None]).logits[0]
        assert torch.allclose(together[row][mask[row].bool()], alone, atol=1e-4), (name, side, method, row)


@pytest.mark.parametrize("name", ["llama", "mistral, window", "gpt 2"])
def test_generating_with_a_prompt_in_a_padded_batch(name):
    model = made(*DECODERS[name])
    stirred(model, ft.PromptTuning(num_virtual_tokens=4))
    ids, mask, texts = padded("left")
    options = dict(max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)
    together = model.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]
    for row, text in enumerate(texts):
        alone = model.generate(input_ids=text[None], attention_mask=torch.ones_like(text)[None], **options)
        assert torch.equal(together[row], alone[0, len(text) :]), row


def test_a_prompt_is_near_the_text_that_a_window_sees():
    """With a window of 6 a prompt before the padding would be out of sight; behind it, it changes the answer as it
    does without padding.
    """
    model = made(*DECODERS["mistral, window"])
    ids = torch.tensor([[0] * 12 + [7, 8, 9]])
    mask = (ids > 0).long()
    with torch.no_grad():
        base = model(input_ids=ids, attention_mask=mask).logits[0, -1]
        stirred(model, ft.PromptTuning(num_virtual_tokens=2))
        with_prompt = model(input_ids=ids, attention_mask=mask).logits[0, -1]
        alone = model(input_ids=ids[:, 12:]).logits[0, -1]
    assert not torch.allclose(base, with_prompt, atol=1e-3) and torch.allclose(with_prompt, alone, atol=1e-4)


@pytest.mark.sweep("name", "method")
@pytest.mark.parametrize("method", ["prefix_tuning", "mam", "unipelt"])
@pytest.mark.parametrize("name", DECODERS)
def test_a_silent_prefix_leaves_the_base_bit_for_bit(name, method):
    model = made(*DECODERS[name])
    own, (ids, mask, _) = model.config._attn_implementation, padded("right")
    batch = dict(input_ids=ids, attention_mask=mask)
    with torch.no_grad():
        base = model(**batch).logits
        method = (
            named(method)
            if method == "prefix_tuning"
            else {"mam": ft.MAM, "unipelt": ft.UniPELT}[method](num_virtual_tokens=4, bottleneck_dim=4)
        )
        on = stirred(model, method)
        tuned = model(**batch).logits
        with method.disabled(model):
            assert torch.equal(model(**batch).logits, base)
        assert not torch.allclose(tuned, base, atol=1e-3) and torch.equal(model(**batch).logits, tuned)
    model(**batch).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for n, p in on.added().items() if "ft_prefix" in n)
    method.detach(model)
    assert model.config._attn_implementation == own
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, base)


@torch.no_grad()
def test_a_prefix_is_capped_as_the_models_own_keys_are():
    "Against the sum written out: scores of prefix and text, capped together."
    model = made(*DECODERS["gemma 2, soft caps"])
    on = stirred(model, ft.PrefixTuning(num_virtual_tokens=3, layers=(0,)))
    layer, seen = model.model.layers[0].self_attn, {}
    layer.q_proj.register_forward_hook(lambda m, a, o: seen.update(hidden=a[0]))
    layer.o_proj.register_forward_hook(lambda m, a, o: seen.update(mixed=a[0]))
    ids = torch.tensor([[5, 9, 13, 17]])
    model(input_ids=ids)

    def heads(x, n):
        return x.view(1, -1, n, 8).transpose(1, 2)

    cos, sin = model.model.rotary_emb(seen["hidden"], torch.arange(4)[None])
    from transformers.models.gemma2.modeling_gemma2 import apply_rotary_pos_emb

    q, k = apply_rotary_pos_emb(
        heads(layer.q_proj(seen["hidden"]), 4), heads(layer.k_proj(seen["hidden"]), 2), cos, sin
    )
    v = heads(layer.v_proj(seen["hidden"]), 2)
    pk, pv = (heads(t, 2) for t in on.handles[0].added()[0]())
    k, v = (torch.cat(ts, 2).repeat_interleave(2, 1) for ts in ((pk, k), (pv, v)))
    scores = 50.0 * torch.tanh(q @ k.mT * layer.scaling / 50.0)
    open_ = torch.cat([torch.ones(4, 3), torch.ones(4, 4).tril()], 1).bool()
    mixed = scores.masked_fill(~open_, float("-inf")).softmax(-1) @ v
    assert torch.allclose(seen["mixed"], mixed.transpose(1, 2).reshape(1, 4, 32), atol=1e-5)


REFUSED = {  # name -> (class, options, methods, a word of the sentence)
    "gemma 3n, embeddings of every layer": (
        "Gemma3nForCausalLM",
        ROTARY
        | dict(
            vocab_size_per_layer_input=60,
            hidden_size_per_layer_input=8,
            num_hidden_layers=4,
            num_kv_shared_layers=0,
            laurel_rank=4,
            sliding_window=6,
            intermediate_size=48,
            activation_sparsity_pattern=[0.0] * 4,
            layer_types=["sliding_attention", "full_attention"] * 2,
        ),
        ["prompt_tuning", "ptuning", "hard_prompt"],
    ),
    "gemma 4, embeddings of every layer": (
        "Gemma4ForCausalLM",
        ROTARY
        | dict(
            vocab_size_per_layer_input=60,
            hidden_size_per_layer_input=8,
            global_head_dim=16,
            sliding_window=8,
            num_hidden_layers=4,
            num_kv_shared_layers=0,
            layer_types=["sliding_attention", "full_attention"] * 2,
        ),
        ["prompt_tuning", "ptuning", "hard_prompt"],
    ),
    "longformer, pads by itself": (
        "LongformerForSequenceClassification",
        SIZES | dict(attention_window=4),
        ["prompt_tuning", "ptuning"],
    ),
    "big bird, pads by itself": (
        "BigBirdForSequenceClassification",
        SIZES | dict(block_size=4, num_random_blocks=1),
        ["prompt_tuning", "ptuning", "hard_prompt"],
    ),
    "reformer, pads by itself": (
        "ReformerForSequenceClassification",
        dict(
            vocab_size=60,
            hidden_size=32,
            attention_head_size=8,
            num_attention_heads=4,
            feed_forward_size=48,
            axial_pos_embds=False,
            attn_layers=["local"] * 2,
            local_attn_chunk_length=4,
            max_position_embeddings=64,
        ),
        ["prompt_tuning", "ptuning", "hard_prompt"],
    ),
    "led, pads by itself": (
        "LEDForConditionalGeneration",
        dict(
            vocab_size=60,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            attention_window=4,
            max_encoder_position_embeddings=64,
        ),
        ["prompt_tuning", "hard_prompt"],
    ),
    "esm, drops tokens by their ids": (
        "EsmForSequenceClassification",
        SIZES | dict(vocab_size=33, pad_token_id=1, mask_token_id=32, token_dropout=True),
        ["prompt_tuning", "ptuning"],
    ),
    "funnel, pools its sequence": (
        "FunnelForSequenceClassification",
        dict(vocab_size=60, block_sizes=[1, 1], d_model=32, n_head=4, d_head=8, d_inner=48),
        ["prompt"],
    ),
    "swin, a grid": (
        "SwinForImageClassification",
        dict(image_size=32, patch_size=4, embed_dim=16, depths=[1, 2], num_heads=[2, 4], window_size=4),
        ["prompt_tuning", "vpt", "ptuning"],
    ),
    "swin v2, a grid": (
        "Swinv2ForImageClassification",
        dict(image_size=32, patch_size=4, embed_dim=16, depths=[1, 2], num_heads=[2, 4], window_size=4),
        ["prompt_tuning", "vpt"],
    ),
    "segformer, a grid": (
        "SegformerForImageClassification",
        dict(
            num_encoder_blocks=2,
            depths=[1, 1],
            sr_ratios=[2, 1],
            hidden_sizes=[16, 32],
            patch_sizes=[3, 3],
            strides=[4, 2],
            num_attention_heads=[2, 4],
            mlp_ratios=[2, 2],
            decoder_hidden_size=16,
        ),
        ["prompt_tuning", "vpt"],
    ),
}


@pytest.mark.sweep("name")
@pytest.mark.parametrize("name", REFUSED)
def test_prompts_that_cannot_work_are_refused_and_leave_nothing(name):
    kind, options, methods = REFUSED[name]
    model = made(kind, options)
    names, (given, before) = list(dict(model.named_modules())), try_small_input(model)
    for method in methods:
        with pytest.raises(ft.FtError, match="prompt"):
            named(method).attach(model)
        assert list(dict(model.named_modules())) == names
        if given is not None:
            assert torch.equal(first_output(model, given), before)


def test_no_pass_changes_how_big_bird_attends():
    "It would leave its blocks for good at the first short text."
    model = made(*REFUSED["big bird, pads by itself"][:2])
    ft.LoRA(r=2).attach(model)
    assert try_small_input(model) == (None, None) and model.bert.attention_type == "block_sparse"


@pytest.mark.parametrize("name", ["bloom", "mpt", "codegen", "gpt-neo", "opt"])
def test_every_token_of_a_causal_model_hears_its_prompt(name):
    "Also where the attentions do not say that they are causal: the prompt stands before the first token."
    from architectures import from_transformers

    model = from_transformers(name).eval()
    ids = torch.tensor([[5, 9, 13]])
    with torch.no_grad():
        base = model(input_ids=ids).logits
        stirred(model, ft.PromptTuning(num_virtual_tokens=3))
        moved = (model(input_ids=ids).logits - base).abs().amax(-1)[0]
    assert (moved > 1e-3).all(), moved


def test_a_prefix_passes_by_attentions_that_no_function_reaches():
    "SigLIP pools its picture by PyTorch's own module."
    from architectures import from_transformers

    model = from_transformers("siglip").eval()
    given, before = try_small_input(model)
    method = ft.PrefixTuning(num_virtual_tokens=2)
    on = stirred(model, method)
    assert len(on.handles[0].hosts) == 6 and not torch.allclose(first_output(model, given), before, atol=1e-3)
    with method.disabled(model):
        assert torch.equal(first_output(model, given), before)
    method.detach(model)
    assert torch.equal(first_output(model, given), before)


def test_an_insert_that_fails_half_way_leaves_nothing():
    from dataclasses import dataclass

    from ftkit.methods.prefix_tuning import PrefixInsert

    @dataclass(frozen=True)
    class Failing(PrefixInsert):
        def make(self, host, path):
            if path.startswith("bert.encoder.layer.2"):
                raise ValueError("no place here")
            return super().make(host, path)

    model, batch = tiny_model()
    names, usual = list(dict(model.named_modules())), model_outputs(model, batch)
    with pytest.raises(ValueError, match="no place"):
        Failing(tuple(f"bert.encoder.layer.{i}.attention.self" for i in range(3)), 1e-3).add(model, "default")
    assert list(dict(model.named_modules())) == names and torch.equal(model_outputs(model, batch), usual)
    assert model.config._attn_implementation == "sdpa" and not any(
        m.__dict__.keys() & {"ft_widths"} for m in model.modules()
    )


def test_two_prompts_on_one_model():
    model, ids = made(*DECODERS["llama"]), torch.tensor([[5, 9, 13]])
    with torch.no_grad():
        alone = {}
        for name, size in (("a", 2), ("b", 5)):
            stirred(model, ft.PromptTuning(num_virtual_tokens=size), name)
        with ft.PromptTuning(num_virtual_tokens=5).disabled(model, "b"):
            alone["a"] = model(input_ids=ids).logits
        both = model(input_ids=ids).logits
        ft.PromptTuning(num_virtual_tokens=5).detach(model, "b")
        assert torch.equal(model(input_ids=ids).logits, alone["a"]) and both.shape == alone["a"].shape


@pytest.mark.parametrize("arch", ["swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224"])
def test_prompts_in_the_grids_of_timm_are_refused(arch):
    timm = pytest.importorskip("timm")
    model = timm.create_model(arch, num_classes=3, img_size=224)
    with pytest.raises(ft.FtError, match="pixels|Adapter"):
        ft.VisualPrompt().attach(model)


def test_attaching_draws_no_random_number_and_keeps_modes():
    "The pass that tries a prompt must not change what a seed gives."
    found = []
    for passes in (False, True):
        model = made(*DECODERS["gpt 2"]).train()
        torch.manual_seed(3)
        if passes:
            try_small_input(model)
        found.append(torch.rand(2))
        assert model.training and all(m.training for m in model.modules())
    assert torch.equal(*found)


@pytest.mark.sweep("name", "method")
@pytest.mark.parametrize("method", ["adapter", "parallel", "mam", "unipelt", "lora"])
@pytest.mark.parametrize("name", EXPERTS)
def test_methods_on_experts(name, method):
    model = made(*EXPERTS[name])
    ids, mask, _ = padded("right")
    method = {
        "adapter": ft.Adapter(bottleneck_dim=4),
        "parallel": ft.Adapter(bottleneck_dim=4, placement="parallel"),
        "mam": ft.MAM(num_virtual_tokens=2, bottleneck_dim=4),
        "unipelt": ft.UniPELT(r=2, num_virtual_tokens=2, bottleneck_dim=4),
        "lora": ft.LoRA(r=2),
    }[method]
    with torch.no_grad():
        base = model(input_ids=ids, attention_mask=mask).logits
    on = stirred(model, method)
    blocks = {on.anatomy.block_of(n) for n in on.added()}
    assert blocks == {0, 1}
    logits = model(input_ids=ids, attention_mask=mask).logits
    assert not torch.allclose(logits, base, atol=1e-3)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in on.added().values())
    width = {p.shape[0] for n, p in on.added().items() if n.endswith("up.weight") and "expert" in n}
    assert width <= {32}


def test_gates_of_one_row_get_no_adapter():
    model = made(*EXPERTS["qwen 2, a shared expert"])
    assert not any("gate" in t for t in ft.Adapter().plan(ft.anatomy(model)).injections[0].targets)


THIN = {
    "swin v2": (
        "Swinv2ForImageClassification",
        dict(image_size=32, patch_size=4, embed_dim=16, depths=[1, 2], num_heads=[2, 4], window_size=4),
    ),
    "qwen 2 with experts": EXPERTS["qwen 2, a shared expert"],
    "gemma 3n": REFUSED["gemma 3n, embeddings of every layer"][:2],
}


@pytest.mark.parametrize("name", THIN)
def test_matrices_too_thin_for_the_rank_are_left_out_and_named(name, capsys, monkeypatch):
    monkeypatch.delenv("FTKIT_QUIET", raising=False)
    cut = ft.anatomy(made(*THIN[name]))
    targets, _ = target_matrices(cut, r=8)
    assert targets and all(min(cut.module(t).weight.shape) >= 8 for t in targets)
    thin = [
        p
        for r in ("query", "key", "value", "output", "ffn")
        for p in cut.roles.get(r, [])
        if cut.block_of(p) is not None and min(cut.module(p).weight.shape) < 8
    ]
    said = capsys.readouterr().out
    assert thin and "too small for a rank of 8" in said and all(p.rpartition(".")[2] in said for p in thin)
    with pytest.raises(ft.FtError, match="A rank of 8 is too large"):
        target_matrices(cut, thin[0], r=8)
    with pytest.raises(ft.FtError, match="every weight matrix"):
        target_matrices(cut, r=1000)
    for method in (ft.LoRA(), ft.LoHa(), ft.DoRA()):
        on = method.attach(cut.model, steps=40)
        assert on.added()
        method.detach(cut.model)


def test_what_a_mamba_kernel_reads_past_its_forward_is_left_out():
    model = made("MambaForCausalLM", dict(vocab_size=60, hidden_size=32, num_hidden_layers=2))
    on = ft.LoRA(r=2).attach(model)
    assert on.added() and not any("out_proj" in n for n in on.added())


@pytest.mark.parametrize(
    "arch",
    [
        (
            "MobileBertForSequenceClassification",
            dict(
                vocab_size=60,
                hidden_size=32,
                embedding_size=16,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=48,
                intra_bottleneck_size=16,
                true_hidden_size=16,
            ),
        ),
        ("LevitForImageClassification", dict(image_size=64)),
    ],
)
def test_parallel_adapters_that_cannot_hear_their_source_are_refused(arch):
    model = made(*arch)
    names = list(dict(model.named_modules()))
    with pytest.raises(ft.FtError, match="adapter cannot be attached to"):
        ft.Adapter(placement="parallel").attach(model)
    assert list(dict(model.named_modules())) == names


def test_default_targets_name_what_a_model_lacks():
    class Norms(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.norm, self.other = nn.Embedding(4, 8), nn.LayerNorm(8), nn.Embedding(4, 8)

    with pytest.raises(ft.FtError, match="neither linear layers nor convolutions"):
        target_matrices(ft.anatomy(nn.Sequential(*(Norms() for _ in range(3)))))


class Block(nn.Module):
    "A feed-forward layer that is written over in place behind its first matrix."

    def __init__(self, step):
        super().__init__()
        self.up, self.step, self.down = nn.Linear(16, 16), step, nn.Linear(16, 16)

    def forward(self, x):
        return self.down(self.step(self.up(x)))


STEPS = {
    "relu": nn.ReLU(inplace=True),
    "add": lambda y: y.add_(1.0),
    "fill": lambda y: y.masked_fill_(y < 0, 0.0),
    "slice": lambda y: (y[..., :4].mul_(2.0), y)[1],
}


@pytest.mark.parametrize("dropout_p", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(4, 16), (2, 3, 16)])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_in_place_behind_lora(step, shape, dropout_p):
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(STEPS[step]) for _ in range(3)), nn.Linear(16, 2))
    on = ft.LoRA(r=4, dropout=dropout_p).attach(model)
    for p in on.added().values():
        p.data += 0.1 * torch.randn_like(p)
    x = torch.randn(shape)
    model(x).sum().backward()
    ours = [p.grad.clone() for p in on.added().values()]
    if dropout_p == 0:  # the same sums by peft's own layer
        from ftkit.methods.lora_linear import Linear, LowRankLinear

        for m in model.modules():
            if isinstance(m, LowRankLinear):
                m.__class__ = Linear
        for p in on.added().values():
            p.grad = None
        model(x).sum().backward()
        for a, p in zip(ours, on.added().values(), strict=True):
            assert torch.allclose(a, p.grad, atol=1e-5)


def test_our_own_functions_give_out_no_views():
    q, k, v = (torch.randn(2, 4, 5, 8, requires_grad=True) for _ in range(3))
    attention(q, k, v).mul_(2.0).sum().backward()
    attention(q, k, v, dropout_p=0.5).relu_().sum().backward()
    dropout(q * 1, 0.5).relu_().sum().backward()
    for shape in ((5, 8), (3, 5, 8)):
        one = torch.randn(shape, requires_grad=True)
        attention(one, one, one).add_(1.0).sum().backward()
    assert q.grad is not None and torch.isfinite(q.grad).all()


@pytest.mark.parametrize("family", ["bert", "gpt", "t5", "vit", "whisper"])
def test_two_prefixes_in_one_batch(family, tmp_path):
    base, batch = tiny_model(family)
    kinds = {
        "a": ft.PrefixTuning(num_virtual_tokens=3),
        "b": ft.PrefixTuning(num_virtual_tokens=5),
        "lora": ft.LoRA(r=2),
    }
    alone, folders = {}, {}
    for name, method in kinds.items():
        model = copy.deepcopy(base)
        stirred(model, method)
        alone[name], folders[name] = model_outputs(model, batch), ft.save_delta(model, tmp_path / name)
    plain = model_outputs(base, batch)
    deltas = MultiAdapter(copy.deepcopy(base), folders)
    names = ["a", "b", "b", "lora", "a", "b"]
    with deltas.rows(names) as model:
        mixed = model_outputs(model, batch)
    assert torch.allclose(mixed, torch.stack([alone[n][i] for i, n in enumerate(names)]), atol=1e-4)
    for name in kinds:
        with deltas.using(name) as model:
            assert torch.allclose(model_outputs(model, batch), alone[name], atol=1e-5), name
    assert torch.allclose(model_outputs(deltas.model, batch), plain, atol=1e-6)


def test_two_prefixes_in_one_batch_on_a_model_with_sinks(tmp_path):
    base = made(*DECODERS["gpt-oss, sinks"])
    ids, mask, _ = padded("right")
    batch = dict(input_ids=ids, attention_mask=mask)
    alone, folders = {}, {}
    for name, size in (("a", 2), ("b", 4)):
        model = copy.deepcopy(base)
        stirred(model, ft.PrefixTuning(num_virtual_tokens=size))
        with torch.no_grad():
            alone[name] = model(**batch).logits
        folders[name] = ft.save_delta(model, tmp_path / name)
    deltas = MultiAdapter(base, folders)
    with torch.no_grad(), deltas.rows(["b", "a", "b"]) as model:
        mixed = model(**batch).logits
    for row, name in enumerate(["b", "a", "b"]):
        assert torch.allclose(mixed[row][mask[row].bool()], alone[name][row][mask[row].bool()], atol=1e-4)
