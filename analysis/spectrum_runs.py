"""The kernels and learned shares of many runs: runs on one data set share kernels and labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis import kernel_spectrum, label_parts, spectrum_file
from analysis.kernel_spectrum import LabelSpectrum
from analysis.run_groups import read_outputs
from analysis.tangent_kernel import output_vectors, tangent_kernel
from common import run_folder
from common.errors import UserError
from dataset.batches import normalize
from dataset.data_file import DataSet, read_dataset
from training import checkpoint
from training.prepare import prepare
from training.settings import RunSettings

DEFAULT_SIZE = 5000  # images, unless the sample has fewer: the time grows with its cube
EPOCHS_AT_ONCE = 20  # outputs whose projections are computed in one product


@dataclass(frozen=True)
class SpectrumSettings:
    """Which kernels: spectrum.py's flags."""

    kernels: Sequence[str]  # gaussian, ntk-initial, ntk-final
    deltas: Sequence[float]  # of the Gaussian kernel
    size: int | None  # images; None: DEFAULT_SIZE or all of the sample
    device: torch.device


@dataclass(frozen=True)
class Sample:
    """The images on which runs of one data set are measured, and the parts of their labels."""

    positions: np.ndarray  # int64 (n,)    of the images in the sample of the runs
    images: Tensor  # float32 (n, 3, H, W)    normalized, on the device
    parts: dict[str, np.ndarray]  # (n, C) each
    transition_dropped: bool


@dataclass(frozen=True)
class Kernel:
    """A kernel to be computed, and the runs that are measured with it."""

    fields: dict  # kernel, delta, vectors and epoch of spectrum.json
    runs: list[Path]
    compute: Callable[[], Tensor]  # float64 (n, n)


def measure_runs(runs: Sequence[Path], data: Path | None, settings: SpectrumSettings) -> None:
    """Write spectrum.json of every run. data: the data set, if config.json's path is outdated.

    Raises UserError if a run is incomplete, has another data set, or has no usable checkpoint.
    """
    groups: dict[tuple, list[Path]] = {}
    for run in runs:
        config = run_folder.read_config(run)
        path = data or Path(config["flags"]["data"])
        sample = run_folder.read_sample_indices(run).tobytes()
        groups.setdefault((path, config["data"]["digest"], sample), []).append(run)
    for (path, digest, _), members in groups.items():
        dataset = read_dataset(path)
        if dataset.sha256 != digest:
            raise UserError(
                f"{members[0]} was not trained on {path}; name its data set with --data"
            )
        measure_group(members, dataset, settings)


def measure_group(runs: Sequence[Path], dataset: DataSet, settings: SpectrumSettings) -> None:
    """Write spectrum.json of runs on one data set with one sample of its training images."""
    index = run_folder.read_sample_indices(runs[0])
    logits = {
        run: read_outputs(run / run_folder.SAMPLE_LOGITS, len(index), dataset.num_classes)
        for run in runs
    }
    sample = make_sample(dataset, index, settings)
    kernels = list_kernels(runs, dataset, sample, settings)
    entries: dict[Path, list[dict]] = {run: [] for run in runs}
    for kernel in kernels:
        try:
            spectrum = kernel_spectrum.label_spectrum(kernel.compute(), sample.parts)
        except ValueError as error:
            title = spectrum_file.kernel_title(kernel.fields)
            raise UserError(f"{kernel.runs[0]}, kernel {title}: {error}; leave it out") from error
        for run in kernel.runs:
            shares = measure_shares(spectrum, logits[run], sample)
            entries[run].append(kernel.fields | as_entry(spectrum, shares))
        del spectrum  # before the next kernel needs its memory
    for run, run_entries in entries.items():
        head = {"digest": dataset.sha256, "n": len(sample.positions), "epochs": len(logits[run])}
        path = spectrum_file.write_spectrum(run, head | {"kernels": run_entries})
        titles = "; ".join(spectrum_file.kernel_title(entry) for entry in run_entries)
        print(f"{path}: {head['epochs']} epochs, {head['n']} images, {titles}", flush=True)


def make_sample(dataset: DataSet, index: np.ndarray, settings: SpectrumSettings) -> Sample:
    """The images and labels to measure on, evenly spaced in the runs' sample.

    index: int64 (n,), the sample's places in the training set. Raises UserError if it is smaller
    than --size.
    """
    size = settings.size or min(DEFAULT_SIZE, len(index))
    if size > len(index):
        raise UserError(
            f"--size {size}: the runs were evaluated on {len(index)} training images; use --size "
            f"{len(index)}, or train with a larger --sample-size"
        )
    if size < 2:
        raise UserError("--size: a kernel needs 2 images; train with a larger --sample-size")
    positions = np.arange(size) * len(index) // size
    chosen = index[positions]
    clean, noisy = dataset.clean_labels, dataset.train_labels
    transition = label_parts.transition_matrix(clean, noisy, dataset.num_classes)
    return Sample(
        positions,
        normalize(torch.from_numpy(dataset.train_images[chosen]).to(settings.device)),
        label_parts.label_parts(clean[chosen], noisy[chosen], transition),
        label_parts.transition_is_collinear(clean, transition),
    )


