"""plotting/: lines equal means of the runs, texts lie on the canvas, what is missing is said."""

import itertools
from dataclasses import replace
from importlib import import_module

import matplotlib
import numpy as np
import pytest
from made_runs import (
    DELTAS,
    DISTILLED,
    EDGES,
    LOSSES,
    PREVIOUS,
    make_run,
    make_spectrum,
    shortened,
    study,
    with_deltas,
)
from matplotlib.colors import to_hex
from PIL import Image

import plot
from analysis.history import by_noise
from common.command_line import UserError
from plotting import layout
from plotting.frequency import BANDS, MILESTONES, NAME, errors, frequency, order
from plotting.spectrum import STOPPED, eigenvectors
from plotting.style import (
    LEVEL,
    OTHER_COLORS,
    RIGHT,
    STYLES,
    WRONG,
    family,
    project_style,
    series_styles,
)
from plotting.training import accuracy, frontier, loss, memorization

PAIR = "pair flip, 40% wrong"
OTHERS = ("generalized cross-entropy", "early-learning regularization", "label smoothing", "mixup")
LONG = "a title that is very long and says much about the labels " + "x" * 60
NO_WRONG = {"gap": None, "noise": "none", "data": {"rate_found": 0.0}, "spectrum": True}
BY_BAND = (frequency, errors, order)
OF_WRONG_LABELS = (frontier, memorization, order, eigenvectors)


@pytest.fixture(scope="module")
def noises():
    return by_noise(study(("pair", "symmetric"), spectrum=True, length=10))


def members(series, title):
    return list(series[title].values())


def curves(axes, color, width=None):
    """(x, y) of the lines over several points of a color, and of a width if given."""
    return [
        line.get_data()
        for line in axes.get_lines()
        if to_hex(line.get_color()).upper() == color.upper()
        and len(line.get_xdata()) > 2
        and width in (None, line.get_linewidth())
    ]


def bands(axes, title):
    """The extents of the bands of a loss."""
    color = STYLES[title][0]
    own = [c for c in axes.collections if to_hex(c.get_facecolor()[0]).upper() == color]
    return [collection.get_paths()[0].get_extents() for collection in own]


def marks(axes, title):
    """(x, y) of the marks of a loss: early (filled) and last (open)."""
    color, found = STYLES[title][0], {}
    for line in axes.get_lines():
        (x, *more), y = line.get_data()
        if not more and np.isfinite(x) and line.get_markeredgecolor() == color:
            found["early" if line.get_markerfacecolor() == color else "last"] = (x, y[0])
    return found


def text_of(figure):
    return " ".join(figure._suptitle.get_text().split())


def measured(run, name):
    """A curve of a run by its name, read from where its file has it."""
    if name == "gap":
        wrong = run.history["sample_clean_accuracy_wrong"]
        return run.history["sample_clean_accuracy_right"] - wrong
    if name in run.frequency["test"]["outputs"]:
        column = DELTAS.index(564.0 if name.startswith("e_") else 400.0)
        return np.array([row[column] for row in run.frequency["test"]["outputs"][name]])
    return {**run.history, **run.memorization}[name]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (accuracy, ("test_accuracy", "gap")),
        (loss, ("train_cross_entropy", "test_cross_entropy")),
        (memorization, ("sample_memorized", "auc")),
        (frequency, ("energy_share", "delta_norm")),
        (errors, ("e_low", "e_high")),
    ],
)
def test_lines_are_means_and_bands_extremes(noises, make, names):
    axes = make(noises, None).axes
    panels = itertools.product(noises.values(), names)
    for panel, (series, name) in zip(axes, panels, strict=True):
        for title in series:
            values = [measured(run, name) for run in members(series, title)]
            ((x, y),) = curves(panel, STYLES[title][0])
            np.testing.assert_array_equal(x, range(1, 11))
            np.testing.assert_allclose(y, np.sum(values, axis=0) / 3)
            (band,) = bands(panel, title)
            assert (band.y0, band.y1) == pytest.approx((np.min(values), np.max(values)))


def first_reaching(run, level):
    """Test accuracy where the gap first reaches the level, by a loop over the epochs."""
    gap, values = run.gap, run.history["test_accuracy"]
    k = next(k for k in range(len(gap)) if gap[k] >= level)
    if k == 0:
        return values[0]
    weight = (level - gap[k - 1]) / (gap[k] - gap[k - 1])
    return (1 - weight) * values[k - 1] + weight * values[k]


