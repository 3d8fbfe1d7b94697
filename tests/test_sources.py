"""dataset/sources.py, dataset/shapes.py: folders, images of every kind, CIFAR, drawn shapes."""

import hashlib
import io
import os
import pickle
import sys
import tarfile
import types
import zlib

import numpy as np
import pytest
from helpers import make_image_folder
from matplotlib.path import Path as Polygon
from PIL import Image, PngImagePlugin

from common.command_line import UserError
from dataset import shapes
from dataset.make import DataSettings
from dataset.shapes import SHAPES, draw_shapes
from dataset.sources import CIFAR, load_folder, load_source, source_digest

RGB = np.random.default_rng(5).integers(0, 256, (8, 9, 3), np.uint8)
GRAY, RAMP = RGB[..., 0], np.linspace(0, 255, 72).astype(np.uint8).reshape(8, 9)
INK = RAMP > 100
ALPHA = np.where(INK, 255, 0).astype(np.uint8)
COLORS = np.where(INK[..., None], [200, 100, 50], [10, 20, 30]).astype(np.uint8)
WHITE = np.full((8, 9, 3), 255, np.uint8)


def gray(pixels):
    return np.repeat(pixels[..., None], 3, axis=2)


def on_white(pixels):
    return np.where(INK[..., None], pixels, 255)


def image(pixels, mode=None):
    made = Image.fromarray(pixels)
    return made.convert(mode) if mode else made


def with_alpha(pixels, alpha=ALPHA):
    made = image(pixels)
    made.putalpha(Image.fromarray(alpha))
    return made


def kind(made, pixels, name="x.png", **options):
    """An image, the pixels expected of it, the file that it is saved as, and how."""
    return made, pixels, name, options


