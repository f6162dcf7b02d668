//! What the strategies of a vector scan cost: measured times, used by the planner (in its own unit) and at run time.
//!
//! All times are processor time in microseconds with everything in shared buffers, measured on one core of a Zen 5; only
//! their proportions matter. Pages that have to be read are added for the planner.

use crate::index::options;
use crate::index::page::GOALS;
use crate::index::read::info::{Info, RuleAt};
use crate::index::search::Work;
use ivflsh::nearest::FIRST_GOAL;

/// Planner's units that one microsecond is worth. A sequential scan that filters rows takes 0.9 µs a unit.
pub const UNITS_PER_MICROSECOND: f64 = 1.1;
/// Setting a search up, and the node itself.
const START: f64 = 30.0;
/// A list: pinning its pages, locking.
const LIST: f64 = 1.3;
/// Scoring an entry's sketch, per dimension.
const ENTRY: f64 = 0.000_015;
/// Scoring an entry, whatever its dimension.
const ENTRY_LEAST: f64 = 0.0015;
/// Testing whether an entry is among the rows of a bitmap.
const TEST: f64 = 0.006;
/// Finding a row's TID in an index, and putting it into a bitmap: beyond what PostgreSQL counts.
const TID: f64 = 0.15;
/// The node itself, beyond a scan of PostgreSQL's.
const NODE: f64 = 18.0;
/// Testing an entry against conditions on filter columns, and a list's summaries.
const PREDICATE: f64 = 0.001;
const SUMMARY: f64 = 0.08;
/// Noting the TID of a row that a pass has found.
const NOTE: f64 = 0.01;
/// Reading an entry's code.
const REFINE: f64 = 0.25;
/// Per dimension.
const REFINE_DIMENSION: f64 = 0.000_2;
/// Reading a row of the table by its TID, and seeing whether it matches: in the order of distance, and of the table.
const FETCH: f64 = 1.4;
const READ: f64 = 0.8;
/// Reading a row in the order of the table.
const ROW: f64 = 0.08;
/// Computing a distance, and per dimension.
const DISTANCE: f64 = 0.1;
const DISTANCE_DIMENSION: f64 = 0.000_25;
/// Reading a vector that is stored out of line, and per dimension.
const DETOAST: f64 = 1.0;
const DETOAST_DIMENSION: f64 = 0.002;
/// Codes read for each row wanted: those whose sketches cannot exclude them.
const REFINED_PER_ROW: f64 = 3.0;
const REFINED_LEAST: f64 = 60.0;

/// A search is chosen outright when it is expected to cost at most this share of what another strategy is sure to cost.
pub const WORTH: f64 = 0.7;
/// Else it is given this share, in case that rows that match are near the query.
pub const CHANCE: f64 = 0.12;
/// What a strategy is expected to cost when a search is given a chance first, to the strategy alone: sometimes the search succeeds.
const WITH_CHANCE: f64 = 0.95;

/// Expected cost of a search when there is another strategy to fall back to.
pub fn with_chance(search: f64, other: f64) -> f64 {
    if search <= WORTH * other { search } else { search.min(WITH_CHANCE * other + START) }
}

/// What another strategy costs when a search is tried before.
pub fn with_try(other: f64) -> f64 {
    other * (1.0 + CHANCE)
}

/// The sizes that costs depend on.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Rows in the index, lists, dimensions.
    pub rows: f64,
    pub lists: f64,
    pub dims: f64,
    /// Lists that a search for FIRST_GOAL rows reads.
    pub probes: f64,
    /// Lists for other numbers of rows, as the index has measured them; None where a setting says how many are read.
    measured: Option<RuleAt>,
    /// Vectors are stored out of line.
    pub toasted: bool,
    /// The index has codes.
    pub codes: bool,
}

