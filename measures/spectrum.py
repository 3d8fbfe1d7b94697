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
    softmax, one_hot
              {part: (epochs, K) coefficients}; NaN where the part is dropped or has no energy
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dataset.batches import normalize
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


def make_kernel(
    name: str,
    delta: float | None,
    images: np.ndarray,
    classes: int,
    model: nn.Module | None,
    device: torch.device,
) -> Tensor:
    """A kernel float64 (n, n) of images uint8 (n, H, W, 3).

    name, delta: as in spectrum.json; model: of a tangent kernel, on the device, with as many
    outputs as classes. Raises ValueError as `tangent_kernel` does.
    """
    points = normalize(torch.from_numpy(images).to(device))
    if name == "gaussian":
        return kernels.gaussian_kernel(points, delta)
    if name == "ntk-initial":
        model = kernels.calibrated(model, points)
    return kernels.tangent_kernel(model, points, kernels.output_vectors(classes))


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
    blocks: dict[str, list[np.ndarray]] = {"softmax": [], "one_hot": []}
    for start in range(0, len(logits), EPOCHS_AT_ONCE):
        block = np.array(logits[start : start + EPOCHS_AT_ONCE])
        softmax = torch.from_numpy(block).to(spectrum.vectors.device).softmax(2)
        one_hot = torch.from_numpy(parts.one_hot_predictions(block)).to(softmax)
        for name, outputs in (("softmax", softmax), ("one_hot", one_hot)):
            products = _output_products(spectrum, outputs)
            found = parts.coefficients(
                spectrum.gram, products, transition_dropped, float(totals[0, 0])
            )
            blocks[name].append(found)
    present = totals > parts.NEGLIGIBLE * totals[0]
    fractions = np.where(present, energies / np.where(present, totals, 1), np.nan)
    by_kind = {name: np.concatenate(found, axis=1) for name, found in blocks.items()}
    return {
        "edges": spectrum.edges,
        "energies": dict(zip(PARTS, fractions, strict=True)),
        **{name: dict(zip(PARTS, values, strict=True)) for name, values in by_kind.items()},
    }


def _output_products(spectrum: LabelSpectrum, outputs: Tensor) -> np.ndarray:
    """Inner products of the labels' parts with outputs float32 (E, n, C), by band: (3, E, K)."""
    columns = (outputs - outputs.mean(1, keepdim=True)).permute(1, 2, 0)  # (n, C, E)
    # The rounding errors of this float32 product are below 1e-6 of the outputs' norm.
    projected = spectrum.vectors.T @ columns.reshape(len(columns), -1)
    projected = projected.view(-1, *columns.shape[1:]).double()
    return _band_products(spectrum.projections, projected, spectrum.edges)


def _band_products(first: Tensor, second: Tensor, edges: list[int]) -> np.ndarray:
    """Inner products over eigenvectors and classes: (n - 1, C, P), (n - 1, C, E) -> (P, E, K)."""
    sizes = np.diff(edges).tolist()  # row 0 is index 1
    pairs = zip(first.split(sizes), second.split(sizes), strict=True)
    products = [a.flatten(0, 1).T @ b.flatten(0, 1) for a, b in pairs]
    return torch.stack(products, dim=2).cpu().numpy()
