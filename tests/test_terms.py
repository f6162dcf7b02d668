"""Indexes with partition = terms: their answers are those of the table, whatever is done to it."""

import itertools
import json
import random
import struct
import threading

import numpy as np
import psycopg
import pytest
from pgvector import SparseVector
from pgvector.psycopg import register_vector

from harness.cluster import Cluster, adopt_orphans
from harness.pages import HEADER_FIELDS, PAGE, SPECIAL, SPECIAL_FIELDS, START, Pages

DIMENSIONS = 5000


def connect(server, dbname="terms", **options):
    connection = server.connect(dbname, **options)
    register_vector(connection)
    return connection


def value(dice, terms=12, vocabulary=400, negative=0.0, levels=0):
    """A row: common terms more often than rare ones."""
    count = dice.integers(0, terms + 1)
    picked = np.unique((vocabulary * dice.random(count) ** 3).astype(int))
    weights = dice.integers(1, levels + 1, len(picked)) / 4 if levels else dice.random(len(picked)) * 3 + 0.01
    weights = weights * np.where(dice.random(len(picked)) < negative, -1, 1)
    return SparseVector({int(i): float(np.float32(w)) for i, w in zip(picked, weights)}, DIMENSIONS)


def insert(connection, rows, table="t", start=0):
    with connection.cursor().copy(f"COPY {table} (id, v) FROM STDIN") as copy:
        for id, row in enumerate(rows, start):
            copy.write_row((id, None if row is None else row.to_text()))


def make_table(connection, rows, table="t", index=True, column="sparsevec(5000)"):
    connection.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v {column}, label int DEFAULT 1)")
    insert(connection, rows, table)
    if index:
        connection.execute(f"CREATE INDEX ON {table} USING ivflsh (v sparsevec_ip_ops) WITH (partition = terms)")


def answers(connection, statement, query, by_index):
    """Ids and distances, by the index or without it."""
    with connection.transaction():
        for setting in ("enable_seqscan", "enable_sort", "enable_indexscan"):
            connection.execute(f"SET LOCAL {setting} = {(setting == 'enable_indexscan') == by_index}")
        plan = "\n".join(line for line, in connection.execute("EXPLAIN " + statement, {"q": query}).fetchall())
        assert ("_v_idx on" in plan) == by_index, plan
        return connection.execute(statement, {"q": query}).fetchall()


def assert_same(connection, query, table="t", limits=(1, 10, 100, None), where="true"):
    """The index gives the rows in the order of the table's distances; rows that are equally far in any order."""
    for limit in limits:
        statement = f"""SELECT id, v <#> %(q)s::sparsevec FROM {table} WHERE {where} ORDER BY v <#> %(q)s::sparsevec
                        {f'LIMIT {limit}' if limit else ''}"""
        got, expected = (answers(connection, statement, query, by_index) for by_index in (True, False))
        assert [distance for _, distance in got] == [distance for _, distance in expected]
        distances = dict(connection.execute(f"SELECT id, v <#> %s::sparsevec FROM {table}", (query,)).fetchall())
        assert all(distances[id] == distance for id, distance in got)
        assert len({id for id, _ in got}) == len(got)
        if limit is None:
            assert sorted(got, key=lambda row: row[0]) == sorted(expected, key=lambda row: row[0])


def check(connection, rows=None, index="t_v_idx"):
    report = connection.execute(f"SELECT rows, leaked_pages FROM ivflsh_check('{index}', true)").fetchone()
    assert rows is None or report[0] == rows
    return report[1]


@pytest.fixture(scope="module")
def server():
    with Cluster() as server:
        server.create_database("template_terms", "vector_ext")
        yield server


numbers = itertools.count()


@pytest.fixture
def connection(server):
    name = f"terms{next(numbers)}"
    with server.connect() as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template_terms")
    with connect(server, name) as connection:
        yield connection


