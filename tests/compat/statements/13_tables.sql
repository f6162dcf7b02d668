-- Vectors in tables: storage, COPY as text, constraints, domains, views, composite types, dump and restore

--- setup
CREATE TABLE items (id int PRIMARY KEY, e vector(3), h halfvec(3), s sparsevec(5), b bit(3));
INSERT INTO items VALUES (1, '[1,2,3]', '[1,2,3]', '{1:1,2:2,3:3}/5', '101'), (2, '[4,5,6]', '[4,5,6]', '{2:5}/5', '111'), (3, NULL, NULL, NULL, NULL);
CREATE TABLE wide (id int, e vector, h halfvec);
INSERT INTO wide SELECT d, array_fill(0.25::real, ARRAY[d])::vector, (SELECT array_agg(i % 100 ORDER BY i) FROM generate_series(1, d) i)::halfvec FROM unnest(ARRAY[1, 500, 2000, 4096, 16000]) d;

--- select: rows come back as text
SELECT * FROM items ORDER BY id;

--- column-types: declared types
SELECT attname, format_type(atttypid, atttypmod), attstorage, attalign, attlen FROM pg_attribute WHERE attrelid = 'items'::regclass AND attnum > 0 ORDER BY attnum;

--- information-schema: what information_schema says
SELECT column_name, data_type, udt_name FROM information_schema.columns WHERE table_schema = 'compat' AND table_name = 'items' ORDER BY ordinal_position;

--- insert-mismatch: wrong number of dimensions
INSERT INTO items (id, e) VALUES (4, '[1,2]');

--- insert-mismatch-halfvec: wrong number of dimensions
INSERT INTO items (id, h) VALUES (4, '[1,2]');

--- insert-mismatch-sparsevec: wrong number of dimensions
INSERT INTO items (id, s) VALUES (4, '{1:1}/4');

--- insert-mismatch-expression: wrong number of dimensions from an expression
INSERT INTO items (id, e) SELECT 4, '[1,2]'::vector || '[3,4]';

--- update: UPDATE with an expression
UPDATE items SET e = e + e, h = h * h WHERE id = 1 RETURNING e, h;

--- upsert: ON CONFLICT DO UPDATE
INSERT INTO items (id, e) VALUES (1, '[7,8,9]') ON CONFLICT (id) DO UPDATE SET e = EXCLUDED.e RETURNING id, e;

--- delete-by-distance: DELETE by distance
DELETE FROM items WHERE e <-> '[4,5,6]' < 0.1 RETURNING id;

--- copy-text-out: COPY TO as text
-- @copy-out
COPY (SELECT e, h, s FROM items ORDER BY id) TO STDOUT;

--- copy-csv-out: COPY TO as CSV
-- @copy-out
COPY (SELECT e, h, s FROM items ORDER BY id) TO STDOUT (FORMAT csv);

--- toast: long vectors survive storage
SELECT id, vector_dims(e), vector_dims(h), md5(e::text), md5(h::text), e <-> e, h <#> h FROM wide ORDER BY id;

--- toast-external: storage without compression
ALTER TABLE wide ALTER e SET STORAGE EXTERNAL; UPDATE wide SET e = e + e; SELECT id, pg_column_size(e), vector_norm(e) FROM wide ORDER BY id;

--- toast-plain: storage plain is allowed
ALTER TABLE wide ALTER h SET STORAGE PLAIN;

--- short-header: short vectors, four values of every kind
SELECT pg_column_size(e), pg_column_size(h), pg_column_size(s) FROM items WHERE id = 1;

--- alter-type: ALTER TYPE between the types
CREATE TABLE alters (v vector(3)); INSERT INTO alters VALUES ('[1,2,3]'); ALTER TABLE alters ALTER v TYPE halfvec(3); ALTER TABLE alters ALTER v TYPE sparsevec(3); ALTER TABLE alters ALTER v TYPE vector(3); SELECT v, pg_typeof(v) FROM alters;

--- alter-type-array: ALTER TYPE from real[]
CREATE TABLE alters_array (v real[]); INSERT INTO alters_array VALUES ('{1,2,3}'); ALTER TABLE alters_array ALTER v TYPE vector(3); SELECT v FROM alters_array;

--- alter-typmod-mismatch: ALTER TYPE to other dimensions
ALTER TABLE alters ALTER v TYPE vector(4);

--- add-column-default: ADD COLUMN with a default
ALTER TABLE alters ADD w vector(2) DEFAULT '[0,0]'; SELECT * FROM alters;

--- default-mismatch: a default of other dimensions fails when used
CREATE TABLE defaults (id int, v vector(2) DEFAULT '[1,2,3]');

--- generated-column: stored generated column
CREATE TABLE gen (v vector(3), q bit(3) GENERATED ALWAYS AS (binary_quantize(v)::bit(3)) STORED, h halfvec(3) GENERATED ALWAYS AS (v::halfvec(3)) STORED); INSERT INTO gen VALUES ('[1,-1,2]') RETURNING *;

--- check-constraint: CHECK with functions
CREATE TABLE checked (v vector CHECK (vector_dims(v) = 2)); INSERT INTO checked VALUES ('[1,2]'); INSERT INTO checked VALUES ('[1,2,3]');

