"""plotting/: lines equal means of the runs, texts lie on the canvas, what is missing is said."""

import itertools
from dataclasses import replace

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
from plotting.frequency import BANDS, MILESTONES, errors, excess, frequency, order
from plotting.spectrum import EARLIER_EPOCHS, SHADES, band_middles, eigenvectors
from plotting.style import RIGHT, STYLES, WRONG, family, project_style, series_styles
from plotting.training import accuracy, frontier, loss, memorization, rate

PAIR = "pair flip, 40% wrong"
LEVELS = "upper line: clean labels; lower line: shuffled labels"
OTHERS = ("generalized cross-entropy", "early-learning regularization", "label smoothing", "mixup")
LONG = "a title that is very long and says much about the labels " + "x" * 60
BY_BAND = (frequency, errors, order, excess)
WITHOUT_WRONG = {"gap": None, "noise": "none", "data": {"rate_found": 0.0}}


@pytest.fixture
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "names"),
    [
        (accuracy, ("test_accuracy", "gap")),
        (loss, ("train_cross_entropy", "test_cross_entropy")),
        (memorization, ("sample_memorized", "gap", "auc")),
        (frequency, ("energy_share", "delta_norm")),
        (errors, ("e_low", "e_high")),
    ],
)
def test_lines_are_means_and_bands_extremes(noises, make, names):
    axes = iter(make(noises, None).axes)
    for series in noises.values():
        for name in names:
            panel = next(axes)
            for title in series:
                values = [measured(run, name) for run in members(series, title)]
                ((x, y),) = curves(panel, STYLES[title][0])
                np.testing.assert_array_equal(x, range(1, 11))
                np.testing.assert_allclose(y, np.sum(values, axis=0) / 3)
                bands = [
                    c.get_paths()[0].get_extents()
                    for c in panel.collections
                    if to_hex(c.get_facecolor()[0]).upper() == STYLES[title][0]
                ]
                extremes = np.min(values), np.max(values)
                assert [(band.y0, band.y1) for band in bands] == [pytest.approx(extremes)]


def test_marks_are_means_of_early_stopping_and_the_last_epoch(noises):
    panel = accuracy(noises, None).axes[0]
    for title in LOSSES:
        points = []
        for run in members(noises[PAIR], title):
            best = max(range(10), key=lambda k: run.history["val_accuracy"][k])
            points.append((best + 1, run.history["test_accuracy"][best]))
        last = np.mean([r.history["test_accuracy"][-1] for r in members(noises[PAIR], title)])
        found = marks(panel, title)
        assert found["early"] == pytest.approx(np.mean(points, axis=0))
        assert found["last"] == pytest.approx((10, last))


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
    bottom, top = figure.axes[0].get_ylim()
    for panel, (noise, series) in zip(figure.axes, noises.items(), strict=True):
        assert panel.get_title() == noise
        for title in series:
            ((x, y),) = curves(panel, STYLES[title][0])
            runs = members(series, title)
            assert x[0] == max(run.gap[0] for run in runs)
            assert x[-1] == min(max(run.gap) for run in runs)
            for gap, value in list(zip(x, y, strict=True))[::20]:
                assert value == pytest.approx(np.mean([first_reaching(run, gap) for run in runs]))
            found = marks(panel, title)
            last = np.mean([(r.gap[-1], r.history["test_accuracy"][-1]) for r in runs], axis=0)
            assert found["last"] == pytest.approx(last) and len(found) == 2
            assert all(bottom < y < top for _, y in found.values())


@pytest.mark.slow
def test_without_held_out_images_there_is_no_early_mark():
    figure = frontier(by_noise(study(["pair"], validation=None)), None)
    assert set(marks(figure.axes[0], "cross-entropy")) == {"last"}
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-1] == "open: last epoch" and not any("filled" in label for label in labels)


@pytest.mark.slow
def test_one_epoch_and_one_run_are_drawn():
    run = make_run(accuracy=[30], validation=[20], gap=[5])
    for make in (frontier, accuracy, loss, memorization):
        assert any(line.get_marker() == "o" for line in make(by_noise([run]), None).axes[0].lines)


@pytest.mark.slow
@pytest.mark.parametrize("make", [frontier, memorization, order, eigenvectors])
def test_without_wrong_labels_there_is_nothing_to_memorize(make):
    with pytest.raises(UserError, match="no label of this data set is wrong"):
        make(by_noise([make_run(**WITHOUT_WRONG, spectrum=True)]), None)
    both = by_noise([make_run(spectrum=True), make_run(**WITHOUT_WRONG, spectrum=True)])
    assert "Left out, without wrong labels: none, 0% wrong" in text_of(make(both, None))


