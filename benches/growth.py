"""How an index bears change: rows that come, go and move, with pgvector's HNSW beside where it is about speed.

Run it by `make bench-growth ARGS="…"`. One throwaway server as for `make bench`. Inserts and VACUUM are timed on GloVe, for
ivflsh, HNSW and a table without a vector index. On both data sets, an ivflsh index that has grown is compared with one that
is built anew on the same rows. See docs/bench.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "tests")]
import datasets  # noqa: E402
from bench import SETTINGS, CpuMeter, Log, about_this_run  # noqa: E402
from harness.cluster import Cluster, exit_on_signals  # noqa: E402
from report import median  # noqa: E402
from systems import INDEX, SYSTEMS, Ivflsh, Point, Postgres, binary_rows  # noqa: E402

STAGES = ("insert", "empty", "drift", "churn")
K, BATCH, CLUSTERS = 10, 1000, 10
DEFAULT = Point("default", "default")
# Rows that each of the four ways of inserting brings: a slow system gets fewer, so that it comes to an end.
INSERTED = {"ivflsh": 8000, "none": 8000, "hnsw": 2000}
ROUNDS, CHANGED = 10, 0.2  # of churn: rounds, and the share of the rows that goes or changes in each


class NoIndex(Postgres):
    """The table and its primary key only: what of the cost is not the vector index's."""

    name, title, extension = "none", "no vector index", "vector_ext"


def copy_rows(connection, vectors, first, table="items"):
    """COPY of vectors as the rows from `first` on."""
    with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
        for block in binary_rows(vectors, first=first):
            copy.write(block)


def wal(connection):
    return connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')").fetchone()[0]


# Inserts and VACUUM


