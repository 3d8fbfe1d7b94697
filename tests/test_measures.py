"""analysis/measures.py: every measure of frequency.json against numpy and scipy in float64."""

import json

import numpy as np
import pytest
import torch
from references import (
    expected_errors,
    expected_ratios,
    expected_shares,
    is_close,
    smoothing_matrix,
    split_bands,
)

from analysis import measures
from analysis.frequency_runs import PRODUCTS, as_section
from analysis.gaussian_filter import filter_sums
from dataset.batches import normalize
from dataset.shapes import draw_shapes


def make_section(sums, names, deltas, output_measures):
    """A section of all outputs in `sums`, whose first values are the labels `names`."""
    return as_section(sums, dict.fromkeys(names), deltas, output_measures)


def random_case(count=60, width=7, classes=5, epochs=3, seed=0, offset=0.0):
    """Points, clean and noisy one-hot labels, softmax outputs; a fifth of the labels is wrong."""
    random = np.random.default_rng(seed)
    points = random.standard_normal((count, width)) + offset
    clean = random.integers(0, classes, count)
    noisy = np.where(random.random(count) < 0.2, (clean + 1) % classes, clean)
    logits = random.standard_normal((epochs, count, classes)) + np.eye(classes)[noisy]
    one_hot = np.eye(classes, dtype=np.float32)
    outputs = torch.from_numpy(logits).softmax(2).numpy().astype(np.float32)
    return points.astype(np.float32), one_hot[clean], one_hot[noisy], outputs


def image_case(count=200, epochs=2):
    images, clean = draw_shapes(count, np.random.default_rng(0))
    points = normalize(torch.from_numpy(images)).flatten(1).contiguous().numpy()
    outputs = random_case(count, classes=10, epochs=epochs)[-1]
    one_hot = np.eye(10, dtype=np.float32)
    return points, one_hot[clean], one_hot[(clean + (np.arange(count) % 4 == 0)) % 10], outputs


def make_sections(points, clean, noisy, outputs, deltas):
    """The sections `test` and `probe` of frequency.json, both of the same points."""
    labels = {"true": clean, "noise": noisy - clean, "given": noisy}
    stacked = torch.from_numpy(np.stack(list(labels.values())))
    outputs = torch.from_numpy(outputs)
    test = filter_sums(torch.from_numpy(points.copy()), stacked[:1], outputs, deltas)
    values = torch.cat((stacked[2:], outputs))
    probe = filter_sums(torch.from_numpy(points.copy()), stacked[:2], values, deltas)
    return {
        "test": make_section(test, ["true"], deltas, [measures.relative_errors]),
        "probe": make_section(probe, list(labels), deltas, [measures.learned_shares]),
    }


def check_measures(points, clean, noisy, outputs, deltas):
    """Compare every number of both sections with the slow references."""
    sections = make_sections(points, clean, noisy, outputs, deltas)
    points, clean, noisy, outputs = (np.asarray(a, float) for a in (points, clean, noisy, outputs))
    all_labels = {"true": clean, "noise": noisy - clean, "given": noisy}
    for k, delta in enumerate(deltas):
        smoothing = smoothing_matrix(points, delta)
        for section, names in (("test", ["true"]), ("probe", list(all_labels))):
            labels = sections[section]["labels"]
            assert list(labels) == names
            for name in names:
                for measure, value in expected_ratios(smoothing, all_labels[name]).items():
                    assert is_close(labels[name][measure][k], value), (name, measure)
        for epoch, values in enumerate(outputs):
            ratios = expected_ratios(smoothing, values)
            errors = expected_errors(smoothing, clean, values)
            shares = expected_shares(smoothing, clean, noisy - clean, values)
            for section, others in (("test", errors), ("probe", shares)):
                measured = sections[section]["outputs"]
                assert measured.keys() == {*ratios, *others}
                for measure, value in {**ratios, **others}.items():
                    assert is_close(measured[measure][epoch][k], value), (measure, delta)


@pytest.mark.parametrize(
    "case", [random_case(), random_case(300, 20, seed=1), random_case(200, 4, offset=100)]
)
def test_every_measure_on_random_data(case):
    # From filtered values that are nearly one point's to such as are a mean of nearly all points.
    check_measures(*case, [0.3, 1, 2, 20, 100])


def test_every_measure_on_images():
    check_measures(*image_case(), [150, 200, 300, 400, 700, 1000])


def test_every_measure_with_duplicated_points():
    points, *values = random_case(80)
    points[40:] = points[:40]
    check_measures(points, *values, [0.5, 1, 5])


def test_every_measure_of_two_points():
    points = random_case(2)[0]
    clean = np.eye(3, dtype=np.float32)[:2]
    noisy = np.eye(3, dtype=np.float32)[[2, 1]]
    outputs = np.float32([[[0.5, 0.2, 0.3], [1 / 3, 1 / 3, 1 / 3]]])
    check_measures(points, clean, noisy, outputs, [1, 5])


