//! The `annals` command: reads, writes, copies, verifies, tests and measures event stores on any
//! backend. `annals --help` documents it. The binary only calls [`main`].

mod append;
mod bench;
mod carry;
mod check;
mod cli;
mod cloudevents;
mod complete;
mod conformance;
mod copy;
mod deletions;
mod failure;
mod file;
mod foreign;
mod interrupt;
mod lines;
mod listing;
mod namespace;
mod of_server;
mod output;
mod piece;
mod read;
mod removed;
mod select;
mod show;
mod source;
mod streams;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::{cli::Cli, failure::Failure};

/// Runs the command that the arguments of this process ask for. `annals --help` lists the exit
/// statuses.
///
/// A program whose command opens stores of a backend of its own calls [`annals::register`] first.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::refuse(&error),
    };
    // The client of EventStoreDB logs every error that it also returns.
    let quiet = |_| EnvFilter::new("warn,kurrentdb=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(quiet);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Else it panics if standard error cannot be written to.
    log.log_internal_errors(false).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::new("the Tokio runtime cannot start").because(&error).report();
        }
    };
    match runtime.block_on(cli.run()) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
