//! The cases: one file for each theme.

mod append;
mod checkpoint;
mod concurrency;
mod ends;
mod expect;
mod faults;
mod filter;
mod history;
mod ids;
mod large;
mod lease;
mod lifecycle;
mod live;
mod manage;
mod multi;
mod pairs;
mod payload;
mod places;
mod prefix;
mod races;
mod random;
mod read;
mod removed;
mod reopen;
mod resume;
mod retry;
mod size;
mod snapshot;
mod states;
mod stretch;
mod subscribe;
mod time;
mod transfer;

use crate::Case;

/// Every case of the suite.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        append::CASES,
        expect::CASES,
        retry::CASES,
        ids::CASES,
        multi::CASES,
        concurrency::CASES,
        payload::CASES,
        read::CASES,
        filter::CASES,
        prefix::CASES,
        stretch::CASES,
        ends::CASES,
        subscribe::CASES,
        time::CASES,
        live::CASES,
        resume::CASES,
        manage::CASES,
        removed::CASES,
        places::CASES,
        large::CASES,
        races::CASES,
        snapshot::CASES,
        states::CASES,
        pairs::CASES,
        checkpoint::CASES,
        lease::CASES,
        transfer::CASES,
        size::CASES,
        lifecycle::CASES,
        reopen::CASES,
        faults::CASES,
        random::CASES,
        history::CASES,
    ]
    .concat()
}
