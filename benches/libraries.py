"""vector_ext beside libraries that search in a process's own memory: Annoy, Faiss, hnswlib, NMSLIB.  Run it by `make bench-libraries`.

The same vectors and queries, one thread. Times are of the processor, of client and server together, so that other work on the machine does not
count. Each point is one way of searching: recall@10, and queries a second. Then: the build, the size, 1,000 new rows one by one, a tenth of the
rows deleted, and searches with a condition that one row in ten meets.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benches"), str(ROOT / "clients/python/src")]

import datasets  # noqa: E402
from harness.cluster import Cluster, exit_on_signals  # noqa: E402

K, NEW = 10, 1000
CACHE = Path(os.environ.get("VECTOR_EXT_CACHE", Path.home() / ".cache" / "vector_ext"))


class Library:
    """In this process. `search(queries, setting)` and `search_among(…)` give row numbers."""

    filters = updates = True
    cannot = ""

    def __init__(self, data):
        self.data = data
        self.base, self.query = data.for_l2() if data.metric == "cosine" else (np.ascontiguousarray(data.base), data.query)
        self.dimensions = data.dimensions

    def clock(self):
        return time.process_time()

    def size(self):
        with tempfile.TemporaryDirectory() as folder:
            self.save(f"{folder}/index")
            return sum(path.stat().st_size for path in Path(folder).iterdir())

    def close(self):
        pass


class Annoy(Library):
    name, settings = "Annoy, 50 trees", [500, 2000, 5000, 10000, 20000, 50000, 100000]
    filters = updates = False
    cannot = "a row more is a new index; no conditions"

    def build(self):
        import annoy

        self.index = annoy.AnnoyIndex(self.dimensions, "euclidean")
        for i, row in enumerate(self.base):
            self.index.add_item(i, row)
        self.index.build(50, n_jobs=1)

    def save(self, path):
        self.index.save(path)

    def search(self, queries, setting):
        return [self.index.get_nns_by_vector(query, K, search_k=setting) for query in queries]


class FaissIvf(Library):
    name, settings = "Faiss IVF, flat", [1, 2, 4, 8, 16, 32, 64, 128, 256]

    def build(self):
        import faiss

        faiss.omp_set_num_threads(1)
        self.faiss = faiss
        lists = int(4 * len(self.base) ** 0.5)
        self.index = faiss.IndexIVFFlat(faiss.IndexFlatL2(self.dimensions), self.dimensions, lists)
        self.index.train(self.base[np.random.default_rng(1).permutation(len(self.base))[:lists * 40]])
        self.index.add(self.base)

    def save(self, path):
        self.faiss.write_index(self.index, path)

    def search(self, queries, setting):
        self.index.nprobe = setting
        return [self.index.search(query[None], K)[1][0] for query in queries]

    def search_among(self, queries, setting, rows):
        among = self.faiss.SearchParametersIVF(nprobe=setting, sel=self.faiss.IDSelectorBatch(rows))
        return [self.index.search(query[None], K, params=among)[1][0] for query in queries]

    def insert(self, rows):
        for row in rows:
            self.index.add(row[None])

    def delete(self, numbers):
        self.index.remove_ids(self.faiss.IDSelectorBatch(numbers))


class FaissHnsw(FaissIvf):
    name, settings = "Faiss HNSW, M 16", [10, 20, 40, 80, 160, 320, 640]
    cannot = "a row cannot be deleted"

    def build(self):
        import faiss

        faiss.omp_set_num_threads(1)
        self.faiss = faiss
        self.index = faiss.IndexHNSWFlat(self.dimensions, 16)
        self.index.hnsw.efConstruction = 100
        self.index.add(self.base)

    def search(self, queries, setting):
        self.index.hnsw.efSearch = setting
        return [self.index.search(query[None], K)[1][0] for query in queries]

    def search_among(self, queries, setting, rows):
        among = self.faiss.SearchParametersHNSW(efSearch=setting, sel=self.faiss.IDSelectorBatch(rows))
        return [self.index.search(query[None], K, params=among)[1][0] for query in queries]

    delete = None


class Hnswlib(Library):
    name, settings = "hnswlib, M 16", [10, 20, 40, 80, 160, 320, 640]
    cannot = "deleted rows are marked and stay in memory; a condition is a Python function of each row it meets"

    def build(self):
        import hnswlib

        self.index = hnswlib.Index("l2", self.dimensions)
        self.index.init_index(len(self.base) + NEW, M=16, ef_construction=100)
        self.index.set_num_threads(1)
        self.index.add_items(self.base)

    def save(self, path):
        self.index.save_index(path)

    def search(self, queries, setting):
        self.index.set_ef(setting)
        return [self.index.knn_query(query[None], K)[0][0] for query in queries]

    def search_among(self, queries, setting, rows):
        self.index.set_ef(setting)
        wanted = set(rows.tolist())
        return [self.index.knn_query(query[None], K, filter=wanted.__contains__)[0][0] for query in queries]

    def insert(self, rows):
        for row in rows:
            self.index.add_items(row[None])

    def delete(self, numbers):
        for number in numbers:
            self.index.mark_deleted(number)


class Nmslib(Library):
    name, settings = "NMSLIB HNSW, M 16", [10, 20, 40, 80, 160, 320, 640]
    filters = updates = False
    cannot = "a row more is a new index; no conditions"

    def build(self):
        import nmslib

        self.index = nmslib.init(method="hnsw", space="l2")
        self.index.addDataPointBatch(self.base)
        self.index.createIndex({"M": 16, "efConstruction": 100, "indexThreadQty": 1, "post": 0}, print_progress=False)

    def save(self, path):
        self.index.saveIndex(path, save_data=True)

    def search(self, queries, setting):
        self.index.setQueryTimeParams({"efSearch": setting})
        return [self.index.knnQuery(query, K)[0] for query in queries]


class Postgres(Library):
    name, settings = "vector_ext in PostgreSQL", [0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995]

    def __init__(self, data):
        from pgvector import Vector

        super().__init__(data)
        self.vector = Vector
        self.base, self.query = data.base, data.query
        self.cluster = Cluster(settings={"shared_buffers": "2GB", "maintenance_work_mem": "2GB", "max_parallel_maintenance_workers": 0, "jit": "off",
                                         "max_parallel_workers_per_gather": 0, "fsync": "on", "autovacuum": "off"})
        self.cluster.__enter__()
        self.cluster.create_database("bench", "vector_ext")
        self.connection = self.cluster.connect("bench")
        from pgvector.psycopg import register_vector

        register_vector(self.connection)
        self.backend = self.connection.info.backend_pid
        self.statement = f"SELECT id FROM items ORDER BY embedding {data.operator} %b LIMIT {K}"
        self.among = f"SELECT id FROM items WHERE part = %b ORDER BY embedding {data.operator} %b LIMIT {K}"

    def clock(self):
        """Processor time of this process and of its backend."""
        return time.process_time() + int(Path(f"/proc/{self.backend}/schedstat").read_text().split()[0]) / 1e9

    def build(self):
        from vector_ext import load

        self.connection.execute(f"CREATE TABLE items (id int PRIMARY KEY, part int, embedding vector({self.dimensions}))")
        numbers = np.arange(len(self.base))
        load(self.connection, "items", self.base, {"id": numbers, "part": numbers % 10})
        self.connection.execute(f"CREATE INDEX by_vector ON items USING ivflsh (embedding {self.data.operator_class}, part)")
        self.connection.execute("VACUUM ANALYZE items")

    def size(self):
        return self.connection.execute("SELECT pg_relation_size('by_vector') + pg_table_size('items')").fetchone()[0]

    def _all(self, statement, parameters, setting):
        self.connection.execute(f"SET ivflsh.target_recall = {setting}")
        return [[row for row, in self.connection.execute(statement, one, prepare=True)] for one in parameters]

    def search(self, queries, setting):
        return self._all(self.statement, [(self.vector(query),) for query in queries], setting)

    def search_among(self, queries, setting, rows):
        return self._all(self.among, [(3, self.vector(query)) for query in queries], setting)

    def insert(self, rows):
        for i, row in enumerate(rows, len(self.base)):  # each one a transaction
            self.connection.execute("INSERT INTO items VALUES (%b, 0, %b)", (i, self.vector(row)), prepare=True)

    def delete(self, numbers):
        self.connection.execute("DELETE FROM items WHERE id = ANY(%b)", (list(map(int, numbers)),))
        self.connection.execute("VACUUM items")

    def close(self):
        self.connection.close()
        self.cluster.destroy()


SYSTEMS = {"postgres": Postgres, "faiss-ivf": FaissIvf, "faiss-hnsw": FaissHnsw, "hnswlib": Hnswlib, "nmslib": Nmslib, "annoy": Annoy}


def hits(data, found):
    return sum(data.hits(i, [int(row) for row in rows], K) for i, rows in enumerate(found)) / (K * len(found))


def run(kind, data, queries):
    """One system's figures."""
    system = kind(data)
    timed = lambda what: (system.clock(), what(), system.clock())  # noqa: E731
    try:
        a, _, b = timed(system.build)
        figures = {"name": system.name, "build": b - a, "size": system.size(), "points": [], "among": [], "cannot": system.cannot}
        asked = system.query[:queries]
        system.search(asked[:20], system.settings[0])  # what is done once
        for setting in system.settings:
            a, found, b = timed(lambda: system.search(asked, setting))
            figures["points"].append({"setting": setting, "recall": hits(data, found), "qps": queries / (b - a)})
            if figures["points"][-1]["recall"] > 0.998:
                break
        if system.filters:
            rows = np.arange(3, data.rows, 10)
            part = datasets.DataSet("part", data.metric, data.base[rows], data.query[:queries],
                                    datasets.exact(data.base[rows], data.query[:queries], data.metric))
            for setting in system.settings:
                a, found, b = timed(lambda: system.search_among(asked, setting, rows))
                assert all(row < 0 or row % 10 == 3 for one in found for row in one), "a row that does not match"
                figures["among"].append({"setting": setting, "recall": hits(part, [[(row - 3) // 10 for row in one if row >= 0] for one in found]),
                                         "qps": queries / (b - a), "fewer": sum(len({row for row in one if row >= 0}) < K for one in found) / queries})
                if figures["among"][-1]["recall"] > 0.998:
                    break
        if system.updates:
            rows = system.base[:NEW] + np.float32(0.01) * system.base[1:NEW + 1]
            a, _, b = timed(lambda: system.insert(rows))
            figures["inserts"] = NEW / (b - a)
            if system.delete:
                a, _, b = timed(lambda: system.delete(np.arange(0, data.rows, 10)))
                figures["delete"] = b - a
        return figures
    finally:
        system.close()


def at(points, recall):
    """Queries a second of the quickest way that has this recall."""
    return max((point["qps"] for point in points if point["recall"] >= recall), default=None)


def table(results):
    """Markdown."""
    number = lambda value, form="{:,.0f}": "–" if value is None else form.format(value)  # noqa: E731
    for data, systems in results.items():
        yield f"\n### {data}\n"
        yield "| | recall 0.90, queries/s | 0.95 | 0.99 | build, s | size, MB | inserts/s | a tenth deleted, s |\n|---|---:|---:|---:|---:|---:|---:|---:|"
        for one in systems:
            yield "| " + " | ".join([one["name"], *(number(at(one["points"], recall)) for recall in (0.9, 0.95, 0.99)), number(one["build"], "{:,.1f}"),
                                     number(one["size"] / 1e6), number(one.get("inserts")), number(one.get("delete"), "{:,.2f}")]) + " |"
        yield "\nWith a condition that one row in ten meets:\n"
        yield "| | recall 0.90, queries/s | 0.95 | 0.99 | best recall | answers of fewer than 10 rows |\n|---|---:|---:|---:|---:|---:|"
        for one in systems:
            if one["among"]:
                best = max(one["among"], key=lambda point: point["recall"])
                yield "| " + " | ".join([one["name"], *(number(at(one["among"], recall)) for recall in (0.9, 0.95, 0.99)),
                                         f"{best['recall']:.3f}", f"{one['among'][0]['fewer']:.0%} to {best['fewer']:.0%}"]) + " |"
            else:
                yield f"| {one['name']} | not possible | | | | |"


def plot(results, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(results), 4.2), layout="constrained")
    for axes, (data, systems) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
        for one in systems:
            axes.plot([point["recall"] for point in one["points"]], [point["qps"] for point in one["points"]], marker="o", markersize=3, label=one["name"])
        axes.set(title=data, xlabel="recall@10", ylabel="queries/s of one processor", yscale="log", xlim=(0.6, 1.005))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(prog="make bench-libraries", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=["fashion", "glove"], default=["fashion", "glove"])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--rows", type=int, help="the first rows only")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--results", type=Path, default=Path("libraries.json"), help="all figures, as JSON; what is there already is kept")
    parser.add_argument("--plot", type=Path, help="a picture (needs matplotlib)")
    options = parser.parse_args()
    exit_on_signals()
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    for name in options.datasets:
        data = datasets.load(name, CACHE)
        data = data.truncated(options.rows) if options.rows else data
        title = f"{name}, {data.rows:,} × {data.dimensions}, {data.metric}"
        for system in options.systems:
            kind = SYSTEMS[system]
            print(f"{title}: {kind.name}", flush=True)
            figures = run(kind, data, options.queries)
            print(json.dumps(figures), flush=True)
            results[title] = [one for one in results.get(title, []) if one["name"] != kind.name] + [figures]
            options.results.write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(table(results)))
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
