-- Casts: arrays and the three types, in each direction; explicit, on assignment, implicit

--- setup
CREATE TABLE t_vector (v vector); CREATE TABLE t_vector3 (v vector(3));
CREATE TABLE t_halfvec (v halfvec); CREATE TABLE t_halfvec3 (v halfvec(3));
CREATE TABLE t_sparsevec (v sparsevec); CREATE TABLE t_sparsevec3 (v sparsevec(3));
CREATE TABLE t_real (v real[]); CREATE TABLE t_float8 (v float8[]); CREATE TABLE t_int (v int[]); CREATE TABLE t_numeric (v numeric[]);
CREATE FUNCTION want_vector(v vector) RETURNS text LANGUAGE sql AS 'SELECT pg_typeof(v)::text || '' '' || v::text';
CREATE FUNCTION want_halfvec(v halfvec) RETURNS text LANGUAGE sql AS 'SELECT pg_typeof(v)::text || '' '' || v::text';
CREATE FUNCTION want_sparsevec(v sparsevec) RETURNS text LANGUAGE sql AS 'SELECT pg_typeof(v)::text || '' '' || v::text';
CREATE FUNCTION want_real(v real[]) RETURNS text LANGUAGE sql AS 'SELECT pg_typeof(v)::text || '' '' || v::text';
CREATE FUNCTION want_float8(v float8[]) RETURNS text LANGUAGE sql AS 'SELECT pg_typeof(v)::text || '' '' || v::text';

--- explicit-int-to-vector: int to vector, explicit
SELECT (ARRAY[1,0,3]::int[])::vector;

--- assign-int-to-vector: int to vector, on INSERT
INSERT INTO t_vector VALUES (ARRAY[1,0,3]::int[]) RETURNING *;

--- implicit-int-to-vector: int to vector, as a function argument
SELECT want_vector(ARRAY[1,0,3]::int[]);

--- explicit-int-to-halfvec: int to halfvec, explicit
SELECT (ARRAY[1,0,3]::int[])::halfvec;

--- assign-int-to-halfvec: int to halfvec, on INSERT
INSERT INTO t_halfvec VALUES (ARRAY[1,0,3]::int[]) RETURNING *;

--- implicit-int-to-halfvec: int to halfvec, as a function argument
SELECT want_halfvec(ARRAY[1,0,3]::int[]);

--- explicit-int-to-sparsevec: int to sparsevec, explicit
SELECT (ARRAY[1,0,3]::int[])::sparsevec;

--- assign-int-to-sparsevec: int to sparsevec, on INSERT
INSERT INTO t_sparsevec VALUES (ARRAY[1,0,3]::int[]) RETURNING *;

--- implicit-int-to-sparsevec: int to sparsevec, as a function argument
SELECT want_sparsevec(ARRAY[1,0,3]::int[]);

--- explicit-real-to-vector: real to vector, explicit
SELECT (ARRAY[1.5,0,3]::real[])::vector;

--- assign-real-to-vector: real to vector, on INSERT
INSERT INTO t_vector VALUES (ARRAY[1.5,0,3]::real[]) RETURNING *;

--- implicit-real-to-vector: real to vector, as a function argument
SELECT want_vector(ARRAY[1.5,0,3]::real[]);

--- explicit-real-to-halfvec: real to halfvec, explicit
SELECT (ARRAY[1.5,0,3]::real[])::halfvec;

--- assign-real-to-halfvec: real to halfvec, on INSERT
INSERT INTO t_halfvec VALUES (ARRAY[1.5,0,3]::real[]) RETURNING *;

--- implicit-real-to-halfvec: real to halfvec, as a function argument
SELECT want_halfvec(ARRAY[1.5,0,3]::real[]);

--- explicit-real-to-sparsevec: real to sparsevec, explicit
SELECT (ARRAY[1.5,0,3]::real[])::sparsevec;

--- assign-real-to-sparsevec: real to sparsevec, on INSERT
INSERT INTO t_sparsevec VALUES (ARRAY[1.5,0,3]::real[]) RETURNING *;

--- implicit-real-to-sparsevec: real to sparsevec, as a function argument
SELECT want_sparsevec(ARRAY[1.5,0,3]::real[]);

--- explicit-float8-to-vector: float8 to vector, explicit
SELECT (ARRAY[1.5,0,3]::float8[])::vector;

--- assign-float8-to-vector: float8 to vector, on INSERT
INSERT INTO t_vector VALUES (ARRAY[1.5,0,3]::float8[]) RETURNING *;

--- implicit-float8-to-vector: float8 to vector, as a function argument
SELECT want_vector(ARRAY[1.5,0,3]::float8[]);

--- explicit-float8-to-halfvec: float8 to halfvec, explicit
SELECT (ARRAY[1.5,0,3]::float8[])::halfvec;

--- assign-float8-to-halfvec: float8 to halfvec, on INSERT
INSERT INTO t_halfvec VALUES (ARRAY[1.5,0,3]::float8[]) RETURNING *;

--- implicit-float8-to-halfvec: float8 to halfvec, as a function argument
SELECT want_halfvec(ARRAY[1.5,0,3]::float8[]);

--- explicit-float8-to-sparsevec: float8 to sparsevec, explicit
SELECT (ARRAY[1.5,0,3]::float8[])::sparsevec;

