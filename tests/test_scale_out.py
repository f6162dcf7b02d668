"""More than one table, database or machine: partitions, shards by postgres_fdw and ivflsh_fan_out, what Citus needs, replicas."""

import os
import re
import signal
import threading

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector

from harness.cluster import Cluster
from harness.search import clustered, insert, make_index, make_table

SHARDS = ("s1", "s2", "s3", "s4")
ROWS = clustered(4000, 16)
QUERIES = clustered(20, 16, seed=2)
CITUS = os.environ.get("CITUS_PG_CONFIG")


def nearest(query, k=10):
    """Ids and distances of the k nearest of ROWS."""
    distances = np.linalg.norm(ROWS.astype(np.float64) - query, axis=1)
    ids = np.argsort(distances, kind="stable")[:k]
    return list(ids), distances[ids]


def text(vector):
    return "[" + ",".join(repr(float(x)) for x in vector) + "]"


# What Citus needs

CASTS = [("array_to_vector", "integer[]", "vector"), ("array_to_vector", "real[]", "vector"),
         ("array_to_vector", "double precision[]", "vector"), ("array_to_vector", "numeric[]", "vector"),
         ("array_to_halfvec", "integer[]", "halfvec"), ("array_to_halfvec", "real[]", "halfvec"),
         ("array_to_halfvec", "double precision[]", "halfvec"), ("array_to_halfvec", "numeric[]", "halfvec"),
         ("array_to_sparsevec", "integer[]", "sparsevec"), ("array_to_sparsevec", "real[]", "sparsevec"),
         ("array_to_sparsevec", "double precision[]", "sparsevec"), ("array_to_sparsevec", "numeric[]", "sparsevec")]


@pytest.mark.parametrize("kind", ["own", "drop-in"])
def test_casts_with_the_value_alone(request, kind):
    """Citus calls a cast's function so. All of them can be, and answer and refuse as the cast does."""
    database = request.getfixturevalue("database" if kind == "own" else "drop_in_database")
    db = database.connect()
    for function, source, target in CASTS:
        assert db.execute(f"SELECT {function}('{{1,2}}'::{source})::text = ('{{1,2}}'::{source}::{target})::text").fetchone() == (True,)
        for bad in ("{}", "{{1,2},{3,4}}", "{1,NULL}"):
            states = []
            for expression in (f"{function}('{bad}'::{source})", f"'{bad}'::{source}::{target}"):
                with pytest.raises(psycopg.Error) as caught:
                    db.execute(f"SELECT {expression}")
                states.append((caught.value.sqlstate, caught.value.diag.message_primary))
            assert states[0] == states[1]
    for source in ("vector", "halfvec", "sparsevec"):
        value = "{1:1}/2" if source == "sparsevec" else "[1,0]"
        for target in {"vector", "halfvec", "sparsevec", "float4"} - {source} - ({"float4"} if source == "sparsevec" else set()):
            cast = "real[]" if target == "float4" else target
            assert db.execute(f"SELECT {source}_to_{target}('{value}')::text = ('{value}'::{source}::{cast})::text").fetchone() == (True,)
    # Every function of a cast between two types.
    missing = db.execute("""SELECT castfunc::regprocedure FROM pg_cast JOIN pg_proc p ON p.oid = castfunc
        WHERE castsource <> casttarget AND pronargs - pronargdefaults > 1 AND (SELECT deptype FROM pg_depend d
            WHERE (d.classid, d.objid, d.refclassid) = ('pg_cast'::regclass, pg_cast.oid, 'pg_extension'::regclass)) = 'e'""").fetchall()
    assert missing == []


# ivflsh_fan_out


