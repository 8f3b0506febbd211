"""From a source to clean parts: what is read, what is refused and how it is said, and in which order"""

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ftkit.core import FtError
from ftkit.data import labels, loading, splits, validation
from ftkit.data.fields import LABEL, TEXT, Field, infer_columns
from ftkit.data.loading import ROW_NUMBER_COLUMN, read
from ftkit.datasets.reviews import reviews
from ftkit.datasets.reviews import splits as review_splits

REAL = Path(os.environ.get("FTKIT_DATA") or ROOT.parent / "shared" / "data")
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data at FTKIT_DATA or {REAL.parent.name}/{REAL.name}")
FIELDS = [TEXT, LABEL]
TABLE = {"text": ["fine", "dull", "great", "poor"], "label": [1, 0, 1, 0]}


def refuses(call, *parts):
    "The message of the one-or-two-sentence error that names all of `parts`."
    with pytest.raises(FtError) as e:
        call()
    message = str(e.value)
    assert "\n" not in message and len(message) < 600
    for part in parts:
        assert str(part) in message, message
    return message


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write


# Sources


def test_every_kind_of_source_gives_the_same_table(write, tmp_path):
    df = pd.DataFrame(TABLE)
    df.to_parquet(tmp_path / "t.parquet")
    Dataset.from_dict(TABLE).save_to_disk(str(tmp_path / "saved"))
    rows = df.to_dict("records")
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    same = [
        df,
        rows,
        TABLE,
        Dataset.from_dict(TABLE),
        tmp_path / "t.parquet",
        str(tmp_path / "saved"),
        write("t.csv", df.to_csv(index=False)),
        write("t.tsv", df.to_csv(index=False, sep="\t")),
        write("T.CSV", df.to_csv(index=False)),
        write("t.jsonl", lines),
        write("t.json", json.dumps(rows)),
        write("columns.json", json.dumps(TABLE)),
        write("wrapped.json", json.dumps({"data": rows})),
        write("lines.json", lines),
        write("t.csv.gz", gzip.compress(df.to_csv(index=False).encode())),
        write("t.jsonl.gz", gzip.compress(lines.encode())),
        write("crlf.tsv", df.to_csv(index=False, sep="\t", lineterminator="\r\n")),
    ]
    for source in same:
        assert read(source).remove_columns(ROW_NUMBER_COLUMN).to_dict() == TABLE, source


def test_rows_are_numbered_as_an_editor_does(write):
    assert read(write("a.csv", 'text,label\nfine,1\n"two\nlines",0\n\nlast,1\n'))[ROW_NUMBER_COLUMN][:] == [2, 3, 6]
    assert read(write("a.tsv", "text\tlabel\nfine\t1\n\nlast\t1\n"))[ROW_NUMBER_COLUMN][:] == [2, 4]
    assert read(write("a.jsonl", '{"text": "a"}\n\n{"text": "b"}\n'))[ROW_NUMBER_COLUMN][:] == [1, 3]
    assert read(read(write("a.csv", "text,label\nfine,1\npoor,0\n")).select([1]))[ROW_NUMBER_COLUMN][:] == [3]
    joined = Dataset.from_dict({"text": ["a", "b"], ROW_NUMBER_COLUMN: [5, 5]})
    assert read(joined)[ROW_NUMBER_COLUMN][:] == [0, 1]


def test_texts_stay_as_they_stand(write):
    ds = read(write("a.csv", "text,label\nNA,1\nnull,0\n007,1\n,0\nNone,1\n"))
    assert ds["text"][:] == ["NA", "null", "007", "", "None"] and ds["label"][:] == [1, 0, 1, 0, 1]
    assert read(write("n.csv", "text,score\na,1.5\nb,\nc,2.0\n"))["score"][:] == [1.5, None, 2.0]


