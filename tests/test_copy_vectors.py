"""`python -m vector_ext`: files of other libraries into a table. Those that are not installed here are passed over."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PACKAGE = Path(__file__).parents[1] / "clients/python/src"
VECTORS = np.random.default_rng(1).standard_normal((25_000, 12)).astype(np.float32)


def copied(database, *arguments, check=True):
    environment = os.environ | {"PGHOST": str(database.cluster.folder), "PGUSER": "postgres", "PGDATABASE": database.name,
                                "PYTHONPATH": str(PACKAGE)}
    return subprocess.run([sys.executable, "-m", "vector_ext", *map(str, arguments)], text=True, capture_output=True, check=check,
                          env=environment)


def rows(db, table="items"):
    return {i: v.to_numpy() for i, v in db.execute(f"SELECT id, embedding::vector FROM {table}").fetchall()}


@pytest.mark.parametrize("dtype, kind", [("f4", "vector"), ("f8", "vector"), ("f2", "halfvec"), ("i1", "vector")])
def test_numpy(database, db, tmp_path, dtype, kind):
    wanted = (VECTORS * 10).astype(dtype)
    np.save(tmp_path / "vectors.npy", wanted)
    done = copied(database, tmp_path / "vectors.npy", "items", "--type", kind)
    found = rows(db)
    assert len(found) == len(wanted)
    np.testing.assert_array_equal(np.array([found[i] for i in range(len(wanted))]), wanted.astype(np.float32))
    db.execute(done.stdout)  # the statements that it proposes
    assert db.execute("SELECT ivflsh_recall('items_embedding_idx', 20) > 0.5").fetchone() == (True,)


def test_numpy_refused(database, db, tmp_path):
    np.save(tmp_path / "flat.npy", VECTORS[0])
    assert "not of rows and columns" in copied(database, tmp_path / "flat.npy", "items", check=False).stderr
    np.save(tmp_path / "nan.npy", np.full((3, 4), np.nan))
    assert "nan.npy: row 0: nan at position 0 is not a finite number" in copied(database, tmp_path / "nan.npy", "items", check=False).stderr
    assert "say --format" in copied(database, tmp_path / "other", "items", check=False).stderr
    assert db.execute("SELECT to_regclass('items')").fetchone() == (None,), "one transaction"


@pytest.mark.parametrize("kind", ["Flat", "IDMap,Flat", "IVF16,Flat", "HNSW8"])
def test_faiss(database, db, tmp_path, kind):
    faiss = pytest.importorskip("faiss")
    index = faiss.index_factory(12, kind, faiss.METRIC_INNER_PRODUCT if kind == "Flat" else faiss.METRIC_L2)
    index.train(VECTORS)
    ids = np.arange(len(VECTORS)) * 3 if kind.startswith("I") else np.arange(len(VECTORS))
    index.add_with_ids(VECTORS, ids) if kind.startswith("I") else index.add(VECTORS)
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    done = copied(database, tmp_path / "index.faiss", "items")
    assert ("vector_ip_ops" if kind == "Flat" else "vector_l2_ops") in done.stdout
    found = rows(db)
    np.testing.assert_array_equal(np.array([found[i] for i in ids]), VECTORS)


def test_hnswlib(database, db, tmp_path):
    hnswlib = pytest.importorskip("hnswlib")
    index = hnswlib.Index(space="l2", dim=12)
    index.init_index(max_elements=2000, M=8)
    index.add_items(VECTORS[:2000], np.arange(2000) + 7)
    index.save_index(str(tmp_path / "index.bin"))
    copied(database, tmp_path / "index.bin", "items", "--format", "hnswlib", "--dimensions", 12)
    found = rows(db)
    np.testing.assert_array_equal(np.array([found[i + 7] for i in range(2000)]), VECTORS[:2000])


def test_annoy(database, db, tmp_path):
    annoy = pytest.importorskip("annoy")
    index = annoy.AnnoyIndex(12, "angular")
    for i, row in enumerate(VECTORS[:2000]):
        index.add_item(i, row)
    index.build(2)
    index.save(str(tmp_path / "index.ann"))
    done = copied(database, tmp_path / "index.ann", "items", "--format", "annoy", "--dimensions", 12, "--space", "angular")
    assert "vector_cosine_ops" in done.stdout
    found = rows(db)
    np.testing.assert_array_equal(np.array([found[i] for i in range(2000)]), VECTORS[:2000])
