"The student edition: no answer is left in it, and it still tells right answers from wrong ones."

import ast
import base64
import binascii
import gzip
import json
import re
import zlib

import pytest
from conftest import NBS, ROOT, child, drawn, pages

from ftkit import teach
from ftkit.teach import Exercise, agrees, between, close
from tools import student


def raw(path) -> list[dict]:
    "The cells of a notebook."
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


WITH = [page for page in pages() if student.folded(raw(NBS / page)) is not None]
CHEAP = (
    "methods/23_select.ipynb",
    "methods/32_hooks.ipynb",
    "methods/64_visual_prompt.ipynb",
    "guides/40_support_matrix.ipynb",
)
REPORT = """
import json, sys
from pathlib import Path
from tools import student
page, out = map(Path, sys.argv[1:])
shell, source, exercises = student.evaluate(page)
proofs = {name: (ex.proof, ex.answer, ex.hints, ex.keep) for name, ex in exercises.items()}
meant = {name: [ex.check(answer).message for answer in ex.proof["wrong"]] for name, ex in exercises.items()}
text, kinds = student.replacement(source, exercises)
cells = student.edition(json.loads(page.read_text(encoding="utf-8")), text)["cells"]
found = dict(text=text, kinds=kinds, exercises={}, untouched=[])
for cell in cells[student.folded(cells):]:
    if cell["cell_type"] == "code":
        shell.run("".join(cell["source"]))
        if shell.exc:
            sys.exit(shell.prettytb())
        if ".check(" in "".join(cell["source"]):
            found["untouched"].append(repr(shell.result))
for name, (proof, solution, hints, keep) in proofs.items():
    sealed = shell.user_ns[name]
    right = [proof["right"], *proof["also"]]
    found["exercises"][name] = dict(
        kept=keep, solution=solution, hints=hints, meant=meant[name], function=callable(proof["right"]),
        answers=[repr(answer) for answer in right if not callable(answer)],
        right=[(v.ok, v.message) for v in map(sealed.check, right)],
        wrong=[(v.ok, v.message) for v in map(sealed.check, proof["wrong"])])
out.write_text(json.dumps(found), encoding="utf-8")
"""


def decoded(text: str) -> list[str]:
    "The text, and what hexadecimal and base64 pieces of it hold, unpacked by zlib and gzip as far as that goes."
    found = [text]
    for piece in re.findall(r"[0-9A-Za-z+/=_-]{8,}", text):
        for decode in (binascii.unhexlify, base64.b64decode, base64.urlsafe_b64decode):
            try:
                raw = decode(piece + "=" * (-len(piece) % 4) if decode is not binascii.unhexlify else piece)
            except (binascii.Error, ValueError):
                continue
            layers = [raw]
            for unpack in (zlib.decompress, gzip.decompress):
                try:
                    layers.append(unpack(raw))
                except (zlib.error, OSError, EOFError):
                    pass
            found += [layer.decode("utf-8", "replace") for layer in layers]
    return found


def literals(text: str) -> list:
    "All constants in sealed exercises: their names and field names aside."
    calls = [n for n in ast.walk(ast.parse(text)) if student.is_call(n, "sealed")]
    found = []
    for data in [call.args[1] for call in calls]:
        fields = {key.value: value for key, value in zip(data.keys, data.values)}
        secret = [value for key, value in fields.items() if key in ("salt", "grid", "hashes", "reasons", "offsets")]
        found += [n.value for value in secret for n in ast.walk(value) if isinstance(n, ast.Constant)]
    return found


def lies_in(secret: str, text: str) -> bool:
    "Does a secret occur? Short ones, which occur in any long text by chance, and truth values as a whole constant."
    if len(secret) >= 5 and secret not in ("True", "False"):
        return any(secret in layer for layer in decoded(text))
    return any(secret in (repr(x), str(x)) for x in literals(text))


def part(text: str, name: str) -> str:
    "What the text says about one exercise: its own statement, and with it the code of a check that is kept."
    nodes = ast.parse(text).body
    own = next(n for n in nodes if isinstance(n, ast.Assign) and n.targets[0].id == name)
    code = [n for n in nodes if not ast.unparse(n).startswith("exercise_")]
    code = [] if student.is_call(own.value, "sealed") else code
    return "\n".join(ast.get_source_segment(text, n) for n in (*code, own))


def leaks(name: str, text: str, solution: str, answers: list[str], hints: list[str]) -> list[str]:
    "What can be read of an exercise: its solution and hints anywhere, a word that is its answer in its own part."
    whole = {solution, *hints, *(line.strip() for line in solution.split("\n"))}
    found = [secret for secret in whole if len(secret) > 12 and lies_in(secret, text)]
    words = {*answers, *(answer.strip("'\"") for answer in answers), solution}
    return found + [secret for secret in words if lies_in(secret, part(text, name))]


