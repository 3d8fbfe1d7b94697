"""Train a run from its start or its checkpoint, and measure it again."""

import hashlib
import platform
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from common import flags, run_folder
from common.errors import UserError
from common.logits import append_logits
from dataset.data_file import DataSet, read_dataset
from dataset.subsets import sample_indices
from losses import cross_entropy
from training import checkpoint, distributed
from training.epoch import NonFiniteLossError, learning_rate, train_epoch
from training.graphs import GraphedStep
from training.prepare import averaged, prepare, prepare_device
from training.settings import RunSettings
from training.statistics import evaluate, label_agreement, percent
from training.step import training_step

EPOCH_LINE = (
    "epoch {epoch}/{epochs}: train loss {train_objective:.4f}, accuracy {train_accuracy:.2f}%, on "
    "clean labels {train_clean_accuracy:.2f}%; test loss {test_cross_entropy:.4f}, accuracy "
    "{test_accuracy:.2f}%; {seconds:.1f} s"
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

    Raises UserError for a mistake of the user or a full disk, NonFiniteLossError.
    """
    device, settings, device_name = prepare_device(settings)
    dataset = read_dataset(settings.data)
    run, resume = settings.folder, decide_resume(settings)
    fixed = flags.fixed_on_resume(settings.flags()) | {"data_sha256": dataset.sha256}
    if settings.resume == "auto" and resume and is_complete(run, settings, fixed):
        return run
    sample = sample_indices(dataset, settings.sample_size)
    distributed.init(device)
    model, optimizer = prepare(settings, dataset, device)
    average = averaged(model, settings.ema_decay)
    try:
        with ExitStack() as stack:
            if distributed.is_main():
                run.mkdir(parents=True, exist_ok=True)
                stack.enter_context(run_folder.locked(run))
            distributed.barrier()
            done, previous = 0, None
            if resume:
                done, previous = checkpoint.load(run, model, optimizer, fixed, device, average)
            distributed.barrier()  # all ranks have read before rank 0 writes
            if distributed.is_main():
                if resume:
                    run_folder.truncate_run(run, done)
                else:
                    run_folder.remove_run(run)
                    checkpoint.save(run, model, optimizer, 0, fixed, None, average)
                config = run_config(settings, dataset, device_name)
                describe_run(run, config, sample)
                start = f"from epoch {done + 1}"
                print(f"{run}: {config['loss']} on {device_name}, {start}", flush=True)
            data = send_data(dataset, sample, device)
            train_epochs(run, settings, fixed, model, optimizer, average, data, done, previous)
    except BrokenPipeError:  # a reader of the output has left: no fault of the disk
        raise
    except OSError as error:
        raise UserError(
            f"{error.filename or run}: {error.strerror}; the last good checkpoint stays: make room "
            "there, then go on with --resume"
        ) from error
    return run


def train_epochs(
    run: Path,
    settings: RunSettings,
    fixed: dict,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: AveragedModel | None,
    data: RunData,
    done: int,
    previous: Tensor | None,
) -> None:
    """Train the epochs after `done`; after each one, measure it and write what is known.

    fixed: the settings that a resumed run has to share; average: the averaged weights, which are
    evaluated instead of the network if there are any; previous: what Loss.remember kept.
    """
    parallel_model = distributed.wrap_ddp(model, data.train[0].device)
    step = training_step(parallel_model, optimizer, settings)
    if settings.cuda_graphs:
        step = GraphedStep(step, settings.batch_size)
    for epoch in range(done + 1, settings.epochs + 1):
        start = time.perf_counter()
        statistics, predictions = train_epoch(
            parallel_model, optimizer, data.train, settings, epoch, previous, step, average
        )
        previous = settings.loss_function.remember(previous, predictions, epoch)
        training_seconds = time.perf_counter() - start
        evaluated = average.module if average else model
        distributed.broadcast_buffers(model)
        distributed.broadcast_buffers(evaluated)
        measured, outputs = measure(evaluated, data, epoch)
        if distributed.is_main():
            record = {
                "epoch": epoch,
                "lr": learning_rate(epoch - 1, settings.epochs, settings.lr),
                **statistics,
                **measured,
                "seconds": time.perf_counter() - start,
                "images_per_second": len(data.train[0]) / training_seconds,
            }
            write_epoch(run, record, outputs)
            checkpoint.save(run, model, optimizer, epoch, fixed, previous, average)
            print(EPOCH_LINE.format(epochs=settings.epochs, **record), flush=True)


def decide_resume(settings: RunSettings) -> bool:
    """Whether to go on from a checkpoint. Raises UserError if the flags do not fit the folder."""
    run = settings.folder
    exists, has_checkpoint = (run / "config.json").exists(), (run / checkpoint.NAME).exists()
    if settings.resume == "auto" and not exists:
        return False
    if exists and not (settings.resume or settings.overwrite):
        raise UserError(f"{run} exists; use --resume to go on, --overwrite to start again")
    if settings.resume and not has_checkpoint:
        remedy = "use --overwrite to start again" if exists else "leave it out"
        raise UserError(f"--resume: {run / checkpoint.NAME} does not exist; {remedy}")
    return bool(settings.resume)


def is_complete(run: Path, settings: RunSettings, fixed: dict) -> bool:
    """Whether the checkpoint is of the last epoch. Raises UserError if it has other settings."""
    content = checkpoint.read(run, torch.device("cpu"))
    checkpoint.check_settings(run, content, fixed)
    return content["epoch"] == settings.epochs


def describe_run(run: Path, config: dict, sample: np.ndarray) -> None:
    """Write what a new run is. config.json makes it exist, so its checkpoint comes before."""
    if not (run / "config.json").exists():
        run_folder.write_sample_indices(run, sample)
        run_folder.write_config(run, config)


def run_config(settings: RunSettings, dataset: DataSet, device_name: str) -> dict:
    """What config.json says: all that a reader of the run's numbers has to know."""
    return {
        "loss": settings.loss_function.title,
        "network": settings.title,
        "flags": settings.flags(),
        "data": {"name": settings.data.stem, "digest": dataset.sha256, **dataset.meta},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "device": device_name,
    }


def send_data(dataset: DataSet, sample: np.ndarray, device: torch.device) -> RunData:
    """The data set on the device; sample: int64 (n,), indices of training images."""

    def send(*names: str) -> list[Tensor]:
        return [torch.from_numpy(getattr(dataset, name)).to(device) for name in names]

    train_set = send("train_images", "train_labels", "clean_labels")
    index = torch.from_numpy(sample).to(device)
    return RunData(
        train=train_set,
        sample=[tensor[index] for tensor in train_set],
        val=send("val_images", "val_labels"),
        test=send("test_images", "test_labels"),
    )


def measure(model: nn.Module, data: RunData, epoch: int) -> tuple[dict, dict[str, np.ndarray]]:
    """The network in eval mode after an epoch: its record, and outputs by the name of their file.

    Raises NonFiniteLossError if an output is not finite.
    """
    (images, labels), (sample_images, *sample_labels) = data.test, data.sample
    logits, sample_logits = evaluate(model, images), evaluate(model, sample_images)
    outputs = {run_folder.TEST_LOGITS: logits, run_folder.SAMPLE_LOGITS: sample_logits}
    val_images, val_labels = data.val
    val_accuracy = None
    if len(val_images):
        outputs[run_folder.VAL_LOGITS] = val_logits = evaluate(model, val_images)
        val_accuracy = percent(val_logits.argmax(dim=1) == val_labels)
    if not all(values.isfinite().all() for values in outputs.values()):
        raise NonFiniteLossError(f"epoch {epoch}, after its last step: the outputs are not finite")
    sample_agreement = label_agreement(sample_logits.argmax(dim=1), *sample_labels)
    record = {
        **{f"sample_{name}": value for name, value in sample_agreement.items()},
        "val_accuracy": val_accuracy,
        "test_cross_entropy": float(cross_entropy(logits, labels)),
        "test_accuracy": percent(logits.argmax(dim=1) == labels),
    }
    return record, {name: values.cpu().numpy() for name, values in outputs.items()}


def write_epoch(run: Path, record: dict, outputs: dict[str, np.ndarray]) -> None:
    """Append an epoch to the files of outputs and, with their digests, to history.jsonl."""
    for name, values in outputs.items():
        append_logits(run / name, values)
    digests = {k: hashlib.sha256(v.tobytes()).hexdigest() for k, v in outputs.items()}
    run_folder.append_history(run, {**record, "sha256": digests})


def evaluate_run(run: Path, device: str) -> str:
    """Test accuracy and loss of a run's checkpoint, computed again; a line for the user.

    Raises UserError if the run, its checkpoint or its data set cannot be used, or in torchrun.
    """
    if distributed.world_size() > 1:
        raise UserError("--evaluate: one process measures a checkpoint; leave torchrun out")
    settings = RunSettings.from_flags(run_folder.read_config(run)["flags"])
    settings = replace(settings, device=device, amp=None, compile=False, cuda_graphs=False)
    torch_device, settings, _ = prepare_device(settings)
    dataset = read_dataset(settings.data)
    content = checkpoint.read(run, torch_device)
    if content["settings"]["data_sha256"] != dataset.sha256:
        raise UserError(f"--evaluate {run}: {settings.data} is not what it was trained on")
    model, _ = prepare(settings, dataset, torch_device)
    checkpoint.load_evaluated(run, model, content)
    logits = evaluate(model, torch.from_numpy(dataset.test_images).to(torch_device)).cpu()
    labels = torch.from_numpy(dataset.test_labels)
    accuracy, loss = percent(logits.argmax(dim=1) == labels), float(cross_entropy(logits, labels))
    return f"{run}: epoch {content['epoch']}, test accuracy {accuracy:.2f}%, test loss {loss:.4f}"
