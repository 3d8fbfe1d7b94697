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
from measures.bands import Filter, add_deltas, measure_bands, measure_sample, measure_test
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


def parts_of(run):
    return label_parts(run.clean, run.noisy, transition_matrix(*run.training_labels, 4))


def check(run, content, deltas):
    """Compare every number of both sections with the slow references."""
    test, sample = content["test"], content["sample"]
    true, parts = np.eye(4)[run.test_labels], parts_of(run)
    for k, delta in enumerate(deltas):
        smoothing = smoothing_matrix(as_points(run.test_images), delta)
        for measure, value in expected_ratios(smoothing, true).items():
            assert is_close(test["labels"]["true"][measure][k], value), measure
        for epoch, values in enumerate(softmax(run.test_logits)):
            expected = expected_ratios(smoothing, values) | expected_errors(smoothing, true, values)
            assert test["outputs"].keys() == expected.keys() == {*RATIOS, *ERRORS}
            for measure, value in expected.items():
                assert is_close(test["outputs"][measure][epoch, k], value), (measure, delta)
        smoothing = smoothing_matrix(as_points(run.images), delta)
        for epoch, values in enumerate(softmax(run.logits)):
            expected = expected_ratios(smoothing, values)
            expected |= expected_coefficients(smoothing, parts, values)
            assert sample["outputs"].keys() == expected.keys() == {*RATIOS, *COEFFICIENTS}
            for measure, value in expected.items():
                assert is_close(sample["outputs"][measure][epoch, k], value), (measure, delta)
            one_hot = np.eye(4)[run.logits[epoch].argmax(1)]
            expected = expected_coefficients(smoothing, parts, one_hot)
            assert sample["one_hot"].keys() == expected.keys()
            for measure, value in expected.items():
                assert is_close(sample["one_hot"][measure][epoch, k], value), (measure, delta)


def test_every_measure_of_a_run():
    content = measure_bands(RUN, how())
    check(RUN, content, DELTAS)
    assert content["values"] == "softmax"
    assert content["sample"]["transition_dropped"] is False
    for name, images in (("test", RUN.test_images), ("sample", RUN.images)):
        section, points = content[name], as_points(images)
        assert section["n"] == len(images) and section["delta"].tolist() == list(DELTAS)
        for k, delta in enumerate(DELTAS):
            smoothing = smoothing_matrix(points, delta)
            mass = 1 / np.diag(smoothing)
            assert section["mass"][k] == pytest.approx(np.sort(mass)[(len(mass) - 1) // 2], 1e-4)
            assert section["alone"][k] == pytest.approx(np.mean(mass < 3))
            null = (np.square(smoothing).sum() - 1) / (len(points) - 1)
            assert section["null"][k] == pytest.approx(null, abs=1e-5)


def test_duplicated_images():
    images = RUN.images.copy()
    images[30:] = images[:30]
    run = changed(images=images)
    check(run, measure_bands(run, how(20, 100)), (20, 100))


def test_two_images():
    run = changed(
        test_images=RUN.test_images[:2],
        test_labels=RUN.test_labels[:2],
        test_logits=RUN.test_logits[:, :2],
    )
    section, points = measure_test(run, how(100)), as_points(RUN.test_images[:2])
    smoothing, true = smoothing_matrix(points, 100), np.eye(4)[run.test_labels]
    for epoch, values in enumerate(softmax(run.test_logits)):
        expected = expected_ratios(smoothing, values) | expected_errors(smoothing, true, values)
        assert all(is_close(section["outputs"][m][epoch, 0], v) for m, v in expected.items())


def test_logits_have_the_originals_numbers_and_no_errors_or_coefficients():
    content = measure_bands(RUN, how(values="logits"))
    assert content["values"] == "logits" and content["sample"]["one_hot"] == {}
    assert {*content["test"]["outputs"]} == {*content["sample"]["outputs"]} == {*RATIOS}
    points = as_points(RUN.test_images)
    for k, delta in enumerate(DELTAS):
        for epoch, logits in enumerate(RUN.test_logits.astype(float)):
            # As in the original: squared norms of both parts of the raw outputs.
            low = smoothing_matrix(points, delta) @ logits
            share = np.sum(low**2) / (np.sum(low**2) + np.sum((logits - low) ** 2))
            assert abs(content["test"]["outputs"]["energy_share"][epoch, k] - share) < 1e-5


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
    assert_close(measure_bands(RUN, how()), whole)


def assert_close(content, expected):
    """Nested dicts are equal to 1e-5."""
    assert type(content) is type(expected)
    if isinstance(content, dict):
        assert content.keys() == expected.keys()
        for name, value in content.items():
            assert_close(value, expected[name])
    elif isinstance(content, np.ndarray):
        np.testing.assert_allclose(content, expected, rtol=1e-5, atol=1e-5)
    else:
        assert content == expected


def plain(value):
    """A section as frequency.json holds it."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return np.where(np.isnan(value), None, value).tolist()
    return value


@pytest.mark.parametrize("name", ["test", "sample"])
def test_added_deltas_stand_in_order_beside_the_earlier_ones(name):
    of = {deltas: measure_bands(RUN, how(*deltas))[name] for deltas in ((400,), (1e-6, 30))}
    added = add_deltas(plain(of[400,]), of[1e-6, 30])
    assert added["delta"].tolist() == [1e-6, 30, 400]
    assert_close(added, measure_bands(RUN, how(1e-6, 30, 400))[name])


def test_deltas_of_other_outputs_are_not_added():
    new = measure_test(RUN, how(30))
    for old in (
        measure_test(changed(test_logits=RUN.test_logits[:2]), how(400)),
        measure_test(RUN, how(400, values="logits")),
        {**measure_test(RUN, how(400)), "n": 41},
    ):
        with pytest.raises(ValueError, match=r"not|other|dimension"):
            add_deltas(old, new)


def test_deltas_that_filter_nothing():
    section = measure_test(RUN, how(1, 2, 400))
    assert section["mass"][1] < 2 < section["mass"][2]
    assert bands.idle_deltas(plain(section)) == [1, 2]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_epochs(monkeypatch):
    # glibc keeps freed arrays in its heap unless they are mapped each by itself: their gaps would
    # count. In one pass the 180 further epochs take 300 MB.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    done = run_python(PROGRAMS / "filter_memory.py", 4 * 10**6, 20, 200, check=True)
    few, many = map(int, done.stdout.splitlines()[-1].split())
    assert many - few < 30 * 10**6
