//! Tests on a real server, beside what stands in for a .NET program: what differs by the options of a
//! store, how it locks, what it refuses, and what is left when it is killed.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod common;
mod killed;
mod locks;
mod open;
mod options;
mod pooled;
mod rich;

use std::process::ExitCode;

use annals_test_servers::postgres;
use libtest_mimic::{Arguments, Completion, Trial};

fn main() -> ExitCode {
    if killed::is_child() {
        return killed::child();
    }
    let unavailable = postgres::Source::find().err();
    let mut trials = Vec::new();
    macro_rules! trials {
        ($($theme:ident: $($test:ident)*;)*) => {
            $($(trials.push(trial(
                concat!(stringify!($theme), "::", stringify!($test)),
                &unavailable,
                $theme::$test,
            ));)*)*
        };
    }
    trials! {
        killed: whatever_was_acknowledged_is_there_once;
        locks: numbers_of_failed_tries_are_filled appends_of_annals_take_turns_at_a_stream
            several_streams_are_locked_in_one_order
            an_id_that_must_be_unique_leaves_no_gap an_archived_row_closes_a_stream;
        open: what_cannot_be_kept_is_refused the_documented_privileges_are_enough
            tables_that_change_are_noticed;
        options: a_store_that_only_reads_creates_nothing archived_events_are_read_if_asked_for
            jsonb_alone_keeps_values removal_can_be_off what_was_masked_is_read_masked
            unknown_types_are_refused_if_told_to streams_of_other_tenants_are_none_of_ours;
        pooled: a_store_works_behind_a_pooler;
        rich: it_needs_a_declared_wait an_event_that_comes_too_late_ends_subscriptions
            a_reader_waits_for_transactions_that_began_in_time versions_need_not_be_in_order;
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A trial of a test. If there is no server, it is ignored, or fails if `ANNALS_REQUIRE` names `postgres`.
fn trial<F>(name: &str, unavailable: &Option<String>, test: fn() -> F) -> Trial
where
    F: Future<Output = common::Tested> + 'static,
{
    let unavailable = unavailable.clone();
    Trial::ignorable_test(name, move || match unavailable {
        Some(reason) if is_required() => Err(reason.into()),
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => {
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on(test()).map_err(|error| error.to_string())?;
            Ok(Completion::Completed)
        }
    })
}

fn is_required() -> bool {
    let required = std::env::var("ANNALS_REQUIRE").unwrap_or_default();
    required.split(',').any(|name| name.trim() == "postgres")
}
