"""Words: an index with partition = terms beside GIN with ts_rank, and beside bm25s in memory.

    make bench-terms ARGS="--rows 200000 --queries 60"

Rows are the sentences of Debian's package descriptions (fetched once by apt-get), queries are words that occur together in one: of
2, 4 and 8 words, a row each, picked in proportion to how often words occur. GIN finds the rows that have one of the words (|) and sorts them by
ts_rank; rows that have all of them (&) are shown as well, which is another question. Times are processor time of one
backend, or of this process for bm25s on one thread; the best of some rounds.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}

import bm25s  # noqa: E402
import numpy as np  # noqa: E402

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from harness.cluster import Cluster  # noqa: E402

SETTINGS = {"shared_buffers": "1GB", "maintenance_work_mem": "256MB", "work_mem": "64MB", "jit": "off",
            "max_parallel_workers_per_gather": "0", "max_parallel_maintenance_workers": "0"}
WORDS = (2, 4, 8)
DATA = Path.home() / ".cache/vector_ext/data"


def descriptions():
    """Debian's package descriptions. Their lists are fetched once, by apt-get into a folder of ours."""
    lists = DATA / "descriptions/lists"
    if not list(lists.glob("*_Translation-en*")):
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "-q", "-o", f"Dir::State::lists={lists}", "-o", "Acquire::Languages=en", "update"], check=True)
    for file in sorted(lists.glob("*_Translation-en*")):
        yield from subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", file], capture_output=True, text=True,
                                  check=True).stdout.split("\n\n")


def sentences(count):
    """Distinct sentences, in the order of the packages."""
    found = {}
    for block in descriptions():
        description = re.search(r"^Description-en: (.*(?:\n .*)*)", block, re.MULTILINE)
        if not description:
            continue
        text = re.sub(r"\n \.\n", ". ", description[1])
        for sentence in re.split(r"(?<=[.!?;:])\s+|\n \* ", text.replace("\n ", " ")):
            sentence = " ".join(sentence.split())
            if 20 <= len(sentence) <= 500:
                found[sentence] = None
        if len(found) >= count:
            break
    return list(found)[:count]


class Backend:
    """A connection, and the processor time that its backend takes."""

    def __init__(self, cluster):
        self.connection = cluster.connect("words")
        self.process = self.connection.info.backend_pid

    def processor(self):
        return int(Path(f"/proc/{self.process}/schedstat").read_text().split()[0]) / 1e9

    def timed(self, statement):
        before = self.processor()
        self.connection.execute(statement)
        return self.processor() - before

    def size(self, name):
        return self.connection.execute("SELECT pg_relation_size(%s)", (name,)).fetchone()[0]

    def settings(self, **settings):
        for name, value in settings.items():
            self.connection.execute(f"SET {name} = {value}")


def copy(connection, table, texts, start=0):
    with connection.cursor().copy(f"COPY {table} (id, body) FROM STDIN") as to:
        for id, text in enumerate(texts, start):
            to.write_row((id, text))


def pick_queries(backend, rows, count):
    """Queries as lists of lexemes, by number of words."""
    dice = np.random.default_rng(1)
    queries = {}
    for words in WORDS:
        queries[words] = []
        while len(queries[words]) < count:
            id = int(dice.integers(rows))
            lexemes, = backend.connection.execute(
                "SELECT tsvector_to_array(words) FROM items WHERE id = %s", (id,)).fetchone()
            lexemes = [word for word in lexemes if re.fullmatch(r"[a-z]{2,}", word)]
            if len(lexemes) >= words:
                queries[words].append([str(word) for word in dice.choice(lexemes, words, replace=False)])
    return queries


def per_query(backend, statement, queries, rounds, prepare):
    """Milliseconds of processor time of a query, the best of some rounds; and what they returned."""
    results, best = [], []
    for i, query in enumerate(queries):
        arguments = prepare(query)
        times = []
        for _ in range(rounds + 1):
            before = backend.processor()
            rows = backend.connection.execute(statement, arguments, prepare=True).fetchall()
            times.append(backend.processor() - before)
        best.append(min(times[1:]))
        results.append(rows)
    return 1000 * statistics.mean(best), results


