"""history.json: every curve of every run of a study in one file.

It holds `data` (the data set's name, digest, noise, rates and sizes) and `runs`, a list of {run,
loss, network, seed, settings, history: {name: [epoch]}, frequency: frequency.json's content without
its inner products, or null}. All runs are of one data set.
"""

from collections.abc import Sequence
from pathlib import Path

from analysis.frequency_file import read_frequency
from common.errors import UserError
from common.files import read_json, write_json
from common.flags import recorded
from common.run_folder import find_runs, read_config, read_history


def collect(paths: Sequence[Path]) -> tuple[dict, list[str]]:
    """The content of history.json for the runs at or below `paths`, and notes for the user.

    Raises UserError if there is no run, one is unreadable, or they are of different data sets.
    """
    runs, notes, data = [], [], None
    for folder in find_runs(paths):
        config = read_config(folder)
        records, note = read_history(folder)
        if data is None:
            data, first = config["data"], folder
        if config["data"]["digest"] != data["digest"]:
            raise UserError(
                f"{first} and {folder} are of two data sets; name the runs of one, such as "
                f"{first.parent}"
            )
        notes += [note] if note else []
        runs.append(
            {
                "run": folder.name,
                "loss": config["loss"],
                "network": config["network"],
                "seed": config["flags"]["seed"],
                "settings": recorded(config["flags"]),
                "history": {key: [record[key] for record in records] for key in records[0]},
                "frequency": read_frequency(folder),
            }
        )
    return {"data": data, "runs": runs}, notes


def write_history(path: Path, history: dict) -> None:
    """Write history.json, whole or not at all. Raises OSError."""
    write_json(path, history)


def read_history_file(path: Path) -> dict:
    """Read history.json. Raises UserError if it is missing or something else."""
    history = read_json(path, "make it with collect_history.py")
    if not {"data", "runs"} <= set(history) or not history["runs"]:
        raise UserError(f"{path}: not a history.json; make it with collect_history.py")
    return history


def default_path(paths: Sequence[Path]) -> Path:
    """Where history.json of these runs goes: the folder that holds them, runs/<data set>/."""
    return find_runs(paths)[0].parent / "history.json"
