"""Runs that share a data set, and their outputs, for measures that need both."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import run_folder
from common.errors import UserError
from common.logits import read_logits

OUTPUT_BYTES = 2**28  # of the logits that share a pass


@dataclass(frozen=True)
class Group:
    """Runs that share a data set, a sample of its training images, and a pass."""

    data: Path
    digest: str
    runs: list[Path]


def group_runs(runs: Sequence[Path], data: Path | None) -> Iterator[Group]:
    """The runs in groups that share a pass. Raises UserError if a run has no outputs yet."""
    groups: dict[tuple, list[list[Path]]] = {}
    sizes: dict[Path, int] = {}
    for run in runs:
        config = run_folder.read_config(run)
        sample = run_folder.read_sample_indices(run).tobytes()
        try:
            sizes[run] = (run / run_folder.SAMPLE_LOGITS).stat().st_size
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: no such file yet; train the run further") from None
        key = data or Path(config["flags"]["data"]), config["data"]["digest"], sample
        members = groups.setdefault(key, [[]])
        if sum(sizes[member] for member in members[-1]) + sizes[run] > OUTPUT_BYTES:
            members.append([])
        members[-1].append(run)
    for (path, digest, _), members in groups.items():
        yield from (Group(path, digest, runs) for runs in members if runs)


def epoch_blocks(logits: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """The epochs (n, C) of all runs in turn, in blocks of up to OUTPUT_BYTES, or of one epoch.

    logits: (epochs, n, C) of each run, at least one epoch.
    """
    epochs = [epoch for of_run in logits for epoch in of_run]
    size = max(1, OUTPUT_BYTES // epochs[0].nbytes)
    yield from (epochs[start : start + size] for start in range(0, len(epochs), size))


def read_outputs(path: Path, images: int, classes: int) -> np.ndarray:
    """The logits (epochs, images, classes) of a run, mapped from disk.

    Prints to stderr which epochs are used of a file that was cut short. Raises UserError if there
    is no whole epoch, or if the number of images or classes is wrong.
    """
    logits, note = read_logits(path)
    if not len(logits):
        raise UserError(f"{path}: no whole epoch in it; train the run further")
    if logits.shape[1:] != (images, classes):
        raise UserError(
            f"{path} has outputs {logits.shape}, not of {images} images and {classes} classes; "
            "train the run again"
        )
    if note:
        print(note, file=sys.stderr)
    return logits
