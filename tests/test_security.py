"""Nobody gets privileges, or another's rows, by what the extension does. SECURITY.md has the rules and the list."""

import re
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from harness.cluster import Cluster
from harness.search import by_index, clustered, insert, make_index, make_table, settings

ROWS = clustered(3000, 16)
INDEX = "items_embedding_idx"
WALKERS = ("ivflsh_recall", "ivflsh_stats", "ivflsh_lists", "ivflsh_check")


@contextmanager
def roles(db, *names):
    """Roles that exist for a while; what they own goes with them."""
    def drop():
        db.execute("RESET ROLE; RESET search_path")
        for name in names:
            if db.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone():
                db.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")

    drop()
    try:
        for name in names:
            db.execute(f"CREATE ROLE {name}")
        yield
    finally:
        drop()


@contextmanager
def acting_as(db, role):
    db.execute(f"SET ROLE {role}")
    try:
        yield
    finally:
        db.execute("RESET ROLE; RESET search_path")


def is_superuser(db, role):
    return db.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", (role,)).fetchone()[0]


def attempt(db, statement):
    """Runs a statement that may fail."""
    try:
        return db.execute(statement).fetchall()
    except psycopg.Error as error:
        return error.sqlstate


# Functions that look at an index

VICTIM = """
    CREATE SCHEMA vic; GRANT USAGE ON SCHEMA vic TO reader;
    CREATE TABLE vic.docs (id int PRIMARY KEY, v vector(3));
    INSERT INTO vic.docs SELECT i, ARRAY[i, i % 7, 1]::vector FROM generate_series(1, 400) i;
    CREATE FUNCTION vic.norm(v vector) RETURNS vector(3) LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RETURN public.l2_normalize(v); END $$;
    SET search_path = public, pg_catalog;
    CREATE INDEX docs_idx ON vic.docs USING ivflsh ((vic.norm(v)::vector(3)) vector_l2_ops) {options};
    -- Not before: from version 17 on CREATE INDEX has a safe search path itself.
    CREATE OR REPLACE FUNCTION vic.norm(v vector) RETURNS vector(3) LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RETURN l2_normalize(v); END $$;
    GRANT SELECT ON vic.docs TO reader;
"""
TRAP = """
    CREATE SCHEMA evil AUTHORIZATION reader;
    SET ROLE reader;
    CREATE FUNCTION evil.l2_normalize(v public.vector) RETURNS public.vector LANGUAGE plpgsql AS $$ BEGIN
        IF current_user <> 'reader' THEN EXECUTE 'ALTER ROLE reader SUPERUSER'; END IF;
        RETURN v; END $$;
    SET search_path = evil, public;
"""


@pytest.mark.parametrize("options", ["", "WITH (bits = 0)"])
@pytest.mark.parametrize("granted", [False, True])
def test_callers_search_path(db, options, granted):
    """Expressions run as the owner of the table: never with functions that the caller has put into the search path."""
    with roles(db, "reader"):
        db.execute(VICTIM.format(options=options))
        if granted:
            for function in ("ivflsh_recall(regclass, int, int)", "ivflsh_check(regclass, boolean)"):
                db.execute(f"GRANT EXECUTE ON FUNCTION {function} TO reader")
        db.execute(TRAP)
        outcomes = [attempt(db, "SELECT ivflsh_recall('vic.docs_idx', 1, 1)"),
                    attempt(db, "SELECT ivflsh_check('vic.docs_idx')")]
        db.execute("RESET ROLE")
        assert not is_superuser(db, "reader")
        # The safe path has no l2_normalize without a schema, as in maintenance commands of PostgreSQL 17.
        assert outcomes == (["42883"] * 2 if granted else ["42501"] * 2)


