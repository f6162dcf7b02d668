"""How long single INSERTs take while a table grows from nothing, one row a transaction, beside one or more builds.

usage: latency.py [--rows N] [--dataset glove] [PG_CONFIG ...]

Told are percentiles of the wall clock and of the processor time of the backend (from /proc), which other work on the machine
changes little, and the searches' recall at the end. Without PG_CONFIG that of the environment is taken.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from pgvector import Vector
from pgvector.psycopg import register_vector

import datasets
from commits import SETTINGS
from harness.cluster import Cluster

SHARES = (0.5, 0.99, 0.999, 0.9999, 1.0)


def insert_all(connection, data):
    """Wall clock and processor seconds of each INSERT."""
    wall, processor = np.empty(data.rows), np.empty(data.rows)
    used = open(f"/proc/{connection.info.backend_pid}/schedstat", "rb", buffering=0)

    def nanoseconds():
        used.seek(0)
        return int(used.read(64).split()[0])

    for i, vector in enumerate(data.base):
        value, before, began = Vector(vector), nanoseconds(), time.perf_counter()
        connection.execute("INSERT INTO items VALUES (%s, %b)", (i, value), prepare=True)
        wall[i], processor[i] = time.perf_counter() - began, (nanoseconds() - before) / 1e9
    return wall, processor


def measure(pg_config, data):
    with Cluster(pg_config, SETTINGS) as cluster:
        connection = cluster.connect()
        connection.execute("CREATE EXTENSION vector_ext")
        register_vector(connection)
        connection.execute(f"CREATE TABLE items (id int PRIMARY KEY, v vector({data.dimensions}))")
        connection.execute(f"CREATE INDEX items_v ON items USING ivflsh (v {data.operator_class})")
        began = time.perf_counter()
        times = insert_all(connection, data)
        print(f"\n{pg_config}\n{data.rows} rows of {data.name} in {time.perf_counter() - began:.0f} s; milliseconds:")
        print("                  " + "".join(f"{f'p{100 * share:g}' if share < 1 else 'max':>10}" for share in SHARES))
        for name, seconds in zip(("wall clock", "processor time"), times):
            print(f"  {name:16}" + "".join(f"{1000 * np.quantile(seconds, share):10.3f}" for share in SHARES))
            slow = np.argsort(seconds)[-5:][::-1]
            print("    slowest: " + ", ".join(f"row {i} {1000 * seconds[i]:.0f} ms" for i in slow)
                  + f"; above 20 ms: {(seconds > 0.02).sum()}, above 100 ms: {(seconds > 0.1).sum()}")
        connection.execute("SET enable_seqscan = off")
        queries, hits, lists = min(400, len(data.query)), 0, 0
        for i in range(queries):
            rows = connection.execute(f"SELECT id FROM items ORDER BY v {data.operator} %b LIMIT 10", (Vector(data.query[i]),))
            hits += data.hits(i, [row[0] for row in rows.fetchall()], 10)
            lists += connection.execute("SELECT lists FROM ivflsh_last_scan()").fetchone()[0]
        print(f"  recall at 10: {hits / queries / 10:.4f}, lists read: {lists / queries:.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pg_configs", nargs="*", metavar="PG_CONFIG")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--dataset", default="glove")
    arguments = parser.parse_args()
    cache = os.environ.get("VECTOR_EXT_CACHE", Path.home() / ".cache/vector_ext")
    data = datasets.load(arguments.dataset, cache)
    for pg_config in arguments.pg_configs or [os.environ.get("PG_CONFIG", "pg_config")]:
        measure(pg_config, data.truncated(arguments.rows) if arguments.rows else data)


if __name__ == "__main__":
    main()
