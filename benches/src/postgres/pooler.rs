//! PostgreSQL behind PgBouncer, which pools transactions.

use annals_test_servers::postgres::PgBouncer;
use url::Url;

use crate::{
    latency::{Kind, Place, Stage, measure},
    load::{Load, To},
    plan::Plan,
    postgres::{Database, Server},
    report::{Figures, Target},
};

/// The default of PgBouncer: twice as many as a store has connections.
const SESSIONS: usize = 20;
const WRITERS: usize = 32;
/// The target for the appends behind the pooler, as a share of the direct ones.
const SHARE: Target = Target::AtLeast(0.8);
/// The target for the time from an append to a subscriber, in microseconds.
const ARRIVAL: Target = Target::AtMost(50_000.0);

pub(crate) fn run(plan: &Plan) {
    let Some(server) = Server::start(plan) else { return };
    let Some(bouncer) = server.bouncer("transaction", SESSIONS) else { return };
    appends(plan, &server, &bouncer);
    arrivals(plan, &server, &bouncer);
}

/// The database's URL behind the pooler.
fn behind(bouncer: &PgBouncer, database: &Database<'_>) -> Url {
    let mut url = Url::parse(&database.url).unwrap();
    url.set_ip_host(bouncer.addr().ip()).unwrap();
    url.set_port(Some(bouncer.addr().port())).unwrap();
    url
}

fn appends(plan: &Plan, server: &Server<'_>, bouncer: &PgBouncer) {
    let title = format!("PostgreSQL behind PgBouncer: appends of one event, {WRITERS} writers");
    let mut figures = Figures::new(title, "events a second");
    let [direct, sessions, pooled] =
        ["direct", "PgBouncer pools sessions", "PgBouncer pools transactions"];
    // What PgBouncer itself costs: the same requests, passed on by one more process.
    let Some(of_sessions) = server.bouncer("session", SESSIONS) else { return };
    for name in plan.turns(&[direct, sessions, pooled]) {
        let database = server.database();
        let store = match name {
            _ if name == direct => database.open(),
            _ if name == sessions => database.open_at(behind(&of_sessions, &database).into()),
            _ => database.open_at(behind(bouncer, &database).into()),
        };
        let load = Load { writers: WRITERS, events: 1, to: To::Own { first: 0 } };
        figures.add(name, plan.run(load.rate(store, plan.warm_up(), plan.slice)));
    }
    figures.ratio(pooled, direct, SHARE);
    figures.ratio(sessions, direct, Target::None);
    figures.print();
}

/// The subscriber is another process, which learns of commits by notifications. Direct, its store
/// listens on the same address; behind the pooler, at `listen_url`.
fn arrivals(plan: &Plan, server: &Server<'_>, bouncer: &PgBouncer) {
    let set = |pooled| {
        let database = server.database();
        let url = match pooled {
            true => {
                let mut url = behind(bouncer, &database);
                url.query_pairs_mut().append_pair("listen_url", &database.url);
                url.into()
            }
            false => database.url.clone(),
        };
        let address = Some(url.clone().into());
        let store = database.open_at(url);
        (Stage { store, address, place: Place::OtherProcess }, database)
    };
    let contenders = [("direct", false), ("behind PgBouncer", true)];
    let title = "PostgreSQL with `listen_url`: from append to subscriber in another process";
    for kind in [Kind::Singly, Kind::Loaded(WRITERS)] {
        measure(plan, title, &contenders, kind, ARRIVAL, set);
    }
}