--- assign-float8-to-sparsevec: float8 to sparsevec, on INSERT
INSERT INTO t_sparsevec VALUES (ARRAY[1.5,0,3]::float8[]) RETURNING *;

--- implicit-float8-to-sparsevec: float8 to sparsevec, as a function argument
SELECT want_sparsevec(ARRAY[1.5,0,3]::float8[]);

--- explicit-numeric-to-vector: numeric to vector, explicit
SELECT (ARRAY[1.5,0,3]::numeric[])::vector;

--- assign-numeric-to-vector: numeric to vector, on INSERT
INSERT INTO t_vector VALUES (ARRAY[1.5,0,3]::numeric[]) RETURNING *;

--- implicit-numeric-to-vector: numeric to vector, as a function argument
SELECT want_vector(ARRAY[1.5,0,3]::numeric[]);

--- explicit-numeric-to-halfvec: numeric to halfvec, explicit
SELECT (ARRAY[1.5,0,3]::numeric[])::halfvec;

--- assign-numeric-to-halfvec: numeric to halfvec, on INSERT
INSERT INTO t_halfvec VALUES (ARRAY[1.5,0,3]::numeric[]) RETURNING *;

--- implicit-numeric-to-halfvec: numeric to halfvec, as a function argument
SELECT want_halfvec(ARRAY[1.5,0,3]::numeric[]);

--- explicit-numeric-to-sparsevec: numeric to sparsevec, explicit
SELECT (ARRAY[1.5,0,3]::numeric[])::sparsevec;

--- assign-numeric-to-sparsevec: numeric to sparsevec, on INSERT
INSERT INTO t_sparsevec VALUES (ARRAY[1.5,0,3]::numeric[]) RETURNING *;

--- implicit-numeric-to-sparsevec: numeric to sparsevec, as a function argument
SELECT want_sparsevec(ARRAY[1.5,0,3]::numeric[]);

--- explicit-vector-to-int: vector to int, explicit
SELECT ('[1.5,0,3]'::vector)::int[];

--- assign-vector-to-int: vector to int, on INSERT
INSERT INTO t_int VALUES ('[1.5,0,3]'::vector) RETURNING *;

--- explicit-vector-to-real: vector to real, explicit
SELECT ('[1.5,0,3]'::vector)::real[];

--- assign-vector-to-real: vector to real, on INSERT
INSERT INTO t_real VALUES ('[1.5,0,3]'::vector) RETURNING *;

--- implicit-vector-to-real: vector to real, as a function argument
SELECT want_real('[1.5,0,3]'::vector);

--- explicit-vector-to-float8: vector to float8, explicit
SELECT ('[1.5,0,3]'::vector)::float8[];

--- assign-vector-to-float8: vector to float8, on INSERT
INSERT INTO t_float8 VALUES ('[1.5,0,3]'::vector) RETURNING *;

--- implicit-vector-to-float8: vector to float8, as a function argument
SELECT want_float8('[1.5,0,3]'::vector);

--- explicit-vector-to-numeric: vector to numeric, explicit
SELECT ('[1.5,0,3]'::vector)::numeric[];

--- assign-vector-to-numeric: vector to numeric, on INSERT
INSERT INTO t_numeric VALUES ('[1.5,0,3]'::vector) RETURNING *;

--- explicit-vector-to-vector: vector to vector, explicit
SELECT ('[1.5,0,3]'::vector)::vector;

--- assign-vector-to-vector: vector to vector, on INSERT
INSERT INTO t_vector VALUES ('[1.5,0,3]'::vector) RETURNING *;

--- implicit-vector-to-vector: vector to vector, as a function argument
SELECT want_vector('[1.5,0,3]'::vector);

--- explicit-vector-to-halfvec: vector to halfvec, explicit
SELECT ('[1.5,0,3]'::vector)::halfvec;

--- assign-vector-to-halfvec: vector to halfvec, on INSERT
INSERT INTO t_halfvec VALUES ('[1.5,0,3]'::vector) RETURNING *;

--- implicit-vector-to-halfvec: vector to halfvec, as a function argument
SELECT want_halfvec('[1.5,0,3]'::vector);

--- explicit-vector-to-sparsevec: vector to sparsevec, explicit
SELECT ('[1.5,0,3]'::vector)::sparsevec;

--- assign-vector-to-sparsevec: vector to sparsevec, on INSERT
INSERT INTO t_sparsevec VALUES ('[1.5,0,3]'::vector) RETURNING *;

--- implicit-vector-to-sparsevec: vector to sparsevec, as a function argument
SELECT want_sparsevec('[1.5,0,3]'::vector);

--- explicit-halfvec-to-int: halfvec to int, explicit
SELECT ('[1.5,0,3]'::halfvec)::int[];

--- assign-halfvec-to-int: halfvec to int, on INSERT
INSERT INTO t_int VALUES ('[1.5,0,3]'::halfvec) RETURNING *;

--- explicit-halfvec-to-real: halfvec to real, explicit
SELECT ('[1.5,0,3]'::halfvec)::real[];

--- assign-halfvec-to-real: halfvec to real, on INSERT
INSERT INTO t_real VALUES ('[1.5,0,3]'::halfvec) RETURNING *;