def test_the_frontier_is_the_mean_at_equal_gap(noises):
    figure = frontier(noises, None)
    for panel, (noise, series) in zip(figure.axes, noises.items(), strict=True):
        assert panel.get_title() == noise
        for title in series:
            ((x, y),) = curves(panel, STYLES[title][0])
            runs = members(series, title)
            (band,) = bands(panel, title)
            extremes = [[first_reaching(run, gap) for run in runs] for gap in x]
            assert (band.y0, band.y1) == pytest.approx((np.min(extremes), np.max(extremes)))
            assert x[0] == max(run.gap[0] for run in runs)
            assert x[-1] == min(max(run.gap) for run in runs)
            for gap, value in list(zip(x, y, strict=True))[::20]:
                assert value == pytest.approx(np.mean([first_reaching(run, gap) for run in runs]))


@pytest.mark.parametrize("make", [frontier, accuracy])
def test_marks_are_means_of_early_stopping_and_the_last_epoch(noises, make):
    panel = make(noises, None).axes[0]
    bottom, top = panel.get_ylim()
    for title in LOSSES:
        expected = {"early": [], "last": []}
        for run in members(noises[PAIR], title):
            best = max(range(10), key=lambda k: run.history["val_accuracy"][k])
            for stop, k in (("early", best), ("last", 9)):
                x = run.gap[k] if make is frontier else k + 1
                expected[stop].append((x, run.history["test_accuracy"][k]))
        found = marks(panel, title)
        assert found == {k: pytest.approx(np.mean(v, axis=0)) for k, v in expected.items()}
        assert all(bottom < y < top for _, y in found.values())


def test_a_mark_below_all_others_is_in_the_frontier():
    run = make_run(accuracy=(30, 60, 62), validation=(9, 2, 1), gap=(5, 10, 20))
    panel = frontier(by_noise([run]), None).axes[0]
    assert panel.get_ylim()[0] < marks(panel, "cross-entropy")["early"][1] == 30


def test_without_held_out_images_nothing_is_stopped_early():
    noises = by_noise(study(["pair"], seeds=[6], validation=None, spectrum=True))
    figures = frontier(noises, None), eigenvectors(noises, None)
    assert set(marks(figures[0].axes[0], "cross-entropy")) == {"last"}
    labels = [text.get_text() for figure in figures for text in figure.legends[0].get_texts()]
    assert "open: last epoch" in labels and not any("early" in label for label in labels)


def test_levels_and_milestones_are_marked(noises):
    panel = frequency(noises, None).axes[0]
    gaps = np.mean([run.gap for run in members(noises[PAIR], "cross-entropy")], axis=0)
    expected = {
        str(points): next(k + 1 for k, gap in enumerate(gaps) if gap >= points)
        for points in MILESTONES
        if max(gaps) >= points
    }
    levels = {"clean\nlabels": 0.5, "shuffled\nlabels": 0.25}
    lines = [line.get_data() for line in panel.get_lines() if len(line.get_xdata()) == 2]
    assert sorted(y[0] for x, y in lines if list(x) == [0, 1]) == [0.25, 0.5]
    assert [x[0] for x, y in lines if list(y) == [0, 1]] == list(expected.values())
    texts = {text.get_text(): text for text in panel.texts}
    assert {
        name: text.get_position()[1] for name, text in texts.items() if name in levels
    } == levels
    assert {name: text.xy[0] for name, text in texts.items() if name not in levels} == expected
    without = frequency(by_noise(study(["pair"], [DISTILLED], [6])), None).axes[0]
    assert {text.get_text() for text in without.texts} == set(levels)


def with_parts(run):
    """The run with coefficients that differ by part and band."""
    rising = np.linspace(0, 1, len(run.history["epoch"]))
    outputs = {}
    for power, name in enumerate(("clean_low", "clean_high", "residual_low", "residual_high")):
        outputs[name] = [[0, 0, float(x ** (power + 1) + run.seed / 100)] for x in rising]
    sample = {**run.frequency["sample"], "outputs": outputs}
    return replace(run, frequency={**run.frequency, "sample": sample})


