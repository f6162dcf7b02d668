"""Filter columns: conditions on columns behind the vector are evaluated in the index."""

import datetime
import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import numpy as np
import psycopg
import pytest
from pgvector import Vector
from pgvector.psycopg import register_vector

from harness.search import (
    METRICS,
    assert_alike,
    by_index,
    clustered,
    exactly,
    insert,
    make_table,
    plan,
    settings,
)

DIMENSIONS = 16
QUERY = Vector(clustered(1, DIMENSIONS, seed=9)[0])
EPOCH = datetime.datetime(2024, 1, 1)

# Of each column: its type, and a value for a row.
COLUMNS = {
    "flag": ("bool", lambda r: r.random() < 0.2),
    "small": ("int2", lambda r: r.randint(-300, 300)),
    "number": ("int4", lambda r: r.choice([-2**31, 2**31 - 1, r.randint(-50, 50)])),
    "large": ("int8", lambda r: r.choice([-2**63, 2**63 - 1, r.randint(-50, 50)])),
    "real4": ("float4", lambda r: r.choice([float("nan"), float("inf"), float("-inf"), -0.0, 0.0, r.uniform(-9, 9)])),
    "real8": ("float8", lambda r: r.choice([float("nan"), float("inf"), float("-inf"), -0.0, 0.0, r.uniform(-9, 9)])),
    "price": ("numeric", lambda r: r.choice([Decimal("NaN"), Decimal("1e400"), Decimal("0.1"), Decimal(r.randint(0, 10**6)) / 100])),
    "name": ("text", lambda r: f"name {r.randint(0, 60)}"),
    "title": ("varchar(20)", lambda r: f"title {r.randint(0, 60)}"),
    "code": ("char(6)", lambda r: f"c{r.randint(0, 60)}"),
    "key": ("uuid", lambda r: uuid.UUID(int=(r.randint(0, 40) << 64) + r.randint(0, 2))),
    "day": ("date", lambda r: (EPOCH + datetime.timedelta(days=r.randint(-40, 40))).date()),
    "clock": ("time", lambda r: datetime.time(r.randint(0, 23), r.randint(0, 59))),
    "at": ("timestamp", lambda r: EPOCH + datetime.timedelta(hours=12 * r.randint(-80, 80))),
    "zoned": ("timestamptz", lambda r: (EPOCH + datetime.timedelta(hours=12 * r.randint(-80, 80))).replace(tzinfo=datetime.timezone.utc)),
    "object": ("oid", lambda r: r.choice([0, 2**32 - 1, r.randint(1, 99)])),
    "mood": ("mood", lambda r: r.choice(["sad", "ok", "happy"])),
    "host": ("inet", lambda r: r.choice([f"10.0.{r.randint(0, 3)}.{r.randint(0, 9)}/{r.randint(8, 32)}", f"fe80::{r.randint(0, 9)}/{r.randint(10, 128)}"])),
    "labels": ("int4[]", lambda r: [r.choice([None] + list(range(30))) for _ in range(r.randint(0, 4))]),
    "bigs": ("int8[]", lambda r: [r.randint(0, 200) for _ in range(r.randint(0, 3))]),
    "tags": ("text[]", lambda r: [f"tag {r.randint(0, 40)}" for _ in range(r.randint(0, 4))]),
}

