"""Draw the figures of a study as PNG files.

    python plot.py                        every run under runs/
    python plot.py runs/cifar10-pair40    these runs only
    python plot.py history.json           what collect_history.py collected
    python plot.py --delta 800            another variance of the filter where a figure shows one
    python plot.py a.json b.json          several studies: by noise, or by noise rate if
                                          only the rate differs

accuracy and loss need the runs only. overview, memorization, frequency, convergence, learned_parts
and spectrum show what frequency.py measured, filter and kernels what spectrum.py measured. Several
seeds of one loss become their mean, with a band from the lowest to the highest seed.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from common.command_line import Parser, UserError, positive, run_script


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add(
        "source",
        nargs="*",
        type=Path,
        help="files of history.json, or runs or folders of runs; by default all runs below --runs",
    )
    add("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    add("--delta", type=positive, help="variance shown; by default the one nearest to 400 in "
        "frequency.png and the middle one in learned_parts.png")  # fmt: skip
    add("--out", type=Path, default=Path("figures"), help="folder of the figures")
    return parser.parse_args(argv)


def read_sources(paths: Sequence[Path]) -> list[dict]:
    """The histories to draw: read where files are named, collected from runs otherwise."""
    from analysis.history_file import collect, read_history_file

    files = [path for path in paths if path.suffix == ".json"]
    if files and len(files) < len(paths):
        raise UserError(f"{files[0]} and runs named; name files of history.json, or runs")
    if files:
        return [read_history_file(path) for path in files]
    history, notes = collect(paths)
    for note in notes:
        print(f"plot.py: {note}", file=sys.stderr)
    return [history]


def plot(args: Namespace) -> None:
    """Draw the figures of the sources that the flags name."""
    from plotting.figures import draw_comparison, draw_study

    histories = read_sources(args.source or [args.runs])
    if len(histories) > 1:
        missing = draw_comparison(histories, args.out)
    else:
        missing = draw_study(histories[0], args.delta, args.out)
    for reason, names in missing.items():
        print(f"plot.py: not drawn: {', '.join(names)}: {reason}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return run_script("plot.py", lambda: plot(args))


if __name__ == "__main__":
    sys.exit(main())
