"""An image reaches a model as the checkpoint's own processor prepares it, and a file reaches the rows as people
store images
"""

import io

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from PIL import Image

import ftkit as ft
from ftkit.core import FtError
from ftkit.data.fields import IMAGE, LABEL
from ftkit.data.image_preprocessing import preprocessing_from_processor
from ftkit.data.images import encode_images
from ftkit.data.loading import read
from ftkit.data.splits import prepare
from ftkit.datasets.shapes import shapes

SMALL = {"height": 32, "width": 32}
EDGE = {"shortest_edge": 32}
PROCESSORS = {
    "ViT": ("ViTImageProcessor", dict(size=SMALL)),
    "ViT by PIL": ("ViTImageProcessorPil", dict(size=SMALL)),
    "ViT, not normalised": ("ViTImageProcessor", dict(size=SMALL, do_normalize=False)),
    "ViT, bytes": ("ViTImageProcessor", dict(size=SMALL, do_normalize=False, do_rescale=False)),
    "ViT, from -1 to 1": ("ViTImageProcessor", dict(size=SMALL, rescale_factor=1 / 127.5, do_normalize=False)),
    "ViT, nearest": ("ViTImageProcessor", dict(size=SMALL, resample=0)),
    "ViT, not square": ("ViTImageProcessor", dict(size={"height": 32, "width": 20})),
    "DeiT": ("DeiTImageProcessor", dict(size={"height": 37, "width": 37}, crop_size=SMALL)),
    "BEiT": ("BeitImageProcessor", dict(size=SMALL, crop_size=SMALL)),
    "Swin (CLIP)": ("CLIPImageProcessor", dict(size=EDGE, crop_size=SMALL)),
    "CLIP, odd margin": ("CLIPImageProcessor", dict(size={"shortest_edge": 37}, crop_size=SMALL)),
    "CLIP, crop beyond the image": ("CLIPImageProcessor", dict(size={"shortest_edge": 28}, crop_size=SMALL)),
    "SigLIP": ("SiglipImageProcessor", dict(size=SMALL)),
    "DINOv2 (BiT)": ("BitImageProcessor", dict(size={"shortest_edge": 40}, crop_size=SMALL)),
    "DINOv3": ("DINOv3ViTImageProcessor", dict(size=SMALL)),
    "ConvNeXT": ("ConvNextImageProcessor", dict(size=EDGE, crop_pct=0.875)),
    "ConvNeXT, large": ("ConvNextImageProcessor", dict(size={"shortest_edge": 384})),
    "EfficientNet": ("EfficientNetImageProcessor", dict(size=SMALL)),
    "EfficientNet, offset": ("EfficientNetImageProcessor", dict(size=SMALL, rescale_offset=True)),
    "LeViT": ("LevitImageProcessor", dict(size=EDGE, crop_size=SMALL)),
    "PoolFormer": ("PoolFormerImageProcessor", dict(size=EDGE, crop_size=SMALL)),
    "MobileNetV1": ("MobileNetV1ImageProcessor", dict(size={"shortest_edge": 36}, crop_size=SMALL)),
    "MobileNetV2": ("MobileNetV2ImageProcessor", dict(size={"shortest_edge": 36}, crop_size=SMALL)),
    "MobileViT": ("MobileViTImageProcessor", dict(size=EDGE, crop_size={"height": 36, "width": 36})),
    "MobileViT, red first": ("MobileViTImageProcessor", dict(size=EDGE, crop_size=SMALL, do_flip_channel_order=False)),
    "Perceiver": ("PerceiverImageProcessor", dict(size=SMALL, crop_size={"height": 36, "width": 36})),
    "PVT": ("PvtImageProcessor", dict(size=SMALL)),
    "SegFormer": ("SegformerImageProcessor", dict(size=SMALL)),
    "BLIP": ("BlipImageProcessor", dict(size=SMALL)),
    "FLAVA": ("FlavaImageProcessor", dict(size=SMALL, crop_size=SMALL)),
}
TIMM = {
    "resnet18": dict(crop_pct=0.95, interpolation="bicubic"),
    "vit_tiny_patch16_224": dict(crop_pct=0.9, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    "inception_v3": dict(crop_pct=0.875, interpolation="bilinear"),
    "tiny_vit": dict(crop_pct=1.0, crop_mode="squash"),
    "bordered": dict(crop_pct=1.0, crop_mode="border"),
}


def processor(name):
    if name in TIMM:
        told = dict(input_size=(3, 32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)) | TIMM[name]
        return transformers.TimmWrapperImageProcessor(told)
    kind, options = PROCESSORS[name]
    return getattr(transformers, kind)(**options)


@pytest.fixture(scope="module")
def images():
    "Noise wider, higher, smaller and of the size asked for, and a photograph's file."
    rng = np.random.default_rng(0)
    noise = [
        rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((50, 81), (90, 61), (21, 25), (32, 32), (36, 36))
    ]
    whole = [Image.fromarray(x) for x in noise]
    file = io.BytesIO()
    whole[0].resize((400, 300)).save(file, "JPEG")
    return whole, file.getvalue()


@pytest.mark.sweep("name", least=9)
@pytest.mark.parametrize("name", [*PROCESSORS, *TIMM])
def test_pixels_are_those_of_the_processor(name, images):
    "To 1e-5 for values near one, in bytes until the batch; a JPEG is decoded whole."
    own, (whole, file) = processor(name), images
    g = preprocessing_from_processor(own)
    assert not g.whole or name == "DINOv3", "whatever can be kept as bytes is"
    rows = encode_images([*whole, file], g)
    for i, image in enumerate([*whole, Image.open(io.BytesIO(file))]):
        want = torch.as_tensor(np.asarray(own(image, return_tensors="pt")["pixel_values"])).float()
        assert (rows.pixels(rows.images[[i]]) - want).abs().max() <= 1e-5 * max(1, float(want.abs().max()))


def test_grey_images_keep_one_channel_and_reach_the_model_in_three():
    grey, own = (
        Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40).astype(np.uint8)),
        processor("MobileViT"),
    )
    rows = encode_images([grey], preprocessing_from_processor(own))
    assert rows.images.shape[1] == 1
    want = own(grey.convert("RGB"), return_tensors="pt")["pixel_values"]
    assert torch.allclose(rows.pixels(rows.images).expand(-1, 3, -1, -1), want, atol=1e-5)


