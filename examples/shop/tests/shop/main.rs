//! The shop from end to end, each test on every store.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod dropped;
mod faulty;
mod fulfilment;
mod interrupted;
mod old;
mod runs;
mod stores;
mod view;

use std::{process::ExitCode, sync::Arc};

use annals_test_servers::postgres;
use annals_test_stores::trial;
use libtest_mimic::{Arguments, Completion, Trial};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let runtime = Arc::new(Runtime::new().unwrap());
    let mut trials = vec![
        Trial::test("failed_calls_are_counted", || {
            interrupted::failed_calls_are_counted();
            Ok(())
        }),
        Trial::test("every_upcaster_makes_of_its_samples_what_they_say", || {
            old::every_upcaster_makes_of_its_samples_what_they_say();
            Ok(())
        }),
    ];
    let postgres = postgres::Source::find();
    if let Err(reason) = &postgres {
        let reason = reason.clone();
        trials.push(Trial::ignorable_test("views_in_postgres", move || {
            Ok(Completion::ignored_with(reason))
        }));
    }
    macro_rules! on {
        ($kind:expr; $($theme:ident: $($test:ident)*;)*) => {
            $($(trials.push(trial($kind, &runtime, stringify!($test), $theme::$test));)*)*
        };
    }
    on! { &stores::Kind::marten();
        runs: events_say_what_caused_them;
        view: killed_again_and_again_no_time_out_is_lost_and_no_row_is_wrong;
    }
    for kind in stores::kinds() {
        macro_rules! trials {
            ($($words:tt)*) => {
                on! { &kind; $($words)* }
            };
        }
        trials! {
            runs: run_twice_it_goes_on_where_it_was whatever_the_interleaving
                two_shops_at_once_do_each_command_once events_say_what_caused_them;
            interrupted: stopped_after_any_write_the_next_run_completes_it
                a_failing_store_is_tried_again_with_the_same_events
                a_run_with_nothing_left_to_do_reports_everything;
            fulfilment: what_is_not_paid_in_time_is_cancelled every_event_says_which_one_caused_it
                what_is_paid_in_the_last_moment_stays stopped_after_any_write_no_time_out_is_lost
                dropped_anywhere_no_time_out_is_lost several_at_once_cancel_once
                a_shop_without_patience;
            view: rows_are_what_the_events_say dropped_anywhere_no_row_is_wrong;
            old: old_orders_go_on;
        }
        if postgres.is_ok() {
            trials! {
                view: rows_in_postgres_are_what_the_events_say
                    dropped_anywhere_no_row_in_postgres_is_wrong;
            }
        }
        // What other processes cannot open cannot be left behind by one.
        if kind.is_shared() {
            trials! {
                interrupted: killed_again_and_again_it_gets_to_the_same_end;
                view: killed_again_and_again_no_time_out_is_lost_and_no_row_is_wrong;
            }
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
