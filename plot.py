"""Draw the figures of runs as PNG files.

    python plot.py                        every run under runs/
    python plot.py runs/cifar10-pair40    these runs only
    python plot.py history.json           what collect_history.py collected
    python plot.py --delta 800            another variance of the filter where a figure shows one

Runs are grouped by noise, loss and settings; several seeds become their mean, with a band from the
lowest to the highest.
"""

import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from common.command_line import (
    Parser,
    UserError,
    add_runs_arguments,
    end_quietly,
    positive,
    printable,
    run_script,
)

if __name__ == "__main__":
    end_quietly()  # on Ctrl-C, while Python imports the rest

from analysis import history

# Module of plotting/ -> its figures. A figure is a function of (noise -> series -> seed -> Run,
# --delta or None) that returns a matplotlib Figure, or raises UserError with the command that makes
# what is missing.
FIGURES = {
    "training": ("frontier", "accuracy", "loss", "memorization"),
    "frequency": ("frequency", "errors", "order"),
    "spectrum": ("eigenvectors",),
}


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    names = ", ".join(name for names in FIGURES.values() for name in names)
    parser = Parser(f"{__doc__}\nThe figures:\n{names}.\n")
    add_runs_arguments(parser, "runs, folders of runs, or history.json files")
    add = parser.add_argument
    add("--delta", type=positive, help="variance of the filter to show; by default 400 or 564, "
        "or the nearest that filters")  # fmt: skip
    add("--out", type=Path, help="folder of the figures; by default figures/<data set>")
    return parser.parse_args(argv)


def say(text: str) -> None:
    """A line for the user on standard error."""
    print(f"plot.py: {UserError(text)}", file=sys.stderr)


def figure_folder(runs: Sequence[history.Run]) -> Path:
    """figures/<what the names of the runs' data sets have in common>, or their list."""
    names = sorted({run.data["name"] for run in runs})
    shared = history.common_name(names)
    if not all(name.startswith(shared) for name in names):
        shared = f"{names[0]}-and-{len(names) - 1}-more"
    # A history.json may come from elsewhere: its names do not lead out of the folder.
    shared = printable(shared).replace("/", "-").replace("\\", "-").lstrip(".")
    return Path("figures") / (shared or "figures")


def draw_all(noises: history.Noises, delta: float | None, folder: Path) -> None:
    """Draw every figure into the folder, print the paths, and say what could not be drawn.

    Raises UserError if nothing could be drawn, and OSError if a file cannot be written.
    """
    from plotting.layout import save
    from plotting.style import project_style

    places = [(module, name) for module, names in FIGURES.items() for name in names]
    drawn, missing = [], {}
    with warnings.catch_warnings(record=True) as caught, project_style():
        for module, name in places:
            path = folder / f"{name}.png"
            try:
                make = getattr(import_module(f"plotting.{module}"), name)
                save(make(noises, delta), path)
                drawn.append(path)
            except UserError as error:
                missing.setdefault(str(error), []).append(path.name)
    if not drawn:
        raise UserError("; ".join(missing))
    print(f"open: {drawn[0]}", *drawn[1:], sep="\n")
    for reason, names in missing.items():
        say(f"not drawn: {', '.join(names)}: {reason}")
        if stale := [name for name in names if (folder / name).exists()]:
            say(f"older files, perhaps of other runs, stay in {folder}: {', '.join(stale)}")
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        say(message)  # such as a character of a title that no font here has


def plot(args: Namespace) -> None:
    """Draw the figures of the sources that the flags name."""
    if args.out and args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out}: a file; name a folder")
    runs, notes = history.collect(args.run or [args.runs], accept_unfinished=True)
    runs, left = history.share_deltas(runs)
    for note in notes + left:
        say(note)
    draw_all(history.by_noise(runs), args.delta, args.out or figure_folder(runs))


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return run_script("plot.py", lambda: plot(args))


if __name__ == "__main__":
    sys.exit(main())
