//! The load program: measures the stores, beside the bare drivers and databases they stand on.
//!
//! The contenders of a table take turns for several rounds, and a ratio compares two figures of the
//! same round. So if the machine is slower for a while, both contenders of a ratio are.

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
Usage: annals-benches [--quick] [--seconds N] [--rounds N] [--dir PATH] [--peers PATH]
                      [--sparse N] [SECTION …]

Sections (those with a star run only if they are named; without a name, all others run):
  sqlite-append     appends by 1, 8 and 64 writers, beside bare loops of rusqlite
  sqlite-read       reads of a stream and of all, beside bare SELECTs of rusqlite
  memory            appends, and events to a subscriber
  scale             a store with 1,000,000 events, beside one with 1,000
  latency           the time from an append to a subscriber
  postgres-append   appends by 1 to 128 writers, beside pgbench and bare sqlx
  postgres-read     reads of a stream and of all, beside bare sqlx and tokio-postgres
  postgres-latency  the time from an append to a subscriber
  postgres-pooler   appends, and events to a subscriber, behind PgBouncer
  postgres-quiet    transactions of 200 subscriptions that get no events
  marten            Marten's tables: appends beside a stand-in for its function, reads, latency
  import            imports, beside bare inserts of rusqlite and a COPY
  dynamodb          capacity units of appends and reads, and a model of DynamoDB's limits
  dynamodb-bill     what a fleet of processes pays for a million events a day
  gateway-append    appends by the adapter of EventStoreDB beside bare clients, on the gateway
  gateway-read      its reads beside bare clients, also with a filter that matches rarely
  gateway-quiet     requests of its subscribers that wait
  domain            commands beside appends, projections beside reads, and snapshots
  postgres-scale *  a store with ten million events beside an empty one; takes some minutes
  peers *           appends by other crates on SQLite; needs --peers
  postgres-peers *  appends and reads by other crates on PostgreSQL; needs --peers

Options:
  --quick         run briefly with little data, to see that it works; the figures mean nothing
  --seconds N     how long each contender runs in a round [default: 1.5]
  --rounds N      how many rounds to run [default: 7]
  --dir PATH      the directory for database files, on a real disk [default: beside this program]
  --sparse N      how many events gateway-read looks through for one [default: 300000]
  --peers PATH    the program of `benches/peers`";

type Section = (&'static str, fn(&Plan));

const SECTIONS: [Section; 21] = [
    ("sqlite-append", sqlite_append::run),
    ("sqlite-read", sqlite_read::run),
    ("memory", memory::run),
    ("scale", scale::run),
    ("latency", latency::run),
    ("postgres-append", postgres::append::run),
    ("postgres-read", postgres::read::run),
    ("postgres-latency", postgres::latency::run),
    ("postgres-pooler", postgres::pooler::run),
    ("postgres-quiet", postgres::quiet::run),
    ("marten", postgres::marten::run),
    ("import", import::run),
    ("dynamodb", dynamodb::run),
    ("dynamodb-bill", dynamodb::bill),
    ("gateway-append", gateway::append),
    ("gateway-read", gateway::read),
    ("gateway-quiet", gateway::quiet),
    ("domain", domain::run),
    (LONG, postgres::scale::run),
    ("peers", peers::run),
    ("postgres-peers", postgres::peers::run),
];
/// These sections run only if they are named, since they need a program that is built separately.
const PEERS: [&str; 2] = ["peers", "postgres-peers"];
/// This section runs only if it is named, since it takes minutes.
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
    let (mut sparse, mut named) = (None, Vec::new());
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("quick") => quick = true,
            Long("seconds") => seconds = Some(args.value()?.parse_with(seconds_of)?),
            Long("rounds") => rounds = Some(args.value()?.parse()?),
            Long("dir") => dir = Some(PathBuf::from(args.value()?)),
            Long("sparse") => sparse = Some(args.value()?.parse()?),
            Long("peers") => peers = Some(PathBuf::from(args.value()?)),
            // `latency` runs this program again, as a subscriber in another process.
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
    let mut plan = Plan::new(quick, seconds, rounds, dir, peers)?;
    plan.sparse = sparse.unwrap_or(plan.sparse);
    if named.is_empty() {
        named = SECTIONS.into_iter().collect();
        named.retain(|(name, _)| *name != LONG && !PEERS.contains(name));
    } else if plan.peers.is_none() && named.iter().any(|(name, _)| PEERS.contains(name)) {
        return Err("the sections peers and postgres-peers need --peers PATH".into());
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
