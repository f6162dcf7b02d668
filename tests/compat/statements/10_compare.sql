-- Comparison operators, btree: ORDER BY, DISTINCT, GROUP BY, joins, indexes

--- setup
CREATE TABLE c_vector (id int, v vector);
INSERT INTO c_vector VALUES (1,'[1,2,3]'), (2,'[1,2]'), (3,'[1,2,4]'), (4,'[0,5,5]'), (5,'[-1,0,0]'), (6,'[1,2,3]'), (7,'[0,0,0]'), (8,'[3]'), (9,'[1,2,3,0]'), (10,'[0,0]'), (99, NULL);
CREATE TABLE c_halfvec (id int, v halfvec);
INSERT INTO c_halfvec VALUES (1,'[1,2,3]'), (2,'[1,2]'), (3,'[1,2,4]'), (4,'[0,5,5]'), (5,'[-1,0,0]'), (6,'[1,2,3]'), (7,'[0,0,0]'), (8,'[3]'), (9,'[1,2,3,0]'), (10,'[0,0]'), (99, NULL);
CREATE TABLE c_sparsevec (id int, v sparsevec);
INSERT INTO c_sparsevec VALUES (1,'{1:1,2:2,3:3}/3'), (2,'{1:1,2:2}/2'), (3,'{1:1,2:2,3:4}/3'), (4,'{2:5,3:5}/3'), (5,'{1:-1}/3'), (6,'{1:1,2:2,3:3}/3'), (7,'{}/3'), (8,'{1:3}/1'), (9,'{1:1,2:2,3:3}/4'), (10,'{}/2'), (99, NULL);

--- vector-lt: < on vector
SELECT '[1,2,3]'::vector < '[1,2,3]', '[1,2,3]'::vector < '[1,2,4]', '[1,2,4]'::vector < '[1,2,3]', '[1,2,3]'::vector < '[1,2]', '[1,2]'::vector < '[1,2,3]', '[1,0,9]'::vector < '[1,2]', '[1,2]'::vector < '[1,0,9]', '[1,2,3]'::vector < NULL;

--- vector-le: <= on vector
SELECT '[1,2,3]'::vector <= '[1,2,3]', '[1,2,3]'::vector <= '[1,2,4]', '[1,2,4]'::vector <= '[1,2,3]', '[1,2,3]'::vector <= '[1,2]', '[1,2]'::vector <= '[1,2,3]', '[1,0,9]'::vector <= '[1,2]', '[1,2]'::vector <= '[1,0,9]', '[1,2,3]'::vector <= NULL;

--- vector-eq: = on vector
SELECT '[1,2,3]'::vector = '[1,2,3]', '[1,2,3]'::vector = '[1,2,4]', '[1,2,4]'::vector = '[1,2,3]', '[1,2,3]'::vector = '[1,2]', '[1,2]'::vector = '[1,2,3]', '[1,0,9]'::vector = '[1,2]', '[1,2]'::vector = '[1,0,9]', '[1,2,3]'::vector = NULL;

--- vector-ne: <> on vector
SELECT '[1,2,3]'::vector <> '[1,2,3]', '[1,2,3]'::vector <> '[1,2,4]', '[1,2,4]'::vector <> '[1,2,3]', '[1,2,3]'::vector <> '[1,2]', '[1,2]'::vector <> '[1,2,3]', '[1,0,9]'::vector <> '[1,2]', '[1,2]'::vector <> '[1,0,9]', '[1,2,3]'::vector <> NULL;

--- vector-ge: >= on vector
SELECT '[1,2,3]'::vector >= '[1,2,3]', '[1,2,3]'::vector >= '[1,2,4]', '[1,2,4]'::vector >= '[1,2,3]', '[1,2,3]'::vector >= '[1,2]', '[1,2]'::vector >= '[1,2,3]', '[1,0,9]'::vector >= '[1,2]', '[1,2]'::vector >= '[1,0,9]', '[1,2,3]'::vector >= NULL;

