"""The extension named `vector`, in pgvector's place: its access methods, options, settings, operator classes."""

import shutil

import psycopg
import pytest
from pgvector.psycopg import register_vector

from harness.installation import Installation

ITEMS = """
    CREATE TABLE items (id int, tenant int, v vector(16), h halfvec(16), b bit(16), s sparsevec(16));
    INSERT INTO items SELECT i, i % 20, a, a, ((i * 7919) % 65536)::bit(16), a::vector::sparsevec FROM (
        SELECT i, ARRAY(SELECT sin(i * j * 0.1) + cos(i + j * j) FROM generate_series(1, 16) j)::real[] a
        FROM generate_series(1, 6000) i) x;
"""


@pytest.fixture
def db(drop_in_database):
    return drop_in_database.connect()


@pytest.fixture
def items(db):
    db.execute(ITEMS)
    return db


def plan(db, query):
    return "\n".join(row[0] for row in db.execute("EXPLAIN (COSTS OFF) " + query))


def test_frameworks_find_what_they_look_for(db):
    name, version = db.execute("SELECT extname, extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    assert tuple(int(n) for n in version.split(".")) >= (0, 7, 0)
    methods = db.execute("SELECT amname FROM pg_am WHERE amtype = 'i' AND oid > 16000 ORDER BY 1").fetchall()
    assert methods == [("hnsw",), ("ivfflat",), ("ivflsh",)]
    # Handlers, and all of pgvector's functions, bear pgvector's names in the library that had its name.
    library = db.execute("SELECT DISTINCT probin FROM pg_proc WHERE proname IN ('hnswhandler', 'vector_in', 'l2_distance')").fetchall()
    assert library == [("$libdir/vector",)]


def test_every_operator_class_is_valid(db):
    assert db.execute("SELECT opcname FROM pg_opclass WHERE oid > 16000 AND NOT amvalidate(oid)").fetchall() == []


@pytest.mark.parametrize("using, shown", [
    ("hnsw (v vector_cosine_ops) WITH (m = 12, ef_construction = 70)",
     "hnsw (v vector_cosine_ops) WITH (m='12', ef_construction='70')"),
    ("hnsw (v vector_l2_ops)", "hnsw (v vector_l2_ops)"),
    ("ivfflat (v vector_l2_ops) WITH (lists = 5)", "ivfflat (v) WITH (lists='5')"),
    ("ivfflat (h halfvec_ip_ops)", "ivfflat (h halfvec_ip_ops)"),
    ("hnsw (h halfvec_l2_ops) WITH (bits = 4, seed = 7)", "hnsw (h halfvec_l2_ops) WITH (bits='4', seed='7')"),
    ("hnsw (v vector_ip_ops, tenant)", "hnsw (v vector_ip_ops, tenant)"),
    ("hnsw ((v::halfvec(16)) halfvec_cosine_ops) WHERE (tenant > 3)",
     "hnsw (((v)::halfvec(16)) halfvec_cosine_ops) WHERE (tenant > 3)"),
])
def test_definitions_read_as_they_were_written(items, using, shown):
    items.execute(f"CREATE INDEX by_v ON items USING {using}")
    assert items.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'by_v'").fetchone()[0].endswith("USING " + shown)
    assert items.execute("SELECT ivflsh_recall('by_v', 50) >= 0.85").fetchone() == (True,)
    assert items.execute("SELECT entries = rows FROM ivflsh_check('by_v')").fetchone() == (True,)


@pytest.mark.parametrize("using, state, message", [
    ("hnsw (v vector_l2_ops) WITH (m = 1)", "22023", 'value 1 out of bounds for option "m"'),
    ("hnsw (v vector_l2_ops) WITH (m = 101)", "22023", 'value 101 out of bounds for option "m"'),
    ("hnsw (v vector_l2_ops) WITH (m = a)", "22023", 'invalid value for integer option "m": a'),
    ("hnsw (v vector_l2_ops) WITH (ef_construction = 3)", "22023", 'value 3 out of bounds for option "ef_construction"'),
    ("hnsw (v vector_l2_ops) WITH (ef_construction = 1001)", "22023", 'value 1001 out of bounds for option "ef_construction"'),
    ("hnsw (v vector_l2_ops) WITH (m = 40)", "22023", "ef_construction must be greater than or equal to 2 * m"),
    ("hnsw (v vector_l2_ops) WITH (lists = 3)", "22023", 'unrecognized parameter "lists"'),
    ("hnsw (v vector_l2_ops) WITH (bits = 5)", "22023", 'invalid value for enum option "bits"'),
    ("ivfflat (v) WITH (lists = 0)", "22023", 'value 0 out of bounds for option "lists"'),
    ("ivfflat (v) WITH (lists = 32769)", "22023", 'value 32769 out of bounds for option "lists"'),
    ("ivfflat (v) WITH (m = 3)", "22023", 'unrecognized parameter "m"'),
    ("hnsw (v)", "42704", 'data type vector has no default operator class for access method "hnsw"'),
    ("hnsw ((v::vector) vector_l2_ops)", "22023", "column does not have dimensions"),
    ("hnsw (tenant)", "42704", 'data type integer has no default operator class for access method "hnsw"'),
    ("hnsw (v vector_l2_ops, h halfvec_l2_ops)", "0A000", "column 2 of an ivflsh index cannot be a vector"),
    ("hnsw (v vector_l2_ops) INCLUDE (id)", "0A000", 'access method "hnsw" does not support included columns'),
])
def test_what_is_refused(items, refused, using, state, message):
    refused(items, state, message, f"CREATE INDEX ON items USING {using}")


def test_settings(db, refused, drop_in_database):
    names = ["hnsw.ef_search", "hnsw.iterative_scan", "hnsw.max_scan_tuples", "hnsw.scan_mem_multiplier", "ivfflat.probes",
             "ivfflat.iterative_scan", "ivfflat.max_probes"]
    db.execute("SELECT '[1]'::vector")  # loads the library
    assert [db.execute(f"SHOW {name}").fetchone()[0] for name in names] == ["40", "off", "20000", "1", "1", "off", "32768"]
    for setting, message in [("hnsw.ef_search = 0", "outside the valid range"), ("hnsw.ef_search = 1001", "outside the valid range"),
                             ("hnsw.iterative_scan = 'on'", "invalid value"), ("hnsw.max_scan_tuples = 0", "outside the valid range"),
                             ("hnsw.scan_mem_multiplier = 1001", "outside the valid range"), ("ivfflat.probes = 0", "outside the valid range"),
                             ("ivfflat.iterative_scan = strict_order", "invalid value"), ("ivfflat.max_probes = 32769", "outside the valid range")]:
        refused(db, "22023", message, f"SET {setting}")
    if db.info.server_version >= 150000:
        for name in ("hnsw.other", "ivfflat.other"):
            refused(db, "42602", "reserved prefix", f"SET {name} = 1")
    # By anybody, for themselves.
    db.execute("CREATE ROLE somebody LOGIN")
    try:
        with drop_in_database.cluster.connect(drop_in_database.name) as connection:
            connection.execute("SET SESSION AUTHORIZATION somebody")
            connection.execute("SELECT '[1]'::vector")
            connection.execute("ALTER ROLE somebody SET hnsw.ef_search = 100")
        with psycopg.connect(host=str(drop_in_database.cluster.folder), user="somebody", dbname=drop_in_database.name) as connection:
            connection.execute("SELECT '[1]'::vector")
            assert connection.execute("SHOW hnsw.ef_search").fetchone() == ("100",)
    finally:
        db.execute("DROP ROLE somebody")


def test_more_effort_finds_more(db):
    """More lists are read, in steps; never fewer than ivflsh.target_recall asks for."""
    db.execute("""SELECT setseed(0.5), '[1]'::vector; CREATE TABLE dice (id serial, v vector(24));
        INSERT INTO dice (v) SELECT array_agg(random()) FROM generate_series(1, 24 * 8000) i GROUP BY i % 8000;
        SET ivflsh.target_recall = 0.7; SET enable_seqscan = off""")
    queries = [row[0] for row in db.execute("SELECT v::text FROM dice ORDER BY id LIMIT 40")]

    def effort(setting):
        """Lists that 40 searches read, and the recall."""
        db.execute(f"SET {setting}")
        total = 0
        for query in queries:
            db.execute("SELECT id FROM dice ORDER BY v <-> %s::vector LIMIT 10", (query,))
            total += db.execute("SELECT lists FROM ivflsh_last_scan()").fetchone()[0]
        return total, db.execute("SELECT ivflsh_recall('by_v', 100)").fetchone()[0]

    def rises(found):
        return all(a[0] < b[0] for a, b in zip(found, found[1:])) and found[-1][1] > found[0][1] and found[-1][1] > 0.95

    db.execute("CREATE INDEX by_v ON dice USING hnsw (v vector_l2_ops)")
    found = [effort(f"hnsw.ef_search = {ef}") for ef in (40, 80, 200, 400)]
    assert rises(found), found
    assert effort("hnsw.ef_search = 10") == found[0]
    db.execute("RESET hnsw.ef_search; DROP INDEX by_v; CREATE INDEX by_v ON dice USING ivfflat (v vector_l2_ops) WITH (lists = 50)")
    found = [effort(f"ivfflat.probes = {n}") for n in (1, 10, 50)]
    assert rises(found), found


def test_a_limit_is_filled(items):
    """pgvector returns no more than ef_search rows, fewer under a condition."""
    items.execute("CREATE INDEX by_v ON items USING hnsw (v vector_l2_ops); ANALYZE items; SET enable_seqscan = off; SET enable_sort = off")
    items.execute("SET hnsw.ef_search = 10; SET hnsw.max_scan_tuples = 1")
    for condition in ("true", "tenant = 3", "id % 50 = 1"):
        query = f"SELECT id FROM items WHERE {condition} ORDER BY v <-> (SELECT v FROM items WHERE id = 1) LIMIT 100"
        assert "by_v" in plan(items, query)
        assert len(items.execute(query).fetchall()) == 100


def test_order_of_rows_that_come_late(items):
    """relaxed_order returns what strict_order leaves out; `off` leaves it to ivflsh.iterative_scan."""
    items.execute("CREATE INDEX by_v ON items USING hnsw (v vector_l2_ops); SET enable_seqscan = off; SET enable_sort = off")
    query = "SELECT count(*) FROM (SELECT id FROM items ORDER BY v <-> '[1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]' LIMIT 1000000) x"
    everything = items.execute("SELECT count(*) FROM items").fetchone()[0]

    def rows(setting):
        items.execute(f"RESET ALL; SET enable_seqscan = off; SET enable_sort = off; SET {setting}")
        return items.execute(query).fetchone()[0]

    strict, relaxed = rows("hnsw.iterative_scan = strict_order"), rows("hnsw.iterative_scan = relaxed_order")
    assert relaxed == everything >= strict
    assert rows("hnsw.iterative_scan = off") == strict
    assert rows("ivflsh.iterative_scan = relaxed_order") == everything
    assert rows("hnsw.iterative_scan = strict_order; SET ivflsh.iterative_scan = relaxed_order") == strict


@pytest.mark.parametrize("column, opclass, operator", [
    ("v", "vector_l1_ops", "<+>"), ("h", "halfvec_l1_ops", "<+>"), ("b", "bit_hamming_ops", "<~>"), ("b", "bit_jaccard_ops", "<%>"),
    ("s", "sparsevec_l2_ops", "<->"), ("s", "sparsevec_ip_ops", "<#>"), ("s", "sparsevec_cosine_ops", "<=>"),
    ("s", "sparsevec_l1_ops", "<+>"),
])
def test_idle_indexes(items, refused, column, opclass, operator):
    """Classes of distances that the engine cannot search by make an index that is in nobody's way."""
    query = f"SELECT id, tenant FROM items ORDER BY {column} {operator} (SELECT {column} FROM items WHERE id = 11), id LIMIT 20"
    notices = []
    items.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))
    items.execute(f"CREATE INDEX idle ON items USING hnsw ({column} {opclass}) WITH (m = 8)")
    assert notices == [("WARNING", 'index "idle" holds nothing: hnsw does not search by this distance yet')]
    items.execute("INSERT INTO items SELECT id + 10000, tenant, v, h, b, s FROM items WHERE id < 50; DELETE FROM items WHERE id % 3 = 0")
    items.execute("UPDATE items SET tenant = tenant + 1 WHERE id % 5 = 0")
    items.execute("VACUUM ANALYZE items")
    expected = items.execute(query).fetchall()
    items.execute("SET enable_seqscan = off; SET enable_sort = off")
    assert items.execute(query).fetchall() == expected and len(expected) == 20
    refused(items, "0A000", "holds nothing", "SELECT ivflsh_check('idle')")
    items.execute("REINDEX INDEX CONCURRENTLY idle")
    items.execute("CREATE UNLOGGED TABLE copy (LIKE items INCLUDING INDEXES)")


