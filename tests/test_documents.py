"""What README, docs and results promise: commands, flags, links, targets; examples are executed."""

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, SCRIPTS, environment, make_image_folder, run_python

from study import parse_args, plan

README, EXTENDING = ROOT / "README.md", ROOT / "docs" / "extending.md"
FOLDERS = ("docs", "results", "benchmarks")
DOCUMENTS = [README, *(path for name in FOLDERS for path in sorted(ROOT.glob(f"{name}/*.md")))]
FLAG = r"(?<![\w-])--[a-z][a-z-]*"
# `python train.py ...` or `torchrun ... -- train.py ...`: a line of its own, or code in a sentence.
SCRIPT = r"(?:python |torchrun [^`\n]*-- )(\w+)\.py\b"
COMMAND = rf"^\s*(?:\$ )?{SCRIPT}(.*?)(?: {{2,}}.*|#.*)?$"
INLINE = rf"`{SCRIPT}([^`\n]*)`"
# In docs/extending.md: in which file, where, and the line or the block of code.
BLOCK = r":?\n\n```python\n(.*?)```"
PLACE = r"(before|below|instead of) `([^`\n]+)`"
STEP = rf"In `([\w/]+\.py)`|{PLACE}(?:, the line `([^`\n]+)`|{BLOCK})|at the end{BLOCK}"
TABLES = ("answer", "accuracy", "quantities")
MOST_WORDS, MOST_WORDS_OF_README, MOST_WORDS_OF_RESULTS = 9000, 900, 2500
MOST_WORDS_OF_FIRST_SCREEN = 250


def read(path):
    """The text of a document, lines that end in a backslash joined with the next."""
    return path.read_text("utf-8").replace("\\\n", " ")


def commands(path):
    """(script, flags) of every command that a document or a script's docstring shows."""
    text = read(path)
    return re.findall(COMMAND, text, re.MULTILINE) + re.findall(INLINE, text)


def prose(path):
    """The text of a document without fenced blocks of code."""
    return re.sub("```.*?```", "", read(path), flags=re.DOTALL)


def flags_of(name, capsys):
    """The flags that a script's help names."""
    with pytest.raises(SystemExit):
        importlib.import_module(name).parse_args(["--help"])
    return set(re.findall(FLAG, capsys.readouterr().out))


