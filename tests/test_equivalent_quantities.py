"""analysis/equivalent_quantities.py on runs whose equivalent epochs are known."""

import numpy as np
import pytest
from histories import BANDS, DISTILLED, EPOCHS, PLAIN, half_as_fast, make_spectrum_run, shares

from analysis.equivalent_quantities import (
    EQUIVALENT_QUANTITIES,
    index_dependent_fraction,
    like_epoch,
)


@pytest.fixture
def pair():
    """A distilled run that ends like epoch 3 of 6, and the cross-entropy run of its draw."""
    runs = half_as_fast()["runs"]
    return next(r for r in runs if r["loss"] == DISTILLED), runs[0]


def test_a_run_that_is_half_as_fast_ends_at_half_the_epochs(pair):
    like = like_epoch(*pair)
    assert like["epoch"] == like["epoch by level"] == 3
    for name in ("distance", "excess", "fraction beyond", "accuracy", "gap"):
        assert like[name] == pytest.approx(0, abs=1e-12)
    weights = np.arange(1, len(BANDS)) ** -0.1 / EPOCHS
    assert like["step"] == pytest.approx(np.sqrt(np.mean(weights**2)))
    assert like["shape beyond step"] == pytest.approx(-np.std(weights))


def test_accuracy_and_gap_are_those_of_the_equivalent_epoch(pair):
    distilled, plain = pair
    distilled["history"]["test_accuracy"][-1] += 7
    distilled["memorization"]["curves"]["gap"][-1] -= 4
    like = like_epoch(distilled, plain)
    assert (like["accuracy"], like["gap"]) == pytest.approx((7, -4))


def test_one_hot_predictions_have_an_equivalent_epoch_of_their_own(pair):
    distilled, plain = pair
    for run, epochs in ((distilled, [0, 0, 0, 1, 1, 1]), (plain, range(EPOCHS))):
        (entry,) = run["spectrum"]["kernels"]
        (other,) = make_spectrum_run(PLAIN, 0, epochs)["spectrum"]["kernels"]
        entry["shares"]["one_hot"] = other["shares"]["softmax"]
    assert like_epoch(distilled, plain, "one_hot")["epoch"] == 2
    rows = {name: quantity(distilled, plain) for name, quantity in EQUIVALENT_QUANTITIES.items()}
    assert rows["equivalent epoch, one-hot (epoch)"] == 2
    assert rows["equivalent epoch of cross-entropy (epoch)"] == 3


def test_the_index_dependent_fraction_by_hand(pair):
    _, plain = pair
    (entry,) = plain["spectrum"]["kernels"]
    kept_out = 1 - shares(0, 4)["individual"]  # of the bands 1, 2 to 3, 4 to 7, 8 to 15, 16 to 31
    # Smooth are the bands that start below 32 / 5: the first three.
    expected = 1 - np.mean(kept_out[:3]) / np.mean(kept_out)
    assert index_dependent_fraction(entry, "softmax", 4) == pytest.approx(expected)
    entry["energies"]["individual"] = [0, 0.1, 0.3, 0, 0.6]
    smooth = (0.1 * kept_out[1] + 0.3 * kept_out[2]) / 0.4
    expected = 1 - smooth / (0.4 * smooth + 0.6 * kept_out[4])
    assert index_dependent_fraction(entry, "softmax", 4) == pytest.approx(expected)
    entry["shares"]["softmax"]["individual"][4] = [0.7] * 5
    assert index_dependent_fraction(entry, "softmax", 4) == pytest.approx(0)


def test_runs_without_the_kernel_have_no_quantities(pair):
    distilled, plain = pair
    plain["spectrum"] = None
    assert like_epoch(distilled, plain) is None
    assert {quantity(distilled, plain) for quantity in EQUIVALENT_QUANTITIES.values()} == {None}