--- implicit-halfvec-to-real: halfvec to real, as a function argument
SELECT want_real('[1.5,0,3]'::halfvec);

--- explicit-halfvec-to-float8: halfvec to float8, explicit
SELECT ('[1.5,0,3]'::halfvec)::float8[];

--- assign-halfvec-to-float8: halfvec to float8, on INSERT
INSERT INTO t_float8 VALUES ('[1.5,0,3]'::halfvec) RETURNING *;

--- implicit-halfvec-to-float8: halfvec to float8, as a function argument
SELECT want_float8('[1.5,0,3]'::halfvec);

--- explicit-halfvec-to-numeric: halfvec to numeric, explicit
SELECT ('[1.5,0,3]'::halfvec)::numeric[];

--- assign-halfvec-to-numeric: halfvec to numeric, on INSERT
INSERT INTO t_numeric VALUES ('[1.5,0,3]'::halfvec) RETURNING *;

--- explicit-halfvec-to-vector: halfvec to vector, explicit
SELECT ('[1.5,0,3]'::halfvec)::vector;

--- assign-halfvec-to-vector: halfvec to vector, on INSERT
INSERT INTO t_vector VALUES ('[1.5,0,3]'::halfvec) RETURNING *;

--- implicit-halfvec-to-vector: halfvec to vector, as a function argument
SELECT want_vector('[1.5,0,3]'::halfvec);

--- explicit-halfvec-to-halfvec: halfvec to halfvec, explicit
SELECT ('[1.5,0,3]'::halfvec)::halfvec;

--- assign-halfvec-to-halfvec: halfvec to halfvec, on INSERT
INSERT INTO t_halfvec VALUES ('[1.5,0,3]'::halfvec) RETURNING *;

--- implicit-halfvec-to-halfvec: halfvec to halfvec, as a function argument
SELECT want_halfvec('[1.5,0,3]'::halfvec);

--- explicit-halfvec-to-sparsevec: halfvec to sparsevec, explicit
SELECT ('[1.5,0,3]'::halfvec)::sparsevec;

--- assign-halfvec-to-sparsevec: halfvec to sparsevec, on INSERT
INSERT INTO t_sparsevec VALUES ('[1.5,0,3]'::halfvec) RETURNING *;

--- implicit-halfvec-to-sparsevec: halfvec to sparsevec, as a function argument
SELECT want_sparsevec('[1.5,0,3]'::halfvec);

--- explicit-sparsevec-to-int: sparsevec to int, explicit
SELECT ('{1:1.5,3:3}/3'::sparsevec)::int[];

--- assign-sparsevec-to-int: sparsevec to int, on INSERT
INSERT INTO t_int VALUES ('{1:1.5,3:3}/3'::sparsevec) RETURNING *;

--- explicit-sparsevec-to-real: sparsevec to real, explicit
SELECT ('{1:1.5,3:3}/3'::sparsevec)::real[];

--- assign-sparsevec-to-real: sparsevec to real, on INSERT
INSERT INTO t_real VALUES ('{1:1.5,3:3}/3'::sparsevec) RETURNING *;

--- implicit-sparsevec-to-real: sparsevec to real, as a function argument
SELECT want_real('{1:1.5,3:3}/3'::sparsevec);

--- explicit-sparsevec-to-float8: sparsevec to float8, explicit
SELECT ('{1:1.5,3:3}/3'::sparsevec)::float8[];

--- assign-sparsevec-to-float8: sparsevec to float8, on INSERT
INSERT INTO t_float8 VALUES ('{1:1.5,3:3}/3'::sparsevec) RETURNING *;

--- implicit-sparsevec-to-float8: sparsevec to float8, as a function argument
SELECT want_float8('{1:1.5,3:3}/3'::sparsevec);

--- explicit-sparsevec-to-numeric: sparsevec to numeric, explicit
SELECT ('{1:1.5,3:3}/3'::sparsevec)::numeric[];

--- assign-sparsevec-to-numeric: sparsevec to numeric, on INSERT
INSERT INTO t_numeric VALUES ('{1:1.5,3:3}/3'::sparsevec) RETURNING *;

--- explicit-sparsevec-to-vector: sparsevec to vector, explicit
SELECT ('{1:1.5,3:3}/3'::sparsevec)::vector;

--- assign-sparsevec-to-vector: sparsevec to vector, on INSERT
INSERT INTO t_vector VALUES ('{1:1.5,3:3}/3'::sparsevec) RETURNING *;

--- implicit-sparsevec-to-vector: sparsevec to vector, as a function argument
SELECT want_vector('{1:1.5,3:3}/3'::sparsevec);

--- explicit-sparsevec-to-halfvec: sparsevec to halfvec, explicit
SELECT ('{1:1.5,3:3}/3'::sparsevec)::halfvec;

--- assign-sparsevec-to-halfvec: sparsevec to halfvec, on INSERT
INSERT INTO t_halfvec VALUES ('{1:1.5,3:3}/3'::sparsevec) RETURNING *;

--- implicit-sparsevec-to-halfvec: sparsevec to halfvec, as a function argument
SELECT want_halfvec('{1:1.5,3:3}/3'::sparsevec);

--- explicit-sparsevec-to-sparsevec: sparsevec to sparsevec, explicit
SELECT ('{1:1.5,3:3}/3'::sparsevec)::sparsevec;

