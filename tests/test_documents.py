"""What README, docs and results promise: commands, flags, links and make targets that exist."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from helpers import ROOT, SCRIPTS

DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "results").glob("**/*.md")),
]
FLAG = r"(?<![\w-])--[a-z][a-z-]*"
# `python train.py ...`, `torchrun ... -- train.py ...`, after a prompt or variables or not.
COMMAND = r"^\s*(?:\$ )?(?:python |torchrun [^\n]*-- )(\w+)\.py\b(.*?)(?: {2,}.*|#.*)?$"


def read(path):
    """The text of a document, lines that end in a backslash joined with the next."""
    return path.read_text("utf-8").replace("\\\n", " ")


def flags_of(name, capsys):
    """The flags that a script's help names."""
    with pytest.raises(SystemExit):
        importlib.import_module(name).parse_args(["--help"])
    return set(re.findall(FLAG, capsys.readouterr().out))


@pytest.mark.parametrize(
    "path",
    [*DOCUMENTS, *(ROOT / f"{name}.py" for name in SCRIPTS)],  # a script's docstring has examples
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_command_parses(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, words in re.findall(COMMAND, read(path), re.MULTILINE):
        argv = shlex.split(re.split("[;&|>]", words)[0])
        if "--noise" in argv:  # label files that the command names
            for word in argv[argv.index("--noise") + 1 :]:
                if Path(word).suffix in (".json", ".npy", ".pt", ".csv"):
                    Path(word).touch()
        try:
            importlib.import_module(name).parse_args(argv)
        except SystemExit as stop:
            pytest.fail(f"python {name}.py {words}: exit status {stop.code}")


def test_the_readme_runs_every_step_and_the_documents_every_script():
    commands = {
        path: {name for name, _ in re.findall(COMMAND, read(path), re.MULTILINE)}
        for path in DOCUMENTS
    }
    steps = {"generate", "train", "frequency", "collect_history", "plot", "study"}
    assert steps <= commands[ROOT / "README.md"]
    assert set(SCRIPTS) == set().union(*commands.values())


def test_every_flag_exists(capsys):
    known = {name: flags_of(name, capsys) for name in SCRIPTS}
    every = set().union(*known.values())
    known["study"] = every  # it hands flags on
    for path in DOCUMENTS:
        for code in re.findall(r"`([^`\n]+)`", path.read_text("utf-8")):
            script = re.match(r"(?:python )?(\w+)\.py ", code)
            if script and script[1] in known:
                unknown = set(re.findall(FLAG, code)) - known[script[1]]
            else:
                unknown = set(re.findall(FLAG, code)) - every if code.startswith("-") else set()
            assert not unknown, f"{path.name}: {code}: {unknown}"


def linked_files(path):
    """The files of the project that a document links, without their places."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text("utf-8"))
    return {(path.parent / link).resolve() for link in links if "://" not in link}


def test_every_link_leads_to_a_file():
    for path in DOCUMENTS:
        missing = [str(link) for link in linked_files(path) if not link.exists()]
        assert not missing, f"{path.name}: {missing}"


def test_links_lead_from_the_readme_to_every_document():
    reached, new = set(), {ROOT / "README.md"}
    while new:
        reached |= new
        documents = {link for path in new for link in linked_files(path) if link.suffix == ".md"}
        new = documents - reached
    assert set(DOCUMENTS) <= reached


def test_every_target_of_the_readme_is_in_the_makefile():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"(?:^\s+|`)make ([a-z]+)", read(ROOT / "README.md"), re.MULTILINE)
    assert named and set(named) <= set(targets)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 1100
