"""Builds against the number of rows and the memory allowed: time, size, memory, recall and processor time of queries.

Run it by `make bench-scale ARGS="…"`. In one throwaway server a table of 128-dimensional descriptors (patches.py) grows to each
number of rows in turn, and is indexed at each, with each maintenance_work_mem that is asked for. Recall is measured against
exact search of the same rows, done here. See docs/scaling.md.
"""

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "tests")]
import datasets  # noqa: E402
import patches  # noqa: E402
from harness.cluster import Cluster, exit_on_signals  # noqa: E402

K, DIMENSIONS, QUERIES = 10, 128, 500
SETTINGS = {"shared_buffers": "3GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "statement_timeout": "0", "jit": "off"}
BATCH = 20000
TARGETS = (0.9, 0.93, 0.95, 0.97)


class Truth:
    """The distances from the queries to their K nearest rows, of those seen so far."""

    def __init__(self, queries):
        self.queries = queries.astype(np.float64)
        self.squares = np.full((len(queries), K), np.inf)

    def see(self, rows):
        rows = rows.astype(np.float32)
        near = np.square(rows).sum(axis=1) - 2 * self.queries.astype(np.float32) @ rows.T
        near = np.argpartition(near, K, axis=1)[:, :K]
        exact = np.square(rows[near].astype(np.float64) - self.queries[:, None]).sum(axis=2)
        self.squares = np.sort(np.concatenate([self.squares, exact], axis=1), axis=1)[:, :K]

    def limits(self):
        """Rows no farther than this are among the K nearest; ties are fair."""
        return np.sqrt(self.squares[:, -1]) * (1 + 1e-5) + 1e-6


def copy_rows(connection, table, first, rows):
    """COPY in binary: (id int4, v vector)."""
    record = np.dtype([("columns", ">i2"), ("id_bytes", ">i4"), ("id", ">i4"), ("v_bytes", ">i4"), ("dimensions", ">i2"),
                       ("unused", ">i2"), ("values", ">f4", DIMENSIONS)])
    data = np.zeros(len(rows), record)
    data["columns"], data["id_bytes"], data["v_bytes"], data["dimensions"] = 2, 4, 4 + 4 * DIMENSIONS, DIMENSIONS
    data["id"], data["values"] = np.arange(first, first + len(rows)), rows
    with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + data.tobytes() + b"\xff\xff")


