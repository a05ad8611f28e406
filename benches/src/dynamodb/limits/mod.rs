//! How the store's throughput grows with the number of writers under the limits that DynamoDB
//! documents. A model of the service and of the store runs in virtual time: nothing is sent,
//! nothing waits, and the result is the same in every run.

#![allow(clippy::indexing_slicing, reason = "a model with a wrong index has nothing to report")]

mod model;
mod reader;
mod service;

use std::thread;

use self::model::{Figures, Load, Model};
use super::table::number;
use crate::plan::Plan;

const PROCESSES: [usize; 5] = [1, 4, 16, 64, 256];
const APPENDERS: [usize; 2] = [1, 64];
const STRIPES: [usize; 3] = [1, 4, 16];
/// The store's default.
const WRITERS: usize = 4;
/// An event of 200 B that the log holds whole; and one that is too long for the log, which then
/// holds only the event's size and type.
const HERE: Event = Event { in_log: 300, kilobytes: 1 };
const THERE: Event = Event { in_log: 80, kilobytes: 1 };

/// An append of one event.
#[derive(Clone, Copy)]
struct Event {
    /// The bytes of the event's entry in the log.
    in_log: usize,
    /// The kilobytes that DynamoDB charges for the event's own item.
    kilobytes: usize,
}

pub(super) fn run(plan: &Plan) {
    let seconds = if plan.quick { 3 } else { 20 };
    let load = |processes, appenders, stripes| Load {
        processes,
        appenders,
        stripes,
        writers: WRITERS,
        event: HERE,
        reader: true,
        strict: false,
        seconds,
    };
    for stripes in STRIPES.map(Some).into_iter().chain([None]) {
        let title = match stripes {
            Some(1) => "order on, 1 stripe".to_owned(),
            Some(stripes) => format!("order on, {stripes} stripes"),
            None => "order off".to_owned(),
        };
        let loads = APPENDERS.iter().flat_map(|appenders| {
            PROCESSES.map(|processes| (String::new(), load(processes, *appenders, stripes)))
        });
        print(&title, loads.collect());
    }
    let full = load(64, 64, Some(16));
    let few = load(64, 64, Some(4));
    let but = |name: &str, mut load: Load, change: fn(&mut Load)| {
        change(&mut load);
        (name.to_owned(), load)
    };
    let loads = vec![
        but("4 stripes", few, |_| {}),
        but("4 stripes, events too long for the log", few, |load| load.event = THERE),
        but("4 stripes, strict limits", few, |load| load.strict = true),
        but("4 stripes, nobody reads", few, |load| load.reader = false),
        but("4 stripes, 1 writer", few, |load| load.writers = 1),
        but("16 stripes", full, |_| {}),
        but("16 stripes, 1 writer", full, |load| load.writers = 1),
        but("16 stripes, 64 writers", full, |load| load.writers = 64),
        but("16 stripes, 4 times as many appenders", full, |load| load.appenders *= 4),
        but("64 stripes", full, |load| load.stripes = Some(64)),
    ];
    print("order on, one thing changed at a time", loads);
}

fn print(title: &str, loads: Vec<(String, Load)>) {
    println!("\n### Model: {title}\n");
    println!(
        "| | processes | appenders each | appends a second | slots a second | appends per slot \
         | write units per append | requests throttled | p50, ms | p99, ms | reader p50, ms | reader p99, ms \
         | slots closed, per 1,000 \
         | appends failed, per 1,000 |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for some in loads.chunks(cores) {
        let all: Vec<(&(String, Load), Figures)> = thread::scope(|scope| {
            let threads: Vec<_> = some
                .iter()
                .map(|named| (named, scope.spawn(|| Model::new(named.1).run())))
                .collect();
            threads.into_iter().map(|(named, thread)| (named, thread.join().unwrap())).collect()
        });
        for ((name, load), figures) in all {
            line(name, load, &figures);
        }
    }
}

fn line(name: &str, load: &Load, figures: &Figures) {
    let ordered = |value: f64| match load.stripes {
        Some(_) => rounded(value),
        None => "–".to_owned(),
    };
    let read = |value: f64| match load.reader {
        true => ordered(value),
        false => "–".to_owned(),
    };
    println!(
        "| {name} | {} | {} | {} | {} | {} | {:.2} | {:.0} % | {} | {} | {} | {} | {} | {} |",
        load.processes,
        load.appenders,
        rounded(figures.a_second(figures.appends)),
        ordered(figures.a_second(figures.slots)),
        ordered(figures.appends as f64 / figures.slots as f64),
        figures.units_per_append(),
        figures.throttled_share() * 100.0,
        rounded(figures.latency(0.5)),
        rounded(figures.latency(0.99)),
        read(figures.delay(0.5)),
        read(figures.delay(0.99)),
        read(figures.closed_slots()),
        rounded(figures.failed_share() * 1_000.0),
    );
}

/// Rounds to three digits: the model is not more precise.
fn rounded(value: f64) -> String {
    match value {
        v if v >= 100.0 => {
            let unit = 10f64.powf(v.log10().floor() - 2.0);
            number((v / unit).round() * unit)
        }
        v if v >= 10.0 || v == 0.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}
