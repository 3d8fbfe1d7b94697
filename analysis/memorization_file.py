"""memorization.json: what one run remembers of the noisy labels, and how confident it is.

    digest               of the data set
    n                    number of training images in the sample
    transition_dropped   whether the transition part is collinear with the clean labels
    transition_evidence  what that is decided by (analysis/label_parts.py)
    energies             share of each part of the noisy labels in the energy of all three
    ideal                {softmax, one_hot: {part: share}} of the ideal predictor, from the data
    curves               {name: [epoch]}

Curves, of the sample of training images unless `test` is in their name:

    gap, gap_error       memorization gap and its standard error without memorization (points)
    auc                  area under the ROC curve for finding wrong labels by their loss (0 to 1)
    softmax_clean, softmax_transition, softmax_individual
                         learned shares of the three parts of the noisy labels, unfiltered
    one_hot_clean, ...   the same of one-hot predictions: equal confidence
    test_calibration_error, test_confidence, confidence   percent

A value that does not exist (no wrong labels, a part that is dropped) is null. The measures are
defined in analysis/label_parts.py, memorization.py and calibration.py.
"""

from pathlib import Path

import numpy as np
from scipy.special import softmax

from analysis import calibration, label_parts, memorization
from common.errors import UserError
from common.files import read_json, write_json
from common.run_folder import MEMORIZATION
from dataset.data_file import DataSet


def write_memorization(run: Path, content: dict) -> Path:
    """Write a run's memorization.json, whole or not at all; returns its path."""
    write_json(run / MEMORIZATION, content)
    return run / MEMORIZATION


def read_memorization(run: Path) -> dict | None:
    """A run's memorization.json; None if there is none yet. Raises UserError if it is damaged."""
    path, remedy = run / MEMORIZATION, "make it again with frequency.py"
    if not path.exists():
        return None
    content = read_json(path, remedy)
    if "curves" not in content:
        raise UserError(f"{path}: it has no `curves`; {remedy}")
    return content


def measure_memorization(
    dataset: DataSet, index: np.ndarray, sample_logits: np.ndarray, test_logits: np.ndarray
) -> dict:
    """The content of memorization.json.

    index: int64 (n,), the training images of the sample; sample_logits: (epochs, n, C);
    test_logits: (epochs, M, C).
    """
    clean, noisy = dataset.clean_labels[index], dataset.train_labels[index]
    transition = label_parts.transition_matrix(
        dataset.clean_labels, dataset.train_labels, dataset.num_classes
    )
    evidence = label_parts.transition_evidence(dataset.clean_labels, transition)
    dropped = label_parts.transition_is_collinear(dataset.clean_labels, transition)
    parts = label_parts.label_parts(clean, noisy, transition)
    ideal = label_parts.ideal_predictor(clean, transition)[None]
    outputs = {
        "softmax": [softmax(epoch, axis=1) for epoch in sample_logits],
        "one_hot": label_parts.one_hot_predictions(sample_logits),
    }
    predictions = sample_logits.argmax(axis=2)
    curves = {
        "gap": memorization.memorization_gap(predictions, clean, noisy),
        "gap_error": memorization.gap_standard_error(predictions, clean, noisy),
        "auc": memorization.noisy_label_auc(
            memorization.label_losses(sample_logits, noisy), clean != noisy
        ),
    }
    for kind, values in outputs.items():
        shares = label_parts.unfiltered_shares(parts, values, dropped)
        curves |= {f"{kind}_{part}": share for part, share in shares.items()}
    curves["test_calibration_error"] = calibration.expected_calibration_error(
        test_logits, dataset.test_labels
    )
    curves["test_confidence"] = calibration.mean_confidence(test_logits)
    curves["confidence"] = calibration.mean_confidence(sample_logits)
    ideals = {"softmax": ideal, "one_hot": label_parts.one_hot_predictions(ideal)}
    return {
        "digest": dataset.sha256,
        "n": len(index),
        "transition_dropped": bool(dropped),
        "transition_evidence": evidence if np.isfinite(evidence) else None,
        "energies": part_energies(parts),
        "ideal": {
            kind: {
                part: or_none(share[0])
                for part, share in label_parts.unfiltered_shares(parts, values, dropped).items()
            }
            for kind, values in ideals.items()
        },
        "curves": {name: [or_none(value) for value in curve] for name, curve in curves.items()},
    }


def part_energies(parts: dict[str, np.ndarray]) -> dict[str, float]:
    """The energy |part - mean|^2 of each part (n, C), as a share of the sum of the three."""
    energies = {name: float(np.square(part - part.mean(0)).sum()) for name, part in parts.items()}
    total = sum(energies.values())
    return {name: energy / total for name, energy in energies.items()}


def or_none(value: float) -> float | None:
    """The number, or None for NaN: JSON has no NaN."""
    return None if np.isnan(value) else float(value)
