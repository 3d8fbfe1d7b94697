"""spectrum.py: the file of each run, kernels that are shared or added, comparison, refusals."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, make_dataset

from analysis.equivalent_epoch import epoch_path
from analysis.kernel_spectrum import gaussian_kernel, label_spectrum, learned_shares
from analysis.label_parts import (
    PARTS,
    label_parts,
    one_hot_predictions,
    transition_is_collinear,
    transition_matrix,
)
from analysis.spectrum_file import as_array, as_numbers, read_spectrum
from analysis.spectrum_runs import initial_model
from analysis.tangent_kernel import tangent_kernel
from common.logits import read_logits
from common.run_folder import read_config, read_history, read_sample_indices
from dataset.batches import normalize
from dataset.data_file import read_dataset, write_dataset
from training import checkpoint
from training.settings import RunSettings

PLAIN, DISTILLED = (Path(f"runs/small/dis{dis}-small_cnn-seed0") for dis in (0, 1))


def sample_of(run):
    """Normalized images of the run's sample, the parts of their labels, whether one is dropped."""
    dataset, index = read_dataset(Path("data/small.npz")), read_sample_indices(run)
    clean, noisy = dataset.clean_labels, dataset.train_labels
    transition = transition_matrix(clean, noisy, dataset.num_classes)
    images = normalize(torch.from_numpy(dataset.train_images[index]))
    dropped = transition_is_collinear(clean, transition)
    return images, label_parts(clean[index], noisy[index], transition), dropped


def assert_is(entry, kernel, run):
    """The entry's numbers are those of the pure functions, to five digits."""
    _, parts, dropped = sample_of(run)
    spectrum = label_spectrum(kernel, parts)
    logits = np.array(read_logits(run / "train_logits.npy")[0])
    outputs = {"softmax": torch.from_numpy(logits).softmax(2)}
    outputs["one_hot"] = torch.from_numpy(one_hot_predictions(logits))
    assert entry["bands"] == spectrum.edges
    for name, values in outputs.items():
        expected = learned_shares(spectrum, values, dropped)
        for part, of_part in zip(PARTS, expected, strict=True):
            written = as_array(entry["shares"][name][part])
            np.testing.assert_allclose(written, of_part, rtol=2e-4, atol=1e-5)
    for part, energies in zip(PARTS, spectrum.energies, strict=True):
        np.testing.assert_allclose(entry["energies"][part], energies / energies.sum(), rtol=1e-4)
        assert entry["totals"][part] == pytest.approx(energies.sum() / len(kernel), rel=1e-4)


def test_gaussian_kernels_of_every_run(study, script):
    status, out, err = script("spectrum", "--delta", 100, 400)
    assert (status, err) == (0, "")
    assert out.count("spectrum.json: 3 epochs, 60 images") == 4
    for run in Path("runs/small").iterdir():
        content = read_spectrum(run)
        assert content["digest"] == read_config(run)["data"]["digest"]
        assert (content["n"], content["epochs"]) == (60, 3)
        for delta, entry in zip((100, 400), content["kernels"], strict=True):
            assert (entry["kernel"], entry["delta"]) == ("gaussian", delta)
            assert_is(entry, gaussian_kernel(sample_of(run)[0], delta), run)


@pytest.mark.slow
def test_tangent_kernels_at_the_start_and_at_the_checkpoint(study, script):
    assert script("spectrum", PLAIN, DISTILLED, "--kernel", "ntk-initial", "ntk-final")[0] == 0
    dataset = read_dataset(Path("data/small.npz"))
    for run in (PLAIN, DISTILLED):
        images = sample_of(run)[0]
        final, initial = read_spectrum(run)["kernels"]
        assert (initial["kernel"], initial["epoch"]) == ("ntk-initial", 0)
        assert (final["kernel"], final["epoch"]) == ("ntk-final", 3)
        assert final["vectors"] == "4 unit vectors"
        settings = RunSettings.from_flags(read_config(run)["flags"])
        model = initial_model(settings, dataset, torch.device("cpu"))
        assert_is(initial, tangent_kernel(model, images, torch.eye(4)), run)
        checkpoint.load_evaluated(run, model, checkpoint.read(run, "cpu"))
        assert_is(final, tangent_kernel(model, images, torch.eye(4)), run)