def test_the_order_has_four_coefficients_per_loss_and_dots_where_a_quarter_is_learned():
    noises = by_noise([with_parts(run) for run in study(["pair"], length=10)])
    figure = order(noises, None)
    for panel, (title, runs) in zip(figure.axes, noises[PAIR].items(), strict=True):
        assert panel.get_title() == f"{title}\n{PAIR}"
        dots = [line.get_data() for line in panel.get_lines() if len(line.get_xdata()) == 1]
        for part, color in (("clean", RIGHT), ("residual", WRONG)):
            for band, width in BANDS.items():
                outputs = [r.frequency["sample"]["outputs"] for r in runs.values()]
                mean = np.mean([[row[2] for row in o[f"{part}_{band}"]] for o in outputs], axis=0)
                ((_, found),) = curves(panel, color, width)
                np.testing.assert_allclose(found, mean)
                k = next(k for k in range(10) if mean[k] >= 0.25)
                epoch = k + (0.25 - mean[k - 1]) / (mean[k] - mean[k - 1])
                assert any(x[0] == pytest.approx(epoch) and y[0] == 0.25 for x, y in dots)


def test_the_order_has_a_panel_where_a_noise_has_the_loss_and_the_longest_run_sets_the_axis():
    runs = study(["pair"], LOSSES[:2]) + study(["symmetric"], LOSSES[:1], length=10)
    shown = [axes for axes in order(by_noise(runs), None).axes if axes.get_visible()]
    titles = ["cross-entropy", DISTILLED, "cross-entropy"]
    assert [panel.get_title().split("\n")[0] for panel in shown] == titles
    shown += frequency(by_noise(runs), None).axes
    assert all(panel.get_xlim()[1] >= 10 for panel in shown)


def test_eigenvectors_are_means_at_the_last_epoch_and_of_cross_entropy_stopped_early(noises):
    figure = eigenvectors(noises, None)
    middles = [np.sqrt(a * (b - 1)) for a, b in itertools.pairwise(EDGES)]
    for row, series in enumerate(noises.values()):
        for panel, part in zip(figure.axes[3 * row :], ("clean", "residual"), strict=False):
            for title in series:
                runs = members(series, title)
                values = [np.array(run.spectrum["kernels"][0]["softmax"][part]) for run in runs]
                ((x, y),) = curves(panel, STYLES[title][0])
                np.testing.assert_allclose(x, [m for m in middles if m >= 5])
                np.testing.assert_allclose(y, np.mean([v[-1] for v in values], axis=0)[-len(y) :])
                if title == "cross-entropy":
                    stops = [np.argmax(run.history["val_accuracy"]) for run in runs]
                    ((_, y),) = curves(panel, STOPPED["color"])
                    early = [v[k] for v, k in zip(values, stops, strict=True)]
                    np.testing.assert_allclose(y, np.mean(early, axis=0)[-len(y) :])
    for color in (RIGHT, WRONG):
        ((x, y),) = curves(figure.axes[2], color)
        np.testing.assert_allclose(y, np.cumsum(np.diff(EDGES) / 100))
        assert x[-1] == EDGES[-1] - 1


def test_each_kernel_has_a_row_with_its_seeds():
    runs = study(["pair"], spectrum=True)
    for run in runs:
        kernels = run.spectrum["kernels"]
        kernels += make_spectrum(np.arange(4), delta=100.0)["kernels"]
        if run.seed == 6:
            kernels += make_spectrum(np.arange(4), "ntk-final", None)["kernels"]
    figure = eigenvectors(by_noise(runs), None)
    names = [" ".join(figure.axes[k].get_ylabel().split()) for k in (0, 3)]
    assert names == [f"{PAIR} gaussian, δ = 564, 3 seeds", f"{PAIR} ntk-final, 1 seed"]
    assert "δ = 100, 3 seeds" in eigenvectors(by_noise(runs), 120.0).axes[0].get_ylabel()


def test_a_part_without_energy_has_no_curve_of_it():
    run = make_run(spectrum=True)
    run.spectrum["kernels"][0]["energies"]["clean"] = None
    panel = eigenvectors(by_noise([run]), None).axes[2]
    assert not curves(panel, RIGHT) and curves(panel, WRONG)


def test_the_delta_is_the_wanted_one_or_filters_in_every_run():
    for other in ({"masses": [1.0, 1.9, 2.0]}, {"deltas": [100.0, 336.0, 564.0]}):
        noises = by_noise([make_run(), with_deltas(make_run(seed=7), **other)])
        assert frequency(noises, None).axes[0].get_title() == "Δ(564) by energies"
    assert errors(by_noise([make_run()]), 400.0).axes[0].lines[0].get_ydata()[0] == 0.2


