"""The runs that are compared: from their folders or from history.json, by noise, series and seed.

history.json holds every curve of every run:

    runs   a list of {run, loss, network, seed, epochs, settings, data, measured_from,
           history: {name: [epoch]}, memorization: {name: [epoch]} or null,
           frequency: frequency.json or null, spectrum: spectrum.json or null}

A value that does not exist is null in the file and NaN here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common import run_folder
from common.command_line import UserError
from common.files import read_json, write_text
from dataset.noise import noise_title

CROSS_ENTROPY = "cross-entropy"  # the loss that the others are compared with
# Flags that say where a run is and how its numbers are computed: runs that are averaged may differ.
PLACE = ("data", "runs", "run", "resume", "overwrite", "evaluate", "device", "compile", "amp")
# Flags that the loss's name tells, and the seed.
NAMED = ("dis", "loss", "seed")
# What differs between the data sets of one noise that are made with different seeds.
SEEDED = ("name", "digest", "seed", "sha256", "transitions", "rate_found", "val_rate_found")
REMEDY = "make it with collect_history.py"


@dataclass(frozen=True)
class Run:
    """One trained run: what it is, and its curves as float64 arrays (epochs,)."""

    name: str  # <data set>/<run>
    loss: str  # the title that its loss gives itself
    network: str  # the network's title, with the averaged weights
    seed: int
    epochs: int  # that were asked for
    settings: dict  # flags of train.py, without PLACE
    data: dict  # name, digest and meta of the data set
    measured_from: str  # digest of all outputs: equal digests mean the same run
    history: dict[str, np.ndarray]
    memorization: dict[str, np.ndarray] = field(default_factory=dict)  # empty if not measured
    frequency: dict | None = None  # content of frequency.json
    spectrum: dict | None = None  # content of spectrum.json

    @property
    def is_complete(self) -> bool:
        """Whether the run has all the epochs that were asked for."""
        return len(self.history["epoch"]) >= self.epochs

    @property
    def key(self) -> int | str:
        """The seed, or <data-set seed>/<seed> where the two differ."""
        data_seed = self.data.get("seed", self.seed)
        return self.seed if data_seed == self.seed else f"{data_seed}/{self.seed}"

    @property
    def gap(self) -> np.ndarray:
        """The memorization gap in points (epochs,): NaN where no label is wrong.

        Accuracy on the clean labels among the rightly minus among the wrongly labeled images of the
        train sample.
        """
        right, wrong = "sample_clean_accuracy_right", "sample_clean_accuracy_wrong"
        return self.history[right] - self.history[wrong]

    def band(self, section: str, measure: str, delta: float, values: str = "outputs") -> np.ndarray:
        """A measure of frequency.json at `delta`, by epoch (epochs,).

        section: test or sample; values: outputs or one_hot. Raises UserError if it is not there.
        """
        if self.frequency is None:
            raise UserError("no frequency.json in every run: run frequency.py")
        content = self.frequency[section]
        if delta not in content["delta"]:
            measured = ", ".join(f"{d:g}" for d in content["delta"])
            raise UserError(
                f"--delta {delta:g} was not measured: use one of {measured}, or run frequency.py "
                f"--delta {delta:g}"
            )
        if measure not in content[values]:
            raise UserError("frequency.json of logits: run frequency.py without --values")
        return np.array(content[values][measure], float)[:, content["delta"].index(delta)]


Series = dict[str, dict[int | str, Run]]  # title of the series -> seed -> run


def collect(sources: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The runs of the sources, each once, and notes on what is left out.

    sources: runs, folders of runs, and files of history.json. A run that cannot be read is named in
    a note and left out. Raises UserError if nothing is left.
    """
    runs: dict[tuple, Run] = {}
    notes: list[str] = []
    for source in map(Path, sources):
        if source.suffix == ".json":
            found = read_history(source)
        else:
            found = []
            for folder in run_folder.find_runs([source]):
                try:
                    run, more = read_run(folder)
                except UserError as error:
                    more = [f"left out: {error}"]
                else:
                    found.append(run)
                notes += more
        for run in found:
            runs[run.name, run.measured_from] = run
    if not runs:
        raise UserError("; ".join(notes) or f"{sources[0]}: no run in it; make one with train.py")
    return list(runs.values()), notes


def read_run(folder: Path) -> tuple[Run, list[str]]:
    """A run from its folder, and notes. Raises UserError if it is damaged or has no epoch yet."""
    config, (records, note) = run_folder.read_config(folder), run_folder.read_history(folder)
    measures, notes = {}, [note]
    for name in run_folder.MEASURES:
        measures[name], note = run_folder.read_measure(folder, name)
        notes.append(note)
    content = {
        "run": f"{config['data']['name']}/{folder.resolve().name}",
        "loss": config["loss"],
        "network": config["network"],
        "seed": config["flags"]["seed"],
        "epochs": config["flags"]["epochs"],
        "settings": {k: v for k, v in config["flags"].items() if k not in PLACE},
        "data": config["data"],
        "measured_from": run_folder.outputs_digest(folder),
        "history": {k: [record[k] for record in records] for k in records[0] if k != "sha256"},
        "memorization": (measures[run_folder.MEMORIZATION] or {}).get("curves"),
        "frequency": measures[run_folder.FREQUENCY],
        "spectrum": measures[run_folder.SPECTRUM],
    }
    try:
        return as_run(content), [note for note in notes if note]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: damaged ({error!r}); train it again") from error


