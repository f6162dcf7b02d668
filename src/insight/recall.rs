//! `ivflsh_recall`: the index against exact search, on rows of the table as queries.

use crate::index::meta::Info;
use crate::index::metric::{Metric, Operator};
use crate::index::page::Tid;
use crate::index::rows::Table;
use crate::index::sample::Reservoir;
use crate::index::search::Search;
use crate::index::tree::Query;
use pgrx::prelude::*;
use std::collections::HashSet;

/// The k nearest rows of a query, and all that are as near as the k-th.
struct Nearest {
    k: usize,
    /// Nearest first.
    rows: Vec<(f64, Tid)>,
    /// Further rows at the distance of the last.
    ties: Vec<Tid>,
}

impl Nearest {
    fn offer(&mut self, distance: f64, tid: Tid) {
        if distance.is_nan() {
            return;
        }
        if self.rows.len() == self.k {
            let last = self.rows[self.k - 1].0;
            if distance > last {
                return;
            }
            if distance == last {
                self.ties.push(tid);
                return;
            }
        }
        let at = self.rows.partition_point(|r| r.0 <= distance);
        self.rows.insert(at, (distance, tid));
        if self.rows.len() > self.k {
            let dropped = self.rows.pop().unwrap();
            if dropped.0 == self.rows[self.k - 1].0 {
                self.ties.push(dropped.1);
            } else {
                self.ties.clear();
            }
        }
    }
}

/// State of a pass over the table.
struct Pass<'p> {
    operator: Operator,
    value: Vec<f32>,
    step: Step<'p>,
}

enum Step<'p> {
    Sample(&'p mut Reservoir),
    Compare { queries: &'p [f32], dims: usize, nearest: &'p mut [Nearest] },
}

/// Callback: a visible row of the table.
#[pg_guard]
unsafe extern "C-unwind" fn visit_row(
    _index: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
    _alive: bool,
    state: *mut std::ffi::c_void,
) {
    // SAFETY: PostgreSQL's arguments; `state` is the Pass given to the scan.
    unsafe {
        let pass = &mut *state.cast::<Pass>();
        if *nulls {
            return;
        }
        pass.operator.read(*values, &mut pass.value);
        // Rows without direction are not in a cosine index.
        if pass.operator.metric == Metric::Cosine && pass.value.iter().all(|&v| v == 0.0) {
            return;
        }
        match &mut pass.step {
            Step::Sample(reservoir) => reservoir.offer(&pass.value),
            Step::Compare { queries, dims, nearest } => {
                let tid = Tid::from_item(&*tid);
                for (query, nearest) in queries.chunks_exact(*dims).zip(nearest.iter_mut()) {
                    nearest.offer(pass.operator.distance(query, &pass.value), tid);
                }
            }
        }
    }
}

/// Recall@k of up to `queries` rows. Each query finds itself, which does not count. 1 when there is nothing to find.
pub fn recall(heap: pg_sys::Relation, index: pg_sys::Relation, queries: usize, k: usize) -> f64 {
    let info = Info::of(index);
    let frame = info.frame(index);
    let (operator, dims) = (frame.operator, frame.dims);
    // A build scan under a snapshot gives the rows, and the values of expressions, that a query would see.
    let scan = |step: Step<'_>| {
        let mut pass = Pass { operator, value: Vec::new(), step };
        // SAFETY: open relations; the state outlives the call.
        unsafe {
            let built = pg_sys::BuildIndexInfo(index);
            (*built).ii_Concurrent = true;
            pg_sys::table_index_build_scan(
                heap,
                index,
                built,
                true,
                false,
                Some(visit_row),
                (&raw mut pass).cast(),
                std::ptr::null_mut(),
            );
        }
    };
    let mut reservoir = Reservoir::new(queries, dims, dims, SEED);
    scan(Step::Sample(&mut reservoir));
    let sample = reservoir.into_rows();
    // One more than k: the query itself.
    let mut nearest: Vec<Nearest> =
        sample.chunks_exact(dims).map(|_| Nearest { k: k + 1, rows: Vec::new(), ties: Vec::new() }).collect();
    scan(Step::Compare { queries: &sample, dims, nearest: &mut nearest });
    let (mut found, mut wanted) = (0, 0);
    for (vector, nearest) in sample.chunks_exact(dims).zip(&nearest) {
        let Some(&(farthest, _)) = nearest.rows.last() else { continue };
        let mut query = Query::new(operator);
        query.vector.extend_from_slice(vector);
        // SAFETY: a function called from SQL has an active snapshot.
        let table = Table { heap, snapshot: unsafe { pg_sys::GetActiveSnapshot() } };
        let mut search = Search::new(index, table, &info, &frame, query);
        search.expect(k + 1);
        let underflow = search.query.underflow;
        let rows: HashSet<Tid> = nearest.rows.iter().map(|r| r.1).chain(nearest.ties.iter().copied()).collect();
        let mut hits = 0;
        // The executor goes on until no row can be nearer than the k-th it has found, which is no nearer than the true one.
        while hits < nearest.rows.len() {
            match search.next_row() {
                Some(row) if operator.order_value(row.bound, underflow) <= farthest => {
                    hits += usize::from(rows.contains(&row.tid))
                }
                _ => break,
            }
            crate::memory::check_for_interrupts();
        }
        found += hits.saturating_sub(1);
        wanted += nearest.rows.len() - 1;
    }
    if wanted == 0 { 1.0 } else { found as f64 / wanted as f64 }
}

const SEED: u64 = 0x5EED_0F4E_CA11_0001;
