//! The `annals` command, for any backend: look into event stores, append to them, move them, verify,
//! judge and measure them. `annals --help` says all; the binary is only [`main`].

mod append;
mod bench;
mod check;
mod cli;
mod cloudevents;
mod complete;
mod conformance;
mod copy;
mod failure;
mod interrupt;
mod lines;
mod listing;
mod namespace;
mod output;
mod place;
mod read;
mod select;
mod show;
mod streams;
mod url;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::{cli::Cli, failure::Failure};

/// Does what the command line of this process says. The exit codes are those of `annals --help`.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // What the client of EventStoreDB logs as an error, it also returns as one.
    let quiet = |_| EnvFilter::new("warn,kurrentdb=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(quiet);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new("no runtime").because(&error).report(),
    };
    match runtime.block_on(cli.run()) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
