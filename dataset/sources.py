"""Where images come from: CIFAR-10, CIFAR-100, the built-in shapes, or a folder of images.

A source returns a Source; SOURCES lists those that have a name.
"""

import hashlib
import pickle
import re
import unicodedata
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from common.command_line import UserError
from dataset.data_file import fits_memory
from dataset.shapes import SHAPES, draw_shapes

# torchvision's name of a data set, and the md5 of its archive.
CIFAR = {
    "cifar10": ("CIFAR10", "c58f30108f718f92721af3b95e74349a"),
    "cifar100": ("CIFAR100", "eb9058c3a382ffc7106e4002c42a8d85"),
}
LARGEST = 64  # pixels per side, of a folder's images
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
# Pillow reads others by running programs, such as Ghostscript for EPS.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000")
ORIENTATION = 0x0112  # EXIF's tag
DARKEST = 16  # a folder without a brighter pixel was scaled wrongly


@dataclass(frozen=True)
class Source:
    """Images uint8 (N, H, W, 3) and clean labels int64 (N,) of both splits, and class names.

    The names of the images' files, if known: for a folder as train/<class>/<file>.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: list[str]
    train_files: list[str] | None = None
    test_files: list[str] | None = None
    is_folder: bool = False


def load_cifar(settings) -> Source:
    """CIFAR-10 or CIFAR-100 (fine classes) through torchvision: 60,000 images.

    It downloads what settings.data_dir lacks, which may also be the unpacked folder itself, and
    checks the md5 of its files. Raises UserError if torchvision or the archive is not available.
    """
    name, md5 = CIFAR[settings.dataset]
    try:
        cifar = getattr(import_module("torchvision.datasets"), name)
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"--dataset {settings.dataset} needs torchvision, which does not import ({error}); "
            "install a matching pair of torch and torchvision, or use a folder of images"
        ) from error
    folder = Path(settings.data_dir).resolve()
    folder = folder.parent if folder.name == cifar.base_folder else folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        train, test = (cifar(str(folder), train=train, download=True) for train in (True, False))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"--dataset {settings.dataset}: download failed ({error}); put {cifar.filename} "
            f"(md5 {md5}) into {folder} and run again"
        ) from error
    return Source(
        train_images=train.data,
        train_labels=np.asarray(train.targets, np.int64),
        test_images=test.data,
        test_labels=np.asarray(test.targets, np.int64),
        class_names=list(train.classes),
        train_files=_cifar_files(train, train.train_list),
        test_files=_cifar_files(test, test.test_list),
    )


def _cifar_files(cifar, batches: list) -> list[str] | None:
    """The file names that CIFAR's batches give their images; torchvision has checked their md5."""
    names = []
    for batch, _ in batches:
        with open(Path(cifar.root, cifar.base_folder, batch), "rb") as file:
            names += pickle.load(file, encoding="latin1").get("filenames", [])
    return names if len(names) == len(cifar.data) else None


def load_shapes(settings) -> Source:
    """The built-in shapes, drawn from settings.seed, as many as asked for."""
    train_random, test_random = (np.random.default_rng([settings.seed, k]) for k in (3, 4))
    train_size, test_size = SIZES["shapes"]
    train_size, test_size = settings.train_size or train_size, settings.test_size or test_size
    _check_memory(train_size + test_size, 32)
    train, test = draw_shapes(train_size, train_random), draw_shapes(test_size, test_random)
    return Source(*train, *test, class_names=list(SHAPES))


def _check_memory(count: int, side: int) -> None:
    """Raise UserError if `count` images would not fit: they are held up to three times at once."""
    if not fits_memory(3 * count * 3 * side**2):
        words = "are more than memory holds; lower --train-size, --test-size or --image-size"
        raise UserError(f"--dataset: {count} images of {side}x{side} pixels {words}")