@pytest.mark.parametrize(
    "path",
    [*DOCUMENTS, *(ROOT / f"{name}.py" for name in SCRIPTS)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_command_parses(path, monkeypatch, tmp_path):
    added = {"self-adaptive-training", "ensemble", "mlp", "tridiagonal"}  # by docs/extending.md
    monkeypatch.chdir(tmp_path)
    for name, words in commands(path):
        argv = shlex.split(re.split("[;&|>]", words)[0])
        if path == EXTENDING and added & set(argv):
            continue  # test_every_errand runs these
        if "--noise" in argv:  # label files that the command names
            for word in argv[argv.index("--noise") + 1 :]:
                if Path(word).suffix in (".json", ".npy", ".pt", ".csv"):
                    Path(word).touch()
        try:
            importlib.import_module(name).parse_args(argv)
        except SystemExit as stop:
            pytest.fail(f"python {name}.py {words}: exit status {stop.code}")


def test_the_readme_runs_every_step():
    assert set(SCRIPTS) == {name for name, _ in commands(README)}


def test_every_flag_exists(capsys):
    known = {name: flags_of(name, capsys) for name in SCRIPTS}
    every = set().union(*known.values())
    known["study"] = every  # it hands flags on
    for path in DOCUMENTS:
        here = set(every)
        if path.parent.name == "benchmarks":
            here |= set(re.findall(FLAG, "".join(map(read, path.parent.glob("*.py")))))
        if path == EXTENDING:
            here |= {"--momentum"}  # of the loss that it adds
        for code in re.findall(r"`([^`\n]+)`", prose(path)):
            script = re.match(r"(?:python )?(\w+)\.py ", code)
            allowed = known.get(script[1], here) if script and path != EXTENDING else here
            unknown = set(re.findall(FLAG, code)) - allowed if script or code[0] == "-" else set()
            assert not unknown, f"{path.name}: {code}: {unknown}"


def slug(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def links(path):
    """(file, anchor) of the links of a document that stay within the project."""
    found = re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", prose(path))
    return [
        ((path.parent / link).resolve() if link else path, anchor)
        for link, anchor in found
        if "://" not in link
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_its_heading(path):
    for file, anchor in links(path):
        assert file.exists(), file
        headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.M) if anchor else []
        assert not anchor or anchor in map(slug, headings), (file, anchor)


def test_what_extending_names_is_there():
    named = re.findall(r"`(\w+)` (?:of|in) \[([\w/]+\.py)\]", prose(EXTENDING))
    assert {"make_trained", "learning_rate", "RunSettings"} <= {name for name, _ in named}
    for name, file in named:
        assert re.search(rf"^(?:class|def) {name}\b", read(ROOT / file), re.MULTILINE), name


def test_links_lead_from_the_readme_to_every_document():
    reached, new = set(), {README}
    while new:
        reached |= new
        new = {file for path in new for file, _ in links(path) if file.suffix == ".md"} - reached
    assert set(DOCUMENTS) <= reached


def test_every_target_is_in_the_makefile_and_installs_nothing_into_another_python():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for path in DOCUMENTS:
        named = re.findall(r"(?:^\s+|`)make ([a-z]+)", read(path), re.MULTILINE)
        assert set(named) <= set(targets), path.name
        assert named or path != README
    for target in targets:
        words = ["make", "--dry-run", target, "PYTHON=python3"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and "python3 " in done.stdout and "pip" not in done.stdout


def study_of(target):
    """The runs of the study that a target of the Makefile starts."""
    words = ["make", "--no-print-directory", "--dry-run", target, "PYTHON=python"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    script, *flags = shlex.split(done.stdout.replace("\\\n", " "))[1:]
    assert script == "study.py"
    return plan(parse_args(flags))


def made_by_hand():
    """The flags of README's generate.py and train.py, and the runs of its study.py."""
    parsed = {name: [] for name in SCRIPTS}
    for name, flags in commands(README):
        parsed[name].append(importlib.import_module(name).parse_args(shlex.split(flags)))
    (args,) = parsed["study"]
    return parsed["generate"], [args.settings for args in parsed["train"]], plan(args)


def test_the_commands_of_the_readme_do_not_clash_and_are_those_of_the_demo():
    data, runs, studied = made_by_hand()
    demo, made = study_of("demo"), {}
    for run in [*studied, *demo]:
        data, runs = [*data, run.data], [*runs, run.settings]
    places = [(args.out, args.settings) for args in data]
    for path, settings in [*places, *((run.folder, run.fixed) for run in runs)]:
        assert made.setdefault(path, settings) == settings, path
    assert [run.fixed for run in runs[:2]] == [run.settings.fixed for run in demo]
    assert data[0].settings == demo[0].data.settings


@pytest.mark.parametrize("target", ["demo", "paper"])
def test_the_targets_have_averaged_weights_and_held_out_images(target):
    for run in study_of(target):
        assert run.settings.ema_decay > 0 and run.data.settings.val_size > 0


def test_the_documents_are_short():
    texts = {path: path.read_text("utf-8") for path in DOCUMENTS}
    tables = "<!-- table.*?<!-- end -->"  # written by collect_history.py
    words = {p: len(re.sub(tables, "", t, flags=re.DOTALL).split()) for p, t in texts.items()}
    assert words[README] <= MOST_WORDS_OF_README
    screen = re.sub(tables, "", texts[README].partition("\n## ")[0], flags=re.DOTALL)
    shown = re.sub(r"\]\([^)]*\)", "]", screen).split()  # words, not addresses or signs
    assert sum(bool(re.search(r"\w", word)) for word in shown) <= MOST_WORDS_OF_FIRST_SCREEN
    assert words.pop(ROOT / "results/README.md") <= MOST_WORDS_OF_RESULTS
    assert sum(words.values()) <= MOST_WORDS


def test_the_examples_of_the_readme_run(study):
    # What the examples call these files and folders: here they are those of a small study.
    os.rename("runs/small", "runs/shapes-pair40")
    random = np.random.default_rng(0)
    clean, noisy = random.integers(0, 4, (2, 50))
    for name, array in {"clean": clean, "noisy": noisy}.items():
        np.save(f"{name}.npy", array)
    np.save("outputs.npy", random.normal(size=(3, 50, 4)).astype(np.float32))
    one, other = re.findall("```python\n(.*?)```", read(README), re.DOTALL)
    variables: dict = {}
    exec(one, variables)
    assert variables["curves"]["gap"].shape == variables["curves"]["one_hot_residual"].shape == (3,)
    exec(other, variables)
    epochs, images, classes = variables["logits"].shape
    assert epochs == len(variables["accuracy"]) and classes == 4
    assert images == len(variables["images"])


RUNS, FIGURES = Path("runs/shapes-pair40"), Path("figures/shapes-pair40")
FROM_HISTORY = {"accuracy.png", "loss.png"}
FROM_FREQUENCY = {"memorization.png", "frequency.png", "errors.png", "order.png"}
SMALL = ["--model=small_cnn", "--epochs=2", "--batch-size=20", "--lr=0.05", "--device=cpu"]


@pytest.mark.slow
def test_both_orders_make_the_same_files(script, tmp_path, monkeypatch):
    def run(name, *flags):
        status, out, err = script(name, *flags)
        assert status == 0, err
        return out, err

    first, second = tmp_path / "frequency first", tmp_path / "collect first"
    first.mkdir()
    monkeypatch.chdir(first)
    out, _ = run(
        "generate", "--dataset=shapes", "--train-size=60", "--val-size=20", "--test-size=40"
    )
    assert "python train.py --dis=0 --data data/shapes-pair40.npz" in out
    for dis in (0, 1):
        run("train", f"--dis={dis}", "--data=data/shapes-pair40.npz", *SMALL)
    shutil.copytree(first, second)
    for name in ("frequency", "plot", "collect_history"):
        run(name)
    monkeypatch.chdir(second)
    run("collect_history")
    assert not (RUNS / "frequency.json").exists()
    _, err = run("plot", RUNS / "history.json")
    assert "not drawn: " in err and "frequency.py" in err
    names = set(os.listdir(FIGURES))
    assert names >= FROM_HISTORY and not names & {"frequency.png", "errors.png", "order.png"}
    run("frequency", RUNS)
    run("collect_history", RUNS)
    run("plot", RUNS / "history.json")
    for name in ("history.json", "results.json"):
        one, other = (json.loads((folder / RUNS / name).read_text()) for folder in (first, second))
        assert one == other, name
    names = set(os.listdir(first / FIGURES))
    assert names >= FROM_HISTORY | FROM_FREQUENCY
    for name in names:
        one, other = (folder / FIGURES / name for folder in (first, second))
        assert one.read_bytes() == other.read_bytes(), name


def copy_project(folder):
    """A copy of the project without data, runs and figures."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "data", "runs", "figures")
    return Path(shutil.copytree(ROOT, folder / "project", ignore=ignored))


@pytest.mark.slow
def test_reproduce_makes_every_study_at_a_tiny_size(tmp_path):
    project = copy_project(tmp_path)
    make_image_folder(project / "photos", 20, (8, 8), ("ant", "bee", "fly"))
    blocks = {"main": TABLES, "all": TABLES, "shake": TABLES, "field": ["accuracy"]}
    blocks["short"] = ["annealing"]
    tables = [
        f"<!-- table: {name} {study} -->" for study, names in blocks.items() for name in names
    ]
    page, first = project / "results/README.md", project / "README.md"
    page.write_text("\n<!-- end -->\n".join([*tables, ""]), "utf-8")
    first.write_text("<!-- table: answer main -->\n<!-- end -->\n", "utf-8")
    words = ["--data", "photos", "--noise", "pair", "--seeds", "6", "--generate", "--val-size 8"]
    words += ["--loss", "cross-entropy", "self-distillation --teacher previous-epoch"]
    words += ["--train", "--model small_cnn --epochs 2 --batch-size 8 --lr 0.005 --device cpu"]
    done = subprocess.run(
        ["bash", project / "results/reproduce.sh", *words],
        env=environment(PYTHON=sys.executable, PYTHONPATH="", HUMAN="labels.csv"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for study in blocks:
        runs = json.loads((project / f"results/{study}/history.json").read_text())["runs"]
        assert len(runs) == 2  # at this size the short runs equal those of the main study
        assert study == "short" or (project / f"results/{study}/frontier.png").exists()
    assert (project / "results/main/eigenvectors.png").exists()
    assert first.read_text("utf-8").count("\n| pair flip, 40.4% wrong, n = 1 |") == 1
    assert page.read_text("utf-8").count("\n| pair flip, 40.4% wrong") == 3 + 2 * 4


def insert(text, code, place, anchor):
    """The text with the code before, below or instead of the line that starts with `anchor`."""
    lines = text.split("\n")
    places = [k for k, line in enumerate(lines) if line.strip().startswith(anchor)]
    assert len(places) == 1, f"{anchor}: {len(places)} lines"
    k = places[0]
    indent = lines[k][: len(lines[k]) - len(lines[k].lstrip())]
    block = [indent + line if line else "" for line in code.rstrip("\n").split("\n")]
    start, end = {"before": (k, k), "below": (k + 1, k + 1), "instead of": (k, k + 1)}[place]
    if block[0].startswith(("def ", "@", "class ")):
        block = ["", "", *block, "", ""]
        while not lines[start - 1]:
            start -= 1
    return "\n".join([*lines[:start], *block, *lines[end:]])


def run_errand(section, project):
    """Do what a section of docs/extending.md says; returns the files that it has changed."""
    path, changed = None, set()
    for file, place, anchor, line, block, end in re.findall(STEP, section, re.DOTALL):
        if file:
            path = project / file
            continue
        text = path.read_text("utf-8")
        text = text + "\n\n" + end if end else insert(text, line or block, place, anchor)
        path.write_text(text, "utf-8")
        changed.add(path)
    return changed


# The new tests and scripts, all in one process, which imports torch once.
ERRANDS = """
import importlib, json, sys
import pytest
tests, lines = json.loads(sys.argv[1])
assert pytest.main(tests) == 0
for name, words in lines:
    assert importlib.import_module(name).main(words) == 0, (name, words)
"""


@pytest.mark.slow
def test_every_errand_of_extending_works_as_written(tmp_path):
    project = copy_project(tmp_path)
    sections = re.split(r"^## ", read(EXTENDING), flags=re.MULTILINE)
    errands = [section for section in sections if re.search(STEP, section, re.DOTALL)]
    assert len(errands) == 6
    tests = []
    for section in errands:
        changed = run_errand(section, project)
        kinds = sorted(path.parent.name == "tests" for path in changed - {project / "plot.py"})
        assert kinds == [False, True], changed  # one source file and one test file
        (file,) = (path for path in changed if path.parent.name == "tests")
        names = re.findall(r"^def (test_\w+)", section, re.M) or ["test_every_quantity_by_hand"]
        tests += [f"{file.relative_to(project)}::{name}" for name in names]

    lines = [(name, shlex.split(flags)) for name, flags in commands(EXTENDING)]
    lines = [line for line in lines if line[0] in ("generate", "train")]
    ensemble = next(words for _, words in lines if "ensemble" in words)
    lines.append(("train", ["--dis=0", *ensemble[ensemble.index("ensemble") + 1 :]]))
    lines += [("frequency", ["runs"]), ("collect_history", ["runs", "--all"])]
    lines += [("plot", ["runs", "--out", "figures"])]
    for words in ("check", "format --check"):
        done = run_python("-m", "ruff", *words.split(), ".", cwd=project)
        assert done.returncode == 0, done.stdout + done.stderr
    done = run_python("-c", ERRANDS, json.dumps([tests, lines]), cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / "data/shapes-tridiagonal40.npz").exists()
    for words in ("self-adaptive training, momentum 0.8", "self-distillation, ensemble", "mlp"):
        assert words in done.stdout, done.stdout
    assert "both at their best test epoch" in done.stdout and " None" not in done.stdout
    assert (project / "figures/validation.png").exists()
