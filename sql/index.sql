-- The ivflsh access method and its operator classes.

CREATE FUNCTION ivflsh_handler(internal) RETURNS index_am_handler
    AS 'MODULE_PATHNAME', 'ivflsh_handler' LANGUAGE C;

CREATE ACCESS METHOD ivflsh TYPE INDEX HANDLER ivflsh_handler;

COMMENT ON ACCESS METHOD ivflsh IS 'inverted file of LSH sketches: nearest neighbours by distance';

-- Support functions: each names the element type and the metric of an operator class.
CREATE FUNCTION ivflsh_vector_l2() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_vector_l2' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_vector_cosine() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_vector_cosine' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_vector_ip() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_vector_ip' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_halfvec_l2() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_halfvec_l2' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_halfvec_cosine() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_halfvec_cosine' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_halfvec_ip() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_halfvec_ip' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_bit_hamming() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_bit_hamming' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_bit_jaccard() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_bit_jaccard' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ivflsh_sparsevec_ip() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_sparsevec_ip' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE OPERATOR CLASS vector_l2_ops DEFAULT FOR TYPE vector USING ivflsh AS
    OPERATOR 1 <-> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 (vector, vector) ivflsh_vector_l2();

CREATE OPERATOR CLASS vector_ip_ops FOR TYPE vector USING ivflsh AS
    OPERATOR 1 <#> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 (vector, vector) ivflsh_vector_ip();

CREATE OPERATOR CLASS vector_cosine_ops FOR TYPE vector USING ivflsh AS
    OPERATOR 1 <=> (vector, vector) FOR ORDER BY float_ops,
    FUNCTION 1 (vector, vector) ivflsh_vector_cosine();

CREATE OPERATOR CLASS halfvec_l2_ops DEFAULT FOR TYPE halfvec USING ivflsh AS
    OPERATOR 1 <-> (halfvec, halfvec) FOR ORDER BY float_ops,
    FUNCTION 1 (halfvec, halfvec) ivflsh_halfvec_l2();

CREATE OPERATOR CLASS halfvec_ip_ops FOR TYPE halfvec USING ivflsh AS
    OPERATOR 1 <#> (halfvec, halfvec) FOR ORDER BY float_ops,
    FUNCTION 1 (halfvec, halfvec) ivflsh_halfvec_ip();

CREATE OPERATOR CLASS halfvec_cosine_ops FOR TYPE halfvec USING ivflsh AS
    OPERATOR 1 <=> (halfvec, halfvec) FOR ORDER BY float_ops,
    FUNCTION 1 (halfvec, halfvec) ivflsh_halfvec_cosine();

CREATE OPERATOR CLASS sparsevec_ip_ops FOR TYPE sparsevec USING ivflsh AS
    OPERATOR 1 <#> (sparsevec, sparsevec) FOR ORDER BY float_ops,
    FUNCTION 1 (sparsevec, sparsevec) ivflsh_sparsevec_ip();

CREATE OPERATOR CLASS bit_hamming_ops FOR TYPE bit USING ivflsh AS
    OPERATOR 1 <~> (bit, bit) FOR ORDER BY float_ops,
    FUNCTION 1 (bit, bit) ivflsh_bit_hamming();

CREATE OPERATOR CLASS bit_jaccard_ops FOR TYPE bit USING ivflsh AS
    OPERATOR 1 <%> (bit, bit) FOR ORDER BY float_ops,
    FUNCTION 1 (bit, bit) ivflsh_bit_jaccard();
