"""measures/gaussian.py: the pass against scipy in float64; tiles, distances and deltas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from references import smoothing_matrix
from scipy.spatial.distance import cdist

from analysis.history import filtering, nearest
from analysis.quantities import RATIO_DELTA
from dataset.batches import normalize
from dataset.shapes import draw_shapes
from measures import gaussian
from measures.gaussian import (
    GRID,
    GRID_DISTANCE,
    default_deltas,
    filter_columns,
    squared_distances,
)

DELTAS = [0.25, 0.5, 1, 3, 6, 10, 1000]
SUMS = ("low", "high", "low_self", "high_self", "low_sum", "s_deficit", "complement")


def random_case(count=60, width=7, classes=3, references=2, outputs=4, seed=0, offset=0.0):
    """Points (n, d), references (R, n, C) and outputs (E, n, C), float32."""
    random = np.random.default_rng(seed)
    points = random.standard_normal((count, width)) + offset
    values = random.standard_normal((references + outputs, count, classes))
    values += random.uniform(-1, 1)
    points, values = (torch.from_numpy(array).float() for array in (points, values))
    return points, values[:references], values[references:]


def filter_sums(points, references, outputs, deltas):
    """A pass over copies: points (n, d), references (R, n, C) and outputs (E, n, C), float32."""
    columns = torch.cat((references, outputs)).transpose(0, 1).contiguous()
    return filter_columns(points.clone(), columns, len(references), deltas)


def expected_sums(smoothing, values, references):
    """name -> (sum by its definition, its natural size), of centered values (V, n, C)."""
    count, classes = values.shape[1:]
    total = np.square(values).sum((1, 2))
    size = np.sqrt(total)
    low = np.einsum("ij,vjc->vic", smoothing, values)
    high = values - low
    products = np.outer(size[:references], size)
    return {
        "low": (np.einsum("ric,vic->rv", low[:references], low), products),
        "high": (np.einsum("ric,vic->rv", high[:references], high), products),
        "low_self": (np.square(low).sum((1, 2)), total),
        "high_self": (np.square(high).sum((1, 2)), total),
        "low_sum": (low.sum(1), np.repeat(size[:, None], classes, 1) * count**0.5),
        "s_deficit": (count - np.square(smoothing).sum(), count),
        "complement": (np.square(np.eye(count) - smoothing).sum(), count),
    }


def check_sums(points, references, outputs, deltas):
    """Compare every sum with its definition, to 1e-5 of its natural size."""
    exact = points.double().numpy()
    sums = filter_sums(points, references, outputs, deltas)
    values = np.concatenate((references, outputs)).astype(float)
    mean = values.mean(1, keepdims=True)
    np.testing.assert_allclose(sums.mean, mean[:, 0], rtol=1e-5, atol=1e-7)
    values -= mean
    np.testing.assert_allclose(sums.total, np.square(values).sum((1, 2)), rtol=1e-5, atol=1e-9)
    count = sums.count
    assert count == len(exact)
    for index, delta in enumerate(deltas):
        kernel = np.exp(-cdist(exact, exact, "sqeuclidean") / (2 * delta))
        mass = kernel.sum(1)
        expected = expected_sums(kernel / mass[:, None], values, len(references))
        assert expected.keys() == set(SUMS)
        for name, (value, size) in expected.items():
            error = np.abs(getattr(sums, name)[..., index].numpy() - value)
            assert np.all(error <= 1e-5 * np.asarray(size) + 1e-12), (name, delta)
        median = np.sort(mass)[(count - 1) // 2]
        assert sums.kernel_mass[index] == pytest.approx(median, rel=1e-4)


# Narrow, wide, far from zero, two points.
@pytest.mark.parametrize(
    ("count", "width", "offset"), [(300, 2, 0), (300, 300, 0), (300, 20, 100), (2, 7, 0)]
)
def test_against_scipy(count, width, offset):
    check_sums(*random_case(count, width, offset=offset), [0.1, *DELTAS])


def test_duplicated_points_and_constant_values():
    points, references, outputs = random_case(40)
    points[20:] = points[:20]
    outputs[1] = 0.3
    check_sums(points, references, outputs, [0.001, *DELTAS])
    check_sums(points, references * 0, outputs, DELTAS)


@pytest.mark.slow
@given(st.integers(2, 40), st.integers(1, 60), st.integers(0, 10**6))
def test_any_tile_size(count, rows, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaussian, "TILE_BYTES", 4 * count * rows)
        check_sums(*random_case(count, seed=seed), [0.5, 5])


@pytest.mark.parametrize("budget", [1, 10**4])
def test_copies_of_a_few_values_at_a_time_give_the_same_sums(monkeypatch, budget):
    case = random_case(20)
    whole = filter_sums(*case, DELTAS)
    monkeypatch.setattr(gaussian, "VALUE_BYTES", budget)
    sums = filter_sums(*case, DELTAS)
    assert torch.equal(sums.total, whole.total) and torch.equal(sums.mean, whole.mean)
    for name in SUMS:
        torch.testing.assert_close(getattr(sums, name), getattr(whole, name), rtol=1e-5, atol=1e-5)


def test_far_points_make_the_identity_exactly():
    points, references, outputs = random_case()
    sums = filter_sums(points * 1000, references, outputs, [0.01, 1])
    assert not sums.high_self.any() and not sums.s_deficit.any() and not sums.complement.any()
    assert sums.low_self[0, 0] == pytest.approx(sums.total[0].item(), rel=1e-6)
    assert sums.kernel_mass.tolist() == [1, 1]


def test_a_small_high_part_keeps_its_digits():
    # |y - S y| is under 3e-5 of |y|: by plain subtraction float32 would lose most of its digits.
    points, references, outputs = random_case(40, 3)
    exact = points.double().numpy()
    distances = cdist(exact, exact, "sqeuclidean")
    delta = distances[distances > 0].min() / 2 / 14
    values = references.double().numpy()
    high = values - smoothing_matrix(exact, delta) @ values
    sums = filter_sums(points, references, outputs, [delta])
    expected = np.square(high).sum((1, 2))
    assert np.all(expected < 1e-9 * np.square(values).sum((1, 2)))
    np.testing.assert_allclose(sums.high_self[:2, 0], expected, rtol=1e-3)


def shapes(seed, count=50):
    images, _ = draw_shapes(count, np.random.default_rng([seed, 9]))
    return normalize(torch.from_numpy(images)).flatten(1)


def test_every_seed_of_a_named_source_has_the_grid():
    for seed in range(3):
        assert default_deltas("shapes", shapes(seed)) == list(GRID)
    assert default_deltas("photos", torch.zeros(3, 5)) == list(GRID)  # equal images


@pytest.mark.slow
@pytest.mark.parametrize("distance", [None, 0.01, 1, 3000])
def test_default_deltas_filter_near_that_of_the_figure(distance):
    # Of as many shapes as generate.py makes, and of folders with images near and far. Those of
    # CIFAR-10: test_documents.py, in the committed runs.
    random = torch.Generator().manual_seed(0)
    folder = torch.randn(200, 100, generator=random) * (distance or 0) ** 0.5
    for points in [folder] if distance else [shapes(seed, 1000) for seed in range(2)]:
        deltas = default_deltas("photos" if distance else "shapes", points)
        sums = filter_columns(points, torch.zeros(len(points), 1, 1), 1, deltas)
        filter_at = filtering({"delta": deltas, "mass": sums.kernel_mass.tolist()})
        assert filter_at and set(filter_at) < set(deltas)  # the smallest keep all that is rough
        assert distance or nearest(filter_at, RATIO_DELTA) in (400, 564)


@pytest.mark.parametrize(
    ("distance", "first"), [(1, 100), (1.15, 100), (0.87, 100), (1.3, 141), (0.5, 50), (16, 1600)]
)
def test_the_deltas_of_a_folder_are_the_grid_moved_by_whole_half_octaves(distance, first):
    random = torch.Generator().manual_seed(0)
    points = torch.randn(500, 3072, generator=random) * (distance * GRID_DISTANCE / 6144) ** 0.5
    deltas = default_deltas("photos", points)
    assert len(deltas) == len(GRID) and deltas[0] == first
    series = {k * 2.0**power for k in (100, 141) for power in range(-9, 9)}
    assert set(deltas) <= series
    assert all(double == 2 * half for half, double in zip(deltas, deltas[2:], strict=False))


def test_distances_of_far_near_and_equal_points():
    random = np.random.default_rng(0)
    points = np.concatenate([random.standard_normal((30, 50)) * 100, np.zeros((2, 50))])
    points[5] = points[4]
    points[7] = points[6] + 1e-3 * random.standard_normal(50)
    points = points.astype(np.float32)
    tensor = torch.from_numpy(points)
    distances = squared_distances(tensor, tensor.square().sum(1), slice(3, 9))
    expected = cdist(points[3:9].astype(float), points.astype(float), "sqeuclidean")
    np.testing.assert_allclose(distances.numpy(), expected, rtol=3e-5)
    assert distances[1, 5] == 0


@pytest.mark.cuda
def test_cuda_gives_what_the_cpu_gives():
    arrays = random_case(300, 50)
    on_cuda = filter_sums(*(array.cuda() for array in arrays), DELTAS)
    on_cpu = filter_sums(*arrays, DELTAS)
    for name in (*SUMS, "kernel_mass"):
        first, second = getattr(on_cuda, name), getattr(on_cpu, name)
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-4)
