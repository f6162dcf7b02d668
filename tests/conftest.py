"""Fixtures: one server for most tests, and for each test a database of its own in it."""

import itertools
import os
import shutil
import tempfile

import psycopg
import pytest
from pgvector.psycopg import register_vector

from harness.cluster import Cluster, exit_on_signals
from harness.installation import Installation

TEMPLATE = "template_vector_ext"
numbers = itertools.count(1)


def pytest_addoption(parser):
    group = parser.getgroup("stress", "long runs, see `make stress`")
    group.addoption("--kills", type=int, default=4, help="times that the server is killed")
    group.addoption("--records", type=int, default=3, help="records at which recovery ends")
    group.addoption("--seconds", type=float, default=4, help="how long clients run beside each other")
    group.addoption("--clients", type=int, default=8, help="how many of them")
    group.addoption("--memory-steps", type=int, default=14, help="sizes of memory that each statement is given")
    group.addoption("--damage", type=int, default=48, help="damaged indexes")
    group.addoption("--aimed", type=int, default=36, help="indexes damaged where it is likely to matter")
    group.addoption("--statements", type=int, default=0, help="compared with what tables hold (0: a few)")
    group.addoption("--tables", type=int, default=0, help="the same, told by the number of tables")
    group.addoption("--largest", type=int, default=5000, help="rows of the largest of these tables")
    group.addoption("--keep-going", action="store_true", help="tell all differences, not only the first")
    group.addoption("--seed", type=int, default=1, help="of the dice in these tests")


def pytest_configure(config):
    """A folder of this run alone: pytest's own takes the permission to enter away, for all runs, whenever another run begins, and
    servers of another user are installed in it."""
    if config.option.basetemp is None:
        config.option.basetemp = tempfile.mkdtemp(prefix="vector_ext-pytest-", dir=os.environ.get("VECTOR_EXT_TMP"))
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))


@pytest.fixture
def stress(request):
    """The options of the long runs."""
    return request.config.option


def pytest_sessionstart(session):
    exit_on_signals()


@pytest.fixture(scope="session")
def cluster():
    """A server with a template database that has the extension."""
    with Cluster() as cluster:
        cluster.create_database(TEMPLATE, "vector_ext")
        yield cluster


@pytest.fixture(scope="session")
def drop_in(tmp_path_factory):
    """An installation of PostgreSQL in which the extension named vector is ours."""
    installation = Installation(tmp_path_factory.mktemp("drop_in"))
    for pattern in ("vector.*", "vector--*"):
        installation.remove(pattern)
    installation.run("install-vector.sh")
    return installation


@pytest.fixture(scope="session")
def drop_in_cluster(drop_in):
    """A server of it."""
    with Cluster(drop_in.pg_config) as cluster:
        yield cluster


@pytest.fixture
def drop_in_database(drop_in_cluster):
    """A database with that extension."""
    name = f"drop_in_{next(numbers)}"
    drop_in_cluster.create_database(name, "vector")
    database = Database(drop_in_cluster, name)
    yield database
    database.close()
    with drop_in_cluster.connect() as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


class Database:
    """A database of one test: the connections to it are closed with it."""

    def __init__(self, cluster, name):
        self.cluster, self.name, self.connections = cluster, name, []

    def connect(self, **options):
        connection = self.cluster.connect(self.name, **options)
        register_vector(connection)
        self.connections.append(connection)
        return connection

    def close(self):
        for connection in self.connections:
            connection.close()


@pytest.fixture
def database(cluster):
    name = f"test_{next(numbers)}"
    with cluster.connect() as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        database = Database(cluster, name)
        yield database
        database.close()
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def db(database):
    """A connection, in autocommit mode, to a fresh database that has the extension."""
    return database.connect()


@pytest.fixture
def refused():
    """refused(connection, sqlstate, message part, statement, parameters): the statement is refused just so."""

    def check(connection, sqlstate, message, statement, parameters=None):
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(statement, parameters)
        assert caught.value.sqlstate == sqlstate, f"{caught.value.sqlstate}: {caught.value}"
        assert message in str(caught.value)
        if connection.autocommit is False:
            connection.rollback()
        assert connection.execute("SELECT 1").fetchone() == (1,), "the connection survives"

    return check
