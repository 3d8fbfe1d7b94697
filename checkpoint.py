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
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from runs import RunError

FORMAT = 2
NAME, PREVIOUS = "checkpoint.pt", "checkpoint.prev.pt"


def save(run: Path, model: nn.Module, optimizer, epoch: int, settings: dict, previous) -> None:
    """Replace the run's checkpoint by that of `epoch`, in one step, and keep the one before.

    settings: plain values that a resumed run has to share; previous: a tensor or None, the
    predictions of that epoch that its next one needs. Raises OSError if it cannot be written; the
    old one then stays.
    """
    content = {"format": FORMAT, "epoch": epoch, "settings": settings, "previous": previous}
    content |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    buffer = io.BytesIO()  # a full disk is then an OSError, which torch.save's own is not
    torch.save(content, buffer)
    path, temporary = run / NAME, run / (NAME + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            _keep(path, run / PREVIOUS)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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

    Raises RunError if there is none or it is damaged; the message offers the one before it.
    """
    path = run / name
    if not path.is_file():
        raise RunError(f"{path} does not exist; start the run without --resume")
    try:
        # torch.load looks at no checksum, so that a flipped bit would be a weight.
        with zipfile.ZipFile(path) as file:
            whole = file.testzip() is None
        content = torch.load(path, map_location=device, weights_only=True) if whole else {}
        if content["format"] == FORMAT:
            return content
        reason = f"is of format {content['format']}, not {FORMAT}"
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = "cannot be read" if isinstance(error, PermissionError) else "is damaged"
    except (RuntimeError, NotImplementedError, UnpicklingError, zipfile.BadZipFile, zlib.error):
        reason = "is damaged"
    remedy = "start again with --overwrite"
    if name == NAME and (run / PREVIOUS).exists():
        with suppress(RunError):
            epoch = read(run, "cpu", PREVIOUS)["epoch"]
            remedy = f"go on from epoch {epoch} with: mv {run / PREVIOUS} {path}, then --resume"
    raise RunError(f"{path} {reason}; {remedy}")


def load(
    run: Path, model: nn.Module, optimizer, settings: dict, device
) -> tuple[int, Tensor | None]:
    """Load the run's checkpoint into model and optimizer; returns its epoch and predictions.

    Raises RunError if there is none, it is damaged, or it is of other settings.
    """
    content = read(run, device)
    for name, now in settings.items():
        if content["settings"].get(name) != now:
            raise RunError(
                f"--resume: {run} was started with {name} = {content['settings'].get(name)}, not "
                f"{now}; use that, or name another run with --run"
            )
    load_model(run, model, content)
    optimizer.load_state_dict(content["optimizer"])
    return content["epoch"], content["previous"]


def load_model(run: Path, model: nn.Module, content: dict) -> None:
    """Load a checkpoint's weights. Raises RunError if they are another network's."""
    try:
        model.load_state_dict(content["model"])
    except (RuntimeError, TypeError, AttributeError):
        raise RunError(f"{run / NAME} is another network's; start again with --overwrite") from None