SIZES = {"cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "shapes": (2000, 1000)}
SOURCES = {"cifar10": load_cifar, "cifar100": load_cifar, "shapes": load_shapes}


def load_source(settings) -> Source:
    """The source that settings.dataset names: a key of SOURCES, or a folder.

    Raises UserError if it is neither, or cannot be read.
    """
    if settings.dataset in SOURCES:
        return SOURCES[settings.dataset](settings)
    folder = Path(settings.dataset)
    if not folder.is_dir():
        raise UserError(f"--dataset {settings.dataset}: neither {', '.join(SOURCES)} nor a folder")
    return load_folder(folder, settings.image_size)


def source_name(dataset: str) -> str:
    """The name of a source in SOURCES, or the last part of a folder's path."""
    return dataset if dataset in SOURCES else Path(dataset).resolve().name


def source_sizes(dataset: str) -> tuple[int, int] | tuple[None, None]:
    """How many training and test images a source has by default, if it is there."""
    if dataset in SOURCES or not Path(dataset).is_dir():
        return SIZES.get(dataset, (None, None))
    train, test = list_files(Path(dataset)).values()
    return sum(map(len, train.values())), sum(map(len, test.values()))


def source_digest(dataset: str) -> str | None:
    """What tells a source from another one of its name; None for shapes, and for no folder.

    Of CIFAR the archive's md5, of a folder the names, sizes and times of its files.
    """
    if dataset in SOURCES:
        return hashlib.sha256(CIFAR[dataset][1].encode()).hexdigest() if dataset in CIFAR else None
    folder = Path(dataset)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for paths in (p for classes in list_files(folder).values() for p in classes.values()):
        for path in paths:
            stat = path.stat() if path.exists() else path.lstat()
            line = f"{path.relative_to(folder).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


# --- folders of images ---


def numeric_names(names: Iterable[str]) -> list[int] | None:
    """The names as integers, if all are different integers."""
    values = [int(name) for name in names if re.fullmatch(r"[0-9]{1,18}", name)]
    return values if len(set(values)) == len(list(names)) else None


def list_files(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """The files of each split by class: classes sorted, by number if all names are numbers.

    The files of a class are in the order of their names as text. Hidden files are left out. Class
    names are in Unicode's form NFC; macOS writes others. Raises UserError that names what does not
    fit.
    """
    splits = {split: _list_split(folder, split) for split in ("train", "test")}
    train, test = (list(classes) for classes in splits.values())
    if train != test or len(train) < 2:
        words = f"need the same two or more classes, but have {train[:12]} and {test[:12]}"
        raise UserError(f"--dataset {folder}: train/ and test/ {words}")
    return splits


def _list_split(folder: Path, split: str) -> dict[str, list[Path]]:
    if not (folder / split).is_dir():
        raise UserError(f"--dataset {folder}: no folder {split}/; use {split}/<class>/<image>")
    classes = {}
    for path in sorted((folder / split).glob("[!.]*")):
        name = unicodedata.normalize("NFC", path.name)
        if not path.is_dir():
            if path.suffix.lower() in SUFFIXES:
                raise UserError(f"{path}: an image outside a class folder; move or remove it")
        elif classes.setdefault(name, path) is not path:
            raise UserError(f"{path}: two folders of one name; merge them")
    names = sorted(classes, key=int if numeric_names(classes) else None)
    files = {name: sorted(classes[name].glob("[!.]*")) for name in names}
    for name, paths in files.items():
        if not paths:
            raise UserError(f"--dataset {folder}: {split}/{name}/ has no image")
    return files


def load_folder(folder: Path, image_size: int | None = None) -> Source:
    """The images of folder/train/<class>/* and folder/test/<class>/*, as list_files sorts them.

    All images have one size of at most 64x64 pixels, or become squares of image_size pixels.
    Raises UserError that names what does not fit.
    """
    files = list_files(folder)
    train = _read_split(files["train"], image_size)
    test = _read_split(files["test"], image_size, train[0].shape[1:])
    if (train[0] == train[0][0]).all() or train[0].max() < DARKEST:
        raise UserError(
            f"--dataset {folder}: all training images are equal or nearly black, such as white "
            "drawings on a transparent background, or 12 bits in 16-bit files; save them "
            "as 8-bit RGB"
        )
    names = (
        [path.relative_to(folder).as_posix() for paths in classes.values() for path in paths]
        for classes in files.values()
    )
    return Source(*train, *test, list(files["train"]), *names, is_folder=True)


def _read_split(
    classes: dict[str, list[Path]], image_size: int | None, shape: tuple[int, ...] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a split; all images have `shape`, or that of the first one."""
    images, counts = [], [len(paths) for paths in classes.values()]
    for path in (path for paths in classes.values() for path in paths):
        image = _read_image(path, image_size)
        if shape is None:
            shape = image.shape
            _check_memory(sum(counts), shape[0])
        if image.shape != shape:
            raise UserError(
                f"{path}: {image.shape[1]}x{image.shape[0]} pixels, but the other images have "
                f"{shape[1]}x{shape[0]}; use one size, or crop and resize all with --image-size 32"
            )
        images.append(image)
    return np.stack(images), np.repeat(np.arange(len(counts)), counts)


def _read_image(path: Path, image_size: int | None) -> np.ndarray:
    """uint8 (H, W, 3) of an image file. Raises UserError if it is not an image or is too large."""
    from PIL import Image, ImageOps

    if not path.is_file():
        raise UserError(f"{path}: not a file; remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF data and the like
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image_size is None and max(image.size) > LARGEST:
                    raise UserError(
                        f"{path}: {image.size[0]}x{image.size[1]} is over {LARGEST} pixels; crop "
                        "and resize all images with --image-size 32"
                    )
                # Pillow 13 reads uncompressed TIFF files of orientations 5 to 8 as noise.
                if image.format == "TIFF" and image.tag_v2.get(ORIENTATION, 1) != 1:
                    raise UserError(f"{path}: a rotated TIFF; save it upright")
                if image.mode in ("I", "F"):
                    raise UserError(
                        f"{path}: pixels of 32 bits or floating point, or a PGM of more than 8 "
                        "bits, have no known range; save it with 8 bits"
                    )
                return _to_rgb(ImageOps.exif_transpose(image), image_size)
    except UserError:
        raise
    except Exception as error:  # a damaged file can make a reader fail in any way
        raise UserError(f"{path}: not a readable image ({error}); remove it") from error


def _to_rgb(image, image_size: int | None) -> np.ndarray:
    """uint8 (H, W, 3): 16 bits scaled to 8, transparent parts on white, cropped and resized."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        values, clear = np.asarray(image), image.info.get("transparency")
        pixels = (values >> 8).astype(np.uint8)
        if isinstance(clear, int):
            pixels[values == clear] = 255
        image = Image.fromarray(pixels)
    elif image.mode[-1] in "Aa" or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if image_size:
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        image = image.crop((left, top, left + side, top + side))
        image = image.resize((image_size, image_size), Image.Resampling.LANCZOS)
    return np.asarray(image)
