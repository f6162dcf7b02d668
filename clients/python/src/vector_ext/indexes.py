"""What the index classes for SQLAlchemy, Alembic and Django have in common."""

from __future__ import annotations

from typing import Any

METRICS = ("l2", "ip", "cosine", "l1", "hamming", "jaccard")
OPTIONS = ("lists", "bits", "seed")


def operator_class(kind: str, metric: str) -> str:
    """The name of the operator class for a column's type, as it is declared (`vector(3)`), and a metric."""
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r} is none of {', '.join(METRICS)}")
    return f"{kind.partition('(')[0].strip().lower()}_{metric}_ops"


def options(given: dict[str, Any]) -> dict[str, Any]:
    """Those of an index's options that are given."""
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"{name} has to be a whole number, not {value!r}")
    return {name: value for name, value in given.items() if value is not None}
