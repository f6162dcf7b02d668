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

-- Casts' functions, callable with the value alone.
CREATE OR REPLACE FUNCTION halfvec_to_vector(halfvec, integer DEFAULT -1, boolean DEFAULT false) RETURNS vector
    AS 'MODULE_PATHNAME', 'vx_halfvec_to_vector'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION sparsevec_to_vector(sparsevec, integer DEFAULT -1, boolean DEFAULT false) RETURNS vector
    AS 'MODULE_PATHNAME', 'vx_sparsevec_to_vector'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION array_to_vector(integer[], integer DEFAULT -1, boolean DEFAULT false) RETURNS vector
    AS 'MODULE_PATHNAME', 'vx_array_to_vector'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION array_to_vector(real[], integer DEFAULT -1, boolean DEFAULT false) RETURNS vector
    AS 'MODULE_PATHNAME', 'vx_array_to_vector'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION array_to_vector(double precision[], integer DEFAULT -1, boolean DEFAULT false) RETURNS vector
    AS 'MODULE_PATHNAME', 'vx_array_to_vector'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION array_to_vector(numeric[], integer DEFAULT -1, boolean DEFAULT false) RETURNS vector
    AS 'MODULE_PATHNAME', 'vx_array_to_vector'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION vector_to_halfvec(vector, integer DEFAULT -1, boolean DEFAULT false) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'vx_vector_to_halfvec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION sparsevec_to_halfvec(sparsevec, integer DEFAULT -1, boolean DEFAULT false) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'vx_sparsevec_to_halfvec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION array_to_halfvec(integer[], integer DEFAULT -1, boolean DEFAULT false) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'vx_array_to_halfvec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION array_to_halfvec(real[], integer DEFAULT -1, boolean DEFAULT false) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'vx_array_to_halfvec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION array_to_halfvec(double precision[], integer DEFAULT -1, boolean DEFAULT false) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'vx_array_to_halfvec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION array_to_halfvec(numeric[], integer DEFAULT -1, boolean DEFAULT false) RETURNS halfvec
    AS 'MODULE_PATHNAME', 'vx_array_to_halfvec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION vector_to_sparsevec(vector, integer DEFAULT -1, boolean DEFAULT false) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_vector_to_sparsevec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION halfvec_to_sparsevec(halfvec, integer DEFAULT -1, boolean DEFAULT false) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_halfvec_to_sparsevec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION array_to_sparsevec(integer[], integer DEFAULT -1, boolean DEFAULT false) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_array_to_sparsevec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION array_to_sparsevec(real[], integer DEFAULT -1, boolean DEFAULT false) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_array_to_sparsevec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION array_to_sparsevec(double precision[], integer DEFAULT -1, boolean DEFAULT false) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_array_to_sparsevec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION array_to_sparsevec(numeric[], integer DEFAULT -1, boolean DEFAULT false) RETURNS sparsevec
    AS 'MODULE_PATHNAME', 'vx_array_to_sparsevec'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION vector_to_float4(vector, integer DEFAULT -1, boolean DEFAULT false) RETURNS real[]
    AS 'MODULE_PATHNAME', 'vx_vector_to_float4'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE OR REPLACE FUNCTION halfvec_to_float4(halfvec, integer DEFAULT -1, boolean DEFAULT false) RETURNS real[]
    AS 'MODULE_PATHNAME', 'vx_halfvec_to_float4'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

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

-- One query for many servers at once.

CREATE FUNCTION ivflsh_fan_out(servers text[], statement text, k integer, timeout interval DEFAULT NULL,
        skip_failed boolean DEFAULT false, OUT server text, OUT id text, OUT distance float8)
    RETURNS SETOF record LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 10
    SET search_path = pg_catalog, pg_temp
