"""Train one network on one data set with one loss: runs/<data set>/<run>/.

    python train.py --dis=0 --data data/cifar10-pair40.npz      plain cross-entropy
    python train.py --dis=1 --data data/cifar10-pair40.npz      self-distillation
    python train.py --dis=1 --resume                            go on where it stopped
    python train.py --dis=0 --model small_cnn --epochs 40       on a laptop

Each epoch appends a line to history.jsonl and the test outputs to logits.npy. Accuracies are
percent, losses nats. Stopping at any time and resuming equals never having stopped, bit for bit on
a CPU (with the same number of threads).
"""

import argparse
import math
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

import runs
from data import ARRAYS, DataError, DataSet, probe_indices, read_dataset
from epoch import (
    NotFiniteError,
    evaluate,
    label_agreement,
    learning_rate,
    percent,
    seed_epoch,
    train_epoch,
)
from losses import cross_entropy
from models import shake_resnet, small_cnn

MOMENTUM = 0.9
TEACHERS = ("batch", "previous-epoch", "uniform")
EPOCH_LINE = (
    "epoch {epoch}/{epochs}: train loss {train_objective:.4f}, accuracy {train_accuracy:.2f}%, on "
    "true labels {train_clean_accuracy:.2f}%; test loss {test_cross_entropy:.4f}, accuracy "
    "{test_accuracy:.2f}%; {seconds:.1f} s"
)
# What a run may differ in between its start and --resume.
NOT_SETTINGS = ("data", "runs", "run", "device", "resume", "overwrite")


def save_checkpoint(
    run: Path,
    model: nn.Module,
    optimizer,
    epoch: int,
    settings: dict,
    previous: torch.Tensor | None,
) -> None:
    """Replace the run's checkpoint by that of `epoch`: tensors and plain values only.

    previous: the predictions of that epoch, which its next one needs, or None.
    """
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    runs.write_checkpoint(
        run, {"epoch": epoch, "settings": settings, "previous": previous, **state}
    )


def load_checkpoint(
    run: Path, model: nn.Module, optimizer, settings: dict, device
) -> tuple[int, torch.Tensor | None]:
    """Load the run's checkpoint into model and optimizer; returns its epoch and predictions.

    Raises RunError if there is none, it is damaged, or it is of other settings.
    """
    content = runs.read_checkpoint(run, device)
    for name, now in settings.items():
        if content["settings"].get(name) != now:
            raise runs.RunError(
                f"--resume: {run} was started with {name} = {content['settings'].get(name)}, not "
                f"{now}; use that, or name another run with --run"
            )
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return content["epoch"], content["previous"]


def choose_device(name: str) -> tuple[torch.device, str]:
    """The device for --device and its name. Raises RunError if it is asked for and not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise runs.RunError("--device cuda: no CUDA device here; use --device auto or cpu")
    if name != "cpu" and torch.cuda.is_available():
        return torch.device("cuda"), torch.cuda.get_device_name()
    return torch.device("cpu"), f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


def make_model(args: argparse.Namespace, dataset: DataSet) -> nn.Module:
    height, width = dataset.train_images.shape[1:3]
    if args.model == "small_cnn":
        if min(height, width) < 8:
            raise DataError(f"{args.data}: --model small_cnn needs images of 8x8 or more")
        return small_cnn(dataset.num_classes)
    if height % 4 or width % 4:
        raise DataError(f"{args.data}: images of {width}x{height}; use --model small_cnn for them")
    return shake_resnet(args.depth, args.width, dataset.num_classes)


def network_name(args: argparse.Namespace) -> str:
    """small_cnn, or depth and width of the shake-shake network as in shake26-2x32d."""
    return args.model if args.model == "small_cnn" else f"shake{args.depth}-2x{args.width}d"


def loss_slug(args: argparse.Namespace) -> str:
    """The loss in a run's name: dis0, dis1, dis1-previous-epoch, dis1-soft-weight0.2 ..."""
    parts = [f"dis{args.dis}"] + [args.teacher] * (args.teacher != "batch")
    parts += ["soft"] * args.soft + ([] if args.weight is None else [f"weight{args.weight:g}"])
    return "-".join(parts)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,  # so that an error is one line
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--dis", type=int, default=0, choices=(0, 1), help="0 cross-entropy, 1 self-distillation")
    add("--teacher", default="batch", choices=TEACHERS, help="of --dis=1 (default batch)")
    add("--soft", action="store_true", help="its distribution instead of its largest output")
    add("--weight", type=float, help="of its prediction, fixed (default the agreement of a batch)")
    add("--data", type=Path, default=Path("data/cifar10-pair40.npz"), help="made by generate.py")
    add("--model", default="shake_resnet", choices=("shake_resnet", "small_cnn"))
    add("--depth", type=int, default=26, help="of the shake_resnet, 6n + 2 (default 26)")
    add("--width", type=int, default=32, help="of its first stage, in channels (default 32)")
    add("--epochs", type=int, default=300, help="default 300")
    add("--batch-size", type=int, default=128, help="default 128")
    add("--lr", type=float, default=0.2, help="at the first step; one cosine to 0 (default 0.2)")
    add("--weight-decay", type=float, default=1e-4, help="default 1e-4")
    add("--augment", action=argparse.BooleanOptionalAction, default=True, help="crop and mirror")
    add("--seed", type=int, default=0, help="default 0")
    add("--probe", type=int, help="training images looked at in eval mode (default up to 10000)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default auto")
    add("--runs", type=Path, default=Path("runs"), help="the runs' folder (default runs)")
    add("--run", help="the run's name (default from loss, network and seed)")
    add("--resume", action="store_true", help="go on from the run's checkpoint")
    add("--overwrite", action="store_true", help="throw the run of this name away")
    args = parser.parse_args(argv)
    try:
        shake_resnet(args.depth, args.width)
    except ValueError as error:
        parser.error(f"--depth, --width: {error}")
    for flag, lowest in {"epochs": 1, "batch_size": 1, "seed": 0}.items():
        if getattr(args, flag) < lowest:
            parser.error(f"--{flag.replace('_', '-')} {getattr(args, flag)}: use {lowest} or more")
    if not (0 < args.lr < math.inf and 0 <= args.weight_decay < math.inf):
        parser.error("--lr, --weight-decay: use a finite number over 0, such as 0.2 and 1e-4")
    if args.probe is not None and args.probe < 1:
        parser.error(f"--probe {args.probe}: use 1 or more")
    if not args.dis and (args.teacher, args.soft, args.weight) != ("batch", False, None):
        parser.error("--teacher, --soft, --weight: they belong to --dis=1; add it")
    if args.weight is not None and not 0 <= args.weight <= 1:
        parser.error(f"--weight {args.weight}: a share from 0 to 1, such as 0.2")
    if args.teacher == "uniform" and (args.weight is None or args.soft):
        parser.error("--teacher uniform is label smoothing: use it with --weight, without --soft")
    if args.resume and args.overwrite:
        parser.error("--resume and --overwrite exclude each other; use one")
    return args