def test_leaks_are_seen():
    "In another exercise's check a common word is no answer."
    text = "def check_it(x):\n    return x == 'prompt'\n\nexercise_1 = Exercise('Exercise 1', check=check_it)\n\n"
    text += "exercise_2 = Exercise.sealed('Exercise 2', {'salt': '00', 'hashes': ['ab'], 'grid': [0.25]})\n"
    assert leaks("exercise_1", text, "see the page", ["'prompt'"], [])
    assert leaks("exercise_2", text, "a quarter", ["0.25"], [])
    assert leaks("exercise_2", text, "    return x == 'prompt'", ["0.5"], [])
    assert not leaks("exercise_2", text, "the prompt", ["'prompt'"], ["What comes first in it?"])


def test_decoding_finds_what_is_hidden():
    secret = b"return p / (n + p)"
    for hidden in (
        base64.b64encode(secret),
        binascii.hexlify(secret),
        base64.b64encode(zlib.compress(secret)),
        binascii.hexlify(gzip.compress(secret)),
    ):
        assert lies_in(secret.decode(), f"x = '{hidden.decode()}'"), hidden
    assert lies_in("72", "exercise_1 = Exercise.sealed('Exercise 1', {'grid': [72, 0.1]})")
    assert not lies_in("72", "exercise_1 = Exercise.sealed('Exercise 72', {'salt': '972'})")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    "What became of a page's exercises, computed once per page."
    known = {}

    def of(page):
        if page not in known:
            out = tmp_path_factory.mktemp("student") / "report.json"
            done = child(REPORT, NBS / page, out)
            assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
            known[page] = json.loads(out.read_text(encoding="utf-8"))
        return known[page]

    return of


@pytest.mark.sweep(least=1)
@pytest.mark.parametrize("lesson", WITH)
def test_a_page_holds_no_answers_and_still_judges(lesson, report):
    found = report(lesson)
    no_answers(found)
    judges(found)


def no_answers(found):
    text = found["text"]
    assert not re.search(r"solution=|hint=|\.test\(|right=|keep=|reference", text)
    assert found["kinds"].get("unchecked", 0) == 0, "say `keep=True` where the code of a check gives nothing away"
    for name, ex in found["exercises"].items():
        assert not leaks(name, text, ex["solution"], ex["answers"], ex["hints"]), name


def judges(found):
    assert found["untouched"] and all("Not attempted yet" in shown for shown in found["untouched"])
    for name, ex in found["exercises"].items():
        assert all(ok for ok, _ in ex["right"]), (name, ex["right"])
        assert not any(ok for ok, _ in ex["wrong"]), (name, ex["wrong"])
        assert ex["wrong"], f"{name} is proved with typical wrong answers"
        for hint in ex["hints"]:
            told = [a for a in ex["answers"] if len(a) > 1 and re.search(rf"(?<![\w.]){re.escape(a)}(?![\w.])", hint)]
            assert not told and ex["solution"] not in hint, f"{name}: a hint is no answer"
        if not ex["function"]:
            assert [message for _, message in ex["wrong"]] == ex["meant"], name


def test_the_edition_of_a_folder(tmp_path):
    "What `make student` writes: the pages' other cells as they are, those without exercises as a whole."
    lesson = drawn([page for page in WITH if page in CHEAP], 1, "student edition")[0]
    plain = next(page for page in pages() if page not in WITH)
    kinds, faults = student.build([NBS / lesson, NBS / plain], tmp_path)
    assert not faults and sum(kinds.values()) >= 2
    assert (tmp_path / plain).read_bytes() == (NBS / plain).read_bytes()
    old, new = raw(NBS / lesson), raw(tmp_path / lesson)
    changed = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    place = student.folded(old)
    assert changed == [place - 1, place] and new[place]["metadata"] == old[place]["metadata"]
    assert "hint" not in "".join(new[place - 1]["source"])
    assert not re.search(r"solution=|\.test\(|right=", "".join("".join(cell["source"]) for cell in new[place:]))


# ------------------------------------------------------------------ sealing, without a page


def sealed(check, right, wrong=(), also=()):
    "An exercise, and its sealed form."
    ex = Exercise("sealed", check)
    ex.test(right=right, wrong=wrong, also=also)
    data = student.seal(ex)
    return data, Exercise.sealed("sealed", data)


@pytest.mark.parametrize(
    "check, right, inside, outside",
    [
        (close(0.25, 0.01), 0.25, [0.2401, 0.2599, 0.25], [0.2399, 0.2601, -0.25, 25]),
        (between(68, 70), 69, [68, 69, 70, 68.5], [67, 71, 70.01]),
        (lambda n: n == 385 or "no", 385, [385, 385.0], [384, 386, 385.001]),
        (
            lambda p: (abs(p[0] - 4.5) < 0.01 and abs(p[1] - 4.125) < 0.03) or "no",
            (4.5, 4.127),
            [(4.509, 4.1), [4.491, 4.154]],
            [(4.52, 4.127), (4.5, 4.16), (4.127, 4.5)],
        ),
        (lambda x: x == (1, 8, -2, -2) or "no", (1, 8, -2, -2), [(1, 8, -2, -2)], [(1, 8, -2), (-2, -2, 8, 1)]),
        (lambda x: x is False or "no", False, [False], [True, 0, "False or true"]),
        (lambda x: set(x) == {"a", "d"} or "no", ["a", "d"], [["a", "d"], ["d", "a"]], [["a"], ["a", "b"]]),
        (
            lambda x: x == {"on": "ffn", "blocks": [2]} or "no",
            {"on": "ffn", "blocks": [2]},
            [dict(blocks=[2], on="ffn")],
            [{}, dict(on="ffn")],
        ),
    ],
)
def test_a_sealed_value_is_as_exact_as_its_check(check, right, inside, outside):
    _, ex = sealed(check, right)
    for answer in inside:
        assert ex.check(answer).ok, answer
    for answer in outside:
        assert not ex.check(answer).ok, answer


