"""generate.py: noise models, subsets, the three sources, the command line and its refusals."""

import hashlib
import io
import pickle
import sys
import tarfile
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from PIL import Image

import data
import generate

RATES = st.floats(0, 1)
COUNTS = st.integers(1, 300)


@given(COUNTS, RATES, st.integers(2, 12), st.sampled_from(["pair", "symmetric"]), st.integers(0, 9))
def test_exactly_the_rate_is_wrong(count, rate, classes, noise, seed):
    labels = np.random.default_rng(1).integers(0, classes, count)
    given_labels = generate.flip_labels(labels, noise, rate, classes, seed)
    assert np.sum(given_labels != labels) == round(rate * count)
    assert given_labels.dtype == np.int64
    assert given_labels.min() >= 0 and given_labels.max() < classes
    if noise == "pair":
        wrong = given_labels != labels
        np.testing.assert_array_equal(given_labels[wrong], (labels[wrong] + 1) % classes)


@given(COUNTS, RATES, RATES, st.sampled_from(["pair", "symmetric"]))
def test_labels_wrong_at_a_lower_rate_are_wrong_at_a_higher(count, first, second, noise):
    labels = np.random.default_rng(1).integers(0, 5, count)
    low, high = (generate.flip_labels(labels, noise, r, 5, 0) for r in sorted((first, second)))
    wrong = low != labels
    np.testing.assert_array_equal(low[wrong], high[wrong])


def test_symmetric_noise_is_uniform_over_the_other_classes():
    labels = np.repeat(np.arange(5), 4000)
    given_labels = generate.flip_labels(labels, "symmetric", 0.5, 5, 0)
    counts = np.zeros((5, 5))
    np.add.at(counts, (labels, given_labels), 1)
    others = counts[~np.eye(5, dtype=bool)]
    assert np.abs(others - 500).max() < 5 * 500**0.5
    assert np.abs(np.diag(counts) - 2000).max() < 5 * 1000**0.5


def test_noise_depends_on_the_seed_alone():
    labels = np.arange(500) % 10
    flips = [generate.flip_labels(labels, "pair", 0.4, 10, seed) for seed in (0, 0, 1)]
    assert np.array_equal(flips[0], flips[1]) and not np.array_equal(flips[0], flips[2])
    assert np.array_equal(generate.flip_labels(labels, "none", 0.4, 10, 0), labels)
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    generate.draw_shapes(20, np.random.default_rng(0))
    assert state == np.random.get_state()[1].tolist()  # noqa: NPY002


# --- shapes ---


def test_shapes_are_a_function_of_the_seed_and_balanced():
    images, labels = generate.draw_shapes(105, np.random.default_rng(3))
    again, _ = generate.draw_shapes(105, np.random.default_rng(3))
    other, _ = generate.draw_shapes(105, np.random.default_rng(4))
    assert images.shape == (105, 32, 32, 3) and images.dtype == np.uint8
    assert np.array_equal(images, again) and not np.array_equal(images, other)
    assert sorted(np.bincount(labels)) == [10] * 5 + [11] * 5
    assert labels.tolist() != sorted(labels)


def test_more_shapes_than_are_drawn_at_once():
    images, labels = generate.draw_shapes(4200, np.random.default_rng(0))
    assert len(labels) == 4200 and (images.reshape(4200, -1).std(axis=1) > 10).all()


def test_shapes_are_light_on_dark():
    images, labels = generate.draw_shapes(200, np.random.default_rng(0))
    assert images.max(axis=(1, 2)).mean() > 1.5 * np.median(images, axis=(1, 2)).mean()
    discs = images[labels == 0].mean(axis=3)
    assert (discs.max(axis=(1, 2)) > discs[:, 0, 0] + 20).mean() > 0.8