AS $body$
-- By dblink, whose queries run at the same time. Nothing here has rights of its own: servers, user mappings and the functions of
-- dblink are used as who calls.
#variable_conflict use_column
DECLARE
    dblink text := (SELECT quote_ident(nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'dblink');
    me oid := current_user::regrole::oid;
    number integer := coalesce(cardinality(servers), 0);
    began timestamptz := clock_timestamp();
    -- What comes next of a server.
    done CONSTANT integer := 0;
    to_connect CONSTANT integer := 1;
    to_settle CONSTANT integer := 2;
    to_read CONSTANT integer := 3;
    to_finish CONSTANT integer := 4;
    stages integer[] := array_fill(to_connect, ARRAY[number]);
    connections text[] := array_fill(NULL::text, ARRAY[number]);
    -- Connections outlive a call, unless a function of another role calls: whoever called that could use them by their names.
    keep boolean := current_user = session_user;
    kept boolean[] := array_fill(false, ARRAY[number]);
    opened text[];
    settings text;
    ready boolean[];
    found_server record;
    answer record;
    e_message text;
    e_state text;
    e_detail text;
    e_hint text;
    e_context text;
    all_servers text[] := '{}';
    all_ids text[] := '{}';
    all_distances float8[] := '{}';
BEGIN
    IF statement IS NULL OR k IS NULL OR k < 1 OR skip_failed IS NULL THEN
        RAISE EXCEPTION 'ivflsh_fan_out wants a statement, and a number of rows from 1 on' USING ERRCODE = 'invalid_parameter_value';
    ELSIF timeout <= '0' THEN
        RAISE EXCEPTION 'a timeout must be more than 0, not %', timeout USING ERRCODE = 'invalid_parameter_value';
    ELSIF array_position(servers, NULL) IS NOT NULL OR number <> (SELECT count(DISTINCT s) FROM unnest(servers) s) THEN
        RAISE EXCEPTION 'servers must be different names' USING ERRCODE = 'invalid_parameter_value';
    ELSIF dblink IS NULL THEN
        RAISE EXCEPTION 'ivflsh_fan_out needs the extension dblink' USING ERRCODE = 'feature_not_supported', HINT = 'CREATE EXTENSION dblink;';
    END IF;
    -- What this session has set for searches counts on the servers, too, for the statement only.
    SELECT string_agg(format('pg_catalog.set_config(%L, %L, true)', name, value), ', ') INTO settings FROM (
        SELECT name, current_setting(name, true) FROM (VALUES
            ('ivflsh.target_recall', '0.95'), ('ivflsh.probes', '0'), ('ivflsh.iterative_scan', 'strict_order')) AS known (name, usual)
        WHERE nullif(current_setting(name, true), '') <> usual
        UNION ALL SELECT 'statement_timeout', ceil(extract(epoch FROM timeout) * 1000)::text WHERE timeout IS NOT NULL
    ) AS changed (name, value);
    IF settings IS NOT NULL THEN
        statement := format('SELECT pg_catalog.concat(%s); ', settings) || statement;
    END IF;
    EXECUTE format('SELECT coalesce(%s.dblink_get_connections(), ''{}'')', dblink) INTO opened;
    BEGIN
        WHILE done <> ANY (stages) LOOP
            EXECUTE format('SELECT array_agg(CASE WHEN stage > $3 THEN %s.dblink_is_busy(c) = 0 ELSE stage = $3 END ORDER BY n)
                FROM unnest($1, $2) WITH ORDINALITY AS t (c, stage, n)', dblink) INTO ready USING connections, stages, to_connect;
            IF NOT true = ANY (ready) AND (clock_timestamp() < began + timeout) IS NOT FALSE THEN
                PERFORM pg_sleep(least(0.05, extract(epoch FROM clock_timestamp() - began) / 16));
                CONTINUE;
            END IF;
            FOR i IN 1 .. number LOOP
                CONTINUE WHEN stages[i] = done;
                e_message := NULL;
                IF NOT ready[i] THEN
                    CONTINUE WHEN (clock_timestamp() < began + timeout) IS NOT FALSE;
                    kept[i] := false;
                    SELECT format('no answer within %s', timeout), '57014', NULL, NULL INTO e_message, e_state, e_detail, e_hint;
                ELSE
                    BEGIN
                        IF stages[i] = to_connect THEN
                            SELECT s.oid, left(md5(concat(s.srvoptions, m.umoptions)), 16) AS options INTO found_server
                                FROM pg_foreign_server s LEFT JOIN pg_user_mappings m ON m.srvid = s.oid AND m.umuser IN (me, 0)
                                WHERE s.srvname = servers[i] ORDER BY m.umuser DESC NULLS LAST LIMIT 1;
                            IF found_server.oid IS NULL THEN
                                RAISE EXCEPTION 'there is no such server' USING ERRCODE = 'undefined_object';
                            ELSIF NOT has_server_privilege(me, found_server.oid, 'USAGE') THEN
                                RAISE EXCEPTION 'permission denied' USING ERRCODE = 'insufficient_privilege';
                            END IF;
                            connections[i] := format('ivflsh %s %s %s', me, found_server.oid, found_server.options);
                            kept[i] := connections[i] = ANY (opened);
                            IF NOT kept[i] THEN
                                -- What was opened by options that have been altered is of no more use.
                                EXECUTE format('SELECT %s.dblink_disconnect(c) FROM unnest($1) c WHERE starts_with(c, $2)', dblink)
                                    USING opened, format('ivflsh %s %s ', me, found_server.oid);
                                EXECUTE format('SELECT %s.dblink_connect($1, $2)', dblink) USING connections[i], servers[i];
                                -- So that a server soon ends what nobody waits for any more. Some systems cannot.
                                EXECUTE format('SELECT %s.dblink_exec($1, ''SET client_connection_check_interval = 500'', false)',
                                    dblink) USING connections[i];
                            END IF;
                            EXECUTE format('SELECT %1$s.dblink_send_query($1, $2) AS sent, %1$s.dblink_error_message($1) AS message',
                                dblink) INTO answer USING connections[i], statement;
                            IF answer.sent <> 1 THEN
                                RAISE EXCEPTION '%', answer.message USING ERRCODE = 'connection_failure';
                            END IF;
                            stages[i] := CASE WHEN settings IS NULL THEN to_read ELSE to_settle END;
                        ELSIF stages[i] = to_settle THEN
                            EXECUTE format('SELECT FROM %s.dblink_get_result($1) AS t (settings text)', dblink) USING connections[i];
                            stages[i] := to_read;
                        ELSIF stages[i] = to_read THEN
                            EXECUTE format('SELECT array_agg(id) AS ids, array_agg(distance) AS distances
                                FROM %s.dblink_get_result($1) AS t (id text, distance float8)', dblink) INTO answer USING connections[i];
                            all_servers := all_servers || array_fill(servers[i], ARRAY[coalesce(cardinality(answer.ids), 0)]);
                            all_ids := all_ids || answer.ids;
                            all_distances := all_distances || answer.distances;
                            stages[i] := to_finish;
                        ELSE
                            EXECUTE format('SELECT FROM %s.dblink_get_result($1) AS t (none text)', dblink) USING connections[i];
                            stages[i] := done;
                        END IF;
                    EXCEPTION WHEN query_canceled OR OTHERS THEN
                        GET STACKED DIAGNOSTICS e_message = MESSAGE_TEXT, e_state = RETURNED_SQLSTATE, e_detail = PG_EXCEPTION_DETAIL,
                            e_hint = PG_EXCEPTION_HINT, e_context = PG_EXCEPTION_CONTEXT;
                        -- A statement that is cancelled here, not there.
                        IF e_state = '57014' AND strpos(e_context, connections[i]) = 0 THEN
                            RAISE;
                        END IF;
                    END;
                END IF;
                CONTINUE WHEN e_message IS NULL;
                -- Rows of a server that fails do not count.
                SELECT coalesce(array_agg(s ORDER BY n), '{}'), coalesce(array_agg(d.id ORDER BY n), '{}'), coalesce(array_agg(d.distance ORDER BY n), '{}')
                    INTO all_servers, all_ids, all_distances
                    FROM unnest(all_servers, all_ids, all_distances) WITH ORDINALITY AS d (s, id, distance, n) WHERE s <> servers[i];
                EXECUTE format('SELECT %1$s.dblink_disconnect(c) FROM unnest(%1$s.dblink_get_connections()) c WHERE c = $1', dblink)
                    USING connections[i];
                IF kept[i] AND (e_state LIKE '08%' OR e_state LIKE '57P0%') THEN
                    -- The server has ended what was kept: once more.
                    opened := array_remove(opened, connections[i]);
                    stages[i] := to_connect;
                ELSE
                    stages[i] := done;
                    IF NOT skip_failed THEN
                        RAISE EXCEPTION USING ERRCODE = e_state, MESSAGE = format('server "%s": %s', servers[i], e_message),
                            DETAIL = coalesce(nullif(e_detail, ''), 'Answers of the other servers are dropped.'),
                            HINT = coalesce(nullif(e_hint, ''), 'With skip_failed they would be returned.');
                    END IF;
                    RAISE WARNING USING ERRCODE = e_state, MESSAGE = format('server "%s": %s', servers[i], e_message),
                        DETAIL = coalesce(nullif(e_detail, ''), 'Its rows are missing.');
                END IF;
            END LOOP;
        END LOOP;
    EXCEPTION WHEN query_canceled OR OTHERS THEN
        -- Answers that are under way would come to the next call.
        EXECUTE format('SELECT %1$s.dblink_disconnect(c) FROM unnest($1, $2) AS t (connection, stage) JOIN unnest(%1$s.dblink_get_connections()) c
            ON c = connection WHERE stage > $3 OR NOT $4', dblink) USING connections, stages, to_connect, keep;
        RAISE;
    END;
    IF NOT keep THEN
        EXECUTE format('SELECT %1$s.dblink_disconnect(c) FROM unnest(%1$s.dblink_get_connections()) c WHERE c = ANY ($1)', dblink)
            USING connections;
    END IF;
    RETURN QUERY SELECT s, i, d FROM unnest(all_servers, all_ids, all_distances) WITH ORDINALITY AS t (s, i, d, n)
        ORDER BY d, array_position(servers, s), n LIMIT k;
END
$body$;
COMMENT ON FUNCTION ivflsh_fan_out IS
    'sends a query for ids and distances to many foreign servers at once, by dblink, and merges the answers: the k nearest';

-- Indexes of bit strings.
CREATE FUNCTION ivflsh_bit_hamming() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_bit_hamming' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_bit_jaccard() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_bit_jaccard' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE OPERATOR CLASS bit_hamming_ops FOR TYPE bit USING ivflsh AS
    OPERATOR 1 <~> (bit, bit) FOR ORDER BY float_ops,
    FUNCTION 1 (bit, bit) ivflsh_bit_hamming();

CREATE OPERATOR CLASS bit_jaccard_ops FOR TYPE bit USING ivflsh AS
    OPERATOR 1 <%> (bit, bit) FOR ORDER BY float_ops,
    FUNCTION 1 (bit, bit) ivflsh_bit_jaccard();
