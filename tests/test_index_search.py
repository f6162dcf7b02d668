"""What a search by index returns: enough of the true neighbours, in exact order, with true distances."""

import numpy as np
import pytest
from pgvector import Vector

from harness import fashion
from harness.search import (COSINE, IP, L2, METRICS, assert_holds_exactly, assert_in_order, assert_recall, by_index,
                            clustered, make_index, make_table, nearest, settings, uses_index)

QUERIES = clustered(60, 48, seed=2)


@pytest.mark.parametrize("type_name", ["vector", "halfvec"])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_recall_and_order(db, metric, type_name):
    make_table(db, clustered(5000, 48), type_name=type_name)
    make_index(db, metric, type_name=type_name)
    assert_recall(db, QUERIES, 0.93, metric=metric, type_name=type_name)


def test_recall_on_images(db):
    images, _ = fashion.load("train")
    queries, _ = fashion.load("t10k")
    make_table(db, images[:6000].astype(np.float32))
    make_index(db)
    assert_recall(db, queries[:40].astype(np.float32), 0.93)


def test_distances_agree_with_numpy(db):
    rows = clustered(2000, 48)
    make_table(db, rows)
    for metric in METRICS:
        make_index(db, metric)
        with by_index(db):
            for query in QUERIES[:20]:
                ids, distances = zip(*nearest(db, query, 20, metric=metric))
                np.testing.assert_allclose(distances, metric.distances(rows[list(ids)], query), rtol=1e-4, atol=1e-5)
        db.execute("DROP INDEX items_embedding_idx")


@pytest.mark.parametrize("limit", [1, 2, 10, 100, 400])
def test_limits(db, limit):
    make_table(db, clustered(4000, 16))
    make_index(db)
    assert_recall(db, clustered(10, 16, seed=2), 0.9, limit=limit)


def test_limit_larger_than_the_table(db):
    make_table(db, clustered(300, 16))
    make_index(db)
    query = clustered(1, 16, seed=2)[0]
    with by_index(db, ivflsh__iterative_scan="relaxed_order"):
        assert len(nearest(db, query, 1000)) == 300
    with by_index(db):
        assert_in_order(nearest(db, query, 1000))
    assert_holds_exactly(db, query)


def test_limit_zero_and_offset(db):
    make_table(db, clustered(1000, 16))
    make_index(db)
    query = clustered(1, 16, seed=2)[0]
    with by_index(db):
        assert nearest(db, query, 0) == []
        whole = nearest(db, query, 30)
        assert nearest(db, query, "10 OFFSET 20") == whole[20:]


def test_same_answer_again(db):
    make_table(db, clustered(3000, 32))
    make_index(db)
    with by_index(db):
        for query in clustered(10, 32, seed=2):
            assert nearest(db, query) == nearest(db, query)


def test_rows_find_themselves(db):
    rows = clustered(3000, 32)
    make_table(db, rows)
    make_index(db)
    with by_index(db):
        for i in range(0, 3000, 30):
            assert nearest(db, rows[i], 1) == [(i, 0.0)]


def test_filter_fills_the_limit(db):
    make_table(db, clustered(6000, 32))
    make_index(db)
    with by_index(db, enable_bitmapscan="off"):
        for query in clustered(30, 32, seed=2):
            rows = nearest(db, query, where="WHERE label = 3")
            assert len(rows) == 10 and all(id % 10 == 3 for id, _ in rows)
            assert_in_order(rows)


def test_selective_filter_fills_the_limit(db):
    make_table(db, clustered(6000, 32))
    make_index(db)
    with by_index(db, enable_bitmapscan="off", ivflsh__iterative_scan="relaxed_order"):
        for query in clustered(5, 32, seed=2):
            rows = nearest(db, query, where="WHERE id %% 600 = 7")  # 10 rows, wherever they are
            assert sorted(id for id, _ in rows) == list(range(7, 6000, 600))


def test_filter_that_nothing_passes(db):
    make_table(db, clustered(2000, 32))
    make_index(db)
    with by_index(db):
        assert nearest(db, QUERIES[0][:32], where="WHERE label = 77") == []


def test_duplicates(db):
    rows = clustered(500, 8)
    make_table(db, np.concatenate([rows, np.repeat(rows[:1], 1500, axis=0)]))
    make_index(db)
    with by_index(db):
        found = nearest(db, rows[0], 1000)
    assert len(found) == 1000
    assert all(distance == 0 for _, distance in found)
    assert_in_order(found)
    assert_holds_exactly(db, rows[0])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_rows_alike(db, value):
    make_table(db, np.full((1000, 8), value, np.float32))
    make_index(db)
    assert_holds_exactly(db, np.ones(8))
    with by_index(db):
        rows = nearest(db, np.ones(8), 50)
    assert len(rows) == 50 and len({distance for _, distance in rows}) == 1


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_extreme_values(db, metric):
    """Very large, very small, and both together: no overflow, no rows lost, the order holds."""
    rows = clustered(600, 16)
    rows[:200] *= 1e15
    rows[200:400] *= 1e-15
    make_table(db, rows)
    make_index(db, metric)
    assert_holds_exactly(db, rows[0], metric=metric)
    with by_index(db):
        for query in rows[::60]:
            found = nearest(db, query, 10, metric=metric)
            assert len(found) == 10
            assert_in_order(found)


def test_null_vectors_come_last(db):
    rows = list(clustered(200, 8))
    rows[::2] = [None] * 100
    make_table(db, rows, dimensions=8)
    make_index(db)
    assert_holds_exactly(db, rows[1])
    with by_index(db):
        assert all(id % 2 == 1 for id, _ in nearest(db, rows[1], 50))
    assert db.execute("SELECT count(*) FROM items WHERE embedding IS NULL").fetchone() == (100,)


