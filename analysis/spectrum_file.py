"""spectrum.json: what one run learned of each part of the labels along kernels' eigenvectors.

It holds `digest` (of the data set), `n` (images of the sample), `epochs`, and a list `kernels` with

    kernel       gaussian, ntk-initial or ntk-final (see analysis/tangent_kernel.py)
    delta        of the Gaussian kernel, a variance in squared normalized-pixel units; else null
    vectors      of a tangent kernel: which output vectors it sums over; else null
    epoch        of a tangent kernel: 0, or the epoch of the checkpoint; else null
    bands        edges of the half octaves of the index: band k is edge k to edge k + 1 minus 1
    eigenvalues  [band] share of the centered kernel's trace
    shuffled     [band] expected share of the energy of shuffled labels
    totals       {part: energy of the part, |part|^2 / n}
    energies     {part: [band] share of the part's energy}; null for a part without energy
    shares       {softmax, one_hot: {part: [epoch][band]}} learned shares of the outputs and of the
                 predictions as one-hot vectors; null where a band has no energy of the part

with the parts clean, transition and individual of analysis/label_parts.py. The transition's shares
are null if it is a multiple of the clean part. Numbers have five significant digits.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import read_json, write_text
from common.run_folder import SPECTRUM

REMEDY = "make it with spectrum.py"
RUN_FIELDS = ("digest", "n", "epochs")
KERNEL_FIELDS = ("kernel", "delta", "bands", "energies", "shares")


def write_spectrum(run: Path, content: dict) -> Path:
    """Write a run's spectrum.json, whole or not at all; returns its path.

    Kernels of the old file that are not in `content` stay, if they are of the same data set, number
    of images and number of epochs.
    """
    try:
        old = read_spectrum(run)
    except UserError:
        old = None
    kernels = {_key(entry): entry for entry in content["kernels"]}
    if old and all(old[name] == content[name] for name in RUN_FIELDS):
        kernels = {_key(entry): entry for entry in old["kernels"]} | kernels
    content = content | {"kernels": [kernels[key] for key in sorted(kernels)]}
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    write_text(run / SPECTRUM, text + "\n")
    return run / SPECTRUM


def read_spectrum(run: Path) -> dict | None:
    """A run's spectrum.json; None if there is none yet. Raises UserError if it is damaged."""
    path = run / SPECTRUM
    if not path.exists():
        return None
    content = read_json(path, "make it again with spectrum.py")
    entries = content.get("kernels")
    missing = [name for name in RUN_FIELDS if name not in content]
    if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
        missing += [name for entry in entries for name in KERNEL_FIELDS if name not in entry]
    else:
        missing.append("kernels")
    if missing:
        raise UserError(f"{path}: it has no `{missing[0]}`; make it again with spectrum.py")
    return content


def kernel_title(entry: dict) -> str:
    """What figures and tables call the kernel of an entry of `kernels`, or of one to be made."""
    if entry["kernel"] == "gaussian":
        return f"gaussian, delta {entry['delta']:g}"
    return entry["kernel"]


def as_array(numbers: Sequence) -> np.ndarray:
    """Nested lists of numbers as float64, null as NaN."""
    return np.array(numbers, dtype=np.float64)


def as_numbers(values: np.ndarray) -> list:
    """An array as nested lists of five significant digits, NaN as null."""
    if values.ndim:
        return [as_numbers(value) for value in values]
    return None if np.isnan(values) else float(f"{values:.5g}")


def _key(entry: dict) -> tuple[str, float]:
    return entry["kernel"], entry["delta"] or 0
