"""frequency.py: its measures against plain numpy and scipy in float64, its refusals."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_dataset
from scipy.spatial.distance import cdist

import data
import frequency
import runs
from gaussian_filter import filter_sums
from shapes import draw_shapes

RUN = Path("runs/small/dis1-small_cnn-seed0")


@functools.lru_cache(maxsize=20)
def smoothing_matrix(points, shape, delta):
    points = np.frombuffer(points).reshape(shape)
    kernel = np.exp(-cdist(points, points, "sqeuclidean") / (2 * delta))
    return kernel / kernel.sum(1, keepdims=True)


def split(points, values, delta):
    """Low and high part and the smoothing matrix, in float64."""
    points = np.asarray(points, float)
    smoothing = smoothing_matrix(points.tobytes(), points.shape, delta)
    low = smoothing @ values
    return low, values - low, smoothing


def expected_of(points, values, delta):
    """The measures that need no reference, of values (n, C) at one delta."""
    norm, (low, high, smoothing) = np.linalg.norm, split(points, values, delta)
    centred = values - values.mean(0)
    null = (np.square(smoothing).sum() - 1) / (len(points) - 1)
    lfr = norm(split(points, centred, delta)[0]) ** 2 / norm(centred) ** 2
    return {
        "delta_norm": norm(low) / (norm(low) + norm(high)),
        "energy_share": norm(low) ** 2 / (norm(low) ** 2 + norm(high) ** 2),
        "lfr": lfr,
        "excess": (lfr - null) / (1 - null),
    }


def expected_errors(points, labels, values, delta):
    norm = np.linalg.norm
    parts = zip(split(points, labels, delta)[:2], split(points, values, delta)[:2], strict=True)
    return dict(zip(("e_low", "e_high"), [norm(y - h) / norm(y) for y, h in parts], strict=True))


def expected_shares(points, true, noise, values, delta):
    """Least squares by numpy's solver on the flattened parts."""
    parts = [split(points, v - v.mean(0), delta)[:2] for v in (true, noise, values)]
    found = {}
    for k, band in enumerate(("low", "high")):
        matrix = np.stack([parts[0][k].ravel(), parts[1][k].ravel()], axis=1)
        solution = np.linalg.lstsq(matrix, parts[2][k].ravel(), rcond=None)[0]
        found[f"learned_true_{band}"], found[f"learned_noise_{band}"] = solution
    return found


def random_case(count=60, width=7, classes=5, epochs=3, seed=0, offset=0.0):
    """Points, true and given labels, softmax outputs; a fifth of the given labels is wrong."""
    random = np.random.default_rng(seed)
    points = random.standard_normal((count, width)) + offset
    true = random.integers(0, classes, count)
    given = np.where(random.random(count) < 0.2, (true + 1) % classes, true)
    logits = random.standard_normal((epochs, count, classes)) + np.eye(classes)[given]
    one_hot = np.eye(classes, dtype=np.float32)
    outputs = torch.from_numpy(logits).softmax(2).numpy().astype(np.float32)
    return points.astype(np.float32), one_hot[true], one_hot[given], outputs


def image_case(count=200, epochs=2):
    images, true = draw_shapes(count, np.random.default_rng(0))
    points = data.normalize(torch.from_numpy(images)).flatten(1).contiguous().numpy()
    _, _, _, outputs = random_case(count, classes=10, epochs=epochs)
    one_hot = np.eye(10, dtype=np.float32)
    return points, one_hot[true], one_hot[(true + (np.arange(count) % 4 == 0)) % 10], outputs


def analysed(points, true, given, outputs, deltas):
    """The `test` and `probe` parts for one set of points."""
    tensors = {"true": true, "noise": given - true, "given": given}
    tensors = {name: torch.from_numpy(value) for name, value in tensors.items()}
    stacked = torch.stack(list(tensors.values()))
    outputs = torch.from_numpy(outputs)
    test = filter_sums(torch.from_numpy(points.copy()), stacked[:1], outputs, deltas)
    values = torch.cat((stacked[2:], outputs))
    probe = filter_sums(torch.from_numpy(points.copy()), stacked[:2], values, deltas)
    return {
        "test": frequency.analyse(test, ["true"], deltas, errors=True),
        "probe": frequency.analyse(probe, list(tensors), deltas, errors=True),
    }


def close(found, wanted):
    """To 1e-5: absolute up to 1, relative above (e_high is unbounded)."""
    return abs(found - wanted) < 1e-5 * max(1, abs(wanted))


