"""One table against the same rows on 1, 2, 4 servers: recall of the whole, latency and queries per second by ivflsh_fan_out and
by foreign tables; with a network's delay between, and without; and partitions of one server: planning and searching.

Run it by `make bench-scale-out ARGS="…"`. Every server is a throwaway one on this machine, so that they share its cores: what is
told is what the fan-out itself costs, and what a network's delay makes of it, not how fast several machines are. See
docs/scale-out.md.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "tests")]
import datasets  # noqa: E402
import patches  # noqa: E402
from harness.cluster import Cluster, exit_on_signals  # noqa: E402
from scale import K, SETTINGS, Truth, copy_rows  # noqa: E402


class Delay:
    """A socket in a folder of its own, whose bytes reach a server so many seconds later, and the other way round."""

    def __init__(self, cluster, seconds):
        self.target, self.seconds = f"{cluster.folder}/.s.PGSQL.5432", seconds
        self.folder = tempfile.mkdtemp(prefix="delay-")
        os.chmod(self.folder, 0o755)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._listen(), self.loop).result(10)

    async def _listen(self):
        path = f"{self.folder}/.s.PGSQL.5432"
        self.server = await asyncio.start_unix_server(self._serve, path)
        os.chmod(path, 0o777)

    async def _serve(self, reader, writer):
        there_reader, there_writer = await asyncio.open_unix_connection(self.target)
        await asyncio.gather(self._pipe(reader, there_writer), self._pipe(there_reader, writer))

    async def _pipe(self, reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.loop.call_later(self.seconds, writer.write, data)
            self.loop.call_later(self.seconds, writer.close)


def text(vector):
    return "[" + ",".join(f"{x:.6g}" for x in vector) + "]"


def percentile(times, share):
    return round(float(np.percentile(times, share)) * 1e3, 2)


def run(session, statements, limits):
    """Recall, and milliseconds of each query, one after another, after a few to begin with."""
    for statement in statements[:5]:
        session.execute(statement)
    times, found = [], []
    for statement in statements:
        began = time.monotonic()
        rows = session.execute(statement).fetchall()
        times.append(time.monotonic() - began)
        found.append([row[-1] for row in rows])
    recall = float(np.mean([(np.array(f) <= limit).sum() / K for f, limit in zip(found, limits)]))
    return dict(recall=round(recall, 4), median_ms=percentile(times, 50), p95_ms=percentile(times, 95), per_second=round(len(times) / sum(times), 1))


def quoted(value):
    return "'" + value.replace("'", "''") + "'"


def fan_out(names, vectors):
    array = "ARRAY[" + ",".join(map(quoted, names)) + "]"
    inner = [f"SELECT id, v <-> '{v}' FROM items ORDER BY 2 LIMIT {K}" for v in vectors]
    return [f"SELECT id, distance FROM ivflsh_fan_out({array}, {quoted(statement)}, {K})" for statement in inner]


def union(names, vectors, outer):
    one = lambda v: " UNION ALL ".join(f"(SELECT id, v <-> '{v}' AS d FROM items_{n} ORDER BY d LIMIT {K})" for n in names)
    return [f"SELECT id, d FROM ({one(v)}) x ORDER BY {outer} LIMIT {K}" for v in vectors]


def make_table(session, batches, select):
    """The rows of each batch that `select` picks, and the index; seconds of its build, and its bytes."""
    session.execute("CREATE TABLE items (id int, v vector(128))")
    first = 0
    for batch in batches:
        rows = select(first, len(batch))
        if len(rows):
            copy_rows(session, "items", first, batch[rows - first])
        first += len(batch)
    session.execute("SET maintenance_work_mem = '2GB'; CHECKPOINT")
    began = time.monotonic()
    session.execute("CREATE INDEX items_v_idx ON items USING ivflsh (v vector_l2_ops); ANALYZE items")
    seconds = time.monotonic() - began
    session.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm; SELECT pg_prewarm(oid) FROM pg_class WHERE relname IN ('items', 'items_v_idx')")
    return round(seconds, 1), session.execute("SELECT pg_relation_size('items_v_idx')").fetchone()[0]


def report(out, **record):
    print("  " + "  ".join(f"{k} {v}" for k, v in record.items()), flush=True)
    if out:
        with open(out, "a") as file:
            file.write(json.dumps(record) + "\n")


def shards(count, batches, vectors, limits, options):
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Cluster(settings=SETTINGS | {"shared_buffers": "1GB"})) for _ in range(count + 1)]
        coordinator, servers = servers[0], servers[1:]
        names = [f"s{i + 1}" for i in range(count)]
        builds = []
        for i, server in enumerate(servers):
            server.create_database("shard", "vector_ext")
            with server.connect("shard") as session:
                builds.append(make_table(session, batches, lambda first, n: np.arange(first, first + n)[np.arange(first, first + n) % count == i]))
                if count == 1:
                    session.execute("SET enable_seqscan = off")
                    report(options.out, shards=count, way="the server itself", delay_ms=0, build_s=builds[0][0], index_mb=builds[0][1] >> 20,
                           **run(session, [f"SELECT id, v <-> '{v}' FROM items ORDER BY 2 LIMIT {K}" for v in vectors], limits))
        coordinator.create_database("coordinator", "vector_ext")
        for delay in options.delay:
            with coordinator.connect("coordinator") as session:
                session.execute("CREATE EXTENSION IF NOT EXISTS dblink; CREATE EXTENSION IF NOT EXISTS postgres_fdw; SET jit = off")
                for name, server in zip(names, servers):
                    host = Delay(server, delay / 2000).folder if delay else server.folder
                    session.execute(f"""DROP SERVER IF EXISTS {name} CASCADE;
                        CREATE SERVER {name} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{host}', port '5432', dbname 'shard',
                            extensions 'vector_ext', async_capable 'true', use_remote_estimate 'true');
                        CREATE USER MAPPING FOR postgres SERVER {name} OPTIONS (user 'postgres');
                        CREATE FOREIGN TABLE items_{name} (id int, v vector(128)) SERVER {name} OPTIONS (table_name 'items')""")
                few = slice(0, None if not delay else options.delayed)
                for way, statements in (("ivflsh_fan_out", fan_out(names, vectors)), ("UNION ALL, at once", union(names, vectors, "d + 0")),
                                        ("UNION ALL, merged", union(names, vectors, "d"))):
                    report(options.out, shards=count, way=way, delay_ms=delay, build_s=max(b[0] for b in builds),
                           index_mb=sum(b[1] for b in builds) >> 20, **run(session, statements[few], limits[few]))


def partitions(count, batches, vectors, limits, options):
    with Cluster(settings=SETTINGS | {"shared_buffers": "1GB", "max_locks_per_transaction": "4096"}) as server:
        server.create_database("parts", "vector_ext")
        with server.connect("parts") as session:
            session.execute("CREATE TABLE items (id int, v vector(128)) PARTITION BY HASH (id)")
            for i in range(count):
                session.execute(f"CREATE TABLE items_{i} PARTITION OF items FOR VALUES WITH (MODULUS {count}, REMAINDER {i})")
            first = 0
            for batch in batches:
                copy_rows(session, "items", first, batch)
                first += len(batch)
            session.execute("SET maintenance_work_mem = '2GB'; SET enable_seqscan = off")
            began = time.monotonic()
            session.execute("CREATE INDEX ON items USING ivflsh (v vector_l2_ops)")
            seconds = round(time.monotonic() - began, 1)
            session.execute("ANALYZE items")
            plain = lambda v: f"SELECT id, v <-> '{v}' FROM items ORDER BY 2 LIMIT {K}"
            result = run(session, [plain(v) for v in vectors], limits)
            plans = [session.execute("EXPLAIN (SUMMARY, FORMAT JSON) " + plain(v)).fetchone()[0][0]["Planning Time"] for v in vectors[:20]]
            report(options.out, partitions=count, build_s=seconds, planning_ms=round(float(np.median(plans)), 2), **result)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--partitions", type=int, nargs="*", default=[1, 8, 64, 1000])
    parser.add_argument("--partition-rows", type=int, default=200_000)
    parser.add_argument("--delay", type=float, nargs="*", default=[0, 10], help="milliseconds there and back between servers")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--delayed", type=int, default=30, help="how many of them with a delay")
    parser.add_argument("--out", help="records are appended to this file")
    options = parser.parse_args()
    exit_on_signals()
    data = datasets.load("fashion", os.environ.get("VECTOR_EXT_CACHE"))
    queries = np.concatenate(list(patches.descriptors(data.query, options.queries, seed=2)))
    for rows, counts, what in ((options.rows, options.shards, shards), (options.partition_rows, options.partitions, partitions)):
        if not counts:
            continue
        batches, truth = [], Truth(queries)
        for batch in patches.descriptors(data.base, rows):
            batches.append(batch)
            truth.see(batch)
        vectors, limits = [text(q) for q in queries], truth.limits()
        for count in counts:
            print(f"{rows:,} rows, {what.__name__} {count}", flush=True)
            what(count, batches, vectors, limits, options)


if __name__ == "__main__":
    main()
