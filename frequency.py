"""Measure the networks' outputs by frequency: frequency.json and memorization.json in each run.

    python frequency.py                            every run under runs/
    python frequency.py runs/cifar10-pair40        these runs only
    python frequency.py --delta 100 200 400        variances of the Gaussian filter
    python frequency.py --delta original           the original's twelve variances
    python frequency.py --values logits            raw logits, as the original did
    python frequency.py --eigenvectors             along a kernel's eigenvectors: spectrum.json

The filtering method of the F-Principle papers (arXiv 1901.06523). delta is a variance, in squared
normalized-pixel units; by default nine, half an octave apart, that suit the data set.
New deltas and new kernels are added to those that a run has. docs/method.md explains every measure.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from common.command_line import (
    DEVICES,
    Parser,
    UserError,
    add_runs_arguments,
    choose_device,
    end_quietly,
    explained,
    explained_memory,
    integer,
    number,
    run_script,
)

if __name__ == "__main__":
    end_quietly()  # on Ctrl-C, while Python imports the rest

import numpy as np

from analysis.history import ENOUGH_MASS, filtering
from common import run_folder
from common.files import making, without_nan
from dataset.make import sample_indices
from measures import RunArrays

ORIGINAL_DELTAS = [1, 10, *range(100, 1001, 100)]
variance = number(0, 1e30, above=True)  # at 1e300 the kernel has no numbers
KERNELS = ("gaussian", "ntk-initial", "ntk-final")
KERNEL_DELTAS = (564, 1600, 4000)
KERNEL_SIZE = 5000  # images at most: the time grows with their cube


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add_runs_arguments(parser)
    add = parser.add_argument
    add(
        "--delta",
        nargs="+",
        type=lambda text: ORIGINAL_DELTAS if text == "original" else [variance(text)],
        default=[],
        help="variances of the filter, or `original`; by default nine that suit the data; of "
        f"--eigenvectors' Gaussian kernels, by default {' '.join(map(str, KERNEL_DELTAS))}",
    )
    add("--values", choices=("softmax", "logits"), help="outputs to filter; by default softmax")
    add("--eigenvectors", action="store_true", help="measure along a kernel's eigenvectors instead")
    words = "of the pixels, or of the network at its start or checkpoint; by default gaussian"
    add("--kernels", nargs="+", choices=KERNELS, help=words)
    add("--size", type=integer(2), help="largest number of images in a kernel; by default 5000")
    add("--data", type=Path, help="the data set, if it has moved since training")
    add("--device", default="auto", choices=DEVICES, help="device to compute on")
    args = parser.parse_args(argv)
    if args.eigenvectors and args.values:
        parser.error("--values: not with --eigenvectors, which measures softmax; leave it out")
    if not args.eigenvectors and (args.kernels or args.size):
        parser.error("--kernels and --size are for eigenvectors; add --eigenvectors")
    if args.kernels and args.delta and "gaussian" not in args.kernels:
        parser.error("--delta is for kernel gaussian; add it to --kernels, or leave --delta out")
    args.delta = [delta for deltas in args.delta for delta in deltas]
    return args


def frequency(args: Namespace) -> int:
    """Measure the runs that the flags name; the exit status is 2 if none could be measured."""
    import torch

    from dataset.data_file import read_dataset

    torch.set_float32_matmul_precision("highest")  # TF32 would keep three digits of a distance
    device, read = choose_device(args.device), lru_cache(maxsize=1)(read_dataset)
    paths, left_out, spectra = run_folder.find_runs(args.run or [args.runs]), 0, {}
    for path in paths:
        try:
            with explained_memory("use --device cpu, or a smaller --size with --eigenvectors"):
                try:
                    run = open_run(path, args.data, read)
                except OSError as error:
                    raise explained(error) from None
                with making(path / run_folder.FREQUENCY):  # another process may add deltas
                    if args.eigenvectors:
                        measure_eigenvectors(run, args, device, spectra)
                    else:
                        measure_bands(run, args, device)
                        measure_memorization(run)
        except UserError as error:
            print(f"frequency.py: left out: {error}", file=sys.stderr, flush=True)
            left_out += 1
    return 2 if left_out == len(paths) else 0


@dataclass(frozen=True)
class Run:
    """A run that can be measured."""

    path: Path
    flags: dict  # of train.py
    dataset: object  # dataset.data_file.DataSet
    digest: str  # of the outputs
    arrays: RunArrays

    def read(self, name: str, key: str = "", value: object = None) -> dict:
        """A measure of these outputs; empty if there is none with this value of `key`."""
        old = run_folder.read_measure(self.path, name)[0] or {}
        if old.get(key, value) == value:
            return old
        again = f"is measured again, with {key} {value}; it had {key} {old[key]}"
        print(f"{self.path / name}: {again}", flush=True)
        return {}

    def write(self, name: str, content: dict) -> None:
        """Write a measure. Raises UserError if the run has other outputs by now."""
        if run_folder.outputs_digest(self.path) != self.digest:
            raise UserError(f"{self.path}: another process trains it; measure it when it is done")
        run_folder.write_measure(self.path, name, without_nan(content))


def open_run(path: Path, data: Path | None, read: Callable) -> Run:
    """A run with all its epochs, checked against its data set, which `read` reads.

    data: where the data set is, if config.json's path is outdated. Raises UserError.
    """
    config, digest = run_folder.read_config(path), run_folder.outputs_digest(path)
    flags = config["flags"]
    if len(run_folder.read_history(path)[0]) < flags["epochs"]:
        raise UserError(f"{path}: is unfinished; repeat its train.py command with --resume")
    data = data or Path(flags["data"])
    dataset, index = read(data), run_folder.read_sample_indices(path)
    if dataset.sha256 != config["data"]["digest"]:
        raise UserError(f"{path} was not trained on {data}; name its data set with --data")
    if not np.array_equal(index, sample_indices(dataset, flags.get("sample_size"))):
        raise UserError(f"{path / run_folder.SAMPLE_INDICES}: other images; {run_folder.RESUME}")
    count, test_count = len(index), len(dataset.test_labels)
    if min(count, test_count) < 2:
        more = "train with more test images, or a larger --sample-size"
        raise UserError(f"{path}: a filter needs two images; {more}")
    classes = dataset.num_classes
    arrays = RunArrays(
        test_images=dataset.test_images,
        test_labels=dataset.test_labels,
        test_logits=run_folder.read_outputs(path, run_folder.TEST_LOGITS, test_count, classes),
        images=dataset.train_images[index],
        clean=dataset.clean_labels[index],
        noisy=dataset.train_labels[index],
        logits=run_folder.read_outputs(path, run_folder.SAMPLE_LOGITS, count, classes),
        training_labels=(dataset.clean_labels, dataset.train_labels),
    )
    return Run(path, flags, dataset, digest, arrays)


def measure_bands(run: Run, args: Namespace, device) -> None:
    """Write frequency.json, unless it has the deltas."""
    from measures import bands, gaussian

    path, values = run.path / run_folder.FREQUENCY, args.values or "softmax"
    old = run.read(run_folder.FREQUENCY, "values", values)
    measured = set(old["test"]["delta"] if old else [])
    points = bands.as_points(run.arrays.test_images, device)
    wanted = args.delta or gaussian.default_deltas(run.dataset.meta.get("source"), points)
    if measured.issuperset(wanted):
        print(f"{path}: nothing to do, it has these deltas", flush=True)
        return
    deltas = sorted(measured.union(wanted))
    print(f"{path}: {len(run.arrays.logits)} epochs, {len(deltas)} deltas ...", flush=True)
    content = bands.measure_bands(run.arrays, deltas, values, device)
    run.write(run_folder.FREQUENCY, content)
    idle = ", ".join(f"{delta:g}" for delta in sorted({*deltas} - {*filtering(content["test"])}))
    why = f"(median kernel mass below {ENOUGH_MASS}, usual with few images)"
    print(f"{path}: written" + (f"; too small to filter: {idle} {why}" if idle else ""), flush=True)


def measure_memorization(run: Run) -> None:
    """Write memorization.json, unless it is there."""
    from measures import memorization

    if not run.read(run_folder.MEMORIZATION):
        run.write(run_folder.MEMORIZATION, memorization.measure_memorization(run.arrays))
        print(f"{run.path / run_folder.MEMORIZATION}: written", flush=True)


def measure_eigenvectors(run: Run, args: Namespace, device, spectra: dict) -> None:
    """Write spectrum.json, or add the kernels that it lacks; spectra: see `label_spectrum`."""
    from measures import parts, spectrum

    path, arrays, count = run.path / run_folder.SPECTRUM, run.arrays, len(run.arrays.noisy)
    size = min(args.size or KERNEL_SIZE, count)
    old = run.read(run_folder.SPECTRUM, "n", size).get("kernels", [])
    entries = {(entry["kernel"], entry["delta"]): entry for entry in old}
    deltas = {"gaussian": args.delta or KERNEL_DELTAS}
    wanted = [(k, d) for k in args.kernels or ["gaussian"] for d in deltas.get(k, [None])]
    missing = [kernel for kernel in dict.fromkeys(wanted) if kernel not in entries]
    if not missing:
        print(f"{path}: nothing to do, it has these kernels", flush=True)
    some = np.arange(size) * count // size
    labels, dropped = parts.split_labels(
        arrays.clean[some], arrays.noisy[some], run.dataset.num_classes, arrays.training_labels
    )
    logits = arrays.logits if size == count else arrays.logits[:, some]
    for name, delta in missing:
        title = name if delta is None else f"{name} of delta {delta:g}"
        print(f"{path}: {len(logits)} epochs, {size} images, {title} ...", flush=True)
        try:
            found = label_spectrum(name, delta, run, some, labels, device, spectra)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{run.path}, {title}: {error}; leave it out") from error
        measures = spectrum.measure_spectrum(found, logits, dropped)
        entries[name, delta] = {"kernel": name, "delta": delta, **measures}
        order = sorted(entries, key=lambda entry: (entry[0], entry[1] or 0))
        content = {"n": size, "kernels": [entries[entry] for entry in order]}
        run.write(run_folder.SPECTRUM, content)
        print(f"{path}: written", flush=True)


def label_spectrum(
    name: str, delta: float | None, run: Run, some: np.ndarray, labels: dict, device, spectra: dict
):
    """The parts (n, C) of the labels along a kernel over the images `some` of the train sample.

    spectra: those of the runs before, by what decides them; those of other images are dropped.
    """
    import torch

    from dataset.batches import normalize
    from measures import kernels, spectrum
    from training.run import START, load_network

    images = run.dataset.sha256, run.flags.get("sample_size"), len(some)
    start = [run.flags.get(flag) for flag in START] if name == "ntk-initial" else []
    key = images, name, delta, str(start)
    if key in spectra:
        return spectra[key]
    for other in [other for other in spectra if other[0] != images]:
        del spectra[other]
    points = normalize(torch.from_numpy(run.arrays.images[some]).to(device))
    if name == "gaussian":
        kernel = kernels.gaussian_kernel(points, delta)
    else:
        model, _ = load_network(run.path, run.dataset, device, initial=name == "ntk-initial")
        model = kernels.calibrated(model, points) if name == "ntk-initial" else model
        vectors = kernels.output_vectors(run.dataset.num_classes)
        kernel = kernels.tangent_kernel(model, points, vectors)
    print("  its eigenvectors ...", flush=True)
    found = spectrum.label_spectrum(kernel, labels)
    if name != "ntk-final":  # each run has its own
        spectra[key] = found
    return found


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return run_script("frequency.py", lambda: frequency(args), "measured runs are kept")


if __name__ == "__main__":
    sys.exit(main())
