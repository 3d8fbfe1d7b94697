"""How much of each part of the labels the outputs hold along a kernel's eigenvectors.

The eigenvectors of a centered kernel over n images are orthogonal; ordered by eigenvalue, those of
a Gaussian kernel go from smooth to rough. They are grouped in half octaves of their index, without
the constant vector, so that the bands add up to all that is not constant. Within a band, least
squares on the parts of the labels (label_parts.py) gives the shares that a network has learned.
Spectral bias (Rahaman et al., arXiv 1806.08734) is a share that falls with the index.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis import label_parts


def half_octaves(count: int) -> list[int]:
    """Edges e_0 < e_1 < ... of bands of the indices 1 to `count`: band k is e_k to e_(k+1) - 1.

    The edges are the powers of the square root of 2, rounded; the last is count + 1.
    """
    powers = {round(2 ** (k / 2)) for k in range(2 * count.bit_length())}
    return [*sorted(edge for edge in powers if edge <= count), count + 1]


def gaussian_kernel(images: Tensor, delta: float) -> Tensor:
    """exp(-|x_i - x_j|^2 / (2 delta)): float64 (n, n) of normalized images (n, ...).

    delta is a variance, in squared normalized-pixel units.
    """
    points = images.flatten(1).double()
    points = points - points.mean(0)  # keeps the distances, and makes their rounding errors smaller
    norms = points.square().sum(1)
    distances = torch.addmm(norms, points, points.T, alpha=-2).add_(norms[:, None])
    distances.fill_diagonal_(0)
    return distances.clamp_(min=0).mul_(-0.5 / delta).exp_()


def eigenvectors(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (n - 1,) and eigenvectors (n, n - 1) of the centered kernel, largest first.

    kernel: float64 (n, n), symmetric and positive semidefinite; it is centered in place, as H K H
    with H = I - 11'/n. The constant vector, whose eigenvalue is then 0, is left out. Raises
    ValueError if the kernel has a value that is not finite, or is the same for all images.
    """
    if not kernel.isfinite().all():
        raise ValueError("the kernel has values that are not finite")
    means = kernel.mean(0)
    kernel.sub_(means).sub_(means[:, None]).add_(means.mean())
    trace = kernel.trace()
    if not trace > 0:
        raise ValueError("the kernel is the same for all images")
    # A negative eigenvalue for the constant vector keeps it apart from others of about 0.
    kernel.sub_(trace / len(kernel) ** 2)
    values, vectors = torch.linalg.eigh(kernel)
    return values[1:].flip(0), vectors[:, 1:].flip(1)


@dataclass(frozen=True)
class LabelSpectrum:
    """The parts of the labels along the eigenvectors of one kernel, in K bands."""

    edges: list[int]  # of the bands, as half_octaves gives them: K + 1 integers
    vectors: Tensor  # float32 (n, n - 1)
    eigenvalues: np.ndarray  # (K,)    the bands' shares of the kernel's trace
    projections: Tensor  # float64 (n - 1, C, 3) of the parts on the eigenvectors
    gram: np.ndarray  # (3, 3, K)    inner products of the parts within each band

    @property
    def energies(self) -> np.ndarray:
        """|part|^2 in each band: (3, K)."""
        return np.stack([self.gram[part, part] for part in range(len(self.gram))])


def label_spectrum(kernel: Tensor, parts: dict[str, np.ndarray]) -> LabelSpectrum:
    """The parts (n, C) of the labels along the eigenvectors of a kernel (n, n).

    The kernel is centered in place. Raises ValueError as `eigenvectors` does.
    """
    values, vectors = eigenvectors(kernel)
    values = values.clamp(min=0)
    columns = np.stack([parts[name] for name in label_parts.PARTS], axis=2)  # (n, C, 3)
    columns = torch.from_numpy(columns - columns.mean(axis=0)).to(kernel)
    projections = (vectors.T @ columns.flatten(1)).view(-1, *columns.shape[1:])
    edges = half_octaves(len(values))
    traces = torch.stack([band.sum() for band in _bands(values, edges)])
    return LabelSpectrum(
        edges,
        vectors.float(),
        (traces / values.sum()).cpu().numpy(),
        projections,
        _band_products(projections, projections, edges),
    )


def learned_shares(
    spectrum: LabelSpectrum, outputs: Tensor, transition_dropped: bool
) -> np.ndarray:
    """Least-squares shares of the labels' parts in the outputs, by band: (3, E, K).

    outputs: float32 (E, n, C), such as the softmax outputs of E epochs. NaN for a part that is
    dropped or has no energy in a band, and for a band of too few dimensions to tell the parts
    apart.
    """
    columns = (outputs - outputs.mean(1, keepdim=True)).permute(1, 2, 0)  # (n, C, E)
    # The rounding errors of this float32 product are below 1e-6 of the outputs' norm.
    projected = spectrum.vectors.T @ columns.reshape(len(columns), -1)
    projected = projected.view(-1, *columns.shape[1:]).double()
    products = _band_products(spectrum.projections, projected, spectrum.edges)
    energy = float(spectrum.energies[0].sum())
    return label_parts.learned_shares(spectrum.gram, products, transition_dropped, energy)


def shuffled_energy(edges: list[int]) -> np.ndarray:
    """The expected share of shuffled labels' energy in each band: (K,).

    A random permutation makes centered labels isotropic in the n - 1 dimensions that are not
    constant, so that the expected share of a band is its share of the dimensions.
    """
    return np.diff(edges) / (edges[-1] - 1)


def _bands(values: Tensor, edges: list[int]) -> tuple[Tensor, ...]:
    """The rows of each band; row 0 is index 1."""
    return values.split(np.diff(edges).tolist())


def _band_products(first: Tensor, second: Tensor, edges: list[int]) -> np.ndarray:
    """Inner products over eigenvectors and classes: (n - 1, C, P), (n - 1, C, E) -> (P, E, K)."""
    pairs = zip(_bands(first, edges), _bands(second, edges), strict=True)
    products = [a.flatten(0, 1).T @ b.flatten(0, 1) for a, b in pairs]
    return torch.stack(products, dim=2).cpu().numpy()
