"""The docs: pages as nbdev processes them (in _proc/), checked for what Quarto lets pass, then built where there is
Quarto

`python tools/docs.py` processes and checks; `--build` also renders to _docs/, where a warning of Quarto's is a
fault.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CALLOUTS = {"note", "tip", "warning", "important", "caution"}


def process(to: Path) -> Path:
    """Process all pages into the folder `to`, which is made anew, and return it.

    Raises where a module cannot be imported.
    """
    os.chdir(ROOT)  # nbdev looks for its settings here
    from execnb.nbio import read_nb, write_nb
    from nbdev.processors import FilterDefaults

    shutil.rmtree(to, ignore_errors=True)
    for path in sorted((ROOT / "nbs").rglob("*")):
        name = path.relative_to(ROOT / "nbs")
        if path.is_dir() or any(part.startswith(".") for part in name.parts):
            continue
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ipynb":
            nb = read_nb(path)
            FilterDefaults()(nb)
            write_nb(nb, to / name)
        else:
            shutil.copy(path, to / name)
    return to


def read(path):
    "(kind, source, outputs) of the cells of a notebook."
    import json

    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [(c["cell_type"], "".join(c["source"]), c.get("outputs", [])) for c in cells]


def prose(source):
    "Markdown without code blocks and code spans."
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^(```+|~~~+).*?^\1", "", source, flags=re.S | re.M))


def anchors(cells):
    "The ids that a link may name: headings as pandoc makes them, and {#…}."
    found = set()
    for kind, source, _ in cells:
        if kind == "markdown":
            found |= set(re.findall(r"\{#([\w.-]+)", source))
            for title in re.findall(
                r"^#+\s+(.+?)(?:\s*\{.*\})?$", re.sub(r"^```.*?^```", "", source, flags=re.S | re.M), re.M
            ):
                title = re.sub(r"[^\w\s.-]", "", re.sub(r"\]\([^)]*\)", "]", title).lower())
                found.add(re.sub(r"\s+", "-", re.sub(r"^[^a-z]+", "", title.strip())))
    return found


def links(proc, page, source):
    "Links and images that lead nowhere; images without alt text."
    for bang, text, target in re.findall(r"(!?)\[([^\]]*)\]\(([^)\s]+)[^)]*\)", source):
        if bang and not text.strip():
            yield f"image without alt text: {target}"
        if re.match(r"[a-z]+:|//", target):
            continue
        name, _, anchor = target.partition("#")
        to = (page.parent / name).resolve() if name else page
        if not to.exists():
            yield f"{'missing image' if bang else 'link to nothing'}: {target}"
        elif anchor and to.suffix == ".ipynb" and anchor not in anchors(read(to)):
            yield f"no such anchor: {target}"
    for tag in re.findall(r"<img\b[^>]*>", source):
        if not re.search(r"""\balt=["'][^"']+""", tag):
            yield f"image without alt text: {tag[:80]}"


def divs(source):
    "Fenced divs that do not close, and callouts that Quarto does not know."
    depth = 0
    for line in source.split("\n"):
        if re.match(r":::+\s*(\{|\w)", line):
            depth += 1
        elif re.match(r":::+\s*$", line):
            depth -= 1
        if depth < 0:
            break
    if depth:
        yield "div (:::) that does not balance"
    for name in re.findall(r"\{[^}]*\.callout-(\w+)", source):
        if name not in CALLOUTS:
            yield f"unknown callout: {name}"


def options(source):
    "Cell options that are not YAML."
    import yaml

    for line in re.findall(r"^#\|\s*(.*)$", source, re.M):
        if ":" in line:
            try:
                if not isinstance(yaml.safe_load(line), dict):
                    yield f"cell option that is no YAML: {line}"
            except yaml.YAMLError:
                yield f"cell option that is no YAML: {line}"


def references(cells):
    "@fig-… and the like without a target."
    text = "\n".join(prose(source) for kind, source, _ in cells if kind == "markdown")
    whole = "\n".join(source for _, source, _ in cells)
    for name in set(re.findall(r"(?<![\w@])@((?:fig|eq|tbl|sec)-[\w-]+)", text)):
        if not re.search(rf"\{{#{name}\b|label:\s*{name}\s*$", whole, re.M):
            yield f"reference without a target: @{name}"


def maths(pages: dict[str, list]):
    "LaTeX that cannot be shown, as (page, fault): pandoc is asked once for all pages, and page by page on a fault."
    try:
        import pypandoc

        pandoc = pypandoc.get_pandoc_path()
    except (ImportError, OSError):
        return
    texts = {
        name: "\n\n".join(source for kind, source, _ in cells if kind == "markdown") for name, cells in pages.items()
    }
    if broken(pandoc, "\n\n".join(text for text in texts.values() if "$" in text)):
        for name, text in texts.items():
            for fault in broken(pandoc, text):
                yield name, f"LaTeX that does not parse: {fault}"


def broken(pandoc: str, text: str) -> list[str]:
    "The formulas of a markdown text that pandoc cannot convert to MathML."
    done = subprocess.run(
        [pandoc, "-f", "markdown", "-t", "html", "--mathml"],
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    return re.findall(r"Could not convert TeX math (.*)", done.stderr)


def entries(contents):
    "The pages of a sidebar."
    for item in contents:
        if isinstance(item, str):
            yield item
        else:
            yield from filter(None, [item.get("href"), item.get("file")])
            yield from entries(item.get("contents", []))


def sidebar(proc, quarto_yml):
    "Sidebar entries without a page, pages without an entry."
    import yaml

    listed = list(entries(yaml.safe_load(quarto_yml.read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]))
    there = {p.relative_to(proc).as_posix() for p in proc.rglob("*.ipynb")}
    for name in listed:
        if name not in there:
            yield f"sidebar entry without a page: {name}"
    for name in sorted(there - set(listed)):
        yield f"page that the sidebar does not list: {name}"


def lint(proc: Path, quarto_yml: Path | None = None):
    "Every fault of the processed pages, as (page, fault)."
    faults = [("_quarto.yml", f) for f in sidebar(proc, quarto_yml)] if quarto_yml else []
    pages = {page.relative_to(proc).as_posix(): read(page) for page in sorted(proc.rglob("*.ipynb"))}
    for name, cells in pages.items():
        page = proc / name
        found = [*references(cells), *divs("\n".join(prose(s) for kind, s, _ in cells if kind == "markdown"))]
        for kind, source, outputs in cells:
            if kind == "markdown":
                found += links(proc, page, prose(source))
            elif kind == "code":
                found += options(source)
                for out in outputs:
                    found += links(proc, page, "".join(out.get("data", {}).get("text/html", "")))
        faults += [(name, fault) for fault in found]
    return faults + list(maths(pages))


def build():
    "Render with Quarto to _docs/; a list of what it warned about."
    # nbdev rewrites an older README.md by Quarto; ours is tools/readme.py's.
    (ROOT / "README.md").touch()
    done = subprocess.run(
        [sys.executable, "-c", "from nbdev.quarto import nbdev_docs; nbdev_docs.__wrapped__()"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    said = done.stdout + done.stderr
    faults = [("quarto", line.strip()) for line in said.splitlines() if re.search(r"\b(WARN|ERROR)", line)]
    if done.returncode or not (ROOT / "_docs" / "index.html").exists():
        faults.append(("quarto", f"no site was made (exit status {done.returncode}): {said[-2000:]}"))
    return faults


def main():
    proc = process(ROOT / "_proc")
    faults = lint(proc, ROOT / "_quarto.yml")
    number = len(list(proc.rglob("*.ipynb")))
    if "--build" in sys.argv:
        if shutil.which("quarto"):
            faults += build()
        else:
            print("Quarto is not installed: the pages are processed and checked in _proc/, but not rendered to _docs/")
    for page, fault in faults:
        print(f"{page}: {fault}")
    print(f"{number} pages, {len(faults)} faults")
    sys.exit(1 if faults or not number else 0)


if __name__ == "__main__":
    main()
