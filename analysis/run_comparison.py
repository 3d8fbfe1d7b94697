"""Compare distilled runs with cross-entropy along the eigenvectors, from the runs' files."""

from pathlib import Path

import numpy as np

from analysis.equivalent_epoch import EpochPath, epoch_path, excess
from analysis.spectrum_file import REMEDY, as_array, kernel_title, read_spectrum
from common import flags, run_folder
from common.errors import UserError

REFERENCE = "cross-entropy"
COMPARISON_LINE = (
    "{run}: {kernel}, {values}: epoch {own} is like epoch {nearest} of {reference}, distance "
    "{distance:.3f} (of the shapes {shape:.3f}, from a flat one {flat:.3f}, one step there "
    "{resolution:.3f}; by its level alone epoch {by_level}, {distance_by_level:.3f}); test "
    "accuracy {accuracy:.2f}% and {reference_accuracy:.2f}%; clean labels learned {excess:+.3f}"
)


def reference_run(run: Path) -> Path:
    """The cross-entropy run beside `run` with its data set, seed and settings.

    Raises UserError if there is none.
    """
    config = run_folder.read_config(run)
    for other in run_folder.find_runs([run.parent]):
        other_config = run_folder.read_config(other)
        if other_config["loss"] == REFERENCE and _draw(other_config) == _draw(config):
            return other
    raise UserError(
        f"{run}: no cross-entropy run beside it with its data set, seed and settings; make one "
        "with train.py --dis=0"
    )


def compare_run(run: Path) -> list[dict]:
    """The comparison of a distilled run with its reference, for every kernel that both have.

    Each dict has `kernel` (its title), `values` (softmax or one_hot), `path` (EpochPath) and
    `excess` (epochs, bands) of the clean labels with `energy` (bands) to average it with. Raises
    UserError if there is no reference, or no kernel that both have.
    """
    reference = reference_run(run)
    own, other = (_kernels(folder) for folder in (run, reference))
    shared = [title for title in own if title in other]
    if not shared:
        raise UserError(f"{run} and {reference} have no kernel in common; {REMEDY}")
    comparisons = []
    for title in shared:
        for values in own[title]["shares"]:
            path, more = compare_entries(own[title], other[title], values)
            energy = as_array(own[title]["energies"]["clean"])
            fields = {"kernel": title, "values": values, "reference": reference}
            comparisons.append(fields | {"path": path, "excess": more, "energy": energy})
    return comparisons


def comparison_lines(run: Path) -> list[str]:
    """One line for the user for every comparison of the run's last epoch. Raises UserError."""
    lines = []
    for comparison in compare_run(run):
        path, reference = comparison["path"], comparison["reference"]
        accuracies = [_accuracies(folder) for folder in (run, reference)]
        nearest = path.nearest[-1]
        more = np.nansum(comparison["excess"][-1] * comparison["energy"])
        line = COMPARISON_LINE.format(
            run=run,
            kernel=comparison["kernel"],
            values=comparison["values"],
            own=len(path.nearest),
            nearest=nearest + 1,
            reference=REFERENCE,
            distance=path.distance[-1],
            shape=path.shape_distance[-1],
            flat=path.flat_distance[-1],
            resolution=path.resolution[-1],
            by_level=path.by_level[-1] + 1,
            distance_by_level=path.distance_by_level[-1],
            accuracy=accuracies[0][len(path.nearest) - 1],
            reference_accuracy=accuracies[1][nearest],
            excess=more,
        )
        lines.append(line)
    return lines


def compare_entries(own: dict, other: dict, values: str) -> tuple[EpochPath, np.ndarray]:
    """Compare an entry of a run's spectrum.json with its reference's, of the same kernel.

    values: softmax or one_hot. Returns the path of E epochs, and the excess (E, bands) of the clean
    labels. Raises UserError if no label is wrong.
    """
    shares, reference = own["shares"][values], other["shares"][values]
    if own["energies"]["individual"] is None:
        raise UserError("no label is wrong: there is no individual noise to compare runs by")
    profiles, reference_profiles = (as_array(s["individual"]) for s in (shares, reference))
    path = epoch_path(profiles, reference_profiles, as_array(own["energies"]["individual"]))
    clean, reference_clean = (as_array(s["clean"]) for s in (shares, reference))
    return path, excess(clean, reference_clean, path.nearest)


def _draw(config: dict) -> tuple:
    """What runs that differ only in their loss have in common."""
    own = config["flags"]
    return config["data"]["digest"], own["seed"], flags.fixed_in_study(own)


def _kernels(run: Path) -> dict[str, dict]:
    """The entries of a run's spectrum.json by the kernel's title and number of images."""
    content = read_spectrum(run)
    if content is None:
        raise UserError(f"{run}: no spectrum.json; {REMEDY}")
    return {f"{kernel_title(e)}, n {content['n']}": e for e in content["kernels"]}


def _accuracies(run: Path) -> list[float]:
    """The test accuracy after each epoch, in percent."""
    return [record["test_accuracy"] for record in run_folder.read_history(run)[0]]
