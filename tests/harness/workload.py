"""A workload of everything that changes an index, and the comparison of what indexes answer with what tables hold.

There is a table for each of `SHAPES`, with a `pool` of vectors beside it. A client writes rows whose label is its own
number, and deletes and updates only these, so that clients never wait for each other's rows.
"""

import random
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psycopg
from pgvector.psycopg import register_vector

from harness.search import (COSINE, IP, L2, TO_THE_END, Metric, as_type, assert_in_order, clustered, make_index,
                            make_table)

POOL, POOL_SEED = 4, 77  # the pool has so many times the rows that a table has
ALL_LISTS = 1_000_000


@dataclass(frozen=True)
class Shape:
    """A kind of table and index. Lists are so small that they are split often."""

    table: str
    metric: Metric
    type_name: str
    dimensions: int
    rows: int  # about as many as the table is kept at
    options: str

    @property
    def index(self):
        return f"{self.table}_embedding_idx"

    @property
    def pool(self):
        """Neighbours have neighbouring numbers, so that a run of them is a part of the space."""
        rows = clustered(POOL * self.rows, self.dimensions, seed=POOL_SEED)
        some = rows[:40]
        nearest = np.argmin(np.square(some).sum(axis=1) - 2 * rows @ some.T, axis=1)
        return rows[np.argsort(nearest, kind="stable")]

    def query(self, dice):
        return clustered(1, self.dimensions, seed=1000 + dice.randrange(1_000_000))[0]

    def statement(self, query, limit=None, where=""):
        """The rows by the index, nearest first."""
        distance = f"embedding {self.metric.operator} %(q)b"
        end = f"LIMIT {TO_THE_END if limit is None else limit}"
        return (f"SELECT id, {distance} FROM {self.table} {where} ORDER BY {distance} {end}",
                {"q": as_type(query, self.type_name)})

    def truth(self, query):
        """The same without it."""
        distance = f"embedding {self.metric.operator} %(q)b"
        return f"SELECT id, {distance} FROM {self.table}", {"q": as_type(query, self.type_name)}


#               table    metric  type     dimensions rows   index: lists of 32 rows or so at first
SHAPES = (Shape("small", L2, "vector", 12, 1500, "WITH (lists = 40)"),  # several blocks a page, cells that share pages
          Shape("half", COSINE, "halfvec", 100, 800, "WITH (lists = 20)"),
          Shape("wide", IP, "vector", 1536, 250, "WITH (lists = 6)"),  # sketch pages
          Shape("long", L2, "vector", 9000, 100, "WITH (lists = 3)"))  # several, and cells that span pages


def connect(server, name, **options):
    """A connection whose searches go by the index."""
    connection = server.connect(name, **options)
    register_vector(connection)
    connection.execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")
    return connection


def make_tables(server, name, shapes=SHAPES):
    server.create_database(name, "vector_ext")
    with connect(server, name) as connection:
        connection.execute("CREATE SEQUENCE numbers")
        for shape in shapes:
            make_table(connection, shape.pool, f"{shape.table}_pool", shape.type_name)
            connection.execute(f"""CREATE TABLE {shape.table} (id int PRIMARY KEY DEFAULT nextval('numbers'),
                label int NOT NULL, embedding {shape.type_name}({shape.dimensions}))""")
            connection.execute(f"""INSERT INTO {shape.table} (label, embedding)
                SELECT 0, embedding FROM {shape.table}_pool WHERE id % {POOL} = 0""")
            make_index(connection, shape.metric, shape.table, shape.type_name, options=shape.options)


# Comparison


@dataclass
class Recall:
    """Of searches that read all lists."""

    found: int = 0
    wanted: int = 0

    def __add__(self, other):
        return Recall(self.found + other.found, self.wanted + other.wanted)

    def __float__(self):
        return self.found / max(1, self.wanted)


