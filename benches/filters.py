"""Search beside relational filters: a matrix of selectivity, correlation with the vector, and where the filter column is.

Run it by `make bench-filters ARGS="…"`. In one throwaway server, ivflsh and pgvector's HNSW each have a database with the
same table. Each query is planned and run by a function inside the server, several times if it is short, and the processor
time of that server process is taken: with everything in memory it is what limits the rate on one core, and other
processes on the machine disturb it least. The systems take turns, cell by cell. See docs/bench.md.
"""

import argparse
import json
import math
import os
import sys
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "tests")]
import datasets  # noqa: E402
from harness.cluster import Cluster, exit_on_signals  # noqa: E402

SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0)
KINDS = ("uncorrelated", "correlated", "anti-correlated")
PLACES = {"index": "in the vector index", "btree": "on another index", "none": "on no index"}
FIELDS = {"tenant": "int", "category": "int", "label": "int", "price": "float8", "created": "timestamptz"}
FIRST_DAY = datetime(2020, 1, 1, tzinfo=timezone.utc)
MOST_RUNS, SHORT = 20, 5_000  # a query is run so often, or for so many microseconds, whichever is less
LONG = 100_000  # one that takes so long is not run again
LONGEST = 1_000_000  # no further query of a cell is begun after so many microseconds
LEAST, LEAST_FORCED = 5, 2  # but there are so many
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
CREATE FUNCTION run(statement text, runs int) RETURNS TABLE (ids int[], distances float8[])
LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..runs LOOP
        EXECUTE 'SELECT array_agg(id), array_agg(d) FROM (' || statement || ') s' INTO ids, distances;
    END LOOP;
    RETURN NEXT;