# Conditions on each: those that the index evaluates.
COMPARE = ("<", "<=", "=", ">=", ">")
CONDITIONS = {
    "flag": ["flag", "NOT flag", "flag IS TRUE", "flag IS FALSE", "flag IN (true, false)", "flag > false"],
    "small": [f"small {o} {c}" for o in COMPARE for c in ("7", "7::int2", "7000000000", "-32768")],
    "number": [f"number {o} {c}" for o in COMPARE for c in ("7", "7::int2", "7::int8", "-2147483648", "9000000000")]
    + ["number BETWEEN -3 AND 12", "number IN (1, 2, 3, NULL)", "number = ANY ('{4,5,6,7,8,9,10,11,12,13,14,15}')",
       "number < ANY ('{4,-40}')", "number >= ANY ('{4,40,NULL}')", "number IN (1, 2) AND number > 1",
       "number = ANY ('{}'::int[])", "number > 5 AND number < 2"],
    "large": [f"large {o} {c}" for o in COMPARE for c in ("7", "7::int2", "7::int8", "9223372036854775807", "-9223372036854775808")],
    "real4": [f"real4 {o} {c}" for o in COMPARE for c in ("1.5", "'NaN'", "0::float8", "'-inf'", "'inf'::float4", "0.1::float8")],
    "real8": [f"real8 {o} {c}" for o in COMPARE for c in ("1.5", "'NaN'", "'-0'", "'-inf'", "'inf'::float4", "0.1::float4")],
    "price": [f"price {o} {c}" for o in COMPARE for c in ("0.1", "'NaN'", "5000", "1e401", "123.45")] + ["price BETWEEN 10 AND 2000.50"],
    "name": ["name = 'name 7'", "name IN ('name 7', 'name 8', 'none')", "name = 'name 7'::varchar"],
    "title": ["title = 'title 7'", "title IN ('title 7', 'title 8')"],
    "code": ["code = 'c7'", "code = 'c7   '", "code IN ('c7', 'c8')"],
    "key": [f"key {o} '{c}'" for o in COMPARE for c in ("00000000-0000-0014-0000-000000000001", "ffffffff-0000-0014-0000-000000000001")],
    "day": [f"day {o} {c}" for o in COMPARE for c in (
        "'2024-01-05'::date", "'2024-01-05'::timestamp", "'2024-01-05 12:00'::timestamp", "'2024-01-05 00:00+00'::timestamptz",
        "'infinity'::timestamp", "'-infinity'::timestamptz", "'infinity'::date")],
    "clock": [f"clock {o} '12:30'" for o in COMPARE],
    "at": [f"at {o} {c}" for o in COMPARE for c in (
        "'2024-01-05'::date", "'2024-01-05'::timestamp", "'2024-01-05 00:00+00'::timestamptz", "'294276-12-31'::timestamptz",
        "'5000000-01-01'::date", "'-infinity'::date", "'infinity'::timestamptz")],
    "zoned": [f"zoned {o} {c}" for o in COMPARE for c in (
        "'2024-01-05'::date", "'2024-01-05'::timestamp", "'2024-01-05 00:00+00'::timestamptz", "'4713-01-01 BC'::timestamp",
        "'5000000-01-01'::date", "'infinity'::date", "'-infinity'::timestamp")],
    "object": [f"object {o} {c}" for o in COMPARE for c in ("7", "4294967295", "0")],
    "mood": ["mood = 'ok'", "mood IN ('sad', 'happy')"],
    "host": [f"host {o} '{c}'" for o in COMPARE for c in ("10.0.1.0/24", "10.0.2.5", "fe80::4/64", "10.0.0.0/8")]
    + ["host = '10.0.1.3/32'::cidr"],
    "labels": ["labels && '{3}'", "labels @> '{3,4}'", "labels && '{}'", "labels @> '{}'", "labels && '{NULL,5}'", "labels @> '{NULL}'"],
    "bigs": ["bigs && '{3,100}'", "bigs @> '{3}'"],
    "tags": ["tags && '{tag 3,tag 5}'", "tags @> '{tag 3}'"],
}
# Negations, and conditions joined by OR, over one column and over several.
CONDITIONS["flag"] += ["flag IS NOT TRUE", "flag IS NOT FALSE", "flag IS UNKNOWN", "flag <> true", "flag IS DISTINCT FROM true"]
CONDITIONS["number"] += ["number <> 7", "7::int8 <> number", "number NOT IN (1, 2, 3)", "number NOT IN (1, NULL)", "number <> ALL ('{}')",
                         "number IS DISTINCT FROM 7", "number IS NOT DISTINCT FROM 7", "number IS DISTINCT FROM NULL",
                         "number IS NOT DISTINCT FROM NULL::int", "number = 1 OR number > 40", "NOT (number = 1 OR number > 40)",
                         "number = 1 OR name = 'name 7' OR flag", "(number > 0 AND flag) OR (number < 0 AND NOT flag)",
                         "(number = 1 OR name = 'name 7') AND (flag OR day > '2024-01-05')", "number IS NULL OR number = 1",
                         "NOT (number IN (1, 2) AND name = 'name 7')", "number = 1 OR number <> 7"]
