"""The repository's address: `git_url` in settings.ini is the only setting, `make address` updates all other occurrences

These are: the derived keys of settings.ini, the first cell of every page (which installs ftkit in Colab, with
the extras that the page imports), and links to the repository, to Colab and to the docs in all text files."""

import ast
import json
import re
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXTS = (
    "nbs/**/*.ipynb",
    "ftkit/**/*.py",
    "tools/**/*.py",
    "*.md",
    "*.yml",
    "Makefile",
    "setup.py",
    ".github/**/*.yml",
)


def settings(root: Path = ROOT) -> dict[str, str]:
    "The DEFAULT section of settings.ini."
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(root / "settings.ini", encoding="utf-8")
    return dict(parser["DEFAULT"])


def derived(git_url: str) -> dict[str, str]:
    "The keys of settings.ini that are derived from the address."
    user, repo = git_url.rstrip("/").split("/")[-2:]
    return dict(user=user, repo=repo, doc_host=f"https://{user}.github.io", doc_baseurl=f"/{repo}")


def pattern(names: set[str]) -> re.Pattern:
    "Matches addresses of a repository with one of the names; the group is the prefix, None for the docs."
    either = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    code = r"(github\.com/|colab\.research\.google\.com/github/)[\w-]+/"
    return re.compile(rf"(?:{code}|[\w-]+\.github\.io/)(?:{either})(?![\w-])")


def readdressed(text: str, config: dict[str, str]) -> str:
    "The text with every address of the repository replaced by the one in the settings."
    new = derived(config["git_url"])

    def replace(match):
        return f"{match[1]}{new['user']}/{new['repo']}" if match[1] else f"{new['user']}.github.io/{new['repo']}"

    return pattern({config["lib_name"], config["repo"], new["repo"]}).sub(replace, text)


def extras(config: dict[str, str]) -> dict[str, str]:
    "Maps the names of modules to the extra that installs them."
    found = {}
    for key, value in config.items():
        extra = key.removesuffix("_requirements")
        if extra != key and extra != "dev":
            found |= {re.match(r"[\w-]+", requirement)[0].replace("-", "_"): extra for requirement in value.split()}
    return found


def imported(source: str) -> set[str]:
    "The top-level names of modules that a cell imports, by statement or `library(...)`, also inside functions."
    try:
        tree = ast.parse(re.sub(r"^(\s*)(%{1,2}\w|!(?!=)).*", r"\1pass", source, flags=re.M))
    except SyntaxError:
        return set()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "library":
            found |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return {name.partition(".")[0] for name in found}


def needed(cells: list[dict], config: dict[str, str]) -> list[str]:
    "The extras from which the cells of a page import."
    known = extras(config)
    names = set().union(*[imported("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"])
    return sorted({known[name] for name in names if name in known})


def colab_cell(cells: list[dict], config: dict[str, str]) -> str:
    "The first cell of a page."
    some = needed(cells, config)
    what = f"ftkit[{','.join(some)}]" if some else "ftkit"
    address = config["git_url"]
    return f"""#| hide
# Colab only: install ftkit next to the preinstalled torch
import sys

if "google.colab" in sys.modules:
    %pip install -q "{what} @ git+{address}\""""


def wanted(path: Path, config: dict[str, str]) -> str:
    "The text that a file of the project should contain."
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        nb = json.loads(text)
        nb["cells"][0]["source"] = colab_cell(nb["cells"], config).splitlines(keepends=True)
        text = json.dumps(nb, ensure_ascii=False, indent=1) + "\n"
    return readdressed(text, config)


def stale(root: Path = ROOT) -> dict[Path, str]:
    "Files that do not agree with the settings, and the text they should contain."
    config, found = settings(root), {}
    for path in sorted({path for glob in TEXTS for path in root.glob(glob)}):
        if not any(part.startswith(".ipynb") or part == "_modidx.py" for part in path.parts):
            text = wanted(path, config)
            if text != path.read_text(encoding="utf-8"):
                found[path] = text
    path = root / "settings.ini"
    text = path.read_text(encoding="utf-8")
    for key, value in derived(config["git_url"]).items():
        text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.M)
    return found | ({path: text} if text != path.read_text(encoding="utf-8") else {})


def main():
    for path, text in stale().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT).as_posix())


if __name__ == "__main__":
    sys.exit(main())
