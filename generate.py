"""Make a data set with wrong labels: data/<dataset>-<noise><percent>.npz.

    python generate.py                                     CIFAR-10, pair flip, 40% wrong
    python generate.py --noise symmetric --rate 0.2
    python generate.py --dataset shapes                    the built-in shapes, nothing to fetch
    python generate.py --dataset photos                    photos/train/<class>/*, photos/test/...

Test labels are never changed; the true training labels are kept beside the given ones.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data import DataError, DataSet, array_digests, balanced_subset, write_dataset

CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"
LARGEST = 64  # pixels a side of a folder's images
Source = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]


def _box(u: np.ndarray, v: np.ndarray, width: float, height: float) -> np.ndarray:
    return np.maximum(np.abs(u) - width, np.abs(v) - height)


def _bars(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    nearest = np.abs((u + 0.3) % 0.6 - 0.3)  # to the middle of the nearest bar, at -0.6, 0, 0.6
    return np.maximum(_box(u, v, 0.8, 0.8), nearest - 0.17)


def _plus(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(_box(u, v, 0.95, 0.25), _box(u, v, 0.25, 0.95))


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    radius, tenth, inner = np.hypot(u, v), np.pi / 5, 0.42  # inner: of the notches
    angle = np.abs((np.arctan2(u, -v) + tenth) % (2 * tenth) - tenth)  # from the nearest point
    normal = np.array([inner * np.sin(tenth), 1 - inner * np.cos(tenth)])
    normal /= np.hypot(*normal)  # of the edge between that point, at (1, 0), and the notch
    return (radius * np.cos(angle) - 1) * normal[0] + radius * np.sin(angle) * normal[1]


# Distance to the outline in units of the shape's size, negative inside; u to the right, v down.
SHAPES = {
    "disc": lambda u, v: np.hypot(u, v) - 0.85,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.7) - 0.2,
    "square": lambda u, v: _box(u, v, 0.75, 0.75),
    "frame": lambda u, v: np.abs(_box(u, v, 0.62, 0.62)) - 0.17,
    "triangle": lambda u, v: np.maximum(v - 0.5, 0.75**0.5 * np.abs(u) - 0.5 * v - 0.5),
    "plus": _plus,
    "cross": lambda u, v: _plus((u + v) * 0.5**0.5, (u - v) * 0.5**0.5),
    "vertical bars": _bars,
    "horizontal bars": lambda u, v: _bars(v, u),
    "star": _star,
}


def draw_shapes(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Drawn shapes, light on dark, in equal classes and random order.

    Place, size, tilt (under 15 degrees, so that a plus is no cross), both colours and the pixel
    noise are random. Returns images uint8 (count, 32, 32, 3) and labels int64 (count,).
    """
    side, chunk = 32, 4096  # chunk: images at a time, for memory
    labels = random.permutation(np.arange(count) % len(SHAPES))
    size = random.uniform(8, 12, count)
    x, y = (side - 1) / 2 + random.uniform(-1, 1, (2, count)) * np.maximum(side / 2 - size, 0)
    tilt = np.radians(random.uniform(-15, 15, count))
    dark, light = random.uniform(0, 0.4, (count, 3)), random.uniform(0.5, 1, (count, 3))
    images = np.empty((count, side, side, 3), np.uint8)
    for start in range(0, count, chunk):
        part = slice(start, min(start + chunk, count))
        right = np.arange(side)[None, None, :] - x[part, None, None]
        down = np.arange(side)[None, :, None] - y[part, None, None]
        cosine, sine = np.cos(tilt[part, None, None]), np.sin(tilt[part, None, None])
        u, v = cosine * right + sine * down, cosine * down - sine * right  # (n, 32, 32), pixels
        cover = np.empty(u.shape)  # 1 inside, 0 outside, between them over one pixel
        for label, outline in enumerate(SHAPES.values()):
            of_class = labels[part] == label
            scale = size[part][of_class, None, None]
            cover[of_class] = 0.5 - scale * outline(u[of_class] / scale, v[of_class] / scale)
        cover = cover.clip(0, 1)[..., None]
        colour = dark[part, None, None] * (1 - cover) + light[part, None, None] * cover
        colour += random.normal(0, 0.08, colour.shape)
        images[part] = (255 * colour).round().clip(0, 255)
    return images, labels


