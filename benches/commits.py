"""Two builds of the extension side by side: the processor time of the same searches, in turn, and what builds cost.

usage: commits.py --old PG_CONFIG [--new PG_CONFIG] [--datasets fashion glove] [--rounds 9] [--queries 300] [--rows N]

`make bench-commits OLD=<commit>` builds that commit into a private copy of the server and calls this. Each round runs the
same queries on both servers, old first in one round and new first in the next; what is told is the processor time of the
backend (from /proc), so that other work on the machine counts little, and the median over rounds of new ÷ old.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from pgvector import Vector
from pgvector.psycopg import register_vector

import datasets
from harness.cluster import Cluster

SETTINGS = {"shared_buffers": "2GB", "maintenance_work_mem": "1GB", "max_parallel_maintenance_workers": "2", "jit": "off",
            "max_wal_size": "16GB"}


def processor_seconds(process):
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


class Side:
    """One build on a server of its own."""

    def __init__(self, name, pg_config):
        self.name, self.cluster = name, Cluster(pg_config, SETTINGS)

    def load(self, data):
        self.connection = self.cluster.connect()
        execute = self.connection.execute
        execute("DROP EXTENSION IF EXISTS vector_ext CASCADE; DROP TABLE IF EXISTS items, queries")
        execute("CREATE EXTENSION vector_ext")
        register_vector(self.connection)
        execute(f"CREATE TABLE items (id int PRIMARY KEY, label int, v vector({data.dimensions}))")
        execute(f"CREATE TABLE queries (id int PRIMARY KEY, v vector({data.dimensions}))")
        for table, vectors, columns in (("items", data.base, "id, label, v"), ("queries", data.query, "id, v")):
            with self.connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int4", "int4", "vector"] if table == "items" else ["int4", "vector"])
                for i, vector in enumerate(vectors):
                    copy.write_row((i, i % 10, Vector(vector)) if table == "items" else (i, Vector(vector)))
        execute("VACUUM ANALYZE items")
        execute("CHECKPOINT")

    def build(self, data):
        started, used = time.perf_counter(), processor_seconds(self.connection.info.backend_pid)
        self.connection.execute("DROP INDEX IF EXISTS items_v")
        self.connection.execute(f"CREATE INDEX items_v ON items USING ivflsh (v {data.operator_class})")
        seconds = time.perf_counter() - started
        size = self.connection.execute("SELECT pg_relation_size('items_v')").fetchone()[0]
        return seconds, processor_seconds(self.connection.info.backend_pid) - used, size

    def prepare(self, data, kinds):
        execute = self.connection.execute
        for name, statement in kinds.items():
            execute(f"PREPARE {name} (vector) AS " + statement.format(d=f"v {data.operator} $1"))
        self.queries = [f"'{Vector(query).to_text()}'" for query in data.query]

    def run(self, kind, queries):
        """Processor seconds of the backend; it parses each query's text, which is the same for both sides."""
        before = processor_seconds(self.connection.info.backend_pid)
        for at in range(queries):
            self.connection.execute(f"EXECUTE {kind} ({self.queries[at % len(self.queries)]})", prepare=False).fetchall()
        return processor_seconds(self.connection.info.backend_pid) - before

    def recall(self, data, kind, k, queries):
        found = 0
        for i in range(queries):
            rows = self.connection.execute(f"EXECUTE {kind} ({self.queries[i]})", prepare=False).fetchall()
            found += data.hits(i, [row[0] for row in rows], k)
        return found / (k * queries)


KINDS = {
    "limit_10": "SELECT id FROM items ORDER BY {d} LIMIT 10",
    "limit_100": "SELECT id FROM items ORDER BY {d} LIMIT 100",
    "where_half": "SELECT id FROM items WHERE label < 5 ORDER BY {d} LIMIT 10",
    "where_tenth": "SELECT id FROM items WHERE label = 3 ORDER BY {d} LIMIT 10",
}


def compare(sides, data, arguments):
    old, new = sides
    print(f"\n{data.name}: {data.rows} x {data.dimensions}, {data.metric}", flush=True)
    for side in sides:
        side.load(data)
    for name, measure in (("build, seconds", 0), ("build, processor seconds of the backend", 1)):
        if measure == 0:
            builds = {side: [] for side in sides}
            for turn in range(arguments.builds):
                for side in sides[:: 1 if turn % 2 == 0 else -1]:
                    builds[side].append(side.build(data))
        middle = [statistics.median(build[measure] for build in builds[side]) for side in sides]
        print(f"  {name:42} old {middle[0]:8.2f}  new {middle[1]:8.2f}  new/old {middle[1] / middle[0]:.3f}")
    sizes = [builds[side][-1][2] for side in sides]
    print(f"  {'size, MB':42} old {sizes[0] / 1e6:8.1f}  new {sizes[1] / 1e6:8.1f}  new/old {sizes[1] / sizes[0]:.3f}")
    for side in sides:
        side.connection.execute("SET plan_cache_mode = force_generic_plan" if arguments.generic else "SELECT 1")
        side.prepare(data, KINDS)
    for kind in KINDS:
        queries = arguments.queries
        ratios, times = [], {side: [] for side in sides}
        for side in sides:
            side.run(kind, min(queries, 100))  # into memory, and known
        for turn in range(arguments.rounds):
            for side in sides[:: 1 if turn % 2 == 0 else -1]:
                times[side].append(side.run(kind, queries))
            ratios.append(times[new][-1] / times[old][-1])
        micro = [1e6 * statistics.median(times[side]) / queries for side in sides]
        told = ""
        if kind in ("limit_10", "limit_100"):
            k = int(kind.split("_")[1])
            told = "  recall " + " ".join(f"{side.recall(data, kind, k, min(queries, 500)):.4f}" for side in sides)
        print(f"  {kind + ', us of processor time a query':42} old {micro[0]:8.1f}  new {micro[1]:8.1f}  new/old "
              f"{statistics.median(ratios):.3f} ({min(ratios):.3f} ... {max(ratios):.3f}){told}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True)
    parser.add_argument("--new", default=os.environ.get("PG_CONFIG", "pg_config"))
    parser.add_argument("--datasets", nargs="+", default=["fashion", "glove"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--builds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--generic", action="store_true", help="with generic plans: no planning in the figures")
    arguments = parser.parse_args()
    cache = os.environ.get("VECTOR_EXT_CACHE", Path.home() / ".cache/vector_ext")
    sides = [Side("old", arguments.old), Side("new", arguments.new)]
    with sides[0].cluster, sides[1].cluster:
        for name in arguments.datasets:
            data = datasets.load(name, cache)
            compare(sides, data.truncated(arguments.rows) if arguments.rows else data, arguments)


if __name__ == "__main__":
    main()
