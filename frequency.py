"""Split the networks' test outputs into low and high frequency: frequency.json in each run.

    python frequency.py                            every run under runs/
    python frequency.py runs/cifar10-pair40        these runs only
    python frequency.py --delta 100 200 400        other variances of the Gaussian filter

The filtering method of the F-Principle papers (arXiv 1901.06523, section 4.2): over the n test
points x_i (normalised pixels) and values y_i,

    y_low_i = sum_j K_ij y_j / sum_j K_ij,   K_ij = exp(-|x_i - x_j|^2 / (2 delta)),
    y_high  = y - y_low.

delta is a variance, in squared normalised-pixel units. The values are softmax outputs: raw logits
would move with any constant added to them. frequency.json holds, beside `values`, `n` (test
points), `digest` (of the data set) and `delta` (list), for every delta of the list

    labels   {measure: [delta]} of the true labels as unit vectors
    outputs  {measure: [epoch][delta]} of the network

with the measures `delta_norm` = |y_low| / (|y_low| + |y_high|), `energy_share` = |y_low|^2 /
(|y_low|^2 + |y_high|^2) and, for outputs h against labels Y, `e_low` = |Y_low - h_low| / |Y_low|
and `e_high` likewise; norms are over all points and classes. A measure that does not exist (e_high
where the kernel is the identity and Y_high is zero) is null.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import runs
from data import DataError, normalize, read_dataset

DELTAS = (1, 10, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)  # the original's
TILE_BYTES = 2**26  # of one tile of the kernel
SMALLEST_EXPONENT = -80.0  # below -87 float32 exp meets denormal numbers, at a tenth of its speed
EMPTY = 1e-20  # a part with less than this share of the energy is zero up to rounding


def squared_distances(rows: Tensor, points: Tensor) -> Tensor:
    """|row_i - point_j|^2, float32 (t, n), for rows (t, d) and points (n, d).

    By matrix product; pairs so close that it would cancel are computed again by difference.
    """
    norms = (rows.square().sum(1)[:, None], points.square().sum(1)[None, :])
    distances = torch.addmm(norms[0] + norms[1], rows, points.T, alpha=-2).clamp_(min=0)
    close = (distances < 0.01 * (norms[0] + norms[1])).nonzero()
    for i, j in (part.T for part in close.split(4096)):
        distances[i, j] = (rows[i] - points[j]).square().sum(1)
    return distances


def split_energies(
    points: Tensor,
    labels: Tensor,
    outputs: Tensor,
    deltas: Sequence[float],
    tile_rows: int | None = None,
) -> dict[str, Tensor]:
    """Squared norms of the low and high parts, and of their errors against the labels.

    points: (n, d); labels: (n, C); outputs: (E, n, C); all float32 on one device. Returns float64
    on the CPU: `low` and `high` (1 + E, deltas), first row the labels', and `low_error` and
    `high_error` (E, deltas). The kernel exists only `tile_rows` rows at a time, shared by all
    epochs; by default as many rows as fit 64 MB.
    """
    count, classes = labels.shape
    rows = tile_rows or max(1, min(count, TILE_BYTES // (4 * count)))
    points = points - points.mean(0)  # distances stay, rounding errors shrink
    columns = torch.cat((labels[None], outputs)).permute(1, 0, 2).reshape(count, -1)
    sums = {name: [] for name in ("low", "high", "low_error", "high_error")}
    starts = tqdm(range(0, count, rows), "kernel tiles", leave=False, disable=None)
    for start in starts:
        tile = slice(start, min(start + rows, count))
        size = tile.stop - start
        distances = squared_distances(points[tile], points)
        here = torch.arange(size, device=points.device)
        of_tile = {name: [] for name in sums}
        for delta in deltas:
            kernel = (distances * (-0.5 / delta)).clamp_(min=SMALLEST_EXPONENT).exp_()
            # The point's own weight, 1, is added by hand: where the others' are small, y - y_low
            # would lose them to rounding.
            kernel[here, start + here] = 0
            others = kernel.sum(1, keepdim=True)  # (t, 1)
            summed = kernel @ columns  # (t, (1 + E) C)
            low = ((columns[tile] + summed) / (1 + others)).view(size, -1, classes)
            high = ((columns[tile] * others - summed) / (1 + others)).view(size, -1, classes)
            of_tile["low"].append(_energy(low))
            of_tile["high"].append(_energy(high))
            of_tile["low_error"].append(_energy(low[:, 1:] - low[:, :1]))
            of_tile["high_error"].append(_energy(high[:, 1:] - high[:, :1]))
        for name, energies in of_tile.items():
            sums[name].append(torch.stack(energies, dim=1).cpu())
    return {name: torch.stack(parts).sum(0) for name, parts in sums.items()}


def _energy(part: Tensor) -> Tensor:
    """(t, E, C) -> (E,): the sum of squares over points and classes, in float64."""
    return part.square().sum(dim=(0, 2), dtype=torch.float64)


def measures(low: Tensor, high: Tensor) -> dict[str, list]:
    """The two ratios of squared norms `low` and `high` of any one shape, as nested lists.

    delta_norm is the README's Delta of the original, energy_share what its code computes.
    """
    norm = low.sqrt() / (low.sqrt() + high.sqrt())
    return {"delta_norm": norm.tolist(), "energy_share": (low / (low + high)).tolist()}


def relative_error(error: Tensor, reference: Tensor, total: Tensor) -> list[list[float | None]]:
    """sqrt(error / reference) of squared norms (E, deltas) and (deltas,), as in arXiv 1901.06523.

    None where the reference is zero up to rounding, as a share of `total` (deltas,).
    """
    exists = reference > EMPTY * total
    value = (error / reference.where(exists, torch.ones_like(reference))).sqrt()
    return [
        [v if e else None for v, e in zip(row, exists.tolist(), strict=True)]
        for row in value.tolist()
    ]


def analyse(points: Tensor, labels: Tensor, outputs: Tensor, deltas: Sequence[float]) -> dict:
    """The `labels` and `outputs` parts of frequency.json; arguments as for split_energies."""
    energy = split_energies(points, labels, outputs, deltas)
    low, high = energy["low"][0], energy["high"][0]
    errors = {
        "e_low": relative_error(energy["low_error"], low, low + high),
        "e_high": relative_error(energy["high_error"], high, low + high),
    }
    return {
        "labels": measures(low, high),
        "outputs": {**measures(energy["low"][1:], energy["high"][1:]), **errors},
    }


def analyse_run(run: Path, data: Path | None, deltas: Sequence[float], device: str) -> dict:
    """The content of a run's frequency.json. Raises RunError or DataError."""
    config = runs.read_config(run)
    path = data or Path(config["flags"]["data"])
    dataset = read_dataset(path)
    if dataset.sha256 != config["data"]["digest"]:
        raise runs.RunError(f"{run} was trained on another data set than {path}; name its --data")
    logits = runs.read_logits(run / "logits.npy")
    expected = (len(dataset.test_labels), dataset.num_classes)
    if logits.shape[1:] != expected or not len(logits):
        raise runs.RunError(
            f"{run}/logits.npy is {logits.shape}, not (epochs, {expected}); retrain"
        )
    points = normalize(torch.from_numpy(dataset.test_images).to(device)).flatten(1)
    labels = F.one_hot(torch.from_numpy(dataset.test_labels), dataset.num_classes).to(points)
    outputs = torch.from_numpy(np.array(logits)).to(device).softmax(dim=2)
    return {
        "values": "softmax",
        "n": len(points),
        "digest": dataset.sha256,
        "delta": list(deltas),
        **analyse(points, labels, outputs, deltas),
    }


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,  # so that an error is one line
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", nargs="*", type=Path, help="runs, or folders of them (default all of --runs)")
    add("--runs", type=Path, default=Path("runs"), help="the runs' folder (default runs)")
    add("--delta", type=float, nargs="+", default=list(DELTAS), help="variances of the filter")
    add("--data", type=Path, help="the data set, if it is no longer where train.py read it")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default auto")
    args = parser.parse_args(argv)
    for delta in args.delta:
        if not 0 < delta < math.inf:
            parser.error(f"--delta {delta}: a variance is a number over 0, such as 400")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no CUDA device here; use --device auto or cpu")
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        for run in runs.find_runs(args.run or [args.runs]):
            content = analyse_run(run, args.data, args.delta, args.device)
            runs.write_json(run / "frequency.json", content)
            epochs = len(content["outputs"]["delta_norm"])
            print(f"{run / 'frequency.json'}: {epochs} epochs, {len(args.delta)} deltas")
    except (DataError, runs.RunError, OSError) as error:
        print(f"frequency.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
