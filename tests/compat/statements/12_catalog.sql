-- Catalog facts: types, functions, operators, casts, aggregates, operator classes. First column: the object.

--- setup
CREATE FUNCTION facts_function(sig text) RETURNS text LANGUAGE sql AS $$
  SELECT concat_ws(' ', prorettype::regtype, CASE provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END,
    CASE WHEN proisstrict THEN 'strict' ELSE 'not strict' END,
    CASE proparallel WHEN 's' THEN 'parallel safe' WHEN 'r' THEN 'parallel restricted' ELSE 'parallel unsafe' END,
    CASE WHEN prokind <> 'f' THEN 'kind ' || prokind::text END, CASE WHEN proretset THEN 'set' END,
    CASE WHEN proleakproof THEN 'leakproof' END, CASE WHEN prosecdef THEN 'security definer' END,
    CASE WHEN pronargdefaults > 0 THEN 'defaults' END) FROM pg_proc WHERE oid = to_regprocedure(sig) $$;
CREATE FUNCTION facts_operator(sig text) RETURNS text LANGUAGE sql AS $$
  SELECT format('returns %s, function %s, commutator %s, negator %s, restrict %s, join %s%s%s', oprresult::regtype, oprcode::regprocedure, nullif(oprcom, 0)::regoperator,
    nullif(oprnegate, 0)::regoperator, nullif(oprrest, 0)::regproc, nullif(oprjoin, 0)::regproc,
    CASE WHEN oprcanmerge THEN ', merges' END, CASE WHEN oprcanhash THEN ', hashes' END) FROM pg_operator WHERE oid = to_regoperator(sig) $$;

--- functions-vector: documented functions of vector
SELECT sig, facts_function(sig) FROM (VALUES ('l2_distance(vector,vector)'), ('inner_product(vector,vector)'), ('cosine_distance(vector,vector)'), ('l1_distance(vector,vector)'), ('vector_dims(vector)'), ('vector_norm(vector)'), ('l2_normalize(vector)'), ('binary_quantize(vector)'), ('subvector(vector,integer,integer)'), ('avg(vector)'), ('sum(vector)')) s(sig);

--- functions-halfvec: documented functions of halfvec
SELECT sig, facts_function(sig) FROM (VALUES ('l2_distance(halfvec,halfvec)'), ('inner_product(halfvec,halfvec)'), ('cosine_distance(halfvec,halfvec)'), ('l1_distance(halfvec,halfvec)'), ('vector_dims(halfvec)'), ('l2_norm(halfvec)'), ('l2_normalize(halfvec)'), ('binary_quantize(halfvec)'), ('subvector(halfvec,integer,integer)'), ('avg(halfvec)'), ('sum(halfvec)')) s(sig);

--- functions-sparsevec: documented functions of sparsevec
SELECT sig, facts_function(sig) FROM (VALUES ('l2_distance(sparsevec,sparsevec)'), ('inner_product(sparsevec,sparsevec)'), ('cosine_distance(sparsevec,sparsevec)'), ('l1_distance(sparsevec,sparsevec)'), ('l2_norm(sparsevec)'), ('l2_normalize(sparsevec)')) s(sig);

--- functions-bit: documented functions of bit
SELECT sig, facts_function(sig) FROM (VALUES ('hamming_distance(bit,bit)'), ('jaccard_distance(bit,bit)')) s(sig);

--- functions-vector-io: input and output functions
SELECT sig, facts_function(sig) FROM (VALUES ('vector_in(cstring,oid,integer)'), ('vector_out(vector)'), ('vector_typmod_in(cstring[])'), ('vector_recv(internal,oid,integer)'), ('vector_send(vector)')) s(sig);

--- functions-vector-operators: functions behind the operators
SELECT sig, facts_function(sig) FROM (VALUES ('vector_add(vector,vector)'), ('vector_sub(vector,vector)'), ('vector_mul(vector,vector)'), ('vector_concat(vector,vector)'), ('vector_lt(vector,vector)'), ('vector_le(vector,vector)'), ('vector_eq(vector,vector)'), ('vector_ne(vector,vector)'), ('vector_ge(vector,vector)'), ('vector_gt(vector,vector)'), ('vector_cmp(vector,vector)'), ('vector_negative_inner_product(vector,vector)'), ('vector_l2_squared_distance(vector,vector)')) s(sig);