def test_expressions_see_none_of_the_callers_settings(db):
    """And run as the owner, in an operation that can assume no other role and leave nothing behind."""
    with roles(db, "owner", "reader"):
        db.execute("""
            CREATE SCHEMA own AUTHORIZATION owner; GRANT USAGE ON SCHEMA own TO reader;
            SET ROLE owner;
            CREATE TABLE own.seen (what text);
            CREATE TABLE own.docs (id int, v public.vector(3));
            CREATE FUNCTION own.f(v public.vector) RETURNS public.vector LANGUAGE plpgsql IMMUTABLE AS
                $$ BEGIN RETURN v; END $$;
            INSERT INTO own.docs SELECT i, ARRAY[i, 1, 1]::public.vector FROM generate_series(1, 50) i;
            CREATE INDEX docs_idx ON own.docs USING ivflsh ((own.f(v)::public.vector(3)) public.vector_l2_ops);
            CREATE OR REPLACE FUNCTION own.f(v public.vector) RETURNS public.vector LANGUAGE plpgsql AS $$ DECLARE code text; BEGIN
                INSERT INTO own.seen VALUES (current_user), (current_setting('search_path')), (current_setting('transform_null_equals')),
                    (current_setting('DateStyle')), (current_setting('standard_conforming_strings'));
                BEGIN EXECUTE 'SET ROLE NONE'; EXCEPTION WHEN OTHERS THEN INSERT INTO own.seen VALUES (SQLSTATE); END;
                RETURN v; END $$;
            RESET ROLE;
            GRANT EXECUTE ON FUNCTION ivflsh_recall(regclass, int, int) TO reader;
            GRANT SELECT ON own.docs TO reader""")
        with acting_as(db, "reader"):
            db.execute("SET search_path = public; SET transform_null_equals = on; SET DateStyle = 'SQL, DMY'; "
                       "SET standard_conforming_strings = off")
            assert db.execute("SELECT ivflsh_recall('own.docs_idx', 5, 3)").fetchone()[0] == 1
            after = [db.execute(f"SHOW {name}").fetchone()[0] for name in
                     ("search_path", "transform_null_equals", "DateStyle", "standard_conforming_strings")]
            assert after == ["public", "on", "SQL, DMY", "off"] and db.execute("SELECT current_user").fetchone() == ("reader",)
        db.execute("RESET transform_null_equals; RESET DateStyle; RESET standard_conforming_strings")
        seen = {what for what, in db.execute("SELECT DISTINCT what FROM own.seen")}
        assert seen == {"owner", "pg_catalog, pg_temp", "off", "ISO, MDY", "on", "42501"}


def test_who_may_walk_over_an_index(db):
    """The owner, and who EXECUTE has been granted to by name; from version 17 on, who may MAINTAIN the table."""
    calls = [f"{name}('{INDEX}')" for name in WALKERS]
    with roles(db, "owner", "reader", "monitor", "monitors"):
        make_table(db, ROWS[:300])
        make_index(db)
        db.execute("ALTER TABLE items OWNER TO owner; GRANT SELECT ON items TO reader, monitor; GRANT monitors TO monitor")

        def allowed(role):
            with acting_as(db, role):
                return [attempt(db, f"SELECT {call}") != "42501" for call in calls]

        assert allowed("owner") == [True] * 4
        assert allowed("reader") == allowed("monitor") == [False] * 4
        db.execute("GRANT EXECUTE ON FUNCTION ivflsh_check(regclass, boolean), ivflsh_stats(regclass) TO monitors")
        assert allowed("monitor") == [False, True, False, True] and allowed("reader") == [False] * 4
        db.execute("REVOKE EXECUTE ON FUNCTION ivflsh_check(regclass, boolean) FROM PUBLIC")
        assert allowed("monitor") == [False, True, False, True]
        with acting_as(db, "owner"), pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute(f"SELECT ivflsh_check('{INDEX}')")  # as for any function
        if db.info.server_version >= 170000:
            db.execute("GRANT MAINTAIN ON items TO reader")
            assert allowed("reader") == [True, True, True, False]
        with acting_as(db, "reader"):
            db.execute(f"SELECT ivflsh_prewarm('{INDEX}')")


def test_policies_hide_what_the_functions_tell(db):
    """A role that sees 500 of 5,000 rows is not told about all of them."""
    with roles(db, "tenant"):
        make_table(db, ROWS)
        make_index(db)
        db.execute("""GRANT SELECT ON items TO tenant; ALTER TABLE items ENABLE ROW LEVEL SECURITY;
            CREATE POLICY own ON items USING (label = 3)""")
        with acting_as(db, "tenant"):
            assert db.execute("SELECT count(*) FROM items").fetchone() == (300,)
            for function in WALKERS:
                assert attempt(db, f"SELECT {function}('{INDEX}')") == "42501"


