"""What is sent, read again by struct, field by field. No server is needed."""

import datetime
import struct

import numpy as np
import pytest

from vector_ext import LoadError
from vector_ext.arrays import as_matrix
from vector_ext.wire import NULL, Column, encode, scalar_field, vector_field

rng = np.random.default_rng(1)


def column(kind, size=None):
    return Column("c", kind, 0, size)


def no_dump(column, value):
    raise AssertionError("the driver was asked")


def fields(data):
    """The fields of each row of a binary COPY."""
    at, rows = 0, []
    while at < len(data):
        count, = struct.unpack_from(">h", data, at)
        at += 2
        row = []
        for _ in range(count):
            length, = struct.unpack_from(">i", data, at)
            at += 4
            row.append(None if length < 0 else data[at:at + length])
            at += max(length, 0)
        rows.append(row)
    return rows


def sent(kind, values, size=None, first=0):
    field, count = vector_field(column(kind, size), values, first)
    return [row[0] for row in fields(encode([field], count))]


def refused(reason, row, call, *arguments):
    with pytest.raises(LoadError) as caught:
        call(*arguments)
    assert reason in caught.value.reason and caught.value.row == row, str(caught.value)


@pytest.mark.parametrize("kind, letter", [("vector", "f"), ("halfvec", "e")])
@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "i1", "i8", "bool"])
def test_dense(kind, letter, dtype):
    values = (rng.standard_normal((50, 7)) * 5).astype(dtype)
    for data, row in zip(sent(kind, values), values, strict=True):
        dimensions, unused, *numbers = struct.unpack(f">HH7{letter}", data)
        assert (dimensions, unused) == (7, 0)
        np.testing.assert_array_equal(numbers, row.astype("f2" if kind == "halfvec" else "f4"))


def test_views_of_any_order_in_memory():
    values = rng.standard_normal((20, 10)).astype(np.float32)
    assert sent("vector", np.asfortranarray(values)) == sent("vector", values)
    assert sent("vector", values[::2, ::3]) == sent("vector", values[::2, ::3].copy())
    assert sent("vector", values.tolist()) == sent("vector", list(values)) == sent("vector", values)


def test_nothing():
    assert sent("vector", np.empty((0, 4), np.float32)) == [] == sent("sparsevec", np.empty((0, 4)))


@pytest.mark.parametrize("value, kind, reason", [
    (np.nan, "vector", "nan at position 2 is not a finite number"), (-np.inf, "halfvec", "-inf at position 2 is not a finite number"),
    (1e39, "vector", "1e+39 at position 2 is out of range for vector"), (65520.0, "halfvec", "65520.0 at position 2 is out of range for halfvec"),
    (np.inf, "sparsevec", "inf at position 2"), (1e39, "sparsevec", "1e+39 at position 2")])
def test_numbers_that_no_vector_has(value, kind, reason):
    values = np.ones((9, 4))
    values[6, 2] = value
    refused(reason, 106, sent, kind, values, None, 100)


def test_dimensions():
    refused("column c has 3 dimensions, the vectors have 4", None, sent, "vector", np.ones((2, 4)), 3)
    refused("column c has 3 dimensions, the vectors have 4", None, sent, "sparsevec", np.ones((2, 4)), 3)
    refused("1 to 16000 dimensions", None, sent, "vector", np.ones((1, 16_001)))
    refused("1 to 16000 dimensions", None, sent, "vector", np.ones((1, 0)))
    refused("not one of 1 dimensions", None, sent, "vector", np.ones(3))
    refused("not one of 3 dimensions", None, sent, "vector", np.ones((2, 3, 4)))
    refused("cannot be of type complex128", None, sent, "vector", np.ones((2, 3), complex))


def test_rows_that_are_no_vectors():
    refused("3 dimensions, but 2 in the rows before", 12, sent, "vector", [[1, 2], [3, 4], [1, 2, 3]], None, 10)
    refused("there is no vector", 11, sent, "vector", [[1, 2], None], None, 10)
    refused("not a vector of numbers", 11, sent, "vector", [[1, 2], "[1,2]"], None, 10)
    refused("not a vector", 0, sent, "vector", [[[1, 2], [3]]])
    refused("cannot read vectors from builtins.int", None, sent, "vector", 5)


def test_bits():
    bits = rng.random((30, 13)) < 0.5
    for kind in ("bit", "varbit"):
        data = sent(kind, bits, 13)
        assert [struct.unpack(">i2s", row) for row in data] == [(13, np.packbits(row).tobytes()) for row in bits]
        assert sent(kind, np.packbits(bits, axis=1), 13) == data
    assert sent("bit", np.full((1, 2), 255, np.uint8), 13) == [struct.pack(">iBB", 13, 255, 0b11111000)], "bits behind the last are 0"
    assert sent("varbit", bits) == data
    refused("has 12 bits, the vectors have 13", None, sent, "bit", bits, 12)
    refused("has 20 bits, the vectors have 2 bytes", None, sent, "bit", np.packbits(bits, axis=1), 20)
    refused("wants booleans, or bytes", None, sent, "bit", np.ones((2, 13)), 13)


def sparse_rows(data):
    out = []
    for row in data:
        dimensions, count, unused = struct.unpack_from(">iii", row)
        assert unused == 0 and len(row) == 12 + 8 * count
        out.append((dimensions, list(struct.unpack_from(f">{count}i", row, 12)), list(struct.unpack_from(f">{count}f", row, 12 + 4 * count))))
    return out


