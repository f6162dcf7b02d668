-- Functions that tell what an ivflsh index is like.

CREATE FUNCTION ivflsh_recall(index regclass, queries integer DEFAULT 200, k integer DEFAULT 10) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_recall' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION ivflsh_recall(regclass, integer, integer) IS
    'share of the k true nearest neighbours, of rows taken from the table as queries, that the index finds with the current settings';

CREATE FUNCTION ivflsh_recall(index regclass, queries vector[], k integer DEFAULT 10) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_recall_of_array' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 1000000;
CREATE FUNCTION ivflsh_recall(index regclass, queries halfvec[], k integer DEFAULT 10) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_recall_of_array' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION ivflsh_recall(regclass, vector[], integer) IS
    'the same for given vectors as queries';
COMMENT ON FUNCTION ivflsh_recall(regclass, halfvec[], integer) IS
    'the same for given vectors as queries';

CREATE FUNCTION ivflsh_recall(index regclass, queries text, k integer DEFAULT 10) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_recall_of_select' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION ivflsh_recall(regclass, text, integer) IS
    'the same for the vectors that a query, given as text, returns as its only column';

-- Not STRICT: NULL is an error, not a call that does nothing.
CREATE FUNCTION ivflsh_tune(index regclass, queries vector[]) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_tune_by_array' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000;
CREATE FUNCTION ivflsh_tune(index regclass, queries halfvec[]) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_tune_by_array' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000;
CREATE FUNCTION ivflsh_tune(index regclass, queries text) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_tune_by_select' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000;
CREATE FUNCTION ivflsh_tune(index regclass) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_untune' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000;
COMMENT ON FUNCTION ivflsh_tune(regclass, vector[]) IS
    'measures by the given vectors how many lists queries like these have to read, and keeps that in the index; returns how many for ten rows';
COMMENT ON FUNCTION ivflsh_tune(regclass, halfvec[]) IS
    'measures by the given vectors how many lists queries like these have to read, and keeps that in the index; returns how many for ten rows';
COMMENT ON FUNCTION ivflsh_tune(regclass, text) IS
    'the same by the vectors that a query, given as text, returns as its only column';
COMMENT ON FUNCTION ivflsh_tune(regclass) IS
    'lets an index go by what its rows need as queries, as when it was built';

CREATE FUNCTION ivflsh_stats(index regclass) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'ivflsh_stats' LANGUAGE C VOLATILE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION ivflsh_stats IS 'size, lists, entries and calibration of an ivflsh index';

CREATE FUNCTION ivflsh_last_scan(OUT lists bigint, OUT entries bigint, OUT refined bigint, OUT returned bigint,
        OUT rechecked bigint)
    AS 'MODULE_PATHNAME', 'ivflsh_last_scan' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION ivflsh_last_scan IS
    'work of the last ivflsh index scan that this session has finished: lists scanned, entries in them, codes read, rows returned,
    rows whose distance only the row itself tells';

CREATE FUNCTION ivflsh_check(
    index regclass, heapallindexed boolean DEFAULT true,
    OUT lists bigint, OUT entries bigint, OUT rows bigint, OUT pages bigint, OUT free_pages bigint, OUT leaked_pages bigint)
    AS 'MODULE_PATHNAME', 'ivflsh_check' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION ivflsh_check IS
    'verifies an ivflsh index, and that each row of its table has one entry that is right; raises index_corrupted if not';

CREATE FUNCTION ivflsh_lists(
    index regclass,
    OUT list bigint, OUT parent bigint, OUT level integer, OUT head bigint, OUT entries bigint, OUT free_slots bigint,
    OUT pages bigint, OUT radius double precision, OUT closed boolean)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ivflsh_lists' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 10000 ROWS 10000;
COMMENT ON FUNCTION ivflsh_lists IS 'the lists of an ivflsh index, from the root down';

CREATE FUNCTION ivflsh_prewarm(index regclass) RETURNS bigint
    AS 'MODULE_PATHNAME', 'ivflsh_prewarm' LANGUAGE C VOLATILE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION ivflsh_prewarm IS 'reads all pages of an ivflsh index into shared buffers; returns their number';