def test_the_initial_network_is_the_one_that_training_starts_from(study, script):
    """A run whose learning rate is too small to move it ends at its initialization."""
    flags = ["--model", "small_cnn", "--data", "data/small.npz", "--device", "cpu", "--seed", 7]
    assert script("train", *flags, "--epochs", 1, "--lr", 1e-30, "--run", "still")[0] == 0
    run = Path("runs/small/still")
    settings = RunSettings.from_flags(read_config(run)["flags"])
    dataset = read_dataset(Path("data/small.npz"))
    model = initial_model(settings, dataset, torch.device("cpu"))
    trained = checkpoint.read(run, "cpu")["model"]
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, trained[name], rtol=0, atol=1e-20)


@pytest.mark.slow
def test_kernels_of_an_earlier_call_stay(study, script):
    assert script("spectrum", PLAIN, "--delta", 100)[0] == 0
    first = read_spectrum(PLAIN)["kernels"][0]
    assert script("spectrum", PLAIN, "--delta", 400)[0] == 0
    assert script("spectrum", PLAIN, "--kernel", "ntk-initial")[0] == 0
    entries = read_spectrum(PLAIN)["kernels"]
    names = [(entry["kernel"], entry["delta"]) for entry in entries]
    assert names == [("gaussian", 100), ("gaussian", 400), ("ntk-initial", None)]
    assert entries[0] == first
    # Of another number of images, nothing stays.
    assert script("spectrum", PLAIN, "--delta", 400, "--size", 40)[0] == 0
    assert len(read_spectrum(PLAIN)["kernels"]) == 1
    # A damaged file is replaced.
    (PLAIN / "spectrum.json").write_text("{")
    assert script("spectrum", PLAIN, "--delta", 400)[0] == 0
    assert len(read_spectrum(PLAIN)["kernels"]) == 1


def test_a_smaller_size_takes_images_evenly_from_the_sample(study, script):
    assert script("spectrum", PLAIN, "--delta", 100, "--size", 30)[0] == 0
    content = read_spectrum(PLAIN)
    assert content["n"] == 30 and content["kernels"][0]["bands"][-1] == 30
    images, parts, _ = sample_of(PLAIN)
    every_other = {name: part[::2] for name, part in parts.items()}
    energies = label_spectrum(gaussian_kernel(images[::2], 100), every_other).energies[0]
    written = content["kernels"][0]["energies"]["clean"]
    np.testing.assert_allclose(written, energies / energies.sum(), rtol=1e-4)


def test_symmetric_noise_has_no_transition_share(tmp_path, monkeypatch, script):
    monkeypatch.chdir(tmp_path)
    dataset = make_dataset(train=400)
    random = np.random.default_rng(0)
    wrong = random.random(400) < 0.4
    moved = (dataset.clean_labels + random.integers(1, 4, 400)) % 4
    dataset.train_labels[wrong] = moved[wrong]
    dataset.train_labels[~wrong] = dataset.clean_labels[~wrong]
    write_dataset(tmp_path / "data/small.npz", dataset)
    flags = ["--model", "small_cnn", "--data", "data/small.npz", "--device", "cpu"]
    assert script("train", *flags, "--epochs", 1)[0] == 0
    assert script("spectrum", "--delta", 100)[0] == 0
    (run,) = Path("runs/small").iterdir()
    shares = read_spectrum(run)["kernels"][0]["shares"]["softmax"]
    assert np.isnan(as_array(shares["transition"])).all()
    assert np.isfinite(as_array(shares["clean"])[:, 3:]).all()


def test_comparison_with_the_cross_entropy_run_beside_it(study, script):
    assert script("spectrum", "--delta", 100)[0] == 0
    status, out, err = script("spectrum", "--compare", DISTILLED)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 2
    own, other = (read_spectrum(run)["kernels"][0] for run in (DISTILLED, PLAIN))
    profiles, reference = (as_array(e["shares"]["softmax"]["individual"]) for e in (own, other))
    energy = as_array(own["energies"]["individual"])
    nearest = epoch_path(profiles, reference, energy).nearest[-1]
    assert f"gaussian, delta 100, n 60, softmax: epoch 3 is like epoch {nearest + 1} of" in lines[0]
    accuracy = [read_history(run)[0] for run in (DISTILLED, PLAIN)]
    first, second = accuracy[0][-1]["test_accuracy"], accuracy[1][nearest]["test_accuracy"]
    assert f"test accuracy {first:.2f}% and {second:.2f}%" in lines[0]
    assert ", one_hot: epoch 3" in lines[1]
    # Cross-entropy runs are compared with nothing.
    assert script("spectrum", "--compare", PLAIN) == (0, "", "")