def test_a_quote_in_a_tsv_is_a_quote(write):
    ds = read(write("q.tsv", 'text\tlabel\n"fine\t1\nsay "hi" now\t0\n"whole ""one"""\t1\n'))
    assert ds["text"][:] == ['"fine', 'say "hi" now', 'whole "one"']
    assert read(write("m.tsv", 'text\tlabel\n"two\nlines"\t1\nfine\t0\n'))["text"][:] == ["two\nlines", "fine"]


def test_parts(write, tmp_path):
    write("d/train.csv", "text,label\nfine,1\n"), write("d/valid.csv", "text,label\npoor,0\n")
    both = read(tmp_path / "d")
    assert (
        isinstance(both, DatasetDict)
        and list(both) == ["train", "valid"]
        and read(tmp_path / "d", split="valid")["text"][:] == ["poor"]
    )
    assert list(read({"train": TABLE, "test": pd.DataFrame(TABLE)})) == ["train", "test"]
    refuses(lambda: read(tmp_path / "d", split="dev"), "dev", "train, valid")
    refuses(lambda: read(write("e/readme.txt", "x").parent), "contains neither images nor a train")


CHINESE = "这个酒店的服务很好，房间也很大，我们非常喜欢。"


@pytest.mark.parametrize(
    "encoding, said",
    [("utf-8", ""), ("utf-8-sig", "byte order mark"), ("gb18030", "GB18030"), ("gbk", "GB18030"), ("utf-16", "")],
)
def test_encodings_that_are_recognised(write, capsys, encoding, said):
    ds = read(write("a.csv", f"text,label\n{CHINESE},1\n很差，再也不来了,0\n".encode(encoding)))
    assert ds.column_names[0] == "text" and ds["text"][0] == CHINESE
    out = capsys.readouterr().out
    assert said in out and out.count("\n") == bool(said)


@pytest.mark.parametrize(
    "encoding, text",
    [
        ("latin-1", "café réussi, à revoir"),
        ("cp1251", "Отличный отель, хорошее обслуживание и номера"),
        ("euc-kr", "호텔 서비스가 정말 좋았고 방도 컸습니다"),
        ("shift_jis", "このホテルのサービスはとても良かったです"),
        ("big5", "這個酒店的服務很好，房間也很大"),
        ("cp1252", "Größe und Qualität überzeugen"),
    ],
)
def test_other_encodings_are_refused_by_line_and_byte(write, encoding, text):
    path = write("a.tsv", b"text\tlabel\nfine\t1\n" + text.encode(encoding) + b"\t0\n")
    refuses(lambda: read(path), "a.tsv", "line 3, byte", "UTF-8", "encoding=")
    assert read(path, encoding=encoding)["text"][1] == text


def test_broken_utf8_is_not_taken_for_chinese(write):
    refuses(lambda: read(write("a.tsv", ("text\tlabel\n" + f"{CHINESE}\t1\n" * 20).encode()[:-5])), "not UTF-8")
    refuses(lambda: read(write("b.csv", b"text,label\n\0\1\2,1\n")), "binary")


