//! What every sink keeps to, and what only one of them can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod cases;
mod place;
mod postgres;
mod sqlite;

use std::{future::Future, pin::Pin, process::ExitCode, sync::Arc, time::Duration};

use annals_test_servers::{BoxError, postgres::Source};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Runtime;

use cases::*;
use postgres::Server;
use sqlite::{File, Memory};

type Tested = Result<(), BoxError>;
type Run = fn() -> Pin<Box<dyn Future<Output = Tested> + Send>>;

/// How long a test waits for what has to happen soon.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lists tests: where, whether they need a server, and their names.
macro_rules! tests {
    ($($theme:literal $needs:literal: $($test:ident $(::<$place:ty>)?),+;)+) => {
        &[$($((concat!($theme, "::", stringify!($test)), $needs, {
            let run: $crate::Run = || Box::pin($test$(::<$place>)?());
            run
        })),+),+]
    };
}
pub(crate) use tests;

/// Lists the cases for each kind of sink.
macro_rules! sinks {
    ($($theme:literal $needs:literal $place:ty;)+) => {
        [$(tests! { $theme $needs:
            begins_with_nothing::<$place>,
            commits::<$place>,
            is_undone_when_dropped::<$place>,
            moves_only_from_where_it_is::<$place>,
            second_waits_for_the_first::<$place>,
            keeps_names_apart::<$place>,
            many_take_turns::<$place>,
            many_create_the_table::<$place>,
            is_left_anywhere::<$place>,
            begins_are_left_anywhere::<$place>;
        }),+]
    };
}

/// The name, whether the test needs a server, and the test.
type Test = (&'static str, bool, Run);

fn main() -> ExitCode {
    let every: [&[Test]; 3] = sinks! {
        "postgres" true Server;
        "sqlite" false File;
        "memory" false Memory;
    };
    let own: [&[Test]; 2] = [postgres::TESTS, sqlite::TESTS];
    let missing = Source::find().err();
    let runtime = Arc::new(Runtime::new().unwrap());
    let trials = every.into_iter().chain(own).flatten().map(|&(name, needs_server, run)| {
        let missing = missing.clone().filter(|_| needs_server);
        let runtime = runtime.clone();
        Trial::ignorable_test(name, move || match missing {
            Some(reason) if is_required() => Err(Failed::from(reason)),
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => {
                let limit = PATIENCE * 4;
                let done = runtime
                    .block_on(async { tokio::time::timeout(limit, tokio::spawn(run())).await });
                done.map_err(|_| format!("the test has not ended after {limit:?}"))???;
                Ok(Completion::Completed)
            }
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// Whether the tests must fail if there is no PostgreSQL.
fn is_required() -> bool {
    let required = std::env::var("ANNALS_REQUIRE").unwrap_or_default();
    required.split(',').any(|name| name.trim() == "postgres")
}
