-- avg and sum

--- setup
CREATE TABLE a_vector (g int, v vector); CREATE TABLE a_halfvec (g int, v halfvec); CREATE TABLE a_sparsevec (g int, v sparsevec);
INSERT INTO a_vector VALUES (1, '[1,2,3]'), (1, '[2,3,5.5]'), (2, '[0.1,0.2,0.3]'), (2, NULL), (3, NULL), (1, '[-4,0,1]');
INSERT INTO a_halfvec SELECT g, v::halfvec FROM a_vector; INSERT INTO a_sparsevec SELECT g, v::sparsevec FROM a_vector;
CREATE TABLE a_big (id int, v vector(4), h halfvec(4)) WITH (parallel_workers = 2);
INSERT INTO a_big SELECT i, ARRAY[i, i % 7, -i % 5, 0.5]::vector, ARRAY[i % 3, i % 7, -i % 5, 0.5]::halfvec FROM generate_series(1, 3000) i;
ANALYZE a_big;

--- vector-avg: avg(vector)
SELECT avg(v), pg_typeof(avg(v)) FROM a_vector;

--- vector-avg-group: avg with GROUP BY; a group of NULLs
SELECT g, avg(v) FROM a_vector GROUP BY g ORDER BY g;

--- vector-avg-empty: avg of no rows
SELECT avg(v) FROM a_vector WHERE false;

--- vector-avg-null: avg of NULLs
SELECT avg(v) FROM a_vector WHERE v IS NULL;

--- vector-avg-one: avg of one row
SELECT avg(v) FROM a_vector WHERE g = 2;

--- vector-avg-dims: avg over different dimensions
SELECT avg(v) FROM (VALUES ('[1,2]'::vector), ('[3]')) s(v);

--- vector-avg-overflow: avg beyond the range
SELECT avg(v) FROM (VALUES ('[1,3e38]'::vector), ('[1,3e38]'), ('[1,3e38]')) s(v);

--- vector-avg-filter: avg with FILTER and DISTINCT
SELECT avg(v) FILTER (WHERE g = 1), avg(DISTINCT v) FROM a_vector;

--- vector-avg-over: avg as a window function
SELECT g, avg(v) OVER (ORDER BY g, v) FROM a_vector ORDER BY g, v;

--- vector-avg-parallel: avg by parallel workers
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2; SELECT avg(v) FROM a_big;

--- vector-avg-parallel-plan: plan of that aggregate
EXPLAIN (COSTS OFF) SELECT avg(v) FROM a_big;

--- vector-avg-serial: the same without workers
SET max_parallel_workers_per_gather = 0; SELECT avg(v) FROM a_big;

--- vector-avg-max-dims: avg of 16000 dimensions
SELECT md5(avg(v)::text) FROM (SELECT array_fill(i, ARRAY[16000])::vector AS v FROM generate_series(1, 3) i) s;

--- vector-sum: sum(vector)
SELECT sum(v), pg_typeof(sum(v)) FROM a_vector;

--- vector-sum-group: sum with GROUP BY; a group of NULLs
SELECT g, sum(v) FROM a_vector GROUP BY g ORDER BY g;

--- vector-sum-empty: sum of no rows
SELECT sum(v) FROM a_vector WHERE false;

--- vector-sum-null: sum of NULLs
SELECT sum(v) FROM a_vector WHERE v IS NULL;

--- vector-sum-one: sum of one row
SELECT sum(v) FROM a_vector WHERE g = 2;

--- vector-sum-dims: sum over different dimensions
SELECT sum(v) FROM (VALUES ('[1,2]'::vector), ('[3]')) s(v);

--- vector-sum-overflow: sum beyond the range
SELECT sum(v) FROM (VALUES ('[1,3e38]'::vector), ('[1,3e38]'), ('[1,3e38]')) s(v);

--- vector-sum-filter: sum with FILTER and DISTINCT
SELECT sum(v) FILTER (WHERE g = 1), sum(DISTINCT v) FROM a_vector;

--- vector-sum-over: sum as a window function
SELECT g, sum(v) OVER (ORDER BY g, v) FROM a_vector ORDER BY g, v;

--- vector-sum-parallel: sum by parallel workers
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2; SELECT sum(v) FROM a_big;

--- vector-sum-parallel-plan: plan of that aggregate
EXPLAIN (COSTS OFF) SELECT sum(v) FROM a_big;

--- vector-sum-serial: the same without workers
SET max_parallel_workers_per_gather = 0; SELECT sum(v) FROM a_big;

--- vector-sum-max-dims: sum of 16000 dimensions
SELECT md5(sum(v)::text) FROM (SELECT array_fill(i, ARRAY[16000])::vector AS v FROM generate_series(1, 3) i) s;

--- halfvec-avg: avg(halfvec)
SELECT avg(v), pg_typeof(avg(v)) FROM a_halfvec;

--- halfvec-avg-group: avg with GROUP BY; a group of NULLs
SELECT g, avg(v) FROM a_halfvec GROUP BY g ORDER BY g;

--- halfvec-avg-empty: avg of no rows
SELECT avg(v) FROM a_halfvec WHERE false;

--- halfvec-avg-null: avg of NULLs
SELECT avg(v) FROM a_halfvec WHERE v IS NULL;

--- halfvec-avg-one: avg of one row
SELECT avg(v) FROM a_halfvec WHERE g = 2;

--- halfvec-avg-dims: avg over different dimensions
SELECT avg(v) FROM (VALUES ('[1,2]'::halfvec), ('[3]')) s(v);