@pytest.mark.parametrize("kind", ["plain", "ties", "signs", "nulls", "long", "few", "wide"])
def test_answers_are_those_of_the_table(connection, kind):
    dice = np.random.default_rng(1)
    options = {"ties": {"levels": 2}, "signs": {"negative": 0.3}, "long": {"terms": 300, "vocabulary": 4000},
               "few": {"vocabulary": 5}, "wide": {"vocabulary": 5000}}.get(kind, {})
    rows = [value(dice, **options) for _ in range(1200)]
    if kind == "nulls":
        rows = [None if i % 7 == 0 else row for i, row in enumerate(rows)]
    make_table(connection, rows)
    check(connection, len(rows))
    for i in range(6):
        assert_same(connection, value(dice, **options | {"terms": [2, 4, 8, 30, 100, 0][i]}))
    assert_same(connection, SparseVector({4999: 1.0}, DIMENSIONS))
    for many in (2, 500):
        more = [value(dice, **options) for _ in range(many)]
        insert(connection, more, start=len(rows))
        rows += more
        for _ in range(2):
            assert_same(connection, value(dice, **options))
    check(connection, len(rows))
    connection.execute("VACUUM t")
    check(connection, len(rows))
    for _ in range(3):
        assert_same(connection, value(dice, **options))


def test_a_table_that_changes(connection):
    """Inserts, updates, deletes and VACUUM in turn; TIDs are used again."""
    dice = np.random.default_rng(2)
    make_table(connection, [value(dice) for _ in range(500)])
    next_id = 500
    for step in range(12):
        more = int(dice.integers(1, 1500))
        insert(connection, [value(dice) if dice.random() > 0.02 else None for _ in range(more)], start=next_id)
        next_id += more
        connection.execute("DELETE FROM t WHERE mod(id, 7) = %s", (int(dice.integers(7)),))
        for id in dice.integers(0, next_id, 60):
            connection.execute("UPDATE t SET v = %s WHERE id = %s", (value(dice), int(id)))
        if step % 3 == 2:
            connection.execute("VACUUM t")
        check(connection)
        assert_same(connection, value(dice), limits=(10, None))
        assert_same(connection, value(dice), limits=(10,), where="mod(id, 3) = 0")
    connection.execute("DELETE FROM t")
    connection.execute("VACUUM t")
    assert check(connection, 0) == 0
    assert answers(connection, "SELECT id FROM t ORDER BY v <#> %(q)s LIMIT 5", value(dice), True) == []
    insert(connection, [value(dice) for _ in range(300)])
    assert_same(connection, value(dice))
    connection.execute("REINDEX INDEX t_v_idx")
    check(connection, 300)
    assert_same(connection, value(dice))


def test_rows_larger_than_a_page_of_pending_ones(connection):
    dice = np.random.default_rng(3)
    make_table(connection, [], column="sparsevec(5000)")
    rows = [SparseVector({int(i): float(i % 9 + 1) for i in dice.choice(5000, count, replace=False)}, DIMENSIONS)
            for count in (1, 1012, 1013, 1014, 3000, 5000, 40)]
    insert(connection, rows)
    check(connection, len(rows))
    assert_same(connection, value(dice, terms=50, vocabulary=5000))


def test_a_build_in_little_memory(connection):
    dice = np.random.default_rng(4)
    rows = [value(dice, terms=60, vocabulary=3000) for _ in range(6000)]
    connection.execute("SET maintenance_work_mem = '1MB'")
    make_table(connection, rows)
    check(connection, len(rows))
    assert_same(connection, value(dice, vocabulary=3000), limits=(10, None))


def test_a_scan_to_the_end_in_little_memory(connection):
    dice = np.random.default_rng(5)
    make_table(connection, [value(dice, vocabulary=20) for _ in range(8000)])
    connection.execute("SET work_mem = '64kB'")
    assert_same(connection, value(dice, vocabulary=20), limits=(5000, None))