def compare(connection, shape, query, limit=10):
    """In one snapshot: a scan to the end returns each row of the table once, with its distance; a search of all lists
    returns rows in exact order. Its recall is returned: the order in which it finds rows is by estimates."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(f"SET LOCAL ivflsh.probes = {ALL_LISTS}")
        first = connection.execute(*shape.statement(query, limit)).fetchall()
        connection.execute("SET LOCAL ivflsh.iterative_scan = relaxed_order")
        scan = connection.execute(*shape.statement(query)).fetchall()
        truth = connection.execute(*shape.truth(query)).fetchall()
    found, expected = dict(scan), dict(truth)
    where = f"{shape.table}: of {len(expected)} rows"
    assert len(found) == len(scan), f"{where} {len(scan) - len(found)} came twice"
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    assert not missing and not extra, f"{where} {len(missing)} are missing {sorted(missing)[:9]}, {len(extra)} too many"
    assert found == expected, f"{shape.table}: distances are not those of the rows"
    nearest = sorted(expected.values())[:limit]
    assert len(first) == len(nearest), f"{where} a search for {limit} returned {len(first)}"
    assert_in_order(first)
    assert all(expected[id] == distance for id, distance in first), f"{shape.table}: distances are not those of the rows"
    return Recall(sum(distance <= nearest[-1] for _, distance in first), len(nearest))


def check(connection, shape):
    """ivflsh_check's report."""
    cursor = connection.execute("SELECT * FROM ivflsh_check(%s)", (shape.index,))
    return dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))


def stats(connection, shape):
    return connection.execute("SELECT ivflsh_stats(%s::regclass)", (shape.index,)).fetchone()[0]


def answers(connection, shape, queries):
    return [connection.execute(*shape.statement(query, 20)).fetchall() for query in queries]


# Clients


def is_lost(error):
    """Whether the error means that the server is gone, or has ended this connection."""
    return isinstance(error, psycopg.OperationalError) and (
        error.sqlstate in (None, "57P01", "57P02", "57P03", "08006", "08003"))


