"""Train runs one after the other, also under torchrun, with a small float64 network among them.

    python train_small_network.py "<flags of train.py>" "<flags of the next run>" ...

The network `double` is smooth and without BatchNorm, whose statistics on CPUs are of each rank's
own images: what is left is what the processes have to agree on. The checkpoint of epoch 2 of each
run is kept as epoch2.pt.
"""

import shutil
import sys

import torch
from torch import nn

import train
from models import MODELS
from training import checkpoint, distributed


class Double(nn.Module):
    """The inputs in float64."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double()


def double(num_classes: int, *_) -> nn.Module:
    """For images of 8x8 pixels."""
    layers = Double(), nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(288, num_classes)
    return nn.Sequential(*layers).double()


def keeping(save):
    """checkpoint.save, which also keeps the second epoch's."""

    def save_and_keep(run, trained, epoch, settings):
        save(run, trained, epoch, settings)
        if epoch == 2:
            shutil.copyfile(run / "checkpoint.pt", run / "epoch2.pt")

    return save_and_keep


def main() -> None:
    MODELS["double"] = double
    checkpoint.save = keeping(checkpoint.save)
    # The processes stay together between the runs.
    destroy, distributed.destroy = distributed.destroy, lambda: None
    for words in sys.argv[1:]:
        assert train.main(words.split()) == 0
    destroy()


if __name__ == "__main__":
    main()
