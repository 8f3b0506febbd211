"""Measure a result that a page or an issue states, and save it with what is needed to repeat the measurement.

    python tools/bench --list
    python tools/bench [NAME] [--option value ...] [--out FILE]

Without options, a measurement runs as stated and is written to bench/evidence/NAME.json. With options
(fewer seeds, only some workloads), its values are printed, and written only to the file given by `--out`.
"""

import argparse
import inspect
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from tools.bench import record  # noqa: E402


def listing() -> str:
    "One line per measurement: its name, what it measures, how long it takes, and whether its result is stale."
    lines = ["make evidence NAME=..., with the duration in epochs of bert-mini:"]
    for name in record.names():
        declared = record.load(name).DECLARED
        state = "not measured"
        if name in record.measured():
            state = "stale" if record.changed(name) else "fresh"
        needs = f"; needs {declared.needs}" if declared.needs else ""
        lines.append(f"  {name:16s}{declared.epochs:>6g}  {state:14s}{declared.what}{needs}")
    return "\n".join(lines)


def options_of(name: str, given: list[str]) -> dict:
    "The options that a measurement takes, as its `measure` names them; only those that were given."
    parser = argparse.ArgumentParser(prog=f"python tools/bench {name}")
    for key, parameter in inspect.signature(record.load(name).measure).parameters.items():
        listed = isinstance(parameter.default, tuple)
        kind = type((parameter.default or ("",))[0]) if listed else type(parameter.default)
        parse = (lambda text, kind=kind: tuple(map(kind, text.split(",")))) if listed else kind
        parser.add_argument(f"--{key}", type=parse, default=argparse.SUPPRESS)
    return vars(parser.parse_args(given))


def main():
    from ftkit.core import write_json

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="jobs", choices=record.names())
    parser.add_argument("--list", action="store_true", help="list the measurements")
    parser.add_argument("--out", type=Path, help="the output file, instead of bench/evidence/NAME.json")
    arguments, rest = parser.parse_known_args()
    if arguments.list:
        print(listing())
        return
    options = options_of(arguments.name, rest)
    found = record.record(arguments.name, **options)
    to = arguments.out or (None if options else record.EVIDENCE / f"{arguments.name}.json")
    if to:
        write_json(to, found)
    else:
        print("Measured with options, so no file is written; use --out FILE to save the result.")


if __name__ == "__main__":
    main()
