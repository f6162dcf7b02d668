"""The index and the ways tables and indexes are made, rebuilt, split, dumped and dropped; and what is refused."""

import threading

import numpy as np
import pytest
from pgvector import Vector

from harness.search import (COSINE, L2, as_type, assert_holds_exactly, assert_recall, by_index, clustered, exactly, insert,
                            make_index, make_table, nearest, plan, settings, uses_index)

ROWS = clustered(2000, 16)
QUERIES = clustered(15, 16, seed=2)


def test_partitioned_table(db):
    db.execute("CREATE TABLE items (id int NOT NULL, label int NOT NULL, embedding vector(16)) PARTITION BY LIST (label)")
    for part in range(3):
        labels = ",".join(str(label) for label in range(10) if label % 3 == part)
        db.execute(f"CREATE TABLE items_{part} PARTITION OF items FOR VALUES IN ({labels})")
    insert(db, ROWS[:1000])
    make_index(db)
    insert(db, ROWS[1000:], first_id=1000)
    db.execute("ANALYZE items")
    with by_index(db):
        statement = "SELECT id FROM items ORDER BY embedding <-> %b LIMIT 10"
        shown = plan(db, statement, (Vector(QUERIES[0]),))
        assert "Merge Append" in shown and shown.count("Index Scan using") == 3
    assert_recall(db, QUERIES, 0.9)
    with by_index(db):
        assert [row[0] % 10 for row in db.execute(
            "SELECT id FROM items WHERE label = 4 ORDER BY embedding <-> %b LIMIT 5", (Vector(QUERIES[0]),))] == [4] * 5


def test_partition_attached_and_detached(db):
    db.execute("CREATE TABLE items (id int NOT NULL, label int NOT NULL, embedding vector(16)) PARTITION BY RANGE (id)")
    make_index(db)
    make_table(db, ROWS, table="old")
    make_index(db, table="old")
    db.execute("ALTER TABLE items ATTACH PARTITION old FOR VALUES FROM (0) TO (10000)")
    assert db.execute("SELECT count(*) FROM pg_inherits WHERE inhrelid = 'old_embedding_idx'::regclass").fetchone() == (1,), \
        "its index is taken over, not built again"
    assert_recall(db, QUERIES, 0.93)
    db.execute("ALTER TABLE items DETACH PARTITION old")
    with by_index(db):
        assert nearest(db, QUERIES[0]) == []
    assert_recall(db, QUERIES, 0.93, table="old")


def test_temporary_table(db):
    make_table(db, ROWS, kind="TEMP")
    make_index(db)
    assert_holds_exactly(db, QUERIES[0])
    assert_recall(db, QUERIES, 0.93)
    db.execute("DELETE FROM items WHERE id < 500")
    db.execute("VACUUM items")
    insert(db, ROWS[:100], first_id=5000)
    assert_holds_exactly(db, QUERIES[0])


def test_temporary_table_emptied_on_commit(db):
    db.execute("CREATE TEMP TABLE items (id int, label int, embedding vector(16)) ON COMMIT DELETE ROWS")
    make_index(db)
    for _ in range(2):
        with db.transaction():
            insert(db, ROWS[:300])
            assert_holds_exactly(db, QUERIES[0])
        with by_index(db):
            assert nearest(db, QUERIES[0]) == []


def test_unlogged_table(db):
    make_table(db, ROWS, kind="UNLOGGED")
    make_index(db)
    assert_holds_exactly(db, QUERIES[0])
    db.execute("ALTER TABLE items SET LOGGED")
    assert_holds_exactly(db, QUERIES[0])
    db.execute("ALTER TABLE items SET UNLOGGED")
    insert(db, ROWS, first_id=5000)
    assert_holds_exactly(db, QUERIES[0])


@pytest.mark.parametrize("statement", [
    "REINDEX INDEX items_embedding_idx", "REINDEX TABLE items", "REINDEX INDEX CONCURRENTLY items_embedding_idx",
    "REINDEX TABLE CONCURRENTLY items", "VACUUM FULL items", "CLUSTER items USING items_pkey",
    "ALTER TABLE items ALTER COLUMN embedding TYPE vector(16) USING embedding + embedding",
])
def test_rebuilt(db, statement):
    make_table(db, ROWS)
    make_index(db)
    db.execute("DELETE FROM items WHERE id % 3 = 0")
    insert(db, ROWS[:100], first_id=5000)
    db.execute(statement)
    assert_holds_exactly(db, QUERIES[0])
    assert_recall(db, QUERIES, 0.93)
    insert(db, ROWS[:50], first_id=6000)
    assert_holds_exactly(db, QUERIES[0])