def test_last_scan_is_the_users_own(db):
    """What a SECURITY DEFINER function has searched is not told to its caller."""
    with roles(db, "reader"):
        make_table(db, ROWS)
        make_index(db)
        db.execute("""
            CREATE TABLE public.open AS SELECT id, embedding FROM items WHERE id < 40;
            CREATE INDEX open_idx ON open USING ivflsh (embedding vector_l2_ops);
            GRANT SELECT ON open TO reader;
            CREATE FUNCTION hidden() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET enable_seqscan = off AS
                $$ SELECT count(*) FROM (SELECT FROM items ORDER BY embedding <-> (SELECT embedding FROM items LIMIT 1) LIMIT 20) s $$""")
        db.execute("SELECT hidden()")  # by who owns it, as he himself
        assert db.execute("SELECT returned FROM ivflsh_last_scan()").fetchone()[0] >= 20
        with acting_as(db, "reader"):
            assert db.execute("SELECT * FROM ivflsh_last_scan()").fetchone() == (0, 0, 0, 0, 0)
            db.execute("SELECT hidden()")
            assert db.execute("SELECT * FROM ivflsh_last_scan()").fetchone() == (0, 0, 0, 0, 0)
            with by_index(db):
                db.execute("SELECT id FROM open ORDER BY embedding <-> (SELECT embedding FROM open WHERE id = 7) LIMIT 5").fetchall()
            own = db.execute("SELECT * FROM ivflsh_last_scan()").fetchone()
            assert 5 <= own[3] <= own[1] <= 40
            db.execute("SELECT hidden()")
            assert db.execute("SELECT * FROM ivflsh_last_scan()").fetchone() == own


def test_privilege_before_locks(database, db):
    """Whoever may not look at an index does not wait for a lock on its table, nor do others behind him."""
    with roles(db, "stranger", "reader"):
        make_table(db, ROWS[:300])
        make_index(db)
        db.execute("GRANT SELECT ON items TO reader")
        holder, other = database.connect(autocommit=False), database.connect()
        holder.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        other.execute("SET lock_timeout = '20s'")
        for role, functions in ("stranger", (*WALKERS, "ivflsh_prewarm")), ("reader", WALKERS):
            with acting_as(other, role):
                assert {attempt(other, f"SELECT {function}('{INDEX}')") for function in functions} == {"42501"}
        holder.rollback()


def test_reader_does_not_hold_off_changes(database, db):
    """Nobody who may only read the table keeps the structure of its index locked."""
    with roles(db, "reader"):
        make_table(db, ROWS[:600])
        make_index(db)
        db.execute("GRANT SELECT ON items TO reader")
        other = database.connect(autocommit=False)
        other.execute("SET ROLE reader")
        locks = """SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype IN ('tuple', 'page', 'relation')
                   AND relation IN ('items'::regclass, %s::regclass)"""
        for function in WALKERS:
            with pytest.raises(psycopg.errors.InsufficientPrivilege), other.transaction():
                other.execute(f"SELECT {function}('{INDEX}')")
        assert db.execute(locks, (other.info.backend_pid, INDEX)).fetchone() == (0,)
        other.rollback()


# States and environments

def test_invalid_index(db):
    """A failed CREATE INDEX CONCURRENTLY leaves an index that is not valid, not one that is damaged."""
    make_table(db, ROWS[:300])
    db.execute("ALTER TABLE items ADD v vector; UPDATE items SET v = array_fill(1, ARRAY[2 + (id = 299)::int])::vector")
    with pytest.raises(psycopg.Error):
        db.execute("CREATE INDEX CONCURRENTLY broken ON items USING ivflsh ((v::vector(2)) vector_l2_ops)")
    assert db.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'broken'::regclass").fetchone() == (False,)
    for call in (*(f"{name}('broken')" for name in WALKERS), "ivflsh_check('broken', false)", "ivflsh_prewarm('broken')"):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="not valid"):
            db.execute(f"SELECT {call}")
    db.execute("DELETE FROM items WHERE id = 299")
    db.execute("REINDEX INDEX CONCURRENTLY broken")
    for name in WALKERS:
        db.execute(f"SELECT {name}('broken')")


