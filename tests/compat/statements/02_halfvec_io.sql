-- halfvec: text input and output, typmod

--- plain: integers, decimals, signs, exponents
SELECT '[1,2.5,-3,+4,5e-1,6E2]'::halfvec;

--- spaces: white space of every kind is skipped
SELECT E' \t\n\r\x0b\f[ 1 ,\t2\n, 3 ] \t\n\r\x0b\f'::halfvec;

--- one-element: one dimension
SELECT '[7]'::halfvec;

--- zero-and-negative-zero: minus zero keeps its sign
SELECT '[0,-0,0.0,-0.0]'::halfvec;

--- dot-forms: a missing digit before or after the point
SELECT '[1.,.5,-.25]'::halfvec;

--- type-name-call: type 'literal' syntax
SELECT halfvec '[1,2]';

--- text-roundtrip: to text and back
SELECT '[1,2,3]'::halfvec::text, ('[1,2,3]'::text)::halfvec;

--- null-input: NULL stays NULL
SELECT NULL::halfvec, NULL::text::halfvec;

--- typmod-match: typmod agrees
SELECT '[1,2,3]'::halfvec(3);

--- typmod-mismatch-short: fewer dimensions than declared
SELECT '[1,2]'::halfvec(3);

--- typmod-mismatch-long: more dimensions than declared
SELECT '[1,2,3,4]'::halfvec(3);

--- typmod-zero: halfvec(0)
SELECT '[1]'::halfvec(0);

--- typmod-negative: halfvec(-1)
SELECT '[1]'::halfvec(-1);

--- typmod-max: halfvec(16000)
SELECT format_type('halfvec'::regtype, 16000);

--- typmod-over-max: halfvec(16001)
SELECT '[1]'::halfvec(16001);

--- typmod-two: halfvec(1,2)
SELECT '[1]'::halfvec(1,2);

--- nan: NaN is refused
SELECT '[1,NaN]'::halfvec;

--- infinity: Infinity is refused
SELECT '[1,Infinity]'::halfvec;

--- negative-infinity: -Infinity is refused
SELECT '[-Infinity,1]'::halfvec;

--- malformed-empty-string: empty text
SELECT ''::halfvec;

--- malformed-empty-vector: []
SELECT '[]'::halfvec;

--- malformed-no-bracket: no bracket at all
SELECT '1,2,3'::halfvec;

--- malformed-brace: array syntax
SELECT '{1,2,3}'::halfvec;

--- malformed-open: never closed
SELECT '[1,2,3'::halfvec;

--- malformed-open-comma: ends after a comma
SELECT '[1,2,'::halfvec;

--- malformed-leading-comma: [,1]
SELECT '[,1]'::halfvec;

--- malformed-trailing-comma: [1,]
SELECT '[1,]'::halfvec;

--- malformed-double-comma: [1,,2]
SELECT '[1,,2]'::halfvec;

--- malformed-space-separator: [1 2]
SELECT '[1 2]'::halfvec;

--- malformed-junk-after: text after the bracket
SELECT '[1,2]a'::halfvec;

--- malformed-two-halfvecs: two halfvecs
SELECT '[1][2]'::halfvec;

--- malformed-nested: nested brackets
SELECT '[[1,2]]'::halfvec;

--- malformed-word: a word as element
SELECT '[1,hello,3]'::halfvec;

--- malformed-suffix: a letter after a number
SELECT '[1.5f]'::halfvec;

--- max-dims: 16000 dimensions
SELECT vector_dims(v), md5(v::text), octet_length(v::text) FROM (SELECT ('[' || string_agg((i % 10)::text, ',' ORDER BY i) || ']')::halfvec AS v FROM generate_series(1, 16000) i) s;

--- over-max-dims: 16001 dimensions
SELECT ('[' || string_agg('1', ',') || ']')::halfvec FROM generate_series(1, 16001) i;

--- pg-typeof: the type's name
SELECT pg_typeof('[1]'::halfvec), format_type('halfvec'::regtype, 3), format_type('halfvec'::regtype, -1);

--- array-of-halfvecs: text form of halfvec[]
SELECT ARRAY['[1,2]'::halfvec, '[3,4]'], '{"[1,2]","[3]"}'::halfvec[], '{"[1,2]"}'::halfvec(2)[];

--- array-of-halfvecs-mismatch: halfvec(2)[] checks each element
SELECT '{"[1,2]","[3]"}'::halfvec(2)[];

--- json: halfvec in JSON
SELECT to_json('[1,2]'::halfvec), json_build_object('e', '[1,2.5]'::halfvec), row_to_json(t) FROM (SELECT '[1]'::halfvec AS v) t;

--- size: bytes of a halfvec
SELECT pg_column_size('[1]'::halfvec), pg_column_size('[1,2,3]'::halfvec);

--- rounding: elements are rounded to half precision, ties to even
SELECT '[0.1,0.2,0.3,1.0005,2049,2051,1e-5]'::halfvec;

--- half-max: largest finite half, and what still rounds to it
SELECT '[65504,-65504,65519]'::halfvec;

--- half-overflow: rounds to infinity
SELECT '[65520]'::halfvec;

--- half-overflow-negative: below the range
SELECT '[1,-65536]'::halfvec;

--- half-overflow-large: far above the range
SELECT '[1e10]'::halfvec;

--- float-overflow: above float4 too
SELECT '[1e100]'::halfvec;

--- half-min-normal: smallest normal half
SELECT '[6.1035e-05]'::halfvec;

--- half-subnormal: subnormal halves
SELECT '[5.9604645e-08,1e-7,6.097555e-05]'::halfvec;

--- half-underflow: rounds to zero
SELECT '[2.9e-8,-2.9e-8,1e-20]'::halfvec;

--- half-underflow-tie: half of the smallest subnormal
SELECT '[2.9802322e-08,2.9802326e-08]'::halfvec;

--- float-underflow: below float4 too
SELECT '[1e-60]'::halfvec;

--- hexadecimal: strtof's hexadecimal numbers
SELECT '[0x10]'::halfvec;
