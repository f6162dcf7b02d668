"""Memory: a build that may take little or much of it, and statements of which the system has none to give."""

import itertools
import os
import re
import struct
import subprocess
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector

from harness.cluster import Cluster
from harness.search import clustered, insert, make_table

NOTHING_LEFT = "53200"
MOST_MEMORY = "2147483647kB"
TYPES = {"vector": 16_000, "halfvec": 16_000}
METRICS = ["l2", "ip", "cosine"]


# Builds of nearly nothing: no division by a number of rows, pages or lists, no range that is empty.

DIMENSIONS = [1, 2, 3, 7, 8, 9, 31, 64, 100, 510, 784, 1000, 1536, 2000, 2001, 4096, 5461, 8000, 8192, 14_000, 15_999, 16_000]


@pytest.mark.parametrize("memory", ["1MB", "64MB", MOST_MEMORY])
@pytest.mark.parametrize("type_name", TYPES)
def test_empty_tables(db, type_name, memory):
    """CREATE INDEX, TRUNCATE (which builds again) and REINDEX, of all widths."""
    db.execute(f"SET maintenance_work_mem = '{memory}'")
    for dimensions, metric, bits in zip(DIMENSIONS, itertools.cycle(METRICS), itertools.cycle([8, 0, 4, 8])):
        db.execute(f"CREATE TABLE t (v {type_name}({dimensions}))")
        db.execute(f"CREATE INDEX ON t USING ivflsh (v {type_name}_{metric}_ops) WITH (bits = {bits})")
        db.execute("TRUNCATE t")
        db.execute("REINDEX TABLE t")
        assert db.execute("SELECT lists, entries FROM ivflsh_check('t_v_idx')").fetchone() == (1, 0)
        db.execute("DROP TABLE t")


@pytest.mark.parametrize("memory", ["1MB", "64MB", MOST_MEMORY])
def test_tables_of_few_rows(db, memory):
    """0 to 600 rows, of which some or all may be deleted or NULL, and numbers of lists that are asked for."""
    db.execute(f"SET maintenance_work_mem = '{memory}'")
    random = np.random.default_rng(1)
    cases = itertools.product([0, 1, 2, 17, 18, 31, 32, 33, 600], [0, 1, 2, 1000])
    for (rows, lists), dimensions in zip(cases, itertools.cycle([3, 1000, 40, 2000, 16_000])):
        rows = min(rows, 40) if dimensions > 2000 else rows
        make_table(db, [None, *random.normal(size=(rows, dimensions))], dimensions=dimensions)
        db.execute(f"CREATE INDEX i ON items USING ivflsh (embedding) WITH (lists = {lists})" if lists
                   else "CREATE INDEX i ON items USING ivflsh (embedding)")
        assert db.execute("SELECT entries FROM ivflsh_check('i')").fetchone() == (rows,)
        db.execute("DELETE FROM items WHERE id % 3 > 0")
        db.execute("ANALYZE items")  # PostgreSQL knows of rows that there are not any more, or the other way round
        db.execute("DELETE FROM items WHERE id > 5")
        db.execute("REINDEX INDEX i")
        left = db.execute("SELECT count(embedding) FROM items").fetchone()[0]
        assert db.execute("SELECT rows FROM ivflsh_check('i')").fetchone() == (left,)
        db.execute("DROP TABLE items")


# Statements without memory. Each is given more and more addresses, as under `ulimit -v`, from none to plenty.