--- functions-vector-casts: cast functions
SELECT sig, facts_function(sig) FROM (VALUES ('array_to_vector(integer[],integer,boolean)'), ('array_to_vector(real[],integer,boolean)'), ('array_to_vector(double precision[],integer,boolean)'), ('array_to_vector(numeric[],integer,boolean)'), ('vector(vector,integer,boolean)'), ('vector_to_halfvec(vector,integer,boolean)'), ('vector_to_sparsevec(vector,integer,boolean)'), ('vector_to_float4(vector,integer,boolean)')) s(sig);

--- functions-vector-aggregates: functions behind avg
SELECT sig, facts_function(sig) FROM (VALUES ('vector_accum(double precision[],vector)'), ('vector_combine(double precision[],double precision[])'), ('vector_avg(double precision[])')) s(sig);

--- functions-halfvec-io: input and output functions
SELECT sig, facts_function(sig) FROM (VALUES ('halfvec_in(cstring,oid,integer)'), ('halfvec_out(halfvec)'), ('halfvec_typmod_in(cstring[])'), ('halfvec_recv(internal,oid,integer)'), ('halfvec_send(halfvec)')) s(sig);

--- functions-halfvec-operators: functions behind the operators
SELECT sig, facts_function(sig) FROM (VALUES ('halfvec_add(halfvec,halfvec)'), ('halfvec_sub(halfvec,halfvec)'), ('halfvec_mul(halfvec,halfvec)'), ('halfvec_concat(halfvec,halfvec)'), ('halfvec_lt(halfvec,halfvec)'), ('halfvec_le(halfvec,halfvec)'), ('halfvec_eq(halfvec,halfvec)'), ('halfvec_ne(halfvec,halfvec)'), ('halfvec_ge(halfvec,halfvec)'), ('halfvec_gt(halfvec,halfvec)'), ('halfvec_cmp(halfvec,halfvec)'), ('halfvec_negative_inner_product(halfvec,halfvec)'), ('halfvec_l2_squared_distance(halfvec,halfvec)')) s(sig);

--- functions-halfvec-casts: cast functions
SELECT sig, facts_function(sig) FROM (VALUES ('array_to_halfvec(integer[],integer,boolean)'), ('array_to_halfvec(real[],integer,boolean)'), ('array_to_halfvec(double precision[],integer,boolean)'), ('array_to_halfvec(numeric[],integer,boolean)'), ('halfvec(halfvec,integer,boolean)'), ('halfvec_to_vector(halfvec,integer,boolean)'), ('halfvec_to_sparsevec(halfvec,integer,boolean)'), ('halfvec_to_float4(halfvec,integer,boolean)')) s(sig);

--- functions-halfvec-aggregates: functions behind avg
SELECT sig, facts_function(sig) FROM (VALUES ('halfvec_accum(double precision[],halfvec)'), ('halfvec_combine(double precision[],double precision[])'), ('halfvec_avg(double precision[])')) s(sig);

--- functions-sparsevec-io: input and output functions
SELECT sig, facts_function(sig) FROM (VALUES ('sparsevec_in(cstring,oid,integer)'), ('sparsevec_out(sparsevec)'), ('sparsevec_typmod_in(cstring[])'), ('sparsevec_recv(internal,oid,integer)'), ('sparsevec_send(sparsevec)')) s(sig);

--- functions-sparsevec-operators: functions behind the operators
SELECT sig, facts_function(sig) FROM (VALUES ('sparsevec_lt(sparsevec,sparsevec)'), ('sparsevec_le(sparsevec,sparsevec)'), ('sparsevec_eq(sparsevec,sparsevec)'), ('sparsevec_ne(sparsevec,sparsevec)'), ('sparsevec_ge(sparsevec,sparsevec)'), ('sparsevec_gt(sparsevec,sparsevec)'), ('sparsevec_cmp(sparsevec,sparsevec)'), ('sparsevec_negative_inner_product(sparsevec,sparsevec)'), ('sparsevec_l2_squared_distance(sparsevec,sparsevec)')) s(sig);

