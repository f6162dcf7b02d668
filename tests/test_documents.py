"""What docs/operations.md and docs/scale-out.md say: their SQL runs, their formulas hold, the errors that they explain exist."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from pgvector.psycopg import register_vector

from harness.cluster import Cluster, as_server_user
from harness.search import clustered, insert, make_index, make_table

ROOT = Path(__file__).resolve().parent.parent
SHARDS = ("shard1", "shard2")


def page(name):
    return (ROOT / "docs" / name).read_text()


def blocks(name, language="sql"):
    return re.findall(rf"^```{language}\n(.*?)^```", page(name), re.MULTILINE | re.DOTALL)


@pytest.fixture
def three(cluster):
    """Databases for a coordinator and two shards."""
    names = ("pages", *SHARDS)
    for name in names:
        cluster.create_database(name, "vector_ext")
    yield cluster
    with cluster.connect() as admin:
        for name in names:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_scale_out(three):
    """All blocks, in order; `shard1` and `shard2` are databases of one server."""
    shown = ""
    for block in blocks("scale-out.md"):
        if block.startswith("-- on each shard"):
            for name in SHARDS:
                three.psql(block, name)
            continue
        block = re.sub(r"host '(shard\d)', port '5432', dbname 'app'", rf"host '{three.folder}', port '5432', dbname '\1'", block)
        shown += three.psql(block, "pages")
    assert "{shard1,shard2}" in shown
    with three.connect("pages") as db:
        union = next(block for block in blocks("scale-out.md") if "d + 0" in block)
        plan = "\n".join(r[0] for r in db.execute("EXPLAIN (VERBOSE, COSTS OFF) " + union))
        assert plan.count("Async Foreign Scan") == 2 and plan.count("LIMIT 10::bigint") == 2
        near = db.execute("SELECT id, distance FROM nearest_items('[1,0,0]', 10)").fetchall()
        assert near == db.execute(union).fetchall()


def test_operations(cluster):
    """All blocks, in order, in a database of its own."""
    cluster.create_database("operations")
    try:
        shown = "".join(cluster.psql(block, "operations") for block in blocks("operations.md"))
        metrics = re.findall(r"^(vector_ext_\w+)\{.*\} ([-+.\deNa]+)$", shown, re.MULTILINE)
        assert {"vector_ext_index_bytes", "vector_ext_index_rows", "vector_ext_index_lists", "vector_ext_index_scans_total"} <= {m[0] for m in metrics}
    finally:
        with cluster.connect() as admin:
            admin.execute("DROP DATABASE operations WITH (FORCE)")


def test_book(cluster, tmp_path):
    """It can be put together, every link leads somewhere, and the SQL of its own pages runs, in the order of the summary."""
    subprocess.run([sys.executable, ROOT / "scripts/book.py", tmp_path / "book"], check=True)
    summary = (ROOT / "docs/book/SUMMARY.md").read_text()
    pages = [ROOT / link for link in re.findall(r"\]\((docs/book/\S+)\)", summary)]
    assert sorted(pages) == sorted(page for page in ROOT.glob("docs/book/*.md") if page.name != "SUMMARY.md")
    cluster.create_database("book")
    try:
        shown = "".join(cluster.psql(block, "book") for page in pages
                        for block in re.findall(r"^```sql\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
        assert "document" in shown and ".jpg" in shown
    finally:
        with cluster.connect() as admin:
            admin.execute("DROP DATABASE book WITH (FORCE)")


@pytest.mark.parametrize("rows, dimensions", [(20000, 32), (6000, 256)])
@pytest.mark.parametrize("bits", [8, 4, 0])
def test_size_of_an_index(db, rows, dimensions, bits):
    """n · 1.1 · ((2 + bits) / 8 · D + 32) bytes, within a fifth and the pages of a small index."""
    make_table(db, clustered(rows, dimensions))
    make_index(db, options=f"WITH (bits = {bits})")
    size = db.execute("SELECT pg_relation_size('items_embedding_idx')").fetchone()[0]
    expected = rows * 1.1 * ((2 + bits) / 8 * dimensions + 32)
    assert 0.75 * expected < size < 1.25 * expected + 30 * 8192, f"{size / expected:.2f}"


def errors():
    """Messages of the table and their SQLSTATEs."""
    return re.findall(r"^\| `(.+?)` \| (\w{5}) \|", page("operations.md").split("## Errors", 1)[1], re.MULTILINE)


def test_errors_exist():
    """Each message of the table is one that the library has, word by word but for what is filled in."""
    sources = " ".join(file.read_text() for file in [*ROOT.glob("src/**/*.rs"), *ROOT.glob("crates/*/src/**/*.rs")])
    sources = re.sub(r"\\\n\s*", "", sources).replace('\\"', '"')
    assert len(errors()) >= 10
    for message, _ in errors():
        for part in message.split("…"):
            assert part.strip() in sources, f"{message}: {part}"


RAISED = {
    "expected …": "INSERT INTO items VALUES (1, '[1,2]', 1)",
    "different …": "SELECT '[1,2]'::vector <-> '[1]'",
    "column does not": "CREATE TABLE free (v vector); CREATE INDEX ON free USING ivflsh (v vector_l2_ops)",
    "column cannot": None,  # the type has the same limit
    "cannot use more than": "CREATE INDEX ON items USING ivflsh (v vector_l2_ops, " + ", ".join(["id"] * 28) + ")",
    "infinite": "SELECT '[infinity]'::vector",
    "permission": "SET ROLE pg_monitor; SELECT ivflsh_stats('items_v_idx')",
    "cannot compare": "SELECT deduplicate(array_fill('[1]'::vector, ARRAY[100001]), 0.1)",
}


def test_errors_are_raised_so(db):
    db.execute("CREATE TABLE items (id int, v vector(3), x int); CREATE INDEX ON items USING ivflsh (v vector_l2_ops)")
    for start, statement in RAISED.items():
        (message, state), = [e for e in errors() if e[0].startswith(start)]
        if statement is None:
            continue
        with pytest.raises(psycopg.Error) as caught:
            db.execute(statement)
        assert caught.value.sqlstate == state, f"{message}: {caught.value.sqlstate} {caught.value}"
        db.execute("RESET ROLE")


def test_point_in_time():
    """A base backup and the WAL behind it, recovered to a named point, has the index as it was there (operations.md, Backup)."""
    with Cluster(settings={"archive_mode": "on", "archive_command": "cp %p ../archive/%f", "wal_level": "replica"}) as server:
        subprocess.run(as_server_user(["mkdir", server.folder / "archive"]), check=True)
        server.create_database("app", "vector_ext")
        with server.connect("app") as db:
            register_vector(db)
            make_table(db, clustered(2000, 16))
            make_index(db)
            server._run("pg_basebackup", "-D", server.folder / "base", "-h", server.folder, "-p", "5432", "-U", "postgres", "-X", "none", "-c", "fast", "--no-sync")
            insert(db, clustered(1000, 16, seed=3), first_id=2000)
            db.execute("SELECT pg_create_restore_point('here')")
            db.execute("DELETE FROM items WHERE id < 1500")
            db.execute("VACUUM items")
            db.execute("SELECT pg_switch_wal()")
        server.stop()
        subprocess.run(as_server_user(["sh", "-c", f"cp -n {server.data}/pg_wal/0* {server.folder}/archive/; touch {server.folder}/base/recovery.signal"]), check=True)
        conf = server.folder / "base" / "postgresql.auto.conf"
        with open(conf, "a") as file:
            file.write("restore_command = 'cp ../archive/%f %p'\nrecovery_target_name = 'here'\nrecovery_target_action = 'promote'\narchive_mode = 'off'\n")
        shutil.rmtree(server.data)
        (server.folder / "base").rename(server.data)
        server.start()
        server.wait_for_promotion()
        with server.connect("app") as db:
            assert db.execute("SELECT count(*) FROM items").fetchone() == (3000,)
            assert db.execute("SELECT rows FROM ivflsh_check('items_embedding_idx')").fetchone() == (3000,)
