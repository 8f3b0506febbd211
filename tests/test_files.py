"Files and tables as people have them: every row arrives, columns keep their text, and what nobody uses refuses nothing"

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from PIL import Image

import ftkit as ft
from ftkit.core import FtError
from ftkit.data import splits
from ftkit.data.fields import IMAGE, LABELS, TARGET, TEXT
from ftkit.data.loading import ROW_NUMBER_COLUMN, read

ROWS = [
    (f"the {n} was {w} and the tea seemed {w} on day {i}", y)
    for i in range(10)
    for n in ("soup", "room")
    for w, y in (("good", "pos"), ("bad", "neg"))
]
FRAME = pd.DataFrame(ROWS, columns=["text", "label"])
QUICK = dict(steps=1, batch_size=16, valid=0.2, show_progress=False)


def lines(before="", between=",", end="\n", after="", rows=ROWS):
    return before + "".join(f"{text}{between}{label}{after}{end}" for text, label in rows)


FILES = {
    "sep.csv": lines("sep=;\ntext;label\n", ";"),
    "quoted_sep.csv": lines('"sep=\t"\r\ntext\tlabel\r\n', "\t", "\r\n"),
    "mac.tsv": lines("text\tlabel\r", "\t", "\r"),
    "mac.csv": lines("text,label\r", ",", "\r"),
    "mac.jsonl": "".join(json.dumps(r) + "\r" for r in FRAME.to_dict("records")),
    "headless.csv": lines(),
    "headless.tsv": lines(between="\t"),
    "headless_numbers.csv": lines(rows=[(t, int(y == "pos")) for t, y in ROWS]),
    "semicolons.csv": lines("text;label\n", ";"),
    "semicolons_quoted.csv": lines(
        '"text";"label"\n', '";"', after='"', rows=[('"' + t + "; indeed", y) for t, y in ROWS]
    ),
    "commas.tsv": lines("text,label\n"),
    "bars.csv": lines("text|label\n", "|"),
    "empty_columns.csv": lines("text,label,,\n", after=",,"),
    "empty_ends.csv": lines("text,label\n", after=","),
    "empty_head.csv": lines("text,label,\n"),
    "index.csv": FRAME.to_csv(),
    "columns.json": FRAME.to_json(),
    "index.json": FRAME.to_json(orient="index"),
    "split.json": FRAME.to_json(orient="split"),
    "table.json": FRAME.to_json(orient="table"),
    "records.json": FRAME.to_json(orient="records"),
    "versioned.json": json.dumps({"version": "1.1", "data": FRAME.to_dict("records")}),
}


@pytest.mark.parametrize("name", FILES)
def test_every_row_of_a_file_arrives(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name].encode())
    data = splits.prepare(path, valid=None)
    assert len(data.train) == 40 and set(data.classes) in ({"neg", "pos"}, {"0", "1"})
    texts = [t.removesuffix("; indeed") for t in data.train[data.columns["text"]]]
    assert texts == [t for t, _ in ROWS]


@pytest.mark.parametrize("first", ["text,label", "what they wrote,verdict", "0,1", "premise,gold"])
def test_a_header_is_no_row(tmp_path, first):
    (tmp_path / "t.csv").write_text(first + "\n" + lines())
    ds = read(tmp_path / "t.csv")
    assert len(ds) == 40 and ds.column_names[:2] == first.split(",") and ds[ROW_NUMBER_COLUMN][0] == 2


def test_a_missing_header_is_said(tmp_path, capsys):
    (tmp_path / "t.csv").write_text(lines())
    assert read(tmp_path / "t.csv")[ROW_NUMBER_COLUMN][0] == 1
    assert "no header" in capsys.readouterr().out


