"""The parts of noisy labels within frequency bands, against numpy's lstsq and explicit kernels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SMALL_RUN, make_dataset

from analysis import label_parts, measures
from analysis.gaussian_filter import filter_sums
from common.run_folder import read_sample_indices
from dataset.data_file import read_dataset, write_dataset

PARTS = label_parts.PARTS


def explicit_bands(points, values, delta):
    """Low and high part (n, C) each of centered values (n, C), by a full kernel in float64."""
    distances = np.square(points[:, None] - points[None]).sum(2)
    kernel = np.exp(-distances / (2 * delta))
    centered = values - values.mean(0)
    low = kernel @ centered / kernel.sum(1, keepdims=True)
    return {"low": low, "high": centered - low}


@pytest.fixture(scope="module")
def noisy_values():
    """Points (n, d), labels, their parts, T, and three outputs (3, n, C)."""
    random = np.random.default_rng(0)
    classes, n = 4, 160
    clean = np.arange(n) % classes
    centers = random.normal(size=(classes, 5))
    points = (centers[clean] + random.normal(size=(n, 5))).astype(np.float32)
    noisy = np.where(random.random(n) < 0.4, (clean + 1) % classes, clean)
    transition = label_parts.transition_matrix(clean, noisy, classes)
    parts = label_parts.label_parts(clean, noisy, transition)
    outputs = random.dirichlet([0.6] * classes, (2, n))
    outputs = np.concatenate([outputs, transition[clean][None]])  # the last one is the ideal
    return points, parts, outputs


@pytest.mark.parametrize("dropped", [False, True])
def test_banded_shares_are_least_squares(noisy_values, dropped):
    points, parts, outputs = noisy_values
    references = [parts["clean"], parts["transition"] + parts["individual"], parts["transition"]]
    deltas = [0.5, 2.0]
    sums = filter_sums(
        torch.from_numpy(points.copy()),
        torch.from_numpy(np.stack(references)).float(),
        torch.from_numpy(outputs).float(),
        deltas,
    )
    shares = measures.part_shares(sums, dropped)
    kept = [part for part in PARTS if not (dropped and part == "transition")]
    for column, delta in enumerate(deltas):
        for band in ("low", "high"):
            columns = [explicit_bands(points, parts[p], delta)[band].ravel() for p in kept]
            for k, output in enumerate(outputs):
                target = explicit_bands(points, output, delta)[band].ravel()
                expected = np.linalg.lstsq(np.stack(columns, 1), target, rcond=None)[0]
                actual = [shares[f"{p}_{band}"][3 + k, column].item() for p in kept]
                np.testing.assert_allclose(actual, expected, atol=2e-5)
    if dropped:
        assert shares["transition_low"].isnan().all()
    else:
        ideal = [shares[f"{p}_{band}"][-1] for p in PARTS for band in ("low", "high")]
        np.testing.assert_allclose(torch.stack(ideal), [[1, 1]] * 4 + [[0, 0]] * 2, atol=1e-5)


def test_centered_errors(noisy_values):
    points, parts, outputs = noisy_values
    constant = np.full_like(outputs[:1], 0.25)
    values = np.concatenate([outputs, constant])
    sums = filter_sums(
        torch.from_numpy(points.copy()),
        torch.from_numpy(parts["clean"][None]).float(),
        torch.from_numpy(values).float(),
        [2.0],
    )
    errors = measures.centered_errors(sums)["e_low_centered"][:, 0]
    reference = explicit_bands(points, parts["clean"], 2.0)["low"]
    for k, output in enumerate(values):
        low = explicit_bands(points, output, 2.0)["low"]
        expected = np.linalg.norm(reference - low) / np.linalg.norm(reference)
        assert errors[1 + k].item() == pytest.approx(expected, abs=1e-5)
    # The square root of what float64 sums of two products leave.
    assert errors[0] <= 1e-7 and errors[-1].item() == pytest.approx(1)


@pytest.fixture
def filtered_run(workplace, script):
    """A run of three epochs on 400 images: enough to tell the transition from the clean labels."""
    write_dataset(Path("data/small.npz"), make_dataset(train=400))
    assert script("train", *SMALL_RUN, "--epochs=3")[0] == 0
    assert script("frequency", "--delta", 20, 400)[0] == 0
    return next(Path("runs").glob("*/*"))


def test_frequency_writes_the_parts_and_the_ideal(filtered_run):
    run = filtered_run
    section = json.loads((run / "frequency.json").read_text())["probe"]
    assert section["transition_dropped"] is False
    for part, level in zip(PARTS, (1, 1, 0), strict=True):
        for band in ("low", "high"):
            assert section["ideal"][f"{part}_{band}"][0] == pytest.approx(level, abs=1e-4)
            for kind in ("outputs", "one_hot"):
                assert np.array(section[kind][f"{part}_{band}"]).shape == (3, 2)
    # The noise is the sum of its parts, so the old share of the noise lies between the new ones.
    assert {"true", "noise", "given", "transition", "individual", "ideal"} == set(section["labels"])
    assert all(0 <= share <= 1 for share in section["alone"])


def test_the_share_of_images_that_are_alone():
    points = torch.tensor([[0.0], [0.0], [0.0], [100.0]])
    values = torch.eye(4)[None]
    sums = filter_sums(points, values, values, [1.0])
    assert sums.alone.tolist() == [0.25] and sums.kernel_mass.item() == 3


def test_memorization_file(filtered_run):
    dataset = read_dataset(Path("data/small.npz"))
    content = json.loads((filtered_run / "memorization.json").read_text())
    index = read_sample_indices(filtered_run)
    logits = np.load(filtered_run / "train_logits.npy")
    clean, noisy = dataset.clean_labels[index], dataset.train_labels[index]
    correct = logits.argmax(2) == clean
    expected = 100 * (correct[:, clean == noisy].mean(1) - correct[:, clean != noisy].mean(1))
    np.testing.assert_allclose(content["curves"]["gap"], expected)
    assert {len(curve) for curve in content["curves"].values()} == {3}
    assert content["digest"] == dataset.sha256 and content["n"] == len(index)
    assert sum(content["energies"].values()) == pytest.approx(1)
    ideal = content["ideal"]["softmax"]
    assert [ideal[part] for part in PARTS] == pytest.approx([1, 1, 0], abs=1e-9)


@pytest.mark.slow
def test_clean_labels_have_no_memorization(workplace, script):
    clean = make_dataset()
    clean.train_labels[:] = clean.clean_labels
    write_dataset(Path("data/small.npz"), clean)
    assert script("train", *SMALL_RUN, "--epochs=2")[0] == 0
    assert script("frequency", "--delta", 100)[0] == 0
    content = json.loads(next(Path("runs").glob("*/*/memorization.json")).read_text())
    assert content["curves"]["gap"] == [None, None]
    assert content["curves"]["softmax_individual"] == [None, None]
    assert None not in content["curves"]["softmax_clean"]
    assert script("plot")[0] == 0
