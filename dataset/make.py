"""Make a data set: choose images, make or read noisy labels, and describe the result."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import UserError
from dataset.data_file import DataSet, array_digests, file_digest, read_meta
from dataset.label_files import check_agreement, read_labels, write_labels
from dataset.noise import NOISES, flip_labels, match_transitions, transition_counts
from dataset.sources import SIZES, Source, load_source, source_name
from dataset.subsets import balanced_subset

NOT_CHOSEN = -1  # the label of a source's image that is not in the data set
SHOWN_CLASSES = 20  # with more, a table of class pairs does not fit a terminal


@dataclass(frozen=True)
class DataSettings:
    """What a data set is made of: generate.py's flags, with their defaults."""

    dataset: str = "cifar10"  # a name of SOURCES, or a folder
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
    title: str | None = None  # what figures call the images

    @property
    def noise_name(self) -> str:
        """The noise model, or the label file's name, the labels chosen in it, "matched"."""
        if self.noise in NOISES:
            return self.noise
        words = [Path(self.noise).stem, self.labels, "matched" if self.matched else None]
        return "-".join(word for word in words if word)

    @property
    def default_path(self) -> Path:
        """data/<dataset>-<noise><percent>.npz."""
        percent = "" if self.rate is None else f"{100 * self.rate:g}"
        return Path(f"data/{source_name(self.dataset)}-{self.noise_name}{percent}.npz")


def make_dataset(settings: DataSettings) -> tuple[DataSet, np.ndarray]:
    """The data set that the settings describe, and the noisy labels of its source.

    The labels are int64 (N,) in the order of the source's training images, NOT_CHOSEN for those
    that are not in the data set. Raises UserError that says what does not fit.
    """
    source = load_source(settings)
    classes, clean = len(source.class_names), source.train_labels
    train, val, test = choose_images(source, settings)
    noisy = make_labels(source, (train, val), settings)
    train_labels, val_labels = noisy[train], noisy[val]
    meta = {
        "source": source_name(settings.dataset),
        "title": settings.title or source_name(settings.dataset),
        "noise": settings.noise_name,
        "rate_asked": settings.rate,
        "rate_found": float(np.mean(train_labels != clean[train])),
        "val_rate_found": float(np.mean(val_labels != clean[val])) if len(val) else None,
        "transitions": transition_counts(clean[train], train_labels, classes).tolist(),
        "seed": settings.seed,
    }
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
    )
    return dataset, noisy


def export_labels(path: Path, noisy: np.ndarray) -> None:
    """Write the noisy labels of a source, (N,) of make_dataset, as a JSON list of integers.

    Raises UserError if an image has none, OSError if the file cannot be written.
    """
    if (noisy == NOT_CHOSEN).any():
        raise UserError("--export writes the labels of all images; leave --train-size out")
    write_labels(path, noisy)


def check_unused(path: Path, dataset: DataSet) -> None:
    """Raise UserError if `path` exists and is not this data set: runs may have been trained on it.

    The same data set may be written again, for example with another title.
    """
    if not path.exists():
        return
    try:
        same = file_digest(path) == dataset.sha256
    except UserError:
        same = False
    if not same:
        raise UserError(f"{path} exists and is not this data set; remove it, or use another --out")


def make_labels(source: Source, splits: Sequence[np.ndarray], settings: DataSettings) -> np.ndarray:
    """Noisy labels int64 (N,) of the source's training images, NOT_CHOSEN outside the splits.

    splits: indices of the training and of the validation images. Each split is flipped separately,
    so that each has the requested rate; a file's labels are also matched separately. Raises
    UserError if a file of labels does not fit.
    """
    clean, classes, seed = source.train_labels, source.class_names, settings.seed
    noisy = np.full(len(clean), NOT_CHOSEN)
    if settings.noise in NOISES:
        for split in splits:
            noisy[split] = flip_labels(clean[split], settings.noise, settings.rate, classes, seed)
        return noisy
    path = Path(settings.noise)
    labels = read_labels(path, settings.labels, clean, len(classes))
    if not settings.accept_chance_labels:
        check_agreement(path, labels, clean, len(classes))
    for split in splits:
        noisy[split] = labels[split]
        if settings.matched:
            noisy[split] = match_transitions(labels[split], clean[split], seed)
    return noisy


def choose_images(
    source: Source, settings: DataSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted indices of the training, validation and test images, all in equal classes.

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

    False if there is no such file. Raises UserError if it holds another data set.
    """
    if not path.exists():
        return False
    meta = read_meta(path)
    wanted = {
        "source": source_name(settings.dataset),
        "noise": settings.noise_name,
        "rate_asked": settings.rate,
        "seed": settings.seed,
        "val_size": settings.val_size,
    }
    # A folder's images are not counted: it may be gone by now.
    train_size, test_size = SIZES.get(settings.dataset, (None, None))
    if train_size := settings.train_size or train_size:
        wanted["train_size"] = train_size - settings.val_size
    if test_size := settings.test_size or test_size:
        wanted["test_size"] = test_size
    for name, value in wanted.items():
        if meta.get(name) != value:
            raise UserError(
                f"{path} exists with {name} = {meta.get(name)}, not {value}; remove it, or name "
                "another file with --out"
            )
    return True


def describe(dataset: DataSet) -> str:
    """A description for the user: sizes, noise rate, clean against noisy labels, digests."""
    count = len(dataset.train_labels)
    counts = transition_counts(dataset.clean_labels, dataset.train_labels, dataset.num_classes)
    height, width = dataset.image_size
    lines = [
        f"{dataset.num_classes} classes, {count} training, {len(dataset.val_labels)} validation "
        f"and {len(dataset.test_labels)} test images of {width}x{height} pixels",
        f"noise {dataset.meta['noise']}: {count - np.trace(counts)} of {count} training labels are "
        f"wrong, noise rate {dataset.meta['rate_found']:.6g}",
        *describe_transitions(counts, dataset.class_names),
    ]
    if dataset.meta["noise"] == "asymmetric":
        lines.append(
            f"asymmetric: the requested rate, {dataset.meta['rate_asked']:g}, is the rate among "
            "the five classes that are confused, which are half of a balanced data set"
        )
    digests = array_digests(dataset)
    return "\n".join(lines + [f"sha256 of {n}: {digests[n]}" for n in digests if "labels" in n])


def describe_transitions(counts: np.ndarray, class_names: list[str]) -> list[str]:
    """Lines of a table of counts (C, C), clean class by noisy label, or of its largest errors."""
    classes = len(class_names)
    if classes <= SHOWN_CLASSES:
        lines = ["clean class (row) against noisy label (column):"]
        lines.append(" " * 21 + "".join(f"{label:6}" for label in range(classes)))
        for label, name in enumerate(class_names):
            lines.append(f"{label:4} {name[:16]:16}" + "".join(f"{n:6}" for n in counts[label]))
        return lines
    wrong = counts * (1 - np.eye(classes, dtype=int))
    largest = np.argsort(-wrong, axis=None, kind="stable")[:10]
    return [f"the most frequent of {np.count_nonzero(wrong)} class pairs that are confused:"] + [
        f"{wrong[k, j]:6} {class_names[k]} -> {class_names[j]}"
        for k, j in zip(*np.unravel_index(largest, wrong.shape), strict=True)
        if wrong[k, j]
    ]


from dataset.subsets import sample_indices  # noqa: F401