def test_what_cannot_be_read(write, tmp_path):
    write("mine.csv", "text,label\nfine,1\n")
    refuses(lambda: read(tmp_path / "mien.csv"), "mien.csv", "mine.csv")
    refuses(lambda: read(tmp_path / "no" / "mine.csv"), "no folder")
    refuses(lambda: read(write("empty.csv", "")), "empty.csv", "empty")
    refuses(lambda: read(write("head.csv", "text,label\n")), "no rows")
    refuses(lambda: read(write("blank.jsonl", "\n\n")), "empty")
    refuses(lambda: read(write("a.docx", "x")), "docx", ".csv")
    refuses(lambda: read(write("ragged.csv", "text,label\nfine,1\nwell, well,0\n")), "line 3", "3 fields")
    refuses(lambda: read(write("short.tsv", "text\tlabel\nfine\t1\npoor\n")), "line 3", "1 field,")
    refuses(lambda: read(write("quote.csv", 'text,label\nfine,1\n"poor,0\ngood,1\n')), "line 3", "never closed")
    refuses(lambda: read(write("semi.csv", "text;label\nfine;1\npoor;0;1\n")), "';'", "delimiter=")
    refuses(lambda: read(write("semi3.csv", "text;label\nfine;1\n"), delimiter="; "), "one character")
    refuses(lambda: read(write("twice.csv", "text,text\na,b\n")), "two columns named 'text'")
    refuses(lambda: read(write("bad.jsonl", '{"text": "a"}\n{"text": }\n')), "line 2")
    refuses(lambda: read(write("list.jsonl", '{"text": "a"}\n["b"]\n')), "line 2", "not an object")
    refuses(lambda: read(write("bad.json", '[{"text": ')), "not valid JSON")
    refuses(lambda: read(write("cut.parquet", b"PAR1xxxx")), "cut.parquet", "truncated")
    refuses(lambda: read(write("cut.csv.gz", gzip.compress(b"text,label\n" * 100)[:-20])), "cut.csv.gz", "truncated")
    refuses(lambda: read({"text": ["a", "b"], "label": [1]}), "differ in length")
    assert read(write("semi2.csv", "text;label\nfine;1\n"), delimiter=";")["label"][:] == [1]


def test_a_huge_row_is_named(write):
    huge = "x" * 1_000_001
    refuses(lambda: read(write("a.csv", f"text,label\nfine,1\n{huge},0\n")), "a.csv, line 3", "1,000,000")
    refuses(lambda: read(write("a.tsv", f"text\tlabel\nfine\t1\n{huge}\t0\n")), "row 3")
    refuses(lambda: read(write("a.jsonl", json.dumps({"text": huge}) + "\n")), "row 1")
    refuses(lambda: read({"text": ["a", huge], "label": [0, 1]}), "row 1")
    import csv

    assert csv.field_size_limit() == 131072, "the process-wide limit is put back"
    assert len(read(write("b.csv", f"text,label\n{'x' * 900_000},1\n"))["text"][0]) == 900_000


@pytest.mark.parametrize(
    "source", [None, "", [], {}, 3, pd.DataFrame({"text": []}), Dataset.from_dict({"text": []}), [1, 2]]
)
def test_no_source(source):
    refuses(lambda: read(source))


def test_names(monkeypatch):
    assert len(read("reviews")) == 1200
    refuses(lambda: read("reveiws"), "'reviews'")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    refuses(lambda: read("some-org/some-data-v1.5"), "offline", "bundled")


