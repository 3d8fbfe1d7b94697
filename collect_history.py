"""Collect every curve of every run in one file, history.json, and find curves in it.

    python collect_history.py                          every run under runs/
    python collect_history.py runs/cifar10-pair40      these runs only

history.json holds `data` (the data set's name, digest, noise, rates and sizes) and `runs`, a list
of {run, loss, network, seed, settings, history: {name: [epoch]}, frequency: frequency.json's
content less its inner products, or null}. All runs are of one data set.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import runs

Curve = Callable[[dict], list]  # of one run of history.json, over its epochs

LOSS_AND_SEED = ("dis", "teacher", "soft", "weight", "seed", "device")  # what runs may differ in
DROPPED = ("data", "runs", "run", "resume", "overwrite")  # flags that do not shape the numbers


def collect(paths: Sequence[Path]) -> tuple[dict, list[str]]:
    """The content of history.json for the runs at or below `paths`, and notes for the user.

    Raises RunError if there is no run, one is unreadable, or they are of different data sets.
    """
    collected, notes = [], []
    data, first = None, None
    for run in runs.find_runs(paths):
        config = runs.read_config(run)
        records, note = runs.read_history(run)
        data, first = data or config["data"], first or run
        if config["data"]["digest"] != data["digest"]:
            raise runs.RunError(
                f"{first} and {run} are of two data sets; name the runs of one, "
                f"such as {first.parent}"
            )
        notes += [note] if note else []
        collected.append(
            {
                "run": run.name,
                "loss": config["loss"],
                "network": config["network"],
                "seed": config["flags"]["seed"],
                "settings": {k: v for k, v in config["flags"].items() if k not in DROPPED},
                "history": {key: [record[key] for record in records] for key in records[0]},
                "frequency": read_frequency(run / "frequency.json"),
            }
        )
    return {"data": data, "runs": collected}, notes


def read_frequency(path: Path) -> dict | None:
    """A run's frequency.json less its inner products; None if there is none yet."""
    if not path.exists():
        return None
    content = runs.read_json(path, "make it again with frequency.py")
    for part in ("test", "probe"):
        if part not in content:
            raise runs.RunError(f"{path}: it has no `{part}`; make it again with frequency.py")
        content[part].pop("products", None)
    return content


def by_loss(history: dict) -> dict[str, dict[int, dict]]:
    """loss -> seed -> run of history.json, cross-entropy and the original's distillation first.

    Raises RunError if the runs differ in more than loss and seed, for they have no common mean.
    """
    groups: dict[str, dict[int, dict]] = {runs.PLAIN: {}, runs.DISTILLED: {}}
    first = history["runs"][0]
    for run in history["runs"]:
        for name, now in run["settings"].items():
            before = first["settings"].get(name)
            if before != now and name not in LOSS_AND_SEED:
                raise runs.RunError(
                    f"runs {first['run']} and {run['run']} differ in {name}: {before}, {now}; "
                    "name the runs of one setting"
                )
        other = groups.setdefault(run["loss"], {}).setdefault(run["seed"], run)
        if other is not run:
            raise runs.RunError(
                f"runs {other['run']} and {run['run']} have one loss and one seed; name one of them"
            )
    return {loss: seeds for loss, seeds in groups.items() if seeds}


def of_history(name: str) -> Curve:
    """The curve `name` of a run's history."""
    return lambda run: run["history"][name]


def of_frequency(part: str, measure: str, column: int) -> Curve:
    """A measure of frequency.json (part test or probe) at the column-th delta, over epochs."""
    return lambda run: [row[column] for row in run["frequency"][part]["outputs"][measure]]


def measured(history: dict, part: str, measures: Sequence[str]) -> dict:
    """The test or probe part of the first run's frequency.json, whose deltas all runs share.

    Raises RunError, with the remedy, unless every run has `measures` at these deltas.
    """
    for run in history["runs"]:
        if run["frequency"] is None:
            raise runs.RunError("no frequency.json in every run: run frequency.py")
        if run["frequency"][part]["delta"] != history["runs"][0]["frequency"][part]["delta"]:
            raise runs.RunError("frequency.json of different deltas: run frequency.py")
        if not set(measures) <= set(run["frequency"][part]["outputs"]):
            raise runs.RunError("frequency.json of logits: run frequency.py without --values")
    return history["runs"][0]["frequency"][part]


