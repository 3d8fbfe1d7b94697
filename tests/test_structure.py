"""The structure that DESIGN asks for: imports run downward, files and functions stay short."""

import ast

import pytest
from helpers import ROOT

PACKAGES = ("common", "dataset", "models", "training", "analysis", "plotting", "studies")
# What a package may import of the project.
ALLOWED = {
    "common": set(),
    "losses": {"common"},
    "models": {"common"},
    "dataset": {"common"},
    "training": {"common", "losses", "models", "dataset"},
    "analysis": {"common", "losses", "models", "dataset", "training"},
    "plotting": {"common", "losses", "analysis"},
    "studies": {"common", "dataset", "analysis"},
}
SCRIPTS = {path.stem for path in ROOT.glob("*.py")} - {"losses"}
SOURCES = [*ROOT.glob("*.py"), *(path for name in PACKAGES for path in (ROOT / name).glob("*.py"))]
NAMES = {*PACKAGES, *SCRIPTS, "losses"}


def imported(path):
    """The modules and packages of the project that a file imports, by their first name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward_and_sizes_are_kept(path):
    own = path.parent.name if path.parent != ROOT else path.stem
    uses = (set(imported(path)) & NAMES) - {own}
    if own in SCRIPTS:
        assert not uses & SCRIPTS
    else:
        assert uses <= ALLOWED[own], f"{path.name} imports {uses - ALLOWED[own]}"
    text = path.read_text("utf-8")
    assert text.count("\n") <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 60, node.name
            public = not node.name.startswith("_") and own not in SCRIPTS
            if public and node in ast.parse(text).body:
                assert ast.get_docstring(node), node.name
