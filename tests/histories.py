"""Histories written by hand, for the tests of statistics and tables."""


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
        "history": {**curves, "probe_memorized": memorized or empty},
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
