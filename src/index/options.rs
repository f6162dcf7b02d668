//! Index options (`WITH (…)`) and settings (`SET ivflsh.…`).

use super::method::Method;
use super::pgvector;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use pgrx::pg_sys::relopt_type::{RELOPT_TYPE_ENUM, RELOPT_TYPE_INT};
use pgrx::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// How rows that match the WHERE clause are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Strategy {
    /// Candidates come from the vector index, nearest first; the WHERE clause is checked on each.
    Inline = 0,
    /// Other indexes find the rows that match first; then the vector index is searched for these only, or, when they are
    /// few, all of them are read and sorted.
    Bitmap = 1,
}

/// Most lists that a user can ask for.
pub const MAX_LISTS: i32 = 10_000_000;

/// What an index scan does with a row that turns up after farther rows have been returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PostgresGucEnum)]
#[allow(non_camel_case_types, reason = "the names are the values that users write")]
pub enum IterativeScan {
    /// Return it at the end of the scan, which a LIMIT that is filled does not reach: the order stays exact.
    strict_order,
    /// Return it at once, late.
    relaxed_order,
}

/// Whether queries may be answered by a vector scan, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PostgresGucEnum)]
#[allow(non_camel_case_types, reason = "the names are the values that users write")]
pub enum VectorScan {
    /// The planner chooses.
    on,
    off,
    /// By the strategy *inline*, whatever it costs.
    inline,
    /// By the strategy *bitmap* where there is a bitmap, whatever it costs.
    bitmap,
    // What a switch can be set to as well.
    #[name = c"true"]
    #[hidden = true]
    yes_true,
    #[name = c"false"]
    #[hidden = true]
    no_false,
}

static TARGET_RECALL: GucSetting<f64> = GucSetting::<f64>::new(0.95);
static PROBES: GucSetting<i32> = GucSetting::<i32>::new(0);
static ITERATIVE_SCAN: GucSetting<IterativeScan> = GucSetting::<IterativeScan>::new(IterativeScan::strict_order);

/// `target_recall` that searches of an open index have: of the session, where one was set for it (by SET, for the role, the database or the
/// connection), else the index's own option, else what the server's configuration says.
pub fn target_recall(index: pg_sys::Relation) -> f32 {
    let own = of(index).map_or(UNSET, |options| options.target_recall);
    if own < LEAST_RECALL || IS_OF_SESSION.load(Ordering::Relaxed) { TARGET_RECALL.get() as f32 } else { own as f32 }
}

/// Limits of `target_recall`, and the option's value where it was not given.
const LEAST_RECALL: f64 = 0.01;
const MOST_RECALL: f64 = 0.999;
const UNSET: f64 = -1.0;

/// Whether `ivflsh.target_recall` was set for this session. Of this backend, which has one thread here.
static IS_OF_SESSION: AtomicBool = AtomicBool::new(false);

unsafe extern "C-unwind" {
    /// Memory that PostgreSQL frees together with a setting's value.
    #[cfg(feature = "pg15")]
    fn malloc(size: usize) -> *mut std::ffi::c_void;
    #[cfg(not(feature = "pg15"))]
    fn guc_malloc(level: std::ffi::c_int, size: usize) -> *mut std::ffi::c_void;
}

/// Notes beside a value of `ivflsh.target_recall` whether it is one of the session; the note is restored with the value.
unsafe extern "C-unwind" fn check_target_recall(
    _value: *mut f64,
    extra: *mut *mut std::ffi::c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL's arguments; the memory is of the size of a bool.
    unsafe {
        #[cfg(feature = "pg15")]
        let note = malloc(size_of::<bool>());
        #[cfg(not(feature = "pg15"))]
        let note = guc_malloc(pg_sys::LOG as std::ffi::c_int, size_of::<bool>());
        if note.is_null() {
            return false;
        }
        note.cast::<bool>().write(source >= pg_sys::GucSource::PGC_S_GLOBAL);
        *extra = note;
    }
    true
}

unsafe extern "C-unwind" fn assign_target_recall(_value: f64, extra: *mut std::ffi::c_void) {
    // SAFETY: what `check_target_recall` has noted.
    IS_OF_SESSION.store(unsafe { extra.cast::<bool>().as_ref() }.is_some_and(|note| *note), Ordering::Relaxed);
}