def test_no_backtraces(monkeypatch):
    """RUST_BACKTRACE in the environment of the server is nothing that users see."""
    monkeypatch.setenv("RUST_BACKTRACE", "1")
    monkeypatch.delenv("RUST_LIB_BACKTRACE", raising=False)
    with Cluster() as server:
        server.create_database("errors", "vector_ext")
        with server.connect("errors") as connection:
            connection.execute("CREATE TABLE items (v vector(3)); INSERT INTO items VALUES ('[1,2,3]')")
            connection.execute("CREATE INDEX ON items USING ivflsh (v vector_l2_ops); SET enable_seqscan = off")
            for statement in ("SELECT '[1,2'::vector", "SELECT '[1,2]'::vector <-> '[1,2,3]'", "SELECT 'x'::vector",
                              "SELECT * FROM items ORDER BY v <-> '[1,2]' LIMIT 1", "INSERT INTO items VALUES ('[1]')",
                              "CREATE INDEX ON items USING ivflsh (v vector_l2_ops) WITH (lists = -1)",
                              "SELECT ivflsh_stats('pg_class_oid_index')", "SELECT ivflsh_recall('items_v_idx', 0)",
                              "SELECT sum(1 / (v <-> v)) FROM items"):
                with pytest.raises(psycopg.Error) as caught:
                    connection.execute(statement)
                said = f"{caught.value.diag.message_detail} {caught.value.diag.message_hint} {caught.value.diag.context}"
                assert not re.search(r"\.rs\b|::|backtrace|stack", said), (statement, said)


# Expressions of an index

def make_expressions(db, bits, metric="l2", rows=3000, filters=", (m.filter(id))", language="plpgsql"):
    """m.items with an index on functions of users; m.log tells who has had them evaluated."""
    body = {"plpgsql": "$$ BEGIN RETURN {}; END $$", "sql": "$$ SELECT {} $$"}[language]
    db.execute(f"""
        CREATE SCHEMA m; GRANT USAGE ON SCHEMA m TO PUBLIC;
        CREATE TABLE m.log (who name, what text);
        GRANT ALL ON m.log TO PUBLIC;
        CREATE TABLE m.items (id int, label int, embedding vector);
        CREATE FUNCTION m.filter(id int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN id; END $$;
        CREATE FUNCTION m.vector(v vector) RETURNS vector LANGUAGE {language} IMMUTABLE AS {body.format('v')}""")
    insert(db, ROWS[:rows], table="m.items")
    db.execute(f"""CREATE INDEX items_idx ON m.items USING ivflsh ((m.vector(embedding)::vector(16)) vector_{metric}_ops{filters})
        WITH (bits = {bits})""")
    db.execute("GRANT ALL ON m.items TO PUBLIC; ANALYZE m.items")


def log_evaluations(db):
    """From now on m.log has an entry for each call of the index's functions."""
    db.execute("""
        CREATE OR REPLACE FUNCTION m.filter(id int) RETURNS int LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO m.log VALUES (current_user, 'filter'); RETURN id; END $$;
        CREATE OR REPLACE FUNCTION m.vector(v vector) RETURNS vector LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO m.log VALUES (current_user, 'vector'); RETURN v; END $$""")


def evaluations(db):
    """Whose and which there were since the last time."""
    counts = dict(db.execute("SELECT what, count(*) FROM m.log GROUP BY what").fetchall())
    db.execute("DELETE FROM m.log")
    return counts


PLAIN = "embedding::vector(16)"