--- assign-sparsevec-to-sparsevec: sparsevec to sparsevec, on INSERT
INSERT INTO t_sparsevec VALUES ('{1:1.5,3:3}/3'::sparsevec) RETURNING *;

--- implicit-sparsevec-to-sparsevec: sparsevec to sparsevec, as a function argument
SELECT want_sparsevec('{1:1.5,3:3}/3'::sparsevec);

--- explicit-text-to-vector: text to vector, explicit
SELECT ('[1,2,3]'::text)::vector;

--- explicit-text-to-halfvec: text to halfvec, explicit
SELECT ('[1,2,3]'::text)::halfvec;

--- explicit-text-to-sparsevec: text to sparsevec, explicit
SELECT ('[1,2,3]'::text)::sparsevec;

--- explicit-bigint-to-vector: bigint to vector, explicit
SELECT (ARRAY[1,2,3]::bigint[])::vector;

--- explicit-bigint-to-halfvec: bigint to halfvec, explicit
SELECT (ARRAY[1,2,3]::bigint[])::halfvec;

--- explicit-bigint-to-sparsevec: bigint to sparsevec, explicit
SELECT (ARRAY[1,2,3]::bigint[])::sparsevec;

--- explicit-smallint-to-vector: smallint to vector, explicit
SELECT (ARRAY[1,2,3]::smallint[])::vector;

--- explicit-smallint-to-halfvec: smallint to halfvec, explicit
SELECT (ARRAY[1,2,3]::smallint[])::halfvec;

--- explicit-smallint-to-sparsevec: smallint to sparsevec, explicit
SELECT (ARRAY[1,2,3]::smallint[])::sparsevec;

--- explicit-textarray-to-vector: textarray to vector, explicit
SELECT (ARRAY['1','2']::text[])::vector;

--- explicit-textarray-to-halfvec: textarray to halfvec, explicit
SELECT (ARRAY['1','2']::text[])::halfvec;

--- explicit-textarray-to-sparsevec: textarray to sparsevec, explicit
SELECT (ARRAY['1','2']::text[])::sparsevec;

--- typmod-int-to-vector: int to vector(3) and vector(2)
SELECT (ARRAY[1,0,3]::int[])::vector(3);

--- typmod-mismatch-int-to-vector: int of 3 dimensions to vector(2)
SELECT (ARRAY[1,0,3]::int[])::vector(2);

--- typmod-int-to-halfvec: int to halfvec(3) and halfvec(2)
SELECT (ARRAY[1,0,3]::int[])::halfvec(3);

--- typmod-mismatch-int-to-halfvec: int of 3 dimensions to halfvec(2)
SELECT (ARRAY[1,0,3]::int[])::halfvec(2);

--- typmod-int-to-sparsevec: int to sparsevec(3) and sparsevec(2)
SELECT (ARRAY[1,0,3]::int[])::sparsevec(3);

--- typmod-mismatch-int-to-sparsevec: int of 3 dimensions to sparsevec(2)
SELECT (ARRAY[1,0,3]::int[])::sparsevec(2);

--- assign-typmod-int: int of 3 dimensions into vector(3)
INSERT INTO t_vector3 VALUES (ARRAY[1,0,3]::int[]) RETURNING *;

--- typmod-real-to-vector: real to vector(3) and vector(2)
SELECT (ARRAY[1.5,0,3]::real[])::vector(3);

--- typmod-mismatch-real-to-vector: real of 3 dimensions to vector(2)
SELECT (ARRAY[1.5,0,3]::real[])::vector(2);

--- typmod-real-to-halfvec: real to halfvec(3) and halfvec(2)
SELECT (ARRAY[1.5,0,3]::real[])::halfvec(3);

--- typmod-mismatch-real-to-halfvec: real of 3 dimensions to halfvec(2)
SELECT (ARRAY[1.5,0,3]::real[])::halfvec(2);

--- typmod-real-to-sparsevec: real to sparsevec(3) and sparsevec(2)
SELECT (ARRAY[1.5,0,3]::real[])::sparsevec(3);

--- typmod-mismatch-real-to-sparsevec: real of 3 dimensions to sparsevec(2)
SELECT (ARRAY[1.5,0,3]::real[])::sparsevec(2);

--- assign-typmod-real: real of 3 dimensions into vector(3)
INSERT INTO t_vector3 VALUES (ARRAY[1.5,0,3]::real[]) RETURNING *;

--- typmod-float8-to-vector: float8 to vector(3) and vector(2)
SELECT (ARRAY[1.5,0,3]::float8[])::vector(3);

--- typmod-mismatch-float8-to-vector: float8 of 3 dimensions to vector(2)
SELECT (ARRAY[1.5,0,3]::float8[])::vector(2);

--- typmod-float8-to-halfvec: float8 to halfvec(3) and halfvec(2)
SELECT (ARRAY[1.5,0,3]::float8[])::halfvec(3);

--- typmod-mismatch-float8-to-halfvec: float8 of 3 dimensions to halfvec(2)
SELECT (ARRAY[1.5,0,3]::float8[])::halfvec(2);

--- typmod-float8-to-sparsevec: float8 to sparsevec(3) and sparsevec(2)
SELECT (ARRAY[1.5,0,3]::float8[])::sparsevec(3);

