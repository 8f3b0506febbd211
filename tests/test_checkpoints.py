"""What a checkpoint's files say is what is loaded: names, weights, heads, tokenizers; where they disagree, one
sentence says so.
"""

import json
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import transformers as hf
from architectures import PAIR, TRANSFORMERS
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import ftkit as ft
from ftkit.models.checkpoints import read_processor, resolve_checkpoint
from ftkit.models.weights import head_order, is_class_head

pytestmark = pytest.mark.fast
CLASSIFY = dict(task="text-classification", processor=False)
BERT = dict(
    hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, max_position_embeddings=40
)
IMAGE = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=32, patch_size=8
)


@pytest.fixture
def folder(tmp_path):
    ck = ft.load("bert-mini", task="text-classification", num_labels=2, seed=0)
    ck.model.save_pretrained(tmp_path)
    ck.processor.save_pretrained(tmp_path)
    return tmp_path


def made(kind: str, **options):
    "A tiny model of transformers with random weights."
    model = getattr(hf, kind)
    torch.manual_seed(0)
    return model(model.config_class(**options)).eval()


def bert(**options):
    return made("BertForSequenceClassification", **{"vocab_size": 60, **BERT, "num_labels": 2, **options})


def words(*, size: int = 20, template: str = None, unk: bool = True, **special):
    "A tokenizer of whole words: special tokens, then w0, w1, …; `size` tokens in all."
    known = [*dict.fromkeys([*special.values(), *(["<unk>"] if unk else [])])]
    known += [f"w{i}" for i in range(size - len(known))]
    table = {w: i for i, w in enumerate(known)}
    made = Tokenizer(models.WordLevel(table, **({"unk_token": "<unk>"} if unk else {})))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template:
        pairs = [(w, table[w]) for w in template.split() if w in table]
        made.post_processor = processors.TemplateProcessing(single=template, special_tokens=pairs)
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, **({"unk_token": "<unk>"} if unk else {}), **special)


def saved(path, model, tokenizer=None):
    "A folder with a model, and its tokenizer."
    model.save_pretrained(path)
    if tokenizer is not None:
        tokenizer.save_pretrained(path)
    return path


def refused(f, *said):
    "The message of an FtError that holds all of these."
    with pytest.raises(ft.FtError) as e:
        f()
    for text in said:
        assert text in str(e.value), str(e.value)
    return str(e.value)


# names


HUB_IDS = [
    "gpt2",
    "bert-base-multilingual-cased",
    "Qwen2.5-0.5B",
    "meta-llama/Llama-3.2-1B",
    "Qwen/Qwen2.5-0.5B",
    "t5-small",
    "distilbert-base-uncased",
]


@pytest.mark.parametrize("name", HUB_IDS)
def test_an_id_of_the_hub_may_hold_dots_and_needs_no_slash(name):
    assert resolve_checkpoint(name) == ("hub", name)


@pytest.mark.parametrize(
    "name",
    ["hf-hub:timm/resnet50.a1_in1k", "hf_hub:timm/resnet50.a1_in1k", "https://huggingface.co/timm/resnet50.a1_in1k"],
)
def test_ids_are_read_as_timm_and_browsers_write_them(name):
    assert resolve_checkpoint(name) == ("hub", "timm/resnet50.a1_in1k")


def test_offline_an_id_of_the_hub_is_said_to_be_one():
    refused(lambda: ft.load("gpt2"), "gpt2", "Hub id", "no network")


@pytest.mark.parametrize(
    "name, meant",
    [("bert-mimi", "bert-mini"), ("bertmini", "bert-mini"), ("resnet_mimi", "resnet-mini"), ("GPT-min", "gpt-mini")],
)
def test_a_near_miss_of_a_bundled_name_is_told(name, meant):
    refused(lambda: resolve_checkpoint(name), f"Did you mean {meant!r}")


