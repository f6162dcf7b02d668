"""What is measured: three indexes inside PostgreSQL, and as the ceiling an in-memory library on one thread.

A system is swept over points. A point has a label, and a measurement of it is the same two things for every system:
`answers(point, k, queries)` (for recall) and `rate(point, k, clients, seconds)` (queries a second).
"""

import re
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.cluster import PORT, SUPERUSER

INDEX = "items_v_idx"
ENOUGH_QUERIES, PATIENCE = 200, 20  # a slow point's recall is taken from what is answered in 20 s, at least 200 queries
PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


@dataclass(frozen=True)
class Point:
    """One setting. `knob` names the curve that it is on; on one curve, points come in order of effort."""

    label: str
    knob: str
    settings: dict = field(default_factory=dict, hash=False)

    @property
    def is_default(self):
        return self.knob == "default"


def on_curve(name, values):
    short = name.split(".")[1]
    return [Point(f"{short}={value}", short, {name: value}) for value in values]


class Postgres:
    """An index inside the server, in a database of its own with the tables items and queries."""

    title = extension = None

    def __init__(self, cluster, data, quick=False):
        self.cluster, self.data = cluster, data
        self.database = f"{self.name}_{data.name}".replace("-", "_")

    def create(self):
        raise NotImplementedError

    def points(self, k, quick):
        raise NotImplementedError

    def build(self):
        """Load the tables and build the index. Returns what a `build` record says."""
        self.cluster.create_database(self.database, self.extension)
        with self.cluster.connect(self.database, options="-c statement_timeout=0") as connection:
            started = time.monotonic()
            self._load(connection)
            loaded = time.monotonic() - started
            connection.execute("CHECKPOINT")
            started = time.monotonic()
            connection.execute(f"CREATE INDEX {INDEX} ON items {self.create()}")
            seconds = time.monotonic() - started
            index, table, database = connection.execute(f"""
                SELECT pg_relation_size('{INDEX}'), pg_table_size('items'), pg_database_size(current_database())""").fetchone()
            self._prewarm(connection)
            connection.execute("CHECKPOINT")
        return {"seconds": seconds, "size": index, "table_size": table, "database_size": database,
                "load_seconds": loaded, "index": self.create()}

    def drop(self):
        with self.cluster.connect() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)")

    def connect(self, point=None):
        return self.cluster.connect(self.database, options=self.options(point))

    def answers(self, point, k, queries):
        """For each query the ids found, and the plan's first index or scan."""
        with self.connect(point) as connection:
            sql = self.query(k, "%b")
            plan = "\n".join(row[0] for row in connection.execute("EXPLAIN (COSTS OFF) " + self.query(k, "0")))
            uses_index = f"Index Scan using {INDEX}" in plan
            if not uses_index and not point.is_default:
                raise RuntimeError(f"{self.name} {point.label}: the plan does not use the index:\n{plan}")
            rows, started = [], time.monotonic()
            for i in range(queries):
                if i >= ENOUGH_QUERIES and time.monotonic() - started > PATIENCE:
                    break
                rows.append([row[0] for row in connection.execute(sql, (i,), prepare=True).fetchall()])
        return rows, uses_index

    def rate(self, point, k, clients, seconds):
        """Queries a second that pgbench counts, the query vector read from a table by the server."""
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write(f"\\set qid random(0, {len(self.data.query) - 1})\n{self.query(k, ':qid')};\n")
            script.flush()
            done = subprocess.run(self.pgbench(script.name, point, clients, seconds), capture_output=True, text=True)
        found = re.search(r"^tps = ([0-9.]+)", done.stdout, re.M)
        if done.returncode != 0 or not found:
            raise RuntimeError(f"pgbench failed:\n{done.stderr[-800:]}")
        return float(found[1])

    def pgbench(self, script, point, clients, seconds):
        target = f"host={self.cluster.folder} port={PORT} user={SUPERUSER} dbname={self.database} " \
                 f"options='{self.options(point)}'"
        return [str(self.cluster.bindir / "pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", str(clients),
                "-T", str(max(1, round(seconds))), "-f", script, target]

    def query(self, k, number):
        return f"SELECT id FROM items ORDER BY v {self.data.operator} " \
               f"(SELECT q.v FROM queries q WHERE q.id = {number}) LIMIT {k}"

    @staticmethod
    def options(point):
        """Nothing for the default settings; else the point's, and no sequential scan."""
        if point is None or point.is_default:
            return ""
        return " ".join(f"-c {name}={value}" for name, value in ({"enable_seqscan": "off"} | point.settings).items())

    def _load(self, connection):
        for table, vectors in (("items", self.data.base), ("queries", self.data.query)):
            connection.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v vector({self.data.dimensions}))")
            with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
                for block in binary_rows(vectors):
                    copy.write(block)
            connection.execute(f"VACUUM ANALYZE {table}")

    @staticmethod
    def _prewarm(connection):
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
        connection.execute("""
            SELECT pg_prewarm(c.oid::regclass) FROM pg_class t
            JOIN pg_class c ON c.oid IN (t.oid, t.reltoastrelid)
                OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN (t.oid, t.reltoastrelid))
            WHERE t.relname IN ('items', 'queries') AND pg_relation_size(c.oid) > 0""").fetchall()


