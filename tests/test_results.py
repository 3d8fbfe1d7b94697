"""What README and results say of the study: every number is compared with the histories."""

import json
import re
import shutil

import numpy as np
import pytest
from helpers import ROOT

from analysis.history import by_noise, read_history, share_deltas
from analysis.quantities import ACCURACY, GAPS, RATIO_DELTA, at_equal, cell, minus, run_curve
from analysis.statistics import first_epoch, interval, p_not_zero, stopping_epoch

README, PAGE = ROOT / "README.md", ROOT / "results/README.md"
PLAIN, SAME_STEP = "cross-entropy", "self-distillation"
PREVIOUS = f"{SAME_STEP}, previous epoch"
REPLACE, ADD = minus(ACCURACY, "last", "early"), minus(ACCURACY, "early")
RIGHT, WRONG = "clean_high", "residual_low"
pytestmark = pytest.mark.slow
INTERVAL = r"\d+\.\d+ ± \d+\.\d+"


def read_runs(study):
    """The runs of a committed history by the noise's first word, loss and seed."""
    noises = by_noise(share_deltas(read_history(ROOT / f"results/{study}/history.json"))[0])
    return {re.match(r"\w+", noise)[0]: series for noise, series in noises.items()}


def each(noises, function, loss=PREVIOUS, base=PLAIN):
    """By noise: the values of a function of a run and the cross-entropy run of its seed."""
    return [[function(s[loss][seed], run) for seed, run in s[base].items()] for s in noises]


def alone(noises, function, loss=PLAIN):
    """By noise: the values of a function of a run."""
    return [[function(run) for run in series[loss].values()] for series in noises]


def listed(texts):
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last


def means(groups, digits, sign=""):
    """The mean of each group of values, as the text writes them."""
    return listed(f"{np.mean(group):{sign}.{digits}f}" for group in groups)


def intervals(groups, digits, sign=""):
    """Each group's mean ± half-width of its 95% t-interval, as the text writes them."""
    found = [interval(group) for group in groups]
    halves = [f"{(i['high'] - i['low']) / 2:.{digits}f}" for i in found]
    return listed(
        f"{i['mean']:{sign}.{digits}f} ± {half}" for i, half in zip(found, halves, strict=True)
    )


def span(values, digits):
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def lead(level=0.25, outputs="sample", right=RIGHT, wrong=WRONG):
    """By how many epochs a curve of a run reaches the level before another one.

    level None: a quarter of each curve's own last value.
    """

    def of(run):
        early, late = (run_curve(run, f"{outputs}_{part}") for part in (right, wrong))
        return first_epoch(late, level or late[-1] / 4) - first_epoch(early, level or early[-1] / 4)

    return of


def lead_at(delta):
    """The lead at another delta."""

    def of(run):
        early, late = (run.band("sample", part, delta, "outputs") for part in (RIGHT, WRONG))
        return first_epoch(late, 0.25) - first_epoch(early, 0.25)

    return of


def labels_delta(section, kind="labels"):
    """Delta of the clean labels of a section's images, or of the shuffled ones."""

    def of(run):
        measured = run.frequency[section]
        values = measured[kind]["true"] if kind == "labels" else measured[kind]
        return values["energy_share"][list(measured["delta"]).index(RATIO_DELTA)]

    return of


def stopped(run):
    """The index of the epoch of early stopping."""
    return stopping_epoch(run, "early")


def outputs_delta(run):
    """Delta of the outputs on training images at the last epoch."""
    return run.band("sample", "energy_share", RATIO_DELTA, "outputs")[-1]


def nearer(distilled, plain):
    """By how much Delta on training images ends nearer to that of the clean labels."""
    clean = labels_delta("sample")(plain)
    return abs(outputs_delta(plain) - clean) - abs(outputs_delta(distilled) - clean)


def profile(low, high):
    """The difference of two residual coefficients at equal gap."""
    first, second = (at_equal("gap", GAPS, f"one_hot_residual_{part}") for part in (low, high))
    return lambda distilled, plain: first(distilled, plain) - second(distilled, plain)


