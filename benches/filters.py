"""Search beside relational filters: a matrix of selectivity, correlation with the vector, and where the filter column is.

Run it by `make bench-filters ARGS="…"`. In one throwaway server, ivflsh and pgvector's HNSW each have a database with the
same table. The queries of a cell are planned and run one after another by a function inside the server, whose processor
time is taken: with everything in memory that is what limits the rate on one core. The systems take turns. See docs/bench.md.
"""

import argparse
import json
import math
import os
import sys
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "tests")]
import datasets  # noqa: E402
from harness.cluster import Cluster, exit_on_signals  # noqa: E402

SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0)
KINDS = ("uncorrelated", "correlated", "anti-correlated")
PLACES = {"index": "in the vector index", "btree": "on another index", "none": "on no index"}
K, TENANTS, LABELS = 10, 1000, 100
RADIUS_ROWS = (1, 10, 1000)
EF_SEARCH = {"glove": 200, "fashion": 40}  # the smallest of the usual steps with recall 0.95 without a filter
SETTINGS = {"shared_buffers": "3GB", "maintenance_work_mem": "1GB", "max_wal_size": "16GB", "statement_timeout": "0", "jit": "off",
            "max_parallel_workers_per_gather": "0", "effective_cache_size": "6GB"}
# One by one, each plan that the planner could have chosen.
FORCED = {
    "inline": {"ivflsh.enable_vector_scan": "inline"},
    "bitmap": {"ivflsh.enable_vector_scan": "bitmap"},
    "index scan": {"ivflsh.enable_vector_scan": "off", "enable_seqscan": "off", "enable_sort": "off"},
    "filter, then sort": {"enable_indexscan": "off", "enable_seqscan": "off"},
    "sequential scan": {"enable_indexscan": "off", "enable_bitmapscan": "off"},
}
RUNNER = """
CREATE FUNCTION run(statements text[], repeats int) RETURNS TABLE (ids int[], distances float8[])
LANGUAGE plpgsql AS $$
DECLARE one text;
BEGIN
    FOREACH one IN ARRAY statements LOOP
        FOR i IN 1..repeats LOOP
            EXECUTE 'SELECT array_agg(id), array_agg(d) FROM (' || one || ') s' INTO ids, distances;
        END LOOP;
        RETURN NEXT;
    END LOOP;
END $$"""


