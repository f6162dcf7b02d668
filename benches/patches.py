"""A large table of real vectors: descriptors of patches of the Fashion-MNIST images, as SIFT computes them.

Each is 128 dimensions: in 4 x 4 cells of 4 x 4 pixels, a histogram of 8 directions of the gradient; normalised, clipped at 0.2
and normalised again, as SIFT does, and scaled by 512. There are some millions of them: patches lie anywhere in the image, and
each pass over the images turns, scales and shifts them another way. Patches without contrast are left out, as SIFT's
keypoints are. Rows come in random order; the same numbers on every machine.
"""

import numpy as np

SIDE, CELL, PATCH = 28, 4, 16
PLACES = SIDE - PATCH + 1  # a side
PER_IMAGE = 12  # patches of an image and pass
LEAST_CONTRAST = 0.25  # of the mean norm of all patches


def descriptors(images, rows, seed=1, batch=2000):
    """Yields arrays of descriptors of `images` (n x 784), `rows` in all."""
    random = np.random.default_rng(seed)
    while rows > 0:
        order = random.permutation(len(images))
        for start in range(0, len(order), batch):
            some = np.asarray(images[np.sort(order[start:start + batch])], np.float32).reshape(-1, SIDE, SIDE)
            found = _of(_moved(some, random), random)[:rows]
            rows -= len(found)
            yield found
            if rows <= 0:
                return


def _moved(images, random):
    """Images turned by up to 20 degrees, scaled by 0.85 ... 1.15 and shifted by up to 2 pixels."""
    n = len(images)
    angle, scale = random.uniform(-0.35, 0.35, n), random.uniform(0.85, 1.15, n)
    shift = random.uniform(-2, 2, (2, n, 1, 1))
    y, x = np.meshgrid(*2 * (np.arange(SIDE) - (SIDE - 1) / 2,), indexing="ij")
    cos, sin = (np.cos(angle) / scale)[:, None, None], (np.sin(angle) / scale)[:, None, None]
    at = [np.clip(center + shift[i] + (SIDE - 1) / 2, 0, SIDE - 1.001)
          for i, center in enumerate((cos * y - sin * x, sin * y + cos * x))]
    (y0, x0), (fy, fx) = [a.astype(int) for a in at], [a % 1 for a in at]
    i = np.arange(n)[:, None, None]
    return ((1 - fy) * ((1 - fx) * images[i, y0, x0] + fx * images[i, y0, x0 + 1])
            + fy * ((1 - fx) * images[i, y0 + 1, x0] + fx * images[i, y0 + 1, x0 + 1]))


def _of(images, random):
    n = len(images)
    gy, gx = np.gradient(images, axis=(1, 2))
    # Each gradient counts for the two directions it lies between.
    turn = (np.arctan2(gy, gx) / (2 * np.pi) * 8) % 8
    first, part, size = turn.astype(int) % 8, turn % 1, np.hypot(gx, gy)
    sums = np.zeros((n, SIDE + 1, SIDE + 1, 8), np.float32)
    i, y, x = np.ogrid[:n, 1:SIDE + 1, 1:SIDE + 1]
    sums[i, y, x, first] = size * (1 - part)
    sums[i, y, x, (first + 1) % 8] = size * part
    sums = sums.cumsum(1).cumsum(2)
    cells = sums[:, CELL:, CELL:] - sums[:, :-CELL, CELL:] - sums[:, CELL:, :-CELL] + sums[:, :-CELL, :-CELL]
    place = np.argsort(random.random((n, PLACES * PLACES)), 1)[:, :PER_IMAGE]
    at = np.arange(0, PATCH, CELL)
    y = (place // PLACES)[:, :, None, None] + at[:, None]
    x = (place % PLACES)[:, :, None, None] + at
    found = cells[np.arange(n)[:, None, None, None], y, x].reshape(n * PER_IMAGE, 128)
    norms = np.linalg.norm(found, axis=1)
    found = found[norms > LEAST_CONTRAST * norms.mean()]
    found = np.minimum(found / np.linalg.norm(found, axis=1, keepdims=True), 0.2)
    found = 512 * np.maximum(found, 0) / np.linalg.norm(found, axis=1, keepdims=True)
    return random.permutation(found.astype(np.float32))
