"""The structure of the code: imports run downwards, it stays small, importing does nothing."""

import ast
import re

import pytest
from helpers import PROGRAMS, ROOT, SCRIPTS, run_python

# What a package may import of the project; a script may import everything but scripts.
ALLOWED = {
    "common": set(),
    "losses": {"common"},
    "models": {"common"},
    "dataset": {"common"},
    "training": {"common", "losses", "models", "dataset"},
    "measures": {"common", "losses", "models", "dataset", "training"},
    "analysis": {"common", "losses", "dataset"},
    "plotting": {"common", "dataset", "analysis"},
}
ALLOWED |= {script: set(ALLOWED) for script in SCRIPTS}
ALLOWED["study"] = {*ALLOWED["study"], "generate", "train"}  # for their parse_args
WITHOUT_TORCH = ("analysis", "plotting")
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
SOURCES = sorted([*ROOT.glob("*.py"), *(p for n in PACKAGES for p in ROOT.glob(f"{n}/**/*.py"))])
MOST_FILES, MOST_LINES = 50, 7635
MOST_LINES_OF_MODULE, MOST_LINES_OF_FUNCTION = 450, 60


def layer(path):
    """The package, or the module in the root, that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_names(tree):
    """The first names of all that a file imports, also inside functions, but not for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield node.module.split(".")[0]


def test_the_house_is_small():
    assert sorted({layer(path) for path in SOURCES}) == sorted(ALLOWED)
    assert len(SOURCES) <= MOST_FILES
    assert sum(path.read_text("utf-8").count("\n") for path in SOURCES) <= MOST_LINES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards_and_modules_are_short_and_documented(path):
    text, own = path.read_text("utf-8"), layer(path)
    tree = ast.parse(text)
    imports = set(imported_names(tree))
    assert imports & set(ALLOWED) - {own} <= ALLOWED[own]
    assert own not in WITHOUT_TORCH or not imports & {"torch", "torchvision"}
    assert text.count("\n") <= MOST_LINES_OF_MODULE and ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MOST_LINES_OF_FUNCTION, node.name
    for node in tree.body if own not in SCRIPTS else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_ends_quietly_while_it_imports(script):
    # Before its guard, a script imports the standard library and common.command_line only.
    tree = ast.parse((ROOT / f"{script}.py").read_text("utf-8"))
    guard = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(guard) == "if __name__ == '__main__':\n    end_quietly()"
    before = [n for n in tree.body[: tree.body.index(guard)] if isinstance(n, ast.ImportFrom)]
    own = {node.module for node in before if node.module.split(".")[0] in ALLOWED}
    assert own == {"common.command_line"}


def test_importing_does_nothing_and_needs_no_torch_where_it_is_not_used(tmp_path):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if layer(path) in (*WITHOUT_TORCH, "common", "losses", *SCRIPTS)
    ]
    code = f"""
import signal, threading
import {", ".join(modules)}
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert threading.active_count() == 1
"""
    done = run_python(PROGRAMS / "imports.py", "forbid", "torch", code, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_help_of_every_script_tells_every_flag_and_needs_no_torch(tmp_path):
    scripts = [f"{name}.py" for name in SCRIPTS]
    code = f"for name in {scripts}: assert script(name, '--help') == 0"
    done = run_python(PROGRAMS / "imports.py", "forbid", "torch,torchvision", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [done.stdout.count(f"usage: {script} ") for script in scripts] == [1] * len(SCRIPTS)
    # An entry starts after two spaces; its text follows after more, or on the next line.
    for entry in re.findall(r"^  (-.*(?:\n {10,}.*)*)", done.stdout, re.MULTILINE):
        assert len(re.split(r"\s{2,}", entry, maxsplit=1)) == 2, entry
    assert not list(tmp_path.iterdir())
