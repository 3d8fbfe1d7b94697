"""Slow references for the measures in the frequency domain, in float64 with numpy and scipy."""

import numpy as np
from scipy.spatial.distance import cdist


def smoothing_matrix(points, delta: float) -> np.ndarray:
    """S (n, n) of points (n, d)."""
    kernel = np.exp(-cdist(points, points, "sqeuclidean") / (2 * delta))
    return kernel / kernel.sum(1, keepdims=True)


def split_bands(smoothing, values) -> tuple[np.ndarray, np.ndarray]:
    """The low and the high part of values (n, C)."""
    low = smoothing @ values
    return low, values - low


def expected_ratios(smoothing, values) -> dict[str, float]:
    """The measures that need no labels, of values (n, C)."""
    norm, (low, high) = np.linalg.norm, split_bands(smoothing, values)
    centered = values - values.mean(0)
    null = (np.square(smoothing).sum() - 1) / (len(smoothing) - 1)
    lfr = norm(smoothing @ centered) ** 2 / norm(centered) ** 2
    return {
        "delta_norm": norm(low) / (norm(low) + norm(high)),
        "energy_share": norm(low) ** 2 / (norm(low) ** 2 + norm(high) ** 2),
        "lfr": lfr,
        "excess": (lfr - null) / (1 - null),
    }


def expected_errors(smoothing, labels, values) -> dict[str, float]:
    """Relative errors of values (n, C) against labels (n, C), by band."""
    norm = np.linalg.norm
    bands = zip(split_bands(smoothing, labels), split_bands(smoothing, values), strict=True)
    errors = [norm(expected - output) / norm(expected) for expected, output in bands]
    return dict(zip(("e_low", "e_high"), errors, strict=True))


def expected_shares(smoothing, clean, noise, values) -> dict[str, float]:
    """Least squares by numpy's solver on the flattened bands of clean labels and noise."""
    parts = [split_bands(smoothing, v - v.mean(0)) for v in (clean, noise, values)]
    shares = {}
    for k, band in enumerate(("low", "high")):
        matrix = np.stack([parts[0][k].ravel(), parts[1][k].ravel()], axis=1)
        solution = np.linalg.lstsq(matrix, parts[2][k].ravel(), rcond=None)[0]
        shares[f"learned_true_{band}"], shares[f"learned_noise_{band}"] = solution
    return shares


def is_close(value: float, expected: float) -> bool:
    """To 1e-5: absolute up to 1, relative above (e_high is unbounded)."""
    return abs(value - expected) < 1e-5 * max(1, abs(expected))