@pytest.mark.parametrize("bits", [0, 4, 8])
def test_select_evaluates_no_function_of_an_index(db, bits):
    """A query that names none of the index's functions has none evaluated, whoever runs it."""
    db.execute("""CREATE SCHEMA m; CREATE TABLE m.log (who name, what text);
        CREATE TABLE m.items (id int, label int, embedding vector);
        CREATE FUNCTION m.filter(id int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN id; END $$""")
    insert(db, ROWS[:1500], table="m.items")
    db.execute(f"""CREATE INDEX ON m.items USING ivflsh (({PLAIN}) vector_l2_ops, (m.filter(id))) WITH (bits = {bits});
        ANALYZE m.items;
        CREATE OR REPLACE FUNCTION m.filter(id int) RETURNS int LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO m.log VALUES (current_user, 'filter'); RETURN id; END $$""")
    query = f"'{ROWS[9].tolist()}'"
    order = f"ORDER BY {PLAIN} <-> {query} LIMIT 10"
    statements = [f"SELECT id FROM m.items {order}", f"SELECT ctid, id FROM m.items {order}",
                  f"SELECT id FROM m.items WHERE label < 5 {order}", f"SELECT id FROM m.items WHERE id % 3 = 1 {order}",
                  f"SELECT id FROM m.items {order} FOR UPDATE",
                  f"SELECT id FROM m.items WHERE {PLAIN} <-> {query} < 2 ORDER BY id",
                  f"SELECT id FROM m.items ORDER BY {PLAIN} <-> NULL LIMIT 3",
                  f"DECLARE c CURSOR WITH HOLD FOR SELECT id FROM m.items {order}; FETCH ALL FROM c; CLOSE c"]
    for path in ({}, {"enable_bitmapscan": "off"}, {"ivflsh__enable_vector_scan": "off"}):
        with by_index(db, **path):
            for statement in statements:
                db.execute(statement)
    assert db.execute("SELECT count(*) FROM m.log").fetchone() == (0,)
    db.execute("VACUUM m.items")
    assert db.execute("SELECT count(*) FROM m.log").fetchone() == (0,)


def exact(db, statement):
    with settings(db, enable_indexscan="off", ivflsh__enable_vector_scan="off"):
        return db.execute(statement).fetchall()


@pytest.mark.parametrize("bits", [0, 4, 8])
@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_order_of_an_expression(db, bits, metric):
    """What a scan may not evaluate the executor does: order and recall are those of a column."""
    operator = {"l2": "<->", "cosine": "<=>", "ip": "<#>"}[metric]
    make_expressions(db, bits, metric)
    indexed = f"m.vector(embedding)::vector(16) {operator}"
    found = total = 0
    for number in range(0, 200, 20):
        query = f"'{(ROWS[number] + 0.1).tolist()}'"
        for columns, where in ("id", ""), ("ctid, id", ""), ("id", "WHERE label < 5"), ("id", "WHERE m.filter(id) < 1500"):
            statement = f"SELECT {columns}, {indexed} {query} FROM m.items {where} ORDER BY {indexed} {query} LIMIT 15"
            true = exact(db, statement)
            with by_index(db):
                rows = db.execute(statement).fetchall()
            distances = [row[-1] for row in rows]
            assert distances == sorted(distances) and len(rows) == len(true) == 15
            found += len(set(rows) & set(true))
            total += len(true)
    assert found >= 0.95 * total, found / total
    assert db.execute("SELECT ivflsh_recall('m.items_idx', 100)").fetchone()[0] >= 0.95
    db.execute("SELECT ivflsh_check('m.items_idx')")


def test_expression_needs_the_users_privilege(db):
    """The executor evaluates it for who runs the query, by his privileges."""
    with roles(db, "reader"):
        make_expressions(db, 0, rows=500)
        statement = f"SELECT id FROM m.items ORDER BY m.vector(embedding)::vector(16) <-> '{ROWS[0].tolist()}' LIMIT 5"
        log_evaluations(db)
        with acting_as(db, "reader"):
            with by_index(db):
                assert db.execute(statement).fetchone() == (0,)
        assert {who for who, in db.execute("SELECT DISTINCT who FROM m.log")} <= {"reader"}
        db.execute("REVOKE EXECUTE ON FUNCTION m.vector(vector) FROM PUBLIC")
        with acting_as(db, "reader"), by_index(db), pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute(statement)