CONDITIONS["name"] += ["name <> 'name 7'", "name NOT IN ('name 7', 'name 8')", "name IS DISTINCT FROM 'name 7'", "name = 'name 7' OR name IS NULL"]
CONDITIONS["day"] += ["day <> '2024-01-05'", "day <> '2024-01-05 12:00'::timestamp", "day < '2024-01-05' OR day > '2024-02-01'"]
CONDITIONS["price"] += ["price <> 0.1", "price IS DISTINCT FROM 0.1"]
CONDITIONS["mood"] += ["mood <> 'ok'", "mood NOT IN ('sad', 'ok')"]
CONDITIONS["real8"] += ["real8 <> 0", "real8 <> 'NaN'", "real8 = 'NaN' OR real8 < 0"]
CONDITIONS["labels"] += ["labels && '{3}' OR labels @> '{4,5}'", "labels && '{3}' OR number = 1"]
for column, conditions in CONDITIONS.items():
    conditions += [f"{column} IS NULL", f"{column} IS NOT NULL"]
CASES = [condition for conditions in CONDITIONS.values() for condition in conditions]


def search(condition, limit=10, operator="<->", table="typed"):
    return f"SELECT id FROM {table} WHERE {condition} ORDER BY embedding {operator} %b LIMIT {limit}"


def ids(connection, statement, parameters=(QUERY,)):
    return [row[0] for row in connection.execute(statement, parameters)]


def condition_of(shown):
    """The conditions that a plan evaluates in the index."""
    return " ".join(line for line in shown.split("\n") if "Index Cond: " in line)


def assert_same(connection, condition, limit=20, operator="<->", table="typed", query=QUERY):
    """A search to the end gives just the rows that exact search gives; one with a LIMIT gives as many, in order, nearly all
    of them the nearest (a sketch is wrong about one row in a hundred or so). The index evaluates the condition."""
    limited, whole = search(condition, limit, operator, table), search(condition, "ALL", operator, table)
    with exactly(connection):
        truth = ids(connection, whole, (query,))
    with by_index(connection, ivflsh__probes=10_000_000, ivflsh__iterative_scan="relaxed_order"):
        shown = plan(connection, whole, (query,))
        assert "Order By: " in shown and "Index Cond: " in shown and "Filter: " not in shown, shown
        assert sorted(ids(connection, whole, (query,))) == sorted(truth), condition
    with by_index(connection, ivflsh__probes=10_000_000):
        found = ids(connection, limited, (query,))
    nearest = truth[:limit]
    assert len(found) == len(set(found)) == len(nearest), condition
    places = [truth.index(id) for id in found]
    assert places == sorted(places), condition
    assert len(set(found) & set(nearest)) >= 0.9 * len(nearest), condition
    return len(nearest)


@pytest.fixture(scope="module")
def typed(cluster):
    """A table with a column of each type, a tenth of it NULL, and an index on all of them."""
    cluster.create_database("filters", "vector_ext")
    with cluster.connect("filters") as connection:
        register_vector(connection)
        connection.execute("SET timezone = 'America/New_York'; CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')")
        connection.execute(f"""CREATE TABLE typed (id int, embedding vector({DIMENSIONS}),
                               {", ".join(f'{name} {kind}' for name, (kind, _) in COLUMNS.items())})""")
        rng = random.Random(1)
        vectors = clustered(3000, DIMENSIONS)
        marks = ", ".join(["%s"] * (len(COLUMNS) + 2))
        rows = ([i, Vector(vector)] + [None if rng.random() < 0.1 else make(rng) for _, make in COLUMNS.values()]
                for i, vector in enumerate(vectors))
        with connection.transaction():
            connection.cursor().executemany(f"INSERT INTO typed VALUES ({marks})", list(rows))
        connection.execute(f"CREATE INDEX typed_idx ON typed USING ivflsh (embedding vector_l2_ops, {', '.join(COLUMNS)}) WITH (lists = 60)")
        connection.execute("VACUUM ANALYZE typed")
        yield connection


@pytest.mark.parametrize("condition", CASES)
def test_condition(typed, condition):
    assert_same(typed, condition)


def test_most_conditions_have_results(typed):
    """The cases above are not about nothing."""
    with exactly(typed):
        counts = [typed.execute(f"SELECT count(*) FROM typed WHERE {case}").fetchone()[0] for case in CASES]
    assert sum(count > 0 for count in counts) > 0.8 * len(CASES)


@pytest.mark.parametrize("seed", range(20))
def test_conjunctions(typed, seed):
    rng = random.Random(seed)
    columns = rng.sample(list(CONDITIONS), 3)
    assert_same(typed, " AND ".join(rng.choice(CONDITIONS[column]) for column in columns))