--- halfvec-avg-overflow: avg beyond the range
SELECT avg(v) FROM (VALUES ('[1,65504]'::halfvec), ('[1,65504]'), ('[1,65504]')) s(v);

--- halfvec-avg-filter: avg with FILTER and DISTINCT
SELECT avg(v) FILTER (WHERE g = 1), avg(DISTINCT v) FROM a_halfvec;

--- halfvec-avg-over: avg as a window function
SELECT g, avg(v) OVER (ORDER BY g, v) FROM a_halfvec ORDER BY g, v;

--- halfvec-avg-parallel: avg by parallel workers
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2; SELECT avg(h) FROM a_big;

--- halfvec-avg-parallel-plan: plan of that aggregate
EXPLAIN (COSTS OFF) SELECT avg(h) FROM a_big;

--- halfvec-avg-serial: the same without workers
SET max_parallel_workers_per_gather = 0; SELECT avg(h) FROM a_big;

--- halfvec-avg-max-dims: avg of 16000 dimensions
SELECT md5(avg(v)::text) FROM (SELECT array_fill(i, ARRAY[16000])::halfvec AS v FROM generate_series(1, 3) i) s;

--- halfvec-sum: sum(halfvec)
SELECT sum(v), pg_typeof(sum(v)) FROM a_halfvec;

--- halfvec-sum-group: sum with GROUP BY; a group of NULLs
SELECT g, sum(v) FROM a_halfvec GROUP BY g ORDER BY g;

--- halfvec-sum-empty: sum of no rows
SELECT sum(v) FROM a_halfvec WHERE false;

--- halfvec-sum-null: sum of NULLs
SELECT sum(v) FROM a_halfvec WHERE v IS NULL;

--- halfvec-sum-one: sum of one row
SELECT sum(v) FROM a_halfvec WHERE g = 2;

--- halfvec-sum-dims: sum over different dimensions
SELECT sum(v) FROM (VALUES ('[1,2]'::halfvec), ('[3]')) s(v);

--- halfvec-sum-overflow: sum beyond the range
SELECT sum(v) FROM (VALUES ('[1,65504]'::halfvec), ('[1,65504]'), ('[1,65504]')) s(v);

--- halfvec-sum-filter: sum with FILTER and DISTINCT
SELECT sum(v) FILTER (WHERE g = 1), sum(DISTINCT v) FROM a_halfvec;

--- halfvec-sum-over: sum as a window function
SELECT g, sum(v) OVER (ORDER BY g, v) FROM a_halfvec ORDER BY g, v;

--- halfvec-sum-parallel: sum by parallel workers
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2; SELECT sum(h) FROM a_big WHERE id <= 200;

--- halfvec-sum-parallel-plan: plan of that aggregate
EXPLAIN (COSTS OFF) SELECT sum(h) FROM a_big;

--- halfvec-sum-serial: the same without workers
SET max_parallel_workers_per_gather = 0; SELECT sum(h) FROM a_big;

--- halfvec-sum-max-dims: sum of 16000 dimensions
SELECT md5(sum(v)::text) FROM (SELECT array_fill(i, ARRAY[16000])::halfvec AS v FROM generate_series(1, 3) i) s;

--- sparsevec-avg: no avg(sparsevec)
SELECT avg(v) FROM a_sparsevec;

--- sparsevec-sum: no sum(sparsevec)
SELECT sum(v) FROM a_sparsevec;

--- sparsevec-min: no min(sparsevec)
SELECT min(v) FROM a_sparsevec;

--- sparsevec-max: no max(sparsevec)
SELECT max(v) FROM a_sparsevec;

--- avg-large-intermediate: a sum beyond float4 whose average fits
SELECT avg(v) FROM (VALUES ('[3e38]'::vector), ('[3e38]'), ('[3e38]')) s(v);

--- avg-precision: the average is summed in float8
SELECT avg(v) FROM (SELECT '[0.1,16777216]'::vector AS v FROM generate_series(1, 1000)) s;

--- sum-halfvec-precision: a sum of halves is rounded at each step
SELECT sum(v) FROM (SELECT '[1]'::halfvec AS v FROM generate_series(1, 3000)) s;

--- avg-cancel: large values that cancel
SELECT avg(v), sum(v) FROM (VALUES ('[3e38,1]'::vector), ('[-3e38,1]')) s(v);

--- sum-negative-overflow: below the range
SELECT sum(v) FROM (VALUES ('[-3e38]'::vector), ('[-3e38]')) s(v);

--- sum-of-expression: aggregates of an expression
SELECT sum(v * v), avg(l2_normalize(v)) FROM a_vector WHERE g = 1;

--- vector-accum: transition function of avg, called by hand
SELECT vector_accum('{0}', '[1,2,3]'), vector_accum('{1,1,2,3}', '[1,2,3]'), vector_combine('{1,1,2}', '{2,3,4}'), vector_combine('{0}', '{2,3,4}'), vector_avg('{2,4,6}'), vector_avg('{0}');

--- halfvec-accum: the same for halfvec
SELECT halfvec_accum('{0}', '[1,2,3]'), halfvec_combine('{1,1,2}', '{0}'), halfvec_avg('{2,4,6}');

--- vector-accum-bad-state: a state of other dimensions
SELECT vector_accum('{1,2,3}', '[1,2,3]');

--- vector-combine-bad-state: states of different dimensions
SELECT vector_combine('{1,2,3}', '{1,2,3,4}');

--- vector-accum-no-state: an empty state
SELECT vector_accum('{}', '[1]');

--- vector-avg-null-state: a state with NULL
SELECT vector_avg('{1,NULL}');

--- vector-avg-infinite-state: a state that overflowed
SELECT vector_avg('{1,Infinity}');