def test_delimiter_and_encoding_are_options_everywhere(tmp_path):
    rows = [(t + " café", y) for t, y in ROWS]
    (tmp_path / "t.csv").write_bytes(lines("text~label\n", "~", rows=rows).encode("cp1252"))
    told = dict(delimiter="~", encoding="cp1252")
    run = ft.finetune("bert-mini", str(tmp_path / "t.csv"), "linear_probe", **told, **QUICK)
    assert run.inferred.rows + run.inferred.valid_rows == 40
    estimated = ft.estimate("bert-mini", str(tmp_path / "t.csv"), "linear_probe", **told)
    assert estimated.memory["rows, encoded"] > 40 * 4  # at least a token each
    Image.new("RGB", (32, 32)).save(tmp_path / "café.png")
    (tmp_path / "images.csv").write_bytes("image~label\ncafé.png~a\ncafé.png~b\n".encode("cp1252"))
    assert ft.show_batch("resnet-mini", str(tmp_path / "images.csv"), valid=None, duplicates="keep", **told)
    (tmp_path / "tab.csv").write_text(lines("text\tlabel\n", "\t"))
    assert len(read(tmp_path / "tab.csv", delimiter="\\t")) == 40
    from ftkit.cli import parse

    asked = ["finetune", "bert-mini", "t.csv", "--delimiter", ";", "--encoding", "cp1252", "--duplicates", "drop"]
    assert parse(asked).options == dict(delimiter=";", encoding="cp1252", duplicates="drop")


def test_a_workbook_is_read_or_asks_for_its_library(tmp_path, monkeypatch):
    (tmp_path / "t.xlsx").write_bytes(b"PK\3\4 no workbook")
    with pytest.raises(FtError, match="CSV"):
        read(tmp_path / "t.xlsx")
    sheet = pd.DataFrame([["text", "label"], *([t, y] for t, y in ROWS), ["NA", 7]], dtype=object)
    monkeypatch.setattr(pd, "read_excel", lambda *a, **k: {"notes": pd.DataFrame(), "Sheet 2": sheet})
    ds = read(tmp_path / "t.xlsx")
    assert ds["text"][-1] == "NA" and ds["label"][-1] == "7" and ds[ROW_NUMBER_COLUMN][0] == 2 and len(ds) == 41


CUT = "half \ud83d"


@pytest.mark.parametrize("where", ["text", "label", "other", "nested"])
def test_half_of_an_emoji_stops_nothing(tmp_path, where, capsys):
    rows = [dict(r, other="x", nested=["y"]) for r in FRAME.to_dict("records")]
    for r in rows[::5]:
        r[where] = [CUT] if where == "nested" else CUT
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for source in (tmp_path / "t.jsonl", pd.DataFrame(rows, dtype=object), rows):
        ds = splits.prepare(source, valid=None, text="text", label="label").train
        assert len(ds) == 40 and "�" in json.dumps(ds[0], ensure_ascii=False)
    assert where == "nested" or "lone surrogate" in capsys.readouterr().out


def test_both_halves_of_an_emoji_are_one():
    assert read({"text": ["\ud83d\ude00 a", "b"], "label": [0, 1]})["text"][0] == "😀 a"


# Columns keep their text until their role is known


def test_classes_are_what_the_file_says(tmp_path):
    names = ["1.1", "1.10", "2.0", "007", "7", "1e3"]
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"text {i},{names[i % 6]}\n" for i in range(60)))
    data = splits.prepare(tmp_path / "t.csv")
    assert sorted(data.classes) == sorted(names)


def test_a_file_of_decimals_and_one_of_texts_agree(tmp_path):
    (tmp_path / "a.csv").write_text(
        "text,label\n" + "".join(f"text {i},{('1.0', '1.1', '1.10')[i % 3]}\n" for i in range(30))
    )
    (tmp_path / "b.csv").write_text("text,label\n" + "".join(f"other {i},{('1.0', '1.1')[i % 2]}\n" for i in range(10)))
    assert splits.prepare(tmp_path / "a.csv", valid=tmp_path / "b.csv").classes == ["1.0", "1.1", "1.10"]


ORDER = """
from ftkit.data.splits import prepare
names = ["1.1", "1.10", "1.100", "01", "1"]
print(prepare({"text": [f"text {i}" for i in range(50)], "label": [names[i % 5] for i in range(50)]}).classes)
"""


