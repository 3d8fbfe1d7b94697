"""Train one network on one data set with one loss: runs/<data set>/<run>/.

    python train.py --dis=0 --data data/cifar10-pair40.npz      plain cross-entropy
    python train.py --dis=1 --data data/cifar10-pair40.npz      self-distillation
    python train.py --dis=1 --resume                            go on where it stopped
    python train.py --dis=0 --model small_cnn --epochs 40       on a laptop
    python train.py --loss generalized-cross-entropy            another loss
    python train.py --evaluate runs/cifar10-pair40/a-run        evaluate its checkpoint
    torchrun --nproc-per-node=4 -- train.py --dis=1             one run on several devices

Accuracies are percent, losses nats. A run that is stopped and resumed equals one that was not, bit
for bit on a CPU with the same number of threads.
"""

import os
import sys
from argparse import SUPPRESS, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from common.command_line import (
    DEVICES,
    Parser,
    UserError,
    decay,
    end_quietly,
    explained_memory,
    integer,
    non_negative,
    positive,
    run_script,
    under_torchrun,
)

if __name__ == "__main__":
    end_quietly()  # on Ctrl-C, while Python imports the rest

from losses import LOSSES, CrossEntropy, SelfDistillation, flags_of
from models import MODELS, check_size
from training.settings import RunSettings

DEFAULT = RunSettings()
NAMES = [each.name for each in fields(RunSettings) if each.name != "loss_flags"]
REMEDY = "go on with the same flags and --resume auto"


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add_loss_arguments(parser)
    add_training_arguments(parser)
    add_run_arguments(parser)
    parser.set_defaults(**{name: getattr(DEFAULT, name) for name in NAMES if name != "loss"})
    args = parser.parse_args(argv)
    args.loss = args.loss or (SelfDistillation.name if args.dis else CrossEntropy.name)
    try:
        values = {name: getattr(args, name) for name in NAMES}
        args.settings = RunSettings(loss_flags=loss_flags(args), **values)
        args.settings.make_loss()
        size = (args.depth, args.width)
        if args.model == "shake_resnet":
            check_size(*size)
        elif args.model == "small_cnn" and size != (DEFAULT.depth, DEFAULT.width):
            raise UserError("--depth and --width belong to --model shake_resnet; leave them out")
    except UserError as error:
        parser.error(str(error))
    return args


def add_loss_arguments(parser: Parser) -> None:
    group = parser.add_argument_group("loss")
    either = group.add_mutually_exclusive_group()
    either.add_argument("--loss", choices=LOSSES, help="by default cross-entropy")
    either.add_argument("--dis", type=int, choices=(0, 1), help="0: the first, 1: the second")
    for name, loss in LOSSES.items():
        for each in fields(loss):
            options = dict(each.metadata)
            default = "" if each.default in (None, False) else f"; by default {each.default}"
            options["help"] = f"{name}: {options['help']}{default}"
            if isinstance(each.default, bool):
                options["action"] = "store_true"
            # A flag that is not given is not there, so that one of another loss can be refused.
            group.add_argument(f"--{each.name.replace('_', '-')}", default=SUPPRESS, **options)


def loss_flags(args: Namespace) -> dict:
    """The flags of the loss that are given. Raises UserError for a flag of another loss."""
    own = flags_of(LOSSES[args.loss])
    for name, loss in LOSSES.items():
        for flag in flags_of(loss):
            if hasattr(args, flag) and flag not in own:
                use = f"use that, and leave --dis and --loss {args.loss} out"
                raise UserError(f"--{flag.replace('_', '-')} belongs to --loss {name}; {use}")
    return {flag: getattr(args, flag) for flag in own if hasattr(args, flag)}


def add_training_arguments(parser: Parser) -> None:
    add = parser.add_argument_group("network and training").add_argument
    add("--data", type=Path, help="data set that generate.py made")
    add("--model", choices=MODELS, help="network")
    add("--depth", type=int, help="depth of the shake_resnet, 6n + 2")
    add("--width", type=int, help="channels of its first stage")
    add("--epochs", type=integer(1), help="number of training epochs")
    add("--batch-size", type=integer(1), help="images in a batch")
    add("--lr", type=positive, help="learning rate at the first step")
    add("--weight-decay", type=non_negative, help="weight decay")
    add("--ema-decay", type=decay, help="evaluate averaged weights (EMA); decay per step")
    add("--augment", action=BooleanOptionalAction, help="random crop and mirror")
    add("--seed", type=integer(0, 2**63), help="seed of initialization, data order and crops")
    size = "training images to evaluate after each epoch; by default all, at most 10000"
    add("--sample-size", type=integer(1), help=size)


def add_run_arguments(parser: Parser) -> None:
    add = parser.add_argument_group("device").add_argument
    add("--device", choices=DEVICES, help="device to train on")
    add("--amp", action=BooleanOptionalAction, help="compute in bfloat16; by default on CUDA only")
    add("--compile", action="store_true", help="compile the network; the first epoch takes longer")
    group = parser.add_argument_group("run")
    group.add_argument("--runs", type=Path, help="folder of all runs")
    group.add_argument("--run", type=run_name, help="name of the run; by default from its settings")
    add = group.add_mutually_exclusive_group().add_argument
    resume = "go on from the run's checkpoint; auto also starts a run that does not exist"
    add("--resume", nargs="?", const=True, choices=(True, "auto"), metavar="auto", help=resume)
    add("--overwrite", action="store_true", help="delete the run of this name and start again")
    add("--evaluate", type=Path, metavar="RUN", help="only evaluate a run's checkpoint")


def run_name(text: str) -> str:
    """A type for the name of a folder."""
    if text in ("", "..") or Path(text).name != text:
        raise ArgumentTypeError(f"{text!r} is not the name of a folder; --runs says where it goes")
    return text


def train(settings: RunSettings) -> None:
    """Train or evaluate the run; --compile without a compiler is a UserError."""
    from training import distributed
    from training import run as training_run

    try:
        with explained_memory("use a lower --batch-size or --width; the last checkpoint stays"):
            if settings.evaluate:
                data = settings.data if settings.data != DEFAULT.data else None
                line = training_run.evaluate_run(settings.evaluate, data, settings.device)
            else:
                line = f"done: {training_run.train(settings)}"
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{reason}; install a C++ compiler, or leave --compile out") from error
    if distributed.is_main():
        print(line)
    distributed.destroy()


def main(argv: Sequence[str] | None = None) -> int:
    settings = parse_args(argv).settings
    status = run_script("train.py", lambda: train(settings), "" if settings.evaluate else REMEDY)
    if status and under_torchrun():
        # What torch tears down when Python ends would wait for the other processes.
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
