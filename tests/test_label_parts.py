"""analysis/label_parts.py against hand formulas for known predictors, and numpy's lstsq."""

import numpy as np
import pytest

from analysis import label_parts as lp

PAIR_CLASSES = 10


def pair_labels(per_class=500, rate=0.4, classes=PAIR_CLASSES):
    """Clean and noisy labels with exactly `rate` of each class moved to the next one."""
    clean = np.repeat(np.arange(classes), per_class)
    wrong = np.tile(np.arange(per_class) < round(rate * per_class), classes)
    return clean, (clean + wrong) % classes


def drawn_labels(transition, count, seed=0):
    """Clean labels in equal shares, noisy ones drawn from the rows of `transition`."""
    random = np.random.default_rng(seed)
    clean = random.permutation(np.arange(count) % len(transition))
    uniform = random.random((count, 1))
    return clean, (uniform > transition.cumsum(axis=1)[clean]).sum(axis=1)


def symmetric(classes, rate=0.4):
    return (1 - rate) * np.eye(classes) + rate * (1 - np.eye(classes)) / (classes - 1)


def uneven(classes=6, seed=0):
    """A transition matrix with other mistakes for each class, as people make them."""
    return 0.6 * np.eye(classes) + 0.4 * np.random.default_rng(seed).dirichlet([0.5] * classes, 6)


def estimated(clean, noisy, classes):
    transition = lp.transition_matrix(clean, noisy, classes)
    return transition, lp.label_parts(clean, noisy, transition)


def lstsq_shares(parts, outputs, names=lp.PARTS):
    """{part: (epochs,)} by numpy's solver on the centered and flattened arrays."""
    columns = np.stack([(parts[n] - parts[n].mean(0)).ravel() for n in names], axis=1)
    right = np.stack([(epoch - epoch.mean(0)).ravel() for epoch in outputs], axis=1)
    return dict(zip(names, np.linalg.lstsq(columns, right, rcond=None)[0], strict=True))


def test_transition_matrix_counts_pairs_of_labels():
    random = np.random.default_rng(0)
    clean, noisy = random.integers(0, 4, (2, 300))
    transition = lp.transition_matrix(clean, noisy, 5)
    for c in range(4):
        for k in range(5):
            expected = np.mean([noisy[i] == k for i in range(300) if clean[i] == c])
            assert transition[c, k] == pytest.approx(expected)
    assert transition[4].tolist() == [0, 0, 0, 0, 1]
    np.testing.assert_allclose(transition.sum(axis=1), 1)


def test_parts_by_hand():
    clean, noisy = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    transition, parts = estimated(clean, noisy, 2)
    assert transition[0] == pytest.approx([2 / 3, 1 / 3])
    np.testing.assert_array_equal(parts["clean"], np.eye(2)[clean])
    shift = [-1 / 3, 1 / 3]
    np.testing.assert_allclose(parts["transition"], [shift, shift, shift, [0, 0]])
    kept, moved = [1 / 3, -1 / 3], [-2 / 3, 2 / 3]
    np.testing.assert_allclose(parts["individual"], [kept, kept, moved, [0, 0]], atol=1e-15)


def test_parts_add_up_and_no_function_of_the_class_predicts_the_individual_part():
    clean, noisy = drawn_labels(uneven(), 900)
    _, parts = estimated(clean, noisy, 6)
    np.testing.assert_allclose(sum(parts.values()), np.eye(6)[noisy], atol=1e-15)
    for c in range(6):
        np.testing.assert_allclose(parts["individual"][clean == c].mean(axis=0), 0, atol=1e-15)


@pytest.mark.parametrize("labels", [pair_labels(), drawn_labels(uneven(), 3000)])
def test_ideal_predictor_has_clean_and_transition_and_nothing_individual(labels):
    classes = labels[0].max() + 1
    transition = lp.transition_matrix(*labels, classes)
    # A sample whose own transitions differ from those of the training set.
    clean, noisy = (x[np.random.default_rng(1).permutation(len(x))[:700]] for x in labels)
    parts = lp.label_parts(clean, noisy, transition)
    shares = lp.unfiltered_shares(parts, lp.ideal_predictor(clean, transition)[None], False)
    np.testing.assert_allclose([shares[n][0] for n in lp.PARTS], [1, 1, 0], atol=1e-10)


def sharpened_share(rate, power):
    """B's share of the ideal predictor to the `power` under pair noise.

    The output of class c is q e_c + (1 - q) e_c+1 = Y + (1 - q) / rate B, with
    q = (1 - rate)^power / ((1 - rate)^power + rate^power).
    """
    return rate**power / ((1 - rate) ** power + rate**power) / rate


