"""VACUUM keeps an index in shape: what was deleted leaves no small lists, no pages, and no trace in later searches."""

import pytest
from pgvector import Vector

from harness.search import (COSINE, METRICS, assert_holds_exactly, assert_recall, by_index, clustered, insert, make_index,
                            make_table, nearest)

ROWS = clustered(8000, 16, clusters=120)
OTHERS = clustered(8000, 16, seed=5, clusters=120)
QUERIES = clustered(20, 16, seed=2, clusters=120)


def stats(connection, index="items_embedding_idx"):
    return connection.execute("SELECT ivflsh_stats(%s::regclass)", (index,)).fetchone()[0]


def check(connection, index="items_embedding_idx"):
    cursor = connection.execute("SELECT * FROM ivflsh_check(%s)", (index,))
    found = dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))
    assert found["leaked_pages"] == 0
    return found


def filled(connection, grown, metric=METRICS[0]):
    """A table of ROWS, with an index that was built after or before they came."""
    make_table(connection, [] if grown else ROWS, dimensions=16)
    make_index(connection, metric)
    if grown:
        insert(connection, ROWS)


@pytest.mark.parametrize("metric", [METRICS[0], COSINE], ids=lambda metric: metric.name)
@pytest.mark.parametrize("grown", [True, False], ids=["grown", "built"])
def test_lists_that_became_small_are_merged(db, grown, metric):
    filled(db, grown, metric)
    before = stats(db)
    db.execute("DELETE FROM items WHERE id % 10 <> 0")
    db.execute("VACUUM items")
    after = stats(db)
    assert after["lists"] < before["lists"] / 4
    assert after["merges"] == before["lists"] - after["lists"] + after["splits"] - before["splits"]
    assert after["rows"]["live"] == len(ROWS) // 10
    assert after["pages"]["free"] > before["pages"]["lists"] / 4
    check(db)
    assert_holds_exactly(db, QUERIES[0], metric=metric)
    assert_recall(db, QUERIES, 0.93, metric=metric)


def test_freed_pages_are_used_again(db):
    filled(db, grown=True)
    size = stats(db)["bytes"]
    for round in range(4):
        db.execute("DELETE FROM items WHERE id %% 8 <> %s", (round,))
        db.execute("VACUUM items")
        insert(db, OTHERS[:7000] if round % 2 else ROWS[:7000], first_id=(round + 1) * 100_000)
    assert stats(db)["bytes"] < 1.3 * size
    check(db)
    assert_recall(db, QUERIES, 0.93)


def test_all_rows_deleted_and_others_inserted(db):
    filled(db, grown=True)
    db.execute("DELETE FROM items")
    db.execute("VACUUM items")
    empty = stats(db)
    assert (empty["lists"], empty["rows"]["live"]) == (1, 0)
    check(db)
    with by_index(db):
        assert nearest(db, QUERIES[0], 10) == []
    insert(db, OTHERS + 50)
    assert stats(db)["lists"] > 50
    check(db)
    queries = clustered(200, 16, seed=6, clusters=120) + 50
    assert_holds_exactly(db, queries[0])
    assert_recall(db, queries, 0.93)


def test_rows_of_one_region_deleted(db):
    filled(db, grown=True)
    with by_index(db):
        db.execute("""DELETE FROM items WHERE id IN (SELECT id FROM items
                      ORDER BY embedding <-> (SELECT embedding FROM items WHERE id = 1) LIMIT 3000)""")
    db.execute("VACUUM items")
    assert stats(db)["merges"] > 5
    check(db)
    assert_holds_exactly(db, ROWS[1])
    assert_recall(db, list(QUERIES) + [ROWS[1]], 0.93)


@pytest.mark.parametrize("dimensions, rows", [(3, 6000), (784, 1500), (1536, 900), (4100, 600), (9000, 500)])
def test_lists_of_any_dimension_are_merged(db, dimensions, rows):
    """Sketches on pages of their own, cells that share pages or span them."""
    vectors = clustered(rows, dimensions, clusters=8)
    make_table(db, [], dimensions=dimensions)
    make_index(db)
    insert(db, vectors)
    before = stats(db)
    db.execute("DELETE FROM items WHERE id % 8 <> 0")
    db.execute("VACUUM items")
    after = stats(db)
    assert after["merges"] > 0 and after["lists"] < before["lists"]
    check(db)
    assert_holds_exactly(db, vectors[0])
    insert(db, vectors, first_id=100_000)
    check(db)
    assert_holds_exactly(db, vectors[0])


def test_a_cursor_open_while_lists_are_merged(database):
    """A search that was begun before goes on to the end: its rows are all still there, each once."""
    reader, writer = database.connect(), database.connect()
    filled(writer, grown=True)
    writer.execute("DELETE FROM items WHERE id % 9 <> 0")
    reader.autocommit = False
    with by_index(reader, ivflsh__iterative_scan="relaxed_order"):
        cursor = reader.cursor(name="rows")
        cursor.itersize = 10
        cursor.execute("SELECT id FROM items ORDER BY embedding <-> %b", (Vector(QUERIES[0]),))
        found = [row[0] for row in cursor.fetchmany(20)]
        # The reader's snapshot keeps no row: all that was deleted was so before.
        writer.execute("VACUUM items")
        assert stats(writer)["merges"] > 10
        found += [row[0] for row in cursor]
    reader.commit()
    assert sorted(found) == list(range(0, len(ROWS), 9))
