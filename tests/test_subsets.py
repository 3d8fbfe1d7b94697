"""dataset/subsets.py: class-balanced subsets of the size asked for."""

import numpy as np
import pytest
from helpers import make_dataset
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from dataset.subsets import SAMPLE_SIZE, balanced_subset, sample_indices

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(6), 10))


@given(st.integers(0, 60), st.integers(0, 9))
def test_subsets_are_sorted_balanced_and_of_the_size_asked_for(size, seed):
    subset = balanced_subset(LABELS, size, 6, seed, "--size")
    assert len(set(subset.tolist())) == size and sorted(subset) == subset.tolist()
    counts = np.bincount(LABELS[subset], minlength=6)
    assert counts.max() - counts.min() <= 1


def test_a_subset_depends_on_the_seed_alone():
    first, again, other = (
        balanced_subset(LABELS, 30, 6, seed, "--size").tolist() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_a_subset_larger_than_a_class_is_refused():
    expected = r"class 1, which has only 2 of the 5 images; use a smaller --val-size$"
    with pytest.raises(UserError, match=expected):
        balanced_subset(np.array([0, 0, 0, 1, 1]), 6, 2, 0, "--val-size")


def test_the_sample_is_all_training_images_or_a_balanced_subset():
    few, many = make_dataset(), make_dataset(train=SAMPLE_SIZE + 4, size=1)
    assert sample_indices(few, None).tolist() == list(range(60))
    for dataset, size, count in ((few, 20, 20), (many, None, SAMPLE_SIZE), (many, 40, 40)):
        indices = sample_indices(dataset, size)
        assert sorted(set(indices.tolist())) == indices.tolist()
        assert np.bincount(dataset.clean_labels[indices]).tolist() == [count // 4] * 4
    with pytest.raises(UserError, match=r"^--sample-size 61: .* use a smaller --sample-size$"):
        sample_indices(few, 61)
