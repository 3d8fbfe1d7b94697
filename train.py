"""Train one network on one data set with one loss: runs/<data set>/<run>/.

    python train.py --dis=0 --data data/cifar10-pair40.npz      plain cross-entropy
    python train.py --dis=1 --data data/cifar10-pair40.npz      self-distillation
    python train.py --dis=1 --resume                            go on where it stopped
    python train.py --dis=0 --model small_cnn --epochs 40       on a laptop
    python train.py --dis=1 --teacher previous-epoch            another teacher
    python train.py --evaluate runs/cifar10-pair40/a-run        measure its checkpoint
    torchrun --nproc-per-node=4 -- train.py --dis=1             one run on several devices

Each epoch appends a line to history.jsonl and the test outputs to logits.npy. Accuracies are
percent, losses nats. Stopping at any time and resuming equals never having stopped, bit for bit on
a CPU (with the same number of threads).
"""

import argparse
import math
import platform
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import nn

import checkpoint
import processes
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
NOT_SETTINGS = ("data", "runs", "run", "device", "resume", "overwrite", "evaluate", "compile")


def choose_device(args: argparse.Namespace) -> tuple[torch.device, str]:
    """The device for --device and its name; sets how it computes, and args.amp where it is open.

    Raises RunError if the device or --amp is asked for and not there.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise runs.RunError("--device cuda: no CUDA device here; use --device auto or cpu")
    several = f", {processes.count()} processes" if processes.count() > 1 else ""
    if args.device != "cpu" and torch.cuda.is_available():
        args.amp = True if args.amp is None else args.amp
        torch.backends.cudnn.benchmark = True  # the shapes stay the same
        torch.set_float32_matmul_precision("high")  # TF32; convolutions have it by default
        return torch.device("cuda"), torch.cuda.get_device_name() + several
    # Without such an instruction a processor takes many times longer in bfloat16 than in float32.
    if args.amp and not torch.cpu._is_avx512_bf16_supported():
        raise runs.RunError("--amp: this processor has no bfloat16 instruction; use --no-amp")
    args.amp = bool(args.amp)
    name = f"CPU {platform.machine()}, {torch.get_num_threads()} threads"
    return torch.device("cpu"), name + several


def make_model(args: argparse.Namespace, dataset: DataSet) -> nn.Module:
    height, width = dataset.train_images.shape[1:3]
    if args.model == "small_cnn":
        if min(height, width) < 8:
            raise DataError(f"{args.data}: --model small_cnn needs images of 8x8 or more")
        return small_cnn(dataset.num_classes)
    if height % 4 or width % 4:
        raise DataError(f"{args.data}: images of {width}x{height}; use --model small_cnn for them")
    return shake_resnet(args.depth, args.width, dataset.num_classes)


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
    add("--amp", action=argparse.BooleanOptionalAction, help="bfloat16 (default on CUDA)")
    add("--compile", action="store_true", help="model.compile(): the first epoch takes longer")
    add("--runs", type=Path, default=Path("runs"), help="the runs' folder (default runs)")
    add("--run", help="the run's name (default from loss, network and seed)")
    add("--resume", action="store_true", help="go on from the run's checkpoint")
    add("--overwrite", action="store_true", help="throw the run of this name away")
    add("--evaluate", type=Path, metavar="RUN", help="only measure a run's checkpoint")
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
        "network": runs.network_name(flags),
        "flags": flags,
        "data": {"name": args.data.stem, "digest": dataset.sha256, **dataset.meta},
        "versions": {**versions, "numpy": np.__version__},
        "device": device,
    }


def prepare(args: argparse.Namespace, dataset: DataSet, device: torch.device):
    """The network on its device, as its parameters are drawn from the seed, and its optimizer."""
    seed_epoch(args.seed, 0, device)
    model = make_model(args, dataset).to(device, memory_format=torch.channels_last)
    if args.compile:
        model.compile()
    rule = {"weight_decay": args.weight_decay, "nesterov": True, "fused": True}
    return model, torch.optim.SGD(model.parameters(), args.lr, MOMENTUM, **rule)


def train(args: argparse.Namespace) -> Path:
    """Train, or go on training, the run that the flags describe; returns its folder."""
    device, device_name = choose_device(args)
    dataset = read_dataset(args.data)
    run = args.runs / args.data.stem / (args.run or runs.run_name(vars(args)))
    if (run / "config.json").exists() and not (args.resume or args.overwrite):
        raise runs.RunError(f"{run} exists; use --resume to go on, --overwrite to start again")
    if args.resume and not (run / checkpoint.NAME).exists():
        raise runs.RunError(f"--resume: {run / checkpoint.NAME} does not exist; leave it out")
    probe = probe_indices(dataset, args.probe)
    device = processes.join(device)
    model, optimizer = prepare(args, dataset, device)
    with ExitStack() as stack:
        if processes.is_main():
            run.mkdir(parents=True, exist_ok=True)
            stack.enter_context(runs.locked(run))
        processes.wait()
        train_epochs(args, run, dataset, probe, model, optimizer, device_name)
    return run


def train_epochs(args, run, dataset, probe, model, optimizer, device_name: str) -> None:
    """Start or resume the locked run; after each epoch, measure it and write what is known."""
    device = next(model.parameters()).device
    flags = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    settings = {k: v for k, v in flags.items() if k not in NOT_SETTINGS}
    settings["data_sha256"] = dataset.sha256
    done, previous = 0, None
    if args.resume:
        done, previous = checkpoint.load(run, model, optimizer, settings, device)
    processes.wait()  # all have read before the first one writes
    if processes.is_main():
        if args.resume:
            runs.truncate_run(run, done)
        else:
            runs.remove_run(run)
            checkpoint.save(run, model, optimizer, 0, settings, previous)
        if not (run / "config.json").exists():
            np.save(run / "probe_indices.npy", probe)
            runs.write_json(run / "config.json", run_config(args, dataset, device_name, flags))
        print(f"{run}: {runs.loss_name(flags)} on {device_name}, from epoch {done + 1}", flush=True)

    arrays = (torch.from_numpy(getattr(dataset, name)).to(device) for name in ARRAYS)
    *train_set, val_images, val_labels, test_images, test_labels = arrays
    of_probe = torch.from_numpy(probe).to(device)
    probe_images, *probe_labels = (tensor[of_probe] for tensor in train_set)
    parallel = processes.parallel(model, device)
    for epoch in range(done + 1, args.epochs + 1):
        start = time.perf_counter()
        statistics, predictions = train_epoch(parallel, optimizer, train_set, args, epoch, previous)
        previous = predictions if args.teacher == "previous-epoch" else None
        trained = time.perf_counter()
        processes.share_buffers(model)
        logits, probe_logits = evaluate(model, test_images), evaluate(model, probe_images)
        if not (logits.isfinite().all() and probe_logits.isfinite().all()):
            raise NotFiniteError(f"epoch {epoch}, after its last step: the outputs are not finite")
        val_accuracy = None
        if len(val_images):
            val_accuracy = percent(evaluate(model, val_images).argmax(dim=1) == val_labels)
        of_labels = label_agreement(probe_logits.argmax(dim=1), *probe_labels)
        record = {
            "epoch": epoch,
            "lr": learning_rate(epoch - 1, args.epochs, args.lr),
            **statistics,
            **{f"probe_{name}": value for name, value in of_labels.items()},
            "val_accuracy": val_accuracy,
            "test_cross_entropy": float(cross_entropy(logits, test_labels)),
            "test_accuracy": percent(logits.argmax(dim=1) == test_labels),
            "seconds": time.perf_counter() - start,
            "images_per_second": len(train_set[0]) / (trained - start),
        }
        if processes.is_main():
            runs.append_logits(run / "logits.npy", logits.cpu().numpy())
            runs.append_logits(run / "probe_logits.npy", probe_logits.cpu().numpy())
            runs.append_history(run, record)
            checkpoint.save(run, model, optimizer, epoch, settings, previous)
            print(EPOCH_LINE.format(epochs=args.epochs, **record), flush=True)


def evaluate_run(run: Path, args: argparse.Namespace) -> str:
    """Test accuracy and loss of a run's checkpoint, computed again; a line for the user."""
    flags = runs.read_config(run)["flags"]
    here = {"data": Path(flags["data"]), "device": args.device, "amp": None, "compile": False}
    of_run = argparse.Namespace(**{**flags, **here})
    device, _ = choose_device(of_run)
    dataset = read_dataset(of_run.data)
    content = checkpoint.read(run, device)
    if content["settings"]["data_sha256"] != dataset.sha256:
        raise runs.RunError(f"--evaluate {run}: {of_run.data} is not what it was trained on")
    model, _ = prepare(of_run, dataset, device)
    checkpoint.load_model(run, model, content)
    logits = evaluate(model, torch.from_numpy(dataset.test_images).to(device)).cpu()
    labels = torch.from_numpy(dataset.test_labels)
    return (
        f"{run}: epoch {content['epoch']}, test accuracy "
        f"{percent(logits.argmax(dim=1) == labels):.2f}%, test loss "
        f"{float(cross_entropy(logits, labels)):.4f}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    # A batch system's SIGTERM ends a run as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        line = evaluate_run(args.evaluate, args) if args.evaluate else f"done: {train(args)}"
        status = 0
    except (DataError, runs.RunError) as error:
        status, line = 2, str(error)
    except OSError as error:
        remedy = "the last good checkpoint stays: make room there, then go on with --resume"
        status, line = 2, f"{error.filename or args.runs}: {error.strerror}; {remedy}"
    except NotFiniteError as error:
        remedy = "the last good checkpoint stays; try a lower --lr with another --run"
        status, line = 1, f"{error}; {remedy}"
    except KeyboardInterrupt:
        status, line = 130, "interrupted; go on with the same flags and --resume"
    finally:
        processes.leave()
    if processes.is_main():
        print(f"train.py: {line}" if status else line, file=sys.stderr if status else None)
    return status


if __name__ == "__main__":
    sys.exit(main())
