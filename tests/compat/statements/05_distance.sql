-- Distance operators and functions of vector, halfvec and sparsevec

--- setup
CREATE TABLE pairs (id int PRIMARY KEY, a vector, b vector);
INSERT INTO pairs SELECT i, ('[' || string_agg(sin(i * 1000 + j)::float4::text, ',' ORDER BY j) || ']')::vector,
                            ('[' || string_agg(cos(i * 700 + j * 3)::float4::text, ',' ORDER BY j) || ']')::vector
  FROM generate_series(1, 40) i, LATERAL generate_series(1, i) j GROUP BY i;

--- vector-l2-op: <-> on vector
SELECT '[1,2,3]'::vector <-> '[4,-5,6.5]', '[4,-5,6.5]'::vector <-> '[1,2,3]', '[1,2,3]'::vector <-> '[1,2,3]';

--- vector-l2-fn: l2_distance on vector
SELECT l2_distance('[1,2,3]'::vector, '[4,-5,6.5]'), l2_distance('[1,2,3]'::vector, '[1,2,3]');

--- vector-l2-dims: <-> with different dimensions
SELECT '[1,2,3]'::vector <-> '[1,2]';

--- vector-l2-fn-dims: l2_distance with different dimensions
SELECT l2_distance('[1,2]'::vector, '[1,2,3]');

--- vector-l2-zero: <-> with a zero vector
SELECT '[1,2,3]'::vector <-> '[0,0,0]', '[0,0,0]'::vector <-> '[1,2,3]', '[0,0,0]'::vector <-> '[0,0,0]';

--- vector-l2-null: <-> with NULL
SELECT '[1,2,3]'::vector <-> NULL, NULL::vector <-> '[1,2,3]', l2_distance('[1,2,3]'::vector, NULL);

--- vector-l2-large: <-> at the end of the range
SELECT '[3e38,1]'::vector <-> '[-3e38,1]';

--- vector-l2-lengths: <-> for every length from 1 to 40
SELECT id, a::vector <-> b::vector FROM pairs ORDER BY id;

--- vector-ip-op: <#> on vector
SELECT '[1,2,3]'::vector <#> '[4,-5,6.5]', '[4,-5,6.5]'::vector <#> '[1,2,3]', '[1,2,3]'::vector <#> '[1,2,3]';

--- vector-ip-fn: inner_product on vector
SELECT inner_product('[1,2,3]'::vector, '[4,-5,6.5]'), inner_product('[1,2,3]'::vector, '[1,2,3]');

--- vector-ip-dims: <#> with different dimensions
SELECT '[1,2,3]'::vector <#> '[1,2]';

--- vector-ip-fn-dims: inner_product with different dimensions
SELECT inner_product('[1,2]'::vector, '[1,2,3]');

--- vector-ip-zero: <#> with a zero vector
SELECT '[1,2,3]'::vector <#> '[0,0,0]', '[0,0,0]'::vector <#> '[1,2,3]', '[0,0,0]'::vector <#> '[0,0,0]';

--- vector-ip-null: <#> with NULL
SELECT '[1,2,3]'::vector <#> NULL, NULL::vector <#> '[1,2,3]', inner_product('[1,2,3]'::vector, NULL);

--- vector-ip-large: <#> at the end of the range
SELECT '[3e38,1]'::vector <#> '[-3e38,1]';

--- vector-ip-lengths: <#> for every length from 1 to 40
-- @absolute 5e-7
SELECT id, a::vector <#> b::vector FROM pairs ORDER BY id;

--- vector-cosine-op: <=> on vector
SELECT '[1,2,3]'::vector <=> '[4,-5,6.5]', '[4,-5,6.5]'::vector <=> '[1,2,3]', '[1,2,3]'::vector <=> '[1,2,3]';

--- vector-cosine-fn: cosine_distance on vector
SELECT cosine_distance('[1,2,3]'::vector, '[4,-5,6.5]'), cosine_distance('[1,2,3]'::vector, '[1,2,3]');

--- vector-cosine-dims: <=> with different dimensions
SELECT '[1,2,3]'::vector <=> '[1,2]';

