"""Files of other libraries into tables."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from psycopg import sql

from .arrays import Array
from .loading import Connection, identifier, load

PART = 8192
Parts = Iterator[tuple[Array, Array]]  # vectors, ids


@dataclass
class Source:
    """A file that has been opened: its vectors, and what its library measures their distance by (l2, ip, cosine, …)."""

    parts: Parts
    space: str = "l2"


def _parts(read: Callable[[int, int], Array], count: int, ids: Array | None = None) -> Parts:
    for first in range(0, count, PART):
        after = min(first + PART, count)
        yield read(first, after), np.arange(first, after) if ids is None else ids[first:after]


def _npy(path: Path) -> Source:
    array = np.load(path, mmap_mode="r")
    if array.ndim != 2:
        raise ValueError(f"{path} has an array of {array.ndim} dimensions, not of rows and columns")
    return Source(_parts(lambda a, b: np.asarray(array[a:b]), len(array)))


def _vecs(path: Path, number: Any) -> Source:
    """fvecs and bvecs: each vector with its dimensions, a little-endian int32, before it."""
    size = path.stat().st_size
    if size == 0:
        return Source(iter(()))
    dimensions = int(np.fromfile(path, "<i4", 1)[0]) if size >= 4 else 0
    if dimensions < 1:
        raise ValueError(f"{path} is no file of vectors: it begins with {dimensions} dimensions")
    record = np.dtype([("dimensions", "<i4"), ("vector", number, (dimensions,))])
    if size % record.itemsize:
        raise ValueError(f"{path} has {size} bytes, which are no whole number of vectors of {dimensions} dimensions")
    rows = np.memmap(path, record, "r")

    def read(first: int, after: int) -> Array:
        part = rows[first:after]
        if (part["dimensions"] != dimensions).any():
            raise ValueError(f"{path} has vectors of different dimensions")
        return np.asarray(part["vector"]).astype(np.float32)

    return Source(_parts(read, len(rows)))


def _hdf5(path: Path, dataset: str = "train") -> Source:
    """As ann-benchmarks has them: rows in `train`, queries in `test`."""
    import h5py

    def parts() -> Parts:
        with h5py.File(path, "r") as file:
            rows = file[dataset]
            yield from _parts(lambda a, b: np.asarray(rows[a:b]), len(rows))

    return Source(parts())


def _faiss(path: Path) -> Source:
    """Flat, IVF and HNSW, with their ids where they have them. Compressed codes come as that index reads them."""
    faiss: Any = importlib.import_module("faiss")  # its types are not complete
    whole = index = faiss.read_index(str(path))
    ids = None
    if hasattr(whole, "id_map"):
        ids, index = faiss.vector_to_array(whole.id_map), faiss.downcast_index(whole.index)
    space = "ip" if index.metric_type == faiss.METRIC_INNER_PRODUCT else "l2"
    if not isinstance(index, faiss.IndexIVF):
        kept = whole, index  # one owns the other
        return Source(_parts(lambda a, b: kept[1].reconstruct_n(a, b - a), index.ntotal, ids), space)
    # The ids are within the lists.
    lists = [i for i in range(index.nlist) if index.invlists.list_size(i)]
    stored = [faiss.rev_swig_ptr(index.invlists.get_ids(i), index.invlists.list_size(i)).copy() for i in lists]
    index.set_direct_map_type(faiss.DirectMap.Hashtable)
    found = np.sort(np.concatenate(stored)) if stored else np.empty(0, np.int64)
    kept = whole, index
    return Source(_parts(lambda a, b: kept[1].reconstruct_batch(found[a:b]), len(found), found if ids is None else ids[found]), space)


def _hnswlib(path: Path, dimensions: int, space: str = "l2") -> Source:
    import hnswlib

    index = hnswlib.Index(space=space, dim=dimensions)
    index.load_index(str(path))
    ids = np.sort(np.array(index.get_ids_list(), np.int64))
    return Source(_parts(lambda a, b: np.asarray(index.get_items(ids[a:b])), len(ids), ids), space)


def _annoy(path: Path, dimensions: int, space: str = "angular") -> Source:
    annoy: Any = importlib.import_module("annoy")  # whose types want the space by Literal

    index = annoy.AnnoyIndex(dimensions, space)
    index.load(str(path))
    read = lambda a, b: np.array([index.get_item_vector(i) for i in range(a, b)], np.float32)  # noqa: E731
    return Source(_parts(read, index.get_n_items()), space)


NMSLIB_SPACES = {"cosinesimil": "cosine", "cosinesimil_sparse": "cosine", "negdotprod": "ip"}


def _nmslib(path: Path, space: str = "l2") -> Source:
    """Dense vectors, that were saved with the index (`save_data=True`) in a file beside it; read without the library."""
    data = path if path.suffix == ".dat" else path.with_name(path.name + ".dat")
    if not data.exists():
        raise FileNotFoundError(f"{data}: NMSLIB writes the vectors there by saveIndex(…, save_data=True)")
    size = data.stat().st_size
    count, of_object = (int(number) for number in np.fromfile(data, "<u8", 2)) if size >= 16 else (0, 0)
    if count == 0:
        return Source(iter(()), space)
    if of_object < 20 or size != 8 + count * (8 + of_object) or of_object % 4:
        raise ValueError(f"{data} has no vectors of float32, all of one length, as NMSLIB's dense spaces have")
    record = np.dtype([("size", "<u8"), ("id", "<i4"), ("label", "<i4"), ("length", "<u8"), ("vector", "<f4", ((of_object - 16) // 4,))])
    rows = np.memmap(data, record, "r", offset=8)
    if (rows["length"] != of_object - 16).any():
        raise ValueError(f"{data} has vectors of different dimensions")
    return Source(_parts(lambda a, b: np.asarray(rows["vector"][a:b]), count, rows["id"].astype(np.int64)), NMSLIB_SPACES.get(space, space))


READERS: dict[str, Callable[..., Source]] = {
    "npy": _npy, "fvecs": lambda path: _vecs(path, "<f4"), "bvecs": lambda path: _vecs(path, "u1"), "hdf5": _hdf5,
    "faiss": _faiss, "hnswlib": _hnswlib, "annoy": _annoy, "nmslib": _nmslib,
}


def open_source(path: str | Path, format: str | None = None, **options: Any) -> Source:
    """Opens a file of vectors; the arguments are those of [`import_index`]."""
    path = Path(path)
    chosen = format or path.suffix.lstrip(".")
    if chosen not in READERS:
        raise ValueError(f"{path}: format {chosen!r} is none of {', '.join(READERS)}")
    if not path.exists():
        raise FileNotFoundError(path)
    return READERS[chosen](path, **options)


def import_index(connection: Connection, path: str | Path, table: str, *, format: str | None = None, column: str = "embedding",
                 id: str = "id", create: str | None = None, resume: str | None = None, progress: bool = False, **options: Any) -> int:
    """Copies vectors and their ids out of a file into a table, and returns how many.

    `format`: npy, fvecs, bvecs, hdf5, faiss, hnswlib, annoy, nmslib; without it by the file's name. `create`: make the table, with vectors of
    this type (vector, halfvec). `options`: `dimensions` and `space` for hnswlib and annoy, `space` for nmslib, whose files do not say them; `dataset` for hdf5.
    """
    parts = open_source(path, format, **options).parts
    return copy_parts(connection, parts, table, column=column, id=id, create=create, resume=resume, progress=progress)


def copy_parts(connection: Connection, parts: Parts, table: str, *, column: str, id: str, create: str | None, resume: str | None = None,
               progress: bool = False) -> int:
    """The vectors of a [`Source`] into a table; the arguments are those of [`import_index`]."""
    if create is not None and create not in ("vector", "halfvec"):
        raise ValueError(f"tables are created with vector or halfvec, not {create!r}")
    if resume is not None:
        if create is not None:
            raise ValueError("a load that can be resumed needs a table that is there")
        return load(connection, table, ((v, {id: i}) for v, i in parts), column=column, resume=resume, progress=progress)
    with connection.transaction():
        if create is not None:
            first = next(parts, None)
            if first is None:
                raise ValueError("the file has no vectors, by which a table could be made")
            connection.execute(sql.SQL("CREATE TABLE {} ({} bigint PRIMARY KEY, {} {}({}) NOT NULL)").format(
                identifier(table), sql.Identifier(id), sql.Identifier(column), sql.SQL(create), sql.Literal(first[0].shape[1])))
            parts = _chained(first, parts)
        return load(connection, table, ((v, {id: i}) for v, i in parts), column=column, progress=progress)


def _chained(first: tuple[Array, Array], rest: Parts) -> Parts:
    yield first
    yield from rest
