"""Distance ranges without LIMIT: complete at every radius, and how long they take beside the sequential scan.

usage: ranges.py [--datasets fashion glove] [--queries 5] [--rounds 3] [--rows N] [--workers 0] [--docs FILE]

For each share of the rows (0.01 to 100 %), and each of some queries, the radius is such that this share lies within. Run in turn:
the statement as the planner has it planned, the same as a forced sequential scan, and the same by the index, forced. What is told
is the processor time of the backend (from /proc), without parallel workers, so that other work on the machine counts
little; with --workers it is the time that passes. Each is the median over queries of the least of the rounds.
"""

import argparse
import datetime
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from pgvector import Vector
from pgvector.psycopg import register_vector

import datasets
from commits import SETTINGS, processor_seconds
from harness.cluster import Cluster
from systems import binary_rows

SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5, 1)
KINDS = {"count(*)": "SELECT count(*) FROM items WHERE {d} < {r}", "id": "SELECT id FROM items WHERE {d} < {r}"}
WAYS = {"chosen": {}, "table": {"ivflsh.enable_vector_scan": "off"}, "index": {"ivflsh.enable_vector_scan": "inline"}}


class Bench:
    def __init__(self, connection, workers):
        self.connection, self.workers = connection, workers

    def load(self, data):
        execute = self.connection.execute
        execute("DROP TABLE IF EXISTS items")
        execute(f"CREATE TABLE items (id int PRIMARY KEY, v vector({data.dimensions}))")
        with self.connection.cursor().copy("COPY items FROM STDIN (FORMAT BINARY)") as copy:
            for block in binary_rows(data.base, first=0):
                copy.write(block)
        execute(f"CREATE INDEX items_v ON items USING ivflsh (v {data.operator_class})")
        execute("VACUUM ANALYZE items")
        execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
        execute("SELECT pg_prewarm(oid) FROM pg_class WHERE relkind IN ('r', 'i', 't') AND relnamespace IN (99, 2200)")

    def clock(self):
        if self.workers:
            return time.perf_counter()
        return processor_seconds(self.connection.info.backend_pid)

    def run(self, way, statement, rounds):
        """Seconds, the plan's name and the rows of a statement."""
        execute = self.connection.execute
        for name in WAYS["table"]:
            execute(f"RESET {name}")
        for name, value in WAYS[way].items():
            execute(f"SET {name} = {value}")
        plan = "\n".join(row[0] for row in execute("EXPLAIN (COSTS OFF) " + statement))
        name = "vector scan" if "vector scan" in plan else "sequential scan"
        least = float("inf")
        for _ in range(rounds):
            before = self.clock()
            rows = execute(statement, prepare=False).fetchall()  # a prepared one would keep its plan
            least = min(least, self.clock() - before)
        return least, name, rows


def measure(bench, data, arguments, write):
    operator = data.operator
    for share in SHARES:
        wanted = max(1, round(share * data.rows))
        for kind, statement in KINDS.items():
            seconds, plans, lost = {way: [] for way in WAYS}, [], 0
            for query in data.query[:arguments.queries]:
                d = f"v {operator} '{Vector(query).to_text()}'"
                bench.connection.execute("SET ivflsh.enable_vector_scan = off")
                radius, = bench.connection.execute(f"SELECT max(d) * 1.0000001 FROM (SELECT {d} AS d FROM items ORDER BY 1 LIMIT {wanted}) x").fetchone()
                answers = {}
                for way in WAYS:
                    took, plan, rows = bench.run(way, statement.format(d=d, r=repr(radius)), arguments.rounds)
                    seconds[way].append(took)
                    answers[way] = {row[0] for row in rows}
                    if way == "chosen":
                        plans.append(plan)
                lost += any(answers[way] != answers["table"] for way in WAYS)
            middle = {way: statistics.median(values) for way, values in seconds.items()}
            ratio = statistics.median(a / b for a, b in zip(seconds["chosen"], seconds["table"]))
            write(f"| {data.name} | {share:.2%} | {kind} | {' / '.join(sorted(set(plans)))} | {'yes' if not lost else f'NO, {lost} queries'} | "
                  f"{1e3 * middle['chosen']:.1f} | {1e3 * middle['table']:.1f} | {1e3 * middle['index']:.1f} | {ratio:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["fashion", "glove"])
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--workers", type=int, default=0, help="max_parallel_workers_per_gather")
    parser.add_argument("--docs", help="write the table into this file, too")
    arguments = parser.parse_args()
    lines = []

    def write(line):
        print(line, flush=True)
        lines.append(line)

    cache = os.environ.get("VECTOR_EXT_CACHE", Path.home() / ".cache/vector_ext")
    with Cluster(settings=SETTINGS | {"max_parallel_workers_per_gather": str(arguments.workers)}) as cluster, cluster.connect() as connection:
        connection.execute("CREATE EXTENSION vector_ext")
        register_vector(connection)
        bench = Bench(connection, arguments.workers)
        unit = "passed" if arguments.workers else "of processor time"
        write(f"| data | within | result | plan | complete | chosen, ms {unit} | sequential scan | index, forced | chosen / sequential |")
        write("|---|---|---|---|---|---:|---:|---:|---:|")
        for name in arguments.datasets:
            data = datasets.load(name, cache)
            data = data.truncated(arguments.rows) if arguments.rows else data
            bench.load(data)
            measure(bench, data, arguments, write)
    if arguments.docs:
        Path(arguments.docs).write_text(
            f"# Distance ranges\n\nBy `make bench-ranges` on {datetime.date.today()}: `WHERE v <-> $1 < $2` (`<=>` for GloVe) without LIMIT, "
            f"{arguments.queries} queries, the least of {arguments.rounds} runs each, medians; all in shared buffers; "
            f"{arguments.workers} parallel workers. What is measured: the head of `benches/ranges.py`.\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
