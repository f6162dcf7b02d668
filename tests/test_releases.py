"""Databases that an earlier version has made: their extension is updated, their indexes are read or ask for a REINDEX."""

import lzma
import re
from pathlib import Path

import pytest
from pgvector.psycopg import register_vector

from harness.cluster import Cluster
from harness.installation import ROOT, Installation

RELEASES = ROOT / "tests/data/releases"
VERSIONS = sorted(path.stem.removeprefix("vector_ext--") for path in RELEASES.glob("vector_ext--*.sql"))
FORMATS = sorted(int(path.name.split(".")[0].removeprefix("format-")) for path in RELEASES.glob("format-*.index.xz"))
PRESENT = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]

ROWS = """
    CREATE TABLE t (id int, v vector(4));
    INSERT INTO t SELECT i, ARRAY[sin(i), cos(i), sin(i * 0.7), cos(i * 1.3)]::real[]::vector FROM generate_series(1, 400) i;
    CREATE INDEX t_v ON t USING ivflsh (v vector_l2_ops)"""
NEAREST = "SELECT id FROM t ORDER BY v <-> '[0.1,0.2,0.3,0.4]' LIMIT 10"

# All that belongs to the extension, and how it is declared.
MEMBERS = """
    SELECT pg_describe_object(d.classid, d.objid, 0),
        CASE WHEN p.prokind = 'f' THEN pg_get_functiondef(p.oid) END,
        p.procost, p.provolatile, p.proparallel, p.proisstrict, p.proacl::text, p.prosupport::regproc::text,
        a.aggtransfn::text, a.aggfinalfn::text, a.aggcombinefn::text, a.agginitval,
        o.oprrest::text, o.oprjoin::text, o.oprcom::regoperator::text, o.oprnegate::regoperator::text, o.oprcanhash, o.oprcanmerge,
        t.typstorage, t.typalign, t.typlen, t.typmodin::text, t.typinput::text, t.typsend::text,
        c.opcdefault, pg_describe_object('pg_opfamily'::regclass, c.opcfamily, 0), c.opckeytype::regtype::text,
        x.castcontext, x.castmethod, x.castfunc::regprocedure::text,
        (SELECT array_agg((m.amopstrategy, m.amoppurpose, m.amopopr::regoperator)::text ORDER BY 1) FROM pg_amop m
            WHERE d.classid = 'pg_opfamily'::regclass AND m.amopfamily = d.objid),
        (SELECT array_agg((m.amprocnum, m.amproclefttype::regtype, m.amprocrighttype::regtype, m.amproc::regprocedure)::text ORDER BY 1) FROM pg_amproc m
            WHERE d.classid = 'pg_opfamily'::regclass AND m.amprocfamily = d.objid),
        obj_description(d.objid, d.classid::regclass::name)
    FROM pg_depend d
    LEFT JOIN pg_proc p ON (d.classid, d.objid) = ('pg_proc'::regclass, p.oid)
    LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid
    LEFT JOIN pg_operator o ON (d.classid, d.objid) = ('pg_operator'::regclass, o.oid)
    LEFT JOIN pg_type t ON (d.classid, d.objid) = ('pg_type'::regclass, t.oid)
    LEFT JOIN pg_opclass c ON (d.classid, d.objid) = ('pg_opclass'::regclass, c.oid)
    LEFT JOIN pg_cast x ON (d.classid, d.objid) = ('pg_cast'::regclass, x.oid)
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
        AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'vector_ext')
    ORDER BY 1"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One whose files are those of this version and the scripts of earlier ones."""
    installation = Installation(tmp_path_factory.mktemp("releases"))
    for version in VERSIONS:
        if version != PRESENT:
            (installation.extensions / f"vector_ext--{version}.sql").write_bytes((RELEASES / f"vector_ext--{version}.sql").read_bytes())
    with Cluster(installation.pg_config) as cluster:
        yield cluster


def members(server, database):
    with server.connect(database) as db:
        return {row[0]: row[1:] for row in db.execute(MEMBERS).fetchall()}


def test_there_is_a_release_before_this():
    assert VERSIONS and PRESENT not in VERSIONS and FORMATS


