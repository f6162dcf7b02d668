-- Operator classes of the filter columns of ivflsh indexes.
--
-- Strategies: 1 to 5 are btree's (< <= = >= >), 6 is &&, 7 is @>.

-- Support functions: each names what the keys of a column stand for. A class for a further type can use ivflsh_filter_hash()
-- with OPERATOR 3, its equality, if the type has a default hash operator class.
CREATE FUNCTION ivflsh_filter_bool() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_bool' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_int2() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_int2' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_int4() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_int4' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_int8() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_int8' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_float4() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_float4' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_float8() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_float8' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_oid() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_oid' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_date() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_date' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_time() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_time' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_timestamp() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_timestamp' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_timestamptz() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_timestamptz' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_enum() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_enum' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_numeric() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_numeric' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_uuid() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_uuid' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_inet() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_inet' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_hash() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_hash' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION ivflsh_filter_array() RETURNS integer
    AS 'MODULE_PATHNAME', 'ivflsh_filter_array' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE OPERATOR CLASS bool_ops DEFAULT FOR TYPE bool USING ivflsh AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (bool, bool) ivflsh_filter_bool();

-- Integers compare across types, as in btree's families; so do floats, and dates with timestamps.
CREATE OPERATOR FAMILY integer_ops USING ivflsh;

CREATE OPERATOR CLASS int2_ops DEFAULT FOR TYPE int2 USING ivflsh FAMILY integer_ops AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (int2, int2) ivflsh_filter_int2();

CREATE OPERATOR CLASS int4_ops DEFAULT FOR TYPE int4 USING ivflsh FAMILY integer_ops AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (int4, int4) ivflsh_filter_int4();

CREATE OPERATOR CLASS int8_ops DEFAULT FOR TYPE int8 USING ivflsh FAMILY integer_ops AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (int8, int8) ivflsh_filter_int8();

ALTER OPERATOR FAMILY integer_ops USING ivflsh ADD
    OPERATOR 1 < (int2, int4), OPERATOR 2 <= (int2, int4), OPERATOR 3 = (int2, int4), OPERATOR 4 >= (int2, int4), OPERATOR 5 > (int2, int4),
    OPERATOR 1 < (int2, int8), OPERATOR 2 <= (int2, int8), OPERATOR 3 = (int2, int8), OPERATOR 4 >= (int2, int8), OPERATOR 5 > (int2, int8),
    OPERATOR 1 < (int4, int2), OPERATOR 2 <= (int4, int2), OPERATOR 3 = (int4, int2), OPERATOR 4 >= (int4, int2), OPERATOR 5 > (int4, int2),
    OPERATOR 1 < (int4, int8), OPERATOR 2 <= (int4, int8), OPERATOR 3 = (int4, int8), OPERATOR 4 >= (int4, int8), OPERATOR 5 > (int4, int8),
    OPERATOR 1 < (int8, int2), OPERATOR 2 <= (int8, int2), OPERATOR 3 = (int8, int2), OPERATOR 4 >= (int8, int2), OPERATOR 5 > (int8, int2),
    OPERATOR 1 < (int8, int4), OPERATOR 2 <= (int8, int4), OPERATOR 3 = (int8, int4), OPERATOR 4 >= (int8, int4), OPERATOR 5 > (int8, int4);

CREATE OPERATOR FAMILY float_ops USING ivflsh;

CREATE OPERATOR CLASS float4_ops DEFAULT FOR TYPE float4 USING ivflsh FAMILY float_ops AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (float4, float4) ivflsh_filter_float4();

CREATE OPERATOR CLASS float8_ops DEFAULT FOR TYPE float8 USING ivflsh FAMILY float_ops AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (float8, float8) ivflsh_filter_float8();

ALTER OPERATOR FAMILY float_ops USING ivflsh ADD
    OPERATOR 1 < (float4, float8), OPERATOR 2 <= (float4, float8), OPERATOR 3 = (float4, float8), OPERATOR 4 >= (float4, float8), OPERATOR 5 > (float4, float8),
    OPERATOR 1 < (float8, float4), OPERATOR 2 <= (float8, float4), OPERATOR 3 = (float8, float4), OPERATOR 4 >= (float8, float4), OPERATOR 5 > (float8, float4);

