-- Casts: between the types, and from and to arrays.
--
-- PostgreSQL calls a cast's function with the length that the column declares. Citus calls it with the value alone, when rows of
-- a query go to a distributed table, and fails where the other arguments have no defaults.

-- To vector

CREATE FUNCTION vector(vector, integer, boolean) RETURNS vector
    AS 'MODULE_PATHNAME', 'vx_vector'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION halfvec_to_vector(halfvec, integer DEFAULT -1, boolean DEFAULT false) RETURNS vector
    AS 'MODULE_PATHNAME', 'vx_halfvec_to_vector'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION sparsevec_to_vector(sparsevec, integer DEFAULT -1, boolean DEFAULT false) RETURNS vector
    AS 'MODULE_PATHNAME', 'vx_sparsevec_to_vector'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION array_to_vector(integer[], integer DEFAULT -1, boolean DEFAULT false) RETURNS vector
    AS 'MODULE_PATHNAME', 'vx_array_to_vector'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION array_to_vector(real[], integer DEFAULT -1, boolean DEFAULT false) RETURNS vector
    AS 'MODULE_PATHNAME', 'vx_array_to_vector'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION array_to_vector(double precision[], integer DEFAULT -1, boolean DEFAULT false) RETURNS vector
    AS 'MODULE_PATHNAME', 'vx_array_to_vector'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION array_to_vector(numeric[], integer DEFAULT -1, boolean DEFAULT false) RETURNS vector
    AS 'MODULE_PATHNAME', 'vx_array_to_vector'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE CAST (vector AS vector)
    WITH FUNCTION vector(vector, integer, boolean) AS IMPLICIT;

CREATE CAST (halfvec AS vector)
    WITH FUNCTION halfvec_to_vector(halfvec, integer, boolean) AS ASSIGNMENT;

CREATE CAST (sparsevec AS vector)
    WITH FUNCTION sparsevec_to_vector(sparsevec, integer, boolean) AS ASSIGNMENT;

CREATE CAST (integer[] AS vector)
    WITH FUNCTION array_to_vector(integer[], integer, boolean) AS ASSIGNMENT;

CREATE CAST (real[] AS vector)
    WITH FUNCTION array_to_vector(real[], integer, boolean) AS ASSIGNMENT;

CREATE CAST (double precision[] AS vector)
    WITH FUNCTION array_to_vector(double precision[], integer, boolean) AS ASSIGNMENT;

CREATE CAST (numeric[] AS vector)
    WITH FUNCTION array_to_vector(numeric[], integer, boolean) AS ASSIGNMENT;

-- To halfvec

CREATE FUNCTION halfvec(halfvec, integer, boolean) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'vx_halfvec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION vector_to_halfvec(vector, integer DEFAULT -1, boolean DEFAULT false) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'vx_vector_to_halfvec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION sparsevec_to_halfvec(sparsevec, integer DEFAULT -1, boolean DEFAULT false) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'vx_sparsevec_to_halfvec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION array_to_halfvec(integer[], integer DEFAULT -1, boolean DEFAULT false) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'vx_array_to_halfvec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION array_to_halfvec(real[], integer DEFAULT -1, boolean DEFAULT false) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'vx_array_to_halfvec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION array_to_halfvec(double precision[], integer DEFAULT -1, boolean DEFAULT false) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'vx_array_to_halfvec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION array_to_halfvec(numeric[], integer DEFAULT -1, boolean DEFAULT false) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'vx_array_to_halfvec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE CAST (vector AS halfvec)
    WITH FUNCTION vector_to_halfvec(vector, integer, boolean) AS IMPLICIT;

CREATE CAST (halfvec AS halfvec)
    WITH FUNCTION halfvec(halfvec, integer, boolean) AS IMPLICIT;

CREATE CAST (sparsevec AS halfvec)
    WITH FUNCTION sparsevec_to_halfvec(sparsevec, integer, boolean) AS ASSIGNMENT;

CREATE CAST (integer[] AS halfvec)
    WITH FUNCTION array_to_halfvec(integer[], integer, boolean) AS ASSIGNMENT;

CREATE CAST (real[] AS halfvec)
    WITH FUNCTION array_to_halfvec(real[], integer, boolean) AS ASSIGNMENT;

CREATE CAST (double precision[] AS halfvec)
    WITH FUNCTION array_to_halfvec(double precision[], integer, boolean) AS ASSIGNMENT;

CREATE CAST (numeric[] AS halfvec)
    WITH FUNCTION array_to_halfvec(numeric[], integer, boolean) AS ASSIGNMENT;

-- To sparsevec

CREATE FUNCTION sparsevec(sparsevec, integer, boolean) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_sparsevec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION vector_to_sparsevec(vector, integer DEFAULT -1, boolean DEFAULT false) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_vector_to_sparsevec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION halfvec_to_sparsevec(halfvec, integer DEFAULT -1, boolean DEFAULT false) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_halfvec_to_sparsevec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION array_to_sparsevec(integer[], integer DEFAULT -1, boolean DEFAULT false) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_array_to_sparsevec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION array_to_sparsevec(real[], integer DEFAULT -1, boolean DEFAULT false) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_array_to_sparsevec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION array_to_sparsevec(double precision[], integer DEFAULT -1, boolean DEFAULT false) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_array_to_sparsevec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION array_to_sparsevec(numeric[], integer DEFAULT -1, boolean DEFAULT false) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_array_to_sparsevec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE CAST (vector AS sparsevec)
    WITH FUNCTION vector_to_sparsevec(vector, integer, boolean) AS IMPLICIT;

CREATE CAST (halfvec AS sparsevec)
    WITH FUNCTION halfvec_to_sparsevec(halfvec, integer, boolean) AS IMPLICIT;

CREATE CAST (sparsevec AS sparsevec)
    WITH FUNCTION sparsevec(sparsevec, integer, boolean) AS IMPLICIT;

CREATE CAST (integer[] AS sparsevec)
    WITH FUNCTION array_to_sparsevec(integer[], integer, boolean) AS ASSIGNMENT;

CREATE CAST (real[] AS sparsevec)
    WITH FUNCTION array_to_sparsevec(real[], integer, boolean) AS ASSIGNMENT;

CREATE CAST (double precision[] AS sparsevec)
    WITH FUNCTION array_to_sparsevec(double precision[], integer, boolean) AS ASSIGNMENT;

CREATE CAST (numeric[] AS sparsevec)
    WITH FUNCTION array_to_sparsevec(numeric[], integer, boolean) AS ASSIGNMENT;

-- To arrays

CREATE FUNCTION vector_to_float4(vector, integer DEFAULT -1, boolean DEFAULT false) RETURNS real[]
    AS 'MODULE_PATHNAME', 'vx_vector_to_float4'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION halfvec_to_float4(halfvec, integer DEFAULT -1, boolean DEFAULT false) RETURNS real[]
    AS 'MODULE_PATHNAME', 'vx_halfvec_to_float4'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

CREATE CAST (vector AS real[])
    WITH FUNCTION vector_to_float4(vector, integer, boolean) AS IMPLICIT;

CREATE CAST (halfvec AS real[])
    WITH FUNCTION halfvec_to_float4(halfvec, integer, boolean) AS ASSIGNMENT;
