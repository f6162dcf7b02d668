"""Searches, and how good they are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from psycopg import sql

from . import arrays
from .loading import Connection, identifier, tuples

OPERATORS = {"l2": "<->", "cosine": "<=>", "ip": "<#>", "l1": "<+>", "hamming": "<~>", "jaccard": "<%>"}


@dataclass(frozen=True)
class Hit:
    """A row that was found: its distance by the operator (the *negative* inner product for `ip`), and its columns."""

    distance: float
    row: dict[str, Any]


@dataclass(frozen=True)
class RecallPoint:
    """What searches with these settings have found, and how long the middle one and all but one in twenty took."""

    settings: dict[str, str]
    recall: float
    milliseconds: float
    milliseconds_95: float


def _literal(query: Any) -> str:
    """A vector as the server reads it, with all the digits that float32 has."""
    vector = np.asarray(query)
    if vector.ndim != 1:
        raise ValueError(f"a query is a vector, not an array of {vector.ndim} dimensions")
    if vector.dtype == bool:
        return "".join("1" if bit else "0" for bit in vector.tolist())
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


def _statement(table: str, column: str, metric: str, columns: Sequence[str], where: str | sql.Composable | None, exact: bool) -> sql.Composed:
    if metric not in OPERATORS:
        raise ValueError(f"metric {metric!r} is none of {', '.join(OPERATORS)}")
    distance = sql.SQL("{} {} %(query)s").format(sql.Identifier(column), sql.SQL(OPERATORS[metric].replace("%", "%%")))
    # No index has this expression, so that the server looks at all rows.
    order = sql.SQL("({}) + 0.0::float8" if exact else "{}").format(distance)
    condition: sql.Composable = sql.SQL("")
    if where is not None:
        condition = sql.SQL("WHERE {}").format(sql.SQL(where) if isinstance(where, str) else where)
    return sql.SQL("SELECT {} FROM {} {} ORDER BY {} LIMIT %(k)s").format(
        sql.SQL(", ").join([distance, *(sql.Identifier(name) for name in columns)]), identifier(table), condition, order)


def search(connection: Connection, table: str, query: Any, k: int = 10, *, column: str = "embedding", metric: str = "l2",
           columns: Sequence[str] = ("id",), where: str | sql.Composable | None = None, parameters: Mapping[str, Any] | None = None,
           settings: Mapping[str, str] | None = None, exact: bool = False) -> list[Hit]:
    """The `k` nearest rows that match `where` (SQL, with %(name)s for `parameters`), nearest first.

    `settings` hold for this search only: {"ivflsh.target_recall": "0.99"}. `exact`: by looking at all rows.
    """
    given = {"query": _literal(query), "k": k, **(parameters or {})}
    if len(given) != 2 + len(parameters or {}):
        raise ValueError("parameters cannot be named query or k")
    statement = _statement(table, column, metric, columns, where, exact)
    with connection.transaction():
        with _settings(connection, settings):
            rows = tuples(connection).execute(statement, given).fetchall()
    return [Hit(row[0], dict(zip(columns, row[1:], strict=True))) for row in rows]


class _settings:
    """Settings for what runs within; those from before come back also where the caller's transaction goes on."""

    def __init__(self, connection: Connection, settings: Mapping[str, str] | None) -> None:
        self.connection, self.settings, self.before = connection, settings or {}, dict[str, str]()

    def __enter__(self) -> None:
        for name, value in self.settings.items():
            found = tuples(self.connection).execute("SELECT current_setting(%s, true)", (name,)).fetchone()
            self.before[name] = (found and found[0]) or ""
            self._set(name, str(value))

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:  # an error takes them back by itself
            for name, value in self.before.items():
                self._set(name, value)

    def _set(self, name: str, value: str) -> None:
        tuples(self.connection).execute("SELECT set_config(%s, %s, true)", (name, value))


def recall(connection: Connection, table: str, queries: Any, k: int = 10, *, column: str = "embedding", metric: str = "l2",
           where: str | sql.Composable | None = None, parameters: Mapping[str, Any] | None = None,
           settings: Sequence[Mapping[str, str]] = ({},)) -> list[RecallPoint]:
    """The share of the true nearest rows that searches find, for each of several settings, on queries of your own.

    A row as far away as the last of the true ones counts as one of them.
    """
    matrix = arrays.as_matrix(queries)
    if not len(matrix):
        raise ValueError("no queries")
    asked: dict[str, Any] = {"column": column, "metric": metric, "where": where, "parameters": parameters, "columns": ()}
    true = [[hit.distance for hit in search(connection, table, query, k, exact=True, **asked)] for query in matrix]
    if not any(true):
        raise ValueError("no row matches any query")
    points = []
    for chosen in settings:
        found, times = 0, []
        for query, distances in zip(matrix, true, strict=True):
            begun = time.perf_counter()
            hits = search(connection, table, query, k, settings=chosen, **asked)
            times.append(1000 * (time.perf_counter() - begun))
            if distances:
                limit = distances[-1] + 1e-6 * abs(distances[-1])  # sums of another order end in other last digits
                found += sum(hit.distance <= limit for hit in hits)
        share = found / sum(map(len, true))
        points.append(RecallPoint(dict(chosen), share, float(np.median(times)), float(np.percentile(times, 95))))
    return points


def plot_recall(points: Sequence[RecallPoint], path: str | Path) -> None:
    """A picture of recall over latency (needs matplotlib)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(points, key=lambda point: point.milliseconds)
    axes.plot([point.milliseconds for point in ordered], [point.recall for point in ordered], marker="o")
    for point in ordered:
        axes.annotate(", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in point.settings.items()) or "as it is set",
                      (point.milliseconds, point.recall), textcoords="offset points", xytext=(5, -10), fontsize=8)
    axes.set(xlabel="median latency of a search, ms", ylabel="recall")
    axes.grid(alpha=0.3)
    figure.savefig(path)