@pytest.fixture(scope="module")
def shards(cluster):
    """The coordinator's database, and four others, each with every fourth row; the foreign servers s1 to s4 name them."""
    cluster.create_database("coordinator", "vector_ext")
    with cluster.connect("coordinator") as db:
        db.execute("CREATE EXTENSION dblink; CREATE EXTENSION postgres_fdw")
        for number, name in enumerate(SHARDS):
            cluster.create_database(name, "vector_ext")
            with cluster.connect(name) as shard:
                register_vector(shard)
                shard.execute("CREATE TABLE items (id int PRIMARY KEY, label int, embedding vector(16))")
                for row in range(number, len(ROWS), 4):
                    shard.execute("INSERT INTO items VALUES (%s, %s, %s)", (row, row % 10, ROWS[row]))
                shard.execute("CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops, label); ANALYZE items")
            db.execute(f"""CREATE SERVER {name} FOREIGN DATA WRAPPER postgres_fdw
                OPTIONS (host '{cluster.folder}', port '5432', dbname '{name}', extensions 'vector_ext', async_capable 'true', use_remote_estimate 'true');
                CREATE USER MAPPING FOR postgres SERVER {name} OPTIONS (user 'postgres')""")
    yield cluster
    with cluster.connect() as admin:
        for name in ("coordinator", *SHARDS):
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def coordinator(shards):
    with shards.connect("coordinator") as db:
        register_vector(db)
        yield db


def fan_out(db, statement, k=10, servers=SHARDS, more=""):
    return db.execute(f"SELECT * FROM ivflsh_fan_out(%s, %s, %s{more})", (list(servers), statement, k)).fetchall()


def search(query, k=10, where=""):
    return f"SELECT id, embedding <-> '{text(query)}' FROM items {where} ORDER BY embedding <-> '{text(query)}' LIMIT {k}"


def test_fan_out(coordinator):
    """The answer of all shards is that of one table with all rows."""
    found = 0
    for query in QUERIES:
        rows = fan_out(coordinator, search(query))
        ids, distances = nearest(query)
        assert [r[2] for r in rows] == sorted(r[2] for r in rows) and len(rows) == 10
        assert all(r[0] == SHARDS[int(r[1]) % 4] for r in rows)
        assert all(abs(d - np.linalg.norm(ROWS[int(i)] - query)) < 1e-5 for _, i, d in rows)
        found += len({int(r[1]) for r in rows} & set(ids))
    assert found >= 0.9 * 10 * len(QUERIES)
    # With a condition, and more rows than there are.
    rows = fan_out(coordinator, search(QUERIES[0], 5000, "WHERE label = 3"), 5000)
    assert sorted(int(r[1]) for r in rows) == list(range(3, 4000, 10))
    assert fan_out(coordinator, search(QUERIES[0]), servers=()) == []
    assert len(fan_out(coordinator, search(QUERIES[0]), 3)) == 3
    # NULL is no answer of a search, but one of a statement.
    assert fan_out(coordinator, "SELECT NULL, NULL", servers=["s1"]) == [("s1", None, None)]


def test_settings_of_the_session_count(coordinator):
    asked = "SELECT current_setting('ivflsh.target_recall', true) || current_setting('ivflsh.probes', true) || current_setting('statement_timeout'), 0 FROM (SELECT '[1]'::vector) x"
    assert [r[1] for r in fan_out(coordinator, asked)] == ["0.9505min"] * 4
    coordinator.execute("SET ivflsh.target_recall = 0.99; SET ivflsh.probes = 1000")
    assert [r[1] for r in fan_out(coordinator, asked, more=", '90 s'")] == ["0.99100090s"] * 4
    # All lists are read: the answer is exact but for sketches.
    found = sum(len({int(r[1]) for r in fan_out(coordinator, search(query))} & set(nearest(query)[0])) for query in QUERIES)
    assert found >= 0.98 * 10 * len(QUERIES)
    coordinator.execute("RESET ivflsh.target_recall; RESET ivflsh.probes")
    assert [r[1] for r in fan_out(coordinator, asked)] == ["0.9505min"] * 4, "it was for the statement only"


ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND datname ~ '^s[1-4]$' AND query LIKE '%/* meeting */'"


def test_all_are_asked_at_once(shards, coordinator):
    """Each answers when all four are at work; nobody would, if they were asked one after another."""
    for name in SHARDS:
        with shards.connect(name) as shard:
            shard.execute("""CREATE OR REPLACE FUNCTION meet() RETURNS float8 LANGUAGE plpgsql AS $$
                BEGIN
                    FOR i IN 1 .. 6000 LOOP
                        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'all_have_met') THEN
                            RETURN 0;
                        END IF;
                        PERFORM pg_sleep(0.01);
                    END LOOP;
                    RAISE 'alone';
                END $$""")
    stop = threading.Event()

    def watch():
        with shards.connect() as admin:
            while not stop.wait(0.01):
                if admin.execute(ACTIVE).fetchone() == (4,):
                    admin.execute("CREATE ROLE all_have_met")
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        rows = fan_out(coordinator, "SELECT current_database(), meet() /* meeting */")
    finally:
        stop.set()
        thread.join()
        coordinator.execute("DROP ROLE IF EXISTS all_have_met")
    assert sorted(r[1] for r in rows) == list(SHARDS)


