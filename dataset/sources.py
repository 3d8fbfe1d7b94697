"""Where images come from: CIFAR-10, CIFAR-100, the built-in shapes, or a folder of images.

A source returns a Source; SOURCES lists those that have a name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from common.errors import UserError
from dataset.shapes import SHAPES, draw_shapes

CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"
CIFAR100_MD5 = "eb9058c3a382ffc7106e4002c42a8d85"
LARGEST = 64  # pixels per side, of a folder's images


@dataclass(frozen=True)
class Source:
    """Images uint8 (N, H, W, 3) and clean labels int64 (N,) of both splits, and class names."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: list[str]


def load_cifar10(settings) -> Source:
    """CIFAR-10: 60,000 images of 10 classes. Raises UserError as load_cifar does."""
    return load_cifar("CIFAR-10", "CIFAR10", CIFAR10_MD5, Path(settings.data_dir))


def load_cifar100(settings) -> Source:
    """CIFAR-100: 60,000 images of 100 (fine) classes. Raises UserError as load_cifar does."""
    return load_cifar("CIFAR-100", "CIFAR100", CIFAR100_MD5, Path(settings.data_dir))


def load_cifar(title: str, name: str, md5: str, folder: Path) -> Source:
    """CIFAR through torchvision, which downloads it if absent and checks the md5 of its files.

    name: of torchvision's data set; md5: of its archive in `folder`. Raises UserError if
    torchvision does not import or the archive is not available.
    """
    try:
        cifar = getattr(import_module("torchvision.datasets"), name)
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"--dataset {name.lower()} needs torchvision, which does not import here ({error}); "
            "install a matching pair of torch and torchvision, or use a folder of images"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    try:
        train, test = (cifar(str(folder), train=train, download=True) for train in (True, False))
    except (OSError, RuntimeError) as error:
        archive = f"{title.lower()}-python.tar.gz"
        raise UserError(
            f"{title} cannot be downloaded ({error}); put {archive} (md5 {md5}) into "
            f"{folder.resolve()} and run this again"
        ) from error
    return Source(
        train_images=train.data,
        train_labels=np.asarray(train.targets, np.int64),
        test_images=test.data,
        test_labels=np.asarray(test.targets, np.int64),
        class_names=list(train.classes),
    )


def load_shapes(settings) -> Source:
    """The built-in shapes, drawn from settings.seed: 2,000 to train on and 1,000 to test on.

    settings.train_size and settings.test_size change these numbers.
    """
    train_random, test_random = (np.random.default_rng([settings.seed, k]) for k in (3, 4))
    train_size, test_size = SIZES["shapes"]
    train = draw_shapes(settings.train_size or train_size, train_random)
    test = draw_shapes(settings.test_size or test_size, test_random)
    return Source(*train, *test, class_names=list(SHAPES))


# How many training and test images a source has by default.
SIZES = {"cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "shapes": (2000, 1000)}
SOURCES: dict[str, Callable[..., Source]] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "shapes": load_shapes,
}


def load_source(settings) -> Source:
    """The source that settings.dataset names: a key of SOURCES, or a folder.

    Raises UserError if it is neither, or cannot be read.
    """
    if settings.dataset in SOURCES:
        return SOURCES[settings.dataset](settings)
    folder = Path(settings.dataset)
    if not folder.is_dir():
        raise UserError(
            f"--dataset {settings.dataset}: neither {', '.join(SOURCES)} nor a folder; check "
            "the path"
        )
    return load_folder(folder)


def source_name(dataset: str) -> str:
    """The name of a source in SOURCES, or the last part of a folder's path."""
    return dataset if dataset in SOURCES else Path(dataset).resolve().name


def load_folder(folder: Path) -> Source:
    """The images of folder/train/<class>/* and folder/test/<class>/*, classes in sorted order.

    All images have one size of at most 64x64 pixels; gray images become RGB; hidden files are
    skipped. Raises UserError that names what does not fit.
    """
    names = {split: _class_folders(folder, split) for split in ("train", "test")}
    if names["train"] != names["test"] or len(names["train"]) < 2:
        raise UserError(
            f"--dataset {folder}: train/ and test/ need the same two or more classes, but have "
            f"{names['train'][:12]} and {names['test'][:12]}"
        )
    train = _read_split(folder, "train", names["train"])
    test = _read_split(folder, "test", names["train"], train[0].shape[1:])
    return Source(*train, *test, class_names=names["train"])


def _class_folders(folder: Path, split: str) -> list[str]:
    if not (folder / split).is_dir():
        raise UserError(
            f"--dataset {folder}: it has no folder {split}/; use {split}/<class>/<image>"
        )
    return sorted(path.name for path in (folder / split).glob("[!.]*") if path.is_dir())


def _read_split(
    folder: Path, split: str, names: list[str], shape: tuple[int, ...] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a split; all images have `shape`, or that of the first one."""
    images, labels = [], []
    for label, name in enumerate(names):
        paths = sorted((folder / split / name).glob("[!.]*"))
        if not paths:
            raise UserError(f"--dataset {folder}: {split}/{name} has no image")
        for path in paths:
            image = _read_image(path)
            shape = shape or image.shape
            if image.shape != shape:
                raise UserError(
                    f"{path}: {image.shape[1]}x{image.shape[0]} pixels, but the other images have "
                    f"{shape[1]}x{shape[0]}; all images need one size"
                )
            images.append(image)
        labels += [label] * len(paths)
    return np.stack(images), np.array(labels, np.int64)


def _read_image(path: Path) -> np.ndarray:
    """uint8 (H, W, 3) of an image file. Raises UserError if it is not an image or is too large."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if max(image.size) > LARGEST:
                raise UserError(f"{path}: {image.size[0]}x{image.size[1]} is over {LARGEST} pixels")
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{path}: not a readable image ({error}); remove it") from error
