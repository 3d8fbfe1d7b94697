"""dataset/sources.py: folders, images of every kind, CIFAR-10 and CIFAR-100, good and bad."""

import hashlib
import io
import os
import pickle
import sys
import tarfile
import types
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
from helpers import make_image_folder
from PIL import Image, PngImagePlugin

from common.command_line import UserError
from dataset.data_file import read_dataset
from dataset.sources import CIFAR10_MD5, CIFAR100_MD5, list_files, load_folder, source_digest

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
    "palette of half-transparent colors": (
        (TWO_COLORS, {"transparency": bytes([0, 255])}),
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
    "opaque RGBA": (with_alpha(RGB, np.full((8, 9), 255, np.uint8)), "x.png", RGB),
    "gray with alpha": (with_alpha(GRAY), "x.png", np.where(ALPHA[..., None], gray(GRAY), 255)),
    "RGB with a transparent color": (
        (image(COLORS.astype(np.uint8)), {"transparency": (10, 20, 30)}),
        "x.png",
        np.where(RAMP[..., None] > 100, COLORS, 255),
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


def test_kinds_enough():
    assert len(KINDS) + len(BAD_FILES) >= 35


def png(*chunks) -> bytes:
    """A PNG of the chunks (type, content), whatever is in them."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in chunks:
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        parts += [len(content).to_bytes(4, "big"), kind, content, checksum]
    return b"".join(parts)


def header(width, height):
    return b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\2\0\0\0"


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
    "a bomb": (put(png(header(14_000, 14_000), (b"IDAT", b""))), ["9.png", "exceeds limit"]),
    "half a bomb": (put(png(header(10_000, 10_000), (b"IDAT", b""))), ["9.png", "exceeds limit"]),
    "a large text": (large_text, ["9.png", NO_IMAGE]),
    "no pixels": (put(png(header(0, 0), (b"IDAT", b""))), ["9.png", NO_IMAGE]),
    "cut short": (cut_short, ["1.png", NO_IMAGE]),
    "zero bytes": (put(b""), ["9.png", NO_IMAGE]),
    "text": (put(b"no image", "notes.txt"), ["notes.txt", NO_IMAGE]),
    "a program for Ghostscript": (put(EPS, "9.eps"), ["9.eps", NO_IMAGE]),
    "a pipe": (lambda folder: os.mkfifo(folder / "train/ant/p.png"), ["p.png", "not a file"]),
    "a broken link": (
        lambda folder: (folder / "train/ant/l.png").symlink_to("nowhere"),
        ["l.png", "not a file"],
    ),
    "a folder": (lambda folder: (folder / "train/ant/images").mkdir(), ["images", "a folder, not"]),
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


BAD_FOLDERS = {
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


@pytest.mark.parametrize("name", BAD_FILES | BAD_FOLDERS)
def test_a_bad_folder_is_refused(refused, workplace, name):
    folder, (damage, words) = (
        make_image_folder(workplace / "photos"),
        {**BAD_FILES, **BAD_FOLDERS}[name],
    )
    damage(folder)
    message = refused("generate", "--dataset", folder)
    assert all(word in message for word in words), message
    assert [path.name for path in (workplace / "data").iterdir()] == ["small.npz"]


# --- folders ---


def test_a_folder_of_images(script, workplace):
    folder = make_image_folder(workplace / "photos")
    for hidden in ("train/.DS_Store", "train/ant/.thumbs", "train/bee/._0.png", "train/notes.txt"):
        (folder / hidden).write_text("skipped")
    assert script("generate", "--dataset", folder, "--noise", "symmetric", "--rate", "0.5")[0] == 0
    dataset = read_dataset("data/photos-symmetric50.npz")
    assert dataset.class_names == ["ant", "bee"] and dataset.train_images.shape == (6, 8, 9, 3)
    assert dataset.clean_labels.tolist() == dataset.test_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.chosen["test_files"].tolist()[4] == "test/bee/1.png"
    with Image.open(folder / "test/bee/1.png") as made:
        np.testing.assert_array_equal(dataset.test_images[4], np.asarray(made))


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


def test_files_are_sorted_as_text(tmp_path):
    folder = make_image_folder(tmp_path / "photos", count=11)
    names = [path.name for path in list_files(folder)["train"]["ant"]]
    assert names == ["0.png", "1.png", "10.png", *(f"{k}.png" for k in range(2, 10))]


@pytest.mark.parametrize("flags", [["--dataset", "shapes"], ["--dataset", "photos"]])
def test_what_memory_cannot_hold_is_refused(refused, workplace, monkeypatch, flags):
    make_image_folder(workplace / "photos")
    monkeypatch.setattr("dataset.sources.fits_memory", lambda size: size < 1000)
    assert "memory" in refused("generate", *flags)
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    message = refused("generate", "--dataset", "shapes", "--train-size", 10**12)
    assert "--train-size" in message


# --- CIFAR ---

TWENTY = [*range(10)] * 2


@dataclass
class Cifar:
    """A small archive laid out like CIFAR's, and the names of what is in it."""

    name: str
    archive: str
    folder: str
    md5: str
    meta: str
    content: dict


def make_cifar(name) -> Cifar:
    random = np.random.default_rng(0)

    def batch(count, **labels):
        files = [f"{name}_{random.integers(10**9)}.png" for _ in range(count)]
        return {
            "data": random.integers(0, 256, (count, 3072), np.uint8),
            "filenames": files,
            **labels,
        }

    if name == "CIFAR10":
        batches = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
        content = {key: batch(20, labels=TWENTY) for key in batches}
        content["batches.meta"] = {"label_names": [f"class {k}" for k in range(10)]}
        names = ("cifar-10-python.tar.gz", "cifar-10-batches-py", CIFAR10_MD5, "batches.meta")
        return Cifar(name, *names, content)
    fine = [*range(100)] * 2
    content = {
        key: batch(200, fine_labels=fine, coarse_labels=[k // 5 for k in fine])
        for key in ("train", "test")
    }
    content["meta"] = {"fine_label_names": [f"class {k}" for k in range(100)]}
    return Cifar(name, "cifar-100-python.tar.gz", "cifar-100-python", CIFAR100_MD5, "meta", content)


@pytest.fixture(params=["CIFAR10", "CIFAR100"])
def cifar(request, tmp_path, monkeypatch):
    """A small archive that torchvision is told to accept, and the path of it."""
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
    cifar, dataset = make_cifar(request.param), getattr(datasets, request.param)
    path = tmp_path / "archive" / cifar.archive
    files = {name: pickle.dumps(value) for name, value in cifar.content.items()}
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as file:
        for name, raw in files.items():
            entry = tarfile.TarInfo(f"{cifar.folder}/{name}")
            entry.size = len(raw)
            file.addfile(entry, io.BytesIO(raw))
    md5 = {name: hashlib.md5(raw).hexdigest() for name, raw in files.items()}
    assert dataset.tgz_md5 == cifar.md5
    train = [[name, md5[name]] for name in files if "meta" not in name and "test" not in name]
    for name, value in {
        "meta": {**dataset.meta, "md5": md5[cifar.meta]},
        "train_list": train,
        "test_list": [[name, md5[name]] for name in files if "test" in name],
        "tgz_md5": hashlib.md5(path.read_bytes()).hexdigest(),
        "url": f"http://127.0.0.1:9/{cifar.archive}",  # nobody answers there
    }.items():
        monkeypatch.setattr(dataset, name, value)
    return cifar, path


def test_an_archive_on_disk_is_used_without_the_network(script, workplace, cifar):
    cifar, path = cifar
    flags = ["--dataset", cifar.name.lower()]
    assert script("generate", *flags, "--data-dir", path.parent)[0] == 0
    file = workplace / f"data/{cifar.name.lower()}-pair40.npz"
    dataset, first = read_dataset(file), file.read_bytes()
    train = [
        value for name, value in cifar.content.items() if "data" in value and "test" not in name
    ]
    pixels = np.concatenate([batch["data"] for batch in train])
    channels_first = dataset.train_images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(channels_first.reshape(len(pixels), -1), pixels)
    classes = dataset.num_classes
    assert np.sum(dataset.train_labels != dataset.clean_labels) == 0.4 * len(pixels)
    assert dataset.clean_labels.tolist() == [*range(classes)] * (len(pixels) // classes)
    assert dataset.class_names == [f"class {k}" for k in range(classes)]
    # The unpacked folder alone serves as well, also by its own name.
    path.unlink()
    for folder in (path.parent, path.parent / cifar.folder):
        assert script("generate", *flags, "--data-dir", folder)[0] == 0
        assert file.read_bytes() == first


def test_labels_by_the_names_in_cifars_batches(script, workplace, cifar):
    cifar, path = cifar
    train = [
        value for name, value in cifar.content.items() if "data" in value and "test" not in name
    ]
    names = [name for batch in train for name in batch["filenames"]]
    clean = np.concatenate([batch.get("labels") or batch["fine_labels"] for batch in train])
    noisy = np.where(np.arange(len(clean)) % 4 == 0, (clean + 1) % len(set(clean)), clean)
    order = np.random.default_rng(2).permutation(len(clean))
    lines = [f"{names[k]},{noisy[k]}" for k in order]
    (workplace / "a.csv").write_text("\n".join(["file,noisy", *lines]))
    flags = ["--dataset", cifar.name.lower(), "--data-dir", path.parent, "--noise", "a.csv"]
    status, out, err = script("generate", *flags)
    assert status == 0 and "placed by file name (file)" in out, err
    dataset = read_dataset(f"data/{cifar.name.lower()}-a.npz")
    np.testing.assert_array_equal(dataset.train_labels, noisy)


def test_a_changed_archive_is_not_unpickled(refused, workplace, cifar):
    cifar, path = cifar
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    message = refused("generate", "--dataset", cifar.name.lower(), "--data-dir", path.parent)
    assert str(path.parent) in message and not (path.parent / cifar.folder).exists()


def replace_torchvision(monkeypatch, module):
    """Put another module, or None for no module, in the place of torchvision.datasets."""
    monkeypatch.setitem(sys.modules, "torchvision", module and types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_a_failed_download_says_where_to_put_the_archive(refused, workplace, monkeypatch, name):
    def fail(*args, **kwargs):
        raise OSError("no network")

    module = types.ModuleType("torchvision.datasets")
    setattr(module, name, fail)
    replace_torchvision(monkeypatch, module)
    message = refused("generate", "--dataset", name.lower(), "--data-dir", "archive")
    known = make_cifar(name)
    assert all(w in message for w in (str(workplace / "archive"), known.archive, known.md5))


def test_without_torchvision_shapes_work_and_cifar_says_why(
    script, refused, workplace, monkeypatch
):
    replace_torchvision(monkeypatch, None)
    for name in ("cifar10", "cifar100"):
        assert f"--dataset {name} needs torchvision" in refused("generate", "--dataset", name)
    assert script("generate", "--dataset", "shapes", "--train-size", 20)[0] == 0


def test_a_mismatched_pair_of_torch_and_torchvision_is_named(refused, workplace, monkeypatch):
    class Mismatched(types.ModuleType):
        def __getattr__(self, name):
            raise RuntimeError("operator torchvision::nms does not exist")

    replace_torchvision(monkeypatch, Mismatched("torchvision.datasets"))
    message = refused("generate", "--dataset", "cifar10")
    assert "torchvision::nms" in message and "pair" in message


def test_an_unknown_source_is_refused(tmp_path):
    from dataset.make import DataSettings
    from dataset.sources import load_source

    with pytest.raises(UserError, match="nowhere: neither cifar10"):
        load_source(DataSettings(dataset=str(tmp_path / "nowhere")))
