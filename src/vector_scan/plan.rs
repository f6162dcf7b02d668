//! A path becomes a plan node: what it carries, and how that is stored in a form that PostgreSQL can copy and send to
//! parallel workers.

use super::Strategy;
use super::conditions::Condition;
use super::cost::{Cost, Model};
use super::distance::{Comparison, Form};
use super::exec;
use super::path::CUSTOM_NAME;
use pgrx::prelude::*;

/// Numbers that the planner gives to the node.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The vector index.
    pub index: pg_sys::Oid,
    pub strategy: Strategy,
    /// Rows wanted in all, if known.
    pub limit: Option<f64>,
    /// Share of all rows that pass the WHERE clause, distance ranges left out.
    pub share: f64,
    /// Rows of the table that the bitmap finds, as estimated, and the cost (in microseconds) of finding them.
    pub matching: f64,
    pub bitmap_micros: f64,
    /// Cost of evaluating the WHERE clause on one row, and of a pass over the whole table, in microseconds.
    pub qual_micros: f64,
    pub pass_micros: f64,
    /// Rows and pages of the table.
    pub rows: f64,
    pub pages: f64,
    /// Vectors are stored out of line.
    pub toasted: bool,
    /// The rows' order matters.
    pub ordered: bool,
    /// Rows expected within the distance range, if there is one.
    pub in_range: Option<f64>,
    /// Share of all rows that pass the conditions on the index's own filter columns.
    pub index_share: f64,
    /// Share of the lists that these conditions do not exclude.
    pub lists_read: f64,
    /// The WHERE clause excludes rows without a vector.
    pub has_vector: bool,
    /// Rows whose distance is not a number, and those that have none, come before all others.
    pub nan_first: bool,
    pub nulls_first: bool,
}

impl Facts {
    /// What the search for the nearest `k` costs, without a bitmap.
    pub fn by_search(&self, model: &Model, k: f64) -> Cost {
        if self.index_share < 1.0 {
            let rest = self.share / self.index_share;
            model.filtered(k, self.rows * self.index_share, rest, self.lists_read, self.qual_micros)
        } else {
            model.inline(k, self.share, self.qual_micros)
        }
    }

    /// What it costs to find and check the nearest `n` of the rows that the search is restricted to.
    pub fn candidates(&self, model: &Model, n: f64) -> f64 {
        let cost = if self.index_share < 1.0 {
            model.filtered(n, self.rows * self.index_share, 1.0, self.lists_read, self.qual_micros)
        } else {
            model.candidates(n, self.qual_micros)
        };
        cost.micros
    }

    /// What it costs to let the bitmap find the rows, and the nearest `k` of these.
    pub fn by_bitmap(&self, model: &Model, k: f64) -> f64 {
        let rest = (self.share * self.rows / self.matching.max(1.0)).min(1.0);
        let search = model.restricted(k, self.matching, rest, self.qual_micros);
        let all = model.read_all(self.matching, rest, self.qual_micros);
        self.bitmap_micros + search.micros.min(all.micros)
    }
}

/// How many numbers [`Facts`] are.
const FACTS: usize = 18;

impl Facts {
    fn to_numbers(self) -> [f64; FACTS] {
        [
            f64::from(self.index.to_u32()),
            f64::from(self.strategy as i32),
            self.limit.unwrap_or(-1.0),
            self.share,
            self.matching,
            self.bitmap_micros,
            self.qual_micros,
            self.pass_micros,
            self.rows,
            self.pages,
            f64::from(u8::from(self.toasted)),
            f64::from(u8::from(self.ordered)),
            self.in_range.unwrap_or(-1.0),
            self.index_share,
            self.lists_read,
            f64::from(u8::from(self.has_vector)),
            f64::from(u8::from(self.nan_first)),
            f64::from(u8::from(self.nulls_first)),
        ]
    }

    fn from_numbers(n: [f64; FACTS]) -> Facts {
        let optional = |x: f64| (x >= 0.0).then_some(x);
        Facts {
            index: pg_sys::Oid::from(n[0] as u32),
            strategy: if n[1] == 0.0 { Strategy::Inline } else { Strategy::Bitmap },
            limit: optional(n[2]),
            share: n[3],
            matching: n[4],
            bitmap_micros: n[5],
            qual_micros: n[6],
            pass_micros: n[7],
            rows: n[8],
            pages: n[9],
            toasted: n[10] != 0.0,
            ordered: n[11] != 0.0,
            in_range: optional(n[12]),
            index_share: n[13],
            lists_read: n[14],
            has_vector: n[15] != 0.0,
            nan_first: n[16] != 0.0,
            nulls_first: n[17] != 0.0,
        }
    }

