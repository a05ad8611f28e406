//! Other crates that store events in SQLite, beside annals-sqlite.
//!
//! They need another version of `libsqlite3-sys`, and a program can link only one. So each of them
//! is measured by another program, which this one starts.

use std::{ffi::OsStr, process::Command, sync::Arc};

use crate::{
    load::{Load, To},
    plan::Plan,
    report::{Figures, Target},
    sqlite::StoreFile,
};

/// The peers, by their names in that program.
const PEERS: [&str; 2] = ["eventcore-sqlite", "sqlite-es"];
const ANNALS: &str = "annals-sqlite";
const WRITERS: [usize; 3] = [1, 8, 64];

pub(crate) fn run(plan: &Plan) {
    let mut figures =
        Figures::new("SQLite: appends of 1 event by several crates", "events a second");
    let contenders: Vec<_> = [ANNALS].iter().chain(&PEERS).flat_map(each).collect();
    for (name, writers) in plan.turns(&contenders) {
        let rate = if name == ANNALS {
            Some(annals(plan, writers))
        } else {
            let place = plan.place();
            peer(plan, name, &writers.to_string(), place.path().join("events.db").as_os_str())
        };
        if let Some(rate) = rate {
            figures.add(label(name, writers), rate);
        }
    }
    for peer in PEERS {
        for writers in WRITERS {
            figures.ratio(&label(ANNALS, writers), &label(peer, writers), Target::None);
        }
    }
    figures.print();
}

fn each(name: &&'static str) -> [(&'static str, usize); 3] {
    WRITERS.map(|writers| (*name, writers))
}

fn label(name: &str, writers: usize) -> String {
    format!("{name}, {writers} {}", if writers == 1 { "writer" } else { "writers" })
}

fn annals(plan: &Plan, writers: usize) -> f64 {
    let file = StoreFile::empty(plan);
    let store = Arc::new(file.open(plan));
    let load = Load { writers, events: 1, to: To::Own { first: 0 } };
    plan.run(load.rate(store, plan.warm_up(), plan.slice))
}

/// Runs the peers' program. Its arguments are the peer's name, a number of writers or `read`, the
/// seconds of the warm-up and of the measurement, and a file or a URL. It prints events a second.
/// `None` if it fails.
pub(crate) fn peer(plan: &Plan, name: &str, what: &str, place: &OsStr) -> Option<f64> {
    let seconds = [plan.warm_up(), plan.slice].map(|time| time.as_secs_f64().to_string());
    let out = Command::new(plan.peers.as_deref().unwrap())
        .arg(name)
        .arg(what)
        .args(seconds)
        .arg(place)
        .output()
        .unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    match said.trim().parse() {
        Ok(rate) if out.status.success() => Some(rate),
        _ => {
            eprintln!("{name} failed:\n{}", String::from_utf8_lossy(&out.stderr));
            None
        }
    }
}
