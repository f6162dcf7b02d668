"""What the planner is told about the costs of distances."""

import pytest

from harness.search import clustered, make_table


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


def index_of(db, statement):
    plan = db.execute("EXPLAIN (FORMAT JSON) " + statement).fetchone()[0][0]["Plan"]
    while "Index Name" not in plan:
        plan = plan["Plans"][0]
    return plan["Index Name"]


@pytest.mark.parametrize("expression", ["v", "(v::halfvec(24))"])
def test_filter_columns_without_condition_are_not_chosen(db, expression):
    """One index has grown, or its rule was measured otherwise: one with filter columns then seems cheaper, by a little."""
    make_table(db, clustered(1000, 24))
    db.execute("ALTER TABLE items RENAME embedding TO v; ALTER TABLE items ADD a int DEFAULT 1, ADD b int DEFAULT 2")
    columns = f"{expression} {'vector' if expression == 'v' else 'halfvec'}_l2_ops"
    more = "INSERT INTO items SELECT i + {}, 1, (SELECT v FROM items WHERE id = i % 1000), i % 3, i % 2 FROM generate_series(0, 2999) i; ANALYZE items"
    db.execute(f"CREATE INDEX plain ON items USING ivflsh ({columns})")
    db.execute(more.format(1000))
    db.execute(f"CREATE INDEX ab ON items USING ivflsh ({columns}, a, b); CREATE INDEX a ON items USING ivflsh ({columns}, a)")
    db.execute("SET enable_seqscan = off; SET enable_sort = off; SET ivflsh.enable_vector_scan = off")
    order = f"ORDER BY {expression} <-> '{[0.5] * 24}' LIMIT"
    for limit in (1, 10, 100):
        assert index_of(db, f"SELECT id FROM items {order} {limit}") == "plain"
    assert index_of(db, f"SELECT id FROM items WHERE a = 1 AND b = 1 {order} 10") == "ab"
    # One that is on part of the rows counts where the condition is there.
    db.execute(f"DROP INDEX plain; CREATE INDEX part ON items USING ivflsh ({columns}) WHERE id < 3000")
    assert index_of(db, f"SELECT id FROM items {order} 10") == "a"
    assert index_of(db, f"SELECT id FROM items WHERE id < 3000 {order} 10") == "part"
    # One that is far from good is no reason to take it.
    db.execute(f"DROP INDEX part; CREATE INDEX bad ON items USING ivflsh ({columns}) WITH (lists = 1)")
    assert index_of(db, f"SELECT id FROM items {order} 10") == "a"