def flip_labels(
    labels: np.ndarray, noise: str, rate: float, num_classes: int, seed: int
) -> np.ndarray:
    """Labels (N,) with exactly round(rate N) of them wrong.

    pair: y -> (y + 1) mod C. symmetric: uniform over the other C - 1 classes. none: unchanged.
    Which labels are wrong, and what they become, are two draws of `seed` over all N labels, so
    that the labels wrong at a lower rate are among those wrong at a higher one.
    """
    random = np.random.default_rng([seed, 1])
    order = random.permutation(len(labels))
    step = random.integers(1, num_classes, len(labels)) if noise == "symmetric" else 1
    flipped = (labels + step) % num_classes
    wrong = order[: round(rate * len(labels)) if noise != "none" else 0]
    given = labels.copy()
    given[wrong] = flipped[wrong]
    return given


def load_cifar10(data_dir: Path) -> Source:
    """CIFAR-10 through torchvision, which fetches it if absent and checks the md5 of what it reads.

    Raises DataError if torchvision does not import or the archive cannot be had.
    """
    try:
        from torchvision.datasets import CIFAR10
    except (ImportError, RuntimeError) as error:
        raise DataError(
            f"--dataset cifar10 needs torchvision, which does not import here ({error}); install "
            "the pair of torch and torchvision that fit each other, or use a folder of images"
        ) from None
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        parts = [CIFAR10(str(data_dir), train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"CIFAR-10 cannot be fetched ({error}); put cifar-10-python.tar.gz (md5 {CIFAR10_MD5}) "
            f"into {data_dir.resolve()} and run this again"
        ) from None
    train, test = ((part.data, np.asarray(part.targets, np.int64)) for part in parts)
    return *train, *test, list(parts[0].classes)


def load_folder(folder: Path) -> Source:
    """The images of folder/train/<class>/* and folder/test/<class>/*, classes in sorted order.

    All are of one size of at most 64x64; grey ones become RGB; hidden files are passed over.
    Raises DataError that names what does not fit.
    """
    names = {}
    for part in ("train", "test"):
        if not (folder / part).is_dir():
            raise DataError(
                f"--dataset {folder}: it has no folder {part}/; see the README's layout"
            )
        names[part] = sorted(path.name for path in (folder / part).glob("[!.]*") if path.is_dir())
    if names["train"] != names["test"] or len(names["train"]) < 2:
        raise DataError(
            f"--dataset {folder}: train/ and test/ need the same two or more classes, but hold "
            f"{names['train'][:12]} and {names['test'][:12]}"
        )
    content, size = [], None
    for part in ("train", "test"):
        images, labels = [], []
        for label, name in enumerate(names[part]):
            paths = sorted((folder / part / name).glob("[!.]*"))
            if not paths:
                raise DataError(f"--dataset {folder}: {part}/{name} holds no image")
            for path in paths:
                images.append(_read_image(path))
                size = size or images[0].shape
                if images[-1].shape != size:
                    raise DataError(
                        f"{path}: {images[-1].shape[1]}x{images[-1].shape[0]} pixels, the others "
                        f"{size[1]}x{size[0]}; all images must be of one size"
                    )
            labels += [label] * len(paths)
        content += [np.stack(images), np.array(labels, np.int64)]
    return *content, names["train"]


def _read_image(path: Path) -> np.ndarray:
    """uint8 (H, W, 3) of an image file. Raises DataError if it is none or too large."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if max(image.size) > LARGEST:
                raise DataError(f"{path}: {image.size[0]}x{image.size[1]} is over {LARGEST} pixels")
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"{path}: not a readable image ({error}); remove it") from None


def make_dataset(args: argparse.Namespace) -> DataSet:
    """The data set that the flags ask for."""
    if args.dataset == "cifar10":
        source = load_cifar10(Path(args.data_dir))
    elif args.dataset == "shapes":
        train_size, test_size = args.train_size or 2000, args.test_size or 1000
        source = (
            *draw_shapes(train_size, np.random.default_rng([args.seed, 3])),
            *draw_shapes(test_size, np.random.default_rng([args.seed, 4])),
            list(SHAPES),
        )
    elif Path(args.dataset).is_dir():
        source = load_folder(Path(args.dataset))
    else:
        raise DataError(f"--dataset {args.dataset}: neither cifar10, shapes nor a folder here")
    *parts, class_names = source
    classes = len(class_names)
    for part, size in ((0, args.train_size), (2, args.test_size)):
        if size:
            subset = balanced_subset(parts[part + 1], size, classes, args.seed)
            parts[part : part + 2] = parts[part][subset], parts[part + 1][subset]
    train_images, clean_labels, test_images, test_labels = parts
    given = flip_labels(clean_labels, args.noise, args.rate, classes, args.seed)
    meta = {
        "source": source_name(args.dataset),
        "title": args.title or source_name(args.dataset),
        "noise": args.noise,
        "rate_asked": args.rate,
        "rate_found": float(np.mean(given != clean_labels)),
        "seed": args.seed,
    }
    return DataSet(train_images, given, clean_labels, test_images, test_labels, class_names, meta)


def source_name(dataset: str) -> str:
    """cifar10, shapes, or the last part of a folder's path."""
    return dataset if dataset in ("cifar10", "shapes") else Path(dataset).resolve().name


def report(dataset: DataSet) -> str:
    """What was made, for the user: sizes, rate found, true against given labels, digests."""
    classes, count = dataset.num_classes, len(dataset.train_labels)
    table = np.zeros((classes, classes), int)
    np.add.at(table, (dataset.clean_labels, dataset.train_labels), 1)
    height, width = dataset.train_images.shape[1:3]
    lines = [
        f"{classes} classes, {count} training and {len(dataset.test_labels)} test images of "
        f"{width}x{height} pixels",
        f"noise {dataset.meta['noise']}: {count - np.trace(table)} of {count} training labels are "
        f"wrong, rate {dataset.meta['rate_found']:.6g}",
        "true class (row) against given label (column):",
        " " * 21 + "".join(f"{label:6}" for label in range(classes)),
    ]
    for label, name in enumerate(dataset.class_names):
        lines.append(f"{label:4} {name[:16]:16}" + "".join(f"{n:6}" for n in table[label]))
    digests = array_digests(dataset)
    return "\n".join(lines + [f"sha256 of {n}: {digests[n]}" for n in digests if "labels" in n])


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        # Without a usage line an error is one line.
        usage=argparse.SUPPRESS,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", default="cifar10", help="cifar10 (default), shapes, or a folder of images")
    add("--noise", default="pair", choices=("pair", "symmetric", "none"), help="default pair")
    add("--rate", type=float, default=0.4, help="share of wrong labels, 0 to 1 (default 0.4)")
    add("--seed", type=int, default=0, help="of labels, subset and shapes (default 0)")
    add("--train-size", type=int, help="a class-balanced subset (default all; shapes: 2000)")
    add("--test-size", type=int, help="a class-balanced subset (default all; shapes: 1000)")
    add("--data-dir", default="data", help="where CIFAR-10's archive is or goes (default data)")
    add("--title", help="what figures call the images (default the data set's name)")
    add("--out", type=Path, help="default data/<dataset>-<noise><percent>.npz")
    args = parser.parse_args(argv)
    if not 0 <= args.rate <= 1:
        parser.error(f"--rate {args.rate}: the share of wrong labels is from 0 to 1, such as 0.4")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: use 0 or more")
    for flag, size in (("--train-size", args.train_size), ("--test-size", args.test_size)):
        if size is not None and size < 1:
            parser.error(f"{flag} {size}: use 1 or more")
    if args.noise == "none":
        args.rate = 0.0
    if args.out is None:
        args.out = Path(f"data/{source_name(args.dataset)}-{args.noise}{100 * args.rate:g}.npz")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        dataset = make_dataset(args)
        write_dataset(args.out, dataset)
    except (DataError, OSError) as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return 2
    print(f"{report(dataset)}\nwritten: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