class Inserts:
    """One system, with a table of all rows but those that are kept back to be inserted."""

    def __init__(self, cluster, data, name, log):
        kind = {"none": NoIndex} | SYSTEMS
        self.data, self.name, self.log = data, name, log
        self.system = kind[name](cluster, data)
        self.system.database = f"insert_{name}"
        self.kept = min(4 * INSERTED["ivflsh"], data.rows // 4)
        self.next = data.rows - self.kept
        self.each = min(INSERTED[name], self.kept // 4)

    def run(self):
        system, data = self.system, self.data
        system.cluster.create_database(system.database, system.extension)
        try:
            with system.cluster.connect(system.database, options="-c statement_timeout=0") as connection:
                self.prepare(connection)
                for clients in (1, 2):
                    self.measure(connection, "single-row transactions", clients, self.single)
                    self.measure(connection, f"COPY of {BATCH} rows", clients, self.copy)
                rows = connection.execute("DELETE FROM items WHERE id % 10 = 3").rowcount
                connection.execute("CHECKPOINT")
                with CpuMeter() as cpu:
                    before, started = wal(connection), time.monotonic()
                    connection.execute("VACUUM (INDEX_CLEANUP ON, PARALLEL 0) items")
                    seconds = time.monotonic() - started
                self.log(f"{data.name}: {self.name}: VACUUM after {rows} rows were deleted: {seconds:.2f} s", type="vacuum",
                         data=data.name, system=self.name, deleted=rows, seconds=seconds, wal=int(wal(connection) - before),
                         busy_cores=round(cpu.cores, 2))
        finally:
            system.drop()

    def prepare(self, connection):
        connection.execute(f"CREATE TABLE items (id int PRIMARY KEY, v vector({self.data.dimensions}))")
        connection.execute("CREATE TABLE pool (LIKE items INCLUDING ALL)")
        copy_rows(connection, self.data.base[:self.next], 0)
        copy_rows(connection, self.data.base[self.next:], self.next, "pool")
        connection.execute(f"CREATE SEQUENCE numbers START {self.next}")
        connection.execute("VACUUM ANALYZE")
        if self.name != "none":
            started = time.monotonic()
            connection.execute(f"CREATE INDEX {INDEX} ON items {self.system.create()}")
            self.log(f"{self.data.name}: {self.name} on {self.next} rows built in {time.monotonic() - started:.0f} s",
                     type="base", data=self.data.name, system=self.name, rows=self.next)
            self.system._prewarm(connection)

    def measure(self, connection, how, clients, insert):
        """Rows a second that the clients insert together."""
        rows = self.each // (clients * BATCH) * clients * BATCH or self.each // clients * clients
        connection.execute("CHECKPOINT")
        with CpuMeter() as cpu:
            before = wal(connection)
            seconds = insert(connection, rows, clients)
            written = int(wal(connection) - before)
        self.log(f"{self.data.name}: {self.name}: {how}, {clients} client{'s' * (clients > 1)}: {rows / seconds:,.0f} rows/s, "
                 f"{written / rows:,.0f} bytes of WAL a row", type="insert", data=self.data.name, system=self.name, how=how,
                 clients=clients, rows=rows, rows_per_second=rows / seconds, wal_per_row=written / rows,
                 busy_cores=round(cpu.cores, 2))
        self.next += rows

    def single(self, connection, rows, clients):
        """pgbench; the vectors come from a table in the server."""
        connection.execute(f"SELECT setval('numbers', {self.next}, false)")
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write("INSERT INTO items SELECT id, v FROM pool WHERE id = (SELECT nextval('numbers'));\n")
            script.flush()
            command = self.system.pgbench(script.name, None, clients, 1)
            at = command.index("-T")
            command[at:at + 2] = ["-t", str(rows // clients)]
            started = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True)
            seconds = time.monotonic() - started
        if done.returncode != 0:
            raise RuntimeError(f"pgbench failed:\n{done.stderr[-800:]}")
        return seconds

    def copy(self, connection, rows, clients):
        """Each client copies its share, a batch a transaction."""
        size = min(BATCH, rows // clients)
        first = range(self.next, self.next + rows, size)
        batches = [(i, list(binary_rows(self.data.base[i:i + size], first=i))) for i in first]

        def work(own, start):
            with self.system.connect() as one:
                start.wait()
                for _, blocks in own:
                    with one.cursor().copy("COPY items FROM STDIN (FORMAT BINARY)") as copy:
                        for block in blocks:
                            copy.write(block)

        start = threading.Barrier(clients + 1)
        workers = [threading.Thread(target=work, args=(batches[i::clients], start)) for i in range(clients)]
        for worker in workers:
            worker.start()
        start.wait()
        started = time.monotonic()
        for worker in workers:
            worker.join()
        return time.monotonic() - started


# Grown and fresh


class Grown:
    """A table whose index has been there from the first row on."""

    def __init__(self, cluster, data, stage, options, log):
        self.cluster, self.data, self.stage, self.options, self.log = cluster, data, stage, options, log
        self.grown, self.fresh = Ivflsh(cluster, data), Ivflsh(cluster, data)
        self.grown.database, self.fresh.database = f"{stage}_{data.name}".replace("-", "_"), f"{stage}_fresh"

    def __enter__(self):
        self.cluster.create_database(self.grown.database, "vector_ext")
        with self.connect() as connection:
            for table, vectors in (("items", None), ("pool", self.data.base), ("queries", self.data.query)):
                connection.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v vector({self.data.dimensions}))")
                if vectors is not None:
                    copy_rows(connection, vectors, 0, table)
            connection.execute("VACUUM ANALYZE")
            connection.execute(f"CREATE INDEX {INDEX} ON items {self.grown.create()}")
        return self

    def __exit__(self, *_):
        self.grown.drop()
        self.fresh.drop()

    def connect(self):
        return self.cluster.connect(self.grown.database, options="-c statement_timeout=0")

    def stats(self, connection):
        return connection.execute(f"SELECT ivflsh_stats('{INDEX}')").fetchone()[0]

    def insert(self, connection, numbers):
        connection.execute("INSERT INTO items SELECT id, v FROM pool JOIN unnest(%s::int[]) WITH ORDINALITY AS n(id, place) "
                           "USING (id) ORDER BY place", (list(map(int, numbers)),))

    def compare(self, state, truth=None):
        """The index as it is, and one built anew."""
        data = self.data if truth is None else datasets.DataSet(
            self.data.name, self.data.metric, self.data.base, self.data.query, truth)
        with self.cluster.connect() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {self.fresh.database}")
            connection.execute(f"CREATE DATABASE {self.fresh.database} TEMPLATE {self.grown.database} STRATEGY file_copy")
        both = {"grown": self.grown, "fresh": self.fresh}
        found = {name: {"rates": []} for name in both}
        for name, system in both.items():
            with self.cluster.connect(system.database, options="-c statement_timeout=0") as connection:
                if name == "fresh":
                    connection.execute(f"REINDEX INDEX {INDEX}")
                connection.execute("ANALYZE items")
                system._prewarm(connection)
                stats = self.stats(connection)
                found[name] |= {"bytes": stats["bytes"], "lists": stats["lists"], "imbalance": stats["rows"]["imbalance"]}
            rows = system.answers(DEFAULT, K, min(self.options.queries, len(data.query)))[0]
            found[name]["recall"] = sum(data.hits(i, ids, K) for i, ids in enumerate(rows)) / (len(rows) * K)
        for _ in range(self.options.rounds):
            for name, system in both.items():
                found[name]["rates"].append(system.rate(DEFAULT, K, 1, self.options.seconds))
        for name, f in found.items():
            f["qps"] = median(f.pop("rates"))
            self.log(f"{self.data.name}: {self.stage}, {state}: {name}: recall {f['recall']:.4f}, {f['qps']:,.0f} queries/s, "
                     f"{f['bytes'] / 2**20:.0f} MB", type="compare", data=self.data.name, stage=self.stage, state=state,
                     index=name, **f)

    def load(self, order, steps):
        """Inserts rows in this order, in so many COPY batches; says how even the lists are at each tenth."""
        with self.connect() as connection:
            written, started, done = wal(connection), time.monotonic(), 0
            for at, part in enumerate(np.array_split(order, steps), 1):
                vectors = np.ascontiguousarray(self.data.base[part])
                with connection.cursor().copy("COPY items FROM STDIN (FORMAT BINARY)") as copy:
                    for block in binary_rows(vectors, numbers=part):
                        copy.write(block)
                done += len(part)
                if at % (steps // 10) == 0:
                    stats = self.stats(connection)
                    self.log(type="tenth", data=self.data.name, stage=self.stage, rows=done, lists=stats["lists"],
                             imbalance=stats["rows"]["imbalance"])
            seconds = time.monotonic() - started
            self.log(f"{self.data.name}: {self.stage}: {done} rows inserted in {seconds:.1f} s", type="load",
                     data=self.data.name, stage=self.stage, rows=done, seconds=seconds,
                     wal_per_row=int(wal(connection) - written) / done)

    def vacuum(self, connection):
        started = time.monotonic()
        connection.execute("VACUUM (INDEX_CLEANUP ON) items")
        return time.monotonic() - started


def empty(grown):
    """Rows come in no order, in 100 batches."""
    grown.load(np.arange(grown.data.rows), 100)
    grown.compare("as loaded")
    with grown.connect() as connection:
        grown.vacuum(connection)
    grown.compare("after VACUUM")


def drift(grown):
    """Rows come cluster by cluster."""
    import faiss

    base = grown.data.for_l2()[0]
    kmeans = faiss.Kmeans(base.shape[1], CLUSTERS, niter=8, seed=1)
    kmeans.train(base)
    grown.load(np.argsort(kmeans.index.search(base, 1)[1][:, 0], kind="stable"), 100)
    grown.compare("as loaded")


def churn(grown):
    """Half of the rows are in the table. In each round, some go for others, and as many get another vector."""
    data, random = grown.data, np.random.default_rng(3)
    order = random.permutation(data.rows)
    used, free = order[:data.rows // 2], order[data.rows // 2:]
    changed = int(len(used) * CHANGED) // 2 * 2
    with grown.connect() as connection:
        grown.insert(connection, used)
        connection.execute(f"REINDEX INDEX {INDEX}")
        connection.execute("VACUUM ANALYZE items")
        for turn in range(1, ROUNDS + 1):
            used, free = random.permutation(used), random.permutation(free)
            old, new = used[:changed].copy(), free[:changed].copy()
            used[:changed], free[:changed] = new, old
            half = changed // 2
            connection.execute("DELETE FROM items WHERE id = ANY (%s)", (list(map(int, old[:half])),))
            grown.insert(connection, new[:half])
            connection.execute("""UPDATE items SET id = p.id, v = p.v FROM pool AS p, unnest(%s::int[], %s::int[]) AS m(old, new)
                                  WHERE items.id = m.old AND p.id = m.new""",
                               (list(map(int, old[half:])), list(map(int, new[half:]))))
            seconds = grown.vacuum(connection)
            stats = grown.stats(connection)
            grown.log(type="round", data=data.name, round=turn, vacuum_seconds=seconds, bytes=stats["bytes"],
                      lists=stats["lists"], imbalance=stats["rows"]["imbalance"])
        connection.execute(f"SELECT ivflsh_check('{INDEX}')")
    nearest = datasets.exact(np.ascontiguousarray(data.base[used]), data.query, data.metric)
    grown.compare(f"after {ROUNDS} rounds", truth=used[nearest])


# Report


def report(records, out):
    run = next(r for r in records if r["type"] == "run")
    print("# Growth\n", file=out)
    print(f"By `make bench-growth` on {run['date'][:10]}, {run['cpu']}, {run['cores']} cores, PostgreSQL {run['postgresql']}, pgvector "
          f"{run['extensions'].get('vector', 'none')}, commit {run['commit']}. What is measured: [bench.md](../bench.md).", file=out)
    inserts(records, out)
    compared(records, out)


def inserts(records, out):
    cells = {(r["how"], r["clients"], r["system"]): r for r in records if r["type"] == "insert"}
    if not cells:
        return
    base = next(r for r in records if r["type"] == "base")
    print(f"\n## Inserts and VACUUM, {base['data']}\n\nInto an index of {base['rows']:,} rows or more. \"No index\" is the table with its "
          "primary key.\n\n| | clients | ivflsh, rows/s | HNSW, rows/s | times as fast | no index, rows/s | WAL a row: ivflsh | HNSW | "
          "no index |\n|---|---|---|---|---|---|---|---|---|", file=out)

    def shown(cell, what):
        return f"{cell[what]:,.0f}" if cell else ""

    for how, clients in dict.fromkeys(key[:2] for key in cells):
        ours, hnsw, none = (cells.get((how, clients, name)) for name in ("ivflsh", "hnsw", "none"))
        ratio = f"{ours['rows_per_second'] / hnsw['rows_per_second']:.1f}" if ours and hnsw else ""
        print(f"| {how} | {clients} | {shown(ours, 'rows_per_second')} | {shown(hnsw, 'rows_per_second')} | {ratio} | "
              f"{shown(none, 'rows_per_second')} | {shown(ours, 'wal_per_row')} | {shown(hnsw, 'wal_per_row')} | "
              f"{shown(none, 'wal_per_row')} |", file=out)
    vacuums = {r["system"]: r for r in records if r["type"] == "vacuum"}
    parts = [f"{name} {r['seconds']:.2f} s" for name, r in vacuums.items()]
    print(f"\nVACUUM after every tenth row was deleted: {', '.join(parts)}", end="", file=out)
    if {"ivflsh", "hnsw"} <= set(vacuums):
        print(f" ({vacuums['hnsw']['seconds'] / vacuums['ivflsh']['seconds']:.0f} times as fast)", end="", file=out)
    print(".", file=out)


def compared(records, out):
    pairs = {(r["data"], r["stage"], r["state"], r["index"]): r for r in records if r["type"] == "compare"}
    if not pairs:
        return
    print("\n## An index that has grown, and one built anew on the same rows\n\n| data | what | recall@10: grown | fresh | queries/s: grown | "
          "fresh | | MB: grown | fresh | |\n|---|---|---|---|---|---|---|---|---|---|", file=out)
    for key in dict.fromkeys(key[:3] for key in pairs):
        grown, fresh = pairs[key + ("grown",)], pairs[key + ("fresh",)]
        change = [f"{grown[what] / fresh[what] - 1:+.0%}" for what in ("qps", "bytes")]
        print(f"| {key[0]} | {key[1]}, {key[2]} | {grown['recall']:.4f} | {fresh['recall']:.4f} | {grown['qps']:,.0f} | "
              f"{fresh['qps']:,.0f} | {change[0]} | {grown['bytes'] / 2**20:.0f} | {fresh['bytes'] / 2**20:.0f} | {change[1]} |", file=out)
    for r in (r for r in records if r["type"] == "load"):
        tenths = [t for t in records if t["type"] == "tenth" and (t["data"], t["stage"]) == (r["data"], r["stage"])]
        print(f"\n* {r['data']}, {r['stage']}: {r['rows']:,} rows in {r['seconds']:.0f} s, {r['wal_per_row']:,.0f} bytes of WAL a row. "
              "Rows of the largest list, per row of the mean one, at each tenth: "
              + ", ".join(f"{t['imbalance']:.1f}" for t in tenths), file=out, end="")
    for data in dict.fromkeys(r["data"] for r in records if r["type"] == "round"):
        rounds = [r for r in records if r["type"] == "round" and r["data"] == data]
        print(f"\n* {data}, churn: VACUUM took {median([r['vacuum_seconds'] for r in rounds]):.2f} s; MB after each round: "
              + ", ".join(f"{r['bytes'] / 2**20:.0f}" for r in rounds), file=out, end="")
    print(file=out)


def parse():
    parser = argparse.ArgumentParser(prog="make bench-growth", description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["glove", "fashion"], choices=list(datasets.TARGETS))
    parser.add_argument("--rows", type=int, help="only the first rows")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--no-peer", action="store_true", help="without pgvector")
    parser.add_argument("--queries", type=int, default=1000, help="that recall is measured with")
    parser.add_argument("--rounds", type=int, default=3, help="in which grown and fresh take turns")
    parser.add_argument("--seconds", type=float, default=3, help="of each")
    parser.add_argument("--out", type=Path, help="folder for growth.jsonl and growth.md (in the cache)")
    parser.add_argument("--docs", action="store_true", help="write both into docs/bench/ as well")
    parser.add_argument("--report", type=Path, metavar="FILE", help="measure nothing: report these results")
    return parser.parse_args()


def measure(options, cache, log):
    with Cluster(settings=SETTINGS) as cluster:
        options.quick = options.rows is not None
        log(**about_this_run(cluster, options))
        for name in options.data:
            data = datasets.load(name, cache)
            data = data.truncated(options.rows) if options.rows and options.rows < data.rows else data
            if "insert" in options.stages and name == options.data[0]:
                for system in ("none", "ivflsh") + ("hnsw",) * (not options.no_peer):
                    Inserts(cluster, data, system, log).run()
            for stage in (empty, drift, churn):
                if stage.__name__ in options.stages:
                    with Grown(cluster, data, stage.__name__, options, log) as grown:
                        stage(grown)


def main():
    options = parse()
    cache = Path(os.environ.get("VECTOR_EXT_CACHE") or Path.home() / ".cache/vector_ext")
    results = options.report
    if not results:
        exit_on_signals()
        out = options.out or cache / "bench" / datetime.now().strftime("growth-%Y%m%d-%H%M%S")
        out.mkdir(parents=True, exist_ok=True)
        results = out / "growth.jsonl"
        print(f"results: {results}", flush=True)
        measure(options, cache, Log(results))
    records = [json.loads(line) for line in results.read_text().splitlines()]
    report(records, sys.stdout)
    folders = [results.parent] + [ROOT / "docs/bench"] * options.docs
    for folder in folders:
        with open(folder / "growth.md", "w") as file:
            report(records, file)
        (folder / "growth.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the server is stopped and removed")
