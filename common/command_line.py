"""What the command lines share: a parser, typed arguments, the one user error, how a script ends.

A script is `parse_args`, `main` and a guard; `main` hands its work to `run_script`.
"""

import argparse
import errno
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_CHARACTERS = 300  # of a line for the user
DEVICES = ("auto", "cpu", "cuda")
REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EACCES: "check its permissions",
    errno.EROFS: "use a writable folder",
    errno.ENOTDIR: "a file stands where a folder is needed; move it",
    errno.EISDIR: "a folder stands where a file is needed; move it",
}
REPORT = "a bug in this program: please report it with the lines above"


class UserError(ValueError):
    """A mistake of the user, or a file that cannot be used; str() is one line for the terminal.

    Of a line longer than MAX_CHARACTERS the middle is left out: the flag at its start and the
    remedy at its end stay.
    """

    exit_status = 2

    def __str__(self) -> str:
        line = printable(" ".join(super().__str__().split()))
        if len(line) <= MAX_CHARACTERS:
            return line
        half = (MAX_CHARACTERS - 5) // 2
        return f"{line[:half]} ... {line[-half:]}"


def printable(text: object) -> str:
    """The text with every control character escaped: no name from a file steers the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the lines of the description, and adds the default to a flag's help."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, []) or "by default" in action.help:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line on standard error; flags cannot be abbreviated."""

    def __init__(self, description: str | None):
        super().__init__(description=description, formatter_class=HelpFormatter, allow_abbrev=False)

    def error(self, message: str):
        # All processes that torchrun starts on a machine have the same flags: only one prints. If
        # another ended first, torchrun would end that one before it does.
        if under_torchrun() and os.environ["LOCAL_RANK"] != "0":
            time.sleep(30)
        else:
            print(f"{self.prog}: error: {UserError(message)}", file=sys.stderr)
        raise SystemExit(2)


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"} <= os.environ.keys()


def number(
    lowest: float,
    highest: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
    kind: type = float,
) -> Callable[[str], float]:
    """A type for finite numbers from `lowest` to `highest`; above, below: without that bound."""
    word = "an integer" if kind is int else "a number"
    bounds = f"{'above' if above else 'at least'} {lowest}"
    bounds += f" and {'below' if below else 'at most'} {highest}" if highest < math.inf else ""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            first = "; name runs before this flag" if os.path.exists(text) else ""
            raise argparse.ArgumentTypeError(f"{text[:20]!r}: use {word} {bounds}{first}") from None
        too_low = value <= lowest if above else value < lowest
        too_high = value >= highest if below else value > highest
        if too_low or too_high or not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text[:20]}: use {word} {bounds}")
        return value

    return parse


def integer(lowest: int, highest: int = 10**9) -> Callable[[str], int]:
    """A type for integers from `lowest` to `highest`."""
    return number(lowest, highest, kind=int)


fraction = number(0, 1)
positive = number(0, above=True)
non_negative = number(0)
decay = number(0, 1, below=True)


def add_runs_arguments(parser: Parser, what: str = "runs, or folders of runs") -> None:
    """Add the arguments that name the runs to read; what: their help."""
    add, words = parser.add_argument, f"{what}; by default all below --runs"
    add("run", nargs="*", type=Path, help=words)
    add("--runs", type=Path, default=Path("runs"), help="folder of all runs")


def choose_device(name: str):
    """The torch.device that --device names. Raises UserError for `cuda` without a GPU."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device found; use --device auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def explained_memory(remedy: str) -> Iterator[None]:
    """A block in which UserError names the remedy when memory does not suffice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch raises kinds of RuntimeError
        message = str(error) if isinstance(error, RuntimeError) else "out of memory"
        if "out of memory" not in message and "can't allocate memory" not in message:
            raise
        where = "CUDA out of memory" if "CUDA" in message else "out of memory"
        raise UserError(f"{where}; {remedy}") from error


def run_script(name: str, work: Callable[[], int | None], interrupted: str = "") -> int:
    """Do a script's work; returns what it returns, or 0, as the exit status.

    What ends it early is one line on standard error: a UserError, with its status; an OSError or
    too little memory, 2; Ctrl-C or SIGTERM, 130, with `interrupted` as the remedy; a fault of this
    program, 1, after the traceback. A reader that closes the pipe, such as `head`, ends it quietly.
    """
    _prepare_streams()
    interrupts = _prepare_signals()
    line, status = f"interrupted{interrupted and '; ' + interrupted}", 130
    try:
        with explained_memory("use less data, a smaller batch or a smaller network"):
            done = work() or 0
        sys.stdout.flush()
        return done
    except BrokenPipeError:
        _discard_output()
        return 128 + signal.SIGPIPE
    except UserError as error:
        line, status = str(error), error.exit_status
    except OSError as error:
        line, status = str(explained(error)), 2
        _discard_output()
    except KeyboardInterrupt:
        pass
    except Exception:
        # A library whose import is interrupted may turn Ctrl-C into an error of its own.
        if not interrupts:
            traceback.print_exc()
            line, status = REPORT, 1
    print(f"{name}: {line}", file=sys.stderr)
    return status


def explained(error: OSError) -> UserError:
    """The system's error as a line with the file's name and a remedy."""
    where = f"{error.filename}: " if error.filename else ""
    remedy = REMEDIES.get(error.errno, "")
    return UserError(f"{where}{error.strerror or error}{remedy and '; ' + remedy}")


def _prepare_streams() -> None:
    """Let every name be printed on every terminal, and nothing where none is open."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell, as in `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Forget what standard output cannot take: Python would complain of it once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end_quietly() -> None:
    """Let Ctrl-C end this process without a word, until `run_script`: while a script imports."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _prepare_signals() -> list[int]:
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt; returns a list that will have them."""
    came: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    if under_torchrun():
        # torchrun sends signals because one process has failed, and that one says why.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    else:
        signal.signal(signal.SIGTERM, interrupt)  # of a batch system
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as for a shell script's `&`
            signal.signal(signal.SIGINT, interrupt)
    return came