@pytest.mark.parametrize("bits", [0, 4, 8])
def test_changes_evaluate_nothing(db, bits):
    """An INSERT has PostgreSQL evaluate the expressions of its own rows; splits, merges, VACUUM and the stopping rule need
    nothing but what the index holds."""
    make_expressions(db, bits, rows=500)
    log_evaluations(db)
    insert(db, ROWS[500:], table="m.items", first_id=500)
    stats = db.execute("SELECT ivflsh_stats('m.items_idx')").fetchone()[0]
    assert stats["splits"] > 3
    assert evaluations(db) == {"filter": 2500, "vector": 2500}
    db.execute("DELETE FROM m.items WHERE id % 10 > 1")
    db.execute("VACUUM m.items")
    assert evaluations(db) == {}
    db.execute("SELECT ivflsh_check('m.items_idx')")
    assert set(evaluations(db)) == {"filter", "vector"}


@pytest.mark.parametrize("bits, least", [(0, 0.85), (4, 0.93), (8, 0.95)])
def test_growth_of_an_expression(db, bits, least):
    """An index on an expression that was made empty and grew: its mean, lists and stopping rule come from codes."""
    make_expressions(db, bits, rows=0, filters="")
    rows = clustered(8000, 16) + 3
    insert(db, rows, table="m.items")
    stats = db.execute("SELECT ivflsh_stats('m.items_idx')").fetchone()[0]
    assert stats["splits"] >= 10
    assert db.execute("SELECT ivflsh_recall('m.items_idx', 100)").fetchone()[0] >= least
    db.execute("SELECT ivflsh_check('m.items_idx')")
    db.execute("VACUUM m.items")
    assert db.execute("SELECT ivflsh_recall('m.items_idx', 100)").fetchone()[0] >= least
    db.execute("SELECT ivflsh_check('m.items_idx')")


@pytest.mark.parametrize("bits", [0, 4])
def test_expression_that_writes(db, bits):
    """An expression that inserts into its own table, at whatever moment, costs no entry."""
    make_expressions(db, bits, rows=200, filters="")
    db.execute("""CREATE SEQUENCE m.calls;
        CREATE OR REPLACE FUNCTION m.vector(v vector) RETURNS vector LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('m.calls') % 3 = 0 THEN
                INSERT INTO m.items SELECT -currval('m.calls'), label, embedding
                    FROM m.items ORDER BY ctid DESC LIMIT 1;
            END IF;
            RETURN v; END $$""")
    db.execute("SET statement_timeout = '100s'")
    insert(db, ROWS[200:2200], table="m.items", first_id=200)
    db.execute("VACUUM m.items")
    for _ in range(3):  # evaluates as well, and so goes on inserting
        db.execute("SELECT ivflsh_check('m.items_idx')")
    db.execute("CREATE OR REPLACE FUNCTION m.vector(v vector) RETURNS vector LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN v; END $$")
    report = db.execute("SELECT rows FROM ivflsh_check('m.items_idx')").fetchone()
    assert report == db.execute("SELECT count(*) FROM m.items").fetchone() and report[0] > 2500


def test_casts_are_read_from_the_table(db):
    """An expression of casts and functions in C is no function of a user: lists are made anew of its values."""
    db.execute("CREATE TABLE items (id int, label int, embedding vector)")
    db.execute(f"CREATE INDEX cast_idx ON items USING ivflsh (({PLAIN}) vector_l2_ops) WITH (bits = 0)")
    db.execute("CREATE INDEX column_idx ON items USING ivflsh ((l2_normalize(embedding)::halfvec(16)) halfvec_ip_ops) WITH (bits = 4)")
    insert(db, ROWS, table="items")
    for index in "cast_idx", "column_idx":
        assert db.execute(f"SELECT ivflsh_recall('{index}', 100)").fetchone()[0] >= 0.95
        db.execute(f"SELECT ivflsh_check('{index}')")


# VACUUM

