"""The runs that are compared: from their folders or from history.json, by noise, series and seed.

history.json holds every curve of every run:

    runs   a list of {run, loss, network, seed, epochs, settings, data, measured_from,
           history: {name: [epoch]}, memorization: {name: [epoch]} or null,
           frequency: frequency.json or null, spectrum: spectrum.json or null}

A value that does not exist is null in the file and NaN here.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from common import run_folder
from common.command_line import UserError, explained
from common.files import read_json, without_nan, write_text
from dataset.data_file import LABELS, array_digest
from dataset.noise import noise_title
from losses import LOSSES, flags_of

CROSS_ENTROPY = "cross-entropy"  # the loss that the others are compared with
SELF_DISTILLATION = "self-distillation"  # how the titles of the loss in question start
# Flags that say where a run is and how it was computed: runs that are averaged may differ in them.
PLACE = ("data", "runs", "run", "resume", "overwrite", "evaluate", "device", "compile")
PLACE += ("cuda_graphs",)  # of runs that results/PLAN.md began
# Flags that the titles of the loss and of the network tell, and the seed.
NAMED = {"dis", "loss", "seed", "model", "depth", "width", "ema_decay"}
NAMED |= {name for loss in LOSSES.values() for name in flags_of(loss)}
# Meta that data sets of one kind differ in: by their seed, or by machine and generate.py.
SEEDED = ("name", "digest", "seed", "sha256", "transitions", "rate_found", "val_rate_found")
MAKING = ("format", "source_sha256")
CURVES = {"epoch", "test_accuracy", "val_accuracy", "sample_memorized"}  # that every run has
TYPES = {"run": str, "loss": str, "network": str, "measured_from": str}
TYPES |= {"seed": int, "epochs": int, "settings": dict, "data": dict}
MEASURES = ("memorization", "frequency", "spectrum")
ENOUGH_MASS = 2  # below this median kernel mass, a filtered value is mostly the image's own
ACCURACY_TOLERANCE = 0.05  # points: on another device, tied outputs may give another class
NAN = float("nan")
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
    def setting(self) -> dict:
        """What runs of one series share: the network, and the flags that no title tells."""
        flags = {k: v for k, v in self.settings.items() if k not in NAMED}
        return {"network": self.network, **flags}

    def curve(self, name: str) -> np.ndarray:
        """A curve of history.jsonl or memorization.json (epochs,); NaN where it is not known."""
        unknown = np.full(len(self.history["epoch"]), NAN)
        return self.history.get(name, self.memorization.get(name, unknown))

    @property
    def gap(self) -> np.ndarray:
        """The memorization gap in points (epochs,): NaN where no label is wrong."""
        wrong = self.curve("sample_clean_accuracy_wrong")
        return self.curve("sample_clean_accuracy_right") - wrong

    def band(self, section: str, measure: str, delta: float, values: str = "outputs") -> np.ndarray:
        """A measure of frequency.json at one of its deltas, by epoch (epochs,).

        section: test or sample; values: outputs or one_hot. Raises UserError if it is not there.
        """
        content = self.frequency[section]
        if measure not in content.get(values, {}):
            raise UserError("frequency.json of logits: run frequency.py without --values")
        return np.array(content[values][measure], float)[:, content["delta"].index(delta)]


Series = dict[str, dict[int | str, Run]]  # title of the series -> seed -> run
Noises = dict[str, Series]  # title of the noise -> its series


def all_runs(noises: Noises) -> list[Run]:
    """Every run of the noises."""
    return [run for series in noises.values() for runs in series.values() for run in runs.values()]


def filtering(section: dict) -> list[float]:
    """The deltas of a section of frequency.json that filter: median kernel mass >= ENOUGH_MASS."""
    pairs = zip(section["delta"], section["mass"], strict=True)
    return [delta for delta, mass in pairs if mass is not None and mass >= ENOUGH_MASS]


def nearest(deltas: Iterable[float], wanted: float) -> float:
    """The delta nearest to `wanted` in its logarithm; NaN if there is none."""
    return min(deltas, key=lambda delta: abs(np.log(delta / wanted)), default=NAN)


def collect(
    sources: Sequence[Path], accept_unfinished: bool = False
) -> tuple[list[Run], list[str]]:
    """The complete runs of the sources, each once, and notes on those that are left out.

    sources: runs, folders of runs, and history.json files. accept_unfinished: if none is
    complete, take the unfinished ones. Raises UserError if none is left.
    """
    found, notes = [], []
    for source in sources:
        if source.suffix == ".json" or source.is_file():
            found += read_history(source)
            continue
        for folder in run_folder.find_runs([source]):
            try:
                run, more = read_run(folder)
                found.append(run)
                notes += more
            except (UserError, OSError) as error:
                reason = explained(error) if isinstance(error, OSError) else error
                notes.append(f"left out: {reason}")
    if not found:
        raise UserError("; ".join(notes))
    runs: dict[tuple, Run] = {}
    for run in found:
        key = run.data["digest"], run.measured_from, run.loss, run.seed
        key += (str(sorted(run.settings.items())),)
        earlier = runs.get(key, run)
        if earlier.name != run.name:
            notes.append(f"{run.name}: the same run as {earlier.name}, counted once")
        check_copies(earlier, run)
        # A file may hold a run that has been measured since, or whose folder is gone.
        kept = {name: getattr(run, name) or getattr(earlier, name) for name in MEASURES}
        runs[key] = replace(run, name=earlier.name, **kept)
    complete = [run for run in runs.values() if run.is_complete]
    if accept_unfinished and not complete:
        return list(runs.values()), [*notes, "no run has all its epochs: shown unfinished"]
    notes += [
        f"{run.name}: {len(run.history['epoch'])} of {run.epochs} epochs, left out; repeat its "
        "train.py command with --resume"
        for run in runs.values()
        if not run.is_complete
    ]
    if not complete:
        raise UserError(f"no run has all its epochs: {'; '.join(notes)}")
    return complete, notes


def check_copies(one: Run, other: Run) -> None:
    """Raise UserError if two copies of a run differ by more than the rounding of --digits."""
    for name in sorted(one.history.keys() - {"seconds", "images_per_second"}):
        pair = one.curve(name), other.curve(name)
        if len(pair[0]) != len(pair[1]) or not np.allclose(*pair, 1e-3, 1e-6, equal_nan=True):
            raise UserError(f"{one.name}: two sources differ in its {name}; name only one")


def read_run(folder: Path) -> tuple[Run, list[str]]:
    """A run from its folder, and notes. Raises UserError if it is damaged or has no epoch yet."""
    config, (records, note) = run_folder.read_config(folder), run_folder.read_history(folder)
    notes, measures = [note], {}
    for name in MEASURES:
        measures[name], note = run_folder.read_measure(folder, f"{name}.json")
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
        **measures,
        "memorization": (measures["memorization"] or {}).get("curves"),
    }
    try:
        run = as_run(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: damaged ({error!r}); train it again") from error
    check_accuracies(folder, Path(config["flags"]["data"]), run)
    return run, [note for note in notes if note]


def check_accuracies(folder: Path, data: Path, run: Run) -> None:
    """Raise UserError unless the outputs have the accuracies of history.jsonl.

    data: the file of the run's data set. Nothing is compared without it, or without outputs.
    """
    try:
        with np.load(data, allow_pickle=False) as file:
            arrays = [file[name] for name in LABELS]
        if [array_digest(array) for array in arrays] != [run.data["sha256"][n] for n in LABELS]:
            return
    except Exception:  # no data set, or a damaged one, which can make numpy fail in any way
        return
    noisy, clean, val, test = arrays
    has_sample = (folder / run_folder.SAMPLE_LOGITS).is_file()
    index = run_folder.read_sample_indices(folder) if has_sample else slice(0)
    noisy, clean = noisy[index], clean[index]
    wrong = noisy != clean
    expected = {
        run_folder.TEST_LOGITS: {"test_accuracy": (test, slice(None))},
        run_folder.VAL_LOGITS: {"val_accuracy": (val, slice(None))},
        run_folder.SAMPLE_LOGITS: {
            "sample_memorized": (noisy, wrong),
            "sample_clean_accuracy_right": (clean, ~wrong),
            "sample_clean_accuracy_wrong": (clean, wrong),
        },
    }
    for name, curves in expected.items():
        if not (folder / name).is_file():
            continue
        predicted = run_folder.read_outputs(folder, name).argmax(axis=2)  # (epochs, n)
        for curve, (labels, rows) in curves.items():
            said, hits = run.curve(curve), predicted[:, rows] == labels[rows]
            found = 100 * hits.sum(axis=1) / max(1, hits.shape[1])  # said is NaN without an image
            for epoch in np.flatnonzero(np.abs(found - said) > ACCURACY_TOLERANCE):
                raise UserError(
                    f"{folder}/history.jsonl: {curve} of epoch {epoch + 1} is {said[epoch]:g}, "
                    f"{found[epoch]:g} by {name}; {run_folder.AGAIN}"
                )


def as_run(content: dict) -> Run:
    """A Run of an entry of history.json. Raises KeyError, TypeError or ValueError for another."""
    curves = {
        name: {k: np.array(curve, float) for k, curve in (content[name] or {}).items()}
        for name in ("history", "memorization")
    }
    epochs = len(curves["history"]["epoch"])
    shapes = {curve.shape for group in curves.values() for curve in group.values()}
    if shapes != {(epochs,)} or epochs == 0 or not curves["history"].keys() >= CURVES:
        raise ValueError("curves of different lengths, or not all of them")
    for name, kind in TYPES.items():
        if type(content[name]) is not kind:
            raise TypeError(name)
    _ = content["data"]["name"], content["data"]["digest"], noise_title(content["data"])
    if content["frequency"]:
        check_frequency(content["frequency"], epochs)
    others = {name: content[name] for name in (*TYPES, "frequency", "spectrum") if name != "run"}
    return Run(name=content["run"], **others, **curves)


def check_frequency(content: dict, epochs: int) -> None:
    """Raise KeyError, TypeError or ValueError unless it is a frequency.json of so many epochs."""
    if content["values"] not in ("softmax", "logits"):
        raise ValueError(f"values {content['values']}")
    for section in (content["test"], content["sample"]):
        deltas = len(section["delta"])
        if len(section["mass"]) != deltas:
            raise ValueError("a mass for each delta")
        for rows in [*section["outputs"].values(), *section.get("one_hot", {}).values()]:
            if np.array(rows, float).shape != (epochs, deltas):
                raise ValueError("a measure for each epoch and delta")


def write_history(path: Path, runs: Sequence[Run], digits: int | None = None) -> None:
    """Write history.json, one run per line, whole or not at all; digits as in `without_nan`."""
    lines = []
    for run in runs:
        content = {"run": run.name, **without_nan(vars(run))}
        del content["name"]
        for name in ("history", *MEASURES):
            content[name] = without_nan(content[name], digits) or None
        lines.append(json.dumps(content, separators=(",", ":"), allow_nan=False))
    write_text(path, '{"runs": [\n' + ",\n".join(lines) + "\n]}\n")


def read_history(path: Path) -> list[Run]:
    """Read history.json. Raises UserError if it is missing, damaged, or another file."""
    content = read_json(path, REMEDY)
    try:
        runs = [as_run(entry) for entry in content["runs"]]
        if not runs:
            raise ValueError("no run in it")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a history.json ({error!r}); {REMEDY}") from error
    return runs


def share_deltas(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs with frequencies that can be compared, and notes on what is left out.

    The runs of one kind of data set get the median of their kernel masses, 0 at a delta that some
    of them lack: the same deltas filter for all. Logits are left out beside softmax outputs.
    """
    notes, shared = [], []
    missing = [run.name for run in runs if not run.frequency]
    if 0 < len(missing) < len(runs):
        notes.append(f"{counted(missing)}: frequencies not measured; run frequency.py")
    kinds = [(run.frequency or {}).get("values") for run in runs]
    if {"softmax", "logits"} <= set(kinds):
        pairs = list(zip(runs, kinds, strict=True))
        of_logits = [run.name for run, kind in pairs if kind == "logits"]
        notes.append(f"{counted(of_logits)}: frequencies of logits, left out; run frequency.py")
        runs = [replace(r, frequency=None) if kind == "logits" else r for r, kind in pairs]
    for members in by_data(runs).values():
        contents = [run.frequency for run in members if run.frequency]
        masses = {section: shared_mass(contents, section) for section in ("test", "sample")}
        deltas = {r.name: {*r.frequency["test"]["delta"]} for r in members if r.frequency}
        if more := set().union(*deltas.values()) - masses["test"].keys():
            text = " ".join(f"{delta:g}" for delta in sorted(more))
            lack = counted([name for name, own in deltas.items() if more - own])
            notes.append(f"{lack}: deltas left out; run frequency.py there with --delta {text}")
        for run in members:
            content = run.frequency and dict(run.frequency)
            for section, mass in masses.items() if content else ():
                own = content[section]
                content[section] = {**own, "mass": [mass.get(delta, 0) for delta in own["delta"]]}
            shared.append(replace(run, frequency=content))
    return shared, notes