def memory_search(texts, queries, rounds, k1=1.2, b=0.75):
    """bm25s over the same lexemes."""
    index = bm25s.BM25(method="lucene", k1=k1, b=b)
    before = time.process_time()
    index.index(texts, show_progress=False)
    built = time.process_time() - before
    times = {}
    for words, list_of_queries in queries.items():
        best = []
        for query in list_of_queries:
            took = []
            for _ in range(rounds + 1):
                before = time.process_time()
                index.retrieve([query], k=10, show_progress=False, n_threads=0)
                took.append(time.process_time() - before)
            best.append(min(took[1:]))
        times[words] = 1000 * statistics.mean(best)
    return built, times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--inserts", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = sentences(options.rows + options.inserts)
    rows = len(texts) - options.inserts
    with Cluster(settings=SETTINGS) as cluster:
        cluster.create_database("words", "vector_ext")
        backend = Backend(cluster)
        execute = backend.connection.execute
        execute("CREATE TABLE items (id int PRIMARY KEY, body text, words tsvector, terms sparsevec(1000000000))")
        execute("CREATE TABLE more (LIKE items)")
        copy(backend.connection, "items", texts[:rows])
        copy(backend.connection, "more", texts[rows:], rows)
        for table in ("items", "more"):
            execute(f"UPDATE {table} SET words = to_tsvector('english', body)")
        execute("CREATE TABLE stats AS SELECT bm25_stats(words) AS stats FROM items")
        for table in ("items", "more"):
            execute(f"UPDATE {table} SET terms = bm25_document(words, stats) FROM stats")
        execute("VACUUM ANALYZE more")
        execute("VACUUM FULL items")
        execute("VACUUM ANALYZE items")
        lexemes, = execute("SELECT avg(length(words))::float FROM items").fetchone()
        print(f"{rows:,} sentences of {lexemes:.1f} different words on average\n", flush=True)

        gin = backend.timed("CREATE INDEX items_words ON items USING gin (words)")
        terms = backend.timed(
            "CREATE INDEX items_terms ON items USING ivflsh (terms sparsevec_ip_ops) WITH (partition = terms)")
        sizes = backend.size("items_words"), backend.size("items_terms")
        queries = pick_queries(backend, rows, options.queries)
        lists = [lexemes for lexemes, in execute("SELECT tsvector_to_array(words) FROM items ORDER BY id").fetchall()]
        built, memory = memory_search(lists, queries, options.rounds)
        print("| | partition = terms | GIN | bm25s |\n|---|---|---|---|")
        print(f"| build, s | {terms:.2f} | {gin:.2f} | {built:.2f} |")
        print(f"| size, MB | {sizes[1] / 1e6:.1f} | {sizes[0] / 1e6:.1f} | |", flush=True)

        by_terms = "SELECT id, terms <#> %(q)s::sparsevec FROM items ORDER BY terms <#> %(q)s::sparsevec LIMIT 10"
        by_gin = """SELECT id FROM items WHERE words @@ %(q)s::tsquery ORDER BY ts_rank(words, %(q)s::tsquery) DESC LIMIT 10"""
        as_vector = lambda words: {"q": execute(
            "SELECT bm25_query(array_to_tsvector(%s), stats)::text FROM stats", (words,)).fetchone()[0]}
        for words in WORDS:
            some = queries[words]
            ours, found = per_query(backend, by_terms, some, options.rounds, as_vector)
            backend.settings(enable_indexscan="off")
            _, exact = per_query(backend, by_terms, some[:8], 0 + 1, as_vector)
            backend.settings(enable_indexscan="on")
            for one, other in zip(found, exact):
                assert [d for _, d in one] == [d for _, d in other], "not the same as without the index"
            ranked, _ = per_query(backend, by_gin, some, options.rounds, lambda words: {"q": " | ".join(words)})
            all_words, _ = per_query(backend, by_gin, some, options.rounds, lambda words: {"q": " & ".join(words)})
            print(f"| ms a query of {words} words | {ours:.3f} | {ranked:.3f} (all words: {all_words:.3f}) | {memory[words]:.3f} |",
                  flush=True)
            print(f"| queries/s | {1000 / ours:,.0f} | {1000 / ranked:,.0f} | {1000 / memory[words]:,.0f} |", flush=True)

        took = {}
        for kept in ("", "items_words", "items_terms") * options.rounds:
            execute("CREATE TABLE copies (LIKE items)")
            execute("INSERT INTO copies SELECT * FROM items")
            if kept == "items_words":
                execute("CREATE INDEX ON copies USING gin (words)")
            elif kept:
                execute("CREATE INDEX ON copies USING ivflsh (terms sparsevec_ip_ops) WITH (partition = terms)")
            execute("VACUUM copies")
            times = backend.timed("INSERT INTO copies SELECT * FROM more"), backend.timed("VACUUM copies")  # moves what is pending
            took[kept] = [min(pair) for pair in zip(times, took.get(kept, times))]
            execute("DROP TABLE copies")
        insert, vacuum = ([took[name][i] - took[""][i] for name in ("items_terms", "items_words")] for i in (0, 1))
        print(f"| {options.inserts:,} rows inserted, s beside the table's own time | {insert[0]:.2f} | {insert[1]:.2f} | |")
        print(f"| VACUUM afterwards, likewise | {vacuum[0]:.2f} | {vacuum[1]:.2f} | |")
        speeds = [f"{options.inserts / max(a + b, 1e-9):,.0f}" for a, b in zip(insert, vacuum)]
        print(f"| rows/s of both together | {speeds[0]} | {speeds[1]} | |")


if __name__ == "__main__":
    main()
