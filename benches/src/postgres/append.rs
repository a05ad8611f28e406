//! Appends to PostgreSQL, beside `pgbench` and the bare driver, which only insert rows.

use crate::{
    load::{Load, To},
    plan::Plan,
    postgres::{
        Database, Server,
        bare::{Sqlx, TABLE},
        pgbench::Pgbench,
    },
    report::{Figures, Target},
};

/// A kind of writer. `Pgbench` and `Sqlx` insert into the table [`TABLE`], without a check of the
/// expected version.
#[derive(Clone, Copy)]
enum Contender {
    Pgbench(usize),
    Sqlx,
    Annals(usize),
}

impl Contender {
    fn name(self) -> String {
        match self {
            Self::Pgbench(1) => "pgbench, 1 client".to_owned(),
            Self::Pgbench(clients) => format!("pgbench, {clients} clients"),
            Self::Sqlx => "sqlx, 1 connection".to_owned(),
            Self::Annals(1) => "1 writer".to_owned(),
            Self::Annals(writers) => format!("{writers} writers"),
        }
    }
}

pub(crate) fn run(plan: &Plan) {
    let Some(server) = Server::start(plan) else { return };
    measure(plan, &server, 1, &[1, 8, 32, 128]);
    measure(plan, &server, 10, &[1, 8, 32]);
}

fn measure(plan: &Plan, server: &Server<'_>, events: usize, writers: &[usize]) {
    let pgbench = Pgbench::find(server);
    let mut contenders = Vec::new();
    for writers in writers {
        contenders.extend(pgbench.as_ref().map(|_| Contender::Pgbench(*writers)));
        contenders.push(Contender::Annals(*writers));
    }
    if events == 1 {
        contenders.push(Contender::Sqlx);
    }
    let plural = if events == 1 { "event" } else { "events" };
    let title = format!("PostgreSQL: appends of {events} {plural}");
    let mut figures = Figures::new(title, "events a second");
    for contender in plan.turns(&contenders) {
        let database = server.database();
        let rate = match (contender, &pgbench) {
            (Contender::Annals(writers), _) => annals(plan, &database, writers, events),
            (Contender::Pgbench(clients), Some(pgbench)) => {
                pgbench.rate(plan, &database, clients, events)
            }
            _ => {
                database.execute(TABLE);
                plan.run(Sqlx::connect(database.url.clone())).insert_rate(plan)
            }
        };
        figures.add(contender.name(), rate);
    }
    let mut ratio = |of: Contender, to: Contender, least: f64| {
        // The targets are for appends of one event.
        let held = events == 1 && least > 0.0;
        let target = if held { Target::AtLeast(least) } else { Target::None };
        figures.ratio(&of.name(), &to.name(), target);
    };
    ratio(Contender::Annals(1), Contender::Pgbench(1), 0.85);
    ratio(Contender::Annals(1), Contender::Sqlx, 0.0);
    ratio(Contender::Annals(8), Contender::Pgbench(8), 0.0);
    ratio(Contender::Annals(32), Contender::Pgbench(32), 1.5);
    ratio(Contender::Annals(128), Contender::Pgbench(32), 2.2);
    ratio(Contender::Annals(128), Contender::Pgbench(128), 0.0);
    figures.print();
}

/// Measures appends to an empty store, in events a second.
pub(crate) fn annals(plan: &Plan, database: &Database<'_>, writers: usize, events: usize) -> f64 {
    let load = Load { writers, events, to: To::Own { first: 0 } };
    plan.run(load.rate(database.open(), plan.warm_up(), plan.slice))
}
