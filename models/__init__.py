"""The networks: the shake-shake ResNet of the study, and a small one for a laptop."""

from models.shake_resnet import shake_resnet
from models.small_cnn import small_cnn

__all__ = ["shake_resnet", "small_cnn"]
