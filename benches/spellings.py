"""Processor time of spellings of distances beside the canonical form's, of conditions on jsonb, and of many queries
in one statement beside as many statements. `scripts/python.sh benches/spellings.py [part …]`; parts: spellings, json, joins."""

import sys
from pathlib import Path

import numpy as np
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tests")]
from harness.cluster import Cluster  # noqa: E402
from harness.search import clustered  # noqa: E402

ROWS, DIMENSIONS = 20_000, 128
QUERIES = [Vector(row).to_text() for row in clustered(100, DIMENSIONS, seed=78)]


def used(connection):
    """Processor time of the connection's backend so far, in seconds."""
    return int(Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text().split()[0]) / 1e9


def microseconds(connection, sqls, rounds=5):
    """The median over rounds of the time of one of some statements, each planned anew."""
    times = []
    for _ in range(rounds):
        start = used(connection)
        for sql in sqls:
            connection.execute(sql, prepare=False)
        times.append((used(connection) - start) / len(sqls) * 1e6)
    return float(np.median(times))


def fill(c, jsonb=False):
    c.execute(f"CREATE TABLE items (id int PRIMARY KEY, label int, meta jsonb, v vector({DIMENSIONS}) NOT NULL)")
    with c.cursor().copy("COPY items FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "int4", "jsonb", "vector"])
        for i, row in enumerate(clustered(ROWS, DIMENSIONS, seed=3)):
            meta = {"tenth": f"t{i % 10}", "hundredth": f"h{i % 100}", "thousandth": f"k{i % 1000}", "page": i % 7, "lang": "en"}
            copy.write_row((i, i % 7, Jsonb(meta) if jsonb else None, Vector(row)))


def spellings(cluster):
    d = "(v <=> '{}'::vector)"
    canonical = f"SELECT id FROM items ORDER BY {d} LIMIT 10"
    forms = [f"SELECT id FROM items ORDER BY {e} LIMIT 10" for e in (
        d, "cosine_distance(v, '{}')", f"1 - {d} DESC", f"-{d} DESC", f"{d} * 100", f"1 / (1 + {d}) DESC", f"{d}::real", f"round((1 - {d})::numeric, 9) DESC",
        f"{d}, id")]
    forms += [f"SELECT id FROM items WHERE {w} ORDER BY {d} LIMIT 10" for w in (f"{d} < 0.3", f"1 - {d} > 0.7", "1 - cosine_distance(v, '{}') >= 0.7", f"{d} BETWEEN 0 AND 0.3")]
    with cluster.connect("spellings") as c:
        register_vector(c)
        c.execute("CREATE INDEX ON items USING ivflsh (v vector_cosine_ops)")
        c.execute("VACUUM ANALYZE items")

        def run(form):
            return microseconds(c, [form.format(*[q] * form.count("{}")) for q in QUERIES])

        run(canonical)
        for form in forms:
            times = [(run(form), run(canonical)) for _ in range(3)]
            ratio = np.median([a / b for a, b in times])
            print(f"{ratio:5.2f}  {np.median([a for a, _ in times]):6.0f} µs  {form.replace(d, 'd')}", flush=True)


def json(cluster):
    with cluster.connect("spellings") as c:
        c.execute("CREATE INDEX fields ON items USING ivflsh (v vector_cosine_ops, (meta ->> 'tenth'), (meta ->> 'hundredth'), (meta ->> 'thousandth'))")
        c.execute("VACUUM ANALYZE items")
        for share in ("tenth", "hundredth", "thousandth"):
            value = share.replace("tenth", "t3") if share == "tenth" else {"hundredth": "h33", "thousandth": "k333"}[share]
            for where in (f"meta @> '{{\"{share}\": \"{value}\"}}'", f"meta ->> '{share}' = '{value}'"):
                sqls = [f"SELECT id FROM items WHERE {where} ORDER BY v <=> '{q}' LIMIT 10" for q in QUERIES]
                shown = " / ".join(row[0].strip() for row in c.execute("EXPLAIN (COSTS OFF) " + sqls[0]) if "Scan" in row[0] or "Strategy" in row[0])
                print(f"{microseconds(c, sqls):7.0f} µs  {where}: {shown}", flush=True)


def joins(cluster):
    with cluster.connect("spellings") as c:
        c.execute("CREATE TABLE queries AS SELECT g AS n, (SELECT v FROM items WHERE id = (g * 7919) % 20000) AS q FROM generate_series(1, 10000) g")
        c.execute("ANALYZE queries")
        vectors = [row[0] for row in c.execute("SELECT q::text FROM queries ORDER BY n LIMIT 2000")]
        c.execute("PREPARE one(vector) AS SELECT id FROM items ORDER BY v <=> $1 LIMIT 10")
        c.execute("SET plan_cache_mode = force_generic_plan")
        single = microseconds(c, [f"EXECUTE one('{q}')" for q in vectors], 3)
        join = "SELECT count(*) FROM queries CROSS JOIN LATERAL (SELECT id FROM items ORDER BY v <=> q LIMIT 10) t"
        together = microseconds(c, [join], 3) / 10_000
        batch = "SELECT count(*) FROM unnest(ARRAY(SELECT q FROM queries)) q CROSS JOIN LATERAL (SELECT id FROM items ORDER BY v <=> q LIMIT 10) t"
        unnested = microseconds(c, [batch], 3) / 10_000
        print(f"single {single:.0f} µs, LATERAL {together:.0f} µs, unnest {unnested:.0f} µs")


if __name__ == "__main__":
    parts = sys.argv[1:] or ["spellings", "json", "joins"]
    with Cluster() as server:
        server.create_database("spellings", "vector_ext")
        with server.connect("spellings") as connection:
            register_vector(connection)
            fill(connection, True)
        for part in parts:
            {"spellings": spellings, "json": json, "joins": joins}[part](server)
