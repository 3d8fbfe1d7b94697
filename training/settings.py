"""What a run is made of: train.py's flags."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from losses import CROSS_ENTROPY, SELF_DISTILLATION, Loss
from models import network_name


@dataclass(frozen=True)
class RunSettings:
    """train.py's flags, in the order and with the defaults that config.json has."""

    loss: str = CROSS_ENTROPY
    teacher: str = "batch"
    soft: bool = False
    weight: float | None = None
    momentum: float | None = None  # of the averaged teacher
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
    cuda_graphs: bool = False
    runs: Path = Path("runs")
    run: str | None = None
    resume: str | bool = False  # True, False or "auto"
    overwrite: bool = False
    evaluate: Path | None = None

    @property
    def loss_function(self) -> Loss:
        """The loss. Raises UserError if its flags do not fit each other."""
        return Loss(self.loss, self.teacher, self.soft, self.weight, self.momentum)

    @property
    def network(self) -> str:
        """What figures, tables and runs call the network."""
        return network_name(self.model, self.depth, self.width)

    @property
    def title(self) -> str:
        """The network, and whether its weights are averaged, for figures and tables."""
        averaged = f", averaged weights, decay {self.ema_decay:g}" if self.ema_decay else ""
        return self.network + averaged

    @property
    def folder(self) -> Path:
        """The run's folder: <runs>/<data set>/<run>."""
        averaged = f"-ema{self.ema_decay:g}" if self.ema_decay else ""
        name = self.run or f"{self.loss_function.slug}-{self.network}{averaged}-seed{self.seed}"
        return self.runs / self.data.stem / name

    def flags(self) -> dict:
        """The settings as config.json has them, plain values by flag."""
        flags = {f.name: getattr(self, f.name) for f in fields(self)}
        flags = {k: str(v) if isinstance(v, Path) else v for k, v in flags.items()}
        return {"dis": int(self.loss == SELF_DISTILLATION), **flags}

    @classmethod
    def from_flags(cls, flags: dict) -> RunSettings:
        """The settings of a config.json, also of one written before `loss` was a flag."""
        values = {f.name: flags.get(f.name, f.default) for f in fields(cls)}
        if "loss" not in flags:
            values["loss"] = SELF_DISTILLATION if flags["dis"] else CROSS_ENTROPY
        for name in ("data", "runs", "evaluate"):
            values[name] = values[name] and Path(values[name])
        return cls(**values)
