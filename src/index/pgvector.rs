//! pgvector's words on this engine: its access methods `hnsw` and `ivfflat`, their options, settings and operator classes;
//! and how an index that pgvector itself has built is known.
//!
//! The operator classes of these methods are declared as pgvector declares them, so that catalogs made by one library serve
//! the other. What such a class means is told by the function of its ordering operator. A class whose distance this engine
//! does not know yet makes an *idle* index: it is created and kept, holds nothing, and is never taken by a plan.

use super::method::{self, Method};
use super::metric::{Element, Metric, Operator};
use super::options::{self, IterativeScan};
use super::storage;
use crate::index::metric::OperatorClass as _;
use crate::index::read::info::Info;
use crate::index::storage::pages;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use pgrx::prelude::*;

/// `hnsw.iterative_scan`
#[derive(Clone, Copy, PartialEq, Eq, Debug, PostgresGucEnum)]
#[allow(non_camel_case_types, reason = "the names are the values that users write")]
enum HnswScan {
    off,
    relaxed_order,
    strict_order,
}

/// `ivfflat.iterative_scan`
#[derive(Clone, Copy, PartialEq, Eq, Debug, PostgresGucEnum)]
#[allow(non_camel_case_types, reason = "the names are the values that users write")]
enum IvfflatScan {
    off,
    relaxed_order,
}

static EF_SEARCH: GucSetting<i32> = GucSetting::<i32>::new(DEFAULT_EF_SEARCH);
static HNSW_SCAN: GucSetting<HnswScan> = GucSetting::<HnswScan>::new(HnswScan::off);
static MAX_SCAN_TUPLES: GucSetting<i32> = GucSetting::<i32>::new(20_000);
static SCAN_MEM_MULTIPLIER: GucSetting<f64> = GucSetting::<f64>::new(1.0);
static PROBES: GucSetting<i32> = GucSetting::<i32>::new(1);
static IVFFLAT_SCAN: GucSetting<IvfflatScan> = GucSetting::<IvfflatScan>::new(IvfflatScan::off);
static MAX_PROBES: GucSetting<i32> = GucSetting::<i32>::new(MAX_LISTS);

const DEFAULT_EF_SEARCH: i32 = 40;
/// Most lists of an ivfflat index, and its default.
pub const MAX_LISTS: i32 = 32_768;
pub const DEFAULT_LISTS: i32 = 100;
/// Most recall that `ivflsh.target_recall` can ask for.
const MOST_RECALL: f64 = 0.999;

/// Defines the settings of pgvector. Called when the library that stands in for pgvector's is loaded, and only then: beside
/// pgvector itself they are its own.
#[unsafe(no_mangle)]
#[pg_guard]
extern "C-unwind" fn ivflsh_pgvector_settings() {
    const USER: GucContext = GucContext::Userset;
    let flags = GucFlags::default();
    GucRegistry::define_int_guc(
        c"hnsw.ef_search",
        c"How thorough a search of an hnsw index is: more than 40 raises the recall over ivflsh.target_recall.",
        c"Valid range is 1..1000.",
        &EF_SEARCH,
        1,
        1000,
        USER,
        flags,
    );
    GucRegistry::define_enum_guc(
        c"hnsw.iterative_scan",
        c"What a scan does with a row that turns up after farther rows have been returned.",
        c"Every scan goes on until its LIMIT is filled; off leaves it to ivflsh.iterative_scan.",
        &HNSW_SCAN,
        USER,
        flags,
    );
    GucRegistry::define_int_guc(
        c"hnsw.max_scan_tuples",
        c"Kept for applications that set it: a scan goes on until its LIMIT is filled.",
        c"",
        &MAX_SCAN_TUPLES,
        1,
        i32::MAX,
        USER,
        flags,
    );
    GucRegistry::define_float_guc(
        c"hnsw.scan_mem_multiplier",
        c"Memory for the candidates of a scan, as a multiple of work_mem.",
        c"",
        &SCAN_MEM_MULTIPLIER,
        1.0,
        1000.0,
        USER,
        flags,
    );
    GucRegistry::define_int_guc(
        c"ivfflat.probes",
        c"How thorough a search of an ivfflat index is: more than 1 raises the recall over ivflsh.target_recall.",
        c"Valid range is 1..lists.",
        &PROBES,
        1,
        MAX_LISTS,
        USER,
        flags,
    );
    GucRegistry::define_enum_guc(
        c"ivfflat.iterative_scan",
        c"What a scan does with a row that turns up after farther rows have been returned.",
        c"Every scan goes on until its LIMIT is filled; off leaves it to ivflsh.iterative_scan.",
        &IVFFLAT_SCAN,
        USER,
        flags,
    );
    GucRegistry::define_int_guc(
        c"ivfflat.max_probes",
        c"Kept for applications that set it: a scan goes on until its LIMIT is filled.",
        c"",
        &MAX_PROBES,
        1,
        MAX_LISTS,
        USER,
        flags,
    );
    #[cfg(not(feature = "pg14"))]
    // SAFETY: constant, terminated strings.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(c"hnsw".as_ptr());
        pg_sys::MarkGUCPrefixReserved(c"ivfflat".as_ptr());
    }
}

