"""benchmarks/gpu.py and steps.py: limits of time, records, failing steps."""

import importlib
import json
import os
import sys
import time
from pathlib import Path

import gpu
import pytest
import steps
import torch
from helpers import history
from steps import Step

pytestmark = pytest.mark.slow  # processes that are ended at their limit

MACHINE = {"torch": "2.11", "gpus": ["a GPU"]}
# Starts a process in a session of its own, as study.py does, notes both ids, and does not end.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                         start_new_session=True)
with open(sys.argv[1], "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
print("at work", flush=True)
time.sleep(60)
"""


def step(name, code, *words, limit=30.0, **options) -> Step:
    return Step(name, f"the {name}", (sys.executable, "-c", code, *words), limit, **options)


@pytest.fixture
def report(tmp_path, monkeypatch, script):
    """Run gpu.py with these steps on a machine with a GPU: (exit status, output, records)."""
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setattr(gpu, "ask_machine", lambda python: MACHINE)
    monkeypatch.setattr(steps, "PATIENCE", 0.5)

    def run(*planned, flags=()):
        monkeypatch.setattr(gpu, "plan", lambda *_: list(planned))
        status, out, err = script("gpu", *flags)
        assert err == ""
        files = (tmp_path / "out").glob("*.json")
        return status, out, {path.stem: json.loads(path.read_text()) for path in files}

    return run


@pytest.mark.parametrize("small", [False, True])
def test_the_benchmarks_take_the_flags_of_every_step(small):
    planned = gpu.plan("python", small=small)
    names = ["tests", "eager", "graphs", "graphs-compile", "frequency", "side-by-side", "paper"]
    assert [one.name for one in planned] == names
    for one in planned[1:-1]:
        path, *flags = one.command[1:]
        assert Path(path).is_file() and one.writes
        importlib.import_module(Path(path).stem).parse_args([*flags, "--json", "a.json"])
    assert planned[-1].until_stopped and planned[-1].command[-2:] == ("paper", "PYTHON=python")


def test_without_cuda_every_step_is_skipped_and_says_so(tmp_path, monkeypatch, script):
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(gpu, "ask_machine", lambda python: {"torch": "2.11", "gpus": []})
    status, out, err = script("gpu")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "nothing was measured on a GPU"
    for one in gpu.plan("python"):
        record = json.loads((tmp_path / f"{one.name}.json").read_text())
        assert (record["status"], record["result"]) == ("skipped", "there is no CUDA device")
        assert f"{one.name} " in out and str(tmp_path / f"{one.name}.json") in out


def test_the_study_needs_the_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    assert "cifar-10-python.tar.gz" in gpu.plan("python")[-1].reason
    (tmp_path / "data/cifar-10-batches-py").mkdir(parents=True)
    assert gpu.plan("python")[-1].reason == ""


def test_a_failing_step_is_named_and_the_others_go_on(report):
    numbers = "import json, sys; json.dump({'speed': 7}, open(sys.argv[2], 'w')); print('done')"
    status, out, records = report(
        step("bad", "print('first'); exit('my reason')"),
        step("good", numbers, writes=True),
        step("off", "1 / 0", reason="not here"),
    )
    assert status == 1 and "failed: bad: my reason" in out.splitlines()
    assert out.index("\nfirst\n") < out.index("=== the good")
    found = {name: record["status"] for name, record in records.items() if name != "machine"}
    assert found == {"bad": "failed", "good": "ok", "off": "skipped"}
    assert records["good"]["numbers"] == {"speed": 7} and records["good"]["result"] == "done"
    assert records["machine"] == MACHINE
    rows = [line.split()[0] for line in out.splitlines() if line.endswith(".json")]
    assert rows == ["bad", "good", "off"]


def test_a_program_that_is_missing_is_a_failing_step(report):
    status, out, _ = report(Step("gone", "gone", ("/nowhere/program",), 10.0))
    assert status == 1 and "failed: gone: /nowhere/program: No such file" in out


@pytest.mark.parametrize(("until_stopped", "status"), [(False, 1), (True, 0)])
def test_at_its_limit_a_step_ends_with_its_children(report, tmp_path, until_stopped, status):
    pids = tmp_path / "pids"
    begin = time.monotonic()
    stubborn = step("stubborn", STUBBORN, str(pids), limit=5.0, until_stopped=until_stopped)
    found, out, records = report(stubborn, step("next", "print('here')"))
    assert found == status and time.monotonic() - begin < 30
    assert records["stubborn"]["status"] == ("stopped" if until_stopped else "failed")
    assert records["stubborn"]["result"] == "stopped after 5 s; last line: at work"
    assert records["next"]["status"] == "ok" and "\nhere\n" in out
    for pid in map(int, pids.read_text().split()):
        assert not steps.running(pid)


def test_a_process_left_behind_does_not_hold_a_step(report, tmp_path):
    left = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(60)'], start_new_session=False); print('left')"
    )
    begin = time.monotonic()
    status, _, records = report(step("parent", left))
    assert status == 0 and records["parent"]["result"] == "left"
    assert time.monotonic() - begin < 25


def test_a_silent_step_is_spoken_for(report, monkeypatch):
    monkeypatch.setattr(steps, "HEARTBEAT", 0.3)
    _, out, _ = report(step("silent", "import time; time.sleep(1.5)"))
    assert out.count("... the silent: ") >= 2 and " of at most 30 s\n" in out


def test_without_time_left_a_step_is_not_started(report):
    status, _, records = report(step("late", "1 / 0"), flags=["--minutes", "0.01"])
    assert status == 0 and "--minutes" in records["late"]["result"]
    assert records["late"]["status"] == "skipped"


def test_an_interrupt_ends_the_step(report, tmp_path, monkeypatch):
    pids = tmp_path / "pids"

    def interrupt(*_):
        while not pids.exists() or len(pids.read_text().split()) < 2:
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "pass_on", interrupt)
    with pytest.raises(AssertionError, match="interrupted"):
        report(step("stubborn", STUBBORN, str(pids)))
    for pid in map(int, pids.read_text().split()):
        assert not steps.running(pid)


def test_torch_that_cannot_be_imported_is_one_line(script, monkeypatch, tmp_path):
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(gpu, "ASK", gpu.ASK.replace("import torch", "import no_such_library"))
    status, _, err = script("gpu")
    assert status == 2
    assert err == "gpu.py: torch cannot be imported: No module named 'no_such_library'\n"


@pytest.mark.slow
def test_the_machine_is_asked_and_printed(capsys):
    machine = gpu.ask_machine(sys.executable)
    assert json.loads(capsys.readouterr().out) == machine
    assert machine["torch"] == torch.__version__
    assert len(machine["gpus"]) == torch.cuda.device_count()


def test_the_studys_record_has_every_runs_speed(study_outputs, tmp_path):
    os.renames("runs/small", "runs/cifar10-pair40-seed0")
    runs = gpu.study_runs(Path())
    assert [run["epoch"] for run in runs] == [3] * 4
    path = Path(runs[0]["run"])
    assert runs[0]["test_accuracy"] == history(path)[-1]["test_accuracy"]
    assert len(runs[0]["images_per_second"]) == 3
