//! How long an event takes from its append to a subscriber, on PostgreSQL.

use crate::{
    latency::{Kind, Place, Stage, measure},
    plan::Plan,
    postgres::Server,
    report::Target,
};

const PLACES: [(&str, Place); 3] = [
    ("same handle", Place::SameHandle),
    ("another handle", Place::OtherHandle),
    ("another process", Place::OtherProcess),
];

pub(crate) fn run(plan: &Plan) {
    let Some(server) = Server::start(plan) else { return };
    let set = |place| {
        let database = server.database();
        let address = Some(database.url.clone().into());
        (Stage { store: database.open(), address, place }, database)
    };
    let title = "PostgreSQL: from append to subscriber";
    measure(plan, title, &PLACES, Kind::Singly, Target::AtMost(15_000.0), set);
    measure(plan, title, &PLACES, Kind::Loaded(32), Target::AtMost(50_000.0), set);
}