def test_a_gap_that_does_not_exist_is_said():
    figure = accuracy(by_noise([make_run(), make_run(**WITHOUT_WRONG)]), None)
    assert [text.get_text() for text in figure.axes[3].texts] == ["no value"]
    assert "no label of that data set is wrong" in text_of(figure)


def test_unfinished_runs_are_said_to_be():
    runs = [shortened(run, 2) for run in study(["pair"])]
    assert text_of(accuracy(by_noise(runs), None)).startswith("UNFINISHED: 9 of 9 runs")


def test_the_rate_figure_shows_each_stop_against_the_rate():
    runs = []
    for share in (0.2, 0.4, 0.6):
        for run in study(["pair"], LOSSES[:2]):
            data = {**run.data, "rate_found": share, "rate_requested": share}
            lower = {**run.history, "test_accuracy": run.history["test_accuracy"] - 20 * share}
            runs.append(replace(run, data=data, history=lower, measured_from=f"{share} {run.name}"))
    noises = by_noise(runs)
    figure = rate(noises, None)
    stops = (
        lambda run: -1,
        lambda run: np.argmax(run.history["val_accuracy"]),
        lambda run: np.argmax(run.history["test_accuracy"]),
    )
    for panel, stop in zip(figure.axes, stops, strict=True):
        for title in LOSSES[:2]:
            ((x, y),) = curves(panel, STYLES[title][0])
            np.testing.assert_allclose(x, [20, 40, 60])
            for value, series in zip(y, noises.values(), strict=True):
                found = [r.history["test_accuracy"][stop(r)] for r in members(series, title)]
                assert value == pytest.approx(np.mean(found))
    # Noises of one rate have no such figure; beside others they are named.
    assert rate(by_noise(study()), None) is None
    figure = rate(by_noise(runs + study(["symmetric"], data={"rate_requested": 0.4})), None)
    assert "Left out, of one rate only: symmetric, 40% wrong" in text_of(figure)


@pytest.mark.slow
def test_levels_and_milestones_are_marked(noises):
    panel = frequency(noises, None).axes[0]
    gaps = np.mean([run.gap for run in members(noises[PAIR], "cross-entropy")], axis=0)
    expected = {}
    for points in MILESTONES:
        if max(gaps) >= points:
            epoch = next(k + 1 for k, gap in enumerate(gaps) if gap >= points)
            expected.setdefault(epoch, []).append(str(points))
    texts = {t.get_text(): t.xy for t in panel.texts}
    assert texts.pop(LEVELS)[1] == 0.25
    level = [line.get_ydata()[0] for line in panel.get_lines() if list(line.get_xdata()) == [0, 1]]
    assert sorted(level) == [0.25, 0.5]
    assert {name: x for name, (x, _) in texts.items()} == {
        ", ".join(points): epoch for epoch, points in expected.items()
    }
    without = frequency(by_noise(study(["pair"], [DISTILLED])), None).axes[0]
    assert {t.get_text() for t in without.texts} == {LEVELS}


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
        assert panel.get_title().replace("\n", " ") == title
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


def test_excess_maps_are_means_and_differences(noises):
    rows = np.random.default_rng(0).normal(size=(18, 10, 3)).tolist()
    for run, values in zip((r for s in noises.values() for g in s.values() for r in g.values()),
                           rows, strict=True):  # fmt: skip
        run.frequency["test"]["outputs"]["excess"] = values
    figure = excess(noises, None)
    axes = iter(figure.axes)
    for series in noises.values():
        means = {}
        for title in series:
            values = [r.frequency["test"]["outputs"]["excess"] for r in members(series, title)]
            means[title] = np.mean(values, axis=0)[:, 1:].T  # the first delta does not filter
        for title, values in means.items():
            panel = next(axes)
            if title != "cross-entropy":
                values = values - means["cross-entropy"]
                assert panel.get_title().endswith("minus cross-entropy")
            shown = panel.collections[0].get_array()
            np.testing.assert_allclose(np.reshape(shown, values.shape), values, atol=1e-12)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["400", "564"]


@pytest.mark.slow
@pytest.mark.parametrize("make", [order, excess])
def test_a_loss_that_one_noise_lacks_has_no_panel_there(make):
    runs = study(["pair"], LOSSES[:2]) + study(["symmetric"], LOSSES[:1])
    axes = [axes for axes in make(by_noise(runs), None).axes if axes.get_title()]
    names = ["cross-entropy", DISTILLED, "cross-entropy"]
    assert [panel.get_title().split("\n")[0] for panel in axes] == names


