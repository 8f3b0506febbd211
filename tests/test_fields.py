"""Text pairs, numbers and several labels, from a CSV file in one call, in every step: checks, predictions, a saved and
a resumed run, the command line; and what is refused, in one sentence and before anything is loaded
"""

import json
import math
import random

import conftest
import numpy as np
import pandas as pd
import pytest

import ftkit as ft
from ftkit.core import FtError
from ftkit.data.fields import LABEL, TEXT, Field
from ftkit.data.splits import prepare

WORDS = ["soup", "film", "bus", "room", "garden", "waiter", "bread", "song"]


def pairs(n=48):
    draw, rows = random.Random(0), []
    for i in range(n):
        word, other = draw.sample(WORDS, 2)
        same = i % 2
        rows.append((f"we liked the {word} , {i}", f"the {word if same else other}", ("no", "yes")[same]))
    return pd.DataFrame(rows, columns=["premise", "hypothesis", "label"])


def numbers(n=48):
    rows = [(f"{WORDS[i % 8]} number {i} costs {i} dollars", f"{10 + i * 1.5:.1f}") for i in range(n)]
    return pd.DataFrame(rows, columns=["text", "score"])


def several(n=48):
    rows = [
        (f"the {WORDS[i % 8]} and the {WORDS[(i + 3) % 8]} , {i}", f"{WORDS[i % 4]}|{WORDS[4 + i % 3]}")
        for i in range(n)
    ]
    return pd.DataFrame(rows, columns=["text", "labels"])


KINDS = {
    "pairs": (pairs, dict(task="text-pair-classification"), [("we liked the soup", "the soup")], "accuracy", "label"),
    "numbers": (numbers, dict(task="text-regression"), ["soup costs 3 dollars"], "rmse", "score"),
    "several": (several, dict(problem="multi"), ["the soup and the room"], "auc", "labels"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_csv_file_in_one_call(kind, tmp_path):
    make, options, asked, metric, answer = KINDS[kind]
    file, out = tmp_path / "data.csv", tmp_path / "run"
    make().to_csv(file, index=False)
    options |= dict(steps=4, batch_size=8, show_progress=False)
    run = ft.finetune("bert-mini", file, "lora", output_dir=out, **options)
    assert run.recipe.metric == metric and math.isfinite(run.metrics[metric])
    said = run.predict(asked)
    assert answer in said.columns and len(said) == 1
    opened = ft.load_run(out)
    numeric = said.select_dtypes("number")
    assert np.allclose(opened.predict(asked)[numeric.columns], numeric, atol=1e-5)
    assert ft.resume(out).metrics == run.metrics
    assert len(run.predict(file)) == 48, "a table with the columns of the training data"
    assert run.evaluate(file)[metric] == pytest.approx(opened.evaluate(file)[metric], abs=1e-5)
    if kind == "numbers":
        assert {"rmse", "pearson", "spearman"} <= set(run.metrics) and 0 < said.score[0] < 100


CLI = """
from ftkit.cli import main
sys.argv[0] = "ftkit"
sys.exit(main())
"""


@pytest.mark.parametrize("kind", KINDS)
def test_on_the_command_line(kind, tmp_path):
    make, options, _, metric, answer = KINDS[kind]
    file, out = tmp_path / "data.csv", tmp_path / "run"
    make().to_csv(file, index=False)
    asked = [x for name, value in options.items() for x in (f"--{name}", value)]
    more = ["--steps", "2", "--batch_size", "8", "--output_dir", str(out), "--json"]
    done = conftest.child("import sys\n" + CLI, "finetune", "bert-mini", str(file), *asked, *more)
    assert done.returncode == 0, done.stderr[-2000:]
    assert metric in json.loads(done.stdout[done.stdout.index("{") :])["metrics"]
    done = conftest.child("import sys\n" + CLI, "predict", str(out), str(file))
    assert done.returncode == 0 and answer in done.stdout, done.stderr[-2000:]


def test_rows_are_compared_by_all_inputs(capsys):
    "Translations of one sentence are different rows; a row is a leak if all its inputs are."
    texts = [f"sentence {i}" for i in range(20)]
    table = pd.DataFrame(
        [(t, f"{t} in {language}", i % 2) for i, t in enumerate(texts) for language in ("German", "French", "Danish")],
        columns=["premise", "hypothesis", "label"],
    )
    fields = (Field("premise"), Field("hypothesis"), LABEL)
    kept = prepare(table, valid=0.2, fields=fields)
    assert len(kept.train) + len(kept.valid) == 60 and not kept.report["leaks"]
    assert not kept.report["train"]["duplicates"] and not kept.report["train"]["conflicts"]
    twice = pd.concat([table, table.head(3)])
    reported = prepare(twice, valid=None, fields=fields)
    assert len(reported.train) == 63 and len(reported.report["train"]["duplicates"]) == 3
    assert 'duplicates="drop"' in capsys.readouterr().out
    assert len(prepare(twice, valid=None, fields=fields, duplicates="drop").train) == 60
    leaking = prepare(table, valid=table.tail(2), fields=fields)
    assert len(leaking.report["leaks"]) == 2 and len(leaking.train) == 58
    assert len(prepare(table, valid=table.tail(2), fields=fields, allow_leakage=True).train) == 60


TWO_TEXTS = {
    "a": ["one long sentence of text", "another long sentence"] * 3,
    "b": ["a third long sentence", "and then a fourth one"] * 3,
    "label": [0, 1] * 3,
}
IMAGES = {"image": [np.full((8, 8, 3), i, np.uint8) for i in range(10)], "label": [0, 1] * 5}
PAIR = dict(task="text-pair-classification")


def tuned(data, checkpoint="bert-mini", **options):
    return ft.finetune(checkpoint, data, "linear_probe", steps=1, show_progress=False, **options)


REFUSED = {
    "two columns fit": (
        lambda: prepare(TWO_TEXTS, valid=None, fields=(TEXT, LABEL)),
        "2 columns could be the text: a, b; choose one with text=",
    ),
    "text among numbers": (
        lambda: tuned(numbers().assign(score=["1.5"] * 47 + ["high"]), task="text-regression"),
        "should hold numbers, but has 'high' (row 47)",
    ),
    "one side is empty": (
        lambda: tuned(pairs().assign(hypothesis=["x"] * 47 + [" "]), **PAIR),
        "1 with empty hypothesis (row 47)",
    ),
    "fields that the data lack": (
        lambda: tuned(pairs(), "resnet-mini", recipe="simclr"),
        "No column looks like the image",
    ),
    "an option of another recipe": (
        lambda: tuned(pairs(), momentum=0.9, **PAIR),
        "momentum= is an option of the recipe 'moco'",
    ),
    "an option of another task": (
        lambda: tuned(pairs(), box_format="coco", **PAIR),
        "box_format= is an option of the task 'object-detection'",
    ),
    "a run of another modality": (
        lambda: tuned(IMAGES, tuned(several().assign(label=["a", "b"] * 24)), task="image-classification"),
        "reads text (text-classification), but image-classification reads image",
    ),
    "a pair with one value": (
        lambda: tuned(pairs(), **PAIR).predict(["one"]),
        "reads premise and hypothesis; give 2 values",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_sentence(case):
    call, words = REFUSED[case]
    with pytest.raises(FtError) as e:
        call()
    assert words in str(e.value) and "\n" not in str(e.value) and len(str(e.value)) < 400, str(e.value)