@pytest.mark.parametrize(("power", "rounded"), [(1, 1), (2, 0.77), (4, 0.41)])
def test_sharpened_ideal_predictor_has_less_of_the_transition_only(power, rounded):
    clean, noisy = pair_labels()
    transition, parts = estimated(clean, noisy, PAIR_CLASSES)
    outputs = lp.sharpen(lp.ideal_predictor(clean, transition), power)[None]
    shares = [x[0] for x in lp.unfiltered_shares(parts, outputs, False).values()]
    np.testing.assert_allclose(shares, [1, sharpened_share(0.4, power), 0], atol=1e-10)
    assert shares[1] == pytest.approx(rounded, abs=0.005)


@pytest.mark.parametrize("power", [2, 4])
def test_sharpened_ideal_predictor_of_drawn_pair_noise(power):
    drawn = 0.6 * np.eye(PAIR_CLASSES) + 0.4 * np.roll(np.eye(PAIR_CLASSES), 1, axis=1)
    clean, noisy = drawn_labels(drawn, 10_000)
    transition, parts = estimated(clean, noisy, PAIR_CLASSES)
    outputs = lp.sharpen(lp.ideal_predictor(clean, transition), power)[None]
    shares = [x[0] for x in lp.unfiltered_shares(parts, outputs, False).values()]
    # The rate of a class of 1,000 has the standard deviation `scatter`, which moves its share by
    # at most the largest slope near 0.4; four of them hold for each class, so for their mean.
    scatter = np.sqrt(0.4 * 0.6 / 1000)
    rates = np.linspace(0.4 - 4 * scatter, 0.4 + 4 * scatter, 99)
    slope = np.abs(np.gradient(sharpened_share(rates, power), rates)).max()
    assert shares[1] == pytest.approx(sharpened_share(0.4, power), abs=4 * scatter * slope)
    # Classes of different rates do not share one coefficient; the rest goes to Y to second order.
    assert shares[0] == pytest.approx(1, abs=(4 * scatter) ** 2 * 10)
    assert shares[2] == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.8])
@pytest.mark.parametrize("labels", [pair_labels(), drawn_labels(uneven(), 5000)])
def test_share_of_the_individual_part_is_the_share_of_labels_memorized(labels, share):
    clean, noisy = labels
    classes = clean.max() + 1
    transition, parts = estimated(clean, noisy, classes)
    memorized = np.random.default_rng(3).random(len(clean)) < share
    ideal = lp.ideal_predictor(clean, transition)
    outputs = np.where(memorized[:, None], np.eye(classes)[noisy], ideal)[None]
    shares = [x[0] for x in lp.unfiltered_shares(parts, outputs, False).values()]
    # Outputs are Y + B + m E with m 0 or 1, so E's share is the mean of m weighted by |E|^2.
    weights = (parts["individual"] ** 2).sum(axis=1)
    error = np.sqrt(share * (1 - share) * (weights**2).sum()) / weights.sum()
    assert shares[2] == pytest.approx(share, abs=4 * error)
    assert shares[2] == pytest.approx(np.average(memorized, weights=weights), abs=error)


def test_a_network_that_outputs_the_noisy_labels_has_all_of_each_part():
    clean, noisy = drawn_labels(uneven(), 900)
    _, parts = estimated(clean, noisy, 6)
    shares = lp.unfiltered_shares(parts, np.eye(6)[noisy][None], False)
    np.testing.assert_allclose([shares[n][0] for n in lp.PARTS], 1, atol=1e-10)


@pytest.mark.parametrize("dropped", [False, True])
def test_unfiltered_shares_against_lstsq(dropped):
    clean, noisy = drawn_labels(uneven(), 400)
    _, parts = estimated(clean, noisy, 6)
    outputs = np.random.default_rng(4).random((5, 400, 6)) + np.eye(6)[noisy] + [3, 0, 0, 0, 0, 9]
    found = lp.unfiltered_shares(parts, outputs.astype(np.float32), dropped)
    names = ("clean", "individual") if dropped else lp.PARTS
    for name, expected in lstsq_shares(
        parts, outputs.astype(np.float32).astype(float), names
    ).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-12)
    assert np.isnan(found["transition"]).all() == dropped


