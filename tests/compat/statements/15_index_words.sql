-- hnsw and ivfflat as applications write them (words of pgvector's)

--- setup
CREATE TABLE w (id int PRIMARY KEY, tenant int, v vector(3), h halfvec(3), s sparsevec(3), b bit(8), free vector);
INSERT INTO w SELECT i, i % 3, ARRAY[i, i * i % 7, 1 + i % 5], ARRAY[i, i * i % 7, 1 + i % 5], ARRAY[i, i * i % 7, 1 + i % 5]::vector::sparsevec, i::bit(8), ARRAY[i, 1, 1] FROM generate_series(1, 60) i;
SET enable_seqscan = off;
SET hnsw.ef_search = 200;
SET ivfflat.probes = 50;

--- methods: access methods and what they can
SELECT amname, pg_indexam_has_property(a.oid, 'can_order'), pg_indexam_has_property(a.oid, 'can_unique'), pg_indexam_has_property(a.oid, 'can_exclude'), pg_indexam_has_property(a.oid, 'can_include') FROM pg_am a WHERE amname IN ('hnsw', 'ivfflat') ORDER BY 1;

--- classes: operator classes of both, and which are the default
SELECT amname, opcname, opcintype::regtype, opcdefault, opckeytype = 0 AS keeps_type FROM pg_opclass o JOIN pg_am a ON a.oid = opcmethod WHERE amname IN ('hnsw', 'ivfflat') AND opcname !~ '^(bool|int|float|date|time|uuid|oid|inet|text|enum|array|numeric|name|char|bpchar|varchar|any|cidr|macaddr|money|interval|range)' ORDER BY 1, 2, 3;

--- valid: all of pgvector's operator classes are valid
SELECT count(*) FROM pg_opclass o JOIN pg_am a ON a.oid = opcmethod WHERE amname IN ('hnsw', 'ivfflat') AND NOT amvalidate(o.oid);

--- hnsw-l2: created, shown, used
CREATE INDEX w1 ON w USING hnsw (v vector_l2_ops);
SELECT indexdef FROM pg_indexes WHERE indexname = 'w1';
SELECT id FROM w ORDER BY v <-> '[3.2,1.1,4.3]' LIMIT 4;
DROP INDEX w1;

--- hnsw-ip: inner product
CREATE INDEX w1 ON w USING hnsw (v vector_ip_ops);
SELECT id, v <#> '[3.2,1.1,4.3]' FROM w ORDER BY v <#> '[3.2,1.1,4.3]' LIMIT 4;
DROP INDEX w1;

--- hnsw-cosine: with options
CREATE INDEX w1 ON w USING hnsw (v vector_cosine_ops) WITH (m = 8, ef_construction = 40);
SELECT indexdef, reloptions FROM pg_indexes JOIN pg_class ON relname = indexname WHERE indexname = 'w1';
SELECT id FROM w ORDER BY v <=> '[3.2,1.1,4.3]' LIMIT 4;
ALTER INDEX w1 SET (m = 12);
SELECT indexdef FROM pg_indexes WHERE indexname = 'w1';
REINDEX INDEX w1;
ALTER INDEX w1 RESET (m, ef_construction);
SELECT indexdef FROM pg_indexes WHERE indexname = 'w1';
DROP INDEX w1;

--- hnsw-halfvec: half precision
CREATE INDEX w1 ON w USING hnsw (h halfvec_l2_ops);
SELECT id FROM w ORDER BY h <-> '[3.2,1.1,4.3]' LIMIT 4;
DROP INDEX w1;

--- hnsw-expression: half precision only in the index, partial
CREATE INDEX w1 ON w USING hnsw ((v::halfvec(3)) halfvec_cosine_ops) WHERE (tenant = 1);
SELECT indexdef FROM pg_indexes WHERE indexname = 'w1';
SELECT id FROM w WHERE tenant = 1 ORDER BY v::halfvec(3) <=> '[3.2,1.1,4.3]' LIMIT 4;
DROP INDEX w1;

--- hnsw-quantize: bits of the sign, ordered again
CREATE INDEX w1 ON w USING hnsw ((binary_quantize(v)::bit(3)) bit_hamming_ops);
SELECT id FROM (SELECT * FROM w ORDER BY binary_quantize(v)::bit(3) <~> binary_quantize('[1,-2,3]'::vector), id LIMIT 20) x ORDER BY v <=> '[1,-2,3]', id LIMIT 3;
DROP INDEX w1;

--- hnsw-l1: taxicab distance
CREATE INDEX w1 ON w USING hnsw (v vector_l1_ops);
SELECT id FROM w ORDER BY v <+> '[3.21,1.12,4.37]' LIMIT 3;
DROP INDEX w1;

--- hnsw-sparsevec: sparse vectors
CREATE INDEX w1 ON w USING hnsw (s sparsevec_l2_ops);
SELECT id FROM w ORDER BY s <-> '{1:3.2,2:1.1,3:4.3}/3' LIMIT 4;
DROP INDEX w1;

--- ivfflat-l2: the default class is not shown
CREATE INDEX w1 ON w USING ivfflat (v vector_l2_ops) WITH (lists = 5);
SELECT indexdef FROM pg_indexes WHERE indexname = 'w1';
SELECT id FROM w ORDER BY v <-> '[3.2,1.1,4.3]' LIMIT 4;
DROP INDEX w1;

--- ivfflat-cosine: half precision
CREATE INDEX w1 ON w USING ivfflat (h halfvec_cosine_ops) WITH (lists = 5);
SELECT id FROM w ORDER BY h <=> '[3.2,1.1,4.3]' LIMIT 4;
DROP INDEX w1;

--- changes: rows that come, change and go
CREATE INDEX w1 ON w USING hnsw (v vector_l2_ops);
BEGIN;
INSERT INTO w (id, v) VALUES (100, '[3.2,1.1,4.3]'), (101, NULL);
UPDATE w SET v = '[3.2,1.1,4.2]' WHERE id = 9;
DELETE FROM w WHERE id = 4;
SELECT id FROM w WHERE v IS NOT NULL ORDER BY v <-> '[3.2,1.1,4.3]' LIMIT 4;
ROLLBACK;
DROP INDEX w1;

--- m-small: option out of range
CREATE INDEX ON w USING hnsw (v vector_l2_ops) WITH (m = 1);

--- m-large: option out of range
CREATE INDEX ON w USING hnsw (v vector_l2_ops) WITH (m = 101);

--- ef-small: option out of range
CREATE INDEX ON w USING hnsw (v vector_l2_ops) WITH (ef_construction = 3);

--- ef-below-m: options that do not go together
CREATE INDEX ON w USING hnsw (v vector_l2_ops) WITH (m = 16, ef_construction = 31);

--- lists-small: option out of range
CREATE INDEX ON w USING ivfflat (v) WITH (lists = 0);

--- lists-large: option out of range
CREATE INDEX ON w USING ivfflat (v) WITH (lists = 32769);

--- option-of-other: an option of the other method
CREATE INDEX ON w USING hnsw (v vector_l2_ops) WITH (lists = 5);

--- option-unknown: no such option
CREATE INDEX ON w USING ivfflat (v) WITH (probes = 5);

--- no-class: hnsw has no default class
CREATE INDEX ON w USING hnsw (v);

--- no-dimensions: a column without them
CREATE INDEX ON w USING hnsw (free vector_l2_ops);

--- no-dimensions-ivfflat: a column without them
CREATE INDEX ON w USING ivfflat (free vector_l2_ops);

--- wrong-type: a class of another type
CREATE INDEX ON w USING hnsw (v halfvec_l2_ops);

--- unique: no unique indexes
CREATE UNIQUE INDEX ON w USING hnsw (v vector_l2_ops);

--- include: no included columns
CREATE INDEX ON w USING hnsw (v vector_l2_ops) INCLUDE (id);

--- two-columns: one more column
CREATE INDEX w1 ON w USING hnsw (v vector_l2_ops, tenant);
DROP INDEX IF EXISTS w1;

--- dimensions-2001: more dimensions than pgvector indexes
CREATE TEMP TABLE wide (v vector(2001));
CREATE INDEX ON wide USING hnsw (v vector_l2_ops);
DROP TABLE wide;

--- descending: no such order
CREATE INDEX ON w USING hnsw (v vector_l2_ops DESC);

--- settings: their values
SHOW hnsw.ef_search;
SHOW ivfflat.probes;
SHOW hnsw.iterative_scan;
SHOW hnsw.max_scan_tuples;
SHOW hnsw.scan_mem_multiplier;
SHOW ivfflat.iterative_scan;
SHOW ivfflat.max_probes;

--- ef-search-0: out of range
SET hnsw.ef_search = 0;

--- ef-search-1001: out of range
SET hnsw.ef_search = 1001;

--- iterative-scan-unknown: no such value
SET hnsw.iterative_scan = 'sideways';

--- probes-0: out of range
SET ivfflat.probes = 0;

--- prefix: no settings of other names
SET hnsw.something = 1;

--- iterative: strict and relaxed
CREATE INDEX w1 ON w USING hnsw (v vector_l2_ops);
SET hnsw.iterative_scan = strict_order;
SELECT id FROM w WHERE tenant = 2 ORDER BY v <-> '[3.2,1.1,4.3]' LIMIT 6;
SET hnsw.iterative_scan = relaxed_order;
SELECT count(*) FROM (SELECT id FROM w WHERE tenant = 2 ORDER BY v <-> '[3.2,1.1,4.3]' LIMIT 6) x;
RESET hnsw.iterative_scan;
DROP INDEX w1;
