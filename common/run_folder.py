"""A run on disk: the folder runs/<data set>/<run>/ that the scripts hand to each other.

    config.json          every flag, the data set's digest and meta, versions, the device's name
    history.jsonl        one JSON object per epoch, with the sha256 of the epoch's outputs
    logits.npy           outputs on the test images after each epoch, float32 (epochs, n, C)
    train_logits.npy     the same on a fixed sample of training images
    val_logits.npy       the same on the held-out images, if there are any
    train_indices.npy    int64 (n,), which training images the sample holds
    checkpoint.pt        what --resume needs: training/checkpoint.py
    lock                 held by the process that trains the run
    frequency.json       measures by band: measures/bands.py
    memorization.json    what is memorized of the noisy labels: measures/memorization.py
    spectrum.json        measures along a kernel's eigenvectors: measures/spectrum.py

A run exists if it has a config.json. history.jsonl is the only file that says how many epochs there
are: a line is appended when the epoch's outputs are on disk.
"""

import json
import math
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.command_line import UserError
from common.files import held, read_json, write_json, write_text

TEST_LOGITS, SAMPLE_LOGITS, VAL_LOGITS = "logits.npy", "train_logits.npy", "val_logits.npy"
LOGITS = (TEST_LOGITS, SAMPLE_LOGITS, VAL_LOGITS)
SAMPLE_INDICES, CHECKPOINT = "train_indices.npy", "checkpoint.pt"
FREQUENCY, MEMORIZATION, SPECTRUM = "frequency.json", "memorization.json", "spectrum.json"
MEASURES = (FREQUENCY, MEMORIZATION, SPECTRUM)
# What a new run removes of an old one: all but the checkpoint, which it replaces.
REPLACED = ("config.json", "history.jsonl", *LOGITS, SAMPLE_INDICES, *MEASURES)
AGAIN = "train the run again under another --run, without --resume"
RESUME = "repeat its train.py command with --resume, which writes it again"
RESTART = "start it again with --overwrite, or under another --run, without --resume"


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run's lock, in a folder that exists. Raises UserError if another process does."""
    lock = run / "lock"

    def refuse() -> None:
        owner = lock.read_text("utf-8", "replace").strip() or "another process"
        raise UserError(f"{run}: {owner} is training it; wait for it, or use another --run")

    with held(lock, refuse) as holds:
        if not holds:
            print(f"{run}: this file system has no locks; train it from one process only")
        lock.write_text(f"process {os.getpid()} on {platform.node()}\n", "utf-8")
        # What a killed process was writing; only the holder of the lock writes these files.
        for name in ("config.json", "history.jsonl", CHECKPOINT) if holds else ():
            for path in run.glob(f"{name}.*.tmp"):
                path.unlink(missing_ok=True)
        yield


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run folders at or below `paths`, sorted, each once; symbolic links are followed.

    Raises UserError if a path has no run, and PermissionError for a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        if isinstance(error, PermissionError):
            raise error

    runs: dict[str, Path] = {}
    for path in paths:
        below, seen = {}, set()
        for folder, subfolders, files in os.walk(path, onerror=refuse, followlinks=True):
            place = os.path.realpath(folder)
            if place in seen:
                subfolders.clear()  # a circle of links ends
            elif "config.json" in files:
                below[place] = Path(folder)
            seen.add(place)
        if not below:
            raise UserError(f"{path}: no run there; make one with train.py, or name another folder")
        runs = below | runs
    return sorted(runs.values())


def remove_files(run: Path, names: Sequence[str]) -> None:
    """Delete these files of a run, where they exist."""
    for name in names:
        (run / name).unlink(missing_ok=True)


def write_config(run: Path, config: dict) -> None:
    """Write config.json."""
    write_json(run / "config.json", config)


