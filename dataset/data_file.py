"""The data-set file.

A data set is one self-contained `.npz` file:

    train_images   uint8 (N, H, W, 3)
    train_labels   int64 (N,)    the noisy labels, which training uses
    clean_labels   int64 (N,)    the clean labels of the same images
    val_images     uint8 (V, H, W, 3)    held out of training, V = 0 for none
    val_labels     int64 (V,)    their noisy labels, at the same noise rate
    test_images    uint8 (M, H, W, 3)
    test_labels    int64 (M,)    always clean
    class_names    str (C,)
    train_indices, val_indices, test_indices    int64, places of the images in their source
    train_files, val_files, test_files          str, their files, if the source is a folder
    meta           one JSON text: source, noise, requested and actual rate, transition counts, seed,
                   sizes, sha256 of each array, of the label file and of the source, format version

Files made earlier lack the indices, the files and the last two digests.

It is written without pickle and read with `allow_pickle=False`.
"""

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from common.command_line import UserError
from common.files import atomic_write

FORMAT_VERSION = 2
# The labels that belong to the images of each split.
SPLITS = {
    "train_images": ("train_labels", "clean_labels"),
    "val_images": ("val_labels",),
    "test_images": ("test_labels",),
}
LABELS = tuple(name for labels in SPLITS.values() for name in labels)
ARRAYS = tuple(name for images, labels in SPLITS.items() for name in (images, *labels))
# Which images of the source these are; not part of the data set's digest.
CHOSEN = tuple(
    f"{split}_{what}" for what in ("indices", "files") for split in ("train", "val", "test")
)
REMEDY = "name another, or move it away and make it with generate.py"


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
    chosen: dict[str, np.ndarray] = field(default_factory=dict)  # arrays named in CHOSEN, if known

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.train_images.shape[1:3]

    @cached_property
    def sha256(self) -> str:
        """One digest of all images and labels: equal digests mean equal data sets."""
        return combined_digest(array_digests(self))


def combined_digest(digests: dict[str, str]) -> str:
    """One digest of the arrays' digests, in their order."""
    return hashlib.sha256("".join(digests.values()).encode()).hexdigest()


def array_digests(dataset: DataSet) -> dict[str, str]:
    """The sha256 of the bytes of each array, by the array's name."""
    return {name: array_digest(getattr(dataset, name)) for name in ARRAYS}


def array_digest(array: np.ndarray) -> str:
    """The sha256 of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def write_dataset(path: Path, dataset: DataSet) -> None:
    """Write `dataset` to `path`, whole or not at all; sizes, digests and version go into meta.

    Raises OSError if the file cannot be written.
    """
    sizes = {f"{images.split('_')[0]}_size": len(getattr(dataset, images)) for images in SPLITS}
    digests = {"format": FORMAT_VERSION, "sha256": array_digests(dataset)}
    meta = {**dataset.meta, **sizes, **digests}
    with atomic_write(path) as file:
        np.savez(
            file,
            **{name: getattr(dataset, name) for name in ARRAYS},
            **dataset.chosen,
            class_names=np.array(dataset.class_names, dtype=np.str_),
            meta=np.array(json.dumps(meta, allow_nan=False)),
        )


def read_meta(path: Path) -> dict:
    """The `meta` of a data-set file, without its images. Raises UserError if it is not one."""
    return _read_members(path, ())["meta"]


def file_digest(path: Path) -> str:
    """DataSet.sha256 of a data-set file, without its images. Raises UserError if it is not one."""
    try:
        return combined_digest(read_meta(path)["sha256"])
    except (LookupError, AttributeError, TypeError):
        raise UserError(f"{path}: not a data set: meta has no digests; {REMEDY}") from None


def read_dataset(path: Path) -> DataSet:
    """Read and check a data-set file. Raises UserError that names the file and the remedy."""
    content = _read_members(path, (*ARRAYS, *CHOSEN, "class_names"))
    chosen = {name: content.pop(name) for name in CHOSEN if name in content}
    try:
        class_names = [str(name) for name in content.pop("class_names")]
        dataset = DataSet(**content, class_names=class_names, chosen=chosen)
        _check(dataset)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a data set: {error}; {REMEDY}") from error
    return dataset


def fits_memory(size: float) -> bool:
    """Whether `size` bytes are no more than this machine's memory, or that is unknown."""
    try:
        return size <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return True


def _read_members(path: Path, names: tuple[str, ...]) -> dict:
    """The arrays `names` of a file, and `meta`; those of CHOSEN only if it has them."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; make it with generate.py, or use another --data")
    try:
        with np.load(path, allow_pickle=False) as file:
            if not fits_memory(sum(member.file_size for member in file.zip.infolist())):
                raise ValueError("its content is larger than the memory of this machine")
            found = {name: file[name] for name in names if name in file or name not in CHOSEN}
            found["meta"] = json.loads(str(file["meta"]))
            if not isinstance(found["meta"], dict):
                raise ValueError("meta is not a JSON object")
            return found
    except Exception as error:  # a damaged file can make numpy fail in any way
        reason = error
        if not zipfile.is_zipfile(path):
            reason = "not .npz, or cut short"
        elif "pickle" in str(error):
            reason = "it holds pickled objects, which are never read"
        raise UserError(f"{path}: not a data set: {reason}; {REMEDY}") from error


def _check(dataset: DataSet) -> None:
    """Raise ValueError unless the arrays fit each other and match meta."""
    if dataset.meta.get("format") != FORMAT_VERSION:
        raise ValueError(f"format {dataset.meta.get('format')}, not {FORMAT_VERSION}")
    for split, names in SPLITS.items():
        images = getattr(dataset, split)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"{split} is {images.dtype} {images.shape}")
        if images.shape[1:] != dataset.train_images.shape[1:]:
            raise ValueError(f"{split} differ in size from train_images")
        if not len(images) and split != "val_images":
            raise ValueError(f"{split} is empty")
        for name in names:
            labels = getattr(dataset, name)
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                raise ValueError(f"{name} is {labels.dtype} {labels.shape}")
            if not np.isin(labels, np.arange(dataset.num_classes)).all():
                raise ValueError(f"{name} has labels outside 0..{dataset.num_classes - 1}")
    for name, values in dataset.chosen.items():
        images = getattr(dataset, f"{name.split('_')[0]}_images")
        if values.shape != images.shape[:1] or values.dtype.kind != "iU"["files" in name]:
            raise ValueError(f"{name} is {values.dtype} {values.shape}")
    expected = dataset.meta.get("sha256", {})
    for name, digest in array_digests(dataset).items():
        if digest != expected.get(name):
            raise ValueError(f"{name} does not match its sha256")
