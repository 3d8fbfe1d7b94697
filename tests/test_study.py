"""study.py: its plan, what it refuses, and how it runs the other scripts.

The quick tests start stand-ins for the scripts; the slow one trains real, tiny networks.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import start_python, write_epochs

import study
from common import run_folder
from common.command_line import UserError
from common.run_folder import SAMPLE_LOGITS, TEST_LOGITS
from dataset.data_file import file_digest

SIZES = "--train-size 16 --test-size 8"
TINY = ["--data", "shapes", "--generate", SIZES, "--train", "--model small_cnn --epochs 2"]
LABELS = "labels/CIFAR-10_human.pt"
# The command of results/reproduce.sh that made the runs of results/PLAN.md, and four of the 54
# lines that started them: data set, loss, run. Their names are fixed.
GENERATE = "--data-dir /work/cifar --train-size 12000 --val-size 2000"
TRAIN = "--model small_cnn --lr 0.05 --ema-decay 0.99 --no-augment --no-amp --sample-size 5000"
MAIN = f"""
--data cifar10 --name main --noise pair symmetric {LABELS}:worse_label --seeds 6 7 8 9 10 11
--loss cross-entropy self-distillation "self-distillation --teacher previous-epoch"
--generate "{GENERATE}" --train "{TRAIN} --epochs 40"
"""
STARTED = """
--noise pair --rate 0.4 | main-pair40 | 6 | cross-entropy | cross-entropy
--noise pair --rate 0.4 | main-pair40 | 6 | self-distillation | self-distillation
--noise symmetric --rate 0.4 | main-symmetric40 | 11 | self-distillation --teacher previous-epoch \
| self-distillation-previous-epoch
--noise labels/CIFAR-10_human.pt --labels worse_label | main-CIFAR-10_human-worse_label | 6 \
| cross-entropy | cross-entropy
"""


@pytest.fixture
def place(place, monkeypatch):
    """A working folder with three files of labels, on a machine without a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for path in (Path("a/l.npy"), Path("b/l.npy"), Path(LABELS)):
        path.parent.mkdir()
        path.touch()
    return place


def plan(*words) -> list[study.Run]:
    return study.plan(study.parse_args(words))


def test_the_plan_is_that_of_the_runs_that_exist(place, monkeypatch):
    monkeypatch.setattr(study, "SCRIPTS", place)  # so that the lines name no other folder
    runs = {run.line.replace(sys.executable, "python"): run for run in plan(*shlex.split(MAIN))}
    assert len(runs) == 54
    for started in STARTED.strip().splitlines():
        noise, data, seed, loss, name = started.split(" | ")
        path = f"data/{data}-seed{seed}.npz"
        make = f"python generate.py --dataset cifar10 {noise} {GENERATE} --seed {seed} --out {path}"
        loss, *teacher = loss.split(" ", 1)
        learn = f"python train.py --loss {' '.join([loss, TRAIN, '--epochs 40', *teacher])}"
        learn += f" --seed {seed} --data {path}"
        run = runs[f"{make} --if-missing && {learn} --run {name}-seed{seed} --resume auto"]
        assert run.settings.folder == Path(f"runs/{data}-seed{seed}/{name}-seed{seed}")
        assert run.settings.data == run.data.out == Path(path)


# Flags of study.py, and the folders of their runs.
NAMES = """
--rate 0.2 0.125 | pair20-seed0/cross-entropy-seed0 | pair12.5-seed0/cross-entropy-seed0
--noise none pair | none-seed0/cross-entropy-seed0 | pair40-seed0/cross-entropy-seed0
--noise b/l.npy:some | l-some-seed0/cross-entropy-seed0
--seeds 0 1 | pair40-seed0/cross-entropy-seed0 | pair40-seed1/cross-entropy-seed1
--loss "cross-entropy --lr 1e-3 --augment" | pair40-seed0/cross-entropy-lr1e-3-augment-seed0
--loss "self-distillation --weight=0.2 --soft" | pair40-seed0/self-distillation-weight0.2-soft-seed0
--loss "self-distillation --teacher=batch" | pair40-seed0/self-distillation-batch-seed0
"""


