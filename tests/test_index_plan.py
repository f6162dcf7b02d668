"""What reaches the index scan from the plan above it: the LIMIT; and what the scan need not compute."""

import numpy as np
import pytest
from pgvector import Vector

from harness import fashion
from harness.search import (L2, assert_in_order, assert_recall, by_index, clustered, exactly, make_index, make_table,
                            nearest)

ROWS = clustered(6000, 24, clusters=300)
QUERIES = clustered(20, 24, seed=2, clusters=300)
QUERY = Vector(QUERIES[0])
NEAREST = "SELECT id FROM items ORDER BY embedding <-> %b LIMIT 10"


@pytest.fixture
def items(db):
    make_table(db, ROWS)
    make_index(db)
    with by_index(db):
        yield db


def output(connection, statement, *parameters):
    """The columns that the index scan computes."""
    rows = connection.execute("EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) " + statement, parameters).fetchone()[0]

    def find(node):
        if node["Node Type"] == "Index Scan" and node["Index Name"] == "items_embedding_idx" or node["Node Type"] == "Custom Scan":
            return node["Output"]
        return next((found for child in node.get("Plans", ()) if (found := find(child))), None)
    return find(rows[0]["Plan"])


def work(connection):
    """Of the last scan: lists, entries, refined, returned, rechecked."""
    return connection.execute("SELECT lists, entries, refined, returned, rechecked FROM ivflsh_last_scan()").fetchone()


def test_distance_that_nobody_sees_is_not_computed(items):
    assert output(items, NEAREST, QUERY) == ["id", "NULL::double precision"]
    found = [row[0] for row in items.execute(NEAREST, (QUERY,))]
    assert found == [id for id, _ in nearest(items, QUERIES[0], 10)]


def test_nor_by_a_vector_scan(items):
    statement = "SELECT id FROM items WHERE label < 5 ORDER BY embedding <-> %b LIMIT 10"
    assert output(items, statement, QUERY) == ["id", "NULL::double precision"]
    assert output(items, statement.replace("id FROM", "id, embedding <-> %b FROM"), QUERY, QUERY)[1:] != ["NULL::double precision"]
    found = [row[0] for row in items.execute(statement, (QUERY,))]
    with exactly(items):
        assert found == [row[0] for row in items.execute(statement, (QUERY,))]


@pytest.mark.parametrize("statement", [
    "SELECT id, embedding <-> %b FROM items ORDER BY 2 LIMIT 10",
    "SELECT id, embedding <-> %b AS d FROM items ORDER BY embedding <-> %b LIMIT 10",
    "SELECT id FROM items ORDER BY embedding <-> %b FETCH FIRST 10 ROWS WITH TIES",
    "SELECT id FROM items ORDER BY embedding <-> %b, id LIMIT 10",
    "SELECT id FROM (SELECT id, embedding <-> %b AS d FROM items ORDER BY d LIMIT 10) n WHERE d >= 0",
    "SELECT id FROM items ORDER BY embedding <-> %b LIMIT 10 FOR UPDATE",
    "SELECT ctid, id FROM items ORDER BY embedding <-> %b LIMIT 30",
    "(SELECT id FROM items ORDER BY embedding <-> %b LIMIT 10) UNION ALL SELECT 0",
    "SELECT id, rank() OVER (ORDER BY embedding <-> %b) FROM items ORDER BY embedding <-> %b LIMIT 10",
    "SELECT id FROM items WHERE label < 5 ORDER BY embedding <-> %b LIMIT 10 OFFSET 3",
])
def test_same_answers_with_and_without_the_index(items, statement):
    """All the ways in which the distance is or is not needed above the scan."""
    parameters = (QUERY,) * statement.count("%b")
    with by_index(items, ivflsh__probes="1000"):
        found = items.execute(statement, parameters).fetchall()
    with exactly(items):
        true = items.execute(statement, parameters).fetchall()
    assert [row[0] for row in found] == [row[0] for row in true]


def test_subquery_needs_no_distance_either(items):
    statement = """SELECT q.id, n.id FROM (SELECT * FROM items WHERE id < 20) q,
                   LATERAL (SELECT i.id FROM items i ORDER BY i.embedding <-> q.embedding LIMIT 1) n"""
    assert output(items, statement)[1:] == ["NULL::double precision"]
    assert all(query == row for query, row in items.execute(statement))


def test_limit_reaches_the_scan(items):
    """As many lists as it takes at once, instead of starting over for more rows."""
    lists = {}
    for limit in (5, 10, 100, 1000):
        items.execute(NEAREST.replace("10", str(limit)), (QUERY,)).fetchall()
        lists[limit], _, _, returned, _ = work(items)
        assert returned >= limit
    assert lists[5] == lists[10] <= lists[100] <= lists[1000]
    # A cursor without LIMIT has to find out.
    with items.transaction():
        items.execute("DECLARE c CURSOR FOR SELECT id FROM items ORDER BY embedding <-> %b", (QUERY,))
        assert len(items.execute("FETCH 100 FROM c").fetchall()) == 100
        items.execute("CLOSE c")
    assert work(items)[0] > lists[100]


@pytest.mark.parametrize("how", ["LIMIT 100", "LIMIT 100 OFFSET 0", "LIMIT $2"])
def test_limit_in_other_words(items, how):
    items.execute(NEAREST.replace("10", "100"), (QUERY,)).fetchall()
    lists = work(items)[0]
    types, values = ("vector, bigint", "$1, 100") if "$" in how else ("vector", "$1")
    items.execute(f"PREPARE find({types}) AS SELECT id FROM items ORDER BY embedding <-> $1 {how}")
    values = values.replace("$1", "'" + str(QUERIES[0].tolist()) + "'")
    for mode in ("force_custom_plan", "force_generic_plan"):
        items.execute(f"SET plan_cache_mode = {mode}")
        items.execute(f"EXECUTE find({values})").fetchall()
        assert work(items)[0] == lists


@pytest.mark.parametrize("limit", [16, 20, 24, 50, 100, 300])
def test_recall_at_other_limits(db, limit):
    rows = clustered(20000, 24, clusters=2000)
    make_table(db, rows)
    make_index(db)
    assert_recall(db, clustered(40, 24, seed=2, clusters=2000), 0.93, limit=limit)


def test_few_rows_are_read_for_their_distance(db):
    """Wide vectors: the codes tell the order of most rows, and tell it exactly."""
    rows, queries = (fashion.load(part)[0].astype(np.float32) for part in ("train", "t10k"))
    make_table(db, rows[:3000])
    make_index(db)
    rechecked = 0
    with by_index(db, ivflsh__probes="1000"):
        for query in queries[:40]:
            found = nearest(db, query, 10)
            assert_in_order(found)
            assert [id for id, _ in found] == np.argsort(L2.distances(rows[:3000], query), kind="stable")[:10].tolist()
            rechecked += work(db)[4]
    assert rechecked < 40 * 4
