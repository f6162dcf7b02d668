"""Where clients are tried: servers by way, databases in them, and how programs of other languages are run."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from harness.cluster import Cluster
from harness.installation import Installation

WAYS = ["pgvector", "add-on", "in place", "drop-in", "vector_ext"]
ROWS = [(i, [round(float(np.sin(i * j)), 3) for j in range(1, 4)]) for i in range(1, 201)]
QUERY = [0.5, -0.5, 0.25]
HERE = Path(__file__).parent

# Beside each index that a client makes, the add-on makes one of its own.
TWINS = r"""
CREATE FUNCTION twin() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE definition text;
BEGIN
    FOR definition IN SELECT pg_get_indexdef(objid) FROM pg_event_trigger_ddl_commands() c
            WHERE command_tag = 'CREATE INDEX' AND object_type = 'index' LOOP
        IF definition ~ ' USING (hnsw|ivfflat) ' THEN
            EXECUTE regexp_replace(regexp_replace(definition, ' INDEX \S+ ON ', ' INDEX ON '),
                ' USING (hnsw|ivfflat) (.*?)( WITH \([^)]*\))?$', ' USING ivflsh \2');
        END IF;
    END LOOP;
END $$;
CREATE EVENT TRIGGER twin ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION twin();
"""


@pytest.fixture(scope="session")
def servers(tmp_path_factory, drop_in, cluster):
    """A server by way, started when it is first asked for; pgvector's is the add-on's, in databases without it."""
    started = {}

    def start(way):
        if way == "vector_ext":
            return cluster
        if way == "drop-in":
            return Cluster(drop_in.pg_config).start()
        installation = Installation(tmp_path_factory.mktemp("peer"), os.environ["PGVECTOR_CONFIG"])
        installation.add(drop_in, "vector_ext*", "ivflsh*")
        server = Cluster(installation.pg_config).start()
        if way == "in place":
            # pgvector's own catalogs, in the template of all that follows.
            server.create_database("made_by_pgvector", "vector")
            server.stop()
            installation.run("install-vector.sh", FORCE="1")
            server.start()
            with server.connect("made_by_pgvector") as db:
                db.execute("ALTER EXTENSION vector UPDATE")
        return server

    def server(way):
        way = "pgvector" if way == "add-on" else way
        if way not in started:
            started[way] = start(way)
        return started[way]

    yield server
    for way, one in started.items():
        if way != "vector_ext":
            one.destroy()


class Place:
    """A fresh database of a way, as a client is told of it. Indexes are used there, and pgvector's find all of so few rows."""

    def __init__(self, cluster, name, way, twins=False):
        self.cluster, self.way = cluster, way
        self.host, self.name = str(cluster.folder), name.replace(" ", "_").replace("-", "_")
        self.twins = twins and way == "add-on"
        self.extension = "vector_ext" if way == "vector_ext" else "vector"
        self.hnsw, self.ivfflat = ("ivflsh", "ivflsh") if way == "vector_ext" else ("hnsw", "ivfflat")
        with cluster.connect() as admin:
            template = " TEMPLATE made_by_pgvector" if way == "in place" else ""
            admin.execute(f'CREATE DATABASE "{self.name}"{template}')
            for setting in ("enable_seqscan = off", "hnsw.ef_search = 400", "ivfflat.probes = 100"):
                admin.execute(f'ALTER DATABASE "{self.name}" SET {setting}')
        if way == "add-on":
            with cluster.connect(self.name) as db:
                db.execute("CREATE EXTENSION vector; CREATE EXTENSION ivflsh")
                if self.twins:
                    db.execute(TWINS)

    def url(self, driver):
        return f"postgresql+{driver}://postgres@/{self.name}?host={self.host}&port=5432"

    def graph(self, **options):
        """Options of hnsw, where there is hnsw."""
        return {} if self.way == "vector_ext" else options

    def options(self, **options):
        """The same as a clause."""
        return f"WITH ({', '.join(f'{k} = {v}' for k, v in options.items())})" if self.graph(**options) else ""

    def task(self):
        """What a program of another language is told."""
        return json.dumps({"host": self.host, "database": self.name, "rows": ROWS, "query": QUERY, "extension": self.extension,
                           "hnsw": self.hnsw, "ivfflat": self.ivfflat})

    def comparable(self, seen):
        """What a client saw, as text; without the words that differ by intent."""
        text = json.dumps(seen, default=list)
        if self.twins:
            text = re.sub(r'\["CREATE INDEX \S+ ON \S+ USING ivflsh [^"]*"\](, )?', "", text)
        if self.way == "vector_ext":
            text = re.sub(r"hnsw|ivfflat", "ivflsh", text)
            text = re.sub(r' \w+_l2_ops|"postgresql_ops": \{[^}]*\}, ', "", text).replace('"vector_l2_ops"', "{}")  # the default there
            text = re.sub(r'\.with\(\{.*?\}\)| WITH \([^)]*\)|"postgresql_with": \{[^}]*\}, ', "", text)
        return text

    def twins_used(self):
        """Whether a scan was made on an index of the add-on, or there is none any more. A session tells when it ends."""
        query = """SELECT sum(idx_scan) FROM pg_stat_all_indexes JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = relam
            WHERE amname = 'ivflsh'"""
        with self.cluster.connect(self.name) as db:
            for _ in range(100):
                [[scans]] = db.execute(query).fetchall()
                if scans is None or scans > 0:
                    return True
                time.sleep(0.1)
        return False


def last_line(process):
    assert process.returncode == 0, f"{process.stdout[-3000:]}\n{process.stderr[-6000:]}"
    return json.loads(process.stdout.strip().splitlines()[-1])


def app(group, program, name):
    """A client that is a program of its own: reads a task, prints what it saw as the last line."""
    def run(place):
        commands = {
            "python": lambda: [sys.executable, HERE / program],
            "frameworks": lambda: [os.environ["FRAMEWORKS_PYTHON"], HERE / "frameworks" / program],
            "node": lambda: ["node", Path(os.environ["CLIENT_MODULES"]) / "run.mjs", program],
            "rust": lambda: [os.environ["CLIENTS_RUST"], program],
            "ruby": lambda: ["ruby", HERE / "ruby" / program],
        }
        return last_line(subprocess.run([str(word) for word in commands[group]()], input=place.task(), text=True, capture_output=True, timeout=300,
                                        env=os.environ | {"NO_COLOR": "1"}))

    run.__name__ = f"{name}_client"
    return run
