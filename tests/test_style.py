"""What all figures share: one style per loss, texts inside the canvas, files and fonts."""

import io
import itertools

import matplotlib
import numpy as np
import pytest
from PIL import Image
from synthetic_runs import LOSSES, OTHER_LOSSES, make_run, make_runs

import plot
from analysis.history import by_noise
from common.command_line import UserError
from plotting.style import (
    SOFTWARE,
    STYLES,
    caption,
    family,
    panels,
    project_style,
    save,
    seeds_text,
    series_styles,
    stack,
    wrapped,
)
from plotting.training import accuracy, frontier

HUMAN = "CIFAR-10_human-worse_label"
THREE = ("pair", "symmetric", HUMAN)
LONG = "a title that is very long and says much about the labels " + "x" * 60


def look(style):
    return style["color"], str(style["linestyle"]), style["linewidth"]


def test_losses_have_different_colors_dashes_and_markers():
    for parts in zip(*STYLES.values(), strict=True):
        assert len(set(map(str, parts))) == len(STYLES)


def test_a_loss_keeps_its_style_whatever_else_is_drawn():
    everything = series_styles(by_noise(make_runs((*LOSSES, *OTHER_LOSSES), seeds=(0,))))
    assert len(everything) == 7 and len({look(style) for style in everything.values()}) == 7
    for loss in (*LOSSES, *OTHER_LOSSES):
        alone = series_styles(by_noise([make_run(loss, measured=False)]))
        assert alone[loss] == everything[loss]
        if loss in STYLES:
            color, dash, marker = STYLES[loss]
            wanted = {"color": color, "linestyle": dash, "marker": marker}
            assert wanted.items() <= alone[loss].items()


def test_settings_of_a_loss_share_its_color_only():
    runs = [make_run(loss, lr=k / 100) for loss in LOSSES for k in range(1, 9)]
    styles = series_styles(by_noise(runs))
    assert len({look(style) for style in styles.values()}) == len(styles) == 24
    for loss in LOSSES:
        own = [s for title, s in styles.items() if title.startswith(f"{loss}, lr")]
        assert {style["color"] for style in own} == {STYLES[loss][0]} and len(own) == 8
    assert str(styles["cross-entropy, lr 0.01"]["linestyle"]) == str(STYLES["cross-entropy"][1])


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ("self-distillation, previous epoch, soft", "self-distillation, previous epoch"),
        ("self-distillation, soft", "self-distillation"),
        ("label smoothing, weight 0.1", "label smoothing"),
        ("generalized cross-entropy, q 0.5", "generalized cross-entropy"),
        ("GCE2", "GCE2"),
    ],
)
def test_a_loss_with_other_flags_belongs_to_its_family(loss, name):
    assert family(loss) == name


def test_stack_keeps_the_epochs_that_all_runs_have():
    runs = make_runs(LOSSES[:1], measured=False, epochs=9)
    runs.append(make_run(seed=5, epochs=9, trained=4))
    values = stack(runs, lambda run: run.history["test_accuracy"])
    assert values.shape == (3, 4)
    np.testing.assert_array_equal(values[1], runs[1].history["test_accuracy"][:4])


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ((4,), "seed 4"),
        ((4, 5), "seeds 4, 5 (mean)"),
        ((6, 7, 8, 9), "seeds 6 to 9 (mean)"),
        ((1, 3, 4), "seeds 1, 3, 4 (mean)"),
    ],
)
def test_the_seeds_in_words(seeds, text):
    noises = by_noise(make_runs(seeds=seeds, measured=False))
    assert seeds_text(noises, "mean") == text


def test_the_caption_names_data_network_sizes_and_unequal_seeds():
    runs = make_runs(LOSSES[:1], seeds=(0, 1, 2)) + make_runs(LOSSES[1:2], seeds=(0,))
    text = caption(by_noise(runs))
    for words in ("cifar10", "small_cnn, averaged weights", "10000 training, 2000 held-out"):
        assert words in text
    assert "1 or 3 seeds (line: mean; band: lowest to highest)" in text


def test_wrapped_lines_fit_and_lose_no_character():
    figure, _ = panels(1, 1, (4, 3))
    text = wrapped(figure, LONG, 2.5, 9)
    assert "".join(text.split()) == "".join(LONG.split())
    font = matplotlib.font_manager.FontProperties(size=9)
    renderer = figure.canvas.get_renderer()
    for line in text.split("\n"):
        width, _, _ = renderer.get_text_width_height_descent(line, font, False)
        assert width <= 2.5 * figure.dpi
    assert wrapped(figure, "a\x1b[31m", 2.5, 9) == "a\\x1b[31m"