--- vector-cosine-fn-dims: cosine_distance with different dimensions
SELECT cosine_distance('[1,2]'::vector, '[1,2,3]');

--- vector-cosine-zero: <=> with a zero vector
SELECT '[1,2,3]'::vector <=> '[0,0,0]', '[0,0,0]'::vector <=> '[1,2,3]', '[0,0,0]'::vector <=> '[0,0,0]';

--- vector-cosine-null: <=> with NULL
SELECT '[1,2,3]'::vector <=> NULL, NULL::vector <=> '[1,2,3]', cosine_distance('[1,2,3]'::vector, NULL);

--- vector-cosine-large: <=> at the end of the range
SELECT '[3e38,1]'::vector <=> '[-3e38,1]';

--- vector-cosine-lengths: <=> for every length from 1 to 40
-- @absolute 5e-7
SELECT id, a::vector <=> b::vector FROM pairs ORDER BY id;

--- vector-l1-op: <+> on vector
SELECT '[1,2,3]'::vector <+> '[4,-5,6.5]', '[4,-5,6.5]'::vector <+> '[1,2,3]', '[1,2,3]'::vector <+> '[1,2,3]';

--- vector-l1-fn: l1_distance on vector
SELECT l1_distance('[1,2,3]'::vector, '[4,-5,6.5]'), l1_distance('[1,2,3]'::vector, '[1,2,3]');

--- vector-l1-dims: <+> with different dimensions
SELECT '[1,2,3]'::vector <+> '[1,2]';

--- vector-l1-fn-dims: l1_distance with different dimensions
SELECT l1_distance('[1,2]'::vector, '[1,2,3]');

--- vector-l1-zero: <+> with a zero vector
SELECT '[1,2,3]'::vector <+> '[0,0,0]', '[0,0,0]'::vector <+> '[1,2,3]', '[0,0,0]'::vector <+> '[0,0,0]';

--- vector-l1-null: <+> with NULL
SELECT '[1,2,3]'::vector <+> NULL, NULL::vector <+> '[1,2,3]', l1_distance('[1,2,3]'::vector, NULL);

--- vector-l1-large: <+> at the end of the range
SELECT '[3e38,1]'::vector <+> '[-3e38,1]';

--- vector-l1-lengths: <+> for every length from 1 to 40
SELECT id, a::vector <+> b::vector FROM pairs ORDER BY id;

--- halfvec-l2-op: <-> on halfvec
SELECT '[1,2,3]'::halfvec <-> '[4,-5,6.5]', '[4,-5,6.5]'::halfvec <-> '[1,2,3]', '[1,2,3]'::halfvec <-> '[1,2,3]';

--- halfvec-l2-fn: l2_distance on halfvec
SELECT l2_distance('[1,2,3]'::halfvec, '[4,-5,6.5]'), l2_distance('[1,2,3]'::halfvec, '[1,2,3]');

--- halfvec-l2-dims: <-> with different dimensions
SELECT '[1,2,3]'::halfvec <-> '[1,2]';

--- halfvec-l2-fn-dims: l2_distance with different dimensions
SELECT l2_distance('[1,2]'::halfvec, '[1,2,3]');

--- halfvec-l2-zero: <-> with a zero vector
SELECT '[1,2,3]'::halfvec <-> '[0,0,0]', '[0,0,0]'::halfvec <-> '[1,2,3]', '[0,0,0]'::halfvec <-> '[0,0,0]';

--- halfvec-l2-null: <-> with NULL
SELECT '[1,2,3]'::halfvec <-> NULL, NULL::halfvec <-> '[1,2,3]', l2_distance('[1,2,3]'::halfvec, NULL);

--- halfvec-l2-large: <-> at the end of the range
SELECT '[65504,65504]'::halfvec <-> '[-65504,-65504]';

--- halfvec-l2-lengths: <-> for every length from 1 to 40
SELECT id, a::halfvec <-> b::halfvec FROM pairs ORDER BY id;

--- halfvec-ip-op: <#> on halfvec
SELECT '[1,2,3]'::halfvec <#> '[4,-5,6.5]', '[4,-5,6.5]'::halfvec <#> '[1,2,3]', '[1,2,3]'::halfvec <#> '[1,2,3]';