@pytest.mark.slow
@pytest.mark.parametrize("make", BY_BAND)
def test_the_longest_run_sets_the_axis_of_all_noises(make):
    runs = study(["pair"], length=10) + study(["symmetric"], length=4)
    panels = [axes for axes in make(by_noise(runs), None).axes if axes.get_label() != "<colorbar>"]
    assert all(panel.get_xlim()[1] >= 10 for panel in panels)


@pytest.mark.slow
def test_the_delta_is_the_wanted_one_or_filters_in_every_run():
    noises = by_noise([make_run(), with_deltas(make_run(seed=7), masses=[1.0, 1.9, 2.0])])
    assert frequency(noises, None).axes[0].get_title() == "Δ(564) by energies"
    noises = by_noise([make_run(), with_deltas(make_run(seed=7), [100.0, 336.0, 564.0])])
    assert frequency(noises, None).axes[0].get_title() == "Δ(564) by energies"
    assert errors(by_noise([make_run()]), 400.0).axes[0].lines[0].get_ydata()[0] == 0.2


@pytest.mark.parametrize("make", BY_BAND)
@pytest.mark.parametrize(
    ("other", "words"),
    [
        (make_run(seed=7, frequency=False), ("1 of 2 runs", "seed7", "run frequency.py")),
        (with_deltas(make_run(seed=7), masses=[1, None, 1.9]), ("frequency.py --delta 400 564",)),
        (with_deltas(make_run(seed=7), [1.0, 2.0, 3.0]), ("no measured delta filters", "2256")),
        (with_deltas(make_run(seed=7), values="logits"), ("softmax", "logits", "frequency.py")),
    ],
)
def test_what_is_missing_is_said_with_the_command(make, other, words):
    with pytest.raises(UserError) as error:
        make(by_noise([make_run(), other]), None)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("delta", [333.0, 100.0])  # not measured; filters nothing
@pytest.mark.parametrize("make", BY_BAND[:3])
def test_a_delta_that_cannot_be_shown_is_refused(make, delta):
    with pytest.raises(UserError, match=f"--delta {delta:g} was not .*: use one of 400, 564"):
        make(by_noise([make_run()]), delta)


@pytest.mark.slow
def test_logits_are_drawn_and_named_but_have_no_errors():
    noises = by_noise([with_deltas(make_run(), values="logits")])
    assert "low-frequency part of the logits on" in text_of(frequency(noises, None))
    with pytest.raises(UserError, match=r"run frequency\.py without --values"):
        errors(noises, None)


def test_memorization_names_the_command_that_is_missing():
    runs = [*study(["pair"], seeds=[6]), make_run(seed=7, memorization=False)]
    with pytest.raises(UserError, match=r"1 of 4 runs .*seed7.*frequency\.py"):
        memorization(by_noise(runs), None)


@pytest.mark.slow
def test_eigenvectors_are_means_at_the_last_epoch_and_of_cross_entropy_earlier(noises):
    figure = eigenvectors(noises, None)
    middles = [np.sqrt(a * (b - 1)) for a, b in itertools.pairwise(EDGES)]
    np.testing.assert_allclose(band_middles(EDGES), middles)
    for row, series in enumerate(noises.values()):
        for panel, part in zip(figure.axes[3 * row :], ("clean", "residual"), strict=False):
            for title in series:
                kernels = [run.spectrum["kernels"][0] for run in members(series, title)]
                values = np.mean([kernel["softmax"][part] for kernel in kernels], axis=0)
                ((x, y),) = curves(panel, STYLES[title][0])
                np.testing.assert_allclose(x, [m for m in middles if m >= 5])
                np.testing.assert_allclose(y, values[-1][-len(y) :])
                if title == "cross-entropy":
                    for fraction, shade in zip(EARLIER_EPOCHS, SHADES, strict=True):
                        ((_, y),) = curves(panel, shade)
                        expected = values[max(round(10 * fraction) - 1, 0)]
                        np.testing.assert_allclose(y, expected[-len(y) :])
    for color in (RIGHT, WRONG):
        ((x, y),) = curves(figure.axes[2], color)
        np.testing.assert_allclose(y, np.cumsum(np.diff(EDGES) / 100))
        assert x[-1] == EDGES[-1] - 1


@pytest.mark.slow
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


