//! The command, end to end: each test on every kind of store that another process can open.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod command;
mod copies;
mod deleted;
mod events;
mod files;
mod inputs;
mod kills;
mod leaving;
mod surroundings;
mod verify;

use std::{process::ExitCode, sync::Arc};

use annals_test_stores::{Kind, kinds, trial};
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let runtime = Arc::new(Runtime::new().unwrap());
    let mut trials = Vec::new();
    macro_rules! alone {
        ($($theme:ident: $($test:ident)*;)*) => {
            $($(trials.push(Trial::test(stringify!($test), {
                let runtime = runtime.clone();
                move || {
                    runtime.block_on(runtime.spawn($theme::$test()))?;
                    Ok(())
                }
            }));)*)*
        };
    }
    alone! {
        events: what_cannot_work_is_said no_secret_is_shown;
        surroundings: no_secret_is_repeated output_that_cannot_be_written_is_an_error
            a_reader_that_goes_ends_a_tail urls_are_taken_from_the_environment;
        files: what_breaks_the_contract_is_found ids_seen_twice_are_reported
            the_first_difference_is_shown a_torn_export_is_completed
            a_file_of_others_is_no_source cloudevents_of_others_can_be_appended
            standard_input_and_output_are_files a_file_has_an_end;
        inputs: an_append_that_is_killed_can_be_run_again
            what_editors_and_other_programs_write_is_read_or_named
            data_called_json_that_is_none_is_exported_and_restored
            an_export_goes_on_after_a_line_without_an_end_and_into_a_pipe;
        copies: what_a_copy_loses_is_said_before a_part_can_be_copied
            another_source_of_the_same_name_is_noticed a_part_begins_without_reading_the_rest
            a_dry_run_reports_what_would_keep_a_copy_from_writing;
        leaving: what_annals_cannot_name_stays_in_a_file_or_gets_another_name
            a_server_with_events_of_others_is_left_with_all_of_them
            what_only_a_server_keeps_stays_behind_with_a_status_of_its_own;
    }
    #[cfg(target_os = "linux")]
    alone! { copies: a_dry_run_reports_a_file_that_cannot_be_written; }
    macro_rules! on {
        ($kind:expr; $($theme:ident: $($test:ident)*;)*) => {
            $($(trials.push(trial($kind, &runtime, stringify!($test), $theme::$test));)*)*
        };
    }
    on! { &Kind::marten();
        copies: a_copy_goes_to_postgres_and_comes_back what_marten_wrote_is_copied
            a_copy_follows_until_told_to_stop streams_are_left_as_they_were;
    }
    for kind in kinds().into_iter().filter(Kind::is_shared) {
        macro_rules! trials {
            ($($words:tt)*) => {
                on! { &kind; $($words)* }
            };
        }
        trials! {
            events: what_is_appended_is_read what_is_printed_can_be_appended
                an_expectation_that_fails_has_its_own_status a_tail_follows
                streams_and_stores_are_described;
            copies: a_copy_follows_until_told_to_stop streams_are_left_as_they_were
                what_is_truncated_before_it_is_copied_stays_away
                several_lanes_keep_the_order_of_each_stream
                a_copy_that_is_told_to_stop_goes_on_later
                what_is_not_of_the_source_is_not_removed
                a_subscriber_is_carried_over a_target_with_other_events_is_left_alone
                an_export_is_a_source;
            deleted: what_was_deleted_is_not_missing_in_a_copy
                what_was_deleted_is_not_missing_after_an_import;
            verify: a_store_is_verified_alone;
            inputs: a_file_that_is_appended_again_gives_each_event_once;
        }
        // Each goes to every kind, so that all pairs are gone through.
        trials! { kills: copies_are_killed_and_end_complete; }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