def corners(name):
    """The outline of a shape as the corners of polygons, independent of its distance formula."""

    def box(width, height):
        return [(-width, -height), (width, -height), (width, height), (-width, height)]

    turn = np.linspace(0, 2 * np.pi, 11)[:10]
    radius = np.where(np.arange(10) % 2, 0.42, 1)
    half = 0.5**0.5
    bars = [[(x - 0.17, -0.8), (x + 0.17, -0.8), (x + 0.17, 0.8), (x - 0.17, 0.8)] for x in
            (-0.6, 0, 0.6)]  # fmt: skip
    plus = [box(0.95, 0.25), box(0.25, 0.95)]
    return {
        "square": [box(0.75, 0.75)],
        "triangle": [[(0, -1), (0.75**0.5, 0.5), (-(0.75**0.5), 0.5)]],
        "plus": plus,
        "cross": [[(half * (x + y), half * (x - y)) for x, y in part] for part in plus],
        "star": [list(zip(radius * np.sin(turn), -radius * np.cos(turn), strict=True))],
        "vertical bars": bars,
        "horizontal bars": [[(y, x) for x, y in bar] for bar in bars],
    }[name]


@pytest.mark.parametrize(
    "name", ["square", "triangle", "plus", "cross", "star", "vertical bars", "horizontal bars"]
)
def test_outlines_against_polygons(name):
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (4000, 2))
    distance = generate.SHAPES[name](points[:, 0], points[:, 1])
    inside = np.any([Polygon(part).contains_points(points) for part in corners(name)], axis=0)
    clear = np.abs(distance) > 1e-9
    np.testing.assert_array_equal(distance[clear] < 0, inside[clear])


def test_outlines_of_discs_rings_and_frames_by_hand():
    at = {name: generate.SHAPES[name] for name in ("disc", "ring", "frame")}
    assert at["disc"](0, 0) < 0 < at["disc"](0.9, 0)
    assert at["ring"](0, 0) > 0 and at["ring"](0.5, 0.5) < 0 < at["ring"](0.95, 0)
    assert at["frame"](0, 0) > 0 and at["frame"](0.6, 0.6) < 0 < at["frame"](0, 0.85)


# --- the command line ---


