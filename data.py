"""The data-set file, and the subsets and batches made from it.

A data set is one `.npz` file, complete in itself:

    train_images   uint8 (N, H, W, 3)
    train_labels   int64 (N,)    the labels as given, some of them wrong
    clean_labels   int64 (N,)    the true labels of the same images
    val_images     uint8 (V, H, W, 3)    held out of training, V = 0 for none
    val_labels     int64 (V,)    their labels as given, as wrong as those of training
    test_images    uint8 (M, H, W, 3)
    test_labels    int64 (M,)    always true
    class_names    str (C,)
    meta           one JSON text: source, noise, rate asked and found, seed, sha256, format version

It is written without pickle and read with `allow_pickle=False`.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FORMAT_VERSION = 2
# Of each part, the images and the labels that belong to them.
PARTS = {
    "train_images": ("train_labels", "clean_labels"),
    "val_images": ("val_labels",),
    "test_images": ("test_labels",),
}
ARRAYS = tuple(name for images, labels in PARTS.items() for name in (images, *labels))

# Not the true pixel deviations of CIFAR-10 (those are about 0.247): the original's constants are
# kept, so that the smoothing variance delta of frequency.py keeps its meaning.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)
PROBE_SIZE = 10_000
PADDING = 4  # pixels on each side before the random crop


class DataError(ValueError):
    """Something is wrong with a data source or a data-set file; one line for the user."""


@dataclass(frozen=True)
class DataSet:
    """The content of a data-set file; shapes and types as in the module's docstring."""

    train_images: np.ndarray
    train_labels: np.ndarray
    clean_labels: np.ndarray
    val_images: np.ndarray
    val_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: list[str]
    meta: dict

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def sha256(self) -> str:
        """One digest for images and labels together: two data sets are the same if it is."""
        return hashlib.sha256("".join(array_digests(self).values()).encode()).hexdigest()


def array_digests(dataset: DataSet) -> dict[str, str]:
    """sha256 of the bytes of each array, by its name."""
    return {
        name: hashlib.sha256(np.ascontiguousarray(getattr(dataset, name)).data).hexdigest()
        for name in ARRAYS
    }


