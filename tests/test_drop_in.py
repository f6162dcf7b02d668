"""The extension named `vector`, in pgvector's place: its access methods, options, settings, operator classes."""

import re
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
    ("v", "vector_l1_ops", "<+>"), ("h", "halfvec_l1_ops", "<+>"),
    ("s", "sparsevec_l2_ops", "<->"), ("s", "sparsevec_ip_ops", "<#>"), ("s", "sparsevec_cosine_ops", "<=>"),
    ("s", "sparsevec_l1_ops", "<+>"),
])
def test_idle_indexes(items, refused, column, opclass, operator):
    """Classes of distances that the engine cannot search by make an index that is in nobody's way."""
    query = f"SELECT id, tenant FROM items ORDER BY {column} {operator} (SELECT {column} FROM items WHERE id = 11), id LIMIT 20"
    notices = []
    items.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))
    items.execute(f"CREATE INDEX idle ON items USING hnsw ({column} {opclass}) WITH (m = 8)")
    assert notices == [("WARNING", 'index "idle" stays empty: hnsw cannot search by its operator class yet')]
    items.execute("INSERT INTO items SELECT id + 10000, tenant, v, h, b, s FROM items WHERE id < 50; DELETE FROM items WHERE id % 3 = 0")
    items.execute("UPDATE items SET tenant = tenant + 1 WHERE id % 5 = 0")
    items.execute("VACUUM ANALYZE items")
    expected = items.execute(query).fetchall()
    items.execute("SET enable_seqscan = off; SET enable_sort = off")
    assert items.execute(query).fetchall() == expected and len(expected) == 20
    refused(items, "0A000", "is empty", "SELECT ivflsh_check('idle')")
    items.execute("REINDEX INDEX CONCURRENTLY idle")
    items.execute("CREATE UNLOGGED TABLE copy (LIKE items INCLUDING INDEXES)")


@pytest.mark.parametrize("using, operator", [
    ("hnsw (b bit_hamming_ops)", "<~>"), ("hnsw (b bit_jaccard_ops) WITH (m = 8)", "<%>"),
    ("ivfflat (b bit_hamming_ops) WITH (lists = 10)", "<~>"), ("ivflsh (b bit_jaccard_ops)", "<%>"),
])
def test_bit_strings(items, using, operator):
    """Indexes of bit strings answer under each name: all distances, in order."""
    statement = f"SELECT b {operator} (SELECT b FROM items WHERE id = 11) FROM items ORDER BY b {operator} (SELECT b FROM items WHERE id = 11) LIMIT 100000"
    items.execute("SET enable_indexscan = off")
    expected = items.execute(statement).fetchall()
    items.execute(f"RESET ALL; CREATE INDEX bits ON items USING {using}; SET enable_seqscan = off; SET enable_sort = off")
    assert "bits" in plan(items, statement)
    assert items.execute(statement).fetchall() == expected
    items.execute("SELECT ivflsh_check('bits')")


# Statements on a column with such an index; @ stands for the distance from the row 11.
IDLE_STATEMENTS = [
    "SELECT id, round((@)::numeric, 4) FROM items ORDER BY @, id LIMIT 20",
    "SELECT id FROM items WHERE tenant = 3 AND @ IS NOT NULL ORDER BY @, id LIMIT 20 OFFSET 5",
    "SELECT count(*) FROM items WHERE @ < 3",
    "SELECT id FROM items WHERE @ < 4 ORDER BY @, id",
    "SELECT id FROM items ORDER BY @ DESC, id LIMIT 5",
    "SELECT count(*) FROM (SELECT id FROM items ORDER BY @) x",
    "SELECT a.tenant, b.id FROM generate_series(1, 3) a(tenant), LATERAL (SELECT id FROM items i WHERE i.tenant = a.tenant ORDER BY @, id LIMIT 2) b",
    "SELECT id, rank() OVER (ORDER BY @, id) FROM items ORDER BY 2 LIMIT 10",
    "SELECT tenant, round(min(@)::numeric, 4) FROM items GROUP BY tenant ORDER BY 1",
]


