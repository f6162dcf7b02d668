"""Ways from pgvector and back: the add-on on its types, its library replaced under a database, dumps.

These need pgvector itself: PGVECTOR_CONFIG names the pg_config of a server that has it (`make test-clients` builds one).
"""

import os
import subprocess
from pathlib import Path

import pytest

from harness.cluster import Cluster
from harness.installation import Installation

pytestmark = pytest.mark.skipif(not os.environ.get("PGVECTOR_CONFIG"), reason="needs pgvector: make test-clients")

ITEMS = """
    CREATE TABLE items (id int, tenant int, v vector(16), h halfvec(16), b bit(16), s sparsevec(16));
    INSERT INTO items SELECT i, i % 20, a, a, ((i * 7919) % 65536)::bit(16), a::vector::sparsevec FROM (
        SELECT i, ARRAY(SELECT sin(i * j * 0.1) + cos(i + j * j) FROM generate_series(1, 16) j)::real[] a
        FROM generate_series(1, 3000) i) x;
"""
INDEXES = {
    "h1": "hnsw (v vector_l2_ops) WITH (m = 8)",
    "h2": "hnsw (h halfvec_cosine_ops)",
    "h3": "hnsw (b bit_hamming_ops)",
    "f1": "ivfflat (v vector_cosine_ops) WITH (lists = 20)",
    "f2": "ivfflat (v vector_l2_ops) WITH (lists = 5) WHERE (tenant < 5)",
}
ONE = "[" + ",".join("1" * 16) + "]"


class Here:
    """The installation that these tests run on, as a source of files."""

    def __init__(self):
        ask = lambda option: Path(subprocess.run([os.environ.get("PG_CONFIG", "pg_config"), option], text=True, check=True,
                                                 capture_output=True).stdout.strip())
        self.extensions, self.libraries = ask("--sharedir") / "extension", ask("--pkglibdir")


@pytest.fixture
def pgvector(tmp_path):
    """An installation with pgvector, and vector_ext beside it."""
    installation = Installation(tmp_path / "server", os.environ["PGVECTOR_CONFIG"])
    installation.add(Here(), "vector_ext*", "ivflsh*")
    return installation


@pytest.fixture
def server(pgvector):
    with Cluster(pgvector.pg_config) as cluster:
        cluster.create_database("app", "vector")
        with cluster.connect("app") as db:
            db.execute(ITEMS)
            for name, using in INDEXES.items():
                db.execute(f"CREATE INDEX {name} ON items USING {using}")
        yield cluster


def nearest(db, column="v", operator="<->", limit=3, where="true"):
    query = {"b": "1" * 16, "s": "{1:1}/16"}.get(column, ONE)
    return db.execute(f"SELECT id FROM items WHERE {where} ORDER BY {column} {operator} '{query}', id LIMIT {limit}").fetchall()


def plan(db, query):
    return "\n".join(row[0] for row in db.execute("EXPLAIN (COSTS OFF) " + query))


@pytest.mark.parametrize("schema", ["public", "vectors"])
def test_add_on(server, refused, schema):
    """No column changes, no data moves: an index beside those of pgvector, in the same backend."""
    with server.connect("app") as db:
        exact = nearest(db)
        if schema != "public":
            db.execute(f"CREATE SCHEMA {schema}; ALTER EXTENSION vector SET SCHEMA {schema}")
            # A type of that name where the add-on goes is not taken for pgvector's.
            db.execute("CREATE DOMAIN public.vector AS text")
        db.execute("CREATE EXTENSION ivflsh")
        db.execute(f"SET search_path = public, {schema}")
        db.execute("CREATE INDEX CONCURRENTLY ours ON items USING ivflsh (v vector_l2_ops, tenant)")
        db.execute("ANALYZE items")
        assert db.execute("SELECT ivflsh_recall('ours') > 0.9, (ivflsh_check('ours')).rows").fetchone() == (True, 3000)
        db.execute("SET enable_seqscan = off")
        assert "Index Scan using ours" in plan(db, f"SELECT id FROM items ORDER BY v <-> '{ONE}' LIMIT 3")
        assert nearest(db) == exact
        assert len(nearest(db, limit=50, where="tenant = 7")) == 50
        # Settings of both, each under its own prefix; pgvector's other indexes go on as before.
        db.execute("SET hnsw.ef_search = 77; SET ivflsh.target_recall = 0.99")
        assert "Index Scan using h2" in plan(db, f"SELECT id FROM items ORDER BY h <=> '{ONE}' LIMIT 3")
        assert len(nearest(db, "h", "<=>")) == len(nearest(db, "b", "<~>")) == 3
        refused(db, "42809", "is not an ivflsh index", "SELECT ivflsh_stats('h1')")
        classes = db.execute("""SELECT count(*) FROM pg_opclass c JOIN pg_am a ON a.oid = opcmethod JOIN pg_depend d
            ON d.objid = c.opcintype AND d.deptype = 'e' WHERE amname = 'ivflsh'""").fetchone()
        assert classes == (6,)
        refused(db, "2BP01", "extension ivflsh depends on extension vector", "DROP EXTENSION vector")
        db.execute("DROP EXTENSION ivflsh CASCADE")
        assert nearest(db, "h", "<=>") and not db.execute("SELECT FROM pg_class WHERE relname = 'ours'").fetchall()


