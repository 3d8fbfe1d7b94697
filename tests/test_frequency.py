"""frequency.py: the split against a double loop and scipy, its measures, its refusals."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_dataset
from scipy.spatial.distance import cdist

import data
import frequency
import runs
from generate import draw_shapes

ROOT = Path(__file__).parent.parent


def split_by_loops(points, values, delta):
    """The definition, point by point in float64."""
    low = np.zeros_like(values)
    for i in range(len(points)):
        total = 0.0
        for j in range(len(points)):
            weight = math.exp(-np.sum((points[i] - points[j]) ** 2) / (2 * delta))
            total += weight
            low[i] += weight * values[j]
        low[i] /= total
    return low, values - low


def split_by_scipy(points, values, delta):
    kernel = np.exp(-cdist(points, points, "sqeuclidean") / (2 * delta))
    low = kernel @ values / kernel.sum(1, keepdims=True)
    return low, values - low


def expected(points, labels, outputs, deltas, split=split_by_scipy):
    """What `analyse` should return, by the slow way, in float64."""
    points, labels, outputs = (np.asarray(a, np.float64) for a in (points, labels, outputs))
    parts = [[split(points, v, delta) for delta in deltas] for v in (labels, *outputs)]
    norm = np.linalg.norm

    def ratios(of_values):
        return {
            "delta_norm": [norm(low) / (norm(low) + norm(high)) for low, high in of_values],
            "energy_share": [np.sum(low**2) / np.sum(low**2 + high**2) for low, high in of_values],
        }

    errors = {
        name: [
            [norm(part[k] - y[k]) / norm(y[k]) for part, y in zip(p, parts[0], strict=True)]
            for p in parts[1:]
        ]
        for k, name in enumerate(("e_low", "e_high"))
    }
    of_outputs = [ratios(p) for p in parts[1:]]
    both = {name: [r[name] for r in of_outputs] for name in ("delta_norm", "energy_share")}
    return {"labels": ratios(parts[0]), "outputs": {**both, **errors}}


def random_case(count=60, width=7, classes=5, epochs=3, seed=0, offset=0.0):
    random = np.random.default_rng(seed)
    points = (random.standard_normal((count, width)) + offset).astype(np.float32)
    labels = np.eye(classes, dtype=np.float32)[random.integers(0, classes, count)]
    logits = random.standard_normal((epochs, count, classes)).astype(np.float32)
    return points, labels, torch.from_numpy(logits).softmax(2).numpy()


def image_case(count=200, epochs=2):
    images, index = draw_shapes(count, np.random.default_rng(0))
    points = data.normalize(torch.from_numpy(images)).flatten(1).numpy()
    logits = np.random.default_rng(1).standard_normal((epochs, count, 10)) + 2 * np.eye(10)[index]
    outputs = torch.from_numpy(logits).softmax(2).float().numpy()
    return points, np.eye(10, dtype=np.float32)[index], outputs


def analyse(points, labels, outputs, deltas):
    arrays = (torch.from_numpy(np.ascontiguousarray(a)) for a in (points, labels, outputs))
    return frequency.analyse(*arrays, deltas)


def assert_same(found, wanted):
    """Every ratio to 1e-5: absolute up to 1, relative above (e_high is unbounded)."""
    assert found.keys() == wanted.keys()
    for part in wanted:
        assert found[part].keys() == wanted[part].keys()
        for name, values in wanted[part].items():
            error = np.abs(np.array(found[part][name], float) - values)
            assert np.max(error / np.maximum(1, values)) < 1e-5, f"{part} {name}"


def test_against_a_double_loop():
    case = random_case()
    deltas = [0.5, 1, 3, 10, 1000]
    assert_same(analyse(*case, deltas), expected(*case, deltas, split_by_loops))


@pytest.mark.parametrize("case", [random_case(300, 20), random_case(200, 4, offset=100.0)])
def test_against_scipy_on_random_data(case):
    assert_same(analyse(*case, [0.3, 2, 20, 500]), expected(*case, [0.3, 2, 20, 500]))


def test_against_scipy_on_images():
    case = image_case()
    deltas = [50, 100, 200, 300, 400, 700, 1000]
    assert_same(analyse(*case, deltas), expected(*case, deltas))


def test_with_duplicated_points_and_with_two_points():
    points, labels, outputs = random_case(40)
    points[20:] = points[:20]
    deltas = [0.001, 0.1, 5]
    assert_same(analyse(points, labels, outputs, deltas), expected(points, labels, outputs, deltas))
    points, labels, outputs = random_case(2)
    labels = np.eye(5, dtype=np.float32)[:2]
    assert_same(
        analyse(points, labels, outputs, deltas[2:]), expected(points, labels, outputs, [5])
    )


@pytest.mark.parametrize("rows", [1, 7, 59, 60, 1000])
def test_any_tile_size_gives_the_same(rows):
    arrays = [torch.from_numpy(a) for a in random_case()]
    whole = frequency.split_energies(*arrays, [0.5, 5, 50])
    tiled = frequency.split_energies(*arrays, [0.5, 5, 50], tile_rows=rows)
    for name in whole:
        torch.testing.assert_close(tiled[name], whole[name], rtol=1e-6, atol=1e-12)


def test_the_order_of_the_points_does_not_matter():
    points, labels, outputs = random_case()
    order = np.random.default_rng(5).permutation(60)
    assert_same(
        analyse(points[order], labels[order], outputs[:, order], [1, 10]),
        analyse(points, labels, outputs, [1, 10]),
    )


def test_distances_against_scipy_for_far_near_and_equal_points():
    random = np.random.default_rng(0)
    points = np.concatenate([random.standard_normal((30, 50)) * 100, np.zeros((2, 50))])
    points[5] = points[4]
    points[7] = points[6] + 1e-3 * random.standard_normal(50)
    points = points.astype(np.float32)
    tensor = torch.from_numpy(points)
    found = frequency.squared_distances(tensor[3:9], tensor)
    wanted = cdist(points[3:9].astype(float), points.astype(float), "sqeuclidean")
    np.testing.assert_allclose(found.numpy(), wanted, rtol=3e-5)
    assert found[1, 5] == 0


def test_a_wide_filter_leaves_the_mean_and_a_narrow_one_everything():
    points, labels, outputs = random_case()
    found = analyse(points, labels, outputs, [1e-6, 1e12])
    assert found["labels"]["delta_norm"][0] == 1
    for epoch, values in enumerate(outputs):
        mean = values.mean(0)
        energy = 60 * np.sum(mean**2)
        share = energy / (energy + np.sum((values - mean) ** 2))
        assert found["outputs"]["energy_share"][epoch][1] == pytest.approx(share, rel=1e-5)
        # With the identity as kernel there is no high part to be wrong about.
        assert found["outputs"]["e_high"][epoch][0] is None
        error = np.linalg.norm(labels - values) / np.linalg.norm(labels)
        assert found["outputs"]["e_low"][epoch][0] == pytest.approx(error, rel=1e-5)


def test_a_small_high_part_keeps_its_digits():
    # Here y - y_low is a millionth of y: by plain subtraction float32 would lose it.
    points, labels, outputs = random_case(40, 3)
    points *= 10
    distances = cdist(points, points, "sqeuclidean")
    delta = distances[distances > 0].min() / 2 / 14
    found = analyse(points, labels, outputs, [delta])
    wanted = expected(points, labels, outputs, [delta])
    high = 1 - wanted["labels"]["delta_norm"][0]
    assert 0 < high < 1e-5
    assert_same(found, wanted)


def test_perfect_outputs_have_no_error():
    points, labels, _ = random_case()
    found = analyse(points, labels, labels[None], [1, 10])
    assert found["outputs"]["e_low"] == [[0, 0]] and found["outputs"]["e_high"] == [[0, 0]]
    assert found["outputs"]["delta_norm"][0] == found["labels"]["delta_norm"]


# --- the command line ---


def test_the_file_of_a_run(study, script):
    status, out, err = script("frequency", "--delta", 100, 400, 1600)
    assert status == 0 and out.count("frequency.json: 3 epochs, 3 deltas") == 4 and err == ""
    dataset = data.read_dataset("data/small.npz")
    points = data.normalize(torch.from_numpy(dataset.test_images)).flatten(1).numpy()
    labels = np.eye(4, dtype=np.float32)[dataset.test_labels]
    for run in runs.find_runs([Path("runs")]):
        found = json.loads((run / "frequency.json").read_text())
        outputs = torch.from_numpy(np.load(run / "logits.npy")).softmax(2).numpy()
        wanted = expected(points, labels, outputs, [100, 400, 1600])
        assert_same({k: found[k] for k in ("labels", "outputs")}, wanted)
        assert found["delta"] == [100, 400, 1600] and found["n"] == 40
        assert found["values"] == "softmax" and found["digest"] == dataset.sha256


def test_adding_a_constant_to_all_logits_changes_nothing(study, script):
    run = Path("runs/small/dis0-small_cnn-seed0")
    found = []
    for shift in (0, 5):
        logits = np.load(run / "logits.npy") + np.float32(shift)
        np.save(run / "logits.npy", logits)
        assert script("frequency", run, "--delta", 200, 400)[0] == 0
        found.append(json.loads((run / "frequency.json").read_text()))
    assert_same(*({k: f[k] for k in ("labels", "outputs")} for f in found))


def test_only_the_named_runs(study, script):
    assert script("frequency", "runs/small/dis1-small_cnn-seed1", "--delta", 400)[0] == 0
    made = sorted(path.parent.name for path in Path("runs").glob("**/frequency.json"))
    assert made == ["dis1-small_cnn-seed1"]


def test_the_default_deltas_are_the_originals():
    deltas = frequency.parse_args([]).delta
    assert deltas == [1, 10, *range(100, 1001, 100)]


@pytest.mark.parametrize("delta", ["0", "-1", "nan", "inf", "wide"])
def test_a_delta_that_is_no_variance_is_refused(refused, study, delta):
    message = refused("frequency", "--delta", "100", delta)
    assert "--delta" in message and delta in message
    assert not list(Path("runs").glob("**/frequency.json"))


def test_runs_that_cannot_be_analysed_are_refused(refused, study):
    run = Path("runs/small/dis0-small_cnn-seed0")
    assert "train.py" in refused("frequency", "--runs", "nowhere")
    logits = np.load(run / "logits.npy")
    for damage in (logits[:, :-1], logits[:0], logits.astype(np.float64)):
        np.save(run / "logits.npy", damage)
        assert "logits.npy" in refused("frequency", run)
    (run / "logits.npy").write_bytes(b"\x93NUMPY cut short")
    assert "logits.npy" in refused("frequency", run)
    (run / "logits.npy").unlink()
    assert "logits.npy" in refused("frequency", run)


def test_a_moved_or_changed_data_set_is_named(refused, script, study):
    shutil.move("data/small.npz", "elsewhere.npz")
    assert "--data" in refused("frequency")
    assert script("frequency", "--data", "elsewhere.npz", "--delta", 400)[0] == 0
    data.write_dataset(Path("elsewhere.npz"), make_dataset(seed=1))
    assert "another data set" in refused("frequency", "--data", "elsewhere.npz")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_cuda_is_refused(refused, study):
    assert "--device auto" in refused("frequency", "--device", "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_gives_what_the_cpu_gives():
    arrays = [torch.from_numpy(a) for a in image_case()]
    there = frequency.analyse(*(a.cuda() for a in arrays), [100, 400])
    assert_same(there, frequency.analyse(*arrays, [100, 400]))


def test_memory_stays_bounded():
    # 6,000 points: one n x n float32 kernel alone would take 144 MB, the twelve 1.7 GB.
    code = """
import resource, torch, frequency
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
n = 6000
labels = torch.nn.functional.one_hot(torch.arange(n) % 10, 10).float()
small = [torch.randn(50, 20), labels[:50], torch.rand(2, 50, 10)]
frequency.analyse(*small, frequency.DELTAS)
before = peak()
frequency.analyse(torch.randn(n, 20), labels, torch.rand(2, n, 10), frequency.DELTAS)
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 6 * frequency.TILE_BYTES / 2**20