def check(points, true, given, outputs, deltas):
    found = analysed(points, true, given, outputs, deltas)
    points, true, given, outputs = (np.asarray(a, float) for a in (points, true, given, outputs))
    for k, delta in enumerate(deltas):
        labels = {"true": true, "given": given, "noise": given - true}
        for part, names in (("test", ["true"]), ("probe", ["true", "noise", "given"])):
            assert set(found[part]["labels"]) == set(names)
            for name in names:
                for measure, value in expected_of(points, labels[name], delta).items():
                    assert close(found[part]["labels"][name][measure][k], value), (name, measure)
        for epoch, values in enumerate(outputs):
            common = expected_of(points, values, delta)
            errors = expected_errors(points, true, values, delta)
            shares = expected_shares(points, true, given - true, values, delta)
            for part, extra in (("test", errors), ("probe", shares)):
                of_part = found[part]["outputs"]
                assert of_part.keys() == {*common, *extra}
                for measure, value in {**common, **extra}.items():
                    assert close(of_part[measure][epoch][k], value), (measure, delta)


@pytest.mark.parametrize(
    "case", [random_case(), random_case(300, 20, seed=1), random_case(200, 4, offset=100)]
)
def test_every_measure_on_random_data(case):
    # From filtered values that are nearly one point's to such as are a mean of nearly all points.
    check(*case, [0.3, 1, 2, 20, 100])


def test_every_measure_on_images():
    check(*image_case(), [150, 200, 300, 400, 700, 1000])


def test_every_measure_with_duplicated_points():
    points, *values = random_case(80)
    points[40:] = points[:40]
    check(points, *values, [0.5, 1, 5])


def test_two_points():
    points = random_case(2)[0]
    true = np.eye(3, dtype=np.float32)[:2]
    given, outputs = np.eye(3, dtype=np.float32)[[2, 1]], np.full((1, 2, 3), 1 / 3, "f")
    outputs[0, 0] = (0.5, 0.2, 0.3)
    check(points, true, given, outputs, [1, 5])


def test_constant_outputs_have_defined_values():
    points, true, given, outputs = random_case()
    outputs[:] = 0.2
    found = analysed(points, true, given, outputs, [1, 10])
    for part in ("test", "probe"):
        for measure in ("delta_norm", "energy_share", "lfr", "excess"):
            assert found[part]["outputs"][measure] == [[1, 1]] * 3
    for name in ("true_low", "noise_low", "true_high", "noise_high"):
        np.testing.assert_allclose(found["probe"]["outputs"][f"learned_{name}"], 0, atol=1e-12)
    for k, delta in enumerate([1, 10]):
        errors = expected_errors(points, true, outputs[0].astype(float), delta)
        for name, value in errors.items():
            assert close(found["test"]["outputs"][name][0][k], value)


def test_perfect_outputs_have_no_error_and_have_learned_the_truth():
    points, true, given, _ = random_case()
    found = analysed(points, true, given, np.stack([true, given]), [1, 10])
    for name in ("e_low", "e_high"):
        np.testing.assert_allclose(found["test"]["outputs"][name][0], 0, atol=1e-6)
    for band in ("low", "high"):
        shares = [found["probe"]["outputs"][f"learned_{n}_{band}"] for n in ("true", "noise")]
        np.testing.assert_allclose(np.array(shares)[:, 0], [[1, 1], [0, 0]], atol=1e-6)
        np.testing.assert_allclose(np.array(shares)[:, 1], [[1, 1], [1, 1]], atol=1e-6)


def test_a_wide_filter_leaves_the_mean_and_a_narrow_one_everything():
    points, true, given, outputs = random_case()
    found = analysed(points, true, given, outputs, [1e-6, 1e12])["test"]
    assert found["labels"]["true"]["delta_norm"][0] == 1 and found["null"][0] == 1
    assert found["labels"]["true"]["excess"][0] == 0
    assert found["null"][1] == pytest.approx(0, abs=1e-6)
    for epoch, values in enumerate(outputs):
        mean = values.mean(0)
        energy = 60 * np.sum(mean**2)
        share = energy / (energy + np.sum((values - mean) ** 2))
        assert found["outputs"]["energy_share"][epoch][1] == pytest.approx(share, rel=1e-5)
        # With the identity as kernel there is no high part to be wrong about.
        assert found["outputs"]["e_high"][epoch][0] is None
        error = np.linalg.norm(true - values) / np.linalg.norm(true)
        assert found["outputs"]["e_low"][epoch][0] == pytest.approx(error, rel=1e-5)


