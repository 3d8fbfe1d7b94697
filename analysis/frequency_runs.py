"""Filter the outputs of many runs: runs on one data set share a pass over its images."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis import label_parts, measures
from analysis.band_products import FilterSums, join
from analysis.frequency_file import write_frequency
from analysis.gaussian_filter import default_deltas, filter_columns
from analysis.memorization_file import write_memorization
from analysis.memorization_runs import measure_memorization
from analysis.run_groups import Group, epoch_blocks, group_runs, read_outputs
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
    that are fitted to the first of them. Raises UserError if a run is incomplete or was trained on
    another data set.
    """
    fitted: dict[str, Sequence[float]] = {}
    for group in group_runs(runs, data):
        dataset = read_dataset(group.data)
        if dataset.sha256 != group.digest:
            raise UserError(
                f"{group.runs[0]} was not trained on {group.data}; name its data set with --data"
            )
        shared = str({name: value for name, value in dataset.meta.items() if name not in DRAWN})
        if shared not in fitted:
            points = as_points(dataset.test_images, settings.device)
            fitted[shared] = settings.deltas or default_deltas(points)
        filter_group(group, dataset, replace(settings, deltas=fitted[shared]))


def filter_group(group: Group, dataset: DataSet, settings: FilterSettings) -> None:
    """Write frequency.json and memorization.json of runs on one data set."""
    index = run_folder.read_sample_indices(group.runs[0])
    sizes = {run_folder.TEST_LOGITS: len(dataset.test_labels), run_folder.SAMPLE_LOGITS: len(index)}
    test_logits, sample_logits = (
        [read_outputs(run / name, images, dataset.num_classes) for run in group.runs]
        for name, images in sizes.items()
    )
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
    """The section of the test images of each run's frequency.json.

    logits: (epochs, M, C) of each run.
    """
    clean, classes = dataset.test_labels, dataset.num_classes
    transition = label_parts.transition_matrix(dataset.clean_labels, dataset.train_labels, classes)
    labels = {"true": label_parts.one_hot(clean, classes)}
    if settings.values == "softmax":
        labels["ideal"] = label_parts.ideal_predictor(clean, transition)
    sums = filter_outputs(dataset.test_images, labels, 1, logits, settings)
    errors = (measures.relative_errors, measures.centered_errors)
    output_measures = errors if settings.values == "softmax" else ()
    return [as_section(run["outputs"], labels, settings.deltas, output_measures) for run in sums]


