"""Format modules, tests, tools and notebooks with ruff: 120 columns, and 100 in the lesson cells of the pages"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
PLAIN = ("ftkit", "tests", "tools", "setup.py")
COLUMNS = {"export": 120, "lesson": 100}


def ruff(*args, check: bool = True) -> subprocess.CompletedProcess:
    """Run ruff in the repository with its ruff.toml."""
    command = [sys.executable, "-m", "ruff", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=check)


def parted(source: str) -> tuple[str, str]:
    """The `#|` lines at the top of a cell, and the rest."""
    head = re.match(r"(#\|[^\n]*(\n|$))*", source)[0]
    return head, source[len(head) :]


def kind(cell: dict) -> str:
    """The kind of a cell for the formatter: "export", "lesson", or "" where it is not formatted.

    Answer cells of exercises and the cell that installs ftkit on Colab are not formatted.
    """
    source = "".join(cell["source"])
    fixed = re.search(
        r"\A([^\n]*\n){0,5}( {4}|answer_\d+ = )\.\.\.  # your answer\Z|^if \"google\.colab\" in", source, re.M
    )
    if cell["cell_type"] != "code" or fixed or not parted(source)[1].strip():
        return ""
    return "export" if re.search(r"^#\|\s*exports?i?\b", source, re.M) else "lesson"


def notebook_of(cells: list) -> dict:
    """A notebook with the given code cells, without their `#|` lines."""
    plain = [dict(cell, source=parted("".join(cell["source"]))[1], outputs=[], execution_count=None) for cell in cells]
    return {"cells": plain, "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}


def formatted(pages: list) -> dict:
    """The new text of each notebook that formatting changes, by path."""
    books = {page: json.loads(page.read_text(encoding="utf-8")) for page in pages}
    with tempfile.TemporaryDirectory() as folder:
        parts = {}
        for number, book in enumerate(books.values()):
            for name in COLUMNS:
                if cells := [cell for cell in book["cells"] if kind(cell) == name]:
                    file = Path(folder) / name / f"{number}.ipynb"
                    file.parent.mkdir(exist_ok=True)
                    file.write_text(json.dumps(notebook_of(cells)), encoding="utf-8")
                    parts[file] = cells
        for name, columns in COLUMNS.items():
            if (Path(folder) / name).exists():
                done = ruff(
                    "format",
                    "--quiet",
                    "--config",
                    ROOT / "ruff.toml",
                    "--line-length",
                    columns,
                    Path(folder) / name,
                    check=False,
                )
                if done.returncode:
                    sys.exit(done.stderr)
        for file, cells in parts.items():
            for cell, new in zip(cells, json.loads(file.read_text(encoding="utf-8"))["cells"]):
                head, _ = parted("".join(cell["source"]))
                cell["source"] = (head + "".join(new["source"])).splitlines(keepends=True)
    found = {page: json.dumps(book, ensure_ascii=False, indent=1) + "\n" for page, book in books.items()}
    return {page: text for page, text in found.items() if text != page.read_text(encoding="utf-8")}


def all_pages() -> list:
    """All notebooks of the project."""
    return [
        page
        for page in sorted(NBS.rglob("*.ipynb"))
        if not any(part[0] in "._" for part in page.relative_to(NBS).parts)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only list files that are not formatted")
    parser.add_argument("pages", nargs="*", type=Path, help="notebooks; default: everything")
    args = parser.parse_args()
    changed = formatted([page.resolve() for page in args.pages] or all_pages())
    plain = "" if args.pages else ruff("format", *(["--check"] if args.check else []), *PLAIN, check=False).stdout
    if args.check:
        print("\n".join(str(page.relative_to(ROOT)) for page in changed) + plain)
        sys.exit(1 if changed or "Would reformat" in plain else 0)
    for page, text in changed.items():
        page.write_text(text, encoding="utf-8")
    print(f"{len(changed)} notebooks; {plain.strip()}")


if __name__ == "__main__":
    main()