def read_config(run: Path) -> dict:
    """Read config.json: loss, network, flags, data, versions, device.

    Raises UserError if it is missing, damaged, or another program's.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such run; make it with train.py, or check the path")
    config = read_json(run / "config.json", "name a folder that train.py has made")
    try:
        data, flags = config["data"], config["flags"]
        values = [config["loss"], config["network"], data["digest"], data["name"], flags["data"]]
        values += [flags["epochs"], flags["seed"]]
        valid = [type(value) for value in values] == [str] * 5 + [int] * 2
    except (KeyError, TypeError):
        valid = False
    if not valid:
        raise UserError(f"{run}/config.json: not train.py's; move it away, then --resume")
    return config


def write_sample_indices(run: Path, indices: np.ndarray) -> None:
    """Write int64 (n,): which training images the sample holds."""
    np.save(run / SAMPLE_INDICES, indices)


def read_sample_indices(run: Path) -> np.ndarray:
    """Read int64 (n,). Raises UserError if the file is missing or damaged."""
    path = run / SAMPLE_INDICES
    try:
        indices = np.load(path, allow_pickle=False)
        valid = indices.ndim == 1 and indices.dtype == np.int64
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {RESUME}") from None
    except PermissionError:
        raise
    except Exception:  # numpy's parser raises many kinds
        valid = False
    if not valid:
        raise UserError(f"{path}: damaged; {RESUME}")
    return indices


def append_history(run: Path, record: dict) -> None:
    """Append one epoch's record to history.jsonl and flush it."""
    with open(run / "history.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read_history(run: Path) -> tuple[list[dict], str]:
    """The epochs' records and a note, empty unless a half-written last line was dropped.

    Raises UserError if there is no whole record, or a line is damaged.
    """
    path = run / "history.jsonl"
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = []
    # A whole line ends with a newline, so what follows the last newline was cut short.
    note = f"{path}: half-written last line dropped" if lines and lines.pop() else ""
    records: list[dict] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            valid = record["epoch"] == number and record.keys() == (records or [record])[0].keys()
            valid = valid and all(map(_is_value, record.values()))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            valid = False
        if not valid:
            raise UserError(f"{path}: line {number} is damaged; {AGAIN}")
        records.append(record)
    if not records:
        raise UserError(f"{path}: no epoch yet; repeat its command with --resume")
    return records, note


def _is_value(value: object) -> bool:
    """Whether a record may hold this: a finite number, null, or the digests by file name."""
    if isinstance(value, dict):
        return all(isinstance(digest, str) for digest in value.values())
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def output_names(records: Sequence[dict]) -> list[str]:
    """The files of outputs that a run with this history has."""
    held_out = VAL_LOGITS in (records[0].get("sha256") or {})
    return [TEST_LOGITS, SAMPLE_LOGITS] + [VAL_LOGITS] * held_out


def is_complete(run: Path, epochs: int) -> bool:
    """Whether the run has all its epochs. Raises UserError if a file is damaged or missing."""
    read_config(run)
    records, _ = read_history(run)
    for name in output_names(records):
        read_outputs(run, name)
    return len(records) == epochs


def outputs_digest(run: Path) -> str:
    """One digest of all epochs' outputs and of the data set, by history.jsonl and config.json."""
    records, _ = read_history(run)
    digests = [record.get("sha256") or {} for record in records]
    return _json_digest([read_config(run)["data"]["digest"], digests])


def write_measure(run: Path, name: str, content: dict) -> None:
    """Write a measure of the run's outputs, tied to them, and its own digest. It holds no NaN."""
    content = {"measured_from": outputs_digest(run), **content}
    content = {"sha256": _json_digest(content), **content}
    write_json(run / name, content, indent=None)  # an indented list has a line for each number


def _json_digest(content: object) -> str:
    """The sha256 of a value as JSON."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_measure(run: Path, name: str) -> tuple[dict | None, str]:
    """A measure of the run, or None, and what is wrong with its file.

    It is damaged, or was measured from other outputs than those that the run has now.
    """
    path, remedy = run / name, "repeat its frequency.py command"
    if not path.exists():
        return None, ""
    try:
        content = read_json(path, remedy)
    except UserError as error:
        return None, str(error)
    if content.pop("sha256", None) != _json_digest(content):
        return None, f"{path}: damaged; {remedy}"
    if content.get("measured_from") != outputs_digest(run):
        return None, f"{path}: measured from other outputs than the run has now; {remedy}"
    return content, ""


def append_outputs(path: Path, outputs: np.ndarray, epoch: int) -> None:
    """Write the outputs (n, C) of an epoch, counted from 1, after those of the earlier epochs.

    The header counts an epoch once its numbers are in the file: one that is cut short can be read.
    Raises UserError if the file does not hold the earlier epochs.
    """
    if epoch == 1:
        with open(path, "wb") as file:
            _write_header(file, (0, *outputs.shape))
    with open(path, "r+b") as file:
        shape, start = _read_header(path, file)
        if shape != (epoch - 1, *outputs.shape):
            raise UserError(
                f"{path} holds {shape}, not {epoch - 1} epochs of {outputs.shape}; {AGAIN}"
            )
        file.seek(start + (epoch - 1) * outputs.size * 4)
        file.write(np.ascontiguousarray(outputs, "<f4").data)
        file.truncate()
        file.flush()
        _write_header(file, (epoch, *outputs.shape))


def read_outputs(
    run: Path, name: str, images: int | None = None, classes: int | None = None
) -> np.ndarray:
    """The outputs float32 (epochs, n, C) of the epochs in history.jsonl, mapped from disk.

    name: one of LOGITS. Raises UserError unless every epoch has the sha256 of its record, finite
    values, and as many images and classes as are given.
    """
    outputs = _checked_outputs(run / name, read_history(run)[0])
    _, n, c = outputs.shape
    if images not in (None, n) or classes not in (None, c):
        found = f"outputs of {n} images and {c} classes"
        raise UserError(f"{run / name}: {found}, not of {images} and {classes}; {AGAIN}")
    return outputs


def _checked_outputs(path: Path, records: Sequence[dict]) -> np.ndarray:
    """The outputs of the epochs of `records`, mapped from disk, each of them as its record says."""
    try:
        with open(path, "rb") as file:
            (epochs, *shape), start = _read_header(path, file)
        present = min(epochs, (path.stat().st_size - start) // (4 * math.prod(shape)))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {AGAIN}") from None
    if present < len(records):
        raise UserError(f"{path}: {present} of {len(records)} epochs; {AGAIN}")
    outputs = np.memmap(path, np.float32, "r", start, (len(records), *shape))
    for record, epoch in zip(records, outputs, strict=True):
        fault = ""
        if digest(epoch) != (record.get("sha256") or {}).get(path.name):
            fault = "is not what train.py wrote, by its sha256 in history.jsonl"
        elif not np.isfinite(epoch).all():
            fault = "has values that are not finite"
        if fault:
            raise UserError(f"{path}: epoch {record['epoch']} {fault}; {AGAIN}")
    return outputs


def digest(outputs: np.ndarray) -> str:
    """The sha256 of the outputs (n, C) of an epoch, as float32 in C order."""
    return sha256(np.ascontiguousarray(outputs, "<f4").data).hexdigest()


def truncate_run(run: Path, epochs: int) -> None:
    """Cut history and outputs back to the checkpoint's epochs, at least 1, and remove measures.

    Raises UserError, before anything is changed, unless the files have these epochs as written.
    Measures stay if nothing is cut.
    """
    history = run / "history.jsonl"
    lines = history.read_bytes().count(b"\n") if history.exists() else 0
    if lines < epochs:
        whose = f"{lines} of the {epochs} epochs that its checkpoint has"
        raise UserError(f"--resume: {history}: {whose}; {RESTART}")
    records, _ = read_history(run)
    names = output_names(records)
    for name in names:
        _checked_outputs(run / name, records[:epochs])
    if len(records) > epochs:
        lines = (json.dumps(record, allow_nan=False) + "\n" for record in records[:epochs])
        write_text(run / "history.jsonl", "".join(lines))
        remove_files(run, MEASURES)
    for name in names:
        with open(run / name, "r+b") as file:
            (_, *shape), start = _read_header(run / name, file)
            _write_header(file, (epochs, *shape))
            file.truncate(start + 4 * epochs * math.prod(shape))


def _write_header(file: BinaryIO, shape: Sequence[int]) -> None:
    """Write the header of a file of outputs, in which numpy leaves room for any first axis."""
    file.seek(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _read_header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], int]:
    """The shape (epochs, n, C) of a file of outputs, and where its numbers start."""
    try:
        np.lib.format.read_magic(file)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except OSError:
        raise
    except Exception as error:  # numpy's parser raises many kinds, SyntaxError and TokenError too
        raise UserError(f"{path}: damaged header; {AGAIN}") from error
    valid = len(shape) == 3 and min(shape) >= 0 and all(shape[1:])
    if not valid or dtype != np.float32 or fortran:
        raise UserError(f"{path}: {dtype} {shape}, not outputs of epochs; {AGAIN}")
    return shape, file.tell()
