"""The contract: an answer differs from that of a sequential scan only in which rows a LIMIT returns. Here: scans to the end, pages of an
order, rows that are not in the index, system columns and row locks."""



import numpy as np
import pytest
from pgvector import Vector

from harness.search import COSINE, L2, METRICS, by_index, clustered, exactly, insert, make_index, make_table, plan, settings, uses_index

ROWS = clustered(6000, 24)
QUERIES = clustered(12, 24, seed=2)
BY_DISTANCE = "SELECT id, embedding <-> %(q)b FROM items ORDER BY embedding <-> %(q)b"


@pytest.fixture(scope="module")
def shared(cluster):
    """A connection to an indexed table of ROWS that tests only read."""
    from pgvector.psycopg import register_vector
    cluster.create_database("contract", "vector_ext")
    with cluster.connect("contract") as connection:
        register_vector(connection)
        make_table(connection, ROWS)
        make_index(connection)
        yield connection


def q(query):
    return {"q": Vector(query)}


def assert_same(found, truth):
    """The same rows in the same order, but for rows equally far away."""
    assert [d for _, d in found] == [d for _, d in truth]
    assert sorted(found) == sorted(truth)


def assert_all(found, truth):
    """The same rows; those that turned up late are at the end."""
    assert sorted(found) == sorted(truth)
    distances = [d for _, d in found]
    late = next((i for i in range(1, len(distances)) if distances[i] < distances[i - 1]), len(distances))
    assert distances[:late] == sorted(distances[:late]) and distances[late:] == sorted(distances[late:])
    assert len(distances) - late <= 0.01 * len(distances)


@pytest.mark.parametrize("end", ["", "LIMIT NULL", "LIMIT ALL", "LIMIT 100000", "OFFSET 5", "LIMIT NULL OFFSET 5",
                                 "LIMIT (SELECT NULL::bigint)", "LIMIT (SELECT 100000)", "FETCH FIRST 7 ROWS WITH TIES"])
@pytest.mark.parametrize("where", ["", "WHERE label = 3"])
def test_without_a_limit_every_row_comes(shared, end, where):
    statement = BY_DISTANCE.replace(" ORDER", f" {where} ORDER") + " " + end
    for query in QUERIES[:4]:
        with exactly(shared):
            truth = shared.execute(statement, q(query)).fetchall()
        for choice in ({}, {"enable_sort": "off", "enable_seqscan": "off"}):
            with settings(shared, **choice):
                assert_all(shared.execute(statement, q(query)).fetchall(), truth)


@pytest.mark.parametrize("language", ["plpgsql", "sql"])
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_limit_that_is_a_parameter_of_a_function(shared, language, mode):
    body = """SELECT i.id, i.embedding <-> q FROM items i WHERE i.label < 5 ORDER BY i.embedding <-> q LIMIT most"""
    body = f"BEGIN RETURN QUERY {body}; END" if language == "plpgsql" else body
    shared.execute(f"""CREATE OR REPLACE FUNCTION matches(q vector, most int) RETURNS TABLE (id int, distance float8)
                       LANGUAGE {language} STABLE AS $$ {body} $$""")
    statement = "SELECT id, distance FROM matches(%(q)b, {})"
    for most in ("NULL", "100000", "1200", "10"):
        for query in QUERIES[:3]:
            with exactly(shared):
                truth = shared.execute(statement.format(most), q(query)).fetchall()
            with by_index(shared, plan_cache_mode=mode):
                found = shared.execute(statement.format(most), q(query)).fetchall()
            if most in ("NULL", "100000"):
                assert_same(found, truth)
            else:
                assert len(found) == int(most) and len(set(found) & set(truth)) >= 0.9 * int(most)


@pytest.mark.parametrize("where", ["", "WHERE label = 3"])
@pytest.mark.parametrize("how", ["", "NO SCROLL", "SCROLL", "WITH HOLD"])
def test_cursor_to_the_end(shared, where, how):
    statement = BY_DISTANCE.replace(" ORDER", f" {where} ORDER")
    options, hold = ("", "WITH HOLD") if how == "WITH HOLD" else (how, "")
    for query in QUERIES[:3]:
        with exactly(shared):
            truth = shared.execute(statement, q(query)).fetchall()
        with by_index(shared), shared.transaction():
            shared.execute(f"DECLARE c {options} CURSOR {hold} FOR {statement}", q(query))
            found = [row for count in (1, 9, 40, 300) for row in shared.execute(f"FETCH {count} FROM c").fetchall()]
            while rows := shared.execute("FETCH 1000 FROM c").fetchall():
                found += rows
            shared.execute("CLOSE c")
        assert_all(found, truth)