@pytest.mark.parametrize("using, operator", [
    ("hnsw (v vector_l1_ops)", "v <+>"), ("hnsw (h halfvec_l1_ops)", "h <+>"), ("hnsw (s sparsevec_l2_ops)", "s <->"),
    ("hnsw (s sparsevec_cosine_ops) WHERE (tenant > 2)", "s <=>"), ("hnsw (s sparsevec_l1_ops)", "s <+>"),
])
def test_statements_and_dumps_beside_idle_indexes(drop_in_cluster, drop_in_database, items, using, operator):
    """Everything answers as without the index, on a table that changes under it; a dump brings it back, with its WARNING."""
    column = operator.split()[0]
    statements = [text.replace("@", f"{operator} (SELECT {column} FROM items z WHERE z.id = 11)") for text in IDLE_STATEMENTS]
    items.execute("DELETE FROM items WHERE id > 1000; CREATE TABLE plain AS SELECT * FROM items")
    items.execute(f"CREATE INDEX CONCURRENTLY idle ON items USING {using}")
    items.execute("SET enable_seqscan = off; SET enable_sort = off; SET jit = off")
    for change in ("SELECT 1", "UPDATE {} SET tenant = 4, v = v + v WHERE id % 7 = 0", "DELETE FROM {} WHERE id % 3 = 0",
                   "INSERT INTO {} SELECT id + 10000, tenant, v, h, b, s FROM {} WHERE id < 90", "VACUUM {}", "VACUUM FULL {}"):
        for table in ("items", "plain"):
            items.execute(change.replace("{}", table))
        for statement in statements[:3] if change != "SELECT 1" else statements:
            seen = items.execute(statement).fetchall()
            assert seen == items.execute(statement.replace("FROM items", "FROM plain")).fetchall() and seen
            assert "idle" not in plan(items, statement)
    with items.transaction():
        items.execute(f"DECLARE c CURSOR FOR {statements[0]}")
        assert items.execute("FETCH 5 FROM c").fetchall() == items.execute(statements[0]).fetchall()[:5]
    definition = items.execute("SELECT pg_get_indexdef('idle'::regclass)").fetchone()
    drop_in_cluster.create_database("idle_copy")
    try:
        assert drop_in_cluster.psql(drop_in_cluster.dump(drop_in_database.name), "idle_copy").strip("\n |0123456789") == ""
        with drop_in_cluster.connect("idle_copy") as copy:
            assert copy.execute("SELECT pg_get_indexdef('idle'::regclass)").fetchone() == definition
            assert copy.execute(statements[0]).fetchall() == items.execute(statements[0]).fetchall()
    finally:
        with drop_in_cluster.connect() as admin:
            admin.execute("DROP DATABASE idle_copy WITH (FORCE)")


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


def webui_starts(db, method, options):
    """As an application does that reads the method out of pg_indexes.indexdef, and makes the index anew if it is another one."""
    db.execute("CREATE EXTENSION IF NOT EXISTS vector; CREATE TABLE IF NOT EXISTS chunks (id text PRIMARY KEY, vector vector(16))")
    found = db.execute("""SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename = 'chunks'
        AND indexname = 'by_vector'""").fetchone()
    if found and found[0].lower().split("using ")[1].split()[0] != method:
        db.execute("DROP INDEX by_vector")
        found = None
    if not found:
        db.execute(f"CREATE INDEX IF NOT EXISTS by_vector ON chunks USING {method} (vector vector_cosine_ops) WITH ({options})")


def agent_starts(db, method, options):
    """As an application does that reads pg_am, pg_opclass and the options in pg_get_indexdef."""
    db.execute("CREATE EXTENSION IF NOT EXISTS vector; CREATE TABLE IF NOT EXISTS chunks (id text PRIMARY KEY, vector vector(16))")
    found = db.execute("""SELECT amname, opcname, pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class c ON c.oid = indexrelid
        JOIN pg_am a ON a.oid = c.relam JOIN pg_opclass o ON o.oid = indclass[0] WHERE c.relname = 'by_vector'""").fetchone()
    wanted = dict(part.split(" = ") for part in options.split(", "))
    if found:
        shown = {name: match[1] for name in wanted if (match := re.search(rf"\b{name}\s*=\s*'?(\d+)'?", found[2]))}
        if found[:2] == (method, "vector_cosine_ops") and shown == wanted:
            return
        db.execute("DROP INDEX by_vector")
    db.execute(f"CREATE INDEX by_vector ON chunks USING {method} (vector vector_cosine_ops) WITH ({options})")


@pytest.mark.parametrize("starts", [webui_starts, agent_starts])
@pytest.mark.parametrize("method, options", [("hnsw", "m = 8, ef_construction = 32"), ("ivfflat", "lists = 100")])
def test_applications_that_start_again_keep_their_index(drop_in_database, starts, method, options):
    def oid(db):
        return db.execute("SELECT 'by_vector'::regclass::oid, pg_relation_filenode('by_vector')").fetchone()

    first = drop_in_database.connect()
    starts(first, method, options)
    first.execute("INSERT INTO chunks SELECT i, array_agg(sin(i * j)) FROM generate_series(1, 100) i, generate_series(1, 16) j GROUP BY i")
    before = oid(first)
    for _ in range(2):
        again = drop_in_database.connect()
        starts(again, method, options)
        assert oid(again) == before
    # And one that means another method gets it.
    other = ("ivfflat", "lists = 10") if method == "hnsw" else ("hnsw", "m = 16, ef_construction = 64")
    starts(again, *other)
    assert oid(again) != before
    assert again.execute("SELECT amname FROM pg_class c JOIN pg_am a ON a.oid = relam WHERE relname = 'by_vector'").fetchone() == (other[0],)