--- typmod-mismatch-float8-to-sparsevec: float8 of 3 dimensions to sparsevec(2)
SELECT (ARRAY[1.5,0,3]::float8[])::sparsevec(2);

--- assign-typmod-float8: float8 of 3 dimensions into vector(3)
INSERT INTO t_vector3 VALUES (ARRAY[1.5,0,3]::float8[]) RETURNING *;

--- typmod-numeric-to-vector: numeric to vector(3) and vector(2)
SELECT (ARRAY[1.5,0,3]::numeric[])::vector(3);

--- typmod-mismatch-numeric-to-vector: numeric of 3 dimensions to vector(2)
SELECT (ARRAY[1.5,0,3]::numeric[])::vector(2);

--- typmod-numeric-to-halfvec: numeric to halfvec(3) and halfvec(2)
SELECT (ARRAY[1.5,0,3]::numeric[])::halfvec(3);

--- typmod-mismatch-numeric-to-halfvec: numeric of 3 dimensions to halfvec(2)
SELECT (ARRAY[1.5,0,3]::numeric[])::halfvec(2);

--- typmod-numeric-to-sparsevec: numeric to sparsevec(3) and sparsevec(2)
SELECT (ARRAY[1.5,0,3]::numeric[])::sparsevec(3);

--- typmod-mismatch-numeric-to-sparsevec: numeric of 3 dimensions to sparsevec(2)
SELECT (ARRAY[1.5,0,3]::numeric[])::sparsevec(2);

--- assign-typmod-numeric: numeric of 3 dimensions into vector(3)
INSERT INTO t_vector3 VALUES (ARRAY[1.5,0,3]::numeric[]) RETURNING *;

--- typmod-vector-to-vector: vector to vector(3) and vector(2)
SELECT ('[1.5,0,3]'::vector)::vector(3);

--- typmod-mismatch-vector-to-vector: vector of 3 dimensions to vector(2)
SELECT ('[1.5,0,3]'::vector)::vector(2);

--- typmod-vector-to-halfvec: vector to halfvec(3) and halfvec(2)
SELECT ('[1.5,0,3]'::vector)::halfvec(3);

--- typmod-mismatch-vector-to-halfvec: vector of 3 dimensions to halfvec(2)
SELECT ('[1.5,0,3]'::vector)::halfvec(2);

--- typmod-vector-to-sparsevec: vector to sparsevec(3) and sparsevec(2)
SELECT ('[1.5,0,3]'::vector)::sparsevec(3);

--- typmod-mismatch-vector-to-sparsevec: vector of 3 dimensions to sparsevec(2)
SELECT ('[1.5,0,3]'::vector)::sparsevec(2);

--- assign-typmod-vector: vector of 3 dimensions into vector(3)
INSERT INTO t_vector3 VALUES ('[1.5,0,3]'::vector) RETURNING *;

--- typmod-halfvec-to-vector: halfvec to vector(3) and vector(2)
SELECT ('[1.5,0,3]'::halfvec)::vector(3);

--- typmod-mismatch-halfvec-to-vector: halfvec of 3 dimensions to vector(2)
SELECT ('[1.5,0,3]'::halfvec)::vector(2);

--- typmod-halfvec-to-halfvec: halfvec to halfvec(3) and halfvec(2)
SELECT ('[1.5,0,3]'::halfvec)::halfvec(3);

--- typmod-mismatch-halfvec-to-halfvec: halfvec of 3 dimensions to halfvec(2)
SELECT ('[1.5,0,3]'::halfvec)::halfvec(2);

--- typmod-halfvec-to-sparsevec: halfvec to sparsevec(3) and sparsevec(2)
SELECT ('[1.5,0,3]'::halfvec)::sparsevec(3);

--- typmod-mismatch-halfvec-to-sparsevec: halfvec of 3 dimensions to sparsevec(2)
SELECT ('[1.5,0,3]'::halfvec)::sparsevec(2);

--- assign-typmod-halfvec: halfvec of 3 dimensions into vector(3)
INSERT INTO t_vector3 VALUES ('[1.5,0,3]'::halfvec) RETURNING *;

--- typmod-sparsevec-to-vector: sparsevec to vector(3) and vector(2)
SELECT ('{1:1.5,3:3}/3'::sparsevec)::vector(3);

--- typmod-mismatch-sparsevec-to-vector: sparsevec of 3 dimensions to vector(2)
SELECT ('{1:1.5,3:3}/3'::sparsevec)::vector(2);

--- typmod-sparsevec-to-halfvec: sparsevec to halfvec(3) and halfvec(2)
SELECT ('{1:1.5,3:3}/3'::sparsevec)::halfvec(3);

--- typmod-mismatch-sparsevec-to-halfvec: sparsevec of 3 dimensions to halfvec(2)
SELECT ('{1:1.5,3:3}/3'::sparsevec)::halfvec(2);

--- typmod-sparsevec-to-sparsevec: sparsevec to sparsevec(3) and sparsevec(2)
SELECT ('{1:1.5,3:3}/3'::sparsevec)::sparsevec(3);

--- typmod-mismatch-sparsevec-to-sparsevec: sparsevec of 3 dimensions to sparsevec(2)
SELECT ('{1:1.5,3:3}/3'::sparsevec)::sparsevec(2);

