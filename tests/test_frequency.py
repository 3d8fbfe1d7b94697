"""frequency.py: the files of each run, what is added or skipped, what is left out or refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import LEARNING_RUN, make_learnable_dataset
from references import CLASSES, as_points, expected_errors, smoothing_matrix, softmax

import frequency
import train
from common import run_folder
from dataset.batches import normalize
from dataset.data_file import DataSet, read_dataset, write_dataset
from measures import spectrum
from measures.kernels import calibrated, gaussian_kernel, tangent_kernel
from measures.memorization import measure_memorization
from measures.parts import split_labels
from training.run import load_network

RUNS = Path("runs/small")
PLAIN, EMA = RUNS / "plain", RUNS / "ema"
DELTAS = ("--delta", 30, 100)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with two runs that learn, the second with averaged weights; one sample of 100."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_dataset(Path("data/small.npz"), make_learnable_dataset())
        for run, decay in ((PLAIN, 0), (EMA, 0.9)):
            flags = "--epochs=3", "--sample-size=100", f"--ema-decay={decay}", f"--run={run.name}"
            assert train.main([*LEARNING_RUN, *flags]) == 0
    return folder


@pytest.fixture
def runs(trained, tmp_path, monkeypatch):
    """A copy of `trained` to work in."""
    shutil.copytree(trained, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")


def read(run, name="frequency.json"):
    content, note = run_folder.read_measure(run, name)
    assert note == "" and content
    return content


def test_the_files_of_every_run(runs, script):
    status, out, err = script("frequency", *DELTAS)
    assert (status, err) == (0, "") and out.count("frequency.json: 3 epochs, 2 deltas") == 2
    dataset = read_dataset("data/small.npz")
    points, true = as_points(dataset.test_images), np.eye(CLASSES)[dataset.test_labels]
    for run in (PLAIN, EMA):
        content = read(run)
        assert (content["values"], content["sample"]["n"]) == ("softmax", 100)
        assert content["test"]["delta"] == content["sample"]["delta"] == [30, 100]
        for k, delta in enumerate((30, 100)):
            smoothing = smoothing_matrix(points, delta)
            for epoch, values in enumerate(softmax(np.load(run / "logits.npy"))):
                for name, value in expected_errors(smoothing, true, values).items():
                    found = content["test"]["outputs"][name][epoch][k]
                    assert found == pytest.approx(value, rel=1e-5)
        arrays = frequency.open_run(run, None, read_dataset).arrays
        index = np.load(run / "train_indices.npy")
        np.testing.assert_array_equal(arrays.images, dataset.train_images[index])
        np.testing.assert_array_equal(arrays.clean, dataset.clean_labels[index])
        np.testing.assert_array_equal(arrays.noisy, dataset.train_labels[index])
        np.testing.assert_array_equal(arrays.logits, np.load(run / "train_logits.npy"))
        assert len(arrays.training_labels[0]) == 160
        written = read(run, "memorization.json")
        for name, curve in measure_memorization(arrays)["curves"].items():
            np.testing.assert_allclose(np.array(written["curves"][name], float), curve)


def test_the_deltas_that_are_measured(runs, script):
    assert script("frequency", PLAIN)[0] == 0
    deltas = read(PLAIN)["test"]["delta"]
    assert len(deltas) == 9 and deltas[2] == 2 * deltas[0]
    assert script("frequency", EMA, "--delta", "original")[0] == 0
    assert read(EMA)["test"]["delta"] == [1, 10, *range(100, 1001, 100)]
    status, out, _ = script("frequency", EMA, "--values", "logits", "--delta", 0.01, 100)
    assert status == 0 and "it was of softmax" in out
    assert "hardly any filter at 0.01 (median kernel mass" in out
    content = read(EMA)
    assert (content["values"], content["test"]["delta"]) == ("logits", [0.01, 100])
    assert "e_low" not in content["test"]["outputs"]


def test_new_deltas_are_added_and_the_numbers_are_those_of_one_call(runs, script):
    shutil.copytree(PLAIN, RUNS / "again")
    assert script("frequency", PLAIN, *DELTAS)[0] == 0
    status, out, _ = script("frequency", PLAIN, *DELTAS)
    assert status == 0 and "nothing to do" in out and out.count("\n") == 1
    assert script("frequency", PLAIN, "--delta", 60)[0] == 0
    assert script("frequency", RUNS / "again", "--delta", 60, 100, 30)[0] == 0
    assert read(PLAIN)["sample"]["delta"] == [30, 60, 100] and read(PLAIN) == read(RUNS / "again")
    # A missing memorization.json is made without a second pass.
    before = (PLAIN / "frequency.json").stat()
    (PLAIN / "memorization.json").unlink()
    assert script("frequency", PLAIN, *DELTAS)[0] == 0
    assert read(PLAIN, "memorization.json") and (PLAIN / "frequency.json").stat() == before


def test_outputs_that_changed_are_measured_again(runs, script):
    assert script("frequency", PLAIN, *DELTAS)[0] == 0
    content = (PLAIN / "frequency.json").read_text()
    assert content.count("\n") == 1  # a line for each number would be most of the file
    (EMA / "frequency.json").write_text(content)
    assert script("frequency", EMA, "--delta", 30)[0] == 0
    assert read(EMA)["test"]["delta"] == [30]


def assert_measured(entry, kernel, run, some=slice(None)):
    """An entry of spectrum.json is what the kernel (n, n) of images of the sample gives."""
    arrays = frequency.open_run(run, None, read_dataset).arrays
    clean, noisy = arrays.clean[some], arrays.noisy[some]
    labels, dropped = split_labels(clean, noisy, CLASSES, arrays.training_labels)
    found = spectrum.label_spectrum(kernel, labels)
    expected = spectrum.measure_spectrum(found, arrays.logits[:, some], dropped)
    assert entry["edges"] == expected["edges"]
    for kind in ("energies", "softmax", "one_hot"):
        for part, values in expected[kind].items():
            np.testing.assert_allclose(np.array(entry[kind][part], float), values)


def pixels_of(run, some=slice(None)):
    arrays = frequency.open_run(run, None, read_dataset).arrays
    return normalize(torch.from_numpy(arrays.images[some]))


def test_gaussian_eigenvectors(runs, script):
    flags = "--eigenvectors", "--delta"
    status, out, err = script("frequency", *flags, 400)
    assert (status, err) == (0, "") and out.count("3 epochs, 100 images, gaussian of delta") == 2
    assert not (PLAIN / "frequency.json").exists()
    assert "nothing to do" in script("frequency", PLAIN, *flags, 400)[1]
    first = read(PLAIN, "spectrum.json")["kernels"]
    assert script("frequency", *flags, 100, 400)[0] == 0
    for run in (PLAIN, EMA):
        content = read(run, "spectrum.json")
        assert (content["n"], content["epochs"]) == (100, 3)
        assert [(e["kernel"], e["delta"]) for e in content["kernels"]] == [
            ("gaussian", 100),
            ("gaussian", 400),
        ]
        for entry in content["kernels"]:
            assert_measured(entry, gaussian_kernel(pixels_of(run), entry["delta"]), run)
    assert read(PLAIN, "spectrum.json")["kernels"][1:] == first
    status, out, _ = script("frequency", PLAIN, *flags, 100, "--size", 50)
    assert status == 0 and "measured again, on 50 images; it was on 100" in out
    content, half = read(PLAIN, "spectrum.json"), slice(None, None, 2)
    assert content["n"] == 50 and len(content["kernels"]) == 1
    kernel = gaussian_kernel(pixels_of(PLAIN, half), 100)
    assert_measured(content["kernels"][0], kernel, PLAIN, half)


def test_a_kernel_that_tells_nothing_is_named_and_the_others_are_kept(runs, script):
    status, _, err = script("frequency", PLAIN, "--eigenvectors", "--delta", 100, 1e30)
    assert status == 2 and err.count("\n") == 1
    assert f"{PLAIN}, gaussian of delta 1e+30: the kernel is the same" in err
    assert len(read(PLAIN, "spectrum.json")["kernels"]) == 1


@pytest.mark.slow
def test_tangent_kernels_of_trained_networks(runs, script):
    seed1, some = RUNS / "seed1", np.arange(12) * 100 // 12
    shutil.copytree(PLAIN, seed1)
    config = run_folder.read_config(seed1)
    config["flags"]["seed"] = 1
    run_folder.write_config(seed1, config)
    kernels = "--eigenvectors", "--device", "cpu", "--size", 12, "--kernels"
    assert script("frequency", *kernels, "gaussian", "ntk-initial")[::2] == (0, "")
    assert script("frequency", PLAIN, EMA, *kernels, "ntk-final")[::2] == (0, "")
    dataset, cpu, energies = read_dataset("data/small.npz"), torch.device("cpu"), {}
    for run in (PLAIN, EMA):
        entries = read(run, "spectrum.json")["kernels"]
        names = [entry["kernel"] for entry in entries]
        assert names == [*["gaussian"] * 3, "ntk-final", "ntk-initial"]
        for entry, epoch in zip(entries[3:], (3, 0), strict=True):
            assert (entry["epoch"], entry["vectors"]) == (epoch, "4 unit vectors")
            energies[run, epoch] = entry["energies"]
            model, pixels = (
                load_network(run, dataset, cpu, not epoch)[0],
                pixels_of(run, some),
            )
            model = model if epoch else calibrated(model, pixels)
            kernel = tangent_kernel(model, pixels, torch.eye(CLASSES))
            assert_measured(entry, kernel, run, some)
    # Networks that start as others do share a kernel; a trained one is a run's own.
    assert energies[PLAIN, 0] == energies[EMA, 0] and energies[PLAIN, 3] != energies[EMA, 3]
    assert energies[PLAIN, 0] != read(seed1, "spectrum.json")["kernels"][-1]["energies"]


REFUSED_FLAGS = [
    *((("--delta", value), "--delta") for value in ("0", "inf")),
    (("--delta", "original", "100"), "leave the other deltas"),
    (("--values", "logits", "--eigenvectors"), "leave it out"),
    (("--kernels", "gaussian"), "add --eigenvectors"),
    (("--size", "10"), "add --eigenvectors"),
    (("--eigenvectors", "--kernels", "linear"), "gaussian"),
    (("--eigenvectors", "--kernels", "ntk-final", "--delta", "10"), "add it to --kernels"),
    (("--eigenvectors", "--size", "1"), "use 2 or more"),
    (("--eigenvectors", "--size", "101"), "--size 100"),
    (("--runs", "nowhere"), "train.py"),
]


@pytest.mark.parametrize(("flags", "words"), REFUSED_FLAGS)
def test_flags_that_cannot_be_followed_are_refused(runs, script, flags, words):
    shutil.rmtree(EMA)
    status, out, err = script("frequency", *flags)
    assert status == 2 and words in err and err.count("\n") == 1 and out == ""
    assert not list(RUNS.glob("*/*y.json")) and not list(RUNS.glob("*/spectrum.json"))


def rewrite(name, change):
    """A damage that changes an .npy file."""
    return lambda run: np.save(run / name, change(np.load(run / name)))


def shorten(run):
    path = run / "history.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))


def edit_accuracy(run):
    first, *others = (run / "history.jsonl").read_text().splitlines()
    first = json.dumps(json.loads(first) | {"test_accuracy": 99})
    (run / "history.jsonl").write_text("\n".join([first, *others, ""]))


def one_test_image(run):
    dataset = read_dataset("data/small.npz")
    few = {name: getattr(dataset, name)[:1] for name in ("test_images", "test_labels")}
    write_dataset(Path("data/small.npz"), DataSet(**{**vars(dataset), **few}))
    config = run_folder.read_config(run)
    config["data"]["digest"] = read_dataset("data/small.npz").sha256
    run_folder.write_config(run, config)


# What is wrong with the run: how it is made so, and words of the line.
DAMAGES = {
    "an image too few": (rewrite("logits.npy", lambda x: x[:, :-1]), "logits.npy"),
    "other outputs": (rewrite("train_logits.npy", lambda x: -x), "sha256"),
    "float64": (rewrite("logits.npy", lambda x: x.astype(float)), "logits.npy"),
    "no logits": (lambda run: (run / "logits.npy").unlink(), "logits.npy"),
    "no sample": (lambda run: (run / "train_indices.npy").unlink(), "train_indices.npy"),
    "another sample": (rewrite("train_indices.npy", lambda x: x + 100), "train_indices.npy"),
    "a rolled sample": (rewrite("train_indices.npy", lambda x: np.roll(x, 1)), "train_indices.npy"),
    "edited accuracy": (edit_accuracy, "test_accuracy of epoch 1 is 99 in history.jsonl"),
    "one image": (one_test_image, "two images"),
    "bad config": (lambda run: (run / "config.json").write_text("{"), "config.json"),
    "unfinished": (shorten, "go on with train.py --resume"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_named_and_the_others_are_measured(runs, script, name):
    damage, words = DAMAGES[name]
    damage(EMA)
    others = 0 if name == "one image" else 1  # which is a damage of the data set
    status, out, err = script("frequency", RUNS if others else EMA, *DELTAS)
    assert err.count("\n") == 1 and words in err and str(EMA) in err
    assert not (EMA / "frequency.json").exists()
    assert (status, str(PLAIN) in out) == ((0, True) if others else (2, False))
    status, out, err = script("frequency", EMA, "--eigenvectors")
    assert status == 2 and out == "" and err.count("\n") == 1 and words in err


MEASURE_DAMAGES = [
    (DELTAS, {"test": 5}),
    (DELTAS, {"test": {"delta": ["wide"]}}),
    (("--eigenvectors", "--delta", 100), {"kernels": [{}]}),
    (("--eigenvectors", "--delta", 100), {"kernels": 5}),
]


@pytest.mark.parametrize(("flags", "damage"), MEASURE_DAMAGES)
def test_a_damaged_measure_is_named(runs, script, flags, damage):
    name = "spectrum.json" if "--eigenvectors" in flags else "frequency.json"
    assert script("frequency", PLAIN, *flags)[0] == 0
    (PLAIN / name).write_text(json.dumps(read(PLAIN, name) | damage))
    status, out, err = script("frequency", PLAIN, *flags, 60)
    assert status == 2 and f"{name}: damaged; remove it" in err and out == ""
    # A file that is no JSON at all is made again.
    (PLAIN / name).write_text("{")
    assert script("frequency", PLAIN, *flags)[0] == 0 and read(PLAIN, name)


def test_a_moved_or_changed_data_set_is_named(runs, script):
    shutil.move("data/small.npz", "elsewhere.npz")
    status, _, err = script("frequency", PLAIN)
    assert status == 2 and "--data" in err
    assert script("frequency", "--data", "elsewhere.npz", *DELTAS)[0] == 0
    write_dataset(Path("elsewhere.npz"), make_learnable_dataset(seed=1))
    status, _, err = script("frequency", PLAIN, "--data", "elsewhere.npz")
    assert status == 2 and "was not trained on elsewhere.npz" in err


def test_the_checkpoint_of_another_run_is_named(runs, script):
    shutil.copy(EMA / "checkpoint.pt", PLAIN)
    for words in (("frequency", PLAIN, "--eigenvectors", "--kernels", "ntk-final"),
                  ("train", "--evaluate", PLAIN)):  # fmt: skip
        status, _, err = script(*words)
        assert status == 2 and "checkpoint.pt: is of another run, by ema_decay" in err
    (PLAIN / "checkpoint.pt").unlink()
    assert "does not exist; start it again with --overwrite" in script(*words)[2]
    assert not (PLAIN / "spectrum.json").exists()


def test_a_run_that_is_trained_meanwhile_is_left_out(runs, script, monkeypatch):
    def trained(arrays, how):
        shorten(PLAIN)
        return {"test": {}, "sample": {}}

    monkeypatch.setattr("measures.bands.measure_bands", trained)
    status, _, err = script("frequency", PLAIN)
    assert status == 2 and "another process trains it" in err
    assert not (PLAIN / "frequency.json").exists()
