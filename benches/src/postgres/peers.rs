//! Other crates that store events in PostgreSQL, beside annals-postgres. Each of them is measured
//! by another program, as those on SQLite are.

use annals_benches::Shape;

use crate::{
    peers::peer,
    plan::Plan,
    postgres::{
        Server,
        append::annals,
        read::{filled, read_streams},
    },
    report::{Figures, Target},
};

/// The peers, by their names in that program.
const PEERS: [&str; 3] = ["postgres-es", "disintegrate-postgres", "eventcore-postgres"];
const ANNALS: &str = "annals-postgres";
const WRITERS: [usize; 3] = [1, 8, 32];
/// The streams to read: the peers' program reads streams of this shape, too.
const READ: Shape = Shape { streams: 10, events: 1_000, together: 1 };

pub(crate) fn run(plan: &Plan) {
    let Some(server) = Server::start(plan) else { return };
    append(plan, &server);
    read(plan, &server);
}

fn append(plan: &Plan, server: &Server<'_>) {
    let title = "PostgreSQL: appends of 1 event by several crates";
    let mut figures = Figures::new(title, "events a second");
    let names = || [ANNALS].into_iter().chain(PEERS);
    let contenders: Vec<_> = names().flat_map(|name| WRITERS.map(|n| (name, n))).collect();
    for (name, writers) in plan.turns(&contenders) {
        let database = server.database();
        let rate = if name == ANNALS {
            Some(annals(plan, &database, writers, 1))
        } else {
            peer(plan, name, &writers.to_string(), database.url.as_ref())
        };
        if let Some(rate) = rate {
            figures.add(label(name, writers), rate);
        }
    }
    for peer in PEERS {
        for writers in WRITERS {
            let target = if writers == 32 { Target::AtLeast(3.0) } else { Target::None };
            figures.ratio(&label(ANNALS, writers), &label(peer, writers), target);
        }
    }
    figures.print();
}

fn read(plan: &Plan, server: &Server<'_>) {
    let title = "PostgreSQL: reads of streams of 1,000 events by several crates";
    let mut figures = Figures::new(title, "events a second");
    let contenders: Vec<_> = [ANNALS].into_iter().chain(PEERS).collect();
    for name in plan.turns(&contenders) {
        let database = server.database();
        let rate = if name == ANNALS {
            let (store, ids) = filled(plan, &database, READ);
            Some(read_streams(plan, store, ids))
        } else {
            peer(plan, name, "read", database.url.as_ref())
        };
        if let Some(rate) = rate {
            figures.add(name, rate);
        }
    }
    for peer in PEERS {
        figures.ratio(ANNALS, peer, Target::AtLeast(1.0));
    }
    figures.print();
}

fn label(name: &str, writers: usize) -> String {
    format!("{name}, {writers} {}", if writers == 1 { "writer" } else { "writers" })
}
