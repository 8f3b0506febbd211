"""nbdev processors: the published site shows the package's code in place, and links names to the right module

nbdev moves exported code below signatures, documents the symbols of a cell in reverse order, and links a name to the
first module that defines it. These processors replace nbdev's own (settings.ini: procs, skip_procs). No cell is
executed: the modules are imported, once for all pages."""

import ast
import inspect
import re
import sys
from importlib import import_module
from types import ModuleType

from fastcore.docments import DocmentTbl
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.process import Processor
from nbdev.processors import mk_cell

from tools.docs import anchors

OPEN = 25  # lines of code that are shown unfolded
WIDTHS = {"": 14, "**Type**": 14, "**Default**": 12, "**Details**": 40}  # column widths of a table of parameters
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def definitions(source: str) -> list:
    "The functions and classes that a cell defines, as AST nodes in order."
    return [node for node in ast.parse(source).body if isinstance(node, DEFINITIONS)]


def public(source: str) -> list:
    "The public definitions of a cell."
    return [node for node in definitions(source) if not node.name.startswith("_")]


def module_of(nb) -> str | None:
    "The module that a notebook exports, from its `default_exp`."
    targets = [cell.directives_["default_exp"][0] for cell in nb.cells if "default_exp" in (cell.directives_ or {})]
    return f"{get_config().lib_name}.{targets[0]}" if targets else None


class Lookup(NbdevLookup):
    "nbdev's symbol table for one page: its own module first, then its imports, then unique names."

    def __init__(self, module: str | None, imported: dict[str, str]):
        super().__init__()
        self.syms = {}
        for entry in self.entries.values():
            for syms in entry["syms"].values():
                self.syms |= syms
        owners: dict[str, dict] = {}
        for owner, syms in self.entries[get_config().lib_name]["syms"].items():
            for name, where in syms.items():
                owners.setdefault(name.removeprefix(f"{owner}."), {})[owner] = where
        for name, where in owners.items():
            if not name.startswith("_") and "._" not in name:
                meant = [module, imported.get(name.partition(".")[0]), *(where if len(where) == 1 else [])]
                found = [owner for owner in meant if owner in where]
                if found:
                    self.syms[name] = where[found[0]]


def imports(nb) -> dict[str, str]:
    "Names that a page's cells import from the package, and their modules."
    found = {}
    for cell in nb.cells:
        if cell.cell_type == "code":
            for module, names in re.findall(r"^\s*from (\w[\w.]*) import ([\w, ]+)", cell.source, re.M):
                found |= {name.split(" as ")[0].strip(): module for name in names.split(",")}
    return found


class page_links(Processor):
    "Names in backticks become links to the documentation of the symbol."

    def __init__(self, nb):
        super().__init__(nb)
        self.lookup = Lookup(module_of(nb), imports(nb))

    def cell(self, cell):
        if cell.cell_type == "markdown":
            cell.source = self.lookup.linkify(cell.source)


class exported_code(Processor):
    "Exported cells stay in place, long ones folded, followed by their symbols: name, source, parameters."

    def __init__(self, nb):
        super().__init__(nb)
        self.module = module_of(nb)

    def begin(self):
        if not self.module:
            return
        self.lookup, module = Lookup(self.module, {}), import_module(self.module)
        for imported in [m for name, m in sys.modules.items() if name.split(".")[0] == module.__name__.split(".")[0]]:
            import_annotations(imported)
        taken = anchors((cell.cell_type, cell.source, []) for cell in self.nb.cells)
        cells = []
        for cell in self.nb.cells:
            cells.append(cell)
            if cell.cell_type == "code" and "exports" in cell.directives_:
                nodes = public(cell.source)
                cell.source = folded(cell.source)
                if nodes:
                    text = "\n\n".join(self.symbol(node, getattr(module, node.name), taken) for node in nodes)
                    cells.append(mk_cell(f"::: {{.symbols}}\n{text}\n:::", cell_type="markdown"))
        self.nb.cells = cells

    def symbol(self, node: ast.AST, value: object, taken: set[str]) -> str:
        """The documentation of a symbol in markdown: its anchors, a link to its source, and its parameters in a fold.

        Signature and docstring are in the code just above, so the table is folded.
        `taken` are the ids of the page's headings; a symbol with the id of a heading gets no anchor of its own."""
        methods = [m.name for m in node.body if isinstance(node, ast.ClassDef) and isinstance(m, DEFINITIONS)]
        names = [node.name, *[f"{node.name}.{name}" for name in methods if not name.startswith("_")]]
        ids = dict.fromkeys(name.lower() for name in names)
        marks = "".join(f"[]{{#{name}}}" for name in ids if name not in taken)
        text = f'{marks}`{node.name}` [source]({self.lookup.code(node.name)}){{.source target="_blank"}}'
        table = parameters(value)
        return f"{text}\n\n<details>\n<summary>Parameters</summary>\n\n{table}\n\n</details>" if table else text


def import_annotations(module: ModuleType):
    "Import what a module imports for type checkers only; names of type stubs become empty classes."
    if "TYPE_CHECKING" not in vars(module):
        return
    for block in ast.parse(inspect.getsource(module)).body:
        if not (isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"):
            continue
        for line in block.body:
            try:
                exec(ast.unparse(line), vars(module))
            except ImportError:
                vars(module).update({alias.name: type(alias.name, (), {}) for alias in line.names})


def folded(source: str) -> str:
    "A long cell with Quarto's options for folding, and its definitions as summary; a short cell is unchanged."
    if len(source.strip().splitlines()) <= OPEN:
        return source
    names = ", ".join(node.name for node in public(source) or definitions(source)) or "Constants"
    return f'#| code-fold: true\n#| code-summary: "{names}"\n{source}'


def parameters(value: object) -> str:
    "The documented parameters of a function or class as a markdown table; empty if no parameter has a comment."
    table = DocmentTbl(value)._repr_markdown_()
    if not table:
        return ""
    head, _, rows = table.split("\n", 2)
    rule = "|".join("-" * WIDTHS[title.strip()] for title in head.strip().strip("|").split("|"))
    return f"{head}\n|{rule}|\n{rows}"