def test_what_cannot_be(connection):
    connection.execute("CREATE TABLE t (v sparsevec(9), free sparsevec, dense vector(3), label int)")

    def refused(definition, code):
        with pytest.raises(psycopg.Error) as error:
            connection.execute(f"CREATE INDEX ON t USING ivflsh {definition}")
        assert error.value.sqlstate == code, error.value

    refused("(v sparsevec_ip_ops, label) WITH (partition = terms)", "0A000")
    refused("(dense vector_l2_ops) WITH (partition = terms)", "0A000")
    refused("(v sparsevec_ip_ops) WITH (partition = terms, lists = 10)", "22023")
    refused("(v sparsevec_ip_ops) WITH (partition = terms, bits = 4)", "22023")
    refused("(v sparsevec_ip_ops) WITH (partition = words)", "22023")
    connection.execute("CREATE INDEX ON t USING ivflsh (v sparsevec_ip_ops) WITH (partition = terms)")
    connection.execute("INSERT INTO t VALUES ('{1:1,3:2}/9'), ('{3:1}/9'), (NULL)")
    stats, = connection.execute("SELECT ivflsh_stats('t_v_idx')").fetchone()
    assert (stats["lists"], stats["entries"], stats["rows"]["pending"]) == (0, 0, 3)
    connection.execute("VACUUM t")
    stats, = connection.execute("SELECT ivflsh_stats('t_v_idx')").fetchone()
    assert (stats["partition"], stats["dimensions"], stats["lists"], stats["entries"]) == ("terms", 9, 2, 3)
    assert stats["rows"] == {"in_the_tree": 3, "of_them_null": 1, "pending": 0}
    for function in ("ivflsh_recall('t_v_idx')", "ivflsh_lists('t_v_idx')"):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="partition = terms"):
            connection.execute(f"SELECT {function}")
    with pytest.raises(psycopg.errors.DataException, match="different sparsevec dimensions 8 and 9"):
        answers(connection, "SELECT v FROM t ORDER BY v <#> %(q)s LIMIT 1", SparseVector({1: 1.0}, 8), True)
    # Of a column without dimensions the first row decides.
    connection.execute("CREATE INDEX ON t USING ivflsh (free sparsevec_ip_ops) WITH (partition = terms)")
    connection.execute("INSERT INTO t (free) VALUES (NULL), ('{1:1}/5'), ('{}/5')")
    with pytest.raises(psycopg.errors.DataException, match="expected 5 dimensions, not 6"):
        connection.execute("INSERT INTO t (free) VALUES ('{1:1}/6')")


def test_orders_and_conditions(connection):
    dice = np.random.default_rng(6)
    rows = [None if i % 50 == 0 else value(dice) for i in range(2000)]
    make_table(connection, rows)
    query = value(dice, terms=6)
    assert_same(connection, query, where="v IS NOT NULL")
    assert_same(connection, query, where="label = 2")
    assert_same(connection, query, where="mod(id, 100) = 3")
    with connection.transaction():
        connection.execute("SET LOCAL enable_seqscan = off")
        everything = connection.execute("SELECT id FROM t ORDER BY v <#> NULL").fetchall()
    assert sorted(id for id, in everything) == list(range(2000))
    # A scan that begins anew for each of several queries.
    queries = [value(dice, terms=5) for _ in range(20)]
    connection.execute("CREATE TABLE q (id int, v sparsevec(5000))")
    insert(connection, queries, "q")
    joined = """SELECT q.id, f.d FROM q, LATERAL (SELECT t.v <#> q.v AS d FROM t ORDER BY t.v <#> q.v LIMIT 7) f
                ORDER BY 1, 2"""
    results = []
    for setting in ("enable_seqscan", "enable_indexscan"):
        with connection.transaction():
            connection.execute(f"SET LOCAL {setting} = off")
            results.append(connection.execute(joined).fetchall())
    assert results[0] == results[1] and len(results[0]) == 140
    # Rows locked in order, and one that a cursor is at.
    locked = answers(connection, "SELECT id, v <#> %(q)s FROM t ORDER BY v <#> %(q)s LIMIT 5 FOR UPDATE", query, True)
    assert [d for _, d in locked] == sorted(d for _, d in locked)
    with connection.transaction():
        connection.execute("SET LOCAL enable_seqscan = off")
        connection.execute("DECLARE c CURSOR FOR SELECT id FROM t ORDER BY v <#> %s", (query,))
        first, = connection.execute("FETCH 1 FROM c").fetchone()
        connection.execute("UPDATE t SET label = 77 WHERE CURRENT OF c")
    assert connection.execute("SELECT id FROM t WHERE label = 77").fetchall() == [(first,)]