def test_our_own_method_stands_beside(items):
    items.execute("CREATE INDEX ours ON items USING ivflsh (v vector_l2_ops, tenant) WITH (lists = 20)")
    items.execute("CREATE INDEX theirs ON items USING hnsw (v vector_cosine_ops); ANALYZE items; SET enable_seqscan = off")
    query = "SELECT v FROM items WHERE id = 1"
    assert "Index Scan using ours" in plan(items, f"SELECT id FROM items WHERE v IS NOT NULL ORDER BY v <-> ({query}) LIMIT 3")
    assert "Index Scan using theirs" in plan(items, f"SELECT id FROM items ORDER BY v <=> ({query}) LIMIT 3")


def test_versions(db, refused):
    refused(db, "22023", 'no update path from version "0.8.6" to version "0.7.0"', "ALTER EXTENSION vector UPDATE TO '0.7.0'")
    db.execute("ALTER EXTENSION vector UPDATE")
    # The name that every pgvector takes on its way: nothing is lost on a second pass.
    before = db.execute("SELECT count(*) FROM pg_depend WHERE deptype = 'e'").fetchone()
    db.execute("ALTER EXTENSION vector UPDATE TO pgvector; ALTER EXTENSION vector UPDATE")
    assert db.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone() == ("0.8.6",)
    assert db.execute("SELECT count(*) FROM pg_depend WHERE deptype = 'e'").fetchone() == before
    known = {row[0] for row in db.execute("SELECT source FROM pg_extension_update_paths('vector') WHERE target = '0.8.6' AND path IS NOT NULL")}
    assert {"0.1.0", "0.4.4", "0.5.1", "0.6.2", "0.7.4", "0.8.0", "0.8.5"} <= known


