"""Recall where it is hard: many neighbours, queries unlike the rows, few rows; beside one or more builds of the extension.

usage: recall.py [--stages many unlike small heavy] [--rows N] [--queries N] [--target 0.95] [PG_CONFIG ...]

    many     333,000 rows of 100 dimensions in 200 Gaussian clusters: LIMIT 10 to 20,000, and beside WHERE clauses
    unlike   30,000 rows of 64 dimensions: rows and queries on two caps of the sphere (as texts and images lie in one space), and
             clusters with queries between them
    small    300 to 3,000 random rows of 8 dimensions
    heavy    Cauchy's distribution in 16 dimensions

Told are recall and the lists that a query reads on average. What is below the target is marked. `make bench-recall ARGS=…`.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from pgvector import Vector
from pgvector.psycopg import register_vector

from commits import SETTINGS
from harness.cluster import Cluster
from harness.search import COSINE, IP, L2

MARGIN = 0.01
LABELS = 100


class Table:
    def __init__(self, connection, rows, target):
        self.connection, self.rows, self.target = connection, np.ascontiguousarray(rows, np.float32), target
        self.labels = np.random.default_rng(9).integers(LABELS, size=len(rows))
        connection.execute("DROP TABLE IF EXISTS items")
        connection.execute(f"CREATE TABLE items (id int PRIMARY KEY, label int, v vector({rows.shape[1]}))")
        with connection.cursor().copy("COPY items FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int4", "int4", "vector"])
            for i, (row, label) in enumerate(zip(self.rows, self.labels)):
                copy.write_row((i, int(label), Vector(row)))
        connection.execute("VACUUM ANALYZE items")

    def index(self, metric, columns=""):
        self.metric = metric
        self.connection.execute("DROP INDEX IF EXISTS items_v")
        self.connection.execute(f"CREATE INDEX items_v ON items USING ivflsh (v vector_{metric.operators}{columns})")

    def exact(self, queries, passing):
        """Distances from all rows, a query at a time."""
        rows = self.rows[passing].astype(np.float64)
        norms = np.linalg.norm(rows, axis=1)
        for query in queries.astype(np.float64):
            dots = rows @ query
            yield (-dots if self.metric is IP else 1 - dots / norms / np.linalg.norm(query) if self.metric is COSINE
                   else np.sqrt(np.maximum(norms ** 2 - 2 * dots + query @ query, 0)))

    def measure(self, name, queries, limits, share=None):
        passing = np.flatnonzero(self.labels < share) if share else np.arange(len(self.rows))
        places = np.full(len(self.rows), -1)
        places[passing] = np.arange(len(passing))
        found, lists = {limit: [] for limit in limits}, {limit: [] for limit in limits}
        for query, distances in zip(queries, self.exact(queries, passing)):
            for limit in limits:
                rows = self.connection.execute(
                    f"SELECT id FROM items {f'WHERE label < {share}' if share else ''} ORDER BY v {self.metric.operator} %b LIMIT {limit}",
                    (Vector(query),)).fetchall()
                lists[limit].append(self.connection.execute("SELECT lists FROM ivflsh_last_scan()").fetchone()[0])
                k = min(limit, len(passing))
                last = np.partition(distances, k - 1)[k - 1]
                near = distances[places[[row[0] for row in rows]]] <= last + 1e-6 * abs(last) + 1e-9
                found[limit].append(min(near.sum(), k) / k)
        for limit in limits:
            recall = np.mean(found[limit])
            print(f"  {f'{name}, {self.metric.operator} LIMIT {limit}':64} recall {recall:.4f}  lists {np.mean(lists[limit]):8.1f}"
                  f"{'  BELOW' if recall < self.target - MARGIN else ''}", flush=True)


def clusters(rows, dimensions, count, spread, seed=1):
    dice = np.random.default_rng(seed)
    centres = dice.normal(size=(count, dimensions))

    def some(number):
        return (centres[dice.integers(count, size=number)] + spread * dice.normal(size=(number, dimensions))).astype(np.float32)

    return some(rows), some


def many(connection, options):
    rows, some = clusters(options.rows or 333_000, 100, 200, 1.0)
    table, queries = Table(connection, rows, options.target), some(options.queries)
    table.index(L2)
    limits = [limit for limit in (10, 100, 1000, 3000, 5000, 10000, 20000) if limit * 4 < len(rows)]
    table.measure("200 clusters", queries, limits)
    for columns in ("", ", label"):
        if columns:
            table.index(L2, columns)
        how = " of a filter column" if columns else ""
        table.measure(f"half of the rows{how}", queries, [limit for limit in (10, 5000) if limit in limits], share=LABELS // 2)
        table.measure(f"a tenth of the rows{how}", queries, [limit for limit in (10, 1000) if limit in limits], share=LABELS // 10)


def caps(rows, queries, dimensions, latent=None, spread=0.6, seed=1):
    """Rows and queries on two caps of the sphere at right angles; with `latent`, spread in so many dimensions only."""
    dice = np.random.default_rng(seed)
    basis = np.linalg.qr(dice.normal(size=(dimensions, dimensions)))[0].T
    within = basis[2:2 + latent] if latent else np.eye(dimensions)

    def around(pole, count):
        points = pole + spread * dice.normal(size=(count, len(within))) @ within / np.sqrt(len(within))
        return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)

    return around(basis[0], rows), around(basis[1], queries), around(basis[0], queries)


def unlike(connection, options):
    count = options.rows or 30_000
    for name, latent in (("two caps", None), ("two caps, 16 latent dimensions", 16)):
        rows, queries, alike = caps(count, options.queries, 64, latent)
        table = Table(connection, rows, options.target)
        for metric in (IP, L2, COSINE):
            table.index(metric)
            table.measure(f"{name}, queries of the other", queries, [10])
            table.measure(f"{name}, queries like the rows", alike, [10])
    rows, some = clusters(count, 64, 200, 0.3)
    dice = np.random.default_rng(5)
    gaussian, alike = dice.normal(size=(options.queries, 64)).astype(np.float32), some(options.queries)
    table = Table(connection, rows, options.target)
    for metric in (IP, L2, COSINE):
        table.index(metric)
        table.measure("200 clusters, Gaussian queries", gaussian, [10])
        table.measure("200 clusters, means of two rows", (alike + some(options.queries)) / 2, [10])
        table.measure("200 clusters, queries like the rows", alike, [10])


def small(connection, options):
    for count in (300, 1000, 3000):
        for seed in (1, 2):
            dice = np.random.default_rng((count, seed))
            for name, draw in (("uniform", dice.random), ("Gaussian", dice.standard_normal)):
                table = Table(connection, draw((count, 8)), options.target)
                table.index(L2)
                table.measure(f"{count} {name} rows x 8, seed {seed}", draw((options.queries, 8)).astype(np.float32), [10])


def heavy(connection, options):
    for count in (5000, 20000, 60000):
        for seed in (1, 2, 3):
            dice = np.random.default_rng((count, seed))
            table = Table(connection, dice.standard_cauchy((count, 16)), options.target)
            table.index(L2)
            table.measure(f"{count} Cauchy rows x 16, seed {seed}", dice.standard_cauchy((options.queries, 16)).astype(np.float32), [10, 100])


STAGES = {stage.__name__: stage for stage in (many, unlike, small, heavy)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pg_configs", nargs="*", metavar="PG_CONFIG", default=[os.environ.get("PG_CONFIG", "pg_config")])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--target", type=float, default=0.95)
    options = parser.parse_args()
    for pg_config in options.pg_configs:
        print(f"\n{pg_config}, target {options.target}", flush=True)
        with Cluster(pg_config, SETTINGS) as cluster, cluster.connect() as connection:
            connection.execute("CREATE EXTENSION vector_ext")
            register_vector(connection)
            connection.execute(f"SET ivflsh.target_recall = {options.target}")
            connection.execute("SET enable_seqscan = off; SET enable_sort = off; SET work_mem = '256MB'")
            for stage in options.stages:
                STAGES[stage](connection, options)


if __name__ == "__main__":
    main()