def test_all_rows_of_a_condition(typed):
    """A scan to the end returns what the condition matches, each row once."""
    with by_index(typed, ivflsh__iterative_scan="relaxed_order"):
        found = ids(typed, "SELECT id FROM typed WHERE number BETWEEN 0 AND 20 ORDER BY embedding <-> %b LIMIT 10000000")
    with exactly(typed):
        assert sorted(found) == ids(typed, "SELECT id FROM typed WHERE number BETWEEN 0 AND 20 ORDER BY id", ())


def test_time_zones(typed):
    """Dates become points in time by the session's time zone, when the query runs."""
    for zone in ("UTC", "Pacific/Auckland", "Pacific/Apia", "America/St_Johns"):
        with settings(typed, timezone=zone):
            for condition in CONDITIONS["zoned"] + CONDITIONS["day"] + CONDITIONS["at"]:
                assert_same(typed, condition)


def test_what_the_classes_do_not_offer(typed):
    """The order of texts is the collation's, that of enumerated values can change: the executor compares."""
    for condition in ("name < 'name 7'", "mood < 'ok'", "labels <@ '{1}'", "number / 2 = 5"):
        with by_index(typed, ivflsh__probes=10_000_000):
            shown = plan(typed, search(condition), (QUERY,))
            assert "Filter: " in shown and "Order By: " in shown, shown
            found = ids(typed, search(condition))
        with exactly(typed):
            assert_alike([found], [ids(typed, search(condition))])


def test_not_without_order(typed):
    with settings(typed, enable_seqscan="off"):
        assert "typed_idx" not in plan(typed, "SELECT id FROM typed WHERE number = 5")


def test_null_vectors_are_not_forgotten(typed):
    """The index has no rows without a vector, so it is no help in finding them."""
    with typed.transaction(force_rollback=True):
        typed.execute("INSERT INTO typed (id, number) VALUES (-1, 5)")
        with by_index(typed):
            assert ids(typed, search("embedding IS NULL")) == [-1]
            assert -1 not in ids(typed, search("embedding IS NOT NULL AND number = 5", 5000))
    assert_same(typed, "embedding IS NOT NULL AND number = 5")


def test_parameters(typed):
    """Prepared statements with generic and custom plans, NULL among the parameters."""
    types = "int, int[], text, int[], vector"
    typed.execute(f"PREPARE find({types}) AS SELECT id FROM typed WHERE number >= $1 AND number = ANY ($2) AND name = $3 "
                  "AND labels && $4 ORDER BY embedding <-> $5 LIMIT 10")
    typed.execute(f"PREPARE find_null({types}) AS SELECT id FROM typed WHERE number >= $1 ORDER BY embedding <-> $5 LIMIT 10")
    rng = random.Random(3)
    for mode in ("force_generic_plan", "force_custom_plan"):
        with settings(typed, plan_cache_mode=mode):
            for _ in range(10):
                values = (rng.randint(-50, 50), [rng.randint(-50, 50) for _ in range(30)], f"name {rng.randint(0, 60)}",
                          [rng.randint(0, 29) for _ in range(12)], QUERY)
                call = psycopg.ClientCursor(typed).mogrify("EXECUTE find(%s, %s, %s, %s, %s)", values)
                with by_index(typed, ivflsh__probes=10_000_000):
                    shown = plan(typed, call)
                    assert all(column in condition_of(shown) for column in ("number", "name", "labels")), shown
                    found = ids(typed, call, ())
                typed.execute("DISCARD PLANS")  # generic plans are kept, whatever the settings
                with exactly(typed):
                    assert_alike([found], [ids(typed, call, ())], 0.9)
                typed.execute("DISCARD PLANS")
            with by_index(typed):
                call = psycopg.ClientCursor(typed).mogrify("EXECUTE find_null(NULL, NULL, NULL, NULL, %s)", (QUERY,))
                assert ids(typed, call, ()) == []
    typed.execute("DEALLOCATE find; DEALLOCATE find_null")


