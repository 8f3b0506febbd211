"""Write the student edition: all pages, with sealed checks instead of the checks, hints and reference answers

A page is run up to its `#| exercises` cell, so that answers which depend on the page have values. Then that cell is
replaced. An exercise whose answer is plain data, or a function checked by `agrees`, is sealed: salted, slow hashes
replace the answers. If its author declares that the check does not reveal the answer (`keep=True`), it keeps the
check's code. Any other exercise is checked in the instructor's edition only."""

import argparse
import ast
import copy
import itertools
import json
import math
import os
import pprint
import re
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools import pages  # noqa: E402
from tools.warm import STOP, Warm  # noqa: E402

INTRO = re.compile(r"Write each answer in place of the dots, then run the check below it\..*")
STUDENT_INTRO = "Write each answer in place of the dots, then run the check below it."
HEAD = """#| code-fold: true
#| exercises
# The checks of the exercises below: hashes replace the answers
"""
INPUTS = 10  # number of inputs on which a sealed function is checked
ENDLESS = 1e6  # if a number this much larger than the right one is accepted, there is no limit


def folded(cells: list) -> int | None:
    "The index of the cell with the exercises, or None."
    found = [i for i, cell in enumerate(cells) if cell["cell_type"] == "code" and "exercises" in pages.directives(cell)]
    if len(found) > 1:
        raise ValueError("a page has one cell with `#| exercises`")
    return found[0] if found else None


# ------------------------------------------------------------------ sealing


def reach(accepts: Callable, x: float, sign: int) -> float:
    "The distance from `x`, upwards (sign 1) or downwards (-1), up to which numbers are accepted; 0 if exact."
    inside, outside = 0.0, 1e-8 * max(1.0, abs(x))
    if not accepts(x + sign * outside):
        return 0.0
    while accepts(x + sign * outside):
        inside, outside = outside, 2 * outside
        if outside > ENDLESS * max(1.0, abs(x)):
            raise ValueError(f"every number beyond {x} is accepted")
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if accepts(x + sign * middle) else (inside, middle)
    return inside


def plain(answer):
    "An answer with arrays and tensors as lists."
    return answer.tolist() if hasattr(answer, "tolist") else answer


def numbers(answer) -> list[tuple]:
    "The numbers of an answer, as (path of indices, value), in the order in which `teach._text` meets them."
    answer = plain(answer)
    if isinstance(answer, (list, tuple)):
        return [((i, *path), x) for i, part in enumerate(answer) for path, x in numbers(part)]
    return [((), answer)] if isinstance(answer, (int, float)) and not isinstance(answer, bool) else []


def replaced(answer, path: tuple, x: float):
    "The answer with another number at `path`."
    if not path:
        return x
    parts = list(plain(answer))
    parts[path[0]] = replaced(parts[path[0]], path[1:], x)
    return type(answer)(parts) if isinstance(answer, (list, tuple)) else parts


def cells_of(lo: float, hi: float, number: int) -> tuple[tuple, list[float]]:
    "A grid (step, offset) with `number` cells in the interval, and the centres of these cells."
    wide = hi - lo
    step, lo = wide * (1 + 2e-6) / number, lo - 1e-6 * wide
    return (step, lo % step), [lo + (k + 0.5) * step for k in range(number)]


def grids(ex, answer) -> tuple[list, list]:
    "The grid of each number of the answer (None: exact), and one answer from each correct cell."
    from ftkit.teach import _judge

    places, grid, choices = numbers(answer), [], []
    for path, x in places:

        def accepts(value, path=path):
            return _judge(ex.judge, replaced(answer, path, value)).ok

        lo, hi = x - reach(accepts, x, -1), x + reach(accepts, x, 1)
        cell, middles = cells_of(lo, hi, 8 if len(places) == 1 else 3) if hi > lo else (None, [x])
        grid.append(cell)
        choices.append([(path, middle) for middle in middles])
    answers = []
    for choice in itertools.product(*choices):
        other = answer
        for path, x in choice:
            other = replaced(other, path, x)
        answers.append(other)
    return (grid if any(grid) else []), answers


def seal_value(ex) -> dict:
    "Hashes of the right answers, and the messages for wrong ones, each encrypted with its answer as the key."
    from ftkit.teach import _digest, _judge, _kind, _mask, _text

    right, salt = ex.proof["right"], secrets.token_hex(8)
    ordered = not isinstance(right, list) or not _judge(ex.judge, right[::-1]).ok or right == right[::-1]
    grid, answers = grids(ex, right)
    hashes, reasons = set(), {}
    for answer in (*answers, *ex.proof["also"]):
        hashes.add(_digest(salt, _text(answer, iter(grid), ordered)).hex())
    for answer in ex.proof["wrong"]:
        text = _text(answer, iter(grid), ordered)
        reasons[_digest(salt, text).hex()] = _mask(salt, text, _judge(ex.judge, answer).message.encode()).hex()
    return dict(salt=salt, kind=_kind(right), grid=grid, ordered=ordered, hashes=sorted(hashes), reasons=reasons)