def run_config(args: argparse.Namespace, dataset: DataSet, device: str, flags: dict) -> dict:
    """What config.json says: all that a reader of the run's numbers has to know."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {
        "loss": runs.loss_name(flags),
        "network": network_name(args),
        "flags": flags,
        "data": {"name": args.data.stem, "digest": dataset.sha256, **dataset.meta},
        "versions": {**versions, "numpy": np.__version__},
        "device": device,
    }


def train(args: argparse.Namespace) -> Path:
    """Train, or go on training, the run that the flags describe; returns its folder."""
    device, device_name = choose_device(args.device)
    dataset = read_dataset(args.data)
    name = args.run or f"{loss_slug(args)}-{network_name(args)}-seed{args.seed}"
    run = args.runs / args.data.stem / name
    if (run / "config.json").exists() and not (args.resume or args.overwrite):
        raise runs.RunError(f"{run} exists; use --resume to go on, --overwrite to start again")
    probe = probe_indices(dataset, args.probe)
    flags = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    settings = {k: v for k, v in flags.items() if k not in NOT_SETTINGS}
    settings["data_sha256"] = dataset.sha256

    seed_epoch(args.seed, 0, device)
    model = make_model(args, dataset).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(),
        args.lr,
        MOMENTUM,
        weight_decay=args.weight_decay,
        nesterov=True,
        fused=True,
    )
    remembers = args.teacher == "previous-epoch"
    previous = None
    if args.resume:
        done, previous = load_checkpoint(run, model, optimizer, settings, device)
        runs.truncate_run(run, done)
    else:
        done = 0
        run.mkdir(parents=True, exist_ok=True)
        runs.remove_run(run)
        save_checkpoint(run, model, optimizer, 0, settings, previous)
        np.save(run / "probe_indices.npy", probe)
        runs.write_json(run / "config.json", run_config(args, dataset, device_name, flags))
    print(f"{run}: {runs.loss_name(flags)} on {device_name}, from epoch {done + 1}", flush=True)

    arrays = (torch.from_numpy(getattr(dataset, name)).to(device) for name in ARRAYS)
    *train_set, val_images, val_labels, test_images, test_labels = arrays
    probe_images, *probe_labels = (
        tensor[torch.from_numpy(probe).to(device)] for tensor in train_set
    )
    for epoch in range(done + 1, args.epochs + 1):
        start = time.perf_counter()
        statistics, predictions = train_epoch(model, optimizer, train_set, args, epoch, previous)
        previous = predictions if remembers else None
        trained = time.perf_counter()
        logits, probe_logits = evaluate(model, test_images), evaluate(model, probe_images)
        if not (logits.isfinite().all() and probe_logits.isfinite().all()):
            raise NotFiniteError(f"epoch {epoch}, after its last step: the outputs are not finite")
        val_accuracy = None
        if len(val_images):
            val_accuracy = percent(evaluate(model, val_images).argmax(dim=1) == val_labels)
        probe_agreement = label_agreement(probe_logits.argmax(dim=1), *probe_labels)
        record = {
            "epoch": epoch,
            "lr": learning_rate(epoch - 1, args.epochs, args.lr),
            **statistics,
            **{f"probe_{name}": value for name, value in probe_agreement.items()},
            "val_accuracy": val_accuracy,
            "test_cross_entropy": float(cross_entropy(logits, test_labels)),
            "test_accuracy": percent(logits.argmax(dim=1) == test_labels),
            "seconds": time.perf_counter() - start,
            "images_per_second": len(train_set[0]) / (trained - start),
        }
        runs.append_logits(run / "logits.npy", logits.cpu().numpy())
        runs.append_logits(run / "probe_logits.npy", probe_logits.cpu().numpy())
        runs.append_history(run, record)
        save_checkpoint(run, model, optimizer, epoch, settings, previous)
        print(EPOCH_LINE.format(epochs=args.epochs, **record), flush=True)
    return run


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        run = train(args)
    except (DataError, runs.RunError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except NotFiniteError as error:
        remedy = (
            "the last good checkpoint stays; try a lower --lr with --overwrite or another --run"
        )
        print(f"train.py: {error}; {remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train.py: interrupted; go on with the same flags and --resume", file=sys.stderr)
        return 130
    print(f"done: {run}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