@pytest.mark.parametrize("line", NAMES.strip().splitlines())
def test_names_of_data_sets_and_runs(place, line):
    words, *names = line.split(" | ")
    runs = plan("--data", "shapes", "--loss", "cross-entropy", *shlex.split(words))
    assert [str(run.settings.folder) for run in runs] == [f"runs/shapes-{name}" for name in names]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seeds", "1", "1"], ["pair40/cross-entropy-seed1", "twice"]),
        (["--noise", "a/l.npy", "b/l.npy"], ["l/cross-entropy-seed0", "twice", "different names"]),
        (["--noise", "a/l.npy:"], ["generate.py", "--noise a/l.npy:"]),
        (["--loss", "cross-entropy", "cross-entropy --lr 0.2"], ["are the same run", "leave one"]),
        (["--generate", "--export a.json"], ["--export itself", "leave it out"]),
        (["--loss", "cross-entropy 'a"], ["--loss", "fix the quotes"]),
        (["--loss", "hinge"], ["train.py", "--loss", "'hinge'"]),
        (["--loss", ""], ["train.py", "--loss: expected one argument"]),
        (["--noise", "a/l.npy", "--rate", "0.2"], ["--rate", "leave it out"]),
        (["--noise", "nothing.npy"], ["generate.py", "--noise nothing.npy"]),
        (["--train", "--epochs 0"], ["train.py", "--epochs"]),
        (["--train", "--seed 3"], ["--train", "--seed", "leave it out"]),
        (["--train", "--model small_cnn --epochs 1 --seed=3"], ["--seed itself", "leave it out"]),
        (["--train", "--model small_cnn --ep 1"], ["train.py", "--ep"]),
        (["--train", "--help"], ["--train", "--help"]),
        (["--train"], ["train"]),
        (["--generate", "--rat 0.1"], ["generate.py", "--rat"]),
        (["--name", "a/b"], ["--name", "'a/b'"]),
    ],
)
def test_a_wrong_flag_is_one_line_before_anything_starts(place, refused, flags, words):
    line = refused("study", *TINY, *flags)
    assert all(word in line for word in words), line
    assert sorted(path.name for path in Path().iterdir()) == ["a", "b", "labels"]


def test_a_flag_of_the_loss_comes_before_that_of_train(place):
    losses = ["cross-entropy", "cross-entropy --lr 0.5"]
    runs = plan(*TINY, "--train", "--model small_cnn --lr 0.02", "--loss", *losses)
    assert [run.settings.lr for run in runs] == [0.02, 0.5]


def test_a_file_where_the_figures_go_is_refused_before_anything_starts(place, refused):
    Path("figures").mkdir()
    Path("figures/shapes").touch()
    assert "figures/shapes: a file; move it away" in refused("study", *TINY)
    assert not Path("runs").exists()


def write_run(run: study.Run, epochs: int, **flags) -> None:
    """The run's folder as train.py leaves it, with outputs of zeros."""
    folder, outputs = run.settings.folder, np.zeros((epochs, 3, 4), np.float32)
    data = {"digest": file_digest(run.settings.data), "name": "c"}
    folder.mkdir(parents=True)
    config = {"loss": "a", "network": "b", "data": data, "flags": run.settings.flags() | flags}
    run_folder.write_config(folder, config)
    records = [{"epoch": k, "test_accuracy": 10.0 * k} for k in range(1, epochs + 1)]
    write_epochs(folder, records, dict.fromkeys((TEST_LOGITS, SAMPLE_LOGITS), outputs))


@pytest.fixture
def make_data(script):
    """Make a run's data set."""

    def make(run):
        assert script("generate", *shlex.split(run.line.split(" && ")[0])[2:])[0] == 0

    return make


def test_complete_runs_are_found_by_their_content(place, make_data):
    losses = ["cross-entropy", "self-distillation", "cross-entropy --lr 1"]
    whole, part, none = plan(*TINY, "--loss", *losses)
    make_data(whole)
    # Where and on what a run was trained may differ.
    write_run(whole, 2, device="cpu", amp=False, resume=False)
    write_run(part, 1)
    study.check_existing([whole, part, none])
    assert [run.complete for run in (whole, part, none)] == [True, False, False]
    assert str(part) == "1/2 test 10.0% pair40/self-distillation-seed0"
    assert str(none) == "pair40/cross-entropy-lr1-seed0"
    names = (TEST_LOGITS, "config.json")
    for path in (whole.data.out, *(whole.settings.folder / name for name in names)):
        (run,), content = plan(*TINY, "--loss", "cross-entropy"), path.read_bytes()
        path.unlink()
        study.check_existing([run])
        assert not run.complete
        path.write_bytes(content)