def accuracy_sentences(main, short):
    plain, runs = main["pair"][PLAIN], main["pair"][PREVIOUS]
    cost = minus(ACCURACY, "best_test", "early")
    lost = [cost(run, run) for run in (plain[6], runs[7], runs[9])]
    without = [
        {out: [of(runs[seed], plain[seed]) for seed in plain if seed != out] for out in plain}
        for of in (REPLACE, ADD)
    ]
    significant = [
        listed(str(out) for out, values in of.items() if p_not_zero(values) < 0.05)
        for of in without
    ]
    human = [main["human"]]
    small, large = (each(human, at_equal("gap", g, ACCURACY)) for g in (GAPS[:3], GAPS[3:]))
    own, long = (
        each(short.values(), REPLACE, f"{PREVIOUS}, epochs 12", f"{PLAIN}, epochs {epochs}")
        for epochs in (12, 40)
    )
    return [
        f"stops cross-entropy of seed 6 at epoch {stopping_epoch(plain[6], 'early') + 1}, which "
        "loses {:.1f} points against its best epoch; self-distillation of seeds 7 and 9 loses "
        "{:.1f} and {:.1f}".format(*lost),
        f"Without seed {significant[0]}, replace and add are "
        f"{intervals([of[6] for of in without], 2, '+')}. Without any one other seed, the "
        "uncorrected p of replace exceeds 0.05; so does that of add, unless the seed is "
        f"{significant[1]}.",
        f"is {intervals(each(main.values(), minus(ACCURACY, 'best_test')), 1)} points ahead",
        f"{intervals(small, 1, '+')} at gaps of 10 to 30 and "
        f"{intervals(large, 1, '+')} at 40 to 60",
        f"replace within these runs is {intervals(own, 1, '+')} points",
        f"stopped early in 40 epochs, {intervals(long, 1, '+')}",
        "(small network, six seeds: {:+.1f} and {:+.1f})".format(
            *(np.mean(each([main["pair"]], of)) for of in (REPLACE, ADD))
        ),
    ]


def frequency_sentences(main):
    every, (pair, symmetric, human) = main.values(), main.values()
    levels = [np.mean(alone([pair], labels_delta("test", k))) for k in ("labels", "shuffled")]
    confident = [np.mean(v) for v in each(every, at_equal("gap", GAPS, "test_confidence"))]
    delta, gap = (
        [
            np.mean(v)
            for k in (40, 50, 60, 70)
            for v in each(every, at_equal("test_confidence", [k], c))
        ]
        for c in ("test_energy_share", "gap")
    )
    thresholds = [np.mean(v) for k in range(1, 6) for v in alone([pair, human], lead(k / 10))]
    at_deltas = [
        [np.mean(alone([series], lead_at(d))) for d in (100, 141, 200, 282, 400, 564, 800)]
        for series in every
    ]
    shared = {"right": "transition_low", "wrong": RIGHT}
    end = np.mean([run_curve(run, f"sample_{RIGHT}")[-1] for run in symmetric[PLAIN].values()])
    later = [np.mean(v) for v in each(every, lambda *pair: np.subtract(*map(stopped, pair)))]
    halves = [intervals(alone([symmetric], lead(k)), 1) for k in (0.4, 0.5, None)]
    fixed = [
        kernel["softmax"]["residual"][-1][6:]
        for kernel in pair[PREVIOUS][6].spectrum["kernels"]
        if kernel["kernel"] != "ntk-final"
    ]
    return [
        "(clean labels: {:.3f}, shuffled: {:.3f})".format(*levels),
        f"{means(each(every, nearer), 3)} nearer",
        f"is {span(confident, 0)} points more confident",
        f"its Delta is {span(delta, 2)} *higher* and its gap {span(np.negative(gap), 0)} points",
        f"self-distillation {span(later, 0)} epochs later",
        f"give leads of {span(thresholds, 1)} epochs",
        "deltas of 100 to 800 give leads of {}, {} and {}".format(*(span(v, 1) for v in at_deltas)),
        f"one-hot outputs leads of {intervals(alone(every, lead(outputs='one_hot')), 1)}",
        f"and ends at {end:.2f}. There the lead is {halves[0]} epochs at 0.4, {halves[1]} at a "
        f"half, and {halves[2]} at a quarter of each curve's own last value",
        f"comes {means(alone([pair, human], lead(**shared)), 1)} epochs",
        f"(one-hot outputs: {means(alone([pair, human], lead(outputs='one_hot', **shared)), 1)})",
        f"own last value {intervals(alone(every, lead(None), PREVIOUS), 1)}",
        f"high contrast {intervals(each(every, profile('contrast_low', 'contrast_high')), 3, '+')}",
        f"high band {intervals(each(every, profile('low', 'high')), 3, '+')}",
        f"is about flat, {span(np.concatenate(fixed), 1)}, from the seventh band on",
    ]