def test_partitions_and_lateral_to_the_end(db):
    db.execute("CREATE TABLE items (id int, label int, embedding vector(24)) PARTITION BY LIST (label)")
    for label in range(10):
        db.execute(f"CREATE TABLE items_{label} PARTITION OF items FOR VALUES IN ({label})")
    insert(db, ROWS[:3000])
    db.execute("CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops)")
    db.execute("ANALYZE items")
    make_table(db, QUERIES[:2], table="queries")
    lateral = """SELECT n.id, n.d FROM queries, LATERAL (SELECT i.id, i.embedding <-> queries.embedding AS d FROM items i
                 ORDER BY i.embedding <-> queries.embedding {}) n"""
    for statement in (BY_DISTANCE, BY_DISTANCE + " LIMIT NULL", BY_DISTANCE + " LIMIT 5000", lateral.format(""), lateral.format("LIMIT 5000")):
        with exactly(db):
            truth = db.execute(statement, q(QUERIES[5])).fetchall()
        with by_index(db):
            assert sorted(db.execute(statement, q(QUERIES[5])).fetchall()) == sorted(truth)


def test_what_groups_or_joins_by_distance_is_exact(shared):
    for statement in ("SELECT embedding <-> %(q)b AS d, count(*) FROM items GROUP BY d ORDER BY d",
                      "SELECT DISTINCT embedding <-> %(q)b FROM items ORDER BY 1",
                      "SELECT id, rank() OVER (ORDER BY embedding <-> %(q)b) FROM items ORDER BY 2, 1",
                      "SELECT count(*) FROM (SELECT id FROM items ORDER BY embedding <-> %(q)b) s",
                      """SELECT a.id FROM items a JOIN items b ON a.embedding <-> %(q)b = b.embedding <-> %(q)b
                         WHERE b.label = 1 ORDER BY 1"""):
        with exactly(shared):
            truth = shared.execute(statement, q(QUERIES[0])).fetchall()
        with by_index(shared, enable_hashagg="off"):
            assert shared.execute(statement, q(QUERIES[0])).fetchall() == truth


# Rows that are not in the index: NULL, and vectors of norm zero under cosine distance.

def gaps(connection, metric=COSINE, bits=8):
    rows = [None if i % 5 == 0 else vector for i, vector in enumerate(clustered(400, 8))]
    for i in range(1, 400, 40):
        rows[i] = np.zeros(8, np.float32)
    make_table(connection, rows, dimensions=8)
    make_index(connection, metric, options=f"WITH (bits = {bits})")
    connection.execute("ANALYZE items")


def places(rows):
    """Rows with their distances as text, which NaN and NULL can be compared by."""
    return [(id, str(distance)) for id, distance in rows]


@pytest.mark.parametrize("metric", [L2, COSINE], ids=lambda metric: metric.name)
@pytest.mark.parametrize("where", ["", "WHERE label = 5", "WHERE label IN (0, 1)", "WHERE embedding IS NOT NULL", "WHERE id % 40 < 2"])
@pytest.mark.parametrize("limit", ["LIMIT 1000", "", "LIMIT 395", "LIMIT 345"])
def test_rows_that_are_not_in_the_index_come_last(db, metric, where, limit):
    gaps(db, metric)
    statement = f"SELECT id, embedding {metric.operator} %(q)b FROM items {where.replace('%', '%%')} ORDER BY embedding {metric.operator} %(q)b, id {limit}"
    query = q(clustered(1, 8, seed=2)[0])
    with exactly(db):
        truth = places(db.execute(statement, query).fetchall())
    for choice in ({"enable_sort": "off", "enable_seqscan": "off"}, {"enable_sort": "off", "enable_seqscan": "off", "ivflsh.enable_vector_scan": "off"}):
        for name, value in choice.items():
            db.execute("SELECT set_config(%s, %s, false)", (name, value))
        assert places(db.execute(statement, query).fetchall()) == truth
        # And by the order of the distance alone, which equal ones may come in any order of.
        found = places(db.execute(statement.replace(", id LIMIT", " LIMIT"), query).fetchall())
        assert [d for _, d in found] == [d for _, d in truth]


