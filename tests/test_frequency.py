"""frequency.py: the files of each run, what is added or skipped, what is left out or refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import ROOT
from references import CLASSES, as_points, expected_errors, learning_run, smoothing_matrix, softmax

import frequency
from common import run_folder
from dataset.batches import normalize
from dataset.data_file import DataSet, read_dataset, write_dataset
from measures import spectrum
from measures.kernels import gaussian_kernel
from measures.memorization import measure_memorization
from measures.parts import split_labels
from models.small_cnn import small_cnn

RUNS = Path("runs/small")
PLAIN, DISTILLED = RUNS / "plain", RUNS / "distilled"
INDEX = np.arange(0, 400, 4)  # the train sample
EPOCHS, DELTAS = 3, ("--delta", 30, 100)


def write_data(path, changed=0):
    """A data set of `learning_run`; `changed` is the number of other test labels."""
    run = learning_run(test=40, sample=400, train=400)
    test_labels = run.test_labels.copy()
    test_labels[:changed] = (test_labels[:changed] + 1) % CLASSES
    meta = {"source": "photos", "title": "photos", "noise": "pair", "rate_found": 0.4}
    dataset = DataSet(
        train_images=run.images,
        train_labels=run.noisy,
        clean_labels=run.clean,
        val_images=run.images[:0],
        val_labels=run.noisy[:0],
        test_images=run.test_images,
        test_labels=test_labels,
        class_names=[f"class {k}" for k in range(CLASSES)],
        meta=meta,
    )
    write_dataset(path, dataset)
    return run


def write_run(folder, run, index, scale=1.0, seed=0):
    """A run folder as train.py writes it, of the outputs of `run` times `scale`."""
    folder.mkdir(parents=True)
    data = Path("data/small.npz")
    flags = {"data": str(data), "epochs": EPOCHS, "seed": seed, "model": "small_cnn"}
    config = {
        "loss": "cross-entropy",
        "network": "small_cnn",
        "flags": {**flags, "depth": 26, "width": 32},
        "data": {"name": "small", "digest": read_dataset(data).sha256},
    }
    run_folder.write_config(folder, config)
    run_folder.write_sample_indices(folder, index)
    outputs = {"logits.npy": run.test_logits, "train_logits.npy": run.logits[:, index]}
    for epoch in range(1, EPOCHS + 1):
        digests = {}
        for name, logits in outputs.items():
            values = np.float32(scale) * logits[epoch - 1]
            run_folder.append_outputs(folder / name, values, epoch)
            digests[name] = run_folder.digest(values)
        run_folder.append_history(folder, {"epoch": epoch, "sha256": digests})


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder with a data set and two runs with one sample; returns what they are made of."""
    monkeypatch.chdir(tmp_path)
    run = write_data(Path("data/small.npz"))
    for folder, scale in ((PLAIN, 1), (DISTILLED, 0.5)):
        write_run(folder, run, INDEX, scale)
    return run


def read(run, name="frequency.json"):
    content, note = run_folder.read_measure(run, name)
    assert note == "" and content
    return content


def test_the_files_of_every_run(runs, script):
    status, out, err = script("frequency", *DELTAS)
    assert (status, err) == (0, "") and out.count("frequency.json: 3 epochs, 2 deltas") == 2
    points, true = as_points(runs.test_images), np.eye(CLASSES)[runs.test_labels]
    for run, scale in ((PLAIN, 1), (DISTILLED, 0.5)):
        content = read(run)
        assert (content["values"], content["sample"]["n"]) == ("softmax", 100)
        assert content["test"]["delta"] == content["sample"]["delta"] == [30, 100]
        for k, delta in enumerate((30, 100)):
            smoothing = smoothing_matrix(points, delta)
            for epoch, values in enumerate(softmax(scale * runs.test_logits)):
                for name, value in expected_errors(smoothing, true, values).items():
                    found = content["test"]["outputs"][name][epoch][k]
                    assert found == pytest.approx(value, rel=1e-5)
        dataset = read_dataset("data/small.npz")
        arrays = frequency.open_run(run, None, read_dataset).arrays
        np.testing.assert_array_equal(arrays.images, dataset.train_images[INDEX])
        np.testing.assert_array_equal(arrays.noisy, dataset.train_labels[INDEX])
        assert len(arrays.training_labels[0]) == 400
        written = read(run, "memorization.json")
        for name, curve in measure_memorization(arrays)["curves"].items():
            np.testing.assert_allclose(written["curves"][name], curve)


