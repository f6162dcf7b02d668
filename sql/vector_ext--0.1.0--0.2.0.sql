\echo Use "ALTER EXTENSION vector_ext UPDATE TO '0.2.0'" to load this file. \quit

CREATE OR REPLACE FUNCTION ivflsh_recall(index regclass, queries vector[], k integer DEFAULT 10) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_recall_of_array' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 1000000;
CREATE OR REPLACE FUNCTION ivflsh_recall(index regclass, queries halfvec[], k integer DEFAULT 10) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_recall_of_array' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION ivflsh_recall(regclass, vector[], integer) IS
    'the same for given vectors as queries';
COMMENT ON FUNCTION ivflsh_recall(regclass, halfvec[], integer) IS
    'the same for given vectors as queries';

CREATE OR REPLACE FUNCTION ivflsh_recall(index regclass, queries text, k integer DEFAULT 10) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_recall_of_select' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION ivflsh_recall(regclass, text, integer) IS
    'the same for the vectors that a query, given as text, returns as its only column';

-- Not STRICT: NULL is an error, not a call that does nothing.
CREATE OR REPLACE FUNCTION ivflsh_tune(index regclass, queries vector[]) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_tune_by_array' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000;
CREATE OR REPLACE FUNCTION ivflsh_tune(index regclass, queries halfvec[]) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_tune_by_array' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000;
CREATE OR REPLACE FUNCTION ivflsh_tune(index regclass, queries text) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_tune_by_select' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000;
CREATE OR REPLACE FUNCTION ivflsh_tune(index regclass) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_untune' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000;
COMMENT ON FUNCTION ivflsh_tune(regclass, vector[]) IS
    'measures by the given vectors how many lists queries like these have to read, and keeps that in the index; returns how many for ten rows';
COMMENT ON FUNCTION ivflsh_tune(regclass, halfvec[]) IS
    'measures by the given vectors how many lists queries like these have to read, and keeps that in the index; returns how many for ten rows';
COMMENT ON FUNCTION ivflsh_tune(regclass, text) IS
    'the same by the vectors that a query, given as text, returns as its only column';
COMMENT ON FUNCTION ivflsh_tune(regclass) IS
    'lets an index go by what its rows need as queries, as when it was built';

-- What a distance of vectors in the row costs.
ALTER FUNCTION l2_distance(vector, vector) COST 24;
ALTER FUNCTION inner_product(vector, vector) COST 24;
ALTER FUNCTION cosine_distance(vector, vector) COST 24;
ALTER FUNCTION l1_distance(vector, vector) COST 24;
ALTER FUNCTION vector_l2_squared_distance(vector, vector) COST 24;
ALTER FUNCTION vector_negative_inner_product(vector, vector) COST 24;
ALTER FUNCTION vector_spherical_distance(vector, vector) COST 24;
ALTER FUNCTION l2_distance(halfvec, halfvec) COST 24;
ALTER FUNCTION inner_product(halfvec, halfvec) COST 24;
ALTER FUNCTION cosine_distance(halfvec, halfvec) COST 24;
ALTER FUNCTION l1_distance(halfvec, halfvec) COST 24;
ALTER FUNCTION halfvec_l2_squared_distance(halfvec, halfvec) COST 24;
ALTER FUNCTION halfvec_negative_inner_product(halfvec, halfvec) COST 24;
ALTER FUNCTION halfvec_spherical_distance(halfvec, halfvec) COST 24;
ALTER FUNCTION l2_distance(sparsevec, sparsevec) COST 24;
ALTER FUNCTION inner_product(sparsevec, sparsevec) COST 24;
ALTER FUNCTION cosine_distance(sparsevec, sparsevec) COST 24;
ALTER FUNCTION l1_distance(sparsevec, sparsevec) COST 24;
ALTER FUNCTION sparsevec_l2_squared_distance(sparsevec, sparsevec) COST 24;
ALTER FUNCTION sparsevec_negative_inner_product(sparsevec, sparsevec) COST 24;
ALTER FUNCTION hamming_distance(bit, bit) COST 24;
ALTER FUNCTION jaccard_distance(bit, bit) COST 24;
