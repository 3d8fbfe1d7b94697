"""Split the networks' outputs into low and high frequency: frequency.json in each run.

    python frequency.py                            every run under runs/
    python frequency.py runs/cifar10-pair40        these runs only
    python frequency.py --delta 100 200 400        variances of the Gaussian filter
    python frequency.py --delta original           the original's twelve
    python frequency.py --values logits            of raw logits, as the original did

The filtering method of the F-Principle papers (arXiv 1901.06523): gaussian_filter.py has the
formula. delta is a variance, in squared normalised-pixel units. frequency.json holds `values`,
`digest` (of the data set), and for the test images under `test` and for the training images of
`train.py --probe` under `probe`

    n, delta     points and the list of deltas; what follows is for every delta of the list
    weight       how many points a filtered value is a mean of (median)
    null         expected lfr of shuffled values
    shuffled     {measure: [delta]} the two ratios expected of the true labels shuffled
    labels       {true, given, noise: {measure: [delta]}} of the labels as unit vectors;
                 noise = given - true; given and noise for the probe only
    outputs      {measure: [epoch][delta]} of the network
    products     the inner products behind them, so that a new measure needs no new pass

with the measures, norms being over all points and classes and y_low of y less its mean as `low`:

    delta_norm    |y_low| / (|y_low| + |y_high|), the original's README
    energy_share  |y_low|^2 / (|y_low|^2 + |y_high|^2), the original's code
    lfr           |low|^2 / |y - mean|^2; 1 for constant values
    excess        (lfr - null) / (1 - null): 0 for shuffled values, 1 for wholly low ones
    e_low, e_high |Y_low - h_low| / |Y_low| and likewise of outputs h against true labels Y (test)
    learned_true_low, learned_noise_low, learned_true_high, learned_noise_high
                  least-squares coefficients of the outputs' low (high) part on those of the true
                  labels and of the noise, means taken out (probe)

The last two rows are of softmax outputs only. A measure of a part that is zero (the high part
where the kernel is the identity, the noise where no label is wrong) is null.
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

import runs
from data import DataError, DataSet, normalize, read_dataset
from gaussian_filter import FilterSums, default_deltas, filter_sums

ORIGINAL_DELTAS = (1, 10, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)
COLUMN_BYTES = 2**28  # of the outputs that share a pass
PRODUCTS = ("mean", "total", "low", "high", "low_self", "high_self", "low_high", "low_sum")
EMPTY = 1e-20  # a part with less than this share of the energy is zero up to rounding


def low_energy(sums: FilterSums) -> Tensor:
    """|y_low|^2 (V, D): the mean, which passes the filter, put back."""
    cross = torch.einsum("vc,vcd->vd", sums.mean, sums.low_sum)
    return sums.low_self + 2 * cross + sums.count * sums.mean.square().sum(1, keepdim=True)


def ratios(low: Tensor, high: Tensor) -> dict[str, Tensor]:
    """delta_norm and energy_share of squared norms of one shape; 1 where both are zero."""
    both_zero = low + high == 0
    norm = low.sqrt() / (low.sqrt() + high.sqrt())
    share = low / (low + high)
    return {"delta_norm": norm.where(~both_zero, 1), "energy_share": share.where(~both_zero, 1)}


def null_ratio(sums: FilterSums) -> Tensor:
    """(|S|_F^2 - 1) / (n - 1) (D,): mean of |S y|^2 / |y|^2 over permutations of centred y."""
    return 1 - sums.lost / (sums.count - 1)


def low_frequency_ratio(sums: FilterSums) -> dict[str, Tensor]:
    """lfr (LFR of arXiv 1901.06523 on centred values) and its excess over the null (V, D)."""
    total = sums.total[:, None]
    above = (2 * sums.low_high + sums.high_self) / total  # 1 - lfr, precise where that is small
    constant = (total == 0).expand_as(above)
    excess = 1 - above / (sums.lost / (sums.count - 1))
    return {
        "lfr": (1 - above).where(~constant, 1),
        "excess": excess.where(sums.lost > EMPTY, 0).where(~constant, 1),
    }


def relative_errors(sums: FilterSums) -> dict[str, Tensor]:
    """e_low and e_high (V, D) against the first reference; NaN where its part is zero."""
    mean, low_sum = sums.mean - sums.mean[:1], sums.low_sum - sums.low_sum[:1]
    low = sums.low_self - 2 * sums.low[0] + sums.low_self[0]
    low += 2 * torch.einsum("vc,vcd->vd", mean, low_sum)
    low += sums.count * mean.square().sum(1, keepdim=True)
    high = sums.high_self - 2 * sums.high[0] + sums.high_self[0]
    parts = {"e_low": (low, low_energy(sums)[0]), "e_high": (high, sums.high_self[0])}
    limit = EMPTY * (parts["e_low"][1] + parts["e_high"][1])
    return {
        name: (error.clamp(min=0) / part).sqrt().where(part > limit, torch.nan)
        for name, (error, part) in parts.items()
    }


def learned_shares(sums: FilterSums) -> dict[str, Tensor]:
    """How much of the true labels' and of the noise's part each value holds, by band (V, D).

    Least squares within each band on the parts of references 0 (true) and 1 (noise), which are
    not orthogonal. NaN where a part is zero.
    """
    shares, limit = {}, EMPTY * sums.total[0]
    for band, (of_true, of_noise) in (("low", sums.low), ("high", sums.high)):
        true, cross, noise = of_true[0], of_true[1], of_noise[1]
        exists = noise > limit
        noise, cross = noise.where(exists, 1), cross.where(exists, 0)
        determinant = true * noise - cross.square()
        solvable = (true > limit) & (determinant > 1e-12 * true * noise)
        share = (noise * of_true - cross * of_noise) / determinant
        shares[f"learned_true_{band}"] = share.where(solvable, torch.nan)
        share = (true * of_noise - cross * of_true) / determinant
        shares[f"learned_noise_{band}"] = share.where(solvable & exists, torch.nan)
    return shares


def nested(values: Tensor) -> list:
    """Nested lists of numbers, None for NaN."""
    return np.where(values.isnan(), None, values.numpy()).tolist()


def analyse(sums: FilterSums, names: Sequence[str], deltas: Sequence[float], errors: bool) -> dict:
    """The `test` or `probe` part of frequency.json; the first values are the labels `names`."""
    found = {**ratios(low_energy(sums), sums.high_self), **low_frequency_ratio(sums)}
    own = dict(found)
    if errors:
        found |= learned_shares(sums) if len(sums.low) > 1 else relative_errors(sums)
    null, of_mean = null_ratio(sums), sums.count * sums.mean[0].square().sum()
    high = sums.total[0] * sums.removed / (sums.count - 1)
    shuffled = ratios(sums.total[0] * null + of_mean, high)
    return {
        "n": sums.count,
        "delta": list(deltas),
        "weight": nested(sums.weight),
        "null": nested(null),
        "shuffled": {measure: nested(values) for measure, values in shuffled.items()},
        "labels": {
            name: {measure: nested(values[row]) for measure, values in own.items()}
            for row, name in enumerate(names)
        },
        "outputs": {measure: nested(values[len(names) :]) for measure, values in found.items()},
        "products": {name: nested(getattr(sums, name)) for name in PRODUCTS},
    }


def as_points(images: np.ndarray, device: str) -> Tensor:
    """uint8 (n, H, W, 3) -> float32 (n, 3 H W) in normalised pixels."""
    return normalize(torch.from_numpy(images).to(device)).flatten(1)


def one_hot(labels: np.ndarray, classes: int) -> Tensor:
    """int64 (n,) -> float32 (n, classes)."""
    return F.one_hot(torch.from_numpy(labels), classes).float()


def analyse_part(
    images: np.ndarray,
    labels: dict[str, Tensor],
    references: int,
    logits: Sequence[np.ndarray],
    deltas: Sequence[float],
    args: argparse.Namespace,
) -> list[dict]:
    """The `test` or `probe` part of each run's frequency.json, from one pass.

    images: uint8 (n, H, W, 3); labels: (n, C) each, the first `references` of them to measure the
    outputs by; logits: (epochs, n, C) a run.
    """
    points = as_points(images, args.device)
    outputs = torch.from_numpy(np.concatenate(logits)).to(args.device)
    if args.values == "softmax":
        outputs = outputs.softmax(dim=2)
    known = torch.stack(list(labels.values())).to(args.device)
    values = torch.cat((known[references:], outputs))
    sums = filter_sums(points, known[:references], values, deltas)
    if (sums.removed < EMPTY * sums.count).all():
        print(
            f"frequency.py: --delta: no filter of {deltas} reaches another point; the smallest "
            f"useful delta here is about {sums.closest / (2 * math.log(100)):.3g}",
            file=sys.stderr,
        )
    parts, start = [], len(labels)
    for of_run in logits:
        rows = [*range(len(labels)), *range(start, start + len(of_run))]
        start += len(of_run)
        parts.append(analyse(sums.of_values(rows), list(labels), deltas, args.values == "softmax"))
    return parts


def read_outputs(path: Path, expected: tuple[int, int]) -> np.ndarray:
    """The logits (epochs, *expected) of a run. Raises RunError if they are of another shape."""
    logits, note = runs.read_logits(path)
    if logits.shape[1:] != expected or not len(logits):
        raise runs.RunError(
            f"{path} holds {len(logits)} epochs of {logits.shape[1:]} numbers, not of {expected} "
            "as its data set; train the run again"
        )
    if note:
        print(f"frequency.py: {note}", file=sys.stderr)
    return logits


def analyse_runs(folders: Sequence[Path], dataset: DataSet, args: argparse.Namespace) -> None:
    """Write frequency.json of runs on one data set with one probe, in one pass a part."""
    classes = dataset.num_classes
    test = {"true": one_hot(dataset.test_labels, classes)}
    index = np.load(folders[0] / "probe_indices.npy", allow_pickle=False)
    true, given = (one_hot(x[index], classes) for x in (dataset.clean_labels, dataset.train_labels))
    probe = {"true": true, "noise": given - true, "given": given}
    deltas = list(args.delta) or default_deltas(as_points(dataset.test_images, args.device))
    parts = {}
    for name, images, labels, references, file in (
        ("test", dataset.test_images, test, 1, "logits.npy"),
        ("probe", dataset.train_images[index], probe, 2, "probe_logits.npy"),
    ):
        logits = [read_outputs(run / file, (len(images), classes)) for run in folders]
        parts[name] = analyse_part(images, labels, references, logits, deltas, args)
    for k, run in enumerate(folders):
        content = {"values": args.values, "digest": dataset.sha256}
        runs.write_json(run / "frequency.json", content | {n: p[k] for n, p in parts.items()})
        epochs = len(parts["test"][k]["outputs"]["lfr"])
        print(f"{run / 'frequency.json'}: {epochs} epochs, {len(deltas)} deltas")


def passes(folders: Sequence[Path], data: Path | None) -> list[tuple[Path, str, list[Path]]]:
    """The runs, in groups that share a data set, a probe and a pass: (data, its digest, runs)."""
    groups: dict[tuple, list[Path]] = {}
    for run in folders:
        config = runs.read_config(run)
        try:
            probe = (run / "probe_indices.npy").read_bytes()
            size = (run / "probe_logits.npy").stat().st_size
        except FileNotFoundError as error:
            raise runs.RunError(f"{error.filename}: not there yet; train the run further") from None
        key = data or Path(config["flags"]["data"]), config["data"]["digest"], probe
        of_key = groups.setdefault(key, [[]])
        if sum((r / "probe_logits.npy").stat().st_size for r in of_key[-1]) + size > COLUMN_BYTES:
            of_key.append([])
        of_key[-1].append(run)
    return [(*key[:2], group) for key, of_key in groups.items() for group in of_key if group]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,  # so that an error is one line
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", nargs="*", type=Path, help="runs, or folders of them (default all of --runs)")
    add("--runs", type=Path, default=Path("runs"), help="the runs' folder (default runs)")
    add("--delta", nargs="+", help="variances of the filter, or `original` (default to fit)")
    add("--values", default="softmax", choices=("softmax", "logits"), help="default softmax")
    add("--data", type=Path, help="the data set, if it is no longer where train.py read it")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default auto")
    args = parser.parse_args(argv)
    try:
        original = args.delta == ["original"]
        args.delta = ORIGINAL_DELTAS if original else [float(word) for word in args.delta or []]
    except ValueError:
        parser.error(f"--delta {' '.join(args.delta)}: use numbers over 0, or `original`")
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
        for path, digest, folders in passes(runs.find_runs(args.run or [args.runs]), args.data):
            dataset = read_dataset(path)
            if dataset.sha256 != digest:
                raise runs.RunError(f"{folders[0]} is of another data set than {path}; name --data")
            analyse_runs(folders, dataset, args)
    except (DataError, runs.RunError, OSError) as error:
        print(f"frequency.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "frequency.py: interrupted; runs of an unfinished pass are as before", file=sys.stderr
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
