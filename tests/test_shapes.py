"""shapes.py: the drawn shapes against polygons and by hand."""

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

import shapes


def test_shapes_are_a_function_of_the_seed_and_balanced():
    images, labels = shapes.draw_shapes(105, np.random.default_rng(3))
    again, _ = shapes.draw_shapes(105, np.random.default_rng(3))
    other, _ = shapes.draw_shapes(105, np.random.default_rng(4))
    assert images.shape == (105, 32, 32, 3) and images.dtype == np.uint8
    assert np.array_equal(images, again) and not np.array_equal(images, other)
    assert sorted(np.bincount(labels)) == [10] * 5 + [11] * 5
    assert labels.tolist() != sorted(labels)


def test_more_shapes_than_are_drawn_at_once():
    images, labels = shapes.draw_shapes(4200, np.random.default_rng(0))
    assert len(labels) == 4200 and (images.reshape(4200, -1).std(axis=1) > 10).all()


def test_shapes_are_light_on_dark():
    images, labels = shapes.draw_shapes(200, np.random.default_rng(0))
    assert images.max(axis=(1, 2)).mean() > 1.5 * np.median(images, axis=(1, 2)).mean()
    discs = images[labels == 0].mean(axis=3)
    assert (discs.max(axis=(1, 2)) > discs[:, 0, 0] + 20).mean() > 0.8


def corners(name):
    """The outline of a shape as the corners of polygons, independent of its distance formula."""

    def box(width, height):
        return [(-width, -height), (width, -height), (width, height), (-width, height)]

    turn = np.linspace(0, 2 * np.pi, 11)[:10]
    radius = np.where(np.arange(10) % 2, 0.42, 1)
    half = 0.5**0.5
    bars = [[(x - 0.17, -0.8), (x + 0.17, -0.8), (x + 0.17, 0.8), (x - 0.17, 0.8)] for x in
            (-0.6, 0, 0.6)]  # fmt: skip
    plus = [box(0.95, 0.25), box(0.25, 0.95)]
    return {
        "square": [box(0.75, 0.75)],
        "triangle": [[(0, -1), (0.75**0.5, 0.5), (-(0.75**0.5), 0.5)]],
        "plus": plus,
        "cross": [[(half * (x + y), half * (x - y)) for x, y in part] for part in plus],
        "star": [list(zip(radius * np.sin(turn), -radius * np.cos(turn), strict=True))],
        "vertical bars": bars,
        "horizontal bars": [[(y, x) for x, y in bar] for bar in bars],
    }[name]


@pytest.mark.parametrize(
    "name", ["square", "triangle", "plus", "cross", "star", "vertical bars", "horizontal bars"]
)
def test_outlines_against_polygons(name):
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (4000, 2))
    distance = shapes.SHAPES[name](points[:, 0], points[:, 1])
    inside = np.any([Polygon(part).contains_points(points) for part in corners(name)], axis=0)
    clear = np.abs(distance) > 1e-9
    np.testing.assert_array_equal(distance[clear] < 0, inside[clear])


def test_outlines_of_discs_rings_and_frames_by_hand():
    at = {name: shapes.SHAPES[name] for name in ("disc", "ring", "frame")}
    assert at["disc"](0, 0) < 0 < at["disc"](0.9, 0)
    assert at["ring"](0, 0) > 0 and at["ring"](0.5, 0.5) < 0 < at["ring"](0.95, 0)
    assert at["frame"](0, 0) > 0 and at["frame"](0.6, 0.6) < 0 < at["frame"](0, 0.85)