def test_plans_know_of_the_first_row_that_is_not_in_the_index(db):
    make_table(db, clustered(300, 8), dimensions=8)
    make_index(db)
    db.execute("PREPARE find AS SELECT id, embedding <-> '[1,2,3,4,5,6,7,8]' FROM items ORDER BY 2 LIMIT 1000")
    with by_index(db, plan_cache_mode="force_generic_plan"):
        assert "Index Scan" in "\n".join(row[0] for row in db.execute("EXPLAIN EXECUTE find"))
        assert len(db.execute("EXECUTE find").fetchall()) == 300
        insert(db, [None], first_id=300)
        rows = db.execute("EXECUTE find").fetchall()
        assert len(rows) == 301 and rows[-1] == (300, None)
        db.execute("DELETE FROM items WHERE id = 300")
        db.execute("REINDEX INDEX items_embedding_idx")
        assert "Index Scan" in "\n".join(row[0] for row in db.execute("EXPLAIN EXECUTE find"))


def test_order_by_null(db):
    gaps(db)
    with by_index(db):
        rows = db.execute("SELECT id, embedding <=> NULL::vector FROM items ORDER BY embedding <=> NULL::vector").fetchall()
    assert sorted(rows) == [(id, None) for id in range(400)]


# Pages

def pages(connection, statement, query, size, count):
    found = []
    for page in range(count):
        found.append(connection.execute(f"{statement} LIMIT {size} OFFSET {page * size}", q(query)).fetchall())
    return found


@pytest.mark.parametrize("where", ["", "WHERE label <> 3"])
@pytest.mark.parametrize("size, count", [(10, 4), (7, 20), (50, 20), (100, 11)])
def test_pages_neither_repeat_nor_skip(shared, where, size, count):
    statement = BY_DISTANCE.replace(" ORDER", f" {where} ORDER")
    for query in QUERIES[:12 if count < 10 else 3]:
        with settings(shared, enable_seqscan="off"):
            found = pages(shared, statement, query, size, count)
        rows = [row for page in found for row in page]
        assert len(rows) == len(set(rows)) == size * count
        for page in found:
            assert [d for _, d in page] == sorted(d for _, d in page)
        with exactly(shared):
            truth = shared.execute(f"{statement} LIMIT {size * count}", q(query)).fetchall()
        assert len(set(rows) & set(truth)) >= 0.95 * len(truth)


def test_first_page_is_that_without_an_offset(shared):
    for query in QUERIES:
        with settings(shared, enable_seqscan="off"):
            page = shared.execute(BY_DISTANCE + " LIMIT 10", q(query)).fetchall()
            assert shared.execute(BY_DISTANCE + " LIMIT 10 OFFSET 0", q(query)).fetchall() == page
            assert not set(page) & set(shared.execute(BY_DISTANCE + " LIMIT 10 OFFSET 10", q(query)).fetchall())


def test_pages_of_rows_equally_far_away(db):
    """Each vector 30 times: ends of pages are within such groups."""
    make_table(db, np.repeat(clustered(100, 8), 30, axis=0), dimensions=8)
    make_index(db)
    db.execute("ANALYZE items")
    with settings(db, enable_seqscan="off"):
        for query in clustered(5, 8, seed=2):
            for mode in ("force_custom_plan", "force_generic_plan"):
                db.execute(f"SET plan_cache_mode = {mode}")
                db.execute("""PREPARE page(vector, int, int) AS
                              SELECT id FROM items ORDER BY embedding <-> $1 LIMIT $2 OFFSET $3""")
                found = [row for page in range(40)
                         for row in db.execute(f"EXECUTE page('{query.tolist()}', 10, {page * 10})").fetchall()]
                assert len(found) == len(set(found)) == 400
                db.execute("DEALLOCATE page")


def test_pages_to_the_end(shared):
    """Pages together are the table, however many there are."""
    with settings(shared, enable_seqscan="off", enable_sort="off"):
        found = pages(shared, BY_DISTANCE, QUERIES[0], 1500, 5)
    assert [len(page) for page in found] == [1500] * 4 + [0]
    assert sorted(id for page in found for id, _ in page) == list(range(6000))


# Row locks and system columns

