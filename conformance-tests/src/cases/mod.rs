//! The cases, by theme.

mod append;
mod concurrency;
mod expect;
mod faults;
mod filter;
mod keep;
mod lease;
mod lifecycle;
mod live;
mod manage;
mod multi;
mod payload;
mod random;
mod read;
mod retry;
mod subscribe;
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
        live::CASES,
        manage::CASES,
        keep::CASES,
        lease::CASES,
        transfer::CASES,
        lifecycle::CASES,
        faults::CASES,
        random::CASES,
    ]
    .concat()
}
