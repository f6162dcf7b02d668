"""Copies the vectors of a file into a table, by binary COPY, and tells the statements that come next.

    python -m vector_ext vectors.npy items                                           NumPy (mapped, not read at once)
    python -m vector_ext index.faiss items                                           Faiss: flat, IVF and HNSW, with ids where it has them
    python -m vector_ext index.bin items --format hnswlib --dimensions 96 --space l2
    python -m vector_ext index.ann items --format annoy --dimensions 96 --space angular
    python -m vector_ext index.nms items --format nmslib --space cosinesimil

The table is made if it is not there: (id bigint PRIMARY KEY, embedding vector(n)). Where to connect to is said by libpq's variables
(PGHOST, PGDATABASE, …) or --dsn. Codes that an index has compressed (PQ, SQ) come back as that index would read them.
"""

from __future__ import annotations

import argparse
import sys
import time

import psycopg

from .errors import LoadError
from .importing import READERS, copy_parts, open_source

OPERATOR_CLASSES = {"l2": "l2_ops", "ip": "ip_ops", "cosine": "cosine_ops", "euclidean": "l2_ops", "dot": "ip_ops", "angular": "cosine_ops",
                    "cosinesimil": "cosine_ops", "negdotprod": "ip_ops"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vector_ext", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("table")
    parser.add_argument("--format", choices=READERS, help="otherwise by the file's name: .npy, .faiss, …")
    parser.add_argument("--dimensions", type=int, help="hnswlib, Annoy: their files do not say it")
    parser.add_argument("--space", choices=OPERATOR_CLASSES, help="hnswlib, Annoy, NMSLIB: what the index was made with")
    parser.add_argument("--column", default="embedding")
    parser.add_argument("--type", choices=["vector", "halfvec"], default="vector")
    parser.add_argument("--dsn", default="")
    options = parser.parse_args()
    form = options.format or options.file.rpartition(".")[2]
    if form not in READERS:
        parser.error(f"{options.file}: say --format")
    said: dict[str, int | str] = {}
    if form in ("hnswlib", "annoy"):
        if not options.dimensions:
            parser.error("say --dimensions")
        said = {"dimensions": options.dimensions} | ({"space": options.space} if options.space else {})
    elif form == "nmslib":
        said = {"space": options.space or "l2"}
    begun = time.monotonic()
    try:
        source = open_source(options.file, form, **said)
        with psycopg.connect(options.dsn) as connection:
            there, = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (options.table,)).fetchone() or (False,)
            count = copy_parts(connection, source.parts, options.table, column=options.column, id="id", create=None if there else options.type)
    except (LoadError, OSError, ValueError, psycopg.Error) as error:
        sys.exit(f"{options.file}: {error}")
    print(f"{count} rows in {time.monotonic() - begun:.1f} s; next:", file=sys.stderr)
    operators = f"{options.type}_{OPERATOR_CLASSES[source.space]}"
    print(f"CREATE INDEX ON {options.table} USING ivflsh ({options.column} {operators});\nANALYZE {options.table};")


if __name__ == "__main__":
    main()