def test_errors_name_the_server(shards, coordinator, refused):
    on_s3 = "SELECT 1, CASE WHEN current_database() = 's3' THEN 1 / (length(current_database()) - 2) ELSE 0.5 END"
    call = "SELECT * FROM ivflsh_fan_out(%s, %s, 10{})"
    names = list(SHARDS)
    refused(coordinator, "22012", 'server "s3": division by zero', call.format(""), (names, on_s3))
    notices = []
    coordinator.add_notice_handler(lambda d: notices.append((d.severity, d.sqlstate, d.message_primary)))
    rows = coordinator.execute(call.format(", skip_failed => true"), (names, on_s3)).fetchall()
    assert [r[0] for r in rows] == ["s1", "s2", "s4"]
    assert notices == [("WARNING", "22012", 'server "s3": division by zero')]
    refused(coordinator, "42P01", 'server "s1": relation "nothing" does not exist', call.format(""), (names, "SELECT id, 0 FROM nothing"))
    refused(coordinator, "42601", 'server "s1": syntax error', call.format(""), (names, "SELEKT"))
    # Neither two columns, nor one answer.
    refused(coordinator, "42804", 'server "s1": remote query result rowtype does not match', call.format(""), (names, "SELECT 1"))
    refused(coordinator, "42804", 'server "s1": remote query result rowtype does not match', call.format(""), (names, "SELECT 1, 2; SELECT 3, 4"))
    refused(coordinator, "22P02", 'server "s1": invalid input syntax', call.format(""), (names, "SELECT 1, 'far'"))
    refused(coordinator, "42704", 'server "s9": there is no such server', call.format(""), (["s1", "s9"], "SELECT 1, 2"))
    for arguments in ((["s1", "s1"], "SELECT 1, 2"), (["s1", None], "SELECT 1, 2"), (["s1"], None)):
        refused(coordinator, "22023", "", call.format(""), arguments)
    refused(coordinator, "22023", "timeout must be more than 0", call.format(", '0 s'"), (names, "SELECT 1, 2"))
    refused(coordinator, "22023", "", "SELECT * FROM ivflsh_fan_out('{s1}', 'SELECT 1, 2', 0)")
    # After each of them the next call has its own answer.
    assert len(fan_out(coordinator, search(QUERIES[0]))) == 10
    coordinator.execute("BEGIN; DROP EXTENSION dblink")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="needs the extension dblink"):
        fan_out(coordinator, "SELECT 1, 2")
    coordinator.execute("ROLLBACK")


def test_one_server_is_slow(shards, coordinator, refused):
    assert len(fan_out(coordinator, "SELECT 1, 2")) == 4  # connected
    slow = "SELECT current_database(), 0 FROM (SELECT pg_sleep(CASE WHEN current_database() = 's2' THEN 600 ELSE 0 END)) x"
    call = "SELECT * FROM ivflsh_fan_out(%s, %s, 10, '3 s', {})"
    refused(coordinator, "57014", 'server "s2": ', call.format(False), (list(SHARDS), slow))
    assert [r[0] for r in coordinator.execute(call.format(True), (list(SHARDS), slow))] == ["s1", "s3", "s4"]
    # A server that does not even end its own statement.
    process = int(fan_out(coordinator, "SELECT pg_backend_pid(), 0", servers=["s2"])[0][1])
    os.kill(process, signal.SIGSTOP)
    try:
        refused(coordinator, "57014", 'server "s2": no answer within 00:00:03', call.format(False), (list(SHARDS), "SELECT 1, 2"))
    finally:
        os.kill(process, signal.SIGCONT)
    # Cancelled here: nothing of it comes to the next call, and the server is told by the connection's end.
    coordinator.execute("SET statement_timeout = '1s'")
    refused(coordinator, "57014", "canceling statement due to statement timeout", "SELECT * FROM ivflsh_fan_out('{s1,s2}', %s, 10)", (slow,))
    coordinator.execute("RESET statement_timeout")
    assert len(fan_out(coordinator, search(QUERIES[0]))) == 10
    give_up = 600
    while coordinator.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%600 ELSE%' AND datname ~ '^s[1-4]$'").fetchone() != (0,):
        give_up -= 1
        assert give_up, "the server goes on with what nobody waits for"
        coordinator.execute("SELECT pg_sleep(0.05)")