def test_shapes_end_to_end(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--dataset", "shapes", "--rate", "0.3", "--train-size", 50, "--test-size", 20]
    status, out, err = script("generate", *flags)
    assert status == 0 and err == ""
    path = tmp_path / "data/shapes-pair30.npz"
    dataset = data.read_dataset(path)
    digest = hashlib.sha256(dataset.train_labels.tobytes()).hexdigest()
    assert "15 of 50 training labels are wrong, rate 0.3" in out
    assert f"train_labels: {digest}" in out and "data/shapes-pair30.npz" in out
    assert all(name in out for name in dataset.class_names)
    assert np.sum(dataset.train_labels != dataset.clean_labels) == 15
    assert np.bincount(dataset.test_labels).tolist() == [2] * 10
    first = path.read_bytes()
    assert script("generate", *flags)[0] == 0 and path.read_bytes() == first


def test_counts_printed_are_true_against_given(script, workplace):
    _, out, _ = script("generate", "--dataset", "shapes", "--train-size", 40, "--rate", "1")
    table = [line.split()[-10:] for line in out.splitlines() if line[:4].strip().isdigit()][:10]
    expected = np.roll(np.eye(10, dtype=int) * 4, 1, axis=1)
    np.testing.assert_array_equal(np.array(table, int), expected)


def test_no_noise_says_so_in_the_name(script, workplace):
    assert script("generate", "--dataset", "shapes", "--noise", "none", "--train-size", 20)[0] == 0
    dataset = data.read_dataset("data/shapes-none0.npz")
    assert np.array_equal(dataset.train_labels, dataset.clean_labels)


def make_folder(folder, count=3, size=(9, 8), classes=("ant", "bee"), mode="RGB"):
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in classes:
            (folder / part / name).mkdir(parents=True)
            for k in range(count):
                shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
                pixels = random.integers(0, 256, shape, np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{k}.png")
    return folder


def test_folder_of_images(script, workplace):
    folder = make_folder(workplace / "photos")
    (folder / "train/.DS_Store").write_text("hidden files are passed over")
    (folder / "train/ant/.thumbs").write_text("here too")
    assert script("generate", "--dataset", folder, "--noise", "symmetric", "--rate", "0.5")[0] == 0
    dataset = data.read_dataset("data/photos-symmetric50.npz")
    assert dataset.class_names == ["ant", "bee"] and dataset.train_images.shape == (6, 8, 9, 3)
    assert dataset.clean_labels.tolist() == dataset.test_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.sum(dataset.train_labels != dataset.clean_labels) == 3
    with Image.open(folder / "test/bee/1.png") as image:
        np.testing.assert_array_equal(dataset.test_images[4], np.asarray(image))


def test_grey_images_become_rgb(script, workplace):
    folder = make_folder(workplace / "grey", mode="L")
    assert script("generate", "--dataset", folder, "--out", "out.npz")[0] == 0
    images = data.read_dataset("out.npz").train_images
    assert np.array_equal(images[..., 0], images[..., 2]) and images.std() > 0


def test_subset_of_a_folder(script, workplace):
    folder = make_folder(workplace / "photos", count=5)
    flags = ["--train-size", 4, "--test-size", 6, "--title", "Photographs"]
    assert script("generate", "--dataset", folder, *flags)[0] == 0
    dataset = data.read_dataset("data/photos-pair40.npz")
    assert np.bincount(dataset.clean_labels).tolist() == [2, 2] and len(dataset.test_labels) == 6
    assert dataset.meta["title"] == "Photographs" and dataset.meta["source"] == "photos"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rate", "1.1"], ["--rate", "0 to 1"]),
        (["--rate", "-0.1"], ["--rate"]),
        (["--rate", "nan"], ["--rate"]),
        (["--rate", "much"], ["--rate", "much"]),
        (["--noise", "purple"], ["--noise", "purple", "symmetric"]),
        (["--train-size", "0"], ["--train-size"]),
        (["--seed", "-1"], ["--seed"]),
        (["--dataset", "nowhere"], ["nowhere", "shapes"]),
    ],
)
def test_wrong_flags_are_refused(refused, workplace, flags, words):
    before = sorted(workplace.rglob("*"))
    message = refused("generate", "--dataset", "shapes", *flags)
    assert all(word in message for word in words)
    assert sorted(workplace.rglob("*")) == before


def spoil(folder, name):
    if name == "no train":
        (folder / "train").rename(folder / "training")
    elif name == "other classes":
        (folder / "test/bee").rename(folder / "test/wasp")
    elif name == "mixed sizes":
        Image.new("RGB", (5, 5)).save(folder / "test/bee/2.png")
    elif name == "no image":
        (folder / "train/bee/notes.txt").write_text("no image")
    elif name == "cut short":
        path = folder / "train/bee/1.png"
        path.write_bytes(path.read_bytes()[:80])
    elif name == "too large":
        Image.new("RGB", (65, 8)).save(folder / "train/ant/0.png")
    elif name == "empty class":
        for part in ("train", "test"):
            (folder / part / "cat").mkdir()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no train", ["no folder train/"]),
        ("other classes", ["same", "wasp"]),
        ("mixed sizes", ["2.png", "one size"]),
        ("no image", ["notes.txt", "not a readable image"]),
        ("cut short", ["1.png", "not a readable image"]),
        ("too large", ["0.png", "64"]),
        ("empty class", ["train/cat"]),
    ],
)
def test_a_bad_folder_is_refused(refused, workplace, name, words):
    folder = make_folder(workplace / "photos")
    spoil(folder, name)
    message = refused("generate", "--dataset", folder)
    assert all(word in message for word in words)
    assert [p.name for p in (workplace / "data").iterdir()] == ["small.npz"]