def test_an_update_takes_no_foreign_objects(db, refused):
    """What somebody made in the extension's schema does not become a part of what the extension relies on."""
    db.execute("""ALTER EXTENSION vector UPDATE TO pgvector;
        ALTER EXTENSION vector DROP OPERATOR <~> (bit, bit)""")
    refused(db, "42723", "operator <~> already exists", "ALTER EXTENSION vector UPDATE")


def test_names_that_are_taken(drop_in_cluster, refused):
    drop_in_cluster.create_database("taken")
    with drop_in_cluster.connect("taken") as db:
        db.execute("CREATE TYPE halfvec AS ENUM ('a')")
        refused(db, "42710", 'type "halfvec" already exists', "CREATE EXTENSION vector")
        db.execute("DROP TYPE halfvec")
        refused(db, "22023", 'no installation script nor update path for version "0.7.4"', "CREATE EXTENSION vector VERSION '0.7.4'")
        db.execute("CREATE SCHEMA other; CREATE EXTENSION vector SCHEMA other")
        refused(db, "42710", 'access method "ivflsh" already exists', "CREATE EXTENSION vector_ext")
        refused(db, "42710", 'access method "ivflsh" already exists', "CREATE EXTENSION ivflsh")
        assert db.execute("SELECT '[1,2]'::other.vector OPERATOR(other.<->) '[1,3]'").fetchone() == (1.0,)
        db.execute("DROP EXTENSION vector")
        refused(db, "42704", 'required extension "vector" is not installed', "CREATE EXTENSION ivflsh")
    with drop_in_cluster.connect() as admin:
        admin.execute("DROP DATABASE taken")


