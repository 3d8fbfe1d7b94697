"""Make a data set: choose images, make or read noisy labels, and describe the result."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.command_line import UserError
from dataset.data_file import DataSet, file_digest, read_meta
from dataset.labels import read_labels
from dataset.noise import NOISES, flip_labels, match_transitions, transition_counts
from dataset.sources import Source, load_source, source_digest, source_name, source_sizes

SAMPLE_SIZE = 10_000  # training images that are evaluated after each epoch, by default
OUT = "name another file with --out, or move this one away"


@dataclass(frozen=True)
class DataSettings:
    """What a data set is made of: generate.py's flags, with their defaults."""

    dataset: str = "cifar10"  # a name of sources.SOURCES, or a folder
    noise: str = "pair"  # a name of NOISES, or a file of labels
    labels: str | None = None  # which labels of the file
    matched: bool = False  # only the file's class transitions, independent of the image
    accept_chance_labels: bool = False  # accept a file that agrees only by chance
    rate: float | None = 0.4  # share of the labels that are flipped; None: the file's
    seed: int = 0
    train_size: int | None = None  # images to choose, in equal classes; None: all
    val_size: int = 0  # how many of these are held out
    test_size: int | None = None
    data_dir: str = "data"
    image_size: int | None = None  # crop and resize a folder's images to this many pixels

    @property
    def noise_name(self) -> str:
        """The noise model, or the label file's name, the labels chosen in it, "matched"."""
        if self.noise in NOISES:
            return self.noise
        words = [Path(self.noise).stem, self.labels, "matched" if self.matched else None]
        name = "-".join(word for word in words if word)
        return f"{name}-file" if name in NOISES else name

    @property
    def default_path(self) -> Path:
        """data/<dataset>-<noise><percent>.npz."""
        percent = "" if self.rate is None else f"{100 * self.rate:g}"
        noise = self.noise_name.replace("/", "_")  # of a column's name
        return Path(f"data/{source_name(self.dataset)}-{noise}{percent}.npz")


@dataclass(frozen=True)
class Made:
    """A data set, its noisy labels for other projects, and what was read from a label file."""

    dataset: DataSet
    export: list | dict
    read: list[str]


def make_dataset(settings: DataSettings) -> Made:
    """The data set that the settings describe. Raises UserError that says what does not fit."""
    recorded = _digests(settings)  # before the files are read: a change meanwhile shows later
    source = load_source(settings)
    classes, clean = len(source.class_names), source.train_labels
    train, val, test = choose_images(source, settings)
    (train_labels, val_labels), read = make_labels(source, (train, val), settings)
    meta = {
        "source": source_name(settings.dataset),
        "noise": settings.noise_name,
        "rate_asked": settings.rate,
        "rate_found": float(np.mean(train_labels != clean[train])),
        "val_rate_found": float(np.mean(val_labels != clean[val])) if len(val) else None,
        "transitions": transition_counts(clean[train], train_labels, classes).tolist(),
        "seed": settings.seed,
        "image_size": settings.image_size,
        **recorded,
    }
    chosen = {"train_indices": train, "val_indices": val, "test_indices": test}
    if source.is_folder:
        files = {"train": source.train_files, "val": source.train_files, "test": source.test_files}
        for split, names in files.items():
            chosen[f"{split}_files"] = np.array(names, np.str_)[chosen[f"{split}_indices"]]
    dataset = DataSet(
        train_images=source.train_images[train],
        train_labels=train_labels,
        clean_labels=clean[train],
        val_images=source.train_images[val],
        val_labels=val_labels,
        test_images=source.test_images[test],
        test_labels=source.test_labels[test],
        class_names=source.class_names,
        meta=meta,
        chosen=chosen,
    )
    return Made(dataset, _export(dataset, len(clean)), read)


def _digests(settings: DataSettings) -> dict[str, str | None]:
    """The digests of the label file and of the source, None where there is none."""
    labels = None if settings.noise in NOISES else hashlib.sha256()
    if labels:
        with open(settings.noise, "rb") as file:
            while part := file.read(2**20):
                labels.update(part)
    source = source_digest(settings.dataset)
    return {"labels_sha256": labels and labels.hexdigest(), "source_sha256": source}


def _export(dataset: DataSet, count: int) -> list | dict:
    """The noisy labels of the training and held-out images, in the source's order, as for JSON.

    A list, if these are all `count` images of a source without files; otherwise `label` beside
    `file` or `index_from_0`.
    """
    indices = np.concatenate((dataset.chosen["train_indices"], dataset.chosen["val_indices"]))
    labels = np.concatenate((dataset.train_labels, dataset.val_labels))
    order = np.argsort(indices)
    if "train_files" in dataset.chosen:
        files = np.concatenate((dataset.chosen["train_files"], dataset.chosen["val_files"]))
        return {"file": files[order].tolist(), "label": labels[order].tolist()}
    if len(indices) == count:
        return labels[order].tolist()
    return {"index_from_0": indices[order].tolist(), "label": labels[order].tolist()}


def make_labels(
    source: Source, splits: tuple[np.ndarray, ...], settings: DataSettings
) -> tuple[list[np.ndarray], list[str]]:
    """Noisy labels int64 of each split, and a line on what was read if there is a file.

    splits: indices of the training and of the held-out images. Each split is flipped separately,
    so that each has the requested rate; a file's labels are also matched separately. Raises
    UserError if a label file does not fit.
    """
    clean, seed = [source.train_labels[split] for split in splits], settings.seed
    if settings.noise in NOISES:
        noise, rate, classes = settings.noise, settings.rate, source.class_names
        return [flip_labels(labels, noise, rate, classes, seed) for labels in clean], []
    path, any_labels = Path(settings.noise), settings.accept_chance_labels
    labels, read = read_labels(path, settings.labels, source, any_labels, np.concatenate(splits))
    noisy = [labels[split] for split in splits]
    if settings.matched:
        noisy = [match_transitions(*pair, seed) for pair in zip(noisy, clean, strict=True)]
    return noisy, [read]