def test_constant_outputs_have_defined_measures():
    points, clean, noisy, outputs = random_case()
    outputs[:] = 0.2
    sections = make_sections(points, clean, noisy, outputs, [1, 10])
    for section in sections.values():
        for measure in ("delta_norm", "energy_share", "lfr", "excess"):
            assert section["outputs"][measure] == [[1, 1]] * 3
    for part in ("true_low", "noise_low", "true_high", "noise_high"):
        shares = sections["probe"]["outputs"][f"learned_{part}"]
        np.testing.assert_allclose(shares, 0, atol=1e-12)
    for k, delta in enumerate([1, 10]):
        errors = expected_errors(smoothing_matrix(points, delta), clean, outputs[0])
        for name, value in errors.items():
            assert is_close(sections["test"]["outputs"][name][0][k], value)


def test_perfect_outputs_have_no_error_and_have_learned_the_clean_labels():
    points, clean, noisy, _ = random_case()
    sections = make_sections(points, clean, noisy, np.stack([clean, noisy]), [1, 10])
    for name in ("e_low", "e_high"):
        np.testing.assert_allclose(sections["test"]["outputs"][name][0], 0, atol=1e-6)
    learned = sections["probe"]["outputs"]
    for band in ("low", "high"):
        shares = np.array([learned[f"learned_{part}_{band}"] for part in ("true", "noise")])
        np.testing.assert_allclose(shares[:, 0], [[1, 1], [0, 0]], atol=1e-6)
        np.testing.assert_allclose(shares[:, 1], [[1, 1], [1, 1]], atol=1e-6)


def test_a_wide_filter_leaves_the_mean_and_a_narrow_one_everything():
    points, clean, noisy, outputs = random_case()
    test = make_sections(points, clean, noisy, outputs, [1e-6, 1e12])["test"]
    assert test["labels"]["true"]["delta_norm"][0] == 1 and test["null"][0] == 1
    assert test["labels"]["true"]["excess"][0] == 0
    assert test["null"][1] == pytest.approx(0, abs=1e-6)
    for epoch, values in enumerate(outputs):
        mean = values.mean(0)
        energy = 60 * np.sum(mean**2)
        share = energy / (energy + np.sum((values - mean) ** 2))
        assert test["outputs"]["energy_share"][epoch][1] == pytest.approx(share, rel=1e-5)
        # Where the kernel is the identity, the high band is empty: there is no error in it.
        assert test["outputs"]["e_high"][epoch][0] is None
        error = np.linalg.norm(clean - values) / np.linalg.norm(clean)
        assert test["outputs"]["e_low"][epoch][0] == pytest.approx(error, rel=1e-5)


def test_without_noise_there_is_no_share_of_it():
    points, clean, _, outputs = random_case()
    learned = make_sections(points, clean, clean, outputs, [1, 10])["probe"]["outputs"]
    smoothing = smoothing_matrix(points, 1)
    for band, part in enumerate(("low", "high")):
        assert learned[f"learned_noise_{part}"] == [[None, None]] * 3
        labels = split_bands(smoothing, clean - clean.mean(0))[band]
        output = split_bands(smoothing, outputs[0] - outputs[0].mean(0))[band]
        share = np.sum(labels * output) / np.sum(labels**2)
        assert is_close(learned[f"learned_true_{part}"][0][0], share)


def test_null_and_shuffled_levels_agree_with_real_permutations():
    points, clean, noisy, outputs = image_case()
    deltas = [200, 400]
    test = make_sections(points, clean, noisy, outputs, deltas)["test"]
    random = np.random.default_rng(0)
    for k, delta in enumerate(deltas):
        smoothing = smoothing_matrix(points, delta)
        draws = [expected_ratios(smoothing, random.permutation(clean)) for _ in range(200)]
        for measure, expected in (
            ("lfr", test["null"][k]),
            ("excess", 0),
            ("energy_share", test["shuffled"]["energy_share"][k]),
            ("delta_norm", test["shuffled"]["delta_norm"][k]),
        ):
            values = [draw[measure] for draw in draws]
            error = np.std(values, ddof=1) / 200**0.5
            slack = 0 if measure == "excess" else 1e-5
            assert abs(np.mean(values) - expected) < 4 * error + slack, measure


def test_a_section_has_the_documented_shape_and_no_nan():
    sections = make_sections(*random_case(), [1e-9, 1, 1e9])
    json.dumps(sections, allow_nan=False)
    for section in sections.values():
        keys = {
            "n",
            "delta",
            "weight",
            "alone",
            "null",
            "shuffled",
            "labels",
            "outputs",
            "products",
        }
        assert set(section) == keys
        assert all(np.shape(values) == (3, 3) for values in section["outputs"].values())
        assert set(section["products"]) == set(PRODUCTS)


def test_nan_becomes_null():
    values = torch.tensor([[1.5, torch.nan], [torch.nan, 2]], dtype=torch.float64)
    assert measures.as_lists(values) == [[1.5, None], [None, 2.0]]