ONE, SPECTRAL, WITHOUT_WRONG = make_run(), make_run(spectrum=True), make_run(**NO_WRONG)
LITTLE_MASS = with_deltas(make_run(seed=7), masses=[1, None, 1.9])
OTHER_DELTAS = with_deltas(make_run(seed=7), [1.0, 2.0, 3.0])
OF_LOGITS = with_deltas(make_run(seed=7), values="logits")
UNMEASURED = [*study(["pair"], seeds=[6]), make_run(seed=7, memorization=False)]
LARGER_SAMPLE = [
    replace(run, spectrum=make_spectrum([1, 2, 3], edges=[*EDGES[:-1], 201]))
    for run in (make_run(seed=7), make_run(DISTILLED))
]
REFUSED = [
    (OF_WRONG_LABELS, [WITHOUT_WRONG], None, "no label of this data set is wrong"),
    (BY_BAND, [ONE, make_run(seed=7, frequency=False)], None, "1 of 2 runs .*seed7.*: run freq"),
    (BY_BAND, [ONE, LITTLE_MASS], None, "run frequency.py --delta 400 564"),
    (BY_BAND, [ONE, OTHER_DELTAS], None, "no measured delta filters .* 2256"),
    (BY_BAND, [ONE], 333.0, "--delta 333 was not measured .*: use one of 400, 564, or run"),
    (BY_BAND, [ONE], 100.0, "--delta 100 hardly filters these images: use one of 400, 564"),
    ([errors, order], [OF_LOGITS], None, "run frequency.py without --values"),
    ([memorization], UNMEASURED, None, "1 of 4 runs .*seed7.*: run frequency.py"),
    ([eigenvectors], [ONE], None, "run frequency.py --eigenvectors"),
    ([eigenvectors], [SPECTRAL, LARGER_SAMPLE[0]], None, "^cross-entropy: .* of different sizes"),
    ([eigenvectors], [SPECTRAL, LARGER_SAMPLE[1]], None, "distillation: .* of different sizes"),
]


@pytest.mark.parametrize(("figures", "runs", "delta", "words"), REFUSED)
def test_what_cannot_be_drawn_is_said_with_the_command(figures, runs, delta, words):
    for make in figures:
        with pytest.raises(UserError, match=words):
            make(by_noise(runs), delta)


@pytest.mark.parametrize(
    ("figures", "runs", "words"),
    [
        (OF_WRONG_LABELS, [SPECTRAL, WITHOUT_WRONG], "wrong labels: none, 0% wrong."),
        ([accuracy], [ONE, WITHOUT_WRONG], "no label of that data set is wrong"),
        ([frontier, accuracy, frequency], [ONE], "Memorization gap: accuracy on the clean labels"),
        ([accuracy], [shortened(run, 2) for run in study(["pair"])], "UNFINISHED: 9 of 9 runs"),
        ([frequency], [OF_LOGITS], "low-frequency share of the logits on"),
        ([eigenvectors], [SPECTRAL, make_run(seed=7)], "Runs left out: 1 without spectrum.json"),
    ],
)
def test_the_caption_says_what_is_shown_and_what_is_left_out(figures, runs, words):
    for make in figures:
        assert words in text_of(make(by_noise(runs), None))


@pytest.mark.slow
def test_a_gap_that_does_not_exist_is_said_in_its_panel():
    figure = accuracy(by_noise([ONE, WITHOUT_WRONG]), None)
    assert [text.get_text() for text in figure.axes[3].texts] == ["no value"]


def test_a_loss_keeps_its_style_whatever_else_is_drawn():
    for parts in zip(*STYLES.values(), strict=True):
        assert len(set(map(str, parts))) == len(STYLES)
    own = {color for color, *_ in STYLES.values()} | {*OTHER_COLORS}
    assert not own & {RIGHT, WRONG, LEVEL["color"], STOPPED["color"], NAME["color"]}
    everything = series_styles(by_noise(study(["pair"], (*LOSSES, *OTHERS))))
    assert len({str(style) for style in everything.values()}) == 7
    for title in (*LOSSES, *OTHERS):
        assert series_styles(by_noise([make_run(title)]))[title] == everything[title]
        if title in STYLES:
            assert tuple(everything[title].values())[:3] == STYLES[title]


def test_settings_of_a_loss_share_its_color_only():
    runs = [make_run(title, settings={"lr": k / 100}) for title in LOSSES for k in range(1, 9)]
    styles = series_styles(by_noise(runs))
    assert len({str(style) for style in styles.values()}) == len(styles) == 24
    for title in LOSSES:
        own = [style for name, style in styles.items() if name.startswith(f"{title}, lr")]
        assert {style["color"] for style in own} == {STYLES[title][0]} and len(own) == 8
    assert family(f"{PREVIOUS}, soft") == PREVIOUS and family("GCE2") == "GCE2"