CREATE OPERATOR FAMILY datetime_ops USING ivflsh;

CREATE OPERATOR CLASS date_ops DEFAULT FOR TYPE date USING ivflsh FAMILY datetime_ops AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (date, date) ivflsh_filter_date();

CREATE OPERATOR CLASS timestamp_ops DEFAULT FOR TYPE timestamp USING ivflsh FAMILY datetime_ops AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (timestamp, timestamp) ivflsh_filter_timestamp();

CREATE OPERATOR CLASS timestamptz_ops DEFAULT FOR TYPE timestamptz USING ivflsh FAMILY datetime_ops AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (timestamptz, timestamptz) ivflsh_filter_timestamptz();

ALTER OPERATOR FAMILY datetime_ops USING ivflsh ADD
    OPERATOR 1 < (date, timestamp), OPERATOR 2 <= (date, timestamp), OPERATOR 3 = (date, timestamp), OPERATOR 4 >= (date, timestamp), OPERATOR 5 > (date, timestamp),
    OPERATOR 1 < (date, timestamptz), OPERATOR 2 <= (date, timestamptz), OPERATOR 3 = (date, timestamptz), OPERATOR 4 >= (date, timestamptz), OPERATOR 5 > (date, timestamptz),
    OPERATOR 1 < (timestamp, date), OPERATOR 2 <= (timestamp, date), OPERATOR 3 = (timestamp, date), OPERATOR 4 >= (timestamp, date), OPERATOR 5 > (timestamp, date),
    OPERATOR 1 < (timestamp, timestamptz), OPERATOR 2 <= (timestamp, timestamptz), OPERATOR 3 = (timestamp, timestamptz), OPERATOR 4 >= (timestamp, timestamptz), OPERATOR 5 > (timestamp, timestamptz),
    OPERATOR 1 < (timestamptz, date), OPERATOR 2 <= (timestamptz, date), OPERATOR 3 = (timestamptz, date), OPERATOR 4 >= (timestamptz, date), OPERATOR 5 > (timestamptz, date),
    OPERATOR 1 < (timestamptz, timestamp), OPERATOR 2 <= (timestamptz, timestamp), OPERATOR 3 = (timestamptz, timestamp), OPERATOR 4 >= (timestamptz, timestamp), OPERATOR 5 > (timestamptz, timestamp);

CREATE OPERATOR CLASS time_ops DEFAULT FOR TYPE time USING ivflsh AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (time, time) ivflsh_filter_time();

CREATE OPERATOR CLASS oid_ops DEFAULT FOR TYPE oid USING ivflsh AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (oid, oid) ivflsh_filter_oid();

CREATE OPERATOR CLASS numeric_ops DEFAULT FOR TYPE numeric USING ivflsh AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (numeric, numeric) ivflsh_filter_numeric();

CREATE OPERATOR CLASS uuid_ops DEFAULT FOR TYPE uuid USING ivflsh AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (uuid, uuid) ivflsh_filter_uuid();

-- cidr as well.

CREATE OPERATOR CLASS inet_ops DEFAULT FOR TYPE inet USING ivflsh AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 (inet, inet) ivflsh_filter_inet();

-- Equality only: the order of enumerated values can change, that of texts depends on the collation. varchar as well.

CREATE OPERATOR CLASS enum_ops DEFAULT FOR TYPE anyenum USING ivflsh AS
    OPERATOR 3 =,
    FUNCTION 1 (anyenum, anyenum) ivflsh_filter_enum();

CREATE OPERATOR CLASS text_ops DEFAULT FOR TYPE text USING ivflsh AS
    OPERATOR 3 =,
    FUNCTION 1 (text, text) ivflsh_filter_hash();

CREATE OPERATOR CLASS bpchar_ops DEFAULT FOR TYPE bpchar USING ivflsh AS
    OPERATOR 3 =,
    FUNCTION 1 (bpchar, bpchar) ivflsh_filter_hash();

-- Labels: arrays of any type that can be hashed.

CREATE OPERATOR CLASS array_ops DEFAULT FOR TYPE anyarray USING ivflsh AS
    OPERATOR 6 &&, OPERATOR 7 @>,
    FUNCTION 1 (anyarray, anyarray) ivflsh_filter_array();
