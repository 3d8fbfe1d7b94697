"""measures/parts.py against hand formulas for known predictors, and numpy's lstsq."""

import numpy as np
import pytest
from references import learning_run, lstsq, softmax

from measures import parts as mp
from measures.parts import PARTS


def pair_labels(per_class=500, rate=0.4, classes=10):
    """Clean and noisy labels with exactly `rate` of each class moved to the next one."""
    clean = np.repeat(np.arange(classes), per_class)
    wrong = np.tile(np.arange(per_class) < round(rate * per_class), classes)
    return clean, (clean + wrong) % classes


def drawn_labels(transition, count):
    """Clean labels in equal numbers, noisy ones drawn from the rows of `transition`."""
    random = np.random.default_rng(0)
    clean = random.permutation(np.arange(count) % len(transition))
    uniform = random.random((count, 1))
    return clean, (uniform > transition.cumsum(axis=1)[clean]).sum(axis=1)


def symmetric(classes, rate=0.4):
    return (1 - rate) * np.eye(classes) + rate * (1 - np.eye(classes)) / (classes - 1)


def uneven(classes=6, seed=0):
    """A transition matrix with other mistakes for each class, as people make them."""
    return 0.6 * np.eye(classes) + 0.4 * np.random.default_rng(seed).dirichlet([0.5] * classes, 6)


def estimated(clean, noisy, classes):
    transition = mp.transition_matrix(clean, noisy, classes)
    return transition, mp.label_parts(clean, noisy, transition)


def is_dropped(clean, noisy, classes):
    return mp.split_labels(clean, noisy, classes)[1]


def found(parts, outputs, dropped=False):
    """The coefficients (3, epochs)."""
    return np.stack([mp.part_coefficients(parts, outputs, dropped)[name] for name in PARTS])


def test_transition_matrix_counts_pairs_of_labels():
    random = np.random.default_rng(0)
    clean, noisy = random.integers(0, 4, (2, 300))
    transition = mp.transition_matrix(clean, noisy, 5)
    for c in range(4):
        for k in range(5):
            expected = np.mean([noisy[i] == k for i in range(300) if clean[i] == c])
            assert transition[c, k] == pytest.approx(expected)
    assert transition[4].tolist() == [0, 0, 0, 0, 1]


def test_parts_by_hand():
    clean, noisy = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    transition, parts = estimated(clean, noisy, 2)
    assert transition[0] == pytest.approx([2 / 3, 1 / 3])
    np.testing.assert_array_equal(parts["clean"], np.eye(2)[clean])
    shift = [-1 / 3, 1 / 3]
    np.testing.assert_allclose(parts["transition"], [shift, shift, shift, [0, 0]])
    kept, moved = [1 / 3, -1 / 3], [-2 / 3, 2 / 3]
    np.testing.assert_allclose(parts["residual"], [kept, kept, moved, [0, 0]], atol=1e-15)


@pytest.mark.parametrize("labels", [pair_labels(), drawn_labels(uneven(), 3000)])
def test_the_ideal_predictor_has_clean_and_transition_and_no_residual(labels):
    classes = labels[0].max() + 1
    transition = mp.transition_matrix(*labels, classes)
    # A sample whose own transitions differ from those of the training set.
    clean, noisy = (x[np.random.default_rng(1).permutation(len(x))[:700]] for x in labels)
    parts, _ = mp.split_labels(clean, noisy, classes, labels)
    np.testing.assert_allclose(found(parts, transition[clean][None])[:, 0], [1, 1, 0], atol=1e-10)


@pytest.mark.parametrize(("power", "rounded"), [(1, 1), (2, 0.77), (4, 0.41)])
def test_a_sharpened_ideal_predictor_has_less_of_the_transition_only(power, rounded):
    clean, noisy = pair_labels()
    transition, parts = estimated(clean, noisy, 10)
    sharp = transition[clean] ** power
    outputs = (sharp / sharp.sum(axis=1, keepdims=True))[None]
    # The output of class c is q e_c + (1 - q) e_c+1 = Y + (1 - q) / rate B.
    expected = 0.4**power / (0.6**power + 0.4**power) / 0.4
    np.testing.assert_allclose(found(parts, outputs)[:, 0], [1, expected, 0], atol=1e-10)
    assert expected == pytest.approx(rounded, abs=0.005)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.8])
@pytest.mark.parametrize("labels", [pair_labels(), drawn_labels(uneven(), 5000)])
def test_the_coefficient_of_the_residual_is_the_fraction_of_labels_memorized(labels, share):
    clean, noisy = labels
    classes = clean.max() + 1
    transition, parts = estimated(clean, noisy, classes)
    memorized = np.random.default_rng(3).random(len(clean)) < share
    outputs = np.where(memorized[:, None], np.eye(classes)[noisy], transition[clean])[None]
    coefficient = found(parts, outputs)[2, 0]
    # Outputs are Y + B + m E with m 0 or 1: E's coefficient is the mean of m weighted by |E|^2.
    weights = (parts["residual"] ** 2).sum(axis=1)
    error = np.sqrt(share * (1 - share) * (weights**2).sum()) / weights.sum()
    assert coefficient == pytest.approx(share, abs=4 * error)
    assert coefficient == pytest.approx(np.average(memorized, weights=weights), abs=error)


