"""Identities of lists and epochs of changes are never used again. When they are used up, lists are no longer split or merged,
the user is told, and all else goes on."""

import numpy as np
import pytest
from pgvector import Vector
from pgvector.psycopg import register_vector

from harness.cluster import Cluster
from harness.pages import META_FIELDS, Pages

RESERVE = 1 << 20
LAST = (1 << 32) - 1 - RESERVE
ROWS = np.random.default_rng(11).normal(size=(1200, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def server():
    with Cluster() as server:
        server.create_database("spent", "vector_ext")
        yield server


def make(server, name, columns):
    with server.connect("spent") as db:
        register_vector(db)
        db.execute(f"CREATE TABLE {name} (id int, v vector(8))")
        with db.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {name} VALUES (%s, %b)", [(i, Vector(row)) for i, row in enumerate(ROWS[:600])])
        db.execute(f"CREATE INDEX {name}_i ON {name} USING ivflsh ({columns}) WITH (lists = 6)")
        path = server.data / db.execute("SELECT pg_relation_filepath(%s)", (f"{name}_i",)).fetchone()[0]
    return path


def set_meta(path, **values):
    pages = Pages(path.read_bytes())
    for field, value in values.items():
        pages.put(0, META_FIELDS[field], value)
    pages.seal(0)
    path.write_bytes(pages.data)


def fill(db, name, rows):
    with db.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {name} VALUES (%s, %b)", [(1000 + i, Vector(row)) for i, row in enumerate(rows)])


def splits(db, name):
    return db.execute(f"SELECT (ivflsh_stats('{name}_i') ->> 'splits')::int").fetchone()[0]


def assert_finds_all(db, name):
    """A scan to the end has every row once; the nearest are those that a scan of the table finds."""
    query = {"q": Vector(ROWS[3])}
    every = f"SELECT ctid FROM {name} ORDER BY v <-> %(q)b"
    nearest = f"SELECT v <-> %(q)b FROM {name} ORDER BY v <-> %(q)b LIMIT 20"
    db.execute("SET ivflsh.iterative_scan = relaxed_order; SET ivflsh.probes = 10000")
    by_index = db.execute(every, query).fetchall()
    nearest_by_index = db.execute(nearest, query).fetchall()
    db.execute("SET enable_indexscan = off; SET enable_seqscan = on; SET enable_sort = on; SET ivflsh.enable_vector_scan = off")
    by_table = db.execute(every, query).fetchall()
    nearest_by_table = db.execute(nearest, query).fetchall()
    assert len(by_index) == len(by_table) and set(by_index) == set(by_table)
    assert nearest_by_index == nearest_by_table


@pytest.mark.parametrize("field", ["last_list", "epoch"])
def test_used_up(server, field):
    """Some are left: lists are split; then no more, with one WARNING a backend. Never an error."""
    name = f"t_{field}"
    path = make(server, name, "v vector_l2_ops, id")
    server.stop()
    set_meta(path, **{field: LAST - 3})
    server.start()
    with server.connect("spent") as db:
        register_vector(db)
        warnings = []
        db.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
        db.execute("SET enable_seqscan = off; SET enable_sort = off")
        assert splits(db, name) == 0
        fill(db, name, ROWS[600:])
        some = splits(db, name)
        assert 1 <= some <= 4
        assert warnings == [f'index "{name}_i" has used up the numbers of its lists']
        fill(db, name, ROWS[:300])
        assert splits(db, name) == some
        db.execute(f"DELETE FROM {name} WHERE id % 10 > 0")
        db.execute(f"VACUUM {name}")  # would merge
        fill(db, name, ROWS[:600])
        db.execute(f"VACUUM {name}")
        assert splits(db, name) == some and len(warnings) == 1
        assert_finds_all(db, name)
        db.execute(f"SELECT ivflsh_check('{name}_i')")
        status = open(f"/proc/{db.info.backend_pid}/status").read()
        assert int(status.split("VmHWM:")[1].split()[0]) < 150_000, "kB: nothing is as long as the largest identity"
    with server.connect("spent") as db:
        register_vector(db)
        warnings = []
        db.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
        fill(db, name, ROWS)
        assert len(warnings) == 1
        db.execute(f"REINDEX INDEX {name}_i")
        fill(db, name, ROWS)
        assert splits(db, name) > 0 and len(warnings) == 1
        db.execute(f"SELECT ivflsh_check('{name}_i')")


def test_large_identities(server):
    """Far from the first, and far from the last: all is as ever."""
    path = make(server, "large", "v vector_l2_ops")
    server.stop()
    set_meta(path, last_list=1 << 31, epoch=1 << 31)
    server.start()
    with server.connect("spent") as db:
        register_vector(db)
        db.execute("SET enable_seqscan = off; SET enable_sort = off")
        fill(db, "large", ROWS)
        assert splits(db, "large") > 3
        db.execute("DELETE FROM large WHERE id % 10 > 0")
        db.execute("VACUUM large")
        assert db.execute("SELECT (ivflsh_stats('large_i') ->> 'merges')::int").fetchone()[0] > 0
        fill(db, "large", ROWS)
        assert_finds_all(db, "large")
        db.execute("SELECT ivflsh_check('large_i')")
