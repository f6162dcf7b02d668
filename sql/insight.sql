-- Functions that tell what an ivflsh index is like.

CREATE FUNCTION ivflsh_recall(index regclass, queries integer DEFAULT 200, k integer DEFAULT 10) RETURNS double precision
    AS 'MODULE_PATHNAME', 'ivflsh_recall' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION ivflsh_recall IS
    'share of the k true nearest neighbours, of rows taken from the table as queries, that the index finds with the current settings';

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
