"""Indexes with filter columns behind the vector, made by clients: README.md shows how."""

import os

import pytest

from clients.places import QUERY, ROWS, Place, app, servers  # noqa: F401

pytestmark = pytest.mark.skipif(not os.environ.get("PGVECTOR_CONFIG"), reason="needs pgvector: make test-clients")


def sqlalchemy(place):
    from pgvector.sqlalchemy import Vector
    from sqlalchemy import Column, Index, Integer, MetaData, Table, create_engine, insert, select, text

    items = Table("items", MetaData(), Column("id", Integer, primary_key=True), Column("tenant", Integer), Column("embedding", Vector(3)))
    Index("by_tenant", items.c.embedding, items.c.tenant, postgresql_using="hnsw", postgresql_ops={"embedding": "vector_l2_ops"})
    engine = create_engine(place.url("psycopg"))
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        items.metadata.create_all(connection)
        connection.execute(insert(items), [{"id": i, "tenant": i % 4, "embedding": v} for i, v in ROWS])
        nearest = select(items.c.id).where(items.c.tenant == 3).order_by(items.c.embedding.l2_distance(QUERY)).limit(5)
        near = list(connection.scalars(nearest))
        plan = "\n".join(connection.scalars(text(f"EXPLAIN SELECT id FROM items WHERE tenant = 3 ORDER BY embedding <-> '{QUERY}' LIMIT 5")))
        definition = connection.scalar(text("SELECT indexdef FROM pg_indexes WHERE indexname = 'by_tenant'"))
    engine.dispose()
    return {"near": near, "plan": plan, "definition": definition}


CLIENTS = {"sqlalchemy": ("python", sqlalchemy), "django": ("python", app("python", "django_filters_app.py", name="django")),
           "drizzle": ("node", app("node", "drizzle_filters", name="drizzle"))}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.client(CLIENTS[name][0], f"{name}, filter columns", "drop-in")) for name in CLIENTS])
def test_filter_columns(servers, name):  # noqa: F811
    if name == "drizzle" and not os.environ.get("CLIENT_MODULES"):
        pytest.skip("needs the group node")
    seen = CLIENTS[name][1](Place(servers("drop-in"), f"filters_{name}", "drop-in"))
    far = lambda row: sum((a - b) ** 2 for a, b in zip(row[1], QUERY))
    assert seen["near"] == [i for i, _ in sorted(((i, v) for i, v in ROWS if i % 4 == 3), key=far)][:5]
    assert "Index Cond: (tenant = 3)" in seen["plan"] and "Order By: (embedding <->" in seen["plan"], seen["plan"]
    assert seen["definition"].endswith("USING hnsw (embedding vector_l2_ops, tenant)")
    assert seen.get("unchanged", True)
