"""VACUUM keeps an index in shape: what was deleted leaves no small lists, no pages, and no trace in later searches."""

import re
import threading
import time

import numpy as np
import psycopg
import pytest
from pgvector import Vector
from pgvector.psycopg import register_vector

from harness.cluster import Cluster
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


def test_lists_that_were_made_small_stay(db):
    """k-means gives few rows to some lists, where clusters are of very different sizes. VACUUM is not to undo that because some
    rows elsewhere were deleted."""
    random = np.random.default_rng(9)
    sizes = np.maximum(3, (400 / np.arange(1, 301) ** 0.8).astype(int))
    centres = 3 * random.normal(size=(len(sizes), 16))
    rows = np.repeat(centres, sizes, axis=0) + 0.1 * random.normal(size=(sizes.sum(), 16))
    make_table(db, random.permutation(rows.astype(np.float32)))
    db.execute("CREATE INDEX items_embedding_idx ON items USING ivflsh (embedding vector_l2_ops) WITH (lists = 150)")
    before = stats(db)
    small = db.execute("SELECT count(*) FROM ivflsh_lists('items_embedding_idx') WHERE level = 0 AND entries < 8").fetchone()[0]
    assert small > 5
    db.execute("DELETE FROM items WHERE id % 20 = 0")
    db.execute("VACUUM items")
    after = stats(db)
    assert after["merges"] == 0 and after["lists"] >= before["lists"]
    check(db)


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


def in_a_session(database, work):
    """Calls work(connection), waits until the session is gone: by then it has reported what it has read."""
    connection = database.connect()
    process = connection.info.backend_pid
    work(connection)
    connection.close()
    with database.cluster.connect() as watcher:
        give_up = time.monotonic() + 60
        while watcher.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (process,)).fetchone()[0]:
            assert time.monotonic() < give_up
            time.sleep(0.01)


def pages_read(database, statement):
    """Pages of the index that a statement reads, in shared buffers or not."""

    def counted():
        with database.connect() as reader:
            return reader.execute("""SELECT idx_blks_read + idx_blks_hit FROM pg_statio_user_indexes
                                     WHERE indexrelname = 'items_embedding_idx'""").fetchone()[0]

    before = counted()
    in_a_session(database, lambda connection: connection.execute(statement))
    return counted() - before


def test_vacuum_reads_no_more_of_the_index_than_needed(database):
    def prepare(db):
        filled(db, grown=False)
        db.execute("VACUUM items")
        sizes.append(db.execute("SELECT pg_relation_size('items_embedding_idx') / 8192").fetchone()[0])

    sizes = []
    in_a_session(database, prepare)
    size = sizes[0]
    assert size > 60
    # Nothing has changed; nothing but the table's visibility map; and a few rows have come.
    assert pages_read(database, "VACUUM items") < 10
    assert pages_read(database, "VACUUM (FREEZE, INDEX_CLEANUP ON) items") < 10
    in_a_session(database, lambda db: insert(db, OTHERS[:20], first_id=100_000))
    assert pages_read(database, "VACUUM (INDEX_CLEANUP ON) items") < 10
    # A single row goes: each page is read for that, and once only.
    in_a_session(database, lambda db: db.execute("DELETE FROM items WHERE id = 7"))
    assert size <= pages_read(database, "VACUUM (INDEX_CLEANUP ON) items") < size * 1.2
    assert check(database.connect())["entries"] == len(ROWS) + 19


def test_autovacuum_comes_to_its_end_beside_those_who_look():
    """Whoever waits for a lock of an autovacuum for `deadlock_timeout` has it cancelled."""
    settings = {"autovacuum": "on", "autovacuum_naptime": "1s", "deadlock_timeout": "50ms", "log_min_messages": "log"}
    with Cluster(settings=settings) as server:
        server.create_database("looked_at", "vector_ext")
        with server.connect("looked_at") as db:
            register_vector(db)
            db.execute("""CREATE TABLE items (id int PRIMARY KEY, label int, embedding vector(16)) WITH (autovacuum_enabled = off,
                          autovacuum_vacuum_cost_delay = 20, autovacuum_vacuum_cost_limit = 100, autovacuum_vacuum_threshold = 1,
                          autovacuum_vacuum_scale_factor = 0)""")
            insert(db, ROWS)
            make_index(db)
            db.execute("DELETE FROM items WHERE id % 10 = 0")
            db.execute("ALTER TABLE items SET (autovacuum_enabled = on)")
            give_up = time.monotonic() + 120
            while not db.execute("SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'items'").fetchone()[0]:
                assert time.monotonic() < give_up, f"autovacuum does not come to its end\n{server.log_tail()}"
                for _ in range(20):
                    stats(db)
            assert check(db)["entries"] == len(ROWS) * 9 // 10
        assert "canceling autovacuum task" not in server.log.read_text()