--- assign-typmod-sparsevec: sparsevec of 3 dimensions into vector(3)
INSERT INTO t_vector3 VALUES ('{1:1.5,3:3}/3'::sparsevec) RETURNING *;

--- array-empty-vector: empty array to vector
SELECT '{}'::real[]::vector;

--- array-null-element-int-vector: int array with NULL to vector
SELECT ARRAY[1,NULL]::int[]::vector;

--- array-2d-int-vector: two-dimensional int array to vector
SELECT ARRAY[[1,2],[3,4]]::int[]::vector;

--- array-null-element-real-vector: real array with NULL to vector
SELECT ARRAY[1,NULL]::real[]::vector;

--- array-2d-real-vector: two-dimensional real array to vector
SELECT ARRAY[[1,2],[3,4]]::real[]::vector;

--- array-null-element-float8-vector: float8 array with NULL to vector
SELECT ARRAY[1,NULL]::float8[]::vector;

--- array-2d-float8-vector: two-dimensional float8 array to vector
SELECT ARRAY[[1,2],[3,4]]::float8[]::vector;

--- array-null-element-numeric-vector: numeric array with NULL to vector
SELECT ARRAY[1,NULL]::numeric[]::vector;

--- array-2d-numeric-vector: two-dimensional numeric array to vector
SELECT ARRAY[[1,2],[3,4]]::numeric[]::vector;

--- array-nan-real-vector: real array with NaN to vector
SELECT ARRAY[1,'NaN']::real[]::vector;

--- array-infinity-real-vector: real array with infinity to vector
SELECT ARRAY['-Infinity',1]::real[]::vector;

--- array-overflow-real-vector: real array beyond the range to vector
SELECT ARRAY[3.4e38]::real[]::vector;

--- array-underflow-real-vector: real array below the range to vector
SELECT ARRAY[1,1e-40,1e-44]::real[]::vector;

--- array-nan-float8-vector: float8 array with NaN to vector
SELECT ARRAY[1,'NaN']::float8[]::vector;

--- array-infinity-float8-vector: float8 array with infinity to vector
SELECT ARRAY['-Infinity',1]::float8[]::vector;

--- array-overflow-float8-vector: float8 array beyond the range to vector
SELECT ARRAY[3.5e38]::float8[]::vector;

--- array-underflow-float8-vector: float8 array below the range to vector
SELECT ARRAY[1,1e-40,1e-60]::float8[]::vector;

--- array-nan-numeric-vector: numeric array with NaN to vector
SELECT ARRAY[1,'NaN']::numeric[]::vector;

--- array-infinity-numeric-vector: numeric array with infinity to vector
SELECT ARRAY['-Infinity',1]::numeric[]::vector;

--- array-overflow-numeric-vector: numeric array beyond the range to vector
SELECT ARRAY[3.5e38]::numeric[]::vector;

--- array-underflow-numeric-vector: numeric array below the range to vector
SELECT ARRAY[1,1e-40,1e-60]::numeric[]::vector;

--- array-int-max-vector: largest integers to vector
SELECT ARRAY[2147483647,-2147483648,16777217]::vector;

--- array-offset-vector: array whose lower bound is not 1 to vector
SELECT '[5:7]={1,2,3}'::int[]::vector;

--- array-null-vector: NULL array to vector
SELECT NULL::real[]::vector, NULL::int[]::vector;

--- array-over-max-vector: array of 16001 to vector
SELECT array_fill(1, ARRAY[16001])::vector;

--- array-max-vector: array of 16000 to vector
SELECT md5(array_fill(1, ARRAY[16000])::vector::text);

--- array-empty-halfvec: empty array to halfvec
SELECT '{}'::real[]::halfvec;

--- array-null-element-int-halfvec: int array with NULL to halfvec
SELECT ARRAY[1,NULL]::int[]::halfvec;

--- array-2d-int-halfvec: two-dimensional int array to halfvec
SELECT ARRAY[[1,2],[3,4]]::int[]::halfvec;

--- array-null-element-real-halfvec: real array with NULL to halfvec
SELECT ARRAY[1,NULL]::real[]::halfvec;

--- array-2d-real-halfvec: two-dimensional real array to halfvec
SELECT ARRAY[[1,2],[3,4]]::real[]::halfvec;

--- array-null-element-float8-halfvec: float8 array with NULL to halfvec
SELECT ARRAY[1,NULL]::float8[]::halfvec;

--- array-2d-float8-halfvec: two-dimensional float8 array to halfvec
SELECT ARRAY[[1,2],[3,4]]::float8[]::halfvec;

--- array-null-element-numeric-halfvec: numeric array with NULL to halfvec
SELECT ARRAY[1,NULL]::numeric[]::halfvec;

--- array-2d-numeric-halfvec: two-dimensional numeric array to halfvec
SELECT ARRAY[[1,2],[3,4]]::numeric[]::halfvec;

--- array-nan-real-halfvec: real array with NaN to halfvec
SELECT ARRAY[1,'NaN']::real[]::halfvec;

--- array-infinity-real-halfvec: real array with infinity to halfvec
SELECT ARRAY['-Infinity',1]::real[]::halfvec;

--- array-overflow-real-halfvec: real array beyond the range to halfvec
SELECT ARRAY[70000]::real[]::halfvec;