def written(x):
    "An input as a literal. Raises `TypeError` for a type that has none."
    if type(x).__name__ == "Tensor":
        return {"Tensor": x.tolist()}
    if isinstance(x, (list, tuple)):
        return type(x)(map(written, x))
    if not isinstance(x, (int, float, str, dict, bool, type(None))):
        raise TypeError(f"{type(x).__name__} cannot be written as a literal")
    return x


def offset(result) -> float:
    "A grid offset for which no number of `result` is close enough to a cell border for rounding to matter."
    from ftkit.teach import _STEP

    found = [x for _, x in numbers(result) if math.isfinite(x)]
    tried = [k * _STEP / 997 for k in range(997)]
    room = [min((min((x - o) / _STEP % 1, 1 - (x - o) / _STEP % 1) for x in found), default=1) for o in tried]
    best = max(range(len(tried)), key=room.__getitem__)
    if room[best] < 0.02:
        raise TypeError("the results have too many numbers")
    return tried[best]


def seal_function(ex) -> dict:
    "Inputs, and hashes of the reference's results."
    from ftkit.teach import _STEP, _digest, _text

    data = dict(salt=secrets.token_hex(8), inputs=[], offsets=[], hashes=[])
    for args in itertools.islice(ex.judge.inputs(), INPUTS):
        data["inputs"].append(written(args))
        result = ex.judge.reference(*copy.deepcopy(args))
        data["offsets"].append(offset(result))
        text = _text(result, itertools.repeat((_STEP, data["offsets"][-1])))
        data["hashes"].append(_digest(data["salt"], text).hex())
    return data


def seal(ex) -> dict | None:
    "The data for `Exercise.sealed` of a tested exercise, or None if its answer is not plain data."
    from ftkit.teach import _opened, _prove

    if ex.proof is None:
        raise ValueError(f"{ex.name} has no proof: call its `.test(right, wrong)`")
    drawn = type(ex.judge).__name__ == "_Agrees"  # by name: the page about exercises defines its own class
    if callable(ex.proof["right"]) and not drawn:
        return None
    try:
        data = seal_function(ex) if drawn else seal_value(ex)
    except TypeError:
        return None
    _prove(f"{ex.name}, sealed", _opened(data), **ex.proof)
    return data


# ------------------------------------------------------------------ the cell


def names_in(node: ast.AST) -> set[str]:
    "All names used in the code."
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    "The names that a cell defines, except exercises."
    found = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.Assign) and not is_call(node.value, "Exercise"):
            found |= {name: node for target in node.targets for name in names_in(target)}
    return found


def is_call(node: ast.AST, name: str) -> bool:
    "Whether this is a call of the function or method of that name."
    return isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == name


def needed(node: ast.AST, defined: dict) -> list[str]:
    "The names among `defined` that the code needs, directly or indirectly."
    found, todo = [], [node]
    while todo:
        for name in names_in(todo.pop()) & defined.keys() - set(found):
            found.append(name)
            todo.append(defined[name])
    return found


def kept(source: str, name: str) -> tuple[str, list[str]]:
    "The code of a check, and the names it needs. Raises `ValueError` if the right answer also needs one of them."
    tree = ast.parse(source)
    defined = definitions(tree)
    made = next(n.value for n in tree.body if isinstance(n, ast.Assign) and names_in(n.targets[0]) == {name})
    check = next(k.value for k in made.keywords if k.arg == "check")
    tests = [n for n in ast.walk(tree) if is_call(n, "test") and names_in(n.func) == {name}]
    rights = [k.value for test in tests for k in test.keywords if k.arg in ("right", "also")]
    found = needed(check, defined)
    given_away = {other for right in rights for other in needed(right, defined)} & set(found)
    if given_away:
        raise ValueError(f"{name}: the kept check needs {sorted(given_away)}, which the right answer also needs")
    return ast.get_source_segment(source, check), found


