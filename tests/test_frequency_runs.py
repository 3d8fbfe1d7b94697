"""frequency.py and analysis/frequency_runs.py: the file of each run, shared passes, refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import PROGRAMS, make_dataset, run_python
from references import (
    expected_errors,
    expected_ratios,
    expected_shares,
    is_close,
    smoothing_matrix,
    split_bands,
)
from scipy.spatial.distance import cdist

import frequency
from analysis import frequency_runs, run_groups
from analysis.gaussian_filter import default_deltas, filter_columns
from common import run_folder
from common.logits import append_logits
from common.run_folder import LOGITS, find_runs
from dataset.batches import normalize
from dataset.data_file import read_dataset, write_dataset

RUNS, RUN = Path("runs"), Path("runs/small/dis1-small_cnn-seed0")


def read_sections(run):
    """The sections `test` and `probe` of a run's frequency.json."""
    content = json.loads((run / "frequency.json").read_text())
    return {section: content[section] for section in ("test", "probe")}


def read_outputs(section):
    """measure -> (epochs, deltas), NaN for null."""
    return {name: np.array(values, float) for name, values in section["outputs"].items()}


def as_points(images):
    """float64 (n, d), in normalized pixels."""
    return normalize(torch.from_numpy(images)).flatten(1).double().numpy()


def check_run(run, deltas):
    """Compare the outputs' measures of a run with the slow references."""
    dataset, sections = read_dataset("data/small.npz"), read_sections(run)
    one_hot, index = np.eye(4), np.load(run / "train_indices.npy")
    clean, noisy = one_hot[dataset.clean_labels[index]], one_hot[dataset.train_labels[index]]
    test_labels = one_hot[dataset.test_labels]
    test = dataset.test_images, "logits.npy", lambda s, h: expected_errors(s, test_labels, h)
    probe = (
        dataset.train_images[index],
        "train_logits.npy",
        lambda s, h: expected_shares(s, clean, noisy - clean, h),
    )
    for name, (images, file, expected_others) in {"test": test, "probe": probe}.items():
        section, points = sections[name], as_points(images)
        assert section["n"] == len(points) and section["delta"] == deltas
        outputs = torch.from_numpy(np.load(run / file)).double().softmax(2).numpy()
        for k, delta in enumerate(deltas):
            smoothing = smoothing_matrix(points, delta)
            for epoch, values in enumerate(outputs):
                expected = expected_ratios(smoothing, values) | expected_others(smoothing, values)
                assert section["outputs"].keys() >= expected.keys()
                for measure, value in expected.items():
                    assert is_close(section["outputs"][measure][epoch][k], value), measure


def test_the_file_of_every_run(study_outputs, script):
    status, out, err = script("frequency", "--delta", 100, 400, 1600)
    assert status == 0 and out.count("frequency.json: 3 epochs, 3 deltas") == 4 and err == ""
    for run in find_runs([RUNS]):
        check_run(run, [100, 400, 1600])
    content = json.loads((RUN / "frequency.json").read_text())
    assert content["values"] == "softmax"
    assert content["digest"] == read_dataset("data/small.npz").sha256


def test_without_delta_the_deltas_fit_the_test_images(study_outputs, script):
    assert script("frequency", RUN)[0] == 0
    images = torch.from_numpy(read_dataset("data/small.npz").test_images)
    deltas = default_deltas(normalize(images).flatten(1))
    assert [section["delta"] for section in read_sections(RUN).values()] == [deltas, deltas]


def test_runs_that_share_a_pass_get_what_each_gets_alone(study_outputs, script):
    assert script("frequency", "--delta", 200, 400)[0] == 0
    together = {run: read_sections(run) for run in find_runs([RUNS])}
    for run, sections in together.items():
        assert script("frequency", run, "--delta", 200, 400)[0] == 0
        for name, section in read_sections(run).items():
            shared = read_outputs(sections[name])
            for measure, values in read_outputs(section).items():
                np.testing.assert_allclose(values, shared[measure], atol=1e-6)


def test_runs_with_many_outputs_do_not_share_a_pass(study_outputs, monkeypatch):
    runs = find_runs([RUNS])
    assert [group.runs for group in run_groups.group_runs(runs, None)] == [runs]
    size = (RUN / "train_logits.npy").stat().st_size
    monkeypatch.setattr(run_groups, "OUTPUT_BYTES", 3 * size)
    groups = list(run_groups.group_runs(runs, None))
    assert [group.runs for group in groups] == [runs[:3], runs[3:]]
    monkeypatch.setattr(run_groups, "OUTPUT_BYTES", 1)
    groups = list(run_groups.group_runs(runs, None))
    assert [group.runs for group in groups] == [[run] for run in runs]