--- vector-gt: > on vector
SELECT '[1,2,3]'::vector > '[1,2,3]', '[1,2,3]'::vector > '[1,2,4]', '[1,2,4]'::vector > '[1,2,3]', '[1,2,3]'::vector > '[1,2]', '[1,2]'::vector > '[1,2,3]', '[1,0,9]'::vector > '[1,2]', '[1,2]'::vector > '[1,0,9]', '[1,2,3]'::vector > NULL;

--- vector-cmp: vector_cmp
SELECT vector_cmp('[1,2,3]', '[1,2,3]'), vector_cmp('[1,2,3]', '[1,2,4]'), vector_cmp('[1,2,4]', '[1,2,3]'), vector_cmp('[1,2,3]', '[1,2]'), vector_cmp('[1,2]', '[1,2,3]'), vector_cmp('[1,0,9]', '[1,2]'), vector_cmp('[1,2]', '[1,0,9]');

--- vector-cmp-functions: the functions behind the operators
SELECT vector_lt('[1,2,3]', '[1,2,4]'), vector_le('[1,2,3]', '[1,2,4]'), vector_eq('[1,2,3]', '[1,2,4]'), vector_ne('[1,2,3]', '[1,2,4]'), vector_ge('[1,2,3]', '[1,2,4]'), vector_gt('[1,2,3]', '[1,2,4]');

--- vector-negative-zero: 0 and -0 are equal
SELECT '[0]'::vector = '[-0]';

--- vector-order-by: ORDER BY
SELECT v FROM c_vector ORDER BY v, id;

--- vector-order-by-desc: ORDER BY … DESC NULLS LAST
SELECT v FROM c_vector ORDER BY v DESC NULLS LAST, id;

--- vector-distinct: DISTINCT
SELECT DISTINCT v FROM c_vector ORDER BY v;

--- vector-group-by: GROUP BY
SELECT v, count(*), array_agg(id ORDER BY id) FROM c_vector GROUP BY v ORDER BY v;

--- vector-min: no min for vectors
SELECT min(v) FROM c_vector;

--- vector-union: UNION removes duplicates
SELECT v FROM c_vector UNION SELECT v FROM c_vector ORDER BY 1;

--- vector-in-list: IN and = ANY
SELECT id FROM c_vector WHERE v IN ('[1,2,3]', '[1,2]') OR v = ANY (ARRAY['[1,0,9]','[1,2,4]']::vector[]) ORDER BY id;

--- vector-between: BETWEEN
SELECT id FROM c_vector WHERE v BETWEEN '[1,2]' AND '[1,2,4]' ORDER BY id;

--- vector-merge-join: join on equality, only merge join allowed
SET enable_hashjoin = off; SET enable_nestloop = off; SELECT x.id, y.id FROM c_vector x JOIN c_vector y ON x.v = y.v ORDER BY 1, 2;

--- vector-merge-join-plan: plan of that join
EXPLAIN (COSTS OFF) SELECT x.id, y.id FROM c_vector x JOIN c_vector y ON x.v = y.v;

--- vector-hash-join: = has no hash join
RESET enable_hashjoin; RESET enable_nestloop; SELECT oprcanhash, oprcanmerge FROM pg_operator WHERE oid = '=(vector,vector)'::regoperator;

--- vector-btree: btree index
CREATE INDEX c_vector_v ON c_vector (v); SET enable_seqscan = off; SELECT id FROM c_vector WHERE v = '[1,2,3]' ORDER BY id;

--- vector-btree-plan: plan over the btree index
EXPLAIN (COSTS OFF) SELECT v FROM c_vector ORDER BY v LIMIT 3;

--- vector-btree-range: range over the btree index
SELECT id FROM c_vector WHERE v > '[1,2]' AND v <= '[1,2,4]' ORDER BY v, id;

--- vector-btree-order: order from the btree index
SELECT v FROM c_vector ORDER BY v LIMIT 3;

--- vector-unique: unique index
RESET enable_seqscan; CREATE UNIQUE INDEX c_vector_u ON c_vector (v);