def test_a_sealed_text_forgives_case_and_spaces():
    _, ex = sealed(lambda a: a in ("biases", "bias") or "no", "biases", also=["bias"])
    assert ex.check(" Biases. ") and ex.check("bias") and not ex.check("head")


def test_reasons_are_sealed_under_their_wrong_answers():
    check = lambda n: n == 72 or ("the bias is missing" if n == 64 else "weights and a bias")  # noqa: E731
    data, ex = sealed(check, 72, wrong=[64, 8])
    assert ex.check(64).message == "the bias is missing" and ex.check(8).message == "weights and a bias"
    assert ex.check(9).message == "9 is not the answer." and "a number" in ex.check("many").message
    assert not any("bias" in layer for layer in decoded(repr(data)))
    again = student.seal(ex_of(72))
    assert again["hashes"] != student.seal(ex_of(72))["hashes"], "every edition has salts of its own"


def ex_of(n):
    ex = Exercise("n", lambda x: x == n or "no")
    ex.test(right=n, wrong=[n + 1])
    return ex


def test_a_sealed_function():
    check = agrees(lambda n, p: p / (n + p), lambda rng: (rng.randint(1, 60), rng.randint(1, 30)))
    _, ex = sealed(check, lambda n, p: 1 / (n / p + 1), wrong=[lambda n, p: p / n, lambda n, p: 0.25])
    assert "that is not right" in ex.check(lambda n, p: 0.25).message
    assert "for the input" in ex.check(lambda n, p: p / n).message and "without calling" in ex.check(0.25).message


def test_a_sealed_function_of_tensors():
    torch = pytest.importorskip("torch")
    draw = lambda rng: torch.tensor([[rng.gauss(0, 1) for _ in range(4)] for _ in range(5)])  # noqa: E731
    check = agrees(lambda x: x @ x.T, draw, tol=1e-5)
    data, ex = sealed(check, lambda x: (x[:, None] * x[None]).sum(-1), wrong=[lambda x: x * 2])
    assert data["inputs"] == ast.literal_eval(repr(data["inputs"])) and not ex.check(lambda x: x).ok


def test_a_function_that_gives_none():
    check = agrees(lambda s: None if "x" in s else s * 2, lambda rng: rng.choice(("x", "y", "zx", "z")))
    _, ex = sealed(check, lambda s: None if "x" in s else s + s)
    assert not ex.check(lambda s: None if "x" in s else s).ok


def test_what_cannot_be_sealed():
    ex = Exercise("object", lambda a: isinstance(a, Exercise) or "no")
    with pytest.raises(ValueError, match="no proof"):
        student.seal(ex)
    ex.test(right=ex, wrong=[1])
    assert student.seal(ex) is None
    assert "instructor" in Exercise.sealed("object", {}).check(1).message


SOURCE = """
LIMIT = 3
def helper(x):
    return x < LIMIT
def check_it(x):
    return helper(x) or "too large"
def unused(x):
    return x
answer = 2
exercise_1 = Exercise("Exercise 1", check=check_it, solution="two", keep=True)
exercise_1.test(right={right}, wrong=[7])
"""


def test_a_kept_check_brings_what_it_needs_and_nothing_else():
    space = dict(Exercise=Exercise)
    source = SOURCE.format(right="answer")
    exec(source, space)
    text, kinds = student.replacement(source, {"exercise_1": space["exercise_1"]})
    assert kinds == {"kept": 1} and all(part in text for part in ("LIMIT = 3", "def helper", "def check_it"))
    assert not any(part in text for part in ("unused", "answer = 2", "two", "keep"))
    fresh = dict(Exercise=Exercise)
    exec(text, fresh)
    assert fresh["exercise_1"].check(1).ok and fresh["exercise_1"].check(9).message == "too large"


def test_a_kept_check_that_holds_the_answer_is_refused():
    space = dict(Exercise=Exercise)
    source = SOURCE.format(right="LIMIT - 1")
    exec(source, space)
    with pytest.raises(ValueError, match="LIMIT"):
        student.replacement(source, {"exercise_1": space["exercise_1"]})


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch):
    monkeypatch.setattr(teach, "_session", {})


def test_the_makefile_knows_it():
    assert re.search(r"^student: .*\n\t.*tools/student\.py", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert "/student/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()
