"""checkpoint.pt: what --resume needs, after the last whole epoch.

It holds tensors and plain Python values only. It is read without executing anything in it, and
every byte of it is checked first.
"""

import errno
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from common.command_line import UserError
from common.files import atomic_write
from common.run_folder import CHECKPOINT, RESTART
from losses import CrossEntropy
from training.settings import typed

FORMAT = 2


@dataclass(frozen=True)
class Trained:
    """What a training changes from step to step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: CrossEntropy
    average: AveragedModel | None  # the averaged weights, if the run has them


def save(run: Path, trained: Trained, epoch: int, settings: dict) -> None:
    """Replace the run's checkpoint by that of `epoch`, whole or not at all. Raises OSError.

    settings: plain values that a resumed run has to share.
    """
    content = {
        "format": FORMAT,
        "epoch": epoch,
        "settings": settings,
        "model": trained.model.state_dict(),
        "optimizer": trained.optimizer.state_dict(),
        "previous": trained.loss.previous,
        "average": trained.average and trained.average.state_dict(),
    }
    buffer = io.BytesIO()  # a full disk is then an OSError, which torch.save's own error is not
    torch.save(content, buffer)
    with atomic_write(run / CHECKPOINT) as file:
        file.write(buffer.getbuffer())


def read(run: Path) -> dict:
    """The content of the run's checkpoint, its tensors on the CPU.

    Raises UserError if there is none or it is damaged, OSError if it cannot be read.
    """
    path = run / CHECKPOINT
    if not path.is_file():
        raise UserError(f"{path} does not exist; {RESTART}")
    try:
        # torch.load checks no checksum: a flipped bit would become a weight.
        with zipfile.ZipFile(path) as file:
            intact = file.testzip() is None
        content = torch.load(path, map_location="cpu", weights_only=True) if intact else {}
        if content["format"] == FORMAT and isinstance(content["epoch"], int):
            content["settings"].items()
            return content
    except MemoryError:
        raise
    except Exception as error:  # zipfile, its decompressors and torch raise many kinds
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's or the system's
    raise UserError(f"{path} is damaged; {RESTART}")


def load(run: Path, trained: Trained, settings: dict, device: torch.device) -> int:
    """Load the run's checkpoint into what is trained; returns its epoch.

    Raises UserError if there is none, it is damaged, or it was written under other settings.
    """
    content = read(run)
    for name, value in settings.items():
        started = content["settings"].get(name)
        if started != value:
            what = f"with {name} = {started}, not {value}; {typed(name, started)}"
            if name == "data_sha256":
                what = "on another data set, not --data; name that one"
            raise UserError(f"--resume: {run} was started {what}, or name another run with --run")
    trained.model.load_state_dict(content["model"])
    trained.optimizer.load_state_dict(content["optimizer"])
    if trained.average:
        trained.average.load_state_dict(content["average"])
    previous = content["previous"]
    trained.loss.previous = None if previous is None else previous.to(device)
    return content["epoch"]


def load_evaluated(run: Path, model: nn.Module, content: dict) -> None:
    """Load the weights that were evaluated from the content of a checkpoint.

    Raises UserError if they are another network's.
    """
    try:
        weights = content["model"]
        if content["average"]:
            averaged = content["average"].items()
            weights = {k.removeprefix("module."): v for k, v in averaged if k != "n_averaged"}
        model.load_state_dict(weights)
    except (RuntimeError, LookupError) as error:
        raise UserError(f"{run / CHECKPOINT} is of another network; {RESTART}") from error