def test_classes_stand_in_one_order_in_every_process():
    said = [
        subprocess.run(
            [sys.executable, "-c", ORDER],
            env={**os.environ, "PYTHONHASHSEED": seed, "FTKIT_QUIET": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize("pair", [("café", "cafe\u0301"), ("not good", "not  good"), ("good", "good\u200b")])
def test_labels_are_tidied_as_texts_are(pair):
    labels = [(*pair, "other")[i % 3] for i in range(30)]
    assert len(splits.prepare({"text": [f"text {i}" for i in range(30)], "label": labels}).classes) == 2


@pytest.mark.parametrize(
    "values, want",
    [
        ([5, 12], ["5", "12"]),
        ([5.5, 2.0], ["5.5", "2.0"]),
        ([3.0, float("nan"), 4.0], ["3", None, "4"]),
        ([True, False], ["True", "False"]),
        ([pd.Timestamp("2020-01-02"), pd.Timestamp("2021-03-04")], ["2020-01-02 00:00:00", "2021-03-04 00:00:00"]),
        (["5", 12, "x"], ["5", "12", "x"]),
    ],
)
def test_numbers_are_texts_where_texts_are_asked_for(values, want):
    ds = read({"text": [f"t {i}" for i in range(len(values))], "target": values})
    assert TARGET.type.convert(ds, "target", "the data", False)[0]["target"][:] == want


def test_sums_are_learned_and_codes_are_read():
    sums = pd.DataFrame([(f"{a} + {b}", a + b) for a in range(5) for b in range(5)], columns=["text", "target"])
    run = ft.finetune("t5-mini", sums, "lora", task="text2text-generation", **QUICK)
    assert run.inferred.rows + run.inferred.valid_rows == 25
    codes = pd.DataFrame({"text": range(1000, 1040), "label": ["a", "b"] * 20})
    assert splits.prepare(codes, text="text").train["text"][0].startswith("10")


def test_missing_text_is_missing_and_words_are_words(tmp_path):
    words = ["nan", "NA", "None", "null", "NaN", "N/A"]
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"{w},{v}\n" for w, v in zip(words, reversed(words))))
    ds = read(tmp_path / "t.csv")
    assert ds["text"][:] == words and ds["label"][:] == words[::-1]
    for gap in (np.nan, None, pd.NA):
        texts = pd.Series(["fine", gap, "nan", "poor"] * 3, dtype=object)
        labels = pd.Series(["a", "b", gap, "b"] * 3, dtype=object)
        with pytest.raises(FtError, match="3 with empty text .rows 1, 5, 9. and 3 with empty label .rows 2, 6, 10."):
            splits.prepare(pd.DataFrame({"text": texts, "label": labels}))
        kept = splits.prepare(pd.DataFrame({"text": texts, "label": labels}), drop_invalid=True, valid=None).train
        assert len(kept) == 6 and set(kept["text"]) == {"fine", "poor"}


# Columns that nobody uses

UNUSED = {
    "numbers beyond 64 bits": lambda i: 2**64 + i,
    "numbers and texts": lambda i: i if i % 2 else f"a{i}",
    "numbers and lists": lambda i: i if i % 2 else [i],
    "objects of several shapes": lambda i: {"a": i} if i % 2 else {"a": str(i), "b": [{"c": 1}]},
    "bytes": lambda i: bytes([i, 0, 255]),
    "bytes and texts": lambda i: b"x" if i % 2 else "x",
    "addresses of images": lambda i: f"https://cdn.example.org/{i}.jpg",
    "empty cells and one image": lambda i: "" if i else "x.jpg",
    "arrays": lambda i: np.full((3, 5), float(i)),
    "arrays of several shapes": lambda i: np.zeros((2 + i % 2, 3)),
    "sets": lambda i: {i},
    "complex numbers": lambda i: complex(i, 1),
    "times": lambda i: pd.Timestamp("2020-01-01", tz="UTC") if i % 2 else pd.Timestamp("2020-01-01"),
    "spans of time": lambda i: pd.Period("2020-01"),
    "functions": lambda i: len,
    "long texts": lambda i: "x" * 1_000_001 if i == 3 else "",
    "nothing": lambda i: None,
}


@pytest.mark.parametrize("what", UNUSED)
def test_a_column_that_nobody_uses_refuses_nothing(what, tmp_path):
    rows = [{**r, "blob": UNUSED[what](i)} for i, r in enumerate(FRAME.to_dict("records"))]
    for source in (rows, pd.DataFrame(rows)):
        data = splits.prepare(source)
        assert len(data.train) + len(data.valid) == 40
    try:
        text = "\n".join(map(json.dumps, rows))
    except TypeError:
        return
    (tmp_path / "t.jsonl").write_text(text)
    assert len(splits.prepare(tmp_path / "t.jsonl").train) == 32


def test_a_run_writes_only_the_columns_it_uses(tmp_path):
    frame = FRAME.assign(photo=["https://cdn.example.org/1.jpg", ""] * 20, blob=[b"x"] * 40)
    (tmp_path / "x.jpg").write_bytes(b"x")
    frame.assign(blob="x.jpg").to_csv(tmp_path / "t.csv", index=False)
    for source in (frame, str(tmp_path / "t.csv")):
        ft.finetune(
            "bert-mini", source, "linear_probe", text="text", label="label", output_dir=str(tmp_path / "run"), **QUICK
        )
        kept = pd.read_parquet(tmp_path / "run" / "train.parquet")
        assert set(kept) == {"text", "label", ROW_NUMBER_COLUMN}


def test_kinds_of_parquet_that_datasets_does_not_know(tmp_path):
    frame = FRAME.assign(kind=pd.Categorical(["a", "b"] * 20), label=pd.Categorical(FRAME.label))
    frame.to_parquet(tmp_path / "t.parquet")
    assert splits.prepare(tmp_path / "t.parquet").classes == ["neg", "pos"]


# Nothing is dropped without a switch


def test_repeats_stay_and_stand_on_one_side(capsys):
    table = pd.concat([FRAME[FRAME.label == "neg"], *[FRAME[FRAME.label == "pos"].head(5)] * 4], ignore_index=True)
    data = splits.prepare(table)
    assert len(data.train) + len(data.valid) == 40 and "15 of 40 rows repeat" in capsys.readouterr().out
    assert not set(data.train["text"]) & set(data.valid["text"])
    assert set(data.valid["label"]) == {"neg", "pos"} == set(data.train["label"])
    fewer = splits.prepare(table, duplicates="drop")
    assert len(fewer.train) + len(fewer.valid) == 25


@pytest.mark.parametrize("seed", range(4))
def test_a_class_of_copies_is_in_training(seed):
    "However often each text is repeated, each class keeps a text of its own for training."
    rng = np.random.default_rng(seed)
    texts = [f"text {i}" for i in range(30) for _ in range(rng.integers(1, 9))]
    table = {"text": texts, "label": [f"c{int(t[5:]) % 3}" for t in texts]}
    data = splits.prepare(table, seed=seed)
    assert not set(data.train["text"]) & set(data.valid["text"])
    assert set(data.train["label"]) == set(data.valid["label"]) == {"c0", "c1", "c2"}
    assert 0.1 < len(data.valid) / len(texts) < 0.3


def test_several_targets_for_one_text_stay():
    table = pd.DataFrame(
        [("greet", f"hello {i}") for i in range(10)] + [(t, "fine") for t, _ in ROWS], columns=["text", "target"]
    )
    data = splits.prepare(table, fields=(TEXT, TARGET))
    assert len(data.train) + len(data.valid) == 50
    assert len({"greet" in data.train["text"][:], "greet" in data.valid["text"][:]}) == 2
    texts = splits.prepare({"text": ["again and again"] * 6 + [t for t, _ in ROWS]}, fields=(TEXT,))
    assert len(texts.train) + len(texts.valid) == 46


def test_one_text_in_two_classes_stays_and_is_named(capsys):
    table = pd.concat([FRAME, pd.DataFrame([(ROWS[0][0], "neg")], columns=["text", "label"])], ignore_index=True)
    data = splits.prepare(table)
    assert len(data.train) + len(data.valid) == 41 and data.report["train"]["conflicts"] == [(40, 0)]
    assert "40 and 0" in capsys.readouterr().out
    dropped = splits.prepare(table, duplicates="drop")
    assert len(dropped.train) + len(dropped.valid) == 41


# Few rows


def test_many_classes_of_two_rows_train_with_a_warning():
    table = pd.DataFrame(
        [(f"{x} {k} number {i}", f"intent_{i}") for i in range(77) for k, x in enumerate(("please", "could you"))],
        columns=["text", "label"],
    )
    with pytest.warns(UserWarning, match="154 rows of 77 classes"):
        data = splits.prepare(table, label="label")
    assert len(data.classes) == 77 and set(data.train["label"]) == set(data.classes)


def test_a_class_of_one_row_stays_in_training(capsys):
    table = pd.concat([FRAME, pd.DataFrame([("the only one of its kind", "rare")], columns=["text", "label"])])
    for seed in range(3):
        data = splits.prepare(table, seed=seed)
        assert "rare" in data.train["label"][:] and "rare" not in data.valid["label"][:]
    assert "1 of 3 classes have a single row, which stays in training: rare" in capsys.readouterr().out


def test_enough_rows_are_no_reason_to_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits.prepare(FRAME)


# Several labels

LISTS = {
    "lists": [["a", "b"], ["b"], []],
    "bars": ["a|b", "b", ""],
    "commas": ["a, b", "b", ""],
    "semicolons": ["a; b", "b", ""],
    "as Python writes them": ["['a', 'b']", "['b']", "[]"],
    "as JSON writes them": ['["a", "b"]', '["b"]', "[]"],
    "as NumPy writes them": ["['a' 'b']", "['b']", "[]"],
    "tuples": ["('a', 'b')", "('b',)", "()"],
    "without quotes": ["[a, b]", "[b]", "[]"],
    "sets": ["{'b', 'a'}", "{'b'}", "set()"][:2] + ["[]"],
}


@pytest.mark.parametrize("how", LISTS)
def test_several_labels_as_people_write_them(how):
    from ftkit.data.labels import check_multilabel, label_sets

    ds = Dataset.from_dict({"labels": LISTS[how], ROW_NUMBER_COLUMN: [0, 1, 2]})
    assert label_sets(ds, "labels") == [["a", "b"], ["b"], []] and check_multilabel(ds, "labels") == ["a", "b"]


def test_columns_of_ones_and_zeros_are_labels(capsys):
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(20)]
    flags = {"toxic": [i % 2 for i in range(20)], "insult": [i % 3 == 0 for i in range(20)]}
    told = dict(fields=(IMAGE, LABELS), valid=None)
    named = splits.prepare({"image": images, **flags}, columns={"labels": ["toxic", "insult"]}, **told)
    found = splits.prepare({"image": images, **flags}, **told)
    assert named.classes == found.classes == ["toxic", "insult"] and "ones and zeros" in capsys.readouterr().out
    assert named.train[named.columns["labels"]][:2] == [[1], [0]]
    one = splits.prepare(
        {"text": [f"t {i}" for i in range(20)], "yes": flags["toxic"], "no": [1 - f for f in flags["toxic"]]},
        label=["no", "yes"],
    )
    assert one.classes == ["no", "yes"] and len(one.train) == 16
    with pytest.raises(FtError, match="Row 1 has 2 of the labels"):
        splits.prepare({"text": ["a", "b"], "yes": [1, 1], "no": [0, 1]}, label=["no", "yes"])
    with pytest.raises(FtError, match="ones and zeros"):
        splits.prepare({"text": ["a", "b"], "yes": [1, 5], "no": [0, 1]}, label=["no", "yes"])