def test_dump_and_restore(drop_in_cluster, items, drop_in_database):
    items.execute("""
        CREATE INDEX a ON items USING hnsw (v vector_l2_ops) WITH (m = 8, ef_construction = 32);
        CREATE INDEX b ON items USING ivfflat ((h::vector(16)) vector_cosine_ops) WITH (lists = 10) WHERE (tenant < 10);
        CREATE VIEW near AS SELECT id FROM items ORDER BY v <-> '[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]' LIMIT 3""")
    drop_in_cluster.create_database("restored")
    try:
        # As to a fresh database, with no CREATE EXTENSION of ours in between.
        assert drop_in_cluster.psql(drop_in_cluster.dump(drop_in_database.name), "restored").strip("\n |0123456789") == ""
        with drop_in_cluster.connect("restored") as copy:
            definitions = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'items' ORDER BY 1"
            assert copy.execute(definitions).fetchall() == items.execute(definitions).fetchall()
            assert copy.execute("SELECT sum(ivflsh_recall(i::regclass, 50)) > 1.7 FROM unnest('{a,b}'::text[]) i").fetchone() == (True,)
            assert copy.execute("SELECT * FROM near").fetchall() == items.execute("SELECT * FROM near").fetchall()
    finally:
        with drop_in_cluster.connect() as admin:
            admin.execute("DROP DATABASE restored WITH (FORCE)")


