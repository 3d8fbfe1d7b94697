"""analysis/tables.py: every number of results.json against numpy loops, and how it is written."""

import json
import math
import re

import numpy as np
import pytest
from made_runs import DELTAS, DISTILLED, LOSSES, PREVIOUS, make_run, study, with_deltas
from scipy import stats

from analysis import tables
from analysis.history import by_noise
from analysis.quantities import QUANTITIES
from common.command_line import UserError
from common.files import without_nan

PAIR, HUMAN = "pair flip, 40% wrong", "human, 40% wrong"
NOISES = {PAIR: "pair", "symmetric, 40% wrong": "symmetric", HUMAN: "human"}


@pytest.fixture(scope="module")
def runs():
    return study()


@pytest.fixture(scope="module")
def content(runs):
    return results(runs)


def results(runs):
    return tables.results(by_noise(runs))


def accuracy(runs, noise, loss, stop):
    """Test accuracy by seed, from the runs themselves."""
    values = []
    for run in runs:
        if run.data["noise"] == noise and run.loss == loss:
            curve, validation = run.history["test_accuracy"], run.history["val_accuracy"]
            epochs = {"last": len(curve) - 1, "early": validation.argmax()}
            values.append(curve[epochs.get(stop, curve.argmax())])
    return np.array(values)


def assert_interval(result, values):
    bounds = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert result["n"] == len(values) and result["mean"] == pytest.approx(np.mean(values))
    assert (result["low"], result["high"]) == pytest.approx((bounds.low, bounds.high))


def test_means_against_loops(runs, content):
    assert list(content["noises"]) == list(NOISES)
    for noise, name in NOISES.items():
        series = content["noises"][noise]["series"]
        assert list(series) == list(LOSSES)
        for loss in LOSSES:
            assert series[loss]["seeds"] == [6, 7, 8] and len(series[loss]["runs"]) == 3
            for stop in ("last", "early", "best_test"):
                found = series[loss]["means"][stop]["test_accuracy"]
                assert_interval(found, accuracy(runs, name, loss, stop))
            gaps = [r.gap[-1] for r in runs if (r.data["noise"], r.loss) == (name, loss)]
            assert_interval(series[loss]["means"]["last"]["gap"], gaps)
            assert series[loss]["stopped_at"]["last"] == [4, 4, 4]


def test_primary_contrasts_and_their_correction(runs, content):
    p_values = {}
    for noise, name in NOISES.items():
        early = accuracy(runs, name, "cross-entropy", "early")
        for quantity, stop in (("replace", "last"), ("add", "early")):
            for loss in LOSSES[1:]:
                difference = accuracy(runs, name, loss, stop) - early
                row = tables.find(content, noise, loss, quantity)
                assert_interval(row, difference)
                assert list(row["values"].values()) == pytest.approx(list(difference))
                assert row["p"] == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
                one_sided = stats.ttest_1samp(difference, -2, alternative="greater").pvalue
                assert row["p_not_worse"] == pytest.approx(one_sided)
                assert row["verdict"]
            p_values[noise, quantity] = row["p"]
    largest = 0
    for k, (place, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1, (6 - k) * p))
        noise, quantity = place
        assert tables.find(content, noise, PREVIOUS, quantity)["p_holm"] == pytest.approx(largest)
        assert math.isnan(tables.find(content, noise, DISTILLED, quantity)["p_holm"])


def test_every_known_quantity_and_verdict_is_there(content):
    rows = content["differences"]
    assert {row["quantity"] for row in rows} >= {q.key for q in QUANTITIES if q.is_shown}
    text = "\n".join(tables.long_text(content))
    assert all(q.title in text for q in QUANTITIES if q.is_shown)
    assert all(math.isnan(row["p"]) for row in rows if not row["is_difference"])
    for row in rows:
        assert ("verdict" in row) == (row["quantity"] in ("replace", "add"))
        if row["quantity"] == "replace" and row["loss"] == PREVIOUS:
            is_better = row["p_holm"] < 0.05 and row["mean"] > 0
            assert ("better" in row["verdict"]) == is_better
    json.dumps(without_nan(content), allow_nan=False)


