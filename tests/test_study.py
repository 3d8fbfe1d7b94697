"""study.py as a user runs it. All but the last test train with tests/programs/fake_scripts.py."""

import fcntl
import json
import os
import pty
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from helpers import PROGRAMS, ROOT, environment

pytestmark = pytest.mark.slow  # whole studies, and processes that are ended

FAKES = ("train.py", "frequency.py", "collect_history.py", "plot.py")
RUNS = [
    f"runs/shapes-pair40-seed{seed}/{loss}-seed{seed}"
    for seed in (0, 1)
    for loss in ("cross-entropy", "self-distillation")
]
FIGURES = Path("figures/shapes-pair40")
SIZES = ["--generate", "--train-size 16 --test-size 8"]
STUDY = ["--data", "shapes", "--seeds", "0", "1", *SIZES, "--train", "--epochs=3"]


def copy_scripts(folder: Path) -> None:
    """Put study.py, generate.py and stand-ins for the slow scripts into a folder."""
    for name in ("study.py", "generate.py"):
        shutil.copy(ROOT / name, folder)
    for name in FAKES:
        shutil.copy(PROGRAMS / "fake_scripts.py", folder / name)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the scripts of copy_scripts."""
    copy_scripts(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole_study(tmp_path_factory):
    """The content of the study STUDY that was never stopped, by path."""
    folder = tmp_path_factory.mktemp("whole")
    copy_scripts(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study(*STUDY)
        return content()


def start(*flags, script="study.py", **variables) -> subprocess.Popen:
    variables = {"CUDA_VISIBLE_DEVICES": "", **environment(), **variables}
    return subprocess.Popen(
        [sys.executable, script, *flags], env=variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def study(*flags, status=0, **variables) -> tuple[str, str]:
    """Run study.py to its end; returns what it wrote to standard output and error."""
    process = start(*flags, **variables)
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, out + err
    assert "Traceback" not in out + err
    return out, err


def starts() -> list[str]:
    """The scripts that were started since the last call, with their flags."""
    path = Path("starts.txt")
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def content(names=("history.jsonl", "logits.npy", "train_logits.npy", "frequency.json")) -> dict:
    """The bytes of the study's files, by path."""
    paths = [p for p in Path().glob("*/**/*") if p.name in names or p.suffix in (".png", ".npz")]
    return {str(path): path.read_bytes() for path in sorted(paths)}


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_study_makes_everything_once_and_a_second_call_nothing(folder):
    out, err = study(*STUDY)
    assert err == ""
    assert sorted(map(str, Path("runs").glob("*/*"))) == RUNS
    names = {path.name for path in FIGURES.iterdir()}
    assert names == {"history.json", "summary.json", "accuracy.png", "report.txt"}
    assert f"the table: {' '.join(Path(run).name for run in RUNS)}\n{FIGURES}/accuracy.png" in out
    assert out.splitlines()[-3:] == [
        "Last epoch, test accuracy: cross-entropy 50.0%, a 60.0%, difference +10.0 points",
        "Last epoch, wrong labels memorized: cross-entropy 25.0%, a 30.0%, difference +5.0 points",
        f"Open {FIGURES}/accuracy.png: accuracy, epoch by epoch",
    ]
    commands = starts()
    assert [line.split()[0] for line in commands] == ["train.py"] * 4 + list(FAKES[1:])
    before = {path: path.stat().st_mtime_ns for path in Path().glob("*/**/*")}
    again, _ = study(*STUDY)
    assert starts() == []
    assert {path: path.stat().st_mtime_ns for path in Path().glob("*/**/*")} == before
    assert again.splitlines()[0].startswith("study.py: 4 of 4 runs and 2 of 2 data sets are comp")
    assert again[again.index("\nshapes-pair40:") :] == out[out.index("\nshapes-pair40:") :]


