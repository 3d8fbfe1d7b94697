"""Measure what a run memorizes of the noisy labels: the content of memorization.json."""

import numpy as np
from scipy.special import softmax

from analysis import calibration, label_parts, memorization
from dataset.data_file import DataSet


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
        "softmax": (softmax(epoch, axis=1) for epoch in sample_logits),
        "one_hot": (label_parts.one_hot_predictions(epoch) for epoch in sample_logits),
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
