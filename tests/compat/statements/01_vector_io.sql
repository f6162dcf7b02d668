-- vector: text input and output, typmod

--- plain: integers, decimals, signs, exponents
SELECT '[1,2.5,-3,+4,5e-1,6E2]'::vector;

--- spaces: white space of every kind is skipped
SELECT E' \t\n\r\x0b\f[ 1 ,\t2\n, 3 ] \t\n\r\x0b\f'::vector;

--- one-element: one dimension
SELECT '[7]'::vector;

--- zero-and-negative-zero: minus zero keeps its sign
SELECT '[0,-0,0.0,-0.0]'::vector;

--- dot-forms: a missing digit before or after the point
SELECT '[1.,.5,-.25]'::vector;

--- hexadecimal: strtof's hexadecimal numbers
SELECT '[0x10,0x1p-2]'::vector;

--- shortest-output: shortest text that reads back
SELECT '[0.1,0.2,0.30000001,1e10,1e15,1e16,123456789,1.5e-7]'::vector;

--- double-rounding: read as float4, not as float8
SELECT '[1.00000005960464477540,7.038531e-26,8.41e21]'::vector;

--- float4-max: largest finite float4
SELECT '[3.4028235e38,-3.4028235e38]'::vector;

--- float4-min-normal: smallest normal float4
SELECT '[1.1754944e-38]'::vector;

--- subnormal: subnormal numbers stay
SELECT '[1e-45,1e-40]'::vector;

--- underflow: too small a number
SELECT '[1e-46,-1e-60]'::vector;

--- overflow: too large a number
SELECT '[4e38]'::vector;

--- overflow-second: the number at fault is named
SELECT '[1,-1e400]'::vector;

--- type-name-call: type 'literal' syntax
SELECT vector '[1,2]';

--- input-function-cast: text goes through the input function with CAST
SELECT CAST('[1,2,3]' AS vector(3));

--- text-roundtrip: to text and back
SELECT '[1,2,3]'::vector::text, ('[1,2,3]'::text)::vector;

--- null-input: NULL stays NULL
SELECT NULL::vector, NULL::text::vector;

--- typmod-match: typmod agrees
SELECT '[1,2,3]'::vector(3);

--- typmod-mismatch-short: fewer dimensions than declared
SELECT '[1,2]'::vector(3);

--- typmod-mismatch-long: more dimensions than declared
SELECT '[1,2,3,4]'::vector(3);

--- typmod-zero: vector(0)
SELECT '[1]'::vector(0);

--- typmod-negative: vector(-1)
SELECT '[1]'::vector(-1);

--- typmod-max: vector(16000)
SELECT format_type('vector'::regtype, 16000);

--- typmod-over-max: vector(16001)
SELECT '[1]'::vector(16001);

--- typmod-two: vector(1,2)
SELECT '[1]'::vector(1,2);

--- typmod-word: vector(abc)
SELECT '[1]'::vector(abc);

--- typmod-huge: vector(99999999999)
SELECT '[1]'::vector(99999999999);

--- typmod-empty: vector()
SELECT '[1]'::vector();

--- nan: NaN is refused
SELECT '[1,NaN]'::vector;

--- nan-lower: nan in lower case
SELECT '[nan]'::vector;

--- infinity: Infinity is refused
SELECT '[1,Infinity]'::vector;

--- negative-infinity: -Infinity is refused
SELECT '[-Infinity,1]'::vector;

--- inf-short: inf is refused
SELECT '[inf]'::vector;

--- malformed-empty-string: empty text
SELECT ''::vector;

--- malformed-spaces: only white space
SELECT '  '::vector;

--- malformed-empty-vector: []
SELECT '[]'::vector;

--- malformed-empty-vector-space: [ ]
SELECT '[ ]'::vector;

--- malformed-no-bracket: no bracket at all
SELECT '1,2,3'::vector;

--- malformed-brace: array syntax
SELECT '{1,2,3}'::vector;

--- malformed-paren: parenthesis
SELECT '(1,2)'::vector;

--- malformed-open: never closed
SELECT '[1,2,3'::vector;

--- malformed-open-comma: ends after a comma
SELECT '[1,2,'::vector;

--- malformed-only-open: only the bracket
SELECT '['::vector;

--- malformed-close-only: closes without opening
SELECT '1,2,3]'::vector;

--- malformed-leading-comma: [,1]
SELECT '[,1]'::vector;

--- malformed-trailing-comma: [1,]
SELECT '[1,]'::vector;

--- malformed-double-comma: [1,,2]
SELECT '[1,,2]'::vector;

--- malformed-comma-only: [,]
SELECT '[,]'::vector;

--- malformed-space-separator: [1 2]
SELECT '[1 2]'::vector;

--- malformed-semicolon: [1;2]
SELECT '[1;2]'::vector;

--- malformed-junk-after: text after the bracket
SELECT '[1,2]a'::vector;

--- malformed-second-bracket: a second bracket
SELECT '[1,2]]'::vector;

--- malformed-two-vectors: two vectors
SELECT '[1][2]'::vector;

--- malformed-nested: nested brackets
SELECT '[[1,2]]'::vector;

--- malformed-word: a word as element
SELECT '[1,hello,3]'::vector;

--- malformed-suffix: a letter after a number
SELECT '[1.5f]'::vector;

--- malformed-quoted: quoted elements
SELECT '["1","2"]'::vector;

--- malformed-null: null as element
SELECT '[1,null]'::vector;

--- malformed-sign: a lone sign
SELECT '[-]'::vector;

--- malformed-dot: a lone point
SELECT '[.]'::vector;

--- malformed-exponent: exponent without digits
SELECT '[1e]'::vector;

--- malformed-utf8: text that is not ASCII
SELECT '[1,é]'::vector;

--- max-dims: 16000 dimensions
SELECT vector_dims(v), md5(v::text), octet_length(v::text) FROM (SELECT ('[' || string_agg((i % 10)::text, ',' ORDER BY i) || ']')::vector AS v FROM generate_series(1, 16000) i) s;

--- over-max-dims: 16001 dimensions
SELECT ('[' || string_agg('1', ',') || ']')::vector FROM generate_series(1, 16001) i;

--- way-over-max-dims: 100000 dimensions
SELECT ('[' || string_agg('1', ',') || ']')::vector FROM generate_series(1, 100000) i;

--- over-max-dims-unclosed: 16000 dimensions and a trailing comma
SELECT ('[' || string_agg('1', ',') || ',')::vector FROM generate_series(1, 16000) i;

--- pg-typeof: the type's name
SELECT pg_typeof('[1]'::vector), format_type('vector'::regtype, 3), format_type('vector'::regtype, -1);

--- array-of-vectors: text form of vector[]
SELECT ARRAY['[1,2]'::vector, '[3,4]'], '{"[1,2]","[3]"}'::vector[], '{"[1,2]"}'::vector(2)[];

--- array-of-vectors-mismatch: vector(2)[] checks each element
SELECT '{"[1,2]","[3]"}'::vector(2)[];

--- json: vector in JSON
SELECT to_json('[1,2]'::vector), json_build_object('e', '[1,2.5]'::vector), row_to_json(t) FROM (SELECT '[1]'::vector AS v) t;

--- size: bytes of a vector
SELECT pg_column_size('[1]'::vector), pg_column_size('[1,2,3]'::vector);