def replacement(source: str, exercises: dict) -> tuple[str, Counter]:
    "The cell of the student edition, and the number of exercises sealed, kept as code, or not checked."
    kinds, calls, names = Counter(), [], set()
    for name, ex in exercises.items():
        data = None if ex.keep else seal(ex)
        kinds["kept" if ex.keep else "sealed" if data else "unchecked"] += 1
        if ex.keep:
            check, found = kept(source, name)
            names |= set(found)
            calls.append(f"{name} = Exercise({ex.name!r}, check={check})")
        else:
            literal = pprint.pformat(data or {}, width=110, compact=True, sort_dicts=False)
            calls.append(f"{name} = Exercise.sealed({ex.name!r}, {literal})")
    defined = definitions(ast.parse(source))
    nodes = sorted({id(n): n for n in map(defined.get, names)}.values(), key=lambda node: node.lineno)
    lines = source.split("\n")
    first = [min([n.lineno] + [d.lineno for d in getattr(n, "decorator_list", [])]) for n in nodes]
    code = ["\n".join(lines[a - 1 : n.end_lineno]) for a, n in zip(first, nodes)]
    return HEAD + "\n\n".join(code + calls) + "\n", kinds


# ------------------------------------------------------------------ the pages


def evaluate(page: Path) -> tuple:
    "Run a page up to its exercises in this process; returns the shell, the cell's source, and exercises by name."
    from execnb.nbio import read_nb
    from execnb.shell import CaptureShell

    os.chdir(page.parent)
    nb, flags = read_nb(page), set(pages.settings().get("tst_flags", "").split())
    place = folded(nb.cells)
    source = "".join(nb.cells[place].source).rstrip().rstrip(";")
    nb.cells = nb.cells[: place + 1]
    shell = CaptureShell(page)
    try:
        shell.run_all(nb, exc_stop=True, preproc=lambda cell: pages.skipped(cell, flags))
    except BaseException:
        sys.exit(shell.prettytb(fname=page))
    assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    made = [node.targets[0].id for node in assigned if is_call(node.value, "Exercise")]
    return shell, source, {name: shell.user_ns[name] for name in made}


def edition(nb: dict, text: str) -> dict:
    "A notebook with the cell of exercises replaced."
    nb["cells"][folded(nb["cells"])] |= dict(source=text.rstrip("\n").splitlines(keepends=True), outputs=[])
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown" and INTRO.fullmatch("".join(cell["source"])):
            cell["source"] = [STUDENT_INTRO]
    return nb


def one(page: str, out: str):
    "Write the student edition of a page, and print the counts by kind."
    nb = json.loads(Path(page).read_text(encoding="utf-8"))
    _, source, exercises = evaluate(Path(page))
    text, kinds = replacement(source, exercises)
    Path(out).write_text(json.dumps(edition(nb, text), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(kinds))


ONE = "import sys; sys.path.insert(0, sys.argv[1]); from tools import student; student.one(*sys.argv[2:])"


def build(found: list[Path], out: Path, workers: int = 1) -> tuple[Counter, dict]:
    "Write the student edition of the pages to `out`; returns the counts by kind and the faults by page."
    kinds, faults = Counter(), {}

    def work(page: Path):
        target = out / page.relative_to(pages.NBS)
        target.parent.mkdir(parents=True, exist_ok=True)
        if folded(json.loads(page.read_text(encoding="utf-8"))["cells"]) is None:
            shutil.copyfile(page, target)
            return page, None
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
            env = dict(IPYTHONDIR=f"{own}/ipython", FTKIT_HOME=f"{own}/ftkit")
            return page, warm.run(ONE, ROOT, page, target, env=env, timeout=STOP)

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
        Warm(pages.environment(workers, home, True)) as warm,
        ThreadPoolExecutor(workers) as pool,
    ):
        for page, done in pool.map(work, found):
            name = page.relative_to(pages.NBS).as_posix()
            if done and done.returncode:
                faults[name] = (done.stderr or done.stdout)[-3000:] or f"exit status {done.returncode}"
            here = Counter(json.loads(done.stdout.splitlines()[-1])) if done and not done.returncode else Counter()
            kinds += here
            told = ", ".join(f"{number} {kind}" for kind, number in here.items()) or "no exercises"
            print(f"{'FAILED' if name in faults else told:36}{name}", flush=True)
    return kinds, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", help="notebooks or folders; default: all of nbs/")
    parser.add_argument("--out", default=str(ROOT / "student"), help="the output folder")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    out = Path(args.out).resolve()
    kinds, faults = build(pages.pages(args.pages), out, args.workers)
    if not args.pages:
        for extra in pages.NBS.glob("*.*css"):
            shutil.copyfile(extra, out / extra.name)
    for name, fault in faults.items():
        print(f"\n{'=' * 30} {name}\n{fault}")
    print(
        f"{sum(kinds.values())} exercises: {kinds['sealed']} sealed, {kinds['kept']} keep the code of their check, "
        f"{kinds['unchecked']} are checked in the instructor's edition only; {len(faults)} faults"
    )
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
