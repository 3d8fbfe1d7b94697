"""Which epoch of cross-entropy a distilled run is like, by the individual noise that both hold.

The profile of an epoch is the share of the individual part of the labels that the outputs have
learned, by band of a kernel's eigenvectors (kernel_spectrum.py). The equivalent epoch of an epoch
of a distilled run is the epoch of the cross-entropy run of the same draw whose profile is nearest.
Distances are root mean squares over the bands, weighted by the individual part's energy.

A profile has a level, its weighted mean, and a shape, the profile minus its level:

    distance^2 = (difference of levels)^2 + (distance of shapes)^2

A flat profile of the same level is the trivial comparison: a reference whose shape carries
information is nearer than that.

Self-distillation was related to early stopping through the kernel's spectrum by Dong et al. (arXiv
1910.01255).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EpochPath:
    """For each of the E epochs of a run, the nearest epoch of the reference, counted from 0."""

    nearest: np.ndarray  # int64 (E,)    by the whole profile
    distance: np.ndarray  # (E,)         there
    shape_distance: np.ndarray  # (E,)   the part of it that is not the level's
    flat_distance: np.ndarray  # (E,)    from a flat profile of the epoch's own level
    resolution: np.ndarray  # (E,)       from that epoch to the nearer of its neighbors
    shape_resolution: np.ndarray  # (E,) the same of the shapes alone
    by_level: np.ndarray  # int64 (E,)   nearest by the level only
    distance_by_level: np.ndarray  # (E,)  of the whole profiles there

    @property
    def gain(self) -> np.ndarray:
        """How much nearer the profile's shape brings the epoch than its level alone (E,)."""
        return self.distance_by_level - self.distance


def distances(profiles: np.ndarray, reference: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Root mean squares (E, R) of the differences of profiles (E, K) and (R, K).

    weights: (K,), which add up to 1.
    """
    differences = profiles[:, None] - reference[None]
    return np.sqrt((weights * differences**2).sum(axis=2))


def epoch_path(profiles: np.ndarray, reference: np.ndarray, energy: np.ndarray) -> EpochPath:
    """Where each epoch of a distilled run lies on the path of the cross-entropy run.

    profiles: (E, K) and reference: (R, K), shares of the individual part by epoch and band; energy:
    (K,) of that part. Bands without energy, or with a share that is not known (NaN), are left out.
    The earliest of several equally near epochs is taken. Raises ValueError if no band is left.
    """
    known = (energy > 0) & np.isfinite(profiles).all(axis=0) & np.isfinite(reference).all(axis=0)
    if not known.any():
        raise ValueError("the individual part has no energy: no label is wrong")
    weights = energy[known] / energy[known].sum()
    profiles, reference = profiles[:, known], reference[:, known]
    whole = distances(profiles, reference, weights)
    level, reference_level = profiles @ weights, reference @ weights
    shapes, reference_shapes = profiles - level[:, None], reference - reference_level[:, None]
    shape_distances = distances(shapes, reference_shapes, weights)
    nearest, by_level = whole.argmin(axis=1), nearest_values(level, reference_level)
    epochs = np.arange(len(profiles))
    return EpochPath(
        nearest,
        whole[epochs, nearest],
        shape_distances[epochs, nearest],
        np.sqrt(shapes**2 @ weights),
        neighbor_distances(reference, weights)[nearest],
        neighbor_distances(reference_shapes, weights)[nearest],
        by_level,
        whole[epochs, by_level],
    )


def neighbor_distances(profiles: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The distance (E,) of each epoch's profile to the nearer of the epochs before and after it.

    Infinite for a single epoch. It gives a scale for the distance of an equivalent epoch: a run
    whose profile is farther away than the path's own steps is not on the path.
    """
    steps = np.sqrt((weights * np.diff(profiles, axis=0) ** 2).sum(axis=1))
    return np.minimum(np.append(np.inf, steps), np.append(steps, np.inf))


def nearest_values(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """For each value (E,), the index of the nearest reference value (R,): int64 (E,)."""
    return np.abs(values[:, None] - reference[None]).argmin(axis=1)


def excess(shares: np.ndarray, reference: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """How much more of a part a run learned than the reference at its equivalent epochs: (E, K).

    shares: (E, K) and reference: (R, K), of the clean labels by epoch and band; nearest: (E,).
    """
    return shares - reference[nearest]