def shared_mass(contents: Sequence[dict], section: str) -> dict[float, float]:
    """delta -> median of the kernel masses, of the deltas that each frequency.json has."""
    sections = [content[section] for content in contents]
    masses = [dict(zip(own["delta"], own["mass"], strict=True)) for own in sections]
    common = set.intersection(*map(set, masses)) if masses else set()
    return {delta: float(np.median([mass[delta] or 0 for mass in masses])) for delta in common}


def counted(runs: Sequence[str]) -> str:
    """The first run's name, and how many others there are."""
    return runs[0] if len(runs) == 1 else f"{runs[0]} and {len(runs) - 1} more"


def by_data(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs by their kind of data set: what its meta says, but for what differs by seed."""
    # Fields that an older version of generate.py did not write cannot tell data sets apart.
    fields = set.intersection(*(set(run.data) for run in runs)) - {*SEEDED, *MAKING}
    groups: dict[str, list[Run]] = {}
    for run in runs:
        fixed = {name: run.data[name] for name in sorted(fields)}
        groups.setdefault(json.dumps(fixed, sort_keys=True), []).append(run)
    return groups


def by_noise(runs: Sequence[Run]) -> Noises:
    """The runs by noise, series and seed; cross-entropy first in each noise.

    A series is a loss with one set of flags. A flag in which runs of one noise differ is named
    in the titles of all series. Data sets of one noise that differ in more than their seed are
    apart, and their title has their name. Raises UserError if runs cannot be told apart.
    """
    groups: dict[str, list[list[Run]]] = {}
    for members in by_data(runs).values():
        rate = float(np.mean([run.data["rate_found"] for run in members]))
        groups.setdefault(noise_title({**members[0].data, "rate_found": rate}), []).append(members)
    members = [[run for kind in kinds for run in kind] for kinds in groups.values()]
    differing = dict.fromkeys(name for group in members for name in differing_settings(group))
    noises: Noises = {}
    for noise, kinds in groups.items():
        for kind in kinds:
            name = common_name([run.data["name"] for run in kind])
            title = noise if len(kinds) == 1 else f"{noise}, {name}"
            if title in noises:
                raise UserError(f"two kinds of data sets are called {title}; name the runs of one")
            noises[title] = by_series(kind, differing)
    return noises


def by_series(runs: Sequence[Run], differing: Iterable[str]) -> Series:
    """The series of one noise, titled by loss and by the settings that differ: ..., lr 0.02.

    The seed is Run.key where there are several data sets.
    """
    one_data_set = len({run.data["digest"] for run in runs}) == 1
    series: Series = {}
    by_outputs: dict[str, Run] = {}
    by_key: dict[int | str, Run] = {}
    for run in sorted(runs, key=_order):
        key = run.seed if one_data_set else run.key
        title = ", ".join([run.loss, *(setting_words(name, run.setting) for name in differing)])
        other = series.setdefault(title, {}).setdefault(key, run)
        twin = by_outputs.setdefault(run.measured_from, run)
        peer = by_key.setdefault(key, run)
        if other is not run:
            same = f"{other.name} and {run.name} have the same loss, setting and seed"
            raise UserError(f"{same}; name one of them only")
        if twin is not run:
            same = f"{twin.name} and {run.name} have the same outputs"
            raise UserError(f"{same}; train one of them again under another --run")
        if peer.data["digest"] != run.data["digest"]:
            same = f"{peer.name} and {run.name} have the same seed, but different data sets"
            raise UserError(f"{same}; name the runs on one of them only")
    return series


def _order(run: Run) -> tuple:
    place = run.loss != CROSS_ENTROPY, not run.loss.startswith(SELF_DISTILLATION), run.loss
    return (*place, run.data.get("seed", run.seed), run.seed, run.name)


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """The settings in which the runs differ; a flag that a run does not have is one that is off."""
    settings = [run.setting for run in runs]
    flags = dict.fromkeys(name for setting in settings for name in setting)
    return [name for name in flags if len({str(s.get(name) or None) for s in settings}) > 1]


def setting_words(name: str, setting: dict) -> str:
    """A setting in words: the network's title, lr 0.02, no augment, default sample size."""
    words, value = name.replace("_", " "), setting.get(name)
    if value is None:
        return f"default {words}"
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return value if name == "network" else f"{words} {value}"


def common_name(names: Sequence[str]) -> str:
    """The data sets' name without their seeds: cifar10-pair40 of cifar10-pair40-seed1."""
    return min(re.sub(r"-?seed\d+$", "", name) or name for name in names)
