//! The command line of the shop.

use std::{
    error::Error,
    ffi::OsString,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use annals::{Backend, adapter::url::without_credentials};
use chrono::TimeDelta;
use lexopt::prelude::*;
use shop::{AnyError, COMMANDS, Options, Summary, execute::Counters};
use tokio::io::{AsyncBufRead, BufReader};

const HELP: &str = "\
Runs a shop's commands, from a file with one on each line, and prints what became of them.

Usage: shop [OPTIONS] [FILE]

  FILE           the commands; `-` for standard input; without it a file that comes with the shop
  --store URL    where the events are kept, or `memory:` [default: sqlite://shop.db]
  --workers N    how many commands run at the same time, from 1 to 1024 [default: 16]
  --payment-within SECONDS
                 cancels orders that are not paid in this time, also those of earlier runs
  --view URL|FILE
                 keeps a table of this store's orders, shop_orders, in the PostgreSQL database of
                 that URL (postgres://…) or in that SQLite file

Commands, `#` begins a comment:

  receive <delivery> <sku> <quantity>
  place <order> <sku> <quantity> <cents>
  pay <order> <cents>
  ship <order>
  cancel <order>

A command that was done before changes nothing, so that it is safe to run a file again.
Exit status: 0 when every line was understood, 2 when some were not, 1 when the run failed.
";

const MAX_WORKERS: usize = 1024;
/// Progress is shown when a run takes longer than this, and again after each such time.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

struct Arguments {
    store: String,
    file: Option<OsString>,
    options: Options,
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| arguments.map(start).transpose()) {
        Ok(Some(summary)) if !summary.bad_lines.is_empty() => ExitCode::from(2),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // The error may repeat an argument, which may be a URL in the wrong place.
            let arguments = std::env::args_os().skip(1);
            let arguments = arguments.map(|argument| argument.to_string_lossy().into_owned());
            eprintln!("shop: {}", without_credentials(&with_causes(&*error), arguments));
            ExitCode::FAILURE
        }
    }
}

/// Nothing where help was asked for.
fn arguments() -> Result<Option<Arguments>, AnyError> {
    let store = "sqlite://shop.db".to_owned();
    let mut arguments = Arguments { store, file: None, options: Options::default() };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                io::stdout().write_all(HELP.as_bytes())?;
                return Ok(None);
            }
            Long("store") => arguments.store = parser.value()?.string()?,
            Long("workers") => {
                arguments.options.workers = parser.value()?.parse()?;
                if !(1..=MAX_WORKERS).contains(&arguments.options.workers) {
                    return Err(format!("--workers takes 1 to {MAX_WORKERS}").into());
                }
            }
            Long("payment-within") => {
                let seconds: u32 = parser.value()?.parse()?;
                arguments.options.payment_within = Some(TimeDelta::seconds(seconds.into()));
            }
            Long("view") => arguments.options.view = Some(parser.value()?.string()?),
            Value(file) if arguments.file.is_none() => arguments.file = Some(file),
            other => return Err(format!("{}; see --help", other.unexpected()).into()),
        }
    }
    Ok(Some(arguments))
}

fn start(arguments: Arguments) -> Result<Summary, AnyError> {
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(run(arguments));
    // Not dropped, which would wait for a read of standard input that may never end.
    runtime.shutdown_background();
    result
}

async fn run(arguments: Arguments) -> Result<Summary, AnyError> {
    let input: Box<dyn AsyncBufRead + Unpin> = match &arguments.file {
        None => Box::new(COMMANDS.as_bytes()),
        Some(file) if file == "-" => Box::new(BufReader::new(tokio::io::stdin())),
        Some(file) => {
            let name = file.display();
            let file = tokio::fs::File::open(file).await.map_err(|e| format!("{name}: {e}"))?;
            Box::new(BufReader::new(file))
        }
    };
    let store =
        annals::connect(&arguments.store).await.map_err(|e| explain(&arguments.store, e))?;
    let counters = Arc::new(Counters::default());
    metrics::set_global_recorder(counters.retries.clone())?;
    let progress = tokio::spawn(progress(counters.clone()));
    let result = shop::run(store, input, &arguments.options, counters).await;
    progress.abort();
    let summary = result?;

    let mut stderr = io::stderr();
    for line in &summary.bad_lines {
        writeln!(stderr, "line {}: {}", line.number, line.fault)?;
    }
    io::stdout().write_all(summary.to_string().as_bytes())?;
    Ok(summary)
}

/// Adds the command that compiles the store, if only that is missing.
fn explain(url: &str, error: annals::Error) -> AnyError {
    match Backend::of(url) {
        Ok(backend) if !backend.is_enabled() => {
            let feature = backend.name();
            let scheme = url.split(':').next().unwrap_or_default();
            let command = format!("cargo run -p shop --features {feature} -- --store {scheme}:…");
            format!("{error}; for the shop: {command}").into()
        }
        _ => error.into(),
    }
}

async fn progress(counters: Arc<Counters>) {
    let mut stderr = io::stderr();
    while stderr.is_terminal() {
        tokio::time::sleep(PROGRESS_EVERY).await;
        let commands = counters.commands.load(Relaxed);
        // The line is overwritten by the next one, and by the report.
        if write!(stderr, "{commands} commands so far\r").is_err() {
            return;
        }
    }
}

/// An error with everything that led to it, in one line.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
