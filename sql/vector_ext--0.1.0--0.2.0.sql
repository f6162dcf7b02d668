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

-- BM25, fused rankings, diverse results.

-- What BM25 knows of a collection of documents.

CREATE TYPE bm25_stats;

CREATE FUNCTION bm25_stats_in(cstring) RETURNS bm25_stats
    AS 'MODULE_PATHNAME', 'vx_bm25_stats_in' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
CREATE FUNCTION bm25_stats_out(bm25_stats) RETURNS cstring
    AS 'MODULE_PATHNAME', 'vx_bm25_stats_out' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
CREATE FUNCTION bm25_stats_recv(internal) RETURNS bm25_stats
    AS 'MODULE_PATHNAME', 'vx_bm25_stats_recv' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
CREATE FUNCTION bm25_stats_send(bm25_stats) RETURNS bytea
    AS 'MODULE_PATHNAME', 'vx_bm25_stats_send' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;

-- Uncompressed, so that a query fetches the frequencies of its own terms only.
CREATE TYPE bm25_stats (
    INPUT = bm25_stats_in, OUTPUT = bm25_stats_out, RECEIVE = bm25_stats_recv, SEND = bm25_stats_send,
    ALIGNMENT = double, STORAGE = external
);
COMMENT ON TYPE bm25_stats IS 'number, lengths and terms of a collection of documents, and the parameters of BM25';

CREATE FUNCTION bm25_stats_transition(internal, tsvector) RETURNS internal
    AS 'MODULE_PATHNAME', 'vx_bm25_stats_transition' LANGUAGE C IMMUTABLE PARALLEL SAFE COST 100;
CREATE FUNCTION bm25_stats_transition(internal, tsvector, float8, float8) RETURNS internal
    AS 'MODULE_PATHNAME', 'vx_bm25_stats_transition' LANGUAGE C IMMUTABLE PARALLEL SAFE COST 100;
CREATE FUNCTION bm25_stats_transition(internal, tsvector, float8, float8, real[]) RETURNS internal
    AS 'MODULE_PATHNAME', 'vx_bm25_stats_transition' LANGUAGE C IMMUTABLE PARALLEL SAFE COST 100;
CREATE FUNCTION bm25_stats_combine(internal, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'vx_bm25_stats_combine' LANGUAGE C IMMUTABLE PARALLEL SAFE COST 1000;
CREATE FUNCTION bm25_stats_serialize(internal) RETURNS bytea
    AS 'MODULE_PATHNAME', 'vx_bm25_stats_serialize' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
CREATE FUNCTION bm25_stats_deserialize(bytea, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'vx_bm25_stats_deserialize' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
CREATE FUNCTION bm25_stats_final(internal) RETURNS bm25_stats
    AS 'MODULE_PATHNAME', 'vx_bm25_stats_final' LANGUAGE C IMMUTABLE PARALLEL SAFE COST 1000;

CREATE AGGREGATE bm25_stats(tsvector) (
    SFUNC = bm25_stats_transition, STYPE = internal, FINALFUNC = bm25_stats_final, COMBINEFUNC = bm25_stats_combine,
    SERIALFUNC = bm25_stats_serialize, DESERIALFUNC = bm25_stats_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE bm25_stats(tsvector) IS 'counts terms and lengths of documents for BM25, with k1 = 1.2 and b = 0.75';
CREATE AGGREGATE bm25_stats(tsvector, k1 float8, b float8) (
    SFUNC = bm25_stats_transition, STYPE = internal, FINALFUNC = bm25_stats_final, COMBINEFUNC = bm25_stats_combine,
    SERIALFUNC = bm25_stats_serialize, DESERIALFUNC = bm25_stats_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE bm25_stats(tsvector, float8, float8) IS 'the same with parameters of BM25';
CREATE AGGREGATE bm25_stats(tsvector, k1 float8, b float8, weights real[]) (
    SFUNC = bm25_stats_transition, STYPE = internal, FINALFUNC = bm25_stats_final, COMBINEFUNC = bm25_stats_combine,
    SERIALFUNC = bm25_stats_serialize, DESERIALFUNC = bm25_stats_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE bm25_stats(tsvector, float8, float8, real[]) IS
    'the same with what words of the classes D, C, B and A count, as in ts_rank';

CREATE FUNCTION bm25_parameters(bm25_stats) RETURNS bm25_stats
    AS 'MODULE_PATHNAME', 'vx_bm25_parameters' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION bm25_parameters(bm25_stats) IS
    'what documents need of the stats, without the frequencies of terms: small enough for the definition of a column';

CREATE FUNCTION bm25_document(document tsvector, stats bm25_stats) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_bm25_document' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION bm25_document(tsvector, bm25_stats) IS
    'a document whose negative inner product (<#>) with a bm25_query is its BM25 score, negative';
CREATE FUNCTION bm25_query(query tsvector, stats bm25_stats) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_bm25_query_of_tsvector' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION bm25_query(tsvector, bm25_stats) IS 'a text as query for documents by bm25_document';
CREATE FUNCTION bm25_query(query tsquery, stats bm25_stats) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_bm25_query_of_tsquery' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION bm25_query(tsquery, bm25_stats) IS 'the words of a tsquery as query for documents by bm25_document';

-- Indexes of terms.

CREATE FUNCTION ivflsh_sparsevec_ip() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_sparsevec_ip' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE OPERATOR CLASS sparsevec_ip_ops FOR TYPE sparsevec USING ivflsh AS
    OPERATOR 1 <#> (sparsevec, sparsevec) FOR ORDER BY float_ops,
    FUNCTION 1 (sparsevec, sparsevec) ivflsh_sparsevec_ip();

-- Fused rankings.

CREATE FUNCTION rrf_score(rank bigint, k integer DEFAULT 60) RETURNS float8
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN coalesce(1.0::float8 / (k + rank)::float8, 0.0::float8);
COMMENT ON FUNCTION rrf_score(bigint, integer) IS
    'what a place in a ranking, from 1 on, counts in reciprocal rank fusion; 0 for NULL, a result that this ranking does not have';

-- Diverse results.

CREATE FUNCTION mmr(query vector, embeddings vector[], k integer, lambda float8 DEFAULT 0.5) RETURNS integer[]
    AS 'MODULE_PATHNAME', 'vx_vector_mmr' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10000;
CREATE FUNCTION mmr(query halfvec, embeddings halfvec[], k integer, lambda float8 DEFAULT 0.5) RETURNS integer[]
    AS 'MODULE_PATHNAME', 'vx_halfvec_mmr' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION mmr(vector, vector[], integer, float8) IS
    'positions of k vectors that are like the query but not like each other (maximal marginal relevance by cosine), best first';
COMMENT ON FUNCTION mmr(halfvec, halfvec[], integer, float8) IS
    'positions of k vectors that are like the query but not like each other (maximal marginal relevance by cosine), best first';
CREATE FUNCTION deduplicate(embeddings vector[], distance float8) RETURNS integer[]
    AS 'MODULE_PATHNAME', 'vx_vector_deduplicate' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10000;
CREATE FUNCTION deduplicate(embeddings halfvec[], distance float8) RETURNS integer[]
    AS 'MODULE_PATHNAME', 'vx_halfvec_deduplicate' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION deduplicate(vector[], float8) IS
    'positions of the vectors that no earlier kept one is nearer to than this cosine distance';
COMMENT ON FUNCTION deduplicate(halfvec[], float8) IS
    'positions of the vectors that no earlier kept one is nearer to than this cosine distance';
