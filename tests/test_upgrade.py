"""pg_upgrade from one major version of PostgreSQL to another, with indexes, by each way in.

Needs two servers that have vector_ext: UPGRADE_FROM and UPGRADE_TO name their pg_config. For the ways that have pgvector beside,
both need pgvector, too (scripts/bench-pgvector.sh builds it):

    UPGRADE_FROM=/…/15/bin/pg_config UPGRADE_TO=/…/17/bin/pg_config scripts/python.sh -m pytest tests/test_upgrade.py
"""

import os
import subprocess

import psycopg
import pytest

from harness.cluster import PORT, SUPERUSER, Cluster, as_server_user
from harness.installation import Installation

pytestmark = pytest.mark.skipif(not (os.environ.get("UPGRADE_FROM") and os.environ.get("UPGRADE_TO")),
                                reason="needs two servers: UPGRADE_FROM, UPGRADE_TO")

ITEMS = """
    CREATE TABLE items (id int PRIMARY KEY, tenant int, v vector(16), h halfvec(16), s sparsevec(16),
                        norm float8 GENERATED ALWAYS AS (vector_norm(v)) STORED);
    INSERT INTO items SELECT i, i % 20, a, a, a::vector::sparsevec FROM (
        SELECT i, ARRAY(SELECT sin(i * j * 0.1) + cos(i + j * j) FROM generate_series(1, 16) j)::real[] a
        FROM generate_series(1, 3000) i) x;
    CREATE VIEW near AS SELECT id FROM items ORDER BY v <-> '[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]' LIMIT 3;
"""
OURS = {"a": "ivflsh (v vector_l2_ops, tenant)", "b": "ivflsh (h halfvec_cosine_ops)"}
THEIRS = {"c": "hnsw (v vector_cosine_ops) WITH (m = 8)", "d": "ivfflat (h halfvec_l2_ops) WITH (lists = 10)"}
ONE = "[" + ",".join("1" * 16) + "]"
FACTS = f"SELECT count(*), round(sum(v <-> '{ONE}')::numeric, 2), round(sum(norm)::numeric, 2), md5(string_agg(s::text, '' ORDER BY id)) FROM items"
WAYS = {  # extensions, indexes, what is in the old installation and in the new one
    "vector_ext": (["vector_ext"], OURS, "plain", "plain"),
    "add-on": (["vector", "ivflsh"], OURS | THEIRS, "pgvector", "pgvector"),
    "drop-in": (["vector"], OURS | THEIRS, "drop-in", "drop-in"),
    "in place": (["vector"], THEIRS, "pgvector", "drop-in"),  # pgvector's library is exchanged on the way
}


def installation(folder, pg_config, kind):
    made = Installation(folder, pg_config)
    if kind == "drop-in":
        for pattern in ("vector.*", "vector--*"):
            made.remove(pattern)
        made.run("install-vector.sh")
    elif kind == "pgvector":
        control = made.extensions / "vector.control"
        if not control.exists() or "vector_ext in the place" in control.read_text():
            pytest.skip(f"{pg_config} has no pgvector")
    return made.pg_config


def lists(db, name):
    return db.execute(f"SELECT rows, entries FROM ivflsh_check('{name}')").fetchone()


@pytest.mark.parametrize("way", WAYS)
def test_pg_upgrade(tmp_path, way):
    extensions, indexes, kind_before, kind_after = WAYS[way]
    before = installation(tmp_path / "before", os.environ["UPGRADE_FROM"], kind_before)
    after = installation(tmp_path / "after", os.environ["UPGRADE_TO"], kind_after)
    mine = [name for name, using in indexes.items() if "ivflsh" in using or way == "drop-in"]
    with Cluster(before) as old, Cluster(after) as new:
        old.create_database("app")
        with old.connect("app") as db:
            for extension in extensions:
                db.execute(f"CREATE EXTENSION {extension}")
            db.execute(ITEMS)
            for name, using in indexes.items():
                db.execute(f"CREATE INDEX {name} ON items USING {using}")
            db.execute("DELETE FROM items WHERE id % 10 = 0; INSERT INTO items (id, tenant, v, h, s) SELECT 9000, 1, v, h, s FROM items WHERE id = 1")
            facts = db.execute(FACTS).fetchone(), db.execute("SELECT * FROM near").fetchall()
            checks = [lists(db, name) for name in mine]
            definitions = db.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'items' ORDER BY 1").fetchall()
        old.stop()
        new.stop()
        # pg_upgrade writes its files where it runs, and starts both servers itself.
        command = [new.bindir / "pg_upgrade", "-b", old.bindir, "-B", new.bindir, "-d", old.data, "-D", new.data, "-U", SUPERUSER,
                   "-p", str(PORT), "-P", str(PORT), "-s", new.folder]
        done = subprocess.run(as_server_user(command), cwd=new.folder, text=True, capture_output=True)
        logs = "\n".join(file.read_text(errors="replace")[-2000:] for file in new.data.glob("pg_upgrade_output.d/**/*") if file.is_file())
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
        new.start()
        with new.connect("app") as db:
            assert (db.execute(FACTS).fetchone(), db.execute("SELECT * FROM near").fetchall()) == facts
            assert db.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'items' ORDER BY 1").fetchall() == definitions
            assert [lists(db, name) for name in mine] == checks
            db.execute("ANALYZE items; SET enable_seqscan = off")
            if way == "in place":
                with pytest.raises(psycopg.Error) as caught:
                    db.execute(f"SELECT id FROM items ORDER BY v <=> '{ONE}' LIMIT 3")
                assert caught.value.diag.message_hint == "REINDEX INDEX public.c;"
                db.execute("ALTER EXTENSION vector UPDATE; REINDEX TABLE items")
                mine = list(indexes)
            for name in mine:
                assert db.execute(f"SELECT ivflsh_recall('{name}') > 0.85").fetchone() == (True,)
            db.execute(f"INSERT INTO items (id, tenant, v, h) VALUES (0, 3, '{ONE}', '{ONE}')")
            for column, operator in [("v", "<->"), ("h", "<=>"), ("v", "<=>"), ("h", "<->")]:
                assert db.execute(f"SELECT id FROM items ORDER BY {column} {operator} '{ONE}' LIMIT 1").fetchall() == [(0,)]
            db.execute("VACUUM items")
            db.execute("REINDEX TABLE items")
            assert [lists(db, name)[0] for name in mine] == [2702] * len(mine)