def test_blocks_hold_all_epochs_in_turn_within_the_budget(monkeypatch):
    logits = [np.full((epochs, 5, 2), epochs, np.float32) for epochs in (3, 1, 4)]
    monkeypatch.setattr(run_groups, "OUTPUT_BYTES", 3 * logits[1].nbytes + 1)
    blocks = list(run_groups.epoch_blocks(logits))
    assert [[epoch[0, 0] for epoch in block] for block in blocks] == [[3, 3, 3], [1, 4, 4], [4, 4]]
    monkeypatch.setattr(run_groups, "OUTPUT_BYTES", 1)
    assert [len(block) for block in run_groups.epoch_blocks(logits)] == 8 * [1]


@pytest.mark.parametrize("values", ["softmax", "logits"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_epochs_in_blocks_get_what_one_pass_gives_them(
    study_outputs, script, monkeypatch, values, epochs
):
    passes = []

    def counted(*args):
        passes.append(args)
        return filter_columns(*args)

    monkeypatch.setattr(frequency_runs, "filter_columns", counted)
    flags = [RUN, "--delta", 200, 400, 1600, "--values", values]
    assert script("frequency", *flags)[0] == 0
    assert len(passes) == 2  # test images, sample
    whole = read_sections(RUN)
    sample_epoch = np.load(RUN / "train_logits.npy")[0].nbytes  # 1.5 epochs of the test images
    monkeypatch.setattr(run_groups, "OUTPUT_BYTES", epochs * sample_epoch)
    assert script("frequency", *flags)[0] == 0
    assert len(passes) == {1: 2 + 3 + 3, 2: 2 + 1 + 2}[epochs]
    for name, section in read_sections(RUN).items():
        assert_close(section, whole[name])


def assert_close(section, expected):
    """Two sections of frequency.json are equal to 1e-6; sums that cancel, beside the others."""
    assert section.keys() == expected.keys()
    for key, value in section.items():
        if isinstance(value, dict):
            assert_close(value, expected[key])
        else:
            one, other = np.array(value, float), np.array(expected[key], float)
            size = np.nanmax(np.abs(other), initial=0) if key in frequency_runs.PRODUCTS else 1
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6 * size, err_msg=key)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_epochs(tmp_path, monkeypatch):
    # glibc keeps freed arrays in its heap unless they are mapped each by itself: their gaps would
    # count. Then the 180 further epochs take 4 MB; in one pass they took hundreds.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    dataset, budget = make_dataset(train=500, test=500, classes=100), 4 * 10**6
    path, logits = tmp_path / "data.npz", np.zeros((500, 100), np.float32)
    write_dataset(path, dataset)
    config = {"flags": {"data": str(path)}, "data": {"digest": read_dataset(path).sha256}}
    runs = {epochs: tmp_path / f"run{epochs}" for epochs in (20, 200)}
    for epochs, run in runs.items():
        run.mkdir()
        run_folder.write_config(run, config)
        run_folder.write_sample_indices(run, np.arange(500))
        for name in LOGITS:
            for epoch in range(epochs):
                append_logits(run / name, np.roll(logits + np.arange(100) % 7, epoch, axis=1))
    done = run_python(PROGRAMS / "filter_memory.py", budget, *runs.values(), check=True)
    few, many = map(int, done.stdout.splitlines()[-1].split())
    assert many - few < 40 * 10**6


def test_adding_a_constant_to_all_logits_changes_nothing(study_outputs, script):
    measured = []
    for shift in (0, 5):
        for name in LOGITS:
            np.save(RUN / name, np.load(RUN / name) + np.float32(shift))
        assert script("frequency", RUN, "--delta", 200, 400)[0] == 0
        measured.append(read_sections(RUN))
    for name in ("test", "probe"):
        before, after = (read_outputs(sections[name]) for sections in measured)
        for measure, values in before.items():
            np.testing.assert_allclose(after[measure], values, atol=1e-6)


def test_logits_give_the_originals_numbers(study_outputs, script):
    deltas = [1, 10, *range(100, 1001, 100)]
    assert script("frequency", RUN, "--values", "logits", "--delta", "original")[0] == 0
    test = read_sections(RUN)["test"]
    assert test["delta"] == deltas and "e_low" not in test["outputs"]
    points = as_points(read_dataset("data/small.npz").test_images)
    for k, delta in enumerate(deltas):
        smoothing = smoothing_matrix(points, delta)
        for epoch, logits in enumerate(np.load(RUN / "logits.npy").astype(float)):
            # As in the original: squared norms of both parts of the raw outputs.
            low, high = split_bands(smoothing, logits)
            share = np.sum(low**2) / (np.sum(low**2) + np.sum(high**2))
            assert abs(test["outputs"]["energy_share"][epoch][k] - share) < 1e-6


def test_only_the_named_runs(study_outputs, script):
    assert script("frequency", RUN, "--delta", 400)[0] == 0
    assert [path.parent.name for path in RUNS.glob("**/frequency.json")] == [RUN.name]


def test_delta_original_is_the_twelve_of_the_original():
    assert list(frequency.parse_args(["--delta", "original"]).delta) == [
        *(1, 10),
        *range(100, 1001, 100),
    ]


@pytest.mark.parametrize(
    "flags", [["0"], ["-1"], ["nan"], ["inf"], ["wide"], [], ["original", "100"]]
)
def test_deltas_that_are_no_variances_are_refused(refused, study_outputs, flags):
    message = refused("frequency", "--delta", *flags)
    assert "--delta" in message and any(flag in message for flag in flags or [""])
    assert not list(RUNS.glob("**/frequency.json"))


def test_deltas_below_every_distance_warn_and_name_the_smallest_useful_one(study_outputs, script):
    status, _, err = script("frequency", RUN, "--delta", 1e-3, 1e-2)
    assert status == 0 and err.count("\n") == 2  # of the test images and of the sample
    points = as_points(read_dataset("data/small.npz").test_images)
    distances = cdist(points, points, "sqeuclidean")
    useful = float(err.splitlines()[0].split()[-1])
    min_distance = distances[distances > 0].min()
    assert np.exp(-min_distance / (2 * useful)) == pytest.approx(0.01, rel=0.05)
    assert script("frequency", RUN, "--delta", useful)[2] == ""


def test_no_run_is_refused(refused, study_outputs):
    assert "train.py" in refused("frequency", "--runs", "nowhere")


def save_logits(change):
    """A damage that changes the logits (epochs, n, C) of a run."""
    return lambda run: np.save(run / "logits.npy", change(np.load(run / "logits.npy")))


# What is wrong with the run: how it is made so, and the file that the message names.
DAMAGES = {
    "an image too few": (save_logits(lambda logits: logits[:, :-1]), "logits.npy"),
    "no epoch": (save_logits(lambda logits: logits[:0]), "logits.npy"),
    "float64": (save_logits(lambda logits: logits.astype(float)), "logits.npy"),
    "no axis of epochs": (save_logits(lambda logits: logits[0]), "logits.npy"),
    "no header": (
        lambda run: (run / "logits.npy").write_bytes(b"\x93NUMPY cut short"),
        "logits.npy",
    ),
    "no logits": (lambda run: (run / "logits.npy").unlink(), "logits.npy"),
    "no sample logits": (lambda run: (run / "train_logits.npy").unlink(), "train_logits.npy"),
    "no sample": (lambda run: (run / "train_indices.npy").unlink(), "train_indices.npy"),
    "damaged sample": (
        lambda run: (run / "train_indices.npy").write_bytes(b"\x93NUMPY cut short"),
        "train_indices.npy",
    ),
    "bad config": (lambda run: (run / "config.json").write_text("{"), "config.json"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_refused(refused, study_outputs, name):
    damage, file = DAMAGES[name]
    damage(RUN)
    message = refused("frequency", RUN)
    assert file in message and "train" in message
    assert not (RUN / "frequency.json").exists()


def test_of_logits_cut_short_the_whole_epochs_are_used(study_outputs, script):
    path = RUN / "logits.npy"
    path.write_bytes(path.read_bytes()[:-10])
    status, _, err = script("frequency", RUN, "--delta", 400)
    assert status == 0 and "2 of 3 epochs" in err and err.count("\n") == 1
    assert len(read_sections(RUN)["test"]["outputs"]["lfr"]) == 2


def test_an_interrupted_pass_leaves_no_file(study_outputs, script, monkeypatch):
    passes = []

    def interrupted_second_pass(*args):
        passes.append(args)
        if len(passes) == 2:
            raise KeyboardInterrupt
        return filter_columns(*args)

    monkeypatch.setattr(frequency_runs, "filter_columns", interrupted_second_pass)
    status, _, err = script("frequency", RUN)
    assert status == 130 and len(passes) == 2 and err.count("\n") == 1
    assert not [path for path in RUN.iterdir() if "frequency" in path.name]


def test_a_moved_or_changed_data_set_is_named(refused, script, study_outputs):
    shutil.move("data/small.npz", "elsewhere.npz")
    assert "--data" in refused("frequency")
    assert script("frequency", "--data", "elsewhere.npz", "--delta", 400)[0] == 0
    write_dataset(Path("elsewhere.npz"), make_dataset(seed=1))
    assert "was not trained on elsewhere.npz" in refused("frequency", "--data", "elsewhere.npz")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_cuda_is_refused(refused, study_outputs):
    assert "--device auto" in refused("frequency", "--device", "cuda")
