"""What the user sees while jobs run: a live block on a terminal, plain lines elsewhere."""

import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TextIO

REDRAW = 0.5  # seconds between two frames on a terminal
HEARTBEAT = 20.0  # seconds between two lines elsewhere, at most
NAMED = 4  # running jobs that a heartbeat names

# ANSI: erase to the end of the line, or of the screen; cut lines at the edge, or wrap them.
ERASE_LINE, ERASE_BELOW, CUT, WRAP = "\x1b[K", "\x1b[J", "\x1b[?7l", "\x1b[?7h"


@dataclass(frozen=True)
class Progress:
    """How far a run is: whole epochs, test accuracy (%) after the last, and seconds per epoch."""

    epoch: int
    epochs: int
    test_accuracy: float
    epoch_seconds: float
    age: float = 0.0  # seconds since the last whole epoch

    @property
    def seconds_left(self) -> float:
        started = min(self.age, self.epoch_seconds)
        return max(0.0, (self.epochs - self.epoch) * self.epoch_seconds - started)


@dataclass(frozen=True)
class Row:
    """A running job; `seconds` since its start, None if another process runs it."""

    name: str
    progress: Progress | None
    seconds: float | None


@dataclass(frozen=True)
class Snapshot:
    """All jobs at one moment: those that run, and how many wait, are done and have failed."""

    rows: tuple[Row, ...]
    waiting: int
    done: int
    failed: int
    slots: int


def progress_of(records: Sequence[dict], epochs: int, age: float = 0.0) -> Progress | None:
    """The progress that the records of history.jsonl show; None before the first epoch."""
    if not records:
        return None
    # The median of the last few: a single slow epoch, often the first, says little.
    seconds = median(record["seconds"] for record in records[-5:])
    last = records[-1]
    return Progress(last["epoch"], epochs, last["test_accuracy"], seconds, age)


def duration(seconds: float) -> str:
    """Seconds for a reader: 45 s, 2 min 05 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def status(row: Row) -> str:
    """The state of a running job, in a few words."""
    place = "by another process" if row.seconds is None else f"for {duration(row.seconds)}"
    if row.progress is None:
        return place
    progress = row.progress
    text = f"epoch {progress.epoch}/{progress.epochs}  test {progress.test_accuracy:5.2f}%"
    if row.seconds is None:
        return f"{text}  {place}"
    return f"{text}  {duration(progress.seconds_left)} left"


def seconds_left(snapshot: Snapshot) -> float | None:
    """An estimate for all jobs, if waiting ones take as long as running ones; None if unknown."""
    known = [row.progress for row in snapshot.rows if row.progress]
    if not known:
        return None
    left = [progress.seconds_left for progress in known]
    whole = sum(p.epochs * p.epoch_seconds for p in known) / len(known)
    return max(max(left), (sum(left) + snapshot.waiting * whole) / snapshot.slots)


def counts(snapshot: Snapshot) -> str:
    """How many jobs are in which state, and the time left for all."""
    parts = [
        f"{len(snapshot.rows)} running",
        f"{snapshot.waiting} waiting",
        f"{snapshot.done} done",
    ]
    parts += [f"{snapshot.failed} failed"] if snapshot.failed else []
    left = seconds_left(snapshot)
    return ", ".join(parts) + ("" if left is None else f"; about {duration(left)} left")


def shorten(name: str, width: int) -> str:
    """The name with its middle left out if it is too long: its end tells runs apart."""
    if len(name) <= width:
        return name
    if width < 8:
        return name[-max(width, 0) :] if width > 0 else ""
    tail = (width - 2) * 2 // 3
    return name[: width - 2 - tail] + ".." + name[-tail:]


def block(snapshot: Snapshot, width: int, height: int) -> list[str]:
    """The lines of the live block: at most `height` - 1, each shorter than `width`."""
    width, rows = width - 1, snapshot.rows
    room = max(0, height - 2)  # the last line has the counts, and the cursor stands below it
    hidden = 0
    if len(rows) > room:
        room = max(0, room - 1)
        rows, hidden = rows[:room], len(rows) - room
    texts = [status(row) for row in rows]
    wanted = max((len(row.name) for row in rows), default=0)
    space = min(wanted, width - 4 - max(map(len, texts), default=0))
    lines = [
        f"  {shorten(row.name, space).ljust(space)}  {text}"
        for row, text in zip(rows, texts, strict=True)
    ]
    lines += [f"  and {hidden} more running"] if hidden else []
    lines.append(counts(snapshot))
    return [printable(line)[:width] for line in lines[-max(1, height - 1) :]]


def printable(text: str) -> str:
    """The text without control characters, which would move the cursor."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", text)


def frame(events: Sequence[str], lines: Sequence[str], previous: int) -> str:
    """What to write to replace the block of `previous` lines with events and a new block.

    The cursor stands at the start of the line below the block, before and after. Lines are
    overwritten without being erased first, so that nothing flickers.
    """
    up = f"\x1b[{previous}A" if previous else ""
    permanent = "".join(f"{line}{ERASE_LINE}\n" for line in events)
    live = "".join(f"{line}{ERASE_LINE}\n" for line in lines)
    return f"\r{up}{permanent}{CUT}{live}{ERASE_BELOW}{WRAP}"


class Display:
    """Shows the jobs in place if `stream` is a terminal, and as plain lines if not."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stdout
        self.in_place = self.stream.isatty() and os.environ.get("TERM") not in (None, "dumb")
        self.height = 0  # of the block on the screen, in lines
        self.last: float | None = None  # time of the last frame, or of the last plain line

    def due(self) -> bool:
        """Whether it is time for `update`."""
        waited = HEARTBEAT if self.last is None else time.monotonic() - self.last
        return waited >= (REDRAW if self.in_place else HEARTBEAT)

    def update(self, snapshot: Snapshot) -> None:
        """Show the state of the jobs."""
        if self.in_place:
            size = os.get_terminal_size(self.stream.fileno())
            # A terminal that does not know its size says 0.
            lines = block(snapshot, size.columns or 80, size.lines or 24)
            self._write(frame([], lines, self.height))
            self.height = len(lines)
            return
        rows = [f"{row.name} {' '.join(status(row).split())}" for row in snapshot.rows[:NAMED]]
        more = len(snapshot.rows) - len(rows)
        rows += [f"and {more} more"] if more else []
        self._write(printable(": ".join([counts(snapshot), ", ".join(rows)])) + "\n")

    def event(self, line: str, in_place: bool = True) -> None:
        """A line that stays; with in_place=False only where there is no live block."""
        if not self.in_place:
            self._write(printable(line) + "\n")
        elif in_place:
            self._write(frame([printable(line)], [], self.height))
            self.height = 0
            self.last = None  # draw the block again

    def finished(self, name: str, progress: Progress | None, seconds: float) -> None:
        """Print that a job is done; `seconds` is 0 if another process did it."""
        parts = [] if progress is None else [f"{progress.epochs} epochs"]
        parts += [] if progress is None else [f"test accuracy {progress.test_accuracy:.2f}%"]
        parts += [duration(seconds)] if seconds else ["complete"]
        self.event(f"finished  {name}: {', '.join(parts)}")

    def clear(self) -> None:
        """Remove the live block from the screen."""
        if self.height:
            self._write(frame([], [], self.height))
            self.height = 0

    def _write(self, text: str) -> None:
        self.last = time.monotonic()
        self.stream.write(text)
        self.stream.flush()