def test_threads_do_not_share_the_field_limit(write):
    path, seen = write("a.csv", "text,label\n" + f"{'x' * 200_000},1\n" * 20), []
    threads = [threading.Thread(target=lambda: seen.append(len(read(path)))) for _ in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert seen == [20] * 4


# Columns


@pytest.mark.parametrize(
    "table, want",
    [
        ({"id": [1, 2], "sentence": ["a b", "c d"], "target": [0, 1]}, ("sentence", "target")),
        ({"Review": ["a", "b"], "Stars": [5, 1]}, ("Review", "Stars")),
        ({"was": ["ein guter Film", "ein schlechter Film"] * 3, "wie": ["ja", "nein"] * 3}, ("was", "wie")),
    ],
)
def test_columns_are_found(table, want, capsys):
    assert tuple(f.column for f in infer_columns(read(table))) == want
    assert want[0] in capsys.readouterr().out


def test_columns_that_cannot_be_found():
    refuses(lambda: infer_columns(read(TABLE), text="txt"), "'txt'", "Did you mean 'text'", "text, label")
    refuses(lambda: infer_columns(read(TABLE), label="stars"), "'stars'", "text, label")
    refuses(
        lambda: infer_columns(
            read(
                {
                    "a": ["one long sentence", "two long sentences"],
                    "b": ["three long ones", "four long ones, too"],
                    "label": [0, 1],
                }
            )
        ),
        "text=",
        "a, b",
    )
    refuses(lambda: infer_columns(read({"text": ["one", "two"]})), "label=")
    refuses(lambda: infer_columns(read(TABLE), FIELDS, text="text", label="text"), "both")


# Cleaning


def test_empty_rows_are_counted_and_dropped_only_on_request():
    table = {"text": ["fine", " ", None, "dull", "\u200b", "so so"], "label": ["a", "b", "a", "", "b", "b"]}
    refuses(
        lambda: splits.prepare(table),
        "6 rows",
        "3 with empty text (rows 1, 2, 4)",
        "1 with empty label (row 3)",
        "drop_invalid=True",
    )
    kept, report = validation.clean(read(table), FIELDS)
    assert (
        kept["text"][:] == ["fine", "so so"]
        and kept[ROW_NUMBER_COLUMN][:] == [0, 5]
        and report["dropped"] == [1, 2, 3, 4]
    )
    assert validation.empty_rows(read(pd.DataFrame({"text": ["a", np.nan], "label": [np.nan, 1.0]})), FIELDS) == dict(
        text=[1], label=[0]
    )
    refuses(lambda: validation.clean(read({"text": [""], "label": [1]}), FIELDS), "Every one")


def test_file_and_line_are_named(write):
    refuses(lambda: splits.prepare(write("mine.csv", "text,label\nfine,1\n,0\npoor,0\n")), "mine.csv", "row 3")


def test_repeats_and_contradictions_are_reported_and_kept(capsys):
    table = read({"text": ["A b", "a  B", "a b", "c"], "label": [1, 1, 0, 0]})
    ds, report = validation.deduplicate(table, FIELDS)
    assert len(ds) == 4 and report == dict(duplicates=[(1, 0)], conflicts=[(2, 0)])
    said = capsys.readouterr().out
    assert "2 and 0" in said and 'duplicates="drop"' in said
    assert validation.deduplicate(table, FIELDS, drop=True)[0]["text"][:] == ["A b", "a b", "c"]


def test_classes_in_a_stable_order():
    def names(values):
        return labels.label_names(read({"y": values}), "y")

    assert (
        names([10, 9, 10, 1]) == ["1", "9", "10"]
        and names(["b", "a", "b"]) == ["a", "b"]
        and names([True, False]) == ["False", "True"]
    )
    assert names([1.0, 0.0]) == ["0", "1"] and names(["10", "9"]) == ["9", "10"]
    f = Features(y=ClassLabel(names=["zebra", "ant"]), text=Value("string"))
    ds = read(Dataset.from_dict({"y": [1, 0, 1], "text": ["a", "b", "c"]}, features=f))
    assert labels.label_names(ds, "y") == ["zebra", "ant"] and labels.label_ids(ds, "y", ["zebra", "ant"]) == [
        1,
        0,
        1,
    ]
    unlabelled = read(Dataset.from_dict({"y": [1, -1], "text": ["a", "b"]}, features=f))
    assert validation.empty_rows(unlabelled, [TEXT, Field("label", "category", column="y", is_input=False)]) == dict(
        text=[], label=[1]
    )


def test_labels_that_are_numbers_with_names_reach_the_model():
    "As data sets of the hub have them, and as a table with an empty cell makes them: decimals."
    import ftkit as ft

    words = [f"{'fine' if i % 2 else 'dull'} film number {i}" for i in range(24)]
    named = Dataset.from_dict(
        {"text": words, "label": [i % 2 for i in range(24)]},
        features=Features(text=Value("string"), label=ClassLabel(names=["bad", "good"])),
    )
    for data, classes in (
        (named, ["bad", "good"]),
        ({"text": words, "label": [float(i % 2) for i in range(24)]}, ["0", "1"]),
    ):
        run = ft.finetune("bert-mini", data, "linear_probe", steps=2)
        assert run.task.classes == classes and 0 <= run.metrics["accuracy"] <= 1


def test_classes_that_cannot_be_learned():
    refuses(lambda: splits.prepare({"text": list("abcd"), "label": [1] * 4}), "'1'", "two classes")
    refuses(lambda: splits.prepare(TABLE, valid={"text": ["new"], "label": [7]}), "'7' (row 0)", "'0', '1'")
    refuses(
        lambda: splits.prepare(
            {"text": [f"t {i}" for i in range(60)], "label": [i / 7 for i in range(60)]}, valid=None
        ),
        "60 different values",
    )
    refuses(
        lambda: splits.prepare({"text": ["a", "b"], "label": [[0, 1], [1]]}, label="label", text="text"),
        "several values",
    )
    refuses(lambda: splits.prepare({"text": [["a"], ["b"]], "label": [0, 1]}, label="label", text="text"), "not text")
    refuses(
        lambda: splits.prepare({"text": list("abc") * 10, "id": [f"r{i}" for i in range(30)]}, text="text", label="id"),
        "30 different values",
    )


class Words:
    "A tokenizer of known words; 0 is unknown."

    unk_token_id = 0

    def __init__(self, *known):
        self.known, self.seen = known, 0

    def __call__(self, texts, **options):
        self.seen += len(texts)
        return {"input_ids": [[int(w in self.known) for w in t.split()] for t in texts]}


def test_unknown_words(recwarn):
    tokenizer = Words("a", "b", "c")
    assert validation.unknown_rate(tokenizer, ["a b", "c d"]) == 0.25
    assert validation.unknown_rate(tokenizer, ["a d"] * 9000) == 0.5 and tokenizer.seen == 2002
    tokenizer.unk_token_id = None
    assert validation.unknown_rate(tokenizer, ["x"]) == 0 and validation.unknown_rate(Words(), []) == 0
    assert validation.check_unknown(0.04) == 0.04 and not recwarn.list
    with pytest.warns(UserWarning, match="10%"):
        validation.check_unknown(0.1, "bert-mini")
    refuses(
        lambda: validation.check_unknown(0.9, "bert-mini"),
        "bert-mini",
        "90%",
        "bert-base-multilingual-cased",
        "xlm-roberta-base",
    )


# Splits


def test_shares_are_fair_and_seeded():
    ds = read({"text": [f"t{i}" for i in range(103)], "label": ["a"] * 90 + ["b"] * 12 + ["c"]})
    for seed in range(5):
        train, valid = splits.split(ds, 0.2, "label", seed)
        assert (
            len(valid) == 21
            and valid["label"][:].count("a") == 18
            and valid["label"][:].count("b") in (2, 3)
            and "c" not in valid["label"][:]
        )
        assert sorted(train[ROW_NUMBER_COLUMN][:] + valid[ROW_NUMBER_COLUMN][:]) == list(range(103)) and train[
            ROW_NUMBER_COLUMN
        ][:] == sorted(train[ROW_NUMBER_COLUMN][:])

    def draw(seed):
        return splits.split(ds, 0.2, "label", seed)[1][ROW_NUMBER_COLUMN][:]

    assert draw(0) == draw(0) != draw(1)
    assert splits.split(ds, None) == (ds, None) and splits.split(ds, ds)[1] is ds


def test_groups_stay_whole():
    ds = read(
        {
            "text": [f"t{i}" for i in range(200)],
            "label": [i % 2 for i in range(200)],
            "who": [f"p{i % 23}" for i in range(200)],
        }
    )
    for share in (0.1, 0.2, 0.4, 0.7):
        train, valid = splits.split(ds, share, "label", groups="who")
        assert not set(train["who"]) & set(valid["who"]) and abs(len(valid) / 200 - share) < 0.15
    refuses(lambda: splits.split(ds, 0.2, "label", groups="author"), "'author'", "who")
    refuses(lambda: splits.split(read(TABLE | {"who": ["x"] * 4}), 0.2, "label", groups="who"), "one group")


@pytest.mark.parametrize("share", [0, 0.0, 1.0, 1.5, -0.2, True, 2])
def test_shares_that_are_none(share):
    refuses(lambda: splits.split(read(TABLE), share, "label"), "fraction")


def test_too_few_rows_to_split():
    refuses(lambda: splits.prepare({"text": ["a", "b"], "label": [0, 1]}, valid=0.2), "2 rows", "one split")


def test_leaks_leave_training_and_are_named(capsys):
    theirs = {"text": ["  FINE", "new"], "label": [1, 0]}
    data = splits.prepare(TABLE, valid=theirs)
    assert (
        data.report["leaks"] == [(0, 0)]
        and data.train["text"][:] == ["dull", "great", "poor"]
        and "0 and 0" in capsys.readouterr().out
    )
    assert len(splits.prepare(TABLE, valid=theirs, allow_leakage=True).train) == 4
    refuses(lambda: splits.prepare(TABLE, valid=TABLE), "same rows")


def test_the_order_is_clean_deduplicate_split_leakage_augment(monkeypatch):
    calls = []
    for module, name in [
        (loading, "read"),
        (validation, "clean"),
        (validation, "deduplicate"),
        (splits, "split"),
        (splits, "leakage"),
    ]:

        def recorded(*a, _name=name, _f=getattr(module, name), **k):
            calls.append(_name)
            return _f(*a, **k)

        monkeypatch.setattr(module, name, recorded)
    seen = []

    def augment(ds):
        calls.append("augment")
        seen.extend(ds["text"])
        return Dataset.from_list([row for r in ds.to_list() for row in (r, r | dict(text=r["text"] + " indeed"))])

    table = {"text": [f"text {i // 2}" for i in range(80)] + [""], "label": [i // 2 % 2 for i in range(80)] + [1]}
    data = splits.prepare(table, valid=0.25, drop_invalid=True, augment=augment, duplicates="drop")
    assert calls == ["read", "clean", "deduplicate", "split", "leakage", "augment"]
    assert (
        len(data.valid) == 10 and len(seen) == 30 and len(data.train) == 60 and not set(seen) & set(data.valid["text"])
    )
    refuses(lambda: splits.prepare(table, drop_invalid=True, augment=lambda ds: ds.remove_columns("text")), "augment")


def test_the_source_may_bring_its_own_parts(capsys):
    own = {"train": TABLE, "validation": {"text": ["new", "newer"], "label": [0, 1]}}
    assert splits.prepare(own).valid["text"][:] == ["new", "newer"] and "validation" in capsys.readouterr().out
    assert splits.prepare(own, valid=None).valid is None
    refuses(lambda: splits.prepare({"a": TABLE, "b": TABLE}), "none named 'train'")
    refuses(lambda: splits.prepare(TABLE, valid={"body": ["x"], "label": [1]}), "validation", "body, label")


def test_labels_mean_the_same_in_both_files():
    data = splits.prepare(TABLE, valid={"text": ["new", "newer"], "label": ["0", "1"]})
    assert data.classes == ["0", "1"] and labels.label_ids(data.valid, "label", data.classes) == [0, 1]


CHILD = """
import hashlib, json
from ftkit.datasets.reviews import reviews
from ftkit.data.splits import prepare
rows = reviews(400, seed=3)
prepared = prepare(rows, label="label", text="text")
print(hashlib.sha256(json.dumps(rows.to_list()).encode()).hexdigest(), prepared.fingerprint)
"""


def test_the_same_in_every_process():
    "A fresh interpreter with a seed of its own for the hashes of texts: forks share this one's."
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    said = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    here = hashlib.sha256(json.dumps(reviews(400, seed=3).to_list()).encode()).hexdigest()
    assert said == f"{here} {splits.prepare(reviews(400, seed=3)).fingerprint}\n"


def test_the_fingerprint_is_of_the_content():
    base = splits.prepare(TABLE, valid=0.5).fingerprint
    assert base == splits.prepare(pd.DataFrame(TABLE | {"other": list("wxyz")}), valid=0.5).fingerprint
    assert base != splits.prepare(TABLE | {"text": ["fine", "dull", "great", "bad"]}, valid=0.5).fingerprint
    assert base != splits.prepare(TABLE, valid=0.25).fingerprint


# Reviews


def test_reviews_are_balanced_unique_and_marked():
    df = reviews(800, seed=1, noise=0.1).to_pandas()
    assert df.text.str.casefold().nunique() == 800 and set(df.label.value_counts()) == {400} and df.flipped.sum() == 80
    assert (
        df.level.value_counts().to_dict() == {1: 320, 2: 240, 3: 160, 4: 80}
        and df.text.str.split().str.len().between(5, 40).all()
    )
    truth = df.label.where(~df.flipped, df.label.map({"positive": "negative", "negative": "positive"}))
    assert pd.crosstab(df.level, truth).to_numpy().tolist() == [[160, 160], [120, 120], [80, 80], [40, 40]]
    assert len(set(" ".join(df.text).lower().split())) > 450
    assert set(reviews(40, difficulty=[2, 3])["level"]) == {2, 3} and not any(reviews(40, noise=0)["flipped"])
    state = random.getstate()
    reviews(10)
    assert random.getstate() == state, "the global generator is left alone"


def test_review_splits_share_no_text():
    parts = review_splits()
    assert (parts["train"].num_rows, parts["valid"].num_rows) == (1000, 200) and not any(parts["valid"]["flipped"])
    assert splits.leakage(parts["train"], parts["valid"], FIELDS) == []


@pytest.mark.parametrize(
    "options",
    [dict(difficulty=5), dict(difficulty=[]), dict(noise=0.5), dict(noise=-1), dict(rows=0), dict(rows=10**9)],
)
def test_reviews_that_cannot_be_made(options):
    refuses(lambda: reviews(**options))


# Real files


@real
@pytest.mark.parametrize("part, rows", [("train", 6920), ("dev", 872), ("test", 1821)])
def test_real_sst2(part, rows):
    ds = read(REAL / "sst2" / f"{part}.tsv")
    assert len(ds) == rows and set(ds["label"]) == {0, 1}
    lines = (REAL / "sst2" / f"{part}.tsv").read_text(encoding="utf-8").split("\n")
    assert all(
        lines[r - 1].split("\t")[0].strip('"') == t.strip('"') for t, r in zip(ds["text"], ds[ROW_NUMBER_COLUMN])
    )


@real
def test_real_sst2_prepared():
    data = splits.prepare(REAL / "sst2" / "train.tsv", valid=REAL / "sst2" / "dev.tsv", text="text", label="label")
    assert (
        data.classes == ["0", "1"]
        and len(data.train) > 6800
        and len(data.valid) > 860
        and not splits.leakage(data.train, data.valid, data.fields)
    )


@real
@pytest.mark.parametrize("name", ["allagree", "50agree"])
def test_real_phrasebank(name):
    data = splits.prepare(REAL / "financial_phrasebank" / f"sentences_{name}.tsv", valid=0.2)
    assert (
        data.columns == {"text": "text", "label": "label"}
        and data.classes == ["negative", "neutral", "positive"]
        and abs(len(data.valid) / (len(data.train) + len(data.valid)) - 0.2) < 0.001
    )


@real
def test_other_real_files():
    assert len(read(REAL / "instructions" / "dolly_sample.jsonl")) == 151
    assert len(read(REAL / "hh_rlhf_helpful" / "train.jsonl.gz")) == 2000
    assert len(read(REAL / "multi30k_en_de" / "val.tsv.gz")) > 900
    assert {"file", "speaker"} <= set(read(REAL / "fsdd_digits" / "metadata.csv").column_names)
    assert len(read(REAL / "coco_captions_mini" / "captions.jsonl")) == 50
    refuses(lambda: read(REAL / "tinyshakespeare" / "input.txt"), ".txt", ".csv")
    refuses(lambda: read(REAL / "fashion_mnist" / "fashion_mnist.npz"), ".npz")
