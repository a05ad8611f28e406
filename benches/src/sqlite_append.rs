//! Appends to SQLite, beside loops that only insert the rows.

use std::sync::Arc;

use crate::{
    bare::Loop,
    load::{Load, To},
    plan::Plan,
    report::{Figures, Target},
    sqlite::StoreFile,
};

/// The most writers of annals, and the most appends of a bare loop, that share a transaction.
const MANY: usize = 64;

#[derive(Clone, Copy)]
enum Contender {
    Bare(Loop),
    Annals(Load),
}

pub(crate) fn run(plan: &Plan) {
    for events in [1, 10] {
        measure(plan, events);
    }
}

fn measure(plan: &Plan, events: usize) {
    let bare = |appends: usize| {
        let name = format!("bare loop of {}-row transactions", appends * events);
        (name, Contender::Bare(Loop { appends: appends as i64, events: events as i64 }))
    };
    let writers = |writers: usize| {
        let name = if writers == 1 { "1 writer".to_owned() } else { format!("{writers} writers") };
        (name, Contender::Annals(Load { writers, events, to: To::Own { first: 0 } }))
    };
    let hot = Contender::Annals(Load { writers: MANY, events, to: To::Hot });
    let contenders = [
        bare(1),
        bare(MANY),
        writers(1),
        writers(8),
        writers(MANY),
        (format!("{MANY} writers, one stream"), hot),
    ];
    let plural = if events == 1 { "event" } else { "events" };
    let title = format!("SQLite: appends of {events} {plural}");
    let mut figures = Figures::new(title, "events a second");
    for (name, contender) in plan.turns(&contenders.each_ref()).into_iter().cloned() {
        let file = StoreFile::empty(plan);
        let rate = match contender {
            Contender::Bare(bare) => bare.rate(plan, &file.path()),
            Contender::Annals(load) => {
                let store = Arc::new(file.open(plan));
                plan.run(load.rate(store, plan.warm_up(), plan.slice))
            }
        };
        figures.add(name, rate);
    }
    let [(one, _), (limit, _), (alone, _), _, (many, _), (hot, _)] = &contenders;
    // The targets are for appends of one event.
    let target = |least| if events == 1 { Target::AtLeast(least) } else { Target::None };
    figures.ratio(many, limit, target(0.7));
    figures.ratio(many, one, target(5.0));
    figures.ratio(alone, one, target(0.85));
    figures.ratio(hot, limit, Target::None);
    figures.print();
}
