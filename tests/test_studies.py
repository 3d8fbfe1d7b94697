"""The parts of studies/: plans and names, shares of the machine, completeness, jobs, display."""

import io
import json
import os
import shlex
import signal
import sys
import threading
import time
import unicodedata
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from helpers import make_dataset

from common.errors import UserError
from common.logits import append_logits
from common.run_folder import append_history, write_config
from dataset.data_file import read_dataset, write_dataset
from studies import complete, devices, display, execute, plan, processes
from studies.names import loss_slug, noise_label
from studies.plan import Request, plan_study

RANDOM = np.random.default_rng(0)


def request(**changes) -> Request:
    values = {"data": "shapes", "name": "shapes", "noises": ("pair",), "rates": (0.4,)}
    values |= {"seeds": (0, 1), "losses": ("cross-entropy", "self-distillation --soft")}
    return Request(**{**values, **changes})


@pytest.mark.parametrize(
    ("loss", "slug"),
    [
        ("cross-entropy", "cross-entropy"),
        ("self-distillation --teacher previous-epoch", "self-distillation-previous-epoch"),
        ("self-distillation --soft --weight=0.2", "self-distillation-soft-weight0.2"),
        ("self-distillation --weight .1 --soft", "self-distillation-weight.1-soft"),
        ("cross-entropy --no-augment", "cross-entropy-no-augment"),
    ],
)
def test_a_losss_name_tells_its_flags(loss, slug):
    assert loss_slug(loss) == slug


@pytest.mark.parametrize(
    ("noise", "rate", "generate", "label"),
    [
        ("pair", 0.4, (), "pair40"),
        ("symmetric", 0.07, (), "symmetric7"),
        ("pair", 0.125, (), "pair12.5"),
        ("none", None, (), "none"),
        ("some/labels.npy", None, (), "labels"),
        ("CIFAR-10_human.pt", None, ("--labels", "worse_label"), "CIFAR-10_human-worse_label"),
        ("my labels.json", None, ("--labels=a",), "my-labels-a"),
    ],
)
def test_a_noises_name_has_its_rate_in_percent(noise, rate, generate, label):
    assert noise_label(noise, rate, generate) == label


def test_every_seed_has_a_data_set_of_its_own_unless_one_is_given():
    (setting,) = plan_study(request())
    assert setting.name == "shapes-pair40"
    assert [str(run.folder) for run in setting.runs] == [
        "runs/shapes-pair40-seed0/cross-entropy-seed0",
        "runs/shapes-pair40-seed0/self-distillation-soft-seed0",
        "runs/shapes-pair40-seed1/cross-entropy-seed1",
        "runs/shapes-pair40-seed1/self-distillation-soft-seed1",
    ]
    assert shlex.join(plan.generate_command(setting.runs[2].data)) == (
        "generate.py --dataset shapes --noise pair --rate 0.4 --seed 1 "
        "--out data/shapes-pair40-seed1.npz --if-missing"
    )
    (setting,) = plan_study(request(data_seed=7, train=("--epochs", "3")))
    assert [d.path for d in plan.data_sets([setting])] == [Path("data/shapes-pair40-seed7.npz")]
    assert shlex.join(plan.train_command(setting.runs[3])) == (
        "train.py --loss self-distillation --soft --epochs 3 --seed 1 --data "
        "data/shapes-pair40-seed7.npz --run self-distillation-soft-seed1 --resume auto"
    )