@pytest.mark.parametrize("opclass, operator", [("vector_l2_ops", "<->"), ("vector_cosine_ops", "<=>"), ("vector_ip_ops", "<#>")])
def test_rows_with_a_vector_by_an_index_scan(db, opclass, operator):
    """Statements as the gem neighbor writes them, whose own tests look for `Index Scan` in the plan of a small table."""
    db.execute("CREATE TABLE items (id bigserial PRIMARY KEY, embedding vector(3))")
    db.execute(f"CREATE INDEX by_embedding ON items USING hnsw (embedding {opclass})")
    db.execute("INSERT INTO items (embedding) VALUES ('[1,1,1]'), ('[2,2,2]'), ('[1,1,2]'), (NULL)")
    query = f"""SELECT "items".*, "items"."embedding" {operator} '[1,1,1]' AS neighbor_distance FROM "items"
        WHERE "items"."embedding" IS NOT NULL ORDER BY "items"."embedding" {operator} '[1,1,1]' LIMIT 5"""
    without = db.execute(query).fetchall()
    db.execute("SET enable_seqscan = off")
    for _ in range(2):
        assert "Index Scan using by_embedding" in plan(db, query)
        assert sorted(db.execute(query).fetchall(), key=str) == sorted(without, key=str) and len(without) == 3
        db.execute("INSERT INTO items (embedding) SELECT NULL FROM generate_series(1, 300); ANALYZE items")


@pytest.mark.parametrize("schema", ["public", "other"])
def test_types_that_are_there_already(drop_in_cluster, refused, schema):
    """CREATE EXTENSION vector where a type of one of its names is, in that schema: refused, and nothing is left behind."""
    drop_in_cluster.create_database("occupied")
    try:
        with drop_in_cluster.connect("occupied") as db:
            db.execute("CREATE SCHEMA IF NOT EXISTS other")
            for name in ("vector", "halfvec", "sparsevec"):
                db.execute(f"CREATE DOMAIN {schema}.{name} AS text")
                refused(db, "42710", f'type "{name}" already exists', f"CREATE EXTENSION vector SCHEMA {schema}")
                db.execute(f"DROP DOMAIN {schema}.{name}")
                assert db.execute("SELECT count(*) FROM pg_am WHERE amname IN ('hnsw', 'ivfflat', 'ivflsh')").fetchone() == (0,)
            db.execute(f"CREATE DOMAIN {schema}.vector AS text; CREATE SCHEMA free; CREATE EXTENSION vector SCHEMA free")
            refused(db, "42710", 'extension "vector" already exists', "CREATE EXTENSION vector")
    finally:
        with drop_in_cluster.connect() as admin:
            admin.execute("DROP DATABASE occupied WITH (FORCE)")


def test_add_on_without_pgvector(cluster, drop_in_cluster, refused):
    """The ways that it can be absent: the extension is not in the database, or there is none of that name on the server."""
    for server in (cluster, drop_in_cluster):
        server.create_database("bare")
        try:
            with server.connect("bare") as db:
                with pytest.raises(psycopg.Error) as caught:
                    db.execute("CREATE EXTENSION ivflsh")
                assert caught.value.sqlstate == "42704" and 'required extension "vector" is not installed' in str(caught.value)
                assert "CASCADE" in caught.value.diag.message_hint
        finally:
            with server.connect() as admin:
                admin.execute("DROP DATABASE bare WITH (FORCE)")
    with drop_in_cluster.connect() as db:
        db.execute("CREATE DATABASE bare_both")
    try:
        with drop_in_cluster.connect("bare_both") as db:
            # CASCADE brings the extension in pgvector's place, which has all that the add-on has.
            refused(db, "42710", 'access method "ivflsh" already exists', "CREATE EXTENSION ivflsh CASCADE")
            assert db.execute("SELECT count(*) FROM pg_extension WHERE extname IN ('vector', 'ivflsh')").fetchone() == (0,)
    finally:
        with drop_in_cluster.connect() as admin:
            admin.execute("DROP DATABASE bare_both WITH (FORCE)")


@pytest.mark.parametrize("statement, state, message", [
    ("CREATE EXTENSION vector VERSION '9.9.9'", "22023", 'no installation script nor update path for version "9.9.9"'),
    ("CREATE EXTENSION vector VERSION '0.8.5'", "22023", 'no installation script nor update path for version "0.8.5"'),
    ("CREATE EXTENSION ivflsh VERSION '0.8.0' CASCADE", None, ""),
])
def test_versions_that_do_not_exist(drop_in_cluster, statement, state, message):
    drop_in_cluster.create_database("versions")
    try:
        with drop_in_cluster.connect("versions") as db:
            with pytest.raises(psycopg.Error) as caught:
                db.execute(statement)
            assert message in str(caught.value)
            assert caught.value.sqlstate == state if state else not caught.value.sqlstate.startswith("XX")
            assert db.execute("SELECT count(*) FROM pg_extension WHERE extname IN ('vector', 'ivflsh')").fetchone() == (0,)
            db.execute("CREATE EXTENSION vector")
            with pytest.raises(psycopg.Error) as caught:
                db.execute("ALTER EXTENSION vector UPDATE TO '9.9.9'")
            assert caught.value.sqlstate == "22023"
    finally:
        with drop_in_cluster.connect() as admin:
            admin.execute("DROP DATABASE versions WITH (FORCE)")
