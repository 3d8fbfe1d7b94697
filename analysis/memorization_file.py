"""memorization.json: what one run memorizes of the noisy labels, and how confident it is.

    digest               of the data set
    n                    number of training images in the sample
    transition_dropped   whether the transition part is collinear with the clean labels
    transition_evidence  the number that decides this (analysis/label_parts.py)
    energies             share of each part of the noisy labels in the energy of all three
    ideal                {softmax, one_hot: {part: share}} of the ideal predictor, from the data
    curves               {name: [epoch]}

Curves, of the sample of training images unless `test` is in their name:

    gap, gap_error       memorization gap, and its standard error without memorization (points)
    auc                  area under the ROC curve for finding wrong labels by their loss (0 to 1)
    softmax_clean, softmax_transition, softmax_individual
                         learned shares of the three parts of the noisy labels, unfiltered
    one_hot_clean, ...   the same of one-hot predictions: equal confidence
    test_calibration_error, test_confidence, confidence   percent

A value that does not exist (no wrong labels, a part that is dropped) is null. The measures are
defined in analysis/label_parts.py, memorization.py and calibration.py.
"""

from pathlib import Path

from common.errors import UserError
from common.files import read_json, write_json
from common.run_folder import MEMORIZATION


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
