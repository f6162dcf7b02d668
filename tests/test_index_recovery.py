"""After a crash, and on a physical standby, the index answers as before. Each test has servers of its own.

`wal_consistency_checking` has the server compare each page that it replays with what the primary had.
"""

import threading

import pytest
from pgvector import Vector
from pgvector.psycopg import register_vector

from harness.cluster import Cluster
from harness.search import (assert_alike, assert_holds_exactly, assert_recall, by_index, clustered, insert, make_index, make_table,
                            nearest)

ROWS = clustered(3000, 24)
QUERIES = clustered(20, 24, seed=2)
SETTINGS = {"wal_consistency_checking": "generic", "shared_buffers": "32MB"}


@pytest.fixture(scope="module")
def server():
    with Cluster(settings=SETTINGS) as server:
        yield server


@pytest.fixture
def name(server, request):
    name = request.node.name
    server.create_database(name, "vector_ext")
    yield name
    with server.connect() as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def connect(server, name):
    connection = server.connect(name)
    register_vector(connection)
    return connection


def answers(connection):
    with by_index(connection):
        return [nearest(connection, query, 20) for query in QUERIES]


def change(connection):
    """Some of everything: build, insert, delete, vacuum, reuse of places, update."""
    make_table(connection, ROWS[:2000])
    make_index(connection)
    insert(connection, ROWS[2000:], first_id=2000)
    connection.execute("DELETE FROM items WHERE id % 3 = 0")
    connection.execute("VACUUM items")
    insert(connection, ROWS[:500] + 5, first_id=3000)
    connection.execute("UPDATE items SET embedding = embedding + embedding WHERE id % 10 = 1")


def test_crash(server, name):
    with connect(server, name) as connection:
        change(connection)
        before = answers(connection)
    server.crash()
    server.start()
    with connect(server, name) as connection:
        assert answers(connection) == before
        assert_holds_exactly(connection, QUERIES[0])
        insert(connection, ROWS[:200], first_id=9000)
        connection.execute("VACUUM items")
        assert_holds_exactly(connection, QUERIES[0])
        assert_recall(connection, QUERIES, 0.9)


def test_crash_after_a_checkpoint(server, name):
    with connect(server, name) as connection:
        change(connection)
        connection.execute("CHECKPOINT")
        connection.execute("DELETE FROM items WHERE id % 7 = 0")
        connection.execute("VACUUM items")
        insert(connection, ROWS[:300], first_id=9000)
        before = answers(connection)
    server.crash()
    server.start()
    with connect(server, name) as connection:
        assert answers(connection) == before
        assert_holds_exactly(connection, QUERIES[0])


