"""The index inside plans: cursors, joins, prepared statements, parallel workers."""

import threading

import numpy as np
import psycopg
import pytest
from pgvector import Vector

from harness.search import (L2, assert_in_order, by_index, clustered, exactly, insert, make_index, make_table, nearest,
                            plan, settings, uses_index)

ROWS = clustered(3000, 24)
QUERIES = clustered(30, 24, seed=2)


@pytest.fixture
def items(db):
    """A connection to a database with an indexed table of ROWS and a table of QUERIES."""
    make_table(db, ROWS)
    make_index(db)
    make_table(db, QUERIES, table="queries")
    return db


def test_cursor_that_fetches_on(items):
    query = Vector(QUERIES[0])
    with by_index(items), items.transaction():
        items.execute("DECLARE c CURSOR FOR SELECT id, embedding <-> %b FROM items ORDER BY embedding <-> %b", (query, query))
        rows = []
        for count in (1, 1, 8, 10, 80, 200):
            rows += items.execute(f"FETCH {count} FROM c").fetchall()
        assert len(rows) == 300
        assert_in_order(rows)
        rows += items.execute("FETCH ALL FROM c").fetchall()
        assert_in_order(rows)
        assert items.execute("FETCH ALL FROM c").fetchall() == []
    near = set(np.argsort(L2.distances(ROWS, QUERIES[0]))[:300])
    assert len(near & {id for id, _ in rows}) >= 0.9 * 300


def test_cursor_relaxed_to_the_end(items):
    with by_index(items, ivflsh__iterative_scan="relaxed_order"), items.transaction():
        items.execute("DECLARE c CURSOR FOR SELECT id FROM items ORDER BY embedding <-> %b", (Vector(QUERIES[0]),))
        ids = [row[0] for _ in range(70) for row in items.execute("FETCH 50 FROM c").fetchall()]
    assert sorted(ids) == list(range(3000))


def test_cursor_backwards(items):
    with by_index(items), items.transaction():
        items.execute("DECLARE c SCROLL CURSOR FOR SELECT id FROM items ORDER BY embedding <-> %b LIMIT 30",
                      (Vector(QUERIES[0]),))
        ahead = items.execute("FETCH 20 FROM c").fetchall()
        assert items.execute("FETCH BACKWARD 19 FROM c").fetchall() == ahead[-2::-1]
        items.execute("MOVE ABSOLUTE 0 FROM c")
        assert items.execute("FETCH 20 FROM c").fetchall() == ahead


def test_cursor_held_and_writes_between(items):
    query = Vector(QUERIES[0])
    with by_index(items):
        expected = nearest(items, QUERIES[0], 40)
        with items.transaction():
            items.execute("""DECLARE c CURSOR WITH HOLD FOR SELECT id, embedding <-> %b FROM items
                             ORDER BY embedding <-> %b LIMIT 40""", (query, query))
            rows = items.execute("FETCH 10 FROM c").fetchall()
            insert(items, np.repeat(QUERIES[:1], 200, axis=0), first_id=5000)
            items.execute("DELETE FROM items WHERE id < 100")
            rows += items.execute("FETCH 10 FROM c").fetchall()
        rows += items.execute("FETCH 20 FROM c").fetchall()
        assert rows == expected, "a cursor sees what was there when it was opened"
        items.execute("CLOSE c")


def test_two_cursors_at_once(items):
    with by_index(items), items.transaction():
        for i in (0, 1):
            items.execute(f"DECLARE c{i} CURSOR FOR SELECT id FROM items ORDER BY embedding <-> %b LIMIT 50",
                          (Vector(QUERIES[i]),))
        got = [[], []]
        for _ in range(10):
            for i in (0, 1):
                got[i] += [row[0] for row in items.execute(f"FETCH 5 FROM c{i}")]
    with by_index(items):
        for i in (0, 1):
            assert got[i] == [id for id, _ in nearest(items, QUERIES[i], 50)]


