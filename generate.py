"""Make a data set with noisy labels: data/<dataset>-<noise><percent>.npz.

    python generate.py                                     CIFAR-10, pair flip, 40% wrong labels
    python generate.py --noise symmetric --rate 0.2
    python generate.py --dataset cifar100                  CIFAR-100
    python generate.py --dataset shapes                    the built-in shapes, no download
    python generate.py --dataset photos                    photos/train/<class>/*, photos/test/...
    python generate.py --dataset photos --image-size 32    crop and resize them
    python generate.py --noise labels.json                 labels that another project made
    python generate.py --noise CIFAR-10_human.pt --labels worse_label --matched
    python generate.py --export labels.json                the noisy labels for other projects
    python generate.py --val-size 5000                     hold out images with their noisy labels

Test labels are never changed. The clean training labels are kept beside the noisy ones.
"""

import json
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import fields
from itertools import combinations
from pathlib import Path

from common.command_line import (
    Parser,
    UserError,
    end_quietly,
    fraction,
    integer,
    printable,
    run_script,
)

if __name__ == "__main__":
    end_quietly()  # on Ctrl-C, while Python imports the rest

from common.files import making, write_text
from dataset.data_file import write_dataset
from dataset.make import DataSettings, check_unused, describe, exists_already, make_dataset
from dataset.noise import NOISES
from dataset.sources import LARGEST, SOURCES


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    models, sources = ", ".join(NOISES), ", ".join(SOURCES)
    add("--dataset", default="cifar10", help=f"{sources}, or a folder of images")
    add("--noise", default="pair", help=f"noise model ({models}), or a label file")
    add("--labels", help="which labels of the file to use, such as worse_label of CIFAR-10N")
    add("--matched", action="store_true", help="permute the file's labels within each class")
    chance = "accept a label file that agrees with the clean labels no better than chance"
    add("--accept-chance-labels", action="store_true", help=chance)
    add("--rate", type=fraction, help="noise rate: share of the labels to flip; by default 0.4")
    add("--seed", type=integer(0), default=0, help="seed of the noise, the subset and the shapes")
    add("--train-size", type=integer(1), help="training + held-out images; by default all")
    add("--val-size", type=integer(0), default=0, help="how many of --train-size to hold out")
    add("--test-size", type=integer(1), help="number of test images; by default all")
    square = "side of a folder's images, cropped and resized"
    add("--image-size", type=integer(1, LARGEST), help=square)
    add("--data-dir", default="data", help="folder of CIFAR's archives")
    add("--out", type=Path, help="file to write; by default data/<dataset>-<noise><percent>.npz")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--export", type=Path, help="also write the noisy labels as JSON, with the files' names")
    missing = "do nothing if the file exists with the same settings"
    add("--if-missing", action="store_true", help=missing)
    args = parser.parse_args(argv)
    if args.noise == "none":
        if args.rate:
            parser.error("--noise none changes no label; leave --rate out")
        args.rate = 0.0
    if args.noise in NOISES:
        for flag in ("labels", "matched", "accept_chance_labels"):
            if getattr(args, flag):
                flag = flag.replace("_", "-")
                parser.error(f"--{flag} belongs to a label file; name one with --noise")
        if args.rate is None:
            args.rate = DataSettings.rate
    elif not Path(args.noise).is_file():
        parser.error(f"--noise {args.noise}: neither {models} nor a file")
    elif args.rate is not None:
        parser.error("--rate belongs to a noise model; leave it out: a file has its own rate")
    if args.image_size and args.dataset in SOURCES:
        parser.error("--image-size belongs to a folder of images; leave it out")
    if args.export and args.export.suffix.lower() in (".npy", ".pt", ".pth"):
        parser.error(f"--export {args.export}: it is written as JSON; name it .json")
    args.settings = DataSettings(**{f.name: getattr(args, f.name) for f in fields(DataSettings)})
    args.out = args.out or args.settings.default_path
    if not args.out.name:
        parser.error(f"--out {args.out}: not a file name; use data/my.npz")
    _refuse_one_file(parser, args)
    return args


def _refuse_one_file(parser: Parser, args: Namespace) -> None:
    """Refuse flags that would write one file over another."""
    noise = None if args.noise in NOISES else Path(args.noise)
    paths = {"--out": args.out, "--export": args.export, "--noise": noise}
    given = [(flag, path) for flag, path in paths.items() if path]
    for (flag, path), (other, second) in combinations(given, 2):
        same = path.exists() and second.exists() and path.samefile(second)
        if same or path.resolve() == second.resolve():
            parser.error(f"{flag} and {other} are both {path}; use another {flag}")


def generate(args: Namespace) -> None:
    """Make and write the data set that the flags describe, and its export; print what they are."""
    # With --if-missing only if no other process has made it, which this one may have to wait for.
    made = None if args.if_missing else make_dataset(args.settings)
    with making(args.out):
        if args.if_missing and exists_already(args.out, args.settings):
            say(f"exists: {args.out}")
            return
        made = made or make_dataset(args.settings)
        export = json.dumps(made.export) + "\n"
        check_unused(args.out, args.settings, made.dataset)
        if args.export and args.export.exists():
            same = args.export.is_file() and args.export.read_bytes() == export.encode()
            if not same:
                raise UserError(f"--export {args.export} exists with other content; name another")
        write_dataset(args.out, made.dataset)
        say(*describe(made), f"written: {args.out}")
        if args.export:
            write_text(args.export, export)
            say(f"written: {args.export}")
    command = f"python train.py --dis=0 --data {shlex.quote(str(args.out))}"
    count = len(made.dataset.train_images)
    # An average over 33 steps; with a few steps per epoch it would hold the first weights.
    batch = "64 --ema-decay 0.97" if count >= 2000 else -(-count // 40)
    small = f"--model small_cnn --epochs 20 --lr 0.02 --batch-size {batch}"
    if not args.val_size:
        say("no held-out images, so no early stopping: to compare with it, add --val-size")
    say(f"next, on a GPU:  {command}", f"next, on a CPU:  {command} {small}")


def say(*lines: str) -> None:
    print("\n".join(map(printable, lines)))


def main(argv: Sequence[str] | None = None) -> int:
    return run_script("generate.py", lambda: generate(parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
