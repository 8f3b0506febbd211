"Exercises: what a page cannot hold of `ftkit.teach`."

import math
import os
import subprocess
import sys

import pytest

from ftkit import teach
from ftkit.teach import Exercise, agrees, between, close, progress, variant

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch):
    monkeypatch.setattr(teach, "_session", {})


def test_stands_alone():
    code = (
        "import sys, ftkit.teach; bad = {'torch', 'numpy', 'pandas', 'matplotlib', 'ftkit.core', 'IPython'} &"
        " set(sys.modules); assert not bad, bad"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(teach.__file__))},
    )


@pytest.mark.parametrize("answer", [None, ...])
def test_no_answer_is_no_attempt(answer):
    ex = Exercise("q", close(1))
    assert not ex.check(answer).attempted and progress()[0]["attempts"] == 0


def test_stub_is_no_attempt():
    def stub(x):
        raise NotImplementedError

    assert not Exercise("q", agrees(abs, lambda rng: rng.random())).check(stub).attempted


@pytest.mark.parametrize(
    "answer, part",
    [
        ("1", "str"),
        (True, "bool"),
        ([1, 2], "list"),
        (math.nan, "nan"),
        (len, "function"),
        (1 + 0j, "complex"),
        (10**400, "int"),
        (2, "too large"),
        (math.inf, "too large"),
        (0.9, "too small"),
        (b"1", "bytes"),
    ],
)
def test_numbers_that_are_none(answer, part):
    assert part in close(1, 0.01)(answer)


def test_numbers_in_other_clothes():
    np, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")
    for one in (np.float32(1), np.array([1.0]), torch.tensor([[1.0]], requires_grad=True)):
        assert close(1)(one) is True
    for many in (np.ones(2), torch.ones(2)):
        assert "One number" in close(1)(many)
    assert "One number" in close(1)(np.bool_(True))


def test_between_includes_its_ends_and_refuses_nonsense():
    assert between(1, 2)(1) is True and between(1, 2)(2) is True and "small" in between(1, 2)(0.99)
    with pytest.raises(ValueError, match="above"):
        between(2, 1)


def test_a_function_cannot_fool_the_reference_by_changing_its_input():
    def cheat(xs):
        xs.clear()
        return 0

    assert agrees(sum, lambda rng: [3, 4])(cheat) == "It gives 0 for the input [3, 4]; right is 7."


def test_results_of_many_kinds_are_compared():
    np = pytest.importorskip("numpy")

    def draw(rng):
        return rng.random()

    assert agrees(lambda x: np.array([x, 1.0]), draw)(lambda x: [x + 1e-9, 1]) is True
    assert agrees(lambda x: {"a": (x, math.nan)}, draw)(lambda x: {"a": [x, math.nan]}) is True
    assert "right is" in agrees(lambda x: {"a": x}, draw)(lambda x: {"b": x})
    assert "right is" in agrees(lambda x: [x], draw)(lambda x: x)
    assert "right is" in agrees(lambda x: "a", draw)(lambda x: "b")


def test_same_seed_same_inputs():
    seen = []
    for _ in range(2):
        seen.append([])
        agrees(abs, lambda rng: rng.random(), n=3)(lambda x: seen[-1].append(x) or x)
    assert seen[0] == seen[1] and len(set(seen[0])) == 3


def test_errors_become_sentences():
    def camelCase(x):
        return 1 / 0

    ex = Exercise("q", agrees(abs, lambda rng: rng.random()))
    said = ex.check(camelCase)
    assert "`camelCase` raised ZeroDivisionError" in said.message and "line 2" in said.message and said.attempted
    assert "stopped with TypeError" in Exercise("r", lambda answer: answer < 3).check("x").message

    class Rude:
        def __repr__(self):
            raise ValueError("no")

    assert not ex.check(Rude()).ok


def test_messages_carry_no_addresses():
    assert "0x" not in close(1)(object()) and "0x" not in close(1)([object()])


def test_hints_one_after_another():
    ex = Exercise("q", close(1), hint=["a", "b"])
    assert [ex.hint().text for _ in range(3)] == ["a", "b", "b"] and progress()[0]["hints"] == 2
    assert "no hint" in Exercise("r", close(1)).hint().text
    assert Exercise("s", close(1), hint="one").hints == ["one"]


@pytest.mark.parametrize(
    "stub",
    [
        "def f(x): ...",
        "def f(x, y=1):\n    ...",
        'def f():\n    "what it does"',
        "class f: ...",
        "class f(dict): pass",
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass f: ...",
    ],
)
def test_dots_are_no_attempt(stub):
    space = {}
    exec(stub, space)
    assert not Exercise("q", lambda f: f(1) or "no").check(space["f"]).attempted