END $$"""


class Columns:
    """Filter columns of a data set, and for a query the condition that a share of the rows meets."""

    def __init__(self, data):
        random = np.random.default_rng(5)
        n, base = data.rows, data.for_l2()[0]
        self.n = n
        self.price = random.permutation(n) / n
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
        self.created = np.empty(n, int)  # seconds since the first day
        self.created[order] = np.arange(n)
        self.tenant = random.integers(TENANTS, size=n)
        self.category = np.minimum(random.zipf(1.5, size=n), 1000)
        self.label = nearest % LABELS

    @staticmethod
    def _nearest(base, centres):
        square = np.square(centres).sum(axis=1)
        return np.concatenate([np.argmin(square - 2 * part @ centres.T, axis=1) for part in np.array_split(base, 1 + len(base) // 20000)])

    def condition(self, kind, share, nearest_row, place):
        """SQL for a share of the rows, and which rows meet it. `nearest_row`: the row nearest to the query."""
        if share >= 1:
            return "true", np.ones(self.n, bool)
        if kind == "uncorrelated":
            return f"price_{place} < {share}", self.price < share
        rows = max(1, round(share * self.n))
        at = int(self.created[nearest_row])
        if kind == "anti-correlated":
            at = (at + self.n // 2) % self.n
        low = min(max(at - rows // 2, 0), self.n - rows)
        return (f"created_{place} >= {moment(low)} AND created_{place} < {moment(low + rows)}",
                (self.created >= low) & (self.created < low + rows))

    def named(self, place, query):
        """Conditions of the kinds that applications have: name, SQL, which rows meet it."""
        tenant, label, new = query * 37 % TENANTS, query * 7 % LABELS, self.n * 9 // 10
        yield "one tenant", f"tenant_{place} = {tenant}", self.tenant == tenant
        yield "the largest category", f"category_{place} = 1", self.category == 1
        yield "category 20", f"category_{place} = 20", self.category == 20
        yield "one label", f"label_{place} = {label}", self.label == label
        some = [(label + i) % LABELS for i in range(0, 50, 10)]
        yield "one of five labels", f"label_{place} IN ({', '.join(map(str, some))})", np.isin(self.label, some)
        yield "price between", f"price_{place} BETWEEN 0.4 AND 0.42", (self.price >= 0.4) & (self.price <= 0.42)
        yield "newest tenth", f"created_{place} >= {moment(new)}", self.created >= new
        yield ("category and price", f"category_{place} = 1 AND price_{place} < 0.1", (self.category == 1) & (self.price < 0.1))
        yield ("one tenant or a category", f"(tenant_{place} = {tenant} OR category_{place} = 20)",
               (self.tenant == tenant) | (self.category == 20))


def moment(second):
    """As SQL."""
    return f"'{FIRST_DAY + timedelta(seconds=second)}'"


class System:
    """A database with the table, the indexes and the queries."""

    def __init__(self, cluster, data, columns, name):
        self.cluster, self.data, self.columns, self.name = cluster, data, columns, name
        self.database = f"filters_{name}_{data.name}".replace("-", "_")

    def load(self):
        extension = "vector_ext" if self.name == "ivflsh" else "vector"
        self.cluster.create_database(self.database, extension)
        with self.connect() as connection:
            places = tuple(PLACES)
            fields = [(name, place) for place in places for name in FIELDS]
            connection.execute(f"""CREATE TABLE items (id int PRIMARY KEY,
                {', '.join(f'{name}_{place} {FIELDS[name]}' for name, place in fields)}, v vector({self.data.dimensions}))""")
            connection.execute(f"CREATE TABLE queries (id int PRIMARY KEY, v vector({self.data.dimensions}))")
            with connection.cursor().copy("COPY items FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int4"] + [{"int": "int4"}.get(FIELDS[name], FIELDS[name]) for name, _ in fields] + ["vector"])
                for i, vector in enumerate(self.data.base):
                    values = {name: getattr(self.columns, name)[i].item() for name in FIELDS}
                    values["created"] = FIRST_DAY + timedelta(seconds=values["created"])
                    copy.write_row((i, *(values[name] for name, _ in fields), vector))
            with connection.cursor().copy("COPY queries FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int4", "vector"])
                for i, vector in enumerate(self.data.query):
                    copy.write_row((i, vector))
            for name in FIELDS:
                connection.execute(f"CREATE INDEX ON items ({name}_btree)")
            if self.name == "ivflsh":
                filters = ", ".join(f"{name}_index" for name in FIELDS)
                connection.execute(f"CREATE INDEX items_v_idx ON items USING ivflsh (v {self.data.operator_class}, {filters})")
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

    def run(self, statements, settings, least=LEAST):
        """[(ids, distances)] of the statements there was time for, microseconds of each, and the plan of the first."""
        with self.connect(settings) as connection:
            plan = "\n".join(row[0] for row in connection.execute("EXPLAIN (COSTS OFF) " + statements[0]))
            return *self.timed(connection, statements, least), plan

    @staticmethod
    def timed(connection, statements, least=LEAST):
        found, times, total = [], [], 0
        for at, statement in enumerate(statements):
            before = processor_time(connection)
            ids, distances = connection.execute("SELECT ids, distances FROM run(%s, 1)", (statement,)).fetchone()
            first = processor_time(connection) - before
            runs, used = 1, first
            if first < LONG:
                runs = int(min(max(SHORT / first, 1), MOST_RUNS))
                before = processor_time(connection)
                connection.execute("SELECT ids FROM run(%s, %s)", (statement, runs)).fetchone()
                used = processor_time(connection) - before
            found.append((ids or [], distances or []))
            times.append(round(used / runs, 1))
            total += first + used
            if total > LONGEST and at + 1 >= least:
                break
        return found, times


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


def summary(truth, queries, masks, found, times, k=K):
    scores = [truth.score(q, mask, f, k) for q, mask, f in zip(queries, masks, found)]
    wanted = sum(s[1] for s in scores)
    return {"queries": len(scores), "recall": sum(s[0] for s in scores) / max(1, wanted),
            "rows": sum(s[2] for s in scores) / len(scores), "rows_wanted": wanted / len(scores),
            "filled": all(s[2] >= s[1] for s in scores), "exact_order": all(s[3] for s in scores),
            "micros": float(np.mean(times)), "times": times}


def peer_settings(data, order):
    return {"hnsw.iterative_scan": order, "hnsw.ef_search": EF_SEARCH[data.name.split("-")[0]]}


def cells(ours, truth, queries):
    """What is compared: a description, and for each query the SQL of a condition, that of the peer, and the rows."""
    columns = ours.columns
    nearest = {i: int(np.nanargmin(truth.distances[i])) for i in queries}
    for share in SHARES:
        for kind in KINDS if share < 1 else KINDS[:1]:
            for place in PLACES if share < 1 else ["none"]:
                one = [columns.condition(kind, share, nearest[i], place) for i in queries]
                yield {"what": "cell", "share": share, "kind": kind, "place": place}, [c[0] for c in one], [c[1] for c in one]
    for place in ("index", "btree"):
        for name in [name for name, _, _ in columns.named(place, 0)]:
            one = [next(c for c in columns.named(place, i) if c[0] == name) for i in queries]
            yield {"what": "named", "name": name, "place": place}, [c[1] for c in one], [c[2] for c in one]


def matrix(ours, peer, truth, queries, options, log):
    done = {}
    for cell, conditions, masks in cells(ours, truth, queries):
        cell = {**cell, "data": ours.data.name}
        sql = [ours.statement(i, condition) for i, condition in zip(queries, conditions)]
        found, times, plan = ours.run(sql, {})
        forced = {}
        if options.forced:
            for name, settings in FORCED.items():
                theirs = ours.run(sql, settings, LEAST_FORCED)
                if plan_name(theirs[2]) == name:
                    forced[name] = theirs
        # Once more: what is compared with the best of several is the better of two.
        times = [min(pair) for pair in zip(times, ours.run(sql, {})[1])]
        log(**cell, system="ivflsh", plan=plan_name(plan), **summary(truth, queries, masks, found, times))
        for name, (found, times, _) in forced.items():
            log(**cell, system="ivflsh forced", plan=name, **summary(truth, queries, masks, found, times))
        if peer is None:
            continue
        # It has no filter columns in its index: those have a btree.
        sql = [peer.statement(i, condition.replace("_index", "_btree")) for i, condition in zip(queries, conditions)]
        for order in ("strict_order", "relaxed_order"):
            if (sql[0], order) not in done:
                done[sql[0], order] = peer.run(sql, peer_settings(peer.data, order))
            found, times, plan = done[sql[0], order]
            log(**cell, system=f"pgvector {order}", plan=plan_name(plan), **summary(truth, queries, masks, found, times))


def row_security(system, truth, queries, options, log):
    """Each query by another tenant, through a policy."""
    for column in ("tenant_index", "tenant_btree") if system.name == "ivflsh" else ("tenant_btree",):
        with system.connect() as admin:
            admin.execute(f"""DROP POLICY IF EXISTS own ON items; CREATE POLICY own ON items USING ({column} = current_setting('app.tenant')::int);
                ALTER TABLE items ENABLE ROW LEVEL SECURITY;
                DO $$ BEGIN CREATE ROLE renter; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
                GRANT SELECT ON items, queries TO renter""")
        found, masks, times = [], [], []
        with system.connect({} if system.name == "ivflsh" else peer_settings(system.data, "strict_order")) as connection:
            connection.execute("SET ROLE renter")
            plan = ""
            for i in queries:
                tenant = i * 37 % TENANTS
                connection.execute(f"SET app.tenant = {tenant}")
                sql = system.statement(i, "true")
                plan = plan or "\n".join(row[0] for row in connection.execute("EXPLAIN (COSTS OFF) " + sql))
                rows, time = system.timed(connection, [sql])
                found += rows
                times += time
                masks.append(system.columns.tenant == tenant)
        with system.connect() as admin:
            admin.execute("ALTER TABLE items DISABLE ROW LEVEL SECURITY")
        log(what="rls", data=system.data.name, system=system.name, column=column, plan=plan_name(plan),
            **summary(truth, queries, masks, found, times))


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
            masks.append(exact < float(f"{radius:.9f}"))
        found, times, plan = system.run(sql if system.name == "ivflsh" else sql[:5], {})
        log(what="range", data=system.data.name, system=system.name, radius_rows=rows, plan=plan_name(plan),
            **summary(truth, queries, masks, found, times, k=10 * rows))


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def ratio(slower, faster):
    """Of two records' times, over the queries that both have run."""
    n = min(len(slower["times"]), len(faster["times"]))
    return sum(slower["times"][:n]) / sum(faster["times"][:n])


