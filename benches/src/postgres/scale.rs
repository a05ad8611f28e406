//! Whether appends to a PostgreSQL store with ten million events take longer than to one that is
//! almost empty.

use std::time::Instant;

use annals_benches::{data, metadata};

use crate::{
    load::{Load, To},
    plan::Plan,
    postgres::{Database, Server},
    report::{Figures, Target, figure},
};

/// The number of streams in the small store, which has one event in each.
const FEW: usize = 1_000;
/// How many streams grow at the same time, if they have more than one event.
const TOGETHER: usize = 10;
/// How many events are inserted by one statement.
const CHUNK: usize = 1_000_000;

#[derive(Clone, Copy)]
enum Streams {
    New,
    Any,
}

pub(crate) fn run(plan: &Plan) {
    let Some(server) = Server::start(plan) else { return };
    let large = if plan.quick { (1_000, 100) } else { (100_000, 100) };
    let small = (FEW, 1);
    let began = Instant::now();
    let full = filled(&server, large);
    let [few, many] = [small, large].map(|(streams, events)| figure((streams * events) as f64));
    println!("\n{many} events were inserted in {:.0} s", began.elapsed().as_secs_f64());
    let title = format!("PostgreSQL: small is {few} events in the store, large {many}");
    let mut figures = Figures::new(title, "events a second");
    let mut contenders = Vec::new();
    for (streams, to) in [("new streams", Streams::New), ("any stream", Streams::Any)] {
        for (writers, by) in [(1, "1 writer"), (32, "32 writers")] {
            let what = format!("{by}, {streams}");
            contenders.extend([(what.clone(), writers, to, true), (what, writers, to, false)]);
        }
    }
    let turns = plan.turns(&contenders.iter().collect::<Vec<_>>());
    for (turn, (what, writers, to, is_large)) in turns.into_iter().enumerate() {
        // A new small store for each turn: the appends would make it large.
        let new = (!is_large).then(|| filled(&server, small));
        let database = new.as_ref().unwrap_or(&full);
        let to = match to {
            Streams::New => To::Own { first: turn * 100 },
            Streams::Any => To::Filled(if *is_large { large.0 } else { small.0 }),
        };
        let load = Load { writers: *writers, events: 1, to };
        let rate = plan.run(load.rate(database.open(), plan.warm_up(), plan.slice));
        figures.add(label(what, *is_large), rate);
        if *is_large {
            // Dropping a small store's database makes a checkpoint, so make one here, too.
            full.execute("CHECKPOINT");
        }
    }
    for (what, .., is_large) in &contenders {
        if *is_large {
            let name = format!("{what}: time in large / in small");
            figures.ratio_named(name, &label(what, false), &label(what, true), Target::AtMost(1.3));
        }
    }
    figures.print();
}

fn label(what: &str, is_large: bool) -> String {
    format!("{what}; {}", if is_large { "large" } else { "small" })
}

/// A store with this many streams of this many events. The server generates the rows that appends
/// would leave, which is faster.
fn filled<'s>(server: &'s Server<'_>, (streams, events): (usize, usize)) -> Database<'s> {
    let database = server.database();
    drop(database.open());
    let total = streams * events;
    // Interleaved: each stream gets one event, then each its second, and so on.
    let together = TOGETHER * events;
    let (data, metadata) = (data(), metadata());
    database.execute(format!(
        "INSERT INTO annals.streams (id, name, category) OVERRIDING SYSTEM VALUE \
         SELECT n + 1, 'order-' || lpad(n::text, 8, '0'), 'order' \
         FROM generate_series(0, {streams} - 1) AS n; \
         SELECT setval(pg_get_serial_sequence('annals.streams', 'id'), {streams}); \
         SELECT setval('annals.positions', {total})"
    ));
    for from in (0..total).step_by(CHUNK) {
        let to = (from + CHUNK).min(total) - 1;
        database.execute(format!(
            "INSERT INTO annals.events (position, stream, version, recorded_at, id, flags, category, \
                 type, data, metadata) \
             SELECT n + 1, n / {together} * {TOGETHER} + n % {TOGETHER} + 1, \
                 n % {together} / {TOGETHER} + 1, now(), gen_random_uuid(), 3, 'order', \
                 'OrderChanged' || n / {TOGETHER} % 10, \
                 '{data}', '{metadata}' \
             FROM generate_series({from}, {to}) AS n"
        ));
    }
    database.execute("VACUUM ANALYZE");
    database.execute("CHECKPOINT");
    database
}
