"""Bit strings: ivflsh beside pgvector's HNSW (its defaults) in one server, by the processor time of the backend.

  scripts/python.sh benches/bits.py [--sets sentences,images,glove] [--rows N] [--queries N]

Recall@10 counts rows no farther than the true tenth. Sets: the signs of sentence embeddings (384 bits) and of GloVe (100), and
difference hashes (64) of Fashion-MNIST.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]
import datasets  # noqa: E402
from harness.cluster import Cluster  # noqa: E402

K = 10
METRICS = {"hamming": "<~>", "jaccard": "<%>"}
EFFORTS = {"ivflsh": [("ivflsh.target_recall", v) for v in (0.9, 0.95, 0.97, 0.99, 0.995)],
           "hnsw": [("hnsw.ef_search", v) for v in (20, 40, 80, 160, 320, 640, 1000)]}


def images(pixels):
    """Difference hashes: whether each of 8 x 8 areas is brighter than the one to its right."""
    pixels = pixels.reshape(-1, 28, 28)
    rows, columns = (np.linspace(0, 28, n + 1).astype(int) for n in (8, 9))
    areas = np.stack([np.stack([pixels[:, top:bottom, left:right].mean((1, 2))
                                for left, right in zip(columns, columns[1:])], 1)
                      for top, bottom in zip(rows, rows[1:])], 1)
    return (areas[:, :, :-1] > areas[:, :, 1:]).reshape(len(pixels), 64)


def load(name, cache, rows, queries):
    data = datasets.load("fashion" if name == "images" else name, cache)
    bits = images if name == "images" else lambda vectors: np.asarray(vectors) > 0
    return bits(np.asarray(data.base[:rows])), bits(data.query[:queries])


def distances(metric, base, query):
    """Of packed strings."""
    both = np.bitwise_count(base & query).sum(1, dtype=np.int64)
    if metric == "hamming":
        return np.bitwise_count(base ^ query).sum(1, dtype=np.int64).astype(float)
    return np.where(both > 0, 1 - both / np.maximum(np.bitwise_count(base | query).sum(1, dtype=np.int64), 1), 1.0)


def text(row):
    return "".join("1" if bit else "0" for bit in row)


def spent(connection):
    """Seconds of processor time of a backend."""
    return int(Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text().split()[0]) / 1e9


def measure(connection, method, metric, base, query, truth):
    operator, n = METRICS[metric], base.shape[1]
    packed, packed_queries = np.packbits(base, axis=1), np.packbits(query, axis=1)
    connection.execute("DROP INDEX IF EXISTS by_bits")
    connection.execute("CHECKPOINT")
    before, started = spent(connection), time.monotonic()
    connection.execute(f"CREATE INDEX by_bits ON items USING {method} (b bit_{metric}_ops)")
    built, wall = spent(connection) - before, time.monotonic() - started
    size = connection.execute("SELECT pg_relation_size('by_bits')").fetchone()[0]
    print(f"  {method:6} {metric}: built in {built:.1f} s of the backend's processor time ({wall:.1f} s by the clock), "
          f"{size / len(base):.1f} bytes a row", flush=True)
    connection.execute("SET enable_seqscan = off; SET enable_sort = off")
    connection.execute(f"PREPARE q (bit) AS SELECT id FROM items ORDER BY b {operator} $1 LIMIT {K}")
    rates = {}
    for setting, value in EFFORTS[method]:
        connection.execute(f"SET {setting} = {value}")
        hits, seconds = 0, 0.0
        for repeat in range(2):
            seconds = 0.0
            for i, row in enumerate(query):
                statement = f"EXECUTE q (B'{text(row)}')"
                before = spent(connection)
                found = [id for (id,) in connection.execute(statement, prepare=False).fetchall()]
                seconds += spent(connection) - before
                if repeat == 0:
                    hits += (distances(metric, packed[found], packed_queries[i]) <= truth[i] + 1e-9).sum()
        recall, rate = hits / K / len(query), len(query) / seconds
        rates[recall] = rate
        print(f"    {setting} = {value}: recall {recall:.4f}, {rate:.0f} queries a second", flush=True)
        if recall >= 0.995:
            break
    connection.execute("DEALLOCATE q; RESET ALL")
    return rates, built


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", default="sentences,images,glove")
    parser.add_argument("--metrics", default="hamming,jaccard")
    parser.add_argument("--rows", type=int, default=10 ** 9)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    cache = os.environ.get("BENCH_CACHE") or Path.home() / ".cache/vector_ext"
    with Cluster() as cluster:
        for name in options.sets.split(","):
            base, query = load(name, cache, options.rows, options.queries)
            print(f"{name}: {len(base)} rows of {base.shape[1]} bits, {len(query)} queries", flush=True)
            packed, packed_queries = np.packbits(base, axis=1), np.packbits(query, axis=1)
            connections = {}
            for method, extension in (("ivflsh", "vector_ext"), ("hnsw", "vector")):
                cluster.create_database(f"{name}_{method}", extension)
                connections[method] = connection = cluster.connect(f"{name}_{method}", options="-c statement_timeout=0")
                connection.autocommit = True
                connection.execute(f"CREATE TABLE items (id int, b bit({base.shape[1]}))")
                with connection.cursor().copy("COPY items FROM STDIN") as copy:
                    for i, row in enumerate(base):
                        copy.write_row((i, text(row)))
                connection.execute("VACUUM ANALYZE items")
            for metric in options.metrics.split(","):
                truth = [np.partition(distances(metric, packed, q), K - 1)[K - 1] for q in packed_queries]
                outcome = {method: measure(c, method, metric, base, query, truth) for method, c in connections.items()}
                for at in (0.95, 0.99):
                    best = {m: max([rate for recall, rate in rates.items() if recall >= at], default=0)
                            for m, (rates, _) in outcome.items()}
                    if best["hnsw"]:
                        print(f"  {metric} at recall {at}: {best['ivflsh'] / best['hnsw']:.1f} times hnsw's queries a second")
                print(f"  {metric}: hnsw takes {outcome['hnsw'][1] / outcome['ivflsh'][1]:.1f} times the processor time to build "
                      "(workers and threads beside the backend are not in it)", flush=True)
            for connection in connections.values():
                connection.close()


if __name__ == "__main__":
    main()