@pytest.mark.parametrize(
    "answer",
    [
        "def f(x): return x",
        "def f(x): return 'text'",
        "def f(x): x",
        'def f(x):\n    "doc"\n    return 3',
        "f = lambda x: ...",
        "f = lambda: None",
        "class f:\n    size = 3",
        "class f:\n    def go(self): ...",
        "f = len",
        "f = int",
    ],
)
def test_more_than_dots_is_an_attempt(answer):
    space = {}
    exec(answer, space)
    assert Exercise("q", lambda f: "no").check(space["f"]).attempted


def test_a_function_that_computes_nothing_fails_the_proof():
    ex = Exercise("q", lambda f: abs(f(30, 10) - 0.25) < 1e-6 or "no")
    with pytest.raises(AssertionError, match="always gives 0.25 is accepted"):
        ex.test(right=lambda n, p: p / (n + p), wrong=[lambda n, p: p / n])
    with pytest.raises(AssertionError, match="first argument back is accepted"):
        Exercise("r", agrees(lambda x, y: x, lambda rng: (rng.random(), 1))).test(lambda x, y: x)
    with pytest.raises(AssertionError, match="always gives None is accepted"):
        Exercise("s", lambda f: f(1) is None or "no").test(right=lambda x: None)
    with pytest.raises(AssertionError, match="always gives 'a' is accepted"):
        Exercise("t", lambda f: f(1) == f(2) == "a" or "no").test(right=lambda x: "a")
    assert Exercise("u", agrees(lambda x: x + 1, lambda rng: rng.random())).test(
        right=lambda x: 1 + x, wrong=[lambda x: x]
    )


def test_a_class_is_proved_without_constants():
    class Right:
        size = 3

    assert Exercise("q", lambda kind: kind.size == 3 or "no").test(right=Right, wrong=[dict])


def test_other_right_answers_are_proved_too():
    ex = Exercise("q", lambda a: a in ("bias", "biases") or "no")
    assert ex.test(right="bias", wrong=["head"], also=["biases"]) and ex.proof == dict(
        right="bias", wrong=["head"], also=["biases"]
    )
    with pytest.raises(AssertionError, match="right answer 'heads' is refused"):
        ex.test(right="bias", also=["heads"])


def test_everything_shown_is_escaped():
    ex = Exercise(SCRIPT, lambda a: f"`{a}` {a}", hint=[SCRIPT, SCRIPT], solution=SCRIPT)
    for thing in (ex, ex.check(SCRIPT), ex.hint(), ex.solution(), progress()):
        assert "<script" not in thing._repr_html_() and "&lt;script&gt;" in thing._repr_html_()


def test_card_folds_hints_inside_each_other_and_text_gives_nothing_away():
    ex = Exercise("q", close(1), hint=["first", "second"], solution="the answer")
    page = ex._repr_html_()
    assert (
        page.index("first") < page.index("second") < page.index("the answer")
        and page.count("<details>") == page.count("</details>") == 3
    )
    assert not any(word in repr(ex) for word in ("first", "second", "the answer"))


def test_proof():
    ex = Exercise("q", close(1))
    assert ex.test(right=1, wrong=[2, "1"]) and ex.test(right=1, wrong={2: "large"}) and progress()[0]["attempts"] == 0
    with pytest.raises(AssertionError, match="right answer 2 is refused"):
        ex.test(right=2)
    with pytest.raises(AssertionError, match="wrong answer 1 is accepted"):
        ex.test(right=1, wrong=[1])
    with pytest.raises(AssertionError, match="not 'small'"):
        ex.test(right=1, wrong={2: "small"})
    with pytest.raises(AssertionError, match="without a reason"):
        Exercise("r", lambda a: a == 1).test(right=1, wrong=[2])


def test_running_a_cell_twice_counts_once():
    for _ in range(2):
        Exercise("same", close(1)).check(1)
    Exercise("other", close(1))
    assert [row["name"] for row in progress()] == ["same", "other"]
    assert progress()[0]["attempts"] == 2 and progress().solved == 1 and "1 of 2 solved" in repr(progress())


def test_empty_progress():
    assert "0 of 0" in repr(progress()) and "0 of 0" in progress()._repr_html_()


def test_variant_is_stable_and_spreads():
    assert [variant(f"student {i}", range(10)) for i in range(8)] == [8, 9, 8, 9, 8, 3, 1, 7]
    assert variant("Ana", "abc") == variant(" ANA ", "abc")
    assert len({variant(f"s{i}", range(5)) for i in range(60)}) == 5
    both = [variant(f"s{i}", dict(a=range(4), b=range(4))) for i in range(60)]
    assert len({(v["a"], v["b"]) for v in both}) > 10
    with pytest.raises(ValueError):
        variant("x", [])
    with pytest.raises(TypeError):
        variant("x", {1, 2})


def test_check_must_be_callable():
    with pytest.raises(TypeError, match="function"):
        Exercise("q", 3)
