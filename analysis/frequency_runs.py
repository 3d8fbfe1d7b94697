"""Filter the outputs of many runs: runs on one data set share a pass over its images."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis import measures
from analysis.frequency_file import write_frequency
from analysis.gaussian_filter import FilterSums, default_deltas, filter_sums
from common import run_folder
from common.errors import UserError
from common.logits import read_logits
from dataset.batches import normalize
from dataset.data_file import DataSet, read_dataset

OUTPUT_BYTES = 2**28  # of the outputs that share a pass
PRODUCTS = ("mean", "total", "low", "high", "low_self", "high_self", "low_high", "low_sum")


@dataclass(frozen=True)
class FilterSettings:
    """How to filter: frequency.py's flags."""

    deltas: Sequence[float]  # none: fitted to the test images
    values: str  # softmax or logits
    device: torch.device


@dataclass(frozen=True)
class Group:
    """Runs that share a data set, a sample of its training images, and a pass."""

    data: Path
    digest: str
    runs: list[Path]


def filter_runs(runs: Sequence[Path], data: Path | None, settings: FilterSettings) -> None:
    """Write frequency.json of every run. data: the data set, if config.json's path is outdated.

    Raises UserError if a run is incomplete or of another data set.
    """
    for group in group_runs(runs, data):
        dataset = read_dataset(group.data)
        if dataset.sha256 != group.digest:
            raise UserError(
                f"{group.runs[0]} is of another data set than {group.data}; name its own with "
                "--data"
            )
        filter_group(group, dataset, settings)


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


def filter_group(group: Group, dataset: DataSet, settings: FilterSettings) -> None:
    """Write frequency.json of runs on one data set, from one pass a section."""
    classes, first = dataset.num_classes, group.runs[0]
    index = run_folder.read_sample_indices(first)
    clean, noisy = (
        one_hot(labels[index], classes) for labels in (dataset.clean_labels, dataset.train_labels)
    )
    deltas = settings.deltas or default_deltas(as_points(dataset.test_images, settings.device))
    softmax = settings.values == "softmax"
    sections = {
        "test": filter_section(
            images=dataset.test_images,
            labels={"true": one_hot(dataset.test_labels, classes)},
            references=1,
            logits=[read_outputs(run / run_folder.TEST_LOGITS) for run in group.runs],
            deltas=deltas,
            settings=settings,
            output_measures=(measures.relative_errors,) if softmax else (),
        ),
        "probe": filter_section(
            images=dataset.train_images[index],
            labels={"true": clean, "noise": noisy - clean, "given": noisy},
            references=2,
            logits=[read_outputs(run / run_folder.SAMPLE_LOGITS) for run in group.runs],
            deltas=deltas,
            settings=settings,
            output_measures=(measures.learned_shares,) if softmax else (),
        ),
    }
    for k, run in enumerate(group.runs):
        content = {"values": settings.values, "digest": dataset.sha256}
        path = write_frequency(run, content | {name: s[k] for name, s in sections.items()})
        epochs = len(sections["test"][k]["outputs"]["lfr"])
        print(f"{path}: {epochs} epochs, {len(deltas)} deltas", flush=True)


def filter_section(
    images: np.ndarray,
    labels: dict[str, Tensor],
    references: int,
    logits: Sequence[np.ndarray],
    deltas: Sequence[float],
    settings: FilterSettings,
    output_measures: Sequence[measures.Measure],
) -> list[dict]:
    """One section of each run's frequency.json, from one pass.

    images: uint8 (n, H, W, 3); labels: (n, C) each, the first `references` of them to compare the
    outputs with; logits: (epochs, n, C) of each run; output_measures: what to measure of the
    outputs besides LABEL_MEASURES. Raises UserError if the outputs are not of these images.
    """
    device = settings.device
    label_values = torch.stack(list(labels.values()))
    for run_logits in logits:
        if run_logits.shape[1:] != label_values.shape[1:]:
            raise UserError(
                f"{run_logits.filename} has outputs {run_logits.shape[1:]} for "
                f"{tuple(label_values.shape[1:])} labels of its data set; train the run again"
            )
    outputs = torch.from_numpy(np.concatenate(logits)).to(device)  # (all epochs, n, C)
    if settings.values == "softmax":
        outputs = outputs.softmax(dim=2)
    points, label_values = as_points(images, device), label_values.to(device)
    values = torch.cat((label_values[references:], outputs))
    sums = filter_sums(points, label_values[:references], values, deltas)
    warn_if_identity(sums, deltas)
    sections, start = [], len(labels)
    for run_logits in logits:
        rows = [*range(len(labels)), *range(start, start + len(run_logits))]
        start += len(run_logits)
        sections.append(as_section(sums.select(rows), list(labels), deltas, output_measures))
    return sections


def warn_if_identity(sums: FilterSums, deltas: Sequence[float]) -> None:
    """Say it if no filter is wide enough to reach another image."""
    if (sums.complement < measures.NEGLIGIBLE * sums.count).all():
        smallest = sums.min_distance / (2 * math.log(100))
        print(
            f"frequency.py: --delta: no filter of {list(deltas)} reaches another image; the "
            f"smallest useful delta is about {smallest:.3g}",
            file=sys.stderr,
        )


def as_section(
    sums: FilterSums,
    names: Sequence[str],
    deltas: Sequence[float],
    output_measures: Sequence[measures.Measure],
) -> dict:
    """A section of frequency.json; the first values of `sums` are the labels `names`."""
    of_labels = measures.measure(sums, measures.LABEL_MEASURES)
    of_outputs = of_labels | measures.measure(sums, output_measures)
    as_lists = measures.as_lists
    return {
        "n": sums.count,
        "delta": list(deltas),
        "weight": as_lists(sums.kernel_mass),
        "null": as_lists(measures.null_ratio(sums)),
        "shuffled": {n: as_lists(values) for n, values in measures.shuffled_ratios(sums).items()},
        "labels": {
            name: {measure: as_lists(values[row]) for measure, values in of_labels.items()}
            for row, name in enumerate(names)
        },
        "outputs": {measure: as_lists(v[len(names) :]) for measure, v in of_outputs.items()},
        "products": {name: as_lists(getattr(sums, name)) for name in PRODUCTS},
    }


def as_points(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (n, H, W, 3) -> float32 (n, 3 H W) in normalized pixels."""
    return normalize(torch.from_numpy(images).to(device)).flatten(1)


def one_hot(labels: np.ndarray, classes: int) -> Tensor:
    """int64 (n,) -> float32 (n, classes)."""
    return F.one_hot(torch.from_numpy(labels), classes).float()


def read_outputs(path: Path) -> np.ndarray:
    """The logits (epochs, n, C) of a run. Raises UserError if there is no whole epoch."""
    logits, note = read_logits(path)
    if not len(logits):
        raise UserError(f"{path}: no whole epoch in it; train the run further")
    if note:
        print(f"frequency.py: {note}", file=sys.stderr)
    return logits
