-- + - * and || on vector and halfvec

--- vector-add: vector + vector
SELECT '[1,2,3]'::vector + '[4,5.5,-6]', pg_typeof('[1]'::vector + '[2]');

--- vector-add-fn: the function of +
SELECT vector_add('[1,2]', '[3,4]');

--- vector-add-null: + with NULL
SELECT '[1,2,3]'::vector + NULL, NULL::vector + '[1]';

--- vector-add-dims: + with different dimensions
SELECT '[1,2,3]'::vector + '[1,2]';

--- vector-sub: vector - vector
SELECT '[1,2,3]'::vector - '[4,5.5,-6]', pg_typeof('[1]'::vector - '[2]');

--- vector-sub-fn: the function of -
SELECT vector_sub('[1,2]', '[3,4]');

--- vector-sub-null: - with NULL
SELECT '[1,2,3]'::vector - NULL, NULL::vector - '[1]';

--- vector-sub-dims: - with different dimensions
SELECT '[1,2,3]'::vector - '[1,2]';

--- vector-mul: vector * vector
SELECT '[1,2,3]'::vector * '[4,5.5,-6]', pg_typeof('[1]'::vector * '[2]');

--- vector-mul-fn: the function of *
SELECT vector_mul('[1,2]', '[3,4]');

--- vector-mul-null: * with NULL
SELECT '[1,2,3]'::vector * NULL, NULL::vector * '[1]';

--- vector-mul-dims: * with different dimensions
SELECT '[1,2,3]'::vector * '[1,2]';

--- vector-concat: vector || vector
SELECT '[1,2,3]'::vector || '[4,5.5,-6]', pg_typeof('[1]'::vector || '[2]');

--- vector-concat-fn: the function of ||
SELECT vector_concat('[1,2]', '[3,4]');

--- vector-concat-null: || with NULL
SELECT '[1,2,3]'::vector || NULL, NULL::vector || '[1]';

--- vector-concat-dims: || with different dimensions
SELECT '[1,2,3]'::vector || '[1,2]';

--- vector-add-overflow: + beyond the range
SELECT '[1,3e38]'::vector + '[1,3e38]';

--- vector-sub-overflow: - beyond the range
SELECT '[-3e38]'::vector - '[3e38]';

--- vector-mul-overflow: * beyond the range
SELECT '[1,3e38]'::vector * '[1,3e38]';

--- vector-mul-underflow: * below the range
SELECT '[1,1e-37]'::vector * '[1,1e-37]';

--- vector-mul-negative-underflow: * below the range, negative
SELECT '[-1e-37]'::vector * '[1e-37]';

--- vector-mul-zero: * with zeros does not underflow
SELECT '[0,1e-37]'::vector * '[1e-37,0]';

--- vector-sub-cancel: - that cancels out
SELECT '[3e38,1]'::vector - '[3e38,1]';

--- vector-rounding: results are rounded to the element type
SELECT '[0.1,0.3]'::vector + '[0.2,0.6]', '[0.1,0.3]'::vector * '[0.2,0.6]', '[0.1,0.3]'::vector - '[0.2,0.6]';

--- vector-concat-max: || up to 16000 dimensions
SELECT vector_dims(array_fill(1, ARRAY[8000])::vector || array_fill(1, ARRAY[8000])::vector);

--- vector-concat-over-max: || beyond 16000 dimensions
SELECT array_fill(1, ARRAY[8000])::vector || array_fill(1, ARRAY[8001])::vector;

--- vector-lengths: + - * for lengths from 1 to 40
SELECT n, md5((a + a)::text || (a - b)::text || (a * b)::text) FROM (SELECT n, array_agg(i * 0.5 ORDER BY i)::vector AS a, array_agg(i * 0.25 - 3 ORDER BY i)::vector AS b FROM generate_series(1, 40) n, LATERAL generate_series(1, n) i GROUP BY n) s ORDER BY n;

--- halfvec-add: halfvec + halfvec
SELECT '[1,2,3]'::halfvec + '[4,5.5,-6]', pg_typeof('[1]'::halfvec + '[2]');

--- halfvec-add-fn: the function of +
SELECT halfvec_add('[1,2]', '[3,4]');

--- halfvec-add-null: + with NULL
SELECT '[1,2,3]'::halfvec + NULL, NULL::halfvec + '[1]';

--- halfvec-add-dims: + with different dimensions
SELECT '[1,2,3]'::halfvec + '[1,2]';

--- halfvec-sub: halfvec - halfvec
SELECT '[1,2,3]'::halfvec - '[4,5.5,-6]', pg_typeof('[1]'::halfvec - '[2]');

--- halfvec-sub-fn: the function of -
SELECT halfvec_sub('[1,2]', '[3,4]');

