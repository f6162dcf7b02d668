"""The option `bits`: how much of a row the index keeps changes its size, never what a search returns."""

import numpy as np
import pytest
from pgvector import Vector

from harness.search import (COSINE, IP, L2, METRICS, as_type, assert_holds_exactly, assert_in_order, assert_recall, by_index,
                            clustered, insert, make_index, make_table, nearest, settings, uses_index)

BITS = (0, 4, 8)
QUERIES = clustered(40, 48, seed=2)
size = "SELECT pg_relation_size('items_embedding_idx')"


@pytest.fixture(params=BITS, ids=lambda bits: f"bits{bits}")
def options(request):
    return f"WITH (bits = {request.param})"


@pytest.mark.parametrize("type_name", ["vector", "halfvec"])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_recall_and_order(db, metric, type_name, options):
    make_table(db, clustered(5000, 48), type_name=type_name)
    make_index(db, metric, type_name=type_name, options=options)
    assert_recall(db, QUERIES, 0.93, metric=metric, type_name=type_name)
    assert_recall(db, QUERIES[:8], 0.93, limit=100, metric=metric, type_name=type_name)
    assert_holds_exactly(db, QUERIES[0], metric=metric, type_name=type_name)


def test_sizes(db):
    """Bytes an entry: sketch, code and factors, less than a third more for page headers and rounding."""
    make_table(db, clustered(6000, 256))
    for bits in BITS:
        make_index(db, options=f"WITH (bits = {bits})")
        [(bytes,)] = db.execute(size)
        assert 256 * (2 + bits) / 8 < bytes / 6000 < 1.3 * (256 * (2 + bits) / 8 + 32), bits
        assert db.execute("SELECT ivflsh_stats('items_embedding_idx')->'bits'").fetchone() == (bits,)
        db.execute("DROP INDEX items_embedding_idx")


def test_changed_by_reindex(db):
    make_table(db, clustered(3000, 64))
    make_index(db)
    before = db.execute(size).fetchone()[0]
    db.execute("ALTER INDEX items_embedding_idx SET (bits = 0)")
    assert_holds_exactly(db, QUERIES[0][:1].repeat(64))
    assert db.execute(size).fetchone()[0] == before
    db.execute("REINDEX INDEX items_embedding_idx")
    assert db.execute(size).fetchone()[0] < 0.5 * before
    assert_holds_exactly(db, QUERIES[0][:1].repeat(64))


@pytest.mark.parametrize("option", ["bits = 5", "bits = -1", "bits = many", "bits = 16"])
def test_other_bits(db, refused, option):
    make_table(db, clustered(10, 8))
    message = f'invalid value for enum option "bits": {option[7:]}'
    refused(db, "22023", message, f"CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops) WITH ({option})")


def test_changes(db, options):
    """Rows that come, go, move and come back into their places in table and index."""
    rows = clustered(3000, 48)
    make_table(db, rows[:1500])
    make_index(db, options=options)
    insert(db, rows[1500:], first_id=1500)
    assert_holds_exactly(db, QUERIES[0])
    assert_recall(db, QUERIES, 0.9)
    for turn in range(3):
        db.execute("DELETE FROM items WHERE id %% 4 = %s", (turn,))
        assert_holds_exactly(db, QUERIES[0])
        db.execute("VACUUM items")
        gone = [i for i in range(3000) if i % 4 == turn]
        for i in gone[::100]:
            db.execute("INSERT INTO items VALUES (%s, 0, %b)", (i, Vector(rows[i] + 9)))
        assert_holds_exactly(db, QUERIES[0])
        with by_index(db):
            for i in gone[::100]:
                assert nearest(db, rows[i] + 9, 1)[0][0] == i
    db.execute("UPDATE items SET embedding = embedding + embedding")
    assert_holds_exactly(db, QUERIES[0])


def test_empty_and_tiny(db, options):
    make_table(db, [], dimensions=48)
    make_index(db, options=options)
    with by_index(db):
        assert nearest(db, QUERIES[0]) == []
    insert(db, clustered(100, 48))
    assert_holds_exactly(db, QUERIES[0])
    with by_index(db):
        assert_in_order(nearest(db, QUERIES[0], 100))


