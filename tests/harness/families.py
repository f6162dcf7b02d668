"""Families of data for the differential test: what makes indexes go wrong elsewhere, each small and the same for a seed."""

import numpy as np


def _uniform(dice, count, d):
    return dice.uniform(-1, 1, size=(count, d))


def _positive(dice, count, d):
    return dice.uniform(0, 1, size=(count, d))


def _gaussian(dice, count, d):
    return dice.normal(size=(count, d))


def _clusters(dice, count, d, spread=0.2):
    centres = dice.normal(size=(max(1, min(30, count // 8 + 1)), d))
    return centres[dice.integers(len(centres), size=count)] + spread * dice.normal(size=(count, d))


def _tight_clusters(dice, count, d):
    return _clusters(dice, count, d, 0.002)


def _normalised(dice, count, d):
    rows = _clusters(dice, count, d, 0.4)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def _few_values(dice, count, d):
    return dice.normal(size=(4, d))[dice.integers(4, size=count)]


def _two_values(dice, count, d):
    """Half of the rows zero, half one."""
    return np.repeat(dice.integers(2, size=(count, 1)), d, axis=1).astype(float)


def _all_equal(dice, count, d):
    return np.repeat(dice.normal(size=(1, d)), count, axis=0)


def _equal_but_one(dice, count, d):
    rows = _all_equal(dice, count, d)
    rows[dice.integers(count)] *= 20
    return rows


def _outlier(dice, count, d):
    rows = _gaussian(dice, count, d)
    rows[dice.integers(count)] *= 1e6
    return rows


def _outliers(dice, count, d):
    rows = _gaussian(dice, count, d)
    some = dice.random(count) < 0.02
    rows[some] *= 10.0 ** dice.uniform(0, 5, size=(some.sum(), 1))
    return rows


def _cauchy(dice, count, d):
    return np.clip(dice.standard_cauchy(size=(count, d)), -1e4, 1e4)


def _lognormal(dice, count, d):
    return np.exp(dice.normal(size=(count, d)) * 1.5)


def _zeros(dice, count, d):
    """A third of the rows without direction."""
    rows = _gaussian(dice, count, d)
    rows[dice.random(count) < 0.33] = 0
    return rows


def _bits(dice, count, d):
    return dice.integers(2, size=(count, d)).astype(float)


def _sparse(dice, count, d):
    return dice.normal(size=(count, d)) * (dice.random((count, d)) < 0.1)


def _far_from_origin(dice, count, d):
    """Rows that differ little, far away from zero."""
    return 50 + dice.normal(size=(count, d))


def _sorted(dice, count, d):
    rows = _clusters(dice, count, d)
    return rows[np.argsort(rows[:, 0])]


def _line(dice, count, d):
    """One intrinsic dimension."""
    return np.linspace(-3, 3, count)[:, None] * dice.normal(size=(1, d)) + 1e-3 * dice.normal(size=(count, d))


def _duplicates(dice, count, d):
    rows = _clusters(dice, count, d)
    return rows[dice.integers(max(1, count // 10), size=count)]


def _cap(dice, count, d):
    """A narrow cap of the sphere: queries of another cap (see `queries`) are unlike all rows."""
    rows = 0.25 * dice.normal(size=(count, d))
    rows[:, 0] += 1
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


FAMILIES = {name.removeprefix("_"): make for name, make in (
    (make.__name__, make) for make in (
        _uniform, _positive, _gaussian, _clusters, _tight_clusters, _normalised, _few_values, _two_values, _all_equal,
        _equal_but_one, _outlier, _outliers, _cauchy, _lognormal, _zeros, _bits, _sparse, _far_from_origin, _sorted, _line,
        _duplicates, _cap))}


def rows_of(family, seed, count, d):
    """`count` rows of a family, float32."""
    return FAMILIES[family](np.random.default_rng((seed, d)), count, d).astype(np.float32)


KINDS = ("row", "near a row", "between rows", "like the rows", "unlike the rows", "other cap")


def query_of(kind, family, dice, rows):
    """A query of a kind; float32."""
    d = rows.shape[1]
    row = rows[dice.integers(len(rows))].astype(np.float64)
    scale = float(np.median(np.abs(rows))) or 1.0
    if kind == "row":
        return row.astype(np.float32)
    if kind == "near a row":
        return (row + 0.1 * scale * dice.normal(size=d)).astype(np.float32)
    if kind == "between rows":
        return ((row + rows[dice.integers(len(rows))]) / 2).astype(np.float32)
    if kind == "like the rows":
        return FAMILIES[family](dice, 2, d)[1].astype(np.float32)
    if kind == "unlike the rows":
        return (2 * scale * dice.normal(size=d)).astype(np.float32)
    query = 0.25 * dice.normal(size=d)
    query[-1] += 1
    return (query / np.linalg.norm(query)).astype(np.float32)
