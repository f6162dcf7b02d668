#!/usr/bin/env python3
"""Copies the vectors of a file into a table, by binary COPY. A script to take away: it needs Python, numpy, psycopg, and the
library that wrote the file.

    copy_vectors.py vectors.npy items                                           NumPy (mapped, not read at once)
    copy_vectors.py index.faiss items                                           Faiss: flat, IVF and HNSW, with ids where it has them
    copy_vectors.py index.bin items --format hnswlib --dimensions 96 --space l2
    copy_vectors.py index.ann items --format annoy --dimensions 96 --space angular

The table is made if it is not there: (id bigint PRIMARY KEY, embedding vector(n)). Where to connect to is said by libpq's variables
(PGHOST, PGDATABASE, …) or --dsn. Codes that an index has compressed (PQ, SQ) come back as that index would read them.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import psycopg
from psycopg import sql

OPERATOR_CLASSES = {"l2": "l2_ops", "ip": "ip_ops", "cosine": "cosine_ops", "euclidean": "l2_ops", "dot": "ip_ops", "angular": "cosine_ops"}
ROWS = 10_000  # that are held in memory at a time


def numpy_file(path, _):
    array = np.load(path, mmap_mode="r")
    return None, array, array.shape, "l2"


def faiss_file(path, _):
    import faiss

    whole = index = faiss.read_index(str(path))
    ids = None
    if hasattr(whole, "id_map"):
        ids, index = faiss.vector_to_array(whole.id_map), faiss.downcast_index(whole.index)
        index.owner = whole  # it would be freed with it
    space = "ip" if index.metric_type == faiss.METRIC_INNER_PRODUCT else "l2"
    if isinstance(index, faiss.IndexIVF):
        # The ids are within the lists.
        lists = [i for i in range(index.nlist) if index.invlists.list_size(i)]
        stored = [faiss.rev_swig_ptr(index.invlists.get_ids(i), index.invlists.list_size(i)).copy() for i in lists]
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        found = np.sort(np.concatenate(stored)) if stored else np.empty(0, np.int64)
        rows = Rows(len(found), lambda a, b: index.reconstruct_batch(found[a:b]))
        return found if ids is None else ids[found], rows, (len(found), index.d), space
    return ids, Rows(index.ntotal, lambda a, b: index.reconstruct_n(a, b - a)), (index.ntotal, index.d), space


def hnswlib_file(path, options):
    import hnswlib

    index = hnswlib.Index(space=options.space, dim=options.dimensions)
    index.load_index(str(path))
    ids = np.sort(np.array(index.get_ids_list(), np.int64))
    return ids, Rows(len(ids), lambda a, b: np.asarray(index.get_items(ids[a:b]))), (len(ids), options.dimensions), options.space


def annoy_file(path, options):
    from annoy import AnnoyIndex

    index = AnnoyIndex(options.dimensions, options.space)
    index.load(str(path))
    rows = Rows(index.get_n_items(), lambda a, b: np.array([index.get_item_vector(i) for i in range(a, b)], np.float32))
    return None, rows, (index.get_n_items(), options.dimensions), options.space


class Rows:
    """Rows that are read when they are wanted."""

    def __init__(self, count, read):
        self.count, self.read = count, read

    def __getitem__(self, part):
        return self.read(part.start, min(part.stop, self.count))


FORMATS = {"npy": numpy_file, "faiss": faiss_file, "hnswlib": hnswlib_file, "annoy": annoy_file}


def copy_into(connection, table, column, kind, ids, rows, shape):
    """Each row is: the number of fields; the length of each field, and the field. A vector's is its dimensions, 0, its numbers."""
    count, dimensions = shape
    number = np.dtype(">f2" if kind == "halfvec" else ">f4")
    record = np.dtype([("fields", ">i2"), ("id_length", ">i4"), ("id", ">i8"), ("length", ">i4"), ("dimensions", ">u2"), ("unused", ">u2"),
                       ("numbers", number, (dimensions,))])
    statement = sql.SQL("COPY {} (id, {}) FROM STDIN WITH (FORMAT BINARY)").format(sql.Identifier(*table.split(".")), sql.Identifier(column))
    with connection.cursor().copy(statement) as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for first in range(0, count, ROWS):
            part = np.asarray(rows[first:first + ROWS])
            out = np.zeros(len(part), record)
            out["fields"], out["id_length"], out["length"], out["dimensions"] = 2, 8, 4 + number.itemsize * dimensions, dimensions
            out["id"] = np.arange(first, first + len(part)) if ids is None else ids[first:first + len(part)]
            out["numbers"] = part
            copy.write(out.tobytes())
        copy.write(b"\xff\xff")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("table")
    parser.add_argument("--format", choices=FORMATS, help="otherwise by the file's name: .npy, .faiss")
    parser.add_argument("--dimensions", type=int, help="hnswlib, Annoy: their files do not say it")
    parser.add_argument("--space", choices=OPERATOR_CLASSES, default="l2", help="hnswlib, Annoy: what the index was made with")
    parser.add_argument("--column", default="embedding")
    parser.add_argument("--type", choices=["vector", "halfvec"], default="vector")
    parser.add_argument("--dsn", default="")
    options = parser.parse_args()
    form = options.format or options.file.suffix.lstrip(".")
    if form not in FORMATS:
        parser.error(f"{options.file}: say --format")
    if form in ("hnswlib", "annoy") and not options.dimensions:
        parser.error("say --dimensions")
    ids, rows, shape, space = FORMATS[form](options.file, options)
    if len(shape) != 2:
        parser.error(f"{options.file} has an array of {len(shape)} dimensions, not of rows and columns")
    begun = time.monotonic()
    with psycopg.connect(options.dsn) as connection:
        connection.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} (id bigint PRIMARY KEY, {} {}({}))").format(
            sql.Identifier(*options.table.split(".")), sql.Identifier(options.column), sql.SQL(options.type), sql.Literal(shape[1])))
        copy_into(connection, options.table, options.column, options.type, ids, rows, shape)
    print(f"{shape[0]} rows of {shape[1]} dimensions in {time.monotonic() - begun:.1f} s; next:", file=sys.stderr)
    print(f"CREATE INDEX ON {options.table} USING ivflsh ({options.column} {options.type}_{OPERATOR_CLASSES[space]});\nANALYZE {options.table};")


if __name__ == "__main__":
    main()
