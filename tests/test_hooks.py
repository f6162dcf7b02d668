"""Another module had the planner's and the executor's hooks before, and raises in them: an ERROR of C code under frames of
Rust. Nothing stays locked, pinned or remembered; the session goes on and answers as before."""

import os
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest
from pgvector.psycopg import register_vector

from harness.search import clustered, make_table

HOOKS = ("pathlist", "upper_paths", "start", "started", "run", "ran")
NEAREST = "(SELECT embedding FROM items WHERE id = 7)"
STATEMENTS = {
    "index scan": f"SELECT id FROM items ORDER BY embedding <-> {NEAREST} LIMIT 5",
    "vector scan": f"SELECT id FROM items WHERE label = 3 AND id > 10 ORDER BY embedding <-> {NEAREST} LIMIT 5",
    "join": f"SELECT b.id FROM items a, LATERAL (SELECT id FROM items WHERE label < 5 ORDER BY embedding <-> a.embedding LIMIT 2) b "
            f"WHERE a.id < 4 ORDER BY 1",
    "function": "SELECT searched(7, 4) UNION ALL SELECT searched(8, 3)",
    "cursor": f"DECLARE c CURSOR FOR SELECT id FROM items ORDER BY embedding <-> {NEAREST}; FETCH 5 FROM c; FETCH 20 FROM c",
    "recall": "SELECT ivflsh_recall('items_i', 5, 3)",
    "recall of a query": "SELECT ivflsh_recall('items_i', 'SELECT embedding FROM items WHERE id < 5', 3)",
}


@pytest.fixture(scope="module")
def module(cluster):
    """The module, compiled for the server."""
    headers = subprocess.run([cluster.pg_config, "--includedir-server"], check=True, text=True, capture_output=True).stdout.strip()
    with tempfile.TemporaryDirectory(dir=os.environ.get("VECTOR_EXT_TMP")) as folder:
        library, source = Path(folder) / "raising_hooks.so", Path(__file__).parent / "harness/raising_hooks.c"
        subprocess.run(["cc", "-O1", "-fPIC", "-shared", f"-I{headers}", "-o", library, source], check=True)
        Path(folder).chmod(0o755)
        yield library


@pytest.fixture
def connection(database, module):
    with database.connect() as setup:
        make_table(setup, clustered(2000, 12))
        setup.execute("""CREATE INDEX items_i ON items USING ivflsh (embedding, label) WITH (lists = 40); ANALYZE items;
            CREATE FUNCTION searched(q int, n int) RETURNS SETOF int LANGUAGE plpgsql AS $$ BEGIN
                RETURN QUERY SELECT id FROM items WHERE label < 8 ORDER BY embedding <->
                    (SELECT embedding FROM items WHERE id = q) LIMIT n; END $$""")
    connection = database.cluster.connect(database.name)
    database.connections.append(connection)
    connection.execute(f"LOAD '{module}'")  # first, so that it is the previous one
    connection.execute("LOAD 'vector_ext'; SET enable_seqscan = off; SET enable_sort = off")
    register_vector(connection)
    return connection


def answers(connection, statement):
    """What a statement returns, in a transaction; the SQLSTATE if it fails."""
    try:
        with connection.transaction(force_rollback=True):
            cursor = connection.execute(statement)
            found = [cursor.fetchall()] if cursor.description else []
            while cursor.nextset():
                found += [cursor.fetchall()] if cursor.description else []
            return found
    except psycopg.Error as error:
        return error.sqlstate


@pytest.mark.parametrize("name", STATEMENTS)
def test_previous_hook_raises(connection, name):
    """At each of its calls in turn, until none is left; also amid a subtransaction that goes on after it."""
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    usual = answers(connection, STATEMENTS[name])
    assert isinstance(usual, list) and usual[0]
    raised = dict.fromkeys(HOOKS, 0)
    for hook in HOOKS:
        for call in range(1, 40):
            connection.execute(f"SET raising.call = {call}; SET raising.hook = '{hook}'")
            found = answers(connection, STATEMENTS[name])
            connection.execute("SET raising.hook = ''")
            if found != "P0001":
                assert found == usual, (hook, call)
                break
            raised[hook] += 1
            assert answers(connection, STATEMENTS[name]) == usual, (hook, call)
            with connection.transaction(force_rollback=True):
                connection.execute(f"SET LOCAL raising.call = {call}; SET LOCAL raising.hook = '{hook}'")
                with pytest.raises(psycopg.errors.RaiseException), connection.transaction():
                    connection.execute(STATEMENTS[name])
                connection.execute("SET LOCAL raising.hook = ''")
                assert answers(connection, STATEMENTS[name]) == usual, (hook, call)
    assert all(raised[hook] for hook in HOOKS if (name, hook) != ("recall", "pathlist")), raised
    assert not [notice for notice in notices if "leak" in notice], notices
    locks = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'items_i'::regclass"
    assert connection.execute(locks).fetchone() == (0,)
    connection.execute("SET lock_timeout = '5s'")
    connection.execute("VACUUM items")
    connection.execute("REINDEX INDEX items_i")
    assert connection.execute("SELECT entries FROM ivflsh_check('items_i')").fetchone() == (2000,)
