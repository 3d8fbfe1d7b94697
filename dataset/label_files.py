"""Noisy labels that other projects made, read from a file."""

import json
from pathlib import Path
from pickle import UnpicklingError

import numpy as np

from common.errors import UserError

# The names under which label files keep the clean labels: CIFAR-10N's.
CLEAN_NAMES = ("clean_label",)


def read_labels(path: Path, name: str | None, clean: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels int64 (N,) made elsewhere, in the order of the clean labels `clean` (N,).

    path: a JSON list of integers (DivideMix and its heirs), an integer .npy, or a .pt as of
    CIFAR-10N (arXiv 2110.12088), a dict of arrays of which `name` is read, without running code.
    A dict may bring clean labels too; they are compared with `clean` one by one.

    Raises UserError that says what does not fit.
    """
    readers = {".json": _read_json, ".npy": _read_npy, ".pt": _read_pt, ".pth": _read_pt}
    read = readers.get(path.suffix, _read_json)
    try:
        content = read(path)
    except (OSError, EOFError, ValueError, RuntimeError, UnpicklingError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else "damaged"
        raise UserError(f"--noise {path}: cannot be read ({reason}); see docs/usage.md") from None
    if isinstance(content, dict):
        named = [key for key in content if key not in CLEAN_NAMES]
        if name not in named:
            asked = f"no labels {name!r} in it" if name else "it holds several labels"
            raise UserError(f"--noise {path}: {asked}; use --labels with one of {', '.join(named)}")
        noisy = _as_labels(path, name, content[name], clean, num_classes)
        for key in set(CLEAN_NAMES) & set(content):
            listed = _as_labels(path, key, content[key], clean, num_classes)
            if differ := int((listed != clean).sum()):
                raise UserError(
                    f"--noise {path}: its clean labels differ from the data set's in {differ} of "
                    f"{len(clean)} places; it is of other images or of another order"
                )
        return noisy
    if name:
        raise UserError(f"--labels {name}: {path} holds one list of labels; leave the flag out")
    return _as_labels(path, "labels", content, clean, num_classes)


def _read_json(path: Path):
    return json.loads(path.read_text("utf-8"))


def _read_npy(path: Path):
    return np.load(path, allow_pickle=False)


def _read_pt(path: Path):
    """A dict of arrays or tensors, or one of them; of foreign names only numpy's array types."""
    import torch

    allowed = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in "bhilqBHILQfd")]
    # numpy 2 moved what an array is rebuilt with; files hold the name of either place.
    core = np._core if hasattr(np, "_core") else np.core
    rebuild = core.multiarray._reconstruct
    allowed += [(rebuild, f"numpy.{place}.multiarray._reconstruct") for place in ("core", "_core")]
    scalar = core.multiarray.scalar
    allowed += [(scalar, f"numpy.{place}.multiarray.scalar") for place in ("core", "_core")]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)


def _as_labels(path: Path, name: str, values, clean: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (N,) of `values`. Raises UserError unless they are as many integers in range."""
    try:
        labels = np.asarray(values)
    except ValueError:
        labels = np.empty(0)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        what = f"{labels.dtype} {labels.shape}"
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
