"""Deltas go both ways: what is saved here opens with peft alone, and what peft saved opens here, to equal answers."""
import copy, warnings
import peft, pytest, torch
import ftkit as ft
from ftkit.testing import tiny

warnings.filterwarnings("ignore", category=FutureWarning)
SEQ = dict(task_type="SEQ_CLS")
pytestmark = pytest.mark.fast
OURS = {"lora": ft.LoRA(r=4), "lora on some": ft.LoRA(r=2, on="query,value"), "rslora": ft.LoRA(r=4, rs=True), "pissa": ft.LoRA(r=4, start="pissa"), "dora": ft.DoRA(r=4), "ia3": ft.IA3(), "loha": ft.LoHa(r=4), "lokr": ft.LoKr(r=4),
        "adalora": ft.AdaLoRA(r=2, start=4), "vera": ft.Peft("vera")}
THEIRS = {"lora": lambda: peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False, **SEQ), "all": lambda: peft.LoraConfig(r=3, lora_alpha=5, target_modules="all-linear", use_rslora=True, **SEQ),
          "regex": lambda: peft.LoraConfig(r=2, target_modules=r".*layer\.[12]\.attention\.self\.query", **SEQ), "ranks": lambda: peft.LoraConfig(r=2, target_modules=["query", "value"], rank_pattern={"value": 4}, **SEQ),
          "pissa": lambda: peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights="pissa", **SEQ), "dora": lambda: peft.LoraConfig(r=4, target_modules=["query", "value"], use_dora=True, **SEQ),
          "ia3": lambda: peft.IA3Config(target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"], **SEQ), "loha": lambda: peft.LoHaConfig(r=4, target_modules=["query", "value"], **SEQ),
          "lokr": lambda: peft.LoKrConfig(r=4, target_modules=["query", "value"], **SEQ), "adalora": lambda: peft.AdaLoraConfig(target_r=2, init_r=4, tinit=2, tfinal=2, deltaT=1, total_step=12, target_modules=["query", "value"], **SEQ)}


def say(model, batch):
    "Logits in evaluation mode."
    with torch.no_grad(): return model.eval()(**batch).logits


def stir(params):
    "Give all numbers a small push, so that nothing is zero."
    torch.manual_seed(3)
    with torch.no_grad():
        for p in params: p += 0.05 * torch.randn_like(p)


@pytest.mark.parametrize("name", OURS)
def test_ours_open_with_peft(name, tmp_path):
    model, batch = tiny()
    base = copy.deepcopy(model)
    on = OURS[name].attach(model, steps=10)
    stir(on.parameters().values())
    ft.save_delta(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path)
    assert torch.allclose(say(theirs, batch), say(model, batch), atol=1e-5)


@pytest.mark.parametrize("name", THEIRS)
def test_theirs_open_here(name, tmp_path):
    base, batch = tiny()
    fresh = copy.deepcopy(base)
    made = peft.get_peft_model(base, THEIRS[name]())
    stir(p for p in made.parameters() if p.requires_grad)
    if name == "adalora": prune(made, batch)
    made.save_pretrained(tmp_path)
    on = ft.load_delta(fresh, tmp_path)
    assert torch.allclose(say(fresh, batch), say(made, batch), atol=1e-5), on.method
    assert torch.allclose(say(on.method.merge(fresh), batch), say(made, batch), atol=1e-4)


def prune(made, batch):
    "Train AdaLoRA until ranks have fallen."
    optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=1e-2)
    for step in range(1, 13):
        made.train()(**batch).loss.backward()
        optimizer.step()
        made.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    left = [int((p != 0).sum()) for n, p in made.named_parameters() if "lora_E" in n]
    assert sum(left) < 4 * len(left)


def test_a_kind_without_a_place_is_refused(tmp_path):
    model, batch = tiny()
    made = peft.get_peft_model(copy.deepcopy(model), THEIRS["lora"]())
    made.save_pretrained(tmp_path)
    gpt = tiny("gpt")[0]
    with pytest.raises(ft.FtError, match="query"): ft.load_delta(gpt, tmp_path)