--- functions-sparsevec-casts: cast functions
SELECT sig, facts_function(sig) FROM (VALUES ('array_to_sparsevec(integer[],integer,boolean)'), ('array_to_sparsevec(real[],integer,boolean)'), ('array_to_sparsevec(double precision[],integer,boolean)'), ('array_to_sparsevec(numeric[],integer,boolean)'), ('sparsevec(sparsevec,integer,boolean)'), ('sparsevec_to_vector(sparsevec,integer,boolean)'), ('sparsevec_to_halfvec(sparsevec,integer,boolean)')) s(sig);

--- functions-spherical: distance for spherical k-means
SELECT sig, facts_function(sig) FROM (VALUES ('vector_spherical_distance(vector,vector)'), ('halfvec_spherical_distance(halfvec,halfvec)')) s(sig);

--- operators-vector: operators of vector
SELECT sig, facts_operator(sig) FROM (VALUES ('<->(vector,vector)'), ('<#>(vector,vector)'), ('<=>(vector,vector)'), ('<+>(vector,vector)'), ('+(vector,vector)'), ('-(vector,vector)'), ('*(vector,vector)'), ('||(vector,vector)'), ('<(vector,vector)'), ('<=(vector,vector)'), ('=(vector,vector)'), ('<>(vector,vector)'), ('>=(vector,vector)'), ('>(vector,vector)')) s(sig);

--- operators-halfvec: operators of halfvec
SELECT sig, facts_operator(sig) FROM (VALUES ('<->(halfvec,halfvec)'), ('<#>(halfvec,halfvec)'), ('<=>(halfvec,halfvec)'), ('<+>(halfvec,halfvec)'), ('+(halfvec,halfvec)'), ('-(halfvec,halfvec)'), ('*(halfvec,halfvec)'), ('||(halfvec,halfvec)'), ('<(halfvec,halfvec)'), ('<=(halfvec,halfvec)'), ('=(halfvec,halfvec)'), ('<>(halfvec,halfvec)'), ('>=(halfvec,halfvec)'), ('>(halfvec,halfvec)')) s(sig);

--- operators-sparsevec: operators of sparsevec
SELECT sig, facts_operator(sig) FROM (VALUES ('<->(sparsevec,sparsevec)'), ('<#>(sparsevec,sparsevec)'), ('<=>(sparsevec,sparsevec)'), ('<+>(sparsevec,sparsevec)'), ('<(sparsevec,sparsevec)'), ('<=(sparsevec,sparsevec)'), ('=(sparsevec,sparsevec)'), ('<>(sparsevec,sparsevec)'), ('>=(sparsevec,sparsevec)'), ('>(sparsevec,sparsevec)')) s(sig);

--- operators-bit: operators of bit
SELECT sig, facts_operator(sig) FROM (VALUES ('<~>(bit,bit)'), ('<%>(bit,bit)')) s(sig);

--- casts-vector: casts from and to vector
SELECT s || ' AS ' || t, CASE castcontext WHEN 'i' THEN 'implicit' WHEN 'a' THEN 'assignment' WHEN 'e' THEN 'explicit' ELSE 'none' END, CASE castmethod WHEN 'f' THEN 'function ' || castfunc::regprocedure WHEN 'i' THEN 'inout' WHEN 'b' THEN 'binary' END FROM (VALUES ('integer[]','vector'), ('real[]','vector'), ('double precision[]','vector'), ('numeric[]','vector'), ('vector','vector'), ('vector','halfvec'), ('vector','sparsevec'), ('vector','integer[]'), ('vector','real[]'), ('vector','double precision[]'), ('vector','numeric[]')) v(s, t) LEFT JOIN pg_cast ON castsource = s::regtype AND casttarget = t::regtype ORDER BY 1;

--- casts-halfvec: casts from and to halfvec
SELECT s || ' AS ' || t, CASE castcontext WHEN 'i' THEN 'implicit' WHEN 'a' THEN 'assignment' WHEN 'e' THEN 'explicit' ELSE 'none' END, CASE castmethod WHEN 'f' THEN 'function ' || castfunc::regprocedure WHEN 'i' THEN 'inout' WHEN 'b' THEN 'binary' END FROM (VALUES ('integer[]','halfvec'), ('real[]','halfvec'), ('double precision[]','halfvec'), ('numeric[]','halfvec'), ('halfvec','halfvec'), ('halfvec','vector'), ('halfvec','sparsevec'), ('halfvec','integer[]'), ('halfvec','real[]'), ('halfvec','double precision[]'), ('halfvec','numeric[]')) v(s, t) LEFT JOIN pg_cast ON castsource = s::regtype AND casttarget = t::regtype ORDER BY 1;

