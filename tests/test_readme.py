"""The README is the front page, and what it tells people to type exists"""

import re

import pytest
from conftest import NBS, ROOT, child

README = ROOT / "README.md"
needs_readme = pytest.mark.skipif(not README.exists(), reason="README.md is not there yet")


@pytest.mark.skipif(not (NBS / "index.ipynb").exists(), reason="nbs/index.ipynb is not there yet")
def test_readme_is_generated():
    done = child(
        "import runpy, sys; sys.argv[0] = 'tools/readme.py'; runpy.run_path(sys.argv[0], run_name='__main__')",
        "--check",
    )
    assert done.returncode == 0, done.stderr[-2000:]


def commands():
    "Every line of the README's code blocks and code spans."
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    return [line.strip().removeprefix("$ ") for block in blocks + spans for line in block.splitlines()]


@needs_readme
def test_make_targets_exist():
    used = {m[1] for line in commands() if (m := re.match(r"make ([\w-]+)", line))}
    assert {"demo", "test"} <= used
    there = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert used <= there


@needs_readme
def test_ftkit_commands_exist():
    used = {m[1] for line in commands() if (m := re.match(r"ftkit ([a-z]+)", line))}
    assert used
    for name in used:
        done = child("import ftkit.cli; ftkit.cli.main()", name, "--help")
        assert done.returncode == 0, f"ftkit {name}: {done.stderr[-500:]}"


@needs_readme
def test_python_names_exist():
    import ftkit

    used = {name for line in commands() for name in re.findall(r"\bft\.(\w+)", line)}
    assert used <= set(ftkit.__all__)


@needs_readme
def test_links_lead_somewhere():
    text = README.read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:|#", t)]
    assert not [t for t in targets if not (ROOT / t.split("#")[0]).exists()]


def test_ci_runs_the_command_of_the_readme():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert "make test" in lines