--- vector-primary-key: primary key and ON CONFLICT
CREATE TABLE pk_vector (v vector PRIMARY KEY); INSERT INTO pk_vector VALUES ('[1,2,3]'), ('[1,2,4]'); INSERT INTO pk_vector VALUES ('[1,2,3]') ON CONFLICT DO NOTHING; SELECT * FROM pk_vector ORDER BY v;

--- vector-duplicate-key: duplicate key
INSERT INTO pk_vector VALUES ('[1,2,4]');

--- vector-window: window ordered by a vector
SELECT id, rank() OVER (ORDER BY v) FROM c_vector ORDER BY id;

--- vector-analyze: statistics
ANALYZE c_vector; SELECT null_frac, avg_width > 0, n_distinct FROM pg_stats WHERE schemaname = 'compat' AND tablename = 'c_vector' AND attname = 'v';

--- vector-hash-index: no hash operator class
CREATE INDEX ON c_vector USING hash (v);

--- halfvec-lt: < on halfvec
SELECT '[1,2,3]'::halfvec < '[1,2,3]', '[1,2,3]'::halfvec < '[1,2,4]', '[1,2,4]'::halfvec < '[1,2,3]', '[1,2,3]'::halfvec < '[1,2]', '[1,2]'::halfvec < '[1,2,3]', '[1,0,9]'::halfvec < '[1,2]', '[1,2]'::halfvec < '[1,0,9]', '[1,2,3]'::halfvec < NULL;

--- halfvec-le: <= on halfvec
SELECT '[1,2,3]'::halfvec <= '[1,2,3]', '[1,2,3]'::halfvec <= '[1,2,4]', '[1,2,4]'::halfvec <= '[1,2,3]', '[1,2,3]'::halfvec <= '[1,2]', '[1,2]'::halfvec <= '[1,2,3]', '[1,0,9]'::halfvec <= '[1,2]', '[1,2]'::halfvec <= '[1,0,9]', '[1,2,3]'::halfvec <= NULL;

--- halfvec-eq: = on halfvec
SELECT '[1,2,3]'::halfvec = '[1,2,3]', '[1,2,3]'::halfvec = '[1,2,4]', '[1,2,4]'::halfvec = '[1,2,3]', '[1,2,3]'::halfvec = '[1,2]', '[1,2]'::halfvec = '[1,2,3]', '[1,0,9]'::halfvec = '[1,2]', '[1,2]'::halfvec = '[1,0,9]', '[1,2,3]'::halfvec = NULL;

--- halfvec-ne: <> on halfvec
SELECT '[1,2,3]'::halfvec <> '[1,2,3]', '[1,2,3]'::halfvec <> '[1,2,4]', '[1,2,4]'::halfvec <> '[1,2,3]', '[1,2,3]'::halfvec <> '[1,2]', '[1,2]'::halfvec <> '[1,2,3]', '[1,0,9]'::halfvec <> '[1,2]', '[1,2]'::halfvec <> '[1,0,9]', '[1,2,3]'::halfvec <> NULL;

--- halfvec-ge: >= on halfvec
SELECT '[1,2,3]'::halfvec >= '[1,2,3]', '[1,2,3]'::halfvec >= '[1,2,4]', '[1,2,4]'::halfvec >= '[1,2,3]', '[1,2,3]'::halfvec >= '[1,2]', '[1,2]'::halfvec >= '[1,2,3]', '[1,0,9]'::halfvec >= '[1,2]', '[1,2]'::halfvec >= '[1,0,9]', '[1,2,3]'::halfvec >= NULL;

--- halfvec-gt: > on halfvec
SELECT '[1,2,3]'::halfvec > '[1,2,3]', '[1,2,3]'::halfvec > '[1,2,4]', '[1,2,4]'::halfvec > '[1,2,3]', '[1,2,3]'::halfvec > '[1,2]', '[1,2]'::halfvec > '[1,2,3]', '[1,0,9]'::halfvec > '[1,2]', '[1,2]'::halfvec > '[1,0,9]', '[1,2,3]'::halfvec > NULL;

