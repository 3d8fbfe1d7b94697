"""dataset/batches.py: normalized pixels; every image once an epoch; crops and mirror images."""

import numpy as np
import pytest
import torch
from helpers import make_dataset

from dataset.batches import MEAN, PADDING, STD, normalize, training_batches


def make_images(**sizes):
    return torch.from_numpy(make_dataset(**sizes).train_images)


def list_batches(images, augment, seed=0, batch_size=7, **ranks):
    generator = torch.Generator().manual_seed(seed)
    return list(training_batches(images, batch_size, augment, generator, **ranks))


def run_epoch(images, augment, seed=0):
    """The inputs and indices of one epoch, in batches of 7."""
    batches = list_batches(images, augment, seed)
    assert [len(index) for _, index in batches] == [7] * (len(images) // 7) + [len(images) % 7]
    inputs, indices = zip(*batches, strict=True)
    return torch.cat(inputs), torch.cat(indices)


def test_normalize_against_numpy():
    images = make_images()
    expected = (images.numpy() / 255 - np.array(MEAN)) / np.array(STD)
    normalized = normalize(images)
    assert normalized.dtype == torch.float32
    np.testing.assert_allclose(normalized.numpy(), expected.transpose(0, 3, 1, 2), atol=2e-6)


def test_an_epoch_has_every_image_once_in_an_order_of_the_seed():
    images = make_images()
    inputs, index = run_epoch(images, augment=False)
    assert sorted(index.tolist()) == list(range(60)) != index.tolist()
    torch.testing.assert_close(inputs, normalize(images[index]), rtol=0, atol=0)
    assert not torch.equal(index, run_epoch(images, augment=False, seed=1)[1])
    augmented = run_epoch(images, augment=True)
    assert torch.equal(augmented[0], run_epoch(images, augment=True)[0])
    # The same seed shows the images in one order with and without augmentation.
    assert torch.equal(augmented[1], index)


@pytest.mark.parametrize("augment", [False, True])
def test_the_ranks_share_each_batch(augment):
    images = make_images()
    whole = list_batches(images, augment)
    ranks = [list_batches(images, augment, rank=rank, world_size=3) for rank in range(3)]
    for (inputs, index), *shares in zip(whole, *ranks, strict=True):
        for rank, (rank_inputs, rank_index) in enumerate(shares):
            assert rank_index.tolist() == index[rank::3].tolist()
            assert torch.equal(rank_inputs, inputs[rank::3])


def test_a_rank_without_an_image_gets_the_first_of_the_batch():
    images = make_images(train=8)
    (_, first), (_, last) = list_batches(images, augment=False)
    shares = list_batches(images, augment=False, rank=1, world_size=2)
    assert len(last) == 1 and shares[1][1].tolist() == last.tolist()
    assert shares[0][1].tolist() == first[1::2].tolist()


def test_augmentation_is_a_crop_and_a_mirror_image_of_each_image_on_its_own():
    # Not square, so that height and width cannot be confused.
    images = make_images(train=400, size=6)[:, :, :5].contiguous()
    inputs, index = run_epoch(images, augment=True)
    border = (PADDING, PADDING)
    padded = np.pad(images.numpy(), ((0, 0), border, border, (0, 0)))
    # Every crop of every image, as it is and mirrored, to look each input up in.
    crops = {
        (dy, dx, step): normalize(
            torch.from_numpy(padded[:, dy : dy + 6, dx : dx + 5][:, :, ::step].copy())
        )
        for dy in range(9)
        for dx in range(9)
        for step in (1, -1)
    }
    draws = []
    for image, i in zip(inputs, index.tolist(), strict=True):
        (draw,) = (key for key, crop in crops.items() if torch.equal(crop[i], image))
        draws.append(draw)
    # Every offset turns up, and mirrored images about as often as others.
    assert {dy for dy, _, _ in draws} == {dx for _, dx, _ in draws} == set(range(9))
    assert 0.4 < np.mean([step == 1 for _, _, step in draws]) < 0.6
