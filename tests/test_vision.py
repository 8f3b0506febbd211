"""Image models from end to end: checkpoints in every form, broken files, several labels, phases of a trunk,
resumed runs.
"""

import os
from pathlib import Path

import conftest
import numpy as np
import pytest
import torch
from PIL import Image

import ftkit as ft
from ftkit.core import FtError
from ftkit.datasets.shapes import SHAPES, render_scene, shapes

pytestmark = pytest.mark.usefixtures("one_way")
ASK = dict(task="image-classification", show_progress=False)
DATA = Path(os.environ.get("FTKIT_DATA", "data"))


@pytest.fixture
def folder(tmp_path):
    "Class folders of shapes; of some the name says what is odd about the file."
    for i, row in enumerate(shapes(48, 32, level=1)):
        file = tmp_path / "shapes" / SHAPES[row["label"]] / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(row["image"]["bytes"])
    return tmp_path / "shapes"


def blank(name="resnet18", **o):
    return ft.load(name, task="image-classification", num_labels=3, pretrained=False, seed=0, **o)


@pytest.fixture(scope="module")
def folders_in_hub_form(tmp_path_factory):
    "A ViT and a ResNet of transformers, and a model of timm, each as the hub has it."
    from transformers import (
        ResNetConfig,
        ResNetForImageClassification,
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessor,
    )

    tmp_path = tmp_path_factory.mktemp("hub")
    size = {"height": 32, "width": 32}
    for name, model in (
        (
            "vit",
            ViTForImageClassification(
                ViTConfig(
                    hidden_size=32,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    intermediate_size=64,
                    image_size=32,
                    patch_size=8,
                    num_labels=5,
                )
            ),
        ),
        (
            "resnet",
            ResNetForImageClassification(
                ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)
            ),
        ),
    ):
        model.save_pretrained(tmp_path / name), ViTImageProcessor(size=size).save_pretrained(tmp_path / name)
    blank().model.save_pretrained(tmp_path / "timm")
    return tmp_path


@pytest.mark.parametrize("name", ["vit", "resnet", "timm"])
def test_checkpoints_in_hub_form(folders_in_hub_form, folder, tmp_path, name):
    run = ft.finetune(str(folders_in_hub_form / name), folder, "lora", steps=2, batch_size=8, **ASK)
    assert (
        set(run.metrics) >= {"accuracy", "f1", "auc", "loss"} and run.predict(folder / "star").label.isin(SHAPES).all()
    )
    run.save(tmp_path / "run")
    again = ft.load_run(tmp_path / "run")
    assert np.allclose(again.predict(folder / "ring").score, run.predict(folder / "ring").score, atol=1e-6)


def test_names_of_timm():
    (small,) = {type(blank(n).model).__name__ for n in ("resnet18", "resnet18.a1_in1k")}
    assert small == "TimmWrapperForImageClassification"
    for wrong, said in (("resnet18", "hub"), ("resnet1q8", "no checkpoint"), ("resnet18.csv/x/y", "no folder")):
        with pytest.raises(FtError, match=f"(?i){said}|could not"):
            ft.load(wrong, task="image-classification", num_labels=2)


def test_a_start_from_random_weights_is_timms_own():
    import timm

    torch.manual_seed(0)
    theirs, ours = (
        timm.create_model("vit_tiny_patch16_224", num_classes=3),
        blank("vit_tiny_patch16_224").model.timm_model,
    )
    for (n, a), b in zip(theirs.named_parameters(), ours.parameters()):
        if a.ndim > 1 and a.numel() > 500:
            assert abs(a.std() - b.std()) < 0.2 * a.std() + 1e-3, n