/// `ivflsh.probes`; 0: derived from the target recall.
pub fn probes() -> usize {
    PROBES.get() as usize
}

/// `ivflsh.iterative_scan`
pub fn iterative_scan() -> IterativeScan {
    ITERATIVE_SCAN.get()
}

static VECTOR_SCAN: GucSetting<VectorScan> = GucSetting::<VectorScan>::new(VectorScan::on);

/// `ivflsh.enable_vector_scan`: whether the planner may use it.
pub fn vector_scan() -> bool {
    !matches!(VECTOR_SCAN.get(), VectorScan::off | VectorScan::no_false)
}

/// The only strategy that the planner may use, if `ivflsh.enable_vector_scan` names one.
pub fn vector_scan_strategy() -> Option<Strategy> {
    match VECTOR_SCAN.get() {
        VectorScan::inline => Some(Strategy::Inline),
        VectorScan::bitmap => Some(Strategy::Bitmap),
        _ => None,
    }
}

static KIND: AtomicU32 = AtomicU32::new(0);
static HNSW_KIND: AtomicU32 = AtomicU32::new(0);
static IVFFLAT_KIND: AtomicU32 = AtomicU32::new(0);

/// The parsed options of an index.
#[repr(C)]
pub struct Options {
    /// Varlena header of the parsed form.
    vl_len: i32,
    /// Lists to build; 0: chosen from the number of rows.
    pub lists: i32,
    /// Bits per dimension of the rows' codes.
    pub bits: i32,
    /// Another seed, another index of the same rows.
    pub seed: i32,
    /// A [`Partition`].
    partition: i32,
    /// Below [`LEAST_RECALL`]: not given.
    target_recall: f64,
    // What pgvector's methods keep beside.
    m: i32,
    ef_construction: i32,
    ivfflat_lists: i32,
}

const DEFAULT_M: i32 = 16;
const DEFAULT_EF_CONSTRUCTION: i32 = 64;

/// The bits of codes that a user can choose.
const BITS: [(&std::ffi::CStr, u32); 3] = [(c"0", 0), (c"4", 4), (c"8", 8)];
pub const DEFAULT_BITS: u32 = 8;

/// How an index groups its rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Partition {
    /// In lists around centroids.
    Kmeans,
    /// In a list for each element that is not zero.
    Terms,
}

/// The partitions that a user can choose.
const PARTITIONS: [(&std::ffi::CStr, Partition); 2] = [(c"kmeans", Partition::Kmeans), (c"terms", Partition::Terms)];
const DEFAULT_PARTITION: Partition = Partition::Kmeans;