def test_a_damaged_config_does_not_stop_the_study(place, make_data):
    runs = plan(*TINY)
    make_data(runs[0])
    for run in runs:
        write_run(run, 2)
    (runs[1].settings.folder / "config.json").write_text("{")
    study.check_existing(runs)
    assert runs[0].complete


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (["--train", "--model small_cnn --epochs 2 --lr 0.3"], ["lr = 0.2, not 0.3", "--name"]),
        (["--train", "--model small_cnn --epochs 2 --amp"], ["amp = False, not True", "--name"]),
        (["--generate", "--train-size 20 --test-size 8"], ["data/shapes-pair40", "--name"]),
    ],
)
def test_what_exists_with_other_settings_is_refused(place, make_data, refused, other, words):
    (run,) = plan(*TINY, "--loss", "cross-entropy")
    make_data(run)
    write_run(run, 2, amp=False)
    line = refused("study", *TINY, "--loss", "cross-entropy", *other)
    assert all(word in line for word in words), line
    config = run_folder.read_config(run.settings.folder)
    config["data"]["digest"] = "of another data set"
    run_folder.write_config(run.settings.folder, config)
    with pytest.raises(UserError, match=r"another data set.*--name"):
        study.check_existing([run])


def test_each_run_has_a_gpu_of_its_own_and_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    half = {"OMP_NUM_THREADS": "8"}
    pair = [{**half, "CUDA_VISIBLE_DEVICES": name} for name in ("2", "GPU-a")]
    assert study.make_slots(None, ["2", "GPU-a"]) == pair
    slots = study.make_slots(4, ["2", "GPU-a"])
    assert slots == [slot | {"OMP_NUM_THREADS": "4"} for slot in [*pair, *pair]]
    assert study.make_slots(2, ["0"]) == study.make_slots(None, []) == [half] * 2
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert study.make_slots(4, []) == [{"OMP_NUM_THREADS": "5"}] * 4
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for named, gpus in (("", ["0", "1", "2"]), ("5,MIG-a,7", ["5", "MIG-a", "7"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert study.visible_gpus() == gpus


# It writes down its command and, as train.py, a history, unless it is told to fail or is locked.
STAND_IN = """
import json, os, sys
from pathlib import Path

name, words = Path(__file__).name, sys.argv[1:]
with open("calls.txt", "a") as file:
    file.write(" ".join([name, *words]) + "\\n")
if name == "train.py":
    data, run = (Path(words[words.index(flag) + 1]) for flag in ("--data", "--run"))
    folder = Path("runs", data.stem, run.name)
    if Path("locked").exists() and "distillation" in run.name:
        Path("locked").unlink()
        sys.exit("train.py: a: process 1 is training it; wait for it")
    if os.environ.get("FAIL", "nothing") in str(folder):
        sys.exit("train.py: the loss is not finite; use another --run")
    folder.mkdir(parents=True)
    lines = (json.dumps({"epoch": k, "test_accuracy": 50.0}) + "\\n" for k in (1, 2))
    (folder / "history.jsonl").write_text("".join(lines))
"""


@pytest.fixture
def stand_ins(place, monkeypatch):
    """Stand-ins for the scripts that study.py starts; returns a function that lists the starts."""
    folder = place / "stand-ins"
    folder.mkdir()
    Path("json.py").write_text("exit('imported from the folder where the user works')")
    for name in ("generate", "train", "frequency", "collect_history", "plot"):
        (folder / f"{name}.py").write_text(STAND_IN)
    monkeypatch.setattr(study, "SCRIPTS", folder)
    monkeypatch.setattr(study, "HEARTBEAT", 0.2)
    return lambda: Path("calls.txt").read_text().splitlines()


LOSSES = ("cross-entropy", "self-distillation")
RUNS = [f"{noise}40-seed0/{loss}-seed0" for noise in ("pair", "symmetric") for loss in LOSSES]
RUNS = [f"runs/shapes-{run}" for run in RUNS]


def test_a_study_measures_its_runs_and_ends_with_one_table(stand_ins, script):
    status, out, err = script("study", *TINY, "--noise", "pair", "symmetric", "--jobs", "1")
    assert status == 0 and err == ""
    assert [call.split()[0] for call in stand_ins()[:8]] == ["generate.py", "train.py"] * 4
    assert stand_ins()[8:] == [
        f"frequency.py {' '.join(RUNS)}",
        f"collect_history.py {' '.join(RUNS)} --out figures/shapes/history.json",
        f"plot.py {' '.join(RUNS)} --out figures/shapes",
    ]
    assert "0 of 4 runs complete; 1 at a time" in out
    done = [line for line in out.splitlines() if line.startswith("done in")]
    assert len(done) == 4 and done[3].endswith(
        ": 2/2 test 50.0% symmetric40/self-distillation-seed0"
    )


@pytest.mark.slow
def test_a_failed_run_is_named_and_the_others_go_on(stand_ins, script, monkeypatch):
    monkeypatch.setenv("FAIL", RUNS[1])
    status, out, err = script("study", *TINY, "--seeds", "0", "1", "--jobs", "1")
    line = f"failed: {RUNS[1]}: train.py: the loss is not finite; use another --name\n"
    assert status == 1 and err == f"study.py: {line}" and line in out
    assert all(RUNS[0] in call and RUNS[1] not in call for call in stand_ins()[-3:])
    (study.SCRIPTS / "collect_history.py").write_text("exit('no table')")
    status, _, err = script("study", *TINY, "--name", "other")
    assert status == 1 and err == "study.py: collect_history.py failed: see above\n"
    assert stand_ins()[-1].startswith("plot.py")


@pytest.mark.slow
def test_a_run_of_another_process_is_left_to_it_and_tried_again(stand_ins, script):
    Path("locked").touch()
    status, out, _ = script("study", *TINY, "--seeds", "0", "1", "--jobs", "1")
    assert status == 0 and out.count("done in") == 4
    assert "waiting: another process is training pair40/self-distillation-seed0\n" in out
    trained = [call for call in stand_ins() if call.startswith("train.py --loss self")]
    assert [call.split("--data")[0][-2] for call in trained] == ["0", "1", "0"]  # their seeds


def test_the_list_is_safe_for_any_shell(stand_ins, script):
    flags = [*TINY, "--generate", "--train-size 16 --data-dir 'my  images'", "--list"]
    status, out, _ = script("study", *flags)
    assert status == 0 and len(out.splitlines()) == 2 and not Path("calls.txt").exists()
    words = ["xargs", "-d", "\\n", "-I{}", "sh", "-c", "{}"]
    subprocess.run(words, input=out, text=True, check=True)
    assert [call.split()[0] for call in stand_ins()] == ["generate.py", "train.py"] * 2
    assert "--data-dir my  images --seed 0" in stand_ins()[0]


REAL = ["--data", "shapes", "--generate", "--train-size 60 --test-size 40 --val-size 20", "--train"]
REAL += ["--model small_cnn --epochs 10 --lr 0.05 --batch-size 20 --device cpu --sample-size 20"]


def start(*words, report="study.report") -> subprocess.Popen:
    code = f"import sys, study; study.HEARTBEAT, study.report = 1, {report}; "
    return start_python("-c", f"{code} sys.exit(study.main(sys.argv[1:]))", *REAL, *words)


def epochs() -> dict[str, int]:
    """The number of epochs of each run."""
    paths = Path("runs").glob("*/*/history.jsonl")
    return {str(path.parent): len(path.read_text().splitlines()) for path in paths}


@pytest.mark.slow
def test_a_stopped_study_ends_its_runs_and_two_at_once_go_on(place):
    process = start()
    while not epochs():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "run the same command to go on" in err
    assert "failed" not in out and not Path("figures").exists()
    stopped = epochs()
    time.sleep(1)
    assert epochs() == stopped  # nothing trains any more
    flags = ["--loss", "cross-entropy", "--jobs", "1"]
    for process in [start(*flags), start(*flags, report="lambda *_: []")]:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0 and "Traceback" not in out + err, out + err
        assert out.startswith("0 of 1 runs complete; 1 at a time") and "/10 [" in out
    assert epochs() == {**stopped, RUNS[0]: 10}
    names = {path.name for path in Path("figures/shapes").iterdir()}
    assert {"history.json", "results.json", "accuracy.png"} <= names