def test_without_delta_the_deltas_are_those_of_the_data_set(runs, script):
    assert script("frequency", PLAIN)[0] == 0
    deltas = read(PLAIN)["test"]["delta"]
    assert len(deltas) == 9 and deltas == read(PLAIN)["sample"]["delta"]
    assert deltas[2] == 2 * deltas[0]
    assert script("frequency", DISTILLED, "--delta", "original")[0] == 0
    assert read(DISTILLED)["test"]["delta"] == [1, 10, *range(100, 1001, 100)]


def test_new_deltas_are_added_and_measured_ones_are_not_measured_again(runs, script):
    assert script("frequency", PLAIN, *DELTAS)[0] == 0
    first = read(PLAIN)
    status, out, _ = script("frequency", PLAIN, *DELTAS)
    assert status == 0 and "nothing to do" in out and out.count("\n") == 1
    assert script("frequency", PLAIN, "--delta", 30, 60)[0] == 0
    content = read(PLAIN)
    for name in ("test", "sample"):
        assert content[name]["delta"] == [30, 60, 100]
        for measure, rows in content[name]["outputs"].items():
            kept = np.array(rows, float)[:, [0, 2]]
            np.testing.assert_array_equal(kept, np.array(first[name]["outputs"][measure], float))
    assert script("frequency", DISTILLED, "--delta", 30, 60, 100)[0] == 0
    one, other = content["sample"]["outputs"], read(DISTILLED)["sample"]["outputs"]
    assert np.shape(one["clean_low"]) == np.shape(other["clean_low"]) == (3, 3)
    # A missing memorization.json is made without a second pass.
    (PLAIN / "memorization.json").unlink()
    assert script("frequency", PLAIN, *DELTAS)[0] == 0
    assert read(PLAIN, "memorization.json") and read(PLAIN) == content


def test_logits_replace_softmax_outputs_and_a_line_says_so(runs, script):
    assert script("frequency", PLAIN, *DELTAS)[0] == 0
    status, out, _ = script("frequency", PLAIN, "--values", "logits", "--delta", 60)
    assert status == 0 and "it was of softmax" in out
    content = read(PLAIN)
    assert (content["values"], content["test"]["delta"]) == ("logits", [60])
    assert "e_low" not in content["test"]["outputs"]


def test_outputs_that_changed_are_measured_again(runs, script):
    assert script("frequency", PLAIN, *DELTAS)[0] == 0
    before = read(PLAIN)
    shutil.rmtree(RUNS)
    write_run(PLAIN, runs, INDEX, scale=2)
    (PLAIN / "frequency.json").write_text(json.dumps(before))
    assert script("frequency", PLAIN, "--delta", 30)[0] == 0
    assert read(PLAIN)["test"]["delta"] == [30]


def test_deltas_that_filter_nothing_are_named(runs, script):
    status, out, err = script("frequency", PLAIN, "--delta", 0.01, 100)
    assert status == 0 and "hardly any filter at 0.01 (median kernel mass" in out and err == ""
    status, _, err = script("frequency", DISTILLED, "--delta", 0.01, 0.02)
    assert status == 0 and err.count("\n") == 1 and "no delta reaches other images" in err
    remedy = err.split()[-2:]
    assert remedy[0] == "--delta"
    status, _, err = script("frequency", DISTILLED, *remedy)
    assert (status, err) == (0, "") and read(DISTILLED)["test"]["mass"][-1] > 2