@pytest.mark.parametrize(
    "name",
    [
        "./Llama-3.2-1B",
        "/models/v1.5",
        "~/m",
        "runs/a/b",
        "model.safetensors",
        "tuned/last.pt",
        "C:\\models\\bert",
        "my model",
        "",
    ],
)
def test_what_is_written_as_a_path_is_no_id(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(lambda: resolve_checkpoint(name), "folder")


@pytest.mark.parametrize(
    "file, said",
    [
        ("run.json", "load_run"),
        ("adapter_config.json", "load_delta"),
        ("ftkit.json", "load_delta"),
        ("checkpoint-50/config.json", "checkpoint-50"),
        ("snapshots/0a1b/config.json", "snapshots/0a1b"),
    ],
)
def test_a_folder_that_is_something_else_is_told_what_it_is(file, said, tmp_path):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("{}")
    refused(lambda: resolve_checkpoint(str(tmp_path)), "no config.json", said)


def test_a_file_is_no_checkpoint(folder):
    refused(lambda: ft.load(str(folder / "model.safetensors")), "is a file")


def test_an_adapter_beside_the_weights_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    refused(lambda: ft.load(folder, **CLASSIFY), "adapter_config.json", "load_delta")


def test_own_folders_under_bundled_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("bert_mini", "bert-mini", "GPT-mini"):
        saved(tmp_path / name, bert())
    assert ft.load("bert_mini", **CLASSIFY).model.config.hidden_size == 32
    assert ft.load("GPT-mini", **CLASSIFY).source == "folder"
    capsys.readouterr()
    assert ft.load("bert-mini", **CLASSIFY, num_labels=2).source == "bundled"
    assert "./bert-mini" in capsys.readouterr().out
    assert ft.load("./bert-mini", **CLASSIFY).source == "folder"
    shutil.rmtree(tmp_path / "bert_mini")
    (tmp_path / "bert_mini").mkdir()  # an empty folder of that name, such as one to write to, hides nothing
    assert ft.load("bert_mini", **CLASSIFY, num_labels=2).source == "bundled"


def test_a_run_whose_base_was_moved_names_it_anew(folder, tmp_path):
    table = pd.DataFrame({"text": ["a good film", "a bad film"] * 8, "label": ["good", "bad"] * 8})
    base = shutil.copytree(folder, tmp_path / "base")
    run = ft.finetune(str(base), table, "bitfit", valid=None, epochs=1, show_progress=False)
    run.save(tmp_path / "run")
    shutil.move(base, tmp_path / "moved")
    refused(lambda: ft.load_run(tmp_path / "run"), "base", "checkpoint=")
    again = ft.load_run(tmp_path / "run", checkpoint=tmp_path / "moved")
    assert again.predict(["a good film"]).equals(run.predict(["a good film"]))
    again.save(tmp_path / "again")
    assert ft.load_run(tmp_path / "again").spec.checkpoint == str(tmp_path / "moved")
    other = saved(tmp_path / "other", bert(vocab_size=8192), run.processor)
    refused(lambda: ft.load_run(tmp_path / "run", checkpoint=other), "differ from those")


# weights


def test_a_head_of_another_size_is_replaced(folder):
    other = ft.load(folder, task="text-classification", num_labels=3)
    assert other.model.classifier.out_features == 3 and set(other.new) == {"classifier.weight", "classifier.bias"}


def test_weights_that_do_not_fit_their_configuration(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": config["intermediate_size"] * 2}))
    with pytest.raises(ft.FtError, match="do not fit their configuration"):
        ft.load(folder, task="text-classification", num_labels=2)


LACKS = [
    ("BertForSequenceClassification", dict(vocab_size=60, **BERT), "layer.1.", "text-classification"),
    ("BertForSequenceClassification", dict(vocab_size=60, **BERT), "word_embeddings", "text-classification"),
    (
        "BertForSequenceClassification",
        dict(vocab_size=60, **BERT),
        "layer.2.output.LayerNorm.bias",
        "text-classification",
    ),
    ("GPT2LMHeadModel", dict(vocab_size=60, n_embd=32, n_layer=2, n_head=4), "ln_f", "text-generation"),
    (
        "T5ForConditionalGeneration",
        dict(vocab_size=60, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4),
        "decoder.final_layer_norm",
        "text2text-generation",
    ),
    ("ViTForImageClassification", IMAGE, "patch_embeddings", "image-classification"),
    (
        "ResNetForImageClassification",
        dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic"),
        "running_var",
        "image-classification",
    ),
]


@pytest.mark.parametrize("kind, options, part, task", LACKS)
def test_what_the_files_lack_outside_a_head_is_named(kind, options, part, task, tmp_path):
    model = made(kind, **options)
    left = {n: p for n, p in model.state_dict().items() if part not in n and n != "lm_head.weight"}
    model.save_pretrained(tmp_path, state_dict=left)
    refused(lambda: ft.load(tmp_path, task=task, processor=False), "lack", part)


def test_a_configuration_with_more_layers_than_the_file(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": config["num_hidden_layers"] + 1}))
    refused(lambda: ft.load(folder, **CLASSIFY), "lack 16 tensors", f"layer.{config['num_hidden_layers']}.")


def test_a_model_without_its_head_over_the_vocabulary_does_not_write(tmp_path):
    made("LlamaModel", **{**BERT, "vocab_size": 60}).save_pretrained(tmp_path)
    refused(lambda: ft.load(tmp_path, task="text-generation", processor=False), "have no LM head", "lm_head")


HEADED = [
    n
    for n, (kind, *_) in TRANSFORMERS.items()
    if kind.endswith(("ForSequenceClassification", "ForImageClassification"))
]
TASKS = {"Sequence": "text-classification", "Image": "image-classification"}


def mapped(name: str):
    "The task that a family of the tests has a head for, or None."
    kind = TRANSFORMERS[name][0]
    head, task = next((h, t) for h, t in TASKS.items() if h in kind)
    return (
        task
        if getattr(hf, kind).config_class in getattr(hf, f"AutoModelFor{head}Classification")._model_mapping
        else None
    )


@pytest.mark.sweep(least=8)
@pytest.mark.parametrize("name", HEADED)
def test_of_a_bare_checkpoint_the_head_alone_is_new(name, tmp_path):
    kind, options, *_ = TRANSFORMERS[name]
    task = mapped(name)
    if task is None:
        pytest.skip("audio")
    hf.AutoModel.from_config(getattr(hf, kind).config_class(**options)).save_pretrained(tmp_path)
    ck = ft.load(tmp_path, task=task, num_labels=3, processor=False)
    assert ck.new and not any(ck.anatomy.block_of(n) is not None for n in ck.new)
    whole = getattr(hf, kind).from_pretrained(tmp_path, num_labels=3)
    assert {n for n, p in ck.model.named_parameters() if p.shape != dict(whole.named_parameters())[n].shape} == set()


WRAPPED = {
    "DataParallel": lambda n: f"module.{n}",
    "compiled": lambda n: f"_orig_mod.{n}",
    "compiled and parallel": lambda n: f"module._orig_mod.{n}",
    "layers compiled": lambda n: n.replace("layer.1.", "layer.1._orig_mod."),
    "checkpointed": lambda n: n.replace("layer.2.", "layer.2._checkpoint_wrapped_module."),
    "Lightning": lambda n: f"model.{n}",
    "a module of one's own": lambda n: f"net.encoder.{n}",
    "the bare model, parallel": lambda n: f"module.{n.removeprefix('bert.')}",
}


@pytest.mark.parametrize("how", WRAPPED)
def test_names_from_inside_a_wrapper_are_put_right(how, tmp_path, capsys):
    model = bert()
    model.save_pretrained(tmp_path, state_dict={WRAPPED[how](n): p for n, p in model.state_dict().items()})
    ck = ft.load(tmp_path, **CLASSIFY, num_labels=2)
    own = {n: p for n, p in model.named_parameters() if n.startswith("bert.") or how != "the bare model, parallel"}
    assert own and all(torch.equal(p, ck.model.get_parameter(n)) for n, p in own.items())
    assert "wrapped model" in capsys.readouterr().out


def with_peft(model):
    import peft

    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"])).state_dict()


ADAPTED = {
    "lora": lambda m: (ft.LoRA().attach(m), m.state_dict())[1],
    "adapter": lambda m: (ft.Adapter().attach(m), m.state_dict())[1],
    "ia3": lambda m: (ft.IA3().attach(m), m.state_dict())[1],
    "prompt": lambda m: (ft.PromptTuning().attach(m), m.state_dict())[1],
    "peft": with_peft,
}


@pytest.mark.parametrize("how", ADAPTED)
def test_weights_that_were_saved_with_an_adapter_attached(how, tmp_path):
    model = bert()
    bert().save_pretrained(tmp_path)
    from safetensors.torch import save_file

    save_file(
        {n: p.clone().contiguous() for n, p in ADAPTED[how](model).items()},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    refused(lambda: ft.load(tmp_path, **CLASSIFY), "adapter attached", "save_delta")


def test_weights_that_are_not_safetensors(tmp_path):
    bert().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    refused(lambda: ft.load(tmp_path, **CLASSIFY), "pytorch_model.bin", "save_pretrained")
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "model.fp16.safetensors")
    refused(lambda: ft.load(tmp_path, **CLASSIFY), "model.fp16.safetensors", "variant")
    assert ft.load(tmp_path, **CLASSIFY, variant="fp16").source == "folder"
    (tmp_path / "model.fp16.safetensors").unlink()
    refused(lambda: ft.load(tmp_path, **CLASSIFY), "no weights")


def test_shards_that_are_missing_are_named(tmp_path):
    model = bert()
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    index = tmp_path / "model.safetensors.index.json"
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    whole = ft.load(tmp_path, **CLASSIFY)
    assert torch.equal(whole.model.classifier.weight, model.classifier.weight)
    shards[1].rename(tmp_path / "away")
    refused(lambda: ft.load(tmp_path, **CLASSIFY), f"1 of {len(shards)} weight files", shards[1].name)
    (tmp_path / "away").rename(shards[1])
    for text in ("[]", "{}", "{"):
        index.write_text(text)
        refused(lambda: ft.load(tmp_path, **CLASSIFY), "index.json")
    index.unlink()
    refused(lambda: ft.load(tmp_path, **CLASSIFY), "index.json", shards[0].name)


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 7},
        {"num_attention_heads": 0},
        {"hidden_act": "gelo"},
        {"num_hidden_layers": "two"},
        {"model_type": "bort5"},
        {"hidden_size": None},
        {"intermediate_size": -1},
        {"position_embedding_type": 3},
        {"id2label": "no"},
        {"pad_token_id": 10**6},
    ],
)
def test_a_broken_configuration_loads_or_is_refused_and_never_ends_in_another_error(change, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    try:
        ft.load(folder, task="text-classification", num_labels=2)
    except ft.FtError as e:
        assert str(folder) in str(e)


# heads


CLASSES = ["ant", "bee", "cat"]
AUTO = {
    "text-classification": hf.AutoModelForSequenceClassification,
    "image-classification": hf.AutoModelForImageClassification,
}
TUNED = {
    "bert": ("BertForSequenceClassification", dict(vocab_size=60, **BERT), "text-classification"),
    "roberta": ("RobertaForSequenceClassification", dict(vocab_size=60, **BERT), "text-classification"),
    "distilbert": (
        "DistilBertForSequenceClassification",
        dict(vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=48),
        "text-classification",
    ),
    "gpt2": (
        "GPT2ForSequenceClassification",
        dict(vocab_size=60, n_embd=32, n_layer=2, n_head=4, pad_token_id=0),
        "text-classification",
    ),
    "bart": ("BartForSequenceClassification", PAIR, "text-classification"),
    "xlnet": (
        "XLNetForSequenceClassification",
        dict(vocab_size=60, d_model=32, n_layer=2, n_head=4, d_inner=48),
        "text-classification",
    ),
    "as wide as its classes": (
        "DistilBertForSequenceClassification",
        dict(vocab_size=60, dim=3, n_layers=2, n_heads=1, hidden_dim=3),
        "text-classification",
    ),
    "vit": ("ViTForImageClassification", IMAGE, "image-classification"),
    "resnet": (
        "ResNetForImageClassification",
        dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic"),
        "image-classification",
    ),
    "timm": ("TimmWrapperForImageClassification", dict(architecture="resnet10t"), "image-classification"),
    "timm, head of filters": (
        "TimmWrapperForImageClassification",
        dict(architecture="test_convnext"),
        "image-classification",
    ),
}


def tuned(name: str, path, names=CLASSES):
    "A folder with a tuned head, the model, and its task."
    kind, options, task = TUNED[name]
    model = made(
        kind,
        **options,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={n: i for i, n in enumerate(names)},
    )
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    model.save_pretrained(path)
    return model, task


@torch.no_grad()
def logits(model, task):
    torch.manual_seed(1)
    if task == "image-classification":
        return model.eval()(torch.randn(2, 3, 32, 32)).logits
    ids = torch.randint(3, 59, (2, 7))
    ids[:, -1] = 2  # the end, which BART reads
    return model.eval()(ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize("name", TUNED)
def test_the_rows_of_a_tuned_head_follow_its_names(name, tmp_path, capsys):
    model, task = tuned(name, tmp_path)
    asked = ["Cat", "ant", "bee"]
    ck = ft.load(tmp_path, task=task, classes=asked, processor=False)
    assert torch.allclose(logits(ck.model, task), logits(model, task)[:, [2, 0, 1]], atol=1e-6)
    assert [ck.model.config.id2label[i] for i in range(3)] == asked and "another order" in capsys.readouterr().out
    ck.model.save_pretrained(tmp_path / "again")
    again = ft.load(tmp_path / "again", task=task, classes=asked, processor=False)
    assert (
        torch.equal(logits(again.model, task), logits(ck.model, task))
        and "another order" not in capsys.readouterr().out
    )


@pytest.mark.parametrize("name", TUNED)
def test_a_head_for_other_classes_is_drawn_anew(name, tmp_path, capsys):
    model, task = tuned(name, tmp_path)

    def load(seed=0):
        return ft.load(tmp_path, task=task, classes=["dog", "ant", "bee"], processor=False, seed=seed)

    ck = load()
    own, now = dict(model.named_parameters()), dict(ck.model.named_parameters())
    assert (
        {n for n in now if not torch.equal(own[n], now[n])}
        == set(ck.new)
        == set(is_class_head(AUTO[task], ck.model.config))
    )
    assert all(torch.isfinite(p).all() for p in now.values()) and "other classes" in capsys.readouterr().out
    again, other = load().model, load(1).model
    assert all(torch.equal(p, again.get_parameter(n)) for n, p in now.items())
    assert any(not torch.equal(p, other.get_parameter(n)) for n, p in now.items())


def test_names_that_only_count_fit_any_classes(tmp_path, capsys):
    model, task = tuned("bert", tmp_path / "counted", [f"LABEL_{i}" for i in range(3)])
    ck = ft.load(tmp_path / "counted", task=task, classes=CLASSES, processor=False)
    assert torch.equal(ck.model.classifier.weight, model.classifier.weight) and ck.model.config.id2label[2] == "cat"
    model, task = tuned("bert", tmp_path / "named")
    for classes in (["0", "1", "2"], ["LABEL_0", "LABEL_1", "LABEL_2"]):
        ck = ft.load(tmp_path / "named", task=task, classes=classes, processor=False)
        assert torch.equal(ck.model.classifier.weight, model.classifier.weight)
    ck = ft.load(tmp_path / "named", task=task, num_labels=3, processor=False)
    assert ck.model.config.id2label == dict(enumerate(CLASSES)) and "order" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "requested, given, order",
    [
        (["no", "yes"], ["yes", "no"], [1, 0]),
        (["not spam", "spam"], ["SPAM", "not_spam"], [1, 0]),
        (["1", "0"], ["LABEL_0", "LABEL_1"], [1, 0]),
        (["a", "A"], ["A", "a"], [1, 0]),
        (["a", "A"], ["a", "b"], None),
        (["1 star", "2 stars"], ["good", "bad"], None),
        (
            [str(i) for i in sorted(map(str, range(12)))],
            [f"LABEL_{i}" for i in range(12)],
            [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9],
        ),
    ],
)
def test_which_row_a_class_has(requested, given, order):
    assert head_order(requested, given) == order


# tokenizers


def test_words_that_were_added_to_the_tokenizer_alone_are_named(tmp_path):
    t = words(pad_token="<pad>", cls_token="<cls>", sep_token="<sep>", template="<cls> $A <sep>")
    t.add_tokens(["<brand>"])
    saved(tmp_path / "m", bert(vocab_size=20), t)
    refused(
        lambda: ft.load(tmp_path / "m", task="text-classification", num_labels=2),
        "'<brand>'",
        "resize_token_embeddings",
        "20 rows",
    )
    model = bert(vocab_size=20)
    model.resize_token_embeddings(len(t))
    ck = ft.load(saved(tmp_path / "resized", model, t), task="text-classification", num_labels=2)
    assert ck.model.get_input_embeddings().num_embeddings == 21


def test_a_vocabulary_larger_than_the_table_is_named(tmp_path):
    saved(tmp_path, bert(vocab_size=17), words(size=20, pad_token="<pad>"))
    refused(lambda: ft.load(tmp_path, task="text-classification", num_labels=2), "'w15'", "17 rows")


def test_a_table_larger_than_the_vocabulary_is_fine(tmp_path):
    saved(tmp_path, bert(vocab_size=64), words(size=20, pad_token="<pad>"))
    assert ft.load(tmp_path, task="text-classification", num_labels=2).processor.pad_token_id == 0


def test_special_tokens_beyond_the_table_are_said_and_padding_is_replaced(tmp_path, capsys):
    t = words(size=20, eos_token="<eos>")
    t.add_special_tokens({"pad_token": "[PAD]", "additional_special_tokens": ["<image>"]})  # as Gemma 3 has it
    ck = ft.load(saved(tmp_path, bert(vocab_size=20), t), task="text-classification", num_labels=2)
    said = capsys.readouterr().out
    assert (
        "<image>" in said
        and ck.processor.pad_token == "<eos>"
        and ck.model.config.pad_token_id == ck.processor.eos_token_id
    )
    t = words(size=20, pad_token="<pad>")
    t.add_special_tokens({"eos_token": "<end>"})
    refused(
        lambda: ft.load(saved(tmp_path / "b", bert(vocab_size=20), t), task="text-classification", num_labels=2),
        "'<end>'",
    )


PADS = {  # what the tokenizer has, what the configuration names -> the padding token of both
    "both name one": (dict(pad_token="<pad>", eos_token="<eos>"), 0, "<pad>"),
    "they differ": (dict(pad_token="<pad>", eos_token="<eos>"), 1, "<pad>"),
    "none in the configuration": (dict(eos_token="<eos>", pad_token="<pad>"), None, "<pad>"),
    "none in the tokenizer": (dict(bos_token="<bos>", eos_token="<eos>"), 0, "<bos>"),
    "an ordinary word in the configuration": (dict(bos_token="<bos>", eos_token="<eos>"), 9, "<eos>"),
    "minus one, as old Llamas have it": (dict(bos_token="<bos>", eos_token="<eos>"), -1, "<eos>"),
    "only a beginning": (dict(bos_token="<bos>"), None, "<bos>"),
    "only unknown": ({}, None, "<unk>"),
}


@pytest.mark.parametrize("case", PADS)
def test_tokenizer_and_model_pad_with_one_token(case, tmp_path, capsys):
    special, pad, token = PADS[case]
    options = dict(
        vocab_size=20,
        n_embd=32,
        n_layer=2,
        n_head=4,
        num_labels=2,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=None,
    )
    saved(tmp_path, made("GPT2ForSequenceClassification", **options), words(size=20, **special))
    for task in ("text-classification", "text-generation"):
        ck = ft.load(tmp_path, task=task, **({"num_labels": 2} if task == "text-classification" else {}))
        assert ck.processor.pad_token == token
        assert (
            ck.model.config.pad_token_id == ck.model.config.get_text_config().pad_token_id == ck.processor.pad_token_id
        )
    assert ck.model.generation_config.pad_token_id == ck.processor.pad_token_id
    told = "pads with" in capsys.readouterr().out
    assert told == (pad is not None and ck.processor.pad_token_id != pad)


def test_a_tokenizer_without_any_special_token(tmp_path):
    t = words(size=20, unk=False)
    refused(
        lambda: ft.load(
            saved(tmp_path / "full", bert(vocab_size=20, pad_token_id=None), t),
            task="text-classification",
            num_labels=2,
        ),
        "no padding token",
    )
    ck = ft.load(
        saved(tmp_path / "spare", bert(vocab_size=21, pad_token_id=None), t), task="text-classification", num_labels=2
    )
    assert ck.processor.pad_token_id == ck.model.config.pad_token_id == 20


def test_a_tokenizer_without_unknown_words_says_so(tmp_path, capsys):
    saved(tmp_path, bert(vocab_size=20), words(size=20, unk=False, pad_token="<pad>"))
    ft.load(tmp_path, task="text-classification", num_labels=2)
    assert "no unk token" in capsys.readouterr().out


def test_a_folder_without_its_tokenizer(tmp_path):
    saved(tmp_path, bert())
    refused(lambda: ft.load(tmp_path, task="text-classification", num_labels=2), "tokenizer")


# pictures


@pytest.fixture
def images(tmp_path):
    for y, name in enumerate(("cat", "dog")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(6):
            a = np.random.default_rng(9 * i + y).integers(0, 90, (32, 32, 3)).astype(np.uint8)
            a[..., y] += 120
            Image.fromarray(a).save(tmp_path / "pictures" / name / f"{i}.png")
    return str(tmp_path / "pictures")


TOWERS = dict(
    vision_config=IMAGE,
    text_config=dict(**{k: v for k, v in BERT.items() if k != "max_position_embeddings"}, vocab_size=60),
)
SIZES = {
    "SiglipImageProcessor": dict(size={"height": 32, "width": 32}),
    "CLIPImageProcessor": dict(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
}


@pytest.mark.parametrize(
    "kind, processor",
    [
        ("SiglipForImageClassification", "SiglipImageProcessor"),
        ("CLIPForImageClassification", "CLIPImageProcessor"),
        ("SiglipModel", "SiglipImageProcessor"),
        ("CLIPModel", "CLIPImageProcessor"),
    ],
)
def test_a_model_of_two_towers_classifies_pictures(kind, processor, tmp_path, images):
    made(kind, **TOWERS).save_pretrained(tmp_path / "m")
    getattr(hf, processor)(**SIZES[processor]).save_pretrained(tmp_path / "m")
    run = ft.finetune(
        str(tmp_path / "m"),
        images,
        "linear_probe",
        task="image-classification",
        epochs=1,
        batch_size=8,
        show_progress=False,
    )
    assert run.metrics["loss"] > 0
    shown = ft.show_batch(str(tmp_path / "m"), images, n=2)
    assert shown is not None


def test_a_processor_for_both_gives_its_half(tmp_path):
    model = made("CLIPModel", **TOWERS)
    model.save_pretrained(tmp_path)
    image = hf.CLIPImageProcessor(**SIZES["CLIPImageProcessor"])
    tokens = words(size=60, pad_token="<pad>", eos_token="<eos>")
    hf.CLIPProcessor(image_processor=image, tokenizer=tokens).save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()  # it stands inside processor_config.json
    config = hf.AutoConfig.from_pretrained(tmp_path)
    assert read_processor(str(tmp_path), "folder", config, "AutoModelForImageClassification").crop_size["height"] == 32
    assert len(read_processor(str(tmp_path), "folder", config, "AutoModelForSequenceClassification")) == 60


@pytest.mark.parametrize(
    "architecture, options",
    [("resnet10t", {}), ("vit_tiny_patch16_224", dict(img_size=32, depth=2)), ("test_efficientnet", {})],
)
def test_a_folder_that_timm_saved(architecture, options, tmp_path, images):
    import timm

    model = timm.create_model(architecture, pretrained=False, num_classes=2, **options).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timm.models.save_for_hf(
            model,
            tmp_path / "m",
            safe_serialization=True,
            model_config={"label_names": ["dog", "cat"], "pretrained_cfg": {"input_size": (3, 32, 32)}},
        )
    ck = ft.load(tmp_path / "m", task="image-classification", classes=["cat", "dog"])
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(ck.model.eval()(x).logits, model(x)[:, [1, 0]], atol=1e-5)
    assert ck.processor.data_config["input_size"] == (3, 32, 32)
    run = ft.finetune(
        str(tmp_path / "m"),
        images,
        "linear_probe",
        task="image-classification",
        epochs=1,
        batch_size=8,
        show_progress=False,
    )
    assert run.task.classes == ["cat", "dog"]
