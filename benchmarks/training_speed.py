"""Time whole epochs of train.py against training as it is usually written: `make bench`.

    python benchmarks/training_speed.py                           all networks
    python benchmarks/training_speed.py --network small_cnn --images 50000 --repeats 5
    python benchmarks/training_speed.py --device cuda --variants amp amp+compile

The plain loop takes images one by one through torchvision's transforms in a DataLoader with two
workers, computes in float32 and channels first, draws the shake coefficients block by block on the
CPU, and reads the loss from the device at every step. It starts from the same parameters and has
the same learning rates and data order.

An epoch is one pass over the training images and one over a fifth as many test images. All loops
run in one process, alternately; times are medians, after one rehearsal. The last numbers are for
training alone: its rate, and its arithmetic as a share of that of a large matrix product in the
same precision.
"""

import math
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parent.parent))

from measuring import machine, product_rate, seconds

from common.command_line import DEVICES, Parser, UserError, choose_device, integer, run_script
from dataset.batches import MEAN, PADDING, STD, normalize
from dataset.data_file import DataSet
from models.shake_resnet import Block, ShakeResNet
from training.epoch import evaluate, seed_epoch, train_epoch
from training.run import MOMENTUM, make_trained, prepare_device, send_data
from training.settings import RunSettings

# Settings of a run, and how many training images make an epoch here on a CPU.
NETWORKS = {
    "shake26-2x32d": ({"batch_size": 128}, 768),
    "shake14-2x8d": ({"depth": 14, "width": 8, "batch_size": 64}, 4096),
    "small_cnn": ({"model": "small_cnn", "batch_size": 128}, 8192),
}
VARIANTS = {
    "float32": {"amp": False},
    "amp": {"amp": True},
    "compile": {"amp": False, "compile": True},
    "amp+compile": {"amp": True, "compile": True},
}
CUDA_IMAGES = 50_000  # an epoch there, by default
EPOCHS = 1000  # of the schedule of learning rates: more than are run


class PlainBlock(Block):
    """The same block with coefficients of its own, and the shake without a Function."""

    def forward(self, x):
        x1, x2 = self.branch1(x), self.branch2(x)
        if not self.training:
            return self.skip(x) + 0.5 * x1 + 0.5 * x2
        alpha = torch.rand(len(x), 1, 1, 1).to(x.device)
        beta = torch.rand(len(x), 1, 1, 1).to(x.device)
        mixed = beta * x1 + (1 - beta) * x2
        return self.skip(x) + mixed + ((alpha - beta) * (x1 - x2)).detach()


class PlainShakeResNet(ShakeResNet):
    """The same network, whose blocks draw their coefficients themselves."""

    def forward(self, images):
        return self.linear(F.relu(self.blocks(self.stem(images))).mean(dim=(2, 3)))


PLAIN = {Block: PlainBlock, ShakeResNet: PlainShakeResNet}


class Images(Dataset):
    """Images uint8 (N, H, W, 3) and labels (N,), one image at a time."""

    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, k):
        return self.transform(self.images[k]), int(self.labels[k])


