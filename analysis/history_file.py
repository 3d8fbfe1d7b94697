"""history.json: every curve of every run of a study in one file.

    data   the data set's name, digest, noise, rates, sizes; for several draws, the fields that they
           share, the mean of their rates, and their seeds, `seeds`
    runs   a list of {run, loss, network, seed, data: {name, digest, seed}, settings,
           history: {name: [epoch]}, frequency: frequency.json without its inner products or null,
           memorization: memorization.json or null, spectrum: spectrum.json or null}

The runs are of one data set, or of several draws of it: data sets that differ in their seed only.
Files whose runs have no `data` (older ones) can be read too.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from analysis.frequency_file import read_frequency
from analysis.memorization_file import read_memorization
from analysis.spectrum_file import read_spectrum
from common.errors import UserError
from common.files import read_json, write_json, write_text
from common.flags import recorded
from common.run_folder import find_runs, read_config, read_history
from dataset.data_file import DRAWN

# The fields of `data` that differ between draws of one data set.
DRAWN_DATA = ("name", "digest", *DRAWN)


def collect(sources: Sequence[Path]) -> tuple[dict, list[str]]:
    """The content of history.json for the sources, and notes for the user.

    sources: runs, folders of runs, and files of history.json. Raises UserError if there is no run,
    one is unreadable, or the data sets differ in more than their seed.
    """
    runs, notes = [], []
    for source in sources:
        if source.suffix == ".json":
            runs += _runs_of_file(source)
            continue
        for folder in find_runs([source]):
            run, note = _run_of_folder(folder)
            runs.append(run)
            notes += [note] if note else []
    data = {run["data"]["digest"]: run.pop("_data_set") for run in runs}
    return {"data": common_data(list(data.values())), "runs": runs}, notes


def _run_of_folder(folder: Path) -> tuple[dict, str]:
    config = read_config(folder)
    records, note = read_history(folder)
    run = {
        "run": folder.name,
        "loss": config["loss"],
        "network": config["network"],
        "seed": config["flags"]["seed"],
        "data": {name: config["data"].get(name) for name in ("name", "digest", "seed")},
        "settings": recorded(config["flags"]),
        "history": {k: [record[k] for record in records] for k in records[0] if k != "sha256"},
        "frequency": read_frequency(folder),
        "memorization": read_memorization(folder),
        "spectrum": read_spectrum(folder),
        "_data_set": config["data"],
    }
    return run, note


def _runs_of_file(path: Path) -> list[dict]:
    history = read_history_file(path)
    data = history["data"]
    for run in history["runs"]:
        run.setdefault("data", {name: data.get(name) for name in ("name", "digest", "seed")})
        run["_data_set"] = {**data, **run["data"]}
    return history["runs"]


def common_data(data_sets: Sequence[dict]) -> dict:
    """The `data` of history.json for the draws' data.

    The `data` of a single data set is returned unchanged. Raises UserError if the data sets differ
    in more than their seed.
    """
    first = data_sets[0]
    for other in data_sets[1:]:
        for name in dict.fromkeys((*first, *other)):
            if name not in (*DRAWN_DATA, "seeds") and first.get(name) != other.get(name):
                raise UserError(
                    f"{first['name']} and {other['name']} differ in {name}: {first.get(name)}, "
                    f"{other.get(name)}; name runs of data sets that differ in their seed only"
                )
    if len(data_sets) == 1:
        return first
    shared = {name: value for name, value in first.items() if name not in DRAWN_DATA}
    rates = [data["rate_found"] for data in data_sets]
    return {
        "name": _common_start([data["name"] for data in data_sets]),
        **shared,
        "rate_found": sum(rates) / len(rates),
        "seeds": sorted({data["seed"] for data in data_sets}),
    }


def _common_start(names: Sequence[str]) -> str:
    """The common start of the draws' names: cifar10-pair40 of cifar10-pair40-seed1 and -seed2."""
    first, last = min(names), max(names)
    length = next((k for k, c in enumerate(first) if k >= len(last) or c != last[k]), len(first))
    return first[:length].removesuffix("seed").rstrip("-") or first


def write_history(path: Path, history: dict, digits: int | None = None) -> None:
    """Write history.json, whole or not at all. Raises OSError.

    digits: round every number to this many significant digits and write one run per line, for
    files that are kept under version control.
    """
    if digits is None:
        write_json(path, history)
        return
    data = json.dumps(history["data"], allow_nan=False)
    runs = ",\n".join(_compact(run, digits) for run in history["runs"])
    write_text(path, f'{{"data": {data},\n"runs": [\n{runs}\n]}}\n')


def _compact(content: dict, digits: int) -> str:
    def shorten(value):
        if isinstance(value, dict):
            return {key: shorten(item) for key, item in value.items()}
        if isinstance(value, list):
            return [shorten(item) for item in value]
        return float(f"{value:.{digits}g}") if isinstance(value, float) else value

    return json.dumps(shorten(content), separators=(",", ":"), allow_nan=False)


def read_history_file(path: Path) -> dict:
    """Read history.json. Raises UserError if it is missing or not a history.json."""
    history = read_json(path, "make it with collect_history.py")
    if not {"data", "runs"} <= set(history) or not history["runs"]:
        raise UserError(f"{path}: not a history.json; make it with collect_history.py")
    for run in history["runs"]:  # older names of the same curves
        curves = run.get("history", {})
        run["history"] = {name.replace("probe_", "sample_"): curves[name] for name in curves}
    return history


def default_path(paths: Sequence[Path]) -> Path:
    """Where history.json of these runs goes: the folder that holds them, or the first file."""
    first = paths[0]
    return first if first.suffix == ".json" else find_runs(paths)[0].parent / "history.json"
