"""Run a step of gpu.py as a process with a time limit: print its output, record its result."""

import codecs
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.files import write_json
from studies.display import duration
from studies.execute import last_line
from studies.processes import TICK

HEARTBEAT = 25.0  # seconds without output until a line says that the step is still running
PATIENCE = 15.0  # seconds that a step has to end after SIGINT
SHORTEST = 5.0  # seconds: a step with less time left is not started


@dataclass(frozen=True)
class Step:
    """A command and the seconds that it may take.

    writes: it takes --json and writes its numbers there. until_stopped: a stop at its limit is not
    a failure. reason: why it cannot run here; empty if it can.
    """

    name: str
    title: str
    command: tuple[str, ...]
    limit: float
    writes: bool = False
    until_stopped: bool = False
    reason: str = ""


def run_step(step: Step, folder: Path, left: float) -> dict:
    """Run a step within `left` seconds; returns its record, also written to <folder>/<name>.json.

    The record has the step's name, status (ok, failed, stopped or skipped), result (one line),
    seconds, command, and the numbers that the step wrote.
    """
    path = folder / f"{step.name}.json"
    path.unlink(missing_ok=True)
    limit = min(step.limit, left)
    print(f"\n=== {step.title}", flush=True)
    began = time.monotonic()
    if step.reason or limit < SHORTEST:
        status, result = "skipped", step.reason or "no time is left; raise --minutes"
        print(f"skipped: {result}", flush=True)
    else:
        words = (*step.command, "--json", str(path)) if step.writes else step.command
        status, result = watch(words, step.title, limit)
        if status == "stopped" and not step.until_stopped:
            status = "failed"
    record = {"step": step.name, "title": step.title, "status": status, "result": result}
    record |= {"seconds": round(time.monotonic() - began, 1), "command": list(step.command)}
    record |= {"file": str(path)}
    with suppress(OSError, ValueError):
        record["numbers"] = json.loads(path.read_text("utf-8"))
    write_json(path, record)
    return record


def watch(words: Iterable[str], title: str, limit: float) -> tuple[str, str]:
    """Run a command to its end or its limit of seconds; returns a status and its last line.

    The status is ok, failed, or stopped at the limit.
    """
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    except OSError as error:
        return "failed", f"{error.filename}: {error.strerror}"
    try:
        text, timely = pass_on(process, title, limit)
    finally:
        stop_tree(process)
    line = last_line(text)
    if not timely:
        return "stopped", f"stopped after {duration(limit)}; last line: {line}"
    if process.returncode:
        return "failed", line or f"exit status {process.returncode}"
    return "ok", line


def pass_on(process: subprocess.Popen, title: str, limit: float) -> tuple[str, bool]:
    """Print what a process writes, with a line at least every HEARTBEAT seconds, until it ends.

    Returns its output and whether it has ended within `limit` seconds.
    """
    text, decoder = "", codecs.getincrementaldecoder("utf-8")("replace")
    began = spoke = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            readable, data = selector.select(timeout=TICK), b""
            ended, now = process.poll() is not None, time.monotonic()
            if readable:
                data = os.read(process.stdout.fileno(), 65536)
            if data:
                spoke, words = now, decoder.decode(data)
                text += words
                print(words, end="", flush=True)
            elif ended:  # even if a process that it left behind holds the pipe
                return text, True
            elif readable:  # the pipe is closed
                time.sleep(TICK)
            if now - began > limit:
                return text, False
            if now - spoke > HEARTBEAT:
                spoke = now
                print(
                    f"... {title}: {duration(now - began)} of at most {duration(limit)}", flush=True
                )


def stop_tree(process: subprocess.Popen) -> None:
    """End a process and all that it has started: SIGINT, and SIGKILL after PATIENCE.

    study.py gives its runs their own process groups and ends them when it ends; processes that
    remain are found by their parent.
    """
    tree = [process.pid, *descendants(process.pid)]
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and (process.poll() is None or any(map(running, tree))):
        time.sleep(TICK)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    left = {*tree, *(child for parent in tree for child in descendants(parent))}
    for pid in filter(running, left):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and any(map(running, left - {process.pid})):
        time.sleep(TICK)
    process.stdout.close()
    process.wait()


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(_fields(status)[1], []).append(int(status.parent.name))
    processes = list(children.get(pid, ()))
    for child in processes:  # grows while it is read
        processes += children.get(child, ())
    return processes


def running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return _fields(Path(f"/proc/{pid}/stat"))[0] != "Z"
    except OSError:
        return False


def _fields(status: Path) -> tuple[str, int]:
    """State and parent of /proc/<pid>/stat; they follow the name, which may hold anything."""
    state, parent = status.read_text("utf-8", "replace").rpartition(")")[2].split()[:2]
    return state, int(parent)
