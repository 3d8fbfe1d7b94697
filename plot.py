"""Draw the figures of runs as PNG files.

    python plot.py                        every run under runs/
    python plot.py runs/cifar10-pair40    these runs only
    python plot.py history.json           what collect_history.py collected
    python plot.py --delta 800            another variance of the filter where a figure shows one

Runs are put together by noise, loss and setting; several seeds become their mean, with a band from
the lowest to the highest. The figures:
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from common.command_line import Parser, UserError, end_quietly, positive, printable, run_script

if __name__ == "__main__":
    end_quietly()  # on Ctrl-C, while Python imports the rest

from analysis.history import Run, by_noise, collect, common_name, complete_runs
from plotting.frequency import errors, excess, frequency, order
from plotting.spectrum import eigenvectors
from plotting.style import Noises, save
from plotting.training import accuracy, frontier, loss, memorization, rate

# A figure is a function of (noise -> series -> seed -> Run, --delta or None). It returns a
# matplotlib Figure, or None if it does not apply, or raises UserError with the command that makes
# what is missing. The first line of its docstring is its help.
FIGURES = {
    "frontier.png": frontier,
    "accuracy.png": accuracy,
    "loss.png": loss,
    "memorization.png": memorization,
    "frequency.png": frequency,
    "errors.png": errors,
    "order.png": order,
    "excess.png": excess,
    "eigenvectors.png": eigenvectors,
    "rate.png": rate,
}
HELP = "\n".join(f"    {name:18}{make.__doc__.splitlines()[0]}" for name, make in FIGURES.items())


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(f"{__doc__}\n{HELP}\n")
    add = parser.add_argument
    add(
        "source",
        nargs="*",
        type=Path,
        help="runs, folders of runs, or files of history.json; by default all runs below --runs",
    )
    add("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    add("--delta", type=positive, help="variance of the filter that is shown; by default the "
        "nearest to the original's that filters")  # fmt: skip
    add("--out", type=Path, help="folder of the figures; by default figures/<data set>")
    return parser.parse_args(argv)


def say(text: str) -> None:
    """A line for the user on standard error."""
    print(f"plot.py: {UserError(text)}", file=sys.stderr)


def figure_folder(runs: Sequence[Run]) -> Path:
    """figures/<what the names of the runs' data sets have in common>, or their list."""
    names = sorted({run.data["name"] for run in runs})
    shared = common_name(names)
    if not all(name.startswith(shared) for name in names):
        more = f"-and-{len(names) - 2}-more" if len(names) > 2 else ""
        shared = "+".join(names[:2]) + more
    # A history.json may come from elsewhere: its names do not lead out of the folder.
    shared = printable(shared).replace("/", "-").replace("\\", "-").lstrip(".")
    return Path("figures") / (shared or "figures")


def draw_all(noises: Noises, delta: float | None, folder: Path) -> None:
    """Draw every figure into the folder, print the paths, and say what could not be drawn.

    Raises UserError if nothing could be drawn, and OSError if a file cannot be written.
    """
    drawn, missing, undrawable = [], {}, set()
    for name, make in FIGURES.items():
        try:
            characters = save(lambda make=make: make(noises, delta), folder / name)
        except UserError as error:
            missing.setdefault(str(error), []).append(name)
            continue
        if characters is not None:
            undrawable |= characters
            drawn.append(folder / name)
    if not drawn:
        raise UserError("; ".join(missing))
    print(f"open: {drawn[0]}")
    for path in drawn[1:]:
        print(path)
    for reason, names in missing.items():
        say(f"not drawn: {', '.join(names)}: {reason}")
    if undrawable:
        say(f"no font here has the characters {' '.join(sorted(undrawable))}: the figures show "
            "boxes; install Noto Sans CJK, or use another --title")  # fmt: skip


def plot(args: Namespace) -> None:
    """Draw the figures of the sources that the flags name."""
    if args.out and args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out}: a file; name a folder")
    runs, notes = collect(args.source or [args.runs])
    complete, unfinished = complete_runs(runs)
    if complete:
        runs, notes = complete, notes + unfinished
    else:
        notes.append("no run has all its epochs: the figures show unfinished runs")
    for note in notes:
        say(note)
    draw_all(by_noise(runs), args.delta, args.out or figure_folder(runs))


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return run_script("plot.py", lambda: plot(args))


if __name__ == "__main__":
    sys.exit(main())