@pytest.mark.parametrize("bits", [0, 8])
def test_vacuum_reads_no_values_out_of_line(db, bits):
    """Nobody heeds VACUUM's snapshot, so a value out of line may vanish before it is read: lists are made of codes."""
    db.execute("CREATE TABLE items (id int, label int, embedding vector(600)); ALTER TABLE items ALTER embedding SET STORAGE EXTERNAL")
    rows = clustered(3000, 600, clusters=20)
    insert(db, rows[:2500])
    db.execute(f"CREATE INDEX {INDEX} ON items USING ivflsh (embedding vector_l2_ops) WITH (bits = {bits})")
    db.execute("DELETE FROM items WHERE id % 9 > 0")
    toast = """SELECT coalesce(toast_blks_read + toast_blks_hit, 0) FROM pg_statio_all_tables WHERE relid = 'items'::regclass"""
    flush = db.info.server_version >= 150000

    def read():
        if flush:
            db.execute("SELECT pg_stat_force_next_flush()")
        db.execute("SELECT pg_stat_clear_snapshot()")
        return db.execute(toast).fetchone()[0]

    read()
    before = read()
    db.execute("VACUUM (PROCESS_TOAST false, ANALYZE false) items")
    read()
    assert read() - before == 0
    stats = db.execute(f"SELECT ivflsh_stats('{INDEX}')").fetchone()[0]
    assert stats["rows"]["live"] == 278 and (bits == 0 or stats["merges"] > 0)
    db.execute(f"SELECT ivflsh_check('{INDEX}')")
    insert(db, rows[2500:], first_id=2500)
    db.execute(f"SELECT ivflsh_check('{INDEX}')")
    assert db.execute(f"SELECT ivflsh_recall('{INDEX}', 50)").fetchone()[0] >= 0.95


# No false alarms

@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("bits", [0, 4, 8])
def test_rows_split_before_they_were_committed(database, db, bits, metric):
    """A split that cannot read rows encodes them from what it has; the check knows that."""
    rows = clustered(6000, 24, clusters=12, spread=0.8) + 0.5
    db.execute("CREATE TABLE items (id int, label int, embedding vector(24))")
    insert(db, rows[:300])
    db.execute(f"CREATE INDEX {INDEX} ON items USING ivflsh (embedding vector_{metric}_ops) WITH (bits = {bits})")
    for first, end in ((300, "COMMIT"), (3000, "ROLLBACK")):
        other = database.connect(autocommit=False)
        insert(other, rows[first:first + 900], first_id=first)
        insert(db, rows[first + 900:first + 2700], first_id=first + 900)
        db.execute(f"SELECT ivflsh_check('{INDEX}')")
        other.execute(end)
        db.execute(f"SELECT ivflsh_check('{INDEX}')")
        db.execute("VACUUM items")
        db.execute(f"SELECT ivflsh_check('{INDEX}')")
    assert db.execute(f"SELECT ivflsh_stats('{INDEX}')").fetchone()[0]["splits"] > 5
    assert db.execute(f"SELECT ivflsh_recall('{INDEX}', 50)").fetchone()[0] >= 0.9


# The source

ONLY_IN = {  # what may run functions of users, or changes as whom they run: files of src
    "FormIndexDatum": [],
    "RelationGetIndexExpressions": [],
    "ExecPrepareExpr": ["index/read/rows.rs"],
    "ExecEvalExpr": ["planner/limit.rs", "index/read/rows.rs", "vector_scan/conditions.rs", "vector_scan/exec.rs"],
    "SetUserIdAndSecContext": ["pg/identity.rs"],
    "BuildIndexInfo": ["index/terms/check.rs", "insight/check.rs", "insight/recall.rs"],
    "table_index_build_scan": ["index/build/assign.rs", "index/build/gather.rs", "index/terms/build.rs", "index/terms/check.rs", "insight/check.rs",
                               "insight/recall.rs"],
}


def test_list_of_places_is_complete():
    """SECURITY.md says where functions of users are called: nowhere else is there a call of what calls them."""
    source = Path(__file__).parents[1] / "src"
    for name, files in ONLY_IN.items():
        found = {str(path.relative_to(source)) for path in source.rglob("*.rs")
                 if re.search(rf"(?m)^(?!\s*//).*\b{name}\w*\(", path.read_text())}
        assert found <= set(files), f"{name} is called in {found - set(files)}: see SECURITY.md"