def processor_seconds(pid):
    """Of all threads of a process, by the kernel's clock ticks."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


class PeakMemory:
    """The most anonymous memory (kB) that a process has while this is open, over what it had before. Shared buffers and
    files do not count."""

    def __init__(self, pid):
        self.path = Path(f"/proc/{pid}/status")
        self.before = self.most = self._now()
        self.done = threading.Event()

    def _now(self):
        return int(next(line.split()[1] for line in self.path.read_text().splitlines() if line.startswith("RssAnon")))

    def _watch(self):
        while not self.done.wait(0.01):
            self.most = max(self.most, self._now())

    def __enter__(self):
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    @property
    def megabytes(self):
        return (self.most - self.before) / 1024


def build(cluster, memory, workers, options):
    """CREATE INDEX in a session of its own; what it took."""
    notices = []
    with cluster.connect("scale") as connection:
        connection.execute("DROP INDEX IF EXISTS items_v_idx")
        connection.add_notice_handler(lambda notice: notices.append(f"{notice.message_primary} {notice.message_hint or ''}"))
        connection.execute("CHECKPOINT")
        connection.execute("SELECT set_config('maintenance_work_mem', %s, false)", (memory,))
        connection.execute("SELECT set_config('max_parallel_maintenance_workers', %s, false)", (str(workers),))
        pid = connection.info.backend_pid
        before, started = processor_seconds(pid), time.monotonic()
        with PeakMemory(pid) as peak:
            connection.execute(f"CREATE INDEX items_v_idx ON items USING ivflsh (v vector_l2_ops) {options}")
        wall, processor = time.monotonic() - started, processor_seconds(pid) - before
        size = connection.execute("SELECT pg_relation_size('items_v_idx')").fetchone()[0]
        stats = connection.execute("SELECT ivflsh_stats('items_v_idx')").fetchone()[0]
    return dict(wall=round(wall, 2), processor=round(processor, 2), peak_mb=round(peak.megabytes, 1), size=size,
                lists=stats["lists"], notices=notices)


def search(cluster, queries, limits):
    """Recall, and microseconds of processor time a query, one after another in one session: at the default target, and
    interpolated at recall 0.95."""
    with cluster.connect("scale") as connection:
        connection.execute("SET enable_seqscan = off")
        connection.execute("SELECT pg_prewarm(oid) FROM pg_class WHERE relname IN ('items', 'items_v_idx')")
        statement = f"SELECT v <-> (SELECT v FROM queries WHERE id = %s) FROM items ORDER BY 1 LIMIT {K}"
        plan = connection.execute("EXPLAIN " + statement, (0,)).fetchall()
        assert any("items_v_idx" in line for (line,) in plan), plan
        points = []
        for target in TARGETS:
            connection.execute("SELECT set_config('ivflsh.target_recall', %s, false)", (str(target),))
            points.append(measure(connection, statement, queries, limits))
    recalls, micros, lists = np.array(points).T[:3]
    default = points[TARGETS.index(0.95)]
    order = np.argsort(recalls)
    at = [round(float(np.interp(0.95, recalls[order], values[order])), 1) for values in (micros, lists)]
    inside = bool(recalls.min() <= 0.95 <= recalls.max())
    return dict(recall=round(default[0], 4), micros=round(default[1], 1), lists_read=round(default[2], 1), entries=round(default[3]),
                micros_at_95=at[0] if inside else None, lists_at_95=at[1] if inside else None)


def measure(connection, statement, queries, limits):
    """Recall, microseconds, and lists and entries read, a query."""
    found = [np.array(connection.execute(statement, (i,), prepare=True).fetchall())[:, 0] for i in range(len(queries))]
    recall = np.mean([np.count_nonzero(d <= limit) / K for d, limit in zip(found, limits)])
    schedule = Path(f"/proc/{connection.info.backend_pid}/schedstat")
    times = []
    for _ in range(5):
        before = int(schedule.read_text().split()[0])
        for i in range(len(queries)):
            connection.execute(statement, (i,), prepare=True).fetchall()
        times.append((int(schedule.read_text().split()[0]) - before) / len(queries) / 1000)
    work = []
    for i in range(0, len(queries), 5):
        connection.execute(statement, (i,), prepare=True).fetchall()
        work.append(connection.execute("SELECT lists, entries FROM ivflsh_last_scan()").fetchone())
    return [float(recall), min(times), *map(float, np.mean(work, axis=0))]


def run(cluster, arguments, out):
    data = datasets.load("fashion", arguments.cache)
    queries = np.concatenate(list(patches.descriptors(data.query, QUERIES, seed=2)))
    cluster.create_database("scale", "vector_ext")
    truth, rows = Truth(queries), 0
    source = patches.descriptors(data.base, max(arguments.rows))
    left = np.empty((0, DIMENSIONS), np.float32)
    with cluster.connect("scale") as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
        connection.execute(f"CREATE TABLE items (id int, v vector({DIMENSIONS}))")
        connection.execute(f"CREATE TABLE queries (id int PRIMARY KEY, v vector({DIMENSIONS}))")
        copy_rows(connection, "queries", 0, queries)
    for wanted in sorted(arguments.rows):
        with cluster.connect("scale") as connection:
            connection.execute("DROP INDEX IF EXISTS items_v_idx")
            while rows < wanted:
                if not len(left):
                    left = next(source)
                part, left = left[:min(BATCH, wanted - rows)], left[min(BATCH, wanted - rows):]
                copy_rows(connection, "items", rows, part)
                truth.see(part)
                rows += len(part)
            connection.execute("VACUUM ANALYZE items, queries")
        for repeat in range(arguments.repeats):
            for memory in arguments.memory:
                for workers in arguments.workers:
                    result = dict(rows=rows, memory=memory, workers=workers, load=os.getloadavg()[0])
                    result |= build(cluster, memory, workers, arguments.options)
                    if not arguments.no_search:
                        result |= search(cluster, queries, truth.limits())
                    print(json.dumps(result), file=out, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000, 2_000_000])
    parser.add_argument("--memory", nargs="+", default=["2GB"], help="maintenance_work_mem")
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="max_parallel_maintenance_workers")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--options", default="", help="of the index: WITH (…)")
    parser.add_argument("--no-search", action="store_true", help="only build")
    parser.add_argument("--cache", default=os.environ.get("VECTOR_EXT_CACHE"), help="folder of the data sets")
    arguments = parser.parse_args()
    exit_on_signals()
    with Cluster(settings=SETTINGS) as cluster:
        run(cluster, arguments, sys.stdout)


if __name__ == "__main__":
    main()
