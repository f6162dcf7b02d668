"""A client of Node, where node and npm are there: node-postgres with the `pgvector` package, on the extension `vector` and on vector_ext."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from clients.places import QUERY, ROWS

NODE = Path(__file__).parent / "clients" / "node"
pytestmark = pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="needs node and npm")


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The client's packages, of the versions in the lock file."""
    folder = tmp_path_factory.mktemp("node")
    for file in (*(NODE / "quick").glob("*.json"), NODE / "run.mjs", NODE / "pg.mjs"):
        shutil.copy(file, folder)
    done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, text=True, capture_output=True, timeout=200,
                          stdin=subprocess.DEVNULL)
    if done.returncode:
        pytest.skip(f"npm cannot install: {done.stderr[-300:]}")
    return folder


@pytest.mark.parametrize("extension, hnsw, ivfflat", [("vector", "hnsw", "ivfflat"), ("vector_ext", "ivflsh", "ivflsh")])
def test_node_postgres(request, modules, extension, hnsw, ivfflat):
    cluster = request.getfixturevalue("drop_in_cluster" if extension == "vector" else "cluster")
    cluster.create_database("node")
    try:
        task = {"host": str(cluster.folder), "database": "node", "rows": ROWS, "query": QUERY, "extension": extension, "hnsw": hnsw,
                "ivfflat": ivfflat}
        done = subprocess.run(["node", modules / "run.mjs", "pg"], input=json.dumps(task), text=True, capture_output=True, timeout=100,
                              env=os.environ | {"NO_COLOR": "1"})
        assert done.returncode == 0, done.stderr
        near, half = json.loads(done.stdout.splitlines()[-1])
        exact = sorted(ROWS, key=lambda row: sum((a - b) ** 2 for a, b in zip(row[1], QUERY)))
        assert [(int(row["id"]), row["embedding"]) for row in near] == exact[:5]
        assert len(half) == 5 and half[0]["half"] == pytest.approx(dict(ROWS)[int(half[0]["id"])], abs=1e-3)
    finally:
        with cluster.connect() as admin:
            admin.execute("DROP DATABASE node WITH (FORCE)")
