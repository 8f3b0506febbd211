"""Converts `> **Tip:** …`, which JupyterLab, Colab and GitHub display as a quote, to a Quarto callout (settings.ini:
procs)
"""

import re

KINDS = ("note", "tip", "warning", "important", "caution")
FIRST = re.compile(rf"^> \*\*({'|'.join(KINDS)}):\*\* ?(.*)$", re.I)


def quotes_to_callouts(text: str) -> str:
    "Convert each block quote that starts with a bold kind to a fenced callout; leave other quotes and code."
    out, inside, fenced = [], False, False
    for line in text.split("\n"):
        start = None if fenced else FIRST.match(line)
        if inside and (start or not line.startswith(">")):
            out.append(":::")
            inside = False
        if line.startswith("```"):
            fenced = not fenced
        if start:
            out += ["", f"::: {{.callout-{start[1].lower()}}}", start[2]]
            inside = True
        else:
            out.append(line[1:].removeprefix(" ") if inside else line)
    return "\n".join(out + [":::"] * inside)


def callouts(cell):
    "The nbdev processor."
    if cell.cell_type == "markdown" and cell.source:
        cell.source = quotes_to_callouts(cell.source)