def test_connections_are_kept_and_made_anew(shards, coordinator):
    who = "SELECT pg_backend_pid(), 0"
    first = [r[1] for r in fan_out(coordinator, who)]
    assert [r[1] for r in fan_out(coordinator, who)] == first
    with shards.connect() as admin:
        admin.execute("SELECT pg_terminate_backend(p::int, 60000) FROM unnest(%s::text[]) p", (first[1:3],))
    second = [r[1] for r in fan_out(coordinator, who)]
    assert second[0] == first[0] and second[3] == first[3] and not set(second[1:3]) & set(first)
    # Once a server has other options, the connection by the old ones is closed.
    coordinator.execute("ALTER SERVER s1 OPTIONS (SET dbname 's4')")
    try:
        assert fan_out(coordinator, "SELECT current_database(), 0", servers=["s1"])[0][1] == "s4"
        assert len(coordinator.execute("SELECT dblink_get_connections()").fetchone()[0]) == 4
    finally:
        coordinator.execute("ALTER SERVER s1 OPTIONS (SET dbname 's1')")


def test_a_server_is_down(shards, coordinator, refused):
    with Cluster() as other:
        other.create_database("s5", "vector_ext")
        coordinator.execute(f"""CREATE SERVER s5 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{other.folder}', port '5432', dbname 's5');
            CREATE USER MAPPING FOR postgres SERVER s5 OPTIONS (user 'postgres')""")
        try:
            names = [*SHARDS, "s5"]
            assert len(fan_out(coordinator, "SELECT 1, 2", servers=names)) == 5
            other.stop()
            # The connection that was kept is gone, and there is no other.
            refused(coordinator, "08001", 'server "s5": could not establish connection', "SELECT * FROM ivflsh_fan_out(%s, 'SELECT 1, 2', 10)", (names,))
            rows = coordinator.execute("SELECT * FROM ivflsh_fan_out(%s, 'SELECT 1, 2', 10, NULL, true)", (names,)).fetchall()
            assert [r[0] for r in rows] == list(SHARDS)
            other.start()
            assert len(fan_out(coordinator, "SELECT 1, 2", servers=names)) == 5
        finally:
            coordinator.execute("DROP SERVER s5 CASCADE")


def test_rights(shards, refused):
    """Who calls needs the right to use the server, and comes as whom his user mapping says. No connection is left to others."""
    hba = shards.data / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text("local all fan_alice,fan_bob scram-sha-256\n" + before)
    with shards.connect("coordinator") as admin:
        try:
            admin.execute("SELECT pg_reload_conf()")
            for role in ("fan_alice", "fan_bob"):
                admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'word of {role}'")
            admin.execute("GRANT CREATE ON SCHEMA public TO fan_bob")
            call = "SELECT id FROM ivflsh_fan_out('{s1}', 'SELECT session_user, 0', 10)"
            login = {"host": str(shards.folder), "port": 5432, "user": "fan_alice", "password": "word of fan_alice", "dbname": "coordinator",
                     "autocommit": True}
            with psycopg.connect(**login) as alice:
                refused(alice, "42501", 'server "s1": permission denied', call)
                admin.execute("GRANT USAGE ON FOREIGN SERVER s1 TO fan_alice, fan_bob")
                refused(alice, "42704", 'server "s1": user mapping not found', call)
                admin.execute("CREATE USER MAPPING FOR fan_alice SERVER s1 OPTIONS (user 'fan_alice')")
                refused(alice, "2F003", 'server "s1": password', call)
                admin.execute("ALTER USER MAPPING FOR fan_alice SERVER s1 OPTIONS (password 'word of fan_alice')")
                assert alice.execute(call).fetchall() == [("fan_alice",)]
                assert len(alice.execute("SELECT dblink_get_connections()").fetchone()[0]) == 1
                # A function of another role: as that role, and its connection does not remain.
                admin.execute(f"""CREATE USER MAPPING FOR fan_bob SERVER s1 OPTIONS (user 'fan_bob', password 'word of fan_bob');
                    SET ROLE fan_bob;
                    CREATE FUNCTION by_bob(statement text) RETURNS SETOF text LANGUAGE sql SECURITY DEFINER
                        AS $$SELECT id FROM ivflsh_fan_out('{{s1}}', statement, 10)$$; RESET ROLE""")
                assert alice.execute("SELECT by_bob('SELECT session_user, 0')").fetchall() == [("fan_bob",)]
                refused(alice, "22012", "division by zero", "SELECT by_bob('SELECT 1, 1 / 0')")
                assert len(alice.execute("SELECT dblink_get_connections()").fetchone()[0]) == 1
                assert alice.execute(call).fetchall() == [("fan_alice",)]
                # What is in another schema is not taken for what PostgreSQL or dblink has.
                alice.execute("CREATE TEMP TABLE pg_foreign_server AS SELECT 1 AS oid")
                assert alice.execute(call).fetchall() == [("fan_alice",)]
        finally:
            hba.write_text(before)
            admin.execute("SELECT pg_reload_conf()")
            for role in ("fan_alice", "fan_bob"):
                admin.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
            admin.execute("DROP USER MAPPING IF EXISTS FOR fan_alice SERVER s1")


