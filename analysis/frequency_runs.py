"""Filter the outputs of many runs: runs on one data set share a pass over its images."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis import label_parts, measures
from analysis.frequency_file import write_frequency
from analysis.gaussian_filter import FilterSums, default_deltas, filter_sums
from analysis.memorization_file import write_memorization
from analysis.memorization_runs import measure_memorization
from analysis.run_groups import Group, group_runs, read_outputs
from common import run_folder
from common.errors import UserError
from dataset.batches import normalize
from dataset.data_file import DRAWN, DataSet, read_dataset

PRODUCTS = ("mean", "total", "low", "high", "low_self", "high_self", "low_high", "low_sum")


@dataclass(frozen=True)
class FilterSettings:
    """How to filter: frequency.py's flags."""

    deltas: Sequence[float]  # none: fitted to the test images
    values: str  # softmax or logits
    device: torch.device


def filter_runs(runs: Sequence[Path], data: Path | None, settings: FilterSettings) -> None:
    """Write frequency.json and memorization.json of every run.

    data: the data set, if config.json's path is outdated. Draws of one data set share the deltas
    that are fitted to the first of them. Raises UserError if a run is incomplete or of another data
    set.
    """
    fitted: dict[str, Sequence[float]] = {}
    for group in group_runs(runs, data):
        dataset = read_dataset(group.data)
        if dataset.sha256 != group.digest:
            raise UserError(
                f"{group.runs[0]} is of another data set than {group.data}; name its own with "
                "--data"
            )
        shared = str({name: value for name, value in dataset.meta.items() if name not in DRAWN})
        if shared not in fitted:
            points = as_points(dataset.test_images, settings.device)
            fitted[shared] = settings.deltas or default_deltas(points)
        filter_group(group, dataset, replace(settings, deltas=fitted[shared]))


def filter_group(group: Group, dataset: DataSet, settings: FilterSettings) -> None:
    """Write frequency.json of runs on one data set, from one pass a section; memorization.json."""
    test_logits, sample_logits = (
        [read_outputs(run / name) for run in group.runs] for name in run_folder.LOGITS
    )
    index = run_folder.read_sample_indices(group.runs[0])
    sections = {
        "test": filter_test(test_logits, dataset, settings),
        "probe": filter_sample(sample_logits, index, dataset, settings),
    }
    for k, run in enumerate(group.runs):
        content = {"values": settings.values, "digest": dataset.sha256}
        path = write_frequency(run, content | {name: s[k] for name, s in sections.items()})
        epochs = len(sections["test"][k]["outputs"]["lfr"])
        print(f"{path}: {epochs} epochs, {len(settings.deltas)} deltas", flush=True)
        remembered = measure_memorization(dataset, index, sample_logits[k], test_logits[k])
        print(write_memorization(run, remembered), flush=True)


def filter_test(
    logits: Sequence[np.ndarray], dataset: DataSet, settings: FilterSettings
) -> list[dict]:
    """The section of the test images of each run's frequency.json, from one pass.

    logits: (epochs, M, C) of each run.
    """
    clean, classes = dataset.test_labels, dataset.num_classes
    transition = label_parts.transition_matrix(dataset.clean_labels, dataset.train_labels, classes)
    labels = {"true": label_parts.one_hot(clean, classes)}
    if settings.values == "softmax":
        labels["ideal"] = label_parts.ideal_predictor(clean, transition)
    sums, outputs = filter_outputs(dataset.test_images, labels, 1, logits, settings)
    errors = (measures.relative_errors, measures.centered_errors)
    output_measures = errors if settings.values == "softmax" else ()
    return [
        as_section(sums, labels, rows, settings.deltas, output_measures)
        for rows in outputs["outputs"]
    ]


def filter_sample(
    logits: Sequence[np.ndarray], index: np.ndarray, dataset: DataSet, settings: FilterSettings
) -> list[dict]:
    """The section of the sample of training images of each run's frequency.json, from one pass.

    logits: (epochs, n, C) of each run; index: int64 (n,), the sample.
    """
    classes = dataset.num_classes
    transition = label_parts.transition_matrix(dataset.clean_labels, dataset.train_labels, classes)
    clean, noisy = dataset.clean_labels[index], dataset.train_labels[index]
    parts = label_parts.label_parts(clean, noisy, transition)
    labels = {
        "true": parts["clean"],
        "noise": label_parts.one_hot(noisy, classes) - parts["clean"],
        "transition": parts["transition"],
        "individual": parts["individual"],
        "given": label_parts.one_hot(noisy, classes),
        "ideal": label_parts.ideal_predictor(clean, transition),
    }
    sums, outputs = filter_outputs(dataset.train_images[index], labels, 3, logits, settings)
    if settings.values == "logits":
        return [as_section(sums, labels, rows, settings.deltas, ()) for rows in outputs["outputs"]]
    dropped = label_parts.transition_is_collinear(dataset.clean_labels, transition)
    part_shares = partial(measures.part_shares, transition_dropped=dropped)
    sections = []
    for rows, one_hot_rows in zip(outputs["outputs"], outputs["one_hot"], strict=True):
        both = (measures.learned_shares, part_shares)
        section = as_section(sums, labels, rows, settings.deltas, both)
        equal_confidence = measures.measure(
            sums.select(label_rows(labels, one_hot_rows)), [part_shares]
        )
        section["one_hot"] = measures.as_rows(equal_confidence, slice(len(labels), None))
        section["transition_dropped"] = dropped
        sections.append(section)
    return sections