--- halfvec-ip-fn: inner_product on halfvec
SELECT inner_product('[1,2,3]'::halfvec, '[4,-5,6.5]'), inner_product('[1,2,3]'::halfvec, '[1,2,3]');

--- halfvec-ip-dims: <#> with different dimensions
SELECT '[1,2,3]'::halfvec <#> '[1,2]';

--- halfvec-ip-fn-dims: inner_product with different dimensions
SELECT inner_product('[1,2]'::halfvec, '[1,2,3]');

--- halfvec-ip-zero: <#> with a zero vector
SELECT '[1,2,3]'::halfvec <#> '[0,0,0]', '[0,0,0]'::halfvec <#> '[1,2,3]', '[0,0,0]'::halfvec <#> '[0,0,0]';

--- halfvec-ip-null: <#> with NULL
SELECT '[1,2,3]'::halfvec <#> NULL, NULL::halfvec <#> '[1,2,3]', inner_product('[1,2,3]'::halfvec, NULL);

--- halfvec-ip-large: <#> at the end of the range
SELECT '[65504,65504]'::halfvec <#> '[-65504,-65504]';

--- halfvec-ip-lengths: <#> for every length from 1 to 40
-- @absolute 5e-7
SELECT id, a::halfvec <#> b::halfvec FROM pairs ORDER BY id;

--- halfvec-cosine-op: <=> on halfvec
SELECT '[1,2,3]'::halfvec <=> '[4,-5,6.5]', '[4,-5,6.5]'::halfvec <=> '[1,2,3]', '[1,2,3]'::halfvec <=> '[1,2,3]';

--- halfvec-cosine-fn: cosine_distance on halfvec
SELECT cosine_distance('[1,2,3]'::halfvec, '[4,-5,6.5]'), cosine_distance('[1,2,3]'::halfvec, '[1,2,3]');

--- halfvec-cosine-dims: <=> with different dimensions
SELECT '[1,2,3]'::halfvec <=> '[1,2]';

--- halfvec-cosine-fn-dims: cosine_distance with different dimensions
SELECT cosine_distance('[1,2]'::halfvec, '[1,2,3]');

--- halfvec-cosine-zero: <=> with a zero vector
SELECT '[1,2,3]'::halfvec <=> '[0,0,0]', '[0,0,0]'::halfvec <=> '[1,2,3]', '[0,0,0]'::halfvec <=> '[0,0,0]';

--- halfvec-cosine-null: <=> with NULL
SELECT '[1,2,3]'::halfvec <=> NULL, NULL::halfvec <=> '[1,2,3]', cosine_distance('[1,2,3]'::halfvec, NULL);

--- halfvec-cosine-large: <=> at the end of the range
SELECT '[65504,65504]'::halfvec <=> '[-65504,-65504]';

--- halfvec-cosine-lengths: <=> for every length from 1 to 40
-- @absolute 5e-7
SELECT id, a::halfvec <=> b::halfvec FROM pairs ORDER BY id;

--- halfvec-l1-op: <+> on halfvec
SELECT '[1,2,3]'::halfvec <+> '[4,-5,6.5]', '[4,-5,6.5]'::halfvec <+> '[1,2,3]', '[1,2,3]'::halfvec <+> '[1,2,3]';

--- halfvec-l1-fn: l1_distance on halfvec
SELECT l1_distance('[1,2,3]'::halfvec, '[4,-5,6.5]'), l1_distance('[1,2,3]'::halfvec, '[1,2,3]');

--- halfvec-l1-dims: <+> with different dimensions
SELECT '[1,2,3]'::halfvec <+> '[1,2]';

--- halfvec-l1-fn-dims: l1_distance with different dimensions
SELECT l1_distance('[1,2]'::halfvec, '[1,2,3]');

--- halfvec-l1-zero: <+> with a zero vector
SELECT '[1,2,3]'::halfvec <+> '[0,0,0]', '[0,0,0]'::halfvec <+> '[1,2,3]', '[0,0,0]'::halfvec <+> '[0,0,0]';