def rate(record):
    return f"{1e6 / record['micros']:,.0f}"


def report(records, out):
    def write(line=""):
        print(line, file=out)

    cells, forced = defaultdict(dict), defaultdict(list)
    for r in records:
        if r["what"] in ("cell", "named"):
            condition = f"{r['share']:.2%}, {r['kind']}" if r["what"] == "cell" else r["name"]
            key = r["data"], condition.replace("100.00%, uncorrelated", "no condition"), r["place"]
            if r["system"] == "ivflsh forced":
                forced[key].append(r)
            else:
                cells[key][r["system"]] = r
    for data in dict.fromkeys(key[0] for key in cells):
        write(f"\n## {data}\n")
        write("| condition | column is | plan | recall | rows | queries/s | best other plan: times as long | pgvector strict_order: recall, rows, "
              "queries/s | relaxed_order | times as fast |\n|---|---|---|---|---|---|---|---|---|---|")
        ratios, regrets = {}, {}
        for key, systems in cells.items():
            if key[0] != data:
                continue
            ours = systems["ivflsh"]
            peers = [systems.get(f"pgvector {o}_order") for o in ("strict", "relaxed")]
            # However few rows it returns, and whatever its recall: the faster of the two counts.
            times = min((ratio(p, ours) for p in peers if p), default=None)
            if times:
                ratios[key] = times
            others = [f for f in forced[key] if f["recall"] >= 0.9 or f["recall"] >= ours["recall"]]
            best = min(others, key=lambda f: ratio(f, ours), default=None)
            if best:
                regrets[key] = max(1.0, 1 / ratio(best, ours))
            other = f"{best['plan']}: {ratio(best, ours):.2f}" if best else ""
            shown = [f"{p['recall']:.3f}, {p['rows']:.1f}, {rate(p)}" if p else "" for p in peers]
            write(f"| {key[1]} | {PLACES[key[2]]} | {ours['plan']} | {ours['recall']:.3f} | "
                  f"{ours['rows']:.1f}{'' if ours['filled'] else ' of ' + format(ours['rows_wanted'], '.1f')} | {rate(ours)} | "
                  f"{other} | {shown[0]} | {shown[1]} | {f'{times:.1f}' if times else ''} |")
        own = [c["ivflsh"] for key, c in cells.items() if key[0] == data]
        write(f"\nRecall at least {min(c['recall'] for c in own):.3f}, {np.mean([c['recall'] for c in own]):.3f} on average; LIMIT filled in "
              f"{sum(c['filled'] for c in own)} of {len(own)} cells; exact order in {sum(c['exact_order'] for c in own)}.")
        if ratios:
            below = sum(x < 1 for x in ratios.values())
            write(f"\nAgainst the faster of pgvector's two orders: {geometric_mean(ratios.values()):.1f} times its rate in the geometric mean, "
                  f"least {min(ratios.values()):.2f}; below 1 in {below} of {len(ratios)} cells.")
        if regrets:
            worse = sum(x > 1.5 for x in regrets.values())
            write(f"\nThe plan chosen takes at most {max(regrets.values()):.2f} times as long as the best of those forced one by one; "
                  f"more than 1.5 times in {worse} of {len(regrets)} cells.")
        for what, title, head in (("rls", "Row-level security, 1,000 tenants", "column"), ("range", "Distance ranges", "rows in range")):
            rows = [r for r in records if r["what"] == what and r["data"] == data]
            if rows:
                write(f"\n{title}:\n\n| system | {head} | plan | recall | rows | queries/s | order |\n|---|---|---|---|---|---|---|")
            for r in rows:
                write(f"| {r['system']} | {r.get('column') or r['radius_rows']} | {r['plan']} | {r['recall']:.3f} | {r['rows']:.1f} of {r['rows_wanted']:.1f} | "
                      f"{rate(r)} | {'exact' if r['exact_order'] else 'not exact'} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["fashion", "glove"], choices=["fashion", "glove"])
    parser.add_argument("--rows", type=int, help="only the first rows")
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="20,000 rows, 12 queries")
    parser.add_argument("--no-peer", action="store_true", help="without pgvector")
    parser.add_argument("--no-forced", dest="forced", action="store_false", help="without the plans forced one by one")
    parser.add_argument("--out", type=Path, default=Path("filters.jsonl"))
    parser.add_argument("--report", type=Path, help="only a report, of these results")
    parser.add_argument("--docs", action="store_true", help="write the report to docs/bench/filters.md and .json")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.queries = options.rows or 20000, 12
    if not options.report:
        exit_on_signals()
        options.out.unlink(missing_ok=True)

        def log(**record):
            print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in record.items() if k != "times"), flush=True)
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
                  "what is measured: [bench.md](../bench.md). Queries per second are of one core.", file=file)
            report(records, file)
        with open(ROOT / "docs/bench/filters.jsonl", "w") as file:
            for record in records:
                file.write(json.dumps({k: v for k, v in record.items() if k != "times"}) + "\n")


if __name__ == "__main__":
    main()