def test_a_setting_is_a_noise_at_a_rate_if_it_has_one():
    noises = ("pair", "none", "labels.npy")
    settings = plan_study(request(noises=noises, rates=(0.2, 0.4)))
    names = ["shapes-pair20", "shapes-pair40", "shapes-none", "shapes-labels"]
    assert [setting.name for setting in settings] == names
    assert "--rate" not in settings[2].runs[0].data.flags
    groups = plan.rate_figures("shapes", settings)
    assert {k: [s.name for s in v] for k, v in groups.items()} == {
        Path("figures/shapes-pair"): names[:2]
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0, 1, 0)}, "--seeds: 0 is given twice"),
        ({"noises": ("pair", "pair")}, "--noise: pair"),
        ({"rates": (0.4, 0.40)}, "--rate: 0.4"),
        ({"losses": ("cross-entropy", "cross-entropy")}, "--loss: cross-entropy"),
        ({"losses": ("a --weight 0.2", "a --weight=0.2")}, "--loss: a-weight0.2"),
        ({"losses": ("--soft",)}, "begin with a loss's name"),
        ({"losses": ("",)}, "begin with a loss's name"),
        ({"losses": ("a 'b",)}, "close the quote"),
        ({"losses": ("a --seed 3",)}, "--loss: study.py sets --seed itself"),
        ({"train": ("--run=x",)}, "--train: study.py sets --run itself; use --name"),
        ({"train": ("--data", "x")}, "--train: study.py sets --data"),
        ({"generate": ("--rate", "0.1")}, "--generate: study.py sets --rate"),
        ({"name": "a/b"}, "--name 'a/b'"),
        ({"noises": ("a/labels.npy", "b/labels.npy")}, "--noise, --rate: shapes-labels"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_flag(changes, message):
    with pytest.raises(UserError, match="^.*" + message.replace(".", r"\.")):
        plan_study(request(**changes))


def test_a_line_of_the_list_makes_the_data_set_and_trains():
    (setting,) = plan_study(request(generate=("--title", "my images")))
    line = plan.shell_line(setting.runs[0], "python", Path("."))
    first, second = line.split(" && ")
    assert shlex.split(first) == ["python", *plan.generate_command(setting.runs[0].data)]
    assert shlex.split(second) == ["python", *plan.train_command(setting.runs[0])]


def test_jobs_share_the_cores_and_each_has_a_gpu_of_its_own():
    assert devices.slot_environments(3, [], 8, {}) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert devices.slot_environments(4, [], 2, {}) == [{"OMP_NUM_THREADS": "1"}] * 4
    assert devices.slot_environments(2, [], 8, {"OMP_NUM_THREADS": "5"}) == [{}, {}]
    assert devices.slot_environments(2, ["0"], 8, {}) == [{"OMP_NUM_THREADS": "4"}] * 2
    slots = devices.slot_environments(3, ["2", "5"], 8, {"OMP_NUM_THREADS": "1"})
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["2", "5", "2"]
    assert devices.default_jobs([], 1) == 1 and devices.default_jobs([], 16) == 2
    assert devices.default_jobs(["0", "1", "2"], 2) == 3


@pytest.mark.parametrize(
    ("value", "gpus"), [("", []), ("-1", []), ("0", ["0"]), ("3, GPU-a", ["3", "GPU-a"])]
)
def test_cuda_visible_devices_says_which_gpus_there_are(value, gpus):
    assert devices.visible_gpus({"CUDA_VISIBLE_DEVICES": value}) == gpus


def test_without_that_variable_nvidia_smi_does(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.visible_gpus({}) == []
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: X (UUID: a)'\necho '  MIG'\necho 'GPU 1: X (UUID: b)'"
    )
    program.chmod(0o755)
    assert devices.visible_gpus({}) == ["0", "1"]
    program.write_text("#!/bin/sh\necho 'GPU 0: none'\nexit 9")
    assert devices.visible_gpus({}) == []


ASKED = {"epochs": 2, "lr": 0.1, "seed": 0, "amp": None, "device": "auto", "run": "a"}


def write_run(folder: Path, epochs: int, logits: int | None = None, digest="d", **flags) -> Path:
    folder.mkdir()
    write_config(folder, {"data": {"digest": digest}, "flags": {**ASKED, **flags}})
    for epoch in range(1, epochs + 1):
        append_history(folder, {"epoch": epoch, "test_accuracy": 1.0, "seconds": 1.0})
    for _ in range(epochs if logits is None else logits):
        for name in ("logits.npy", "train_logits.npy"):
            append_logits(folder / name, RANDOM.normal(size=(4, 2)))
    return folder


def test_a_run_is_complete_if_history_and_logits_have_all_epochs(tmp_path):
    def is_complete(run, digest="d"):
        return complete.run_complete(run, ASKED, ASKED, digest)

    assert not is_complete(tmp_path / "nothing")
    assert is_complete(write_run(tmp_path / "whole", 2))
    assert is_complete(tmp_path / "whole", None)
    assert not is_complete(write_run(tmp_path / "one", 1))
    assert not is_complete(write_run(tmp_path / "history", 2, logits=1))
    (tmp_path / "whole/train_logits.npy").unlink()
    assert not is_complete(tmp_path / "whole")


def test_a_run_of_other_settings_is_refused_with_the_remedy(tmp_path):
    def refused(run, asked=ASKED, digest="d", defaults=ASKED):
        with pytest.raises(UserError) as error:
            complete.run_complete(run, asked, defaults, digest)
        assert "--name" in str(error.value) and str(run) in str(error.value)
        return str(error.value)

    run = write_run(tmp_path / "run", 2, lr=0.2)
    assert "lr = 0.2, not 0.1" in refused(run)
    other = write_run(tmp_path / "other", 2, digest="e", amp=True, device="cpu", run="b")
    assert "another data set" in refused(other)
    assert complete.run_complete(other, ASKED, ASKED, "e")  # place, device and open amp are free
    assert "amp = True, not False" in refused(other, ASKED | {"amp": False}, "e")
    # A flag that came after the run was made: the run has its default.
    asked = ASKED | {"warmup": 3}
    assert "warmup = 0, not 3" in refused(other, asked, "e", ASKED | {"warmup": 0})
    (other / "config.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        complete.run_complete(other, ASKED, ASKED, "e")


def test_the_digest_of_a_data_set_is_that_of_its_runs(tmp_path):
    path = tmp_path / "data.npz"
    assert complete.data_digest(path) is None
    write_dataset(path, make_dataset())
    assert complete.data_digest(path) == read_dataset(path).sha256


def test_frequencies_are_complete_if_they_cover_all_epochs_of_the_data_set(tmp_path):
    run = write_run(tmp_path / "run", 2)

    def write(epochs, digest="d"):
        section = {"outputs": {"lfr": [[0.5]] * epochs, "excess": [[0.1]] * epochs}}
        content = {"digest": digest, "test": section, "probe": section}
        (run / "frequency.json").write_text(json.dumps(content))
        return complete.frequency_complete(run)

    assert not complete.frequency_complete(run)
    assert write(2) and not write(1) and not write(3) and not write(2, "e")
    (run / "frequency.json").write_text("{")
    assert not complete.frequency_complete(run)


def test_newer_needs_every_file_at_or_after_the_last_input(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    for second, path in enumerate((a, b, c)):
        path.touch()
        os.utime(path, (second, second))
    assert complete.newer([b, c], [a, b]) and not complete.newer([b, c], [c])
    assert not complete.newer([tmp_path / "d"], [a]) and not complete.newer([], [a])


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def plain() -> display.Display:
    return display.Display(io.StringIO())


@pytest.mark.slow
def test_jobs_run_side_by_side_in_order_and_a_failing_one_stops_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import os, time; s = os.environ['SLOT']; open(s, 'x'); time.sleep(0.2); os.unlink(s)"
    jobs = [execute.Job(f"job {k}", python(code)) for k in range(5)]
    jobs.insert(1, execute.Job("bad", python("print('all'); exit('my reason')"), log=Path("log")))
    jobs.insert(2, execute.Job("killed", python("import os; print('x'); os.kill(os.getpid(), 9)")))
    shown = plain()
    slots = [{"SLOT": "a"}, {"SLOT": "b"}]  # two jobs in one slot would fail: the file exists
    outcomes = execute.run_jobs(jobs, slots, shown)
    errors = execute.errors_of(outcomes)
    assert len(outcomes) == 7 and errors.keys() == {"bad", "killed"}
    assert errors["bad"] == "my reason (all its output: log)"
    assert Path("log").read_text() == "all\nmy reason\n"
    assert errors["killed"] == "killed by SIGKILL; last line: x"
    started = [w for w in shown.stream.getvalue().splitlines() if w.startswith("started")]
    assert started == [f"started   {job.name}" for job in jobs]


def test_a_complete_job_is_not_started_and_a_started_one_must_be_complete(tmp_path):
    def conflict():
        raise UserError("other settings")

    marker = tmp_path / "started"
    code = f"open({str(marker)!r}, 'x')"
    jobs = [
        execute.Job("done before", python(code), lambda: True),
        execute.Job("in vain", python("pass"), lambda: False),
        execute.Job("of others", python(code), conflict),
    ]
    outcomes = execute.run_jobs(jobs, [{}], plain())
    assert not marker.exists() and not outcomes["done before"].error
    assert "not complete" in outcomes["in vain"].error
    assert outcomes["of others"].error == "other settings"


LOCKED = "print('run: process 1 is training it; wait for it'); exit(2)"


@pytest.mark.slow
def test_a_job_of_another_process_is_waited_for_and_its_slot_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "LOOK", 0.05)
    tries, theirs = tmp_path / "tries", tmp_path / "theirs"
    code = f"open({str(tries)!r}, 'a').write('x'); {LOCKED}"
    jobs = [
        execute.Job("theirs", python(code), theirs.exists),
        # It ends only if the first job has given its slot back, and then ends the other's work.
        execute.Job("ours", python(f"open({str(theirs)!r}, 'x')")),
    ]
    outcomes = execute.run_jobs(jobs, [{}], plain())
    assert execute.errors_of(outcomes) == {} and tries.read_text() == "x"


@pytest.mark.slow
def test_a_job_whose_other_process_has_died_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "LOOK", 0.05)
    monkeypatch.setattr(execute, "FIRST_RETRY", 0.2)
    tries, result = tmp_path / "tries", tmp_path / "result"
    code = f"""
tries = open({str(tries)!r}, "a+"); tries.write("x"); tries.seek(0)
if len(tries.read()) < 3: {LOCKED}
open({str(result)!r}, "x")
"""
    start = time.monotonic()
    outcomes = execute.run_jobs([execute.Job("run", python(code), result.exists)], [{}], plain())
    assert execute.errors_of(outcomes) == {} and tries.read_text() == "xxx"
    assert time.monotonic() - start > 0.2 + 0.4  # the waiting time doubles


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_processes_cleanly(tmp_path, number):
    code = """
import sys, time
try:
    open(sys.argv[1] + ".started", "x"); time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.3)  # the clean end takes a while, and must not be cut short
    open(sys.argv[1] + ".clean", "x")
"""
    paths = [str(tmp_path / name) for name in "ab"]
    jobs = [execute.Job(path, (*python(code), path)) for path in (*paths, "never")]

    def interrupt():
        while not all(Path(path + ".started").exists() for path in paths):
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        execute.run_jobs(jobs, [{}, {}], plain())
    thread.join()
    assert all(Path(path + ".clean").exists() for path in paths)
    assert signal.getsignal(number) == before


@pytest.mark.slow
def test_a_process_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.3)
    code = f"""
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
time.sleep(60)
"""

    def interrupt():
        while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        execute.run_jobs([execute.Job("stubborn", python(code))], [{}], plain())
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (7290, "2 h 01 min")],
)
def test_durations_are_for_readers(seconds, text):
    assert display.duration(seconds) == text


