//! The `ivflsh` access method: an inverted file of lists whose entries are LSH sketches, under a k-means tree.
//! The algorithm, the locking order and the crash argument are in `README.md` beside this file.
//!
//! By the stages of a row's life:
//!
//! * [`page`]: the page layout; the only place with offsets. [`storage`]: buffers and WAL.
//! * [`read`]: lists are found and read, rows of the table, the meta page. [`filter`]: filter columns.
//! * [`search`]: the nearest rows. [`scan`]: the callbacks of an index scan.
//! * [`write`]: a row becomes an entry, an entry gets its place. [`insert`]: the callback.
//! * [`build`]: CREATE INDEX. [`outliers`]: which rows do not count for it.
//! * [`change`]: lists are split and merged, the stopping rule is measured again.
//! * [`vacuum`]: dead entries, and what VACUUM does beside.
//! * [`method`]: which indexes are ours. [`pgvector`]: its access methods and settings on this engine.
//! * [`metric`], [`options`], [`cost`]: operator classes and coordinates, settings, what a scan costs.

pub mod build;
pub mod cost;
pub mod filter;
pub mod insert;
pub mod method;
pub mod metric;
pub mod options;
pub mod page;
pub mod pgvector;
pub mod read;
pub mod scan;
pub mod search;
#[cfg(all(test, feature = "pg15"))]
mod sim;
pub mod storage;
pub mod terms;
pub mod vacuum;

use metric::{Element, Metric, Operator, SUPPORT_PROC};
use pgrx::prelude::*;

::pgrx::extension_sql_file!("../../sql/index.sql", name = "index", requires = ["types"]);

/// Declares a function to PostgreSQL as version 1, callable from SQL under its own name.
macro_rules! sql_callable {
    ($info:ident, $name:ident, $body:expr) => {
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $info() -> *const pg_sys::Pg_finfo_record {
            static INFO: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &INFO
        }

        #[doc(hidden)]
        #[unsafe(no_mangle)]
        #[pg_guard]
        pub unsafe extern "C-unwind" fn $name(_call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
            $body
        }
    };
}

sql_callable!(pg_finfo_ivflsh_handler, ivflsh_handler, handler(options::amoptions));
sql_callable!(pg_finfo_ivflsh_hnsw_handler, ivflsh_hnsw_handler, handler(options::amoptions_of_hnsw));
sql_callable!(pg_finfo_ivflsh_ivfflat_handler, ivflsh_ivfflat_handler, handler(options::amoptions_of_ivfflat));

macro_rules! support_function {
    ($info:ident, $name:ident, $element:ident, $metric:ident) => {
        sql_callable!(
            $info,
            $name,
            pg_sys::Datum::from(
                const { Operator { element: Element::$element, metric: Metric::$metric }.code() as i32 }
            )
        );
    };
}

support_function!(pg_finfo_ivflsh_vector_l2, ivflsh_vector_l2, Vector, L2);
support_function!(pg_finfo_ivflsh_vector_cosine, ivflsh_vector_cosine, Vector, Cosine);
support_function!(pg_finfo_ivflsh_vector_ip, ivflsh_vector_ip, Vector, InnerProduct);
support_function!(pg_finfo_ivflsh_halfvec_l2, ivflsh_halfvec_l2, Halfvec, L2);
support_function!(pg_finfo_ivflsh_halfvec_cosine, ivflsh_halfvec_cosine, Halfvec, Cosine);
support_function!(pg_finfo_ivflsh_halfvec_ip, ivflsh_halfvec_ip, Halfvec, InnerProduct);
support_function!(pg_finfo_ivflsh_sparsevec_ip, ivflsh_sparsevec_ip, Sparsevec, InnerProduct);
support_function!(pg_finfo_ivflsh_bit_hamming, ivflsh_bit_hamming, Bit, Hamming);
support_function!(pg_finfo_ivflsh_bit_jaccard, ivflsh_bit_jaccard, Bit, Jaccard);

macro_rules! filter_function {
    ($info:ident, $name:ident, $kind:ident) => {
        sql_callable!($info, $name, pg_sys::Datum::from(const { filter::keys::Kind::$kind.code() as i32 }));
    };
}

filter_function!(pg_finfo_ivflsh_filter_bool, ivflsh_filter_bool, Bool);
filter_function!(pg_finfo_ivflsh_filter_int2, ivflsh_filter_int2, Int2);
filter_function!(pg_finfo_ivflsh_filter_int4, ivflsh_filter_int4, Int4);
filter_function!(pg_finfo_ivflsh_filter_int8, ivflsh_filter_int8, Int8);
filter_function!(pg_finfo_ivflsh_filter_float4, ivflsh_filter_float4, Float4);
filter_function!(pg_finfo_ivflsh_filter_float8, ivflsh_filter_float8, Float8);
filter_function!(pg_finfo_ivflsh_filter_oid, ivflsh_filter_oid, Oid);
filter_function!(pg_finfo_ivflsh_filter_date, ivflsh_filter_date, Date);
filter_function!(pg_finfo_ivflsh_filter_time, ivflsh_filter_time, Time);
filter_function!(pg_finfo_ivflsh_filter_timestamp, ivflsh_filter_timestamp, Timestamp);
filter_function!(pg_finfo_ivflsh_filter_timestamptz, ivflsh_filter_timestamptz, Timestamptz);
filter_function!(pg_finfo_ivflsh_filter_enum, ivflsh_filter_enum, Enum);
filter_function!(pg_finfo_ivflsh_filter_numeric, ivflsh_filter_numeric, Numeric);
filter_function!(pg_finfo_ivflsh_filter_uuid, ivflsh_filter_uuid, Uuid);
filter_function!(pg_finfo_ivflsh_filter_inet, ivflsh_filter_inet, Inet);
filter_function!(pg_finfo_ivflsh_filter_hash, ivflsh_filter_hash, Hash);
filter_function!(pg_finfo_ivflsh_filter_array, ivflsh_filter_array, Set);

