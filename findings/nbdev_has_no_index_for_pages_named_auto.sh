#!/usr/bin/env bash
# Guess: nbdev's symbol index (_modidx.py, from which links in the docs are made) lists every exported symbol, whatever the notebook is called.
# Seen: a notebook with "auto" anywhere in its path (autotune.ipynb, automl/train.ipynb) is exported, but none of its symbols is in the
# index: nbdev takes the word for its mark of generated code. No message; links to these symbols are missing on the site.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "nbdev==2.4.14" "execnb<0.2" "fastcore<2" "ghapi<2"
cd "$folder"
mkdir nbs
"$folder/venv/bin/python" - <<'EOF'
import json
from importlib.metadata import version

open("settings.ini", "w").write(
    "[DEFAULT]\nrepo = demo\nlib_name = demo\nversion = 0.0.1\nmin_python = 3.11\nlicense = apache2\nlib_path = demo\nnbs_path = nbs\n"
    "user = someone\nauthor = someone\nauthor_email = a@b.c\ncopyright = none\nbranch = main\ndescription = demo\n"
    "doc_path = _docs\nrecursive = True\nlanguage = English\ntst_flags = slow\nblack_formatting = False\ntitle = demo\n"
    "keywords = demo\nstatus = 3\naudience = Developers\nput_version_in_init = True\nupdate_pyproject = False\n"
    "git_url = https://example.org/demo\ndoc_host = https://example.org\ndoc_baseurl = /demo\ncustom_sidebar = False\n"
    "readme_nb = index.ipynb\njupyter_hooks = False\nclear_all = False\ncell_number = False\n")
for name in ("tuning", "autotune"):
    cell = lambda i, source: dict(cell_type="code", id=f"c{i}", metadata={}, source=source, outputs=[], execution_count=None)
    cells = [cell(1, f"#| default_exp {name}"), cell(2, f"#| export\ndef of_{name}(): return 1")]
    json.dump(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5), open(f"nbs/{name}.ipynb", "w"))
print("nbdev", version("nbdev"))
EOF
"$folder/venv/bin/nbdev_export"
"$folder/venv/bin/python" - <<'EOF'
exec(open("demo/_modidx.py").read())
for name in ("tuning", "autotune"):
    exported = f"def of_{name}" in open(f"demo/{name}.py").read()
    print(f"{name}: exported {exported}, in the index {sorted(d['syms'][f'demo.{name}'])}")
assert d["syms"]["demo.tuning"] and not d["syms"]["demo.autotune"], "the behaviour has changed"
EOF
# Output with the versions above:
#   nbdev 2.4.14
#   tuning: exported True, in the index ['demo.tuning.of_tuning']
#   autotune: exported True, in the index []