def test_gaussian_eigenvectors(runs, script):
    status, out, err = script("frequency", "--eigenvectors", "--delta", 100, 400)
    assert (status, err) == (0, "") and out.count("3 epochs, 100 images, gaussian of delta") == 4
    for run in (PLAIN, DISTILLED):
        content = read(run, "spectrum.json")
        assert (content["n"], content["epochs"]) == (100, 3)
        arrays = frequency.open_run(run, None, read_dataset).arrays
        pixels = normalize(torch.from_numpy(arrays.images))
        labels, dropped = parts_of(arrays)
        for delta, entry in zip((100, 400), content["kernels"], strict=True):
            along = spectrum.label_spectrum(gaussian_kernel(pixels, delta), labels)
            expected = spectrum.measure_spectrum(along, arrays.logits, dropped)
            assert (entry["kernel"], entry["delta"]) == ("gaussian", delta)
            assert entry["edges"] == expected["edges"]
            for kind in ("energies", "softmax", "one_hot"):
                for part, values in expected[kind].items():
                    np.testing.assert_allclose(np.array(entry[kind][part], float), values)
    assert not (PLAIN / "frequency.json").exists()


def parts_of(arrays):
    return split_labels(arrays.clean, arrays.noisy, CLASSES, arrays.training_labels)


def test_new_kernels_are_added_and_a_smaller_size_takes_images_evenly(runs, script):
    flags = PLAIN, "--eigenvectors", "--delta"
    assert script("frequency", *flags, 100)[0] == 0
    first = read(PLAIN, "spectrum.json")["kernels"][0]
    assert "nothing to do" in script("frequency", *flags, 100)[1]
    assert script("frequency", *flags, 50, 100)[0] == 0
    entries = read(PLAIN, "spectrum.json")["kernels"]
    assert [entry["delta"] for entry in entries] == [50, 100] and entries[1] == first
    status, out, _ = script("frequency", *flags, 100, "--size", 50)
    assert status == 0 and "measured again, on 50 images; it was on 100" in out
    content = read(PLAIN, "spectrum.json")
    assert content["n"] == 50 and len(content["kernels"]) == 1
    arrays = frequency.open_run(PLAIN, None, read_dataset).arrays
    half = {name: part[::2] for name, part in parts_of(arrays)[0].items()}
    pixels = normalize(torch.from_numpy(arrays.images[::2]))
    energies = spectrum.label_spectrum(gaussian_kernel(pixels, 100), half).energies[0]
    written = content["kernels"][0]["energies"]["clean"]
    np.testing.assert_allclose(written, energies / energies.sum(), rtol=1e-6)


@pytest.fixture
def loaded(monkeypatch):
    """A stand-in for training.run.load_network; the list has what it was asked for."""
    asked = []

    def load_network(run, dataset, device, initial):
        asked.append((run.name, initial))
        seed = run_folder.read_config(run)["flags"]["seed"]
        torch.manual_seed(seed if initial else 10 + seed)
        model = small_cnn(CLASSES)
        if not initial and run == DISTILLED:
            model.linear.weight.data *= torch.inf
        return model, 0 if initial else EPOCHS

    monkeypatch.setitem(sys.modules, "training", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "training.run", SimpleNamespace(load_network=load_network))
    return asked