@pytest.mark.parametrize("dropped", [False, True])
def test_shares_of_bands_against_lstsq_of_filtered_arrays(dropped):
    random = np.random.default_rng(5)
    clean, noisy = drawn_labels(uneven(), 150)
    _, parts = estimated(clean, noisy, 6)
    outputs = random.random((4, 150, 6)) + np.eye(6)[noisy]
    smooth = [random.dirichlet([0.02] * 150, 150) for _ in range(2)]
    bands = np.array([[s, np.eye(150) - s] for s in smooth])  # (filters, low and high, n, n)
    centered = [parts[name] - parts[name].mean(0) for name in lp.PARTS]
    of_parts = np.einsum("fbij,pjc->pfbic", bands, centered)
    of_outputs = np.einsum("fbij,vjc->vfbic", bands, outputs - outputs.mean(1, keepdims=True))
    gram = np.einsum("pfbic,qfbic->pqfb", of_parts, of_parts)
    products = np.einsum("pfbic,vfbic->pvfb", of_parts, of_outputs)
    found = lp.learned_shares(gram, products, dropped)
    assert found.shape == (3, 4, 2, 2)
    rows = [0, 2] if dropped else [0, 1, 2]
    for f in range(2):
        for b in range(2):
            columns = of_parts[rows, f, b].reshape(len(rows), -1).T
            right = of_outputs[:, f, b].reshape(4, -1).T
            expected = np.linalg.lstsq(columns, right, rcond=None)[0]
            np.testing.assert_allclose(found[rows, :, f, b], expected, rtol=1e-8, atol=1e-10)
    assert np.isnan(found[1]).all() == dropped