--- casts-sparsevec: casts from and to sparsevec
SELECT s || ' AS ' || t, CASE castcontext WHEN 'i' THEN 'implicit' WHEN 'a' THEN 'assignment' WHEN 'e' THEN 'explicit' ELSE 'none' END, CASE castmethod WHEN 'f' THEN 'function ' || castfunc::regprocedure WHEN 'i' THEN 'inout' WHEN 'b' THEN 'binary' END FROM (VALUES ('integer[]','sparsevec'), ('real[]','sparsevec'), ('double precision[]','sparsevec'), ('numeric[]','sparsevec'), ('sparsevec','sparsevec'), ('sparsevec','vector'), ('sparsevec','halfvec'), ('sparsevec','integer[]'), ('sparsevec','real[]'), ('sparsevec','double precision[]'), ('sparsevec','numeric[]')) v(s, t) LEFT JOIN pg_cast ON castsource = s::regtype AND casttarget = t::regtype ORDER BY 1;

--- casts-total: no further casts
SELECT castsource::regtype, casttarget::regtype FROM pg_cast WHERE castsource IN ('vector'::regtype, 'halfvec'::regtype, 'sparsevec'::regtype) OR casttarget IN ('vector'::regtype, 'halfvec'::regtype, 'sparsevec'::regtype) ORDER BY castsource::regtype::text, casttarget::regtype::text;

--- type-vector: pg_type of vector
SELECT typname, typlen, typbyval, typtype, typcategory, typispreferred, typdelim, typalign, typstorage, typinput, typoutput, typreceive, typsend, typmodin, typmodout, typanalyze, typelem, typsubscript, typcollation, typdefault, (SELECT typname FROM pg_type a WHERE a.oid = t.typarray) FROM pg_type t WHERE oid = 'vector'::regtype;

--- opclass-vector-btree: btree operator class of vector
SELECT opcname, opcdefault, opckeytype, opfname, (SELECT string_agg(amopstrategy || ' ' || amopopr::regoperator || ' ' || amoppurpose::text, ', ' ORDER BY amopstrategy) FROM pg_amop WHERE amopfamily = opcfamily), (SELECT string_agg(amprocnum || ' ' || amproc, ', ' ORDER BY amprocnum) FROM pg_amproc WHERE amprocfamily = opcfamily) FROM pg_opclass JOIN pg_opfamily f ON f.oid = opcfamily WHERE opcmethod = (SELECT oid FROM pg_am WHERE amname = 'btree') AND opcintype = 'vector'::regtype;

--- opclass-vector-hash: no hash, gist or gin class for vector
SELECT amname, opcname FROM pg_opclass JOIN pg_am a ON a.oid = opcmethod WHERE amname IN ('hash', 'gist', 'gin', 'spgist', 'brin') AND opcintype = 'vector'::regtype;

--- type-halfvec: pg_type of halfvec
SELECT typname, typlen, typbyval, typtype, typcategory, typispreferred, typdelim, typalign, typstorage, typinput, typoutput, typreceive, typsend, typmodin, typmodout, typanalyze, typelem, typsubscript, typcollation, typdefault, (SELECT typname FROM pg_type a WHERE a.oid = t.typarray) FROM pg_type t WHERE oid = 'halfvec'::regtype;

--- opclass-halfvec-btree: btree operator class of halfvec
SELECT opcname, opcdefault, opckeytype, opfname, (SELECT string_agg(amopstrategy || ' ' || amopopr::regoperator || ' ' || amoppurpose::text, ', ' ORDER BY amopstrategy) FROM pg_amop WHERE amopfamily = opcfamily), (SELECT string_agg(amprocnum || ' ' || amproc, ', ' ORDER BY amprocnum) FROM pg_amproc WHERE amprocfamily = opcfamily) FROM pg_opclass JOIN pg_opfamily f ON f.oid = opcfamily WHERE opcmethod = (SELECT oid FROM pg_am WHERE amname = 'btree') AND opcintype = 'halfvec'::regtype;