def test_what_is_missing_or_out_of_date_is_made_again_and_no_more(folder, whole_study):
    study(*STUDY)
    starts()
    # As if the run had been stopped: its history has an epoch less.
    history = Path(RUNS[2]) / "history.jsonl"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:-1]))
    study(*STUDY)
    assert [line.split()[0] for line in starts()] == ["train.py", *FAKES[2:]]
    assert content() == whole_study
    (Path(RUNS[0]) / "frequency.json").unlink()
    study(*STUDY)
    lines = starts()
    assert lines[0] == f"frequency.py {RUNS[0]}"
    assert [line.split()[0] for line in lines[1:]] == list(FAKES[2:])
    (FIGURES / "accuracy.png").unlink()
    study(*STUDY)
    assert [line.split()[0] for line in starts()] == list(FAKES[2:])
    study(*STUDY, "--loss", "cross-entropy", "self-distillation", "self-distillation --soft")
    assert [line.split()[0] for line in starts()] == ["train.py"] * 2 + list(FAKES[1:])


def test_several_settings_have_a_figure_over_the_rate(folder):
    flags = ["--noise", "pair", "none", "--rate", "0.2", "0.4", "--loss", "cross-entropy"]
    flags += [*SIZES, "--data", "shapes", "--data-seed", "5", "--train", "--epochs=1"]
    out, _ = study(*flags)
    data = ["shapes-none-seed5", "shapes-pair20-seed5", "shapes-pair40-seed5"]
    assert sorted(path.stem for path in Path("data").iterdir()) == data
    histories = "figures/shapes-pair20/history.json figures/shapes-pair40/history.json"
    assert f"plot.py {histories} --out figures/shapes-pair" in starts()
    assert out.rstrip().endswith("figures/shapes-pair/rate.png")
    again, _ = study(*flags)
    assert starts() == [] and again.rstrip().endswith("figures/shapes-pair/rate.png")


def test_a_failing_run_is_named_and_left_out_and_the_others_go_on(folder):
    out, err = study(*STUDY, status=1, FAKE_FAIL=RUNS[1])
    name = RUNS[1].removeprefix("runs/")
    reason = "train.py: the loss is not finite; use a lower --lr"
    assert err == f"study.py: {name}: {reason} (all its output: {RUNS[1]}/failed.log)\n"
    assert (Path(RUNS[1]) / "failed.log").read_text() == f"epoch 1/3\n{reason}\n"
    assert f"failed    {name}: {reason}" in out
    assert f"shapes-pair40, without {name}:\nthe table: " in out
    rest = [Path(run).name for run in RUNS if run != RUNS[1]]
    assert f"the table: {' '.join(rest)}\n" in out
    out, _ = study(*STUDY)  # the reason is gone
    assert f"the table: {' '.join(Path(run).name for run in RUNS)}\n" in out
    assert not (Path(RUNS[1]) / "failed.log").exists()


def test_without_a_data_set_its_runs_are_not_trained(folder):
    flags = [*STUDY[:-4], "--generate", "--train-size 16 --val-size 16", "--noise", "pair", "none"]
    out, err = study(*flags, "--seeds", "0", status=1)
    assert err.count("generate.py: --val-size 16") == 2 == err.count("\n")
    assert "shapes-none:\nno complete run, so no table" in out and starts() == []


