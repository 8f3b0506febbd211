"What requires a gradient is what the method trains, whatever a tuner of peft adds beside it."

import copy
import io
import pickle
import warnings

import pytest
import timm
import torch
import transformers
from architectures import TRANSFORMERS
from torch import nn

import ftkit as ft
from ftkit.core import METHODS, FtError
from ftkit.models.anatomy import summary_rows
from ftkit.testing.invariants import reload_quantized, tiny_model

OPTIONS = {
    "boft": (("boft_block_size", 8),),
    "c3a": (("block_size", 8),),
    "fourierft": (("n_frequency", 20),),
    "oft": (("oft_block_size", 8), ("r", 0)),
    "miss": (("r", 8),),
    "randlora": (("r", 4),),
    "road": (("group_size", 4),),
    "shira": (("r", 4),),
    "vblora": (("vector_length", 8),),
    "vera": (("r", 8), ("save_projection", False)),
    "waveft": (("n_frequency", 20),),
}
TUNERS = (
    "lora",
    "loha",
    "lokr",
    "ia3",
    "oft",
    "boft",
    "vera",
    "fourierft",
    "hra",
    "vblora",
    "c3a",
    "road",
    "miss",
    "delora",
    "randlora",
    "shira",
    "waveft",
    "ln_tuning",
)


def one_step(method, model, batch):
    "Every parameter that requires a gradient, in an optimiser of one's own; what it moved."
    chosen = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(chosen, lr=0.1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.train()
    model(**batch).loss.backward()
    optimizer.step()
    return {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}


def test_adaloras_count_of_ranks_does_not_train():
    model, batch = tiny_model()
    method = ft.AdaLoRA()
    on = method.attach(model, steps=10)
    counts = [p for n, p in model.named_parameters() if "ranknum" in n]
    assert len(counts) == len(on.handles[0].ranks()) and not any(p.requires_grad for p in counts)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(on.parameters())
    for r in summary_rows(on.anatomy):
        if r["kind"] == "block":
            assert 0 < r["trains"] <= r["added"], "no weight of the base is drawn as trained"
    assert one_step(method, model, batch) <= set(on.parameters())


@pytest.mark.parametrize("name", TUNERS)
def test_a_tuner_leaves_nothing_trainable_that_the_method_does_not_train(name):
    model, batch = tiny_model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            on = ft.Peft(
                name, OPTIONS.get(name, ()), target_modules="norm" if name == "ln_tuning" else "query,value"
            ).attach(model)
        except FtError as e:
            pytest.skip(f"this version of peft has no such tuner: {e}")
    assert {id(p) for p in model.parameters() if p.requires_grad} == {
        id(p) for p in on.parameters().values()
    }  # some are shared by layers
    assert on.added() and sum(r["added"] for r in summary_rows(on.anatomy)) >= sum(
        p.numel() for p in set(on.added().values())
    )
    assert one_step(on.method, model, batch) <= set(on.parameters())


def test_what_trained_before_trains_again_after_a_method_was_taken_off():
    model, _ = tiny_model()
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    ft.AdaLoRA().attach(model, steps=10, keep="cpu")
    ft.AdaLoRA().detach(model)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags


CNNS = (
    "resnet10t",
    "resnet18",
    "resnext26ts",
    "seresnext26d_32x4d",
    "mobilenetv2_050",
    "mobilenetv3_small_050",
    "regnetx_002",
    "densenet121",
    "efficientnet_b0",
    "ghostnet_050",
    "hardcorenas_a",
    "mobilevit_xxs",
    "vgg11_bn",
)
ON_CNNS = [
    n
    for n in METHODS
    if n
    not in ("qlora", "prompt_tuning", "prefix_tuning", "ptuning", "ptuning_v2", "mam", "unipelt", "hard_prompt", "peft")
]


def plain_loop(model, x, y, on, steps=2):
    "A loop as people write it: train(), and what requires a gradient in an optimiser of their own."
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    follow = on.method.attach_to_optimizer(model, optimizer)
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    follow.remove()
    return model.eval()


@pytest.mark.sweep("name", least=8)
@pytest.mark.parametrize("name", CNNS)
@pytest.mark.parametrize("method", ON_CNNS)
def test_after_a_plain_loop_a_delta_holds_all_that_moved(method, name, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3)
    fresh, x, y = copy.deepcopy(model), torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
    options = dict(num_fisher_steps=1) if method == "fish_mask" else {}
    try:
        on = ft.method(method, **options).attach(model, steps=8)
    except FtError as e:
        assert len(str(e)) > 40
        return
    plain_loop(model, x, y, on)
    ft.save_delta(model, tmp_path)
    ft.load_delta(fresh, tmp_path)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), model(x)), "something moved that the delta does not carry"


KEEPING = {
    "batch norm": lambda: nn.BatchNorm2d(4),
    "tracked instance norm": lambda: nn.InstanceNorm2d(4, track_running_stats=True),
    "evonorm": lambda: timm.layers.EvoNorm2dB0(4),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)),
    "old spectral norm": lambda: nn.utils.spectral_norm(nn.Conv2d(4, 4, 1)),
    "batch norm with activation": lambda: timm.layers.BatchNormAct2d(4),
}


