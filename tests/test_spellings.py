"""Distances as applications write them: every spelling gets the plan of the canonical one, and the answer of the sequential scan."""

import numpy as np
import pytest
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from harness.search import clustered, plan, settings

ROWS, DIMENSIONS = 12_000, 48
DATA = clustered(ROWS, DIMENSIONS, seed=3)
QUERY_VALUES = clustered(1, DIMENSIONS, seed=77)[0]
QUERY = Vector(QUERY_VALUES).to_text()
EXACT = dict(enable_indexscan="off", enable_bitmapscan="off", ivflsh__enable_vector_scan="off")
LIMIT = 10

# Each metric's table: items_cosine and so on, with its index, and a view of it.
METRICS = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}


def orders(metric):
    """Expressions to order by, and how."""
    op = METRICS[metric]
    d = f"(v {op} $q)"
    name = {"cosine": "cosine_distance", "l2": "l2_distance", "ip": "vector_negative_inner_product"}[metric]
    rising = [d, f"($q {op} v)", f"{name}(v, $q)", f"{name}($q, v)", f"{d} * 100", f"2 * {d} + 1", f"{d} / 3", f"{d} + 0.5", f"{d} - 7",
              f"{d}::real", f"{d}::numeric", f"(1 - {d}) * -1", f"-(-{d})", f"0.0 + {name}(v, $q)"]
    falling = [f"1 - {d}", f"-{d}", f"-1 * {d}", f"{d} * -1", f"1 - {name}(v, $q)", f"100 * (1 - {d})", f"1 - {d} / 2", f"0 - {d}",
               f"round((1 - {d})::numeric, 9)", f"(1 - {d})::real", f"1 - {d}::numeric", f"similarity_{metric}(v, $q)"]
    if metric != "ip":
        rising += [f"{d} ^ 2", f"power({d}, 2)", f"{d} * {d}", f"sqrt({d})"]
        falling += [f"1 / (1 + {d})", f"1.0 / (0.5 + {d})", f"1 - {d} ^ 2"]
    else:
        falling += ["inner_product(v, $q)", "inner_product($q, v)", "(1 + inner_product(v, $q)) / 2"]
    return ([(e, "") for e in rising] + [(e, "ASC NULLS LAST") for e in rising[:2]] + [(rising[2], "NULLS FIRST")]
            + [(e, "DESC") for e in falling] + [(e, "DESC NULLS LAST") for e in falling[:3]])


def whole(metric):
    """Whole statements that order by a value of another name, or in another place."""
    op, table = METRICS[metric], f"items_{metric}"
    d = f"(v {op} $q)"
    return [
        f"SELECT id, {d} AS distance FROM {table} ORDER BY distance LIMIT {LIMIT}",
        f"SELECT id, 1 - {d} AS similarity FROM {table} ORDER BY similarity DESC LIMIT {LIMIT}",
        f"SELECT id, {d} FROM {table} ORDER BY 2 LIMIT {LIMIT}",
        f"SELECT id, 1 - {d} FROM {table} ORDER BY 2 DESC FETCH FIRST {LIMIT} ROWS ONLY",
        f"SELECT id, distance FROM (SELECT *, {d} AS distance FROM {table}) AS scored ORDER BY distance LIMIT {LIMIT}",
        f"SELECT id, s FROM (SELECT *, 1 - {d} AS s FROM {table}) AS scored ORDER BY s DESC LIMIT {LIMIT}",
        f"WITH scored AS (SELECT *, 1 - {d} AS s FROM {table}) SELECT id, s FROM scored ORDER BY s DESC LIMIT {LIMIT}",
        f"WITH query AS (SELECT $q AS q) SELECT id, v {op} q FROM {table}, query ORDER BY v {op} q LIMIT {LIMIT}",
        f"SELECT id, v {op} (SELECT $q) FROM {table} ORDER BY v {op} (SELECT $q) LIMIT {LIMIT}",
        f"SELECT id, s FROM similar_{metric}($q) ORDER BY s DESC LIMIT {LIMIT}",
        f"SELECT id, 1 - (v {op} $q) FROM of_{metric} ORDER BY 2 DESC LIMIT {LIMIT}",
        f"SELECT id, {d} FROM {table} WHERE v IS NOT NULL ORDER BY {d} LIMIT {LIMIT}",
        f"SELECT id, {d} FROM {table} WHERE {d} IS NOT NULL ORDER BY {d} LIMIT {LIMIT}",
        f"SELECT id, 1 - {d} FROM {table} WHERE label = 3 ORDER BY 1 - {d} DESC LIMIT {LIMIT}",
        f"SELECT id, {d} FROM {table} ORDER BY {d}, id LIMIT {LIMIT}",
        f"SELECT id, 1 - {d} AS s FROM {table} ORDER BY s DESC, id LIMIT {LIMIT}",
        f"SELECT id, {d} FROM {table} WHERE label = 3 ORDER BY {d}, price DESC, id LIMIT {LIMIT}",
        f"SELECT id, {d} FROM {table} ORDER BY {d}, id DESC LIMIT {LIMIT} OFFSET 5",
    ]