def test_add_on_to_a_pgvector_without_halfvec(server, refused):
    """Its classes are left out, and added when pgvector has the type."""
    with server.connect() as admin:
        admin.execute("CREATE DATABASE old")
    with server.connect("old") as db:
        # As pgvector was before 0.7, as far as the add-on can tell.
        db.execute("CREATE EXTENSION vector")
        db.execute("""DO $$ DECLARE t regtype := 'halfvec'; BEGIN
            UPDATE pg_type SET typname = 'later' WHERE oid = t; END $$""")
        db.execute("CREATE EXTENSION ivflsh")
        classes = "SELECT count(*) FROM pg_opclass WHERE opcname LIKE 'halfvec%' AND opcmethod = (SELECT oid FROM pg_am WHERE amname = 'ivflsh')"
        assert db.execute(classes).fetchone() == (0,)
        db.execute("CREATE TABLE t (v vector(3)); CREATE INDEX ON t USING ivflsh (v)")
        db.execute("UPDATE pg_type SET typname = 'halfvec' WHERE typname = 'later'")
    with server.connect("old") as db:
        db.execute("ALTER EXTENSION ivflsh UPDATE TO refresh; ALTER EXTENSION ivflsh UPDATE")
        assert db.execute(classes).fetchone() == (3,)
        db.execute("CREATE TABLE h (v halfvec(3)); CREATE INDEX ON h USING ivflsh (v)")


def test_in_place_and_back(server, pgvector, refused):
    """The library is exchanged under a database; what pgvector built says REINDEX, and all else goes on."""
    with server.connect("app") as db:
        db.execute("""CREATE VIEW near AS SELECT id, v <=> '%s' AS far FROM items WHERE id < 5;
            CREATE FUNCTION sum_of(a vector) RETURNS float8 LANGUAGE sql AS 'SELECT inner_product(a, a)';
            ALTER TABLE items ADD COLUMN norm float8 GENERATED ALWAYS AS (vector_norm(v)) STORED""" % ONE)
        facts = "SELECT count(*), round(sum(v <-> '%s')::numeric, 2), round(sum(norm)::numeric, 2), avg(h)::text IS NOT NULL FROM items" % ONE
        before = db.execute(facts).fetchone(), db.execute("SELECT * FROM near").fetchall()
        db.execute("SET enable_indexscan = off")
        exact = {(c, o): nearest(db, c, o) for c, o in [("v", "<->"), ("v", "<=>"), ("h", "<=>"), ("b", "<~>")]}
    server.stop()
    assert pgvector.run("install-vector.sh", check=False).returncode == 1
    pgvector.run("install-vector.sh", FORCE="1")
    server.start()
    with server.connect("app") as db:
        # Sums of f32 differ in their last digits, by the order of the terms.
        assert db.execute(facts).fetchone() == before[0]
        near = db.execute("SELECT * FROM near").fetchall()
        assert [row[0] for row in near] == [row[0] for row in before[1]]
        assert [row[1] for row in near] == pytest.approx([row[1] for row in before[1]], rel=1e-6)
        assert db.execute("SELECT sum_of('[1,2]')").fetchone() == (5.0,)
        # With what the caller may do without an index, there is an answer; with it, the way out.
        db.execute("SET enable_indexscan = off")
        assert {key: nearest(db, *key) for key in exact} == exact
        db.execute("SET enable_indexscan = on; SET enable_seqscan = off; SET enable_sort = off")
        for name, column, operator in [("h1", "v", "<->"), ("f1", "v", "<=>"), ("h2", "h", "<=>")]:
            query = f"SELECT id FROM items ORDER BY {column} {operator} '{ONE}' LIMIT 3"
            with pytest.raises(Exception) as caught:
                db.execute(query)
            error = caught.value.diag
            assert (error.sqlstate, error.message_hint) == ("0A000", f"REINDEX INDEX public.{name};")
            assert "built by pgvector's " + INDEXES[name].split()[0] in error.message_primary
            assert name in plan(db, query)
        refused(db, "0A000", "built by pgvector", f"INSERT INTO items (id, v) VALUES (0, '{ONE}')")
        db.execute("VACUUM (INDEX_CLEANUP off) items")
        for again in range(2):
            assert db.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()[0] != "0.8.6" or again
            db.execute("ALTER EXTENSION vector UPDATE")
        assert db.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone() == ("0.8.6",)
        db.execute("REINDEX TABLE items")
        assert db.execute("SELECT min(ivflsh_recall(i::regclass)) > 0.85 FROM unnest('{h1,h2,f1,f2}'::text[]) i").fetchone() == (True,)
        shown = dict(db.execute("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'items'").fetchall())
        assert shown["h1"].endswith("USING hnsw (v vector_l2_ops) WITH (m='8')")
        db.execute(f"INSERT INTO items (id, tenant, v, b) VALUES (0, 3, '{ONE}', B'1111111111111111')")
        assert nearest(db, limit=1) == nearest(db, "v", "<=>", limit=1) == nearest(db, "b", "<~>", limit=1) == [(0,)]
        db.execute("CREATE INDEX more ON items USING hnsw (v vector_l2_ops, tenant)")
        assert nearest(db, limit=1, where="tenant = 3") == [(0,)]
        db.execute("DROP INDEX more")
    # And back.
    server.stop()
    pgvector.run("install-vector.sh", "--remove")
    server.start()
    with server.connect("app") as db:
        db.execute("SET enable_seqscan = off")
        refused(db, "XX000", "index is not valid", f"SELECT id FROM items ORDER BY v <-> '{ONE}' LIMIT 3")
        db.execute("REINDEX TABLE items")
        assert "h1" in plan(db, f"SELECT id FROM items ORDER BY v <-> '{ONE}' LIMIT 3")
        assert nearest(db, limit=1) == nearest(db, "b", "<~>", limit=1) == [(0,)]


