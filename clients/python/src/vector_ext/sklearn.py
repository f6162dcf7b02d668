"""Neighbours by PostgreSQL in pipelines of scikit-learn, in the place of its `KNeighborsTransformer`.

    make_pipeline(PostgresNeighbors(n_neighbors=10, metric="cosine", dsn="dbname=mine"), KNeighborsClassifier(10, metric="precomputed"))
"""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import psycopg
import scipy.sparse
from psycopg import sql
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from .arrays import Array
from .indexes import METRICS, operator_class
from .loading import Connection, identifier, load
from .searching import OPERATORS

INDEXED_FROM = 10_000  # rows: fewer are looked at one by one as quickly


class PostgresNeighbors(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A graph of nearest neighbours, which a table and its index find.

    `fit` copies the samples into a table as `vector`, numbers of 32 bits; `transform` gives, as `KNeighborsTransformer` does, a sparse
    matrix with the distances to `n_neighbors` samples (one more by `mode="distance"`, as each sample is its own neighbour), nearest first.

    `metric`: l2, cosine, l1. `dsn`: where to connect to, else as libpq's variables say. `table`: is replaced by `fit`, and stays; without
    it one with a name of its own is made, which `drop` takes away. `exact`: look at all samples; otherwise an index is built from 10,000
    samples on, and `target_recall` says which share of the true neighbours it shall find.
    """

    def __init__(self, n_neighbors: int = 5, *, mode: str = "distance", metric: str = "l2", dsn: str = "", table: str | None = None,
                 exact: bool = False, target_recall: float | None = None) -> None:
        self.n_neighbors = n_neighbors
        self.mode = mode
        self.metric = metric
        self.dsn = dsn
        self.table = table
        self.exact = exact
        self.target_recall = target_recall

    def fit(self, X: Any, y: Any = None) -> PostgresNeighbors:
        """Copies samples into the table, and builds the index."""
        if self.mode not in ("distance", "connectivity"):
            raise ValueError(f"mode {self.mode!r} is neither distance nor connectivity")
        if self.metric not in ("l2", "cosine", "l1"):
            raise ValueError(f"metric {self.metric!r} is none of l2, cosine, l1 (of {', '.join(METRICS)} those that are distances of vectors)")
        if not isinstance(self.n_neighbors, (int, np.integer)) or self.n_neighbors < 1:
            raise ValueError(f"n_neighbors has to be a whole number from 1 on, not {self.n_neighbors!r}")
        samples = validate_data(self, X, dtype=[np.float64, np.float32])
        self.table_ = self.table or getattr(self, "table_", None) or f"neighbors_{uuid.uuid4().hex}"
        with psycopg.connect(self.dsn) as connection:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {0}; CREATE TABLE {0} (id int8 PRIMARY KEY, embedding vector({1}) NOT NULL)").format(
                identifier(self.table_), sql.Literal(samples.shape[1])))
            load(connection, self.table_, samples, {"id": np.arange(len(samples))})
            if len(samples) >= INDEXED_FROM and not self.exact and self.metric != "l1":
                connection.execute(sql.SQL("CREATE INDEX ON {} USING ivflsh (embedding {})").format(
                    identifier(self.table_), sql.SQL(operator_class("vector", self.metric))))
            connection.execute(sql.SQL("ANALYZE {}").format(identifier(self.table_)))
        self.n_samples_fit_ = len(samples)
        return self

    def transform(self, X: Any) -> Any:
        """The graph from these samples to those of `fit`: a matrix (n, samples of fit) in CSR form."""
        check_is_fitted(self)
        return self.kneighbors_graph(X, self.n_neighbors + (self.mode == "distance"), self.mode)

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """`fit`, then `transform` of the same samples."""
        return self.fit(X, y).transform(X)

    def kneighbors_graph(self, X: Any, n_neighbors: int | None = None, mode: str = "connectivity") -> Any:
        """As the method of that name of scikit-learn's estimators."""
        distances, rows = self.kneighbors(X, n_neighbors)
        width = rows.shape[1]
        data = distances.reshape(-1) if mode == "distance" else np.ones(rows.size)
        return scipy.sparse.csr_matrix((data, rows.reshape(-1), np.arange(len(rows) + 1) * width), shape=(len(rows), self.n_samples_fit_))

    def kneighbors(self, X: Any, n_neighbors: int | None = None) -> tuple[Array, Array]:
        """Distances and rows of the nearest samples, nearest first: two arrays (n, n_neighbors)."""
        check_is_fitted(self)
        samples = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        if k > self.n_samples_fit_:
            raise ValueError(f"Expected n_neighbors <= n_samples_fit, but n_neighbors = {k}, n_samples_fit = {self.n_samples_fit_}, "
                             f"n_samples = {len(samples)}")
        with psycopg.connect(self.dsn) as connection:
            return self._nearest(connection, samples, k)

    def _nearest(self, connection: Connection, samples: Array, k: int) -> tuple[Array, Array]:
        connection.execute("CREATE TEMPORARY TABLE vector_ext_queries (id int8, embedding vector) ON COMMIT DROP")
        load(connection, "vector_ext_queries", samples, {"id": np.arange(len(samples))})
        if self.target_recall is not None:
            connection.execute("SELECT set_config('ivflsh.target_recall', %s, true)", (str(self.target_recall),))
        distance = sql.SQL("t.embedding {} q.embedding").format(sql.SQL(OPERATORS[self.metric]))
        order = sql.SQL("({}) + 0.0::float8" if self.exact else "{}").format(distance)
        with connection.cursor(binary=True) as cursor:
            found = cursor.execute(sql.SQL("""SELECT q.id, n.id, n.distance FROM vector_ext_queries q CROSS JOIN LATERAL
                (SELECT t.id, {} AS distance FROM {} t ORDER BY {} LIMIT {}) n ORDER BY q.id, n.distance, n.id""").format(
                distance, identifier(self.table_), order, sql.Literal(k))).fetchall()
        if len(found) != len(samples) * k:
            raise RuntimeError(f"table {self.table_} has changed since fit: {len(found)} neighbours for {len(samples)} samples, {k} each")
        table = np.array(found, np.float64).reshape(len(samples), k, 3)
        return np.maximum(table[:, :, 2], 0), table[:, :, 1].astype(np.int64)

    def drop(self) -> None:
        """Takes the table away."""
        check_is_fitted(self)
        with psycopg.connect(self.dsn) as connection:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(identifier(self.table_)))

    @property
    def _n_features_out(self) -> int:
        return int(self.n_samples_fit_)