def test_signs_are_exact_without_the_rows(connection):
    """Elements below zero, in rows or the query: rows are locked and updated in order as well."""
    dice = np.random.default_rng(16)
    make_table(connection, [value(dice, negative=0.4) for _ in range(700)])
    insert(connection, [value(dice, negative=0.4) for _ in range(60)], start=700)
    for statement in ("SELECT id, v <#> %(q)s FROM t ORDER BY v <#> %(q)s FOR UPDATE",
                      "SELECT id, v <#> %(q)s, ctid FROM t ORDER BY v <#> %(q)s LIMIT 300"):
        query = value(dice, terms=8, negative=0.5)
        got, expected = (answers(connection, statement, query, by_index) for by_index in (True, False))
        assert [row[1] for row in got] == [row[1] for row in expected] and {0.0} < {row[1] for row in got}
    with connection.transaction():
        connection.execute("SET LOCAL enable_seqscan = off")
        connection.execute("DECLARE c CURSOR FOR SELECT id FROM t ORDER BY v <#> %s", (query,))
        last = connection.execute("FETCH 100 FROM c").fetchall()[-1]
        connection.execute("UPDATE t SET label = 77 WHERE CURRENT OF c")
    assert connection.execute("SELECT id FROM t WHERE label = 77").fetchall() == [last]


def test_sums_at_the_ends_of_f32(connection):
    """Products and sums that overflow, or become zero, are what the operator makes of them."""
    rows = [SparseVector(row, DIMENSIONS) for row in (
        {0: 3e38, 1: 3e38}, {0: 3e38, 1: -3e38}, {0: 1e-40, 1: 1e-40}, {0: 1e-45}, {2: 3e38}, {0: -3e38}, {0: 1.0, 1: 2.0}, {},
        {0: 3e38, 1: -3e38, 2: 1.0})]
    make_table(connection, rows * 3)
    for query in ({0: 3e38, 1: 3e38}, {0: 1e-10, 1: -1.0}, {0: -1e-30}, {0: 3e38, 1: 3e38, 2: -3e38}, {0: 1e-45, 2: 1e-45}):
        query = SparseVector(query, DIMENSIONS)
        statement = "SELECT v <#> %(q)s::sparsevec FROM t ORDER BY v <#> %(q)s::sparsevec"
        got, expected = (answers(connection, statement, query, by_index) for by_index in (True, False))
        assert str(got) == str(expected)


def test_a_range_ends_the_scan(connection):
    """WHERE distance < constant: what is beyond is not read."""
    dice = np.random.default_rng(17)
    make_table(connection, [value(dice) for _ in range(3000)])
    query = SparseVector({300: 1.0, 350: 2.0}, DIMENSIONS)
    for condition, discarded in (("v <#> %(q)s::sparsevec < 0", 0), ("0 > v <#> %(q)s::sparsevec", 0), ("v <#> %(q)s::sparsevec <= -1.5", 0),
                                 ("v <#> %(q)s::sparsevec < 1", 0), ("v <#> %(q)s::sparsevec < 'NaN'", 0), ("v <#> %(q)s::sparsevec > -1", None)):
        assert_same(connection, query, where=condition, limits=(3, 1000, None))
        with connection.transaction():
            connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
            statement = f"SELECT id FROM t WHERE {condition} ORDER BY v <#> %(q)s::sparsevec LIMIT 2000"
            plan, = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, {"q": query}).fetchone()
        text = plan if isinstance(plan, str) else json.dumps(plan)
        removed = text.count('"Rows Removed by Filter": 0') == 1
        assert removed == (discarded == 0), text


def test_expressions_partial_and_concurrently(connection):
    dice = np.random.default_rng(7)
    rows = [value(dice) for _ in range(1500)]
    make_table(connection, rows, index=False)
    connection.execute("""CREATE INDEX CONCURRENTLY t_v_idx ON t USING ivflsh (l2_normalize(v) sparsevec_ip_ops)
                          WITH (partition = terms) WHERE mod(id, 2) = 0""")
    check(connection, 750)
    query = value(dice)
    statement = """SELECT id, l2_normalize(v) <#> %(q)s FROM t WHERE mod(id, 2) = 0 ORDER BY l2_normalize(v) <#> %(q)s LIMIT 20"""
    got, expected = (answers(connection, statement, query, by_index) for by_index in (True, False))
    assert [d for _, d in got] == [d for _, d in expected]
    connection.execute("REINDEX INDEX CONCURRENTLY t_v_idx")
    check(connection, 750)


