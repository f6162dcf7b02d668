"""Small things that clients, monitors and people who come from pgvector expect."""

import pytest

from harness.search import L2, by_index, clustered, make_index, make_table, plan

ROWS = clustered(3000, 16)


@pytest.fixture
def items(db):
    make_table(db, ROWS)
    make_index(db, L2)
    return db


@pytest.mark.parametrize("where", ["", "WHERE label = 3"])
def test_dimensions_of_the_query_come_first(items, refused, where):
    """In an index scan, as in pgvector's."""
    with by_index(items):
        for order in ("embedding <-> '[1,2]'", "'[1,2]' <-> embedding"):
            refused(items, "22000", "different vector dimensions 2 and 16", f"SELECT id FROM items {where} ORDER BY {order} LIMIT 3")
    refused(items, "22000", "different vector dimensions 16 and 2", "SELECT embedding <-> '[1,2]' FROM items")


def test_column_that_is_no_vector(items, refused):
    refused(items, "42704", 'data type integer has no default operator class for access method "ivflsh"',
            "CREATE INDEX ON items USING ivflsh (id)")
    refused(items, "42704", 'data type integer has no default operator class for access method "ivflsh"',
            "CREATE INDEX ON items USING ivflsh (label, embedding)")


def statistics(db):
    db.execute("SELECT pg_stat_force_next_flush()" if db.info.server_version >= 150000 else "SELECT pg_sleep(1)")
    db.execute("SELECT pg_stat_clear_snapshot()")
    return db.execute("""SELECT idx_scan, idx_tup_read FROM pg_stat_user_indexes
                         WHERE indexrelname = 'items_embedding_idx'""").fetchone()


@pytest.mark.parametrize("vector_scan", ["inline", "off"])
def test_statistics(items, vector_scan):
    """Scans, and entries that they returned, of plain index scans and of vector scans."""
    scans, read = statistics(items)
    query = "SELECT id FROM items WHERE label < 8 ORDER BY embedding <-> (SELECT embedding FROM items WHERE id = 7) LIMIT 5"
    with by_index(items, ivflsh__enable_vector_scan=vector_scan):
        assert ("vector scan" in plan(items, query)) == (vector_scan == "inline")
        for _ in range(3):
            items.execute(query)
    after = statistics(items)
    assert after[0] == scans + 3 and after[1] >= read + 15


def test_index_searches(items):
    """PostgreSQL 18 shows how often an index was searched."""
    if items.info.server_version < 180000:
        pytest.skip("from PostgreSQL 18 on")
    with by_index(items):
        shown = "\n".join(row[0] for row in items.execute(
            f"EXPLAIN ANALYZE SELECT id FROM items ORDER BY embedding <-> '{ROWS[0].tolist()}' LIMIT 5"))
    assert "Index Searches: 1" in shown
    name, version = items.execute("SELECT module_name, version FROM pg_get_loaded_modules() "
                                  "WHERE file_name ~ '^vector_ext'").fetchone()
    installed = items.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector_ext'").fetchone()[0]
    assert (name, version) == ("vector_ext", installed)


@pytest.mark.parametrize("type_name", ["vector", "halfvec"])
def test_states_of_averages_have_a_limit(db, refused, type_name):
    """What no vector can hold is refused when states are combined, as from pgvector 0.8.6 on."""
    state = "array_prepend({}::float8, (SELECT array_agg(1.0::float8) FROM generate_series(1, {})))"
    for one, other in ((1, 1), (0, 1), (1, 0)):
        refused(db, "54000", "vector cannot have more than 16000 dimensions",
                f"SELECT {type_name}_combine({state.format(one, 16001)}, {state.format(other, 16001)})")
    most = state.format(1, 16000)
    assert db.execute(f"SELECT array_length({type_name}_combine({most}, {most}), 1)").fetchone() == (16001,)
    refused(db, "54000", "sparsevec cannot have more than 16000 non-zero elements",
            "SELECT (SELECT array_agg(1::real) FROM generate_series(1, 16001))::sparsevec")