def shake_sentences():
    """On the first seed of shake-shake."""
    series = read_runs("shake")["pair"]
    plain, run = series[PLAIN][6], series[PREVIOUS][6]
    stop, best = stopping_epoch(plain, "early"), plain.history[ACCURACY].max()
    replace, add = REPLACE(run, plain), ADD(run, plain)
    same_step = [of(series[SAME_STEP][6], plain) for of in (REPLACE, ADD)]
    ahead = 20 * (run.history[ACCURACY][-1] - best)  # of 2,000 images
    return [
        f"It ended with {plain.gap[-1]:.1f} points",
        f"replace is {replace:+.1f} and add {add:+.1f} points",
        "for the same-step teacher {:+.1f} and {:+.1f}".format(*same_step),
        f"at epoch {stop + 1}, at a gap of {plain.gap[stop]:.0f} points and "
        f"{best - plain.history[ACCURACY][stop]:.2f} points below its best epoch",
        f"is right on only {ahead:.0f} more of the 2,000 test images than that best epoch",
        f"it is {at_equal('gap', GAPS, ACCURACY)(run, plain):.1f} points more accurate",
    ]


def all_images():
    """Replace and add of the one seed of pair flip with all images."""
    return [each([read_runs("all")["pair"]], of)[0][0] for of in (REPLACE, ADD)]


def field_sentences():
    noises = read_runs("field").values()
    others = "generalized cross-entropy", "early-learning regularization"
    robust, regularized = (intervals(each(noises, ADD, loss, PREVIOUS), 1, "+") for loss in others)
    return [
        f"generalized cross-entropy is at {robust} points, "
        f"early-learning regularization at {regularized}"
    ]


def cells(content):
    """Every mean ± half-width of a results.json, without its sign."""
    found = [(row, row["unit"]) for name in ("differences", "annealing") for row in content[name]]
    for group in content["noises"].values():
        for series in group["series"].values():
            means = [mean for of_stop in series["means"].values() for mean in of_stop.values()]
            found += [(mean, unit) for mean in means for unit in ("percent", "ratio")]
    known = [(result, unit) for result, unit in found if result["mean"] is not None]
    return {cell(result, unit, n=result["n"]).lstrip("-") for result, unit in known}


@pytest.fixture(scope="module")
def sentences():
    """Sentences of results/README.md on numbers that no table has, by the histories."""
    main = read_runs("main")
    found = accuracy_sentences(main, read_runs("short")) + frequency_sentences(main)
    found.append("replace is {:.1f} and add {:+.1f}.".format(*all_images()))
    return found + shake_sentences() + field_sentences()


def test_numbers_that_no_table_has_are_those_of_the_histories(sentences):
    text = " ".join(PAGE.read_text("utf-8").split())
    assert not [sentence for sentence in sentences if sentence not in text]


def test_first_screen_says_what_the_histories_say():
    text, main = " ".join(README.read_text("utf-8").split()), read_runs("main").values()
    behind, ahead = ([np.mean(v) for v in each(main, of)] for of in (REPLACE, ADD))
    numbers = "{:.1f} (barely significant), {:.1f}, {:.1f} points"
    below, gain = numbers.format(*np.negative(behind)), numbers.format(*ahead)
    assert (
        f"unstopped accuracy (open orange triangle) is {below} below stopped plain training" in text
    )
    assert f"both stopped, it gains {gain}" in text
    replace, add = all_images()
    assert f"6.2 ± 1.3 (human, three seeds), {-replace:.1f} (pair flip, one)" in text
    assert f"-0.2 ± 0.5 (human), {add:.1f} (pair flip)" in text
    assert "No deficit shown (few seeds): 12-epoch runs; shake-shake ResNet" in text
    titles = f"{PREVIOUS}, epochs 12", f"{PLAIN}, epochs 12"
    short = each(read_runs("short").values(), REPLACE, *titles)
    assert all(len(values) == 3 and interval(values)["high"] > 0 for values in short)
    ((shake,),) = each(read_runs("shake").values(), REPLACE)
    assert shake > 0


@pytest.mark.parametrize("page", [README, PAGE])
def test_tables_and_intervals_are_those_of_the_histories(page, sentences, tmp_path, script):
    text, known = page.read_text("utf-8"), set(re.findall(INTERVAL, " ".join(sentences)))
    copy = tmp_path / "copy.md"
    shutil.copy(page, copy)
    studies = set(re.findall(r"<!-- table: \w+ (\w+) -->", text))
    assert studies
    for path in ROOT.glob("results/*/history.json"):
        folder = tmp_path / path.parent.name
        shutil.copytree(path.parent, folder)
        marked = ["--readme", copy] if folder.name in studies else []
        assert script("collect_history", folder / "history.json", *marked)[0] == 0
        content = json.loads((folder / "results.json").read_text())
        known |= cells(content)
        # Of CIFAR-10, the deltas that the figures and the texts name do filter.
        assert {group["deltas"]["Delta"] for group in content["noises"].values()} == {RATIO_DELTA}
    assert copy.read_text("utf-8") == text
    own = text.partition("## The earlier study")[0].split()  # what follows quotes other studies
    assert not set(re.findall(INTERVAL, " ".join(own))) - known
