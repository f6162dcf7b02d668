-- What client libraries and tools ask before and while they use vectors

--- setup
CREATE TABLE things (id bigserial PRIMARY KEY, embedding vector(3), half halfvec(3), sparse sparsevec(3), bits bit(3));

--- to-regtype: psycopg 3 looks up the types by name
SELECT to_regtype('vector') IS NOT NULL, to_regtype('halfvec') IS NOT NULL, to_regtype('sparsevec') IS NOT NULL, to_regtype('_vector') IS NOT NULL, to_regtype('vector[]')::text;

--- pg-type-name: pgx and node-postgres look up by pg_type.typname
SELECT typname, typtype, typelem = 0, typarray <> 0 FROM pg_type WHERE typname IN ('vector', 'halfvec', 'sparsevec', '_vector', '_halfvec', '_sparsevec') ORDER BY typname;

--- asyncpg-introspection: schema-qualified name, basetype
SELECT t.typname, t.typbasetype, format_type(t.oid, NULL), t.typrelid FROM pg_type t WHERE t.oid = ANY (ARRAY['vector'::regtype, 'halfvec'::regtype, 'sparsevec'::regtype]::oid[]) ORDER BY 1;

--- format-type: SQLAlchemy reflects columns by format_type
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = 'things'::regclass AND a.attnum > 0 ORDER BY a.attnum;

--- typmod: drivers read the dimensions from atttypmod
SELECT attname, atttypmod FROM pg_attribute WHERE attrelid = 'things'::regclass AND attnum > 0 ORDER BY attnum;

--- regtype-quoted: the type's name needs no quotes
SELECT 'vector'::regtype::text, quote_ident('vector'), 'public.vector'::regtype::text;

--- text-array-parameter: JSON-like text as a parameter
PREPARE ins (text) AS INSERT INTO things (embedding) VALUES ($1::vector) RETURNING embedding; EXECUTE ins ('[1,2,3]'); EXECUTE ins ('[1, 2, 3]');

--- unknown-parameter: an untyped parameter takes the column's type
PREPARE ins2 AS INSERT INTO things (embedding, half, sparse) VALUES ($1, $2, $3) RETURNING embedding, half, sparse; EXECUTE ins2 ('[4,5,6]', '[4,5,6]', '{1:4}/3');

--- parameter-types: types that the server infers
SELECT parameter_types FROM pg_prepared_statements WHERE name = 'ins2';

--- float-array-parameter: real[] as a parameter on INSERT
PREPARE ins3 (real[]) AS INSERT INTO things (embedding) VALUES ($1) RETURNING embedding; EXECUTE ins3 ('{7,8,9}');

--- float8-array-parameter: float8[] as a parameter on INSERT
PREPARE ins4 (float8[]) AS INSERT INTO things (half) VALUES ($1) RETURNING half; EXECUTE ins4 ('{7,8,9}');

--- distance-parameter: untyped parameter in an operator
PREPARE q AS SELECT id, embedding <-> $1 FROM things ORDER BY embedding <-> $1, id LIMIT $2; EXECUTE q ('[1,2,3]', 2);

--- distance-parameter-mismatch: parameter of other dimensions
EXECUTE q ('[1,2]', 2);

--- distance-parameter-array: real[] parameter cast in an operator
PREPARE q2 (real[]) AS SELECT id FROM things ORDER BY embedding <=> $1::vector, id LIMIT 1; EXECUTE q2 ('{1,2,3}');

--- cast-call: CAST of a parameter (Hibernate, Django)
PREPARE q3 (text) AS SELECT id FROM things ORDER BY embedding <-> CAST($1 AS vector(3)), id LIMIT 1; EXECUTE q3 ('[1,2,3]');

--- distance-alias: cosine similarity as clients write it
SELECT 1 - (embedding <=> '[3,1,2]') AS cosine_similarity FROM things WHERE embedding IS NOT NULL ORDER BY id;

--- inner-product-alias: inner product as clients write it
SELECT (embedding <#> '[3,1,2]') * -1 AS inner_product FROM things WHERE embedding IS NOT NULL ORDER BY id;

--- hybrid: reciprocal rank of two rankings
WITH s AS (SELECT id, RANK() OVER (ORDER BY embedding <=> '[1,2,3]') AS r FROM things), k AS (SELECT id, RANK() OVER (ORDER BY id DESC) AS r FROM things) SELECT s.id, 1.0 / (60 + s.r) + 1.0 / (60 + k.r) AS score FROM s JOIN k USING (id) ORDER BY score DESC, s.id LIMIT 3;

--- rerank-binary: rerank of a binary search
SELECT id FROM (SELECT * FROM things WHERE embedding IS NOT NULL ORDER BY binary_quantize(embedding)::bit(3) <~> binary_quantize('[1,-2,3]'::vector), id LIMIT 3) s ORDER BY embedding <=> '[1,-2,3]', id LIMIT 2;

--- rerank-subvector: rerank of a search by subvector
SELECT id FROM (SELECT * FROM things WHERE embedding IS NOT NULL ORDER BY subvector(embedding, 1, 2)::vector(2) <=> subvector('[1,-2,3]'::vector, 1, 2), id LIMIT 3) s ORDER BY embedding <=> '[1,-2,3]', id LIMIT 2;

--- half-cast-search: search over a cast to halfvec
SELECT id FROM things WHERE embedding IS NOT NULL ORDER BY embedding::halfvec(3) <-> '[1,2,3]', id LIMIT 2;

--- create-extension-twice: IF NOT EXISTS is quiet
CREATE EXTENSION IF NOT EXISTS :"ext";

--- average-of-column: average of a column, as in the documentation
SELECT avg(embedding) FROM things;

--- group-average: average by group
SELECT id % 2, avg(embedding) FROM things GROUP BY 1 ORDER BY 1;