PALETTE = image(RGB).quantize(16)
TWO_COLORS = Image.fromarray(INK.astype(np.uint8))
TWO_COLORS.putpalette([10, 20, 30, 200, 100, 50])
UPRIGHT = image(np.rot90(RGB).copy())  # as a camera stores it that is held upright
UPRIGHT.getexif()[0x0112] = 6
HALF = np.full((8, 9), 128, np.uint8)
CLEAR_16 = np.where(INK, RAMP * 257.0, 7).astype(np.uint16)
KINDS = {
    "RGB": kind(image(RGB), RGB),
    "gray": kind(image(GRAY), gray(GRAY)),
    "gray of 16 bits": kind(image(RAMP.astype(np.uint16) * 256), gray(RAMP)),
    "gray of 16 bits, full range": kind(image(RAMP.astype(np.uint16) * 257), gray(RAMP), "x.tif"),
    "gray of 16 bits, big endian": kind(image((RAMP * 256.0).astype(">u2")), gray(RAMP), "x.tif"),
    "gray of 16 bits with a transparent value": kind(
        image(CLEAR_16), on_white(gray(RAMP)), transparency=7
    ),
    "gray with alpha": kind(with_alpha(GRAY), on_white(gray(GRAY))),
    "1 bit": kind(image(INK), gray(ALPHA)),
    "palette": kind(PALETTE, np.asarray(PALETTE.convert("RGB"))),
    "palette with a transparent color": kind(TWO_COLORS, on_white(COLORS), transparency=0),
    "ink on a transparent ground": kind(with_alpha(0 * RGB), gray(255 - ALPHA)),
    "RGBA": kind(with_alpha(RGB), on_white(RGB)),
    "RGBA, half transparent": kind(with_alpha(0 * RGB, HALF), gray(HALF - 1)),
    "RGB with a transparent color": kind(
        image(COLORS), on_white(COLORS), transparency=(10, 20, 30)
    ),
    "turned by EXIF": kind(UPRIGHT, RGB, exif=UPRIGHT.getexif()),
    "CMYK": kind(image(RGB, "CMYK"), RGB, "x.tif"),
    "WEBP": kind(image(RGB), RGB, "x.webp", lossless=True),
    "WEBP with alpha": kind(with_alpha(RGB), on_white(RGB), "x.webp", lossless=True),
    "the first frame of a GIF": kind(
        TWO_COLORS, COLORS, "x.gif", save_all=True, append_images=[PALETTE]
    ),
    "BMP in upper case": kind(image(RGB), RGB, "X.BMP"),
    "PPM": kind(image(RGB), RGB, "x.ppm"),
    "a wrong suffix": kind(image(RGB), RGB, "x.jpg", format="PNG"),
    "no suffix": kind(image(RGB), RGB, "x", format="PNG"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_image(tmp_path, name):
    made, pixels, file, options = KINDS[name]
    folder = make_image_folder(tmp_path / "photos", count=2)
    made.save(folder / "train/ant" / file, **options)
    source = load_folder(folder)
    place = source.train_files.index(f"train/ant/{file}")
    np.testing.assert_array_equal(source.train_images[place], pixels)


def huge_png() -> bytes:
    """The header of a PNG of 10,000 x 10,000 pixels, and none of them."""
    size = (10_000).to_bytes(4, "big")
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in ((b"IHDR", size + size + b"\x08\2\0\0\0"), (b"IDAT", b"")):
        checksum = zlib.crc32(name + content).to_bytes(4, "big")
        parts += [len(content).to_bytes(4, "big"), name, content, checksum]
    return b"".join(parts)


def save(made, name="9.png", **options):
    return lambda folder: made.save(folder / "train/ant" / name, **options)


def save_all(made, split="train", **options):
    def change(folder):
        for path in folder.glob(f"{split}/*/*"):
            made.save(path, **options)

    return change


def put(content, name="9.png"):
    return lambda folder: (folder / "train/ant" / name).write_bytes(content)


def move(old, new):
    return lambda folder: (folder / old).rename(folder / new)


def make_folders(*names):
    return lambda folder: [(folder / name).mkdir() for name in names]


PNG = io.BytesIO()
image(RGB).save(PNG, "PNG")
LARGE_TEXT = PngImagePlugin.PngInfo()
LARGE_TEXT.add_text("key", "x" * 2_000_000, zip=True)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
NO_IMAGE, SMALL = "not a readable image", Image.new("RGB", (5, 5))
SIZES = ["5x5", "9x8", "--image-size 32"]
# What is wrong with a folder: how it is made so, and words of the message.
BAD = {
    "float": (save(image(RAMP / np.float32(255)), "9.tif"), ["9.tif", "with 8 bits"]),
    "32 bits": (save(image(RAMP.astype(np.int32)), "9.tif"), ["9.tif", "with 8 bits"]),
    "a turned TIFF": (save(image(GRAY), "9.tif", tiffinfo={274: 6}), ["9.tif", "upright"]),
    "a bomb": (put(huge_png()), ["9.png", "exceeds limit"]),
    "a large text": (save(image(RGB), pnginfo=LARGE_TEXT), ["9.png", NO_IMAGE]),
    "cut short": (put(PNG.getvalue()[:80]), ["9.png", NO_IMAGE]),
    "zero bytes": (put(b""), ["9.png", NO_IMAGE]),
    "text": (put(b"no image", "notes.txt"), ["notes.txt", NO_IMAGE]),
    "a program for Ghostscript": (put(EPS, "9.eps"), ["9.eps", NO_IMAGE]),
    "a pipe": (lambda folder: os.mkfifo(folder / "train/ant/p.png"), ["p.png", "not a file"]),
    "a broken link": (
        lambda folder: (folder / "train/ant/l.png").symlink_to("nowhere"),
        ["l.png", "not a file"],
    ),
    "a folder": (make_folders("train/ant/images"), ["images", "not a file"]),
    "escapes": (put(b"x", "\x1b[31m.png"), [r"\x1b[31m.png", NO_IMAGE]),
    "mixed sizes": (save(SMALL), ["9.png", *SIZES]),
    "two sizes": (save_all(SMALL, "test"), ["test/ant/0.png", *SIZES]),
    "too large": (save(Image.new("RGB", (65, 8))), ["9.png", "64", "--image-size 32"]),
    "all equal": (save_all(image(RGB)), ["all training images are equal"]),
    "white on transparent": (save_all(with_alpha(WHITE)), ["white drawings on a transparent"]),
    "8 bits in 16": (save_all(image(GRAY.astype(np.uint16)), format="PNG"), ["nearly black"]),
    "no train": (move("train", "x"), ["no folder train/"]),
    "val for test": (move("test", "val"), ["no folder test/"]),
    "other classes": (move("test/bee", "test/wasp"), ["same", "wasp"]),
    "empty class": (make_folders("train/cat", "test/cat"), ["train/cat/ has no image"]),
    "an image without a class": (
        move("train/ant/0.png", "train/0.png"),
        ["train/0.png: an image outside a class folder"],
    ),
    "one name twice": (make_folders("train/\u00e9", "train/e\u0301"), ["two folders of one name"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_is_refused(tmp_path, name):
    folder, (damage, words) = make_image_folder(tmp_path / "photos"), BAD[name]
    damage(folder)
    with pytest.raises(UserError) as error:
        load_folder(folder)
    assert all(word in str(error.value) for word in words), error.value


# --- folders ---


def test_a_folder_of_images(tmp_path):
    folder = make_image_folder(tmp_path / "photos", count=11)
    for hidden in ("train/.DS_Store", "train/ant/.thumbs", "train/bee/._0.png", "train/notes.txt"):
        (folder / hidden).write_text("skipped")
    source = load_folder(folder)
    assert source.class_names == ["ant", "bee"] and source.train_images.shape == (22, 8, 9, 3)
    assert source.train_labels.tolist() == source.test_labels.tolist() == [0] * 11 + [1] * 11
    names = ["0.png", "1.png", "10.png", *(f"{k}.png" for k in range(2, 10))]  # as text
    assert source.test_files == [f"test/{name}/{k}" for name in ("ant", "bee") for k in names]
    with Image.open(folder / "test/bee/1.png") as made:
        np.testing.assert_array_equal(source.test_images[12], np.asarray(made))


def test_classes_named_by_numbers_are_in_numeric_order(tmp_path):
    classes = [str(k) for k in range(12)]
    source = load_folder(make_image_folder(tmp_path / "a", count=1, classes=classes))
    assert source.class_names == classes
    assert source.train_files == [f"train/{k}/0.png" for k in classes]
    mixed = load_folder(make_image_folder(tmp_path / "b", count=1, classes=["10", "9", "a"]))
    assert mixed.class_names == ["10", "9", "a"]


def test_one_class_in_two_forms_of_unicode(tmp_path):
    folder = make_image_folder(tmp_path / "photos", classes=("\u00e9", "b"))
    (folder / "test/\u00e9").rename(folder / "test/e\u0301")
    assert load_folder(folder).class_names == ["b", "\u00e9"]


@pytest.mark.parametrize("size", [(30, 90), (90, 30), (16, 16), (5, 7)])
def test_photographs_are_cropped_to_the_center_and_resized(tmp_path, size):
    folder = make_image_folder(tmp_path / "photos", size=size)
    (folder / "train/ant/odd.png").write_bytes((folder / "test/ant/0.png").read_bytes())
    source = load_folder(folder, image_size=16)
    assert source.train_images.shape == (7, 16, 16, 3)
    side, (width, height) = min(size), size
    left, top = (width - side) // 2, (height - side) // 2
    with Image.open(folder / "train/ant/0.png") as made:
        center = Image.fromarray(np.asarray(made)[top : top + side, left : left + side])
    expected = np.asarray(center.resize((16, 16), Image.LANCZOS))
    np.testing.assert_array_equal(source.train_images[0], expected)


@pytest.mark.parametrize(
    "change",
    [
        put(b"other", "0.png"),
        lambda folder: os.utime(folder / "test/bee/2.png", ns=(1, 1)),
        move("train/ant/0.png", "train/ant/00.png"),
    ],
)
def test_the_digest_of_a_folder(tmp_path, change):
    folder = make_image_folder(tmp_path / "photos")
    before = source_digest(str(folder))
    assert before == source_digest(str(folder)) and len(before) == 64
    change(folder)
    assert source_digest(str(folder)) != before
    assert source_digest("shapes") is None and source_digest(str(tmp_path / "gone")) is None
    assert source_digest("cifar10") != source_digest("cifar100")


@pytest.mark.parametrize("flags", [["--dataset", "shapes"], ["--dataset", "photos"]])
def test_what_memory_cannot_hold_is_refused(refused, workplace, monkeypatch, flags):
    make_image_folder(workplace / "photos")
    monkeypatch.setattr("dataset.sources.fits_memory", lambda size: size < 1000)
    assert "memory" in refused("generate", *flags)


# --- CIFAR ---


def make_cifar(name) -> dict:
    """The content of a small archive laid out like CIFAR's: training batches, test, class names."""
    if name == "cifar10":
        batches, classes = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"], 10
        labels, meta, titles = "labels", "batches.meta", "label_names"
    else:
        batches, classes = ["train", "test"], 100
        labels, meta, titles = "fine_labels", "meta", "fine_label_names"
    content = {
        batch: {
            "data": np.random.default_rng(k).integers(0, 256, (2 * classes, 3072), np.uint8),
            "filenames": [f"{batch}_{image}.png" for image in range(2 * classes)],
            labels: [*range(classes)] * 2,
        }
        for k, batch in enumerate(batches)
    }
    return content | {meta: {titles: [f"class {k}" for k in range(classes)]}}


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, tmp_path, monkeypatch):
    """A small archive that torchvision is told to accept: data set, training batches, path."""
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
    title, md5 = CIFAR[request.param]
    dataset, content = getattr(datasets, title), make_cifar(request.param)
    assert dataset.tgz_md5 == md5
    path = tmp_path / "archive" / dataset.filename
    path.parent.mkdir()
    files = {name: pickle.dumps(value) for name, value in content.items()}
    with tarfile.open(path, "w:gz") as file:
        for name, raw in files.items():
            entry = tarfile.TarInfo(f"{dataset.base_folder}/{name}")
            entry.size = len(raw)
            file.addfile(entry, io.BytesIO(raw))
    listed = [[name, hashlib.md5(raw).hexdigest()] for name, raw in files.items()]
    *batches, (_, meta_md5) = listed
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": meta_md5})
    monkeypatch.setattr(dataset, "train_list", batches[:-1])
    monkeypatch.setattr(dataset, "test_list", batches[-1:])
    monkeypatch.setattr(dataset, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setattr(dataset, "url", "http://127.0.0.1:9/")  # nobody answers there
    return request.param, [content[name] for name, _ in batches[:-1]], path


def test_an_archive_on_disk_is_used_without_the_network(cifar):
    name, batches, path = cifar
    source = load_source(DataSettings(dataset=name, data_dir=str(path.parent)))
    pixels = np.concatenate([batch["data"] for batch in batches])
    channels_first = source.train_images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(channels_first.reshape(len(pixels), -1), pixels)
    classes = len(source.class_names)
    assert source.train_labels.tolist() == [*range(classes)] * (len(pixels) // classes)
    assert source.class_names == [f"class {k}" for k in range(classes)]
    assert source.train_files == [file for batch in batches for file in batch["filenames"]]
    # The unpacked folder alone serves as well, also by its own name.
    path.unlink()
    (unpacked,) = path.parent.iterdir()
    for folder in (path.parent, unpacked):
        again = load_source(DataSettings(dataset=name, data_dir=str(folder)))
        np.testing.assert_array_equal(again.train_images, source.train_images)


@pytest.mark.parametrize("changed", [True, False])
def test_an_archive_that_is_missing_or_changed_is_named_and_not_unpickled(cifar, changed):
    name, _, path = cifar
    content = path.read_bytes()[:-1] + b"x"
    path.unlink()
    if changed:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_source(DataSettings(dataset=name, data_dir=str(path.parent)))
    assert all(words in str(error.value) for words in (str(path.parent), path.name, CIFAR[name][1]))
    assert [file.name for file in path.parent.iterdir()] == [path.name] * changed


class Mismatched(types.ModuleType):
    def __getattr__(self, name):
        raise RuntimeError("operator torchvision::nms does not exist")


@pytest.mark.parametrize("module", [None, Mismatched("torchvision.datasets")])
def test_cifar_without_torchvision_says_why(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "torchvision", module and types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    with pytest.raises(UserError, match=r"--dataset cifar10 needs torchvision.*pair"):
        load_source(DataSettings(dataset="cifar10"))
    settings = DataSettings(dataset="shapes", train_size=20, test_size=10)
    assert len(load_source(settings).train_labels) == 20


# --- drawn shapes ---


def draw(count, seed=0):
    return draw_shapes(count, np.random.default_rng(seed))


def test_shapes_are_a_function_of_the_seed_and_balanced():
    images, labels = draw(105, seed=3)
    assert images.shape == (105, 32, 32, 3) and images.dtype == np.uint8
    assert np.array_equal(images, draw(105, seed=3)[0])
    assert not np.array_equal(images, draw(105, seed=4)[0])
    assert sorted(np.bincount(labels)) == [10] * 5 + [11] * 5
    assert labels.tolist() != sorted(labels)


def test_shapes_are_the_same_however_many_are_drawn_at_a_time(monkeypatch):
    whole = draw(100)
    monkeypatch.setattr(shapes, "CHUNK", 32)
    for one, other in zip(whole, draw(100), strict=True):
        np.testing.assert_array_equal(one, other)


def test_shapes_are_light_on_dark():
    images, labels = draw(200)
    assert images.max(axis=(1, 2)).mean() > 1.5 * np.median(images, axis=(1, 2)).mean()
    discs = images[labels == 0].mean(axis=3)
    assert (discs.max(axis=(1, 2)) > discs[:, 0, 0] + 20).mean() > 0.8


def rectangle(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def centered(width, height):
    return rectangle(-width, -height, width, height)


def star():
    turn, radius = np.arange(10) * np.pi / 5, np.where(np.arange(10) % 2, 0.42, 1)
    return list(zip(radius * np.sin(turn), -radius * np.cos(turn), strict=True))


PLUS = [centered(0.95, 0.25), centered(0.25, 0.95)]
BARS = [rectangle(x - 0.17, -0.8, x + 0.17, 0.8) for x in (-0.6, 0, 0.6)]
# The outlines as corners of polygons, independent of the distances to them.
CORNERS = {
    "square": [centered(0.75, 0.75)],
    "triangle": [[(0, -1), (0.75**0.5, 0.5), (-(0.75**0.5), 0.5)]],
    "plus": PLUS,
    "cross": [[(0.5**0.5 * (x + y), 0.5**0.5 * (x - y)) for x, y in part] for part in PLUS],
    "star": [star()],
    "vertical bars": BARS,
    "horizontal bars": [[(y, x) for x, y in bar] for bar in BARS],
}


@pytest.mark.parametrize("name", CORNERS)
def test_outlines_against_polygons(name):
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (4000, 2))
    distance = SHAPES[name](points[:, 0], points[:, 1])
    inside = np.any([Polygon(part).contains_points(points) for part in CORNERS[name]], axis=0)
    off_the_outline = np.abs(distance) > 1e-9
    np.testing.assert_array_equal(distance[off_the_outline] < 0, inside[off_the_outline])


def test_outlines_of_discs_rings_and_frames_by_hand():
    disc, ring, frame = (SHAPES[name] for name in ("disc", "ring", "frame"))
    assert disc(0, 0) < 0 < disc(0.9, 0)
    assert ring(0, 0) > 0 and ring(0.5, 0.5) < 0 < ring(0.95, 0)
    assert frame(0, 0) > 0 and frame(0.6, 0.6) < 0 < frame(0, 0.85)


def test_every_shape_has_a_test_of_its_outline():
    assert set(SHAPES) == set(CORNERS) | {"disc", "ring", "frame"}
