"""Ask 64,000 package descriptions by words, by meaning and by both, and measure which finds what.  Run it by `make demo-search`.

  make demo-search                                     the questions below, then the figure of quality
  make demo-search ARGS="'play old floppy disk games'" questions of yours
  make demo-search ARGS=--ask                          questions from a prompt

The first run takes a quarter of an hour to half an hour: a sentence model (all-MiniLM-L6-v2, in numpy) reads all descriptions.
That is kept in the cache; a run that was stopped goes on where it was.
"""

import argparse
import os
import re
import shutil
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
from pgvector.psycopg import register_vector

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import datasets  # noqa: E402
import descriptions  # noqa: E402
import sentences  # noqa: E402
from harness.cluster import Cluster, exit_on_signals  # noqa: E402

DATABASE = "search"
QUESTIONS = (
    "watch how much memory and processor time each program takes",
    "turn a scanned page into text",
    "E-mail reader with vi keys",
    "play old floppy disk games of the Amiga",
    "who is using my wifi",
)
KNOWN_ITEMS = 1000
SEED = 20261201
MINIMUM_GAIN = 1.0  # the hybrid's MRR over the better single ranking's, over all sets

WORDS = """
    WITH query AS MATERIALIZED (SELECT bm25_query(to_tsvector('english', %(text)s), stats) AS words FROM packages_stats)
    SELECT id FROM (SELECT id, terms <#> (SELECT words FROM query) AS distance FROM packages
                    ORDER BY terms <#> (SELECT words FROM query) LIMIT 10) AS best
    WHERE distance < 0"""
MEANING = """
    SELECT id FROM packages ORDER BY embedding <=> %(vector)b LIMIT 10"""
BOTH = """
    WITH query AS MATERIALIZED (
        SELECT bm25_query(to_tsvector('english', %(text)s), stats) AS words FROM packages_stats
    ), by_words AS (
        SELECT id, row_number() OVER (ORDER BY distance) AS place
        FROM (SELECT id, terms <#> (SELECT words FROM query) AS distance FROM packages
              ORDER BY terms <#> (SELECT words FROM query) LIMIT 50) AS best
        WHERE distance < 0
    ), by_meaning AS (
        SELECT id, row_number() OVER (ORDER BY distance) AS place
        FROM (SELECT id, embedding <=> %(vector)b AS distance FROM packages
              ORDER BY embedding <=> %(vector)b LIMIT 50) AS best
    )
    SELECT id FROM by_words w FULL JOIN by_meaning m USING (id)
    ORDER BY rrf_score(w.place) + rrf_score(m.place) DESC, id LIMIT 10"""
WAYS = {"words": WORDS, "meaning": MEANING, "both": BOTH}


def heading(text):
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


class Progress:
    """A line now and then."""

    def __init__(self):
        self.started = self.shown = time.monotonic()

    def show(self, text):
        if time.monotonic() - self.shown > 10:
            self.shown = time.monotonic()
            print(f"   {self.shown - self.started:6.0f} s  {text}", flush=True)


# Texts and vectors

class Encoder:
    """The sentence model."""

    def __init__(self, folder):
        self.file = sentences.wheel(folder)

    def __call__(self, texts):
        return sentences.embed(list(texts), self.file)


def described(cache):
    """All packages, the vectors of their descriptions, and the model."""
    folder = Path(cache) / "data" / "descriptions"
    packages = descriptions.packages(folder)
    model = Path(cache) / "data" / "sentences"
    model.mkdir(parents=True, exist_ok=True)
    encoder = Encoder(model)
    done, partial = folder / "vectors.npy", folder / "partial.npy"
    if not done.exists():
        print(f"   the model reads {len(packages):,} descriptions, once", flush=True)
        progress = Progress()

        def save(vectors, count):
            np.save(folder / "new.npy", vectors)
            (folder / "new.npy").rename(partial)
            progress.show(f"{count:,} of {len(packages):,} descriptions")

        have = np.load(partial) if partial.exists() else None
        np.save(folder / "new.npy", sentences.embed([about for _, _, about in packages], encoder.file, save, have))
        (folder / "new.npy").rename(done)
        partial.unlink(missing_ok=True)
    return packages, np.load(done), encoder


def paraphrases(texts, cache):
    """The texts with each of their words that GloVe knows as one of content replaced by another that is used alike."""
    words, vectors = datasets.glove_words(Path(cache) / "data")
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    place = {word: i for i, word in enumerate(words)}
    usual, nearest = 150, {}  # the most frequent words are left as they are

    def other(word):
        at = place.get(word.lower())
        if at is None or at < usual or len(word) < 3:
            return word
        if word not in nearest:
            likeness = vectors[:50_000] @ vectors[at]
            candidates = (words[i] for i in np.argsort(-likeness)[:20])
            nearest[word] = next((w for w in candidates if w[:4] != word.lower()[:4] and w.isalpha()), word)
        return nearest[word]

    return [re.sub(r"[A-Za-z]+", lambda match: other(match[0]), text) for text in texts]


# The database