/// Registers options and settings when the library is loaded.
pub fn register() {
    // SAFETY: called once from _PG_init.
    unsafe {
        let lock = pg_sys::AccessExclusiveLock as i32;
        let integer = |kind, name: &std::ffi::CStr, text: &std::ffi::CStr, default, least, most| {
            pg_sys::add_int_reloption(kind, name.as_ptr(), text.as_ptr(), default, least, most, lock);
        };
        let kind = pg_sys::add_reloption_kind();
        integer(kind, c"lists", c"Number of lists to build (0 = chosen from the number of rows)", 0, 0, MAX_LISTS);
        let hnsw = pg_sys::add_reloption_kind();
        integer(hnsw, c"m", c"Kept for pgvector's sake", DEFAULT_M, 2, 100);
        integer(hnsw, c"ef_construction", c"Kept for pgvector's sake", DEFAULT_EF_CONSTRUCTION, 4, 1000);
        let ivfflat = pg_sys::add_reloption_kind();
        let (default, most) = (pgvector::DEFAULT_LISTS, pgvector::MAX_LISTS);
        integer(ivfflat, c"lists", c"Number of lists that ivfflat.probes is a part of", default, 1, most);
        // PostgreSQL keeps the array's address.
        let member = |string_val, symbol_val| pg_sys::relopt_enum_elt_def { string_val, symbol_val };
        let mut members: Vec<_> = BITS.iter().map(|(name, bits)| member(name.as_ptr(), *bits as i32)).collect();
        members.push(member(std::ptr::null(), 0));
        let members = members.leak().as_mut_ptr();
        let mut partitions: Vec<_> = PARTITIONS.iter().map(|(name, p)| member(name.as_ptr(), *p as i32)).collect();
        partitions.push(member(std::ptr::null(), 0));
        pg_sys::add_real_reloption(
            kind,
            c"target_recall".as_ptr(),
            c"Share of the true nearest neighbours that searches find, where the session does not say another".as_ptr(),
            UNSET,
            LEAST_RECALL,
            MOST_RECALL,
            // Searches go on meanwhile.
            pg_sys::ShareUpdateExclusiveLock as i32,
        );
        pg_sys::add_enum_reloption(
            kind,
            c"partition".as_ptr(),
            c"How rows are grouped: in lists around centroids, or in a list for each term".as_ptr(),
            partitions.leak().as_mut_ptr(),
            DEFAULT_PARTITION as i32,
            c"Valid values are \"kmeans\" and \"terms\".".as_ptr(),
            lock,
        );
        for kind in [kind, hnsw, ivfflat] {
            pg_sys::add_enum_reloption(
                kind,
                c"bits".as_ptr(),
                c"Bits per dimension of the codes that rows are compared by (0 = none, rows are compared by themselves)"
                    .as_ptr(),
                members,
                DEFAULT_BITS as i32,
                c"Valid values are \"0\", \"4\" and \"8\".".as_ptr(),
                lock,
            );
            integer(kind, c"seed", c"Seed of everything random in a build", 0, 0, i32::MAX);
        }
        KIND.store(kind, Ordering::Relaxed);
        HNSW_KIND.store(hnsw, Ordering::Relaxed);
        IVFFLAT_KIND.store(ivfflat, Ordering::Relaxed);
    }
    GucRegistry::define_float_guc_with_hooks(
        c"ivflsh.target_recall",
        c"Share of the true nearest neighbours that an ivflsh index scan should find.",
        c"Each index knows from its own data how many lists it must read for it.",
        &TARGET_RECALL,
        LEAST_RECALL,
        MOST_RECALL,
        GucContext::Userset,
        GucFlags::default(),
        Some(check_target_recall),
        Some(assign_target_recall),
        None,
    );
    GucRegistry::define_int_guc(
        c"ivflsh.probes",
        c"Number of lists that an ivflsh index scan reads first (0 = derived from ivflsh.target_recall).",
        c"More lists are read when more rows are asked for.",
        &PROBES,
        0,
        MAX_LISTS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"ivflsh.iterative_scan",
        c"What an ivflsh index scan does with a row that turns up after farther rows have been returned.",
        c"strict_order returns it at the end of the scan, relaxed_order at once.",
        &ITERATIVE_SCAN,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"ivflsh.enable_vector_scan",
        c"Enables the planner's use of vector scans, which search an ivflsh index and check the WHERE clause at once.",
        c"inline and bitmap have this strategy taken wherever it can be, whatever it costs.",
        &VECTOR_SCAN,
        GucContext::Userset,
        GucFlags::EXPLAIN,
    );
    #[cfg(not(feature = "pg14"))]
    // SAFETY: a constant, terminated string.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(c"ivflsh".as_ptr());
    }
}

/// `amoptions` of ivflsh.
#[pg_guard]
pub unsafe extern "C-unwind" fn amoptions(options: pg_sys::Datum, validate: bool) -> *mut pg_sys::bytea {
    // SAFETY: PostgreSQL's arguments.
    unsafe {
        use std::mem::offset_of;
        let own = [
            (c"lists", RELOPT_TYPE_INT, offset_of!(Options, lists)),
            (c"partition", RELOPT_TYPE_ENUM, offset_of!(Options, partition)),
            (c"target_recall", pg_sys::relopt_type::RELOPT_TYPE_REAL, offset_of!(Options, target_recall)),
        ];
        parse(options, validate, &KIND, &own)
    }
}

/// `amoptions` of hnsw.
#[pg_guard]
pub unsafe extern "C-unwind" fn amoptions_of_hnsw(options: pg_sys::Datum, validate: bool) -> *mut pg_sys::bytea {
    use std::mem::offset_of;
    let integer = |name, offset| (name, RELOPT_TYPE_INT, offset);
    let own =
        [integer(c"m", offset_of!(Options, m)), integer(c"ef_construction", offset_of!(Options, ef_construction))];
    // SAFETY: PostgreSQL's arguments.
    unsafe { parse(options, validate, &HNSW_KIND, &own) }
}