def test_lateral_join_whose_query_changes(items):
    statement = """SELECT q.id, n.id FROM queries q CROSS JOIN LATERAL
                   (SELECT id FROM items ORDER BY embedding <-> q.embedding LIMIT 5) n"""
    with by_index(items):
        assert uses_index(items, statement)
        got = items.execute(statement).fetchall()
        for i, query in enumerate(QUERIES):
            assert sorted(n for q, n in got if q == i) == sorted(id for id, _ in nearest(items, query, 5))


def test_correlated_subquery(items):
    statement = """SELECT q.id, (SELECT i.id FROM items i ORDER BY i.embedding <-> q.embedding LIMIT 1)
                   FROM queries q ORDER BY q.id"""
    with by_index(items):
        assert uses_index(items, statement, index="items_embedding_idx on items i")
        assert items.execute(statement).fetchall() == [(i, nearest(items, q, 1)[0][0]) for i, q in enumerate(QUERIES)]


def test_nested_loop_with_null_and_repeated_queries(items):
    items.execute("INSERT INTO queries VALUES (100, 0, NULL)")
    items.execute("INSERT INTO queries SELECT 101, 0, embedding FROM queries WHERE id = 3")
    statement = """SELECT q.id, array(SELECT i.id FROM items i ORDER BY i.embedding <-> q.embedding LIMIT 3)
                   FROM queries q WHERE q.id IN (3, 100, 101, 4) ORDER BY q.id"""
    with by_index(items):
        got = dict(items.execute(statement).fetchall())
    assert got[3] == got[101] and got[3] != got[4]
    assert len(got[100]) == 3


def test_self_join_of_neighbours(items):
    with by_index(items):
        rows = items.execute("""SELECT a.id, n.id, n.distance FROM items a, LATERAL
                                (SELECT b.id, b.embedding <-> a.embedding AS distance FROM items b
                                 ORDER BY b.embedding <-> a.embedding LIMIT 1) n WHERE a.id < 50""").fetchall()
    assert len(rows) == 50 and all(a == b and distance == 0 for a, b, distance in rows)


def test_two_searches_in_one_statement(items):
    with by_index(items):
        both = items.execute("""(SELECT id FROM items ORDER BY embedding <-> %b LIMIT 5) UNION ALL
                                (SELECT id FROM items ORDER BY embedding <-> %b LIMIT 5)""",
                             (Vector(QUERIES[0]), Vector(QUERIES[1]))).fetchall()
        assert sorted(row[0] for row in both) == sorted(
            id for query in QUERIES[:2] for id, _ in nearest(items, query, 5))


def test_joined_cte_and_subquery(items):
    with by_index(items):
        rows = items.execute("""WITH near AS MATERIALIZED (SELECT * FROM items ORDER BY embedding <-> %b LIMIT 20)
                                SELECT near.id FROM near JOIN queries USING (id) ORDER BY near.id""",
                             (Vector(ROWS[5]),)).fetchall()
        assert (5,) in rows
        assert items.execute("""SELECT count(*), max(label) < 10 FROM
                                (SELECT label FROM items ORDER BY embedding <-> %b LIMIT 20) s""",
                             (Vector(ROWS[5]),)).fetchone() == (20, True)


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan", "auto"])
def test_prepared_statements(items, mode):
    statement = "SELECT id, embedding <-> %(q)b FROM items ORDER BY embedding <-> %(q)b LIMIT 10"
    with by_index(items):
        expected = [nearest(items, query) for query in QUERIES]
    with by_index(items, plan_cache_mode=mode):
        assert [items.execute(statement, {"q": Vector(query)}, prepare=True).fetchall() for query in QUERIES] == expected


def test_prepared_statement_survives_drop_of_the_index(items):
    statement = "SELECT id FROM items ORDER BY embedding <-> %b LIMIT 3"
    with settings(items, plan_cache_mode="force_generic_plan"):
        for change in ("DROP INDEX items_embedding_idx", "CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops)", ""):
            assert items.execute(statement, (Vector(ROWS[7]),), prepare=True).fetchone() == (7,)
            if change:
                items.execute(change)


