"""The built-in images: ten drawn shapes, light on dark, so that nothing has to be downloaded."""

import numpy as np

CHUNK = 4096  # images drawn at a time, to bound memory


def _box(u: np.ndarray, v: np.ndarray, width: float, height: float) -> np.ndarray:
    return np.maximum(np.abs(u) - width, np.abs(v) - height)


def _bars(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    nearest = np.abs((u + 0.3) % 0.6 - 0.3)  # to the middle of the nearest bar, at -0.6, 0, 0.6
    return np.maximum(_box(u, v, 0.8, 0.8), nearest - 0.17)


def _plus(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(_box(u, v, 0.95, 0.25), _box(u, v, 0.25, 0.95))


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    radius, tenth, inner = np.hypot(u, v), np.pi / 5, 0.42  # inner: of the notches
    angle = np.abs((np.arctan2(u, -v) + tenth) % (2 * tenth) - tenth)  # from the nearest point
    normal = np.array([inner * np.sin(tenth), 1 - inner * np.cos(tenth)])
    normal /= np.hypot(*normal)  # of the edge between that point, at (1, 0), and the notch
    return (radius * np.cos(angle) - 1) * normal[0] + radius * np.sin(angle) * normal[1]


# Distance to the outline in units of the shape's size, negative inside; u to the right, v down.
SHAPES = {
    "disc": lambda u, v: np.hypot(u, v) - 0.85,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.7) - 0.2,
    "square": lambda u, v: _box(u, v, 0.75, 0.75),
    "frame": lambda u, v: np.abs(_box(u, v, 0.62, 0.62)) - 0.17,
    "triangle": lambda u, v: np.maximum(v - 0.5, 0.75**0.5 * np.abs(u) - 0.5 * v - 0.5),
    "plus": _plus,
    "cross": lambda u, v: _plus((u + v) * 0.5**0.5, (u - v) * 0.5**0.5),
    "vertical bars": _bars,
    "horizontal bars": lambda u, v: _bars(v, u),
    "star": _star,
}


def draw_shapes(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Drawn shapes, light on dark, in equal classes and random order.

    Place, size, tilt (under 15 degrees, so that a plus is not a cross), both colors and the pixel
    noise are random. Returns images uint8 (count, 32, 32, 3) and labels int64 (count,).
    """
    side = 32
    labels = random.permutation(np.arange(count) % len(SHAPES))
    size = random.uniform(8, 12, count)
    x, y = (side - 1) / 2 + random.uniform(-1, 1, (2, count)) * np.maximum(side / 2 - size, 0)
    tilt = np.radians(random.uniform(-15, 15, count))
    dark, light = random.uniform(0, 0.4, (count, 3)), random.uniform(0.5, 1, (count, 3))
    images = np.empty((count, side, side, 3), np.uint8)
    for start in range(0, count, CHUNK):
        some = slice(start, min(start + CHUNK, count))
        right = np.arange(side)[None, None, :] - x[some, None, None]
        down = np.arange(side)[None, :, None] - y[some, None, None]
        cosine, sine = np.cos(tilt[some, None, None]), np.sin(tilt[some, None, None])
        u, v = cosine * right + sine * down, cosine * down - sine * right  # (n, 32, 32), pixels
        cover = np.empty(u.shape)  # 1 inside, 0 outside, between them over one pixel
        for label, outline in enumerate(SHAPES.values()):
            in_class = labels[some] == label
            scale = size[some][in_class, None, None]
            cover[in_class] = 0.5 - scale * outline(u[in_class] / scale, v[in_class] / scale)
        cover = cover.clip(0, 1)[..., None]
        color = dark[some, None, None] * (1 - cover) + light[some, None, None] * cover
        color += random.normal(0, 0.08, color.shape)
        images[some] = (255 * color).round().clip(0, 255)
    return images, labels
