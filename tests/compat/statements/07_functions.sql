-- Functions: vector_dims, vector_norm, l2_norm, l2_normalize, binary_quantize, subvector

--- vector-dims: vector_dims(vector)
SELECT vector_dims('[1,2,3]'::vector), vector_dims('[1]'::vector), vector_dims(NULL::vector);

--- vector-dims-halfvec: vector_dims(halfvec)
SELECT vector_dims('[1,2,3]'::halfvec), vector_dims(NULL::halfvec);

--- vector-dims-sparsevec: vector_dims(sparsevec)
SELECT vector_dims('{1:1}/3'::sparsevec);

--- vector-dims-untyped: which vector_dims an untyped literal calls
SELECT vector_dims('[1,2,3]');

--- vector-norm: vector_norm(vector)
SELECT vector_norm('[3,4]'::vector), vector_norm('[0,1]'::vector), vector_norm('[0,0]'::vector), vector_norm(NULL);

--- vector-norm-large: a norm beyond float4
SELECT vector_norm('[3e37,4e37]'::vector), vector_norm('[3e38,3e38]'::vector);

--- vector-norm-small: a norm of subnormals
SELECT vector_norm('[3e-38,4e-38]'::vector), vector_norm('[1e-45]'::vector);

--- vector-norm-halfvec: vector_norm takes a halfvec by cast
SELECT vector_norm('[3,4]'::halfvec);

--- l2-norm-vector: l2_norm of a vector
SELECT l2_norm('[3,4]'::vector);

--- l2-norm-halfvec: l2_norm(halfvec)
SELECT l2_norm('[3,4]'::halfvec), l2_norm('[0,0]'::halfvec), l2_norm('[65504]'::halfvec), l2_norm('[5.9604645e-08]'::halfvec);

--- l2-norm-sparsevec: l2_norm(sparsevec)
SELECT l2_norm('{1:3,3:4}/5'::sparsevec), l2_norm('{}/5'::sparsevec), l2_norm('{1:3e37,2:4e37}/2'::sparsevec);

--- l2-norm-untyped: an untyped literal
SELECT l2_norm('[3,4]');

--- l2-normalize-vector: l2_normalize(vector)
SELECT l2_normalize('[3,4]'::vector), l2_normalize('[3,0]'::vector), l2_normalize('[0,0.1]'::vector);

--- l2-normalize-vector-zero: zero stays zero
SELECT l2_normalize('[0,0]'::vector);

--- l2-normalize-vector-large: norm beyond float4
SELECT l2_normalize('[3e38,0]'::vector);

--- l2-normalize-vector-small: norm of the smallest number
SELECT l2_normalize('[1e-45]'::vector);

--- l2-normalize-vector-max: norms that overflow
SELECT l2_normalize('[3e38,3e38,-3e38]'::vector);

--- l2-normalize-halfvec: l2_normalize(halfvec)
SELECT l2_normalize('[3,4]'::halfvec), l2_normalize('[0,0]'::halfvec), l2_normalize('[65504,0]'::halfvec), l2_normalize('[5.9604645e-08]'::halfvec), l2_normalize('[1,2,3]'::halfvec);

--- l2-normalize-sparsevec: l2_normalize(sparsevec)
SELECT l2_normalize('{1:3,3:4}/5'::sparsevec), l2_normalize('{}/5'::sparsevec), l2_normalize('{1:0.1}/1'::sparsevec), l2_normalize('{1:3e38}/1'::sparsevec);

--- l2-normalize-sparsevec-drop: elements that become zero are dropped
SELECT l2_normalize('{1:3e38,2:1e-8}/2'::sparsevec);

--- l2-normalize-untyped: an untyped literal
SELECT l2_normalize('[3,4]');

--- binary-quantize: one bit an element, set when positive
SELECT binary_quantize('[1,0,-1]'::vector), binary_quantize('[0,0.1,-0.2,-0.3,0.4,0.5,0.6,-0.7,0.8,-0.9,1]'::vector);

--- binary-quantize-negative-zero: minus zero and subnormals
SELECT binary_quantize('[-0,1e-45,-1e-45]'::vector);

