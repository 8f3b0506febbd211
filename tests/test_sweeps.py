"""Samples of large sweeps: every value occurs, the seed decides, and what is left out is counted"""

import itertools
import random

import pytest
from conftest import child, cover, drawn

FILE = """
import pytest

@pytest.mark.sweep("method", "family")
@pytest.mark.parametrize("family", ["f0", "f1", "f2"])
@pytest.mark.parametrize("method", range(8))
def test_cell(method, family): print("ran", method, family)

@pytest.mark.sweep(least=4)
@pytest.mark.parametrize("name", range(9))
def test_name(name): print("name", name)

@pytest.mark.whole
def test_rare(): print("rare")
"""
PYTEST = (
    "import sys, pytest; sys.path.insert(0, 'tests'); sys.exit(pytest.main(['-p', 'conftest', '-qs', '-p',"
    " 'no:cacheprovider', *sys.argv[1:]]))"
)


@pytest.mark.fast
@pytest.mark.parametrize("seed", range(20))
def test_every_value_of_every_column_occurs(seed):
    cases = list(itertools.product(range(30), range(7), "ab"))
    found = [cases[i] for i in cover(cases, 0, random.Random(seed))]
    assert all({case[column] for case in found} == {case[column] for case in cases} for column in range(3))
    assert len(found) == 30, "as many as the longest column has values"
    assert len(cover(cases, 50, random.Random(seed))) == 50 and len(cover(cases, 1000, random.Random(seed))) == len(
        cases
    )


@pytest.mark.fast
def test_the_seed_decides():
    cases = list(itertools.product(range(30), range(7)))
    samples = {tuple(cover(cases, 0, random.Random(seed))) for seed in range(5)}
    assert len(samples) == 5 and cover(cases, 0, random.Random(3)) == cover(cases, 0, random.Random(3))
    assert drawn(range(100), 5, "a") == drawn(range(100), 5, "a") != drawn(range(100), 5, "b")


def ran(folder, *options, seed="1"):
    "What a run of the file above printed, and its last lines."
    (folder / "test_it.py").write_text(FILE, encoding="utf-8")
    done = child(PYTEST, folder, *options, env=dict(FTKIT_SEED=seed, FTKIT_ALL="0"))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = [line.lstrip(".") for line in done.stdout.splitlines()]
    return {line for line in lines if line.startswith(("ran", "name", "rare"))}, done.stdout


def test_a_sample_runs_and_what_is_left_out_is_counted(tmp_path):
    sample, said = ran(tmp_path)
    cells = [line.split()[1:] for line in sample if line.startswith("ran")]
    assert (
        {m for m, _ in cells} == {str(i) for i in range(8)}
        and {f for _, f in cells} == {"f0", "f1", "f2"}
        and len(cells) == 8
    )
    assert len(sample) == 8 + 4 and "rare" not in sample
    assert "12 of 33 cases run, drawn by FTKIT_SEED=1" in said and "22 deselected" in said
    assert sample == ran(tmp_path)[0] != ran(tmp_path, seed="2")[0]


def test_all_and_what_is_named_run_whole(tmp_path):
    everything, said = ran(tmp_path, "--all")
    assert len(everything) == 24 + 9 + 1 and "33 of 33 cases run" in said and "deselected" not in said
    assert len(ran(tmp_path, "-k", "test_cell")[0]) == 24