def test_in_a_join(typed):
    """Conditions and query vectors that change from row to row."""
    statement = """SELECT q.id, n.id FROM (SELECT * FROM typed WHERE id < 30) q, LATERAL
        (SELECT t.id FROM typed t WHERE t.number = q.number AND t.name = ANY (ARRAY[q.name, 'name 1', 'name 2'])
         ORDER BY t.embedding <-> q.embedding LIMIT 5) n"""
    with by_index(typed, ivflsh__probes=10_000_000, enable_bitmapscan="off"):
        shown = plan(typed, statement)
        assert "(number = typed.number)" in condition_of(shown) or "number = " in condition_of(shown), shown
        found = typed.execute(statement).fetchall()
    with exactly(typed):
        assert_alike([found], [typed.execute(statement).fetchall()])


def test_index_is_sound(typed):
    assert_sound(typed, "typed_idx")


def test_stats_name_the_filters(typed):
    filters = typed.execute("SELECT ivflsh_stats('typed_idx')->'filters'").fetchone()[0]
    assert [f["column"] for f in filters] == list(COLUMNS)
    assert filters[2]["keys"] == "int4" and filters[-1]["keys"] == "set"


def test_operator_classes_are_valid(typed):
    classes = typed.execute("""SELECT opcname, amvalidate(c.oid) FROM pg_opclass c JOIN pg_am a ON a.oid = opcmethod
                               WHERE amname = 'ivflsh'""").fetchall()
    assert len(classes) >= 20 and all(valid for _, valid in classes), classes


# Changes

def assert_sound(connection, index="items_embedding_idx"):
    """Keys are those of the rows, summaries know of them, and all else that the index is checked for."""
    connection.execute(f"SELECT ivflsh_check('{index}')")


def changing(db, count=2000, columns="label", options="WITH (lists = 40)"):
    make_table(db, clustered(count, DIMENSIONS))
    db.execute(f"CREATE INDEX items_embedding_idx ON items USING ivflsh (embedding vector_l2_ops, {columns}) {options}")


@pytest.mark.parametrize("filled", [True, False])
def test_inserts_updates_deletes(db, filled):
    """New keys widen the summaries of lists that did not know them; with and without a tree."""
    vectors = clustered(3000, DIMENSIONS)
    make_table(db, vectors[:2000] if filled else [], dimensions=DIMENSIONS)
    db.execute("CREATE INDEX items_embedding_idx ON items USING ivflsh (embedding vector_l2_ops, label) WITH (lists = 40)")
    insert(db, vectors[2000:] if filled else vectors, first_id=5000)
    db.execute("ALTER TABLE items ALTER label DROP NOT NULL")
    db.execute("UPDATE items SET label = 77 WHERE id % 50 = 0")
    db.execute("UPDATE items SET label = NULL WHERE id % 50 = 1")
    db.execute("UPDATE items SET label = -id WHERE id % 50 = 2")
    db.execute("DELETE FROM items WHERE id % 7 = 0")
    for vacuum in (False, True):
        if vacuum:
            db.execute("VACUUM ANALYZE items")
            insert(db, clustered(500, DIMENSIONS, seed=3), first_id=20000)
        for condition in ("label = 77", "label IS NULL", "label < 0", "label = 4", "label IN (3, 77)", "label = -5002", "label = -5052"):
            count = assert_same(db, condition, table="items", limit=100)
            assert count > 0 or condition == "label = -5002"
        assert_sound(db)


def test_updates_of_a_filter_column_in_one_transaction(database):
    """A transaction sees its own changes, others do not; after a rollback nobody does."""
    one, other = database.connect(), database.connect()
    changing(one)
    with one.transaction(force_rollback=True):
        one.execute("UPDATE items SET label = 99 WHERE id < 20")
        assert assert_same(one, "label = 99", table="items") == 20
        assert assert_same(other, "label = 99", table="items") == 0
    assert assert_same(one, "label = 99", table="items") == 0


def test_expressions_and_partial_indexes(db):
    changing(db, columns="(label * 2), (label::text), id", options="WHERE label < 8")
    for condition in ("label * 2 = 6", "label::text = '3'", "label * 2 IN (2, 4)", "id < 500"):
        assert assert_same(db, f"label < 8 AND {condition}", table="items") > 0


@pytest.mark.parametrize("how", ["", "CONCURRENTLY"])
def test_reindex(db, how):
    changing(db)
    db.execute("UPDATE items SET label = 50 WHERE id < 100")
    db.execute(f"REINDEX INDEX {how} items_embedding_idx")
    assert assert_same(db, "label = 50", table="items") == 20
    assert assert_same(db, "label = 3", table="items") == 20
    assert_sound(db)