--- halfvec-l1-null: <+> with NULL
SELECT '[1,2,3]'::halfvec <+> NULL, NULL::halfvec <+> '[1,2,3]', l1_distance('[1,2,3]'::halfvec, NULL);

--- halfvec-l1-large: <+> at the end of the range
SELECT '[65504,65504]'::halfvec <+> '[-65504,-65504]';

--- halfvec-l1-lengths: <+> for every length from 1 to 40
SELECT id, a::halfvec <+> b::halfvec FROM pairs ORDER BY id;

--- sparsevec-l2-op: <-> on sparsevec
SELECT '{1:1,2:2,3:3}/3'::sparsevec <-> '{1:4,2:-5,3:6.5}/3', '{1:4,2:-5,3:6.5}/3'::sparsevec <-> '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec <-> '{1:1,2:2,3:3}/3';

--- sparsevec-l2-fn: l2_distance on sparsevec
SELECT l2_distance('{1:1,2:2,3:3}/3'::sparsevec, '{1:4,2:-5,3:6.5}/3'), l2_distance('{1:1,2:2,3:3}/3'::sparsevec, '{1:1,2:2,3:3}/3');

--- sparsevec-l2-dims: <-> with different dimensions
SELECT '{1:1,2:2,3:3}/3'::sparsevec <-> '{1:1,2:2}/2';

--- sparsevec-l2-fn-dims: l2_distance with different dimensions
SELECT l2_distance('{1:1,2:2}/2'::sparsevec, '{1:1,2:2,3:3}/3');

--- sparsevec-l2-zero: <-> with a zero vector
SELECT '{1:1,2:2,3:3}/3'::sparsevec <-> '{}/3', '{}/3'::sparsevec <-> '{1:1,2:2,3:3}/3', '{}/3'::sparsevec <-> '{}/3';

--- sparsevec-l2-null: <-> with NULL
SELECT '{1:1,2:2,3:3}/3'::sparsevec <-> NULL, NULL::sparsevec <-> '{1:1,2:2,3:3}/3', l2_distance('{1:1,2:2,3:3}/3'::sparsevec, NULL);

--- sparsevec-l2-large: <-> at the end of the range
SELECT '{1:3e38}/2'::sparsevec <-> '{1:-3e38}/2';

--- sparsevec-l2-lengths: <-> for every length from 1 to 40
SELECT id, a::sparsevec <-> b::sparsevec FROM pairs ORDER BY id;

--- sparsevec-ip-op: <#> on sparsevec
SELECT '{1:1,2:2,3:3}/3'::sparsevec <#> '{1:4,2:-5,3:6.5}/3', '{1:4,2:-5,3:6.5}/3'::sparsevec <#> '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec <#> '{1:1,2:2,3:3}/3';

--- sparsevec-ip-fn: inner_product on sparsevec
SELECT inner_product('{1:1,2:2,3:3}/3'::sparsevec, '{1:4,2:-5,3:6.5}/3'), inner_product('{1:1,2:2,3:3}/3'::sparsevec, '{1:1,2:2,3:3}/3');

--- sparsevec-ip-dims: <#> with different dimensions
SELECT '{1:1,2:2,3:3}/3'::sparsevec <#> '{1:1,2:2}/2';

--- sparsevec-ip-fn-dims: inner_product with different dimensions
SELECT inner_product('{1:1,2:2}/2'::sparsevec, '{1:1,2:2,3:3}/3');

--- sparsevec-ip-zero: <#> with a zero vector
SELECT '{1:1,2:2,3:3}/3'::sparsevec <#> '{}/3', '{}/3'::sparsevec <#> '{1:1,2:2,3:3}/3', '{}/3'::sparsevec <#> '{}/3';

--- sparsevec-ip-null: <#> with NULL
SELECT '{1:1,2:2,3:3}/3'::sparsevec <#> NULL, NULL::sparsevec <#> '{1:1,2:2,3:3}/3', inner_product('{1:1,2:2,3:3}/3'::sparsevec, NULL);

--- sparsevec-ip-large: <#> at the end of the range
SELECT '{1:3e38}/2'::sparsevec <#> '{1:-3e38}/2';

