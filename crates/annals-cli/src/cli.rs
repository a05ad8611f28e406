//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    append, bench, check, complete, conformance, copy, failure::Failure, read, streams, verify,
};

/// Looks into event stores, moves, verifies, measures and judges them.
///
/// A URL names a store: sqlite://shop.db, postgres://user:password@host/db?schema=shop,
/// dynamodb://table?region=eu-west-1, esdb://host:2113?namespace=shop, memory: (empty).
#[derive(Debug, Parser)]
#[command(name = "annals", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit status: 0 done; 1 a store, a file or the machine failed; 2 what was asked for cannot work; \
3 something was found to be wrong (verify, conformance, check, copy --dry-run); 4 a stream was not at \
the version expected (append), or holds something else in the target (copy); 130 stopped by Ctrl-C.

Passwords in URLs are shown nowhere. To keep them from the list of processes, too, put the URL into \
ANNALS_URL and leave it out, or use PGPASSWORD, ~/.pgpass and the AWS profiles.";

#[derive(Debug, Subcommand)]
enum Command {
    Append(append::Append),
    Read(read::Read),
    Tail(read::Tail),
    Streams(streams::Streams),
    Info(streams::Info),
    Copy(copy::Copy),
    Verify(verify::Verify),
    /// Connects to a store, and says what it is, what it can do, what is missing and how to mend it.
    Check(check::Check),
    /// Runs the conformance suite against a store, in namespaces of its own.
    Conformance(conformance::Conformance),
    /// Measures how many events a store takes, and how long appends wait; or two stores in turn.
    Bench(bench::Bench),
    /// Prints the completions of a shell.
    Completions(complete::Completions),
    /// Prints the manual page, or writes a page for each subcommand.
    Man(complete::Man),
}

impl Cli {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self.command {
            Command::Append(append) => append.run().await,
            Command::Read(read) => read.run().await,
            Command::Tail(tail) => tail.run().await,
            Command::Streams(streams) => streams.run().await,
            Command::Info(info) => info.run().await,
            Command::Copy(copy) => copy.run().await,
            Command::Verify(verify) => verify.run().await,
            Command::Check(check) => check.run().await,
            Command::Conformance(conformance) => conformance.run().await,
            Command::Bench(bench) => bench.run().await,
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
        }
    }
}
