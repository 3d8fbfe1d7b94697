"""Time a run from the start of Python to the end of its first training step.

    python benchmarks/first_step.py --data data/cifar10-pair40.npz

It trains one step of the default run (26 2x32d) in a temporary folder, then stops.
`training_speed.py --network start` runs it on a data set of the size of CIFAR-10.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

START = time.perf_counter()  # torch, which takes seconds to import, is imported later

sys.path.insert(0, str(Path(__file__).parent.parent))


class FirstStepDone(Exception):  # noqa: N818
    """Raised after the first step, to end the run."""


def stop_after_step(optimizer, args, kwargs) -> None:
    """A hook of torch's optimizers, called after each step."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    raise FirstStepDone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="data set that generate.py made")
    args = parser.parse_args()

    from torch.optim.optimizer import register_optimizer_step_post_hook

    from training.run import train
    from training.settings import RunSettings

    register_optimizer_step_post_hook(stop_after_step)
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(RunSettings(data=args.data, runs=Path(folder)))
        except FirstStepDone:
            print(f"first step after {time.perf_counter() - START:.2f} s", flush=True)


if __name__ == "__main__":
    main()