@pytest.mark.slow
def test_tangent_kernels_are_shared_only_where_the_networks_are_equal(runs, loaded, script):
    write_run(RUNS / "seed1", runs, INDEX, seed=1)
    kernels = "--eigenvectors", "--size", 12, "--kernels"
    assert script("frequency", *kernels, "ntk-initial")[0] == 0
    assert loaded == [("distilled", True), ("seed1", True)]  # plain starts as distilled does
    first, other, seed1 = (
        read(run, "spectrum.json")["kernels"][0] for run in (PLAIN, DISTILLED, RUNS / "seed1")
    )
    assert first["energies"] == other["energies"] != seed1["energies"]
    assert (first["vectors"], first["epoch"]) == ("4 unit vectors", 0)
    # A network that diverged: its run is named, and keeps its other kernels.
    status, _, err = script("frequency", *kernels, "gaussian", "ntk-final")
    assert status == 0 and err.count("\n") == 1
    assert "distilled, ntk-final" in err and "not finite" in err
    assert loaded[2:] == [("distilled", False), ("plain", False), ("seed1", False)]
    names = [entry["kernel"] for entry in read(PLAIN, "spectrum.json")["kernels"]]
    assert names == [*["gaussian"] * 3, "ntk-final", "ntk-initial"]
    assert len(read(DISTILLED, "spectrum.json")["kernels"]) == 4


REFUSED_FLAGS = [
    *((("--delta", value), "--delta") for value in ("0", "-1", "nan", "inf", "wide")),
    (("--delta", "original", "100"), "leave the other deltas"),
    (("--delta", "original", "--eigenvectors"), "leave the other deltas or flags out"),
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
    shutil.rmtree(DISTILLED)
    status, out, err = script("frequency", *flags)
    assert status == 2 and words in err and err.count("\n") == 1 and out == ""
    assert not list(RUNS.glob("*/*y.json")) and not list(RUNS.glob("*/spectrum.json"))


def rewrite(name, change):
    """A damage that changes an .npy file."""
    return lambda run: np.save(run / name, change(np.load(run / name)))


def shorten(run):
    path = run / "history.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))


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
    "another sample": (rewrite("train_indices.npy", lambda x: x + 300), "train_indices.npy"),
    "one image": (one_test_image, "two images"),
    "bad config": (lambda run: (run / "config.json").write_text("{"), "config.json"),
    "unfinished": (shorten, "2 of 3 epochs; go on with train.py --resume"),
}


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("flags", [DELTAS, ("--eigenvectors", "--delta", 100)])
def test_a_damaged_run_is_named_and_the_others_are_measured(runs, script, name, flags):
    damage, words = DAMAGES[name]
    damage(DISTILLED)
    others = RUNS if name != "one image" else DISTILLED
    status, out, err = script("frequency", others, *flags)
    assert err.count("\n") == 1 and words in err and str(DISTILLED) in err
    assert not [*DISTILLED.glob("frequency.json"), *DISTILLED.glob("spectrum.json")]
    if others == RUNS:
        assert status == 0 and str(PLAIN) in out
    status, out, err = script("frequency", DISTILLED, *flags)
    assert status == 2 and out == "" and err.count("\n") == 1


@pytest.mark.parametrize("flags", [DELTAS, ("--eigenvectors", "--delta", 100)])
def test_a_damaged_measure_is_named(runs, script, flags):
    name = "spectrum.json" if "--eigenvectors" in flags else "frequency.json"
    assert script("frequency", PLAIN, *flags)[0] == 0
    content = read(PLAIN, name)
    for damage in ({"test": {"delta": [30]}}, {"test": 5}, {"kernels": [{}]}, {"kernels": 5}):
        if damage.keys() <= content.keys():
            (PLAIN / name).write_text(json.dumps(content | damage))
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
    write_data(Path("elsewhere.npz"), changed=3)
    status, _, err = script("frequency", PLAIN, "--data", "elsewhere.npz")
    assert status == 2 and "was not trained on elsewhere.npz" in err


def test_a_run_that_is_trained_meanwhile_is_left_out(runs, script, monkeypatch):
    def trained(arrays, how):
        shorten(PLAIN)
        return {"test": {}, "sample": {}}

    monkeypatch.setattr("measures.bands.measure_bands", trained)
    status, _, err = script("frequency", PLAIN)
    assert status == 2 and "another process trains it" in err
    assert not (PLAIN / "frequency.json").exists()


def test_the_command_line_needs_no_torch():
    code = "import sys, frequency; frequency.parse_args([]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
