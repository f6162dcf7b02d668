-- sparsevec: text input and output, typmod

--- plain: indices from 1, then the dimensions
SELECT '{1:1.5,3:-2,5:3e1}/5'::sparsevec;

--- spaces: white space of every kind is skipped
SELECT E' \t\n\r\x0b\f{ 1 : 1.5 , 3 :\t2 } / 5 \n'::sparsevec;

--- empty: no element
SELECT '{}/5'::sparsevec, '{ }/5'::sparsevec;

--- zeros-dropped: zero elements are not stored
SELECT '{1:0,2:1,3:-0}/3'::sparsevec;

--- unsorted: text may come in any order
SELECT '{5:5,1:1,3:3}/5'::sparsevec;

--- shortest-output: shortest text that reads back
SELECT '{1:0.1,2:1e10,3:1.5e-7,4:123456789}/4'::sparsevec;

--- float4-max: largest finite float4
SELECT '{1:3.4028235e38}/1'::sparsevec;

--- underflow: too small a number
SELECT '{1:1e-60}/1'::sparsevec;

--- overflow: too large a number
SELECT '{1:4e38}/1'::sparsevec;

--- hexadecimal: strtof's hexadecimal numbers
SELECT '{1:0x10}/1'::sparsevec;

--- max-dims: a thousand million dimensions
SELECT '{1000000000:1}/1000000000'::sparsevec;

--- over-max-dims: a thousand million and one
SELECT '{}/1000000001'::sparsevec;

--- dims-int-overflow: dimensions beyond 32 bits
SELECT '{}/4294967297'::sparsevec;

--- dims-long-overflow: dimensions beyond 64 bits
SELECT '{}/99999999999999999999'::sparsevec;

--- zero-dims: no dimension
SELECT '{}/0'::sparsevec;

--- negative-dims: negative dimensions
SELECT '{}/-1'::sparsevec;

--- no-dims: number of dimensions is missing
SELECT '{1:1}/'::sparsevec;

--- no-slash: slash is missing
SELECT '{1:1}'::sparsevec;

--- word-dims: dimensions that are no number
SELECT '{1:1}/abc'::sparsevec;

--- decimal-dims: dimensions with a point
SELECT '{1:1}/3.5'::sparsevec;

--- index-zero: index 0
SELECT '{0:1}/5'::sparsevec;

--- index-negative: index -1
SELECT '{-1:1}/5'::sparsevec;

--- index-over-dims: index beyond the dimensions
SELECT '{6:1}/5'::sparsevec;

--- index-over-dims-zero: a zero beyond the dimensions
SELECT '{6:0}/5'::sparsevec;

--- index-duplicate: the same index twice
SELECT '{1:1,1:2}/5'::sparsevec;

--- index-duplicate-zero: the same index twice, one value zero
SELECT '{1:0,1:2}/5'::sparsevec;

--- index-int-overflow: index beyond 32 bits
SELECT '{2147483648:1}/5'::sparsevec;

--- index-long-overflow: index beyond 64 bits
SELECT '{9223372036854775808:1}/5'::sparsevec;

--- index-long-underflow: index below 64 bits
SELECT '{-9223372036854775809:1}/5'::sparsevec;

--- index-decimal: index with a point
SELECT '{1.5:1}/5'::sparsevec;

--- index-word: index that is no number
SELECT '{a:1}/5'::sparsevec;

--- nan: NaN is refused
SELECT '{1:NaN}/5'::sparsevec;

--- infinity: Infinity is refused
SELECT '{1:Infinity}/5'::sparsevec;

--- negative-infinity: -Infinity is refused
SELECT '{1:-Infinity}/5'::sparsevec;

--- malformed-empty-string: empty text
SELECT ''::sparsevec;

--- malformed-open-only: only the brace
SELECT '{'::sparsevec;

--- malformed-bracket: dense syntax
SELECT '[1,2,3]'::sparsevec;

--- malformed-open: never closed
SELECT '{1:1'::sparsevec;

--- malformed-no-value: value is missing
SELECT '{1:}/5'::sparsevec;

--- malformed-no-value-end: ends after the colon
SELECT '{1:'::sparsevec;

--- malformed-no-index: index is missing
SELECT '{:1}/5'::sparsevec;

--- malformed-no-colon: colon is missing
SELECT '{1}/5'::sparsevec;

--- malformed-comma-only: {,}
SELECT '{,}/5'::sparsevec;

--- malformed-trailing-comma: {1:1,}
SELECT '{1:1,}/5'::sparsevec;

--- malformed-leading-comma: {,1:1}
SELECT '{,1:1}/5'::sparsevec;

--- malformed-space-separator: {1:1 2:2}
SELECT '{1:1 2:2}/5'::sparsevec;

--- malformed-junk-after: text after the dimensions
SELECT '{1:1}/5a'::sparsevec;

--- malformed-second-slash: a second number of dimensions
SELECT '{1:1}/5/6'::sparsevec;

--- malformed-junk-before-slash: text before the slash
SELECT '{1:1}x/5'::sparsevec;

--- malformed-value-word: value that is no number
SELECT '{1:abc}/5'::sparsevec;

--- type-name-call: type 'literal' syntax
SELECT sparsevec '{1:1}/2';

--- text-roundtrip: to text and back
SELECT '{1:1}/3'::sparsevec::text, ('{1:1}/3'::text)::sparsevec;

--- null-input: NULL stays NULL
SELECT NULL::sparsevec;

--- typmod-match: typmod agrees
SELECT '{1:1}/3'::sparsevec(3);

--- typmod-mismatch: other dimensions than declared
SELECT '{1:1}/2'::sparsevec(3);

--- typmod-zero: sparsevec(0)
SELECT '{1:1}/2'::sparsevec(0);

--- typmod-negative: sparsevec(-1)
SELECT '{1:1}/2'::sparsevec(-1);

--- typmod-max: sparsevec(1000000000)
SELECT '{1:1}/1000000000'::sparsevec(1000000000);

--- typmod-over-max: sparsevec(1000000001)
SELECT '{1:1}/2'::sparsevec(1000000001);

--- typmod-two: sparsevec(1,2)
SELECT '{1:1}/2'::sparsevec(1,2);

--- max-nnz: 16000 elements
SELECT md5(v::text), l2_norm(v) FROM (SELECT ('{' || string_agg(i || ':1', ',' ORDER BY i) || '}/16000')::sparsevec AS v FROM generate_series(1, 16000) i) s;

--- over-max-nnz: 16001 elements
SELECT ('{' || string_agg(i || ':1', ',' ORDER BY i) || '}/16001')::sparsevec FROM generate_series(1, 16001) i;

--- over-max-nnz-zeros: 16001 elements, all zero
SELECT ('{' || string_agg(i || ':0', ',' ORDER BY i) || '}/16001')::sparsevec FROM generate_series(1, 16001) i;

--- pg-typeof: the type's name
SELECT pg_typeof('{}/1'::sparsevec), format_type('sparsevec'::regtype, 3);

--- array-of-sparsevecs: text form of sparsevec[]
SELECT ARRAY['{1:1}/2'::sparsevec, '{}/2'], '{"{1:1}/2"}'::sparsevec[];

--- json: sparsevec in JSON
SELECT to_json('{1:1}/2'::sparsevec);

--- size: bytes of a sparsevec
SELECT pg_column_size('{}/1'::sparsevec), pg_column_size('{1:1,2:2}/3'::sparsevec);