    /// As a list of integers, two for each number: PostgreSQL can copy and print these in all versions.
    pub fn to_list(self) -> *mut pg_sys::List {
        let mut list = std::ptr::null_mut();
        for number in self.to_numbers() {
            let bits = number.to_bits();
            // SAFETY: appends to a list made here.
            unsafe {
                list = pg_sys::lappend_int(list, (bits >> 32) as i32);
                list = pg_sys::lappend_int(list, bits as i32);
            }
        }
        list
    }

    /// Inverse of [`Facts::to_list`].
    ///
    /// # Safety
    /// `list` was made by it.
    pub unsafe fn from_list(list: *mut pg_sys::List) -> Facts {
        // SAFETY: by contract.
        let integers: Vec<i32> = unsafe { pgrx::PgList::<i32>::from_pg(list).iter_int().collect() };
        let mut numbers = [0.0; FACTS];
        for (number, halves) in numbers.iter_mut().zip(integers.chunks_exact(2)) {
            *number = f64::from_bits(u64::from(halves[0] as u32) << 32 | u64::from(halves[1] as u32));
        }
        Facts::from_numbers(numbers)
    }
}

/// What a node computes, in `custom_exprs`: lists, of which some may be empty.
pub struct Expressions {
    /// The distance of a row.
    pub distance: *mut pg_sys::Expr,
    pub query: *mut pg_sys::Expr,
    /// What distance ranges compare with, and the query vector of each.
    pub radii: Vec<*mut pg_sys::Expr>,
    pub queries: Vec<*mut pg_sys::Expr>,
    /// Constants of the conditions on the index's filter columns, and these as they were written.
    pub constants: Vec<*mut pg_sys::Expr>,
    pub conditions_written: *mut pg_sys::List,
    /// The whole WHERE clause, in PostgreSQL's order: also what the plan does not show as its filter, because the index
    /// sees to it. Rows that are found in another way have to be checked against it.
    pub all: *mut pg_sys::List,
}

impl Expressions {
    pub fn to_list(&self) -> *mut pg_sys::List {
        let pair = list_of(&[self.distance, self.query]);
        let (radii, queries) = (list_of(&self.radii), list_of(&self.queries));
        list_of(&[pair, radii, list_of(&self.constants), self.conditions_written, self.all, queries])
    }

    /// # Safety
    /// `list` was made by [`Expressions::to_list`] (and perhaps copied or changed by the planner).
    pub unsafe fn from_list(list: *mut pg_sys::List) -> Expressions {
        // SAFETY: by contract.
        unsafe {
            let lists: Vec<*mut pg_sys::List> = nodes(list);
            let pair: Vec<*mut pg_sys::Expr> = nodes(lists[0]);
            Expressions {
                distance: pair[0],
                query: pair[1],
                radii: nodes(lists[1]),
                constants: nodes(lists[2]),
                conditions_written: lists[3],
                all: lists[4],
                queries: nodes(lists[5]),
            }
        }
    }
}

/// A list of nodes.
pub fn list_of<T>(nodes: &[*mut T]) -> *mut pg_sys::List {
    // SAFETY: appends to a list made here.
    nodes.iter().fold(std::ptr::null_mut(), |list, node| unsafe { pg_sys::lappend(list, node.cast()) })
}

/// A list of integers.
fn list_of_integers(integers: impl IntoIterator<Item = i32>) -> *mut pg_sys::List {
    // SAFETY: appends to a list made here.
    integers.into_iter().fold(std::ptr::null_mut(), |list, integer| unsafe { pg_sys::lappend_int(list, integer) })
}

/// What a WHERE clause demands of the index's filter columns.
pub struct FilterClauses {
    pub condition: Condition,
    /// Of the condition's tests.
    pub constants: Vec<*mut pg_sys::Expr>,
    /// The clauses that it follows from, and those that follow from it.
    pub clauses: Vec<*mut pg_sys::RestrictInfo>,
    pub whole: Vec<*mut pg_sys::RestrictInfo>,
}

/// Of a path, in `custom_private`: facts, expressions, the clauses that are distance ranges, how these follow from distances, and the
/// condition on filter columns with its clauses.
pub fn path_private(
    facts: Facts,
    expressions: &Expressions,
    ranges: &[*mut pg_sys::RestrictInfo],
    forms: Vec<i32>,
    conditions: Option<&FilterClauses>,
) -> *mut pg_sys::List {
    let mut condition = Vec::new();
    if let Some(conditions) = conditions {
        conditions.condition.to_integers(&mut condition);
    }
    let (all, whole) = conditions.map_or((Vec::new(), Vec::new()), |c| (c.clauses.clone(), c.whole.clone()));
    list_of(&[
        facts.to_list(),
        expressions.to_list(),
        list_of(ranges),
        list_of_integers(forms),
        list_of_integers(condition),
        list_of(&all),
        list_of(&whole),
    ])
}