--- opclass-halfvec-hash: no hash, gist or gin class for halfvec
SELECT amname, opcname FROM pg_opclass JOIN pg_am a ON a.oid = opcmethod WHERE amname IN ('hash', 'gist', 'gin', 'spgist', 'brin') AND opcintype = 'halfvec'::regtype;

--- type-sparsevec: pg_type of sparsevec
SELECT typname, typlen, typbyval, typtype, typcategory, typispreferred, typdelim, typalign, typstorage, typinput, typoutput, typreceive, typsend, typmodin, typmodout, typanalyze, typelem, typsubscript, typcollation, typdefault, (SELECT typname FROM pg_type a WHERE a.oid = t.typarray) FROM pg_type t WHERE oid = 'sparsevec'::regtype;

--- opclass-sparsevec-btree: btree operator class of sparsevec
SELECT opcname, opcdefault, opckeytype, opfname, (SELECT string_agg(amopstrategy || ' ' || amopopr::regoperator || ' ' || amoppurpose::text, ', ' ORDER BY amopstrategy) FROM pg_amop WHERE amopfamily = opcfamily), (SELECT string_agg(amprocnum || ' ' || amproc, ', ' ORDER BY amprocnum) FROM pg_amproc WHERE amprocfamily = opcfamily) FROM pg_opclass JOIN pg_opfamily f ON f.oid = opcfamily WHERE opcmethod = (SELECT oid FROM pg_am WHERE amname = 'btree') AND opcintype = 'sparsevec'::regtype;

--- opclass-sparsevec-hash: no hash, gist or gin class for sparsevec
SELECT amname, opcname FROM pg_opclass JOIN pg_am a ON a.oid = opcmethod WHERE amname IN ('hash', 'gist', 'gin', 'spgist', 'brin') AND opcintype = 'sparsevec'::regtype;

--- opclass-vector-l2: vector_l2_ops for a vector index
SELECT DISTINCT 'vector_l2_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'vector_l2_ops' AND opcmethod <> 403;

--- opclass-vector-ip: vector_ip_ops for a vector index
SELECT DISTINCT 'vector_ip_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'vector_ip_ops' AND opcmethod <> 403;

--- opclass-vector-cosine: vector_cosine_ops for a vector index
SELECT DISTINCT 'vector_cosine_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'vector_cosine_ops' AND opcmethod <> 403;

--- opclass-vector-l1: vector_l1_ops for a vector index
SELECT DISTINCT 'vector_l1_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'vector_l1_ops' AND opcmethod <> 403;

--- opclass-halfvec-l2: halfvec_l2_ops for a vector index
SELECT DISTINCT 'halfvec_l2_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'halfvec_l2_ops' AND opcmethod <> 403;

--- opclass-halfvec-ip: halfvec_ip_ops for a vector index
SELECT DISTINCT 'halfvec_ip_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'halfvec_ip_ops' AND opcmethod <> 403;

--- opclass-halfvec-cosine: halfvec_cosine_ops for a vector index
SELECT DISTINCT 'halfvec_cosine_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'halfvec_cosine_ops' AND opcmethod <> 403;

--- opclass-halfvec-l1: halfvec_l1_ops for a vector index
SELECT DISTINCT 'halfvec_l1_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'halfvec_l1_ops' AND opcmethod <> 403;

--- opclass-sparsevec-l2: sparsevec_l2_ops for a vector index
SELECT DISTINCT 'sparsevec_l2_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'sparsevec_l2_ops' AND opcmethod <> 403;

--- opclass-sparsevec-ip: sparsevec_ip_ops for a vector index
SELECT DISTINCT 'sparsevec_ip_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'sparsevec_ip_ops' AND opcmethod <> 403;

--- opclass-sparsevec-cosine: sparsevec_cosine_ops for a vector index
SELECT DISTINCT 'sparsevec_cosine_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'sparsevec_cosine_ops' AND opcmethod <> 403;

--- opclass-sparsevec-l1: sparsevec_l1_ops for a vector index
SELECT DISTINCT 'sparsevec_l1_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'sparsevec_l1_ops' AND opcmethod <> 403;

--- opclass-bit-hamming: bit_hamming_ops for a vector index
SELECT DISTINCT 'bit_hamming_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'bit_hamming_ops' AND opcmethod <> 403;