@pytest.mark.parametrize("classes", [3, 10, 100])
@pytest.mark.parametrize("images", [1000, 10_000])
@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_symmetric_noise_is_collinear_although_its_estimate_scatters(classes, images, rate):
    clean, noisy = drawn_labels(symmetric(classes, rate), images)
    transition = mp.transition_matrix(clean, noisy, classes)
    assert 0 < mp.transition_evidence(clean, transition) < 2.5
    assert is_dropped(clean, noisy, classes)
    # The matrix itself, without scatter, is so in unequal classes too.
    assert mp.transition_evidence(clean[: images // 3], symmetric(classes, rate)) == 0


@pytest.mark.parametrize(("images", "classes"), [(1000, 10), (10_000, 10), (10_000, 100)])
def test_pair_noise_is_not_collinear(images, classes):
    clean, noisy = pair_labels(images // classes, classes=classes)
    assert not is_dropped(clean, noisy, classes)
    # B = r (e_c+1 - e_c) and Y: residual r^2 (2 - C / (C - 1)), scatter of C rows 2 r (1 - r) / N.
    expected = 0.4 * (2 - classes / (classes - 1)) / (2 * 0.6) * images / classes
    transition = mp.transition_matrix(clean, noisy, classes)
    assert mp.transition_evidence(clean, transition) == pytest.approx(expected)


def test_transition_evidence_against_the_remainder_of_lstsq():
    clean, noisy = drawn_labels(uneven(), 2000)
    transition, parts = estimated(clean, noisy, 6)
    shift, label = ((parts[n] - parts[n].mean(0)).ravel() for n in ("transition", "clean"))
    remainder = np.linalg.lstsq(label[:, None], shift, rcond=None)[1][0]
    scatter = sum(transition[c, k] * (1 - transition[c, k]) for c in range(6) for k in range(6))
    assert mp.transition_evidence(clean, transition) == pytest.approx(remainder / scatter)


def test_the_coefficient_of_a_dropped_transition_goes_to_the_clean_part():
    clean, noisy = drawn_labels(symmetric(10), 10_000)
    transition, parts = estimated(clean, noisy, 10)
    coefficients = found(parts, transition[clean][None], dropped=True)[:, 0]
    # Ideal outputs are Y + B with B = -r C / (C - 1) (Y - 1 / C); n_c = 1,000 scatters the rate.
    error = 4 * np.sqrt(0.4 * 0.6 / 10_000) * 10 / 9
    assert coefficients[0] == pytest.approx(1 - 0.4 * 10 / 9, abs=error)
    assert np.isnan(coefficients[1]) and coefficients[2] == pytest.approx(0, abs=1e-10)


def test_exactly_collinear_parts_that_were_not_dropped_give_no_numbers():
    clean, noisy = drawn_labels(symmetric(5), 500)
    parts = mp.label_parts(clean, noisy, symmetric(5))
    assert np.isnan(found(parts, np.eye(5)[noisy][None])).all()


def test_two_classes_are_always_collinear():
    assert is_dropped(*drawn_labels(np.array([[0.9, 0.1], [0.4, 0.6]]), 2000), 2)


# Rate of pair noise, the evidence for its transition, and the coefficients of its labels.
@pytest.mark.parametrize(
    ("rate", "evidence", "expected"), [(0, 0, (1, np.nan, np.nan)), (1, np.inf, (1, 1, np.nan))]
)
def test_a_part_without_energy_has_no_coefficient(rate, evidence, expected):
    clean, noisy = pair_labels(rate=rate)
    transition, parts = estimated(clean, noisy, 10)
    assert mp.transition_evidence(clean, transition) == evidence
    np.testing.assert_allclose(found(parts, np.eye(10)[noisy][None])[:, 0], expected)


def test_an_empty_band_is_nan_and_leaves_the_others_alone():
    clean, noisy = pair_labels(50)
    _, parts = estimated(clean, noisy, 10)
    flat = np.stack([(parts[n] - parts[n].mean(0)).ravel() for n in PARTS])
    gram, products = flat @ flat.T, flat @ np.random.default_rng(6).random((len(flat.T), 3))
    alone = mp.coefficients(gram, products, False)
    noise = 1e-30  # rounding where the kernel is the identity
    both = mp.coefficients(np.stack([gram, noise * gram], 2), np.stack([products] * 2, 2), False)
    np.testing.assert_allclose(both[..., 0], alone)
    assert np.isnan(both[..., 1]).all()
    assert np.isnan(mp.coefficients(noise * gram, products, False, total=gram[0, 0])).all()


def test_components_of_arrays_of_ones_own():
    run = learning_run(epochs=4)
    curves = mp.components(run.logits, run.clean, run.noisy, run.training_labels)
    assert set(curves) == {f"{kind}_{part}" for kind in ("softmax", "one_hot") for part in PARTS}
    transition = mp.transition_matrix(*run.training_labels, 4)
    parts = mp.label_parts(run.clean, run.noisy, transition).values()
    for epoch, logits in enumerate(run.logits):
        outputs = {"softmax": softmax(logits), "one_hot": np.eye(4)[logits.argmax(1)]}
        for kind, values in outputs.items():
            of_epoch = [curves[f"{kind}_{part}"][epoch] for part in PARTS]
            np.testing.assert_allclose(of_epoch, lstsq(parts, values), atol=1e-6)
    # The fixture learns the clean labels first and memorizes the noisy ones later.
    assert curves["one_hot_residual"][0] < 0.3 < 0.6 < curves["one_hot_residual"][-1]
    # By default the sample's own labels give the transition; its residual has no class means.
    own = mp.components(run.logits, run.clean, run.noisy)
    expected = mp.components(run.logits, run.clean, run.noisy, (run.clean, run.noisy))
    np.testing.assert_array_equal(own["softmax_residual"], expected["softmax_residual"])