/// Share of the true nearest neighbours that a search of an open index shall find.
///
/// pgvector's settings ask for effort, not for recall. What is asked for beyond their defaults lowers the share that may be
/// missed, below what `ivflsh.target_recall` allows: in proportion to `ef_search`, and to the root of `probes`.
pub fn target_recall(index: pg_sys::Relation) -> f32 {
    let base = options::target_recall(index);
    // SAFETY: callers have the index open.
    let effort = match unsafe { Method::of(index) } {
        Method::Ivflsh => return base,
        Method::Hnsw => f64::from(EF_SEARCH.get()) / f64::from(DEFAULT_EF_SEARCH),
        // All lists: pgvector's answer would be exact.
        Method::Ivfflat if PROBES.get() >= options::ivfflat_lists(index) => f64::INFINITY,
        Method::Ivfflat => f64::from(PROBES.get()).sqrt(),
    };
    raised(base, effort)
}

/// A recall raised by so much effort, in multiples of the default.
fn raised(base: f32, effort: f64) -> f32 {
    let missed = (1.0 - f64::from(base)) / effort.max(1.0);
    (1.0 - missed).min(MOST_RECALL).max(f64::from(base)) as f32
}

/// What a scan of an open index does with a row that turns up late.
pub fn iterative_scan(index: pg_sys::Relation) -> IterativeScan {
    // SAFETY: callers have the index open.
    match (unsafe { Method::of(index) }, HNSW_SCAN.get(), IVFFLAT_SCAN.get()) {
        (Method::Hnsw, HnswScan::relaxed_order, _) => IterativeScan::relaxed_order,
        (Method::Hnsw, HnswScan::strict_order, _) => IterativeScan::strict_order,
        (Method::Ivfflat, _, IvfflatScan::relaxed_order) => IterativeScan::relaxed_order,
        _ => options::iterative_scan(),
    }
}

/// Bytes that the candidates of a search of an open index may take.
pub fn work_mem(index: pg_sys::Relation) -> usize {
    // SAFETY: a plain setting of the backend, in kB; callers have the index open.
    let (bytes, method) = unsafe { (pg_sys::work_mem as usize * 1024, Method::of(index)) };
    match method {
        Method::Hnsw => (bytes as f64 * SCAN_MEM_MULTIPLIER.get()) as usize,
        Method::Ivflsh | Method::Ivfflat => bytes,
    }
}

/// Refuses options of an index to be built that do not go together.
pub fn check_options(index: pg_sys::Relation) {
    let (m, ef_construction) = options::hnsw(index);
    // SAFETY: callers have the index open.
    if unsafe { Method::of(index) } == Method::Hnsw && ef_construction < 2 * m {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "ef_construction must be greater than or equal to 2 * m"
        );
    }
}

