"""Class-balanced subsets of the images."""

import numpy as np

from common.errors import UserError
from dataset.data_file import DataSet

SAMPLE_SIZE = 10_000  # training images that are evaluated after each epoch, by default


def balanced_subset(
    labels: np.ndarray, size: int, num_classes: int, seed: int, flag: str
) -> np.ndarray:
    """Sorted indices int64 (size,) of random images; class counts differ by at most one.

    labels: int64 (N,); flag: the flag that sets the size, for the error. Raises UserError if a
    class has too few images.
    """
    chosen = []
    for label in range(num_classes):
        wanted = size // num_classes + (label < size % num_classes)
        members = np.flatnonzero(labels == label)
        if len(members) < wanted:
            raise UserError(
                f"{flag} {size}: equal classes need {wanted} images of class {label}, which has "
                f"only {len(members)} of the {len(labels)} images; use a smaller {flag}"
            )
        chosen.append(np.random.default_rng([seed, 2, label]).permutation(members)[:wanted])
    return np.sort(np.concatenate(chosen))


def sample_indices(dataset: DataSet, size: int | None) -> np.ndarray:
    """Sorted indices int64 (n,) of the training images that are evaluated after each epoch.

    Class-balanced, and the same for every run on a data set; all images, or SAMPLE_SIZE of them,
    if size is None. Raises UserError if there are too few.
    """
    if size is None and len(dataset.train_images) <= SAMPLE_SIZE:
        return np.arange(len(dataset.train_images))
    size, classes = size or SAMPLE_SIZE, dataset.num_classes
    return balanced_subset(dataset.clean_labels, size, classes, seed=0, flag="--sample-size")
