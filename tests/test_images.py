"Images from everywhere: what is odd is brought to one form, what is broken is named, and neither ends in an epoch."

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from ftkit.core import FtError
from ftkit.data.fields import IMAGE, LABEL
from ftkit.data.images import decode_image, open_image, validate_images
from ftkit.data.loading import read
from ftkit.data.splits import prepare


def paint(seed=0, shape=(12, 16, 3)):
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("cats/a.png", "cats/b.jpg", "cats/inner/c.png", "dogs/d.png", "dogs/e.png")):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(paint(i)).save(tmp_path / "pets" / name)
    for junk in (".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / "pets" / junk).mkdir()
        Image.fromarray(paint(9)).save(tmp_path / "pets" / junk / "a.png")
    (tmp_path / "pets" / ".DS_Store").write_bytes(b"x")
    return tmp_path / "pets"


def test_class_folders_hold_no_junk(folder):
    ds = read(folder)
    assert ds.features["label"].names == ["cats", "dogs"] and ds["label"][:] == [0, 0, 0, 1, 1]


def test_parts_and_archives(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_HOME", str(tmp_path / "home"))
    whole = tmp_path / "whole"
    for part in ("Train", "val"):
        (whole / part).parent.mkdir(exist_ok=True)
        __import__("shutil").copytree(folder, whole / part)
    assert {k: len(v) for k, v in read(whole).items()} == {"train": 5, "valid": 5}
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as z:
        for p in folder.rglob("*.*g"):
            z.write(p, p.relative_to(tmp_path))
    assert len(read(tmp_path / "pets.zip")) == len(read(tmp_path / "pets.zip")) == 5


def test_a_table_beside_files(folder):
    (folder / "labels.csv").write_text("filename,kind\ncats/a.png,cat\ndogs/d.png,dog\n")
    found = prepare(folder, valid=None, fields=(IMAGE, LABEL))
    assert found.columns == {"image": "filename", "label": "kind"} and found.classes == ["cat", "dog"]
    assert open_image(read(folder / "labels.csv")[0]["filename"])[0].size == (16, 12)


def test_other_libraries(folder):
    from datasets import Dataset
    from torchvision.datasets import ImageFolder

    decoded_by_datasets = Dataset.from_dict(
        {"image": [Image.fromarray(paint(i)) for i in range(4)], "label": [0, 1, 0, 1]}
    )
    pairs = [(Image.fromarray(paint(i)), i % 2) for i in range(4)]

    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return pairs[i]

    for source in (
        decoded_by_datasets,
        Pairs(),
        {"image": np.stack([paint(i) for i in range(4)]), "label": [0, 1, 0, 1]},
    ):
        ds = read(source)
        assert (np.asarray(open_image(ds[2]["image"])[0]) == paint(2)).all() and ds["label"][:] == [0, 1, 0, 1]
    import shutil

    for junk in (".ipynb_checkpoints", "__MACOSX"):
        shutil.rmtree(folder / junk)
    assert read(ImageFolder(str(folder))).features["label"].names == ["cats", "dogs"]


def test_odd_images_are_brought_to_one_form(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(paint()).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(paint()).convert("CMYK").save(tmp_path / "print.jpg")
    Image.fromarray(paint()).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(np.dstack([paint(), np.zeros((12, 16), np.uint8)])).save(tmp_path / "clear.png")
    Image.fromarray(paint()).save(tmp_path / "png.jpg", "PNG")
    images = {p.stem: open_image(p) for p in tmp_path.iterdir()}
    assert images["turned"][0].size == (12, 16) and images["turned"][1] == ["rotated upright"]
    assert np.asarray(images["deep"][0]).max() == round(40000 / 257)
    assert np.asarray(images["clear"][0]).min() == 255
    assert images["print"][1] and images["palette"][1] and not images["png"][1]
    assert all(decode_image(p, 8).shape in ((8, 8), (8, 8, 3)) for p in tmp_path.iterdir())


def test_broken_images_are_named_and_counted(folder):
    whole = (folder / "cats/b.jpg").read_bytes()
    (folder / "dogs/short.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "dogs/words.png").write_text("not a image")
    Image.fromarray(paint(shape=(1, 1, 3))).save(folder / "dogs/dot.png")
    with pytest.raises(FtError, match="3 of 8 images cannot be read") as e:
        prepare(folder, valid=None, fields=(IMAGE, LABEL))
    assert all(n in str(e.value) for n in ("short.jpg", "words.png", "dot.png", "drop_invalid=True"))
    found = prepare(folder, valid=None, drop_invalid=True, fields=(IMAGE, LABEL))
    assert len(found.train) == 5 and len(found.report["train"]["unread"]) == 3


def test_a_image_in_both_parts_is_taken_out_of_training(folder):
    twice = np.stack([paint(i) for i in range(10)])
    found = prepare(
        {"train": {"image": twice, "label": np.arange(10) % 2}, "valid": {"image": twice[:2], "label": [0, 1]}},
        fields=(IMAGE, LABEL),
    )
    assert len(found.report["leaks"]) == 2 and len(found.train) == 8


def test_keys_go_by_content(folder):
    into = io.BytesIO()
    Image.fromarray(paint(3)).save(into, "PNG")
    a, _ = validate_images(
        read([{"image": Image.fromarray(paint(3)), "label": 0}, {"image": Image.fromarray(paint(4)), "label": 1}]),
        "image",
    )
    assert len(set(a["_key:image"][:])) == 2