/// `amoptions` of ivfflat.
#[pg_guard]
pub unsafe extern "C-unwind" fn amoptions_of_ivfflat(options: pg_sys::Datum, validate: bool) -> *mut pg_sys::bytea {
    let own = [(c"lists", RELOPT_TYPE_INT, std::mem::offset_of!(Options, ivfflat_lists))];
    // SAFETY: PostgreSQL's arguments.
    unsafe { parse(options, validate, &IVFFLAT_KIND, &own) }
}

/// Parses the options of a kind: its own, and those of all kinds.
///
/// # Safety
/// PostgreSQL's arguments.
unsafe fn parse(
    options: pg_sys::Datum,
    validate: bool,
    kind: &AtomicU32,
    own: &[(&std::ffi::CStr, pg_sys::relopt_type::Type, usize)],
) -> *mut pg_sys::bytea {
    let element = |name: &std::ffi::CStr, opttype, offset: usize| pg_sys::relopt_parse_elt {
        optname: name.as_ptr(),
        opttype,
        offset: offset as i32,
        #[cfg(feature = "pg18")]
        isset_offset: 0,
    };
    let mut elements: Vec<_> = own.iter().map(|&(name, opttype, offset)| element(name, opttype, offset)).collect();
    elements.push(element(c"bits", RELOPT_TYPE_ENUM, std::mem::offset_of!(Options, bits)));
    elements.push(element(c"seed", RELOPT_TYPE_INT, std::mem::offset_of!(Options, seed)));
    // SAFETY: PostgreSQL's arguments; the elements describe `Options`.
    unsafe {
        pg_sys::build_reloptions(
            options,
            validate,
            kind.load(Ordering::Relaxed),
            size_of::<Options>(),
            elements.as_ptr(),
            elements.len() as i32,
        )
        .cast()
    }
}

/// The options of an open index; None when it was created without any.
fn of(index: pg_sys::Relation) -> Option<&'static Options> {
    // SAFETY: rd_options is NULL or what `amoptions` made; callers copy out of it at once.
    unsafe { (*index).rd_options.cast::<Options>().as_ref() }
}

/// `lists` of an open index.
pub fn lists(index: pg_sys::Relation) -> usize {
    of(index).map_or(0, |o| o.lists as usize)
}

/// `bits` of an open index: 0, 4 or 8.
pub fn bits(index: pg_sys::Relation) -> u32 {
    of(index).map_or(DEFAULT_BITS, |o| o.bits as u32)
}

/// `partition` of an open index.
pub fn partition(index: pg_sys::Relation) -> Partition {
    // SAFETY: callers have an index of ours open.
    if unsafe { Method::of(index) } != Method::Ivflsh {
        return DEFAULT_PARTITION;
    }
    let stored = of(index).map_or(DEFAULT_PARTITION as i32, |o| o.partition);
    PARTITIONS.iter().map(|(_, p)| *p).find(|p| *p as i32 == stored).unwrap_or(DEFAULT_PARTITION)
}

/// An option of an open index that was set and has no meaning where the partition is of terms.
pub fn ignored_by_terms(index: pg_sys::Relation) -> Option<&'static str> {
    let options = of(index)?;
    match options {
        o if o.lists != 0 => Some("lists"),
        o if o.bits != DEFAULT_BITS as i32 => Some("bits"),
        o if o.seed != 0 => Some("seed"),
        _ => None,
    }
}

/// `m` and `ef_construction` of an open hnsw index.
pub fn hnsw(index: pg_sys::Relation) -> (i32, i32) {
    of(index).map_or((DEFAULT_M, DEFAULT_EF_CONSTRUCTION), |o| (o.m, o.ef_construction))
}

/// `lists` of an open ivfflat index, as the user gave it.
pub fn ivfflat_lists(index: pg_sys::Relation) -> i32 {
    of(index).map_or(pgvector::DEFAULT_LISTS, |o| o.ivfflat_lists)
}

/// `seed` of an open index.
pub fn seed(index: pg_sys::Relation) -> u32 {
    of(index).map_or(0, |o| o.seed as u32)
}
