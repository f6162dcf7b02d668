"""Rows that come, go and change, in transactions and beside each other: the index follows."""

import threading

import numpy as np
import pytest
from pgvector import Vector

from harness.search import (COSINE, METRICS, assert_alike, assert_holds_exactly, assert_in_order, assert_recall, by_index, clustered,
                            insert, make_index, make_table, nearest, settings)

ROWS = clustered(3000, 24)
QUERIES = clustered(20, 24, seed=2)


def found(connection, query, limit=10, **how):
    with by_index(connection):
        return [id for id, _ in nearest(connection, query, limit, **how)]


def closest(connection, query, **how):
    """The nearest row's id, all lists read: for what the index holds, where recall is not the question."""
    with settings(connection, ivflsh__probes=32768):
        return found(connection, query, 1, **how)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_inserts_into_an_index_on_an_empty_table(db, metric):
    make_table(db, [], dimensions=24)
    make_index(db, metric)
    insert(db, ROWS)
    db.execute("ANALYZE items")
    assert_holds_exactly(db, QUERIES[0], metric=metric)
    assert_recall(db, QUERIES, 0.93, metric=metric)


def test_inserts_into_a_built_index(db):
    make_table(db, ROWS[:1500])
    make_index(db)
    insert(db, ROWS[1500:], first_id=1500)
    assert_holds_exactly(db, QUERIES[0])
    assert_recall(db, QUERIES, 0.93)


def test_inserts_unlike_what_the_index_was_built_on(db):
    """All that came later lies where nothing was: still found, and the old rows too."""
    make_table(db, ROWS[:1000])
    make_index(db)
    insert(db, ROWS[1000:] + 100, first_id=1000)
    assert_holds_exactly(db, QUERIES[0])
    assert_recall(db, QUERIES[:10] + 100, 0.9)
    assert_recall(db, QUERIES[:10], 0.9)


def test_single_row_inserts(db):
    make_table(db, [], dimensions=24)
    make_index(db)
    for i in range(300):
        db.execute("INSERT INTO items VALUES (%s, %s, %b)", (i, i % 10, Vector(ROWS[i])))
        assert closest(db, ROWS[i]) == [i]
    assert_holds_exactly(db, QUERIES[0])


def test_insert_select_update_delete_in_sql(db):
    make_table(db, ROWS[:1000])
    make_index(db)
    db.execute("INSERT INTO items SELECT id + 1000, label, embedding FROM items")
    assert_holds_exactly(db, QUERIES[0])
    db.execute("DELETE FROM items WHERE id < 1000")
    assert_holds_exactly(db, QUERIES[0])
    db.execute("UPDATE items SET embedding = embedding + embedding")
    assert_holds_exactly(db, QUERIES[0])
    assert closest(db, ROWS[5] * 2) == [1005]


def test_delete_then_vacuum(db):
    make_table(db, ROWS)
    make_index(db)
    db.execute("DELETE FROM items WHERE id % 3 = 0")
    for step in ("", "VACUUM items", "VACUUM (INDEX_CLEANUP ON, FREEZE) items"):
        if step:
            db.execute(step)
        assert_holds_exactly(db, QUERIES[0])
        assert all(id % 3 for query in QUERIES for id in found(db, query))
    assert_recall(db, QUERIES, 0.93)


def test_places_used_again(db):
    """Vacuum frees the places of dead rows in the table; new rows take them: the index must not mix them up."""
    make_table(db, ROWS)
    make_index(db)
    for turn in range(4):
        db.execute("DELETE FROM items WHERE id %% 4 = %s", (turn,))
        db.execute("VACUUM items")
        gone = [i for i in range(len(ROWS)) if i % 4 == turn]
        moved = ROWS[gone] + 50 + turn
        with db.cursor().copy("COPY items FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int4", "int4", "vector"])
            for i, row in zip(gone, moved):
                copy.write_row((i, i % 10, Vector(row)))
        assert_holds_exactly(db, QUERIES[0])
        for i in range(0, len(gone), 100):
            assert closest(db, moved[i]) == [gone[i]]
    assert_recall(db, QUERIES, 0.85)