def test_files_of_other_settings_are_refused_with_the_remedy(folder):
    flags = ["--data", "shapes", *SIZES, "--loss", "cross-entropy", "--train", "--epochs=1"]
    study(*flags)
    starts()
    for other, message in [
        (
            ["--train", "--epochs=1 --lr 0.3"],
            "cross-entropy-seed0 exists with lr = 0.2, not 0.3; repeat",
        ),
        (["--train", "--epochs 5"], "epochs = 1, not 5"),
        (["--generate", "--train-size 20"], "data/shapes-pair40-seed0.npz exists with train_size"),
    ]:
        out, err = study(*flags, *other, status=2)
        assert message in err and "--name" in err and err.count("\n") == 1 and out == ""
        assert starts() == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "1", "1"], "study.py: --seeds: 1 is given twice"),
        (["--seeds", "-1"], "--seeds"),
        (["--loss"], "--loss"),
        (["--jobs", "0"], "--jobs: 0: use 1 or more"),
        (["--rate", "1.5"], "--rate: 1.5"),
        (["--train", "--seed 3"], "--train: study.py sets --seed itself; use --seeds"),
        (["--train", "--lrr"], "study.py: train.py: error: unrecognized arguments: --lrr"),
        (["--train", "--epochs 0"], "train.py: error: argument --epochs: 0: use 1 or more"),
        (["--loss", "hinge"], "train.py: error: argument --loss: invalid choice: 'hinge'"),
        (["--noise", "nothing.npy"], "generate.py: error: --noise nothing.npy"),
        (["--generate", "--out x"], "--generate: study.py sets --out itself; use --name"),
    ],
)
@pytest.mark.parametrize("listed", [[], ["--list"]])
def test_a_wrong_flag_is_one_line_before_anything_starts(folder, flags, message, listed):
    out, err = study("--data", "shapes", *flags, *listed, status=2)
    assert message in err and err.count("\n") == 1 and out == ""
    assert not Path("data").exists()


def test_importing_study_needs_no_heavy_library():
    code = "import sys, study; print({'torch', 'matplotlib', 'scipy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert done.stdout == "set()\n"


def shares() -> list[dict]:
    """The environment of each run, in their order."""
    paths = [Path(run) / "environment.txt" for run in RUNS]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def test_runs_side_by_side_share_the_machine(folder):
    variables = {"OMP_NUM_THREADS": "7", "CUDA_VISIBLE_DEVICES": "3,5", "FAKE_SECONDS": "0.2"}
    study(*STUDY, **variables)
    assert {share["OMP_NUM_THREADS"] for share in shares()} == {"7"}
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares()][:2] == ["3", "5"]
    assert {share["CUDA_VISIBLE_DEVICES"] for share in shares()} == {"3", "5"}


def fake_gpus(folder, count) -> dict[str, str]:
    """The environment of a machine whose nvidia-smi lists so many GPUs, none chosen."""
    lines = "".join(f"echo 'GPU {k}: NVIDIA H100 (UUID: GPU-{k})'\n" for k in range(count))
    (folder / "bin").mkdir()
    (folder / "bin/nvidia-smi").write_text(f"#!/bin/sh\n{lines}")
    (folder / "bin/nvidia-smi").chmod(0o755)
    variables = environment() | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    variables.pop("CUDA_VISIBLE_DEVICES", None)
    return variables