--- halfvec-cmp: halfvec_cmp
SELECT halfvec_cmp('[1,2,3]', '[1,2,3]'), halfvec_cmp('[1,2,3]', '[1,2,4]'), halfvec_cmp('[1,2,4]', '[1,2,3]'), halfvec_cmp('[1,2,3]', '[1,2]'), halfvec_cmp('[1,2]', '[1,2,3]'), halfvec_cmp('[1,0,9]', '[1,2]'), halfvec_cmp('[1,2]', '[1,0,9]');

--- halfvec-cmp-functions: the functions behind the operators
SELECT halfvec_lt('[1,2,3]', '[1,2,4]'), halfvec_le('[1,2,3]', '[1,2,4]'), halfvec_eq('[1,2,3]', '[1,2,4]'), halfvec_ne('[1,2,3]', '[1,2,4]'), halfvec_ge('[1,2,3]', '[1,2,4]'), halfvec_gt('[1,2,3]', '[1,2,4]');

--- halfvec-negative-zero: 0 and -0 are equal
SELECT '[0]'::halfvec = '[-0]';

--- halfvec-order-by: ORDER BY
SELECT v FROM c_halfvec ORDER BY v, id;

--- halfvec-order-by-desc: ORDER BY … DESC NULLS LAST
SELECT v FROM c_halfvec ORDER BY v DESC NULLS LAST, id;

--- halfvec-distinct: DISTINCT
SELECT DISTINCT v FROM c_halfvec ORDER BY v;

--- halfvec-group-by: GROUP BY
SELECT v, count(*), array_agg(id ORDER BY id) FROM c_halfvec GROUP BY v ORDER BY v;

--- halfvec-min: no min for vectors
SELECT min(v) FROM c_halfvec;

--- halfvec-union: UNION removes duplicates
SELECT v FROM c_halfvec UNION SELECT v FROM c_halfvec ORDER BY 1;

--- halfvec-in-list: IN and = ANY
SELECT id FROM c_halfvec WHERE v IN ('[1,2,3]', '[1,2]') OR v = ANY (ARRAY['[1,0,9]','[1,2,4]']::halfvec[]) ORDER BY id;

--- halfvec-between: BETWEEN
SELECT id FROM c_halfvec WHERE v BETWEEN '[1,2]' AND '[1,2,4]' ORDER BY id;

--- halfvec-merge-join: join on equality, only merge join allowed
SET enable_hashjoin = off; SET enable_nestloop = off; SELECT x.id, y.id FROM c_halfvec x JOIN c_halfvec y ON x.v = y.v ORDER BY 1, 2;

--- halfvec-merge-join-plan: plan of that join
EXPLAIN (COSTS OFF) SELECT x.id, y.id FROM c_halfvec x JOIN c_halfvec y ON x.v = y.v;

--- halfvec-hash-join: = has no hash join
RESET enable_hashjoin; RESET enable_nestloop; SELECT oprcanhash, oprcanmerge FROM pg_operator WHERE oid = '=(halfvec,halfvec)'::regoperator;

--- halfvec-btree: btree index
CREATE INDEX c_halfvec_v ON c_halfvec (v); SET enable_seqscan = off; SELECT id FROM c_halfvec WHERE v = '[1,2,3]' ORDER BY id;

--- halfvec-btree-plan: plan over the btree index
EXPLAIN (COSTS OFF) SELECT v FROM c_halfvec ORDER BY v LIMIT 3;

--- halfvec-btree-range: range over the btree index
SELECT id FROM c_halfvec WHERE v > '[1,2]' AND v <= '[1,2,4]' ORDER BY v, id;

--- halfvec-btree-order: order from the btree index
SELECT v FROM c_halfvec ORDER BY v LIMIT 3;

--- halfvec-unique: unique index
RESET enable_seqscan; CREATE UNIQUE INDEX c_halfvec_u ON c_halfvec (v);

