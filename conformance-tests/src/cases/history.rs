//! Histories of random concurrent programs, recorded and judged: see [`crate::history`].

use crate::{
    case::{CaseResult, Context, cases},
    history::{Mix, check},
};

cases! { "history":
    appends_of_each_expectation_are_linearizable [1, 2, 3, 4, 11];
    retries_beside_other_appends_write_once [2, 3, 5];
    dropped_appends_are_whole_or_not_at_all [1, 5, 8];
    appends_to_several_streams_are_one [1, 2, 5, 9] MultiStreamAppend;
    removals_beside_appends_are_linearizable [2, 3, 21];
    readers_beside_writers_see_one_order [1, 4, 12, 13, 15] GlobalOrder;
    everything_together_is_linearizable [1, 2, 3, 4, 5, 8, 9, 11, 12, 13, 15, 21];
}

async fn appends_of_each_expectation_are_linearizable(cx: Context) -> CaseResult {
    check(cx, "appends_of_each_expectation_are_linearizable", Mix::default(), 12).await
}

async fn retries_beside_other_appends_write_once(cx: Context) -> CaseResult {
    let mix = Mix { again: 5, ..Mix::default() };
    check(cx, "retries_beside_other_appends_write_once", mix, 12).await
}

async fn dropped_appends_are_whole_or_not_at_all(cx: Context) -> CaseResult {
    let mix = Mix { dropped: 4, again: 3, ..Mix::default() };
    check(cx, "dropped_appends_are_whole_or_not_at_all", mix, 12).await
}

async fn appends_to_several_streams_are_one(cx: Context) -> CaseResult {
    let mix = Mix { several: 6, again: 2, ..Mix::default() };
    check(cx, "appends_to_several_streams_are_one", mix, 12).await
}

async fn removals_beside_appends_are_linearizable(cx: Context) -> CaseResult {
    let mix = Mix { removals: 4, ..Mix::default() };
    check(cx, "removals_beside_appends_are_linearizable", mix, 12).await
}

async fn readers_beside_writers_see_one_order(cx: Context) -> CaseResult {
    let mix = Mix { several: 2, reads_of_all: 3, followers: 2, ..Mix::default() };
    check(cx, "readers_beside_writers_see_one_order", mix, 15).await
}

async fn everything_together_is_linearizable(cx: Context) -> CaseResult {
    let mix = Mix { several: 2, again: 2, dropped: 1, removals: 2, reads_of_all: 2, followers: 2 };
    check(cx, "everything_together_is_linearizable", mix, 25).await
}
