//! Plays scenarios that were recorded on a real EventStoreDB 23.10.8, and compares what the gateway
//! answers with the recording.
//!
//! A scenario is a list of calls and their answers (`scenarios`). `play` makes the calls and writes down
//! what came back, `show` writes messages in a form that does not depend on ids, times and positions. The
//! recording is in `recorded.txt.br`. A difference that is known is in `differences.txt`, with its kind;
//! the book's page `gateway.md` has a table with the reason for each kind. A scenario fails if its
//! difference is not the known one, also if there is none any more.
//!
//! The client, the gateway and the store run in one thread whose clock is paused: time passes when
//! nothing is left to do. So "nothing more comes" is no matter of speed. SQLite works in threads of its
//! own, so the scenarios over it run by the real clock, without those that wait.
//!
//! `ANNALS_SHOW=append/id` prints what the gateway answers in the scenarios with this in their name, and
//! the difference from the recording. `ANNALS_UPDATE=1` writes `differences.txt` anew; a difference that
//! was not there before gets the kind `?`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod ask;
mod differences;
mod gateway;
mod given;
mod play;
mod run;
mod scenarios;
mod show;
mod stores;
mod unseen;
mod wire;

use std::{collections::BTreeMap, env, process::ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::{
    differences::{Known, Recording},
    stores::StoreKind,
};

/// The environment variable with a part of the names of the scenarios to print.
const SHOW: &str = "ANNALS_SHOW";
/// The environment variable that asks for the file of known differences to be written anew.
const UPDATE: &str = "ANNALS_UPDATE";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if let Ok(part) = env::var(SHOW) {
        show(&part);
        return ExitCode::SUCCESS;
    }
    if env::var_os(UPDATE).is_some() {
        update();
        return ExitCode::SUCCESS;
    }
    let mut trials = vec![Trial::test("every_kind_of_difference_is_in_the_book", || {
        differences::check_book(&Known::load()).map_err(Failed::from)
    })];
    for store in StoreKind::ALL {
        for theme in scenarios::themes() {
            if !store.has_theme(&theme) {
                continue;
            }
            let name = format!("{}::{theme}", store.name());
            trials.push(Trial::test(name, move || compare(store, &theme)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Plays the scenarios of a theme, and compares them with the recording and the known differences.
fn compare(store: StoreKind, theme: &str) -> Result<(), Failed> {
    let (recording, known) = (Recording::load(), Known::load());
    let wanted =
        |name: &str| scenarios::theme(name) == theme && recording.has(name) && store.plays(name);
    let played = run::play(store, wanted);
    let mut failures = Vec::new();
    for (name, text) in &played {
        if let Some(failure) = known.check(name, &recording.difference(name, text)) {
            failures.push(failure);
        }
    }
    match failures.as_slice() {
        [] if played.is_empty() => Err("no scenario was played".into()),
        [] => Ok(()),
        some => Err(some.join("\n").into()),
    }
}

fn show(part: &str) {
    let recording = Recording::load();
    let only =
        |name: &str| name.contains(part) && recording.has(name) && StoreKind::Memory.plays(name);
    for (name, text) in run::play(StoreKind::Memory, only) {
        println!("=== {name}\n{text}\n");
        println!("{}\n", recording.difference(&name, &text));
    }
}

fn update() {
    let recording = Recording::load();
    let mut found = BTreeMap::new();
    let wanted = |name: &str| recording.has(name) && StoreKind::Memory.plays(name);
    for (name, text) in run::play(StoreKind::Memory, wanted) {
        let difference = recording.difference(&name, &text);
        if !difference.is_empty() {
            found.insert(name, difference);
        }
    }
    Known::load().update(found);
}