def test_dblink_in_another_schema(shards, coordinator):
    coordinator.execute('CREATE SCHEMA "of links"; ALTER EXTENSION dblink SET SCHEMA "of links"')
    try:
        assert len(fan_out(coordinator, "SELECT 1, 2")) == 4
    finally:
        coordinator.execute('ALTER EXTENSION dblink SET SCHEMA public; DROP SCHEMA "of links"')


# Shards as foreign tables


@pytest.fixture
def foreign(coordinator):
    """The shards as partitions of one table."""
    coordinator.execute("CREATE TABLE items (id int, label int, embedding vector(16)) PARTITION BY LIST ((id % 4))")
    for number, name in enumerate(SHARDS):
        coordinator.execute(f"CREATE FOREIGN TABLE items_{name} PARTITION OF items FOR VALUES IN ({number}) SERVER {name} OPTIONS (table_name 'items')")
    yield coordinator
    coordinator.execute("DROP TABLE items")


def explained(db, statement, options="VERBOSE, COSTS OFF"):
    return "\n".join(row[0] for row in db.execute(f"EXPLAIN ({options}) {statement}"))


def all_shards(query, k=10, outer="d + 0"):
    """Plain SQL that asks all shards at once: `d + 0`, as nothing would be asked at once in the order of an index."""
    parts = " UNION ALL ".join(f"(SELECT id, embedding <-> '{text(query)}' AS d FROM items_{name} ORDER BY d LIMIT {k})" for name in SHARDS)
    return f"SELECT id, d FROM ({parts}) x ORDER BY {outer} LIMIT {k}"


def test_remote_statements(foreign):
    """Order, condition and LIMIT go to the servers; by UNION ALL all at once."""
    query = QUERIES[2]
    plan = explained(foreign, all_shards(query))
    assert plan.count("Async Foreign Scan") == 4
    remote = re.findall(r"Remote SQL: (.*)", plan)
    assert len(remote) == 4 and all(" ORDER BY (embedding OPERATOR(public.<->) " in r and r.endswith("LIMIT 10::bigint") for r in remote), plan
    by_table = foreign.execute(all_shards(query)).fetchall()
    assert [(int(r[1]), r[2]) for r in fan_out(foreign, search(query))] == by_table
    # A table with foreign partitions: the order is sent, the LIMIT is not; rows are fetched as they are wanted.
    foreign.execute("SET enable_sort = off")
    plan = explained(foreign, f"SELECT id FROM items WHERE label = 3 ORDER BY embedding <-> '{text(query)}' LIMIT 10")
    remote = re.findall(r"Remote SQL: (.*)", plan)
    assert "Merge Append" in plan and len(remote) == 4
    assert all("WHERE ((label = 3)) ORDER BY (embedding OPERATOR(public.<->) " in r and "LIMIT" not in r for r in remote), plan
    # Without the option `extensions` nothing of it is sent.
    for name in SHARDS:
        foreign.execute(f"ALTER SERVER {name} OPTIONS (DROP extensions)")
    try:
        assert "ORDER BY" not in " ".join(re.findall(r"Remote SQL: (.*)", explained(foreign, all_shards(query))))
    finally:
        for name in SHARDS:
            foreign.execute(f"ALTER SERVER {name} OPTIONS (ADD extensions 'vector_ext')")