@pytest.mark.parametrize(
    ("runs", "seeds"),
    [
        ([make_run()], "seed 6"),
        ([make_run(), make_run(DISTILLED, 7)], "seeds: 1 per curve"),
        (study(["pair"]), "seeds: 6 to 8 (means; bands: lowest to highest)"),
        ([*study(["pair"], LOSSES[:1]), make_run(DISTILLED)], "seeds: 1 or 3 per curve (means; "),
    ],
)
def test_the_caption_names_data_network_sizes_and_seeds(runs, seeds):
    for run in runs:
        run.data.update(val_size=20, test_size=30)
    text = layout.caption(by_noise(runs))
    sizes = "100 training, 20 held-out, 30 test images"
    assert text.startswith(f"cifar10; small_cnn; {sizes}; {seeds}")
    assert ("mean" in text) == (len(runs) > 2)


def test_wrapped_lines_fit_and_lose_no_character():
    figure, _ = layout.panels(1, 1, 3)
    for text in (LONG, "W" * 50 + " " + "i" * 90, LONG * 3, " " * 200):
        lines = layout.wrapped(figure, text, 2.5, 9)
        assert "".join(lines.split()) == "".join(text.split())
        assert all(layout.inches(figure, line, 9) <= 2.5 for line in lines.split("\n"))
    assert layout.wrapped(figure, "a\x1b[31m", 2.5, 9) == "a\\x1b[31m"


def assert_readable(figure):
    """Lay out; caption, legend, titles and labels must lie on the canvas, and none on another."""
    figure.draw_without_rendering()
    texts = [figure._suptitle, *(t for legend in figure.legends for t in legend.get_texts())]
    for axes in filter(lambda axes: axes.get_visible(), figure.axes):
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        assert axes.bbox.width > 60 and axes.bbox.height > 60
        if axes.get_xlabel() == "epoch":
            low, high = axes.get_xlim()
            assert all(tick == int(tick) for tick in axes.get_xticks() if low <= tick <= high)
    boxes = {t: t.get_window_extent() for t in texts if t.get_text()}
    canvas = figure.bbox.padded(1)
    for text, box in boxes.items():
        assert canvas.contains(box.x0, box.y0) and canvas.contains(box.x1, box.y1), text
    for (one, box), (other, second) in itertools.combinations(boxes.items(), 2):
        assert not box.padded(-1).overlaps(second.padded(-1)), (one, other)


CASES = {
    "one of all": {"losses": LOSSES[:1], "seeds": [6], "length": 1, "noises": ["pair"]},
    "much of all": {
        "losses": (*LOSSES, *OTHERS, LONG), "noises": ["pair", "symmetric", LONG],
        "data": {"source": LONG}, "length": 300, "seeds": [6, 7],
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in plot.FIGURES.items() for name in names]
)
def test_no_text_is_cut_or_covered(module, name, case):
    with project_style():
        noises = by_noise(study(spectrum=True, **CASES[case]))
        figure = getattr(import_module(f"plotting.{module}"), name)(noises, None)
        assert_readable(figure)
    if case == "one of all":
        assert "mean" not in text_of(figure)
        assert not any(axes.collections for axes in figure.axes)
        # A single epoch has no line, so it is marked.
        marked = any(line.get_marker() == "o" for line in figure.axes[0].lines)
        assert marked or name == "eigenvectors"


@pytest.mark.parametrize(("epochs", "ticks"), [(1, [1]), (4, [1, 2, 3, 4])])
def test_epochs_are_whole(epochs, ticks):
    axes = accuracy(by_noise(study(["pair"], length=epochs)), None).axes[0]
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == ticks


@pytest.mark.slow
def test_neither_titles_nor_the_users_matplotlibrc_change_a_figure(tmp_path):
    noises = by_noise([make_run(data={"source": r"cost $x_$ { \frac a_b^c % d"})])
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "red"}):
        with project_style():
            layout.save(accuracy(noises, None), tmp_path / "one.png")
        assert matplotlib.rcParams["font.size"] == 30
    with project_style():
        layout.save(accuracy(noises, None), tmp_path / "other.png")
    one, other = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("one", "other"))
    np.testing.assert_array_equal(one, other)
