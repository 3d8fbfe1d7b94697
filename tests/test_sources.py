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
from dataset.make import DataSettings
from dataset.shapes import SHAPES, draw_shapes
from dataset.sources import CIFAR, load_folder, load_source, source_digest

RGB = np.random.default_rng(5).integers(0, 256, (8, 9, 3), np.uint8)
GRAY, RAMP = RGB[..., 0], np.linspace(0, 255, 72).astype(np.uint8).reshape(8, 9)
ALPHA = np.where(RAMP > 100, 255, 0).astype(np.uint8)
ON_WHITE = np.where(ALPHA[..., None] > 0, RGB, 255).astype(np.uint8)
WHITE = np.full((8, 9, 3), 255, np.uint8)


def gray(pixels):
    return np.repeat(pixels[..., None], 3, axis=2)


def image(pixels, mode=None):
    made = Image.fromarray(pixels)
    return made.convert(mode) if mode else made


def with_alpha(pixels, alpha=ALPHA):
    made = image(pixels)
    made.putalpha(Image.fromarray(alpha))
    return made


def turned():
    """The picture as a camera stores it that is held upright, with EXIF orientation 6."""
    made = image(np.rot90(RGB).copy())
    made.getexif()[0x0112] = 6
    return made, {"exif": made.getexif()}


