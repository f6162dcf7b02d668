"""Numbers that an index must bear: few distinct rows, rows without direction, outliers, the ends of f32's range."""

import numpy as np
import pytest
from pgvector import Vector

from harness.search import (COSINE, IP, L2, METRICS, as_type, by_index, clustered, exactly, insert, make_index, make_table,
                            settings)

TYPES = ("vector", "halfvec")
BITS = (0, 4, 8)
#: By metric, element type and bits of the codes.
EACH = [pytest.param(metric, kind, bits, id=f"{metric.name}-{kind}-{bits}")
        for metric in METRICS for kind in TYPES for bits in BITS]
DIMENSIONS = 5


def few_values(huge):
    """Tables of few distinct values, by name."""
    random = np.random.default_rng(7)
    one, zero = np.ones(DIMENSIONS), np.zeros(DIMENSIONS)

    def all_but(n, usual, other):
        rows = np.tile(usual, (n, 1)).astype(float)
        rows[n // 3] = other
        return rows

    return {
        "one row": one[None],
        "two rows": np.stack([one, 3 * one]),
        "all equal": np.tile(one, (300, 1)),
        "half zero": np.tile([zero, one], (200, 1)),
        "all zero": np.tile(zero, (300, 1)),
        "all but one equal": all_but(300, one, 20 * np.arange(DIMENSIONS)),
        "all but one zero": all_but(300, zero, one),
        "one huge": all_but(300, np.arange(DIMENSIONS), huge * one),
        "one huge among many": np.concatenate([random.normal(size=(400, DIMENSIONS)), [-huge * one]]),
        "33 at random": random.normal(size=(33, DIMENSIONS)),
        "0 and 1": random.integers(2, size=(300, DIMENSIONS)),
        "opposite": np.tile([one, -one], (150, 1)),
    }


def distances(connection, query, metric, kind, where=""):
    """The distances of all rows, as they come, by id."""
    distance = f"embedding {metric.operator} %(q)b"
    rows = connection.execute(f"SELECT id, {distance} FROM items {where} ORDER BY {distance}",
                              {"q": as_type(query, kind)}).fetchall()
    assert len({id for id, _ in rows}) == len(rows), "a row came twice"
    return rows


def as_postgres_does(row):
    """To sort rows by distance: NaN is the largest."""
    return np.isnan(row[1]), row[1]


def same(found, expected):
    """The same numbers in the same order; NaN is NaN."""
    np.testing.assert_array_equal([distance for _, distance in found], [distance for _, distance in expected])
    assert dict(sorted(found)).keys() == dict(sorted(expected)).keys()


def assert_right(connection, queries, metric, kind):
    """What the index answers is what the table has: all of it, rows without a distance last, within each distance, and,
    where one list is all there is, in order."""
    lists, rows = connection.execute("SELECT lists, rows FROM ivflsh_check('items_embedding_idx')").fetchone()
    recall = connection.execute("SELECT ivflsh_recall('items_embedding_idx', 20, 10)").fetchone()[0]
    # Of a single row, or none, there is nothing to measure.
    assert recall is None if rows < 2 else recall == 1 if lists == 1 else recall >= 0.8
    distance = f"embedding {metric.operator} %(q)b"
    for query in queries:
        with exactly(connection):
            expected = distances(connection, query, metric, kind)
        with by_index(connection, ivflsh__iterative_scan="relaxed_order"):
            found = distances(connection, query, metric, kind)
            same(found if lists == 1 else sorted(found, key=as_postgres_does), expected)
            for share in (0.1, 0.5):
                at = expected[int(share * len(expected))][1] if expected else 1.0
                if not np.isfinite(at):
                    continue
                radius = float(np.nextafter(at, np.inf) + abs(at) * 1e-5)
                counted = connection.execute(f"SELECT count(*) FROM items WHERE {distance} < %(r)s",
                                             {"q": as_type(query, kind), "r": radius}).fetchone()[0]
                assert counted == sum(d < radius for _, d in expected)


@pytest.mark.parametrize("metric, kind, bits", EACH)
def test_few_values(db, metric, kind, bits):
    """An index that was built, one that grew, and one whose rows have gone but for a few."""
    random = np.random.default_rng(3)
    for name, rows in few_values(6e4 if kind == "halfvec" else 1e7).items():
        rows = np.asarray(rows, np.float16 if kind == "halfvec" else np.float32)
        queries = [rows[0], rows[len(rows) // 3], random.normal(size=DIMENSIONS), [1, 1, 0.8, 1, 1]]
        queries = [np.asarray(query, np.float32) for query in queries]
        if metric == COSINE:
            queries = [query for query in queries if query.any()]
        for grown in (False, True):
            db.execute("DROP TABLE IF EXISTS items")
            make_table(db, rows[:0] if grown else rows, type_name=kind, dimensions=DIMENSIONS)
            make_index(db, metric, type_name=kind, options=f"WITH (bits = {bits})")
            if grown:
                insert(db, rows, type_name=kind)
            try:
                assert_right(db, queries, metric, kind)
                db.execute("DELETE FROM items WHERE id > 0 AND id %% 50 <> %s" % (len(rows) // 3 % 50))
                db.execute("VACUUM items")
                assert_right(db, queries, metric, kind)
            except Exception as error:
                error.add_note(f"{name}, {'grown' if grown else 'built'}")
                raise


@pytest.mark.parametrize("bits", BITS)
def test_the_only_list_is_around_its_rows(db, bits):
    """A sample without the one row that differs: all lists wanted are one, at a place of its own."""
    rows = np.ones((60_000, 8), np.float32)
    rows[5] = 20
    make_table(db, rows)
    make_index(db, L2, options=f"WITH (bits = {bits})")
    db.execute("SELECT ivflsh_check('items_embedding_idx')")
    with by_index(db):
        found = db.execute("SELECT id FROM items ORDER BY embedding <-> %b LIMIT 10", (Vector(rows[5]),)).fetchall()
        assert found[0][0] == 5 and len(found) == 10
        near = "SELECT count(*) FROM items WHERE embedding <-> %b < 1"
        assert db.execute(near, (Vector(rows[5]),)).fetchone()[0] == 1
        assert db.execute(near, (Vector(rows[6]),)).fetchone()[0] == 59_999


def test_rows_without_direction_do_not_move_the_mean(db):
    rows = np.tile(np.array([[0, 0, 0], [1, 1, 1]], np.float32), (500, 1))
    make_table(db, rows)
    make_index(db, COSINE)
    db.execute("SELECT ivflsh_check('items_embedding_idx')")
    assert db.execute("SELECT ivflsh_recall('items_embedding_idx', 100, 10)").fetchone()[0] == 1
    with by_index(db):
        query = Vector([1, 1, 0.8])
        assert db.execute("SELECT count(*) FROM items WHERE embedding <=> %b < 0.05", (query,)).fetchone()[0] == 500
        assert len(db.execute("SELECT id FROM items ORDER BY embedding <=> %b LIMIT 20", (query,)).fetchall()) == 20


def work(connection, queries, metric, limit=10):
    """Lists, entries and codes that these searches read."""
    total = np.zeros(4)
    for query in queries:
        found = connection.execute(f"SELECT id FROM items ORDER BY embedding {metric.operator} %b LIMIT {limit}",
                                   (Vector(query),)).fetchall()
        assert len(found) == limit
        total += connection.execute("SELECT lists, entries, refined, returned FROM ivflsh_last_scan()").fetchone()
    return total


def usual_recall(connection, queries, metric, limit=10):
    """Share of the true nearest rows that are found, among those that are not poison (ids from 100,000 on)."""
    hits = 0
    distance = f"embedding {metric.operator} %b"
    statement = f"SELECT id, {distance} FROM items ORDER BY {distance} LIMIT {limit}"
    for query in queries:
        with by_index(connection):
            found = connection.execute(statement, (Vector(query), Vector(query))).fetchall()
        with exactly(connection):
            truth = connection.execute(statement, (Vector(query), Vector(query))).fetchall()
        found_distances = [d for _, d in found]
        assert found_distances == sorted(found_distances)
        hits += len({id for id, _ in found} & {id for id, _ in truth})
    return hits / limit / len(queries)


def poison(scale, count, dimensions):
    """Rows far away, some alone in their direction and some together."""
    random = np.random.default_rng(int(np.log10(scale)) + count)
    rows = np.clip(np.where(random.random((count, 1)) < 0.5, 1, random.normal(size=(count, dimensions))), -1, 1)
    return np.clip(rows.astype(np.float64) * scale, -3.4e38, 3.4e38).astype(np.float32)


HOW = ("built", "reindexed", "sampled", "grown")


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
@pytest.mark.parametrize("how", HOW)
def test_who_may_insert_a_row_may_not_spoil_the_index(db, metric, how):
    """A few rows far away do not change what searches read and find: in an index that was built on them, built from a sample,
    or that grew over them."""
    dimensions, count = 16, 6000
    rows = clustered(count, dimensions)
    queries = clustered(30, dimensions, seed=9)
    # All rows are in the way of the rest: some of the poison comes first, some in the middle, some last.
    memory = "1MB" if how == "sampled" else "64MB"

    def make(bad):
        db.execute("DROP TABLE IF EXISTS items")
        with settings(db, maintenance_work_mem=memory):
            if how == "grown":
                make_table(db, [], dimensions=dimensions)
                make_index(db, metric, options="WITH (seed = 3)")
                third = len(bad) // 3
                insert(db, bad[:third], first_id=100_000)
                insert(db, rows[:count // 2])
                insert(db, bad[third:], first_id=100_000 + third)
                insert(db, rows[count // 2:], first_id=count // 2)
            else:
                make_table(db, rows)
                if how == "built":
                    insert(db, bad, first_id=100_000)
                make_index(db, metric, options="WITH (seed = 3)")
                if how != "built":
                    insert(db, bad, first_id=100_000)
                    db.execute("REINDEX INDEX items_embedding_idx")
        db.execute("SELECT ivflsh_check('items_embedding_idx')")
        with by_index(db):
            read = work(db, queries, metric)
        return read, usual_recall(db, queries, metric)

    clean, clean_recall = make(poison(1.0, 0, dimensions))
    for scale, n in ((1e7, 1), (1e7, 10), (1e14, 3), (1e30, 1), (1e30, 10), (3e38, 3)):
        read, recall = make(poison(scale, n, dimensions))
        what = f"{n} rows of {scale}: {read} instead of {clean}, recall {recall} instead of {clean_recall}"
        # By the inner product the list of the outliers is read, as they may be the nearest.
        more = len(queries) * np.array([1, clean[1] / clean[0]]) * (metric == IP)
        assert (read[:2] <= 1.3 * clean[:2] + more).all(), what
        # A row without bounds is looked at by each query.
        assert (read[2:] <= 1.3 * clean[2:] + 2 * n * len(queries)).all(), what
        assert recall >= clean_recall - 0.04, what


ENDS = {
    "1e36": lambda r, n: r.normal(size=(n, 6)) * 1e36,
    "1e18 to 1e19": lambda r, n: r.normal(size=(n, 6)) * 10 ** r.uniform(18, 19, size=(n, 1)),
    "one of 3e38": lambda r, n: np.where(np.arange(n)[:, None] == n // 2, 3e38, r.normal(size=(n, 6))),
    "some of 1e30": lambda r, n: r.normal(size=(n, 6)) * np.where(r.random((n, 1)) < 0.1, 1e30, 1),
    "all scales": lambda r, n: r.normal(size=(n, 6)) * 10 ** r.uniform(-44, 38, size=(n, 1)),
    "all scales inside": lambda r, n: r.normal(size=(n, 6)) * 10 ** r.uniform(-44, 38, size=(n, 6)),
    "1e-45": lambda r, n: np.where(r.random((n, 6)) < 0.5, 1e-45, 0),
    "some of 1e-45": lambda r, n: r.normal(size=(n, 6)) * np.where(r.random((n, 1)) < 0.1, 1.5e-45, 1),
    "near 3e38": lambda r, n: np.sign(r.normal(size=(n, 6))) * r.uniform(3e38, 3.4e38, size=(n, 6)),
}


@pytest.mark.parametrize("grown", (False, True), ids=("built", "grown"))
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_ends_of_the_range(db, metric, bits, grown):
    """Exact order, nothing left out, no alarm of the check, no row that makes later inserts fail."""
    for name, make in ENDS.items():
        random = np.random.default_rng(11)
        rows = np.clip(make(random, 500), -3.4e38, 3.4e38).astype(np.float32)
        queries = [rows[3], rows[250], *random.normal(size=(2, 6)).astype(np.float32),
                   np.full(6, 2e38, np.float32), np.full(6, 1e-30, np.float32)]
        db.execute("DROP TABLE IF EXISTS items")
        make_table(db, rows[:0] if grown else rows[:400], dimensions=6)
        make_index(db, metric, options=f"WITH (bits = {bits})")
        insert(db, rows if grown else rows[400:], first_id=0 if grown else 400)
        insert(db, random.normal(size=(20, 6)).astype(np.float32), first_id=900)
        try:
            for _ in range(2):
                db.execute("SELECT ivflsh_check('items_embedding_idx')")
                db.execute("SELECT ivflsh_recall('items_embedding_idx', 5, 10)")
                indexed = "WHERE embedding <> array_fill(0, ARRAY[6])::vector" if metric == COSINE else ""
                for query in queries:
                    with exactly(db):
                        expected = distances(db, query, metric, "vector", indexed)
                    # By the vector scan, and without a condition by the index scan of PostgreSQL.
                    for where in {indexed, "WHERE id >= 0" + indexed.replace("WHERE", " AND")}:
                        with by_index(db, ivflsh__iterative_scan="relaxed_order"):
                            found = distances(db, query, metric, "vector", where)
                        same(sorted(found, key=as_postgres_does), sorted(expected, key=as_postgres_does))
                        with by_index(db):
                            found = distances(db, query, metric, "vector", where)
                            assert [id for id, _ in found] == [id for id, _ in sorted(found, key=as_postgres_does)]
                    with by_index(db):
                        if metric != COSINE:
                            found = db.execute(f"SELECT embedding {metric.operator} %(q)b FROM items "
                                               f"ORDER BY embedding {metric.operator} %(q)b LIMIT 12",
                                               {"q": Vector(query)}).fetchall()
                            assert len(found) == 12 and found == sorted(found)
                db.execute("REINDEX INDEX items_embedding_idx")
        except Exception as error:
            error.add_note(name)
            raise


def test_rows_without_a_distance_come_last(db):
    """NaN, which the operator returns for rows that have no direction in f32, is the largest number to PostgreSQL."""
    random = np.random.default_rng(5)
    rows = random.normal(size=(2000, 4)).astype(np.float32)
    rows[::50] *= np.float32(1e-30)
    rows[7] = 3e38
    make_table(db, rows)
    make_index(db, COSINE)
    query = Vector([1, 2, 3, 4])
    for where in ("", "WHERE label < 5", "WHERE id %% 100 = 0 OR id = 7"):
        statement = f"SELECT id, embedding <=> %(q)b FROM items {where} ORDER BY embedding <=> %(q)b"
        with exactly(db):
            expected = db.execute(statement, {"q": query}).fetchall()
        assert np.isnan([distance for _, distance in expected]).any()
        with by_index(db):
            found = db.execute(statement, {"q": query}).fetchall()
            assert np.isnan([distance for _, distance in found]).sum() == np.isnan([d for _, d in expected]).sum()
            assert [row[0] for row in found] == [row[0] for row in sorted(found, key=as_postgres_does)]
        with by_index(db, ivflsh__iterative_scan="relaxed_order"):
            found = db.execute(statement, {"q": query}).fetchall()
            same(sorted(found, key=as_postgres_does), sorted(expected, key=as_postgres_does))