def as_run(content: dict) -> Run:
    """A Run of an entry of history.json. Raises KeyError, TypeError or ValueError for another."""
    curves = {
        name: {k: np.array(curve, float) for k, curve in (content[name] or {}).items()}
        for name in ("history", "memorization")
    }
    lengths = {len(curve) for group in curves.values() for curve in group.values()}
    for name, sections in (("frequency", ("test", "sample")), ("spectrum", ())):
        for section in sections if content[name] else ():
            lengths |= {len(rows) for rows in content[name][section]["outputs"].values()}
    if len(lengths) != 1 or curves["history"]["test_accuracy"].ndim != 1:
        raise ValueError("curves of different lengths")
    names = ("loss", "network", "seed", "epochs", "settings", "data", "measured_from")
    values = {name: content[name] for name in (*names, "frequency", "spectrum")}
    noise_title(content["data"])
    return Run(content["run"], **values, **curves)


def write_history(path: Path, runs: Sequence[Run], digits: int | None = None) -> None:
    """Write history.json, one run per line, whole or not at all. Raises OSError.

    digits: round every number to this many significant digits, for files under version control.
    """

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | np.ndarray):
            return [plain(item) for item in value]
        if isinstance(value, float):
            if not np.isfinite(value):
                return None
            return float(f"{value:.{digits}g}") if digits else float(value)
        return value

    lines = []
    for run in runs:
        content = {"run": run.name, **{k: v for k, v in vars(run).items() if k != "name"}}
        content["memorization"] = content["memorization"] or None
        lines.append(json.dumps(plain(content), separators=(",", ":"), allow_nan=False))
    write_text(path, '{"runs": [\n' + ",\n".join(lines) + "\n]}\n")


def read_history(path: Path) -> list[Run]:
    """Read history.json. Raises UserError if it is missing, damaged, or another file."""
    content = read_json(path, REMEDY)
    try:
        runs = [as_run(entry) for entry in content["runs"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a history.json ({error!r}); {REMEDY}") from error
    if not runs:
        raise UserError(f"{path}: no run in it; {REMEDY}")
    return runs


def complete_runs(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs that have all their epochs, and a note on each of the others."""
    complete = [run for run in runs if run.is_complete]
    notes = [
        f"{run.name}: {len(run.history['epoch'])} of {run.epochs} epochs, left out; go on with "
        "train.py --resume"
        for run in runs
        if not run.is_complete
    ]
    return complete, notes


def by_noise(runs: Sequence[Run]) -> dict[str, Series]:
    """noise title -> series title -> seed -> run; cross-entropy first in each noise.

    A series is a loss under one setting. Where the settings of the runs differ, the title names
    what differs. Data sets that differ in more than their seed are apart; where only that tells
    them apart, the title names the data set's files. Raises UserError if two runs have the same
    place.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        fixed = {k: v for k, v in run.data.items() if k not in SEEDED}
        groups.setdefault(json.dumps(fixed, sort_keys=True, default=str), []).append(run)
    titles = []
    for members in groups.values():
        rate = float(np.mean([run.data["rate_found"] for run in members]))
        titles.append(noise_title({**members[0].data, "rate_found": rate}))
    noises: dict[str, Series] = {}
    for title, members in zip(titles, groups.values(), strict=True):
        if titles.count(title) > 1:
            title = f"{title}, {common_name([run.data['name'] for run in members])}"
        noises[title] = by_series(members, differing_settings(runs))
    return noises


def by_series(runs: Sequence[Run], differing: Sequence[str]) -> Series:
    """series title -> seed -> run, cross-entropy first. Raises UserError for two of one place."""
    series: Series = {}
    order = sorted(runs, key=lambda run: (run.loss != CROSS_ENTROPY, str(run.key).zfill(9)))
    for run in order:
        place = series.setdefault(series_title(run, differing), {})
        if run.key in place:
            raise UserError(
                f"{place[run.key].name} and {run.name} have the same loss, setting and seed; name "
                "one of them only"
            )
        place[run.key] = run
    return series


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """The settings in which runs of one loss differ, other than the seed."""
    differing = []
    for name in dict.fromkeys(name for run in runs for name in run.settings):
        by_loss: dict[str, set] = {}
        for run in runs:
            by_loss.setdefault(run.loss, set()).add(str(run.settings.get(name)))
        if name not in NAMED and any(len(values) > 1 for values in by_loss.values()):
            differing.append(name)
    return differing


def series_title(run: Run, differing: Sequence[str]) -> str:
    """The loss, and what the run's setting has that others do not: cross-entropy, lr 0.02."""
    words = [run.loss]
    if {"model", "depth", "width", "ema_decay"} & set(differing):
        words.append(run.network)
    for name in differing:
        if name not in ("model", "depth", "width", "ema_decay"):
            words.append(f"{name.replace('_', ' ')} {run.settings.get(name)}")
    return ", ".join(words)


def common_name(names: Sequence[str]) -> str:
    """The common start of data sets' names: cifar10-pair40 of cifar10-pair40-seed1 and -seed2."""
    first, last = min(names), max(names)
    length = next((k for k, c in enumerate(first) if k >= len(last) or c != last[k]), len(first))
    start = first[:length].rstrip("0123456789") if length < len(first) else first
    return start.removesuffix("seed").rstrip("-") or first