def close_lists(server, path):
    """As a change of the structure leaves lists that was broken off: nothing is added to them before they are opened again."""
    server.stop()
    file, closed = server.data / path, 0
    pages = bytearray(file.read_bytes())
    for at in range(0, len(pages), 8192):
        special = at + 8192 - 32
        if pages[special + 18] == 3 and pages[special + 19] == 0:  # a posting page of rows
            pages[special + 22] |= 1
            closed += 1
    with file.open("r+b") as out:
        out.write(pages)
    server.start()
    return closed


def test_inserts_do_not_wait_for_the_end_of_a_slow_vacuum():
    with Cluster() as server:
        server.create_database("slow", "vector_ext")
        with server.connect("slow") as db:
            register_vector(db)
            make_table(db, ROWS, dimensions=16)
            make_index(db)
            db.execute("VACUUM items")  # pages of the table that all see are not read again
            db.execute("DELETE FROM items WHERE id < 20")
            path = db.execute("SELECT pg_relation_filepath('items_embedding_idx')").fetchone()[0]
            db.execute("CHECKPOINT")
        assert close_lists(server, path) > 50

        def vacuum():
            with server.connect("slow") as slow:
                slow.execute("SET vacuum_cost_delay = 100")
                slow.execute("SET vacuum_cost_limit = 1")
                slow.execute("SET vacuum_cost_page_dirty = 1")
                with pytest.raises(psycopg.errors.QueryCanceled):
                    slow.execute("VACUUM (INDEX_CLEANUP ON) items")

        thread = threading.Thread(target=vacuum)
        thread.start()
        with server.connect("slow") as db:
            register_vector(db)
            progress = "SELECT pid FROM pg_stat_progress_vacuum WHERE phase = 'vacuuming indexes'"
            give_up = time.monotonic() + 120
            while not (found := db.execute(progress).fetchone()):
                assert time.monotonic() < give_up
                time.sleep(0.01)
            # Waiting would end in an ERROR; VACUUM needs many times as long.
            db.execute("SET lock_timeout = '4s'")
            insert(db, OTHERS[:200], first_id=100_000)
            assert stats(db)["closed_lists"] > 0
            assert db.execute(progress).fetchone() == found, "VACUUM has ended before"
            db.execute("SELECT pg_cancel_backend(%s)", found)
            thread.join(120)
            assert not thread.is_alive()
            db.execute("VACUUM (INDEX_CLEANUP ON) items")
            assert check(db)["entries"] == len(ROWS) - 20 + 200
            assert_holds_exactly(db, QUERIES[0])


def test_vacuum_counts(db):
    """What VACUUM says of the index in pg_class, while lists are merged and pages freed."""
    filled(db, grown=True)
    db.execute("DELETE FROM items WHERE id % 4 = 0")
    db.execute("VACUUM items")
    rows, pages = db.execute("SELECT reltuples, relpages FROM pg_class WHERE relname = 'items_embedding_idx'").fetchone()
    assert rows == len(ROWS) * 3 // 4
    assert pages == stats(db)["bytes"] // 8192
    notices = []
    db.add_notice_handler(lambda notice: notices.append(notice.message_detail or notice.message_primary))
    db.execute("DELETE FROM items WHERE id % 4 <> 1")
    db.execute("VACUUM VERBOSE items")
    text = "\n".join(notices)
    line = next(line for line in text.splitlines() if "items_embedding_idx" in line and "newly deleted" in line)
    total, new, free, reusable = (int(number) for number in re.findall(r"(\d+) (?:in total|newly|currently|reusable)", line))
    assert total == stats(db)["bytes"] // 8192
    assert new > 0 and free == reusable == stats(db)["pages"]["free"]
