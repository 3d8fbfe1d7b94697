"""Histories written by hand, for the tests of statistics, tables and figures."""

import numpy as np


def make_run(loss, seed, test, val=None, memorized=None) -> dict:
    """A run of history.json with these curves, in percent."""
    empty = [None] * len(test)
    curves = {"test_accuracy": test, "val_accuracy": val or empty}
    return {
        "run": f"{loss}{seed}",
        "loss": loss,
        "seed": seed,
        "network": "small_cnn",
        "settings": {"dis": int(loss != "cross-entropy")},
        "history": {**curves, "sample_memorized": memorized or empty},
        "frequency": None,
    }


def make_history(*runs) -> dict:
    """The content of history.json with these runs."""
    return {"data": {"noise": "pair", "rate_found": 0.4, "name": "small"}, "runs": list(runs)}


def three_losses() -> dict:
    """Two seeds of cross-entropy and of self-distillation, one of its soft variant.

    At the last epoch, early stopping, and the best test epoch: 40, 60, 60 and 44, 52, 52 for
    cross-entropy; 58, 58, 58 and 56, 56, 59 for self-distillation.
    """
    plain = [([50.0, 60.0, 40.0], [20.0, 30.0, 25.0]), ([52.0, 51.0, 44.0], [30.0, 20.0, 10.0])]
    distilled = [([40.0, 55.0, 58.0], [1.0, 2.0, 3.0]), ([42.0, 59.0, 56.0], [1.0, 2.0, 3.0])]
    return make_history(
        *(make_run("cross-entropy", k, *plain[k], [1.0, 2.0, 30.0 + k]) for k in (0, 1)),
        *(make_run("self-distillation", k, *distilled[k], [1.0, 2.0, 10.0]) for k in (0, 1)),
        make_run("self-distillation, soft", 1, *distilled[0], [1.0, 2.0, 20.0]),
    )


def find_row(rows, **wanted) -> dict:
    """The one row of a summary that has these fields."""
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row


# Runs with a spectrum, whose equivalent epochs are known.

EPOCHS, BANDS = 6, [1, 2, 4, 8, 16, 32]
DRAWS = (0, 1)
PLAIN, DISTILLED = "cross-entropy", "self-distillation"


def shares(draw, epoch):
    """[part][band]: they grow with the epoch, and fall with the index."""
    bands = np.arange(1, len(BANDS))
    individual = (epoch + 1) / EPOCHS / bands**0.1 + 0.01 * draw
    return {"clean": 1 - 0.02 * bands, "individual": individual}


def make_spectrum_run(loss, draw, epochs):
    """A run that has learned at each epoch what cross-entropy has at `epochs`."""
    profiles = [shares(draw, epoch) for epoch in epochs]
    values = {
        part: [profile[part].tolist() for profile in profiles] for part in ("clean", "individual")
    }
    values["transition"] = [[None] * (len(BANDS) - 1)] * EPOCHS  # a multiple of the clean labels
    energy = [1 / (len(BANDS) - 1)] * (len(BANDS) - 1)
    entry = {
        **{"kernel": "gaussian", "delta": 1600.0, "vectors": None, "epoch": None, "bands": BANDS},
        "energies": {"clean": energy, "transition": energy, "individual": energy},
        "shares": {"softmax": values},
        "shuffled": energy,
    }
    return {
        **{"run": f"{loss}-{draw}", "loss": loss, "network": "small_cnn", "seed": draw},
        "settings": {"model": "small_cnn", "epochs": EPOCHS, "lr": 0.05, "seed": draw},
        "data": {"name": f"small-seed{draw}", "digest": f"{draw}", "seed": draw},
        "spectrum": {"n": 31, "kernels": [entry]},
        "history": {"test_accuracy": [50.0 + epoch for epoch in epochs]},
        "memorization": {"curves": {"gap": [10.0 * epoch for epoch in epochs]}},
    }


def half_as_fast() -> dict:
    """Two draws; distillation's epochs 1, 2, ... are like 1, 1, 2, 2, 3, 3 of cross-entropy."""
    half = [epoch // 2 for epoch in range(EPOCHS)]
    runs = [make_spectrum_run(PLAIN, draw, range(EPOCHS)) for draw in DRAWS]
    runs += [make_spectrum_run(DISTILLED, draw, half) for draw in DRAWS]
    return {"data": {"title": "shapes", "noise": "pair", "rate_found": 0.4}, "runs": runs}
