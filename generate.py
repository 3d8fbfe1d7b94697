"""Make a data set with noisy labels: data/<dataset>-<noise><percent>.npz.

    python generate.py                                     CIFAR-10, pair flip, 40% wrong labels
    python generate.py --noise symmetric --rate 0.2
    python generate.py --dataset cifar100                  CIFAR-100
    python generate.py --dataset shapes                    the built-in shapes, no download
    python generate.py --dataset photos                    photos/train/<class>/*, photos/test/...
    python generate.py --noise labels.json                 labels that another project made
    python generate.py --noise CIFAR-10_human.pt --labels worse_label --matched
    python generate.py --export labels.json                the noisy labels for other projects
    python generate.py --val-size 5000                     hold out images with their noisy labels

Test labels are never changed. The clean training labels are kept beside the noisy ones.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from common.command_line import Parser, fraction, integer, run_script
from common.files import making
from dataset.data_file import write_dataset
from dataset.make import (
    DataSettings,
    check_unused,
    describe,
    exists_already,
    export_labels,
    make_dataset,
)
from dataset.noise import NOISES
from dataset.sources import SOURCES


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    models, sources = ", ".join(NOISES), ", ".join(SOURCES)
    add("--dataset", default="cifar10", help=f"{sources}, or a folder of images")
    add("--noise", default="pair", help=f"noise model ({models}), or a file of labels")
    add("--labels", help="which labels of the file to use, such as worse_label of CIFAR-10N")
    add("--matched", action="store_true", help="permute the file's labels within each class")
    add(
        "--accept-chance-labels",
        action="store_true",
        help="accept a file of labels that agrees with the clean labels no better than chance",
    )
    add("--rate", type=fraction, help="noise rate: share of the labels to flip; by default 0.4")
    add("--seed", type=integer(0), default=0, help="seed of the labels, the subset and the shapes")
    add("--train-size", type=integer(1), help="number of images to choose; by default all")
    add("--val-size", type=integer(0), default=0, help="how many of these images to hold out")
    add("--test-size", type=integer(1), help="number of test images; by default all")
    add("--data-dir", default="data", help="folder of CIFAR's archives")
    add("--title", help="name of the images in figures; by default the data set's name")
    add("--out", type=Path, help="file to write; by default data/<dataset>-<noise><percent>.npz")
    add("--export", type=Path, help="also write the noisy labels as JSON, in the source's order")
    add(
        "--if-missing",
        action="store_true",
        help="do nothing if the file exists with the same settings",
    )
    args = parser.parse_args(argv)
    if args.noise == "none" and args.rate:
        parser.error("--noise none changes no label; leave --rate out")
    if args.noise in NOISES:
        for flag in ("labels", "matched", "accept_chance_labels"):
            if getattr(args, flag):
                flag = flag.replace("_", "-")
                parser.error(f"--{flag} belongs to a file of labels; name it with --noise")
        if args.rate is None:
            args.rate = DataSettings.rate
    elif not Path(args.noise).is_file():
        parser.error(f"--noise {args.noise}: neither {models} nor a file")
    elif args.rate is not None:
        parser.error(
            "--rate belongs to a noise model; a file of labels has its own rate: leave --rate out"
        )
    if args.noise == "none":
        args.rate = 0.0
    if args.export and args.if_missing:
        parser.error("--export and --if-missing exclude each other; use one")
    args.settings = DataSettings(**{f.name: getattr(args, f.name) for f in fields(DataSettings)})
    args.out = args.out or args.settings.default_path
    return args


def generate(args: Namespace) -> None:
    """Make the data set that the flags describe, with --if-missing only if no process has."""
    if not args.if_missing:
        make(args)
        return
    if not exists_already(args.out, args.settings):
        with making(args.out):
            if not exists_already(args.out, args.settings):  # it may be there by now
                make(args)
                return
    print(f"exists: {args.out}")


def make(args: Namespace) -> None:
    """Write the data set that the flags describe, and print what it is."""
    dataset, noisy = make_dataset(args.settings)
    check_unused(args.out, dataset)
    if args.export:
        export_labels(args.export, noisy)
    write_dataset(args.out, dataset)
    print(f"{describe(dataset)}\nwritten: {args.out}")
    if args.export:
        print(f"written: {args.export}")


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return run_script("generate.py", lambda: generate(args), "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