def test_time_left_is_of_the_median_of_recent_epochs():
    assert display.progress_of([], 10) is None
    seconds = [100, 2, 2, 2, 30, 2]
    records = [
        {"epoch": k + 1, "seconds": s, "test_accuracy": 50.0 + k} for k, s in enumerate(seconds)
    ]
    progress = display.progress_of(records, 10, age=1.5)
    assert progress == display.Progress(6, 10, 55.0, 2, 1.5)
    assert progress.seconds_left == 4 * 2 - 1.5
    rows = (display.Row("a", progress, 3.0), display.Row("b", None, 0.0))
    # 6.5 s of this run and 20 s of each of the three that wait, two at a time.
    shot = display.Snapshot(rows, waiting=3, done=1, failed=0, slots=2)
    assert display.seconds_left(shot) == (6.5 + 3 * 20) / 2


names = st.text(st.characters(codec="utf-8"), max_size=90)
rows = st.builds(
    display.Row,
    names,
    st.none() | st.builds(display.Progress, st.integers(1, 999), st.just(999), st.just(9.5),
                          st.floats(0, 1e5)),
    st.none() | st.floats(0, 1e6),
)  # fmt: skip


@hypothesis.settings(max_examples=50)
@hypothesis.given(st.lists(rows, max_size=30), st.integers(1, 120), st.integers(1, 40))
def test_the_block_fits_the_screen(running, width, height):
    shot = display.Snapshot(tuple(running), 5, 6, 7, 4)
    lines = display.block(shot, width, height)
    assert 1 <= len(lines) <= max(1, height - 1)
    assert all(len(line) <= width - 1 for line in lines)
    assert all(unicodedata.category(character) != "Cc" for line in lines for character in line)


def test_the_block_counts_what_it_does_not_show():
    running = tuple(display.Row(f"run {k}", None, 1.0) for k in range(12))
    lines = display.block(display.Snapshot(running, 30, 4, 1, 12), 80, 10)
    assert lines[0].startswith("  run 0  ") and lines[-2:] == [
        "  and 5 more running",
        "12 running, 30 waiting, 4 done, 1 failed",
    ]
    assert len(lines) == 9


def test_elsewhere_there_is_a_line_at_least_every_heartbeat(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: clock[0])
    shown = plain()
    progress = display.Progress(3, 40, 42.17, 12.1)
    shot = display.Snapshot((display.Row("a/b", progress, 5.0),), 2, 1, 0, 1)
    times = []
    for tick in range(1000):
        clock[0] = tick / 10
        if shown.due():
            shown.update(shot)
            times.append(clock[0])
    assert times == [0, 20, 40, 60, 80]
    clock[0] = 99.0
    shown.event("started   c")
    clock[0] = 101.0
    assert not shown.due()
    assert shown.stream.getvalue().splitlines()[0] == (
        "1 running, 2 waiting, 1 done; about 23 min 36 s left: "
        "a/b epoch 3/40 test 42.17% 7 min 28 s left"
    )