--- array-underflow-real-halfvec: real array below the range to halfvec
SELECT ARRAY[1,1e-40,1e-44]::real[]::halfvec;

--- array-nan-float8-halfvec: float8 array with NaN to halfvec
SELECT ARRAY[1,'NaN']::float8[]::halfvec;

--- array-infinity-float8-halfvec: float8 array with infinity to halfvec
SELECT ARRAY['-Infinity',1]::float8[]::halfvec;

--- array-overflow-float8-halfvec: float8 array beyond the range to halfvec
SELECT ARRAY[70000]::float8[]::halfvec;

--- array-underflow-float8-halfvec: float8 array below the range to halfvec
SELECT ARRAY[1,1e-40,1e-60]::float8[]::halfvec;

--- array-nan-numeric-halfvec: numeric array with NaN to halfvec
SELECT ARRAY[1,'NaN']::numeric[]::halfvec;

--- array-infinity-numeric-halfvec: numeric array with infinity to halfvec
SELECT ARRAY['-Infinity',1]::numeric[]::halfvec;

--- array-overflow-numeric-halfvec: numeric array beyond the range to halfvec
SELECT ARRAY[70000]::numeric[]::halfvec;

--- array-underflow-numeric-halfvec: numeric array below the range to halfvec
SELECT ARRAY[1,1e-40,1e-60]::numeric[]::halfvec;

--- array-int-max-halfvec: largest integers to halfvec
SELECT ARRAY[65519,-65504,2049]::halfvec;

--- array-offset-halfvec: array whose lower bound is not 1 to halfvec
SELECT '[5:7]={1,2,3}'::int[]::halfvec;

--- array-null-halfvec: NULL array to halfvec
SELECT NULL::real[]::halfvec, NULL::int[]::halfvec;

--- array-over-max-halfvec: array of 16001 to halfvec
SELECT array_fill(1, ARRAY[16001])::halfvec;

--- array-max-halfvec: array of 16000 to halfvec
SELECT md5(array_fill(1, ARRAY[16000])::halfvec::text);

--- array-empty-sparsevec: empty array to sparsevec
SELECT '{}'::real[]::sparsevec;

--- array-null-element-int-sparsevec: int array with NULL to sparsevec
SELECT ARRAY[1,NULL]::int[]::sparsevec;

--- array-2d-int-sparsevec: two-dimensional int array to sparsevec
SELECT ARRAY[[1,2],[3,4]]::int[]::sparsevec;

--- array-null-element-real-sparsevec: real array with NULL to sparsevec
SELECT ARRAY[1,NULL]::real[]::sparsevec;

--- array-2d-real-sparsevec: two-dimensional real array to sparsevec
SELECT ARRAY[[1,2],[3,4]]::real[]::sparsevec;

--- array-null-element-float8-sparsevec: float8 array with NULL to sparsevec
SELECT ARRAY[1,NULL]::float8[]::sparsevec;

--- array-2d-float8-sparsevec: two-dimensional float8 array to sparsevec
SELECT ARRAY[[1,2],[3,4]]::float8[]::sparsevec;

--- array-null-element-numeric-sparsevec: numeric array with NULL to sparsevec
SELECT ARRAY[1,NULL]::numeric[]::sparsevec;

--- array-2d-numeric-sparsevec: two-dimensional numeric array to sparsevec
SELECT ARRAY[[1,2],[3,4]]::numeric[]::sparsevec;

--- array-nan-real-sparsevec: real array with NaN to sparsevec
SELECT ARRAY[1,'NaN']::real[]::sparsevec;

--- array-infinity-real-sparsevec: real array with infinity to sparsevec
SELECT ARRAY['-Infinity',1]::real[]::sparsevec;

--- array-overflow-real-sparsevec: real array beyond the range to sparsevec
SELECT ARRAY[3.4e38]::real[]::sparsevec;

--- array-underflow-real-sparsevec: real array below the range to sparsevec
SELECT ARRAY[1,1e-40,1e-44]::real[]::sparsevec;

--- array-nan-float8-sparsevec: float8 array with NaN to sparsevec
SELECT ARRAY[1,'NaN']::float8[]::sparsevec;

--- array-infinity-float8-sparsevec: float8 array with infinity to sparsevec
SELECT ARRAY['-Infinity',1]::float8[]::sparsevec;

--- array-overflow-float8-sparsevec: float8 array beyond the range to sparsevec
SELECT ARRAY[3.5e38]::float8[]::sparsevec;

--- array-underflow-float8-sparsevec: float8 array below the range to sparsevec
SELECT ARRAY[1,1e-40,1e-60]::float8[]::sparsevec;

--- array-nan-numeric-sparsevec: numeric array with NaN to sparsevec
SELECT ARRAY[1,'NaN']::numeric[]::sparsevec;

--- array-infinity-numeric-sparsevec: numeric array with infinity to sparsevec
SELECT ARRAY['-Infinity',1]::numeric[]::sparsevec;

--- array-overflow-numeric-sparsevec: numeric array beyond the range to sparsevec
SELECT ARRAY[3.5e38]::numeric[]::sparsevec;

--- array-underflow-numeric-sparsevec: numeric array below the range to sparsevec
SELECT ARRAY[1,1e-40,1e-60]::numeric[]::sparsevec;

