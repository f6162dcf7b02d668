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
