//! The load program: what the stores do in a second, beside what they could do at most.
//!
//! The contenders of a table take turns, for several rounds, and a ratio is that of two figures of
//! the same round: a machine that is slower for a while is so for both.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has nothing to report")]

mod bare;
mod domain;
mod dynamodb;
mod gateway;
mod import;
mod latency;
mod load;
mod memory;
mod peers;
mod plan;
mod postgres;
mod report;
mod scale;
mod sqlite;
mod sqlite_append;
mod sqlite_read;
mod subscriber;

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use lexopt::prelude::{Long, Short, Value, ValueExt};
use plan::Plan;

const USAGE: &str = "\
Usage: annals-benches [--quick] [--seconds N] [--rounds N] [--dir PATH] [--peers PATH] [SECTION …]

Sections, all but those with a star unless some are named:
  sqlite-append     appends of 1, 8 and 64 writers, beside bare loops of rusqlite
  sqlite-read       a stream, and all, beside bare SELECTs of rusqlite
  memory            an append, and events to a subscriber
  scale             1,000 events in the store, and 1,000,000
  latency           from an append to its subscriber
  postgres-append   appends of 1 to 128 writers, beside pgbench and bare sqlx
  postgres-read     a stream, and all, beside bare sqlx and tokio-postgres
  postgres-latency  from an append to its subscriber
  import            events of another store, beside bare inserts of rusqlite and a COPY
  dynamodb          capacity units of appends and reads, and a model of the limits
  gateway           the adapter of EventStoreDB beside the bare client, on the gateway
  domain            commands beside appends, projections beside reads, and snapshots
  postgres-scale *  ten million events in the store, and none: takes some minutes
  peers *           appends of other crates on SQLite; needs --peers
  postgres-peers *  appends and reads of other crates on PostgreSQL; needs --peers

Options:
  --quick         short and small: shows that it works, and gives no figures to keep
  --seconds N     how long each contender works in a round [default: 1.5]
  --rounds N      how often each has its turn [default: 7]
  --dir PATH      where the files are, on a real disk [default: beside this program]
  --peers PATH    the program of `benches/peers`";

type Section = (&'static str, fn(&Plan));

const SECTIONS: [Section; 15] = [
    ("sqlite-append", sqlite_append::run),
    ("sqlite-read", sqlite_read::run),
    ("memory", memory::run),
    ("scale", scale::run),
    ("latency", latency::run),
    ("postgres-append", postgres::append::run),
    ("postgres-read", postgres::read::run),
    ("postgres-latency", postgres::latency::run),
    ("import", import::run),
    ("dynamodb", dynamodb::run),
    ("gateway", gateway::run),
    ("domain", domain::run),
    (LONG, postgres::scale::run),
    ("peers", peers::run),
    ("postgres-peers", postgres::peers::run),
];
/// These run only where they are named, since their program is built apart.
const PEERS: [&str; 2] = ["peers", "postgres-peers"];
/// So does this, since it takes long.
const LONG: &str = "postgres-scale";

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn start() -> Result<(), Box<dyn Error>> {
    let (mut quick, mut seconds, mut rounds, mut dir, mut peers) = (false, None, None, None, None);
    let mut named = Vec::new();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("quick") => quick = true,
            Long("seconds") => seconds = Some(args.value()?.parse_with(seconds_of)?),
            Long("rounds") => rounds = Some(args.value()?.parse()?),
            Long("dir") => dir = Some(PathBuf::from(args.value()?)),
            Long("peers") => peers = Some(PathBuf::from(args.value()?)),
            // The program starts itself: another process for the subscribers of `latency`.
            Long(subscriber::OPTION) => return Ok(subscriber::main(args.value()?)?),
            Short('h') | Long("help") => {
                println!("{USAGE}");
                return Ok(());
            }
            Value(name) => {
                let known = SECTIONS.into_iter().find(|(section, _)| name == *section);
                named.push(known.ok_or_else(|| format!("there is no section {name:?}"))?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let plan = Plan::new(quick, seconds, rounds, dir, peers)?;
    if named.is_empty() {
        named = SECTIONS.into_iter().collect();
        named.retain(|(name, _)| *name != LONG && !PEERS.contains(name));
    } else if plan.peers.is_none() && named.iter().any(|(name, _)| PEERS.contains(name)) {
        return Err("the sections with other crates need --peers PATH".into());
    }
    plan.introduce();
    let _context = plan.context();
    for (_, section) in named {
        section(&plan);
    }
    Ok(())
}

fn seconds_of(text: &str) -> Result<Duration, Box<dyn Error + Send + Sync>> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}