def test_only_null_vectors(db):
    make_table(db, [None] * 50, dimensions=3)
    make_index(db)
    with by_index(db):
        found = nearest(db, [1, 2, 3])
    assert len(set(found)) == 10 and all(distance is None for _, distance in found)


def test_zero_vectors_have_no_direction(db):
    """Under cosine they are not indexed, as users of the ecosystem know it; a scan has them at its end. Under the other distances they are."""
    rows = clustered(300, 8)
    rows[::3] = 0
    make_table(db, rows)
    make_index(db, COSINE)
    assert_holds_exactly(db, rows[1], metric=COSINE, where="vector_norm(embedding) > 0")
    with by_index(db):
        found = nearest(db, rows[1], 100, metric=COSINE)
        assert all(id % 3 for id, _ in found) and all(distance == distance for _, distance in found)
        for _, distance in nearest(db, np.zeros(8), 10, metric=COSINE):
            assert np.isnan(distance)
    for metric in (L2, IP):
        db.execute("DROP INDEX items_embedding_idx")
        make_index(db, metric)
        assert_holds_exactly(db, rows[1], metric=metric)
        with by_index(db):
            assert len(nearest(db, np.zeros(8), 10, metric=metric)) == 10


def test_null_query(db):
    make_table(db, clustered(100, 8))
    make_index(db)
    db.execute("PREPARE find(vector) AS SELECT id, embedding <-> $1 FROM items ORDER BY embedding <-> $1 LIMIT 5")
    with by_index(db, plan_cache_mode="force_generic_plan"):
        assert "Index Scan" in "\n".join(row[0] for row in db.execute("EXPLAIN EXECUTE find(NULL)"))
        rows = db.execute("EXECUTE find(NULL)").fetchall()
        assert len(rows) == 5 and all(distance is None for _, distance in rows)
        assert len(db.execute("EXECUTE find('[1,2,3,4,5,6,7,8]')").fetchall()) == 5


def test_empty_table(db):
    make_table(db, [], dimensions=3)
    make_index(db)
    with by_index(db):
        assert uses_index(db, "SELECT id FROM items ORDER BY embedding <-> '[1,2,3]' LIMIT 5")
        assert nearest(db, [1, 2, 3]) == []


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_one_row(db, metric):
    make_table(db, np.array([[3, 4, 0]], np.float32))
    make_index(db, metric)
    with by_index(db):
        [(id, distance)] = nearest(db, [3, 0, 0], metric=metric)
    assert id == 0 and distance == pytest.approx({"l2": 4, "ip": -9, "cosine": 0.4}[metric.name])


@pytest.mark.parametrize("type_name", ["vector", "halfvec"])
@pytest.mark.parametrize("dimensions, count", [(1, 800), (2, 800), (3, 800), (7, 800), (33, 800), (2000, 250),
                                               (4096, 150), (16000, 60)])
def test_dimensions(db, dimensions, count, type_name):
    rows = clustered(count, dimensions, clusters=8)
    make_table(db, rows, type_name=type_name)
    for metric in METRICS:
        if dimensions == 1 and metric == COSINE:
            continue  # all distances are 0 or 2
        make_index(db, metric, type_name=type_name)
        assert_recall(db, clustered(10, dimensions, seed=2, clusters=8), 0.9, metric=metric, type_name=type_name)
        assert_holds_exactly(db, rows[0], metric=metric, type_name=type_name)
        db.execute("DROP INDEX items_embedding_idx")


def test_probes_and_target_recall(db):
    """More probes find more, up to everything; a target recall is reached."""
    make_table(db, clustered(6000, 32, clusters=200, spread=0.9))
    make_index(db, options="WITH (lists = 60)")
    queries = clustered(40, 32, seed=2, clusters=200, spread=0.9)

    def recall(**values):
        with settings(db, **values):
            return assert_recall(db, queries, 0)

    assert recall(ivflsh__probes=60) >= 0.995
    assert recall(ivflsh__probes=1) <= recall(ivflsh__probes=10) + 0.02
    assert recall(ivflsh__target_recall=0.99) >= 0.96


@pytest.mark.parametrize("lists", [0, 1, 7, 500])
def test_number_of_lists(db, lists):
    make_table(db, clustered(2000, 16))
    make_index(db, options=f"WITH (lists = {lists})")
    assert_recall(db, clustered(10, 16, seed=2), 0.9)
    assert_holds_exactly(db, QUERIES[0][:16])


def test_farthest_first_is_sorted(db):
    """The index knows the nearest only: ORDER BY … DESC is answered exactly, without it."""
    rows = clustered(2000, 16)
    make_table(db, rows)
    make_index(db)
    statement = "SELECT id FROM items ORDER BY embedding <-> %b DESC LIMIT 5"
    query = Vector(rows[0])
    assert not uses_index(db, statement, (query,))
    assert db.execute(statement, (query,)).fetchone()[0] == np.argmax(L2.distances(rows, rows[0]))


def test_explain_analyze(db):
    make_table(db, clustered(2000, 16))
    make_index(db)
    with by_index(db):
        rows = db.execute("EXPLAIN (ANALYZE, BUFFERS, VERBOSE, SETTINGS) SELECT id FROM items ORDER BY embedding <-> %b LIMIT 5",
                          (Vector(QUERIES[0][:16]),)).fetchall()
    assert any("Order By:" in row[0] for row in rows)
