"""gaussian_filter.py: the pass against a double loop and scipy, tiles, order, near points."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

import gaussian_filter

ROOT = Path(__file__).parent.parent


def kernel_by_loops(points, delta):
    """S, row by row from the definition, in float64."""
    count = len(points)
    kernel = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            distance = sum((a - b) ** 2 for a, b in zip(points[i], points[j], strict=True))
            kernel[i, j] = math.exp(-distance / (2 * delta))
    return kernel / kernel.sum(1, keepdims=True), kernel.sum(1)


def kernel_by_scipy(points, delta):
    kernel = np.exp(-cdist(points, points, "sqeuclidean") / (2 * delta))
    return kernel / kernel.sum(1, keepdims=True), kernel.sum(1)


def case(count=60, width=7, classes=3, refs=2, outputs=4, seed=0, offset=0.0):
    random = np.random.default_rng(seed)
    points = random.standard_normal((count, width)) + offset
    values = random.standard_normal((refs + outputs, count, classes)) + random.uniform(-1, 1)
    points, values = (torch.from_numpy(a).float() for a in (points, values))
    return points, values[:refs], values[refs:]


def check(points, references, outputs, deltas, kernel_of=kernel_by_scipy, **flags):
    """Compare every sum with its definition, to 1e-5 of its natural size."""
    exact, refs = points.double().numpy().copy(), len(references)
    values = np.concatenate((references, outputs)).astype(float)
    values -= values.mean(1, keepdims=True)
    found = gaussian_filter.filter_sums(points, references, outputs, deltas, **flags)
    count = found.count
    total = np.square(values).sum((1, 2))
    np.testing.assert_allclose(found.total, total, rtol=1e-5, atol=1e-9)
    size = np.sqrt(total)
    for index, delta in enumerate(deltas):
        smoothing, weight = kernel_of(exact, delta)
        low = np.einsum("ij,vjc->vic", smoothing, values)
        high = values - low
        wanted = {
            "low": (np.einsum("ric,vic->rv", low[:refs], low), np.outer(size[:refs], size)),
            "high": (np.einsum("ric,vic->rv", high[:refs], high), np.outer(size[:refs], size)),
            "low_self": (np.square(low).sum((1, 2)), total),
            "high_self": (np.square(high).sum((1, 2)), total),
            "low_high": ((low * high).sum((1, 2)), total),
            "low_sum": (low.sum(1), np.repeat(size[:, None], values.shape[2], 1) * count**0.5),
            "lost": (count - np.square(smoothing).sum(), count),
            "removed": (np.square(np.eye(count) - smoothing).sum(), count),
        }
        for name, (value, natural) in wanted.items():
            error = np.abs(getattr(found, name)[..., index].numpy() - value)
            assert np.all(error <= 1e-5 * np.asarray(natural) + 1e-12), (name, delta)
        assert found.weight[index] == pytest.approx(np.sort(weight)[(count - 1) // 2], rel=1e-4)
    off_diagonal = cdist(exact, exact, "sqeuclidean")[~np.eye(count, dtype=bool)]
    assert found.closest == pytest.approx(off_diagonal.min(), rel=1e-4, abs=1e-6)


DELTAS = [0.25, 0.5, 1, 3, 10, 1000]


def test_against_a_double_loop():
    check(*case(30), DELTAS, kernel_by_loops)


@pytest.mark.parametrize("width", [2, 20, 300])
@pytest.mark.parametrize("offset", [0, 100])
def test_against_scipy(width, offset):
    check(*case(300, width, offset=offset), [0.1, *DELTAS])


def test_duplicated_points():
    points, references, outputs = case(40)
    points[20:] = points[:20]
    check(points, references, outputs, [0.001, *DELTAS])


def test_two_points_and_constant_values():
    check(*case(2), DELTAS)
    points, references, outputs = case(50)
    outputs[1] = 0.3
    check(points, references, outputs, DELTAS)
    check(points, references * 0, outputs, DELTAS)


@given(st.integers(2, 40), st.integers(1, 60), st.integers(0, 10**6))
def test_any_tile_size(count, rows, seed):
    check(*case(count, seed=seed), [0.5, 5], tile_rows=rows)


def test_the_order_of_the_points_does_not_matter():
    points, references, outputs = case()
    order = torch.randperm(60)
    moved = [points[order], references[:, order], outputs[:, order]]
    first = gaussian_filter.filter_sums(points, references, outputs, DELTAS)
    second = gaussian_filter.filter_sums(*moved, DELTAS)
    for name in ("low", "high", "low_self", "high_self", "low_high", "low_sum", "lost", "weight"):
        torch.testing.assert_close(
            getattr(first, name), getattr(second, name), rtol=1e-5, atol=1e-5
        )


def test_far_points_make_the_identity_exactly():
    points, references, outputs = case()
    found = gaussian_filter.filter_sums(points * 1000, references, outputs, [0.01, 1])
    assert not found.high_self.any() and not found.lost.any() and not found.removed.any()
    assert found.low_self[0, 0] == pytest.approx(found.total[0].item(), rel=1e-6)
    assert found.weight.tolist() == [1, 1]


def test_a_small_high_part_keeps_its_digits():
    # y - S y is a millionth of y here: by plain subtraction float32 would lose it.
    points, references, outputs = case(40, 3)
    exact = points.double().numpy()
    distances = cdist(exact, exact, "sqeuclidean")
    delta = distances[distances > 0].min() / 2 / 14
    values = references.double().numpy()
    high = values - kernel_by_scipy(exact, delta)[0] @ values
    found = gaussian_filter.filter_sums(points, references, outputs, [delta])
    wanted = np.square(high).sum((1, 2))
    assert np.all(wanted < 1e-9 * np.square(values).sum((1, 2)))
    np.testing.assert_allclose(found.high_self[:2, 0], wanted, rtol=1e-3)


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 0.5]), min_size=1, max_size=9))
def test_halving_chains_visit_every_delta_once_after_its_double(deltas):
    order = gaussian_filter.halving_chains(deltas)
    assert sorted(index for index, _ in order) == list(range(len(deltas)))
    assert not order[0][1]
    for (before, _), (index, is_square) in itertools.pairwise(order):
        if is_square:
            assert deltas[index] == deltas[before] / 2


def test_the_originals_deltas_need_five_exponentials():
    deltas = [1, 10, *range(100, 1001, 100)]
    chains = [deltas[i] for i, is_square in gaussian_filter.halving_chains(deltas) if not is_square]
    assert sorted(chains) == [1, 10, 600, 700, 800, 900, 1000]


def test_default_deltas_fit_the_data():
    random = torch.Generator().manual_seed(0)
    points = torch.randn(3000, 3072, generator=random) * (8375 / 6144) ** 0.5
    assert gaussian_filter.default_deltas(points) == list(gaussian_filter.GRID)
    # A hundredth of the squared distance is 2^(-53 / 8) to the nearest eighth of an octave.
    tenth = [1.01, 1.43, 2.02, 2.86, 4.04, 5.72, 8.08, 11.44, 16.16]
    assert gaussian_filter.default_deltas(points / 10) == pytest.approx(tenth)


def test_distances_of_far_near_and_equal_points():
    random = np.random.default_rng(0)
    points = np.concatenate([random.standard_normal((30, 50)) * 100, np.zeros((2, 50))])
    points[5] = points[4]
    points[7] = points[6] + 1e-3 * random.standard_normal(50)
    points = points.astype(np.float32)
    tensor = torch.from_numpy(points)
    found = gaussian_filter.squared_distances(tensor, tensor.square().sum(1), slice(3, 9))
    wanted = cdist(points[3:9].astype(float), points.astype(float), "sqeuclidean")
    np.testing.assert_allclose(found.numpy(), wanted, rtol=3e-5)
    assert found[1, 5] == 0


def test_memory_stays_bounded():
    # 6,000 points: one n x n float32 kernel alone would take 144 MB, the twelve 1.7 GB.
    code = """
import torch
from gaussian_filter import TILE_BYTES, filter_sums
peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
deltas = [1, 10, *range(100, 1001, 100)]
case = lambda n: (10 * torch.randn(n, 20), torch.rand(1, n, 10), torch.rand(2, n, 10))
filter_sums(*case(50), deltas)
before = peak()
filter_sums(*case(6000), deltas)
print((peak() - before) / (TILE_BYTES / 2**20))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 8  # tiles: distances, kernel, the comparison, and the columns


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_gives_what_the_cpu_gives():
    arrays = case(300, 50)
    there = gaussian_filter.filter_sums(*(a.cuda() for a in arrays), DELTAS)
    here = gaussian_filter.filter_sums(*arrays, DELTAS)
    for name in ("low", "high", "low_self", "high_self", "low_sum", "lost", "removed"):
        torch.testing.assert_close(getattr(there, name), getattr(here, name), rtol=1e-5, atol=1e-4)