def test_lists_that_split(db):
    """An index that grows from nothing: keys move with their rows, new lists get summaries of their own."""
    vectors = clustered(12_000, DIMENSIONS, clusters=300)
    make_table(db, [], dimensions=DIMENSIONS)
    db.execute("CREATE INDEX items_embedding_idx ON items USING ivflsh (embedding vector_l2_ops, label, id)")
    db.execute("ALTER TABLE items ALTER label DROP NOT NULL")
    for first in range(0, len(vectors), 3000):
        insert(db, vectors[first:first + 3000], first_id=first)
        db.execute("UPDATE items SET label = NULL WHERE id %% 100 = 7 AND id >= %s", (first,))
        assert_sound(db)
    db.execute("DELETE FROM items WHERE id % 3 = 1")
    db.execute("VACUUM ANALYZE items")
    insert(db, clustered(3000, DIMENSIONS, seed=5, clusters=300), first_id=50_000)
    assert db.execute("SELECT (ivflsh_stats('items_embedding_idx')->'splits')::int").fetchone()[0] > 20
    assert_sound(db)
    for condition in ("label = 3", "label IS NULL", "id = 4500", "id BETWEEN 2990 AND 3010", "id > 52000 AND label IN (1, 2)"):
        assert assert_same(db, condition, table="items") > 0
    with by_index(db, ivflsh__enable_vector_scan="inline"):  # not by the primary key
        assert ids(db, search("id = 4500", table="items")) == [4500]
        assert db.execute("SELECT lists FROM ivflsh_last_scan()").fetchone()[0] < 40


def test_inserts_by_many_sessions(database):
    """Sessions that insert, split and search at the same time: no row is passed by."""
    vectors = clustered(6000, DIMENSIONS, clusters=200)
    first = database.connect()
    make_table(first, vectors[:100])
    first.execute("CREATE INDEX items_embedding_idx ON items USING ivflsh (embedding vector_l2_ops, label, id)")
    connections = [database.connect() for _ in range(4)]

    def work(number):
        connection = connections[number]
        for i in range(100 + number, len(vectors), 4):
            connection.execute("INSERT INTO items VALUES (%s, %s, %s)", (i, i % 13, Vector(vectors[i])))
            if i % 50 < 4:
                with by_index(connection):
                    assert ids(connection, search(f"id = {i}", table="items")) == [i]

    with ThreadPoolExecutor(len(connections)) as pool:
        list(pool.map(work, range(len(connections))))
    assert_sound(first)
    assert assert_same(first, "label = 11", table="items") == 20


def test_create_concurrently_unlogged_partitioned(db):
    vectors = clustered(1500, DIMENSIONS)
    make_table(db, vectors, kind="UNLOGGED")
    db.execute("CREATE INDEX CONCURRENTLY items_embedding_idx ON items USING ivflsh (embedding vector_l2_ops, label, id)")
    assert assert_same(db, "label = 3 AND id > 700", table="items") == 20
    db.execute(f"""CREATE TABLE parts (id int, label int, embedding vector({DIMENSIONS})) PARTITION BY HASH (id);
                   CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                   CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
                   CREATE INDEX ON parts USING ivflsh (embedding vector_l2_ops, label)""")
    db.execute("INSERT INTO parts SELECT id, label, embedding FROM items; ANALYZE parts")
    for condition in ("label = 3", "label IN (1, 2)"):
        statement = search(condition, table="parts")
        with by_index(db, ivflsh__probes=10_000_000):
            shown = plan(db, statement, (QUERY,))
            assert shown.count("Index Cond: ") == 2 and "Merge Append" in shown, shown
            found = ids(db, statement)
        with exactly(db):
            assert_alike([found], [ids(db, statement)])


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_metrics_and_pages_that_overflow(db, metric):
    """Sketches and codes that span pages, beside keys."""
    make_table(db, clustered(300, 2000))
    db.execute(f"CREATE INDEX ON items USING ivflsh (embedding vector_{metric.operators}, label, id) WITH (lists = 20)")
    insert(db, clustered(100, 2000, seed=4), first_id=1000)
    query = Vector(clustered(1, 2000, seed=9)[0])
    for condition in ("label = 3", "id >= 1000", "id BETWEEN 290 AND 1010"):
        assert assert_same(db, condition, 15, metric.operator, "items", query) > 0