def filter_outputs(
    images: np.ndarray,
    labels: dict[str, np.ndarray],
    references: int,
    logits: Sequence[np.ndarray],
    settings: FilterSettings,
) -> tuple[FilterSums, dict[str, list[range]]]:
    """Filter labels and the outputs of all runs in one pass.

    images: uint8 (n, H, W, 3); labels: (n, C) each, the first `references` of them to compare the
    outputs with; logits: (epochs, n, C) of each run. Softmax outputs of training images are also
    filtered as one-hot predictions. Returns the sums, and each run's rows in them by kind of
    output. Raises UserError if the outputs are not of these images.
    """
    device, softmax = settings.device, settings.values == "softmax"
    label_values = torch.from_numpy(np.stack(list(labels.values()))).float().to(device)
    for run_logits in logits:
        if run_logits.shape[1:] != label_values.shape[1:]:
            raise UserError(
                f"{run_logits.filename} has outputs {run_logits.shape[1:]} for "
                f"{tuple(label_values.shape[1:])} labels of its data set; train the run again"
            )
    outputs = torch.from_numpy(np.concatenate(logits)).to(device)  # (all epochs, n, C)
    kinds = {"outputs": outputs.softmax(dim=2) if softmax else outputs}
    if softmax and references > 1:
        classes = outputs.shape[2]
        kinds["one_hot"] = F.one_hot(outputs.argmax(dim=2), classes).float()
    rows, start = {}, len(labels)
    for kind in kinds:
        rows[kind] = []
        for run_logits in logits:
            rows[kind].append(range(start, start + len(run_logits)))
            start += len(run_logits)
    values = torch.cat((label_values[references:], *kinds.values()))
    sums = filter_sums(
        as_points(images, device), label_values[:references], values, settings.deltas
    )
    warn_if_identity(sums, settings.deltas)
    return sums, rows


def warn_if_identity(sums: FilterSums, deltas: Sequence[float]) -> None:
    """Say it if no filter is wide enough to reach another image."""
    if (sums.complement < measures.NEGLIGIBLE * sums.count).all():
        smallest = sums.min_distance / (2 * math.log(100))
        print(
            f"frequency.py: --delta: no filter of {list(deltas)} reaches another image; the "
            f"smallest useful delta is about {smallest:.3g}",
            file=sys.stderr,
        )


def label_rows(labels: dict, rows: range) -> list[int]:
    """The rows of the labels in the sums of a pass, followed by those of some outputs."""
    return [*range(len(labels)), *rows]


def as_section(
    sums: FilterSums,
    labels: dict,
    rows: range,
    deltas: Sequence[float],
    output_measures: Sequence[measures.Measure],
) -> dict:
    """A section of frequency.json, of the outputs in `rows` of the sums.

    output_measures: what to measure of the outputs besides LABEL_MEASURES.
    """
    sums, as_lists, as_rows = (
        sums.select(label_rows(labels, rows)),
        measures.as_lists,
        measures.as_rows,
    )
    of_labels = measures.measure(sums, measures.LABEL_MEASURES)
    of_outputs = of_labels | measures.measure(sums, output_measures)
    section = {
        "n": sums.count,
        "delta": list(deltas),
        "weight": as_lists(sums.kernel_mass),
        "alone": as_lists(sums.alone),
        "null": as_lists(measures.null_ratio(sums)),
        "shuffled": {n: as_lists(values) for n, values in measures.shuffled_ratios(sums).items()},
        "labels": {name: as_rows(of_labels, row) for row, name in enumerate(labels)},
        "outputs": as_rows(of_outputs, slice(len(labels), None)),
        "products": {name: as_lists(getattr(sums, name)) for name in PRODUCTS},
    }
    if "ideal" in labels:
        section["ideal"] = as_rows(of_outputs, list(labels).index("ideal"))
    return section


def as_points(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (n, H, W, 3) -> float32 (n, 3 H W) in normalized pixels."""
    return normalize(torch.from_numpy(images).to(device)).flatten(1)
