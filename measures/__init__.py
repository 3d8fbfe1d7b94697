"""The measures of ONE run: arrays in, numbers out. No file is read or written here."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm


@dataclass(frozen=True)
class RunArrays:
    """What is measured of a run: its outputs by epoch, with the images and their labels."""

    test_images: np.ndarray  # uint8 (M, H, W, 3)
    test_labels: np.ndarray  # int64 (M,)    clean
    test_logits: np.ndarray  # float32 (epochs, M, C)
    images: np.ndarray  # uint8 (n, H, W, 3)    of the train sample
    clean: np.ndarray  # int64 (n,)    their clean labels
    noisy: np.ndarray  # int64 (n,)    their noisy labels
    logits: np.ndarray  # float32 (epochs, n, C)    of the train sample
    training_labels: tuple[np.ndarray, np.ndarray]  # int64 (N,)    clean and noisy, all images


def progress(steps: Iterable, title: str) -> Iterable:
    """The steps, with a bar on a terminal once they have taken two seconds."""
    return tqdm(steps, title, leave=False, disable=None, delay=2)
