"""The structure of the code: imports run downward, files and functions are short and documented."""

import ast

import pytest
from helpers import ROOT, SCRIPTS

PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
NAMES = {*PACKAGES, *SCRIPTS, "losses"}
# What a package may import of the project; scripts may import everything but scripts.
ALLOWED = {
    "common": set(),
    "losses": {"common"},
    "models": {"common"},
    "dataset": {"common"},
    "training": {"common", "losses", "models", "dataset"},
    "analysis": {"common", "losses", "models", "dataset", "training"},
    "plotting": {"common", "losses", "analysis"},
    "studies": {"common", "dataset", "analysis"},
    **dict.fromkeys(["benchmarks", *SCRIPTS], NAMES - set(SCRIPTS)),
}
SOURCES = sorted([*ROOT.glob("*.py"), *(p for n in ALLOWED for p in ROOT.glob(f"{n}/*.py"))])
MOST_LINES, MOST_LINES_OF_FUNCTION = 250, 60


def layer(path):
    """The package, or the script, that a file belongs to."""
    return path.stem if path.parent == ROOT else path.parent.name


def imported_names(tree):
    """The first names of all that a file imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield node.module.split(".")[0]


def test_every_package_has_its_place():
    assert set(PACKAGES) <= set(ALLOWED) and len(SOURCES) > 60


@pytest.fixture(params=SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def source(request):
    return request.param


def test_imports_run_downward(source):
    own = layer(source)
    imports = set(imported_names(ast.parse(source.read_text("utf-8")))) & NAMES
    assert imports - {own} <= ALLOWED[own]


def test_files_and_functions_are_short_and_documented(source):
    text = source.read_text("utf-8")
    assert text.count("\n") <= MOST_LINES
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MOST_LINES_OF_FUNCTION, node.name
    if source.parent.name in PACKAGES:
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), node.name
