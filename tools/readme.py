"""Generates README.md from nbs/index.ipynb, without Quarto: `python tools/readme.py` writes it, `--check` compares"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
HEAD = "<!-- Generated from nbs/index.ipynb by tools/readme.py (make readme): edit the notebook. -->\n\n"


def front(source: str) -> str:
    "The title cell, which nbdev converts to YAML, as markdown again."
    import yaml

    found = yaml.safe_load(source.strip().strip("-")) or {}
    return "\n\n".join(
        [f"# {found['title']}"] * ("title" in found) + [f"> {found['description']}"] * ("description" in found)
    )


def quote(match) -> str:
    "Convert a Quarto callout to a GitHub alert."
    body = "\n".join(("> " + line).rstrip() for line in match[2].strip().split("\n"))
    return f"> [!{match[1].upper()}]\n{body}"


def link(match) -> str:
    "Convert a link relative to nbs/ to one relative to the repository root."
    return f"]({'nbs/' if (ROOT / 'nbs' / match[1].split('#')[0]).exists() else ''}{match[1]})"


def output(out) -> str:
    "A stored output as markdown; images are omitted."
    if out["output_type"] == "stream":
        text = "".join(out["text"])
    else:
        data = out.get("data", {})
        if "text/markdown" in data:
            return "".join(data["text/markdown"])
        if any(kind.startswith("image/") for kind in data):
            return ""
        text = "".join(data.get("text/plain", ""))
    return "\n".join(("    " + line).rstrip() for line in text.rstrip().split("\n")) if text.strip() else ""


def readme() -> str:
    "The text of README.md."
    from execnb.nbio import read_nb
    from nbdev.config import get_config
    from nbdev.processors import FilterDefaults

    class Filter(FilterDefaults):
        # Links to symbols depend on the installed packages; the README must not.
        def procs(self):
            return [proc for proc in super().procs() if proc.__name__ not in ("page_links", "insert_warning")]

    nb = read_nb(ROOT / "nbs" / get_config(path=ROOT).readme_nb)
    Filter()(nb)
    parts = []
    for cell in nb.cells:
        source = (cell.source or "").strip()
        if cell.cell_type == "raw":
            parts.append(front(source))
        elif cell.cell_type == "markdown":
            source = re.sub(r"^::: \{\.callout-(\w+)\}\n(.*?)\n:::$", quote, source, flags=re.S | re.M)
            source = re.sub(r"\n{3,}", "\n\n", source)
            parts.append(re.sub(r"\]\(([^)#:]+[^):]*)\)", link, source))
        elif source:
            code = "\n".join(line for line in source.split("\n") if not line.startswith("#|")).strip()
            shown = dict(
                re.match(r"#\|\s*([\w-]+):?\s*(.*)", line).groups()
                for line in source.split("\n")
                if line.startswith("#|")
            )
            if shown.get("echo") != "false":
                parts.append(f"```python\n{code}\n```")
            if shown.get("output") != "false":
                parts += [output(out) for out in cell.get("outputs", [])]
    return HEAD + "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def main():
    text, path = readme(), ROOT / "README.md"
    if "--check" in sys.argv:
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit("README.md differs from nbs/index.ipynb: run `make readme`")
    else:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
