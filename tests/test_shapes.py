"""dataset/shapes.py: the drawn shapes against polygons and by hand."""

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from dataset.shapes import SHAPES, draw_shapes


def draw(count, seed=0):
    return draw_shapes(count, np.random.default_rng(seed))


def test_shapes_are_a_function_of_the_seed_and_balanced():
    images, labels = draw(105, seed=3)
    assert images.shape == (105, 32, 32, 3) and images.dtype == np.uint8
    assert np.array_equal(images, draw(105, seed=3)[0])
    assert not np.array_equal(images, draw(105, seed=4)[0])
    assert sorted(np.bincount(labels)) == [10] * 5 + [11] * 5
    assert labels.tolist() != sorted(labels)


@pytest.mark.slow
def test_more_shapes_than_are_drawn_at_a_time():
    images, labels = draw(4200)
    assert len(labels) == 4200 and (images.reshape(4200, -1).std(axis=1) > 10).all()


def test_shapes_are_light_on_dark():
    images, labels = draw(200)
    assert images.max(axis=(1, 2)).mean() > 1.5 * np.median(images, axis=(1, 2)).mean()
    discs = images[labels == 0].mean(axis=3)
    assert (discs.max(axis=(1, 2)) > discs[:, 0, 0] + 20).mean() > 0.8


def rectangle(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def centered(width, height):
    return rectangle(-width, -height, width, height)


def star():
    turn, radius = np.arange(10) * np.pi / 5, np.where(np.arange(10) % 2, 0.42, 1)
    return list(zip(radius * np.sin(turn), -radius * np.cos(turn), strict=True))


PLUS = [centered(0.95, 0.25), centered(0.25, 0.95)]
BARS = [rectangle(x - 0.17, -0.8, x + 0.17, 0.8) for x in (-0.6, 0, 0.6)]
# The outlines as corners of polygons, independent of the distances to them.
CORNERS = {
    "square": [centered(0.75, 0.75)],
    "triangle": [[(0, -1), (0.75**0.5, 0.5), (-(0.75**0.5), 0.5)]],
    "plus": PLUS,
    "cross": [[(0.5**0.5 * (x + y), 0.5**0.5 * (x - y)) for x, y in part] for part in PLUS],
    "star": [star()],
    "vertical bars": BARS,
    "horizontal bars": [[(y, x) for x, y in bar] for bar in BARS],
}


@pytest.mark.parametrize("name", CORNERS)
def test_outlines_against_polygons(name):
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (4000, 2))
    distance = SHAPES[name](points[:, 0], points[:, 1])
    inside = np.any([Polygon(part).contains_points(points) for part in CORNERS[name]], axis=0)
    off_the_outline = np.abs(distance) > 1e-9
    np.testing.assert_array_equal(distance[off_the_outline] < 0, inside[off_the_outline])


def test_outlines_of_discs_rings_and_frames_by_hand():
    disc, ring, frame = (SHAPES[name] for name in ("disc", "ring", "frame"))
    assert disc(0, 0) < 0 < disc(0.9, 0)
    assert ring(0, 0) > 0 and ring(0.5, 0.5) < 0 < ring(0.95, 0)
    assert frame(0, 0) > 0 and frame(0.6, 0.6) < 0 < frame(0, 0.85)


def test_every_shape_has_a_test_of_its_outline():
    assert set(SHAPES) == set(CORNERS) | {"disc", "ring", "frame"}