def test_temporary_and_unlogged(server, connection):
    dice = np.random.default_rng(8)
    for kind in ("TEMPORARY", "UNLOGGED"):
        connection.execute(f"CREATE {kind} TABLE t (id int, v sparsevec(5000))")
        connection.execute("CREATE INDEX ON t USING ivflsh (v sparsevec_ip_ops) WITH (partition = terms)")
        insert(connection, [value(dice) for _ in range(3000)])
        assert_same(connection, value(dice))
        connection.execute("TRUNCATE t")
        insert(connection, [value(dice) for _ in range(100)])
        assert_same(connection, value(dice))
        connection.execute("DROP TABLE t")


def test_clients_beside_each_other(server, connection, stress):
    """Readers find each row that their snapshot has, while rows are added, moved into the tree, and removed."""
    dice = np.random.default_rng(stress.seed)
    make_table(connection, [value(dice) for _ in range(2000)])
    name, failures, stop = connection.info.dbname, [], threading.Event()

    def work(number, step):
        own = np.random.default_rng(100 + number)
        try:
            with connect(server, name) as session:
                while not stop.is_set():
                    step(session, own, number)
        except Exception as failure:
            failures.append(failure)
            stop.set()

    def write(session, own, number):
        rows = [(int(own.integers(2**30)), value(own).to_text()) for _ in range(100)]
        session.cursor().executemany("INSERT INTO t VALUES (%s, %s) ON CONFLICT DO NOTHING", rows)
        session.execute("DELETE FROM t WHERE mod(id, 97) = %s", (int(own.integers(97)),))

    def read(session, own, number):
        query = value(own, terms=6)
        with session.transaction():
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            for limits in ((10,), (None,)):
                assert_same(session, query, limits=limits)

    def tidy(session, own, number):
        session.execute("VACUUM t")
        check(session)
        stop.wait(0.2)

    steps = [write, write, read, read, tidy]
    threads = [threading.Thread(target=work, args=(number, step)) for number, step in enumerate(steps)]
    [thread.start() for thread in threads]
    stop.wait(stress.seconds)
    stop.set()
    [thread.join() for thread in threads]
    if failures:
        raise failures[0]
    check(connection)
    assert_same(connection, value(dice))


