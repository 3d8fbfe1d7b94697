"""Make a data set with wrong labels: data/<dataset>-<noise><percent>.npz.

    python generate.py                                     CIFAR-10, pair flip, 40% wrong
    python generate.py --noise symmetric --rate 0.2
    python generate.py --dataset shapes                    the built-in shapes, nothing to fetch
    python generate.py --dataset photos                    photos/train/<class>/*, photos/test/...
    python generate.py --noise labels.json                 labels made elsewhere
    python generate.py --val-size 5000                     hold out images, wrong labels and all

Test labels are never changed; the true training labels are kept beside the given ones.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import label_noise
import shapes
from data import DataError, DataSet, array_digests, balanced_subset, write_dataset

CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"
LARGEST = 64  # pixels a side of a folder's images
Source = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]


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
            *shapes.draw_shapes(train_size, np.random.default_rng([args.seed, 3])),
            *shapes.draw_shapes(test_size, np.random.default_rng([args.seed, 4])),
            list(shapes.SHAPES),
        )
    elif Path(args.dataset).is_dir():
        source = load_folder(Path(args.dataset))
    else:
        raise DataError(f"--dataset {args.dataset}: neither cifar10, shapes nor a folder here")
    images, clean, test_images, test_labels, class_names = source
    classes, seed = len(class_names), args.seed
    train, test = np.arange(len(clean)), np.arange(len(test_labels))
    if args.train_size:
        train = balanced_subset(clean, args.train_size, classes, seed)
    if args.test_size:
        test = balanced_subset(test_labels, args.test_size, classes, seed)
    val = train[balanced_subset(clean[train], args.val_size, classes, seed)]
    train = np.setdiff1d(train, val)
    if not len(train):
        raise DataError(f"--val-size {args.val_size}: no image is left to train on; lower it")
    if args.noise in label_noise.MODELS:
        # Each part by itself, so that each has the rate asked for.
        train_labels, val_labels = (
            label_noise.flip_labels(clean[part], args.noise, args.rate, class_names, seed)
            for part in (train, val)
        )
    else:
        given = label_noise.read_labels(Path(args.noise), args.labels, clean, classes)
        train_labels, val_labels = given[train], given[val]
    meta = {
        "source": source_name(args.dataset),
        "title": args.title or source_name(args.dataset),
        "noise": noise_name(args),
        "rate_asked": args.rate,
        "rate_found": float(np.mean(train_labels != clean[train])),
        "val_rate_found": float(np.mean(val_labels != clean[val])) if len(val) else None,
        "transitions": transitions(clean[train], train_labels, classes).tolist(),
        "seed": seed,
    }
    return DataSet(
        *(images[train], train_labels, clean[train], images[val], val_labels),
        *(test_images[test], test_labels[test], class_names, meta),
    )


def transitions(true: np.ndarray, given: np.ndarray, classes: int) -> np.ndarray:
    """Counts int (C, C) of true class (row) against given label (column)."""
    return np.bincount(true * classes + given, minlength=classes**2).reshape(classes, classes)


def noise_name(args: argparse.Namespace) -> str:
    """The noise model, or the label file's name and the labels chosen in it."""
    if args.noise in label_noise.MODELS:
        return args.noise
    return Path(args.noise).stem + (f"-{args.labels}" if args.labels else "")


def source_name(dataset: str) -> str:
    """cifar10, shapes, or the last part of a folder's path."""
    return dataset if dataset in ("cifar10", "shapes") else Path(dataset).resolve().name


def report(dataset: DataSet) -> str:
    """What was made, for the user: sizes, rate found, true against given labels, digests."""
    classes, count = dataset.num_classes, len(dataset.train_labels)
    table = transitions(dataset.clean_labels, dataset.train_labels, classes)
    height, width = dataset.train_images.shape[1:3]
    lines = [
        f"{classes} classes, {count} training, {len(dataset.val_labels)} validation and "
        f"{len(dataset.test_labels)} test images of {width}x{height} pixels",
        f"noise {dataset.meta['noise']}: {count - np.trace(table)} of {count} training labels are "
        f"wrong, rate {dataset.meta['rate_found']:.6g}",
        "true class (row) against given label (column):",
        " " * 21 + "".join(f"{label:6}" for label in range(classes)),
    ]
    for label, name in enumerate(dataset.class_names):
        lines.append(f"{label:4} {name[:16]:16}" + "".join(f"{n:6}" for n in table[label]))
    digests = array_digests(dataset)
    if dataset.meta["noise"] == "asymmetric":
        lines.append(
            f"asymmetric: the rate asked, {dataset.meta['rate_asked']:g}, is of the images of the "
            "five classes that are confused, half of a balanced data set"
        )
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
    models = ", ".join(label_noise.MODELS)
    add("--noise", default="pair", help=f"{models}, or a file of labels (default pair)")
    add("--labels", help="which labels of a .pt file, such as worse_label of CIFAR-10N")
    add("--rate", type=float, default=0.4, help="share of wrong labels, 0 to 1 (default 0.4)")
    add("--seed", type=int, default=0, help="of labels, subset and shapes (default 0)")
    add("--train-size", type=int, help="a class-balanced subset (default all; shapes: 2000)")
    add("--val-size", type=int, default=0, help="held out of these, with wrong labels (default 0)")
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
    if args.val_size < 0:
        parser.error(f"--val-size {args.val_size}: use 0 or more")
    if args.noise in label_noise.MODELS:
        if args.labels:
            parser.error("--labels belongs to a file of labels; name it with --noise")
        percent = f"{100 * args.rate:g}"
    elif Path(args.noise).is_file():
        args.rate, percent = None, ""  # it is the file's
    else:
        parser.error(f"--noise {args.noise}: neither {models} nor a file here")
    if args.noise == "none":
        args.rate = 0.0
        percent = "0"
    if args.out is None:
        args.out = Path(f"data/{source_name(args.dataset)}-{noise_name(args)}{percent}.npz")
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
