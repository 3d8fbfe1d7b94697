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
from measures.bands import Filter, measure_bands, measure_sample, measure_test
from measures.parts import PARTS, label_parts, transition_matrix

RATIOS = ("delta_norm", "energy_share", "lfr", "excess")
ERRORS = ("e_low", "e_high")
COEFFICIENTS = tuple(f"{part}_{band}" for band in ("low", "high") for part in PARTS)
DELTAS = (10, 30, 100, 400)  # from the image itself to a mean of nearly all
CPU = torch.device("cpu")
RUN = learning_run()


def how(*deltas, values="softmax"):
    return Filter(deltas or DELTAS, values, CPU)


def changed(**arrays):
    return dataclasses.replace(RUN, **arrays)


def check(found, k, expected):
    """Compare measures (epochs, D) at the k-th delta with those of each epoch."""
    for epoch, values in enumerate(expected):
        assert found.keys() == values.keys()
        for measure, value in values.items():
            assert is_close(found[measure][epoch, k], value), measure


def test_every_measure_of_a_run():
    content = measure_bands(RUN, how())
    test, sample = content["test"], content["sample"]
    assert (content["values"], sample["transition_dropped"]) == ("softmax", False)
    true = np.eye(4)[RUN.test_labels]
    parts = label_parts(RUN.clean, RUN.noisy, transition_matrix(*RUN.training_labels, 4))
    predictions = np.eye(4)[RUN.logits.argmax(2)]
    for k, delta in enumerate(DELTAS):
        smoothing = smoothing_matrix(as_points(RUN.test_images), delta)
        for measure, value in expected_ratios(smoothing, true).items():
            assert is_close(test["labels"]["true"][measure][k], value), measure
        errors = [
            expected_ratios(smoothing, values) | expected_errors(smoothing, true, values)
            for values in softmax(RUN.test_logits)
        ]
        check(test["outputs"], k, errors)
        smoothing = smoothing_matrix(as_points(RUN.images), delta)
        of_parts = [
            expected_ratios(smoothing, values) | expected_coefficients(smoothing, parts, values)
            for values in softmax(RUN.logits)
        ]
        check(sample["outputs"], k, of_parts)
        one_hot = [expected_coefficients(smoothing, parts, values) for values in predictions]
        check(sample["one_hot"], k, one_hot)


