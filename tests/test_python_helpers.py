"""clients/python's index classes for SQLAlchemy, Alembic and Django, and its estimator for scikit-learn. `make test-python` has them all."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PACKAGE = Path(__file__).parents[1] / "clients" / "python" / "src"
WHY = "is not installed: `make test-python` installs it"
rng = np.random.default_rng(7)


def indexes(connection, table="items"):
    return [row[0] for row in connection.execute("SELECT indexdef FROM pg_indexes WHERE tablename = %s AND indexdef LIKE '%%ivflsh%%' ORDER BY 1",
                                                 (table,))]


# SQLAlchemy and Alembic


@pytest.fixture
def engine(database):
    create_engine = pytest.importorskip("sqlalchemy", reason="SQLAlchemy " + WHY).create_engine

    engine = create_engine("postgresql+psycopg://", connect_args={"host": str(database.cluster.folder), "user": "postgres", "dbname": database.name})
    yield engine
    engine.dispose()


def models():
    from pgvector.sqlalchemy import HALFVEC, Vector
    from sqlalchemy import BigInteger, Integer, Text
    from sqlalchemy.orm import DeclarativeBase, mapped_column
    from vector_ext.sqlalchemy import Ivflsh

    class Base(DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "items"
        id = mapped_column(BigInteger, primary_key=True)
        tenant = mapped_column(Integer)
        word = mapped_column(Text)
        embedding = mapped_column(Vector(3))
        half = mapped_column(HALFVEC(3))
        __table_args__ = (Ivflsh("by_tenant", "embedding", "tenant", "word", metric="cosine", lists=7, bits=4),
                          Ivflsh("by_half", half, metric="ip", postgresql_where=tenant > 3))

    Ivflsh("by_l2", Item.embedding, Item.tenant, seed=9)
    return Base, Item


WANTED = ["CREATE INDEX by_half ON public.items USING ivflsh (half halfvec_ip_ops) WHERE (tenant > 3)",
          "CREATE INDEX by_l2 ON public.items USING ivflsh (embedding, tenant) WITH (seed='9')",
          "CREATE INDEX by_tenant ON public.items USING ivflsh (embedding vector_cosine_ops, tenant, word) WITH (lists='7', bits='4')"]


def test_sqlalchemy(db, engine):
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    base, item = models()
    base.metadata.create_all(engine)
    assert indexes(db) == WANTED
    with Session(engine) as session:
        session.add_all(item(id=i, tenant=i % 5, embedding=[i, 1, 2]) for i in range(1, 50))
        session.commit()
        found = session.scalars(select(item.id).where(item.tenant == 2).order_by(item.embedding.cosine_distance([20, 1, 2])).limit(3)).all()
        assert found[0] in (17, 22) and all(i % 5 == 2 for i in found)


def test_what_the_class_for_sqlalchemy_refuses():
    from pgvector.sqlalchemy import Vector
    from sqlalchemy import Column, Integer, MetaData, Table, func
    from vector_ext.sqlalchemy import Ivflsh

    table = Table("items", MetaData(), Column("tenant", Integer), Column("embedding", Vector(3)))
    with pytest.raises(ValueError, match="metric 'far' is none of l2"):
        Ivflsh("a", table.c.embedding, metric="far")
    with pytest.raises(ValueError, match="lists has to be a whole number, not '7'"):
        Ivflsh("a", table.c.embedding, lists="7")
    with pytest.raises(ValueError, match="of an expression say the operator class by postgresql_ops"):
        Ivflsh("a", func.l2_normalize(table.c.embedding), table.c.tenant)


def test_alembic(db, engine):
    """Autogenerate writes a migration that can be run, and finds nothing to do after it; one by hand runs as well."""
    pytest.importorskip("alembic", reason="Alembic " + WHY)
    from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from vector_ext.alembic import render_item

    base, _ = models()
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"target_metadata": base.metadata, "render_item": render_item})
        migration = produce_migrations(context, base.metadata)
        imports = set()

        def recording(kind, item, autogenerate):
            rendered = render_item(kind, item, autogenerate)
            imports.update(autogenerate.imports)
            return rendered

        code = render_python_code(migration.upgrade_ops, render_item=recording, migration_context=context)
        assert imports == {"import pgvector.sqlalchemy"}
        import sqlalchemy
        scope = {"sa": sqlalchemy, "op": Operations(context)}
        exec("\n".join(sorted(imports)), scope)  # noqa: S102
        exec("\n".join(line.removeprefix("    ") for line in code.splitlines()), scope)  # noqa: S102
        connection.commit()
        assert indexes(db) == WANTED
        assert compare_metadata(context, base.metadata) == []
        connection.commit()
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        with context.begin_transaction(_per_migration=True):
            Operations(context).create_ivflsh("by_hand", "items", "half", ["tenant"], type="halfvec", metric="l2", bits=0, concurrently=True)
    assert "CREATE INDEX by_hand ON public.items USING ivflsh (half, tenant) WITH (bits='0')" in indexes(db)


# Django

DJANGO = """
import json, sys
import django
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "HOST": sys.argv[1], "NAME": sys.argv[2], "USER": "postgres"}},
                   INSTALLED_APPS=["django.contrib.postgres"], DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