def test_annealed_trainings_beside_the_average_of_longer_ones():
    # As study.py makes them: equal data sets under another name.
    short = study(["pair", "human"], ["cross-entropy", PREVIOUS], length=3, data={"name": "short"})
    longer = study(["pair", "human"], seeds=(6, 7, 8, 9), length=8)
    for run in longer:  # passes the last gap of the short ones
        run.history["sample_clean_accuracy_wrong"] = 100 - np.linspace(0, 90, 8)
    content = results([*longer, *study(["pair"], ["cross-entropy"], length=2), *short])
    rows = {(row["noise"], row["series"], row["quantity"]): row for row in content["annealing"]}
    assert len(rows) == 4 * 5
    for noise, name in ((PAIR, "pair"), (HUMAN, "human")):
        for loss in ("cross-entropy", PREVIOUS):
            own, others = (
                [run for run in group if (run.data["noise"], run.loss) == (name, loss)]
                for group in (short, longer)
            )
            last = accuracy(short, name, loss, "last")
            gaps = [100 - run.history["sample_clean_accuracy_wrong"][-1] for run in own]
            curves = [(run.gap, run.history["test_accuracy"]) for run in others if run.seed < 9]
            averages = [np.interp(gap, *curve) for gap, curve in zip(gaps, curves, strict=True)]
            values = {"last": last, "last_gap": gaps, "average": averages}
            for key, numbers in (values | {"last_minus_average": last - averages}).items():
                row = rows[noise, f"{loss}, epochs 3", key]
                assert_interval(row, numbers)
                assert row["minus"] == f"{loss}, epochs 8"
            assert row["p"] == pytest.approx(stats.ttest_1samp(numbers, 0).pvalue)
    lines = tables.annealing_table(content)[1:]
    place = [PAIR, "cross-entropy, epochs 2", "cross-entropy, epochs 8", "3 (6 to 8)"]
    assert len(lines) == 5 and lines[0][:4] == place
    half = (row["high"] - row["low"]) / 2
    assert lines[-1][-1] == f"{row['mean']:+.1f} ± {half:.1f}"
    assert "over n seeds that differ in" in tables.markdown(content, "annealing")
    assert "its gap (points)" in "\n".join(tables.long_text(content))


def test_without_a_longer_training_there_is_no_table_of_annealing(content):
    assert content["annealing"] == [] and len(tables.annealing_table(content)) == 1
    assert "its gap" not in "\n".join(tables.long_text(content))
    other = study(["human"], ["cross-entropy"], length=2, settings={"lr": 1})
    assert results([*study(["human"], ["cross-entropy"]), *other])["annealing"] == []


def test_settings_are_families_of_their_own():
    runs = [run for lr in (0.05, 0.02) for run in study(["pair"], settings={"lr": lr})]
    content = results(runs)
    for lr in (0.05, 0.02):
        rows = [
            tables.find(content, PAIR, f"{PREVIOUS}, lr {lr}", key) for key in ("replace", "add")
        ]
        smaller = min(row["p"] for row in rows)
        assert min(row["p_holm"] for row in rows) == pytest.approx(min(1, 2 * smaller))
    assert len(tables.answer_table(content)) == 3  # the head, and a line per setting
    assert ", lr 0.02, n = 3" in tables.answer_table(content)[2][0]


def test_the_soft_variant_is_not_the_primary_loss():
    soft = f"{PREVIOUS}, soft"
    content = tables.results(by_noise(study(["pair"], ["cross-entropy", soft])))
    row = tables.find(content, PAIR, soft, "replace")
    assert math.isnan(row["p_holm"]) and row["p"] < 1


def test_seeds_that_one_loss_lacks_are_said():
    runs = study(["pair"])
    runs = [run for run in runs if run.loss != PREVIOUS or run.seed != 8]
    content = results(runs)
    row = tables.find(content, PAIR, PREVIOUS, "replace")
    assert row["n"] == 2 and list(row["values"]) == [6, 7]
    line = next(line for line in tables.quantities_table(content) if line[0] == PREVIOUS)
    assert line[-1].endswith("(n = 2)")
    short = tables.short_text(content)
    assert f"{PAIR}, n = 3" in short[1] and "previous epoch, n = 2  " in short[4]
    assert "(n = " not in "".join(short)
    assert "(n = 2)" in tables.answer_table(content)[1][5]