--- binary-quantize-halfvec: binary_quantize(halfvec)
SELECT binary_quantize('[1,0,-1]'::halfvec), binary_quantize('[0,0.1,-0.2,-0.3,0.4,0.5,0.6,-0.7,0.8,-0.9,1]'::halfvec), binary_quantize('[5.9604645e-08,-0]'::halfvec);

--- binary-quantize-cast: the result as bit(n)
SELECT binary_quantize('[1,-2,3]'::vector)::bit(3), pg_typeof(binary_quantize('[1]'::vector));

--- binary-quantize-length: lengths around whole bytes
SELECT n, binary_quantize(('[' || repeat('1,', n - 1) || '1]')::vector) FROM generate_series(1, 18) n ORDER BY n;

--- binary-quantize-sparsevec: not for sparsevec
SELECT binary_quantize('{1:1}/3'::sparsevec);

--- binary-quantize-null: NULL
SELECT binary_quantize(NULL::vector);

--- subvector: from, count
SELECT subvector('[1,2,3,4,5]'::vector, 1, 3), subvector('[1,2,3,4,5]'::vector, 3, 2), subvector('[1,2,3,4,5]'::vector, 1, 5);

--- subvector-past-end: a count beyond the end is cut
SELECT subvector('[1,2,3,4,5]'::vector, 3, 9);

--- subvector-negative-start: a start before 1 uses up the count
SELECT subvector('[1,2,3,4,5]'::vector, -1, 3);

--- subvector-zero-start: start 0
SELECT subvector('[1,2,3,4,5]'::vector, 0, 2);

--- subvector-start-past-end: nothing left
SELECT subvector('[1,2,3]'::vector, 4, 1);

--- subvector-before-start: ends before the first
SELECT subvector('[1,2,3]'::vector, -5, 3);

--- subvector-zero-count: count 0
SELECT subvector('[1,2,3]'::vector, 1, 0);

--- subvector-negative-count: negative count
SELECT subvector('[1,2,3]'::vector, 1, -1);

--- subvector-int-max: largest count
SELECT subvector('[1,2,3,4,5]'::vector, 3, 2147483647);

--- subvector-int-max-start: largest start and count
SELECT subvector('[1,2,3,4,5]'::vector, 2147483647, 2147483647);

--- subvector-int-min-start: smallest start
SELECT subvector('[1,2,3,4,5]'::vector, -2147483648, 2147483647);

--- subvector-int-min-count: smallest count
SELECT subvector('[1,2,3,4,5]'::vector, -2147483648, -2147483648);

--- subvector-halfvec: from, count
SELECT subvector('[1,2,3,4,5]'::halfvec, 1, 3), subvector('[1,2,3,4,5]'::halfvec, -1, 3), subvector('[1,2,3,4,5]'::halfvec, 4, 10);

--- subvector-halfvec-zero-count: count 0
SELECT subvector('[1,2,3]'::halfvec, 1, 0);

--- subvector-halfvec-past-end: nothing left
SELECT subvector('[1,2,3]'::halfvec, 4, 1);

--- subvector-halfvec-int-max: largest start and count
SELECT subvector('[1,2,3,4,5]'::halfvec, 2147483647, 2147483647);

--- subvector-typmod: the result has no typmod
SELECT subvector('[1,2,3]'::vector(3), 1, 2)::vector(2);

--- subvector-null: NULL
SELECT subvector('[1,2,3]'::vector, NULL, 2), subvector(NULL::vector, 1, 2);

--- send-and-out-functions: functions with cstring
SELECT vector_out('[1,2]'::vector), halfvec_out('[1,2]'::halfvec), sparsevec_out('{1:1}/2'::sparsevec);

--- typmod-functions: typmod functions called by hand
SELECT vector_typmod_in('{3}'), halfvec_typmod_in('{3}'), sparsevec_typmod_in('{3}');

--- squared-and-negative-functions: the functions behind operators and index support
SELECT vector_l2_squared_distance('[1,2]', '[4,6]'), vector_negative_inner_product('[1,2]', '[3,4]'), halfvec_l2_squared_distance('[1,2]', '[4,6]'), halfvec_negative_inner_product('[1,2]', '[3,4]'), sparsevec_l2_squared_distance('{1:1}/2', '{2:2}/2'), sparsevec_negative_inner_product('{1:2}/2', '{1:3}/2');
