"""What a run is made of: train.py's flags."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from losses import LOSSES, CrossEntropy, flags_of
from models import network_title

# Flags that do not change what is trained: they are not part of a run's name.
OUTSIDE_NAMES = ("loss", "loss_flags", "data", "model", "depth", "width", "seed", "device")
OUTSIDE_NAMES += ("ema_decay", "compile", "runs", "run", "resume", "overwrite", "evaluate")
# Flags that may differ when a run resumes: where it is, and how the same numbers are computed.
FREE_ON_RESUME = ("data", "runs", "run", "resume", "overwrite", "evaluate", "device", "compile")


@dataclass(frozen=True)
class RunSettings:
    """train.py's flags with their defaults; loss_flags are those of the loss (losses.py)."""

    loss: str = "cross-entropy"
    loss_flags: dict = field(default_factory=dict)
    data: Path = Path("data/cifar10-pair40.npz")
    model: str = "shake_resnet"
    depth: int = 26
    width: int = 32
    epochs: int = 300
    batch_size: int = 128
    lr: float = 0.2  # at the first step; one cosine to 0
    weight_decay: float = 1e-4
    ema_decay: float = 0.0  # per step, of the averaged weights that are evaluated; 0: no average
    augment: bool = True
    seed: int = 0
    sample_size: int | None = None  # training images evaluated after each epoch
    device: str = "auto"
    amp: bool | None = None  # bfloat16; None: on CUDA only
    compile: bool = False
    runs: Path = Path("runs")
    run: str | None = None
    resume: str | bool = False  # True, False or "auto"
    overwrite: bool = False
    evaluate: Path | None = None

    def make_loss(self) -> CrossEntropy:
        """The loss. Raises UserError if its flags do not fit each other."""
        return LOSSES[self.loss](**self.loss_flags)

    @property
    def network(self) -> str:
        """The network that is evaluated, in tables and figures."""
        averaged = f", averaged weights, decay {self.ema_decay:g}" if self.ema_decay else ""
        return network_title(self.model, self.depth, self.width) + averaged

    @property
    def folder(self) -> Path:
        """<runs>/<data set>/<run>, named by loss, network, what is not default, and seed."""
        if self.run:
            return self.runs / self.data.stem / self.run
        words = [self.make_loss().slug, network_title(self.model, self.depth, self.width)]
        words += [f"ema{self.ema_decay:g}"] if self.ema_decay else []
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name not in OUTSIDE_NAMES and value != each.default:
                name = each.name.replace("_", "-")
                text = name if value is True else f"{name}{value:g}"
                words.append(f"no-{name}" if value is False else text)
        return self.runs / self.data.stem / "-".join([*words, f"seed{self.seed}"])

    def flags(self) -> dict:
        """The settings as config.json has them: plain values by flag, also the loss's own."""
        flags = {each.name: getattr(self, each.name) for each in fields(self)}
        flags |= flags_of(LOSSES[self.loss]) | flags.pop("loss_flags")
        return {k: str(v) if isinstance(v, Path) else v for k, v in flags.items()}

    @property
    def fixed(self) -> dict:
        """The flags that must be the same when the run resumes."""
        return {k: v for k, v in self.flags().items() if k not in FREE_ON_RESUME}


def typed(name: str, value: object) -> str:
    """What to type so that a flag of train.py has this value."""
    flag = name.replace("_", "-")
    if isinstance(value, bool) and hasattr(RunSettings, name):
        return f"use --{flag}" if value else f"use --no-{flag}"
    if value is None or value is False:
        return f"leave --{flag} out"
    return f"use --{flag}" if value is True else f"use --{flag} {value}"