@pytest.mark.parametrize("version", VERSIONS)
def test_update(server, version):
    """What ALTER EXTENSION … UPDATE leads to is what CREATE EXTENSION makes; data, functions and indexes go on."""
    old, fresh = f"old_{version.replace('.', '_')}", f"fresh_{version.replace('.', '_')}"
    for name in (old, fresh):
        server.create_database(name)
    with server.connect(fresh) as db:
        db.execute("CREATE EXTENSION vector_ext")
    with server.connect(old) as db:
        db.execute(f"CREATE EXTENSION vector_ext VERSION '{version}'")
        register_vector(db)
        db.execute(ROWS)
        db.execute("CREATE FUNCTION near(q vector) RETURNS SETOF int LANGUAGE sql AS 'SELECT id FROM t ORDER BY v <-> q LIMIT 3'")
        before = db.execute(NEAREST).fetchall(), db.execute("SELECT near('[0,1,0,1]')").fetchall()
        db.execute("ALTER EXTENSION vector_ext UPDATE")
        assert db.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector_ext'").fetchone() == (PRESENT,)
        assert (db.execute(NEAREST).fetchall(), db.execute("SELECT near('[0,1,0,1]')").fetchall()) == before
        assert db.execute("SELECT ivflsh_recall('t_v', ARRAY['[0,1,0,1]'::vector])").fetchone() == (1.0,)
    updated, created = members(server, old), members(server, fresh)
    assert updated.keys() == created.keys()
    assert len(created) > 200
    for what, facts in created.items():
        assert updated[what] == facts, what


@pytest.mark.parametrize("version", VERSIONS)
def test_update_in_another_schema(server, version):
    name = f"elsewhere_{version.replace('.', '_')}"
    server.create_database(name)
    with server.connect(name) as db:
        db.execute(f"CREATE SCHEMA ext; CREATE EXTENSION vector_ext SCHEMA ext VERSION '{version}'; ALTER EXTENSION vector_ext UPDATE")
        # Nothing has come into the schema of the session.
        assert db.execute("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace").fetchone() == (0,)
        db.execute("SET search_path = public, ext")
        db.execute(ROWS)
        assert db.execute("SELECT ivflsh_tune('t_v', ARRAY['[0,1,0,1]'::vector]) IS NOT NULL").fetchone() == (True,)


@pytest.mark.parametrize("form", FORMATS)
def test_index_of_an_earlier_format(server, refused, form):
    """It is not called damaged; each use says that it wants a REINDEX, and this helps."""
    name = f"format_{form}"
    server.create_database(name, "vector_ext")
    with server.connect(name) as db:
        db.execute(ROWS)
        db.execute("CREATE SCHEMA s; ALTER TABLE t SET SCHEMA s; SET search_path = public, s")
        right = db.execute(NEAREST).fetchall()
        path = Path(server.data, db.execute("SELECT pg_relation_filepath('s.t_v')").fetchone()[0])
        db.execute("CHECKPOINT")
    server.stop()
    path.write_bytes(lzma.decompress((RELEASES / f"format-{form}.index.xz").read_bytes()))
    server.start()
    with server.connect(name) as db:
        db.execute("SET search_path = public, s; SET enable_seqscan = off; SET enable_sort = off")
        for statement in (NEAREST, "INSERT INTO t VALUES (0, '[1,2,3,4]')", "SELECT ivflsh_check('t_v')", "SELECT ivflsh_stats('t_v')",
                          "SELECT ivflsh_recall('t_v')", "SELECT ivflsh_tune('t_v')", "VACUUM (INDEX_CLEANUP on) t",
                          "SELECT count(*) FROM ivflsh_lists('t_v')"):
            if "VACUUM" in statement:
                db.execute("DELETE FROM t WHERE id = 400")
            with pytest.raises(Exception) as caught:
                db.execute(statement)
            error = caught.value.diag
            assert error.sqlstate == "0A000", f"{statement}: {error.sqlstate} {error.message_primary}"
            assert f"has format version {form}" in error.message_primary
            assert error.message_hint == "REINDEX INDEX s.t_v;"
        # Where no index is needed, none is missed.
        db.execute("SET enable_seqscan = on; SET enable_indexscan = off; SET enable_sort = on")
        assert db.execute("SELECT count(*) FROM t").fetchone() == (399,)
        db.execute("SET enable_indexscan = on; SET enable_seqscan = off")
        db.execute("REINDEX INDEX s.t_v")
        assert db.execute(NEAREST).fetchall() == right
        db.execute("VACUUM t")
        assert db.execute("SELECT rows FROM ivflsh_check('t_v')").fetchone() == (399,)