def test_the_accuracies_of_baselines_with_fewer_seeds(runs):
    others = study(["pair"], ["GCE", "ELR"], seeds=(6, 8)) + study(["human"], ["GCE"], seeds=[7])
    content = results([*runs, *others])
    cells = {(line[0], line[1]): line[2:] for line in tables.accuracy_table(content)}
    assert cells["noise", "loss"][0] == "n (seeds)" and len(cells) == 1 + 9 + 3
    assert cells[PAIR, PREVIOUS][0] == "3 (6 to 8)" and cells[PAIR, "GCE"][0] == "2 (6, 8)"
    for stop, text in zip(("last", "early", "best_test"), cells[PAIR, "GCE"][1:], strict=False):
        values = accuracy(others, "pair", "GCE", stop)
        half = stats.sem(values) * stats.t.ppf(0.975, 1)
        assert text == f"{values.mean():.1f} ± {half:.1f}"
    alone = accuracy(others, "human", "GCE", "last")
    assert cells[HUMAN, "GCE"][:2] == ["1 (7)", f"{alone[0]:.1f}"]
    *_, caption = tables.markdown(content, "accuracy").splitlines()
    assert caption.startswith("Mean ± half-width of the 95% t-interval over n seeds that differ in")
    one = tables.markdown(results(study(["pair"], ["cross-entropy"], seeds=[6])), "accuracy")
    assert "| cross-entropy | 1 (6) |" in one and one.endswith("One seed (6), no intervals.")


def test_no_wrong_labels_no_frequencies_no_held_out_images():
    runs = [make_run(loss, seed, gap=None, validation=None, frequency=False, noise="none")
            for loss in LOSSES for seed in (6, 7)]  # fmt: skip
    content = results(runs)
    head, *lines = tables.accuracy_table(content)
    assert head == ["noise", "loss", "n (seeds)", "last epoch (%)", "best test epoch (%)"]
    assert len(lines) == 3
    words = ("no wrong label", "no early stopping", "no delta filters")
    for word, line in zip(words, tables.missing(content), strict=True):
        assert word in line and line.startswith("none, 40% wrong")
    assert tables.find(content, "none, 40% wrong", PREVIOUS, "replace") is None
    assert "nan" not in "\n".join(tables.long_text(content)).lower()
    assert len(tables.short_text(content)) == 6


def test_the_delta_that_is_shown_is_named():
    runs = study(["pair"])
    found = tables.delta_line(results(runs))
    assert found == "Delta at delta 400, errors at delta 564, coefficients at delta 564"
    runs += [with_deltas(run, [1000.0, 2000.0], [3, 9]) for run in study(["human"])]
    line = tables.delta_line(results(runs))
    assert line.endswith("errors at delta 1000, coefficients at delta 1000 under human, 40% wrong")
    runs = [with_deltas(run, DELTAS, [1, 1, 1]) for run in study(["pair"])]
    content = results(runs)
    (line,) = tables.missing(content)
    assert tables.delta_line(content) == "" and "a larger --delta" in line
    runs = [with_deltas(run, DELTAS, [1, 5, 20], "logits") for run in study(["pair"])]
    assert tables.delta_line(results(runs)).endswith("(of logits)")


@pytest.mark.parametrize(
    ("seeds", "data", "words"),
    [
        ((6, 7, 8), (), "n = 3 seeds (6 to 8) that differ in images, noisy labels"),
        ((6, 8), (), "n = 2 seeds (6, 8) that"),
        ((6, 7), (), "n = 2 seeds (6, 7) that"),
        ((6,), (), "one seed (6), no intervals"),
        ((0, 1), {"seed": 0, "digest": "x"}, "initialization and order, on one data set"),
    ],
)
def test_the_caption_says_n_and_what_varies(seeds, data, words):
    content = tables.results(by_noise(study(["pair"], seeds=seeds, data=data)))
    assert words in tables.caption(content)
    assert ("±" in "\n".join(tables.long_text(content))) == (len(seeds) > 1)
    # A noise of one seed has no interval, and so nothing that varies.
    more = tables.results(by_noise([*study(["pair"], seeds=seeds, data=data), make_run(noise="a")]))
    assert words in tables.caption(more) and "; " not in tables.caption(more)