def load(connection, packages, vectors):
    connection.execute("""
        CREATE TABLE packages (id integer PRIMARY KEY, name text NOT NULL, summary text NOT NULL, about text NOT NULL,
                               terms sparsevec, embedding vector(384) NOT NULL)""")
    progress = Progress()
    with connection.cursor().copy("COPY packages (id, name, summary, about, embedding) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "text", "text", "text", "vector"])
        for i, (package, vector) in enumerate(zip(packages, vectors)):
            copy.write_row((i, *package, vector))
            progress.show(f"{i:,} of {len(packages):,} rows")
    connection.execute("""
        CREATE TABLE packages_stats AS SELECT bm25_stats(to_tsvector('english', about)) AS stats FROM packages;
        UPDATE packages SET terms = bm25_document(to_tsvector('english', about), stats) FROM packages_stats""")
    connection.execute("VACUUM FULL ANALYZE packages")


def create_indexes(connection):
    for statement in ("CREATE INDEX ON packages USING ivflsh (embedding vector_cosine_ops)",
                      "CREATE INDEX ON packages USING ivflsh (terms sparsevec_ip_ops) WITH (partition = terms)"):
        started = time.monotonic()
        connection.execute(statement)
        print(f"   {time.monotonic() - started:5.1f} s  {statement}", flush=True)


def ask(connection, way, text, vector):
    """The ids of the best, and the milliseconds that it took."""
    started = time.perf_counter()
    rows = connection.execute(WAYS[way], {"text": text, "vector": vector}, binary=True).fetchall()
    return [row[0] for row in rows], (time.perf_counter() - started) * 1000


def show_answers(connection, packages, question, vector):
    """What each way answers, side by side."""
    answers = {way: ask(connection, way, question, vector) for way in WAYS}
    width = max(24, (shutil.get_terminal_size((132, 40)).columns - 8) // len(WAYS))
    heading(question)
    print("   " + "".join(f"{f'by {way}, {ms:.1f} ms':<{width}}" for way, (_, ms) in answers.items()))
    for place in range(5):
        cells = []
        for ids, _ in answers.values():
            name, summary, _ = packages[ids[place]] if place < len(ids) else ("", "", "")
            cells.append(textwrap.shorten(f"{name}: {summary}" if name else "-", width - 2, placeholder=" …"))
        print("   " + "".join(f"{cell:<{width}}" for cell in cells))


# The figure of quality

def known_items(packages, encoder, cache):
    """Sets of (question, id): packages that nobody else's description describes, and what somebody might ask who knows them."""
    count = {}
    for _, _, about in packages:
        count[about[:100]] = count.get(about[:100], 0) + 1
    alone = [i for i, (_, _, about) in enumerate(packages) if count[about[:100]] == 1]
    chosen = np.random.default_rng(SEED).permutation(alone)[:KNOWN_ITEMS]
    summaries = [packages[i][1] for i in chosen]
    names = [" ".join(re.findall(r"[A-Za-z]{2,}", packages[i][0])) or packages[i][0] for i in chosen]
    questions = {"its summary": summaries, "its name's words": names, "its summary in other words": paraphrases(summaries, cache)}
    return {name: list(zip(texts, encoder(texts), map(int, chosen))) for name, texts in questions.items()}


def measure(connection, sets):
    """MRR@10 and hit@10 of each way for each set, and the latencies. True if both rankings together beat each one."""
    heading(f"Known items: {KNOWN_ITEMS:,} packages, found by")
    print(f"   {'':<28}" + "".join(f"{way:>22}" for way in WAYS) + "\n   "
          + f"{'':<28}" + f"{'MRR@10   hit@10':>22}" * len(WAYS))
    total, milliseconds = {way: 0.0 for way in WAYS}, {way: [] for way in WAYS}
    for name, items in sets.items():
        cells = []
        for way in WAYS:
            places = []
            for text, vector, wanted in items:
                ids, took = ask(connection, way, text, vector)
                places.append(ids.index(wanted) + 1 if wanted in ids else 0)
                milliseconds[way].append(took)
            reciprocal = float(np.mean([1 / place if place else 0 for place in places]))
            total[way] += reciprocal / len(sets)
            cells.append(f"{reciprocal:.3f}    {np.mean([place > 0 for place in places]):.3f}")
        print(f"   {name:<28}" + "".join(f"{cell:>22}" for cell in cells), flush=True)
    print(f"   {'mean':<28}" + "".join(f"{f'{total[way]:.3f}         ':>22}" for way in WAYS))
    print(f"   {'milliseconds, median':<28}" + "".join(f"{f'{np.median(milliseconds[way]):.2f}         ':>22}" for way in WAYS))
    return total["both"] >= MINIMUM_GAIN * max(total["words"], total["meaning"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", help="instead of the usual ones")
    parser.add_argument("--ask", action="store_true", help="questions from a prompt, until its end")
    parser.add_argument("--rows", type=int, help="only so many packages, for a quick look")
    arguments = parser.parse_args()
    cache = Path(os.environ.get("VECTOR_EXT_CACHE") or Path.home() / ".cache/vector_ext")
    exit_on_signals()

    heading("1  Descriptions and what they mean")
    packages, vectors, encoder = described(cache)
    if arguments.rows:
        chosen = np.sort(np.random.default_rng(SEED).permutation(len(packages))[:arguments.rows])
        packages, vectors = [packages[i] for i in chosen], vectors[chosen]
    with Cluster(settings={"shared_buffers": "512MB", "maintenance_work_mem": "256MB", "jit": "off"}) as cluster:
        cluster.create_database(DATABASE, "vector_ext")
        with cluster.connect(DATABASE) as connection:
            register_vector(connection)
            heading(f"2  {len(packages):,} rows, their words as sparsevec, their meaning as vector")
            load(connection, packages, vectors)
            create_indexes(connection)
            if arguments.ask:
                while True:
                    try:
                        question = input("\nWhat do you look for? ").strip()
                    except EOFError:
                        return
                    if question:
                        show_answers(connection, packages, question, encoder([question])[0])
            for question in arguments.questions or QUESTIONS:
                show_answers(connection, packages, question, encoder([question])[0])
            if not arguments.questions and not measure(connection, known_items(packages, encoder, cache)):
                sys.exit("both rankings together are no better than one")


if __name__ == "__main__":
    main()