--- sparsevec-ip-lengths: <#> for every length from 1 to 40
-- @absolute 5e-7
SELECT id, a::sparsevec <#> b::sparsevec FROM pairs ORDER BY id;

--- sparsevec-cosine-op: <=> on sparsevec
SELECT '{1:1,2:2,3:3}/3'::sparsevec <=> '{1:4,2:-5,3:6.5}/3', '{1:4,2:-5,3:6.5}/3'::sparsevec <=> '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec <=> '{1:1,2:2,3:3}/3';

--- sparsevec-cosine-fn: cosine_distance on sparsevec
SELECT cosine_distance('{1:1,2:2,3:3}/3'::sparsevec, '{1:4,2:-5,3:6.5}/3'), cosine_distance('{1:1,2:2,3:3}/3'::sparsevec, '{1:1,2:2,3:3}/3');

--- sparsevec-cosine-dims: <=> with different dimensions
SELECT '{1:1,2:2,3:3}/3'::sparsevec <=> '{1:1,2:2}/2';

--- sparsevec-cosine-fn-dims: cosine_distance with different dimensions
SELECT cosine_distance('{1:1,2:2}/2'::sparsevec, '{1:1,2:2,3:3}/3');

--- sparsevec-cosine-zero: <=> with a zero vector
SELECT '{1:1,2:2,3:3}/3'::sparsevec <=> '{}/3', '{}/3'::sparsevec <=> '{1:1,2:2,3:3}/3', '{}/3'::sparsevec <=> '{}/3';

--- sparsevec-cosine-null: <=> with NULL
SELECT '{1:1,2:2,3:3}/3'::sparsevec <=> NULL, NULL::sparsevec <=> '{1:1,2:2,3:3}/3', cosine_distance('{1:1,2:2,3:3}/3'::sparsevec, NULL);

--- sparsevec-cosine-large: <=> at the end of the range
SELECT '{1:3e38}/2'::sparsevec <=> '{1:-3e38}/2';

--- sparsevec-cosine-lengths: <=> for every length from 1 to 40
-- @absolute 5e-7
SELECT id, a::sparsevec <=> b::sparsevec FROM pairs ORDER BY id;

--- sparsevec-l1-op: <+> on sparsevec
SELECT '{1:1,2:2,3:3}/3'::sparsevec <+> '{1:4,2:-5,3:6.5}/3', '{1:4,2:-5,3:6.5}/3'::sparsevec <+> '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec <+> '{1:1,2:2,3:3}/3';

--- sparsevec-l1-fn: l1_distance on sparsevec
SELECT l1_distance('{1:1,2:2,3:3}/3'::sparsevec, '{1:4,2:-5,3:6.5}/3'), l1_distance('{1:1,2:2,3:3}/3'::sparsevec, '{1:1,2:2,3:3}/3');

--- sparsevec-l1-dims: <+> with different dimensions
SELECT '{1:1,2:2,3:3}/3'::sparsevec <+> '{1:1,2:2}/2';

--- sparsevec-l1-fn-dims: l1_distance with different dimensions
SELECT l1_distance('{1:1,2:2}/2'::sparsevec, '{1:1,2:2,3:3}/3');

--- sparsevec-l1-zero: <+> with a zero vector
SELECT '{1:1,2:2,3:3}/3'::sparsevec <+> '{}/3', '{}/3'::sparsevec <+> '{1:1,2:2,3:3}/3', '{}/3'::sparsevec <+> '{}/3';

--- sparsevec-l1-null: <+> with NULL
SELECT '{1:1,2:2,3:3}/3'::sparsevec <+> NULL, NULL::sparsevec <+> '{1:1,2:2,3:3}/3', l1_distance('{1:1,2:2,3:3}/3'::sparsevec, NULL);

--- sparsevec-l1-large: <+> at the end of the range
SELECT '{1:3e38}/2'::sparsevec <+> '{1:-3e38}/2';

--- sparsevec-l1-lengths: <+> for every length from 1 to 40
SELECT id, a::sparsevec <+> b::sparsevec FROM pairs ORDER BY id;

--- cosine-range: never below 0 nor above 2
SELECT '[0.1,0.2,0.3]'::vector <=> '[0.2,0.4,0.6]', '[1,1]'::vector <=> '[1.1,1.1]', '[1,1]'::vector <=> '[-1.1,-1.1]';