def test_random_crops_have_a_margin_and_validation_has_none():
    g = preprocessing_from_processor(processor("DINOv2 (BiT)"))
    assert (g.side, g.stored) == (32, 40)


@pytest.mark.parametrize("name", ["MobileViT", "EfficientNet", "DINOv3", "resnet18"])
def test_what_is_drawn_is_what_was_given(name):
    picture = Image.fromarray(np.full((36, 36, 3), (250, 120, 10), np.uint8))
    rows = encode_images([picture], preprocessing_from_processor(processor(name)))
    seen = rows.drawn(rows.pixels(rows.images))[0].mean((1, 2))
    assert seen[0] > seen[1] > seen[2] and seen.min() >= 0 and seen.max() <= 1


def test_a_processor_without_one_size(capsys):
    free = transformers.ViTImageProcessor(size=SMALL, do_resize=False)
    assert preprocessing_from_processor(free).side == 32 and "brought to one" in capsys.readouterr().out
    with pytest.raises(FtError, match="differ in size"):
        preprocessing_from_processor(transformers.CLIPImageProcessor(size=EDGE, do_center_crop=False, crop_size=None))


def tiny_vit(folder, side=32, **options):
    "A ViT of two thin layers, in the form of the hub."
    shape = dict(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, patch_size=8, image_size=side
    )
    transformers.ViTForImageClassification(transformers.ViTConfig(**shape)).save_pretrained(folder)
    transformers.ViTImageProcessor(**{"size": SMALL} | options).save_pretrained(folder)
    return str(folder)


def test_a_size_that_the_model_cannot_read_is_said_when_it_is_loaded(tmp_path):
    with pytest.raises(FtError, match="32 x 32 pixels, but the model expects 64 x 64"):
        ft.load(tiny_vit(tmp_path, side=64), task="image-classification", num_labels=2)
    assert (
        ft.load(tiny_vit(tmp_path / "same"), task="image-classification", num_labels=2).processor.size["height"] == 32
    )


ASK = dict(task="image-classification", steps=1, batch_size=8, show_progress=False)