PALETTE = image(RGB).quantize(16)
TWO_COLORS = Image.fromarray((RAMP > 100).astype(np.uint8))
TWO_COLORS.putpalette([10, 20, 30, 200, 100, 50])
COLORS = np.where(RAMP[..., None] > 100, [200, 100, 50], [10, 20, 30])
# A kind of image: what is saved, under which name, the expected pixels.
KINDS = {
    "RGB": (image(RGB), "x.png", RGB),
    "gray": (image(GRAY), "x.png", gray(GRAY)),
    "gray of 16 bits": (image(RAMP.astype(np.uint16) * 256), "x.png", gray(RAMP)),
    "gray of 16 bits, full range": (image(RAMP.astype(np.uint16) * 257), "x.tif", gray(RAMP)),
    "gray of 16 bits, big endian": (image((RAMP * 256.0).astype(">u2")), "x.tif", gray(RAMP)),
    "1 bit": (image(RAMP > 100), "x.png", gray(np.where(RAMP > 100, 255, 0))),
    "palette": (PALETTE, "x.png", np.asarray(PALETTE.convert("RGB"))),
    "palette with a transparent color": (
        (TWO_COLORS, {"transparency": 0}),
        "x.png",
        np.where(RAMP[..., None] > 100, COLORS, 255),
    ),
    "ink on a transparent ground": (with_alpha(0 * RGB), "x.png", gray(255 - ALPHA)),
    "RGBA": (with_alpha(RGB), "x.png", ON_WHITE),
    "RGBA, half transparent": (
        with_alpha(0 * RGB, np.full((8, 9), 128, np.uint8)),
        "x.png",
        np.full((8, 9, 3), 127),
    ),
    "gray with alpha": (with_alpha(GRAY), "x.png", np.where(ALPHA[..., None], gray(GRAY), 255)),
    "RGB with a transparent color": (
        (image(COLORS.astype(np.uint8)), {"transparency": (10, 20, 30)}),
        "x.png",
        np.where(RAMP[..., None] > 100, COLORS, 255),
    ),
    "gray of 16 bits with a transparent value": (
        (image(np.where(RAMP > 100, RAMP * 257.0, 7).astype(np.uint16)), {"transparency": 7}),
        "x.png",
        gray(np.where(RAMP > 100, RAMP, 255)),
    ),
    "WEBP with alpha": ((with_alpha(RGB), {"lossless": True}), "x.webp", ON_WHITE),
    "turned by EXIF": (turned(), "x.png", RGB),
    "CMYK": (image(RGB, "CMYK"), "x.tif", RGB),
    "the first frame of a GIF": (
        (TWO_COLORS, {"save_all": True, "append_images": [PALETTE]}),
        "x.gif",
        COLORS,
    ),
    "WEBP": ((image(RGB), {"lossless": True}), "x.webp", RGB),
    "BMP in upper case": (image(RGB), "X.BMP", RGB),
    "PPM": (image(RGB), "x.ppm", RGB),
    "a wrong suffix": ((image(RGB), {"format": "PNG"}), "x.jpg", RGB),
    "no suffix": ((image(RGB), {"format": "PNG"}), "x", RGB),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_image(tmp_path, kind):
    saved, name, pixels = KINDS[kind]
    saved, options = saved if isinstance(saved, tuple) else (saved, {})
    folder = make_image_folder(tmp_path / "photos")
    saved.save(folder / "train/ant" / name, **options)
    source = load_folder(folder)
    place = source.train_files.index(f"train/ant/{name}")
    np.testing.assert_array_equal(source.train_images[place], pixels)


def huge_png() -> bytes:
    """The header of a PNG of 10,000 x 10,000 pixels, and none of them."""
    size = (10_000).to_bytes(4, "big")
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in ((b"IHDR", size + size + b"\x08\2\0\0\0"), (b"IDAT", b"")):
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        parts += [len(content).to_bytes(4, "big"), kind, content, checksum]
    return b"".join(parts)


def save(made, name="9.png", **options):
    return lambda folder: made.save(folder / "train/ant" / name, **options)


def put(content, name="9.png"):
    return lambda folder: (folder / "train/ant" / name).write_bytes(content)


def large_text(folder):
    info = PngImagePlugin.PngInfo()
    info.add_text("key", "x" * 2_000_000, zip=True)
    image(RGB).save(folder / "train/ant/9.png", pnginfo=info)


def cut_short(folder):
    path = folder / "train/ant/1.png"
    path.write_bytes(path.read_bytes()[:80])


def resize_test_images(folder):
    for path in folder.glob("test/*/*"):
        Image.new("RGB", (5, 5)).save(path)


def make_all(pixels, **options):
    def change(folder):
        for path in folder.glob("train/*/*"):
            pixels.save(path, **options)

    return change


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
NO_IMAGE = "not a readable image"
# What is wrong with a file: how it is made so, and words of the message.
BAD_FILES = {
    "float": (save(image(RAMP / np.float32(255)), "9.tif"), ["9.tif", "with 8 bits"]),
    "32 bits": (save(image(RAMP.astype(np.int32)), "9.tif"), ["9.tif", "with 8 bits"]),
    "a turned TIFF": (save(image(GRAY), "9.tif", tiffinfo={274: 6}), ["9.tif", "upright"]),
    "a bomb": (put(huge_png()), ["9.png", "exceeds limit"]),
    "a large text": (large_text, ["9.png", NO_IMAGE]),
    "cut short": (cut_short, ["1.png", NO_IMAGE]),
    "zero bytes": (put(b""), ["9.png", NO_IMAGE]),
    "text": (put(b"no image", "notes.txt"), ["notes.txt", NO_IMAGE]),
    "a program for Ghostscript": (put(EPS, "9.eps"), ["9.eps", NO_IMAGE]),
    "a pipe": (lambda folder: os.mkfifo(folder / "train/ant/p.png"), ["p.png", "not a file"]),
    "a broken link": (
        lambda folder: (folder / "train/ant/l.png").symlink_to("nowhere"),
        ["l.png", "not a file"],
    ),
    "a folder": (lambda folder: (folder / "train/ant/images").mkdir(), ["images", "not a file"]),
    "escapes": (put(b"x", "\x1b[31m.png"), [r"\x1b[31m.png", NO_IMAGE]),
    "mixed sizes": (save(Image.new("RGB", (5, 5))), ["9.png", "5x5", "9x8", "--image-size 32"]),
    "two sizes": (resize_test_images, ["test/ant/0.png", "5x5", "9x8", "--image-size 32"]),
    "too large": (save(Image.new("RGB", (65, 8))), ["9.png", "64", "--image-size 32"]),
    "all equal": (make_all(image(RGB)), ["all training images are equal"]),
    "white on transparent": (make_all(with_alpha(WHITE)), ["white drawings on a transparent"]),
    "8 bits in 16": (make_all(image(GRAY.astype(np.uint16)), format="PNG"), ["nearly black"]),
}


def add_empty_class(folder):
    for split in ("train", "test"):
        (folder / split / "cat").mkdir()


BAD = BAD_FILES | {
    "no train": (lambda folder: (folder / "train").rename(folder / "x"), ["no folder train/"]),
    "val for test": (lambda folder: (folder / "test").rename(folder / "val"), ["no folder test/"]),
    "other classes": (
        lambda folder: (folder / "test/bee").rename(folder / "test/wasp"),
        ["same", "wasp"],
    ),
    "empty class": (add_empty_class, ["class cat has no image"]),
    "an image without a class": (
        lambda folder: (folder / "train/ant/0.png").rename(folder / "train/0.png"),
        ["train/0.png: an image outside a class folder"],
    ),
    "one name twice": (
        lambda folder: [(folder / "train" / n).mkdir() for n in ("\u00e9", "e\u0301")],
        ["two folders of one name"],
    ),
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


def change_content(folder):
    (folder / "train/ant/0.png").write_bytes((folder / "test/ant/0.png").read_bytes())


def change_time(folder):
    os.utime(folder / "test/bee/2.png", ns=(1, 1))


def rename_file(folder):
    (folder / "train/ant/0.png").rename(folder / "train/ant/00.png")


@pytest.mark.parametrize("change", [change_content, change_time, rename_file])
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
    """The content of a small archive laid out like CIFAR's: batches and class names."""
    random, classes = np.random.default_rng(0), 10 if name == "cifar10" else 100
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    names, kind = (names, "labels") if classes == 10 else (["train", "test"], "fine_labels")
    content = {
        batch: {
            "data": random.integers(0, 256, (2 * classes, 3072), np.uint8),
            "filenames": [f"{name}_{random.integers(10**9)}.png" for _ in range(2 * classes)],
            kind: [*range(classes)] * 2,
            "coarse_labels": [0] * 2 * classes,
        }
        for batch in names
    }
    titles = [f"class {k}" for k in range(classes)]
    meta = {"labels": "batches.meta", "fine_labels": "meta"}[kind]
    content[meta] = {{"labels": "label_names", "fine_labels": "fine_label_names"}[kind]: titles}
    return content


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, tmp_path, monkeypatch):
    """A small archive that torchvision is told to accept: data set, training batches, path."""
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
    title, archive, md5, folder = CIFAR[request.param]
    dataset, content = getattr(datasets, title), make_cifar(request.param)
    path = tmp_path / "archive" / archive
    path.parent.mkdir()
    files = {name: pickle.dumps(value) for name, value in content.items()}
    with tarfile.open(path, "w:gz") as file:
        for name, raw in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(raw)
            file.addfile(entry, io.BytesIO(raw))
    assert dataset.tgz_md5 == md5
    listed = [[name, hashlib.md5(raw).hexdigest()] for name, raw in files.items()]
    *batches, (_, meta_md5) = listed
    for name, value in {
        "meta": {**dataset.meta, "md5": meta_md5},
        "train_list": batches[:-1],
        "test_list": batches[-1:],
        "tgz_md5": hashlib.md5(path.read_bytes()).hexdigest(),
        "url": f"http://127.0.0.1:9/{archive}",  # nobody answers there
    }.items():
        monkeypatch.setattr(dataset, name, value)
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
    for folder in (path.parent, path.parent / CIFAR[name][3]):
        again = load_source(DataSettings(dataset=name, data_dir=str(folder)))
        np.testing.assert_array_equal(again.train_images, source.train_images)


def test_a_changed_archive_is_not_unpickled(cifar):
    name, _, path = cifar
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=str(path.parent)):
        load_source(DataSettings(dataset=name, data_dir=str(path.parent)))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def replace_torchvision(monkeypatch, module):
    """Put another module, or None for no module, in the place of torchvision.datasets."""
    monkeypatch.setitem(sys.modules, "torchvision", module and types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)


