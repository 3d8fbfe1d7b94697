"""Run jobs as processes, several side by side, and end them all when the user stops the study."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from common.errors import UserError
from common.files import write_text
from studies.display import Display, Progress, Row, Snapshot
from studies.processes import TICK, stop

LOCKED = "is training it"  # train.py's message if another process trains the run
FIRST_RETRY, LAST_RETRY = 10.0, 120.0  # seconds until the next attempt, doubled each time
LOOK = 2.0  # seconds between two checks of such a run's files


@dataclass(frozen=True)
class Job:
    """A command to run unless its work is complete, and how to read its progress.

    is_complete: whether the files on disk are complete, called before and after; None if this
    cannot be known. log: the file for the output of a failed job.
    """

    name: str
    command: tuple[str, ...]
    is_complete: Callable[[], bool] | None = None
    progress: Callable[[], Progress | None] = lambda: None
    log: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `error` is one line, empty after success; `output` is all it wrote."""

    error: str
    output: str
    seconds: float


@dataclass
class Process:
    """A running job: its process, its slot, and the file for its output."""

    job: Job
    slot: int
    output: BinaryIO
    popen: subprocess.Popen
    started: float


@dataclass
class Elsewhere:
    """A job held by another process: when to check again, and when to try again."""

    job: Job
    delay: float
    retry: float
    look: float


@dataclass
class Execution:
    """The state of a list of jobs."""

    waiting: list[Job]
    slots: Sequence[Mapping[str, str]]
    running: list[Process] = field(default_factory=list)
    elsewhere: list[Elsewhere] = field(default_factory=list)
    delays: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def run_jobs(
    jobs: Sequence[Job], slots: Sequence[Mapping[str, str]], display: Display
) -> dict[str, Outcome]:
    """Run the jobs in order, as many side by side as there are slots; returns outcomes by name.

    slots: for each job that can run at a time, its environment variables. A failed job does not
    stop the others. Raises KeyboardInterrupt after SIGINT, SIGTERM or SIGHUP, when all processes
    have ended.
    """
    state = Execution(list(jobs), slots)
    with interrupts() as received:
        try:
            while (state.waiting or state.running or state.elsewhere) and not received:
                start_jobs(state, display)
                end_jobs(state, display)
                look_elsewhere(state, display)
                if display.due():
                    display.update(snapshot(state))
                time.sleep(TICK)
            if received:
                raise KeyboardInterrupt
        finally:
            if received and state.running:
                with suppress(OSError):  # the terminal may be gone
                    display.event(f"stopping  {', '.join(p.job.name for p in state.running)}")
            stop([process.popen for process in state.running], received)
            display.clear()
    return state.outcomes


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Collect the signals that ask the study to stop, so that none raises an exception mid-code."""
    received: list[int] = []
    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # nohup ignores SIGHUP, so that the study outlives its terminal.
        number = getattr(signal, name, None)
        if number and (name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN):
            before[number] = signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_jobs(state: Execution, display: Display) -> None:
    """Start jobs while there is a free slot; complete ones end at once."""
    taken = {process.slot for process in state.running}
    free = [slot for slot in range(len(state.slots)) if slot not in taken]
    while state.waiting and free:
        job = state.waiting.pop(0)
        if settled(state, job, display):
            continue
        slot = free.pop(0)
        output = tempfile.TemporaryFile()  # noqa: SIM115, closed when the process has ended
        popen = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **state.slots[slot]},
            start_new_session=True,  # Ctrl-C reaches the process once: from here
        )
        state.running.append(Process(job, slot, output, popen, time.monotonic()))
        if job.name not in state.delays:
            display.event(f"started   {job.name}", in_place=False)


def end_jobs(state: Execution, display: Display) -> None:
    """Remove the processes that have ended from the running ones."""
    for process in [p for p in state.running if p.popen.poll() is not None]:
        state.running.remove(process)
        job, now = process.job, time.monotonic()
        with process.output as file:
            file.seek(0)
            text = file.read().decode("utf-8", "replace")
        if process.popen.returncode == 2 and LOCKED in last_line(text):
            if job.name not in state.delays:
                display.event(f"waiting   {job.name}: another process is training it")
            delay = state.delays.get(job.name, FIRST_RETRY)
            state.delays[job.name] = min(2 * delay, LAST_RETRY)
            state.elsewhere.append(Elsewhere(job, delay, now + delay, now + LOOK))
            continue
        error = explain(process.popen.returncode, text)
        if not error:
            complete, error = ask_complete(job)
            if complete is False:
                error = error or "ended with exit status 0, but is not complete"
        finish(state, job, Outcome(error, text, now - process.started), display)


def look_elsewhere(state: Execution, display: Display) -> None:
    """End jobs that another process has completed; try the others again from time to time."""
    now = time.monotonic()
    for entry in [e for e in state.elsewhere if now >= e.look]:
        entry.look = now + LOOK
        if settled(state, entry.job, display):
            state.elsewhere.remove(entry)
        elif now >= entry.retry:
            # The other process may have ended before the run was complete.
            state.elsewhere.remove(entry)
            state.waiting.insert(0, entry.job)


def ask_complete(job: Job) -> tuple[bool | None, str]:
    """Whether a job's work is complete, None if unknown, and what is wrong with it."""
    try:
        return (job.is_complete() if job.is_complete else None), ""
    except UserError as error:
        return False, str(error)


def settled(state: Execution, job: Job, display: Display) -> bool:
    """Whether a job needs no process, as its work is complete or impossible; it then ends."""
    complete, error = ask_complete(job)
    if complete or error:
        finish(state, job, Outcome(error, "", 0.0), display)
    return bool(complete or error)


def finish(state: Execution, job: Job, outcome: Outcome, display: Display) -> None:
    """Record and print how a job ended, and keep the output of a failed one."""
    error = outcome.error
    if job.log is not None:
        with suppress(OSError):
            job.log.unlink(missing_ok=True)
            if error and outcome.output:
                write_text(job.log, outcome.output)
                error = f"{error} (all its output: {job.log})"
    state.outcomes[job.name] = replace(outcome, error=error)
    if error:
        display.event(f"failed    {job.name}: {error}")
    else:
        display.finished(job.name, job.progress(), outcome.seconds)


def explain(status: int, text: str) -> str:
    """Why a process failed, in one line; empty if it did not."""
    if not status:
        return ""
    if status < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}; last line: {last_line(text)}"
    return last_line(text) or f"exit status {status}"


def last_line(text: str) -> str:
    """The last line of a text without the spaces around it, empty if there is none."""
    return (text.strip().splitlines() or [""])[-1].strip()


def snapshot(state: Execution) -> Snapshot:
    """What the display shows now."""
    now = time.monotonic()
    rows = [Row(p.job.name, p.job.progress(), now - p.started) for p in state.running]
    rows += [Row(e.job.name, e.job.progress(), None) for e in state.elsewhere]
    failed = sum(bool(outcome.error) for outcome in state.outcomes.values())
    done = len(state.outcomes) - failed
    return Snapshot(tuple(rows), len(state.waiting), done, failed, len(state.slots))


def errors_of(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """The error of each job that failed, by its name."""
    return {name: outcome.error for name, outcome in outcomes.items() if outcome.error}