def list_kernels(
    runs: Sequence[Path], dataset: DataSet, sample: Sample, settings: SpectrumSettings
) -> list[Kernel]:
    """The kernels that the flags ask for, with the runs that share them.

    Raises UserError if a checkpoint is missing, damaged or another network's, before any kernel is
    computed.
    """
    kernels = []
    if "gaussian" in settings.kernels:
        for delta in settings.deltas:
            fields = {"kernel": "gaussian", "delta": delta, "vectors": None, "epoch": None}
            compute = partial(kernel_spectrum.gaussian_kernel, sample.images, delta)
            kernels.append(Kernel(fields, list(runs), compute))
    networks = {run: RunSettings.from_flags(run_folder.read_config(run)["flags"]) for run in runs}
    if "ntk-initial" in settings.kernels:
        starts: dict[tuple, list[Path]] = {}
        for run, network in networks.items():
            starts.setdefault((network.network, network.seed), []).append(run)
        for members in starts.values():
            model = initial_model(networks[members[0]], dataset, settings.device)
            kernels.append(network_kernel("ntk-initial", 0, members, model, dataset, sample))
    if "ntk-final" in settings.kernels:
        for run, network in networks.items():
            model = initial_model(network, dataset, settings.device)
            epoch = load_checkpoint(run, model, dataset, settings.device)
            kernels.append(network_kernel("ntk-final", epoch, [run], model, dataset, sample))
    return kernels


def network_kernel(
    name: str,
    epoch: int,
    runs: list[Path],
    model: torch.nn.Module,
    dataset: DataSet,
    sample: Sample,
) -> Kernel:
    """The tangent kernel of a network after `epoch` epochs, for the runs that share it."""
    vectors, title = output_vectors(dataset.num_classes)
    fields = {"kernel": name, "delta": None, "vectors": title, "epoch": epoch}
    return Kernel(fields, runs, partial(tangent_kernel, model, sample.images, vectors))


def initial_model(settings: RunSettings, dataset: DataSet, device: torch.device) -> torch.nn.Module:
    """The network as train.py draws it from the run's seed."""
    return prepare(replace(settings, compile=False), dataset, device)[0]


def load_checkpoint(
    run: Path, model: torch.nn.Module, dataset: DataSet, device: torch.device
) -> int:
    """Load the run's checkpoint into its network; returns the epoch. Raises UserError."""
    if not (run / checkpoint.NAME).exists():
        raise UserError(
            f"{run / checkpoint.NAME} does not exist; leave out --kernel ntk-final, or train again"
        )
    content = checkpoint.read(run, device)
    if content["settings"].get("data_sha256", dataset.sha256) != dataset.sha256:
        raise UserError(f"{run / checkpoint.NAME} belongs to another data set; train the run again")
    checkpoint.load_evaluated(run, model, content)
    return content["epoch"]


def measure_shares(
    spectrum: LabelSpectrum, logits: np.ndarray, sample: Sample
) -> dict[str, np.ndarray]:
    """Learned shares (3, epochs, bands) of softmax outputs and of one-hot predictions.

    logits: (epochs, images, C) on the runs' sample.
    """
    shares: dict[str, list[np.ndarray]] = {"softmax": [], "one_hot": []}
    for start in range(0, len(logits), EPOCHS_AT_ONCE):
        block = logits[start : start + EPOCHS_AT_ONCE, sample.positions]
        outputs = torch.from_numpy(block).to(sample.images.device)
        predictions = F.one_hot(outputs.argmax(2), outputs.shape[2]).float()
        for name, values in (("softmax", outputs.softmax(2)), ("one_hot", predictions)):
            dropped = sample.transition_dropped
            shares[name].append(kernel_spectrum.learned_shares(spectrum, values, dropped))
    return {name: np.concatenate(blocks, axis=1) for name, blocks in shares.items()}


def as_entry(spectrum: LabelSpectrum, shares: dict[str, np.ndarray]) -> dict:
    """The fields of an entry of `kernels` in spectrum.json, without the kernel's own ones."""
    numbers = spectrum_file.as_numbers
    energies = spectrum.energies
    totals = energies.sum(axis=1)
    present = totals > label_parts.NEGLIGIBLE * totals[0]
    return {
        "bands": spectrum.edges,
        "eigenvalues": numbers(spectrum.eigenvalues),
        "shuffled": numbers(kernel_spectrum.shuffled_energy(spectrum.edges)),
        "totals": dict(zip(label_parts.PARTS, numbers(totals / spectrum.edges[-1]), strict=True)),
        "energies": {
            name: numbers(energies[k] / totals[k]) if present[k] else None
            for k, name in enumerate(label_parts.PARTS)
        },
        "shares": {
            name: {part: numbers(values[k]) for k, part in enumerate(label_parts.PARTS)}
            for name, values in shares.items()
        },
    }