def test_broken_files_end_no_epoch(folder, capsys):
    whole = next((folder / "star").glob("*.png")).read_bytes()
    (folder / "star" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "star" / "text.jpg").write_text("not a image at all")
    Image.new("RGB", (1, 1)).save(folder / "ring" / "dot.png")
    Image.fromarray(render_scene(32, ["ring"], np.random.default_rng(1))[0][..., 0].astype(np.uint16) * 257).save(
        folder / "ring" / "deep.png"
    )
    Image.fromarray(render_scene(32, ["ring"], np.random.default_rng(2))[0]).convert("CMYK").save(
        folder / "ring" / "print.jpg"
    )
    Image.fromarray(render_scene(32, ["ring"], np.random.default_rng(3))[0]).convert("P").save(
        folder / "ring" / "palette.gif"
    )
    (folder / "ring" / "really_png.jpg").write_bytes(whole)
    with pytest.raises(FtError, match="3 of 55 images cannot be read"):
        ft.finetune("resnet-mini", folder, "linear_probe", pretrained=False, steps=1, **ASK)
    run = ft.finetune("resnet-mini", folder, "linear_probe", pretrained=False, epochs=1, drop_invalid=True, **ASK)
    said = capsys.readouterr().out
    assert all(
        n in said for n in ("cut.png", "text.jpg", "dot.png", "scaled to eight bits", "CMYK", "palette")
    ) and len(run.history)


def test_several_labels_in_lists_and_in_texts():
    r, rows = np.random.default_rng(0), []
    for i in range(24):
        kinds = r.permutation(3)[: r.integers(0, 3)]
        rows.append((render_scene(32, [SHAPES[k] for k in kinds], r)[0], [SHAPES[k] for k in kinds]))
    lists = {"image": [p for p, _ in rows], "labels": [k for _, k in rows]}
    texts = lists | {"labels": ["|".join(k) for _, k in rows]}
    runs = [
        ft.finetune("resnet-mini", d, "linear_probe", pretrained=False, problem="multi", steps=2, **ASK)
        for d in (lists, texts)
    ]
    assert runs[0].task.classes == runs[1].task.classes == sorted(SHAPES[:3]) and runs[0].metrics == runs[1].metrics
    said = runs[0].predict([rows[0][0]])
    assert isinstance(said.labels[0], list) and {f"p_{c}" for c in SHAPES[:3]} <= set(said.columns)