def ranges(metric):
    """Conditions of which about 5 rows, or 200, pass; $r is the distance."""
    op = METRICS[metric]
    d = f"(v {op} $q)"
    name = {"cosine": "cosine_distance", "l2": "l2_distance", "ip": "vector_negative_inner_product"}[metric]
    all_metrics = [f"{d} < $r", f"{d} <= $r", f"$r > {d}", f"$r >= {d}", f"NOT {d} >= $r", f"{d} BETWEEN -1e9 AND $r", f"1 - {d} > 1 - $r",
                   f"(1 - {d}) >= 1 - $r", f"1 - $r < 1 - {d}", f"-{d} > -($r)", f"{d} * 2 < 2 * $r", f"100 * (1 - {d}) >= 100 - 100 * $r",
                   f"{name}(v, $q) < $r", f"1 - {name}($q, v) > 1 - $r", f"{d} - $r < 0", f"similarity_{metric}(v, $q) > 1 - $r",
                   f"NOT (1 - {d} < 1 - $r)"]
    if metric == "ip":
        return all_metrics + ["inner_product(v, $q) > -($r)", "-($r) <= inner_product($q, v)"]
    return all_metrics + [f"{d} ^ 2 < $r * $r", f"{d} * {d} < $r * $r", f"1 / (1 + {d}) > 1 / (1 + $r)", f"power({d}, 2) <= ($r) ^ 2"]


@pytest.fixture(scope="module")
def tables(cluster):
    cluster.create_database("spellings", "vector_ext")
    with cluster.connect("spellings") as c:
        register_vector(c)
        dice = np.random.default_rng(5)
        for metric, op in METRICS.items():
            table = f"items_{metric}"
            c.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, label int, price float8, v vector({DIMENSIONS}) NOT NULL)")
            with c.cursor().copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int4", "int4", "float8", "vector"])
                for i, row in enumerate(DATA):
                    copy.write_row((i, i % 7, float(dice.random()), Vector(row)))
            c.execute(f"CREATE INDEX ON {table} USING ivflsh (v vector_{metric}_ops)")
            c.execute(f"CREATE VIEW of_{metric} AS SELECT * FROM {table}")
            c.execute(f"""CREATE FUNCTION similarity_{metric}(a vector, b vector) RETURNS float8 LANGUAGE sql IMMUTABLE
                          AS 'SELECT 1 - (a {op} b)'""")
            c.execute(f"""CREATE FUNCTION similar_{metric}(q vector) RETURNS TABLE (id int, s float8) LANGUAGE sql STABLE
                          AS 'SELECT id, 1 - (v {op} q) FROM {table}'""")
            c.execute(f"VACUUM ANALYZE {table}")
        c.execute("SET ivflsh.target_recall = 0.999")
        yield c