def column_of(deltas: Sequence[float], delta: float | None, default: float) -> int:
    """The index of `delta`, or of that nearest to `default` if it is None. Raises RunError."""
    if delta is None:
        return min(range(len(deltas)), key=lambda k: abs(math.log(deltas[k] / default)))
    if delta not in deltas:
        raise runs.RunError(
            f"--delta {delta:g} was not measured: run frequency.py --delta {delta:g}, or use one "
            f"of {', '.join(f'{d:g}' for d in deltas)}"
        )
    return deltas.index(delta)


def stack(curves: Sequence[Sequence[float]]) -> np.ndarray:
    """(runs, epochs) float64 over the epochs that all curves have; NaN where there is no value."""
    epochs = min(len(curve) for curve in curves)
    return np.array([curve[:epochs] for curve in curves], dtype=float)


def summary_line(run: dict) -> str:
    """Last, best and late test accuracy of one run of history.json, in percent."""
    accuracy = run["history"]["test_accuracy"]
    best = max(accuracy)
    last = accuracy[-5:]
    return (
        f"{run['run']}: {len(accuracy)} epochs, test accuracy last {accuracy[-1]:.2f}%, best "
        f"(oracle) {best:.2f}% at epoch {accuracy.index(best) + 1}, "
        f"mean of the last {len(last)} {sum(last) / len(last):.2f}%"
    )


def over_seeds(values: Sequence[float | None], unit: str = "") -> str:
    """Mean and, of several, the range, as in 58.1% [57.6, 58.6]."""
    known = [value for value in values if value is not None]
    if not known:
        return "none"
    text = f"{np.mean(known):.3g}{unit}"
    return text + (f" [{min(known):.3g}, {max(known):.3g}]" if len(known) > 1 else "")


def late_mean(curve: Sequence[float | None], epochs: int = 5) -> float | None:
    """Mean of the last epochs of a curve; None where it has no values."""
    return None if curve[-1] is None else float(np.mean(curve[-epochs:]))


def loss_summary(history: dict) -> list[str]:
    """For each loss, late values (mean of the last five epochs) over seeds: mean [range]."""
    lines = []
    for loss, seeds in by_loss(history).items():

        def late(curve: Curve, unit: str = "", of_seeds: Sequence = tuple(seeds.values())) -> str:
            return over_seeds([late_mean(curve(run)) for run in of_seeds], unit)

        best = over_seeds([max(run["history"]["test_accuracy"]) for run in seeds.values()], "%")
        lines.append(
            f"{loss}, n = {len(seeds)}: late test accuracy {late(of_history('test_accuracy'), '%')}"
            f", best (oracle) {best}; wrong labels learnt (probe) "
            f"{late(of_history('probe_memorized'), '%')}"
        )
        shares = [f"learned_{p}_{band}" for p in ("true", "noise") for band in ("low", "high")]
        for part, names in (("test", ["e_low", "e_high"]), ("probe", shares)):
            try:
                deltas = measured(history, part, names)["delta"]
            except runs.RunError:
                continue
            k = column_of(deltas, None, default=deltas[len(deltas) * 5 // 9])
            found = [f"{name} {late(of_frequency(part, name, k))}" for name in names]
            lines.append(f"  {part}, delta {deltas[k]:g}: {', '.join(found)}")
    return lines


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,  # so that an error is one line
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", nargs="*", type=Path, help="runs, or folders of them (default all of --runs)")
    add("--runs", type=Path, default=Path("runs"), help="the runs' folder (default runs)")
    add("--out", type=Path, default=Path("history.json"), help="default history.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        history, notes = collect(args.run or [args.runs])
        runs.write_json(args.out, history)
    except (runs.RunError, OSError) as error:
        print(f"collect_history.py: {error}", file=sys.stderr)
        return 2
    for note in notes:
        print(f"collect_history.py: {note}", file=sys.stderr)
    print(*map(summary_line, history["runs"]), sep="\n")
    try:
        print(*loss_summary(history), sep="\n")
    except runs.RunError as error:
        print(f"no summary over seeds: {error}")
    print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
