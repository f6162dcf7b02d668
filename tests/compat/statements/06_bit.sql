-- Hamming and Jaccard distance on the built-in type bit

--- hamming-op: <~>
SELECT B'111' <~> B'111', B'111' <~> B'110', B'111' <~> B'100', B'111' <~> B'000';

--- hamming-fn: hamming_distance
SELECT hamming_distance(B'10101010', B'01010101'), hamming_distance(B'', B'');

--- jaccard-op: <%>
SELECT B'1111' <%> B'1111', B'1111' <%> B'1110', B'1111' <%> B'1100', B'1111' <%> B'1000', B'1111' <%> B'0000', B'1100' <%> B'1000';

--- jaccard-fn: jaccard_distance
SELECT jaccard_distance(B'1010', B'0110'), jaccard_distance(B'0000', B'0000'), jaccard_distance(B'', B'');

--- hamming-lengths: every length from 1 to 200
SELECT n, x <~> y FROM (SELECT n, substr(repeat('110100100010000', 20), 1, n)::bit varying AS x, substr(repeat('1011', 60), 1, n)::bit varying AS y FROM generate_series(1, 200) n) s ORDER BY n;

--- jaccard-lengths: every length from 1 to 200
SELECT n, x <%> y FROM (SELECT n, substr(repeat('110100100010000', 20), 1, n)::bit varying AS x, substr(repeat('1011', 60), 1, n)::bit varying AS y FROM generate_series(1, 200) n) s ORDER BY n;

--- hamming-dims: different lengths
SELECT B'111' <~> B'11';

--- jaccard-dims: different lengths
SELECT B'111' <%> B'1111';

--- hamming-fn-dims: different lengths, function
SELECT hamming_distance(B'1', B'');

--- jaccard-fn-dims: different lengths, function
SELECT jaccard_distance(B'1', B'');

--- null: NULL
SELECT B'1' <~> NULL, NULL <%> B'1', hamming_distance(NULL, B'1');

--- typmod: bit(n) columns
SELECT '101'::bit(3) <~> '110'::bit(3), '1'::bit(5) <%> '10001'::bit(5);

--- long: 64000 bits
SELECT repeat('10', 32000)::varbit <~> repeat('1', 64000)::varbit, repeat('10', 32000)::varbit <%> repeat('1', 64000)::varbit;

--- untyped: untyped literals
SELECT '101' <~> '110';

--- with-binary-quantize: quantized vectors
SELECT binary_quantize('[1,-1,2]'::vector) <~> binary_quantize('[-1,-1,2]'::vector), binary_quantize('[1,-1,2]'::halfvec) <%> binary_quantize('[1,1,-2]'::halfvec);

--- order-by: nearest by Hamming distance
SELECT v FROM (VALUES (B'000'), (B'101'), (B'111')) t(v) ORDER BY v <~> B'110', v;
