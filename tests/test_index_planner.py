"""The planner takes the index when it pays and leaves it when it does not: with the settings as they come."""

import pytest
from pgvector import Vector

from harness.search import clustered, make_index, make_table, nearest, plan, uses_index

DIMENSIONS = 64
QUERY = Vector(clustered(1, DIMENSIONS, seed=2)[0])
NEAREST = "SELECT id FROM items ORDER BY embedding <-> %b LIMIT 10"


@pytest.fixture(scope="module")
def large(cluster):
    """A connection to a table of 20,000 rows that is only read."""
    from pgvector.psycopg import register_vector
    cluster.create_database("planner", "vector_ext")
    with cluster.connect("planner") as connection:
        register_vector(connection)
        make_table(connection, clustered(20000, DIMENSIONS))
        make_index(connection)
        connection.execute("VACUUM ANALYZE items")
        yield connection


def test_large_table(large):
    assert uses_index(large, NEAREST, (QUERY,))
    assert uses_index(large, NEAREST.replace("10", "1"), (QUERY,))
    assert uses_index(large, NEAREST.replace("10", "100"), (QUERY,))


def test_large_table_with_a_filter_that_most_rows_pass(large):
    assert uses_index(large, "SELECT id FROM items WHERE label <> 3 ORDER BY embedding <-> %b LIMIT 10", (QUERY,))


def test_large_table_in_a_join(large):
    statement = """SELECT q.id, n.id FROM (SELECT * FROM items WHERE id < 50) q,
                   LATERAL (SELECT i.id FROM items i ORDER BY i.embedding <-> q.embedding LIMIT 5) n"""
    assert uses_index(large, statement)


def test_large_table_prepared(large):
    large.execute("SET plan_cache_mode = force_generic_plan; PREPARE find(vector) AS SELECT id FROM items ORDER BY embedding <-> $1 LIMIT 10")
    assert "Index Scan using items_embedding_idx" in plan(large, "EXECUTE find('[1]')")
    large.execute("RESET plan_cache_mode")


def test_few_rows_by_another_index(large):
    shown = plan(large, "SELECT id FROM items WHERE id IN (1, 2, 3) ORDER BY embedding <-> %b LIMIT 10", (QUERY,))
    assert "items_embedding_idx" not in shown and "items_pkey" in shown


def test_all_rows_in_order(large):
    """Without a LIMIT all rows are wanted: sorting is exact, and cheaper."""
    assert not uses_index(large, "SELECT id FROM items ORDER BY embedding <-> %b", (QUERY,))


def test_what_the_index_cannot_do(large):
    for statement in ("SELECT id FROM items ORDER BY embedding <=> %b LIMIT 10",
                      "SELECT id FROM items WHERE embedding <-> %b > 1",
                      "SELECT id FROM items ORDER BY embedding <-> %b DESC LIMIT 10"):
        assert not uses_index(large, statement, (QUERY,))
    assert not uses_index(large, "SELECT count(*) FROM items")


@pytest.mark.parametrize("count", [0, 1, 20])
def test_tiny_table(db, count):
    make_table(db, clustered(count, DIMENSIONS), dimensions=DIMENSIONS)
    make_index(db)
    db.execute("VACUUM ANALYZE items")
    if count:  # of a table that was never filled the planner knows nothing
        assert "Seq Scan on items" in plan(db, NEAREST, (QUERY,))
    assert len(nearest(db, QUERY.to_list())) == min(count, 10)
