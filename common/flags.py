"""Which of train.py's flags matter for what, by their names in config.json: the one definition."""

# Where a run is and how it was started. In config.json only.
PLACE = ("data", "runs", "run", "resume", "overwrite")
# How the same numbers are computed: may differ after --resume, and between runs that are averaged.
EXECUTION = ("device", "compile", "evaluate")
# What the runs of one study differ in.
LOSS_AND_SEED = ("dis", "loss", "teacher", "soft", "weight", "seed")


def recorded(flags: dict) -> dict:
    """The flags that history.json keeps of each run; the loss has a field of its own there."""
    return {k: v for k, v in flags.items() if k not in PLACE and k != "loss"}


def fixed_on_resume(flags: dict) -> dict:
    """The flags that have to be the same when a run goes on."""
    return {k: v for k, v in flags.items() if k not in PLACE + EXECUTION}


def fixed_in_study(flags: dict) -> dict:
    """The flags that runs must share to be averaged and compared."""
    return {k: v for k, v in flags.items() if k not in PLACE + EXECUTION + LOSS_AND_SEED}
