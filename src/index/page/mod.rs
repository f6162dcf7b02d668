//! The page layout ([`ivflsh::page`]), and what of it PostgreSQL has its own types for.

pub use ivflsh::page::*;
use pgrx::prelude::*;
use std::mem::offset_of;

const _: () = {
    assert!(PAGE == pg_sys::BLCKSZ as usize, "ivflsh is laid out for 8 kB pages");
    assert!(PAGE_VERSION == PAGE | pg_sys::PG_PAGE_LAYOUT_VERSION as usize);
    assert!(PD_FLAGS == offset_of!(pg_sys::PageHeaderData, pd_flags));
    assert!(PD_LOWER == offset_of!(pg_sys::PageHeaderData, pd_lower));
    assert!(PD_UPPER == offset_of!(pg_sys::PageHeaderData, pd_upper));
    assert!(PD_SPECIAL == offset_of!(pg_sys::PageHeaderData, pd_special));
    assert!(PD_VERSION == offset_of!(pg_sys::PageHeaderData, pd_pagesize_version));
    assert!(PD_PRUNE_XID == offset_of!(pg_sys::PageHeaderData, pd_prune_xid));
};

/// A [`Tid`] as PostgreSQL has it.
pub trait ItemPointer {
    /// From PostgreSQL's.
    fn from_item(item: &pg_sys::ItemPointerData) -> Tid;

    /// To PostgreSQL's.
    fn item(self) -> pg_sys::ItemPointerData;
}

impl ItemPointer for Tid {
    fn from_item(item: &pg_sys::ItemPointerData) -> Tid {
        Tid::new(((item.ip_blkid.bi_hi as u32) << 16) | item.ip_blkid.bi_lo as u32, item.ip_posid)
    }

    fn item(self) -> pg_sys::ItemPointerData {
        let block = self.block();
        pg_sys::ItemPointerData {
            ip_blkid: pg_sys::BlockIdData { bi_hi: (block >> 16) as u16, bi_lo: block as u16 },
            ip_posid: self.offset(),
        }
    }
}