def test_installation(tmp_path, drop_in):
    """pgvector's files are not overwritten unasked, and come back."""
    installation = Installation(tmp_path / "copy", drop_in.pg_config)
    assert "0.8.6" in installation.run("install-vector.sh").stdout  # over itself
    installation.run("install-vector.sh", "--remove")
    assert not list(installation.extensions.glob("vector.control")) and not (installation.libraries / "vector.so").exists()
    theirs = {"vector.control": "default_version = '0.8.0'", "vector--0.8.0.sql": "", "vector--0.7.4--0.8.0.sql": ""}
    for name, content in theirs.items():
        (installation.extensions / name).write_text(content)
    (installation.libraries / "vector.so").write_text("theirs")
    bitcode = installation.libraries / "bitcode" / "vector"
    shutil.rmtree(bitcode, ignore_errors=True)
    bitcode.mkdir(parents=True)
    (bitcode.parent / "vector.index.bc").write_text("theirs")
    refused = installation.run("install-vector.sh", check=False)
    assert refused.returncode == 1 and "FORCE=1" in refused.stderr
    assert (installation.libraries / "vector.so").read_text() == "theirs"
    installation.run("install-vector.sh", FORCE="1")
    assert not (installation.extensions / "vector--0.7.4--0.8.0.sql").exists() and not bitcode.exists()
    assert "vector_ext" in (installation.extensions / "vector.control").read_text()
    installation.run("install-vector.sh", "--remove")
    assert {file.name: file.read_text() for file in installation.extensions.glob("vector[.-]*")} == theirs
    assert (installation.libraries / "vector.so").read_text() == "theirs"
    assert (bitcode.parent / "vector.index.bc").read_text() == "theirs" and bitcode.is_dir()