# Whatever is done to a file, the answer is rows or one sentence


def mutated(text: str, rng) -> bytes:
    "A file after one to three changes of its bytes or its lines."
    data = bytearray(text.encode())
    for _ in range(rng.integers(1, 4)):
        at, kind = int(rng.integers(len(data))), rng.integers(6)
        if kind == 0:
            data[at] = int(rng.integers(256))
        elif kind == 1:
            del data[at : at + int(rng.integers(1, 40))]
        elif kind == 2:
            data[at:at] = rng.choice(
                np.array([b'"', b",", b"\n", b"\0", b"{", b"]", b"\\ud800", b"\xff", b"1e999", b"NaN"], object)
            )
        elif kind == 3:
            data = data[: at + 1]
        elif kind == 4:
            data[at:at] = data[: int(rng.integers(60))]
        else:
            data = bytearray(
                data.replace(b"pos", rng.choice(np.array([b"", b"[1]", b"null", b"\xc3", b"1.0"], object)))
            )
        if not data:
            return b""
    return bytes(data)


SEED = int(os.environ.get("FTKIT_SEED") or 0) or pd.Timestamp.today().toordinal()


@pytest.mark.sweep(least=8)
@pytest.mark.parametrize("name", [n for n in FILES if not n.startswith("headless")])
def test_a_damaged_file_ends_in_rows_or_in_a_sentence(tmp_path, name):
    rng = np.random.default_rng([SEED, *name.encode()])
    print(f"FTKIT_SEED={SEED}")
    for i in range(10):
        path = tmp_path / f"{i}_{name}"
        path.write_bytes(mutated(FILES[name], rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = splits.prepare(path)
            assert len(data.train)
        except FtError as e:
            assert "\n" not in str(e).strip() and len(str(e)) < 900


def test_a_dict_of_parts_keeps_its_parts():
    assert isinstance(read({"train": FRAME, "test": FRAME}), DatasetDict)
