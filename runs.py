"""A run on disk: the folder runs/<data set>/<run>/ that the scripts hand to each other.

    config.json     every flag, the data set's digest and meta, versions, the device's name
    history.jsonl   one JSON object an epoch, appended and flushed
    logits.npy      float32 (epochs, test images, classes): test outputs after each epoch
    probe_logits.npy, probe_indices.npy    the same of some training images, and which they are
    checkpoint.pt   what --resume needs; model and optimizer after the last whole epoch
    lock            held by the process that trains the run
    frequency.json  written by frequency.py

A run exists if it has a config.json. Importing this does not import torch.
"""

import json
import math
import os
import platform
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

PLAIN, DISTILLED = "cross-entropy", "self-distillation"
LOGITS = ("logits.npy", "probe_logits.npy")
FILES = ("config.json", "history.jsonl", *LOGITS, "probe_indices.npy", "frequency.json", "done")
FILES += ("checkpoint.pt", "checkpoint.prev.pt")


class RunError(ValueError):
    """Something is wrong with a run's folder or a history.json; one line for the user."""


def loss_name(flags: dict) -> str:
    """What figures and tables call the loss that train.py's flags ask for."""
    if not flags["dis"]:
        return PLAIN
    own = {"batch": DISTILLED, "previous-epoch": f"{DISTILLED}, previous epoch"}
    if flags["weight"] is not None:
        own = {"batch": "bootstrapping", "previous-epoch": own["previous-epoch"]}
        own["uniform"] = "label smoothing"
    soft = ", soft" if flags["soft"] else ""
    weight = "" if flags["weight"] is None else f", weight {flags['weight']:g}"
    return own[flags["teacher"]] + soft + weight


def run_name(flags: dict) -> str:
    """A run's name from train.py's flags, such as dis1-soft-shake26-2x32d-seed1."""
    parts = [f"dis{flags['dis']}"] + [flags["teacher"]] * (flags["teacher"] != "batch")
    parts += ["soft"] * flags["soft"]
    parts += [] if flags["weight"] is None else [f"weight{flags['weight']:g}"]
    return "-".join([*parts, network_name(flags), f"seed{flags['seed']}"])


def network_name(flags: dict) -> str:
    """small_cnn, or depth and width of the shake-shake network as in shake26-2x32d."""
    name = flags["model"]
    return name if name == "small_cnn" else f"shake{flags['depth']}-2x{flags['width']}d"


@contextmanager
def locked(run: Path):
    """Hold the run's lock; raises RunError if another process does.

    The system lets go of a dead process's lock. Where it has no such locks, nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(run / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise RunError(
                f"{run}: process {file.read().strip()} is training it; wait for it, or name "
                "another run with --run"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}")
        file.flush()
        yield


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run folders at or below `paths`, sorted. Raises RunError if there is none."""
    found: set[Path] = set()
    for path in map(Path, paths):
        here = [config.parent for config in path.glob("**/config.json")]
        if not here:
            raise RunError(f"{path}: no run there; make one with train.py, or name it with --runs")
        found.update(here)
    return sorted(found)


def remove_run(run: Path) -> None:
    """Delete a run's files, the one that makes it exist first."""
    for name in FILES:
        (run / name).unlink(missing_ok=True)


def write_json(path: Path, content: dict) -> None:
    """Write `content` whole or not at all; numbers that are not finite are refused."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path, remedy: str) -> dict:
    """Read a JSON object. Raises RunError with the remedy if it is missing or no JSON object."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; {remedy}") from None
    except (ValueError, OSError) as error:
        raise RunError(f"{path}: cannot be read ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: not a JSON object; {remedy}")
    return content


def read_config(run: Path) -> dict:
    return read_json(run / "config.json", "train the run again with --overwrite")


def append_history(run: Path, record: dict) -> None:
    """Append one epoch's record and flush it."""
    with open(run / "history.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read_history(run: Path) -> tuple[list[dict], str]:
    """The epochs' records and a note, empty unless a half-written last line was dropped.

    Raises RunError if there is no whole record, or another line than the last is damaged.
    """
    path = run / "history.jsonl"
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = []
    # A whole line ends with a newline, so what follows the last one was cut short.
    note = f"{path}: half-written last line dropped" if lines and lines.pop() else ""
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise RunError(f"{path}: line {number} is damaged; train it again") from None
    if not records:
        raise RunError(f"{path}: no epoch in it yet; go on with train.py --resume")
    return records, note


def append_logits(path: Path, logits: np.ndarray) -> None:
    """Append one epoch's logits (images, classes) to a file such as logits.npy."""
    if not path.exists():
        with open(path, "wb") as file:
            _write_logits_header(file, (0, *logits.shape))
    with open(path, "r+b") as file:
        shape = _read_logits_header(path, file)
        file.seek(0, os.SEEK_END)
        file.write(np.ascontiguousarray(logits, np.float32).data)
        # The header counts an epoch only once its numbers are there.
        file.flush()
        file.seek(0)
        _write_logits_header(file, (shape[0] + 1, *shape[1:]))


def read_logits(path: Path) -> tuple[np.ndarray, str]:
    """float32 (epochs, images, classes), mapped from disk, and a note, empty if none is missing.

    Of a file that was cut short the whole epochs are read. Raises RunError if it is no such file.
    """
    try:
        with open(path, "rb") as file:
            epochs, *shape = _read_logits_header(path, file)
            start = file.tell()
        present = (path.stat().st_size - start) // (4 * math.prod(shape))
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; go on with train.py --resume") from None
    except (ValueError, ZeroDivisionError) as error:
        raise RunError(f"{path}: not a file of logits ({error}); train the run again") from None
    whole = min(epochs, present)
    note = "" if whole == epochs else f"{path}: cut short, {whole} of {epochs} epochs used"
    if not whole:
        return np.empty((0, *shape), np.float32), note
    return np.memmap(path, np.float32, "r", start, (whole, *shape)), note


def truncate_run(run: Path, epochs: int) -> None:
    """Cut history and logits back to their first `epochs` epochs, those of the checkpoint.

    Raises RunError if either has fewer.
    """
    history, logits = run / "history.jsonl", [p for n in LOGITS if (p := run / n).exists()]
    if epochs == 0:
        for path in (history, *logits):
            path.unlink(missing_ok=True)
        return
    records, _ = read_history(run)
    lengths = [len(records), *(len(read_logits(path)[0]) for path in logits)]
    if min(lengths) < epochs:
        raise RunError(
            f"{run}: the checkpoint is of epoch {epochs}, but history or logits end at epoch "
            f"{min(lengths)}; train it again with --overwrite"
        )
    lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records[:epochs])
    write_text(history, lines)
    for path in logits:
        shape = (epochs, *read_logits(path)[0].shape[1:])
        with open(path, "r+b") as file:
            _write_logits_header(file, shape)
            file.truncate(file.tell() + 4 * math.prod(shape))


# numpy leaves room in the header for a first axis of any length, so it can be written over.


def _write_logits_header(file, shape: Iterable[int]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _read_logits_header(path: Path, file) -> tuple[int, ...]:
    try:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except (ValueError, OSError, EOFError) as error:
        raise RunError(f"{path}: damaged header ({error}); train the run again") from None
    if len(shape) != 3 or dtype != np.float32:
        raise RunError(f"{path}: {dtype} {shape}, not logits; train the run again")
    return shape