@pytest.mark.parametrize(("name", "images"), [("test", RUN.test_images), ("sample", RUN.images)])
def test_what_a_section_tells_of_the_images(name, images):
    section, points = measure_bands(RUN, how())[name], as_points(images)
    assert section["n"] == len(images) and section["delta"].tolist() == list(DELTAS)
    for k, delta in enumerate(DELTAS):
        smoothing = smoothing_matrix(points, delta)
        mass = 1 / np.diag(smoothing)
        assert section["mass"][k] == pytest.approx(np.sort(mass)[(len(mass) - 1) // 2], 1e-4)
        assert section["alone"][k] == pytest.approx(np.mean(mass < 3))
        null = (np.square(smoothing).sum() - 1) / (len(points) - 1)
        assert section["null"][k] == pytest.approx(null, abs=1e-5)


def test_logits_have_the_originals_numbers_and_no_errors_or_coefficients():
    content = measure_bands(RUN, how(values="logits"))
    assert content["values"] == "logits" and content["sample"]["one_hot"] == {}
    for name, images, logits in (
        ("test", RUN.test_images, RUN.test_logits),
        ("sample", RUN.images, RUN.logits),
    ):
        for k, delta in enumerate(DELTAS):
            smoothing = smoothing_matrix(as_points(images), delta)
            expected = [expected_ratios(smoothing, values) for values in logits.astype(float)]
            check(content[name]["outputs"], k, expected)


def test_constant_outputs_have_defined_measures():
    run = changed(test_logits=0 * RUN.test_logits, logits=0 * RUN.logits)
    content = measure_bands(run, how())
    for section in (content["test"], content["sample"]):
        assert all((section["outputs"][measure] == 1).all() for measure in RATIOS)
    for name in COEFFICIENTS:
        np.testing.assert_allclose(content["sample"]["outputs"][name], 0, atol=1e-9)


def test_perfect_outputs_have_no_error_and_all_of_the_labels():
    test = 100 * np.eye(4, dtype=np.float32)[RUN.test_labels][None]
    clean, noisy = (100 * np.eye(4, dtype=np.float32)[y][None] for y in (RUN.clean, RUN.noisy))
    outputs = measure_test(changed(test_logits=test), how())["outputs"]
    assert all(np.allclose(outputs[name], 0, atol=1e-6) for name in ERRORS)
    for logits, level in ((clean, 0), (noisy, 1)):
        section = measure_sample(changed(logits=logits), how())
        for kind in ("outputs", "one_hot"):
            for name in COEFFICIENTS:
                expected = 1 if name.startswith("clean") else level
                np.testing.assert_allclose(section[kind][name], expected, atol=1e-4)


def test_the_ideal_predictor_memorizes_nothing_in_any_band():
    transition = transition_matrix(*RUN.training_labels, 4)
    logits = np.log(transition[RUN.clean] + 1e-30)[None].astype(np.float32)
    outputs = measure_sample(changed(logits=logits), how())["outputs"]
    for name in COEFFICIENTS:
        level = 0 if name.startswith("residual") else 1
        np.testing.assert_allclose(outputs[name], level, atol=1e-4)


def test_a_wide_filter_leaves_the_mean_and_a_narrow_one_everything():
    test = measure_test(RUN, how(1e-6, 1e12))
    assert test["labels"]["true"]["delta_norm"][0] == 1 and test["null"][0] == 1
    assert test["labels"]["true"]["excess"][0] == 0
    assert test["null"][1] == pytest.approx(0, abs=1e-6)
    clean = np.eye(4)[RUN.test_labels]
    for epoch, values in enumerate(softmax(RUN.test_logits)):
        energy = len(values) * np.sum(values.mean(0) ** 2)
        share = energy / (energy + np.sum((values - values.mean(0)) ** 2))
        assert test["outputs"]["energy_share"][epoch, 1] == pytest.approx(share, rel=1e-5)
        # Where the kernel is the identity, the high band is empty: there is no error in it.
        assert np.isnan(test["outputs"]["e_high"][epoch, 0])
        error = np.linalg.norm(clean - values) / np.linalg.norm(clean)
        assert test["outputs"]["e_low"][epoch, 0] == pytest.approx(error, rel=1e-5)


def test_parts_that_do_not_exist_are_nan():
    clean = RUN.training_labels[0]
    outputs = measure_sample(changed(noisy=RUN.clean, training_labels=(clean, clean)), how())
    assert outputs["transition_dropped"] is True
    for name in COEFFICIENTS:
        exists = name.startswith("clean")
        assert np.isfinite(outputs["outputs"][name]).all() == exists


def test_null_and_shuffled_levels_agree_with_real_permutations():
    test, random = measure_test(RUN, how(60, 200)), np.random.default_rng(0)
    for k, delta in enumerate((60, 200)):
        smoothing = smoothing_matrix(as_points(RUN.test_images), delta)
        labels = np.eye(4)[RUN.test_labels]
        draws = [expected_ratios(smoothing, random.permutation(labels)) for _ in range(300)]
        expected = {name: test["shuffled"][name][k] for name in ("delta_norm", "energy_share")}
        for measure, value in {**expected, "lfr": test["null"][k], "excess": 0}.items():
            values = [draw[measure] for draw in draws]
            error = np.std(values, ddof=1) / len(values) ** 0.5
            assert abs(np.mean(values) - value) < 4 * error + 1e-5, measure


@pytest.mark.parametrize("epochs", [1, 2])
def test_epochs_in_blocks_get_what_one_pass_gives_them(monkeypatch, epochs):
    whole = measure_bands(RUN, how())
    monkeypatch.setattr(bands, "OUTPUT_BYTES", epochs * RUN.logits[0].nbytes)
    content = measure_bands(RUN, how())
    for name, kind in (("test", "outputs"), ("sample", "outputs"), ("sample", "one_hot")):
        for measure, values in whole[name][kind].items():
            np.testing.assert_allclose(content[name][kind][measure], values, 1e-5, 1e-5)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_epochs(monkeypatch):
    # glibc keeps freed arrays in its heap unless they are mapped each by itself: their gaps would
    # count. In one pass the 180 further epochs take 300 MB.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    done = run_python(PROGRAMS / "filter_memory.py", 4 * 10**6, 20, 200, check=True)
    few, many = map(int, done.stdout.splitlines()[-1].split())
    assert many - few < 30 * 10**6
