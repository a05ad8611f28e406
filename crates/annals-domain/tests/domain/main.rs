//! The typed layer, each test on every kind of store.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod account;
mod crash;
mod execute;
mod faulty;
mod killed;
mod lead;
mod missing;
mod progress;
mod projection;
mod restored;
mod snapshot;
mod start;
mod together;

use std::{process::ExitCode, sync::Arc};

use annals_test_stores::{kinds, trial};
use libtest_mimic::Arguments;
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    if killed::is_child() {
        return killed::child();
    }
    let runtime = Arc::new(Runtime::new().unwrap());
    let mut trials = Vec::new();
    for kind in kinds() {
        macro_rules! trials {
            ($($theme:ident: $($test:ident)*;)*) => {
                $($(trials.push(trial(
                    &kind,
                    &runtime,
                    concat!(stringify!($theme), "::", stringify!($test)),
                    $theme::$test,
                ));)*)*
            };
        }
        trials! {
            execute: commands_lead_to_events many_at_once_lose_nothing
                a_cache_notices_what_others_wrote a_lost_answer_is_asked_for_again
                events_say_what_caused_them several_change_together
                an_event_that_cannot_be_read_is_an_error;
            snapshot: state_is_the_fold_at_every_boundary one_that_does_not_fit_is_made_anew
                one_that_stood_for_truncated_events_is_missed one_ahead_of_its_stream_is_ignored
                limits_of_size_and_age one_that_is_overtaken_is_read_on;
            projection: each_event_in_order a_poisonous_event_stops_it
                a_poisonous_event_is_parked_and_handled_later
                a_generation_is_built_beside_and_takes_over
                dropped_at_random_points_nothing_is_lost
                dropped_at_random_points_nothing_is_applied_twice
                two_at_once_apply_nothing_twice failing_stores_are_tried_again progress_is_told;
            restored: a_checkpoint_beyond_the_end_is_an_error a_sink_ahead_of_its_store_is_an_error
                a_sink_of_another_store_is_an_error a_sink_moves_to_a_copy
                a_late_snapshot_brings_nothing_back;
            together: a_check_has_to_be_an_event rejections_have_names;
            start: at_a_time at_the_end after_a_position of_workers is_refused;
            progress: left_out_events_are_passed_soon an_idle_store_is_not_written_to
                a_wait_ends_with_an_error_that_says_where a_reset_is_noticed_by_what_runs
                what_was_parked_is_not_parked_again the_number_of_workers_stays;
            missing: what_json_cannot_hold_is_not_written truncated_events_are_missed
                a_stream_that_was_deleted_begins_anew a_cached_state_begins_anew
                retries_end_at_the_deadline an_empty_id_is_refused
                together_says_what_was_decided;
            lead: one_leads_and_another_follows who_stops_hands_over_at_once
                workers_share_the_streams handles_tell_who_leads;
        }
        // The processes that are killed must be able to open the store.
        if kind.is_shared() {
            trials! { killed: processes_killed_at_random_apply_each_event_once; }
        }
        // The rows are on the server of the store, so the test needs no other server.
        if kind.name() == "postgres" {
            trials! { killed: processes_killed_at_random_write_each_row_once; }
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
