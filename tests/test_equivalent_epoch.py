"""equivalent_epoch.py: exact cases, a double loop, what level and shape contribute."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.equivalent_epoch import distances, epoch_path, excess, nearest_values

BANDS = 6


def random_run(epochs=9, seed=0):
    """Profiles (E, K) that rise unevenly, and the energies (K,) of their bands."""
    random = np.random.default_rng(seed)
    profiles = np.cumsum(random.random((epochs, BANDS)), axis=0) / epochs
    return profiles, random.random(BANDS) + 0.1


@pytest.mark.slow
@given(st.integers(0, 1000), st.integers(2, 12))
def test_a_run_is_like_itself_at_every_epoch(seed, epochs):
    profiles, energy = random_run(epochs, seed)
    path = epoch_path(profiles, profiles, energy)
    assert path.nearest.tolist() == list(range(epochs))
    assert path.by_level.tolist() == list(range(epochs))
    for values in (path.distance, path.shape_distance, path.distance_by_level, path.gain):
        np.testing.assert_array_equal(values, 0)
    assert np.all(path.resolution > 0)


def test_a_run_that_learns_half_as_fast():
    profiles, energy = random_run(11)
    path = epoch_path(np.repeat(profiles, 2, axis=0), profiles, energy)
    assert path.nearest.tolist() == [k // 2 for k in range(22)]


@pytest.mark.slow
@given(st.integers(0, 1000))
def test_against_a_double_loop(seed):
    (profiles, energy), (reference, _) = random_run(5, seed), random_run(7, seed + 1)
    path = epoch_path(profiles, reference, energy)
    weights = energy / energy.sum()
    steps = [np.sqrt(weights @ (a - b) ** 2) for a, b in itertools.pairwise(reference)]
    for epoch, profile in enumerate(profiles):
        whole = [np.sqrt(weights @ (profile - other) ** 2) for other in reference]
        levels = [abs(weights @ profile - weights @ other) for other in reference]
        k, level = int(np.argmin(whole)), int(np.argmin(levels))
        assert (path.nearest[epoch], path.by_level[epoch]) == (k, level)
        assert path.distance[epoch] == pytest.approx(whole[k])
        assert path.distance_by_level[epoch] == pytest.approx(whole[level])
        assert path.gain[epoch] == pytest.approx(whole[level] - whole[k])
        flat = np.full(BANDS, weights @ profile)
        assert path.flat_distance[epoch] == pytest.approx(np.sqrt(weights @ (profile - flat) ** 2))
        assert path.shape_distance[epoch] ** 2 == pytest.approx(whole[k] ** 2 - levels[k] ** 2)
        assert path.resolution[epoch] == pytest.approx(min(steps[max(k - 1, 0) : k + 1]))


def test_profiles_that_differ_in_shape_only_are_told_apart_by_shape_only():
    energy = np.array([1.0, 1, 2])
    low_first, high_first = np.array([0.8, 0.4, 0.2]), np.array([0.0, 0.4, 0.6])
    path = epoch_path(high_first[None], np.stack([low_first, high_first]), energy)
    assert (path.by_level[0], path.nearest[0]) == (0, 1)
    assert path.gain[0] == pytest.approx(np.sqrt((0.64 + 2 * 0.16) / 4))


def test_flat_profiles_are_told_apart_by_level_only():
    reference = np.linspace(0, 1, 5)[:, None] * np.ones(BANDS)
    path = epoch_path(np.full((1, BANDS), 0.55), reference, random_run()[1])
    assert path.nearest[0] == path.by_level[0] == 2
    assert path.distance[0] == pytest.approx(0.05)
    assert path.shape_distance[0] == path.flat_distance[0] == pytest.approx(0, abs=1e-12)


def test_a_band_weighs_by_its_energy():
    reference = np.array([[0.0, 0.5], [0.5, 0.0]])
    profile = np.array([[0.0, 0.0]])
    assert epoch_path(profile, reference, np.array([3.0, 1.0])).nearest[0] == 0
    assert epoch_path(profile, reference, np.array([1.0, 3.0])).nearest[0] == 1


def test_bands_without_energy_or_share_are_left_out():
    profiles, energy = random_run()
    reference, _ = random_run(seed=3)
    expected = epoch_path(profiles[:, 2:], reference[:, 2:], energy[2:])
    energy[0] = 0
    profiles[:, 1] = np.nan
    path = epoch_path(profiles, reference, energy)
    np.testing.assert_array_equal(path.nearest, expected.nearest)
    np.testing.assert_allclose(path.distance, expected.distance)


def test_no_energy_at_all_is_refused():
    profiles, energy = random_run()
    with pytest.raises(ValueError, match="no energy"):
        epoch_path(profiles, profiles, 0 * energy)


def test_a_reference_of_one_epoch_has_no_resolution():
    profiles, energy = random_run()
    path = epoch_path(profiles, profiles[:1], energy)
    assert np.all(path.nearest == 0) and np.all(np.isinf(path.resolution))


def test_distances_are_those_of_one_profile_and_another():
    result = distances(np.array([[0.0, 0], [3, 4]]), np.array([[0.0, 4]]), np.array([0.5, 0.5]))
    np.testing.assert_allclose(result, [[8**0.5], [4.5**0.5]])


def test_excess_is_taken_at_the_equivalent_epoch():
    shares, reference = np.array([[0.5, 0.6], [0.7, 0.8]]), np.array([[0.1, 0.2], [0.3, 0.4]])
    result = excess(shares, reference, np.array([1, 0]))
    np.testing.assert_allclose(result, [[0.2, 0.2], [0.6, 0.6]])


def test_nearest_values_take_the_first_of_equals():
    result = nearest_values(np.array([10.0, 4, 7]), np.array([4.0, 10, 4]))
    assert result.tolist() == [1, 0, 0]