class PlainLoop:
    """Epochs of training as it is usually written, with cross-entropy."""

    def __init__(self, settings: RunSettings, dataset: DataSet, device: torch.device):
        self.settings, self.device, self.epoch = settings, device, 0
        model = make_trained(settings, dataset, torch.device("cpu")).model
        for module in model.modules():
            module.__class__ = PLAIN.get(type(module), type(module))
        self.model = model.to(device, memory_format=torch.contiguous_format)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=settings.lr,
            momentum=MOMENTUM,
            weight_decay=settings.weight_decay,
            nesterov=True,
        )
        steps = math.ceil(len(dataset.train_images) / settings.batch_size) * settings.epochs
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        size = dataset.image_size
        to_tensor = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        augment = [transforms.RandomCrop(size, PADDING), transforms.RandomHorizontalFlip()]
        augment = augment if settings.augment else []
        train = transforms.Compose([transforms.ToPILImage(), *augment, *to_tensor])
        test = transforms.Compose([transforms.ToPILImage(), *to_tensor])
        self.train_set = Images(dataset.train_images, dataset.train_labels, train)
        self.test_set = Images(dataset.test_images, dataset.test_labels, test)

    def batches(self, images: Images, sampler: RandomSampler | None = None) -> DataLoader:
        return DataLoader(
            images,
            self.settings.batch_size,
            sampler=sampler,
            num_workers=2,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it draws from the one of the shake coefficients
        )

    def __call__(self) -> tuple[float, float]:
        """Train and test one epoch; returns mean training loss and test accuracy in percent."""
        self.epoch += 1
        order = RandomSampler(self.train_set, generator=seed_epoch(self.settings.seed, self.epoch))
        total, correct = 0.0, 0
        self.model.train()
        for images, labels in self.batches(self.train_set, order):
            images, labels = images.to(self.device), labels.to(self.device)
            loss = F.cross_entropy(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.item() * len(images)
        self.model.eval()
        with torch.no_grad():
            for images, labels in self.batches(self.test_set):
                found = self.model(images.to(self.device)).argmax(1)
                correct += (found == labels.to(self.device)).sum().item()
        return total / len(self.train_set), 100 * correct / len(self.test_set)


class ProjectLoop:
    """Epochs of this project, and the images per second of their training alone."""

    def __init__(self, settings: RunSettings, dataset: DataSet, device: torch.device):
        self.settings, self.epoch, self.rates = settings, 0, []
        self.trained = make_trained(settings, dataset, device)
        self.data = send_data(dataset, np.arange(0), device)

    def __call__(self) -> tuple[float, float]:
        """Train and test one epoch; returns mean training loss and test accuracy in percent."""
        self.epoch += 1
        start = time.perf_counter()
        record = train_epoch(self.trained, self.data.train, self.settings, self.epoch)
        self.rates.append(len(self.data.train[0]) / (time.perf_counter() - start))
        images, labels = self.data.test
        correct = (evaluate(self.trained.model, images).argmax(1) == labels).sum().item()
        return record["train_objective"], 100 * correct / len(labels)


def random_dataset(count: int, tests: int, size: int = 32) -> DataSet:
    """Training and test images of random pixels and labels, none held out."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count + tests, size, size, 3), np.uint8)
    labels = random.integers(0, 10, count + tests)
    return DataSet(
        train_images=images[:count],
        train_labels=labels[:count],
        clean_labels=labels[:count],
        val_images=images[:0],
        val_labels=labels[:0],
        test_images=images[count:],
        test_labels=labels[count:],
        class_names=[f"class {k}" for k in range(10)],
        meta={},
    )


def operations(settings: RunSettings, dataset: DataSet) -> float:
    """Floating-point operations per image of one training step."""
    model = make_trained(settings, dataset, torch.device("cpu")).model
    images = torch.from_numpy(dataset.train_images[:2])
    with FlopCounterMode(display=False) as counter:
        model(normalize(images)).sum().backward()
    return counter.get_total_flops() / len(images)


def time_loops(loops: dict[str, Callable], repeats: int, device) -> dict[str, float]:
    """Median seconds of an epoch by loop, run alternately; the first of each is a rehearsal."""
    times = {name: [] for name in loops}
    for _ in range(repeats + 1):
        for name, run_epoch in loops.items():
            times[name].append(seconds(run_epoch, device)[0])
    return {name: median(measured[1:]) for name, measured in times.items()}


def compare(network: str, variants: Sequence[str], images: int | None, repeats: int, device):
    """Time the loops of a network, and print a line for each. One that cannot run is named."""
    flags, on_cpu = NETWORKS[network]
    count = images or (CUDA_IMAGES if device.type == "cuda" else on_cpu)
    dataset = random_dataset(count, max(1, count // 5))
    settings = RunSettings(epochs=EPOCHS, device=device.type, amp=False, **flags)
    loops, dtypes = {"plain": PlainLoop(settings, dataset, device)}, {}
    for variant in variants:
        try:
            own, _, _ = prepare_device(replace(settings, **VARIANTS[variant]))
        except UserError as error:
            print(f"{network} {variant}: skipped: {error}")
            continue
        loops[variant] = ProjectLoop(own, dataset, device)
        dtypes[variant] = torch.bfloat16 if own.amp else torch.float32
    times = time_loops(loops, repeats, device)
    work, size = operations(settings, dataset), 8192 if device.type == "cuda" else 2048
    print(f"{network} plain: {count / times['plain']:.0f} images/s", flush=True)
    for variant, dtype in dtypes.items():
        alone, rate = (
            median(loops[variant].rates[1:]),
            product_rate(size, size, size, device, dtype),
        )
        print(
            f"{network} {variant}: {count / times[variant]:.0f} images/s, "
            f"{times['plain'] / times[variant]:.2f} times the plain loop; training alone "
            f"{alone:.0f} images/s, {alone * work / rate:.0%} of {rate / 1e9:.0f} GFLOP/s",
            flush=True,
        )


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--device", default="auto", choices=DEVICES)
    add("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--variants", nargs="+", choices=VARIANTS, default=["float32", "amp"])
    add("--images", type=integer(1), help="training images of an epoch")
    add("--repeats", type=integer(1), default=3)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    device = choose_device(args.device)
    print(machine(device), flush=True)
    for network in args.network:
        compare(network, args.variants, args.images, args.repeats, device)


if __name__ == "__main__":
    sys.exit(run_script(Path(__file__).name, main))