def test_all_rows_deleted(db):
    make_table(db, ROWS)
    make_index(db)
    db.execute("DELETE FROM items")
    assert found(db, QUERIES[0]) == []
    db.execute("VACUUM items")
    assert found(db, QUERIES[0]) == []
    insert(db, ROWS)
    assert_holds_exactly(db, QUERIES[0])
    assert_recall(db, QUERIES, 0.9)


def test_index_does_not_grow_without_end(db):
    """Rows that come and go leave no more behind than a few times their own space."""
    make_table(db, ROWS)
    make_index(db)
    sizes = []
    for _ in range(6):
        db.execute("DELETE FROM items")
        db.execute("VACUUM items")
        insert(db, ROWS)
        sizes.append(db.execute("SELECT pg_relation_size('items_embedding_idx')").fetchone()[0])
    assert sizes[-1] <= 1.5 * sizes[1], sizes


def test_update_of_the_vector(db):
    make_table(db, ROWS)
    make_index(db)
    db.execute("UPDATE items SET embedding = %b WHERE id = 7", (Vector(ROWS[7] + 30),))
    assert closest(db, ROWS[7] + 30) == [7]
    assert 7 not in found(db, ROWS[7], 50)
    db.execute("VACUUM items")
    assert closest(db, ROWS[7] + 30) == [7]
    assert_holds_exactly(db, QUERIES[0])


def test_update_of_another_column(db):
    make_table(db, ROWS)
    make_index(db)
    for _ in range(5):
        db.execute("UPDATE items SET label = label + 1 WHERE id < 500")
        assert_holds_exactly(db, QUERIES[0])
        db.execute("VACUUM items")
    assert_holds_exactly(db, QUERIES[0])
    assert closest(db, ROWS[3]) == [3]


def test_update_to_and_from_null(db):
    make_table(db, ROWS[:500])
    make_index(db)
    db.execute("UPDATE items SET embedding = NULL WHERE id < 250")
    assert_holds_exactly(db, QUERIES[0])
    db.execute("UPDATE items SET embedding = %b WHERE id = 3", (Vector(ROWS[3]),))
    assert closest(db, ROWS[3]) == [3]
    assert_holds_exactly(db, QUERIES[0])


def test_upsert(db):
    make_table(db, ROWS[:500])
    make_index(db)
    for i in (3, 1003):
        db.execute("""INSERT INTO items VALUES (%s, 0, %b)
                      ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding""", (i, Vector(ROWS[i] + 30)))
        assert closest(db, ROWS[i] + 30) == [i]
    assert_holds_exactly(db, QUERIES[0])


def test_inserted_zero_and_null_vectors_under_cosine(db):
    make_table(db, ROWS[:500])
    make_index(db, COSINE)
    insert(db, [None, np.zeros(24), ROWS[502]], first_id=500)
    assert_holds_exactly(db, QUERIES[0], metric=COSINE, where="vector_norm(embedding) > 0")
    assert closest(db, ROWS[502], metric=COSINE) == [502]


def test_rolled_back(db, database):
    make_table(db, ROWS[:1000])
    make_index(db)
    before = [found(db, query) for query in QUERIES]
    other = database.connect(autocommit=False)
    insert(other, QUERIES, first_id=1000)
    other.execute("DELETE FROM items WHERE id < 500")
    other.execute("UPDATE items SET embedding = %b WHERE id = 900", (Vector(QUERIES[0]),))
    assert closest(other, QUERIES[1]) == [1001]
    others = [found(db, query) for query in QUERIES]
    assert max(map(max, others)) < 1000, "others do not see what is not committed"
    assert_alike(before, others)
    other.rollback()
    assert_alike(before, [found(db, query) for query in QUERIES])
    db.execute("VACUUM items")
    assert_alike(before, [found(db, query) for query in QUERIES])
    assert_holds_exactly(db, QUERIES[0])