impl Model {
    /// Of an index of `rows` rows, for searches of such a recall.
    pub fn new(info: &Info, recall: f32, rows: f64, toasted: bool) -> Model {
        let lists = f64::from(info.meta.lists).max(1.0);
        let measured = (options::probes() == 0).then(|| info.meta.rule_at(recall));
        let probes = measured.map_or(options::probes() as f64, |rule| f64::from(rule.probes(FIRST_GOAL as f64)));
        Model {
            rows: rows.max(1.0),
            lists,
            dims: f64::from(info.meta.dims),
            probes: probes.clamp(1.0, lists),
            measured,
            toasted,
            codes: info.meta.bits > 0,
        }
    }

    /// Candidates to search for when `k` are wanted.
    pub fn goal(k: f64) -> f64 {
        (k * 1.25 + 4.0).max(FIRST_GOAL as f64)
    }

    /// Lists read for the nearest `goal` rows.
    fn lists_for(&self, goal: f64) -> f64 {
        let share = (goal / self.rows).min(1.0);
        let most = GOALS[GOALS.len() - 1] as f64;
        let few = match &self.measured {
            Some(rule) => f64::from(rule.probes(goal)).max(self.probes) * (goal / most).max(1.0).powf(FARTHER),
            None => self.probes * farther((goal / FIRST_GOAL as f64).max(1.0)),
        };
        // The last rows are in the last list.
        (few * (1.0 - share) + self.lists * share).clamp(1.0, self.lists)
    }

    fn entry(&self) -> f64 {
        ENTRY_LEAST + ENTRY * self.dims
    }

    fn refine(&self) -> f64 {
        REFINE + REFINE_DIMENSION * self.dims
    }

    /// Reading a row and computing its distance.
    pub fn distance(&self) -> f64 {
        let detoast = if self.toasted { DETOAST + DETOAST_DIMENSION * self.dims } else { 0.0 };
        detoast + DISTANCE + DISTANCE_DIMENSION * self.dims
    }

    /// Finding lists: the root's entries, and the codes of the centroids that may be needed.
    fn tree(&self, lists: f64) -> f64 {
        self.lists.min(20_000.0) * self.entry() + (lists * 3.0 + 16.0).min(self.lists) * self.refine() * 0.3
    }

    /// The nearest `k` of `matching` rows, once a pass over the table has found them.
    pub fn found_by_pass(&self, k: f64, matching: f64, qual: f64) -> f64 {
        (matching * self.distance()).min(self.restricted(k, matching, 1.0, qual).micros + matching * NOTE)
    }

    /// What any search takes at least.
    pub fn least(&self) -> f64 {
        START + self.tree(1.0)
    }

    /// Having a bitmap of so many rows made.
    pub fn bitmap(&self, rows: f64) -> f64 {
        rows * TID
    }

    /// Reading the rows that PostgreSQL's own plan finds, and computing their distances.
    pub fn sorted(&self, rows: f64, qual: f64) -> f64 {
        rows * (READ + qual + self.distance())
    }

    /// Reading a row again that a pass has found.
    pub fn read(&self) -> f64 {
        READ
    }

    /// The work that a search has done so far, and the rows read for it.
    pub fn spent(&self, work: &Work, fetched: f64, tested: bool) -> f64 {
        let entry = if tested { TEST } else { self.entry() };
        work.lists as f64 * LIST + work.entries as f64 * entry + work.refined as f64 * self.refine() + fetched * FETCH
    }

    /// Inline: the nearest `k` rows that match, when `share` of all rows do; `qual`: evaluating the WHERE clause once.
    pub fn inline(&self, k: f64, share: f64, qual: f64) -> Cost {
        let share = share.clamp(1.0 / self.rows, 1.0);
        let mut cost = self.candidates((k / share).min(self.rows), qual);
        cost.micros += k * self.result();
        cost
    }

    /// The search for the nearest `n` rows, and checking whether they match.
    pub fn candidates(&self, n: f64, qual: f64) -> Cost {
        let goal = Model::goal(n).min(self.rows);
        let lists = self.lists_for(goal);
        let entries = lists * self.rows / self.lists;
        let refined = (goal * REFINED_PER_ROW + REFINED_LEAST).min(entries);
        let micros = START
            + self.tree(lists)
            + lists * LIST
            + entries * self.entry()
            + refined * self.refine()
            + n * (FETCH + qual);
        Cost { micros, pages: lists + refined * CODE_PAGES + n }
    }