class Client:
    """Changes and searches the tables by dice."""

    # How often which action is chosen. Those of `WRITES` are for every client, those of `CARE` for one only: they lock
    # tables, and their deadlocks would be PostgreSQL's own.
    WRITES = {"single": 6, "copy": 6, "region": 4, "delete": 4, "delete_region": 4, "update": 3, "hot_update": 2,
              "roll_back": 2, "savepoints": 1, "hurry": 3, "search": 3, "compare": 2}
    CARE = {"vacuum": 8, "reindex": 1, "reindex_concurrently": 1, "build": 1, "truncate": 0.2, "checkpoint": 1}

    def __init__(self, connection, part, dice, shapes=SHAPES):
        self.connection, self.part, self.dice, self.shapes = connection, part, dice, shapes
        self.done = Counter()
        self.doing = ""

    def act(self, names):
        """One action of these, on one of the tables."""
        dice = self.dice
        shape = dice.choices(self.shapes, [4, 3, 2, 1][:len(self.shapes)])[0]
        self.doing = dice.choices(list(names), list(names.values()))[0]
        getattr(self, self.doing)(shape)
        self.done[self.doing] += 1

    def _insert(self, shape, count, first=None):
        """Rows of the pool: from `first` on, or any. Deletes rows of one region when there are too many."""
        self._make_room(shape)
        numbers = (f"BETWEEN {first} AND {first + count - 1}" if first is not None else
                   "IN (" + ",".join(str(self.dice.randrange(POOL * shape.rows)) for _ in range(count)) + ")")
        self.connection.execute(f"""INSERT INTO {shape.table} (label, embedding)
            SELECT {self.part}, embedding FROM {shape.table}_pool WHERE id {numbers}""")

    def _make_room(self, shape):
        rows = self.connection.execute(f"SELECT count(*) FROM {shape.table}").fetchone()[0]
        if rows > 1.3 * shape.rows:
            self._delete_region(shape, shape.rows // 2)

    def _delete_region(self, shape, count):
        nearest, parameters = shape.statement(shape.query(self.dice), count, f"WHERE label = {self.part}")
        self.connection.execute(f"DELETE FROM {shape.table} WHERE id IN (SELECT id FROM ({nearest}) AS n)", parameters)

    @contextmanager
    def _transaction(self, shape, **how):
        """A transaction that writes to a table: it says so first. (Else it would read, REINDEX would begin to wait for the
        end of that, and they would wait for each other.)"""
        with self.connection.transaction(**how):
            self.connection.execute(f"LOCK TABLE {shape.table} IN ROW EXCLUSIVE MODE")
            yield

    def _some(self, shape):
        return max(1, self.dice.randrange(shape.rows // 8))

    def single(self, shape):
        for _ in range(self.dice.randrange(1, 20)):
            self._insert(shape, 1)

    def region(self, shape):
        """Rows that are near each other."""
        self._insert(shape, 2 * self._some(shape), self.dice.randrange(POOL * shape.rows))

    def copy(self, shape):
        self._make_room(shape)
        pool, count = shape.table + "_pool", self._some(shape)
        first = self.dice.randrange(POOL * shape.rows)
        rows = self.connection.execute(f"SELECT embedding::text FROM {pool} WHERE id BETWEEN %s AND %s",
                                       (first, first + count)).fetchall()
        with self.connection.cursor().copy(f"COPY {shape.table} (label, embedding) FROM STDIN") as copy:
            for row, in rows:
                copy.write_row((self.part, row))

    def delete(self, shape):
        self.connection.execute(f"DELETE FROM {shape.table} WHERE label = {self.part} AND random() < {self.dice.random() / 3}")

    def delete_region(self, shape):
        self._delete_region(shape, 2 * self._some(shape))

    def update(self, shape):
        self.connection.execute(f"""UPDATE {shape.table} AS t SET embedding = p.embedding FROM {shape.table}_pool AS p
            WHERE t.label = {self.part} AND t.id %% 13 = %s AND p.id = (t.id * 7 + %s) %% {POOL * shape.rows}""",
                                (self.dice.randrange(13), self.dice.randrange(1000)))

    def hot_update(self, shape):
        """The vectors stay as they are."""
        self.connection.execute(f"UPDATE {shape.table} SET label = label WHERE label = {self.part} AND id %% 17 = %s",
                                (self.dice.randrange(17),))

    def roll_back(self, shape):
        with self._transaction(shape, force_rollback=True):
            self._insert(shape, self._some(shape))

    def savepoints(self, shape):
        with self._transaction(shape):
            self._insert(shape, 5)
            with self.connection.transaction(force_rollback=True):
                self._insert(shape, 2 * self._some(shape), self.dice.randrange(POOL * shape.rows))
            self._insert(shape, 5)

    def hurry(self, shape):
        """A statement that is cancelled wherever it is."""
        try:
            with self._transaction(shape):
                self.connection.execute(f"SET LOCAL statement_timeout = {self.dice.randrange(1, 60)}")
                self._insert(shape, 2 * self._some(shape), self.dice.randrange(POOL * shape.rows))
        except psycopg.errors.QueryCanceled:
            self.connection.rollback()  # it may have been the COMMIT

    def search(self, shape):
        assert_in_order(self.connection.execute(*shape.statement(shape.query(self.dice), 10)).fetchall())

    def compare(self, shape):
        compare(self.connection, shape, shape.query(self.dice))

    def vacuum(self, shape):
        how = self.dice.choice(["", "(INDEX_CLEANUP ON)", "(FREEZE)"])
        self.connection.execute(f"VACUUM {how} {shape.table}")

    def reindex(self, shape):
        self.connection.execute(f"REINDEX INDEX {shape.index}")

    def reindex_concurrently(self, shape):
        self.connection.execute(f"REINDEX INDEX CONCURRENTLY {shape.index}")

    def build(self, shape):
        for how in ("", "CONCURRENTLY"):
            self.connection.execute(f"""CREATE INDEX {how} second_{shape.index} ON {shape.table}
                USING ivflsh (embedding {shape.type_name}_{shape.metric.operators}) {shape.options}""")
            self.connection.execute(f"DROP INDEX second_{shape.index}")

    def truncate(self, shape):
        self.connection.execute(f"TRUNCATE {shape.table}")

    def checkpoint(self, shape):
        self.connection.execute("CHECKPOINT")


def work(server, name, part, seed, names, seconds=None):
    """A client's life: until the server is gone, or so many seconds. Returns how often it did what, and what it did last."""
    dice = random.Random(seed)
    until = None if seconds is None else time.monotonic() + seconds
    client = Client(None, part, dice)
    try:
        client.connection = connect(server, name)
        while until is None or time.monotonic() < until:
            client.act(names)
    except psycopg.Error as error:
        if until is not None or not is_lost(error):
            raise
    return client.done, client.doing
