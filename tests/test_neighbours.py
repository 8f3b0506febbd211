"""The answer to a row does not depend on the rows beside it: ragged texts, padded at either side, on every text
family and with every method.
"""

import numpy as np
import pytest
import torch
from architectures import TRANSFORMERS, from_transformers

import ftkit as ft
from ftkit.core import METHODS
from ftkit.data.encoded import EncodedDataset, RaggedColumn
from ftkit.tasks.base import model_inputs, pick_padding_side

LENGTHS = (9, 4, 7, 1, 5)
NOT_TEXT = (
    "whisper",
    "wav2vec2",
    "hubert",
    "ast",
    "vit",
    "deit",
    "beit",
    "dinov2",
    "swin",
    "convnext",
    "resnet",
    "regnet",
    "clip",
    "siglip",
    "blip",
)
TEXTS = [n for n in TRANSFORMERS if not n.startswith(NOT_TEXT)]
READS_THE_LAST_PLACE = ("xlnet",)  # so nothing may stand behind the text
# positions are counted from the row's beginning, and no argument of the model says otherwise
COUNTS_BY_ITSELF = ("bart", "bart for classes", "pegasus", "marian", "mbart", "distilbert")
READS_THE_FIRST_PLACE = (
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "electra",
    "deberta-v2",
    "mpnet",
    "modernbert",
    "roformer",
    "megatron-bert",
    "longformer",
)
LEFT = [n for n in TEXTS if n not in COUNTS_BY_ITSELF + READS_THE_FIRST_PLACE]
RIGHT = [n for n in TEXTS if n not in READS_THE_LAST_PLACE]
# a Fourier transform, or convolutions, over all places, padding included: that is how these models are defined
MIXES_WITH_PADDING = ("fnet", "convbert")


def ragged(side: str) -> EncodedDataset:
    rng = np.random.default_rng(0)
    ids = [rng.integers(3, 59, n).tolist() for n in LENGTHS]
    return EncodedDataset({"input_ids": RaggedColumn(ids, pad=0, side=side, mask="attention_mask")})


def ready(name, side):
    "A tiny model that knows its padding, and whose dropout is off."
    model = from_transformers(name)
    model.config.pad_token_id = 0
    return model.eval()


@torch.no_grad()
def answer(model, rows, index) -> list:
    "What a model says of some rows: logits, or hidden states, at the places that hold text."
    batch = rows.batch(index)
    given = model_inputs(model, batch)
    if model.config.is_encoder_decoder and "Classification" not in type(model).__name__:
        given["decoder_input_ids"] = torch.tensor([[2, 5, 9]]).expand(len(index), -1)
    out = model(**given)
    out = out.logits if "logits" in out else out.last_hidden_state
    mask = batch["attention_mask"].bool()
    return [o[m] if o.ndim == 2 and o.shape[0] == mask.shape[1] else o for o, m in zip(out, mask)]


def equal(model, rows, least=1e-4):
    together = answer(model, rows, range(len(rows)))
    for i, beside in enumerate(together):
        alone = answer(model, rows, [i])[0]
        assert torch.allclose(alone, beside, atol=least, rtol=1e-4), f"row {i}: {(alone - beside).abs().max():.1e}"


def known(name):
    if name in MIXES_WITH_PADDING:
        pytest.skip("looks at the padding, by its definition")
    if "bart for classes" in name:
        pytest.skip("wants the same number of end tokens in every row")


@pytest.mark.sweep(least=16)
@pytest.mark.parametrize("name, side", [(n, "right") for n in RIGHT] + [(n, "left") for n in LEFT])
def test_a_model_answers_a_row_alone_as_beside_others(name, side):
    known(name)
    equal(ready(name, side), ragged(side))


@pytest.mark.sweep(least=24)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", TEXTS)
def test_a_method_keeps_rows_apart(name, method):
    known(name)
    side = "left" if name in READS_THE_LAST_PLACE else "right"
    model, on = ready(name, side), ft.method(method)
    if on.load_kwargs():
        pytest.skip("needs weights in four bits")
    try:
        held = on.attach(model, steps=10)
    except ft.FtError as e:
        pytest.skip(str(e))
    torch.manual_seed(1)
    with torch.no_grad():
        for p in held.parameters().values():
            p += 0.05 * torch.randn_like(p)
    equal(model.eval(), ragged(side))


class Words:
    "A tokenizer that gives every word a number of its own."

    pad_token_id, eos_token_id, model_max_length, truncation_side = 0, None, 40, "right"

    def __init__(self, side):
        self.padding_side = side

    def __call__(self, texts, **_):
        return {"input_ids": [[3 + len(w) for w in t.split()] for t in texts]}


@pytest.mark.parametrize(
    "name, side, settled",
    [
        ("bert", "left", "right"),
        ("xlnet", "right", "left"),
        ("roberta", "left", "right"),
        ("gpt2 for classes", "left", "left"),
        ("llama for classes", "right", "right"),
    ],
)
def test_padding_is_put_where_the_model_does_not_hear_it(name, side, settled):
    tokenizer = Words(side)
    pick_padding_side(ready(name, side), tokenizer)
    assert tokenizer.padding_side == settled


def test_a_model_that_hears_padding_at_either_side_says_so(capsys):
    tokenizer = Words("right")
    pick_padding_side(ready("convbert", "right"), tokenizer, most=1e-9)
    assert tokenizer.padding_side == "right" and "is affected by padding on either side" in capsys.readouterr().out


def test_how_many_families():
    assert len(TEXTS) - len(MIXES_WITH_PADDING) >= 30