def test_more_images_than_there_are(refused, workplace):
    folder = make_folder(workplace / "photos")
    for flag in ("--train-size", "--test-size"):
        assert flag in refused("generate", "--dataset", folder, flag, 7)


def test_a_good_file_survives_a_refusal(script, refused, workplace):
    assert script("generate", "--dataset", "shapes", "--train-size", 20, "--out", "a.npz")[0] == 0
    before = (workplace / "a.npz").read_bytes()
    refused("generate", "--dataset", "nowhere", "--out", "a.npz")
    assert (workplace / "a.npz").read_bytes() == before


# --- CIFAR-10 ---


def test_without_torchvision_shapes_work_and_cifar10_says_why(
    script, refused, workplace, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    assert "torchvision" in refused("generate", "--dataset", "cifar10")
    assert script("generate", "--dataset", "shapes", "--train-size", 20)[0] == 0


def test_a_mismatched_pair_of_torch_and_torchvision_says_so(refused, workplace, monkeypatch):
    class Broken(types.ModuleType):
        def __getattr__(self, name):
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", Broken("torchvision.datasets"))
    message = refused("generate", "--dataset", "cifar10")
    assert "torchvision::nms" in message and "pair" in message


def test_a_failed_download_says_where_to_put_the_archive(refused, workplace, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    module = types.ModuleType("torchvision.datasets")
    module.CIFAR10 = fail
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    message = refused("generate", "--dataset", "cifar10", "--data-dir", "archive")
    assert str(workplace / "archive") in message and "cifar-10-python.tar.gz" in message
    assert "c58f30108f718f92721af3b95e74349a" in message


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small archive laid out like CIFAR-10's, which torchvision is told to accept."""
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
    random = np.random.default_rng(0)
    names = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    content = {
        name: {"data": random.integers(0, 256, (20, 3072), np.uint8), "labels": [*range(10)] * 2}
        for name in names
    }
    content["batches.meta"] = {"label_names": [f"class {k}" for k in range(10)]}
    files = {name: pickle.dumps(value) for name, value in content.items()}
    path = tmp_path / "archive/cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as file:
        for name, raw in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(raw)
            file.addfile(entry, io.BytesIO(raw))
    md5 = {name: hashlib.md5(raw).hexdigest() for name, raw in files.items()}
    meta = {**datasets.CIFAR10.meta, "md5": md5["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[n, md5[n]] for n in names[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    of_archive = hashlib.md5(path.read_bytes()).hexdigest()
    assert datasets.CIFAR10.tgz_md5 == generate.CIFAR10_MD5
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", of_archive)
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/" + path.name)
    return path, content


def test_an_archive_on_disk_is_used_without_the_network(script, workplace, archive):
    path, content = archive
    flags = ["--dataset", "cifar10", "--data-dir", path.parent]
    assert script("generate", *flags)[0] == 0
    dataset = data.read_dataset("data/cifar10-pair40.npz")
    raw = np.concatenate([content[f"data_batch_{k}"]["data"] for k in range(1, 6)])
    np.testing.assert_array_equal(dataset.train_images.transpose(0, 3, 1, 2).reshape(100, -1), raw)
    assert np.sum(dataset.train_labels != dataset.clean_labels) == 40
    assert dataset.test_labels.tolist() == content["test_batch"]["labels"]
    # The unpacked folder alone serves as well.
    path.unlink()
    first = (workplace / "data/cifar10-pair40.npz").read_bytes()
    assert script("generate", *flags)[0] == 0
    assert (workplace / "data/cifar10-pair40.npz").read_bytes() == first


def test_a_changed_archive_is_not_unpickled(refused, workplace, archive):
    path, _ = archive
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    message = refused("generate", "--dataset", "cifar10", "--data-dir", path.parent)
    assert str(path.parent) in message and not (path.parent / "cifar-10-batches-py").exists()