def test_in_a_function(items):
    items.execute("""CREATE FUNCTION closest(vector) RETURNS int LANGUAGE plpgsql STABLE AS
                     $$ BEGIN RETURN (SELECT id FROM items ORDER BY embedding <-> $1 LIMIT 1); END $$""")
    with by_index(items):
        got = items.execute("SELECT id, closest(embedding) FROM items WHERE id < 40").fetchall()
    assert all(a == b for a, b in got)


def test_parallel_workers(items):
    """The search inside a worker, and distances computed by several workers."""
    everywhere = "force_parallel_mode" if items.info.server_version < 160000 else "debug_parallel_query"
    with by_index(items):
        expected = nearest(items, QUERIES[0])
        with settings(items, **{everywhere: "on"}):
            assert "Gather" in plan(items, "SELECT id FROM items ORDER BY embedding <-> %b LIMIT 10", (Vector(QUERIES[0]),))
            assert nearest(items, QUERIES[0]) == expected
    radius = float(np.median(L2.distances(ROWS, QUERIES[0])))
    statement = "SELECT count(*), avg(embedding) FROM items WHERE embedding <-> %b < %s"
    with settings(items, ivflsh__enable_vector_scan="off"):
        alone = items.execute(statement, (Vector(QUERIES[0]), radius)).fetchone()
    with settings(items, ivflsh__enable_vector_scan="off", parallel_setup_cost=0, parallel_tuple_cost=0, min_parallel_table_scan_size=0,
                  max_parallel_workers_per_gather=2):
        assert "Partial Aggregate" in plan(items, statement, (Vector(QUERIES[0]), radius))
        together = items.execute(statement, (Vector(QUERIES[0]), radius)).fetchone()
        with exactly(items):
            assert len(nearest(items, QUERIES[0], 100)) == 100
    assert together[0] == alone[0]
    np.testing.assert_allclose(together[1].to_list(), alone[1].to_list(), rtol=1e-5, atol=1e-6)


def test_updates_and_deletes_of_the_nearest(items):
    with by_index(items):
        gone = [row[0] for row in items.execute("""DELETE FROM items WHERE id IN
            (SELECT id FROM items ORDER BY embedding <-> %b LIMIT 10) RETURNING id""", (Vector(QUERIES[0]),))]
        assert len(gone) == 10
        assert not set(gone) & {id for id, _ in nearest(items, QUERIES[0], 50)}


def test_select_for_update(items):
    with by_index(items), items.transaction():
        assert items.execute("SELECT id FROM items ORDER BY embedding <-> %b LIMIT 1 FOR UPDATE",
                             (Vector(ROWS[9]),)).fetchone() == (9,)


def assert_unharmed(items):
    """No buffer and no lock is left held: vacuum gets the pages it wants, and searches work."""
    items.execute("DELETE FROM items WHERE id > 2000")
    items.execute("VACUUM items")
    with by_index(items):
        assert len(nearest(items, QUERIES[0])) == 10


def test_error_amid_a_scan(items):
    with by_index(items):
        for _ in range(5):
            with pytest.raises(psycopg.errors.DivisionByZero):
                items.execute("""SELECT q.id, 1 / n.label FROM queries q, LATERAL
                                 (SELECT label FROM items ORDER BY embedding <-> q.embedding LIMIT 200) n""")
    assert_unharmed(items)


def test_cancelled_amid_scans(items):
    """A million searches, cancelled after half a second."""
    timer = threading.Timer(0.5, items.cancel)
    timer.start()
    with by_index(items), pytest.raises(psycopg.errors.QueryCanceled):
        items.execute("""SELECT count(*) FROM generate_series(1, 1000000) g, LATERAL
                         (SELECT id FROM items ORDER BY embedding <-> array_fill(g::real, ARRAY[24])::vector LIMIT 50) n""")
    timer.join()
    assert_unharmed(items)
