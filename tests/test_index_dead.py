"""Entries of dead rows are marked by the searches that meet them: the next ones leave them out, until VACUUM removes them."""

import numpy as np
import psycopg
import pytest
from pgvector import Vector

from harness.search import (assert_holds_exactly, assert_recall, by_index, clustered, insert, make_index, make_table, nearest,
                            settings)

ROWS = clustered(3000, 16, clusters=12)
QUERIES = clustered(10, 16, seed=2, clusters=12)
# A plain index scan; and a vector scan, which looks at rows itself.
PLAIN, FILTERED = "", "WHERE label < 8"


def buffers(connection, where, query):
    """Buffers that a search touches, and what it returns."""
    statement = f"SELECT id FROM items {where} ORDER BY embedding <-> %b LIMIT 10"
    with by_index(connection):
        shown = connection.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, (Vector(query),)).fetchone()[0]
        found = [id for id, in connection.execute(statement, (Vector(query),))]
    plan = shown[0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], found


def check(connection):
    cursor = connection.execute("SELECT entries, rows FROM ivflsh_check('items_embedding_idx')")
    return cursor.fetchone()


@pytest.mark.parametrize("bits", [8, 4, 0])
@pytest.mark.parametrize("where", [PLAIN, FILTERED], ids=["plain", "filtered"])
def test_dead_rows_are_looked_at_once(db, bits, where):
    make_table(db, [], dimensions=16)
    # A table so large that a vector scan does not read all of it instead.
    db.execute("ALTER TABLE items ADD filler text DEFAULT repeat('x', 2000), ALTER filler SET STORAGE PLAIN")
    make_index(db, options=f"WITH (bits = {bits})")
    insert(db, ROWS)
    query = ROWS[0]
    near = [id for id, _ in nearest(db, query, 400)]
    db.execute("DELETE FROM items WHERE id = ANY(%s)", (near,))
    first, found = buffers(db, where, query)
    for _ in range(3):  # each looks a little farther
        buffers(db, where, query)
    last, again = buffers(db, where, query)
    assert last < first / 2, (first, last)
    assert len(again) == 10 and not set(near) & set(again)
    assert check(db) == (len(ROWS), len(ROWS) - len(near))
    assert_holds_exactly(db, query)
    assert_recall(db, QUERIES, 0.9)
    # Their places are taken by others, which are not dead.
    db.execute("VACUUM items")
    insert(db, ROWS[near], first_id=10_000)
    assert check(db) == (len(ROWS), len(ROWS))
    assert_holds_exactly(db, query)
    with by_index(db):
        assert {id for id, _ in nearest(db, query, 400)} >= set(range(10_000, 10_400))


def test_a_row_that_somebody_sees_is_not_marked(database):
    db, reader = database.connect(), database.connect(autocommit=False)
    make_table(db, ROWS)
    make_index(db)
    reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    reader.execute("SELECT count(*) FROM items")
    db.execute("DELETE FROM items WHERE id % 2 = 0")
    for where in (PLAIN, FILTERED):
        for query in QUERIES:
            buffers(db, where, query)
    assert_holds_exactly(reader, QUERIES[0])
    with by_index(reader, ivflsh__iterative_scan="relaxed_order"):
        assert sorted(id for id, _ in nearest(reader, QUERIES[0], None)) == list(range(len(ROWS)))
    reader.rollback()


def test_rows_of_unfinished_and_rolled_back_transactions(database):
    """A row is dead for good when its transaction was rolled back, not while it is under way."""
    db, writer = database.connect(), database.connect(autocommit=False)
    make_table(db, ROWS[:1000])
    make_index(db)
    insert(writer, np.tile(ROWS[0], (50, 1)), first_id=5000)
    for where in (PLAIN, FILTERED):
        assert not set(buffers(db, where, ROWS[0])[1]) & set(range(5000, 5050))
    writer.commit()
    with by_index(db):
        assert len([id for id, _ in nearest(db, ROWS[0], 51) if id >= 5000]) >= 50
    insert(writer, np.tile(ROWS[1], (50, 1)), first_id=6000)
    writer.rollback()
    for where in (PLAIN, FILTERED):
        assert not set(buffers(db, where, ROWS[1])[1]) & set(range(6000, 6050))
    assert check(db)[1] == 1050
    assert_holds_exactly(db, ROWS[1])


def test_updated_rows_are_found(db):
    """Dead versions beside live ones of the same row, also in one chain of versions on a page."""
    make_table(db, ROWS[:1000])
    make_index(db)
    for _ in range(6):
        db.execute("UPDATE items SET label = (label + 1) % 10")
        for where in (PLAIN, FILTERED):
            for query in QUERIES[:3]:
                assert len(buffers(db, where, query)[1]) == 10
    assert check(db)[1] == 1000
    for query in QUERIES:
        assert_holds_exactly(db, query)


def test_no_marks_where_pages_are_compared_after_replay(db):
    """`wal_consistency_checking` takes a difference for damage."""
    make_table(db, ROWS)
    make_index(db)
    near = [id for id, _ in nearest(db, ROWS[0], 500)]
    db.execute("DELETE FROM items WHERE id = ANY(%s)", (near,))
    with settings(db, wal_consistency_checking="generic"):
        first, _ = buffers(db, PLAIN, ROWS[0])
        assert buffers(db, PLAIN, ROWS[0])[0] == pytest.approx(first, rel=0.2)


def test_temporary_tables(db):
    """Their pages are the backend's own: a file of the same number may be another one's."""
    make_table(db, ROWS, kind="TEMPORARY")
    make_index(db)
    db.execute("DELETE FROM items WHERE id % 3 = 0")
    for query in QUERIES:
        buffers(db, PLAIN, query)
    assert_holds_exactly(db, QUERIES[0])
    db.execute("VACUUM items")
    insert(db, ROWS[::3], first_id=10_000)
    assert_holds_exactly(db, QUERIES[0])
