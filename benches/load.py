"""How fast `vector_ext.load` is beside psql's \\copy of the same rows from a binary file, and how much memory it takes.

    scripts/python.sh benches/load.py            rows/s, in turn, the best of some runs
    scripts/python.sh benches/load.py --memory   the greatest resident memory of the loading process after more and more rows

Tables are unlogged and truncated between runs. Processor time is that of the client alone.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "clients/python/src")]

from harness.cluster import Cluster  # noqa: E402
from vector_ext import load  # noqa: E402
from vector_ext.wire import HEADER, TRAILER, Column, encode, scalar_field, vector_field  # noqa: E402

MEGABYTES = 200  # of vectors, for each number of dimensions


def write_file(path, ids, vectors):
    """The rows as COPY … TO a binary file writes them."""
    with open(path, "wb") as file:
        file.write(HEADER)
        for at in range(0, len(ids), 1000):
            fields = [scalar_field(Column("id", "int8", 20), ids[at:at + 1000], at, None),
                      vector_field(Column("embedding", "vector", 0), vectors[at:at + 1000], at)[0]]
            file.write(encode(fields, len(ids[at:at + 1000])))
        file.write(TRAILER)


def by_psql(cluster, path):
    """Seconds, and seconds of psql's processor time."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    cluster.psql(f"\\copy items FROM '{path}' (FORMAT BINARY)")
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def by_load(connection, ids, vectors):
    before, begun = time.process_time(), time.perf_counter()
    load(connection, "items", vectors, {"id": ids})
    return time.perf_counter() - begun, time.process_time() - before


def speed(cluster, runs):
    print("| dimensions | rows | load, rows/s | psql \\copy, rows/s | load / psql | client's processor, load | psql |\n|---|---|---|---|---|---|---|")
    for dimensions in (128, 768, 1536):
        count = MEGABYTES * 1_000_000 // (4 * dimensions)
        vectors = np.random.default_rng(dimensions).standard_normal((count, dimensions), np.float32)
        ids = np.arange(count)
        with tempfile.NamedTemporaryFile(dir=cluster.folder) as file, cluster.connect("load") as connection:
            os.chmod(file.name, 0o644)
            write_file(file.name, ids, vectors)
            connection.execute(f"DROP TABLE IF EXISTS items; CREATE UNLOGGED TABLE items (id bigint, embedding vector({dimensions}))")
            ours, psqls = [], []
            for _ in range(runs):
                for times, run in ((ours, lambda: by_load(connection, ids, vectors)), (psqls, lambda: by_psql(LoadDatabase(cluster), file.name))):
                    connection.execute("TRUNCATE items; CHECKPOINT")
                    times.append(run())
                    assert connection.execute("SELECT count(*) FROM items").fetchone() == (count,)
        (a, cpu_a), (b, cpu_b) = min(ours), min(psqls)
        print(f"| {dimensions} | {count:,} | {count / a:,.0f} | {count / b:,.0f} | {b / a:.2f} | {cpu_a:.2f} s | {cpu_b:.2f} s |", flush=True)


class LoadDatabase:
    """The server's psql in the database of this benchmark."""

    def __init__(self, cluster):
        self.cluster = cluster

    def psql(self, sql):
        return self.cluster.psql(sql, "load")


def memory(cluster, rows, dimensions=128, batch=10_000):
    kilobytes = []

    def batches():
        rng = np.random.default_rng(1)
        for at in range(0, rows, batch):
            if at in (rows // 10, rows // 2):
                kilobytes.append((at, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
            yield rng.standard_normal((batch, dimensions), np.float32), {"id": np.arange(at, at + batch)}

    with cluster.connect("load") as connection:
        connection.execute(f"CREATE UNLOGGED TABLE many (id bigint, embedding vector({dimensions}))")
        begun = time.perf_counter()
        load(connection, "many", batches())
        took = time.perf_counter() - begun
    kilobytes.append((rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    for at, size in kilobytes:
        print(f"after {at:,} rows: {size / 1024:.0f} MiB")
    print(f"{rows:,} rows of {dimensions} dimensions, {rows * dimensions * 4 / 2 ** 20:.0f} MiB of vectors, in {took:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000, help="for --memory")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with Cluster() as cluster:
        cluster.create_database("load", "vector_ext")
        if options.memory:
            memory(cluster, options.rows)
        else:
            speed(cluster, options.runs)


if __name__ == "__main__":
    main()
