-- Binary representation: *_send, COPY … (FORMAT BINARY) in and out.
-- "@copy-in TYPE HEX" sends HEX as the one field of a binary COPY into a column of that type and shows what arrived.

--- vector-send: vector_send
SELECT vector_send('[1,-2.5,0]'::vector);

--- halfvec-send: halfvec_send
SELECT halfvec_send('[1,-2.5,0,65504]'::halfvec);

--- sparsevec-send: sparsevec_send
SELECT sparsevec_send('{1:1,3:-2.5}/5'::sparsevec);

--- sparsevec-send-empty: sparsevec_send without elements
SELECT sparsevec_send('{}/1000000000'::sparsevec);

--- vector-send-large: dimensions use both bytes
SELECT substr(vector_send(('[' || repeat('1,', 299) || '1]')::vector), 1, 12);

--- copy-out: binary COPY TO
-- @copy-out
COPY (SELECT '[1,2]'::vector, '[1,2]'::halfvec, '{1:1}/2'::sparsevec, NULL::vector) TO STDOUT (FORMAT BINARY);

--- vector-recv: two elements
-- @copy-in vector 0002 0000 3f800000 c0200000

--- vector-recv-typmod: typmod agrees
-- @copy-in vector(2) 0002 0000 3f800000 c0200000

--- vector-recv-typmod-mismatch: typmod differs
-- @copy-in vector(3) 0002 0000 3f800000 c0200000

--- vector-recv-zero-dims: no dimension
-- @copy-in vector 0000 0000

--- vector-recv-negative-dims: negative dimensions
-- @copy-in vector ffff 0000

--- vector-recv-over-max-dims: 16001 dimensions claimed
-- @copy-in vector 3e81 0000

--- vector-recv-unused: reserved field is not 0
-- @copy-in vector 0001 0001 3f800000

--- vector-recv-unused-negative: reserved field is -1
-- @copy-in vector 0001 ffff 3f800000

--- vector-recv-nan: NaN
-- @copy-in vector 0001 0000 7fc00000

--- vector-recv-infinity: infinity
-- @copy-in vector 0002 0000 3f800000 7f800000

--- vector-recv-negative-infinity: negative infinity
-- @copy-in vector 0001 0000 ff800000

--- vector-recv-short: an element is missing
-- @copy-in vector 0002 0000 3f800000

--- vector-recv-short-element: an element is cut off
-- @copy-in vector 0001 0000 3f80

--- vector-recv-long: bytes left over
-- @copy-in vector 0001 0000 3f800000 3f800000

--- vector-recv-header-short: header is cut off
-- @copy-in vector 0001

--- vector-recv-empty: no bytes
-- @copy-in vector

--- vector-recv-negative-zero-subnormal: minus zero and a subnormal
-- @copy-in vector 0002 0000 80000000 00000001

--- halfvec-recv: two elements
-- @copy-in halfvec 0002 0000 3c00 c100

--- halfvec-recv-typmod-mismatch: typmod differs
-- @copy-in halfvec(3) 0002 0000 3c00 c100

--- halfvec-recv-zero-dims: no dimension
-- @copy-in halfvec 0000 0000

--- halfvec-recv-over-max-dims: 16001 dimensions claimed
-- @copy-in halfvec 3e81 0000

--- halfvec-recv-unused: reserved field is not 0
-- @copy-in halfvec 0001 0001 3c00

--- halfvec-recv-nan: NaN
-- @copy-in halfvec 0001 0000 7e00

--- halfvec-recv-infinity: infinity
-- @copy-in halfvec 0001 0000 7c00

--- halfvec-recv-negative-infinity: negative infinity
-- @copy-in halfvec 0001 0000 fc00

--- halfvec-recv-short: an element is missing
-- @copy-in halfvec 0002 0000 3c00

--- halfvec-recv-long: bytes left over
-- @copy-in halfvec 0001 0000 3c00 3c00

--- halfvec-recv-empty: no bytes
-- @copy-in halfvec

--- halfvec-recv-subnormal: smallest subnormal, largest half
-- @copy-in halfvec 0002 0000 0001 7bff

--- sparsevec-recv: two elements (indices from 0)
-- @copy-in sparsevec 00000005 00000002 00000000 00000000 00000002 3f800000 c0200000

--- sparsevec-recv-empty: no elements
-- @copy-in sparsevec 00000005 00000000 00000000

--- sparsevec-recv-typmod-mismatch: typmod differs
-- @copy-in sparsevec(3) 00000005 00000000 00000000

--- sparsevec-recv-zero-dims: no dimension
-- @copy-in sparsevec 00000000 00000000 00000000

--- sparsevec-recv-negative-dims: negative dimensions
-- @copy-in sparsevec ffffffff 00000000 00000000

--- sparsevec-recv-over-max-dims: too many dimensions
-- @copy-in sparsevec 3b9aca01 00000000 00000000

--- sparsevec-recv-negative-nnz: negative number of elements
-- @copy-in sparsevec 00000005 ffffffff 00000000

--- sparsevec-recv-over-max-nnz: 16001 elements claimed
-- @copy-in sparsevec 000f4240 00003e81 00000000

--- sparsevec-recv-nnz-over-dims: more elements than dimensions
-- @copy-in sparsevec 00000001 00000002 00000000 00000000 00000001 3f800000 3f800000

--- sparsevec-recv-unused: reserved field is not 0
-- @copy-in sparsevec 00000005 00000000 00000001

--- sparsevec-recv-negative-index: negative index
-- @copy-in sparsevec 00000005 00000001 00000000 ffffffff 3f800000

--- sparsevec-recv-index-over-dims: index beyond the dimensions
-- @copy-in sparsevec 00000005 00000001 00000000 00000005 3f800000

--- sparsevec-recv-index-huge: largest 32-bit index
-- @copy-in sparsevec 00000005 00000001 00000000 7fffffff 3f800000

--- sparsevec-recv-duplicate-index: the same index twice
-- @copy-in sparsevec 00000005 00000002 00000000 00000001 00000001 3f800000 3f800000

--- sparsevec-recv-out-of-order: descending indices
-- @copy-in sparsevec 00000005 00000002 00000000 00000002 00000001 3f800000 3f800000

--- sparsevec-recv-zero-value: a stored zero
-- @copy-in sparsevec 00000005 00000001 00000000 00000001 00000000

--- sparsevec-recv-negative-zero-value: a stored minus zero
-- @copy-in sparsevec 00000005 00000001 00000000 00000001 80000000

--- sparsevec-recv-nan: NaN
-- @copy-in sparsevec 00000005 00000001 00000000 00000001 7fc00000

--- sparsevec-recv-infinity: infinity
-- @copy-in sparsevec 00000005 00000001 00000000 00000001 7f800000

--- sparsevec-recv-short: a value is missing
-- @copy-in sparsevec 00000005 00000001 00000000 00000001

--- sparsevec-recv-long: bytes left over
-- @copy-in sparsevec 00000005 00000000 00000000 00000001

--- sparsevec-recv-empty-message: no bytes
-- @copy-in sparsevec