django.setup()
from django.contrib.postgres.indexes import OpClass
from django.db import connection, migrations, models
from django.db.migrations.state import ProjectState
from django.db.migrations.writer import MigrationWriter
from pgvector.django import CosineDistance, HalfVectorField, VectorField
from vector_ext.django import Ivflsh, VectorExtExtension

class Migration(migrations.Migration):
    initial = True
    operations = [
        VectorExtExtension(),
        migrations.CreateModel("Item", [("id", models.BigAutoField(primary_key=True)), ("tenant", models.IntegerField()),
                                        ("embedding", VectorField(dimensions=3)), ("half", HalfVectorField(dimensions=3))],
                               options={"db_table": "items"}),
        migrations.AddIndex("item", Ivflsh(name="by_tenant", fields=["embedding", "tenant"], metric="cosine", lists=7, bits=4)),
        migrations.AddIndex("item", Ivflsh(name="by_half", fields=["half"], metric="ip", condition=models.Q(tenant__gt=3))),
        migrations.AddIndex("item", Ivflsh(name="by_class", fields=["embedding"], opclasses=["vector_l2_ops"], seed=9)),
        migrations.AddIndex("item", Ivflsh(OpClass("embedding", "vector_l2_ops"), "tenant", name="by_expression")),
    ]

migration, before = Migration("0001_initial", "app"), ProjectState()
seen = {"written": MigrationWriter(migration).as_string()}
with connection.schema_editor() as editor:
    after = migration.apply(before.clone(), editor)
Item = after.apps.get_model("app", "Item")
Item.objects.bulk_create([Item(id=i, tenant=i % 5, embedding=[i, 1, 2], half=[i, 1, 2]) for i in range(1, 50)])
seen["nearest"] = list(Item.objects.filter(tenant=2).order_by(CosineDistance("embedding", [22, 1, 2])).values_list("id", flat=True)[:1])
with connection.cursor() as cursor:
    cursor.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'items' AND indexdef LIKE '%ivflsh%' ORDER BY 1")
    seen["indexes"] = [row[0] for row in cursor.fetchall()]
same = Ivflsh(name="a", fields=["embedding"], metric="l2", bits=4)
seen["same"] = [same == same.clone(), same == Ivflsh(name="a", fields=["embedding"], metric="l2", bits=8)]
with connection.schema_editor() as editor:
    migration.unapply(before.clone(), editor)
