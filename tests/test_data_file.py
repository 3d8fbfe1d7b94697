"""dataset/data_file.py, batches.py: what is written is read back; batches of one epoch."""

import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import Bomb, huge_npy, make_dataset, npy

from common.command_line import UserError
from dataset.batches import MEAN, PADDING, STD, normalize, training_batches
from dataset.data_file import ARRAYS, file_digest, read_dataset, read_meta, write_dataset

CHOSEN = {
    "train_indices": np.arange(60),
    "val_indices": np.arange(60, 70),
    "test_files": np.array([f"test/é\u9999/{k}.png" for k in range(40)]),
}


def test_round_trip_is_exact(tmp_path):
    path, before = tmp_path / "new/folder/a.npz", make_dataset(val=10)
    write_dataset(path, replace(before, chosen=CHOSEN))
    after = read_dataset(path)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert getattr(after, name).dtype == getattr(before, name).dtype
    assert after.chosen.keys() == CHOSEN.keys()
    for name, values in CHOSEN.items():  # which images these are is no part of the digest
        np.testing.assert_array_equal(after.chosen[name], values)
    assert after.class_names == before.class_names
    assert after.sha256 == before.sha256 == file_digest(path)
    assert before.meta.items() <= after.meta.items()
    sizes = {name: after.meta[f"{name}_size"] for name in ("train", "val", "test")}
    assert sizes == {"train": 60, "val": 10, "test": 40}
    assert read_meta(path) == after.meta
    assert (after.num_classes, after.image_size) == (4, (8, 8))
    assert [file.name for file in path.parent.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("name", ARRAYS)
def test_the_digest_depends_on_every_array(name):
    original, changed = make_dataset(val=4), make_dataset(val=4)
    getattr(changed, name).flat[5 % getattr(changed, name).size] ^= 1
    assert changed.sha256 != original.sha256


# --- damaged files ---


def replaced(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def member(name, change):
    """A damage of one array; `change` returns None to drop it."""

    def damage(path):
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        content[name] = change(content[name])
        with open(path, "wb") as file:
            np.savez(file, **{name: value for name, value in content.items() if value is not None})

    return damage


def meta(**values):
    return member("meta", lambda text: np.array(json.dumps({**json.loads(str(text)), **values})))


def flip_one_bit(path):
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("train_images.npy").header_offset
    raw[start + 1000] ^= 1
    path.write_bytes(raw)


def all_members(raw):
    """A file whose arrays all have these bytes."""

    def write(path):
        with zipfile.ZipFile(path, "w") as file:
            for name in (*ARRAYS, "class_names", "meta"):
                file.writestr(f"{name}.npy", raw)

    return write


def write_bomb(path):
    """A zip file that says of itself that it holds 4 EiB."""
    with zipfile.ZipFile(path, "w", allowZip64=True) as file:
        file.writestr("meta.npy", b"")
        file.filelist[0].file_size = 2**62


def first_label(name, label):
    return member(name, lambda labels: np.concatenate(([label], labels[1:])))


# What the message says, and how a file is made so.
DAMAGES = [
    ("no such file", lambda path: path.unlink()),
    ("cut short", replaced(lambda raw: raw[: len(raw) // 2])),
    ("not .npz", replaced(lambda raw: b"")),
    ("not .npz", replaced(lambda raw: b"hello")),
    ("not .npz", replaced(lambda raw: pickle.dumps(Bomb()))),
    ("Bad CRC-32", flip_one_bit),
    ("pickled objects", all_members(npy(np.array([Bomb()]), allow_pickle=True))),
    ("clean_labels", member("clean_labels", lambda labels: None)),
    ("train_labels is int64 (61,)", member("train_labels", lambda labels: np.append(labels, 0))),
    ("test_labels is int32 (40,)", member("test_labels", lambda labels: labels.astype("int32"))),
    ("labels outside 0..3", first_label("test_labels", 4)),
    ("labels outside 0..3", first_label("test_labels", -1)),
    ("train_labels does not match its sha256", first_label("train_labels", 3)),
    ("test_images is float32", member("test_images", lambda images: images.astype("float32"))),
    ("test_images differ in size", member("test_images", lambda images: images[:, 1:])),
    ("test_images is empty", member("test_images", lambda images: images[:0])),
    ("train_indices is int64 (59,)", member("train_indices", lambda indices: indices[:-1])),
    ("test_files is int64 (40,)", member("test_files", lambda files: np.arange(40))),
    ("a.npz: ", all_members(huge_npy())),
    ("larger than the memory", write_bomb),
    ("format 99", meta(format=99)),
    ("sha256", meta(sha256={})),
    ("meta is not a JSON", member("meta", lambda text: np.array("[]"))),
    ("not a data set: Expecting", member("meta", lambda text: np.array("{"))),
]


@pytest.mark.parametrize(("words", "damage"), DAMAGES)
def test_a_bad_file_is_refused_in_one_line(place, words, damage):
    path = place / "a.npz"
    chosen = {name: CHOSEN[name] for name in ("train_indices", "test_files")}
    write_dataset(path, replace(make_dataset(), chosen=chosen))
    damage(path)
    readers = [read_dataset]
    if words in ("no such file", "cut short", "not .npz", "meta is not a JSON"):
        readers += [read_meta, file_digest]
    for reader in readers:
        with pytest.raises(UserError) as error:
            reader(path)
        message = str(error.value)
        assert str(path) in message and "generate.py" in message and words in message, message
    assert not (place / "executed").exists()


def test_a_pickle_that_is_loaded_goes_off(place):
    pickle.loads(pickle.dumps(Bomb()))
    assert (place / "executed").exists()


# --- batches ---


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