def write_dataset(path: Path, dataset: DataSet) -> None:
    """Write `dataset` to `path`, whole or not at all; sizes, digests and version go into meta."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = {f"{name.split('_')[0]}_size": len(getattr(dataset, name)) for name in PARTS}
    digests = {"format": FORMAT_VERSION, "sha256": array_digests(dataset)}
    meta = {**dataset.meta, **sizes, **digests}
    arrays = {name: getattr(dataset, name) for name in ARRAYS}
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez(
                file,
                **arrays,
                class_names=np.array(dataset.class_names, dtype=np.str_),
                meta=np.array(json.dumps(meta, allow_nan=False)),
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_dataset(path: Path) -> DataSet:
    """Read and check a data-set file. Raises DataError with one line that names file and remedy."""
    path, remedy = Path(path), "make it with generate.py"
    if not path.is_file():
        raise DataError(f"{path}: no such file; {remedy}, or name another with --data")
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in (*ARRAYS, "class_names", "meta")}
        meta = json.loads(str(content.pop("meta")))
        class_names = [str(name) for name in content.pop("class_names")]
        dataset = DataSet(**content, class_names=class_names, meta=meta)
        _check(dataset)
    except KeyError as error:
        raise DataError(f"{path}: not a data set, {error.args[0]}; {remedy}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {remedy} again") from None
    except (ValueError, TypeError, AttributeError) as error:
        if "pickle" in str(error):
            error = "it holds pickled objects, which are never read"
        raise DataError(f"{path}: not a data set: {error}; {remedy}") from None
    return dataset


def _check(dataset: DataSet) -> None:
    """Raise ValueError unless the arrays fit each other and are what meta says they are."""
    if dataset.meta.get("format") != FORMAT_VERSION:
        raise ValueError(f"format {dataset.meta.get('format')}, not {FORMAT_VERSION}")
    for part, names in PARTS.items():
        images = getattr(dataset, part)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"{part} is {images.dtype} {images.shape}")
        if images.shape[1:] != dataset.train_images.shape[1:]:
            raise ValueError(f"{part} differ in size from train_images")
        if not len(images) and part != "val_images":
            raise ValueError(f"{part} is empty")
        for name in names:
            labels = getattr(dataset, name)
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                raise ValueError(f"{name} is {labels.dtype} {labels.shape}")
            if not np.isin(labels, np.arange(dataset.num_classes)).all():
                raise ValueError(f"{name} has labels outside 0..{dataset.num_classes - 1}")
    changed = [n for n, d in array_digests(dataset).items() if d != dataset.meta["sha256"].get(n)]
    if changed:
        raise ValueError(f"{changed[0]} does not match its sha256")


def balanced_subset(labels: np.ndarray, size: int, num_classes: int, seed: int) -> np.ndarray:
    """Sorted indices of `size` random images, the classes' counts differing by at most one.

    Raises DataError if a class has too few images.
    """
    chosen = []
    for label in range(num_classes):
        wanted = size // num_classes + (label < size % num_classes)
        members = np.flatnonzero(labels == label)
        if len(members) < wanted:
            raise DataError(
                f"{size} of {len(labels)} images asked, {wanted} of class {label}, which has only "
                f"{len(members)}; lower --train-size, --val-size, --test-size or --probe"
            )
        chosen.append(np.random.default_rng([seed, 2, label]).permutation(members)[:wanted])
    return np.sort(np.concatenate(chosen))


def probe_indices(dataset: DataSet, size: int | None) -> np.ndarray:
    """Sorted indices of the training images looked at in eval mode, class-balanced.

    The same for every run on a data set. Raises DataError if there are not as many.
    """
    if size is None and len(dataset.train_images) <= PROBE_SIZE:
        return np.arange(len(dataset.train_images))
    return balanced_subset(dataset.clean_labels, size or PROBE_SIZE, dataset.num_classes, seed=0)


def normalize(images: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), channels last in memory, in normalised pixels."""
    mean, std = _pixel_statistics(images.device)
    return images.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


@lru_cache
def _pixel_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """MEAN and STD as (3, 1, 1), sent to the device once: each sending would wait for it."""
    mean, std = (torch.tensor(c, device=device).view(3, 1, 1) for c in (MEAN, STD))
    return mean, std


def training_batches(
    images: Tensor,
    batch_size: int,
    augment: bool,
    generator: torch.Generator,
    part: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order, every image once, on the device that holds the images.

    images: uint8 (N, H, W, 3); generator: on the same device, the only source of randomness.
    Yields the normalised batch (B, 3, H, W) float32 and the images' indices (B,) int64; the last
    batch may be smaller. With `part` = (rank, count) it is every count-th image of each batch, from
    the rank-th on, or the batch's first if there is none. With `augment`, each image is padded with
    4 black pixels, cropped at a place of its own and mirrored with probability 1/2.
    """
    count, height, width, _ = images.shape
    device = images.device
    order = torch.randperm(count, device=device, generator=generator)
    # The draws of a whole epoch come before its first batch: three calls instead of three a step.
    shape = (2, count)
    offset = torch.randint(2 * PADDING + 1, shape, device=device, generator=generator)
    mirrored = torch.rand(count, device=device, generator=generator) < 0.5
    rank, parts = part
    batches = (
        batch[rank::parts] if rank < len(batch) else batch[:1] for batch in order.split(batch_size)
    )
    if not augment:
        for index in batches:
            yield normalize(images[index]), index
        return
    padded = F.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))
    row, column = torch.arange(height, device=device), torch.arange(width, device=device)
    for index in batches:
        # Selection, crop and mirror image are one gather.
        rows = offset[0, index, None] + row  # (B, H)
        columns = torch.where(mirrored[index, None], width - 1 - column, column)
        columns = columns + offset[1, index, None]  # (B, W)
        crops = padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        yield normalize(crops), index  # crops: (B, H, W, 3)