@pytest.mark.parametrize("classes", [3, 10, 100])
@pytest.mark.parametrize("images", [1000, 10_000])
@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_symmetric_noise_is_collinear_although_its_estimate_scatters(classes, images, rate):
    clean, noisy = drawn_labels(symmetric(classes, rate), images)
    transition = lp.transition_matrix(clean, noisy, classes)
    assert 0 < lp.transition_evidence(clean, transition) < 2.5
    assert lp.transition_is_collinear(clean, transition)
    # The matrix itself, without scatter, is so in unequal classes too.
    assert lp.transition_evidence(clean[: images // 3], symmetric(classes, rate)) == 0


@pytest.mark.parametrize(("images", "classes"), [(1000, 10), (10_000, 10), (10_000, 100)])
def test_pair_noise_is_not_collinear(images, classes):
    clean, noisy = pair_labels(images // classes, classes=classes)
    transition = lp.transition_matrix(clean, noisy, classes)
    assert not lp.transition_is_collinear(clean, transition)
    # B = r (e_c+1 - e_c) and Y: residual r^2 (2 - C / (C - 1)), scatter of C rows 2 r (1 - r) / N.
    expected = 0.4 * (2 - classes / (classes - 1)) / (2 * 0.6) * images / classes
    assert lp.transition_evidence(clean, transition) == pytest.approx(expected)


def test_transition_evidence_against_the_residual_of_lstsq():
    clean, noisy = drawn_labels(uneven(), 2000)
    transition, parts = estimated(clean, noisy, 6)
    shift, label = ((parts[n] - parts[n].mean(0)).ravel() for n in ("transition", "clean"))
    residual = np.linalg.lstsq(label[:, None], shift, rcond=None)[1][0]
    scatter = sum(
        (clean == c).sum() * transition[c, k] * (1 - transition[c, k]) / (clean == c).sum()
        for c in range(6)
        for k in range(6)
    )
    assert lp.transition_evidence(clean, transition) == pytest.approx(residual / scatter)


def test_dropped_transition_is_nan_and_its_share_goes_to_the_clean_part():
    clean, noisy = drawn_labels(symmetric(10), 10_000)
    transition, parts = estimated(clean, noisy, 10)
    outputs = lp.ideal_predictor(clean, transition)[None]
    assert lp.transition_is_collinear(clean, transition)
    shares = lp.unfiltered_shares(parts, outputs, True)
    assert np.isnan(shares["transition"]).all()
    # Ideal outputs are Y + B with B = -r C / (C - 1) (Y - 1 / C); n_c = 1,000 scatters the rate.
    error = 4 * np.sqrt(0.4 * 0.6 / 10_000) * 10 / 9
    assert shares["clean"][0] == pytest.approx(1 - 0.4 * 10 / 9, abs=error)
    assert shares["individual"][0] == pytest.approx(0, abs=1e-10)


def test_exactly_collinear_parts_that_were_not_dropped_give_no_numbers():
    clean, noisy = drawn_labels(symmetric(5), 500)
    parts = lp.label_parts(clean, noisy, symmetric(5))
    outputs = np.eye(5)[noisy][None]
    assert all(np.isnan(x).all() for x in lp.unfiltered_shares(parts, outputs, False).values())


def test_two_classes_are_always_collinear():
    clean, noisy = drawn_labels(np.array([[0.9, 0.1], [0.4, 0.6]]), 2000)
    assert lp.transition_is_collinear(clean, lp.transition_matrix(clean, noisy, 2))


def test_without_noise_only_the_clean_part_is_learned():
    clean = np.arange(60) % 4
    transition, parts = estimated(clean, clean, 4)
    assert lp.transition_evidence(clean, transition) == 0
    for dropped in (False, True):
        shares = lp.unfiltered_shares(parts, 0.7 * np.eye(4)[clean][None], dropped)
        assert shares["clean"][0] == pytest.approx(0.7)
        assert np.isnan([shares["transition"], shares["individual"]]).all()


def test_noise_that_the_class_determines_has_no_individual_part():
    clean, noisy = pair_labels(rate=1.0)
    transition, parts = estimated(clean, noisy, PAIR_CLASSES)
    assert lp.transition_evidence(clean, transition) == np.inf
    shares = lp.unfiltered_shares(parts, np.eye(PAIR_CLASSES)[noisy][None], False)
    assert np.isnan(shares["individual"]).all()
    np.testing.assert_allclose([shares["clean"][0], shares["transition"][0]], 1)


def test_an_empty_band_is_nan_and_leaves_the_others_alone():
    clean, noisy = pair_labels(50)
    _, parts = estimated(clean, noisy, PAIR_CLASSES)
    gram, products = lp.inner_products(parts, np.random.default_rng(6).random((3, 500, 10)))
    alone = lp.learned_shares(gram, products, False)
    noise = 1e-30  # rounding where the kernel is the identity
    both = lp.learned_shares(np.stack([gram, noise * gram], 2), np.stack([products] * 2, 2), False)
    np.testing.assert_allclose(both[..., 0], alone)
    assert np.isnan(both[..., 1]).all()
    only = lp.learned_shares(noise * gram, products, False, total=gram[0, 0])
    assert np.isnan(only).all()


def test_the_order_of_the_images_and_constants_in_the_outputs_change_nothing():
    clean, noisy = drawn_labels(uneven(), 600)
    order = np.random.default_rng(7).permutation(600)
    outputs = np.random.default_rng(8).random((2, 600, 6)) + np.eye(6)[noisy]
    transition, parts = estimated(clean, noisy, 6)
    permuted_transition, permuted = estimated(clean[order], noisy[order], 6)
    np.testing.assert_array_equal(transition, permuted_transition)
    shares = lp.unfiltered_shares(parts, outputs, False)
    again = lp.unfiltered_shares(permuted, outputs[:, order] + [5, 0, 0, -2, 0, 0], False)
    for name in lp.PARTS:
        np.testing.assert_allclose(again[name], shares[name], rtol=1e-10)


def test_low_energy_shares():
    low, high = np.zeros((3, 3, 2)), np.zeros((3, 3, 2))
    low[0, 0], high[0, 0] = [1, 3], [3, 1]
    low[1, 1], high[1, 1] = [2, 0], [0, 2]
    low[0, 1] = low[1, 0] = 9  # only energies count
    shares = lp.low_energy_shares(low, high)
    assert shares[:2].tolist() == [[0.25, 0.75], [1, 0]]
    assert np.isnan(shares[2]).all()


def test_sharpen_by_hand_and_keeps_the_prediction():
    np.testing.assert_allclose(lp.sharpen(np.array([0.6, 0.4, 0]), 2), [9 / 13, 4 / 13, 0])
    probabilities = np.random.default_rng(9).dirichlet([1] * 5, 20)
    sharp = lp.sharpen(probabilities, 4)
    np.testing.assert_allclose(sharp.sum(axis=1), 1)
    np.testing.assert_array_equal(sharp.argmax(axis=1), probabilities.argmax(axis=1))


def test_one_hot_predictions():
    logits = np.random.default_rng(10).normal(size=(3, 7, 4)).astype(np.float32)
    found = lp.one_hot_predictions(logits)
    assert found.dtype == np.float32 and found.shape == logits.shape
    for epoch in range(3):
        for image in range(7):
            expected = [float(k == np.argmax(logits[epoch, image])) for k in range(4)]
            assert found[epoch, image].tolist() == expected
