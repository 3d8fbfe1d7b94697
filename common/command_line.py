"""What the command lines share: a parser, typed arguments, and how a script ends.

A script is `parse_args`, `main` and a guard; `main` hands its work to `run_script`.
"""

import argparse
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from common.errors import UserError


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the lines of the description, and adds the default to a flag's help."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or "by default" in action.help:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line on standard error, and exit status 2."""

    def __init__(self, description: str | None):
        super().__init__(description=description, formatter_class=HelpFormatter)

    def error(self, message: str):
        # All processes that torchrun starts on a machine have the same flags: only one prints.
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"{self.prog}: error: {UserError(message)}", file=sys.stderr)
        raise SystemExit(2)


def integer(lowest: int) -> Callable[[str], int]:
    """A type for integers of at least `lowest`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{value}: use {lowest} or more")
        return value

    return parse


def fraction(text: str) -> float:
    """A type for numbers from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: use a number from 0 to 1, such as 0.4")
    return value


def decay(text: str) -> float:
    """A type for numbers from 0 to below 1."""
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text}: use a number from 0 to below 1, such as 0.99")
    return value


def positive(text: str) -> float:
    """A type for finite numbers above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: use a finite number above 0")
    return value


def non_negative(text: str) -> float:
    """A type for finite numbers of at least 0."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: use a finite number, 0 or more")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def add_runs_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name the runs to read."""
    parser.add_argument(
        "run", nargs="*", type=Path, help="runs, or folders of runs; by default all below --runs"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")


def run_script(name: str, work: Callable[[], int | None], interrupted: str = "") -> int:
    """Do a script's work; returns its exit status.

    The status is 0 or what `work` returns, the status of a UserError, 2 for an OSError (each with
    one line on standard error), or 130 for Ctrl-C or SIGTERM, with `interrupted` as the remedy. A
    reader that closes the pipe, such as `head`, ends the script quietly.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        # A batch system's SIGTERM ends a script as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    else:
        # torchrun sends signals because one process has failed, and that one says why.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        status = work() or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Python would complain once more when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except UserError as error:
        line, status = str(error), error.exit_status
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        line, status = str(UserError(f"{where}{error.strerror or error}")), 2
    except KeyboardInterrupt:
        line, status = f"interrupted{interrupted and '; ' + interrupted}", 130
    print(f"{name}: {line}", file=sys.stderr)
    return status