def test_created_concurrently(db):
    make_table(db, ROWS)
    make_index(db, how="CONCURRENTLY")
    assert db.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'items_embedding_idx'::regclass").fetchone() == (True,)
    assert_holds_exactly(db, QUERIES[0])
    assert_recall(db, QUERIES, 0.93)


@pytest.mark.parametrize("statement", [
    "CREATE INDEX CONCURRENTLY items_embedding_idx ON items USING ivflsh (embedding vector_l2_ops)",
    "REINDEX INDEX CONCURRENTLY items_embedding_idx",
])
def test_concurrently_with_writers(db, database, statement):
    """Rows that come and go while the index is built: none missing, none twice."""
    make_table(db, ROWS)
    if "REINDEX" in statement:
        make_index(db)
    done = threading.Event()
    failures, written = [], []

    def write():
        try:
            connection = database.connect()
            i = 5000
            while i < 5200 or not done.is_set():
                connection.execute("INSERT INTO items VALUES (%s, 0, %b)", (i, Vector(ROWS[i % 2000])))
                connection.execute("UPDATE items SET embedding = embedding + embedding WHERE id = %s", (i - 5000,))
                connection.execute("DELETE FROM items WHERE id = %s", (i - 4000,))
                written.append(i)
                i += 1
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        db.execute(statement)
    finally:
        done.set()
        thread.join()
    assert not failures, failures
    assert written
    assert_holds_exactly(db, QUERIES[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_maintenance_workers(db, workers):
    make_table(db, ROWS)
    with settings(db, max_parallel_maintenance_workers=workers, maintenance_work_mem="64MB"):
        make_index(db)
    assert_holds_exactly(db, QUERIES[0])
    assert_recall(db, QUERIES, 0.93)


def test_little_memory_for_the_build(db):
    rows = clustered(4000, 128)
    make_table(db, rows)
    with settings(db, maintenance_work_mem="1MB"):
        make_index(db)
    assert_holds_exactly(db, rows[0])
    assert_recall(db, clustered(10, 128, seed=2), 0.9)


def test_partial_index(db):
    make_table(db, ROWS)
    db.execute("CREATE INDEX items_embedding_idx ON items USING ivflsh (embedding vector_l2_ops) WHERE label = 4")
    with by_index(db):
        assert uses_index(db, "SELECT id FROM items WHERE label = 4 ORDER BY embedding <-> %b LIMIT 5", (Vector(ROWS[4]),))
        assert nearest(db, ROWS[4], 1, where="WHERE label = 4") == [(4, 0.0)]
    assert not uses_index(db, "SELECT id FROM items ORDER BY embedding <-> %b LIMIT 5", (Vector(ROWS[4]),))


def test_index_on_an_expression(db):
    make_table(db, ROWS)
    db.execute("CREATE INDEX items_embedding_idx ON items USING ivflsh ((embedding::halfvec(16)) halfvec_cosine_ops)")
    statement = "SELECT id FROM items ORDER BY embedding::halfvec(16) <=> %b LIMIT 5"
    query = as_type(ROWS[11], "halfvec")
    with by_index(db):
        assert uses_index(db, statement, (query,))
        assert db.execute(statement, (query,)).fetchone() == (11,)


def test_several_indexes_on_one_column(db):
    make_table(db, ROWS)
    db.execute("CREATE INDEX items_l2 ON items USING ivflsh (embedding vector_l2_ops)")
    db.execute("CREATE INDEX items_cosine ON items USING ivflsh (embedding vector_cosine_ops)")
    with by_index(db):
        for metric, index in ((L2, "items_l2"), (COSINE, "items_cosine")):
            assert uses_index(db, f"SELECT id FROM items ORDER BY embedding {metric.operator} %b LIMIT 5",
                              (Vector(ROWS[0]),), index)
    assert_recall(db, QUERIES, 0.93)
    assert_recall(db, QUERIES, 0.93, metric=COSINE)


def test_dropped(db):
    make_table(db, ROWS)
    make_index(db)
    db.execute("DROP INDEX items_embedding_idx")
    assert len(nearest(db, QUERIES[0])) == 10
    make_index(db)
    db.execute("ALTER TABLE items DROP COLUMN embedding")
    assert db.execute("SELECT count(*) FROM pg_class WHERE relname = 'items_embedding_idx'").fetchone() == (0,)


def test_dumped_and_restored(db, database, cluster):
    make_table(db, ROWS)
    make_index(db, options="WITH (lists = 20)")
    dump = cluster.dump(database.name)
    db.execute("DROP TABLE items; DROP EXTENSION vector_ext")
    cluster.psql(dump, database.name)
    again = database.connect()
    assert "lists='20'" in again.execute("SELECT pg_get_indexdef('items_embedding_idx'::regclass)").fetchone()[0]
    assert_holds_exactly(again, QUERIES[0])
    assert_recall(again, QUERIES, 0.93)


def test_operator_classes_are_valid(db):
    rows = db.execute("""SELECT opcname, amvalidate(c.oid) FROM pg_opclass c JOIN pg_am a ON a.oid = opcmethod
                         WHERE amname = 'ivflsh'""").fetchall()
    assert {f"{type_name}_{metric}_ops" for type_name in ("vector", "halfvec") for metric in ("l2", "ip", "cosine")} <= \
        {name for name, _ in rows}
    assert all(valid for _, valid in rows)


# What is refused

def test_column_without_dimensions(db, refused):
    db.execute("CREATE TABLE items (id int, embedding vector)")
    refused(db, "22023", "column does not have dimensions", "CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops)")
    db.execute("INSERT INTO items VALUES (1, '[1,2]')")
    refused(db, "22023", "column does not have dimensions", "CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops)")


@pytest.mark.parametrize("option, message", [
    ("nonsense = 1", 'unrecognized parameter "nonsense"'),
    ("lists = -1", 'value -1 out of bounds for option "lists"'),
    ("lists = 1000000000", 'value 1000000000 out of bounds for option "lists"'),
    ("lists = many", 'invalid value for integer option "lists": many'),
])
def test_options(db, refused, option, message):
    make_table(db, ROWS[:100])
    refused(db, "22023", message, f"CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops) WITH ({option})")
    make_index(db)
    refused(db, "22023", message, f"ALTER INDEX items_embedding_idx SET ({option})")


@pytest.mark.parametrize("name, values", [
    ("ivflsh.probes", ["-1", "many", "1e99"]),
    ("ivflsh.target_recall", ["-0.1", "1.5", "high"]),
    ("ivflsh.iterative_scan", ["nonsense"]),
])
def test_setting_out_of_range(db, refused, name, values):
    db.execute("SELECT '[1]'::vector")  # loads the library, which knows the settings
    for value in values:
        refused(db, "22023", name, f"SET {name} = '{value}'")
    default = db.execute(f"SHOW {name}").fetchone()[0]
    assert default == {"ivflsh.probes": "0", "ivflsh.target_recall": "0.95", "ivflsh.iterative_scan": "strict_order"}[name]


@pytest.mark.parametrize("count", [0, 500])
def test_query_of_other_dimensions(db, refused, count):
    """Refused before any page is read: also when there is nothing to compare with."""
    make_table(db, ROWS[:count], dimensions=16)
    make_index(db)
    with by_index(db):
        refused(db, "22000", "different vector dimensions 3 and 16",
                "SELECT id FROM items ORDER BY embedding <-> '[1,2,3]' LIMIT 5")
        refused(db, "22000", "different vector dimensions 3 and 16",
                "SELECT id FROM items ORDER BY embedding <-> %b LIMIT 5", (Vector([1, 2, 3]),))


def test_row_of_other_dimensions(db, refused):
    make_table(db, ROWS[:10])
    make_index(db)
    refused(db, "22000", "expected 16 dimensions, not 3", "INSERT INTO items VALUES (99, 0, '[1,2,3]')")
    assert_holds_exactly(db, QUERIES[0])


@pytest.mark.parametrize("definition, sqlstate, message", [
    ("CREATE UNIQUE INDEX ON items USING ivflsh (embedding vector_l2_ops)", "0A000", "does not support unique indexes"),
    ("CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops DESC)", "0A000", "does not support ASC/DESC options"),
    ("CREATE INDEX ON items USING ivflsh (embedding vector_nonsense_ops)", "42704", "does not exist for access method"),
    ("CREATE INDEX ON items USING ivflsh (embedding halfvec_l2_ops)", "42804", "does not accept data type vector"),
])
def test_definitions_refused(db, refused, definition, sqlstate, message):
    make_table(db, ROWS[:10])
    refused(db, sqlstate, message, definition)


def test_failed_build_leaves_nothing(db, refused):
    db.execute("CREATE TABLE items (id int, label int, embedding real[])")
    db.execute("INSERT INTO items SELECT i, 0, ARRAY[1, 2, i] FROM generate_series(1, 100) i; INSERT INTO items VALUES (0, 0, ARRAY[1])")
    statement = "CREATE INDEX items_embedding_idx ON items USING ivflsh ((embedding::vector(3)) vector_l2_ops)"
    refused(db, "22000", "expected 3 dimensions, not 1", statement)
    db.execute("DELETE FROM items WHERE id = 0")
    db.execute("VACUUM items")
    db.execute(statement)
    with by_index(db):
        assert db.execute("SELECT id FROM items ORDER BY embedding::vector(3) <-> '[1,2,42]' LIMIT 1").fetchone() == (42,)


# The extension itself

def test_extension_needs_no_superuser(database, db):
    db.execute("DROP EXTENSION vector_ext")
    db.execute("DROP ROLE IF EXISTS someone; CREATE ROLE someone")
    db.execute(f"GRANT CREATE ON DATABASE {database.name} TO someone; GRANT CREATE ON SCHEMA public TO someone")
    try:
        db.execute("SET ROLE someone")
        db.execute("CREATE EXTENSION vector_ext")
        db.execute("CREATE TABLE mine (embedding vector(3)); CREATE INDEX ON mine USING ivflsh (embedding vector_l2_ops)")
        db.execute("INSERT INTO mine VALUES ('[1,2,3]')")
        with by_index(db):
            assert db.execute("SELECT count(*) FROM (SELECT 1 FROM mine ORDER BY embedding <-> '[1,1,1]' LIMIT 5) s").fetchone() == (1,)
    finally:
        db.execute("RESET ROLE; DROP OWNED BY someone CASCADE; DROP ROLE someone")


def test_extension_in_another_schema(db):
    db.execute("DROP EXTENSION vector_ext; CREATE SCHEMA one; CREATE SCHEMA two; CREATE EXTENSION vector_ext SCHEMA one")
    db.execute("CREATE TABLE items (id int, label int, embedding one.vector(3))")
    db.execute("CREATE INDEX items_embedding_idx ON items USING ivflsh (embedding one.vector_l2_ops)")
    db.execute("INSERT INTO items SELECT i, 0, ARRAY[1, 2, i]::real[] FROM generate_series(1, 100) i")
    for schema in ("one", "two"):
        db.execute(f"ALTER EXTENSION vector_ext SET SCHEMA {schema}")
        with by_index(db):
            statement = f"SELECT id FROM items ORDER BY embedding OPERATOR({schema}.<->) '[1,2,42]' LIMIT 1"
            assert uses_index(db, statement)
            assert db.execute(statement).fetchone() == (42,)


def test_extension_dropped_with_all_it_made(db):
    make_table(db, ROWS[:50])
    make_index(db)
    db.execute("DROP EXTENSION vector_ext CASCADE")
    assert db.execute("SELECT count(*) FROM pg_am WHERE amname = 'ivflsh'").fetchone() == (0,)
    assert db.execute("SELECT count(*) FROM items").fetchone() == (50,)
    db.execute("CREATE EXTENSION vector_ext")


def test_exact_search_is_always_there(db):
    make_table(db, ROWS)
    make_index(db)
    with exactly(db):
        for query in QUERIES:
            assert nearest(db, query, 1)[0][0] == np.argmin(L2.distances(ROWS, query))
