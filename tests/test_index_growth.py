"""An index that grows: lists split and merge under inserts, searches, updates and vacuums, and after crashes."""

import threading
import time

import numpy as np
import pytest
from pgvector import Vector
from pgvector.psycopg import register_vector

from harness.cluster import Cluster
from harness.search import (COSINE, METRICS, TO_THE_END, assert_holds_exactly, assert_in_order, assert_recall, by_index, clustered,
                            insert, make_index, make_table, nearest, plan)

ROWS = clustered(12000, 16, clusters=200)
QUERIES = clustered(20, 16, seed=2, clusters=200)


def stats(connection, index="items_embedding_idx"):
    return connection.execute("SELECT ivflsh_stats(%s::regclass)", (index,)).fetchone()[0]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_lists_split(db, metric):
    make_table(db, [], dimensions=16)
    make_index(db, metric)
    for batch in range(0, len(ROWS), 1000):
        insert(db, ROWS[batch:batch + 1000], first_id=batch)
    found = stats(db)
    assert found["height"] == 1
    assert 50 < found["lists"] < 200
    assert found["rows"]["live"] == len(ROWS), "a row is in two lists"
    assert found["rows"]["largest_list"] < 300
    assert_holds_exactly(db, QUERIES[0], metric=metric)
    assert_recall(db, QUERIES, 0.93, metric=metric)


@pytest.mark.parametrize("dimensions, rows", [(3, 6000), (784, 700), (1536, 500), (4100, 250), (9000, 220)])
def test_lists_split_of_any_dimension(db, dimensions, rows):
    """Sketches on pages of their own, cells that share pages or span them."""
    vectors = clustered(rows, dimensions, clusters=8)
    make_table(db, [], dimensions=dimensions)
    make_index(db)
    insert(db, vectors)
    found = stats(db)
    assert found["lists"] > 1
    assert found["rows"]["live"] == rows
    queries = clustered(10, dimensions, seed=3, clusters=8)
    assert_holds_exactly(db, queries[0])
    assert_recall(db, queries, 0.9)


class Workers:
    """Threads that stop when one of them fails; the failure is raised at the end."""

    def __init__(self, *works):
        self.failure, self.done = None, threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(work,)) for work in works]

    def run(self, work):
        try:
            work(self.done)
        except BaseException as failure:
            self.failure = self.failure or failure
            self.done.set()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *raised):
        if raised[0]:
            self.done.set()
        for thread in self.threads:
            thread.join()
        if self.failure:
            raise self.failure


@pytest.mark.parametrize("metric", [METRICS[0], COSINE], ids=lambda metric: metric.name)
def test_searches_while_lists_split(database, metric):
    """Scans to the end see each row that was committed before they began, once; short ones are in order."""
    writers, per_writer = 3, 3000
    with database.connect() as admin:
        make_table(admin, [], dimensions=16)
        make_index(admin, metric)
        admin.execute("ALTER TABLE items SET (autovacuum_enabled = off)")
    inserted = [0] * writers

    def write(part):
        def work(done):
            connection = database.connect()
            for start in range(0, per_writer, 20):
                if done.is_set():
                    return
                first = part * per_writer + start
                insert(connection, ROWS[first:first + 20], first_id=first)
                inserted[part] = start + 20
        return work

    def search(done):
        connection = database.connect()
        random = np.random.default_rng(7)
        scans = 0
        while not done.is_set() and (sum(inserted) < writers * per_writer or scans < 5):
            query = QUERIES[random.integers(len(QUERIES))]
            with by_index(connection):
                assert_in_order(nearest(connection, query, 10, metric=metric))
            before = list(inserted)
            with by_index(connection, ivflsh__iterative_scan="relaxed_order"):
                found = [row[0] for row in connection.execute(
                    f"SELECT id FROM items ORDER BY embedding {metric.operator} %b LIMIT {TO_THE_END}", (Vector(query),))]
            assert len(found) == len(set(found)), "a row came twice"
            expected = {part * per_writer + i for part, count in enumerate(before) for i in range(count)}
            missing = expected - set(found)
            assert not missing, f"{len(missing)} of {len(expected)} rows missing"
            scans += 1

    with Workers(*[write(part) for part in range(writers)], search, search):
        pass
    with database.connect() as admin:
        assert stats(admin)["rows"]["live"] == writers * per_writer
        assert_holds_exactly(admin, QUERIES[0], metric=metric)
        assert_recall(admin, QUERIES, 0.9, metric=metric)


def test_a_cursor_open_while_lists_split(database):
    """A search that was begun before the lists were split goes on to the end."""
    reader, writer = database.connect(), database.connect()
    make_table(writer, ROWS[:2000])
    make_index(writer)
    reader.autocommit = False
    with by_index(reader, ivflsh__iterative_scan="relaxed_order"):
        cursor = reader.cursor(name="rows")
        cursor.itersize = 100
        cursor.execute("SELECT id FROM items ORDER BY embedding <-> %b", (Vector(QUERIES[0]),))
        found = [row[0] for row in cursor.fetchmany(150)]
        for start in range(2000, 12000, 2000):
            insert(writer, ROWS[start:start + 2000], first_id=start)
            found += [row[0] for row in cursor.fetchmany(150)]
        found += [row[0] for row in cursor]
    reader.commit()
    assert sorted(found) == list(range(2000)), "all rows of its snapshot, each once"


def test_rows_of_unfinished_transactions_are_moved(database):
    """Lists are split while some of their rows may not be read: these are moved by their codes."""
    one, other = database.connect(), database.connect()
    make_table(one, [], dimensions=16)
    make_index(one)
    one.autocommit = False
    insert(one, ROWS[:1500])
    insert(other, ROWS[1500:4000], first_id=1500)
    assert_holds_exactly(other, QUERIES[0])
    one.commit()
    one.autocommit = True
    assert stats(other)["rows"]["live"] == 4000
    assert_holds_exactly(other, QUERIES[0])
    assert_recall(other, QUERIES, 0.93)


def test_rolled_back_rows_do_not_harm(db):
    make_table(db, [], dimensions=16)
    make_index(db)
    db.autocommit = False
    insert(db, ROWS[:3000])
    db.rollback()
    db.autocommit = True
    insert(db, ROWS[3000:6000], first_id=3000)
    assert_holds_exactly(db, QUERIES[0])
    assert_recall(db, QUERIES, 0.93)


def test_identical_rows(db):
    make_table(db, [], dimensions=16)
    make_index(db)
    insert(db, [ROWS[0]] * 2000 + list(ROWS[:500]))
    found = stats(db)
    assert found["lists"] > 10 and found["rows"]["largest_list"] < 300
    assert_holds_exactly(db, QUERIES[0])
    with by_index(db):
        assert all(distance == 0 for _, distance in nearest(db, ROWS[0], 100))


def test_index_on_an_expression(db):
    make_table(db, [], dimensions=16)
    db.execute("""CREATE INDEX items_embedding_idx ON items
                  USING ivflsh ((l2_normalize(embedding)::vector(16)) vector_l2_ops)""")
    insert(db, ROWS[:3000])
    assert stats(db)["lists"] > 10
    with by_index(db, ivflsh__iterative_scan="relaxed_order"):
        found = db.execute("""SELECT id FROM items ORDER BY l2_normalize(embedding)::vector(16) <-> %b""",
                           (Vector(QUERIES[0]),)).fetchall()
    assert sorted(id for id, in found) == list(range(3000))