def test_kills_and_a_standby(stress):
    """SIGKILL amid inserts, rows on their way into the tree, and VACUUM: what was committed is there, here and on a standby."""
    adopt_orphans()
    dice = np.random.default_rng(stress.seed)
    with Cluster(settings={"checkpoint_timeout": "30s"}) as primary:
        primary.create_database("terms", "vector_ext")
        with connect(primary) as connection:
            make_table(connection, [value(dice) for _ in range(500)])
        with primary.standby({"hot_standby_feedback": "on"}) as standby:
            committed = 500
            for kill in range(-(-stress.kills // 2)):
                counts = [0]

                def write():
                    own = np.random.default_rng(1000 + kill)
                    try:
                        with connect(primary) as session:
                            for at in range(10_000):
                                insert(session, [value(own, terms=40) for _ in range(50)], start=committed + 50 * at)
                                counts[0] += 50
                    except psycopg.Error:
                        pass

                def tidy():
                    try:
                        with connect(primary) as session:
                            while True:
                                session.execute("DELETE FROM t WHERE mod(id, 50) = %s", (int(dice.integers(50)),))
                                session.execute("VACUUM t")
                    except psycopg.Error:
                        pass

                threads = [threading.Thread(target=write), threading.Thread(target=tidy)]
                [thread.start() for thread in threads]
                threads[0].join(float(dice.uniform(0.3, 1.2)))
                primary.kill()
                [thread.join() for thread in threads]
                primary.start()
                standby.wait_for_replay()
                for server in (primary, standby):
                    with connect(server) as session:
                        check(session)
                        for _ in range(2):
                            assert_same(session, value(dice), limits=(10, None))
                committed += counts[0] + 50
                with connect(primary) as session:
                    session.execute("VACUUM t")
                    assert check(session) == 0
                    assert_same(session, value(dice), limits=(10, None))


# Damage: the server is stopped, and files are changed. Nothing on a page may crash it; where ivflsh_check finds nothing, answers are right.

MIX, STEP = 0x9FB21C651E98DF25, 0x9E3779B8
KINDS = {7: "meta", 8: "inner", 9: "leaf", 10: "pending"}
EXPECTED = {"XX002", "XX001", "0A000", "58P01", "22000", "53100", "53200", "54000"}


def checksum(*parts):
    """As on the pages, 64 bits."""
    total = 0
    for part in parts:
        words = [*struct.unpack(f"<{len(part) // 4}I", part[:len(part) // 4 * 4]), *part[len(part) // 4 * 4:]]
        added = sum(word * ((1 + STEP * i) % 2**32) for i, word in enumerate(words)) % 2**64
        product = (total ^ added) * MIX % 2**64
        total = product ^ product >> 32
    return total


def seal(data, page):
    """Gives a page the checksums that it would have if it had been written so."""
    start, kind = page * PAGE, KINDS.get(data[page * PAGE + PAGE - 14])
    contents = start + START
    lower = min(struct.unpack_from("<H", data, start + 12)[0], PAGE - SPECIAL)
    if kind == "meta":
        struct.pack_into("<I", data, contents + 36, checksum(data[contents:contents + 36]) >> 32)
    if kind == "leaf":
        for entry in range(contents + 24, start + lower - 19, 20):
            packed, at = struct.unpack_from("<Q", data, entry + 4)[0], struct.unpack_from("<H", data, entry + 16)[0]
            width, count, distinct = packed >> 43 & 63, (packed >> 49 & 127) + 1, (packed >> 56 & 127) + 1
            size = -(-(count - 1) * width // 8) + 4 * (distinct - 1) + -(-count * (distinct - 1).bit_length() // 8)
            struct.pack_into("<H", data, entry + 18, checksum(data[entry:entry + 16], data[contents + at:contents + at + size]) >> 48)
    if kind in ("inner", "leaf"):
        struct.pack_into("<I", data, start + PAGE - 24, checksum(data[contents:start + lower]) >> 32)
    if kind == "pending":
        at = contents
        while at + 16 <= start + lower:
            end = at + 16 + 8 * struct.unpack_from("<H", data, at + 8)[0]
            struct.pack_into("<I", data, at + 12, checksum(data[at:at + 12], data[at + 16:end]) >> 32)
            at = end


def damage(data, dice):
    """A damaged file, and what was done."""
    data, count = bytearray(data), len(data) // PAGE
    kinds = {kind: [page for page in range(count) if KINDS.get(data[page * PAGE + PAGE - 14]) == kind] for kind in KINDS.values()}
    kind = dice.choice([kind for kind in kinds if kinds[kind]])
    page = dice.choice(kinds[kind])
    start = page * PAGE
    lower = struct.unpack_from("<H", data, start + 12)[0]
    target = dice.choice(["bytes", "sealed", "sealed", "sealed", "header", "special", "page", "zeroes", "cut"])
    match target:
        case "bytes":
            for _ in range(dice.randint(1, 10)):
                data[start + dice.randrange(PAGE)] ^= 1 << dice.randrange(8)
        case "sealed":
            for _ in range(dice.randint(1, 3)):
                at = dice.choice([START + dice.randrange(24), START + dice.randrange(64), dice.randrange(START, max(lower, START + 1)),
                                  dice.randrange(START, PAGE - SPECIAL)])
                old = data[start + at]
                data[start + at] = dice.choice([old ^ 1 << dice.randrange(8), 0, 0xFF, 0x7F, dice.randrange(256)])
            seal(data, page)
        case "header":
            pages = Pages(data)
            pages.put(page, HEADER_FIELDS[dice.choice(sorted(HEADER_FIELDS))], dice.choice([0, 24, START, lower, PAGE - SPECIAL, PAGE, 65535, dice.randrange(65536)]))
            data = pages.data
        case "special":
            pages = Pages(data)
            field = SPECIAL_FIELDS[dice.choice(sorted(SPECIAL_FIELDS))]
            pages.put(page, field, dice.choice([0, 1, -1, page, dice.randrange(count), pages.get(page, field) ^ 1 << dice.randrange(16)]))
            data = pages.data
            seal(data, page)
        case "page":
            other = dice.choice(dice.choice([pages for pages in kinds.values() if pages]))
            data[start:start + PAGE] = data[other * PAGE:other * PAGE + PAGE]
        case "zeroes":
            data[start:start + PAGE] = bytes(PAGE)
        case "cut":
            del data[max(page, 1) * PAGE:]
    return bytes(data), f"{kind} {page}, {target}"


def test_damage(stress):
    adopt_orphans()
    dice, source = random.Random(stress.seed), np.random.default_rng(stress.seed)
    copies = -(-stress.damage // 3)
    with Cluster(settings={"restart_after_crash": "off", "shared_buffers": "16MB"}) as server:
        server.create_database("whole", "vector_ext")
        with connect(server, "whole") as connection:
            make_table(connection, [value(source, terms=30, vocabulary=3000) for _ in range(3000)])
            insert(connection, [value(source, terms=30, vocabulary=3000) for _ in range(300)], start=3000)
            connection.execute("DELETE FROM t WHERE mod(id, 7) = 0")
        with server.connect() as admin:
            for i in range(copies):
                admin.execute(f"CREATE DATABASE copy_{i} TEMPLATE whole")
        files = []
        for i in range(copies):
            with server.connect(f"copy_{i}") as connection:
                files.append(server.data / connection.execute("SELECT pg_relation_filepath('t_v_idx')").fetchone()[0])
        server.stop()
        whole = files[0].read_bytes()
        assert set(KINDS) <= {whole[page * PAGE + PAGE - 14] for page in range(len(whole) // PAGE)}
        kinds = []
        for file in files:
            data, kind = damage(whole, dice)
            file.write_bytes(data)
            kinds.append((kind, data == whole))
        server.start()
        noticed = 0
        for i, (kind, same) in enumerate(kinds):
            noticed += use_damaged(server, f"copy_{i}", kind, same, np.random.default_rng(i))
        assert noticed > copies / 2
        log = server.log.read_text(errors="replace")
        assert "terminated by signal" not in log and "PANIC" not in log and "panicked" not in log


def use_damaged(server, name, kind, same, dice):
    """Everything that is done with an index. Returns whether the check found something."""
    query = value(dice, terms=6, vocabulary=3000)
    with connect(server, name) as connection:
        connection.execute("SET statement_timeout = '20s'")

        def run(work, *arguments):
            """What it returns; None after an error of the right kind."""
            try:
                return work(*arguments) or True
            except psycopg.Error as error:
                assert error.sqlstate in EXPECTED, f"{kind}: {error.sqlstate} {error}"
                assert "panicked" not in str(error), f"{kind}: {error}"

        def search(limit):
            statement = f"SELECT id, v <#> %(q)s::sparsevec FROM t ORDER BY v <#> %(q)s::sparsevec LIMIT {limit}"
            return [d for _, d in answers(connection, statement, query, True)]

        def is_right():
            for limit in (10, 10_000):
                found = run(search, limit)
                statement = f"SELECT id, v <#> %(q)s::sparsevec FROM t ORDER BY v <#> %(q)s::sparsevec LIMIT {limit}"
                if found is None or found != [d for _, d in answers(connection, statement, query, False)]:
                    return False
            return True

        right, whole = is_right(), run(check, connection) is not None
        assert right or not whole, f"{kind}: ivflsh_check finds nothing, but answers are wrong"
        assert whole or not same, kind
        def add(count, start):
            insert(connection, [value(dice, terms=30, vocabulary=3000) for _ in range(count)], start=start)

        run(add, 1, 10_000)
        run(connection.execute, "VACUUM t")
        run(connection.execute, "DELETE FROM t WHERE mod(id, 3) = 0")
        run(add, 1500, 50_000)
        run(connection.execute, "VACUUM t")
        right, still = is_right(), run(check, connection) is not None
        assert right or not still, f"{kind}: ivflsh_check is content, but answers are wrong"
        assert still or not whole, f"{kind}: ivflsh_check was content and is no more"
    return not whole
