"""Client libraries in their own idioms, unchanged, on pgvector itself and on each way in: the same results.

Run by `make test-clients`, which installs the libraries and sets PGVECTOR_CONFIG.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.cluster import Cluster
from harness.installation import Installation

pytestmark = pytest.mark.skipif(not os.environ.get("PGVECTOR_CONFIG"), reason="needs pgvector: make test-clients")

WAYS = ["add-on", "drop-in"]
ROWS = [(i, [round(np.sin(i * j), 3) for j in range(1, 4)]) for i in range(1, 201)]
QUERY = [0.5, -0.5, 0.25]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def servers(tmp_path_factory, drop_in):
    """Servers by way; pgvector's is the add-on's, in databases without it."""
    peer = Installation(tmp_path_factory.mktemp("peer"), os.environ["PGVECTOR_CONFIG"])
    peer.add(drop_in, "vector_ext*", "ivflsh*")
    with Cluster(peer.pg_config) as theirs, Cluster(drop_in.pg_config) as ours:
        yield {"pgvector": theirs, "add-on": theirs, "drop-in": ours}


class Place:
    """A fresh database of a way, as a client is told of it."""

    def __init__(self, cluster, name, way):
        self.host, self.name, self.way = str(cluster.folder), name, way
        cluster.create_database(name)
        if way == "add-on":
            with cluster.connect(name) as db:
                db.execute("CREATE EXTENSION vector; CREATE EXTENSION ivflsh")

    def url(self, driver):
        return f"postgresql+{driver}://postgres@/{self.name}?host={self.host}&port=5432"


def psycopg2_client(place):
    import psycopg2
    from pgvector.psycopg2 import register_vector

    connection = psycopg2.connect(host=place.host, dbname=place.name, user="postgres")
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(connection)
        cursor.execute("CREATE TABLE items (id bigserial PRIMARY KEY, embedding vector(3))")
        cursor.executemany("INSERT INTO items VALUES (%s, %s)", [(i, np.array(v)) for i, v in ROWS])
        cursor.execute("CREATE INDEX ON items USING hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64)")
        cursor.execute("SET LOCAL hnsw.ef_search = 100")
        cursor.execute("SELECT id, embedding FROM items ORDER BY embedding <=> %s LIMIT 5", (np.array(QUERY),))
        found = [(i, v.to_list()) for i, v in cursor.fetchall()]
    connection.close()
    return found


def psycopg_client(place):
    import psycopg
    from pgvector.psycopg import register_vector

    with psycopg.connect(host=place.host, dbname=place.name, user="postgres", autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(connection)
        connection.execute("CREATE TABLE items (id bigint PRIMARY KEY, embedding vector(3), half halfvec(3))")
        with connection.cursor().copy("COPY items (id, embedding) FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "vector"])
            for i, v in ROWS:
                copy.write_row([i, np.array(v, np.float32)])
        connection.execute("UPDATE items SET half = embedding")
        connection.execute("CREATE INDEX ON items USING ivfflat (embedding vector_l2_ops) WITH (lists = 4)")
        connection.execute("CREATE INDEX ON items USING hnsw (half halfvec_l2_ops)")
        connection.execute("SET ivfflat.probes = 4")
        rows = connection.execute("SELECT id FROM items ORDER BY embedding <-> %s LIMIT 5", (np.array(QUERY),)).fetchall()
        half = connection.execute("SELECT id FROM items ORDER BY half <-> %s::halfvec LIMIT 5", (np.array(QUERY),)).fetchall()
        return [rows, half, connection.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'items' ORDER BY 1").fetchall()]


def asyncpg_client(place):
    import asyncpg
    from pgvector.asyncpg import register_vector

    async def run():
        connection = await asyncpg.connect(host=place.host, port=5432, user="postgres", database=place.name)
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        await register_vector(connection)
        await connection.execute("CREATE TABLE items (id bigint, embedding vector(3))")
        await connection.copy_records_to_table("items", records=[(i, np.array(v)) for i, v in ROWS])
        await connection.execute("CREATE INDEX ON items USING hnsw (embedding vector_l2_ops)")
        rows = await connection.fetch("SELECT id, embedding FROM items ORDER BY embedding <-> $1 LIMIT 5", np.array(QUERY))
        await connection.close()
        return [(row["id"], row["embedding"].to_list()) for row in rows]

    return asyncio.run(run())


def pg8000_client(place):
    import pg8000.native
    from pgvector.pg8000 import register_vector

    connection = pg8000.native.Connection("postgres", database=place.name, unix_sock=f"{place.host}/.s.PGSQL.5432")
    connection.run("CREATE EXTENSION IF NOT EXISTS vector")
    register_vector(connection)
    connection.run("CREATE TABLE items (id bigint, embedding vector(3))")
    for i, v in ROWS:
        connection.run("INSERT INTO items VALUES (:id, :v)", id=i, v=np.array(v))
    connection.run("CREATE INDEX ON items USING hnsw (embedding vector_ip_ops)")
    rows = connection.run("SELECT id FROM items ORDER BY embedding <#> :q LIMIT 5", q=np.array(QUERY))
    connection.close()
    return rows


def sqlalchemy_client(place):
    from pgvector.sqlalchemy import Vector
    from sqlalchemy import Index, Integer, create_engine, inspect, select, text
    from sqlalchemy.orm import Session, declarative_base, mapped_column

    base = declarative_base()

    class Item(base):
        __tablename__ = "items"
        id = mapped_column(Integer, primary_key=True)
        embedding = mapped_column(Vector(3))
        __table_args__ = (Index("by_embedding", "embedding", postgresql_using="hnsw", postgresql_with={"m": 16, "ef_construction": 64},
                                postgresql_ops={"embedding": "vector_l2_ops"}),)

    engine = create_engine(place.url("psycopg"))
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Item(id=i, embedding=v) for i, v in ROWS)
        session.commit()
        found = list(session.scalars(select(Item.id).order_by(Item.embedding.l2_distance(QUERY)).limit(5)))
        near = list(session.scalars(select(Item.id).where(Item.embedding.cosine_distance(QUERY) < 0.05).order_by(Item.id)))
    options = inspect(engine).get_indexes("items")[0]["dialect_options"]
    engine.dispose()
    return [found, near, options]


def alembic_client(place):
    """Autogenerate finds nothing to do."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from pgvector.sqlalchemy import Vector
    from sqlalchemy import Column, Index, Integer, MetaData, Table, create_engine, text

    metadata = MetaData()
    items = Table("items", metadata, Column("id", Integer, primary_key=True), Column("embedding", Vector(3)))
    Index("a", items.c.embedding, postgresql_using="hnsw", postgresql_with={"m": 8, "ef_construction": 32},
          postgresql_ops={"embedding": "vector_cosine_ops"})
    Index("b", items.c.embedding, postgresql_using="ivfflat", postgresql_with={"lists": 3}, postgresql_ops={"embedding": "vector_ip_ops"})
    engine = create_engine(place.url("psycopg"))
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        metadata.create_all(connection)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert differences == []
    return differences


