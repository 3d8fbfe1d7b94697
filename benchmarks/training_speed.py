"""Time whole epochs against plain_training.py, all in one process, alternately: `make bench`.

    python benchmarks/training_speed.py                    all three networks
    python benchmarks/training_speed.py --network small_cnn --repeats 5 --images 50000
    python benchmarks/training_speed.py --network shake26-2x32d --variants plain cuda-graphs
    python benchmarks/training_speed.py --network start    time to the first step

A variant is the plain loop, or train.py with some of --amp, --compile and --cuda-graphs. Without
--amp or --no-amp (float32) it computes as train.py does by default: in bfloat16 on CUDA. A variant
that cannot run here is skipped, and the reason is printed.

An epoch is one pass over the training images and one over a fifth as many test images. The floor is
the number of floating-point operations of the network, counted by torch's FlopCounterMode over one
training step (a multiplication and an addition are two; convolutions and linear layers, forward and
backward), at the rate of a large matrix product measured between the epochs. Times are medians.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from measuring import (
    machine,
    matrix_rate,
    operations,
    peak_memory,
    random_dataset,
    reset_peak_memory,
)

from common.device import choose_device
from common.errors import UserError
from common.files import write_json
from dataset.data_file import DataSet, read_dataset, write_dataset
from training.epoch import train_epoch
from training.graphs import GraphedStep
from training.prepare import MOMENTUM, make_model, prepare, prepare_device
from training.settings import RunSettings
from training.statistics import evaluate
from training.step import training_step

FIRST_STEP = Path(__file__).with_name("first_step.py")
# Settings of a run, and how many training images make an epoch here on a CPU.
NETWORKS = {
    "shake26-2x32d": ({"batch_size": 128}, 768),
    "shake14-2x8d": ({"depth": 14, "width": 8, "batch_size": 64}, 4096),
    "small_cnn": ({"model": "small_cnn", "batch_size": 128}, 8192),
}
PLAIN = "plain"  # the loop of plain_training.py, in float32
VARIANTS = {
    "float32": {"amp": False},
    "amp": {"amp": True},
    "compile": {"compile": True},
    "cuda-graphs": {"cuda_graphs": True},
    "cuda-graphs+compile": {"cuda_graphs": True, "compile": True},
}


class ProjectLoop:
    """Epochs of this project, and the images per second of their training alone."""

    def __init__(self, settings: RunSettings, dataset: DataSet, device: torch.device):
        arrays = (dataset.train_images, dataset.train_labels, dataset.clean_labels)
        self.train_set = [torch.from_numpy(array).to(device) for array in arrays]
        self.test_images = torch.from_numpy(dataset.test_images).to(device)
        self.model, self.optimizer = prepare(settings, dataset, device)
        self.settings, self.training_rates = settings, []
        self.options = {}
        if settings.cuda_graphs:
            step = training_step(self.model, self.optimizer, settings)
            self.options = {"step": GraphedStep(step, settings.batch_size)}

    def __call__(self) -> None:
        start = time.perf_counter()
        train_epoch(
            self.model, self.optimizer, self.train_set, self.settings, epoch=1, **self.options
        )
        self.training_rates.append(len(self.train_set[0]) / (time.perf_counter() - start))
        evaluate(self.model, self.test_images).cpu()


def plain_loop(settings: RunSettings, dataset: DataSet, device: torch.device) -> Callable:
    """A function that does one epoch of plain_training.py."""
    from plain_training import plain_epoch, plain_model  # needs torchvision

    model = plain_model(make_model(settings, dataset)).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=MOMENTUM,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )
    train_set = dataset.train_images, dataset.train_labels
    test_set = dataset.test_images, dataset.test_labels
    return lambda: plain_epoch(model, optimizer, train_set, test_set, settings.batch_size, device)


def variant_settings(network: str, variant: str) -> RunSettings:
    """The settings of a variant of train.py. Raises UserError if it cannot run here."""
    changes = VARIANTS[variant]
    settings = RunSettings(epochs=1000, **NETWORKS[network][0], **changes)
    return prepare_device(settings)[1]


def time_loops(
    loops: dict[str, Callable], dtypes: dict[str, torch.dtype], repeats: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, float], dict[str, list[float]]]:
    """Seconds of each epoch, peak GB, and rates of a matrix product, by loop, run alternately.

    The first epoch of each is a rehearsal: only its memory counts.
    """
    times: dict[str, list[float]] = {name: [] for name in loops}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    memory = dict.fromkeys(loops, 0.0)
    for repeat in range(repeats + 1):
        for name, run_epoch in loops.items():
            reset_peak_memory(device)
            start = time.perf_counter()
            run_epoch()
            took = time.perf_counter() - start
            memory[name] = max(memory[name], peak_memory(device))
            if repeat:
                times[name].append(took)
                rates[name].append(matrix_rate(device, dtypes[name]))
    return times, memory, rates


def compare(network: str, variants: Sequence[str], images: int | None, repeats: int) -> list[dict]:
    """Time the loops of a network; prints and returns one row per variant.

    A variant that cannot run here has a row with the reason in `skipped`.
    """
    device = choose_device("auto")
    count = images or (50_000 if device.type == "cuda" else NETWORKS[network][1])
    dataset = random_dataset(count, count // 5)
    base = RunSettings(**NETWORKS[network][0])
    loops: dict[str, Callable] = {}
    dtypes, rows = {}, []
    for variant in variants:
        dtypes[variant] = torch.float32
        if variant == PLAIN:
            loops[variant] = plain_loop(base, dataset, device)
            continue
        try:
            settings = variant_settings(network, variant)
        except UserError as error:
            rows.append({"variant": variant, "skipped": str(error)})
            continue
        loops[variant] = ProjectLoop(settings, dataset, device)
        dtypes[variant] = torch.bfloat16 if settings.amp else torch.float32
    times, memory, rates = time_loops(loops, dtypes, repeats, device)
    model = make_model(base, dataset).to(device)
    step = operations(model, torch.from_numpy(dataset.train_images[: base.batch_size]).to(device))
    for variant, loop in loops.items():
        row = {"variant": variant, "images": count, "peak_gb": memory[variant]}
        row["images_per_second"] = count / float(np.median(times[variant]))
        if PLAIN in loops:
            row["times_plain"] = float(np.median(times[PLAIN]) / np.median(times[variant]))
        if variant != PLAIN:
            row["training_images_per_second"] = float(np.median(loop.training_rates[1:]))
            row["operations_per_image"] = step
            row["matrix_product_per_second"] = float(np.median(rates[variant]))
        rows.append(row)
    rows.sort(key=lambda row: variants.index(row["variant"]))
    print(*(f"{network} {describe(row)}" for row in rows), sep="\n", flush=True)
    return rows


def describe(row: dict) -> str:
    """A variant's row for a reader."""
    if "skipped" in row:
        return f"{row['variant']}: skipped: {row['skipped']}"
    text = f"{row['variant']}: {row['images_per_second']:.0f} images/s"
    if row["variant"] == PLAIN:
        return f"{text}, peak {row['peak_gb']:.2f} GB"
    if "times_plain" in row:
        text += f", {row['times_plain']:.2f} times the plain loop"
    training, step = row["training_images_per_second"], row["operations_per_image"]
    product = row["matrix_product_per_second"]
    return (
        f"{text}; peak {row['peak_gb']:.2f} GB; training alone {training:.0f} images/s of "
        f"{step / 1e6:.0f} MFLOP each: {training * step / product:.0%} of a matrix product's "
        f"{product / 1e9:.0f} GFLOP/s"
    )


def start_times() -> None:
    """Print how long a data set of CIFAR-10's size takes to read, and a run to its first step."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.npz"
        write_dataset(path, random_dataset(50_000, 10_000))
        start = time.perf_counter()
        read_dataset(path).sha256  # noqa: B018
        print(f"reading 60,000 images: {time.perf_counter() - start:.2f} s", flush=True)
        command = [sys.executable, str(FIRST_STEP), "--data", str(path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(done.stdout.splitlines()[-1])


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--network", nargs="+", choices=(*NETWORKS, "start"), default=[*NETWORKS, "start"])
    add("--variants", nargs="+", choices=(PLAIN, *VARIANTS), default=[PLAIN, "float32", "amp"])
    add("--images", type=int, help="training images per epoch")
    add("--repeats", type=int, default=3)
    add("--json", type=Path, help="also write the numbers to this file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    print(*(f"{name}: {value}" for name, value in machine().items()), sep=", ", flush=True)
    networks = {}
    for name in args.network:
        if name == "start":
            start_times()
            continue
        networks[name] = compare(name, args.variants, args.images, args.repeats)
        if args.json:
            write_json(args.json, {**machine(), "networks": networks})


if __name__ == "__main__":
    main()