def test_crash_amid_writers(server, name):
    """Rows whose insertion was committed are found, others are not, whenever the server dies."""
    with connect(server, name) as connection:
        make_table(connection, ROWS[:200])
        make_index(connection)
    enough = threading.Barrier(4)

    def write(part):
        connection = connect(server, name)
        try:
            for i in range(200 + part, 1_000_000, 3):
                connection.execute("INSERT INTO items VALUES (%s, 0, %b)", (i, Vector(ROWS[i % 3000])))
                if i // 3 == 300:
                    enough.wait(60)
        except Exception:
            connection.close()  # the crash

    threads = [threading.Thread(target=write, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    enough.wait(60)
    server.crash()
    for thread in threads:
        thread.join()
    server.start()
    with connect(server, name) as connection:
        assert connection.execute("SELECT count(*) > 800 FROM items").fetchone() == (True,)
        assert_holds_exactly(connection, QUERIES[0])
        connection.execute("VACUUM items")
        assert_holds_exactly(connection, QUERIES[0])
        assert_recall(connection, QUERIES, 0.9)


def test_crash_with_an_open_transaction(server, name):
    with connect(server, name) as connection:
        make_table(connection, ROWS[:1000])
        make_index(connection)
        before = answers(connection)
        other = connect(server, name)
        other.autocommit = False
        insert(other, QUERIES, first_id=5000)
        connection.execute("CHECKPOINT")
    server.crash()
    other.close()
    server.start()
    with connect(server, name) as connection:
        after = answers(connection)
        assert max(id for answer in after for id, _ in answer) < 5000, "what was not committed is gone"
        assert_alike(before, after)
        connection.execute("VACUUM items")
        assert_alike(before, answers(connection))
        assert_holds_exactly(connection, QUERIES[0])


def test_crash_amid_a_build(server, name):
    with connect(server, name) as connection:
        make_table(connection, ROWS)
        connection.autocommit = False
        make_index(connection)  # not committed
    # leaving the block commits, so crash with a second one open
    with connect(server, name) as connection:
        connection.autocommit = False
        connection.execute("DROP INDEX items_embedding_idx")
        make_index(connection)
        server.crash()
        connection.close()
    server.start()
    with connect(server, name) as connection:
        assert_holds_exactly(connection, QUERIES[0])


def test_crash_empties_unlogged_tables(server, name):
    with connect(server, name) as connection:
        make_table(connection, ROWS, kind="UNLOGGED")
        make_index(connection)
        connection.execute("CHECKPOINT")
        assert_holds_exactly(connection, QUERIES[0])
    server.crash()
    server.start()
    with connect(server, name) as connection:
        with by_index(connection):
            assert nearest(connection, QUERIES[0]) == []
        insert(connection, ROWS)
        assert_holds_exactly(connection, QUERIES[0])
        assert_recall(connection, QUERIES, 0.9)
    server.restart()
    with connect(server, name) as connection:
        assert_holds_exactly(connection, QUERIES[0])


def test_standby(server, name):
    """A standby answers the same, after a crash of its own too, and can take over."""
    with connect(server, name) as connection:
        change(connection)
        with server.standby(SETTINGS) as standby:
            def assert_same():
                standby.wait_for_replay()
                with connect(standby, name) as reader:
                    assert reader.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
                    assert answers(reader) == answers(connection)
                    assert_holds_exactly(reader, QUERIES[0])

            assert_same()
            insert(connection, ROWS[:500], first_id=9000)
            assert_same()
            connection.execute("DELETE FROM items WHERE id % 5 = 0")
            connection.execute("VACUUM items")
            insert(connection, ROWS[500:600] + 9, first_id=9500)
            assert_same()
            connection.execute("REINDEX INDEX items_embedding_idx")
            assert_same()
            connection.execute("TRUNCATE items")
            insert(connection, ROWS)
            connection.execute("VACUUM items")
            assert_same()
            standby.crash()
            standby.start()
            assert_same()
            standby.promote()
            with connect(standby, name) as writer:
                insert(writer, ROWS[:100], first_id=20000)
                writer.execute("DELETE FROM items WHERE id < 1000")
                writer.execute("VACUUM items")
                assert_holds_exactly(writer, QUERIES[0])
                assert_recall(writer, QUERIES, 0.9)


def test_prewarm_after_a_restart(server, name):
    with connect(server, name) as connection:
        make_table(connection, ROWS)
        make_index(connection)
        if not connection.execute("SELECT FROM pg_available_extensions WHERE name = 'pg_buffercache'").fetchone():
            pytest.skip("this PostgreSQL was built without pg_buffercache")
        connection.execute("CREATE EXTENSION pg_buffercache")
    server.restart()
    with connect(server, name) as connection:
        cached = """SELECT count(*) FROM pg_buffercache WHERE relforknumber = 0
                    AND relfilenode = pg_relation_filenode('items_embedding_idx')"""
        assert connection.execute(cached).fetchone() == (0,)
        pages = connection.execute("SELECT ivflsh_prewarm('items_embedding_idx')").fetchone()
        assert pages == connection.execute("SELECT pg_relation_size('items_embedding_idx') / 8192").fetchone()
        assert connection.execute(cached).fetchone() == pages


def test_long_entries_survive(server, name):
    """Vectors longer than a page."""
    rows = clustered(40, 16000, clusters=4)
    with connect(server, name) as connection:
        make_table(connection, rows[:30])
        make_index(connection)
        insert(connection, rows[30:], first_id=30)
    server.crash()
    server.start()
    with connect(server, name) as connection:
        assert_holds_exactly(connection, rows[0])
        with by_index(connection):
            for i in range(0, 40, 5):
                assert nearest(connection, rows[i], 1) == [(i, 0.0)]
