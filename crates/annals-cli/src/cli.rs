//! The command line.

use std::{io::Write, process::ExitCode};

use annals::adapter::url::without_credentials;
use clap::{Parser, Subcommand};

use crate::{
    append, bench, check, complete, conformance, copy,
    failure::{Code, Failure},
    output, read, streams, verify,
};

/// Reads, writes, copies, verifies, tests and measures event stores.
///
/// A store is named by its URL: sqlite://shop.db, postgres://user:password@host/db?schema=shop,
/// dynamodb://table?region=eu-west-1, esdb://user:password@host:2113?namespace=shop, or memory:
/// (a new, empty store).
#[derive(Debug, Parser)]
#[command(name = "annals", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit status: 0 success; 1 a store, a file or the machine failed; 2 the command line, a URL or the \
input is wrong; 3 a problem was found (verify, conformance, check; copy, before it writes); 4 a stream \
is not at the expected version (append), or has other events in the target (copy); 5 all else is done, \
and events stay behind, which are listed (copy, verify); 130 stopped by Ctrl-C; 141 nobody reads the \
output of a copy any more.

No command prints the password of a URL. To keep the password out of the process list as well, set \
the URL in ANNALS_URL instead of giving it as an argument, and the two URLs of copy, verify and bench \
in ANNALS_FROM and ANNALS_TO; or use PGPASSWORD, ~/.pgpass or AWS profiles. A URL on the command line \
counts more than one in the environment.";

#[derive(Debug, Subcommand)]
enum Command {
    Append(append::Append),
    Read(read::Read),
    Tail(read::Tail),
    Streams(streams::Streams),
    Info(streams::Info),
    Copy(copy::Copy),
    Verify(verify::Verify),
    /// Checks a store: reports its version and capabilities, what is missing, and how to fix it.
    Check(check::Check),
    /// Runs the conformance suite against a store, in temporary namespaces.
    Conformance(conformance::Conformance),
    /// Measures the throughput and the latency of appends, of one store or of two in turn.
    Bench(bench::Bench),
    /// Prints the completion script of a shell.
    Completions(complete::Completions),
    /// Prints the manual page, or writes the pages of all subcommands.
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

/// Prints the help that was asked for, or says why the command line cannot be read. `clap` repeats
/// arguments, and one of them may be a URL.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    let text = error.render().ansi().to_string();
    if error.use_stderr() {
        let arguments = std::env::args_os().skip(1);
        let arguments = arguments.map(|argument| argument.to_string_lossy().into_owned());
        output::say(without_credentials(text.trim_end(), arguments));
        return Code::Usage.into();
    }
    let mut out = output::stdout();
    match output::written(out.write_all(text.as_bytes()).and_then(|()| out.flush())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