def test_without_noise_there_is_no_share_of_it():
    points, true, _, outputs = random_case()
    found = analysed(points, true, true, outputs, [1, 10])["probe"]["outputs"]
    assert found["learned_noise_low"] == [[None, None]] * 3
    low, _, _ = split(points, true - true.mean(0), 1)
    of_output, _, _ = split(points, outputs[0] - outputs[0].mean(0), 1)
    assert close(found["learned_true_low"][0][0], np.sum(low * of_output) / np.sum(low**2))


def test_null_and_shuffled_levels_agree_with_real_permutations():
    points, true, given, outputs = image_case()
    deltas = [200, 400]
    found = analysed(points, true, given, outputs, deltas)["test"]
    random = np.random.default_rng(0)
    for k, delta in enumerate(deltas):
        draws = [expected_of(points, random.permutation(true), delta) for _ in range(200)]
        for measure, wanted in (
            ("lfr", found["null"][k]),
            ("energy_share", found["shuffled"]["energy_share"][k]),
            ("delta_norm", found["shuffled"]["delta_norm"][k]),
        ):
            values = [draw[measure] for draw in draws]
            error = np.std(values, ddof=1) / 200**0.5
            assert abs(np.mean(values) - wanted) < 4 * error + 1e-5, measure
        excess = [draw["excess"] for draw in draws]
        assert abs(np.mean(excess)) < 4 * np.std(excess, ddof=1) / 200**0.5


def test_nothing_is_nan_and_everything_has_the_documented_shape():
    points, true, given, outputs = random_case()
    found = analysed(points, true, given, outputs, [1e-9, 1, 1e9])
    text = json.dumps(found, allow_nan=False)
    assert "NaN" not in text
    for part in found.values():
        assert set(part) == {"n", "delta", "weight", "null", "shuffled", "labels", "outputs",
                             "products"}  # fmt: skip
        assert all(np.shape(values) == (3, 3) for values in part["outputs"].values())
        assert set(part["products"]) == set(frequency.PRODUCTS)


# --- the command line ---


def parts_of(run):
    content = json.loads((run / "frequency.json").read_text())
    return {part: content[part] for part in ("test", "probe")}


def check_file(run, deltas):
    """frequency.json of a run of `study` against the slow measures."""
    dataset = data.read_dataset("data/small.npz")
    found = parts_of(run)
    one_hot = np.eye(4)
    index = np.load(run / "probe_indices.npy")
    true, given = one_hot[dataset.clean_labels[index]], one_hot[dataset.train_labels[index]]
    for part, images, file, reference in (
        ("test", dataset.test_images, "logits.npy", one_hot[dataset.test_labels]),
        ("probe", dataset.train_images[index], "probe_logits.npy", true),
    ):
        points = data.normalize(torch.from_numpy(images)).flatten(1).double().numpy()
        outputs = torch.from_numpy(np.load(run / file)).double().softmax(2).numpy()
        assert found[part]["n"] == len(points) and found[part]["delta"] == deltas
        for epoch, h in enumerate(outputs):
            for k, delta in enumerate(deltas):
                wanted = expected_of(points, h, delta) | (
                    expected_errors(points, reference, h, delta)
                    if part == "test"
                    else expected_shares(points, true, given - true, h, delta)
                )
                assert found[part]["outputs"].keys() == wanted.keys()
                for measure, value in wanted.items():
                    assert close(found[part]["outputs"][measure][epoch][k], value), measure


def test_the_file_of_a_run(study, script):
    status, out, err = script("frequency", "--delta", 100, 400, 1600)
    assert status == 0 and out.count("frequency.json: 3 epochs, 3 deltas") == 4 and err == ""
    for run in runs.find_runs([Path("runs")]):
        check_file(run, [100, 400, 1600])
    content = json.loads((RUN / "frequency.json").read_text())
    assert content["values"] == "softmax"
    assert content["digest"] == data.read_dataset("data/small.npz").sha256


def test_runs_that_share_a_pass_get_what_each_gets_alone(study, script, monkeypatch):
    assert script("frequency", "--delta", 200, 400)[0] == 0
    together = [parts_of(run) for run in runs.find_runs([Path("runs")])]
    monkeypatch.setattr(frequency, "COLUMN_BYTES", 1)
    assert script("frequency", "--delta", 200, 400)[0] == 0
    for run, before in zip(runs.find_runs([Path("runs")]), together, strict=True):
        for part, now in parts_of(run).items():
            for measure, values in now["outputs"].items():
                alone, shared = (
                    np.array(v, float) for v in (values, before[part]["outputs"][measure])
                )
                np.testing.assert_allclose(alone, shared, atol=1e-6)