def filter_sample(
    logits: Sequence[np.ndarray], index: np.ndarray, dataset: DataSet, settings: FilterSettings
) -> list[dict]:
    """The section of the sample of training images of each run's frequency.json.

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
    sums = filter_outputs(dataset.train_images[index], labels, 3, logits, settings)
    if settings.values == "logits":
        return [as_section(run["outputs"], labels, settings.deltas, ()) for run in sums]
    dropped = label_parts.transition_is_collinear(dataset.clean_labels, transition)
    part_shares = partial(measures.part_shares, transition_dropped=dropped)
    sections = []
    for run in sums:
        both = (measures.learned_shares, part_shares)
        section = as_section(run["outputs"], labels, settings.deltas, both)
        equal_confidence = measures.measure(run["one_hot"], [part_shares])
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
) -> list[dict[str, FilterSums]]:
    """Filter labels and the outputs of all runs, a block of epochs in each pass.

    images: uint8 (n, H, W, 3); labels: (n, C) each, the first `references` of them to compare the
    outputs with; logits: (epochs, n, C) of each run. Softmax outputs of training images are also
    filtered as one-hot predictions. Returns for each run, by kind of output, the sums of the labels
    followed by those of its epochs.

    A block has up to run_groups.OUTPUT_BYTES of logits and once or twice as many values, so that
    memory does not grow with the epochs. Each block computes distances and kernels again. With d
    numbers per point and D deltas, the distances cost as much as d / D columns of values; a whole
    block of 10,000 images has 6,700 columns or more.
    """
    softmax, device = settings.values == "softmax", settings.device
    kinds = {"outputs": partial(torch.softmax, dim=1) if softmax else torch.clone}
    if softmax and references > 1:
        kinds["one_hot"] = one_hot_predictions
    points, shared = as_points(images, device), len(labels)
    label_values = torch.from_numpy(np.stack(list(labels.values()))).float().to(device)
    passes: dict[str, list[FilterSums]] = {kind: [] for kind in kinds}
    blocks = list(epoch_blocks(logits))
    # Allocated once: the memory that the first block frees does not always fit the next block.
    room = label_values.new_empty(label_values[0].numel() * (shared + len(kinds) * len(blocks[0])))
    for block in blocks:
        columns = as_columns(label_values, block, list(kinds.values()), room)
        sums = filter_columns(points, columns, references, settings.deltas)
        for k, kind_sums in enumerate(passes.values()):
            start = shared + k * len(block)
            kind_sums.append(sums.select([*range(shared), *range(start, start + len(block))]))
    joined = {kind: join(kind_sums, shared) for kind, kind_sums in passes.items()}
    warn_if_identity(joined["outputs"], settings.deltas)
    runs, start = [], shared
    for run_logits in logits:
        rows = [*range(shared), *range(start, start + len(run_logits))]
        runs.append({kind: sums.select(rows) for kind, sums in joined.items()})
        start += len(run_logits)
    return runs


def as_columns(
    labels: Tensor,
    epochs: Sequence[np.ndarray],
    kinds: Sequence[Callable[[Tensor], Tensor]],
    room: Tensor,
) -> Tensor:
    """The values of a pass (n, V, C): labels (L, n, C), then all epochs' outputs of each kind.

    epochs: logits (n, C) each; kinds: what makes outputs of them; room: n V C numbers or more.
    """
    shared, images, classes = labels.shape
    shape = images, shared + len(kinds) * len(epochs), classes
    columns = room[: math.prod(shape)].view(shape)
    columns[:, :shared] = labels.transpose(0, 1)
    for e, epoch in enumerate(epochs):
        logits = torch.tensor(epoch, device=labels.device)
        for k, as_outputs in enumerate(kinds):
            columns[:, shared + k * len(epochs) + e] = as_outputs(logits)
    return columns


def one_hot_predictions(logits: Tensor) -> Tensor:
    """float32 (n, C): 1 for the predicted class of logits (n, C)."""
    return F.one_hot(logits.argmax(dim=1), logits.shape[1]).float()


def warn_if_identity(sums: FilterSums, deltas: Sequence[float]) -> None:
    """Warn if no filter is wide enough to reach another image."""
    if (sums.complement < measures.NEGLIGIBLE * sums.count).all():
        smallest = sums.min_distance / (2 * math.log(100))
        print(
            f"frequency.py: --delta: no filter of {list(deltas)} reaches another image; the "
            f"smallest useful delta is about {smallest:.3g}",
            file=sys.stderr,
        )


def as_section(
    sums: FilterSums,
    labels: dict,
    deltas: Sequence[float],
    output_measures: Sequence[measures.Measure],
) -> dict:
    """A section of frequency.json, from the sums of the labels followed by those of the outputs.

    output_measures: what to measure of the outputs besides LABEL_MEASURES.
    """
    as_lists, as_rows = measures.as_lists, measures.as_rows
    label_measures = measures.measure(sums, measures.LABEL_MEASURES)
    all_measures = label_measures | measures.measure(sums, output_measures)
    section = {
        "n": sums.count,
        "delta": list(deltas),
        "weight": as_lists(sums.kernel_mass),
        "alone": as_lists(sums.alone),
        "null": as_lists(measures.null_ratio(sums)),
        "shuffled": {n: as_lists(values) for n, values in measures.shuffled_ratios(sums).items()},
        "labels": {name: as_rows(label_measures, row) for row, name in enumerate(labels)},
        "outputs": as_rows(all_measures, slice(len(labels), None)),
        "products": {name: as_lists(getattr(sums, name)) for name in PRODUCTS},
    }
    if "ideal" in labels:
        section["ideal"] = as_rows(all_measures, list(labels).index("ideal"))
    return section


def as_points(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (n, H, W, 3) -> float32 (n, 3 H W) in normalized pixels."""
    return normalize(torch.from_numpy(images).to(device)).flatten(1)
