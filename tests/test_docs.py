"""The docs build as far as it goes without Quarto, with it where it is installed, and the lint sees planted faults"""
import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from tools.callouts import quotes_to_callouts
from tools.docs import lint


def write(path, *sources, code=()):
    cells = [dict(cell_type="markdown", id=f"m{i}", metadata={}, source=s) for i, s in enumerate(sources)]
    cells += [dict(cell_type="code", id=f"c{i}", metadata={}, source=s, outputs=[], execution_count=None) for i, s in enumerate(code)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)), encoding="utf-8")


FINE = ["# A\n\n> promise", "[b](sub/b.ipynb#the-idea) and ![a dot](dot.png), `[code](is-left-alone.md)`\n\n$x^2 + \\alpha$\n\n::: {.callout-tip}\nText\n:::",
        "$$y = x$$ {#eq-y}\n\nas in @eq-y"]


@pytest.fixture
def site(tmp_path):
    write(tmp_path / "a.ipynb", *FINE, code=["#| echo: false\n1 + 1"])
    write(tmp_path / "sub" / "b.ipynb", "# B\n\n> promise", "## The idea")
    (tmp_path / "dot.png").write_bytes(b"")
    (tmp_path / "_quarto.yml").write_text("website: {sidebar: {contents: [a.ipynb, {section: S, contents: [sub/b.ipynb]}]}}", encoding="utf-8")
    return tmp_path


def test_lint_is_silent_on_clean_pages(site):
    assert lint(site, site / "_quarto.yml") == []


@pytest.mark.parametrize("text, code, fault", [
    ("[x](gone.ipynb)", "", "link to nothing"),
    ("[x](sub/b.ipynb#gone)", "", "no such anchor"),
    ("![alt](gone.png)", "", "missing image"),
    ("![](dot.png)", "", "without alt text"),
    ('<img src="dot.png">', "", "without alt text"),
    ("::: {.callout-tip}\nText", "", "does not balance"),
    ("::: {.callout-tipp}\nText\n:::", "", "unknown callout"),
    ("see @fig-gone", "", "reference without a target"),
    ("$\\frac{1$", "", "LaTeX"),
    ("", "#| fig-alt: [a\n1", "no YAML"),
])
def test_lint_sees(site, text, code, fault):
    write(site / "a.ipynb", *FINE, text, code=[code] if code else [])
    assert [said for page, said in lint(site, site / "_quarto.yml") if fault in said], fault


def test_lint_sees_a_wrong_sidebar(site):
    write(site / "c.ipynb", "# C\n\n> promise")
    (site / "sub" / "b.ipynb").rename(site / "sub" / "d.ipynb")
    said = "\n".join(fault for _, fault in lint(site, site / "_quarto.yml"))
    assert "sidebar entry without a page: sub/b.ipynb" in said and "does not list: c.ipynb" in said


def test_callouts():
    text = "before\n\n> **Tip:** first\n> second\n\n> a plain quote\n\n```\n> **Tip:** code\n```"
    assert quotes_to_callouts(text) == "before\n\n\n::: {.callout-tip}\nfirst\nsecond\n:::\n\n> a plain quote\n\n```\n> **Tip:** code\n```"


def copy(to):
    "The project, apart from what git ignores."
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)


@pytest.mark.slow
def test_docs(tmp_path):
    "All pages process, nothing in them is broken; a copy, so that the checkout stays as it is."
    copy(tmp_path)
    build = ["--build"] if shutil.which("quarto") else []
    done = subprocess.run([sys.executable, "tools/docs.py", *build], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    if not build:
        assert not (tmp_path / "_docs").exists()


@pytest.mark.skipif(not shutil.which("quarto"), reason="Quarto is not installed: the pages were processed and checked, but not rendered")
def test_quarto_is_used():
    assert "--build" in (ROOT / "Makefile").read_text(encoding="utf-8")
