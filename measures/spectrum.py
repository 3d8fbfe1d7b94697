"""The coefficients of the outputs along the eigenvectors of a kernel: spectrum.json.

The eigenvectors (measures/kernels.py) are grouped in half octaves of their index, without the
constant vector, so that the bands add up to all that is not constant. Within a band, least squares
on the parts of the noisy labels (measures/parts.py) gives what a network has learned of each part.
Spectral bias (Rahaman et al., arXiv 1806.08734) is a coefficient that falls with the index.

spectrum.json has n, the number of images, and `kernels`. An entry of it, for K bands and the parts
clean, transition and residual:

    kernel    gaussian, ntk-initial or ntk-final
    delta     of the Gaussian kernel, a variance in squared normalized-pixel units
    edges     of the bands: band k is index edges[k] to edges[k + 1] - 1
    energies  {part: (K,) fraction of the part's energy}; NaN for a part without energy
    softmax   {part: (epochs, K) coefficients}; NaN where the part is dropped or has no energy
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from measures import kernels, parts
from measures.parts import PARTS

EPOCHS_AT_ONCE = 20  # outputs whose projections are computed in one product


@dataclass(frozen=True)
class LabelSpectrum:
    """The parts of the labels along the eigenvectors of one kernel, in K bands."""

    edges: list[int]  # of the bands, as kernels.half_octaves gives them: K + 1 integers
    vectors: Tensor  # float32 (n, n - 1)
    projections: Tensor  # float64 (n - 1, C, 3) of the parts on the eigenvectors
    gram: np.ndarray  # (3, 3, K)    inner products of the parts within each band


def label_spectrum(kernel: Tensor, label_parts: dict[str, np.ndarray]) -> LabelSpectrum:
    """The parts (n, C) of the labels along the eigenvectors of a kernel (n, n).

    The kernel is centered in place. Raises ValueError as `eigenvectors` does.
    """
    vectors = kernels.eigenvectors(kernel)
    columns = np.stack([label_parts[name] for name in PARTS], axis=2)  # (n, C, 3)
    columns = torch.from_numpy(columns - columns.mean(axis=0)).to(kernel)
    projections = (vectors.T @ columns.flatten(1)).view(-1, *columns.shape[1:])
    edges = kernels.half_octaves(len(projections))
    gram = _band_products(projections, projections, edges)
    return LabelSpectrum(edges, vectors.float(), projections, gram)


def measure_spectrum(spectrum: LabelSpectrum, logits: np.ndarray, transition_dropped: bool) -> dict:
    """Edges, energies and coefficients of an entry of spectrum.json.

    logits: float32 (epochs, n, C) of the images of the kernel; transition_dropped: see
    parts.split_labels.
    """
    energies = np.stack([spectrum.gram[part, part] for part in range(len(PARTS))])  # (3, K)
    totals = energies.sum(axis=1, keepdims=True)
    present = totals > parts.NEGLIGIBLE * totals[0]
    fractions = np.where(present, energies / np.where(present, totals, 1), np.nan)
    blocks = []
    for start in range(0, len(logits), EPOCHS_AT_ONCE):
        block = torch.from_numpy(np.array(logits[start : start + EPOCHS_AT_ONCE]))
        outputs = block.to(spectrum.vectors.device).softmax(2)  # (E, n, C)
        columns = (outputs - outputs.mean(1, keepdim=True)).permute(1, 2, 0)  # (n, C, E)
        # The rounding errors of this float32 product are below 1e-6 of the outputs' norm.
        projected = spectrum.vectors.T @ columns.reshape(len(columns), -1)
        projected = projected.view(-1, *columns.shape[1:]).double()
        products = _band_products(spectrum.projections, projected, spectrum.edges)
        total = float(totals[0, 0])
        blocks.append(parts.coefficients(spectrum.gram, products, transition_dropped, total))
    return {
        "edges": spectrum.edges,
        "energies": dict(zip(PARTS, fractions, strict=True)),
        "softmax": dict(zip(PARTS, np.concatenate(blocks, axis=1), strict=True)),
    }


def _band_products(first: Tensor, second: Tensor, edges: list[int]) -> np.ndarray:
    """Inner products over eigenvectors and classes: (n - 1, C, P), (n - 1, C, E) -> (P, E, K)."""
    sizes = np.diff(edges).tolist()  # row 0 is index 1
    pairs = zip(first.split(sizes), second.split(sizes), strict=True)
    products = [a.flatten(0, 1).T @ b.flatten(0, 1) for a, b in pairs]
    return torch.stack(products, dim=2).cpu().numpy()