ROWS = 12_000
STATEMENTS = {
    "build": "CREATE INDEX ON items USING ivflsh (embedding, label)",
    "build of a sample": "SET LOCAL maintenance_work_mem = '1MB'; CREATE INDEX ON items USING ivflsh (embedding)",
    "build of wide rows": "CREATE INDEX ON wide USING ivflsh (embedding vector_cosine_ops)",
    "insert with splits": "INSERT INTO grown SELECT id + 100000, label, embedding FROM items LIMIT 1500",
    "vacuum": "VACUUM grown",
    "reindex": "REINDEX INDEX items_i",
    "reindex concurrently": "REINDEX INDEX CONCURRENTLY again_i",
    "tune": "SELECT ivflsh_tune('items_i', 'SELECT embedding FROM items WHERE id % 300 = 0')",
    "search": "SELECT id FROM items ORDER BY embedding <-> (SELECT embedding FROM items WHERE id = 7) LIMIT 10",
    "large search": "SELECT id FROM items ORDER BY embedding <-> (SELECT embedding FROM items WHERE id = 7) LIMIT 4000",
    "filtered": "SELECT id FROM items WHERE label = 3 AND id > 1000 "
                "ORDER BY embedding <-> (SELECT embedding FROM items WHERE id = 7) LIMIT 100",
    "range": "SELECT count(*) FROM items WHERE embedding <-> (SELECT embedding FROM items WHERE id = 7) < 4",
    "recall": "SELECT ivflsh_recall('items_i', 300, 200)",
    "check": "SELECT ivflsh_check('items_i')",
    "stats": "SELECT ivflsh_stats('items_i')",
    "lists": "SELECT count(*) FROM ivflsh_lists('items_i')",
}


@contextmanager
def server(environment=None):
    """A server of its own, so that its log can be read as a whole."""
    settings = {"shared_buffers": "64MB", "max_parallel_workers_per_gather": "0", "jit": "off"}
    with Cluster(settings=settings, environment=environment) as cluster:
        cluster.create_database("scarce", "vector_ext")
        with cluster.connect("scarce") as connection:
            register_vector(connection)
            make_table(connection, clustered(ROWS, 32))
            connection.execute("CREATE INDEX items_i ON items USING ivflsh (embedding, label)")
            make_table(connection, clustered(300, 1500), table="wide")
            make_table(connection, clustered(1000, 32), table="grown")
            connection.execute("CREATE INDEX ON grown USING ivflsh (embedding)")
            make_table(connection, clustered(3000, 32), table="again")
            connection.execute("CREATE INDEX again_i ON again USING ivflsh (embedding)")
            connection.execute("ANALYZE")
        yield cluster


@pytest.fixture(scope="module")
def scarce():
    with server() as cluster:
        yield cluster


def run(cluster, statements, room=None, prepare=lambda connection: None):
    """Runs statements in a new session that may take so much memory more; returns the SQLSTATE, None for success."""
    with cluster.connect("scarce") as connection:
        # What each session has of its own is there before memory is counted.
        connection.execute("SET enable_seqscan = off; SELECT id FROM items ORDER BY embedding <-> "
                           "(SELECT embedding FROM items WHERE id = 7) LIMIT 1; SELECT ivflsh_stats('items_i')")
        if room is not None:
            cluster.limit_room(connection.info.backend_pid, room)
        prepare(connection)
        try:
            if statements in (STATEMENTS["vacuum"], STATEMENTS["reindex concurrently"]):
                connection.execute(statements)
            else:
                connection.execute(f"BEGIN; {statements}; ROLLBACK")
        except psycopg.Error as error:
            return f"{error.sqlstate}, session lost" if connection.closed else error.sqlstate
        return None


def crashes(cluster):
    return re.findall(r".*(?:terminated by|server process|exited with|no memory left|panicked|abort).*", cluster.log.read_text())


def drop_invalid(cluster):
    """What REINDEX CONCURRENTLY has left."""
    with cluster.connect("scarce") as connection:
        left = connection.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid").fetchall()
        for name, in left:
            connection.execute(f"DROP INDEX {name}")


