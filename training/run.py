"""Train a run from its start or its checkpoint, and measure it again."""

import platform
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from common import run_folder
from common.command_line import UserError, choose_device
from dataset.batches import normalize
from dataset.data_file import DataSet, read_dataset
from dataset.make import sample_indices
from losses import cross_entropy
from models import MODELS
from training import checkpoint, distributed
from training.checkpoint import Trained
from training.epoch import (
    NonFiniteLossError,
    evaluate,
    label_agreement,
    learning_rate,
    percent,
    seed_epoch,
    train_epoch,
    train_step,
)
from training.settings import RunSettings

MOMENTUM = 0.9
START = ("model", "depth", "width", "seed")  # flags that decide where training starts
HEAD = "train (cross-entropy, accuracy) and val: on noisy labels; test: on clean labels"
EPOCH_LINE = (
    "{epoch:3}/{epochs} loss {train_objective:.2f}, train {train_cross_entropy:.2f} "
    "{train_accuracy:.1f}%, {val}test {test_accuracy:.1f}%, {seconds:.1f} s, {left} left"
)


@dataclass(frozen=True)
class RunData:
    """What a run trains on and is measured on: tensors on its device, as in a data-set file."""

    train: list[Tensor]  # images uint8 (N, H, W, 3), noisy and clean labels int64 (N,)
    sample: list[Tensor]  # the same of the training images that are evaluated after each epoch
    val: list[Tensor]  # images and noisy labels; no image where none is held out
    test: list[Tensor]  # images and clean labels


def train(settings: RunSettings) -> Path:
    """Train, or go on training, the run that the settings describe; returns its folder.

    Raises UserError for a mistake of the user, NonFiniteLossError, OSError for a full disk.
    """
    run, dataset = settings.folder, read_dataset(settings.data)
    settings, device, device_name = prepare_device(settings)
    sample = sample_indices(dataset, settings.sample_size)
    fixed = settings.fixed | {"data_sha256": dataset.sha256}
    distributed.init(device)
    decide_resume(run, settings)  # refuse before a folder is made
    trained = make_trained(settings, dataset, device)
    with ExitStack() as stack:
        if distributed.is_main():
            run.mkdir(parents=True, exist_ok=True)
            stack.enter_context(run_folder.locked(run))
        distributed.barrier()  # what is decided here stays so: no other process has the run
        resume = decide_resume(run, settings)
        done = checkpoint.load(run, trained, fixed, device) if resume else 0
        distributed.barrier()  # all ranks have read before rank 0 writes
        if distributed.is_main():
            if done:
                run_folder.truncate_run(run, done)
            else:
                checkpoint.save(run, trained, 0, fixed)  # a full disk leaves an old run as it was
                run_folder.remove_files(run, run_folder.REPLACED)
            run_folder.write_sample_indices(run, sample)
            if not (run / "config.json").exists():  # it is the last, and makes the run exist
                run_folder.write_config(run, run_config(settings, dataset, device_name))
        if done < settings.epochs:
            data = send_data(dataset, sample, device)
            if distributed.is_main():
                print(f"{run}: {trained.loss.title} on {device_name}, from epoch {done + 1}")
                if settings.amp and device.type == "cpu":
                    print(compare_precisions(settings, dataset), flush=True)
                print(HEAD, flush=True)
            train_epochs(run, settings, fixed, trained, data, done)
    return run


def train_epochs(
    run: Path, settings: RunSettings, fixed: dict, trained: Trained, data: RunData, done: int
) -> None:
    """Train the epochs after `done`; measure and save each."""
    model = trained.model
    parallel = replace(trained, model=distributed.wrap_ddp(model, data.train[0].device))
    evaluated = trained.average.module if trained.average else model
    begin = time.perf_counter()
    for epoch in range(done + 1, settings.epochs + 1):
        start = time.perf_counter()
        record = {"epoch": epoch, "lr": learning_rate(epoch - 1, settings.epochs, settings.lr)}
        record |= train_epoch(parallel, data.train, settings, epoch)
        training_seconds = time.perf_counter() - start
        distributed.broadcast_buffers(model)
        distributed.broadcast_buffers(evaluated)
        measured, outputs = measure(evaluated, data, epoch)
        record |= measured
        if distributed.is_main():
            record["seconds"] = time.perf_counter() - start
            record["images_per_second"] = len(data.train[0]) / training_seconds
            for name, values in outputs.items():
                run_folder.append_outputs(run / name, values, epoch)
            record["sha256"] = {name: run_folder.digest(values) for name, values in outputs.items()}
            run_folder.append_history(run, record)
            checkpoint.save(run, trained, epoch, fixed)
            left = (time.perf_counter() - begin) / (epoch - done) * (settings.epochs - epoch)
            val = "" if record["val_accuracy"] is None else f"val {record['val_accuracy']:.1f}%, "
            more = {"val": val, "left": tqdm.format_interval(left), "epochs": settings.epochs}
            print(EPOCH_LINE.format(**more, **record), flush=True)