def test_system_columns_and_row_locks(db):
    make_table(db, ROWS[:2000])
    make_index(db)
    query = q(QUERIES[0])
    for columns in ("ctid, id", "tableoid::regclass, id", "xmin, id", "id"):
        for end in ("LIMIT 10", "LIMIT 10 FOR UPDATE", "LIMIT 10 FOR SHARE SKIP LOCKED", "LIMIT 10 OFFSET 3 FOR UPDATE"):
            statement = f"SELECT {columns} FROM items ORDER BY embedding <-> %(q)b {end}"
            with exactly(db):
                truth = db.execute(statement, query).fetchall()
            for choice in ("on", "off"):
                with by_index(db):
                    db.execute("SELECT set_config('ivflsh.enable_vector_scan', %s, false)", (choice,))
                    assert db.execute(statement, query).fetchall() == truth
    db.execute("RESET ivflsh.enable_vector_scan")
    with by_index(db):
        taken = db.execute("""UPDATE items SET label = 77 FROM (SELECT id FROM items ORDER BY embedding <-> %(q)b LIMIT 5 FOR UPDATE) n
                              WHERE n.id = items.id RETURNING items.id""", query).fetchall()
        assert len(taken) == 5
        assert db.execute("""DELETE FROM items WHERE ctid = ANY (ARRAY(SELECT ctid FROM items ORDER BY embedding <-> %(q)b LIMIT 5))
                             RETURNING label""", query).fetchall() == [(77,)] * 5


@pytest.mark.parametrize("end", ["LIMIT 10", "", "LIMIT 10 FOR UPDATE"])
def test_where_current_of(db, end):
    make_table(db, ROWS[:2000])
    make_index(db)
    with by_index(db), db.transaction():
        db.execute(f"DECLARE c CURSOR FOR SELECT id FROM items ORDER BY embedding <-> %(q)b {end}", q(QUERIES[1]))
        for _ in range(5):
            [(id,)] = db.execute("FETCH 1 FROM c").fetchall()
            assert db.execute("UPDATE items SET label = 99 WHERE CURRENT OF c RETURNING id").fetchall() == [(id,)]


# Distance ranges

RANGES = ("SELECT id FROM items WHERE embedding {op} %(q)b < %(r)s", "SELECT id FROM items WHERE embedding {op} %(q)b <= %(r)s AND label <> 3",
          "SELECT id FROM items WHERE embedding {op} %(q)b < %(r)s ORDER BY embedding {op} %(q)b",
          "SELECT id FROM items WHERE embedding {op} %(q)b < %(r)s ORDER BY embedding {op} %(q)b LIMIT 5000",
          "SELECT id FROM items WHERE embedding {op} %(q)b < %(r)s LIMIT 5000")


@pytest.mark.parametrize("bits", [8, 4, 0])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_ranges_are_complete(db, metric, bits):
    """Uniform rows of few dimensions: hard for a search, which reads but the lists that are likely to have a row within."""
    rows = np.random.default_rng(5).random((4000, 12)).astype(np.float32) - 0.3
    make_table(db, rows)
    make_index(db, metric, options=f"WITH (bits = {bits})")
    db.execute("ANALYZE items")
    for seed in range(2):
        query = np.random.default_rng((6, seed)).random(12).astype(np.float32) - 0.3
        distances = np.sort(metric.distances(rows, query))
        for count in (0, 1, 40, 400, 2000, 3999):
            parameters = {"q": Vector(query), "r": float(distances[count])}
            for statement in RANGES:
                statement = statement.format(op=metric.operator)
                with exactly(db):
                    truth = db.execute(statement, parameters).fetchall()
                for choice in ("inline", "on"):
                    with settings(db, ivflsh__enable_vector_scan=choice):
                        if choice == "inline":
                            assert "vector scan" in plan(db, statement, parameters)
                        found = db.execute(statement, parameters).fetchall()
                    assert len(found) == len(set(found)) and sorted(found) == sorted(truth)
                    if "LIMIT" not in statement and "ORDER" in statement:
                        assert found == truth


def test_ranges_after_changes(db):
    """Rows that were inserted far from their list's others, moved by splits, updated and deleted."""
    rows = np.random.default_rng(7).normal(size=(6000, 6)).astype(np.float32)
    make_table(db, rows[:500])
    make_index(db)
    insert(db, rows[500:] * np.linspace(0.1, 3, 5500, dtype=np.float32)[:, None], first_id=500)
    db.execute("UPDATE items SET embedding = (embedding::real[])[1:5] || 2::real WHERE id % 7 = 0")
    db.execute("DELETE FROM items WHERE id % 11 = 0")
    for _ in range(2):
        for query in rows[:3]:
            for radius in (0.2, 1, 2.5, 6):
                parameters = {"q": Vector(query), "r": radius}
                statement = "SELECT id FROM items WHERE embedding <-> %(q)b < %(r)s"
                with exactly(db):
                    truth = sorted(db.execute(statement, parameters).fetchall())
                with settings(db, ivflsh__enable_vector_scan="inline"):
                    assert sorted(db.execute(statement, parameters).fetchall()) == truth
        db.execute("VACUUM items")


