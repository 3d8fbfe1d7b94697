"""Which of train.py's flags matter for which purpose, by their names in config.json."""

from collections.abc import Sequence

# Where a run is and how it was started. In config.json only.
PLACE = ("data", "runs", "run", "resume", "overwrite")
# How the same numbers are computed: may differ after --resume, and between runs that are averaged.
EXECUTION = ("device", "compile", "cuda_graphs", "evaluate")
# What the runs of one study differ in.
LOSS_AND_SEED = ("dis", "loss", "teacher", "soft", "weight", "momentum", "seed")
# Flags that older runs do not have, with their defaults. At its default such a flag is left out, so
# that old and new runs with the same settings compare equal.
ADDED = {"momentum": None, "cuda_graphs": False, "ema_decay": 0.0}


def recorded(flags: dict) -> dict:
    """The flags that history.json keeps of each run; the loss has a field of its own there."""
    return _select(flags, (*PLACE, "loss"))


def fixed_on_resume(flags: dict) -> dict:
    """The flags that must be the same when a run resumes."""
    return _select(flags, PLACE + EXECUTION)


def fixed_in_study(flags: dict) -> dict:
    """The flags that runs must share to be averaged and compared."""
    return _select(flags, PLACE + EXECUTION + LOSS_AND_SEED)


def _select(flags: dict, dropped: Sequence[str]) -> dict:
    """The flags that are neither dropped nor added later and at their default."""
    kept = {name: value for name, value in flags.items() if name not in dropped}
    return {k: v for k, v in kept.items() if k not in ADDED or v != ADDED[k]}