def exactly(connection, sql, parameters=None):
    with settings(connection, **EXACT):
        return connection.execute(sql, parameters).fetchall()


def is_by_index(shown):
    return ("vector scan" in shown or "Index Scan using items" in shown) and "Seq Scan" not in shown and "->  Sort" not in shown


def of_metrics(make):
    return [(metric, *(x if isinstance(x, tuple) else (x,))) for metric in METRICS for x in make(metric)]


def substituted(text, radius=None):
    text = text.replace("$q", f"'{QUERY}'::vector")
    return text if radius is None else text.replace("$r", f"{radius!r}::float8")


@pytest.mark.parametrize(("metric", "expression", "how"), of_metrics(orders))
def test_orders(tables, metric, expression, how):
    sql = substituted(f"SELECT id, {expression} FROM items_{metric} ORDER BY {expression} {how} LIMIT {LIMIT}")
    shown = plan(tables, sql)
    assert is_by_index(shown), shown
    assert [row[1] for row in tables.execute(sql)] == [row[1] for row in exactly(tables, sql)]


@pytest.mark.parametrize(("metric", "sql"), of_metrics(whole))
def test_statements(tables, metric, sql):
    sql = substituted(sql)
    shown = plan(tables, sql)
    assert is_by_index(shown), shown
    assert tables.execute(sql).fetchall() == exactly(tables, sql)