def measure(model: nn.Module, data: RunData, epoch: int) -> tuple[dict, dict[str, np.ndarray]]:
    """The network in eval mode after an epoch: its record, and outputs by the name of their file.

    Raises NonFiniteLossError.
    """
    splits = zip(run_folder.LOGITS, (data.test, data.sample, data.val), strict=True)
    outputs = {name: evaluate(model, split[0]) for name, split in splits if len(split[0])}
    if not all(values.isfinite().all() for values in outputs.values()):
        raise NonFiniteLossError(f"epoch {epoch}, after its last step: the outputs are not finite")
    predicted = {name: logits.argmax(dim=1) for name, logits in outputs.items()}
    of_sample = label_agreement(predicted[run_folder.SAMPLE_LOGITS], *data.sample[1:])
    logits, labels = outputs[run_folder.TEST_LOGITS], data.test[1]
    of_val = predicted.get(run_folder.VAL_LOGITS, data.val[1])
    record = {
        **{f"sample_{name}": value for name, value in of_sample.items()},
        "val_accuracy": percent(of_val == data.val[1]),
        "test_cross_entropy": float(cross_entropy(logits, labels)),
        "test_accuracy": percent(predicted[run_folder.TEST_LOGITS] == labels),
    }
    return record, {name: values.cpu().numpy() for name, values in outputs.items()}


def decide_resume(run: Path, settings: RunSettings) -> bool:
    """Whether to go on from a checkpoint. Raises UserError if the flags do not fit the folder."""
    path = run / run_folder.CHECKPOINT
    exists = any((run / name).exists() for name in ("config.json", "history.jsonl"))
    if exists and not (path.exists() or settings.overwrite):
        raise UserError(f"{path} does not exist: the run cannot go on; {run_folder.RESTART}")
    if exists and not (settings.resume or settings.overwrite):
        raise UserError(f"{run} exists; use --resume to go on, --overwrite to start again")
    if settings.resume is True and not path.exists():
        raise UserError(f"--resume: {path} does not exist; leave it out")
    return settings.resume is True or (exists and settings.resume == "auto")


def run_config(settings: RunSettings, dataset: DataSet, device_name: str) -> dict:
    """What config.json says: all that a reader of the run's numbers has to know."""
    return {
        "loss": settings.make_loss().title,
        "network": settings.network,
        "flags": settings.flags(),
        "data": {"name": settings.data.stem, "digest": dataset.sha256, **dataset.meta},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "device": device_name,
    }


def prepare_device(settings: RunSettings) -> tuple[RunSettings, torch.device, str]:
    """The settings with `amp` decided, the device, and its name for config.json.

    Raises UserError if the device, --amp or --compile is asked for and not available.
    """
    device = distributed.own_device(choose_device(settings.device))
    ranks = distributed.world_size()
    processes = f", {ranks} processes" if ranks > 1 else ""
    if device.type == "cuda":
        if settings.compile and ranks > 1:
            words = "leave it out, or train one run on each GPU without torchrun"
            raise UserError(f"--compile: not with several GPUs, whose BatchNorm is shared; {words}")
        torch.backends.cudnn.benchmark = True  # the shapes stay the same
        # Cards without the instruction compute it many times slower.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        amp = native if settings.amp is None else settings.amp
        return replace(settings, amp=amp), device, torch.cuda.get_device_name() + processes
    # A processor without this instruction takes many times longer in bfloat16 than in float32.
    if settings.amp and not torch.cpu._is_avx512_bf16_supported():
        raise UserError("--amp: this processor has no bfloat16 instruction; use --no-amp")
    name = f"CPU {platform.machine()}, {torch.get_num_threads()} threads{processes}"
    return replace(settings, amp=bool(settings.amp)), device, name


