"""Stands for train.py, frequency.py, collect_history.py and plot.py, by the name it is copied to.

It reads the flags and writes the files of the real ones in little time, without torch. Environment:
FAKE_SECONDS an epoch takes that long; FAKE_FAIL runs with this text in their path fail after an
epoch. Each start is noted in starts.txt.
"""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

import common
from common import run_folder
from common.command_line import run_script
from common.errors import UserError
from common.files import write_json
from common.logits import append_logits, logits_length
from dataset.data_file import read_dataset

ROOT = Path(common.__file__).parent.parent
NAME = Path(__file__).name


def real_script():
    spec = importlib.util.spec_from_file_location("real_" + Path(NAME).stem, ROOT / NAME)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse_args(argv=None):
    return real_script().parse_args(argv)


def train(settings):
    run = settings.folder
    run.mkdir(parents=True, exist_ok=True)
    with run_folder.locked(run):
        done = 0
        if (run / "config.json").exists():
            done = min(len(lines(run)), *(whole_epochs(run / n) for n in run_folder.LOGITS))
            run_folder.truncate_run(run, done)
        digest = read_dataset(settings.data).sha256
        config = {"loss": settings.loss, "data": {"digest": digest}, "flags": settings.flags()}
        run_folder.write_config(run, config)
        shares = {k: os.environ.get(k) for k in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
        write_json(run / "environment.txt", shares)
        for epoch in range(done + 1, settings.epochs + 1):
            time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
            random = np.random.default_rng([settings.seed, epoch])
            for name in run_folder.LOGITS:
                append_logits(run / name, random.normal(size=(5, 3)))
            record = {"epoch": epoch, "test_accuracy": 10.0 + epoch, "seconds": 0.1}
            run_folder.append_history(run, record)
            print(f"epoch {epoch}/{settings.epochs}", flush=True)
            if os.environ.get("FAKE_FAIL", "nothing") in str(run):
                raise UserError("the loss is not finite; use a lower --lr")


def lines(run):
    return run_folder.read_history(run)[0] if (run / "history.jsonl").exists() else []


def whole_epochs(path):
    return logits_length(path) if path.exists() else 0


def frequency(args):
    for run in args.run:
        count = len(lines(run))
        section = {"outputs": {"lfr": [[0.5]] * count}}
        digest = run_folder.read_config(run)["data"]["digest"]
        write_json(run / "frequency.json", {"digest": digest, "test": section, "probe": section})


def collect_history(args):
    runs = [{"run": run.name, "epochs": len(lines(run))} for run in args.run]
    write_json(args.out, {"data": {}, "runs": runs})
    write_json(args.out.parent / "summary.json", {"rows": summary_rows()})
    print("the table:", *(run["run"] for run in runs))


def summary_rows():
    """The accuracy of both losses and their difference, as analysis/table.py writes them."""
    rows = []
    means = {("a", None): 60.0, ("cross-entropy", None): 50.0, ("a", "cross-entropy"): 10.0}
    for measure, scale in (("test_accuracy", 1), ("memorized", 0.5)):
        for (loss, minus), mean in means.items():
            row = {"measure": measure, "stop": "last", "minus_stop": minus and "last"}
            row |= {"loss": loss, "minus_loss": minus, "mean": scale * mean, "low": None}
            rows.append(row)
    return rows


def plot(args):
    for source in args.source:
        json.loads(source.read_text())
    name = "rate.png" if len(args.source) > 1 else "accuracy.png"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / name).write_bytes(b"png")
    print(args.out / name)


def main():
    with open("starts.txt", "a") as file:
        file.write(f"{NAME} {' '.join(sys.argv[1:])}\n")
    args = parse_args()
    work = {"train.py": train, "frequency.py": frequency, "plot.py": plot}
    work = work.get(NAME, collect_history)
    argument = args.settings if NAME == "train.py" else args
    return run_script(NAME, lambda: work(argument), "go on with --resume")


if __name__ == "__main__":
    sys.exit(main())