def test_the_answer_fits_a_screen(content):
    text = tables.short_text(content)
    assert len(text) == 14 and sum("previous epoch" in line for line in text[:-1]) == 3
    assert text[1].split()[-6:] == ["last", "early", "best", "memorized", "replace", "add"]
    row = tables.find(content, "human, 40% wrong", PREVIOUS, "replace")
    star = " *" * (row["p_holm"] < 0.05)
    assert f"{row['mean']:+.1f} ± {(row['high'] - row['low']) / 2:.1f}{star}  " in text[-2]
    assert max(map(len, text)) <= 100 and max(len(text[0]), len(text[-1])) <= 80
    assert "best, memorized: mean" in text[0]
    many = tables.results(by_noise(study(losses=[*LOSSES, "GCE", "ELR", "label smoothing"])))
    text = tables.short_text(many)
    assert len(text) <= 14 and "more lines: collect_history.py" in text[-2]
    for noise in NOISES:  # however many losses there are
        k = next(k for k, line in enumerate(text) if line.startswith(noise))
        assert "cross-entropy" in text[k + 1] and "previous epoch" in text[k + 2]
    assert len(tables.long_text(many)) > 100
    default = study([f"noise {k}" for k in range(5)], LOSSES[:2])
    text = tables.short_text(tables.results(by_noise(default)))
    assert sum(line.split()[0] == "self-distillation" for line in text[1:-2]) == 3


def test_one_loss_alone_has_its_accuracies():
    content = tables.results(by_noise(study(["pair"], ["cross-entropy"])))
    assert len(tables.short_text(content)) == 3 and tables.missing(content) == []
    assert tables.quantities_table(content)[1:] == []
    assert "| noise |" in tables.markdown(content, "answer")
    assert tables.markdown(content, "quantities") and tables.long_text(content)


def test_names_from_files_do_not_steer_the_terminal(content):
    lines = tables.aligned([["a\x1b[2J|", "b"], ["c", "d"]])
    assert lines[0].startswith("a\\x1b[2J|")
    runs = study(["x|y"])
    text = tables.markdown(results(runs), "answer")
    assert "x\\|y" in text and len(set(map(len, (re.split(r"(?<!\\)\|", line) for line in
                                                 text.splitlines()[:3])))) == 1  # fmt: skip


def test_a_table_in_markdown(content):
    head, rule, *lines, empty, caption = tables.markdown(content, "answer").splitlines()
    heads = [
        f"{loss}, {end}" for loss in (*LOSSES[:2], "previous epoch") for end in ("last", "early")
    ]
    heads += [
        "replace: previous epoch last - cross-entropy early (points)",
        "add: both early (points)",
    ]
    assert head == f"| {' | '.join(['noise', *heads])} |"
    for key, text in zip(("replace", "add"), lines[0].strip("| ").split(" | ")[-2:], strict=True):
        row = tables.find(content, PAIR, PREVIOUS, key)
        shown = f"{row['mean']:+.1f} ± {(row['high'] - row['low']) / 2:.1f}"
        assert text == f"{shown} (p = {row['p_holm']:.2g}; {row['verdict']})"
    assert "; p of the previous epoch's contrasts by Holm's method over all noises" in caption
    assert set(rule) <= set("| -") and len(lines) == 3 and empty == ""
    assert caption.startswith("Mean ± half-width of the 95% t-interval, n = 3 seeds (6 to 8)")
    early = content["noises"]["pair flip, 40% wrong"]["series"]["cross-entropy"]["means"]["early"]
    assert lines[0].split(" | ")[2] == tables.cell(early["test_accuracy"], "percent", n=3)
    assert "Delta at delta 400" in tables.markdown(content, "quantities")


TEXT = """before
<!-- table: answer -->
old
<!-- end -->
between <!-- end -->
<!-- table: accuracy other -->
other
<!-- end -->
<!-- table: accuracy main -->
<!-- end -->
after
"""


def test_blocks_of_this_study_are_written(content):
    text = tables.with_blocks(TEXT, content, "main")
    answer, accuracy = (tables.markdown(content, name) for name in ("answer", "accuracy"))
    expected = TEXT.replace("old", answer)
    expected = expected.replace("main -->\n", f"main -->\n{accuracy}\n")
    assert text == expected
    assert tables.with_blocks(text, content, "main") == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing", "no table of main in it; add"),
        (TEXT.replace("answer", "accuracy other").replace("accuracy main", "x y"), "no table of"),
        (TEXT.replace("answer", "nonsense"), "nonsense is not known; use answer, accuracy"),
        (TEXT.replace("<!-- end -->\nafter", "after"), "no <!-- end -->"),
        (TEXT.replace("accuracy main", "accuracy main two"), "spaces"),
    ],
)
def test_other_blocks_are_refused(content, text, words):
    with pytest.raises(UserError, match=words):
        tables.with_blocks(text, content, "main")