--- domain: domain over vector(2)
CREATE DOMAIN unit2 AS vector(2) CHECK (abs(vector_norm(VALUE) - 1) < 1e-6); SELECT '[1,0]'::unit2;

--- domain-check: the domain's check
SELECT '[1,1]'::unit2;

--- domain-typmod: the domain's dimensions
SELECT '[1,0,0]'::unit2;

--- expression-index: btree index over an expression
CREATE INDEX items_quantized ON items ((binary_quantize(e)::bit(3))); SELECT indexdef FROM pg_indexes WHERE indexname = 'items_quantized';

--- view: a view prints its operators
CREATE VIEW nearest AS SELECT id, e <-> '[1,2,3]' AS d, e <=> '[1,2,3]'::vector(3) AS c, (h <#> '[1,1,1]') * -1 AS ip, s <+> '{1:1}/5' AS l FROM items ORDER BY e <-> '[1,2,3]' LIMIT 5; SELECT pg_get_viewdef('nearest'::regclass);

--- composite: vector in a composite type
CREATE TYPE pair AS (id int, v vector(2)); SELECT ROW(1, '[1,2]')::pair, (ROW(1, '[1,2]')::pair).v;

--- plpgsql: a variable of a vector type
DO $$ DECLARE v vector(2) := '[1,2]'; h halfvec; BEGIN h := v; v := v + h::vector; IF v <> '[2,4]' THEN RAISE EXCEPTION 'got %', v; END IF; END $$;

--- plpgsql-mismatch: a variable checks its dimensions
DO $$ DECLARE v vector(2); BEGIN v := '[1,2,3]'::vector; END $$;

--- plpgsql-exception: the condition name of the error
DO $$ BEGIN PERFORM '[1,2]'::vector <-> '[1]'; EXCEPTION WHEN data_exception THEN RAISE EXCEPTION 'caught %', SQLERRM; END $$;

--- prepared: prepared statement with the types as parameters
PREPARE p (vector, halfvec, sparsevec) AS SELECT $1 + $1, $2 * $2, $3 <-> $3; EXECUTE p ('[1,2]', '[3,4]', '{1:1}/2'); EXECUTE p ('[1,2,3]', '[3,4]', '{1:1}/2');

--- cursor: cursor over an order by distance
BEGIN; DECLARE c CURSOR FOR SELECT id FROM items ORDER BY e <-> '[1,1,1]'; FETCH 2 FROM c; FETCH 2 FROM c; COMMIT;

--- lateral: nearest of each row
SELECT a.id, n.id FROM wide a, LATERAL (SELECT b.id FROM wide b WHERE vector_dims(b.e) = vector_dims(a.e) ORDER BY b.e <-> a.e LIMIT 1) n ORDER BY 1;

--- partition-by-list: no trouble as a plain column of a partitioned table
CREATE TABLE parted (k int, v vector(2)) PARTITION BY LIST (k); CREATE TABLE parted1 PARTITION OF parted FOR VALUES IN (1); INSERT INTO parted VALUES (1, '[1,2]'); SELECT * FROM parted;

--- partition-by-range: partitioned by a vector
CREATE TABLE parted_v (v vector(1)) PARTITION BY RANGE (v); CREATE TABLE parted_v1 PARTITION OF parted_v FOR VALUES FROM ('[0]') TO ('[10]'); INSERT INTO parted_v VALUES ('[5]'); SELECT tableoid::regclass, v FROM parted_v;

--- temp-table: temporary table
CREATE TEMP TABLE tmp (v halfvec(2)); INSERT INTO tmp VALUES ('[1,2]'); SELECT v FROM tmp; DROP TABLE tmp;

--- record-out: rows print their vectors
SELECT items FROM items ORDER BY id;

--- jsonb-agg: rows as JSON
SELECT jsonb_agg(to_jsonb(items) ORDER BY id) FROM items;

--- from-json: JSON to rows
SELECT * FROM jsonb_to_recordset('[{"id": 1, "e": "[1,2,3]"}, {"id": 2, "e": [4,5,6]}]') AS r(id int, e vector(3));

--- generate-random: vectors from array_agg
SELECT vector_dims(array_agg(i)::vector) FROM generate_series(1, 10) i;

--- array-agg: array_agg and unnest of vectors
SELECT array_agg(e ORDER BY id), (SELECT sum(u) FROM unnest(array_agg(e)) u) FROM items;

--- array-column: a column of vector arrays
CREATE TABLE arrays (v vector(2)[]); INSERT INTO arrays VALUES (ARRAY['[1,2]', '[3,4]']::vector(2)[]); SELECT v, v[1], array_length(v, 1), v[1] <-> v[2] FROM arrays;

--- string-agg: text functions need a cast
SELECT length('[1,2]'::vector);

--- comparison-subquery: = (subquery)
SELECT id FROM items WHERE e = (SELECT max(id)::int FROM items);

--- drop-column: columns of the types can be dropped
ALTER TABLE gen DROP COLUMN v CASCADE; SELECT * FROM gen;