/// Support functions that pgvector's operator classes have: numbers 1 to 3 for hnsw, 1 to 5 for ivfflat.
const MOST_PGVECTOR_SUPPORT: u16 = 5;

/// What an access method can do, and its callbacks. Our access methods differ in their options, by which they are known.
fn handler(amoptions: unsafe extern "C-unwind" fn(pg_sys::Datum, bool) -> *mut pg_sys::bytea) -> pg_sys::Datum {
    // SAFETY: a zeroed node of the right type; all callbacks have PostgreSQL's signatures.
    let mut am = unsafe { PgBox::<pg_sys::IndexAmRoutine>::alloc_node(pg_sys::NodeTag::T_IndexAmRoutine) };
    am.amsupport = match amoptions as *const () == options::amoptions as *const () {
        true => SUPPORT_PROC,
        false => MOST_PGVECTOR_SUPPORT,
    };
    am.amcanorderbyop = true;
    am.amcanmulticol = true;
    am.amoptionalkey = true;
    am.amsearcharray = true;
    am.amsearchnulls = true;
    am.amusemaintenanceworkmem = false;
    am.amparallelvacuumoptions = pg_sys::VACUUM_OPTION_PARALLEL_BULKDEL as u8;
    am.amkeytype = pg_sys::InvalidOid;
    am.ambuild = Some(build::ambuild);
    am.ambuildempty = Some(build::ambuildempty);
    am.aminsert = Some(insert::aminsert);
    am.ambulkdelete = Some(vacuum::ambulkdelete);
    am.amvacuumcleanup = Some(vacuum::amvacuumcleanup);
    am.amcostestimate = Some(cost::amcostestimate);
    am.amoptions = Some(amoptions);
    am.ambuildphasename = Some(build::ambuildphasename);
    am.amvalidate = Some(amvalidate);
    am.ambeginscan = Some(scan::ambeginscan);
    am.amrescan = Some(scan::amrescan);
    am.amgettuple = Some(scan::amgettuple);
    am.amendscan = Some(scan::amendscan);
    pg_sys::Datum::from(am.into_pg())
}

/// Strategy of the operator that orders by distance.
const DISTANCE: i16 = 1;
/// PostgreSQL's B-tree operator family of floats.
const FLOAT_OPS: pg_sys::Oid = pg_sys::Oid::from_u32(1970);

/// `amvalidate`: an operator class must have the support function, of a kind that we know; one of vectors just the operator that
/// orders by its distance, one of a filter column only operators that its keys support.
#[pg_guard]
unsafe extern "C-unwind" fn amvalidate(class: pg_sys::Oid) -> bool {
    // SAFETY: system cache look-ups; the tuple is released after use.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::CLAOID as i32, pg_sys::Datum::from(class));
        if tuple.is_null() {
            ereport!(ERROR, PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("operator class {class} does not exist"));
        }
        let form: *const pg_sys::FormData_pg_opclass = pg_sys::GETSTRUCT(tuple).cast();
        let (family, input) = ((*form).opcfamily, (*form).opcintype);
        let name = std::ffi::CStr::from_ptr((*form).opcname.data.as_ptr()).to_string_lossy().into_owned();
        pg_sys::ReleaseSysCache(tuple);
        let function = pg_sys::get_opfamily_proc(family, input, input, SUPPORT_PROC as i16);
        if function == pg_sys::InvalidOid {
            pgrx::info!("ivflsh operator class \"{name}\" lacks support function {SUPPORT_PROC}");
            return false;
        }
        if pg_sys::get_func_nargs(function) != 0 {
            // Declared as pgvector declares it.
            return true;
        }
        let complain = |what: &str| {
            pgrx::info!("ivflsh operator class \"{name}\" {what}");
            false
        };
        if pg_sys::get_func_rettype(function) != pg_sys::INT4OID {
            return complain("has a support function that does not return an integer");
        }
        let code = pg_sys::OidFunctionCall0Coll(function, pg_sys::InvalidOid).value() as u32;
        let kind = filter::keys::Kind::from_code(code);
        if kind.is_none() && Operator::from_code(code).is_none() {
            return complain("has a support function of no known kind");
        }
        for strategy in 1..=filter::predicate::STRATEGIES {
            let operator = pg_sys::get_opfamily_member(family, input, input, strategy);
            let is_there = operator != pg_sys::InvalidOid;
            // Of an operator that searches there is none.
            let order =
                if is_there { pg_sys::get_op_opfamily_sortfamily(operator, family) } else { pg_sys::InvalidOid };
            match kind {
                Some(_) if !is_there => {}
                Some(kind) if !filter::predicate::allows(kind, strategy) => {
                    return complain(&format!(
                        "has an operator of strategy {strategy}, which {kind:?} keys do not support"
                    ));
                }
                Some(_) if order != pg_sys::InvalidOid || pg_sys::get_op_rettype(operator) != pg_sys::BOOLOID => {
                    return complain(&format!("has an operator of strategy {strategy} that is no condition"));
                }
                Some(_) => {}
                None if is_there != (strategy == DISTANCE) => {
                    return complain("must have one operator, of strategy 1");
                }
                None if is_there && order != FLOAT_OPS => {
                    return complain("must have an operator FOR ORDER BY float_ops");
                }
                None => {}
            }
        }
        true
    }
}