def test_adding_a_constant_to_all_logits_changes_nothing(study, script):
    found = []
    for shift in (0, 5):
        for name in runs.LOGITS:
            np.save(RUN / name, np.load(RUN / name) + np.float32(shift))
        assert script("frequency", RUN, "--delta", 200, 400)[0] == 0
        found.append(parts_of(RUN))
    for part in ("test", "probe"):
        for measure, values in found[0][part]["outputs"].items():
            np.testing.assert_allclose(found[1][part]["outputs"][measure], values, atol=1e-6)


def test_logits_give_the_originals_numbers(study, script):
    deltas = [1, 10, *range(100, 1001, 100)]
    assert script("frequency", RUN, "--values", "logits", "--delta", "original")[0] == 0
    found = parts_of(RUN)["test"]
    assert found["delta"] == deltas and "e_low" not in found["outputs"]
    dataset = data.read_dataset("data/small.npz")
    points = data.normalize(torch.from_numpy(dataset.test_images)).flatten(1).double().numpy()
    for epoch, logits in enumerate(np.load(RUN / "logits.npy").astype(float)):
        for k, delta in enumerate(deltas):
            # As in the original: squared norms of both parts of the raw outputs.
            low, high, _ = split(points, logits, delta)
            share = np.sum(low**2) / (np.sum(low**2) + np.sum(high**2))
            assert abs(found["outputs"]["energy_share"][epoch][k] - share) < 1e-6


def test_only_the_named_runs(study, script):
    assert script("frequency", RUN, "--delta", 400)[0] == 0
    made = [path.parent.name for path in Path("runs").glob("**/frequency.json")]
    assert made == [RUN.name]


@pytest.mark.parametrize("flags", [["0"], ["-1"], ["nan"], ["inf"], ["wide"], []])
def test_deltas_that_are_no_variances_are_refused(refused, study, flags):
    message = refused("frequency", "--delta", *flags)
    assert "--delta" in message and all(flag in message for flag in flags)
    assert not list(Path("runs").glob("**/frequency.json"))


def test_deltas_below_every_distance_warn_and_name_the_smallest_useful(study, script):
    status, _, err = script("frequency", RUN, "--delta", 1e-3, 1e-2)
    assert status == 0 and err.count("\n") == 2  # of the test set and of the probe
    dataset = data.read_dataset("data/small.npz")
    points = data.normalize(torch.from_numpy(dataset.test_images)).flatten(1).double().numpy()
    distances = cdist(points, points, "sqeuclidean")
    useful = float(err.splitlines()[0].split()[-1])
    closest = distances[distances > 0].min()
    assert np.exp(-closest / (2 * useful)) == pytest.approx(0.01, rel=0.05)
    assert script("frequency", RUN, "--delta", useful)[2] == ""


def test_runs_that_cannot_be_analysed_are_refused(refused, study):
    assert "train.py" in refused("frequency", "--runs", "nowhere")
    logits = np.load(RUN / "logits.npy")
    for damage in (logits[:, :-1], logits[:0], logits.astype(np.float64), logits[0]):
        np.save(RUN / "logits.npy", damage)
        assert "logits.npy" in refused("frequency", RUN)
    (RUN / "logits.npy").write_bytes(b"\x93NUMPY cut short")
    assert "logits.npy" in refused("frequency", RUN)
    for name in ("logits.npy", "probe_indices.npy"):
        (RUN / name).unlink()
        assert name in refused("frequency", RUN)
    assert not (RUN / "frequency.json").exists()


def test_of_logits_cut_short_the_whole_epochs_are_used(study, script):
    path = RUN / "logits.npy"
    path.write_bytes(path.read_bytes()[:-10])
    status, _, err = script("frequency", RUN, "--delta", 400)
    assert status == 0 and "2 of 3 epochs" in err and err.count("\n") == 1
    assert len(parts_of(RUN)["test"]["outputs"]["lfr"]) == 2


def test_an_interrupted_pass_leaves_no_file(study, script, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(frequency, "filter_sums", interrupt)
    assert script("frequency", RUN)[0] == 130
    assert not [path for path in RUN.iterdir() if "frequency" in path.name]


def test_a_moved_or_changed_data_set_is_named(refused, script, study):
    shutil.move("data/small.npz", "elsewhere.npz")
    assert "--data" in refused("frequency")
    assert script("frequency", "--data", "elsewhere.npz", "--delta", 400)[0] == 0
    data.write_dataset(Path("elsewhere.npz"), make_dataset(seed=1))
    assert "another data set" in refused("frequency", "--data", "elsewhere.npz")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_cuda_is_refused(refused, study):
    assert "--device auto" in refused("frequency", "--device", "cuda")