--- halfvec-sub-null: - with NULL
SELECT '[1,2,3]'::halfvec - NULL, NULL::halfvec - '[1]';

--- halfvec-sub-dims: - with different dimensions
SELECT '[1,2,3]'::halfvec - '[1,2]';

--- halfvec-mul: halfvec * halfvec
SELECT '[1,2,3]'::halfvec * '[4,5.5,-6]', pg_typeof('[1]'::halfvec * '[2]');

--- halfvec-mul-fn: the function of *
SELECT halfvec_mul('[1,2]', '[3,4]');

--- halfvec-mul-null: * with NULL
SELECT '[1,2,3]'::halfvec * NULL, NULL::halfvec * '[1]';

--- halfvec-mul-dims: * with different dimensions
SELECT '[1,2,3]'::halfvec * '[1,2]';

--- halfvec-concat: halfvec || halfvec
SELECT '[1,2,3]'::halfvec || '[4,5.5,-6]', pg_typeof('[1]'::halfvec || '[2]');

--- halfvec-concat-fn: the function of ||
SELECT halfvec_concat('[1,2]', '[3,4]');

--- halfvec-concat-null: || with NULL
SELECT '[1,2,3]'::halfvec || NULL, NULL::halfvec || '[1]';

--- halfvec-concat-dims: || with different dimensions
SELECT '[1,2,3]'::halfvec || '[1,2]';

--- halfvec-add-overflow: + beyond the range
SELECT '[1,65504]'::halfvec + '[1,65504]';

--- halfvec-sub-overflow: - beyond the range
SELECT '[-65504]'::halfvec - '[65504]';

--- halfvec-mul-overflow: * beyond the range
SELECT '[1,65504]'::halfvec * '[1,65504]';

--- halfvec-mul-underflow: * below the range
SELECT '[1,1e-7]'::halfvec * '[1,1e-7]';

--- halfvec-mul-negative-underflow: * below the range, negative
SELECT '[-1e-7]'::halfvec * '[1e-7]';

--- halfvec-mul-zero: * with zeros does not underflow
SELECT '[0,1e-7]'::halfvec * '[1e-7,0]';

--- halfvec-sub-cancel: - that cancels out
SELECT '[65504,1]'::halfvec - '[65504,1]';

--- halfvec-rounding: results are rounded to the element type
SELECT '[0.1,0.3]'::halfvec + '[0.2,0.6]', '[0.1,0.3]'::halfvec * '[0.2,0.6]', '[0.1,0.3]'::halfvec - '[0.2,0.6]';

--- halfvec-concat-max: || up to 16000 dimensions
SELECT vector_dims(array_fill(1, ARRAY[8000])::halfvec || array_fill(1, ARRAY[8000])::halfvec);

--- halfvec-concat-over-max: || beyond 16000 dimensions
SELECT array_fill(1, ARRAY[8000])::halfvec || array_fill(1, ARRAY[8001])::halfvec;

--- halfvec-lengths: + - * for lengths from 1 to 40
SELECT n, md5((a + a)::text || (a - b)::text || (a * b)::text) FROM (SELECT n, array_agg(i * 0.5 ORDER BY i)::halfvec AS a, array_agg(i * 0.25 - 3 ORDER BY i)::halfvec AS b FROM generate_series(1, 40) n, LATERAL generate_series(1, n) i GROUP BY n) s ORDER BY n;

--- half-overflow-edge: halfvec sums that just round down or up
SELECT '[65504]'::halfvec + '[15]';

--- half-overflow-edge-up: halfvec sum that rounds up to infinity
SELECT '[65504]'::halfvec + '[16]';

--- sparsevec-add: no + for sparsevec
SELECT '{1:1}/2'::sparsevec + '{1:1}/2'::sparsevec;

--- sparsevec-concat: no || for sparsevec
SELECT '{1:1}/2'::sparsevec || '{1:1}/2'::sparsevec;

--- divide: no / for vector
SELECT '[1]'::vector / '[1]'::vector;

--- unary-minus: no unary minus
SELECT - '[1]'::vector;

--- scalar-multiply: no vector * number
SELECT '[1,2]'::vector * 2;

--- mixed-add: vector + halfvec
SELECT '[1,2]'::vector + '[3,4]'::halfvec;

--- mixed-concat: vector || halfvec
SELECT '[1,2]'::vector || '[3,4]'::halfvec;

--- array-concat: vector || real[]
SELECT '[1,2]'::vector || ARRAY[3,4]::real[];

--- text-concat: vector || text
SELECT '[1,2]'::vector || 'x'::text;

--- precedence: * before +, + before ||
SELECT '[1,2]'::vector + '[3,4]'::vector * '[2,2]', '[1,2]'::vector || '[3,4]'::vector + '[1,1]'::vector;
