//! The disk format: its layouts change only together with [`page::FORMAT`], and an index of the present format, kept
//! as a file, can be read.

use super::check::check;
use super::crash::{plan, vector};
use super::session::*;
use super::world::{Dice, Disk};
use crate::index::metric::Metric;
use crate::index::page::{self, Layout, Meta, PAGE, Shape};
use std::fmt::Write;
use std::mem::offset_of;
use std::sync::Arc;

/// The sum of the layouts of a format. If the test below fails: raise `FORMAT` (once between two releases) and add a
/// line. (If nothing but a field's name has changed, its sum is replaced.)
const SUMS: [(u16, u64); 1] = [(6, 302_652_234_987_021_136)];

/// All that says where something is on a page.
fn layouts() -> String {
    let mut text = format!("page {PAGE} contents {}\n", page::CAPACITY);
    for dims in [1, 2, 6, 8, 100, 128, 384, 768, 784, 1536, 2000, 4096, 16_000] {
        for bits in [0, 4, 8] {
            for filters in [0, 1, 5, 27] {
                for inner in [false, true] {
                    let shape = Shape { padded: ann::quantize::padded_dims(dims), bits, filters };
                    writeln!(text, "{:?}", Layout::new(shape, inner)).unwrap();
                }
            }
        }
    }
    macro_rules! offsets {
        ($type:ty: $($field:ident)*) => {
            writeln!(text, "{} {:?}", size_of::<$type>(), [$((stringify!($field), offset_of!($type, $field))),*]).unwrap()
        };
    }
    offsets!(Meta: dims operator seed bits filters height root root_list last_list mean lists rows rule tuning epoch mean_epoch
        target calibrated calibrated_by tuned_by left_out open_code spread pending splits merges removed surveyed unfinished kinds);
    offsets!(page::StoppingRule: of_goal norm2);
    offsets!(page::Limits: limit probes);
    offsets!(page::Measuring: lists mean_epoch goal queries asked seen norm2 spread usual tried);
    offsets!(page::Tried: limit found scanned);
    offsets!(page::Opaque: next list epoch insert_at used kind level refs flags head);
    writeln!(text, "{:?} {:?} {}", page::RECALLS, page::GOALS, page::MAX_FILTERS).unwrap();
    // What the constants of a block are.
    let mut bytes = [0u8; PAGE];
    let layout = Layout::new(Shape { padded: 8, bits: 8, filters: 1 }, false);
    page::init(&mut bytes, page::Kind::Posting, 0, 7);
    let run = page::Run { page: 3, first: 1, count: 32 };
    let mut view = page::PostingMut::new(&mut bytes, &layout);
    view.add_block(&[run]);
    let factors = ann::quantize::SketchFactors { constant: 1.5, scale: 0.5, error: 0.25 };
    view.set_entry(0, 3, page::Tid::new(0x0102_0304, 0x0506), &factors);
    view.set_live_bit(0, 3, true);
    writeln!(text, "{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes)).unwrap();
    text
}

#[test]
fn layouts_change_only_with_the_format() {
    let session = Session::begin(1, KINDS);
    let sum = xxhash_rust::xxh3::xxh3_64(layouts().as_bytes());
    drop(session);
    let known = SUMS.iter().find(|known| known.0 == page::FORMAT);
    assert_eq!(known, Some(&(page::FORMAT, sum)), "a layout has changed: an index on disk would be misread");
}

const KINDS: Kinds = Kinds { metric: Metric::L2, bits: 8, dims: 6 };
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/format-6.pages");

/// The file is made by `SIM_GOLDEN=write`, once, when the format is new.
#[test]
fn an_index_of_this_format_is_read() {
    let mut session = Session::begin(6, KINDS);
    for statement in plan(6, 90) {
        statement.run(KINDS, 100).expect("one client alone");
    }
    let world = session.world();
    let (rows, clock) = (world.rows.clone(), world.clock);
    if std::env::var("SIM_GOLDEN").is_ok_and(|what| what == "write") {
        let bytes: Vec<u8> = (0..world.blocks).flat_map(|block| *world.page(block)).collect();
        std::fs::write(GOLDEN, bytes).expect("to write the file");
    }
    let bytes = std::fs::read(GOLDEN).expect("the file");
    let pages = bytes.as_chunks::<PAGE>().0.iter().map(|page| Arc::new(*page)).collect();
    session.world().load(&Disk { pages, rows, clock });
    session.forget_cache();
    let counts = check().expect("a whole index");
    assert!(counts.lists > 1 && counts.entries > 60, "{counts:?}");
    for seed in 0..10 {
        search(&vector(&mut Dice::new(seed)), KINDS.operator()).expect("all rows");
    }
    let vector = vector(&mut Dice::new(99));
    insert(vector).expect("another row");
    check().expect("a whole index still");
}
