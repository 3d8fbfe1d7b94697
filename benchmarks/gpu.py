"""Everything to measure in the first ten minutes on a GPU, in one command: `make gpu`.

    python benchmarks/gpu.py                  ten minutes, offline
    python benchmarks/gpu.py --minutes 60     more time for the study
    python benchmarks/gpu.py --rehearse       every step at its smallest setting, on any machine

The steps run in order of priority, each in its own process with a time limit: tests that need
CUDA, training speed, the frequency pass, two runs on one GPU, and the study of `make paper` in the
remaining time, if CIFAR-10's archive is in data/. Each step's record is written at once to
<name>.json in the folder $OUT, by default benchmarks/gpu/. A failing step is named and the others
still run; the exit status is then 1. Without CUDA every step is skipped.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from os import environ
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from steps import Step, run_step, watch

from common.command_line import Parser, positive, run_script
from common.errors import UserError
from common.files import write_json
from common.run_folder import read_history

ROOT = Path(__file__).parent.parent
NETWORK = "shake26-2x32d"
RESERVE = 25.0  # seconds of --minutes, at most, for ending a step that has to be stopped
RESULT_WIDTH = 90
PAPER_RUNS = "cifar10-pair40-seed*/*/history.jsonl"
# What torchvision leaves in data/, and what it is made from.
ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-batches-py")
ASK = """
import json, platform, sys
try:
    import torch
except Exception as error:
    sys.exit(f"torch cannot be imported: {error}")
cuda = torch.cuda.is_available()
names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({"python": platform.python_version(), "torch": torch.__version__,
                  "cuda": torch.version.cuda, "gpus": names}))
"""


def plan(python: str, reason: str = "", small: bool = False) -> list[Step]:
    """The steps by priority. reason: why none can run on a GPU; small: smallest settings."""

    def measured(name: str, title: str, limit: float, script: str, *flags: str) -> Step:
        command = (python, str(ROOT / "benchmarks" / script), *flags)
        limit *= 5 if small else 1  # a machine without a GPU may be slow
        return Step(name, title, command, limit, writes=True, reason=reason)

    tests = (python, "-m", "pytest", "-m", "cuda", "--color=no", str(ROOT / "tests"))
    paper = ("make", "-C", str(ROOT), "paper", f"PYTHON={python}")
    speed = ("training_speed.py", "--network", NETWORK)
    frequency = ("frequency_speed.py", "--device", "cuda", "--epochs", "1", "100")
    together = ("side_by_side.py", "--images", "25600")
    if small:  # they show only that every command works, also on a CPU
        speed = ("training_speed.py", "--network", "small_cnn", "--images", "128")
        frequency = ("frequency_speed.py", "--points", "300", "--epochs", "1", "2")
        together = ("side_by_side.py", "--images", "128", "--train=--model small_cnn --lr 0.05")
    speed += ("--repeats", "1", "--variants", "plain")
    both = "cuda-graphs+compile"
    return [
        Step("tests", "tests that need CUDA", tests, 120, reason=reason),
        measured("eager", "training, eager", 120, *speed, "amp"),
        measured("graphs", "training, CUDA graphs", 120, *speed, "cuda-graphs"),
        measured("graphs-compile", "training, CUDA graphs and compile", 210, *speed, both),
        measured("frequency", "frequency pass in float32", 150, *frequency, "--repeats", "1"),
        measured("side-by-side", "two runs on one GPU", 120, *together),
        Step(
            name="paper",
            title="the study of make paper",
            command=paper,
            limit=float("inf"),
            until_stopped=True,
            reason=reason or no_study(small),
        ),
    ]


def no_study(small: bool) -> str:
    """Why the study cannot run; empty if it can."""
    if small:
        return "not rehearsed"
    if any((ROOT / "data" / name).exists() for name in ARCHIVES):
        return ""
    return f"neither {' nor '.join(ARCHIVES)} is in data/"


def ask_machine(python: str) -> dict:
    """Python, torch and the GPUs of this machine, read in a separate process, and printed.

    Raises UserError if torch cannot be imported within two minutes.
    """
    status, line = watch((python, "-c", ASK), "the machine", 120)
    if status != "ok":
        raise UserError(line)
    return json.loads(line)


def study_runs(root: Path) -> list[dict]:
    """How far the runs of the study below `root` are."""
    runs = []
    for path in sorted((root / "runs").glob(PAPER_RUNS)):
        records, _ = read_history(path.parent)
        last = {key: records[-1][key] for key in ("epoch", "test_accuracy")}
        speeds = [record["images_per_second"] for record in records]
        runs.append({"run": str(path.parent), **last, "images_per_second": speeds})
    return runs


def table(records: Sequence[dict]) -> str:
    """Step, result, seconds and file of every record, for the terminal."""
    lines = [("step", "result", "seconds", "file")]
    for record in records:
        result = f"{record['status']}: {record['result']}"
        if len(result) > RESULT_WIDTH:
            result = result[: RESULT_WIDTH - 2] + ".."
        lines.append((record["step"], result, f"{record['seconds']:.1f}", record["file"]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(row.rstrip() for row in rows)


def run_steps(steps: Sequence[Step], folder: Path, deadline: float) -> list[dict]:
    """Run the steps until the deadline of time.monotonic(); returns their records."""
    records = []
    for step in steps:
        record = run_step(step, folder, deadline - time.monotonic())
        if step.name == "paper" and record["status"] != "skipped":
            record["numbers"] = study_runs(ROOT)
            write_json(folder / f"{step.name}.json", record)
        records.append(record)
    return records


def work(args: argparse.Namespace) -> int:
    """Run all steps and print their table; returns the exit status."""
    deadline = time.monotonic() + 60 * args.minutes - min(RESERVE, 6 * args.minutes)
    folder = Path(environ.get("OUT") or ROOT / "benchmarks" / "gpu")
    folder.mkdir(parents=True, exist_ok=True)
    machine = ask_machine(sys.executable)
    write_json(folder / "machine.json", machine)
    reason = "" if machine["gpus"] or args.rehearse else "there is no CUDA device"
    steps = plan(sys.executable, reason, args.rehearse)
    records = run_steps(steps, folder, deadline)
    print(f"\n{table(records)}")
    failed = [record for record in records if record["status"] == "failed"]
    for record in failed:
        print(f"failed: {record['step']}: {record['result']}")
    if not machine["gpus"]:
        print("nothing was measured on a GPU")
    return 1 if failed else 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--minutes", type=positive, default=10, help="time limit of all steps together")
    add("--rehearse", action="store_true", help="only try each command, at its smallest setting")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return run_script("gpu.py", lambda: work(args), "records of the finished steps stay")


if __name__ == "__main__":
    sys.exit(main())