--- halfvec-primary-key: primary key and ON CONFLICT
CREATE TABLE pk_halfvec (v halfvec PRIMARY KEY); INSERT INTO pk_halfvec VALUES ('[1,2,3]'), ('[1,2,4]'); INSERT INTO pk_halfvec VALUES ('[1,2,3]') ON CONFLICT DO NOTHING; SELECT * FROM pk_halfvec ORDER BY v;

--- halfvec-duplicate-key: duplicate key
INSERT INTO pk_halfvec VALUES ('[1,2,4]');

--- halfvec-window: window ordered by a vector
SELECT id, rank() OVER (ORDER BY v) FROM c_halfvec ORDER BY id;

--- halfvec-analyze: statistics
ANALYZE c_halfvec; SELECT null_frac, avg_width > 0, n_distinct FROM pg_stats WHERE schemaname = 'compat' AND tablename = 'c_halfvec' AND attname = 'v';

--- halfvec-hash-index: no hash operator class
CREATE INDEX ON c_halfvec USING hash (v);

--- sparsevec-lt: < on sparsevec
SELECT '{1:1,2:2,3:3}/3'::sparsevec < '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec < '{1:1,2:2,3:4}/3', '{1:1,2:2,3:4}/3'::sparsevec < '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec < '{1:1,2:2}/2', '{1:1,2:2}/2'::sparsevec < '{1:1,2:2,3:3}/3', '{1:1,3:9}/3'::sparsevec < '{1:1,2:2}/2', '{1:1,2:2}/2'::sparsevec < '{1:1,3:9}/3', '{1:1,2:2,3:3}/3'::sparsevec < NULL;

--- sparsevec-le: <= on sparsevec
SELECT '{1:1,2:2,3:3}/3'::sparsevec <= '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec <= '{1:1,2:2,3:4}/3', '{1:1,2:2,3:4}/3'::sparsevec <= '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec <= '{1:1,2:2}/2', '{1:1,2:2}/2'::sparsevec <= '{1:1,2:2,3:3}/3', '{1:1,3:9}/3'::sparsevec <= '{1:1,2:2}/2', '{1:1,2:2}/2'::sparsevec <= '{1:1,3:9}/3', '{1:1,2:2,3:3}/3'::sparsevec <= NULL;

--- sparsevec-eq: = on sparsevec
SELECT '{1:1,2:2,3:3}/3'::sparsevec = '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec = '{1:1,2:2,3:4}/3', '{1:1,2:2,3:4}/3'::sparsevec = '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec = '{1:1,2:2}/2', '{1:1,2:2}/2'::sparsevec = '{1:1,2:2,3:3}/3', '{1:1,3:9}/3'::sparsevec = '{1:1,2:2}/2', '{1:1,2:2}/2'::sparsevec = '{1:1,3:9}/3', '{1:1,2:2,3:3}/3'::sparsevec = NULL;

--- sparsevec-ne: <> on sparsevec
SELECT '{1:1,2:2,3:3}/3'::sparsevec <> '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec <> '{1:1,2:2,3:4}/3', '{1:1,2:2,3:4}/3'::sparsevec <> '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec <> '{1:1,2:2}/2', '{1:1,2:2}/2'::sparsevec <> '{1:1,2:2,3:3}/3', '{1:1,3:9}/3'::sparsevec <> '{1:1,2:2}/2', '{1:1,2:2}/2'::sparsevec <> '{1:1,3:9}/3', '{1:1,2:2,3:3}/3'::sparsevec <> NULL;

--- sparsevec-ge: >= on sparsevec
SELECT '{1:1,2:2,3:3}/3'::sparsevec >= '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec >= '{1:1,2:2,3:4}/3', '{1:1,2:2,3:4}/3'::sparsevec >= '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec >= '{1:1,2:2}/2', '{1:1,2:2}/2'::sparsevec >= '{1:1,2:2,3:3}/3', '{1:1,3:9}/3'::sparsevec >= '{1:1,2:2}/2', '{1:1,2:2}/2'::sparsevec >= '{1:1,3:9}/3', '{1:1,2:2,3:3}/3'::sparsevec >= NULL;