def test_a_comparison_needs_a_cross_entropy_run_of_the_same_draw(study, script, refused):
    assert script("spectrum", "--delta", 100)[0] == 0
    shutil.rmtree(PLAIN)  # another seed's stays
    assert "no cross-entropy run beside it" in refused("spectrum", "--compare", DISTILLED)


def test_a_comparison_needs_both_spectra_and_a_shared_kernel(study, script, refused):
    assert script("spectrum", DISTILLED, "--delta", 100)[0] == 0
    assert "no spectrum.json" in refused("spectrum", "--compare", DISTILLED)
    assert script("spectrum", PLAIN, "--delta", 400)[0] == 0
    assert "no kernel in common" in refused("spectrum", "--compare", DISTILLED)


def test_runs_that_cannot_be_measured_are_refused(study, refused):
    assert "nothing: no run there" in refused("spectrum", "nothing")
    assert "--size 61" in refused("spectrum", PLAIN, "--size", 61)
    assert "--delta" in refused("spectrum", PLAIN, "--delta", 0)
    assert "--kernel" in refused("spectrum", PLAIN, "--kernel", "linear")
    (PLAIN / "checkpoint.pt").rename("elsewhere.pt")
    assert "checkpoint.pt does not exist" in refused("spectrum", PLAIN, "--kernel", "ntk-final")
    shutil.copy(DISTILLED / "checkpoint.pt", PLAIN)
    content = torch.load(PLAIN / "checkpoint.pt", weights_only=True)
    content["model"]["linear.weight"] = content["model"]["linear.weight"][:2]
    torch.save(content, PLAIN / "checkpoint.pt")
    assert "another network" in refused("spectrum", PLAIN, "--kernel", "ntk-final")
    content["settings"]["data_sha256"] = "0"
    torch.save(content, PLAIN / "checkpoint.pt")
    assert "another data set" in refused("spectrum", PLAIN, "--kernel", "ntk-final")
    assert not (PLAIN / "spectrum.json").exists()


def test_another_data_set_or_outputs_of_other_images_are_refused(study, refused):
    write_dataset(study / "data/other.npz", make_dataset(seed=5))
    assert "name its data set with --data" in refused("spectrum", PLAIN, "--data", "data/other.npz")
    shutil.copy(PLAIN / "logits.npy", PLAIN / "train_logits.npy")
    assert "(3, 40, 4)" in refused("spectrum", PLAIN)
    (PLAIN / "train_logits.npy").unlink()
    assert "no such file" in refused("spectrum", PLAIN)


def test_a_network_that_diverged_is_refused(study, refused):
    content = torch.load(PLAIN / "checkpoint.pt", weights_only=True)
    content["model"]["conv1.weight"] *= np.inf
    torch.save(content, PLAIN / "checkpoint.pt")
    assert "not finite" in refused("spectrum", PLAIN, "--kernel", "ntk-final")


def test_a_file_of_another_kind_is_refused(study, refused, script):
    assert script("spectrum", "--delta", 100)[0] == 0
    content = json.loads((PLAIN / "spectrum.json").read_text())
    del content["kernels"][0]["shares"]
    (PLAIN / "spectrum.json").write_text(json.dumps(content))
    assert "no `shares`; make it again" in refused("spectrum", "--compare", DISTILLED)


def test_labels_without_noise_cannot_be_compared(tmp_path, monkeypatch, script, refused):
    monkeypatch.chdir(tmp_path)
    dataset = make_dataset()
    dataset.train_labels[:] = dataset.clean_labels
    write_dataset(tmp_path / "data/small.npz", dataset)
    flags = ["--model", "small_cnn", "--data", "data/small.npz", "--device", "cpu", "--epochs", 1]
    for dis in (0, 1):
        assert script("train", *flags, f"--dis={dis}")[0] == 0
    assert script("spectrum", "--delta", 100)[0] == 0
    assert read_spectrum(PLAIN)["kernels"][0]["energies"]["individual"] is None
    assert "no label is wrong" in refused("spectrum", "--compare")


def test_numbers_have_five_digits_and_nan_is_null():
    values = np.array([[0.123456789, np.nan], [1.0, -12345678.0]])
    assert as_numbers(values) == [[0.12346, None], [1.0, -12346000.0]]
    back = as_array(as_numbers(values))
    assert np.isnan(back[0, 1]) and back[0, 0] == 0.12346


def test_the_command_line_needs_no_torch():
    code = "import sys, spectrum; spectrum.parse_args([]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
