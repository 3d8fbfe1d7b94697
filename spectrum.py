"""Measure what the runs learned along the eigenvectors of kernels: spectrum.json in each run.

    python spectrum.py                                      every run under runs/
    python spectrum.py runs/cifar10-pair40 --delta 1600     these runs, one Gaussian kernel
    python spectrum.py runs/cifar10-pair40 --kernel ntk-initial ntk-final
    python spectrum.py --compare                            say which epoch of cross-entropy each
                                                            distilled run is like

For each run, kernel, epoch and half octave of the eigenvectors' index: how much of the clean
labels, of the noise's class transition and of its individual part the outputs hold. Kernels that
spectrum.json has already stay in it. analysis/spectrum_file.py defines its content.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from common.command_line import Parser, add_runs_arguments, integer, positive, run_script
from common.device import DEVICES, choose_device
from common.run_folder import find_runs, read_config

KERNELS = ("gaussian", "ntk-initial", "ntk-final")


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add_runs_arguments(parser)
    add = parser.add_argument
    add(
        "--kernel",
        nargs="+",
        choices=KERNELS,
        default=["gaussian"],
        help="Gaussian of the pixels, or the network's tangent kernel at its start or checkpoint",
    )
    add(
        "--delta",
        nargs="+",
        type=positive,
        default=[564.0, 1600.0, 4000.0],
        help="variances of the Gaussian kernel, in squared normalized-pixel units",
    )
    add(
        "--size",
        type=integer(2),
        help="training images to measure on; by default 5000, or all that were evaluated if fewer",
    )
    add(
        "--compare",
        action="store_true",
        help="compare the spectrum.json that the runs have, without measuring",
    )
    add("--data", type=Path, help="the data set, if it has moved since training")
    add("--device", default="auto", choices=DEVICES, help="device to compute on")
    return parser.parse_args(argv)


def spectrum(args: Namespace) -> None:
    """Measure, or compare, the runs that the flags name."""
    runs = find_runs(args.run or [args.runs])
    if args.compare:
        compare(runs)
        return
    from analysis.spectrum_runs import SpectrumSettings, measure_runs

    device = choose_device(args.device)
    measure_runs(runs, args.data, SpectrumSettings(args.kernel, args.delta, args.size, device))


def compare(runs: Sequence[Path]) -> None:
    """Print the equivalent epoch of every distilled run, by kernel."""
    from analysis.run_comparison import REFERENCE, comparison_lines

    for run in runs:
        if read_config(run)["loss"] != REFERENCE:
            print("\n".join(comparison_lines(run)), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return run_script("spectrum.py", lambda: spectrum(args), "finished data sets stay measured")


if __name__ == "__main__":
    sys.exit(main())