def binary_rows(vectors, block=20_000, first=0, numbers=None):
    """Rows (number, vector) in COPY's binary format, in pieces. Numbered from `first` on, if not by `numbers`."""
    numbers = np.arange(first, first + len(vectors)) if numbers is None else numbers
    dimensions = vectors.shape[1]
    row = np.dtype([("fields", ">i2"), ("id_size", ">i4"), ("id", ">i4"), ("size", ">i4"), ("dimensions", ">i2"),
                    ("unused", ">i2"), ("numbers", ">f4", (dimensions,))])
    yield b"PGCOPY\n\xff\r\n\0" + bytes(8)
    for start in range(0, len(vectors), block):
        part = vectors[start:start + block]
        rows = np.zeros(len(part), row)
        rows["fields"], rows["id_size"], rows["size"], rows["dimensions"] = 2, 4, 4 + 4 * dimensions, dimensions
        rows["id"], rows["numbers"] = numbers[start:start + len(part)], part
        yield rows.tobytes()
    yield b"\xff\xff"


class Ivflsh(Postgres):
    name, title, extension = "ivflsh", "ivflsh", "vector_ext"

    def create(self):
        return f"USING ivflsh (v {self.data.operator_class})"

    def points(self, k, quick):
        targets = (0.9, 0.95, 0.98) if quick else (0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995)
        probes = PROBES[2::3] if quick else PROBES[1:]
        return ([Point("default", "default")] + on_curve("ivflsh.target_recall", targets)
                + on_curve("ivflsh.probes", probes))


class Hnsw(Postgres):
    name, title, extension = "hnsw", "pgvector HNSW", "vector"

    def create(self):
        return f"USING hnsw (v {self.data.operator_class}) WITH (m = 16, ef_construction = 64)"

    def points(self, k, quick):
        efforts = (10, 20, 40, 60, 80, 100, 120, 160, 200, 300, 400, 600, 800, 1000)
        efforts = [ef for ef in efforts if ef >= k]  # fewer would not fill the LIMIT
        return on_curve("hnsw.ef_search", efforts[::3] + [1000] if quick else efforts)


class Ivfflat(Postgres):
    name, title, extension = "ivfflat", "pgvector IVFFlat", "vector"

    def create(self):
        rows = self.data.rows
        lists = max(16, rows // 1000 if rows <= 10**6 else int(rows**0.5))
        return f"USING ivfflat (v {self.data.operator_class}) WITH (lists = {lists})"

    def points(self, k, quick):
        return on_curve("ivfflat.probes", PROBES[1:12:3] if quick else PROBES[:14])


class Faiss:
    """Faiss IVF with 4-bit PQ fast scan of 2 dimensions a code, candidates refined exactly, one query at a time."""

    name, title = "faiss", "Faiss IVF PQ4 fast scan + refine, in memory"

    def __init__(self, cluster, data, quick=False):
        self.data = data
        self.indexes = {}
        self.list_counts = (4,) if quick else (4, 16)  # times the root of the number of rows

    def build(self):
        import faiss

        root = self.data.rows**0.5
        self.base, self.query = self.data.for_l2()
        seconds, size = [], []
        faiss.omp_set_num_threads(2)  # for building only
        for lists in self.list_counts:
            started = time.monotonic()
            kind = f"IVF{int(lists * root)},PQ{self.data.dimensions // 2}x4fs,RFlat"
            index = faiss.index_factory(self.data.dimensions, kind, faiss.METRIC_L2)
            clustering = faiss.extract_index_ivf(index).cp
            clustering.niter, clustering.max_points_per_centroid, clustering.min_points_per_centroid = 8, 64, 1
            index.train(self.base)
            index.add(self.base)
            seconds.append(time.monotonic() - started)
            codes = self.data.rows * (self.data.dimensions // 4 + 8)
            size.append(codes + self.base.nbytes + int(lists * root) * self.data.dimensions * 4)
            self.indexes[kind] = index
        return {"seconds": seconds[0], "size": size[0], "index": ", ".join(self.indexes), "all_seconds": seconds,
                "faiss": faiss.__version__}

    def drop(self):
        self.indexes.clear()

    def points(self, k, quick):
        """Those settings whose recall no faster one reaches, by a first short measurement of all."""
        probes = (4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
        measured = []
        for kind in self.indexes:
            for nprobe in probes:
                for factor in (2, 4, 8, 16, 32):
                    lists = kind.split(",")[0]
                    point = Point(f"{lists} nprobe={nprobe} k_factor={factor}", "faiss",
                                  {"kind": kind, "nprobe": nprobe, "k_factor": factor})
                    started, n = time.perf_counter(), 150
                    rows = self.answers(point, k, n)[0]
                    elapsed = time.perf_counter() - started
                    recall = sum(self.data.hits(i, found, k) for i, found in enumerate(rows)) / (n * k)
                    measured.append((recall, n / elapsed, point))
        best, front = 0, []
        for recall, rate, point in sorted(measured, key=lambda m: (-m[0], -m[1])):
            if rate > best and recall > 0.8:
                best = rate
                front.append(point)
        front.reverse()
        keep = 4 if quick else 12
        step = max(1, -(-len(front) // keep))
        return front[::-1][::step][::-1]

    def answers(self, point, k, queries):
        search = self._searcher(point, k)
        return [search(i) for i in range(queries)], True

    def rate(self, point, k, clients, seconds):
        search, random, done = self._searcher(point, k), np.random.default_rng(1), 0
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            for i in random.integers(len(self.query), size=20):
                search(i)
            done += 20
        return done / (time.perf_counter() - started)

    def _searcher(self, point, k):
        import faiss

        faiss.omp_set_num_threads(1)
        index, s = self.indexes[point.settings["kind"]], point.settings
        parameters = faiss.IndexRefineSearchParameters(
            k_factor=s["k_factor"], base_index_params=faiss.IVFSearchParameters(nprobe=s["nprobe"]))
        return lambda i: index.search(self.query[i:i + 1], k, params=parameters)[1][0]


SYSTEMS = {system.name: system for system in (Ivflsh, Hnsw, Ivfflat, Faiss)}