def balanced_subset(
    labels: np.ndarray, size: int, num_classes: int, seed: int, flag: str
) -> np.ndarray:
    """Sorted indices int64 (size,) of random images; class counts differ by at most one.

    labels: int64 (N,); flag: the flag that sets the size, for the error. Raises UserError if a
    class has too few images.
    """
    chosen = []
    for label in range(num_classes):
        wanted = size // num_classes + (label < size % num_classes)
        members = np.flatnonzero(labels == label)
        if len(members) < wanted:
            raise UserError(
                f"{flag} {size}: equal classes need {wanted} images of class {label}, which has "
                f"only {len(members)} of the {len(labels)} images; use a smaller {flag}"
            )
        chosen.append(np.random.default_rng([seed, 2, label]).permutation(members)[:wanted])
    return np.sort(np.concatenate(chosen))


def sample_indices(dataset: DataSet, size: int | None) -> np.ndarray:
    """Sorted indices int64 (n,) of the training images that are evaluated after each epoch.

    Class-balanced, and the same for every run on a data set; all images, or SAMPLE_SIZE of them,
    if size is None. Raises UserError if there are too few.
    """
    if size is None and len(dataset.train_images) <= SAMPLE_SIZE:
        return np.arange(len(dataset.train_images))
    size, classes = size or SAMPLE_SIZE, dataset.num_classes
    return balanced_subset(dataset.clean_labels, size, classes, seed=0, flag="--sample-size")


def choose_images(
    source: Source, settings: DataSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted indices of the training, held-out and test images, all in equal classes.

    Raises UserError if there are too few images.
    """
    classes, seed = len(source.class_names), settings.seed
    train, test = np.arange(len(source.train_labels)), np.arange(len(source.test_labels))
    if size := settings.train_size:
        train = balanced_subset(source.train_labels, size, classes, seed, "--train-size")
    if size := settings.test_size:
        test = balanced_subset(source.test_labels, size, classes, seed, "--test-size")
    labels, size = source.train_labels[train], settings.val_size
    val = train[balanced_subset(labels, size, classes, seed, "--val-size")]
    train = np.setdiff1d(train, val)
    if not len(train):
        raise UserError(f"--val-size {settings.val_size}: no image is left to train on; lower it")
    return train, val, test


def exists_already(path: Path, settings: DataSettings) -> bool:
    """Whether `path` holds the data set that the settings describe, by its meta.

    False if there is no such file. What an older file does not record of the label file and the
    source is not compared. Raises UserError if it holds another data set, or none.
    """
    if not path.exists():
        return False
    if not path.is_file():
        raise UserError(f"{path} exists and is not this data set; {OUT}")
    meta = read_meta(path)
    wanted = {
        "source": source_name(settings.dataset),
        "noise": settings.noise_name,
        "rate_asked": settings.rate,
        "seed": settings.seed,
        "val_size": settings.val_size,
        "image_size": settings.image_size,
    }
    train_size, test_size = source_sizes(settings.dataset)
    if train_size := settings.train_size or train_size:
        wanted["train_size"] = train_size - settings.val_size
    if test_size := settings.test_size or test_size:
        wanted["test_size"] = test_size
    for name, value in wanted.items():
        if meta.get(name) != value:
            raise UserError(f"{path} exists with {name} = {meta.get(name)}, not {value}; {OUT}")
    kinds = {"labels_sha256": "label file", "source_sha256": "source (names, sizes or times)"}
    for name, digest in _digests(settings).items():
        if None not in (meta.get(name), digest) and meta[name] != digest:
            raise UserError(f"{path} exists, made from another {kinds[name]}; {OUT}")
    return True


def check_unused(path: Path, settings: DataSettings, dataset: DataSet) -> None:
    """Raise UserError if `path` exists and is not this data set: runs may be trained on it."""
    if exists_already(path, settings) and file_digest(path) != dataset.sha256:
        raise UserError(f"{path} exists and is not this data set; {OUT}")


def describe(made: Made) -> list[str]:
    """Lines for the user: sizes, pixels, what was read, noise rate."""
    dataset = made.dataset
    count, meta = len(dataset.train_labels), dataset.meta
    wrong = int(np.sum(dataset.train_labels != dataset.clean_labels))
    height, width = dataset.image_size
    train, test = (
        [hashlib.sha256(image.tobytes()).digest() for image in images]
        for images in (dataset.train_images, dataset.test_images)
    )
    different = set(train)
    resized = ", cropped and resized" if meta["image_size"] else ""
    return [
        f"{dataset.num_classes} classes, {count} training, {len(dataset.val_labels)} held-out "
        f"and {len(dataset.test_labels)} test images of {width}x{height} pixels{resized}",
        f"pixels from {dataset.train_images.min()} to {dataset.train_images.max()}; "
        f"{count - len(different)} training images are exact copies of another one, "
        f"{sum(image in different for image in test)} test images of a training image",
        *made.read,
        f"noise {meta['noise']}: {wrong} of {count} training labels "
        f"are wrong, noise rate {meta['rate_found']:.6g}",
    ]
