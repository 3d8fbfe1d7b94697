"""The answer over several noises: every quantity of analysis/quantities.py, with intervals.

The primary quantity is the paper's claim, declared before the runs: distillation at its last epoch
minus cross-entropy stopped early. Its p-values are corrected for the number of noises by Holm's
method; all other quantities are secondary and not corrected.
"""

from collections.abc import Sequence

import numpy as np

from analysis.curves import group_by_loss, has_memorization
from analysis.equivalent_quantities import LEVELS
from analysis.quantities import PRIMARY, QUANTITIES
from analysis.statistics import interval, what_varies
from common.errors import UserError
from losses import CROSS_ENTROPY


def answer(histories: Sequence[dict]) -> list[dict]:
    """Rows {noise, rate, loss, quantity, n, seeds, varies, mean, low, high, p, p_holm}.

    histories: one history.json per noise. p is from a t-test of the differences, None for LEVELS.
    p_holm is given for the primary quantity only, corrected for each loss over the noises. Raises
    UserError if a history has no cross-entropy, no distillation, or no memorization.json.
    """
    rows = []
    for history in histories:
        groups, name = group_by_loss(history), history["data"]["name"]
        if len(groups) < 2 or CROSS_ENTROPY not in groups:
            raise UserError(f"{name}: the answer needs cross-entropy and another loss; train both")
        if not has_memorization(history):
            raise UserError(f"{name}: no memorization.json in every run; run frequency.py")
        for loss in list(groups)[1:]:
            rows += contrast_rows(history, loss, groups[loss], groups[CROSS_ENTROPY])
    for loss in dict.fromkeys(row["loss"] for row in rows):
        primary = [row for row in rows if row["loss"] == loss and row["quantity"] == PRIMARY]
        for row, p in zip(primary, holm([row["p"] for row in primary]), strict=True):
            row["p_holm"] = p
    return rows


def contrast_rows(history: dict, loss: str, distilled: dict, plain: dict) -> list[dict]:
    """The rows of one noise and one loss; distilled, plain: draw -> run."""
    from scipy import stats

    draws = [draw for draw in distilled if draw in plain]
    rows = []
    for quantity, compute in QUANTITIES.items():
        values = {draw: compute(distilled[draw], plain[draw]) for draw in draws}
        values = {draw: value for draw, value in values.items() if value is not None}
        if not values:
            continue
        sample = list(values.values())
        testable = quantity not in LEVELS and len(sample) > 1 and np.ptp(sample) > 0
        rows.append(
            {
                "noise": history["data"]["noise"],
                "rate": history["data"]["rate_found"],
                "loss": loss,
                "quantity": quantity,
                "seeds": list(values),
                "varies": what_varies(history),
                **interval(sample),
                "p": float(stats.ttest_1samp(sample, 0).pvalue) if testable else None,
                "p_holm": None,
            }
        )
    return rows


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number by Holm's step-down method; None stays None.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979). The k-th smallest of m is
    multiplied by m - k + 1; it is at least the corrected one before it, and at most 1.
    """
    known = sorted((p, k) for k, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, k) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[k] = largest
    return corrected
