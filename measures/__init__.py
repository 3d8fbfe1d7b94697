"""The measures of ONE run: arrays in, numbers out. No file is read or written here."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

LINE_SECONDS = 20  # without a terminal, a line that work goes on comes about so often


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


def progress(steps: Sequence, title: str) -> Iterator:
    """The steps, with a bar on a terminal, and otherwise a line per LINE_SECONDS."""
    shown = time.monotonic()
    for done, step in enumerate(tqdm(steps, title, leave=False, disable=None, delay=2)):
        yield step
        if not sys.stderr.isatty() and time.monotonic() - shown >= LINE_SECONDS:
            shown = time.monotonic()
            print(f"  {title}: {done + 1} of {len(steps)}", flush=True)