def test_dumps(server, pgvector, tmp_path):
    """A dump of pgvector's database into the drop-in, and of that one into pgvector."""
    with server.connect("app") as db:
        db.execute("""DROP INDEX h3; CREATE SCHEMA other; CREATE TABLE other.more (v vector(16), n float8 GENERATED ALWAYS AS (v <-> '%s') STORED);
            INSERT INTO other.more SELECT v FROM items;
            CREATE INDEX e1 ON items USING hnsw ((v::halfvec(16)) halfvec_l2_ops);
            CREATE VIEW other.near AS SELECT n FROM other.more ORDER BY v <=> '%s' LIMIT 3;
            CREATE FUNCTION other.f(vector) RETURNS vector LANGUAGE sql AS 'SELECT $1 + $1'""" % (ONE, ONE))
    ours = Installation(tmp_path / "ours", os.environ["PGVECTOR_CONFIG"])
    ours.add(Here(), "vector_ext*", "ivflsh*")
    ours.run("install-vector.sh", FORCE="1")
    look = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname !~ '^pg_' ORDER BY 1"
    with Cluster(ours.pg_config) as target:
        target.create_database("app")
        assert target.psql(server.dump("app"), "app").strip("\n |0123456789") == ""
        with target.connect("app") as copy, server.connect("app") as db:
            assert copy.execute(look).fetchall() == db.execute(look).fetchall()
            assert copy.execute("SELECT count(*), round(sum(n)::numeric, 3) FROM other.more").fetchall() \
                == db.execute("SELECT count(*), round(sum(n)::numeric, 3) FROM other.more").fetchall()
            assert copy.execute("SELECT min(ivflsh_recall(i::regclass)) > 0.85 FROM unnest('{h1,h2,f1,f2,e1}'::text[]) i").fetchone() == (True,)
        server.create_database("back")
        assert server.psql(target.dump("app"), "back").strip("\n |0123456789") == ""
        with server.connect("back") as copy, server.connect("app") as db:
            assert copy.execute(look).fetchall() == db.execute(look).fetchall()


def test_dump_without_indexes_of_others(server, pgvector, tmp_path):
    """The commands of docs/migration.md for databases with indexes that the new server does not know; hnsw stands for these."""
    document = (Path(__file__).parents[1] / "docs" / "migration.md").read_text()
    [commands] = [block.split("```")[0] for block in document.split("```sh\n")[1:] if "pg_restore -L" in block.split("```")[0]]
    assert "'vchordrq'" in commands
    commands = commands.replace("'vchordrq'", "'hnsw'").replace("old_database", "app").replace("new_database", "new")
    server.create_database("new")
    tools = server.bindir
    environment = os.environ | {"PGHOST": str(server.folder), "PGUSER": "postgres", "PATH": f"{tools}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    with server.connect("new") as db:
        assert db.execute("SELECT count(*) FROM items").fetchone() == (3000,)
        names = {row[0] for row in db.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'items'")}
        assert names == {"f1", "f2"}
        db.execute("CREATE EXTENSION ivflsh; CREATE INDEX ours ON items USING ivflsh (v vector_l2_ops)")