@pytest.mark.parametrize(("jobs", "gpus"), [("4", "0123"), ("2", "01"), ("8", "0123")])
def test_each_run_has_a_gpu_of_its_own(folder, jobs, gpus):
    flags = ["--data", "shapes", "--seeds", "0", "1", *SIZES, "--train", "--epochs=1"]
    flags += ["--jobs", jobs] if jobs != "4" else []  # four runs, by default one on each GPU
    command = [sys.executable, "study.py", *flags]
    done = subprocess.run(command, env=fake_gpus(folder, 4), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    used = [share["CUDA_VISIBLE_DEVICES"] for share in shares()]
    assert used == list(gpus) if len(gpus) == len(used) else set(used) == set(gpus)
    assert f"; {jobs} at a time on 4 GPUs" in done.stdout


def test_on_a_cpu_they_share_the_cores(folder):
    variables = environment() | {"CUDA_VISIBLE_DEVICES": ""}
    del variables["OMP_NUM_THREADS"]
    flags = ["--data", "shapes", *SIZES, "--train", "--epochs=1", "--jobs", "2"]
    subprocess.run([sys.executable, "study.py", *flags], env=variables, check=True)
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert [share["OMP_NUM_THREADS"] for share in shares()] == [threads] * 2


def test_each_line_of_the_list_alone_is_enough_and_study_then_only_collects(folder):
    lines, _ = study(*STUDY, "--list")
    assert len(lines.splitlines()) == 4 and not Path("data").exists()
    for line in lines.splitlines():
        assert " --if-missing && " in line and line.endswith(" --resume auto")
    # As docs/many-machines.md says: one line as a task of a job array, then all, two at a time.
    text = (ROOT / "docs/many-machines.md").read_text("utf-8")
    task = re.search(r"sbatch .* --wrap '(.*)'\n", text)[1]
    every = re.search(r"^ +(xargs .*)$", text, re.MULTILINE)[1]
    Path("commands.txt").write_text(lines)
    shell = {"check": True, "shell": True}
    subprocess.run(task, env=environment() | {"SLURM_ARRAY_TASK_ID": "3"}, **shell)
    assert [str(path) for path in Path("runs").glob("*/*")] == [RUNS[2]]
    subprocess.run(every, env=environment(), **shell)
    starts()
    study(*STUDY)
    assert [line.split()[0] for line in starts()] == list(FAKES[1:])


def test_a_quoted_value_is_remarked_on(folder):
    flags = ["--generate", "--train-size 16 --title 'my images'", "--data", "shapes"]
    lines, note = study(*flags, "--list")
    assert "'my images'" in lines and "xargs keeps the quotes with -d '\\n'" in note
    xargs = ["xargs", "-d", "\\n", "-I{}", "sh", "-c", "{}"]
    subprocess.run(xargs, input=lines, env=environment(), check=True, text=True)


def children(process: subprocess.Popen) -> list[int]:
    """The process ids of the runs that a study.py trains."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(word) for word in path.read_text().split()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_ends_all_runs_and_the_same_command_goes_on(folder, whole_study, number):
    process = start(*STUDY, "--jobs", "2", FAKE_SECONDS="0.4")
    wait_for(lambda: all((Path(run) / "history.jsonl").exists() for run in RUNS[:2]))
    pids = children(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "study.py: interrupted; run the same command to go on\n"
    assert out.splitlines()[-1].startswith("stopping  shapes-pair40-seed0/cross-entropy-seed0, ")
    assert len(pids) == 2 and all(map(gone, pids))
    assert not (FIGURES / "history.json").exists()
    study(*STUDY)
    assert content() == whole_study


@pytest.mark.parametrize("seed", range(4))
def test_killing_at_any_moment_and_starting_again_ends_with_the_same_files(
    folder, whole_study, seed
):
    chance = random.Random(seed)
    for _ in range(3):
        process = start(*STUDY, "--jobs", "2", FAKE_SECONDS="0.2")
        time.sleep(chance.uniform(0.5, 3.0))
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGINT]))
        process.communicate()
    # Runs of a killed study.py go on by themselves; the next one waits for them.
    study(*STUDY)
    assert content() == whole_study


def test_two_at_once_share_the_work_and_both_end_well(folder, whole_study):
    processes = [start(*STUDY, "--jobs", "2", FAKE_SECONDS="0.5") for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        assert f"the table: {' '.join(Path(run).name for run in RUNS)}\n" in out and err == ""
    lines = [json.loads(x) for run in RUNS for x in (Path(run) / "history.jsonl").open()]
    assert [line["epoch"] for line in lines] == [1, 2, 3] * 4
    assert content() == whole_study


class Screen:
    """A terminal of some size: what the escape sequences that display.py writes make of it."""

    def __init__(self, height, width):
        self.rows, self.height, self.width = [""], height, width
        self.row = self.column = 0
        self.wrap, self.top = True, 0

    def write(self, text):
        for token in re.findall(r"\x1b\[\??\d*[A-Za-z]|[\s\S]", text):
            if token == "\n":
                self.down()
            elif token == "\r":
                self.column = 0
            elif token.endswith("A") and len(token) > 1:
                self.row -= int(token[2:-1])
                assert self.row >= self.top, "the cursor left the screen"
            elif token == "\x1b[K":
                self.rows[self.row] = self.rows[self.row][: self.column]
            elif token == "\x1b[J":
                self.rows[self.row :] = [self.rows[self.row][: self.column]]
            elif token in ("\x1b[?7l", "\x1b[?7h"):
                self.wrap = token == "\x1b[?7h"
            else:
                assert token.isprintable(), repr(token)
                self.put(token)

    def put(self, character):
        if self.column == self.width:
            if not self.wrap:
                return
            self.down()
            self.column = 0
        row = self.rows[self.row].ljust(self.column)
        self.rows[self.row] = row[: self.column] + character + row[self.column + 1 :]
        self.column += 1

    def down(self):
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")
        self.top = max(self.top, self.row - self.height + 1)

    def visible(self):
        return [row.rstrip() for row in self.rows[self.top :]]


def on_terminal(flags, height, width, **variables):
    """Run study.py on a terminal; returns its screen at the end, and all screens on the way."""
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    variables = {**environment(), "CUDA_VISIBLE_DEVICES": "", "TERM": "xterm", **variables}
    process = subprocess.Popen(
        [sys.executable, "study.py", *flags], stdout=other, stderr=other, env=variables
    )
    os.close(other)
    screen, screens = Screen(height, width), []
    while True:
        try:
            data = os.read(main, 65536)
        except OSError:  # Linux's end of file of a terminal
            break
        if not data:
            break
        screen.write(data.decode())
        screens.append(screen.visible())
    os.close(main)
    assert process.wait() == 0
    return screen, screens


@pytest.mark.parametrize(("height", "width"), [(24, 70), (4, 40)])
def test_on_a_terminal_the_lines_change_in_place(folder, height, width):
    flags = [*STUDY, "--jobs", "4"]
    screen, screens = on_terminal(flags, height, width, FAKE_SECONDS="0.8")
    live = [line for shot in screens for line in shot if re.search(r"\d running", line)]
    assert any(re.match(r"4 running, 0 waiting, 0 done; about \d s", line) for line in live)
    shown = "\n".join("\n".join(shot) for shot in screens)
    assert re.search(r"d\d  epoch [12]/3  test 1[12]\.00%  \d s left", shown)
    assert all(len(line) <= width for shot in screens for line in shot)
    # Of what changed in place, nothing is left; every run has its last line.
    rows = "".join(row.rstrip() for row in screen.rows)
    assert "running" not in rows and " left" not in rows and "figures/shapes-pair40/acc" in rows
    for run in RUNS:
        assert rows.count(f"finished  {run.removeprefix('runs/')}: 3 epochs") == 1
    if height == 4:
        assert any("and 3 more running" in line for shot in screens for line in shot)


def test_the_real_scripts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ["--generate", "--train-size 60 --test-size 40"]
    train = "--model small_cnn --epochs 2 --lr 0.05 --batch-size 20 --device cpu"
    losses = ["self-distillation --teacher previous-epoch"]
    flags = ["--data", "shapes", "--rate", "0.2", "0.4", "--data-seed", "3", *sizes]
    flags += ["--loss", *losses, "--train", train]

    def run():
        process = start(*flags, script=str(ROOT / "study.py"))
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0 and err == "", out + err
        return out

    out = run()
    for name in ("shapes-pair20", "shapes-pair40"):
        names = {path.name for path in (Path("figures") / name).iterdir()}
        assert {"history.json", "summary.json", "summary.csv", "accuracy.png"} <= names
        assert f"\n{name}:\nself-distillation-previous-epoch-seed0: test accuracy" in out
        assert f"figures/{name}/frequency.png" in out
    assert Path("figures/shapes-pair/rate.png").exists()
    again = run()
    assert "started" not in again
    assert again[again.index("\nshapes-pair20:") :] == out[out.index("\nshapes-pair20:") :]
