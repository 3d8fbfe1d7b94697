"""Time training runs side by side on one device, against one run alone.

    python benchmarks/side_by_side.py                      26 2x32d, one run, then two
    python benchmarks/side_by_side.py --runs 1 2 4 --images 25600
    python benchmarks/side_by_side.py --train "--cuda-graphs"
    python benchmarks/side_by_side.py --train "--model small_cnn --lr 0.05" --images 1024

Each run is train.py in a process of its own, with its own seed, on random images of CIFAR-10's
size. A run's speed is its training images divided by the median seconds per epoch, evaluation
included. The first and the last epoch do not count: another run may not be running then.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from common.files import write_json

TRAIN = Path(__file__).parent.parent / "train.py"
EPOCHS = 5


def start(data: Path, runs: Path, seed: int, flags: Sequence[str]) -> subprocess.Popen:
    """A process that trains a run of this seed on the data set."""
    command = [sys.executable, str(TRAIN), "--data", str(data), "--runs", str(runs)]
    command += ["--run", f"seed{seed}", "--seed", str(seed), "--epochs", str(EPOCHS), *flags]
    return subprocess.Popen(command)


def epoch_seconds(run: Path) -> float:
    """The median seconds per epoch of a run, without its first and its last epoch."""
    lines = (run / "history.jsonl").read_text("utf-8").splitlines()
    return median(json.loads(line)["seconds"] for line in lines[1:-1])


def speed(data: Path, images: int, count: int, flags: Sequence[str]) -> float:
    """Training images per second of `count` runs together. Raises RuntimeError if one fails."""
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        try:
            processes += [start(data, Path(folder), seed, flags) for seed in range(count)]
            statuses = [process.wait() for process in processes]
        finally:
            for process in processes:
                process.kill()
        if any(statuses):
            raise RuntimeError(f"train.py ended with exit status {max(map(abs, statuses))}")
        runs = [Path(folder) / data.stem / f"seed{seed}" for seed in range(count)]
        return sum(images / epoch_seconds(run) for run in runs)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--runs", type=int, nargs="+", default=[1, 2], help="numbers of runs side by side")
    add("--images", type=int, default=50_000, help="training images of each run")
    add("--train", default="", help="more flags of train.py, as in --train=--cuda-graphs")
    add("--json", type=Path, help="also write the numbers to this file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from measuring import machine, random_dataset

    from dataset.data_file import write_dataset

    print(*(f"{name}: {value}" for name, value in machine().items()), sep=", ", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "random.npz"
        write_dataset(data, random_dataset(args.images, max(1, args.images // 5)))
        for count in args.runs:
            begin = time.perf_counter()
            together = speed(data, args.images, count, shlex.split(args.train))
            times = together / rows[0]["images_per_second"] if rows else 1.0
            row = {"runs": count, "images_per_second": together, "times_first": times}
            rows.append(row | {"seconds": time.perf_counter() - begin})
            print(
                f"{count} side by side: {together:.0f} images/s together, {times:.2f} times "
                f"{args.runs[0]} side by side",
                flush=True,
            )
            if args.json:
                numbers = {"images": args.images, "train": args.train, "rows": rows}
                write_json(args.json, {**machine(), **numbers})


if __name__ == "__main__":
    main()
