"""Run a whole study: generate, train, measure, collect and draw for many settings.

    python study.py --data shapes --train "--model small_cnn --epochs 20 --lr 0.05"
    python study.py --data cifar10 --noise pair symmetric --rate 0.2 0.4 --seeds 0 1 2
    python study.py --loss cross-entropy "self-distillation --teacher previous-epoch"
    python study.py --noise pair symmetric CIFAR-10_human.pt:worse_label
    python study.py --data photos --noise labels.npy --generate "--val-size 2000" --jobs 4
    python study.py --data cifar10 --seeds 0 1 2 --list > commands.txt     for other machines

A study has a data set for each noise, rate and seed, and a run for each loss on it. It skips what
is complete and continues what was interrupted, so the same command finishes a stopped study. It
ends with a table for each noise and rate, figures in figures/<name>-<noise><percent>/, and three
lines on what they show if cross-entropy and one other loss were trained.

With several GPUs, each run has its own GPU; on a CPU the runs share the cores. --list prints the
training commands, one per line, for a job array or GNU parallel: see docs/many-machines.md.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from common.command_line import Parser, fraction, integer, run_script
from studies.plan import Request, split_flags
from studies.run_study import prepare, print_list, run_study

LOSSES = ("cross-entropy", "self-distillation")
SCRIPTS = Path(__file__).resolve().parent


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--data", default="cifar10", help="cifar10, shapes, or a folder of images")
    add(
        "--noise",
        nargs="+",
        default=["pair"],
        help="models, label files or FILE:LABELS (by default pair)",
    )
    add("--rate", nargs="+", type=fraction, default=[0.4], help="noise rates (by default 0.4)")
    add("--seeds", nargs="+", type=integer(0), default=[0], help="seeds (by default 0)")
    add("--loss", nargs="+", default=LOSSES, help=f"by default {' '.join(LOSSES)}")
    add("--data-seed", type=integer(0), help="one data set for all seeds (by default one per seed)")
    add(
        "--generate", default="", metavar="FLAGS", help="more flags of generate.py, by default none"
    )
    add("--train", default="", metavar="FLAGS", help="more flags of train.py, by default none")
    add("--name", help="the study's name in file names (by default the name of the data)")
    add("--jobs", type=integer(1), help="runs side by side (by default one per GPU, or 2 on a CPU)")
    add("--list", action="store_true", help="only print the training commands, one per line")
    return parser.parse_args(join_flags(sys.argv[1:] if argv is None else argv))


def join_flags(argv: Sequence[str]) -> list[str]:
    """argv with `--train FLAGS` as one word: argparse would take FLAGS for flags of study.py."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] in ("--train", "--generate"):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def work(args: Namespace) -> int:
    request = Request(
        data=args.data,
        name=args.name or Path(args.data).resolve().name,
        noises=tuple(args.noise),
        rates=tuple(args.rate),
        seeds=tuple(args.seeds),
        losses=tuple(args.loss),
        generate=split_flags("--generate", args.generate),
        train=split_flags("--train", args.train),
        data_seed=args.data_seed,
    )
    study = prepare(request, SCRIPTS)
    return print_list(study) if args.list else run_study(study, args.jobs)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return run_script("study.py", lambda: work(args), "run the same command to go on")


if __name__ == "__main__":
    sys.exit(main())
