"""What once broke the index: endless scans, cancelling, values at the ends of f32's range, unlogged tables after a crash."""

import numpy as np
import psycopg
import pytest
from pgvector import Vector

from harness.cluster import Cluster
from harness.search import (COSINE, METRICS, assert_holds_exactly, assert_in_order, by_index, insert, make_index,
                            make_table, nearest)
from pgvector.psycopg import register_vector


def count(connection, query, limit):
    return connection.execute(
        f"SELECT count(*) FROM (SELECT id FROM items ORDER BY embedding <-> %b LIMIT {limit}) AS found",
        (Vector(query),)).fetchone()[0]


@pytest.mark.parametrize("limit", [1, 1500, 5000])
def test_more_equal_rows_than_the_heap_keeps(db, limit):
    make_table(db, np.full((3000, 3), 2, np.float32))
    make_index(db)
    with by_index(db, work_mem="64kB", statement_timeout="20s"):
        assert count(db, [1, 2, 4], limit) == min(limit, 3000)


def test_gap_wider_than_the_heap(db):
    """100 rows near the query, 5,000 in a thin shell far off."""
    random = np.random.default_rng(0)
    far = random.normal(size=(5000, 3))
    far *= 100 / np.linalg.norm(far, axis=1)[:, None]
    make_table(db, [], dimensions=3)
    make_index(db)
    insert(db, np.vstack([random.normal(size=(100, 3)) / 100, far]).astype(np.float32))
    with by_index(db, work_mem="64kB", statement_timeout="20s", ivflsh__iterative_scan="relaxed_order"):
        assert count(db, [0, 0, 0], 200) == 200
        assert count(db, [0, 0, 0], 9999) == 5100


@pytest.mark.parametrize("dimensions", [3, 16, 128])
def test_rows_that_are_not_late_are_not_left_out(db, dimensions):
    """In strict order too, where all candidates of a shell have nearly one distance and codes of unlike quality."""
    random = np.random.default_rng(0)
    far = random.normal(size=(5000, dimensions))
    far *= 100 / np.linalg.norm(far, axis=1)[:, None]
    make_table(db, [], dimensions=dimensions)
    make_index(db)
    insert(db, np.vstack([random.normal(size=(100, dimensions)) / 100, far]).astype(np.float32))
    query = np.zeros(dimensions, np.float32)
    with by_index(db):
        for limit in (100, 200, 1000):
            found = nearest(db, query, limit)
            assert len(found) == limit
            assert_in_order(found)


def test_long_scan_is_cancelled(db):
    make_table(db, np.random.default_rng(0).normal(size=(20000, 3)).astype(np.float32))
    make_index(db, options="WITH (lists = 1)")
    with by_index(db, ivflsh__iterative_scan="relaxed_order", statement_timeout="5ms"):
        with pytest.raises(psycopg.errors.QueryCanceled):
            count(db, [0, 0, 0], 20000)
    db.execute("SET statement_timeout = '100ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):  # and still answers
        db.execute("SELECT pg_sleep(5)")


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-20, 1e-15, 1e-6, 1e6, 1e15, 1e18, 1e19, 1e25, 1e37])
@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_scale(db, metric, scale):
    random = np.random.default_rng(int(abs(np.log10(scale)) * 10))
    for rows in (random.normal(size=(300, 5)), np.eye(5)[random.integers(5, size=300)],
                 np.full((300, 5), 1.0) + random.normal(size=(300, 5)) * 1e-6):
        rows = np.clip(rows * scale, -3e38, 3e38).astype(np.float32)
        db.execute("DROP TABLE IF EXISTS items")
        make_table(db, rows[:250])
        make_index(db, metric)
        insert(db, rows[250:], first_id=250)
        with by_index(db):
            for query in (*rows[::60], *np.clip(random.normal(size=(4, 5)) * scale, -3e38, 3e38).astype(np.float32)):
                found = [distance for _, distance in nearest(db, query, None, metric=metric)]
                if metric != COSINE:
                    assert found == sorted(found) or np.isnan(found).any()


def test_unlogged_survives_a_crash_before_a_checkpoint():
    with Cluster() as server:
        server.create_database("unlogged", "vector_ext")
        rows = np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)
        with server.connect("unlogged") as connection:
            register_vector(connection)
            make_table(connection, rows, kind="UNLOGGED")
            make_index(connection)
        server.crash()
        server.start()
        with server.connect("unlogged") as connection:
            register_vector(connection)
            insert(connection, rows)
            assert_holds_exactly(connection, rows[0])