@pytest.mark.parametrize("name", STATEMENTS)
def test_without_memory(scarce, stress, name):
    """Success or SQLSTATE 53200, whatever there is; nothing ends the session, not to speak of the server."""
    before = len(crashes(scarce))
    outcomes = {}
    for step in range(stress.memory_steps):
        room = int(16_384 * (2 ** 15) ** (step / (stress.memory_steps - 1)))
        outcomes[room] = run(scarce, STATEMENTS[name], room)
        drop_invalid(scarce)
    print(name, {f"{room >> 10} kB": outcome for room, outcome in outcomes.items()})
    assert crashes(scarce)[before:] == []
    assert set(outcomes.values()) <= {None, NOTHING_LEFT}, outcomes
    assert outcomes[max(outcomes)] is None
    assert run(scarce, STATEMENTS["check"]) is None


# Single allocations that fail, wherever.

LOST = f"{NOTHING_LEFT}, session lost"
FAILURES = [(name, who, lasting)
            for name in ("build", "insert with splits", "large search", "filtered", "recall", "check", "stats")
            for who in ("backend", "threads") for lasting in (False, True)
            # std takes the handles of new threads past any allocator, where a build has just seen that there is memory.
            if name != "build" or who == "threads" or not lasting
            if name == "build" or who == "backend"]


