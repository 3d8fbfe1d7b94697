"""Read noisy labels that other projects made from a file, and write those made here to one."""

import json
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import write_text
from dataset.label_formats import read_content
from dataset.noise import chance_agreement

# The names that label files give to the clean labels: CIFAR-10N, CIFAR-100N, HOC and others.
CLEAN_NAMES = ("clean_label", "clean_labels", "clean_label_train", "true_label", "true_labels")
NOT_NOISE = (*CLEAN_NAMES, "clean_coarse_label")
SHOWN_NAMES = 6  # in an error
STANDARD_ERRORS = 4


def read_labels(path: Path, name: str | None, clean: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels int64 (N,) made elsewhere, in the order of the clean labels `clean` (N,).

    path: a JSON list of integers (DivideMix and its successors), a JSON object from file names that
    begin with an index to integers (confident learning), a CSV, an integer .npy, or a .pt such as
    CIFAR-N's (arXiv 2110.12088); no code in it is run. name: which of several lists to read. Clean
    labels beside the noisy ones are compared with `clean` one by one.

    Raises UserError that says what does not fit.
    """
    content = read_content(path, len(clean))
    if not isinstance(content, dict):
        if name:
            raise UserError(f"--labels {name}: {path} holds one list of labels; leave the flag out")
        return _as_labels(path, "its list", content, clean, num_classes)
    lists = {str(key): values for key, values in content.items()}
    clean_names, noisy_names = _split_names(lists)
    name = _choose(path, name, noisy_names)
    noisy = _as_labels(path, name, lists[name], clean, num_classes)
    for key in clean_names:
        listed = _as_labels(path, key, lists[key], clean, num_classes)
        if differ := int((listed != clean).sum()):
            raise UserError(
                f"--noise {path}: its clean labels differ from the data set's in {differ} of "
                f"{len(clean)} places; it belongs to other images or to another order"
            )
    return noisy


def check_agreement(path: Path, noisy: np.ndarray, clean: np.ndarray, num_classes: int) -> None:
    """Refuse labels that agree with the clean ones no better than chance.

    noisy, clean: int64 (N,). Raises UserError unless the number of images whose labels agree
    exceeds the mean for permuted labels by more than STANDARD_ERRORS standard errors.
    """
    mean, deviation = chance_agreement(clean, noisy, num_classes)
    agree = int((noisy == clean).sum())
    if agree <= mean + STANDARD_ERRORS * deviation:
        raise UserError(
            f"--noise {path}: its labels agree with the clean ones in {agree} of {len(clean)} "
            f"places, no better than chance ({mean:.0f}): it belongs to other images or to another "
            "order; to use it anyway, add --accept-chance-labels"
        )


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write labels int64 (N,) as a JSON list of integers, whole or not at all. Raises OSError."""
    write_text(path, json.dumps(labels.tolist()) + "\n")


def _split_names(lists: dict) -> tuple[list[str], list[str]]:
    """The names of the clean and of the noisy labels; a `label` beside noisy ones is clean."""
    clean = [name for name in lists if name in CLEAN_NAMES]
    noisy = [name for name in lists if name not in NOT_NOISE]
    if not clean and "label" in noisy and len(noisy) > 1:
        noisy.remove("label")
        clean = ["label"]
    return clean, noisy


def _choose(path: Path, name: str | None, names: list[str]) -> str:
    """`name` if it is one of `names`, or the only one. Raises UserError."""
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return name
    if not names:
        raise UserError(f"--noise {path}: it holds no noisy labels; see docs/labels.md")
    asked = f"no noisy labels {name!r} in it" if name else f"it holds {len(names)} lists of labels"
    shown = ", ".join(word[:30] for word in names[:SHOWN_NAMES])
    more = ", ..." if len(names) > SHOWN_NAMES else ""
    raise UserError(f"--noise {path}: {asked}; use --labels with one of {shown}{more}")


def _as_labels(path: Path, name: str, values, clean: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (N,) of `values`. Raises UserError unless they are N integers in range."""
    try:
        labels = np.asarray(values)
        what = f"{str(labels.dtype)[:40]} {labels.shape}"
    except (ValueError, TypeError, RuntimeError):
        labels, what = np.empty(0), "not rectangular"
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"--noise {path}: {name} is {what}, not a list of integers")
    if len(labels) != len(clean):
        raise UserError(
            f"--noise {path}: {name} has {len(labels)} labels, the data set {len(clean)} training "
            "images; labels are read for all of them, before --train-size and --val-size"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"--noise {path}: {name} goes from {labels.min()} to {labels.max()}, not within "
            f"0..{num_classes - 1}"
        )
    return labels.astype(np.int64)