def test_changes_by_range(db):
    """DELETE and UPDATE leave no row behind."""
    rows = np.random.default_rng(8).random((5000, 16)).astype(np.float32)
    make_table(db, rows)
    make_index(db)
    query = rows[0]
    distances = L2.distances(rows, query)
    first, second = float(np.sort(distances)[1000]) - 1e-5, float(np.sort(distances)[3000]) - 1e-5
    with settings(db, ivflsh__enable_vector_scan="inline"):
        assert "vector scan" in plan(db, "DELETE FROM items WHERE embedding <-> %(q)b < %(r)s", {"q": Vector(query), "r": first})
        assert db.execute("DELETE FROM items WHERE embedding <-> %(q)b < %(r)s", {"q": Vector(query), "r": first}).rowcount == 1000
        assert db.execute("UPDATE items SET label = 77 WHERE embedding <-> %(q)b < %(r)s", {"q": Vector(query), "r": second}).rowcount == 2000
    with exactly(db):
        assert db.execute("SELECT count(*) FROM items WHERE embedding <-> %(q)b < %(r)s AND label <> 77",
                          {"q": Vector(query), "r": second}).fetchone() == (0,)


def test_joins_by_range_and_ranges_of_no_number(db):
    rows = np.random.default_rng(9).random((3000, 4)).astype(np.float32)
    make_table(db, rows)
    make_index(db)
    db.execute("ANALYZE items")
    statement = """SELECT a.id, b.id FROM items a JOIN items b ON b.embedding <-> a.embedding < 0.02 + a.label / 100.0::float8
                   WHERE a.id < 60"""
    lateral = """SELECT a.id, b.id FROM items a, LATERAL (SELECT id FROM items b WHERE b.embedding <-> a.embedding < 0.02 + a.label / 100.0::float8
                 OFFSET 0) b WHERE a.id < 60"""
    for sql in (statement, lateral):
        with exactly(db):
            truth = sorted(db.execute(sql).fetchall())
        for choice in ("inline", "on"):
            with settings(db, ivflsh__enable_vector_scan=choice):
                assert sorted(db.execute(sql).fetchall()) == truth
    for radius in ("'NaN'", "'Infinity'", "'-Infinity'", "NULL", "0", "-1"):
        for comparison in ("<", "<="):
            sql = f"SELECT count(*) FROM items WHERE embedding <-> '[0.5,0.5,0.5,0.5]' {comparison} {radius}::float8"
            with exactly(db):
                truth = db.execute(sql).fetchone()
            with settings(db, ivflsh__enable_vector_scan="inline"):
                assert db.execute(sql).fetchone() == truth


def test_ranges_below_a_join_that_wants_more(db):
    """A LIMIT above a join is not filled: then all rows within the range have to come, though the search had stopped at its radius with
    as many as the LIMIT seemed to want."""
    random = np.random.default_rng(5)
    rows = (random.random((20000, 12)) - 0.3).astype(np.float32)
    make_table(db, rows)
    make_index(db)
    db.execute("""CREATE TABLE pick AS SELECT id FROM items WHERE id % 13 = 0; CREATE INDEX ON pick (id); ANALYZE pick; ANALYZE items;
        SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_sort = off""")
    compared = 0
    for seed in range(30):
        query = (np.random.default_rng((6, seed)).random(12) - 0.3).astype(np.float32)
        distances = np.sort(np.linalg.norm(rows.astype(np.float64) - query, axis=1))
        for within in (12, 40, 60, 150):
            radius = float(distances[within])
            wanted = {int(i) for i in np.flatnonzero(np.linalg.norm(rows.astype(np.float64) - query, axis=1) < radius) if i % 13 == 0}
            if len(wanted) >= 10:
                continue
            db.execute("SET ivflsh.enable_vector_scan = inline")
            found = db.execute("""SELECT i.id FROM items i JOIN pick p ON p.id = i.id WHERE i.embedding <-> %(q)b < %(r)s
                ORDER BY i.embedding <-> %(q)b LIMIT 10""", {"q": Vector(query), "r": radius}).fetchall()
            assert {row[0] for row in found} >= wanted - {int(np.argsort(np.linalg.norm(rows.astype(np.float64) - query, axis=1))[within])}
            compared += 1
    assert compared > 50