/// Nodes of a list.
///
/// # Safety
/// `list` is a valid list of pointers to T.
pub unsafe fn nodes<T>(list: *mut pg_sys::List) -> Vec<*mut T> {
    // SAFETY: by contract.
    unsafe { pgrx::PgList::<T>::from_pg(list).iter_ptr().collect() }
}

/// `PlanCustomPath`
#[pg_guard]
pub unsafe extern "C-unwind" fn plan_path(
    _root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::CustomPath,
    tlist: *mut pg_sys::List,
    clauses: *mut pg_sys::List,
    plans: *mut pg_sys::List,
) -> *mut pg_sys::Plan {
    // SAFETY: PostgreSQL's arguments; `custom_private` is what `path_private` made.
    unsafe {
        let private: Vec<*mut pg_sys::List> = nodes((*path).custom_private);
        let ranges: Vec<*mut pg_sys::RestrictInfo> = nodes(private[2]);
        let mut expressions = Expressions::from_list(private[1]);
        expressions.all = pg_sys::extract_actual_clauses(clauses, false);
        let written = nodes::<pg_sys::RestrictInfo>(private[5]);
        let written: Vec<*mut pg_sys::Expr> = written.into_iter().map(|clause| (*clause).clause).collect();
        expressions.conditions_written = list_of(&written);
        // The search sees to the others.
        let whole: Vec<*mut pg_sys::RestrictInfo> = nodes(private[6]);
        let left: Vec<*mut pg_sys::RestrictInfo> =
            nodes(clauses).into_iter().filter(|clause| !whole.contains(clause)).collect();
        let quals = pg_sys::extract_actual_clauses(list_of(&left), false);
        let bitmaps: Vec<*mut pg_sys::Plan> =
            nodes::<pg_sys::Plan>(plans).into_iter().map(|plan| (*below_gates(plan)).lefttree).collect();
        // Places of the distance ranges in the WHERE clause.
        let places = nodes::<pg_sys::Expr>(expressions.all)
            .into_iter()
            .enumerate()
            .filter(|(_, qual)| ranges.iter().any(|range| (**range).clause == *qual))
            .fold(std::ptr::null_mut(), |list, (at, _)| pg_sys::lappend_int(list, at as i32));
        let mut scan = pgrx::PgBox::<pg_sys::CustomScan>::alloc_node(pg_sys::NodeTag::T_CustomScan);
        scan.scan.plan.targetlist = tlist;
        scan.scan.plan.qual = quals;
        scan.scan.scanrelid = (*rel).relid;
        scan.flags = (*path).flags;
        scan.custom_exprs = expressions.to_list();
        scan.custom_private = list_of(&[private[0], places, private[3], private[4]]);
        scan.custom_plans = list_of(&bitmaps);
        scan.methods = scan_methods();
        scan.into_pg().cast()
    }
}

/// The scan under a gate for conditions without variables, if there is one.
unsafe fn below_gates(mut plan: *mut pg_sys::Plan) -> *mut pg_sys::Plan {
    // SAFETY: a plan that PostgreSQL made of a scan's path.
    unsafe {
        while (*plan).type_ == pg_sys::NodeTag::T_Result {
            plan = (*plan).lefttree;
        }
        plan
    }
}

/// What a plan node carries.
pub struct Unpacked {
    pub facts: Facts,
    pub expressions: Expressions,
    /// Places of distance ranges among the quals.
    pub places: Vec<usize>,
    /// How these compare, and with what.
    pub forms: Vec<(Comparison, Form)>,
    /// What is demanded of filter columns.
    pub condition: Option<Condition>,
}

/// # Safety
/// `scan` was made by [`plan_path`], or copied.
pub unsafe fn unpack(scan: *mut pg_sys::CustomScan) -> Unpacked {
    // SAFETY: by contract.
    unsafe {
        let private: Vec<*mut pg_sys::List> = nodes((*scan).custom_private);
        let integers = |list| pgrx::PgList::<i32>::from_pg(list).iter_int().collect::<Vec<i32>>();
        Unpacked {
            facts: Facts::from_list(private[0]),
            expressions: Expressions::from_list((*scan).custom_exprs),
            places: integers(private[1]).into_iter().map(|i| i as usize).collect(),
            forms: Comparison::read(&integers(private[2])),
            condition: (!private[3].is_null()).then(|| Condition::from_integers(&mut integers(private[3]).into_iter())),
        }
    }
}

/// Tables of callbacks hold C strings and functions only.
struct Methods(pg_sys::CustomScanMethods);
// SAFETY: never changed.
unsafe impl Sync for Methods {}

static SCAN_METHODS: Methods = Methods(pg_sys::CustomScanMethods {
    CustomName: CUSTOM_NAME.as_ptr(),
    CreateCustomScanState: Some(exec::create_state),
});

/// Callbacks of the plan node.
pub fn scan_methods() -> *const pg_sys::CustomScanMethods {
    &SCAN_METHODS.0
}