def test_rows_move_between_shards(foreign):
    before = [int(r[1]) for r in fan_out(foreign, search(QUERIES[3]))]
    moved = before[0]
    home, other = SHARDS[moved % 4], SHARDS[(moved + 1) % 4]
    foreign.execute(f"WITH gone AS (DELETE FROM items_{home} WHERE id = {moved} RETURNING *) INSERT INTO items_{other} SELECT * FROM gone")
    rows = fan_out(foreign, search(QUERIES[3]))
    assert [int(r[1]) for r in rows] == before and rows[0][0] == other
    foreign.execute(f"WITH gone AS (DELETE FROM items_{other} WHERE id = {moved} RETURNING *) INSERT INTO items_{home} SELECT * FROM gone")
    assert fan_out(foreign, search(QUERIES[3]))[0][0] == home


# Partitions


@pytest.mark.parametrize("kind", ["HASH", "LIST", "RANGE"])
@pytest.mark.parametrize("count", [1, 8, 64])
def test_partitions(db, kind, count):
    """Merge append of index scans, that reads a row of each partition and those that are returned; partitions pruned when the
    statement is planned, or run; the answer of one index."""
    db.execute(f"CREATE TABLE items (id int, part int, embedding vector(16)) PARTITION BY {kind} (part)")
    bound = {"HASH": "WITH (MODULUS {count}, REMAINDER {i})", "LIST": "IN ({i})", "RANGE": "FROM ({i}) TO ({next})"}[kind]
    db.execute(";".join(f"CREATE TABLE items_{i} PARTITION OF items FOR VALUES {bound.format(count=count, i=i, next=i + 1)}" for i in range(count)))
    db.execute("CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops)")
    with db.cursor().copy("COPY items FROM STDIN") as copy:
        for i, row in enumerate(ROWS):
            copy.write_row((i, i % count, text(row)))
    db.execute("ANALYZE items; SET enable_seqscan = off; SET enable_sort = off; SET jit = off")
    order = f"ORDER BY embedding <-> '{text(QUERIES[0])}' LIMIT 10"
    plan = explained(db, f"SELECT id FROM items {order}", "ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF")
    scans = [int(float(rows)) for rows in re.findall(r"Index Scan using \S+ on \S+ (?:\S+ )?\(actual rows=([\d.]+)", plan)]
    assert len(scans) == count and sum(scans) < 10 + count, plan
    assert ("Merge Append" in plan) == (count > 1)
    found = 0
    for query in QUERIES:
        rows = [r[0] for r in db.execute("SELECT id FROM items ORDER BY embedding <-> %s::vector LIMIT 10", (text(query),))]
        found += len(set(rows) & set(nearest(query)[0]))
    assert found >= 0.9 * 10 * len(QUERIES)
    # Pruned by a constant, and by a parameter of a plan that was made before.
    db.execute("SET ivflsh.enable_vector_scan = off")
    assert explained(db, f"SELECT id FROM items WHERE part = 0 {order}").count(" on public.items_") == 1
    if count > 1:
        db.execute("SET plan_cache_mode = force_generic_plan")
        db.execute(f"PREPARE pruned(int) AS SELECT id FROM items WHERE part = $1 {order}")
        assert f"Subplans Removed: {count - 1}" in explained(db, "EXECUTE pruned(0)", "COSTS OFF")
    wanted = [i for i in nearest(QUERIES[0], 4000)[0] if i % count == 0][:10]
    db.execute("SET ivflsh.probes = 1000")
    assert len(set(wanted) & {r[0] for r in db.execute(f"SELECT id FROM items WHERE part = 0 {order}")}) >= 9


# Replicas