--- sparsevec-gt: > on sparsevec
SELECT '{1:1,2:2,3:3}/3'::sparsevec > '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec > '{1:1,2:2,3:4}/3', '{1:1,2:2,3:4}/3'::sparsevec > '{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'::sparsevec > '{1:1,2:2}/2', '{1:1,2:2}/2'::sparsevec > '{1:1,2:2,3:3}/3', '{1:1,3:9}/3'::sparsevec > '{1:1,2:2}/2', '{1:1,2:2}/2'::sparsevec > '{1:1,3:9}/3', '{1:1,2:2,3:3}/3'::sparsevec > NULL;

--- sparsevec-cmp: sparsevec_cmp
SELECT sparsevec_cmp('{1:1,2:2,3:3}/3', '{1:1,2:2,3:3}/3'), sparsevec_cmp('{1:1,2:2,3:3}/3', '{1:1,2:2,3:4}/3'), sparsevec_cmp('{1:1,2:2,3:4}/3', '{1:1,2:2,3:3}/3'), sparsevec_cmp('{1:1,2:2,3:3}/3', '{1:1,2:2}/2'), sparsevec_cmp('{1:1,2:2}/2', '{1:1,2:2,3:3}/3'), sparsevec_cmp('{1:1,3:9}/3', '{1:1,2:2}/2'), sparsevec_cmp('{1:1,2:2}/2', '{1:1,3:9}/3');

--- sparsevec-cmp-functions: the functions behind the operators
SELECT sparsevec_lt('{1:1,2:2,3:3}/3', '{1:1,2:2,3:4}/3'), sparsevec_le('{1:1,2:2,3:3}/3', '{1:1,2:2,3:4}/3'), sparsevec_eq('{1:1,2:2,3:3}/3', '{1:1,2:2,3:4}/3'), sparsevec_ne('{1:1,2:2,3:3}/3', '{1:1,2:2,3:4}/3'), sparsevec_ge('{1:1,2:2,3:3}/3', '{1:1,2:2,3:4}/3'), sparsevec_gt('{1:1,2:2,3:3}/3', '{1:1,2:2,3:4}/3');

--- sparsevec-negative-zero: 0 and -0 are equal
SELECT '{}/1'::sparsevec = '{1:-0}/1';

--- sparsevec-order-by: ORDER BY
SELECT v FROM c_sparsevec ORDER BY v, id;

--- sparsevec-order-by-desc: ORDER BY … DESC NULLS LAST
SELECT v FROM c_sparsevec ORDER BY v DESC NULLS LAST, id;

--- sparsevec-distinct: DISTINCT
SELECT DISTINCT v FROM c_sparsevec ORDER BY v;

--- sparsevec-group-by: GROUP BY
SELECT v, count(*), array_agg(id ORDER BY id) FROM c_sparsevec GROUP BY v ORDER BY v;

--- sparsevec-min: no min for vectors
SELECT min(v) FROM c_sparsevec;

--- sparsevec-union: UNION removes duplicates
SELECT v FROM c_sparsevec UNION SELECT v FROM c_sparsevec ORDER BY 1;

--- sparsevec-in-list: IN and = ANY
SELECT id FROM c_sparsevec WHERE v IN ('{1:1,2:2,3:3}/3', '{1:1,2:2}/2') OR v = ANY (ARRAY['{1:1,3:9}/3','{1:1,2:2,3:4}/3']::sparsevec[]) ORDER BY id;

--- sparsevec-between: BETWEEN
SELECT id FROM c_sparsevec WHERE v BETWEEN '{1:1,2:2}/2' AND '{1:1,2:2,3:4}/3' ORDER BY id;

--- sparsevec-merge-join: join on equality, only merge join allowed
SET enable_hashjoin = off; SET enable_nestloop = off; SELECT x.id, y.id FROM c_sparsevec x JOIN c_sparsevec y ON x.v = y.v ORDER BY 1, 2;

--- sparsevec-merge-join-plan: plan of that join
EXPLAIN (COSTS OFF) SELECT x.id, y.id FROM c_sparsevec x JOIN c_sparsevec y ON x.v = y.v;

--- sparsevec-hash-join: = has no hash join
RESET enable_hashjoin; RESET enable_nestloop; SELECT oprcanhash, oprcanmerge FROM pg_operator WHERE oid = '=(sparsevec,sparsevec)'::regoperator;

--- sparsevec-btree: btree index
CREATE INDEX c_sparsevec_v ON c_sparsevec (v); SET enable_seqscan = off; SELECT id FROM c_sparsevec WHERE v = '{1:1,2:2,3:3}/3' ORDER BY id;

--- sparsevec-btree-plan: plan over the btree index
EXPLAIN (COSTS OFF) SELECT v FROM c_sparsevec ORDER BY v LIMIT 3;

--- sparsevec-btree-range: range over the btree index
SELECT id FROM c_sparsevec WHERE v > '{1:1,2:2}/2' AND v <= '{1:1,2:2,3:4}/3' ORDER BY v, id;

--- sparsevec-btree-order: order from the btree index
SELECT v FROM c_sparsevec ORDER BY v LIMIT 3;

--- sparsevec-unique: unique index
RESET enable_seqscan; CREATE UNIQUE INDEX c_sparsevec_u ON c_sparsevec (v);

--- sparsevec-primary-key: primary key and ON CONFLICT
CREATE TABLE pk_sparsevec (v sparsevec PRIMARY KEY); INSERT INTO pk_sparsevec VALUES ('{1:1,2:2,3:3}/3'), ('{1:1,2:2,3:4}/3'); INSERT INTO pk_sparsevec VALUES ('{1:1,2:2,3:3}/3') ON CONFLICT DO NOTHING; SELECT * FROM pk_sparsevec ORDER BY v;

--- sparsevec-duplicate-key: duplicate key
INSERT INTO pk_sparsevec VALUES ('{1:1,2:2,3:4}/3');

--- sparsevec-window: window ordered by a vector
SELECT id, rank() OVER (ORDER BY v) FROM c_sparsevec ORDER BY id;

--- sparsevec-analyze: statistics
ANALYZE c_sparsevec; SELECT null_frac, avg_width > 0, n_distinct FROM pg_stats WHERE schemaname = 'compat' AND tablename = 'c_sparsevec' AND attname = 'v';

--- sparsevec-hash-index: no hash operator class
CREATE INDEX ON c_sparsevec USING hash (v);

--- vector-halfvec-eq: vector = halfvec
SELECT '[1]'::vector = '[1]'::halfvec;

--- vector-array-eq: vector = real[]
SELECT '[1,2]'::vector = ARRAY[1,2]::real[];

--- vector-text-eq: vector = text
SELECT '[1,2]'::vector = '[1,2]'::text;

--- sparsevec-implicit-zero: an index that is not stored counts as zero
SELECT '{2:1}/3'::sparsevec < '{1:1}/3', '{1:-1}/3'::sparsevec < '{}/3', '{2:-1}/3'::sparsevec < '{}/3', '{3:1}/3'::sparsevec > '{2:-1}/3', '{1:1}/2'::sparsevec < '{1:1}/3', '{1:1}/3'::sparsevec < '{1:1,2:5}/2';

--- sparsevec-vector-order: sparsevec sorts as vector does
SELECT count(*) FROM c_sparsevec x, c_sparsevec y WHERE sparsevec_cmp(x.v, y.v) <> vector_cmp(x.v::vector, y.v::vector);

--- is-distinct-from: IS DISTINCT FROM
SELECT '[1]'::vector IS DISTINCT FROM '[1]', '[1]'::vector IS DISTINCT FROM NULL;

--- row-compare: row comparison with a vector inside
SELECT ROW('[1,2]'::vector, 1) < ROW('[1,2]'::vector, 2), ROW('[1]'::halfvec) = ROW('[1]'::halfvec);

--- array-compare: arrays of vectors compare
SELECT ARRAY['[1]'::vector] = ARRAY['[1]'::vector], ARRAY['[1]'::vector] < ARRAY['[2]'::vector];