    /// Checking one more candidate of those that the search has found.
    pub fn candidate(&self, qual: f64) -> f64 {
        FETCH + qual + REFINED_PER_ROW * self.refine()
    }

    /// Putting a row in its place, and returning it.
    fn result(&self) -> f64 {
        FETCH + self.distance() * 0.3
    }

    /// A search for the nearest `k` of `matching` rows that are known by TID, of which `share` pass the rest of the WHERE
    /// clause.
    pub fn restricted(&self, k: f64, matching: f64, share: f64, qual: f64) -> Cost {
        let matching = matching.clamp(1.0, self.rows);
        let wanted = Model::goal(k / share.clamp(1.0 / self.rows, 1.0)).min(matching);
        let goal = wanted * self.rows / matching;
        let lists = self.lists_for(goal);
        let entries = lists * self.rows / self.lists;
        // A block is scored when one of its 32 entries is wanted.
        let scored = 1.0 - (1.0 - matching / self.rows).powi(32);
        let refined = (wanted * REFINED_PER_ROW + REFINED_LEAST).min(entries * matching / self.rows);
        let micros = START
            + self.tree(lists)
            + lists * LIST
            + entries * (TEST + scored * self.entry())
            + refined * self.refine()
            + wanted * (FETCH + qual)
            + k * self.result();
        Cost { micros, pages: lists + refined * CODE_PAGES + wanted }
    }

    /// A search for the nearest `k` of `matching` rows that pass conditions on filter columns, which leave `lists_read` of
    /// the lists; a share of them passes the rest of the WHERE clause.
    pub fn filtered(&self, k: f64, matching: f64, share: f64, lists_read: f64, qual: f64) -> Cost {
        let matching = matching.clamp(1.0, self.rows);
        let wanted = Model::goal(k / share.clamp(1.0 / self.rows, 1.0)).min(matching);
        let lists = self.lists_for(wanted * self.rows / matching);
        let read = lists * lists_read;
        let entries = read * self.rows / self.lists;
        // Of the lists that are read.
        let passing = (matching / self.rows / lists_read).min(1.0);
        let scored = 1.0 - (1.0 - passing).powi(32);
        let refined = (wanted * REFINED_PER_ROW + REFINED_LEAST).min(entries * passing);
        let micros = START
            + self.tree(lists)
            + (lists * 3.0).min(self.lists) * SUMMARY
            + read * LIST
            + entries * (PREDICATE + scored * self.entry())
            + refined * self.refine()
            + wanted * (FETCH + qual)
            + k * self.result();
        Cost { micros, pages: read + refined * CODE_PAGES + wanted }
    }

    /// Going through all lists for the rows within a distance, of which there are `within`.
    pub fn through(&self, within: f64, qual: f64) -> f64 {
        let look = self.rows * if self.codes { self.refine() } else { READ + self.distance() };
        START + self.tree(self.lists) + self.lists * LIST + look + within * (READ + qual.min(NOTE))
    }

    /// Reading the whole table, and computing the distance of each row.
    pub fn table(&self, qual: f64) -> f64 {
        self.rows * (ROW + qual.min(ROW) + self.distance())
    }

    /// Reading all of `matching` rows, known by TID, and sorting them.
    pub fn read_all(&self, matching: f64, share: f64, qual: f64) -> Cost {
        Cost { micros: NODE + matching * (READ + qual + share * self.distance()), pages: matching }
    }
}

/// How many times as many lists hold `n` times as many of the nearest rows: measured on GloVe and Fashion-MNIST, with shares
/// from 50 % to 0.1 %.
fn farther(n: f64) -> f64 {
    n.min(10.0).powf(0.25) * (n / 10.0).max(1.0).powf(FARTHER)
}

/// The same, where `n` is large: lists go by this power of it.
const FARTHER: f64 = 0.65;

/// Code pages read for each code: neighbours share them.
const CODE_PAGES: f64 = 0.3;

/// What a strategy costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub micros: f64,
    /// Pages, read from disk if they are in no cache.
    pub pages: f64,
}