# Limits

def test_the_vector_comes_first(db, refused):
    db.execute("CREATE TABLE items (id int, a vector(3), b vector(3), j json, p point)")
    for columns, code, message in (
        ("id, a", "42704", "data type integer has no default operator class"),
        ("id", "42704", "data type integer has no default operator class"),
        ("a, b", "0A000", "column 2 of an ivflsh index cannot be a vector"),
        ("a, j", "42704", "has no default operator class"),
        ("a, p", "42704", "has no default operator class"),
        ("a, id DESC", "0A000", "does not support ASC/DESC"),
    ):
        refused(db, code, message, f"CREATE INDEX ON items USING ivflsh ({columns})")


def test_many_columns(db, refused):
    """As many as fit a page beside the rest, at the most dimensions."""
    most = 27
    names = [f"c{i}" for i in range(most + 1)]
    db.execute(f"CREATE TABLE typed (id int, embedding vector(16000), {', '.join(f'{n} int8' for n in names)})")
    random = np.random.default_rng(1)
    for i in range(60):
        keys = ", ".join(str(i % (2 + n)) if i % 11 else "NULL" for n in range(most + 1))
        db.execute(f"INSERT INTO typed VALUES (%s, %s, {keys})", (i, Vector(random.normal(size=16000))))
    index = "CREATE INDEX ON typed USING ivflsh (embedding vector_l2_ops, {})"
    refused(db, "54011", "cannot use more than 27 filter columns", index.format(", ".join(names)))
    db.execute(index.format(", ".join(names[:most])) + " WITH (lists = 4)")
    query = Vector(random.normal(size=16000))
    for condition in ("c0 = 1", "c26 = 5", "c3 = 1 AND c4 = 1 AND c26 < 20", "c12 IS NULL"):
        assert assert_same(db, condition, query=query) > 0


def test_limits_are_filled_and_recall_holds(db):
    """Selectivities from 50 % to 0.05 %, conditions that follow the vectors, oppose them, or know nothing of them."""
    count = 20_000
    vectors = clustered(count, 32, clusters=200)
    queries = clustered(40, 32, seed=5, clusters=200)
    cluster_of = np.argmin(((vectors[:, None, :4] - vectors[None, :50, :4]) ** 2).sum(axis=2), axis=1)
    db.execute("CREATE TABLE items (id int, chance float8, near int, embedding vector(32))")
    chance = np.random.default_rng(2).random(count)
    with db.cursor().copy("COPY items FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "float8", "int4", "vector"])
        for i in range(count):
            copy.write_row((i, float(chance[i]), int(cluster_of[i]), Vector(vectors[i])))
    db.execute("CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops, chance, near)")
    db.execute("VACUUM ANALYZE items")
    conditions = [f"chance < {s}" for s in (0.5, 0.1, 0.01, 0.002, 0.0005)] + ["near = 3", "near = 49", "near < 25", "near IN (1, 2, 30)"]
    for condition in conditions:
        hits = wanted = 0
        for query in queries:
            statement = search(condition, table="items")
            with by_index(db):
                found = ids(db, statement, (Vector(query),))
            with exactly(db):
                truth = ids(db, statement, (Vector(query),))
            assert len(found) == len(truth), condition
            hits += len(set(found) & set(truth))
            wanted += len(truth)
        assert hits >= 0.95 * wanted, (condition, hits / wanted)
    with settings(db, enable_sort="off"):
        for condition in ("chance < 0.1", "near = 3"):
            shown = plan(db, search(condition, 10, table="items"), (Vector(queries[0]),))
            assert "Index Cond: " in shown, shown


def test_few_matches_read_few_lists(db):
    """Lists without a match are passed by."""
    make_table(db, clustered(8000, DIMENSIONS))
    db.execute("CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops, id, label) WITH (lists = 100)")
    with by_index(db, ivflsh__enable_vector_scan="inline"):  # not by the primary key
        assert ids(db, search("id = 4321", table="items")) == [4321]
        lists = db.execute("SELECT lists FROM ivflsh_last_scan()").fetchone()[0]
        assert 1 <= lists < 30
        assert ids(db, search("label = 10", table="items")) == []
        assert db.execute("SELECT lists, entries FROM ivflsh_last_scan()").fetchone() == (0, 0)