/// What the class of an index's first column means, told by the function of its ordering operator: of pgvector's library, or
/// of ours under its name there.
///
/// # Safety
/// An operator family with a member of strategy 1 that orders values of type `input`.
pub unsafe fn operator_of_family(family: pg_sys::Oid, input: pg_sys::Oid) -> Option<Operator> {
    // SAFETY: look-ups in the catalogs; the tuple is released after use.
    unsafe {
        let operator = pg_sys::get_opfamily_member(family, input, input, 1);
        let function = pg_sys::get_opcode(operator);
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, pg_sys::Datum::from(function));
        if tuple.is_null() {
            return None;
        }
        let mut null = false;
        let symbol = pg_sys::SysCacheGetAttr(
            pg_sys::SysCacheIdentifier::PROCOID as i32,
            tuple,
            pg_sys::Anum_pg_proc_prosrc as pg_sys::AttrNumber,
            &mut null,
        );
        let symbol = if null { None } else { String::from_datum(symbol, false) };
        pg_sys::ReleaseSysCache(tuple);
        let (element, metric) = match symbol?.as_str() {
            "l2_distance" | "vx_vector_l2_distance" => (Element::Vector, Metric::L2),
            "cosine_distance" | "vx_vector_cosine_distance" => (Element::Vector, Metric::Cosine),
            "vector_negative_inner_product" | "vx_vector_negative_inner_product" => {
                (Element::Vector, Metric::InnerProduct)
            }
            "halfvec_l2_distance" | "vx_halfvec_l2_distance" => (Element::Halfvec, Metric::L2),
            "halfvec_cosine_distance" | "vx_halfvec_cosine_distance" => (Element::Halfvec, Metric::Cosine),
            "halfvec_negative_inner_product" | "vx_halfvec_negative_inner_product" => {
                (Element::Halfvec, Metric::InnerProduct)
            }
            "hamming_distance" | "vx_hamming_distance" => (Element::Bit, Metric::Hamming),
            "jaccard_distance" | "vx_jaccard_distance" => (Element::Bit, Metric::Jaccard),
            _ => return None,
        };
        Some(Operator { element, metric })
    }
}

/// Whether an open index is *idle*: of a class of pgvector's that the engine has no answer to yet. An ERROR if pgvector has
/// filled it: it must not go on beside changes that it does not get.
pub fn is_idle(index: pg_sys::Relation) -> bool {
    let idle = has_no_answer(index);
    if idle {
        refuse_built(index);
    }
    idle
}

/// Raises the ERROR that an index which pgvector built wants a REINDEX, if it has any page.
pub fn refuse_built(index: pg_sys::Relation) {
    if storage::blocks(index) > 0 {
        Info::of(pages(index));
    }
}

fn has_no_answer(index: pg_sys::Relation) -> bool {
    // SAFETY: callers have the index open.
    unsafe {
        Method::of(index) != Method::Ivflsh && Operator::find(index).is_none() && !method::names_meaning(index, 1)
    }
}

/// Tells who creates an idle index what it is.
pub fn warn_idle(index: pg_sys::Relation) {
    // SAFETY: callers have the index open.
    let (name, method) = (storage::name(index), unsafe { Method::of(index) }.name());
    pgrx::pg_sys::panic::ErrorReport::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("index \"{name}\" stays empty: {method} cannot search by its operator class yet"),
        pgrx::function_name!(),
    )
    .set_detail(
        "It searches vector and halfvec by L2 distance, inner product and cosine distance, and bit by Hamming and Jaccard \
         distance. Queries by other distances are answered exactly, by reading the table and sorting.",
    )
    .set_hint("The index takes no room and no time; keep it for a version that can fill it by REINDEX, or drop it.")
    .report(PgLogLevel::WARNING);
}

#[cfg(test)]
mod tests {
    use super::raised;

    #[test]
    fn effort_raises_recall() {
        assert_eq!(raised(0.95, 0.025), 0.95);
        assert_eq!(raised(0.95, 1.0), 0.95);
        assert!((raised(0.95, 10.0) - 0.995).abs() < 1e-6);
        assert!((raised(0.95, f64::INFINITY) - 0.999).abs() < 1e-6);
        assert_eq!(raised(0.999, 1.0), 0.999);
        let steps: Vec<f32> = [40, 80, 120, 200, 400, 1000].map(|ef| raised(0.9, f64::from(ef) / 40.0)).to_vec();
        assert!(steps.windows(2).all(|w| w[0] < w[1]), "{steps:?}");
    }
}