@pytest.mark.parametrize("count", [5, 200])
@pytest.mark.parametrize(("metric", "condition"), of_metrics(ranges))
def test_ranges(tables, metric, condition, count):
    """Fewer rows than the LIMIT, and more; the search ends at the radius."""
    d = f"v {METRICS[metric]} $q"
    radius = exactly(tables, substituted(f"SELECT {d} FROM items_{metric} ORDER BY 1 OFFSET {count} LIMIT 1"))[0][0]
    for order in (d, f"1 - ({d}) DESC"):
        sql = substituted(f"SELECT id FROM items_{metric} WHERE {condition} ORDER BY {order} LIMIT 10", radius)
        shown = plan(tables, sql)
        assert is_by_index(shown), shown
        assert tables.execute(sql).fetchall() == exactly(tables, sql)
        work = "\n".join(row[0] for row in tables.execute("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + sql))
        if "- $r < 0" not in condition or count < 200:
            fetched = int(work.partition("Heap Rows Fetched: ")[2].split()[0])
            assert fetched < 1000, work


def test_parameters_that_stand_twice(tables):
    """As ORMs send them: each use of the query vector is another parameter, or another subquery."""
    d = "v <=> %s::vector"
    radius = exactly(tables, substituted("SELECT v <=> $q FROM items_cosine ORDER BY 1 OFFSET 5 LIMIT 1"))[0][0]
    other = Vector(DATA[99]).to_text()
    for mode in ("force_generic_plan", "force_custom_plan"):
        with settings(tables, plan_cache_mode=mode):
            tables.execute("""PREPARE twice(vector, float8, vector) AS
                              SELECT id FROM items_cosine WHERE 1 - (v <=> $1) > $2 ORDER BY v <=> $3 LIMIT 10""")
            same = f"EXECUTE twice('{QUERY}', {1 - radius}, '{QUERY}')"
            shown = plan(tables, same)
            assert "vector scan" in shown, shown
            literal = substituted(f"SELECT id FROM items_cosine WHERE 1 - (v <=> $q) > {1 - radius} ORDER BY v <=> $q LIMIT 10")
            expected = exactly(tables, literal)
            assert 0 < len(expected) < 10
            assert tables.execute(same).fetchall() == expected
            work = "\n".join(row[0] for row in tables.execute("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + same))
            assert int(work.partition("Heap Rows Fetched: ")[2].split()[0]) < 1000, work
            # Another vector is no range.
            different = exactly(tables, f"SELECT id FROM items_cosine WHERE 1 - (v <=> '{QUERY}') > {1 - radius} "
                                        f"ORDER BY v <=> '{other}' LIMIT 10")
            assert len(different) == len(expected)
            assert tables.execute(f"EXECUTE twice('{QUERY}', {1 - radius}, '{other}')").fetchall() == different
            assert tables.execute(f"EXECUTE twice(NULL, {1 - radius}, '{QUERY}')").fetchall() == []
            assert len(tables.execute(f"EXECUTE twice('{QUERY}', -1e9, NULL)").fetchall()) == 10
            tables.execute("DEALLOCATE twice")
    sub = "(SELECT v FROM items_cosine WHERE id = 7)"
    sql = f"SELECT id FROM items_cosine WHERE v <=> {sub} < 0.01 ORDER BY v <=> {sub} LIMIT 10"
    assert tables.execute(sql).fetchall() == exactly(tables, sql)
    assert d


@pytest.fixture
def odd(db):
    """Rows without a vector, with one that has no direction, and usual ones."""
    db.execute(f"CREATE TABLE odd (id int PRIMARY KEY, v vector({DIMENSIONS}))")
    with db.cursor().copy("COPY odd FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "vector"])
        for i, row in enumerate(DATA[:3000]):
            copy.write_row((i, None if i % 500 == 7 else Vector(row * (0 if i % 600 == 9 else 1))))
    db.execute("CREATE INDEX ON odd USING ivflsh (v vector_cosine_ops)")
    db.execute("ANALYZE odd")
    db.execute("SET ivflsh.target_recall = 0.999")
    return db


@pytest.mark.parametrize("limit", ["", "LIMIT 12", "LIMIT 5 OFFSET 8"])
@pytest.mark.parametrize("order", [
    "v <=> $q", "v <=> $q NULLS FIRST", "1 - (v <=> $q) DESC", "1 - (v <=> $q) DESC NULLS LAST", "-(v <=> $q) DESC, id",
    "cosine_distance(v, $q) NULLS FIRST, id DESC"])
@pytest.mark.parametrize("where", ["", "WHERE v IS NOT NULL", "WHERE 1 - (v <=> $q) > 0.9", "WHERE 1 - (v <=> $q) >= 2",
                                   "WHERE (v <=> $q) <= 'NaN'", "WHERE (v <=> $q) < 0.3", "WHERE id % 3 = 0"])
def test_rows_without_a_distance(odd, where, order, limit):
    """NULL and NaN come where PostgreSQL has them: NaN is the greatest number, and DESC puts NULLs first."""
    sql = substituted(f"SELECT id, v <=> $q FROM odd {where} ORDER BY {order} {limit}")
    expected = exactly(odd, sql)

    def values(rows):
        return [("NaN" if d != d else d) for _, d in rows]

    for mode in ({}, {"enable_seqscan": "off", "enable_sort": "off"}, {"ivflsh__enable_vector_scan": "inline", "enable_seqscan": "off"}):
        with settings(odd, **mode):
            assert values(odd.execute(sql).fetchall()) == values(expected), plan(odd, sql)
    with settings(odd, plan_cache_mode="force_generic_plan", enable_seqscan="off", enable_sort="off"):
        found = odd.execute(sql.replace("'NaN'", "'NaN'::float8"), prepare=True).fetchall()
        assert values(found) == values(expected)


@pytest.mark.parametrize("where", ["1 - (v <=> $q) > 0.9", "1 - (v <=> $q) >= 2", "v <=> $q <= 'NaN'", "v <=> $q < 0.3", "-(v <=> $q) > -0.2",
                                   "v <=> $q < 'inf'", "1 - (v <=> $q) > 'NaN'", "1 - (v <=> $q) >= 'NaN'", "v <=> $z < 1", "1 - (v <=> $z) > 0"])
def test_ranges_without_order(odd, where):
    zero = Vector([0.0] * DIMENSIONS).to_text()
    sql = substituted(f"SELECT id FROM odd WHERE {where}").replace("$z", f"'{zero}'::vector")
    expected = sorted(exactly(odd, sql))
    for mode in ({}, {"ivflsh__enable_vector_scan": "inline", "enable_seqscan": "off"}):
        with settings(odd, **mode):
            assert sorted(odd.execute(sql).fetchall()) == expected, plan(odd, sql)
    ordered = sql + f" ORDER BY v <=> '{QUERY}' LIMIT 3000"
    with settings(odd, ivflsh__enable_vector_scan="inline", enable_seqscan="off", enable_sort="off"):
        assert sorted(odd.execute(ordered).fetchall()) == expected, plan(odd, ordered)


def test_rows_that_come_first_after_planning(odd):
    """A plan made when every row had a distance."""
    odd.execute("DELETE FROM odd WHERE v IS NULL OR (v <=> v) IS NULL OR (v <=> v) = 'NaN'")
    odd.execute("REINDEX TABLE odd")
    with settings(odd, plan_cache_mode="force_generic_plan", enable_seqscan="off", enable_sort="off"):
        odd.execute("PREPARE p(vector) AS SELECT id FROM odd ORDER BY 1 - (v <=> $1) DESC LIMIT 5")
        assert "vector scan" in plan(odd, f"EXECUTE p('{QUERY}')")
        zero = Vector([0.0] * DIMENSIONS).to_text()
        odd.execute(f"INSERT INTO odd VALUES (10001, NULL), (10002, '{zero}')")
        assert [row[0] for row in odd.execute(f"EXECUTE p('{QUERY}')")][:2] == [10001, 10002]


def test_what_does_not_keep_the_order(tables):
    for order in ["v <=> $q DESC", "1 - (v <=> $q)", "(v <=> $q) * 0", "abs(0.3 - (v <=> $q))", "(0.3 - (v <=> $q)) ^ 2", "1 / (v <=> $q)",
                  "1 / ((v <=> $q) - 0.5)", "(v <=> $q) * price", "(v <=> $q) + price", "1 - (v <-> $q) DESC", "(v <=> $q) * 'NaN'",
                  "l2_distance(v, $q)", "inner_product(v, $q) DESC"]:
        sql = substituted(f"SELECT id FROM items_cosine ORDER BY {order} LIMIT 10")
        shown = plan(tables, sql)
        assert "vector scan" not in shown and "Index Scan" not in shown, (order, shown)


@pytest.fixture(scope="module")
def documents(cluster):
    """A table as frameworks make them: an id, a text, metadata in jsonb, a vector."""
    cluster.create_database("documents", "vector_ext")
    with cluster.connect("documents") as c:
        register_vector(c)
        c.execute(f"""CREATE TABLE documents (id int PRIMARY KEY, document text, payload jsonb, v vector({DIMENSIONS}) NOT NULL)""")
        with c.cursor().copy("COPY documents FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int4", "text", "jsonb", "vector"])
            for i, row in enumerate(DATA):
                payload = {"source": f"s{i % 40}", "page": i % 10, "draft": i % 3 == 0, "tags": ["a", f"t{i % 5}"]}
                if i % 11 == 0:
                    payload = {"source": [f"s{i % 40}"], "page": None} if i % 2 else None
                copy.write_row((i, f"text {i}", payload and Jsonb(payload), Vector(row)))
        c.execute("""CREATE INDEX documents_v ON documents
                     USING ivflsh (v vector_cosine_ops, (payload ->> 'source'), (payload ->> 'draft'))""")
        c.execute("VACUUM ANALYZE documents")
        c.execute("SET ivflsh.target_recall = 0.999")
        yield c


# Conditions as they are sent, and whether the index evaluates something of them.
JSON = {
    # LangChain, LlamaIndex, mem0, Dify and others, by field.
    "payload->>'source' = 's7'": True,
    "(payload ->> 'source') IN ('s7', 's8')": True,
    "payload->>'source' = 's7' AND payload->>'page' = '7'": True,
    "payload->>'source' = 's7' OR payload->>'source' = 's8'": True,
    "(payload->>'source') <> 's7'": True,
    "NOT (payload->>'source' = 's7')": True,
    "payload->>'source' IS NULL": True,
    # n8n, LangChain's JavaScript, Supabase: by containment.
    """payload @> '{"source": "s7"}'""": True,
    """'{"source": "s7", "page": 7}' <@ payload""": True,
    """payload @> '{"draft": true}'""": True,
    """payload @> '{"source": "s7", "draft": false}'""": True,
    """payload @> '{"source": "none"}'""": True,
    """payload @> '{"source": ["s7"]}'""": False,
    """payload @> '{"page": 7}'""": False,
    """payload @> '{}'""": False,
    """payload @> '"s7"'""": False,
    "payload->>'page' = '7'": False,
    # LangChain's $eq, Spring AI.
    """jsonb_path_match(payload, '$.source == $value', '{"value": "s7"}')""": False,
    """payload::jsonb @@ '$.source == "s7"'::jsonpath""": False,
    "payload ? 'source'": False,
    "(payload->>'page')::float > 5": False,
}


@pytest.mark.parametrize("condition", JSON)
def test_frameworks_conditions_on_json(documents, condition):
    sql = substituted(f"SELECT id FROM documents WHERE {condition} ORDER BY v <=> $q LIMIT 10").replace("%", "%%")
    with settings(documents, enable_seqscan="off", enable_sort="off"):
        shown = plan(documents, sql)
        assert ("Index Cond" in shown) == JSON[condition], shown
        assert documents.execute(sql).fetchall() == exactly(documents, sql)
        everything = sql.replace("LIMIT 10", "LIMIT 20000")
        assert sorted(documents.execute(everything).fetchall()) == sorted(exactly(documents, everything))


def test_frameworks_statements(documents):
    """Whole statements, with parameters as their drivers send them."""
    statements = {
        # mem0
        "SELECT id, v <=> %s::vector AS distance, payload FROM documents WHERE payload->>%s = %s ORDER BY distance LIMIT %s":
            (QUERY, "source", "s7", 5),
        # LlamaIndex
        "SELECT id, document, (v <=> %s::vector) AS distance FROM documents WHERE payload->>'source' = 's7' ORDER BY distance ASC LIMIT %s":
            (QUERY, 5),
        "SELECT id, document, v <=> %s::vector AS d FROM documents WHERE (payload->>'source' = 's7' OR payload->>'source' IN ('s8', 's9')) "
        "ORDER BY v <=> %s::vector ASC LIMIT %s": (QUERY, QUERY, 5),
        # LangChain
        "SELECT id, document, (v <=> %s) AS distance FROM documents WHERE (payload ->> 'source') IN ('s7', 's9') ORDER BY distance ASC LIMIT %s":
            (Vector(QUERY_VALUES), 5),
        # Supabase's match_documents
        "SELECT id, 1 - (v <=> %s::vector) AS similarity FROM documents WHERE payload @> %s AND 1 - (v <=> %s::vector) > %s "
        "ORDER BY v <=> %s::vector LIMIT 5": (QUERY, Jsonb({"source": "s7"}), QUERY, 0.2, QUERY),
    }
    for sql, parameters in statements.items():
        shown = plan(documents, sql, parameters)
        assert "vector scan" in shown and "Index Cond" in shown, shown
        assert documents.execute(sql, parameters).fetchall() == exactly(documents, sql, parameters), sql


def test_several_indexes(db):
    """Plain, filtered, partial, and of other columns: what the index of the query's distance can evaluate, it does, whatever stands beside it."""
    db.execute(f"""CREATE TABLE several (id int PRIMARY KEY, t int, flag bool, s text, v vector({DIMENSIONS}) NOT NULL,
                   w vector({DIMENSIONS}) NOT NULL)""")
    with db.cursor().copy("COPY several FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "int4", "bool", "text", "vector", "vector"])
        for i, row in enumerate(DATA[:6000]):
            copy.write_row((i, i % 50, i % 6 == 0, f"s{i % 9}", Vector(row), Vector(row[::-1])))
    db.execute("CREATE INDEX filtered ON several USING ivflsh (v vector_l2_ops, t, flag, s)")
    db.execute("ANALYZE several")
    db.execute("SET ivflsh.target_recall = 0.999")
    conditions = ["t = 3", "t IN (3, 4)", "flag", "NOT flag", "t IN (3, 4) AND flag", "flag IS TRUE", "s = 's3'", "t = 3 OR s = 's3'",
                  "s IN ('s3', 's4') AND t < 20", "t IS NULL", "t <> 3"]
    others = ["CREATE INDEX plain ON several USING ivflsh (v vector_l2_ops)", "CREATE INDEX cosine ON several USING ivflsh (v vector_cosine_ops, t)",
              "CREATE INDEX other ON several USING ivflsh (w vector_l2_ops, t, flag)",
              "CREATE INDEX part ON several USING ivflsh (v vector_l2_ops) WHERE t = 3"]
    for other in [None, *others]:
        if other:
            db.execute(other)
        for condition in conditions:
            for column, op, index in (("v", "<->", "filtered"), ("w", "<->", "other"), ("v", "<=>", "cosine")):
                sql = substituted(f"SELECT id FROM several WHERE {condition} ORDER BY {column} {op} $q LIMIT 10")
                expected = exactly(db, sql)
                with settings(db, enable_seqscan="off", enable_sort="off"):
                    shown = plan(db, sql)
                    assert db.execute(sql).fetchall() == expected, shown
                # What most rows pass may as well be evaluated on those found by another index.
                if index == "filtered" and condition not in ("NOT flag", "t <> 3"):
                    assert "vector scan" in shown, shown
                    assert "Index Cond" in shown or "Index: part" in shown, shown


def test_target_recall_of_an_index(db):
    """The index's option, at once; a setting of the session, of its role or transaction wins; the server's does not."""
    db.execute(f"CREATE TABLE recall (id int PRIMARY KEY, v vector({DIMENSIONS}) NOT NULL)")
    with db.cursor().copy("COPY recall FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "vector"])
        for i, row in enumerate(DATA):
            copy.write_row((i, Vector(row)))
    db.execute("CREATE INDEX recall_v ON recall USING ivflsh (v vector_l2_ops)")
    db.execute("ANALYZE recall")
    queries = [Vector(row).to_text() for row in clustered(40, DIMENSIONS, seed=78)]

    def lists():
        """How many lists 40 queries read."""
        read = 0
        for query in queries:
            db.execute(f"SELECT id FROM recall ORDER BY v <-> '{query}' LIMIT 10").fetchall()
            read += db.execute("SELECT lists FROM ivflsh_last_scan()").fetchone()[0]
        return read

    usual = lists()
    with settings(db, ivflsh__target_recall=0.995):
        thorough = lists()
    assert thorough > usual
    db.execute("ALTER INDEX recall_v SET (target_recall = 0.995)")
    assert lists() == thorough
    with settings(db, ivflsh__target_recall=0.95):
        assert lists() == usual
    assert lists() == thorough
    with db.transaction(force_rollback=True):
        db.execute("SET LOCAL ivflsh.target_recall = 0.95")
        assert lists() == usual
    assert lists() == thorough
    db.execute("ALTER INDEX recall_v RESET (target_recall)")
    assert lists() == usual
    with pytest.raises(Exception, match="out of bounds"):
        db.execute("ALTER INDEX recall_v SET (target_recall = 1.5)")
    db.execute("CREATE INDEX recall_w ON recall USING ivflsh (v vector_cosine_ops) WITH (target_recall = 0.7)")