class Columns:
    """Filter columns of a data set, and for a query the condition that a share of the rows meets."""

    def __init__(self, data):
        random = np.random.default_rng(5)
        n, base = data.rows, data.for_l2()[0]
        self.uniform = random.permutation(n) / n
        # Rows in an order in which neighbours are near each other: by cluster, clusters along their main direction.
        centres = base[random.choice(n, min(256, n), replace=False)]
        for _ in range(3):
            nearest = self._nearest(base, centres)
            centres = np.array([base[nearest == c].mean(axis=0) if (nearest == c).any() else centres[c]
                                for c in range(len(centres))])
        nearest = self._nearest(base, centres)
        direction = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)[2][0]
        place = np.argsort(np.argsort(centres @ direction))
        order = np.lexsort((base @ direction, place[nearest]))
        self.along = np.empty(n)
        self.along[order] = np.arange(n) / n
        self.tenant = random.integers(TENANTS, size=n)
        self.category = np.minimum(random.zipf(1.5, size=n), 1000)
        self.label = nearest % LABELS

    @staticmethod
    def _nearest(base, centres):
        square = np.square(centres).sum(axis=1)
        return np.concatenate([np.argmin(square - 2 * part @ centres.T, axis=1) for part in np.array_split(base, 1 + len(base) // 20000)])

    def condition(self, kind, share, nearest_row, place):
        """SQL, and which rows meet it."""
        if share >= 1:
            return "true", np.ones(len(self.uniform), bool)
        if kind == "uncorrelated":
            return f"u_{place} < {share}", self.uniform < share
        at = self.along[nearest_row]
        if kind == "anti-correlated":
            at = (at + 0.5) % 1
        low = min(max(at - share / 2, 0), 1 - share)
        high = low + share
        return (f"c_{place} >= {low:.9f} AND c_{place} < {high:.9f}",
                (self.along >= float(f"{low:.9f}")) & (self.along < float(f"{high:.9f}")))


class System:
    """A database with the table, the indexes and the queries."""

    def __init__(self, cluster, data, columns, name):
        self.cluster, self.data, self.columns, self.name = cluster, data, columns, name
        self.database = f"filters_{name}_{data.name}".replace("-", "_")

    def load(self):
        extension = "vector_ext" if self.name == "ivflsh" else "vector"
        self.cluster.create_database(self.database, extension)
        with self.connect() as connection:
            places = ("btree", "none") + (("index",) if self.name == "ivflsh" else ())
            fields = [f"{letter}_{place}" for place in places for letter in "uc"]
            connection.execute(f"""CREATE TABLE items (id int PRIMARY KEY, tenant int, tenant_btree int, category int, label int,
                {', '.join(f'{field} float8' for field in fields)}, v vector({self.data.dimensions}))""")
            connection.execute(f"CREATE TABLE queries (id int PRIMARY KEY, v vector({self.data.dimensions}))")
            columns = self.columns
            with connection.cursor().copy("COPY items FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int4"] * 5 + ["float8"] * len(fields) + ["vector"])
                for i, vector in enumerate(self.data.base):
                    values = {"u": float(columns.uniform[i]), "c": float(columns.along[i])}
                    copy.write_row((i, int(columns.tenant[i]), int(columns.tenant[i]), int(columns.category[i]),
                                    int(columns.label[i]), *(values[field[0]] for field in fields), vector))
            with connection.cursor().copy("COPY queries FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int4", "vector"])
                for i, vector in enumerate(self.data.query):
                    copy.write_row((i, vector))
            for column in ("u_btree", "c_btree", "tenant_btree", "category", "label"):
                connection.execute(f"CREATE INDEX ON items ({column})")
            if self.name == "ivflsh":
                connection.execute(f"CREATE INDEX items_v_idx ON items USING ivflsh (v {self.data.operator_class}, u_index, c_index, tenant)")
            else:
                connection.execute(f"CREATE INDEX items_v_idx ON items USING hnsw (v {self.data.operator_class})")
            connection.execute(RUNNER)
            connection.execute("VACUUM ANALYZE")
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm; SELECT pg_prewarm(oid) FROM pg_class WHERE relkind IN ('r', 'i', 't') AND relnamespace = 'public'::regnamespace")

    def connect(self, settings=None):
        from pgvector.psycopg import register_vector
        connection = self.cluster.connect(self.database)
        register_vector(connection)
        for name, value in (settings or {}).items():
            connection.execute(f"SET {name} = {value}")
        return connection

    def statement(self, query, condition, k=K):
        operator = self.data.operator
        return f"SELECT id, v {operator} (SELECT q.v FROM queries q WHERE q.id = {query}) AS d FROM items WHERE {condition} ORDER BY d LIMIT {k}"

    def run(self, statements, settings, repeats):
        """[(ids, distances)] of each, the mean of the server's processor time for one in microseconds, and the plan of the first."""
        with self.connect(settings) as connection:
            plan = "\n".join(row[0] for row in connection.execute("EXPLAIN (COSTS OFF) " + statements[0]))
            return *self.timed(connection, statements, repeats), plan

    @staticmethod
    def timed(connection, statements, repeats):
        rows = connection.execute("SELECT ids, distances FROM run(%s, 1)", (statements,)).fetchall()
        used = processor_time(connection)
        connection.execute("SELECT count(*) FROM run(%s, %s)", (statements, repeats))
        used = processor_time(connection) - used
        return [(ids or [], distances or []) for ids, distances in rows], used / repeats / len(statements)


def processor_time(connection):
    """Of the server process, in microseconds: other processes on the machine disturb it least."""
    return int(Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text().split()[0]) / 1e3


def plan_name(plan):
    if "vector scan" in plan:
        return "inline" if "Strategy: inline" in plan else "bitmap"
    if "Index Scan using items_v_idx" in plan:
        return "index scan"
    return "sequential scan" if "Seq Scan on items" in plan else "filter, then sort"


class Truth:
    """Exact answers."""

    def __init__(self, data, queries):
        self.distances = {}
        for i in queries:
            x, y = data.base.astype(np.float64), data.query[i].astype(np.float64)
            if data.metric == "cosine":
                norms = np.maximum(np.linalg.norm(x, axis=1), 1e-30)
                self.distances[i] = 1 - (x @ y) / (norms * np.linalg.norm(y))
                self.distances[i][np.linalg.norm(x, axis=1) == 0] = np.nan
            else:
                self.distances[i] = np.linalg.norm(x - y, axis=1)

    def score(self, query, mask, found, k=K):
        """Hits, rows that there should be, rows found, in order and all matching?"""
        ids, distances = found
        exact = self.distances[query]
        there = np.flatnonzero(mask & ~np.isnan(exact))
        wanted = min(k, len(there))
        if wanted == 0:
            return 0, 0, len(ids), True
        limit = np.partition(exact[there], wanted - 1)[wanted - 1] * (1 + 1e-5) + 1e-6
        hits = int((exact[ids] <= limit).sum()) if ids else 0
        in_order = distances == sorted(distances) and bool(mask[ids].all())
        return hits, wanted, len(ids), in_order


def summary(truth, queries, masks, found, micros, k=K):
    scores = [truth.score(q, mask, f, k) for q, mask, f in zip(queries, masks, found, strict=True)]
    wanted = sum(s[1] for s in scores)
    return {"recall": sum(s[0] for s in scores) / max(1, wanted), "rows": sum(s[2] for s in scores) / len(scores),
            "rows_wanted": wanted / len(scores), "filled": all(s[2] >= s[1] for s in scores),
            "exact_order": all(s[3] for s in scores), "micros": micros}


def matrix(ours, peer, truth, queries, options, log):
    nearest = {i: int(np.nanargmin(truth.distances[i])) for i in queries}
    for share in SHARES:
        for kind in KINDS if share < 1 else KINDS[:1]:
            for place in PLACES:
                cell = {"what": "cell", "data": ours.data.name, "share": share, "kind": kind, "place": place}
                masks = [ours.columns.condition(kind, share, nearest[i], place)[1] for i in queries]
                sql = [ours.statement(i, ours.columns.condition(kind, share, nearest[i], place)[0]) for i in queries]
                found, micros, plan = ours.run(sql, {}, options.repeats)
                log(**cell, system="ivflsh", plan=plan_name(plan), **summary(truth, queries, masks, found, micros))
                if options.forced:
                    for name, settings in FORCED.items():
                        found, micros, plan = ours.run(sql, settings, options.repeats)
                        if plan_name(plan) == name:
                            log(**cell, system="ivflsh forced", plan=name, **summary(truth, queries, masks, found, micros))
                if peer is None or place == "index" and share < 1:
                    continue
                there = "btree" if place == "index" else place
                sql = [peer.statement(i, ours.columns.condition(kind, share, nearest[i], there)[0]) for i in queries]
                for order in ("strict_order", "relaxed_order"):
                    settings = {"hnsw.iterative_scan": order, "hnsw.ef_search": EF_SEARCH[ours.data.name.split("-")[0]]}
                    found, micros, plan = peer.run(sql, settings, 1)
                    log(**cell, system=f"pgvector {order}", plan=plan_name(plan), **summary(truth, queries, masks, found, micros))


def row_security(system, truth, queries, options, log):
    """Each query by another tenant, through a policy."""
    for column in ("tenant", "tenant_btree") if system.name == "ivflsh" else ("tenant_btree",):
        with system.connect() as admin:
            admin.execute(f"""DROP POLICY IF EXISTS own ON items; CREATE POLICY own ON items USING ({column} = current_setting('app.tenant')::int);
                ALTER TABLE items ENABLE ROW LEVEL SECURITY;
                DO $$ BEGIN CREATE ROLE renter; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
                GRANT SELECT ON items, queries TO renter""")
        found, masks, times = [], [], []
        settings = {} if system.name == "ivflsh" else {"hnsw.iterative_scan": "strict_order", "hnsw.ef_search": EF_SEARCH[system.data.name.split("-")[0]]}
        with system.connect(settings) as connection:
            connection.execute("SET ROLE renter")
            plan = ""
            for i in queries:
                tenant = (i * 37) % TENANTS
                connection.execute(f"SET app.tenant = {tenant}")
                sql = system.statement(i, "true")
                plan = plan or "\n".join(row[0] for row in connection.execute("EXPLAIN (COSTS OFF) " + sql))
                rows, micros = system.timed(connection, [sql], 20)
                found += rows
                times.append(micros)
                masks.append(system.columns.tenant == tenant)
        with system.connect() as admin:
            admin.execute("ALTER TABLE items DISABLE ROW LEVEL SECURITY")
        log(what="rls", data=system.data.name, system=system.name, column=column, plan=plan_name(plan),
            **summary(truth, queries, masks, found, float(np.mean(times))))


def ranges(system, truth, queries, options, log):
    operator = system.data.operator
    for rows in RADIUS_ROWS:
        sql, masks = [], []
        for i in queries:
            exact = truth.distances[i]
            ordered = np.sort(exact[~np.isnan(exact)])
            radius = (ordered[rows - 1] + ordered[rows]) / 2
            distance = f"v {operator} (SELECT q.v FROM queries q WHERE q.id = {i})"
            sql.append(f"SELECT id, {distance} AS d FROM items WHERE {distance} < {radius:.9f} ORDER BY d")
            masks.append(exact < radius)
        for name, settings in {"chosen": {}, "sequential scan": FORCED["sequential scan"]}.items():
            some = queries if name == "chosen" else queries[:3]
            found, micros, plan = system.run(sql[:len(some)], settings, options.repeats if name == "chosen" else 1)
            log(what="range", data=system.data.name, system=system.name, radius_rows=rows, plan=plan_name(plan), forced=name,
                **summary(truth, some, masks[:len(some)], found, micros, k=10 * rows))


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def report(records, out):
    cells, forced = defaultdict(dict), defaultdict(list)
    for r in records:
        if r["what"] == "cell":
            key = r["data"], r["share"], r["kind"], r["place"]
            if r["system"] == "ivflsh forced":
                forced[key].append(r)
            else:
                cells[key][r["system"]] = r
    for data in dict.fromkeys(key[0] for key in cells):
        print(f"\n## {data}\n", file=out)
        print("| share | correlation | column is | plan | recall | rows | queries/s | strict_order: recall, rows, queries/s | relaxed_order |"
              " times as fast | to the best forced |\n|---|---|---|---|---|---|---|---|---|---|---|", file=out)
        ratios, worst_choice = [], []
        for key, systems in cells.items():
            if key[0] != data:
                continue
            ours = systems["ivflsh"]
            # A column in the vector index is compared with pgvector's column on a btree.
            peers = [cells[key[:3] + ("btree",)].get(f"pgvector {o}_order") if key[3] == "index" and key[1] < 1
                     else systems.get(f"pgvector {o}_order") for o in ("strict", "relaxed")]
            # The slower a peer that misses rows or recall could be made right, the better for us: it counts as it is.
            ratio = min((p["micros"] / ours["micros"] for p in peers if p), default=None)
            if ratio:
                ratios.append(ratio)
            best = min((f["micros"] for f in forced[key] if f["recall"] >= 0.9), default=None)
            choice = ours["micros"] / best if best else None
            if choice:
                worst_choice.append(choice)
            shown = [f"{p['recall']:.3f}, {p['rows']:.1f}, {1e6 / p['micros']:,.0f}" if p else "" for p in peers]
            print(f"| {key[1]:.2%} | {key[2]} | {PLACES[key[3]]} | {ours['plan']} | {ours['recall']:.3f} | "
                  f"{ours['rows']:.1f}{'' if ours['filled'] else ' of ' + format(ours['rows_wanted'], '.1f')} | {1e6 / ours['micros']:,.0f} | "
                  f"{shown[0]} | {shown[1]} | {f'{ratio:.1f}' if ratio else ''} | {f'{choice:.2f}' if choice else ''} |", file=out)
        own = [c["ivflsh"] for key, c in cells.items() if key[0] == data]
        print(f"\nRecall at least {min(c['recall'] for c in own):.3f}; LIMIT filled in {sum(c['filled'] for c in own)} of {len(own)} cells; "
              f"exact order in {sum(c['exact_order'] for c in own)}.", file=out)
        if ratios:
            print(f"Against the faster of pgvector's two: {geometric_mean(ratios):.1f} times in the geometric mean, least {min(ratios):.2f}.", file=out)
        if worst_choice:
            print(f"The plan chosen takes at most {max(worst_choice):.2f} times the best forced one.", file=out)
        for what, title in (("rls", "row-level security, 1,000 tenants"), ("range", "distance ranges")):
            for r in records:
                if r["what"] == what and r["data"] == data:
                    detail = r.get("column") or f"{r['radius_rows']} rows, {r['forced']}"
                    print(f"\n* {title}: {r['system']}, {detail}: {r['plan']}, recall {r['recall']:.3f}, rows {r['rows']:.1f} of "
                          f"{r['rows_wanted']:.1f}, {1e6 / r['micros']:,.0f} queries/s", file=out, end="")
        print(file=out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["fashion", "glove"], choices=["fashion", "glove"])
    parser.add_argument("--rows", type=int, help="only the first rows")
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each query that are timed")
    parser.add_argument("--quick", action="store_true", help="20,000 rows, 12 queries")
    parser.add_argument("--no-peer", action="store_true", help="without pgvector")
    parser.add_argument("--no-forced", dest="forced", action="store_false", help="without the plans forced one by one")
    parser.add_argument("--out", type=Path, default=Path("filters.jsonl"))
    parser.add_argument("--report", type=Path, help="only a report, of these results")
    parser.add_argument("--docs", action="store_true", help="write the report to docs/bench/filters.md")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.queries = options.rows or 20000, 12
    if not options.report:
        exit_on_signals()
        options.out.unlink(missing_ok=True)

        def log(**record):
            print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in record.items()), flush=True)
            with open(options.out, "a") as file:
                file.write(json.dumps(record) + "\n")

        with Cluster(settings=SETTINGS) as cluster:
            for name in options.data:
                data = datasets.load(name, Path(os.environ["VECTOR_EXT_CACHE"]))
                data = data.truncated(options.rows) if options.rows and options.rows < data.rows else data
                columns, queries = Columns(data), list(range(options.queries))
                truth = Truth(data, queries)
                ours = System(cluster, data, columns, "ivflsh")
                peer = None if options.no_peer else System(cluster, data, columns, "pgvector")
                for system in filter(None, (ours, peer)):
                    system.load()
                    row_security(system, truth, queries, options, log)
                    ranges(system, truth, queries, options, log)
                matrix(ours, peer, truth, queries, options, log)
    records = [json.loads(line) for line in open(options.report or options.out)]
    report(records, sys.stdout)
    if options.docs:
        with open(ROOT / "docs/bench/filters.md", "w") as file:
            print(f"# Search beside filters\n\nBy `make bench-filters` on {datetime.now(timezone.utc):%Y-%m-%d}; "
                  "what is measured: [bench.md](../bench.md).", file=file)
            report(records, file)


if __name__ == "__main__":
    main()