--- array-int-max-sparsevec: largest integers to sparsevec
SELECT ARRAY[2147483647,-2147483648,16777217]::sparsevec;

--- array-offset-sparsevec: array whose lower bound is not 1 to sparsevec
SELECT '[5:7]={1,2,3}'::int[]::sparsevec;

--- array-null-sparsevec: NULL array to sparsevec
SELECT NULL::real[]::sparsevec, NULL::int[]::sparsevec;

--- array-over-max-sparsevec: array of 16001 to sparsevec
SELECT l2_norm(array_fill(1, ARRAY[16001])::sparsevec);

--- array-max-sparsevec: array of 16000 to sparsevec
SELECT md5(array_fill(1, ARRAY[16000])::sparsevec::text);

--- array-int-over-half: integer beyond half precision
SELECT ARRAY[1,65520]::halfvec;

--- array-sparse-over-max-zeros: array of 20000 with one element set to sparsevec
SELECT (array_fill(0, ARRAY[19999]) || 1)::sparsevec;

--- vector-to-halfvec-rounding: vector to halfvec rounds to even
SELECT '[0.1,1.0005,2049,2051,65519]'::vector::halfvec;

--- vector-to-halfvec-overflow: vector element beyond half precision
SELECT '[1,65520]'::vector::halfvec;

--- vector-to-halfvec-underflow: vector element below half precision
SELECT '[1e-8,3e-8,5e-8]'::vector::halfvec;

--- halfvec-to-vector-exact: halves are exact in float4
SELECT '[0.1,65504,5.9604645e-08]'::halfvec::vector;

--- sparsevec-to-halfvec-overflow: sparsevec element beyond half precision
SELECT '{1:65520}/2'::sparsevec::halfvec;

--- sparsevec-to-vector-max: sparsevec of 16000 dimensions to vector
SELECT vector_dims('{1:1}/16000'::sparsevec::vector), vector_dims('{1:1}/16000'::sparsevec::halfvec);

--- sparsevec-to-vector-over-max: sparsevec of 16001 dimensions to vector
SELECT '{1:1}/16001'::sparsevec::vector;

--- sparsevec-to-halfvec-over-max: sparsevec of 16001 dimensions to halfvec
SELECT '{1:1}/16001'::sparsevec::halfvec;

--- sparsevec-small-to-halfvec: a sparse element that becomes zero
SELECT '{1:1e-20,2:1}/2'::sparsevec::halfvec, '{1:1e-20,2:1}/2'::sparsevec::halfvec::sparsevec;

--- negative-zero-to-sparsevec: minus zero is not stored
SELECT '[-0,1]'::vector::sparsevec, '[-0,1]'::halfvec::sparsevec;

--- vector-to-text-varchar: vector to varchar
SELECT '[1,2]'::vector::varchar, '[1,2]'::vector::varchar(3);

--- vector-array-elements: real[] functions on a vector
SELECT array_length('[1,2,3]'::vector::real[], 1), unnest('[1,2]'::vector::real[]);

--- vector-implicit-real-function: vector where real[] is wanted
SELECT want_real('[1,2]'::vector);

--- vector-array-to-string: vector where anyarray is wanted
SELECT array_to_string('[1,2]'::vector, ',');

--- vector-subscript: subscripts do not work on a vector
SELECT ('[1,2]'::vector)[1];

--- bit-to-vector: no cast from bit
SELECT B'101'::vector;

--- number-to-vector: no cast from a number
SELECT 1::vector;

--- json-to-vector: no cast from json
SELECT '[1,2]'::json::vector;

--- bytea-to-vector: no cast from bytea
SELECT 'a'::bytea::vector;

--- cast-functions: cast functions called by hand
SELECT array_to_vector(ARRAY[1,2]::int[], -1, true), array_to_halfvec(ARRAY[1,2]::real[], 2, false), array_to_sparsevec(ARRAY[1,0]::float8[], -1, false), vector_to_float4('[1,2]', -1, false), halfvec_to_float4('[1,2]', -1, false), vector('[1,2]'::vector, 2, false), halfvec('[1,2]'::halfvec, 2, true), sparsevec('{1:1}/2'::sparsevec, 2, true);

--- cast-functions-mismatch: cast function with another typmod
SELECT vector('[1,2]'::vector, 3, false);

--- update-typmod: UPDATE checks the typmod
INSERT INTO t_halfvec3 VALUES ('[1,2,3]'); UPDATE t_halfvec3 SET v = subvector(v, 1, 2);

--- insert-text-mismatch: INSERT of text checks the typmod
INSERT INTO t_sparsevec3 VALUES ('{1:1}/4');

--- case-common-type: CASE over vector and halfvec
SELECT pg_typeof(CASE WHEN true THEN '[1]'::vector ELSE '[1]'::halfvec END);

--- union-common-type: UNION of vector and halfvec
SELECT '[1]'::vector UNION ALL SELECT '[1]'::halfvec;

--- coalesce-common-type: COALESCE of vector and real[]
SELECT COALESCE(NULL::vector, ARRAY[1]::real[]);

--- where-halfvec-cast: an expression over a cast
SELECT '[1,2,3]'::vector::halfvec(3) <-> '[1,2,4]'::vector::halfvec(3);