def sqlmodel_client(place):
    from typing import Any

    from pgvector.sqlalchemy import Vector
    from sqlmodel import Field, MetaData, Session, SQLModel, create_engine, select, text

    class Base(SQLModel, registry=__import__("sqlalchemy.orm", fromlist=["registry"]).registry(metadata=MetaData())):
        pass

    class Item(Base, table=True):
        id: int | None = Field(default=None, primary_key=True)
        embedding: Any = Field(sa_type=Vector(3))

    engine = create_engine(place.url("psycopg"))
    with Session(engine) as session:
        session.exec(text("CREATE EXTENSION IF NOT EXISTS vector"))
        session.commit()
        Item.metadata.create_all(engine)
        session.add_all([Item(id=i, embedding=v) for i, v in ROWS])
        session.commit()
        found = list(session.exec(select(Item.id).order_by(Item.embedding.l2_distance(QUERY)).limit(5)))
    engine.dispose()
    return found


def peewee_client(place):
    import peewee
    from pgvector.peewee import VectorField

    database = peewee.PostgresqlDatabase(place.name, host=place.host, user="postgres")

    class Item(peewee.Model):
        embedding = VectorField(dimensions=3)

        class Meta:
            table_name = "items"

    database.bind([Item])
    database.connect()
    database.execute_sql("CREATE EXTENSION IF NOT EXISTS vector")
    Item.add_index("embedding vector_l2_ops", using="hnsw")
    database.create_tables([Item])
    Item.insert_many([{"embedding": np.array(v)} for _, v in ROWS]).execute()
    found = [item.id for item in Item.select().order_by(Item.embedding.l2_distance(QUERY)).limit(5)]
    database.close()
    return found


def django_client(place):
    """In a process of its own, as settings are global: migrations forwards and backwards."""
    done = subprocess.run([sys.executable, str(HERE / "django_app.py"), place.host, place.name, json.dumps(ROWS), json.dumps(QUERY)],
                          text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


CLIENTS = [psycopg2_client, psycopg_client, asyncpg_client, pg8000_client, sqlalchemy_client, alembic_client, sqlmodel_client,
           peewee_client, django_client]


@pytest.fixture(scope="module")
def expected(servers):
    """What a client sees on pgvector itself, once."""
    seen = {}

    def outcome(client):
        if client not in seen:
            place = Place(servers["pgvector"], f"{client.__name__}_theirs", "pgvector")
            seen[client] = client(place)
        return seen[client]

    return outcome


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__.removesuffix("_client"))
def test_same_as_on_pgvector(servers, expected, client, way):
    there = expected(client)
    here = client(Place(servers[way], f"{client.__name__}_{way}", way))
    assert json.dumps(here, default=list) == json.dumps(there, default=list)
    assert there or client is alembic_client