@pytest.mark.parametrize("name", CIFAR)
def test_a_failed_download_says_where_to_put_the_archive(tmp_path, monkeypatch, name):
    def fail(*args, **kwargs):
        raise OSError("no network")

    title, archive, md5, _ = CIFAR[name]
    module = types.ModuleType("torchvision.datasets")
    setattr(module, title, fail)
    replace_torchvision(monkeypatch, module)
    with pytest.raises(UserError) as error:
        load_source(DataSettings(dataset=name, data_dir=str(tmp_path / "archive")))
    assert all(words in str(error.value) for words in (str(tmp_path / "archive"), archive, md5))


class Mismatched(types.ModuleType):
    def __getattr__(self, name):
        raise RuntimeError("operator torchvision::nms does not exist")


@pytest.mark.parametrize("module", [None, Mismatched("torchvision.datasets")])
def test_cifar_without_torchvision_says_why(monkeypatch, module):
    replace_torchvision(monkeypatch, module)
    with pytest.raises(UserError, match=r"--dataset cifar10 needs torchvision.*pair"):
        load_source(DataSettings(dataset="cifar10"))
    assert len(load_source(DataSettings(dataset="shapes", train_size=20)).train_labels) == 20


def test_an_unknown_source_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere: neither cifar10"):
        load_source(DataSettings(dataset=str(tmp_path / "nowhere")))


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


@pytest.mark.slow
def test_more_shapes_than_are_drawn_at_a_time():
    images, labels = draw(4200)
    assert len(labels) == 4200 and (images.reshape(4200, -1).std(axis=1) > 10).all()


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
