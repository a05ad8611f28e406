//! The cases: one file for each theme.

mod append;
mod checkpoint;
mod concurrency;
mod expect;
mod faults;
mod filter;
mod history;
mod lease;
mod lifecycle;
mod live;
mod manage;
mod multi;
mod payload;
mod random;
mod read;
mod removed;
mod resume;
mod retry;
mod size;
mod snapshot;
mod states;
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
        multi::CASES,
        concurrency::CASES,
        payload::CASES,
        read::CASES,
        filter::CASES,
        subscribe::CASES,
        time::CASES,
        live::CASES,
        resume::CASES,
        manage::CASES,
        removed::CASES,
        snapshot::CASES,
        states::CASES,
        checkpoint::CASES,
        lease::CASES,
        transfer::CASES,
        size::CASES,
        lifecycle::CASES,
        faults::CASES,
        random::CASES,
        history::CASES,
    ]
    .concat()
}