--- cosine-large: norms that do not fit
SELECT cosine_distance('[3e38]'::vector, '[3e38]'), cosine_distance('[1e-30,1]'::vector, '[1,0]');

--- inner-product-sign: <#> is the negative inner product
SELECT '[1,2]'::vector <#> '[3,4]', inner_product('[1,2]'::vector, '[3,4]'), '[0,0]'::vector <#> '[3,4]';

--- sparse-overlap-none: no common index
SELECT '{1:1,3:2}/6'::sparsevec <-> '{2:3,6:4}/6', '{1:1,3:2}/6'::sparsevec <#> '{2:3,6:4}/6', '{1:1,3:2}/6'::sparsevec <+> '{2:3,6:4}/6', '{1:1,3:2}/6'::sparsevec <=> '{2:3,6:4}/6';

--- sparse-overlap-some: some common indices
SELECT '{1:1,3:2,5:1}/6'::sparsevec <-> '{1:2,2:3,5:4,6:4}/6', '{1:1,3:2,5:1}/6'::sparsevec <#> '{1:2,2:3,5:4,6:4}/6', '{1:1,3:2,5:1}/6'::sparsevec <+> '{1:2,2:3,5:4,6:4}/6', '{1:1,3:2,5:1}/6'::sparsevec <=> '{1:2,2:3,5:4,6:4}/6';

--- sparse-one-empty: one side without elements
SELECT '{}/3'::sparsevec <-> '{1:3,2:4}/3', '{1:3,2:4}/3'::sparsevec <+> '{}/3';

--- sparse-dense-agree: sparsevec and vector give the same
SELECT count(*) FROM pairs WHERE abs((a <-> b) - (a::sparsevec <-> b::sparsevec)) > 1e-5 OR abs((a <+> b) - (a::sparsevec <+> b::sparsevec)) > 1e-4;

--- order-by-distance: the everyday query
SELECT id FROM (VALUES (1, '[1,1]'::vector), (2, '[5,5]'), (3, '[2,2]'), (4, NULL)) t(id, v) ORDER BY v <-> '[2,3]' LIMIT 3;

--- where-distance: a distance in WHERE
SELECT id FROM (VALUES (1, '[1,1]'::vector), (2, '[5,5]'), (3, '[2,2]')) t(id, v) WHERE v <-> '[2,2]' < 3 ORDER BY id;

--- max-dims-distance: 16000 dimensions
SELECT a <-> b, a <#> b, a <=> b, a <+> b FROM (SELECT array_fill(1, ARRAY[16000])::vector AS a, array_fill(3, ARRAY[16000])::vector AS b) s;

--- max-dims-distance-halfvec: 16000 dimensions
SELECT a <-> b, a <#> b, a <=> b, a <+> b FROM (SELECT array_fill(1, ARRAY[16000])::halfvec AS a, array_fill(3, ARRAY[16000])::halfvec AS b) s;

--- unknown-literals: two untyped literals are no vectors
SELECT '[1,2]' <-> '[3,4]';

--- unknown-right: the untyped side takes the other's type
SELECT pg_typeof('[1,2]'::halfvec <-> '[3,4]');

--- mixed-vector-halfvec: vector with halfvec
SELECT '[1,2]'::vector <-> '[3,4]'::halfvec;

--- mixed-vector-sparsevec: vector with sparsevec
SELECT '[1,2]'::vector <-> '{1:1}/2'::sparsevec;

--- mixed-vector-array: vector with an array
SELECT '[1,2]'::vector <-> ARRAY[3,4];

--- mixed-vector-float-array: vector with real[]
SELECT '[1,2]'::vector <-> ARRAY[3,4]::real[];

--- array-parameter: a prepared parameter takes the column's type
PREPARE near AS SELECT id FROM (VALUES (1, '[1,1]'::vector), (2, '[5,5]')) t(id, v) ORDER BY v <-> $1; EXECUTE near('[4,4]');

--- hamming-on-vector: bit operators do not take vectors
SELECT '[1,2]'::vector <~> '[1,2]'::vector;