@pytest.mark.slow
def test_spectra_that_are_missing_or_do_not_fit_are_said():
    run = make_run(spectrum=True)
    text = text_of(eigenvectors(by_noise([run, make_run(seed=7)]), None))
    assert "1 without spectrum.json" in text and "seed 6" in text
    with pytest.raises(UserError, match=r"run frequency\.py --eigenvectors"):
        eigenvectors(by_noise([make_run()]), None)
    other = make_spectrum([1, 2, 3], edges=[*EDGES[:-1], 201])
    with pytest.raises(UserError, match="samples of different sizes"):
        eigenvectors(by_noise([run, replace(make_run(seed=7), spectrum=other)]), None)
    with pytest.raises(UserError, match="samples of different sizes"):  # of two losses
        eigenvectors(by_noise([run, replace(make_run(DISTILLED), spectrum=other)]), None)
    run.spectrum["kernels"][0]["energies"]["clean"] = None
    assert not curves(eigenvectors(by_noise([run]), None).axes[2], RIGHT)


def test_a_loss_keeps_its_style_whatever_else_is_drawn():
    for parts in zip(*STYLES.values(), strict=True):
        assert len(set(map(str, parts))) == len(STYLES)
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


def test_the_caption_names_data_network_sizes_and_unequal_seeds():
    data = {"val_size": 20, "test_size": 30}
    runs = study(["pair"], LOSSES[:1], data=data) + study(["pair"], [DISTILLED], [6], data=data)
    text = layout.caption(by_noise(runs), "mean")
    assert text == "cifar10; small_cnn; 100 training, 20 held-out and 30 test images; " + (
        "1 or 3 seeds (mean)"
    )
    assert layout.caption(by_noise([make_run()]), "mean").endswith("seed 6")
    assert layout.caption(by_noise(study(["pair"])), "mean").endswith("seeds 6, 7, 8 (mean)")


def test_wrapped_lines_fit_and_lose_no_character():
    figure, _ = layout.panels(1, 1, (4, 3))
    text = layout.wrapped(figure, LONG, 2.5, 9)
    assert "".join(text.split()) == "".join(LONG.split())
    assert all(layout.inches(figure, line, 9) <= 2.5 for line in text.split("\n"))
    assert layout.wrapped(figure, "a\x1b[31m", 2.5, 9) == "a\\x1b[31m"


def assert_readable(figure):
    """Draw; caption, legend, titles and labels must lie on the canvas, and none on another."""
    figure.canvas.draw()
    texts = [figure._suptitle, *(t for legend in figure.legends for t in legend.get_texts())]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
    boxes = {t: t.get_window_extent() for t in texts if t.get_text()}
    canvas = figure.bbox.padded(1)
    for text, box in boxes.items():
        assert canvas.contains(box.x0, box.y0) and canvas.contains(box.x1, box.y1), text
    for (one, box), (other, second) in itertools.combinations(boxes.items(), 2):
        assert not box.padded(-1).overlaps(second.padded(-1)), (one, other)
    for axes in figure.axes:
        assert (axes.bbox.width > 60 and axes.bbox.height > 60) or axes.get_label() == "<colorbar>"


CASES = {
    "one of all": {"losses": LOSSES[:1], "seeds": [6], "length": 1, "noises": ["pair"]},
    "seven series": {"losses": (*LOSSES, *OTHERS), "length": 300, "data": {"rate_found": 0.407}},
    "long names": {
        "losses": ("cross-entropy", LONG), "noises": [LONG], "data": {"title": LONG}
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", [name for name in plot.figures() if name != "rate.png"])
def test_no_text_is_cut_or_covered(case, name):
    with project_style():
        noises = by_noise(study(spectrum=True, **CASES[case]))
        assert_readable(plot.figures()[name](noises, None))


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "ticks"), [(1, [1]), (4, [1, 2, 3, 4])])
def test_epochs_are_whole(epochs, ticks):
    axes = accuracy(by_noise(study(["pair"], length=epochs)), None).axes[0]
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == ticks


@pytest.mark.slow
def test_neither_titles_nor_the_users_matplotlibrc_change_a_figure(tmp_path):
    noises = by_noise([make_run(data={"title": r"cost $x_$ { \frac a_b^c % d"})])
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "red"}):
        with project_style():
            layout.save(accuracy(noises, None), tmp_path / "one.png")
        assert matplotlib.rcParams["font.size"] == 30
    with project_style():
        layout.save(accuracy(noises, None), tmp_path / "other.png")
    one, other = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("one", "other"))
    np.testing.assert_array_equal(one, other)