def test_sparse():
    dense = np.where(rng.random((40, 9)) < 0.3, rng.integers(1, 9, (40, 9)), 0)
    dense[5] = 0
    wanted = [(9, np.flatnonzero(row).tolist(), row[row != 0].tolist()) for row in dense]
    assert sparse_rows(sent("sparsevec", dense, 9)) == wanted
    sparse = pytest.importorskip("scipy.sparse")
    for form in (sparse.csr_matrix, sparse.csc_matrix, sparse.coo_array, sparse.csr_array):
        assert sparse_rows(sent("sparsevec", form(dense), 9)) == wanted
    # Zeros that are stored, elements in two parts, and out of order.
    odd = sparse.csr_matrix((np.array([0.0, 2, 3, 4]), np.array([8, 5, 1, 5]), np.array([0, 4])), (1, 9))
    assert sparse_rows(sent("sparsevec", odd)) == [(9, [1, 5], [3, 6])]
    assert odd.nnz == 4, "the caller's matrix stays as it was"
    assert sent("vector", sparse.csr_matrix(dense)) == sent("vector", dense)


def test_too_small_for_float32_is_no_element():
    assert sparse_rows(sent("sparsevec", np.array([[1e-60, 2.0, 0], [0, 0, 1e-60]]))) == [(3, [1], [2.0]), (3, [], [])]


class OnlyDLPack:
    """As JAX and others hand over what they have."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class OnlyArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


@pytest.mark.parametrize("wrap", [OnlyDLPack, OnlyArray])
def test_other_libraries_arrays(wrap):
    values = rng.standard_normal((20, 5)).astype(np.float32)
    np.testing.assert_array_equal(as_matrix(wrap(values)), values)


def test_arrow():
    pa = pytest.importorskip("pyarrow")
    values = rng.standard_normal((20, 5)).astype(np.float32)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 5)
    for array in (fixed, pa.chunked_array([fixed[:7], fixed[7:]]), pa.array(values.tolist())):
        np.testing.assert_array_equal(as_matrix(array).astype(np.float32), values)
    np.testing.assert_array_equal(as_matrix(fixed[3:8]), values[3:8])
    refused("there is no vector", 1, as_matrix, pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)))


def test_data_frames():
    values = rng.standard_normal((20, 5)).astype(np.float32)
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    np.testing.assert_array_equal(as_matrix(pd.Series(list(values))), values)
    np.testing.assert_array_equal(as_matrix(pl.Series("v", values, pl.Array(pl.Float32, 5))), values)
    np.testing.assert_array_equal(as_matrix(pl.Series("v", values.tolist())).astype(np.float32), values)


@pytest.mark.parametrize("kind, values, form", [
    ("int2", [-32768, 32767], ">h"), ("int4", [-5, 2 ** 31 - 1], ">i"), ("int8", [-2 ** 63, 2 ** 63 - 1], ">q"),
    ("float4", [1.5, -0.25], ">f"), ("float8", [1e300, 0.1], ">d"), ("bool", [True, False], ">?")])
def test_numbers(kind, values, form):
    for given in (values, tuple(values), np.array(values)):
        field = scalar_field(column(kind), given, 0, no_dump)
        assert [row[0] for row in fields(encode([field], 2))] == [struct.pack(form, value) for value in values]


def test_times():
    days = np.array(["1999-12-31", "2026-12-01"], "M8[D]")
    assert fields(encode([scalar_field(column("date"), days, 0, no_dump)], 2)) == [[struct.pack(">i", -1)], [struct.pack(">i", 9831)]]
    assert datetime.date(2000, 1, 1) + datetime.timedelta(9831) == datetime.date(2026, 12, 1)
    moment = np.array(["2000-01-01T00:00:01.5"], "M8[ns]")
    assert fields(encode([scalar_field(column("timestamptz"), moment, 0, no_dump)], 1)) == [[struct.pack(">q", 1_500_000)]]


def test_nulls_and_texts():
    texts = scalar_field(column("text"), ["é", None, "", float("nan")], 0, no_dump)
    assert texts == [b"\0\0\0\2\xc3\xa9", NULL, b"\0\0\0\0", NULL]
    numbers = scalar_field(column("int4"), [1, None], 0, lambda c, value: struct.pack(">i", value))
    assert numbers == [b"\0\0\0\4\0\0\0\1", NULL]
    refused("cannot hold a NUL byte", 4, scalar_field, column("text"), ["a", "b\0"], 3, no_dump)
    refused("int is not a text", 3, scalar_field, column("text"), [5], 3, no_dump)


@pytest.mark.parametrize("kind, value", [("int2", 32768), ("int4", -2 ** 31 - 1), ("float4", 1e39)])
def test_numbers_out_of_range(kind, value):
    refused(f"is out of range for {kind}", 8, scalar_field, column(kind), np.array([0, value]), 7, no_dump)


@pytest.mark.parametrize("order", ["nvt", "tnv", "tvn", "vtn", "nntv", "tt", "vnnt", "n"])
def test_rows_of_any_fields(order):
    values = rng.standard_normal((4, 3)).astype(np.float32)
    made = {"n": scalar_field(column("int4"), np.arange(4), 0, no_dump), "t": scalar_field(column("text"), ["a", None, "ccc", ""], 0, no_dump),
            "v": vector_field(column("vector"), values, 0)[0]}
    wanted = {"n": [struct.pack(">i", i) for i in range(4)], "t": [b"a", None, b"ccc", b""],
              "v": [struct.pack(">HH3f", 3, 0, *row) for row in values]}
    assert fields(encode([made[letter] for letter in order], 4)) == [[wanted[letter][i] for letter in order] for i in range(4)]