def assert_readable(figure):
    """Draw; caption, legend, titles and labels must lie on the canvas, and none on another."""
    figure.canvas.draw()
    texts = [figure._suptitle, *(t for legend in figure.legends for t in legend.get_texts())]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
    boxes = {t: t.get_window_extent() for t in texts if t.get_text()}
    for text, box in boxes.items():
        assert figure.bbox.padded(1).containsx(box.x0), text
        assert figure.bbox.padded(1).containsx(box.x1), text
        assert figure.bbox.padded(1).containsy(box.y0), text
        assert figure.bbox.padded(1).containsy(box.y1), text
    for (one, box), (other, second) in itertools.combinations(boxes.items(), 2):
        assert not box.padded(-1).overlaps(second.padded(-1)), (one, other)
    for axes in figure.axes:
        assert (axes.bbox.width > 60 and axes.bbox.height > 60) or axes.get_label() == "<colorbar>"


CASES = {
    "one of all": {"losses": LOSSES[:1], "seeds": (6,), "epochs": 1},
    "four epochs": {"losses": LOSSES[:2], "seeds": (6,), "epochs": 4},
    "seven series": {"losses": (*LOSSES, *OTHER_LOSSES), "noises": THREE, "epochs": 300},
    "six seeds": {"seeds": range(6), "noises": THREE, "epochs": 40},
    "long names": {"losses": ("cross-entropy", LONG), "data": {"title": LONG, "noise": LONG}},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", [name for name in plot.FIGURES if name != "rate.png"])
def test_no_text_is_cut_or_covered(case, name):
    with project_style():
        figure = plot.FIGURES[name](by_noise(make_runs(**CASES[case])), None)
        assert_readable(figure)


@pytest.mark.parametrize(
    ("epochs", "ticks"), [(1, [1]), (4, [1, 2, 3, 4]), (40, [0, 10, 20, 30, 40])]
)
def test_epochs_are_whole(epochs, ticks):
    figure = accuracy(by_noise(make_runs(LOSSES[:1], epochs=epochs, measured=False)), None)
    low, high = figure.axes[0].get_xlim()
    found = [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high]
    assert found == ticks


@pytest.mark.parametrize("title", ["cost $x_$ {", r"$\frac$", "a_b^c % d", "tab\tbell\x07", "\\"])
def test_a_title_is_no_formula(tmp_path, title):
    runs = make_runs(LOSSES[:1], measured=False, data={"title": title, "noise": title})
    assert save(lambda: frontier(by_noise(runs), None), tmp_path / "a.png") == set()


def test_characters_without_a_glyph_are_returned_not_warned_of(tmp_path, recwarn):
    title = "\U00013000 猫"  # the first is a hieroglyph, which none of the fonts has
    runs = make_runs(LOSSES[:1], measured=False, data={"title": title})
    missing = save(lambda: frontier(by_noise(runs), None), tmp_path / "a.png")
    assert {"\U00013000"} <= missing <= {"\U00013000", "猫"} and not recwarn.list


def test_the_matplotlibrc_of_the_user_does_not_count(tmp_path):
    noises = by_noise(make_runs(measured=False))
    save(lambda: accuracy(noises, None), tmp_path / "one.png")
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "red"}):
        save(lambda: accuracy(noises, None), tmp_path / "other.png")
        assert matplotlib.rcParams["font.size"] == 30
    one, other = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("one", "other"))
    np.testing.assert_array_equal(one, other)


def test_only_own_figures_are_overwritten(tmp_path):
    noises = by_noise(make_runs(LOSSES[:1], measured=False))
    path = tmp_path / "accuracy.png"
    save(lambda: accuracy(noises, None), path)
    save(lambda: accuracy(noises, None), path)
    assert Image.open(path).text["Software"] == SOFTWARE
    photo = io.BytesIO()
    Image.new("RGB", (3, 3)).save(photo, "png")
    path.write_bytes(photo.getvalue())
    with pytest.raises(UserError, match="--out"):
        save(lambda: accuracy(noises, None), path)
    assert path.read_bytes() == photo.getvalue()
