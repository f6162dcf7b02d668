"""What the planner is told about the costs of distances."""


def cost(db, statement):
    return db.execute("EXPLAIN (FORMAT JSON) " + statement).fetchone()[0][0]["Plan"]["Total Cost"]


def test_sorts_of_many_rows_are_not_compiled(db):
    """340,000 rows in order of a distance, without LIMIT: below what makes PostgreSQL compile the statement, which takes longer."""
    db.execute("""CREATE TABLE items (id int, v vector(100));
        INSERT INTO items SELECT i, array_fill(i % 7, ARRAY[100])::vector(100) FROM generate_series(1, 10000) i; ANALYZE items;
        SET max_parallel_workers_per_gather = 0""")
    limit = float(db.execute("SHOW jit_above_cost").fetchone()[0])
    query = str([1] * 100)
    with_order = cost(db, f"SELECT id FROM items ORDER BY v <-> '{query}'")
    assert with_order * 34 < limit
    # Yet a distance is not for nothing: less than for reading the row, more than for an operator of integers.
    scan = cost(db, "SELECT id FROM items")
    distances = cost(db, f"SELECT v <-> '{query}' FROM items") - scan
    integers = cost(db, "SELECT id + 1 FROM items") - scan
    assert 10 * integers < distances < 3 * scan