def compare_precisions(settings: RunSettings, dataset: DataSet, steps: int = 3) -> str:
    """Which precision trains faster on this CPU: bfloat16 is not on each that has it.

    The best of a few steps of each, after one rehearsal, with a network of its own.
    """
    settings = replace(settings, loss="cross-entropy", loss_flags={}, compile=False, ema_decay=0)
    images, labels = dataset.train_images, dataset.train_labels
    inputs = normalize(torch.from_numpy(images[: settings.batch_size]))
    labels = torch.from_numpy(labels[: settings.batch_size])
    seconds = {}
    with torch.random.fork_rng(devices=[]):
        for amp in (True, False):
            trained, times = make_trained(settings, dataset, torch.device("cpu")), []
            trained.model.train()
            for _ in range(1 + steps):
                start = time.perf_counter()
                train_step(trained, inputs, labels, torch.arange(len(labels)), 1, amp)
                times.append(time.perf_counter() - start)
            seconds[amp] = min(times[1:])
    times = f"a step takes {seconds[True]:.3f} s in bfloat16, {seconds[False]:.3f} s in float32"
    faster = "--amp" if seconds[True] < seconds[False] else "--no-amp"
    return f"--amp: {times}; {faster} is faster here"


def make_trained(settings: RunSettings, dataset: DataSet, device: torch.device) -> Trained:
    """What is trained, from the seed. Raises UserError if the images do not fit the network."""
    seed_epoch(settings.seed, 0)
    build = MODELS[settings.model]
    model = build(dataset.num_classes, dataset.image_size, settings.depth, settings.width)
    model = model.to(device, memory_format=torch.channels_last)
    if settings.compile:
        # On CUDA this mode also records CUDA graphs: the host launches a step at once.
        mode = "reduce-overhead" if device.type == "cuda" else "default"
        model.compile(mode=mode, dynamic=False)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=MOMENTUM,
        weight_decay=settings.weight_decay,
        nesterov=True,
        fused=True,
    )
    loss = settings.make_loss()
    loss.start(len(dataset.train_images), distributed.all_reduce_sum)
    average = None
    if settings.ema_decay:
        # Its first update copies the network; each later one moves the average,
        # w_avg <- decay w_avg + (1 - decay) w.
        move = get_ema_multi_avg_fn(settings.ema_decay)
        average = AveragedModel(model, multi_avg_fn=move, use_buffers=True)
    return Trained(model, optimizer, loss, average)


def send_data(dataset: DataSet, sample: np.ndarray, device: torch.device) -> RunData:
    """The data set on the device; sample: int64 (n,), indices of training images."""

    def send(*names: str) -> list[Tensor]:
        return [torch.from_numpy(getattr(dataset, name)).to(device) for name in names]

    train_set = send("train_images", "train_labels", "clean_labels")
    index = torch.from_numpy(sample).to(device)
    of_sample = [tensor[index] for tensor in train_set]
    val, test = send("val_images", "val_labels"), send("test_images", "test_labels")
    return RunData(train_set, of_sample, val, test)


def load_network(
    run: Path, dataset: DataSet, device: torch.device, initial: bool = False
) -> tuple[nn.Module, int]:
    """A run's network and the epoch that it is of: evaluated weights, or `initial` ones.

    Raises UserError if the run or its checkpoint cannot be used, or is of another data set.
    """
    flags = run_folder.read_config(run)["flags"]
    try:
        settings = RunSettings(**{name: flags[name] for name in START})
        model = make_trained(settings, dataset, device).model
    except (LookupError, TypeError) as error:
        raise UserError(f"{run}/config.json: not as train.py wrote it ({error!r})") from error
    if initial:
        return model, 0
    content = checkpoint.read(run)
    started = dict(content["settings"])
    if started.pop("data_sha256", None) != dataset.sha256:
        raise UserError(f"{run}: was not trained on this data set; name its data set with --data")
    others = [name for name, value in started.items() if flags.get(name) != value]
    if others:
        raise UserError(
            f"{run}/{run_folder.CHECKPOINT}: is of another run, by {', '.join(others)} in "
            f"config.json; {run_folder.AGAIN}"
        )
    checkpoint.load_evaluated(run, model, content)
    return model, content["epoch"]


def evaluate_run(run: Path, data: Path | None, device_name: str) -> str:
    """Test accuracy and loss of a run's checkpoint, computed again; a line for the user.

    data: the data set, if it has moved. Raises UserError if something cannot be used.
    """
    if distributed.world_size() > 1:
        raise UserError("--evaluate: one process evaluates; leave torchrun out")
    device = choose_device(device_name)
    dataset = read_dataset(data or Path(run_folder.read_config(run)["flags"]["data"]))
    model, epoch = load_network(run, dataset, device)
    logits = evaluate(model, torch.from_numpy(dataset.test_images).to(device)).cpu()
    if not logits.isfinite().all():
        raise NonFiniteLossError(f"{run}: epoch {epoch}: the outputs are not finite")
    labels = torch.from_numpy(dataset.test_labels)
    return (
        f"{run}: epoch {epoch}, test accuracy {percent(logits.argmax(dim=1) == labels):.2f}%, test "
        f"loss {float(cross_entropy(logits, labels)):.4f}"
    )