print(json.dumps(seen))
"""


def test_django(cluster):
    import json

    pytest.importorskip("django", reason="Django " + WHY)
    name = "django_helper"
    with cluster.connect() as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name}")
        admin.execute(f"CREATE DATABASE {name}")
    done = subprocess.run([sys.executable, "-c", DJANGO, str(cluster.folder), name], env=os.environ | {"PYTHONPATH": str(PACKAGE)}, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["indexes"] == [
        "CREATE INDEX by_class ON public.items USING ivflsh (embedding) WITH (seed='9')",
        "CREATE INDEX by_expression ON public.items USING ivflsh (embedding, tenant)",
        "CREATE INDEX by_half ON public.items USING ivflsh (half halfvec_ip_ops) WHERE (tenant > 3)",
        "CREATE INDEX by_tenant ON public.items USING ivflsh (embedding vector_cosine_ops, tenant) WITH (lists='7', bits='4')"]
    assert seen["nearest"] == [22] and seen["same"] == [True, False]
    assert "vector_ext.django.Ivflsh(bits=4, fields=['embedding', 'tenant'], lists=7, metric='cosine', name='by_tenant')" in seen["written"]
    with cluster.connect() as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


# scikit-learn


@pytest.fixture
def neighbors(database, db):
    """Makes estimators whose tables are in this database."""
    pytest.importorskip("sklearn", reason="scikit-learn " + WHY)
    from vector_ext.sklearn import PostgresNeighbors

    dsn = database.cluster.url(database.name)
    return lambda **options: PostgresNeighbors(dsn=dsn, **options)


def test_estimator_checks(neighbors):
    from sklearn.utils.estimator_checks import check_estimator

    results = check_estimator(neighbors(n_neighbors=3), on_skip=None)
    assert len(results) > 40
    assert {result["status"] for result in results} <= {"passed", "skipped"}
    print([(result["check_name"], result["status"]) for result in results if result["status"] != "passed"])


@pytest.mark.parametrize("metric, theirs", [("l2", "euclidean"), ("cosine", "cosine"), ("l1", "manhattan")])
@pytest.mark.parametrize("mode", ["distance", "connectivity"])
def test_same_graph_as_scikit_learn(neighbors, metric, theirs, mode):
    from sklearn.neighbors import KNeighborsTransformer

    samples, others = rng.standard_normal((300, 20)).astype(np.float32), rng.standard_normal((50, 20)).astype(np.float32)
    ours, reference = neighbors(n_neighbors=7, mode=mode, metric=metric), KNeighborsTransformer(n_neighbors=7, mode=mode, metric=theirs)
    for got, want in ((ours.fit_transform(samples), reference.fit_transform(samples)), (ours.transform(others), reference.transform(others))):
        assert got.shape == want.shape and got.nnz == want.nnz
        np.testing.assert_array_equal(got.indptr, want.indptr)
        np.testing.assert_allclose(got.toarray(), want.toarray(), atol=1e-5 if metric != "cosine" else 1e-6)


def test_cosine_agrees(neighbors):
    """With sklearn's cosine_similarity, of numbers of 64 bits and all sizes."""
    from sklearn.metrics.pairwise import cosine_similarity

    samples = rng.standard_normal((200, 100)) * 10.0 ** rng.integers(-6, 7, (200, 1))
    distances, rows = neighbors(metric="cosine").fit(samples).kneighbors(samples, 200)
    want = cosine_similarity(samples)
    assert np.abs(1 - distances - np.take_along_axis(want, rows, 1)).max() < 1e-6


def test_pipeline(neighbors, db):
    """A classifier over the table's graph says what it says over scikit-learn's; with an index it finds what is asked of it."""
    from sklearn.datasets import make_blobs
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsTransformer
    from sklearn.pipeline import make_pipeline

    samples, labels = make_blobs(11_000, 16, centers=40, cluster_std=4, random_state=1)
    graph = neighbors(n_neighbors=10, target_recall=0.99, table="digits")
    ours = make_pipeline(graph, KNeighborsClassifier(10, metric="precomputed")).fit(samples[:10_500], labels[:10_500])
    theirs = make_pipeline(KNeighborsTransformer(n_neighbors=10), KNeighborsClassifier(10, metric="precomputed")).fit(samples[:10_500], labels[:10_500])
    assert np.mean(ours.predict(samples[10_500:]) == theirs.predict(samples[10_500:])) > 0.98
    assert indexes(db, "digits") == ["CREATE INDEX digits_embedding_idx ON public.digits USING ivflsh (embedding)"]
    graph.drop()
    assert db.execute("SELECT to_regclass('digits')").fetchone() == (None,)


def test_tables_of_the_estimator(neighbors, db):
    """fit puts its own table in the place of that before; parameters are looked at."""
    tables = lambda: {row[0] for row in db.execute("SELECT relname FROM pg_class WHERE relname LIKE 'neighbors_%' AND relkind = 'r'")}  # noqa: E731
    samples = rng.standard_normal((30, 4))
    one, two = neighbors(n_neighbors=2).fit(samples), neighbors(n_neighbors=2).fit(samples)
    assert tables() == {one.table_, two.table_} and one.table_ != two.table_
    one.fit(samples[:20])
    assert tables() == {one.table_, two.table_} and one.transform(samples).shape == (30, 20)
    db.execute(f"DELETE FROM {two.table_} WHERE id < 29")
    with pytest.raises(RuntimeError, match="has changed since fit"):
        two.transform(samples)
    for options, reason in (({"mode": "far"}, "mode 'far'"), ({"metric": "hamming"}, "metric 'hamming'"), ({"n_neighbors": 0}, "n_neighbors")):
        with pytest.raises(ValueError, match=reason):
            neighbors(**options).fit(samples)
    with pytest.raises(ValueError, match="Expected n_neighbors <= n_samples_fit"):
        one.kneighbors(samples, 21)
