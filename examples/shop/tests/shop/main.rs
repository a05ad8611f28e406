//! The shop from end to end, each test on every store: in memory, on SQLite, on PostgreSQL and
//! DynamoDB where a server can be had, and on those whose URLs stand, parted by commas, in `ANNALS_SHOP_URLS`. In
//! each, `{}` stands for a name of the test's own.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod faulty;
mod interrupted;
mod runs;
mod stores;

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use stores::Kind;
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let runtime = Arc::new(Runtime::new().unwrap());
    let mut trials = Vec::new();
    for kind in stores::kinds() {
        macro_rules! trials {
            ($($theme:ident: $($test:ident)*;)*) => {
                $($(trials.push(trial(&kind, &runtime, stringify!($test), $theme::$test));)*)*
            };
        }
        trials! {
            runs: run_twice_it_goes_on_where_it_was whatever_the_interleaving
                two_shops_at_once_do_each_command_once events_say_what_caused_them;
            interrupted: stopped_after_any_write_the_next_run_completes_it
                a_failing_store_is_tried_again_with_the_same_events
                a_run_with_nothing_left_to_do_reports_everything;
        }
        // What other processes cannot open cannot be left behind by one.
        if kind.is_shared() {
            trials! { interrupted: killed_again_and_again_it_gets_to_the_same_end; }
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial<F>(kind: &Kind, runtime: &Arc<Runtime>, name: &str, test: fn(Kind) -> F) -> Trial
where
    F: Future<Output = ()> + Send + 'static,
{
    let (kind, runtime) = (kind.clone(), runtime.clone());
    Trial::ignorable_test(format!("{}::{name}", kind.name()), move || match kind.unavailable() {
        Some(reason) if kind.is_required() => Err(Failed::from(reason)),
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => {
            runtime.block_on(runtime.spawn(test(kind)))?;
            Ok(Completion::Completed)
        }
    })
}