def test_probabilities_at_a_threshold():
    from ftkit.tasks.image_classification import ImageClassification

    task = ImageClassification(classes=["well", "ill"], threshold=0.2)
    said = task.predict(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    assert [s["label"] for s in said] == ["ill", "well"]
    with pytest.raises(FtError, match="threshold"):
        ImageClassification(threshold=2)
    with pytest.raises(FtError, match="positive"):
        ImageClassification(classes=["a", "b"], positive="c")


def test_augmentation_changes_training_only(folder, capsys):
    plain, changed = (
        ft.finetune("resnet-mini", folder, "linear_probe", pretrained=False, steps=3, batch_size=8, lr=0.0, **ASK, **o)
        for o in ({}, {"augment": "standard+mixup"})
    )
    assert plain.metrics == changed.metrics  # nothing learned at a rate of zero, and validation is not augmented
    said = capsys.readouterr().out
    assert said.count("cached features") <= 1
    with pytest.raises(FtError, match="cannot be cached"):
        ft.finetune(
            "resnet-mini",
            folder,
            "linear_probe",
            pretrained=False,
            steps=2,
            augment="light",
            cache_features=True,
            **ASK,
        )


def test_phases_start_at_their_boundary(folder):
    "Gradual unfreezing with a trunk for each phase ends where it ends without one."
    on = ft.GradualUnfreeze(schedule=((0, 0), (0.4, 2), (0.7, 4)), lr=1e-3)
    ends = [
        ft.finetune(
            "resnet-mini",
            folder,
            on,
            pretrained=False,
            epochs=6,
            batch_size=8,
            cache_features=c,
            load_best=False,
            precision="fp32",
            seed=0,
            **ASK,
        )
        for c in (False, True)
    ]
    a, b = (r.model.state_dict() for r in ends)
    far = max(float((a[n].float() - b[n].float()).abs().max() / a[n].float().abs().max().clamp(min=1e-3)) for n in a)
    assert far < 1e-3 and [r.history.loss.iloc[-1] for r in ends][0] == pytest.approx(
        ends[1].history.loss.iloc[-1], rel=1e-3
    )


FIT = (
    f"import sys{conftest.ONE_WAY}"
    + """
import os, signal
import ftkit as ft
out, data, kill = sys.argv[1], sys.argv[2], int(sys.argv[3])
class Kill(ft.Callback):
    def after_step(self, learner):
        if learner.step_count == kill:
            os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[4] == "resume": ft.resume(out, callbacks=[Kill()])
else:
    method = ft.GradualUnfreeze(schedule=((0, 0), (0.5, 3)))
    options = dict(pretrained=False, epochs=4, batch_size=8, save_steps=3, augment=sys.argv[5] or None)
    ft.finetune("resnet-mini", data, method, task="image-classification", output_dir=out, callbacks=[Kill()], **options)
"""
)


@pytest.mark.parametrize("augment", ["", "light+cutmix"])
def test_killed_and_resumed_on_images(folder, tmp_path, augment):
    "From a folder of files, phases and augmentation included; resumed in another folder, without the files."
    from ftkit.core import sha256

    def child(out, kill=0, how="fit", cwd=None):
        return conftest.child(FIT, out, folder, kill, how, augment, cwd=cwd)

    whole = child(tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr[-2000:]
    assert child(tmp_path / "killed", kill=13).returncode == -9
    folder.rename(tmp_path / "moved")
    last = child(tmp_path / "killed", how="resume", cwd=tmp_path)
    assert last.returncode == 0, last.stderr[-2000:]

    def weights(out):
        return {p.name: sha256(p) for p in sorted((out / "delta").rglob("*.safetensors"))}

    assert weights(tmp_path / "killed") == weights(tmp_path / "whole") and weights(tmp_path / "whole")


def test_in_a_terminal(folder, tmp_path):
    words = [
        "finetune",
        "resnet-mini",
        str(folder),
        "--task",
        "image-classification",
        "--method",
        "linear_probe",
        "--no-pretrained",
        "--steps",
        "2",
        "--option",
        "augment=light",
        "--out",
        str(tmp_path / "run"),
    ]
    done = conftest.child("from ftkit.cli import main; main()", *words)
    assert done.returncode == 0 and "auc" in done.stdout, done.stderr[-1000:]
    assert ft.load_run(tmp_path / "run").task.augment == "light"


def test_real_photographs():
    "Ants and bees through an architecture of real size: memory and time as they were predicted."
    if not (DATA / "ants_bees").exists():
        pytest.skip("there is no ants_bees in FTKIT_DATA")
    options = dict(task="image-classification", pretrained=False, steps=6, batch_size=8, valid=None, precision="fp32")
    said = ft.estimate("resnet18", DATA / "ants_bees", "full", **options)
    run = ft.finetune("resnet18", DATA / "ants_bees", "full", show_progress=False, load_best=False, **options)
    assert run.task.classes == ["ants", "bees"] and run.inferred.rows > 200
    told = {"memory": said.training / run.resources["peak_memory"], "time": said.seconds / run.resources["seconds"]}
    print(f"predicted over measured: {told}")
    assert 0.5 < told["memory"] < 1.6 and 0.3 < told["time"] < 2


def test_a_folder_named_as_bundled_data(tmp_path, monkeypatch, capsys):
    from ftkit.data.loading import read

    monkeypatch.chdir(tmp_path)
    for i, k in enumerate("ab"):
        (
            (tmp_path / "digits" / k).mkdir(parents=True),
            Image.new("L", (9, 9), 80 * i).save(tmp_path / "digits" / k / "0.png"),
        )
    assert len(read("digits")) > 100 and "./digits" in capsys.readouterr().out
    assert len(read(Path("digits"))) == len(read("./digits")) == 2


BOXES = (
    f"import sys{conftest.ONE_WAY}"
    + """
import os, signal
import ftkit as ft
from ftkit.datasets.shapes import scenes
out, kill = sys.argv[1], int(sys.argv[2])
class Kill(ft.Callback):
    def after_step(self, learner):
        if learner.step_count == kill:
            os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[3] == "resume": ft.resume(out, callbacks=[Kill()])
else:
    options = dict(valid=scenes(8, seed=1), steps=6, batch_size=8, save_steps=2, show_progress=False)
    options |= dict(output_dir=out, callbacks=[Kill()])
    ft.finetune("resnet-mini", scenes(40, seed=0), "lora", task="object-detection", **options)
"""
)


def test_killed_and_resumed_on_boxes(tmp_path):
    from ftkit.core import sha256

    def child(out, kill=0, how="fit"):
        return conftest.child(BOXES, tmp_path / out, kill, how)

    for done, code in ((child("whole"), 0), (child("killed", kill=5), -9), (child("killed", how="resume"), 0)):
        assert done.returncode == code, done.stderr[-2000:]

    def weights(out):
        return {p.name: sha256(p) for p in sorted((tmp_path / out / "delta").rglob("*.safetensors"))}

    assert weights("killed") == weights("whole") and weights("whole")


def test_boxes_of_rows():
    from ftkit.datasets.shapes import scenes

    rows = scenes(6, seed=2).to_list()
    rows[3]["labels"] = rows[3]["labels"] + [0]
    with pytest.raises(FtError, match="Row 3 has .* boxes and"):
        ft.finetune(
            "resnet-mini", rows, "linear_probe", task="object-detection", valid=None, steps=1, show_progress=False
        )
    with pytest.raises(FtError, match="one scale only"):
        ft.load("vit-mini", task="object-detection", num_labels=2)


@pytest.mark.parametrize("kind", ["simclr", "moco", "supcon"])
def test_contrast_tunes_what_its_method_says(kind):
    from ftkit.datasets.digits import digits

    with pytest.warns(FutureWarning, match="recipe"):
        done = ft.contrast("vit-mini", digits(40), kind, method="bitfit", augment="light", steps=2, batch_size=16)
    base = ft.load("vit-mini", task="image-classification", num_labels=2, seed=0).model.state_dict()
    moved = {
        n
        for n, p in done.model.state_dict().items()
        if n in base and p.shape == base[n].shape and not torch.equal(p, base[n])
    }
    assert any(n.endswith("bias") for n in moved) and all(n.endswith("bias") or "head" in n for n in moved)
    assert len(done.history) == 2 and done.history.spread.notna().all() and done.recipe.name == kind


def refused(said, **o):
    with pytest.raises(FtError, match=said):
        ft.finetune(
            "vit-mini", **{**dict(data=shapes(32, 32), method="linear_probe", steps=2, batch_size=8), **ASK, **o}
        )


def test_images_in_memory_are_read_as_files_are(tmp_path):
    import io

    from ftkit.data.images import open_image, to_image_record

    exif, into = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(into, "JPEG", exif=exif)
    whole = np.random.default_rng(0).integers(0, 99, (20, 30))
    decimals = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    for value in (
        Image.open(io.BytesIO(into.getvalue())),
        whole,
        whole.astype(np.uint16),
        np.full((8, 8, 3), 40000, np.uint16),
        Image.fromarray(decimals),
        Image.new("LAB", (9, 9)),
        Image.new("RGBX", (9, 9)),
        Image.new("I", (9, 9)),
    ):
        assert np.array_equal(open_image(to_image_record(value))[0], open_image(value)[0])
    assert (
        open_image(to_image_record(Image.open(io.BytesIO(into.getvalue()))))[0].size == (20, 40)
        and np.asarray(open_image(whole)[0]).max() == whole.max()
    )
    for wrong in (
        Image.open(io.BytesIO(into.getvalue()[:-9])),
        np.full((9, 9), -3),
        np.full((9, 9), 70000),
        Image.fromarray(np.full((9, 9), np.nan, np.float32)),
        Image.new("RGB", (1, 1)),
    ):
        with pytest.raises(FtError):
            to_image_record(wrong)
    assert "nearly black" in open_image(Image.fromarray((whole * 40).astype(np.uint16)))[1][0]


def test_paths_in_tables(folder):
    import pandas as pd
    from datasets import Dataset

    files = sorted(folder.rglob("*.png"))
    names = [f.parent.name for f in files]
    tables = (
        pd.DataFrame({"image": list(map(str, files)), "label": names}),
        pd.DataFrame({"image": files, "label": names}),
        Dataset.from_dict({"image": list(map(str, files)), "label": names}),
    )
    scores = [ft.finetune("vit-mini", t, "linear_probe", steps=2, batch_size=8, **ASK).metrics for t in tables]
    assert scores[0] == scores[1] == scores[2]
    gap = Dataset.from_list(
        [
            {"image": None, "label": names[0]},
            *({"image": {"path": str(f), "bytes": None}, "label": n} for f, n in zip(files, names)),
        ]
    )
    refused("row 0 is missing", data=gap)
    assert ft.finetune(
        "vit-mini", gap, "linear_probe", steps=1, batch_size=8, drop_invalid=True, **ASK
    ).inferred.rows < len(files)


def test_what_is_random_is_never_kept(tmp_path, monkeypatch):
    from torchvision.transforms import v2

    monkeypatch.setenv("FTKIT_HOME", str(tmp_path))
    data, ask = shapes(64, 32), dict(method="linear_probe", epochs=3, batch_size=8, seed=0, **ASK)
    plain = ft.finetune("vit-mini", data, cache_features=False, **ask).metrics["loss"]
    for seed in range(4):
        ft.finetune("vit-mini", data, augment=v2.RandomHorizontalFlip(p=0.02), **{**ask, "seed": seed})
    assert not len(ft.cache().table) and abs(ft.finetune("vit-mini", data, **ask).metrics["loss"] - plain) < 1e-5
    refused("augmented at random", augment=v2.RandomHorizontalFlip(p=0.02), cache_features=True)


def test_transforms_of_torchvision(tmp_path):
    from torchvision.transforms import v2

    floats = v2.Compose([v2.ToDtype(torch.float32, scale=True)])
    told = [
        ft.finetune(
            "vit-mini",
            shapes(32, 32),
            "linear_probe",
            augment=a,
            cache_features=False,
            steps=2,
            batch_size=8,
            precision="fp32",
            **ASK,
        ).metrics["loss"]
        for a in (floats, None)
    ]
    assert abs(told[0] - told[1]) < 1e-5
    refused("squares of at least 48", augment=v2.RandomCrop(20))
    refused("omit Normalize", augment=v2.Compose([floats, v2.Normalize([0.5] * 3, [0.2] * 3)]))
    refused("cannot be saved", augment=floats, output_dir=tmp_path / "run")


def test_options_that_mean_nothing_are_refused_before_training():
    refused("need a binary task", threshold=0.3)
    refused("no metric 'sensitivty'", metric="sensitivty")
    refused(
        "NaN for 'auc'",
        data=shapes(32, 32),
        valid=shapes(32, 32, seed=1).filter(lambda r: r["label"] == 0),
        metric="auc",
    )
    rows = [{"image": r["image"], "labels": [0, 1, 0]} for r in shapes(32, 32)]
    refused("ones and zeros", data=rows, problem="multi")
    for wrong in (dict(seeds=0), dict(valid=None), dict(output_dir="x")):
        with pytest.raises(FtError):
            ft.compare("vit-mini", shapes(32, 32), **{**dict(methods=["linear_probe"]), **ASK, **wrong})
    for wrong in (dict(lr=-1e-3), dict(optimizer="adafactorr"), dict(labell="x")):
        with pytest.raises(FtError):
            ft.estimate("vit-mini", shapes(32, 32), "linear_probe", task="image-classification", **wrong)


def test_answers_and_predictions_agree_at_a_threshold():
    from ftkit.datasets.chest_xray import chest_xray
    from ftkit.evaluation.classification import confusion, predictions

    test = chest_xray(100, seed=5)
    run = ft.finetune("vit-mini", chest_xray(200), "linear_probe", threshold=0.7, epochs=2, valid=test, **ASK)
    found = predictions(run, test)
    assert [found.classes[i] for i in found.said] == list(run.predict(test).label) and abs(
        found.right.mean() - run.metrics["accuracy"]
    ) < 1e-6
    counts = confusion(found)[0]
    assert abs(counts[1, 1] / counts[1].sum() - run.metrics["sensitivity"]) < 1e-6
    with pytest.raises(FtError, match="splits train, test"):
        predictions(run, {"train": test[:4], "test": test[:4]})


def test_a_pipeline_of_several_labels_gives_what_predict_gives(folder):
    files = sorted(map(str, folder.rglob("*.png")))
    run = ft.finetune(
        "vit-mini",
        {"image": files, "labels": [["a", "b"] if i % 2 else ["a"] if i % 3 else ["b"] for i in range(len(files))]},
        "linear_probe",
        problem="multi",
        steps=2,
        batch_size=8,
        **ASK,
    )
    said, own = {p["label"]: p["score"] for p in run.pipeline()(files[0])}, run.predict(files[0]).iloc[0]
    assert all(abs(said[n] - own[f"p_{n}"]) < 1e-4 for n in ("a", "b"))


def test_maps_lie_where_the_patches_lie():
    from ftkit.evaluation.saliency import grad_cam, rollout, to_feature_maps

    image = shapes(1, 32)[0]["image"]
    run = ft.finetune("vit-mini", shapes(32, 32), "vpt", steps=2, batch_size=8, **ASK)
    assert grad_cam(run, image).max() == rollout(run, image).max() == 1
    with pytest.raises(FtError, match="earlier block"):
        grad_cam(run, image, block=-1)
    windows = ft.finetune(
        "swin_tiny_patch4_window7_224",
        shapes(8, 32),
        "linear_probe",
        pretrained=False,
        steps=1,
        batch_size=4,
        valid=None,
        **ASK,
    )
    assert to_feature_maps(torch.zeros(1, 7, 7, 768), windows.model).shape == (1, 768, 7, 7) and grad_cam(
        windows, image
    ).shape == (224, 224)
    with pytest.raises(FtError, match="attends to all"):
        rollout(windows, image)


@pytest.mark.parametrize("name", ["convnext_atto", "swin_tiny_patch4_window7_224", "densenet121"])
def test_what_lies_between_blocks_waits_for_the_upper_one(name):
    model = blank(name).model
    on = ft.GradualUnfreeze().attach(model, steps=100)
    first, *_, last = on.plan.injections[0].groups
    lowest = on.anatomy.blocks[-1]
    order = [n for n, _ in model.named_parameters()]
    assert (
        all(order.index(n) > max(i for i, m in enumerate(order) if m.startswith(lowest + ".")) for n in first)
        and order[0] in last
    )


def test_phases_beside_another_method_and_at_the_end_of_an_epoch():
    run = ft.finetune(
        "vit-mini",
        shapes(48, 32),
        ft.GradualUnfreeze(schedule=((0, 0), (0.5, 2))) + ft.LoRA(),
        steps=4,
        batch_size=8,
        **ASK,
    )
    assert len(run.history) == 4
    turning = [
        ft.finetune(
            "vit-mini",
            shapes(48, 32),
            ft.GradualUnfreeze(schedule=((0, 0), (0.5, 2))),
            epochs=2,
            cache_features=c,
            seed=0,
            precision="fp32",
            **ASK,
        )
        for c in (True, False)
    ]
    assert (
        np.allclose(turning[0].history.loss, turning[1].history.loss, atol=1e-5)
        and abs(turning[0].metrics["loss"] - turning[1].metrics["loss"]) < 1e-5
    )
