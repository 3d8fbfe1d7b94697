"""measures/bands.py: every measure of frequency.json against numpy and scipy in float64."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import PROGRAMS, run_python
from references import (
    as_points,
    expected_coefficients,
    expected_errors,
    expected_ratios,
    is_close,
    learning_run,
    smoothing_matrix,
    softmax,
)

from measures import bands
from measures.parts import PARTS, label_parts, transition_matrix

COEFFICIENTS = tuple(f"{part}_{band}" for band in ("low", "high") for part in PARTS)
DELTAS = (10, 30, 100, 400)  # from the image itself to a mean of nearly all
RUN = learning_run()
CLEAN, NOISY, TEST = (np.eye(4)[labels] for labels in (RUN.clean, RUN.noisy, RUN.test_labels))
TRANSITION = transition_matrix(*RUN.training_labels, 4)


def measured(deltas=DELTAS, values="softmax", **arrays):
    """The content of frequency.json of RUN, with some arrays changed."""
    run = dataclasses.replace(RUN, **arrays)
    return bands.measure_bands(run, deltas, values, torch.device("cpu"))


def check(found, k, expected):
    """Compare measures (epochs, D) at the k-th delta with those of each epoch."""
    for epoch, values in enumerate(expected):
        assert found.keys() == values.keys()
        for measure, value in values.items():
            assert is_close(found[measure][epoch, k], value), measure


def test_every_measure_of_a_run():
    content = measured()
    test, sample = content["test"], content["sample"]
    assert content["values"] == "softmax" and (test["n"], sample["n"]) == (40, 60)
    parts = label_parts(RUN.clean, RUN.noisy, TRANSITION)
    predictions = np.eye(4)[RUN.logits.argmax(2)]
    for k, delta in enumerate(DELTAS):
        of_test, of_sample = (
            smoothing_matrix(as_points(images), delta) for images in (RUN.test_images, RUN.images)
        )
        for section, smoothing in ((test, of_test), (sample, of_sample)):
            mass = np.sort(1 / np.diag(smoothing))[(len(smoothing) - 1) // 2]
            assert section["delta"][k] == delta
            assert section["mass"][k] == pytest.approx(mass, 1e-4)
        for measure, value in expected_ratios(of_test, TEST).items():
            assert is_close(test["labels"]["true"][measure][k], value), measure
        errors = [
            expected_ratios(of_test, values) | expected_errors(of_test, TEST, values)
            for values in softmax(RUN.test_logits)
        ]
        check(test["outputs"], k, errors)
        of_parts = [
            expected_ratios(of_sample, values) | expected_coefficients(of_sample, parts, values)
            for values in softmax(RUN.logits)
        ]
        check(sample["outputs"], k, of_parts)
        one_hot = [expected_coefficients(of_sample, parts, values) for values in predictions]
        check(sample["one_hot"], k, one_hot)


def test_logits_have_the_originals_numbers_and_no_errors_or_coefficients():
    content = measured(values="logits")
    assert content["values"] == "logits" and "one_hot" not in content["sample"]
    for name, images, logits in (
        ("test", RUN.test_images, RUN.test_logits),
        ("sample", RUN.images, RUN.logits),
    ):
        for k, delta in enumerate(DELTAS):
            smoothing = smoothing_matrix(as_points(images), delta)
            expected = [expected_ratios(smoothing, values) for values in logits.astype(float)]
            check(content[name]["outputs"], k, expected)


def test_constant_outputs_have_defined_measures():
    content = measured(test_logits=0 * RUN.test_logits, logits=0 * RUN.logits)
    for section in (content["test"], content["sample"]):
        assert all((section["outputs"][name] == 1).all() for name in ("delta_norm", "energy_share"))
    for name in COEFFICIENTS:
        np.testing.assert_allclose(content["sample"]["outputs"][name], 0, atol=1e-9)


# Logits, kinds of outputs, and the coefficients on the parts, which are the same in every band.
LEARNED = {
    "all clean labels": (100 * CLEAN, ("outputs", "one_hot"), (1, 0, 0)),
    "all noisy labels": (100 * NOISY, ("outputs", "one_hot"), (1, 1, 1)),
    "the ideal predictor": (np.log(TRANSITION[RUN.clean] + 1e-30), ("outputs",), (1, 1, 0)),
}


@pytest.mark.parametrize("name", LEARNED)
def test_what_known_predictors_have_learned_in_every_band(name):
    logits, kinds, levels = LEARNED[name]
    section = measured(logits=np.float32(logits)[None])["sample"]
    for kind in kinds:
        for part, level in zip(PARTS, levels, strict=True):
            for band in ("low", "high"):
                np.testing.assert_allclose(section[kind][f"{part}_{band}"], level, atol=1e-4)


def test_perfect_outputs_have_no_error():
    outputs = measured(test_logits=np.float32(100 * TEST)[None])["test"]["outputs"]
    assert all(np.allclose(outputs[name], 0, atol=1e-6) for name in ("e_low", "e_high"))


def test_a_wide_filter_leaves_the_mean_and_a_narrow_one_everything():
    test = measured((1e-6, 1e12))["test"]
    assert test["labels"]["true"]["delta_norm"][0] == 1
    for epoch, values in enumerate(softmax(RUN.test_logits)):
        energy = len(values) * np.sum(values.mean(0) ** 2)
        share = energy / (energy + np.sum((values - values.mean(0)) ** 2))
        assert test["outputs"]["energy_share"][epoch, 1] == pytest.approx(share, rel=1e-5)
        # Where the kernel is the identity, the high band is empty: there is no error in it.
        assert np.isnan(test["outputs"]["e_high"][epoch, 0])
        error = np.linalg.norm(TEST - values) / np.linalg.norm(TEST)
        assert test["outputs"]["e_low"][epoch, 0] == pytest.approx(error, rel=1e-5)


def test_parts_that_do_not_exist_are_nan():
    clean = RUN.training_labels[0]
    outputs = measured(noisy=RUN.clean, training_labels=(clean, clean))["sample"]["outputs"]
    for name in COEFFICIENTS:
        assert np.isfinite(outputs[name]).all() == name.startswith("clean")


def test_shuffled_levels_agree_with_real_permutations():
    test, random = measured((60, 200))["test"], np.random.default_rng(0)
    for k, delta in enumerate((60, 200)):
        smoothing = smoothing_matrix(as_points(RUN.test_images), delta)
        draws = [expected_ratios(smoothing, random.permutation(TEST)) for _ in range(300)]
        for measure, levels in test["shuffled"].items():
            values = [draw[measure] for draw in draws]
            error = np.std(values, ddof=1) / len(values) ** 0.5
            assert abs(np.mean(values) - levels[k]) < 4 * error + 1e-5, measure


@pytest.mark.parametrize("epochs", [1, 2])
def test_epochs_in_blocks_get_what_one_pass_gives_them(monkeypatch, epochs):
    whole = measured()
    monkeypatch.setattr(bands, "OUTPUT_BYTES", epochs * RUN.logits[0].nbytes)
    content = measured()
    for name, kind in (("test", "outputs"), ("sample", "outputs"), ("sample", "one_hot")):
        for measure, values in whole[name][kind].items():
            np.testing.assert_allclose(content[name][kind][measure], values, 1e-5, 1e-5)


@pytest.mark.slow
def test_memory_grows_neither_with_the_kernels_nor_with_the_epochs(monkeypatch):
    # glibc keeps freed arrays in its heap unless they are mapped each by itself: their gaps would
    # count.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    done = run_python(PROGRAMS / "filter_memory.py", check=True)
    tiles, few, many = map(float, done.stdout.split()[-3:])
    # One n x n float32 kernel alone would take 9 tiles, those of three deltas 26.
    assert 1 < tiles < 8  # distances, kernel, the comparison, and the columns
    assert many - few < 30  # MB, of 130 that the further epochs take in one pass
