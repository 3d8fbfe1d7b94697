"""checkpoint.pt: what --resume needs, after the last whole epoch, and the one before it.

A checkpoint holds tensors and plain Python values only. It is read without executing anything in
it, and every byte of it is checked first.
"""

import io
import os
import shutil
import zipfile
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.files import atomic_write

FORMAT = 2
NAME, PREVIOUS = "checkpoint.pt", "checkpoint.prev.pt"


def save(
    run: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    settings: dict,
    previous: Tensor | None,
    average: nn.Module | None = None,
) -> None:
    """Replace the run's checkpoint by that of `epoch`, in one step, and keep the one before.

    settings: plain values that a resumed run has to share; previous: a tensor or None, what
    Loss.remember kept for the next epoch; average: the averaged weights, if the run has them, an
    AveragedModel. Raises OSError if it cannot be written; the old one then
    stays.
    """
    content = {"format": FORMAT, "epoch": epoch, "settings": settings, "previous": previous}
    content |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    content["average"] = average and average.state_dict()
    buffer = io.BytesIO()  # a full disk is then an OSError, which torch.save's own error is not
    torch.save(content, buffer)
    path = run / NAME
    keep = partial(_keep, path, run / PREVIOUS) if path.exists() else None
    with atomic_write(path, before_replace=keep) as file:
        file.write(buffer.getbuffer())


def _keep(path: Path, previous: Path) -> None:
    """Make `previous` another name of the file `path`, so that at no instant there is none."""
    temporary = previous.with_name(previous.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without links
        shutil.copyfile(path, temporary)
    os.replace(temporary, previous)
    # Replacing a name by another of the same file does nothing, and leaves both.
    temporary.unlink(missing_ok=True)


def read(run: Path, device, name: str = NAME) -> dict:
    """The content of the run's checkpoint, its tensors on `device`.

    Raises UserError if there is none or it is damaged; the message offers the one before it.
    """
    path = run / name
    if not path.is_file():
        raise UserError(f"{path} does not exist; start the run without --resume")
    try:
        # torch.load checks no checksum: a flipped bit would become a weight.
        with zipfile.ZipFile(path) as file:
            intact = file.testzip() is None
        content = torch.load(path, map_location=device, weights_only=True) if intact else {}
        if content["format"] == FORMAT:
            return content
        reason = f"is of format {content['format']}, not {FORMAT}"
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = "cannot be read" if isinstance(error, PermissionError) else "is damaged"
    except (RuntimeError, NotImplementedError, UnpicklingError, zipfile.BadZipFile, zlib.error):
        reason = "is damaged"
    remedy = "start again with --overwrite"
    if name == NAME and (run / PREVIOUS).exists():
        with suppress(UserError):
            epoch = read(run, "cpu", PREVIOUS)["epoch"]
            # The folder's path stands in the message once: twice would not fit one line.
            remedy = f"to go on from epoch {epoch}, rename {PREVIOUS} to {NAME}, then --resume"
    raise UserError(f"{path} {reason}; {remedy}")


def load(
    run: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: dict,
    device: torch.device,
    average: nn.Module | None = None,
) -> tuple[int, Tensor | None]:
    """Load the run's checkpoint into model, optimizer and average; its epoch and predictions.

    Raises UserError if there is none, it is damaged, or it is of other settings.
    """
    content = read(run, device)
    check_settings(run, content, settings)
    _load_weights(run, model, content["model"])
    if average:
        _load_weights(run, average, content["average"])
    optimizer.load_state_dict(content["optimizer"])
    return content["epoch"], content["previous"]


def check_settings(run: Path, content: dict, settings: dict) -> None:
    """Raise UserError unless the checkpoint was written under these settings."""
    for name, value in settings.items():
        # A setting that the checkpoint does not know was added later, and had its default.
        started = content["settings"].get(name, value)
        if started == value:
            continue
        if name == "data_sha256":
            raise UserError(
                f"--resume: {run} was started on another data set than that of --data; name the "
                "file that it was started on, or another run with --run"
            )
        raise UserError(
            f"--resume: {run} was started with {name} = {started}, not {value}; use its flag with "
            "that value, or name another run with --run"
        )


def load_evaluated(run: Path, model: nn.Module, content: dict) -> None:
    """Load the weights that were evaluated: the averaged ones, if the run has them.

    Raises UserError if they are another network's.
    """
    weights = content["model"]
    if content.get("average"):
        averaged = content["average"].items()
        weights = {k.removeprefix("module."): v for k, v in averaged if k != "n_averaged"}
    _load_weights(run, model, weights)


def _load_weights(run: Path, model: nn.Module, weights: dict) -> None:
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(
            f"{run / NAME} is of another network; start again with --overwrite"
        ) from error
