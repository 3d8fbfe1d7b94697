"""Split the networks' outputs into low and high frequency: frequency.json in each run.

    python frequency.py                            every run under runs/
    python frequency.py runs/cifar10-pair40        these runs only
    python frequency.py --delta 100 200 400        variances of the Gaussian filter
    python frequency.py --delta original           the original's twelve variances
    python frequency.py --values logits            raw logits, as the original did

The filtering method of the F-Principle papers (arXiv 1901.06523). delta is a variance, in squared
normalized-pixel units; by default nine deltas, half an octave apart, are fitted to the data set.
analysis/frequency_file.py defines every measure; docs/method.md explains them.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from common.command_line import Parser, add_runs_arguments, positive, run_script
from common.device import DEVICES, choose_device
from common.run_folder import find_runs

ORIGINAL_DELTAS = (1, 10, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)


def delta(text: str) -> float | str:
    """A type for a variance of the filter, or the word `original`."""
    return text if text == "original" else positive(text)


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add_runs_arguments(parser)
    add = parser.add_argument
    add(
        "--delta",
        nargs="+",
        type=delta,
        default=[],
        help="variances of the filter, or `original`; by default fitted to the data set",
    )
    add("--values", default="softmax", choices=("softmax", "logits"), help="outputs to filter")
    add("--data", type=Path, help="the data set, if it has moved since training")
    add("--device", default="auto", choices=DEVICES, help="device to filter on")
    args = parser.parse_args(argv)
    if args.delta == ["original"]:
        args.delta = ORIGINAL_DELTAS
    if "original" in args.delta:
        parser.error("--delta original stands alone; leave the other numbers out")
    return args


def frequency(args: Namespace) -> None:
    """Filter the runs that the flags name."""
    from analysis.frequency_runs import FilterSettings, filter_runs

    runs = find_runs(args.run or [args.runs])
    settings = FilterSettings(args.delta, args.values, choose_device(args.device))
    filter_runs(runs, args.data, settings)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    note = "runs of an unfinished pass are unchanged"
    return run_script("frequency.py", lambda: frequency(args), note)


if __name__ == "__main__":
    sys.exit(main())