--- opclass-bit-jaccard: bit_jaccard_ops for a vector index
SELECT DISTINCT 'bit_jaccard_ops', opcintype::regtype, (SELECT string_agg(amopopr::regoperator::text, ' ') FROM pg_amop WHERE amopfamily = opcfamily AND amoppurpose = 'o' AND amopsortfamily = (SELECT oid FROM pg_opfamily WHERE opfname = 'float_ops' AND opfmethod = 403)) FROM pg_opclass WHERE opcname = 'bit_jaccard_ops' AND opcmethod <> 403;

--- access-methods: index access methods
SELECT amname FROM pg_am WHERE amtype = 'i' AND oid >= 16384 ORDER BY 1;

--- aggregate-avg-vector: pg_aggregate of avg(vector), what a user sees
SELECT aggkind, aggcombinefn <> 0, aggnumdirectargs, aggsortop FROM pg_aggregate WHERE aggfnoid = 'avg(vector)'::regprocedure;

--- aggregate-avg-vector-internals: pg_aggregate of avg(vector), how it is made
SELECT aggtransfn, aggtranstype::regtype, agginitval, aggcombinefn, aggfinalfn, aggfinalmodify, aggmtransfn, aggserialfn FROM pg_aggregate WHERE aggfnoid = 'avg(vector)'::regprocedure;

--- aggregate-avg-halfvec: pg_aggregate of avg(halfvec), what a user sees
SELECT aggkind, aggcombinefn <> 0, aggnumdirectargs, aggsortop FROM pg_aggregate WHERE aggfnoid = 'avg(halfvec)'::regprocedure;

--- aggregate-avg-halfvec-internals: pg_aggregate of avg(halfvec), how it is made
SELECT aggtransfn, aggtranstype::regtype, agginitval, aggcombinefn, aggfinalfn, aggfinalmodify, aggmtransfn, aggserialfn FROM pg_aggregate WHERE aggfnoid = 'avg(halfvec)'::regprocedure;

--- aggregate-sum-vector: pg_aggregate of sum(vector), what a user sees
SELECT aggkind, aggcombinefn <> 0, aggnumdirectargs, aggsortop FROM pg_aggregate WHERE aggfnoid = 'sum(vector)'::regprocedure;

--- aggregate-sum-vector-internals: pg_aggregate of sum(vector), how it is made
SELECT aggtransfn, aggtranstype::regtype, agginitval, aggcombinefn, aggfinalfn, aggfinalmodify, aggmtransfn, aggserialfn FROM pg_aggregate WHERE aggfnoid = 'sum(vector)'::regprocedure;

--- aggregate-sum-halfvec: pg_aggregate of sum(halfvec), what a user sees
SELECT aggkind, aggcombinefn <> 0, aggnumdirectargs, aggsortop FROM pg_aggregate WHERE aggfnoid = 'sum(halfvec)'::regprocedure;

--- aggregate-sum-halfvec-internals: pg_aggregate of sum(halfvec), how it is made
SELECT aggtransfn, aggtranstype::regtype, agginitval, aggcombinefn, aggfinalfn, aggfinalmodify, aggmtransfn, aggserialfn FROM pg_aggregate WHERE aggfnoid = 'sum(halfvec)'::regprocedure;

--- extension: how the extension may be installed
SELECT superuser, trusted, relocatable, schema, requires FROM pg_available_extension_versions WHERE name = :ext AND installed;

--- types-of-extension: types of the extension
SELECT classid::regclass, objid::regtype FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = :ext) AND deptype = 'e' AND classid = 'pg_type'::regclass ORDER BY objid::regtype::text;

--- operators-of-extension: number of operators of the three types and bit
SELECT oprleft::regtype, count(*) FROM pg_depend JOIN pg_operator o ON o.oid = objid WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = :ext) AND classid = 'pg_operator'::regclass GROUP BY 1 ORDER BY oprleft::regtype::text;

--- functions-not-public: every function may be executed by everyone
SELECT p.oid::regprocedure FROM pg_depend JOIN pg_proc p ON p.oid = objid WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = :ext) AND classid = 'pg_proc'::regclass AND NOT has_function_privilege('public', p.oid, 'execute') ORDER BY 1;
