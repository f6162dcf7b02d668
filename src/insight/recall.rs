//! `ivflsh_recall`: the index against exact search, on rows of the table or given vectors as queries.

use crate::index::metric::OperatorClass as _;
use crate::index::metric::{Metric, Operator};
use crate::index::page::ItemPointer as _;
use crate::index::page::Tid;
use crate::index::read::info::Info;
use crate::index::read::rows::{Expression, Table};
use crate::index::search::Search;
use crate::index::storage::pages;
use crate::pg::identity::AsOwner;
use ann::memory;
use ivflsh::read::tree::Query;
use ivflsh::sample::{Random, Reservoir};
use pgrx::prelude::*;

/// The k nearest rows of a query, and how many are as near as the k-th.
struct Nearest {
    k: usize,
    /// Nearest first.
    rows: Vec<(f64, Tid)>,
    /// Further rows at the distance of the last.
    ties: u64,
}

impl Nearest {
    fn offer(&mut self, distance: f64, tid: Tid) {
        if distance.is_nan() {
            return;
        }
        if self.rows.len() == self.k {
            let last = self.rows[self.k - 1].0;
            if distance >= last {
                self.ties += u64::from(distance == last);
                return;
            }
        }
        let at = self.rows.partition_point(|r| r.0 <= distance);
        memory::room(&mut self.rows, 1);
        self.rows.insert(at, (distance, tid));
        if self.rows.len() > self.k {
            let dropped = self.rows.pop().unwrap();
            self.ties = if dropped.0 == self.rows[self.k - 1].0 { self.ties + 1 } else { 0 };
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
    /// Draws queries from the rows of one part of the table.
    Sample {
        reservoir: &'p mut Reservoir,
        part: usize,
        parts: usize,
    },
    Compare {
        queries: &'p [f32],
        dims: usize,
        nearest: &'p mut [Nearest],
    },
    /// Counts for each query those of some rows, with the query's number and in order, that are as near as its farthest.
    Judge {
        queries: &'p [f32],
        dims: usize,
        farthest: &'p [f64],
        rows: &'p [(Tid, u32)],
        hits: &'p mut [usize],
    },
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
        crate::pg::memory::check_for_interrupts();
        pass.operator.read(*values, &mut pass.value);
        // Rows without direction are not in a cosine index.
        if pass.operator.metric == Metric::Cosine && pass.value.iter().all(|&v| v == 0.0) {
            return;
        }
        match &mut pass.step {
            Step::Sample { reservoir, part, parts } => {
                if part_of(Tid::from_item(&*tid), *parts) == *part {
                    reservoir.offer(&pass.value);
                }
            }
            Step::Compare { queries, dims, nearest } => {
                let tid = Tid::from_item(&*tid);
                for (query, nearest) in queries.chunks_exact(*dims).zip(nearest.iter_mut()) {
                    nearest.offer(pass.operator.distance(query, &pass.value), tid);
                }
            }
            Step::Judge { queries, dims, farthest, rows, hits } => {
                let tid = Tid::from_item(&*tid);
                let of_row = &rows[rows.partition_point(|r| r.0 < tid)..];
                for query in of_row.iter().take_while(|r| r.0 == tid).map(|r| r.1 as usize) {
                    let distance = pass.operator.distance(&queries[query * *dims..][..*dims], &pass.value);
                    hits[query] += usize::from(distance <= farthest[query]);
                }
            }
        }
    }
}

/// What is searched for.
pub enum Queries {
    /// So many rows of the table at most. Each finds itself, which does not count.
    Rows(usize),
    /// These, one after another.
    Given(Vec<f32>),
}

/// Recall@k. None when there is nothing to find.
pub fn recall(
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    owner: &AsOwner,
    queries: Queries,
    k: usize,
) -> Option<f64> {
    let info = Info::of(pages(index));
    let frame = info.frame(pages(index));
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
    let expression = Expression::of_owner(index, owner);
    let judge = expression.as_ref().map(Expression::judge);
    // One more than k: the query itself.
    let itself = usize::from(matches!(queries, Queries::Rows(_)));
    let k = k + itself;
    // As many queries at a time as there is memory for.
    let of_query = 4 * dims + NEIGHBOUR_BYTES * k;
    // SAFETY: a plain setting of the backend, in kB.
    let most = (unsafe { pg_sys::maintenance_work_mem as usize } * 1024 / of_query).max(1);
    let count = match &queries {
        Queries::Rows(count) => *count,
        Queries::Given(vectors) => vectors.len() / dims,
    };
    let parts = count.div_ceil(most);
    let (mut found, mut wanted) = (0, 0);
    for part in 0..parts {
        let sample = match &queries {
            Queries::Rows(_) => {
                let mut reservoir = Reservoir::new(count.div_ceil(parts), dims, dims, SEED);
                scan(Step::Sample { reservoir: &mut reservoir, part, parts });
                reservoir.into_rows()
            }
            Queries::Given(vectors) => {
                vectors.chunks(count.div_ceil(parts) * dims).nth(part).map_or(Vec::new(), memory::copied)
            }
        };
        let nearest = sample.chunks_exact(dims).map(|_| Nearest { k, rows: Vec::new(), ties: 0 });
        let mut nearest: Vec<Nearest> = memory::collected(nearest);
        scan(Step::Compare { queries: &sample, dims, nearest: &mut nearest });
        let mut hits = memory::zeroed::<usize>(nearest.len());
        // Rows returned that may be ties.
        let mut unsure: Vec<(Tid, u32)> = Vec::new();
        for (number, (vector, nearest)) in sample.chunks_exact(dims).zip(&nearest).enumerate() {
            let Some(&(farthest, _)) = nearest.rows.last() else { continue };
            let mut query = Query::new(operator);
            query.vector.extend_from_slice(vector);
            // SAFETY: a function called from SQL has an active snapshot.
            let table = Table { heap, snapshot: unsafe { pg_sys::GetActiveSnapshot() } };
            let mut search = Search::new(index, table, &info, &frame, query);
            search.expect(k);
            if let Some(judge) = judge {
                search.judge_by(judge);
            }
            let underflow = search.query.underflow;
            let mut rows: Vec<Tid> = memory::collected(nearest.rows.iter().map(|r| r.1));
            rows.sort_unstable();
            let (mut sure, mut maybe) = (0, 0);
            // The executor goes on until no row can be nearer than the k-th it has found, which is no nearer than the true
            // one. Of rows that may be ties, twice as many as are wanted are enough.
            while sure < rows.len() && maybe < 2 * rows.len() {
                match search.next_row() {
                    Some(row) if operator.order_value(row.bound, underflow) <= farthest => {
                        if rows.binary_search(&row.tid).is_ok() {
                            sure += 1;
                        } else if nearest.ties > 0 {
                            maybe += 1;
                            memory::push(&mut unsure, (row.tid, number as u32));
                        }
                    }
                    _ => break,
                }
                crate::pg::memory::check_for_interrupts();
            }
            hits[number] = sure;
        }
        if !unsure.is_empty() {
            unsure.sort_unstable();
            let farthest = nearest.iter().map(|n| n.rows.last().map_or(f64::NEG_INFINITY, |r| r.0));
            let farthest: Vec<f64> = memory::collected(farthest);
            scan(Step::Judge { queries: &sample, dims, farthest: &farthest, rows: &unsure, hits: &mut hits });
        }
        for (nearest, hits) in nearest.iter().zip(hits).filter(|(nearest, _)| !nearest.rows.is_empty()) {
            found += hits.min(nearest.rows.len()) - hits.min(itself);
            wanted += nearest.rows.len() - itself;
        }
    }
    (wanted > 0).then(|| found as f64 / wanted as f64)
}

/// Bytes that a neighbour of a query takes: itself, as one of those wanted, and two rows that may be ties.
const NEIGHBOUR_BYTES: usize = 2 * size_of::<(f64, Tid)>() + size_of::<Tid>() + 4 * size_of::<(Tid, u32)>();

/// Which of so many parts of the table a row belongs to.
fn part_of(tid: Tid, parts: usize) -> usize {
    let number = u64::from(tid.block()) << 16 | u64::from(tid.offset());
    Random::new(number).below(parts)
}

const SEED: u64 = 0x5EED_0F4E_CA11_0001;
