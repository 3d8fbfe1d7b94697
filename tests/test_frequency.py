"""frequency.py: the files of each run, what is added or skipped, what is left out or refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from helpers import LEARNING_RUN, make_learnable_dataset
from references import CLASSES

import frequency
import train
from common import run_folder
from common.command_line import UserError
from common.files import without_nan
from dataset.batches import normalize
from dataset.data_file import DataSet, read_dataset, write_dataset
from measures import spectrum
from measures.bands import measure_bands
from measures.kernels import calibrated, gaussian_kernel, tangent_kernel
from measures.memorization import measure_memorization
from measures.parts import split_labels
from training.run import load_network

RUNS = Path("runs/small")
PLAIN, EMA = RUNS / "plain", RUNS / "ema"
DELTAS = ("--delta", 30, 100)
CPU = torch.device("cpu")


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
    """A measure of the run, but for what it was measured from."""
    content, note = run_folder.read_measure(run, name)
    assert note == "" and content.pop("measured_from")
    return content


def arrays_of(run):
    return frequency.open_run(run, None, read_dataset).arrays


def test_the_files_of_every_run(runs, script):
    status, out, err = script("frequency", *DELTAS)
    assert (status, err) == (0, "") and out.count("frequency.json: 3 epochs, 2 deltas") == 2
    dataset = read_dataset("data/small.npz")
    for run in (PLAIN, EMA):
        arrays, index = arrays_of(run), np.load(run / "train_indices.npy")
        np.testing.assert_array_equal(arrays.images, dataset.train_images[index])
        np.testing.assert_array_equal(arrays.clean, dataset.clean_labels[index])
        np.testing.assert_array_equal(arrays.noisy, dataset.train_labels[index])
        np.testing.assert_array_equal(arrays.logits, np.load(run / "train_logits.npy"))
        np.testing.assert_array_equal(arrays.test_logits, np.load(run / "logits.npy"))
        np.testing.assert_array_equal(arrays.test_labels, dataset.test_labels)
        assert len(index) == 100 and len(arrays.training_labels[0]) == 160
        assert read(run) == without_nan(measure_bands(arrays, (30, 100), "softmax", CPU))
        assert read(run, "memorization.json") == without_nan(measure_memorization(arrays))


def test_the_deltas_that_are_measured(runs, script):
    assert script("frequency", PLAIN)[0] == 0
    deltas = read(PLAIN)["test"]["delta"]
    assert len(deltas) == 9 and deltas[2] == 2 * deltas[0]
    assert script("frequency", EMA, "--delta", "original")[0] == 0
    assert read(EMA)["test"]["delta"] == [1, 10, *range(100, 1001, 100)]
    status, out, _ = script("frequency", EMA, "--values", "logits", "--delta", 0.01, 100)
    assert status == 0 and "with values logits; it had values softmax" in out
    assert "too small to filter: 0.01 (median kernel mass" in out
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


def expected_entry(run, name, delta, kernel, some=slice(None)):
    """An entry of spectrum.json by a kernel (n, n) of images of the sample."""
    arrays = arrays_of(run)
    clean, noisy = arrays.clean[some], arrays.noisy[some]
    labels, dropped = split_labels(clean, noisy, CLASSES, arrays.training_labels)
    found = spectrum.label_spectrum(kernel, labels)
    measures = spectrum.measure_spectrum(found, arrays.logits[:, some], dropped)
    return without_nan({"kernel": name, "delta": delta, **measures})


def pixels_of(run, some=slice(None)):
    return normalize(torch.from_numpy(arrays_of(run).images[some]))


def test_gaussian_eigenvectors(runs, script):
    flags = "--eigenvectors", "--delta"
    status, out, err = script("frequency", *flags, 400, "--size", 101)  # of a sample of 100
    assert (status, err) == (0, "") and out.count("3 epochs, 100 images, gaussian of delta") == 2
    assert not (PLAIN / "frequency.json").exists()
    assert "nothing to do" in script("frequency", PLAIN, *flags, 400)[1]
    first = read(PLAIN, "spectrum.json")["kernels"]
    assert script("frequency", *flags, 100, 400)[0] == 0
    for run in (PLAIN, EMA):
        kernels = {delta: gaussian_kernel(pixels_of(run), delta) for delta in (100, 400)}
        expected = [expected_entry(run, "gaussian", *kernel) for kernel in kernels.items()]
        assert read(run, "spectrum.json") == {"n": 100, "kernels": expected}
    assert read(PLAIN, "spectrum.json")["kernels"][1:] == first
    status, out, _ = script("frequency", PLAIN, *flags, 100, "--size", 50)
    assert status == 0 and "measured again, with n 50; it had n 100" in out
    half = slice(None, None, 2)
    kernel = gaussian_kernel(pixels_of(PLAIN, half), 100)
    expected = expected_entry(PLAIN, "gaussian", 100, kernel, half)
    assert read(PLAIN, "spectrum.json") == {"n": 50, "kernels": [expected]}


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
    dataset, energies = read_dataset("data/small.npz"), {}
    for run in (PLAIN, EMA):
        entries = read(run, "spectrum.json")["kernels"]
        names = [entry["kernel"] for entry in entries]
        assert names == [*["gaussian"] * 3, "ntk-final", "ntk-initial"]
        for entry in entries[3:]:
            name, pixels = entry["kernel"], pixels_of(run, some)
            energies[run, name] = entry["energies"]
            model, epoch = load_network(run, dataset, CPU, name == "ntk-initial")
            model = model if epoch else calibrated(model, pixels)
            kernel = tangent_kernel(model, pixels, torch.eye(CLASSES))
            assert entry == expected_entry(run, name, None, kernel, some)
    # Networks that start as others do share a kernel; a trained one is a run's own.
    assert energies[PLAIN, "ntk-initial"] == energies[EMA, "ntk-initial"]
    assert energies[PLAIN, "ntk-final"] != energies[EMA, "ntk-final"]
    assert energies[PLAIN, "ntk-initial"] != read(seed1, "spectrum.json")["kernels"][-1]["energies"]


REFUSED_FLAGS = [
    *((("--delta", value), "--delta") for value in ("0", "inf")),
    (("--values", "logits", "--eigenvectors"), "leave it out"),
    (("--kernels", "gaussian"), "add --eigenvectors"),
    (("--size", "10"), "add --eigenvectors"),
    (("--eigenvectors", "--kernels", "linear"), "gaussian"),
    (("--eigenvectors", "--kernels", "ntk-final", "--delta", "10"), "add it to --kernels"),
    (("--eigenvectors", "--size", "1"), "use an integer at least 2"),
    (("--delta", "1", "."), "name runs before this flag"),
    (("--runs", "nowhere"), "train.py"),
]


@pytest.mark.parametrize(("flags", "words"), REFUSED_FLAGS)
def test_flags_that_cannot_be_followed_are_refused(runs, refused, flags, words):
    shutil.rmtree(EMA)
    assert words in refused("frequency", *flags)
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
    "no logits": (lambda run: (run / "logits.npy").unlink(), "logits.npy"),
    "another sample": (rewrite("train_indices.npy", lambda x: x + 100), "train_indices.npy"),
    "a rolled sample": (rewrite("train_indices.npy", lambda x: np.roll(x, 1)), "train_indices.npy"),
    "one image": (one_test_image, "two images"),
    "bad config": (lambda run: (run / "config.json").write_text("{"), "config.json"),
    "unfinished": (shorten, "repeat its train.py command with --resume"),
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
    assert script("frequency", EMA, "--eigenvectors")[0] == 2


MEASURE_DAMAGES = [
    (DELTAS, "frequency.json", {"test": 5}),
    (DELTAS, "frequency.json", {"test": {"delta": ["wide"]}}),
    (("--eigenvectors", "--delta", 100), "spectrum.json", {"kernels": [{}]}),
    (("--eigenvectors", "--delta", 100), "spectrum.json", {"kernels": 5}),
]


@pytest.mark.parametrize(("flags", "name", "damage"), MEASURE_DAMAGES)
def test_a_damaged_measure_is_made_again(runs, script, flags, name, damage):
    assert script("frequency", PLAIN, *flags)[0] == 0
    content = (PLAIN / name).read_text()
    for damaged in ("{", json.dumps(json.loads(content) | damage)):
        (PLAIN / name).write_text(damaged)
        assert script("frequency", PLAIN, *flags)[0] == 0
        assert (PLAIN / name).read_text() == content


def test_a_moved_or_changed_data_set_is_named(runs, script, refused):
    shutil.move("data/small.npz", "elsewhere.npz")
    assert "--data" in refused("frequency", PLAIN)
    assert script("frequency", "--data", "elsewhere.npz", *DELTAS)[0] == 0
    write_dataset(Path("elsewhere.npz"), make_learnable_dataset(seed=1))
    err = refused("frequency", PLAIN, "--data", "elsewhere.npz")
    assert "was not trained on elsewhere.npz" in err


def test_the_checkpoint_of_another_run_is_named(runs, script):
    shutil.copy(EMA / "checkpoint.pt", PLAIN)
    tangent = "frequency", PLAIN, "--eigenvectors", "--kernels", "ntk-final"
    for words in (tangent, ("train", "--evaluate", PLAIN)):
        status, _, err = script(*words)
        assert status == 2 and "checkpoint.pt: is of another run, by ema_decay" in err
    (PLAIN / "checkpoint.pt").unlink()
    assert "does not exist; start it again with --overwrite" in script(*words)[2]
    assert not (PLAIN / "spectrum.json").exists()


@pytest.mark.parametrize("name", ["measure_bands", "measure_eigenvectors"])
def test_a_run_that_fills_the_memory_is_named_and_the_others_are_measured(
    runs, script, monkeypatch, name
):
    def fail(run, *_):
        if run.path == EMA:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    for each in ("measure_bands", "measure_memorization", "measure_eigenvectors"):
        monkeypatch.setattr(frequency, each, fail if each == name else lambda *_: None)
    status, _, err = script("frequency", *["--eigenvectors"] * (name == "measure_eigenvectors"))
    assert status == 0 and err.count("\n") == 1
    assert "left out: CUDA out of memory; use --device cpu, or a smaller --size" in err


def test_the_measures_of_a_run_are_held_while_deltas_are_added(runs, script, monkeypatch):
    def is_held(*args):
        lock = FileLock(PLAIN / "frequency.json.lock")
        with pytest.raises(Timeout):
            lock.acquire(timeout=0)
        raise UserError("held")

    monkeypatch.setattr("measures.bands.measure_bands", is_held)
    assert "left out: held" in script("frequency", PLAIN)[2]


def test_a_run_that_is_trained_meanwhile_is_left_out(runs, script, monkeypatch):
    def trained(*args):
        shorten(PLAIN)
        return {"test": {}, "sample": {}}

    monkeypatch.setattr("measures.bands.measure_bands", trained)
    status, _, err = script("frequency", PLAIN)
    assert status == 2 and "another process trains it" in err
    assert not (PLAIN / "frequency.json").exists()


def test_long_work_is_told_without_a_terminal(runs, script, monkeypatch):
    monkeypatch.setattr("measures.LINE_SECONDS", 0)
    assert "  filtering: 1 of 1\n" in script("frequency", PLAIN, *DELTAS)[1]
    flags = "--eigenvectors", "--size", 4, "--kernels", "ntk-initial"
    assert "  tangent kernel: 4 of 4\n" in script("frequency", PLAIN, *flags)[1]


def test_products_are_true_float32(runs, script):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert script("frequency", PLAIN, "--delta", 30)[0] == 0
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)