class Small(nn.Module):
    "Two blocks with something that keeps statistics."

    def __init__(self, make):
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), make(), nn.ReLU()) for _ in range(2)])
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("kind", KEEPING)
def test_frozen_statistics_stay_still_and_move_again_after_detaching(kind):
    torch.manual_seed(0)
    model, x = Small(KEEPING[kind]), torch.randn(5, 4, 6, 6)

    def still():
        return {n: b.clone() for n, b in model.named_buffers()}

    before, hooks = still(), {n: len(m._forward_pre_hooks) for n, m in model.named_modules()}
    ft.LinearProbe().attach(model)
    model.train()(x)
    assert before and all(torch.equal(b, before[n]) for n, b in still().items())
    assert list(model.state_dict()) == list(Small(KEEPING[kind]).state_dict()) and hooks == {
        n: len(m._forward_pre_hooks) for n, m in model.named_modules()
    }
    ft.LinearProbe().detach(model)
    model.train()(x)
    assert any(not torch.equal(b, before[n]) for n, b in still().items()), "they have to move again"


def test_a_model_with_still_statistics_can_be_copied_and_pickled():
    model, x = Small(KEEPING["batch norm"]), torch.randn(5, 4, 6, 6)
    on = ft.LNTuning().attach(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        twin.train()(x)
        assert twin.layers[0][1].train() is twin.layers[0][1] and not twin.layers[0][1].training
        assert torch.equal(twin.layers[0][1].running_mean, torch.zeros(4))
    assert ft.Full().attach(copy.deepcopy(tiny_model("resnet")[0]))
    on.method.merge(model)
    assert model.train().layers[0][1].training, "what is merged is a plain model"


def test_statistics_move_with_a_method_that_trains_them():
    for method, moves in (
        (ft.Full(), True),
        (ft.LNTuning(train_bn=True), True),
        (ft.LNTuning(), False),
        (ft.Freeze(num_trainable_blocks=1), False),
    ):
        model = Small(KEEPING["batch norm"])
        method.attach(model)
        model.train()(torch.randn(5, 4, 6, 6))
        assert torch.equal(model.layers[1][1].running_mean, torch.zeros(4)) != moves, method


FOUR_BITS = (
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "vit",
    "deit",
    "t5",
    "bart for classes",
    "gpt2 for classes",
    "llama for classes",
    "llama",
    "clip",
    "modernbert",
    "deberta-v2",
    "dinov2",
    "whisper for classes",
    "t5 for classes",
    "clip for classes",
    "bert for answers",
    "bert for tokens",
    "roberta for masked words",
)
BESIDE = {  # name -> (an architecture with the same sizes, class, head)
    "t5 for classes": ("t5", "T5ForSequenceClassification", ["classification_head"]),
    "clip for classes": ("clip", "CLIPForImageClassification", ["classifier"]),
    "bert for answers": ("bert", "BertForQuestionAnswering", ["qa_outputs"]),
    "roberta for masked words": ("roberta", "RobertaForMaskedLM", ["lm_head"]),
}


@pytest.mark.sweep("way", least=6)
@pytest.mark.parametrize("way", ["as the kit reads", "by from_pretrained alone"])
@pytest.mark.parametrize("name", FOUR_BITS)
def test_a_head_is_not_kept_in_four_bits(name, way, tmp_path):
    pytest.importorskip("bitsandbytes")
    like, options, _, _, head = TRANSFORMERS[BESIDE.get(name, (name,))[0]]
    kind, head = BESIDE.get(name, (name, like, head))[1:]
    kind = getattr(transformers, kind)
    model = kind(kind.config_class(**options))
    method = ft.QLoRA(r=2)
    if way == "as the kit reads":
        again = reload_quantized(model, method.load_kwargs())
    else:
        model.save_pretrained(tmp_path)
        again = kind.from_pretrained(tmp_path, dtype=torch.float32, **method.load_kwargs())
    kinds = {n: type(m).__name__ for n, m in again.named_modules()}
    assert "Linear4bit" in kinds.values()
    assert not [n for n, k in kinds.items() if k == "Linear4bit" and any(n == h or n.startswith(h + ".") for h in head)]
    on = method.attach(again)
    assert all(p.is_floating_point() for p in on.parameters().values())


def test_a_head_in_four_bits_is_refused(tmp_path):
    pytest.importorskip("bitsandbytes")
    tiny_model()[0].save_pretrained(tmp_path)
    options = ft.QLoRA().load_kwargs()
    options["quantization_config"].llm_int8_skip_modules = ["nothing"]
    model = transformers.BertForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32, **options)
    for method in (ft.QLoRA(r=2), ft.LoRA(r=2), ft.Full(), ft.LinearProbe()):
        with pytest.raises(FtError, match="4 bits"):
            method.attach(model)