def test_queries_spread_over_replicas():
    """A standby and a logical subscriber with an index of its own answer as the server that is written to does."""
    with Cluster(settings={"wal_level": "logical"}) as primary:
        primary.create_database("app", "vector_ext")
        with primary.connect("app") as db:
            register_vector(db)
            make_table(db, ROWS[:3000])
            make_index(db)
            db.execute("CREATE PUBLICATION vectors FOR TABLE items")
        with primary.standby({"hot_standby": "on"}) as standby, Cluster() as subscriber:
            subscriber.create_database("app", "vector_ext")
            with subscriber.connect("app") as there, primary.connect("app") as db:
                register_vector(there)
                register_vector(db)
                there.execute("CREATE TABLE items (id int PRIMARY KEY, label int NOT NULL, embedding vector(16))")
                make_index(there, options="WITH (bits = 4)")
                there.execute(f"""CREATE SUBSCRIPTION vectors CONNECTION 'host={primary.folder} port=5432 user=postgres dbname=app'
                    PUBLICATION vectors""")
                insert(db, ROWS[3000:], first_id=3000)
                db.execute("DELETE FROM items WHERE id < 100; UPDATE items SET embedding = embedding + embedding WHERE id = 200")
                expected = db.execute("SELECT count(*), sum(id), round(sum(vector_norm(embedding))::numeric, 2) FROM items").fetchone()
                standby.wait_for_replay()
                for _ in range(1200):
                    if there.execute("SELECT count(*), sum(id), round(sum(vector_norm(embedding))::numeric, 2) FROM items").fetchone() == expected:
                        break
                    there.execute("SELECT pg_sleep(0.05)")
                else:
                    pytest.fail(subscriber.log_tail())
                there.execute("ANALYZE items")
                assert there.execute("SELECT rows FROM ivflsh_check('items_embedding_idx')").fetchone() == (3900,)
                with standby.connect("app") as second:
                    for session in (db, second, there):
                        session.execute("SET ivflsh.probes = 10000; SET enable_seqscan = off")
                    answers = lambda session: [session.execute(search(query)).fetchall() for query in QUERIES]
                    assert answers(db) == answers(second)
                    # Another index has missed other rows.
                    same = sum(len(set(one) & set(other)) for one, other in zip(answers(db), answers(there)))
                    assert same >= 0.97 * 10 * len(QUERIES)
                there.execute("DROP SUBSCRIPTION vectors")


# Citus


@pytest.mark.skipif(not CITUS, reason="needs Citus: CITUS_PG_CONFIG names the pg_config of a server that has it beside vector_ext")
def test_citus():
    """One node that is coordinator and worker, four shards: docs/scale-out.md's recipe."""
    with Cluster(CITUS, settings={"shared_preload_libraries": "citus", "listen_addresses": "localhost", "port": "25432"}) as cluster:
        connect = lambda: psycopg.connect(host=str(cluster.folder), port=25432, user="postgres", dbname="postgres", autocommit=True)
        with connect() as db:
            db.execute("CREATE EXTENSION citus; CREATE EXTENSION vector_ext")
            register_vector(db)
            db.execute("SELECT citus_set_coordinator_host('localhost', 25432); SET citus.shard_count = 4")
            db.execute("CREATE TABLE items (id int PRIMARY KEY, embedding vector(16)); SELECT create_distributed_table('items', 'id')")
            db.execute("CREATE INDEX ON items USING ivflsh (embedding vector_l2_ops)")
            db.execute("CREATE TABLE arrays (id int, e real[])")
            with db.cursor().copy("COPY arrays FROM STDIN") as copy:
                for i, row in enumerate(ROWS):
                    copy.write_row((i, "{" + ",".join(map(str, row)) + "}"))
            # A cast's function, called with the value alone.
            db.execute("INSERT INTO items (id, embedding) SELECT id, e FROM arrays")
            assert db.execute("SELECT ivflsh_recall('items_embedding_idx')").fetchone() == (None,), "the coordinator's shell holds nothing"
            plan = explained(db, search(QUERIES[0]), "VERBOSE, COSTS OFF")
            assert "Task Count: 4" in plan and "LIMIT" in plan
            found = sum(len({r[0] for r in db.execute(search(q))} & set(nearest(q)[0])) for q in QUERIES)
            assert found >= 0.9 * 10 * len(QUERIES)