@pytest.fixture(scope="module")
def failing():
    """A server whose extension does not get what the file `orders` says."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("VECTOR_EXT_TMP")) as folder:
        library, orders = Path(folder) / "malloc.so", Path(folder) / "orders"
        source = Path(__file__).parent / "harness/failing_malloc.c"
        subprocess.run(["cc", "-O1", "-fno-builtin", "-fPIC", "-shared", "-o", library, source], check=True)
        orders.write_bytes(bytes(40))
        orders.parent.chmod(0o755)
        orders.chmod(0o666)
        with server({"LD_PRELOAD": library, "FAILING_MALLOC": orders}) as cluster:
            yield cluster, orders


@pytest.mark.parametrize("name, who, lasting", FAILURES)
def test_failing_allocations(failing, stress, name, who, lasting):
    """One fails: the statement goes on or fails. All fail from there on: at worst the session ends, never the server."""
    cluster, orders = failing
    outcomes, number = Counter(), 1

    def order(connection):
        last = 2 ** 60 if lasting else number
        with open(orders, "r+b") as file:
            file.write(struct.pack("5q", connection.info.backend_pid, number, last, 1 + (who == "threads"), 0))

    while number < 50_000:
        outcomes[run(cluster, STATEMENTS[name], prepare=order)] += 1
        number = int(number * (1 + 20 / stress.memory_steps)) + 1
    print(name, who, "for good" if lasting else "once", dict(outcomes))
    assert not [line for line in crashes(cluster) if "no memory left" not in line]
    assert set(outcomes) <= {None, NOTHING_LEFT} | ({LOST} if lasting else set())
    assert run(cluster, STATEMENTS["check"]) is None


# Memory that has a bound.

def test_recall_of_equal_rows(scarce):
    """Ties are counted, not kept: 100 queries would have 100,000 each."""
    with scarce.connect("scarce") as connection:
        connection.execute("CREATE TABLE equal AS SELECT id, '[1,2,3]'::vector(3) AS v FROM generate_series(1, 100000) id")
        connection.execute("CREATE INDEX equal_i ON equal USING ivflsh (v)")
    assert run(scarce, "SELECT ivflsh_recall('equal_i', 100, 10)", 40 << 20) is None
    with scarce.connect("scarce") as connection:
        assert connection.execute("SELECT ivflsh_recall('equal_i', 30, 10)").fetchone() == (1,)
        connection.execute("DROP TABLE equal")


def test_recall_in_batches(scarce):
    """As many queries at a time as maintenance_work_mem has room for."""
    with scarce.connect("scarce") as connection:
        found = []
        for memory in ("64MB", "1MB"):
            connection.execute(f"SET maintenance_work_mem = '{memory}'")
            found.append(connection.execute("SELECT ivflsh_recall('items_i', 300, 200)").fetchone()[0])
        assert abs(found[0] - found[1]) < 0.03 and min(found) > 0.85, found


PAGE, SEGMENT = 8192, 1 << 30
KIND, FREE = -14, 6  # where a page says what it is for
FOR_CHECK, FOR_VACUUM = 40_000, 176_000  # more pages than are kept account of in 1 MB


@pytest.fixture
def far(scarce, request):
    """An index with some of its pages at its beginning, some at its end, and many empty pages between them (which take
    no room on the disk), and a function that writes over a page of it while the server is down."""
    pages = request.param
    with scarce.connect("scarce") as connection:
        register_vector(connection)
        make_table(connection, clustered(1500, 16), table="far")
        connection.execute("CREATE INDEX far_i ON far USING ivflsh (embedding) WITH (lists = 40)")
        connection.execute("CHECKPOINT")
        path = scarce.data / connection.execute("SELECT pg_relation_filepath('far_i')").fetchone()[0]
        lists = "SELECT head FROM ivflsh_lists('far_i') WHERE level = 0 ORDER BY head LIMIT 1"
        head = connection.execute(lists).fetchone()[0]
    scarce.stop()
    (first, second), owner = (path, path.with_name(f"{path.name}.1")), path.stat()
    os.truncate(first, min(SEGMENT, pages * PAGE))
    if pages * PAGE > SEGMENT:
        second.touch()
        os.chown(second, owner.st_uid, owner.st_gid)
        os.chmod(second, 0o600)
        os.truncate(second, pages * PAGE - SEGMENT)
    scarce.start()
    with scarce.connect("scarce") as connection:
        register_vector(connection)
        insert(connection, clustered(4500, 16)[1500:], table="far", first_id=1500)
        connection.execute("DELETE FROM far WHERE id % 9 = 0; CHECKPOINT")

    def page(number, content=None):
        where = first if number < SEGMENT // PAGE else second
        with open(where, "r+b") as file:
            file.seek(number * PAGE % SEGMENT)
            before = file.read(PAGE)
            if content is not None:
                file.seek(number * PAGE % SEGMENT)
                file.write(content)
        return before

    page.head = head
    yield page
    with scarce.connect("scarce") as connection:
        connection.execute("DROP TABLE far")


@pytest.mark.parametrize("far", [FOR_CHECK], indirect=True)
def test_windows_of_pages(scarce, far):
    """What is known of pages is kept for as many as the memory holds: the answers are the same, and damage is found."""
    questions = ["SELECT * FROM ivflsh_check('far_i')", "SELECT * FROM ivflsh_check('far_i', heapallindexed => false)",
                 "SELECT ivflsh_stats('far_i')", "SELECT * FROM ivflsh_lists('far_i') ORDER BY 1"]
    answers = {}
    for memory in ("1GB", "1MB"):
        with scarce.connect("scarce") as connection:
            connection.execute(f"SET maintenance_work_mem = '{memory}'")
            answers[memory] = [connection.execute(question).fetchall() for question in questions]
    assert answers["1MB"] == answers["1GB"]
    assert answers["1GB"][0][0][3] > FOR_CHECK + 50
    with scarce.connect("scarce") as connection:
        beyond = connection.execute("SELECT max(head) FROM ivflsh_lists('far_i')").fetchone()[0]
    scarce.stop()
    kinds = {}
    for number in range(FOR_CHECK, beyond + 1):
        kinds.setdefault(far(number)[KIND], number)
    scarce.start()
    kinds = {kind: number for kind, number in kinds.items() if kind not in (0, FREE)}
    assert len(kinds) >= 2, kinds
    for number in kinds.values():
        scarce.stop()
        whole = far(number, bytes(PAGE))
        scarce.start()
        assert run(scarce, f"SET LOCAL maintenance_work_mem = '1MB'; {questions[0]}") == "XX002", number
        scarce.stop()
        far(number, whole)
        scarce.start()
    assert run(scarce, questions[0]) is None


@pytest.mark.parametrize("far", [FOR_VACUUM], indirect=True)
def test_vacuum_in_windows_of_pages(scarce, far):
    """Pages that nothing refers to are given back, wherever they are; lists are counted once."""
    posting = far(far.head)
    with scarce.connect("scarce") as connection:
        register_vector(connection)
        # So many near each other that no list is what it was: pages of the old ones belong to none.
        insert(connection, np.repeat(clustered(1500, 16), 4, axis=0), table="far", first_id=5000)
        connection.execute("CHECKPOINT")
    scarce.stop()
    for number in (100_000, FOR_VACUUM - 1):
        far(number, posting)
    scarce.start()
    with scarce.connect("scarce") as connection:
        pages = "SELECT leaked_pages, free_pages FROM ivflsh_check('far_i')"
        leaked, free = connection.execute(pages).fetchone()
        assert leaked >= 2
        connection.execute("SET maintenance_work_mem = '1MB'")
        connection.execute("VACUUM far")
        connection.execute("SET maintenance_work_mem = '1GB'")
        left, free_now = connection.execute(pages).fetchone()
        assert left == 0 and free_now >= free + leaked


def test_check_of_many_pages(scarce):
    """Of an index as large as it likes, ivflsh_check and its like keep what maintenance_work_mem holds."""
    with scarce.connect("scarce") as connection:
        register_vector(connection)
        make_table(connection, clustered(1500, 16), table="long")
        connection.execute("CREATE INDEX long_i ON long USING ivflsh (embedding); CHECKPOINT")
        path = scarce.data / connection.execute("SELECT pg_relation_filepath('long_i')").fetchone()[0]
    os.truncate(path, 131_000 * PAGE)
    for question in ("SELECT * FROM ivflsh_check('long_i')", "SELECT ivflsh_stats('long_i')", "SELECT ivflsh_lists('long_i')"):
        assert run(scarce, f"SET LOCAL maintenance_work_mem = '1MB'; {question}", 5 << 19) is None, question
    with scarce.connect("scarce") as connection:
        connection.execute("DROP TABLE long")


@pytest.mark.parametrize("memory", ["64kB", "64MB"])
def test_bitmap_of_dense_and_sparse_pages(scarce, memory):
    with scarce.connect("scarce") as connection:
        connection.execute(f"SET work_mem = '{memory}'; SET ivflsh.enable_vector_scan = bitmap")
        for condition in ("id % 2 = 0 AND id BETWEEN 3 AND 11000", "id IN (5, 700, 701, 702, 11999)", "id > 100"):
            query = f"SELECT id FROM items WHERE {condition} ORDER BY embedding <-> (SELECT embedding FROM items WHERE id = 7) LIMIT 20"
            by_index = connection.execute(query).fetchall()
            connection.execute("SET enable_indexscan = off; SET ivflsh.enable_vector_scan = off")
            exact = connection.execute(query).fetchall()
            connection.execute("RESET enable_indexscan; SET ivflsh.enable_vector_scan = bitmap")
            assert len(by_index) == len(exact) and len(set(by_index) & set(exact)) >= 0.9 * len(exact), condition


@pytest.mark.parametrize("scan", ["on", "off"])
def test_rows_returned_beyond_work_mem(scarce, scan):
    """What a scan remembers goes to a file: each row still comes once, and all come."""
    with scarce.connect("scarce") as connection:
        connection.execute(f"SET work_mem = '64kB'; SET ivflsh.enable_vector_scan = {scan}; "
                           "SET ivflsh.iterative_scan = relaxed_order; SET enable_seqscan = off; SET enable_sort = off")
        with connection.transaction():
            connection.execute("DECLARE c CURSOR FOR SELECT id FROM items WHERE label >= 0 "
                               "ORDER BY embedding <-> (SELECT embedding FROM items WHERE id = 7)")
            ids = [row[0] for row in connection.execute("FETCH ALL FROM c").fetchall()]
        assert len(ids) == len(set(ids)) == ROWS
