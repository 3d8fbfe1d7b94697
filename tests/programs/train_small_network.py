"""Train runs one after the other with a small float64 network, also under torchrun.

    python train_small_network.py "<flags of train.py>" "<flags of the next run>" ...

The network is smooth and without BatchNorm, whose statistics on CPUs are of each rank's own images:
what is left is what the processes have to agree on.
"""

import sys

import torch
from torch import nn

import train
from training import distributed, prepare


class Double(nn.Module):
    """The inputs in float64."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double()


def make_model(settings, dataset) -> nn.Module:
    """For images of 8x8 pixels in four classes."""
    layers = Double(), nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(288, 4)
    return nn.Sequential(*layers).double()


prepare.make_model = make_model
# The processes stay together between the runs.
destroy, distributed.destroy = distributed.destroy, lambda: None
for words in sys.argv[1:]:
    assert train.main(words.split()) == 0
destroy()