def test_training_and_prediction_use_the_processor(tmp_path):
    "A model whose processor does not normalise sees numbers from 0 to 1, and answers as it does by hand."
    run = ft.finetune(tiny_vit(tmp_path / "vit", do_normalize=False), shapes(16, 40), "linear_probe", **ASK)
    image = Image.open(io.BytesIO(shapes(1, 40)[0]["image"]["bytes"]))
    pixels = run.processor(image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        by_hand = run.model.eval()(pixels).logits.softmax(-1)[0]
    said = run.predict([image]).iloc[0]
    assert pixels.max() <= 1 and abs(float(by_hand.max()) - said.score) < 1e-5


# Files of images


@pytest.fixture
def folder(tmp_path):
    for i, row in enumerate(shapes(16, 24)):
        file = tmp_path / "images" / ("ab"[i % 2]) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(row["image"]["bytes"])
    return tmp_path / "images"


def test_images_in_bytes_of_a_parquet_file(folder, tmp_path):
    files = sorted(folder.rglob("*.png"))
    table = pd.DataFrame(
        {"image": [f.read_bytes() for f in files], "label": [f.parent.name for f in files], "digest": [b"\1\2"] * 16}
    )
    table.to_parquet(tmp_path / "plain.parquet")
    table.assign(image=[{"bytes": b, "path": None} for b in table.image]).to_parquet(tmp_path / "struct.parquet")
    table.rename(columns={"image": "x"}).to_parquet(tmp_path / "unnamed.parquet")
    rows = [
        prepare(s, fields=(IMAGE, LABEL), valid=None)
        for s in (table, *(tmp_path / f"{n}.parquet" for n in ("plain", "struct", "unnamed")))
    ]
    assert (
        len({tuple(r.train[[c for c in r.train.column_names if c.startswith("_key")][0]]) for r in rows}) == 1
        and len(rows[1].train) == 16
    )
    assert ft.finetune("resnet-mini", str(tmp_path / "plain.parquet"), "linear_probe", **ASK).inferred.rows == 13


def test_images_by_other_names_and_files_that_are_left_out(folder, capsys):
    whole = Image.open(next(folder.rglob("*.png"))).convert("RGB")
    kinds = {
        "jfif": "JPEG",
        "jpe": "JPEG",
        "webp": "WEBP",
        "tif": "TIFF",
        "JPEG": "JPEG",
        "dib": "DIB",
        "tga": "TGA",
        "jp2": "JPEG2000",
        "apng": "PNG",
        "pbm": "PPM",
    }
    for suffix, kind in kinds.items():
        with open(folder / "a" / f"x.{suffix}", "wb") as file:
            whole.save(file, kind)
    (folder / "a" / "notes.pdf").write_bytes(b"%PDF")
    (folder / "b" / "clip.mp4").write_bytes(b"x")
    (folder / "Thumbs.db").write_bytes(b"x")
    whole.save(folder / "alone.png")
    data = prepare(folder, fields=(IMAGE, LABEL), valid=None)
    said = capsys.readouterr().out
    assert len(data.train) == 16 + len(kinds)
    assert (
        "3 files left out" in said
        and all(n in said for n in ("a/notes.pdf", "b/clip.mp4", "alone.png"))
        and "Thumbs" not in said
    )


def test_addresses_of_images_are_not_fetched(tmp_path):
    table = pd.DataFrame({"image": [f"https://example.org/{i}.png" for i in range(8)], "label": ["a", "b"] * 4})
    table.to_csv(tmp_path / "t.csv", index=False)
    for source in (table, tmp_path / "t.csv"):
        with pytest.raises(FtError, match="is a URL"):
            prepare(source, fields=(IMAGE, LABEL))


def test_a_text_that_ends_like_a_file_is_a_text(tmp_path):
    texts = [f"look at picture {i}.png" for i in range(20)]
    pd.DataFrame({"text": texts, "label": ["a", "b"] * 10}).to_csv(tmp_path / "t.csv", index=False)
    assert prepare(tmp_path / "t.csv", valid=None).train["text"][:] == texts
    (tmp_path / "0.png").write_bytes(b"x")
    assert read(tmp_path / "t.csv")["text"][:] == texts


def test_repeated_images_stay_on_one_side():
    rows = [*shapes(20, 24).to_list(), *shapes(20, 24).to_list()[:5] * 3]
    rows = [{"image": r["image"], "label": r["label"] % 2} for r in rows]
    data = prepare(rows, fields=(IMAGE, LABEL))
    assert len(data.train) + len(data.valid) == 35 and not set(data.train["_key:image"]) & set(data.valid["_key:image"])
    assert len(data.report["train"]["duplicates"]) == 15


# Boxes

PIXELS = [16.0, 8.0, 48.0, 24.0]  # of 64 x 32
FORMATS = {
    "pascal_voc": PIXELS,
    "coco": [16, 8, 32, 16],
    "albumentations": [0.25, 0.25, 0.75, 0.75],
    "yolo": [0.5, 0.5, 0.5, 0.5],
}


@pytest.mark.parametrize("form", FORMATS)
def test_boxes_in_the_formats_of_the_field(form):
    from ftkit.tasks.object_detection import ObjectDetection, boxes_of

    assert boxes_of([FORMATS[form]], (64, 32), 0, form).tolist() == [PIXELS]
    assert boxes_of(str([FORMATS[form]]), (64, 32), 0, form).tolist() == [PIXELS], "as a CSV has them"
    task = ObjectDetection(classes=["a"], side=32, box_format=form)
    data = read([{"image": Image.new("RGB", (64, 32)), "boxes": [FORMATS[form]], "labels": ["a"]}])
    rows = task.encode(data, transformers.ViTImageProcessor(size=SMALL))
    assert rows.columns["boxes"].values[0].tolist() == [[8.0, 8.0, 24.0, 24.0]]


def detect(boxes, **options):
    rows = [
        {"image": Image.new("RGB", (64, 32)), "boxes": boxes, "labels": ["a", "b"][i % 2 : i % 2 + 1]} for i in range(4)
    ]
    told = dict(task="object-detection", valid=None, steps=1, show_progress=False, pretrained=False)
    return ft.finetune("resnet-mini", rows, "linear_probe", **told, **options)


def test_boxes_as_shares_are_no_pixels():
    with pytest.raises(FtError, match='box_format="albumentations".*box_format="yolo"'):
        detect([FORMATS["albumentations"]])
    with pytest.raises(FtError, match="(?i)box format 'shares'"):
        detect([FORMATS["albumentations"]], box_format="shares")
    with pytest.raises(FtError, match='box_format="coco"'):
        detect([[40, 20, 10, 6]])
    with pytest.raises(FtError, match="not numbers"):
        detect([["a", "b", "c", "d"]])