@pytest.mark.parametrize("dimensions, count", [(1, 500), (3, 800), (1030, 300), (2000, 250), (9000, 80), (16000, 60)])
def test_dimensions(db, dimensions, count, options):
    rows = clustered(count, dimensions, clusters=8)
    make_table(db, rows)
    make_index(db, options=options)
    assert_recall(db, clustered(8, dimensions, seed=2, clusters=8), 0.9)
    insert(db, rows[:70] + 1, first_id=count)
    db.execute("DELETE FROM items WHERE id < 40")
    db.execute("VACUUM items")
    insert(db, rows[:40] + 2, first_id=5000)
    assert_holds_exactly(db, rows[0])


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_extreme_values(db, metric, options):
    rows = clustered(600, 16)
    rows[:200] *= 1e15
    rows[200:400] *= 1e-15
    make_table(db, rows)
    make_index(db, metric, options=options)
    assert_holds_exactly(db, rows[0], metric=metric)
    with by_index(db):
        for query in rows[::60]:
            assert_in_order(nearest(db, query, 10, metric=metric))


def test_duplicates(db, options):
    rows = clustered(300, 8)
    make_table(db, np.concatenate([rows, np.repeat(rows[:1], 900, axis=0)]))
    make_index(db, options=options)
    with by_index(db):
        found = nearest(db, rows[0], 700)
    assert len(found) == 700 and all(distance == 0 for _, distance in found)
    assert_holds_exactly(db, rows[0])


def test_queries_without_a_place(db, options):
    rows = clustered(300, 8)
    rows[::3] = 0
    make_table(db, rows)
    make_index(db, COSINE, options=options)
    with by_index(db):
        assert all(np.isnan(distance) for _, distance in nearest(db, np.zeros(8), 10, metric=COSINE))
        assert all(id % 3 for id, _ in nearest(db, rows[1], 100, metric=COSINE))
        db.execute("PREPARE find(vector) AS SELECT id FROM items ORDER BY embedding <=> $1 LIMIT 5")
        with settings(db, plan_cache_mode="force_generic_plan"):
            assert len(db.execute("EXECUTE find(NULL)").fetchall()) == 5


def test_expression(db, options):
    """Without codes the scan itself has to compute the expression."""
    rows = clustered(2000, 16)
    make_table(db, rows)
    db.execute(f"CREATE INDEX ON items USING ivflsh ((embedding::halfvec(16)) halfvec_cosine_ops) {options}")
    statement = "SELECT id FROM items ORDER BY embedding::halfvec(16) <=> %b LIMIT 5"
    with by_index(db):
        for i in range(0, 2000, 100):
            query = as_type(rows[i], "halfvec")
            assert uses_index(db, statement, (query,), "items_embedding_idx")
            assert db.execute(statement, (query,)).fetchone() == (i,)


def test_filter_and_cursor(db, options):
    make_table(db, clustered(5000, 48))
    make_index(db, IP, options=options)
    with by_index(db, enable_bitmapscan="off"):
        for query in QUERIES[:10]:
            rows = nearest(db, query, where="WHERE label = 3", metric=IP)
            assert len(rows) == 10 and all(id % 10 == 3 for id, _ in rows)
            assert_in_order(rows)
        with db.transaction():
            db.execute("DECLARE c CURSOR FOR SELECT id, embedding <#> %b FROM items ORDER BY 2", (Vector(QUERIES[0]),))
            found = []
            while part := db.execute("FETCH 77 FROM c").fetchall():
                found += part
                if len(found) < 200:
                    db.execute("DELETE FROM items WHERE id = %s", (found[-1][0],))
            # All of its snapshot's rows; those that turned up late come at the end.
            assert {id for id, _ in found} == set(range(5000)) and len(found) == 5000
            distances = [distance for _, distance in found]
            late = next((i for i in range(1, 5000) if distances[i] < distances[i - 1]), 5000)
            assert late > 4500, f"only {late} rows are in order"


def test_rows_of_other_transactions(db, database, options):
    """A scan sees its snapshot's rows, also when it reads them itself: not those of others, yet those deleted since."""
    rows = clustered(2000, 48)
    make_table(db, rows)
    make_index(db, options=options)
    other = database.connect()
    with by_index(other):
        with other.transaction():
            other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            before = nearest(other, QUERIES[0], 50)
            db.execute("DELETE FROM items WHERE id = ANY(%s)", ([id for id, _ in before[:25]],))
            insert(db, QUERIES[:1], first_id=9000)
            assert nearest(other, QUERIES[0], 50) == before
        after = nearest(other, QUERIES[0], 26)
    assert after[0] == (9000, 0.0)
    assert after[1][1] >= before[24][1]


def test_recall_function(db, options):
    make_table(db, clustered(3000, 48))
    make_index(db, L2, options=options)
    assert db.execute("SELECT ivflsh_recall('items_embedding_idx', 50, 10)").fetchone()[0] > 0.9