def test_savepoints(database):
    db = database.connect(autocommit=False)
    make_table(db, ROWS[:500])
    make_index(db)
    db.execute("SAVEPOINT one")
    insert(db, ROWS[500:600], first_id=500)
    db.execute("SAVEPOINT two")
    insert(db, ROWS[600:700], first_id=600)
    assert closest(db, ROWS[650]) == [650]
    db.execute("ROLLBACK TO two")
    assert closest(db, ROWS[650]) != [650]
    assert closest(db, ROWS[550]) == [550]
    db.execute("RELEASE one")
    db.commit()
    assert closest(db, ROWS[550]) == [550]
    assert_holds_exactly(db, QUERIES[0])


def test_index_rolled_back(database, db):
    make_table(db, ROWS[:500])
    other = database.connect(autocommit=False)
    make_index(other)
    other.rollback()
    make_index(db)
    assert_holds_exactly(db, QUERIES[0])


def test_a_snapshot_keeps_its_view(db, database):
    make_table(db, ROWS[:1000])
    make_index(db)
    other = database.connect(autocommit=False)
    other.execute("SET default_transaction_isolation = 'repeatable read'")
    other.execute("SET ivflsh.probes = 1000000")  # exactly: lists split meanwhile
    other.commit()
    before = found(other, QUERIES[0], 50)
    db.execute("DELETE FROM items WHERE id % 2 = 0")
    insert(db, np.repeat(QUERIES[:1], 100, axis=0), first_id=1000)
    db.execute("VACUUM items")
    assert found(other, QUERIES[0], 50) == before
    other.commit()
    assert set(found(other, QUERIES[0], 50)) <= set(range(1000, 1100))


def test_truncate(db):
    make_table(db, ROWS[:1000])
    make_index(db)
    db.execute("TRUNCATE items")
    assert found(db, QUERIES[0]) == []
    insert(db, ROWS)
    assert_holds_exactly(db, QUERIES[0])
    assert_recall(db, QUERIES, 0.9)


def test_writers_scanners_and_vacuum_beside_each_other(db, database):
    """Scans in order and without duplicates while others write; in the end exactly the rows that should be there."""
    make_table(db, ROWS[:600])
    make_index(db)
    failures = []

    def run(work):
        def guarded():
            try:
                work(database.connect())
            except BaseException as error:
                failures.append(error)
        return threading.Thread(target=guarded)

    def insert_some(part):
        def work(connection):
            for i in range(600 + part, 2400, 3):
                connection.execute("INSERT INTO items VALUES (%s, 0, %b)", (i, Vector(ROWS[i])))
        return work

    def delete_some(connection):
        for i in range(0, 600, 2):
            connection.execute("DELETE FROM items WHERE id = %s", (i,))
            if i % 100 == 0:
                connection.execute("VACUUM items")

    def update_some(connection):
        for i in range(1, 600, 2):
            connection.execute("UPDATE items SET embedding = %b WHERE id = %s", (Vector(ROWS[i + 2400]), i))

    def scan(connection):
        scans = 0
        with by_index(connection):
            while scans < 50 or any(writer.is_alive() for writer in writers):
                rows = nearest(connection, QUERIES[scans % len(QUERIES)], 100)
                assert len(rows) == 100
                assert_in_order(rows)
                scans += 1

    writers = [run(work) for work in (*map(insert_some, range(3)), delete_some, update_some)]
    scanners = [run(scan), run(scan)]
    for thread in writers + scanners:
        thread.start()
    for thread in writers + scanners:
        thread.join()
    assert not failures, failures
    assert db.execute("SELECT count(*) FROM items").fetchone() == (2100,)
    db.execute("VACUUM items")
    assert_holds_exactly(db, QUERIES[0])
    assert_recall(db, QUERIES, 0.9)
