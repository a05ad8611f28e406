//! What is played.

mod all;
mod appends;
mod batches;
mod groups;
mod metadata;
mod misc;
mod reads;
mod removals;
mod subscriptions;

use crate::play::List;

pub(crate) fn list() -> List {
    let mut list = List::default();
    misc::add(&mut list);
    appends::add(&mut list);
    batches::add(&mut list);
    reads::add(&mut list);
    all::add(&mut list);
    subscriptions::add(&mut list);
    removals::add(&mut list);
    metadata::add(&mut list);
    groups::add(&mut list);
    misc::add_last(&mut list);
    list
}

/// The part of a scenario's name before the first slash.
pub(crate) fn theme(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

/// The themes of all scenarios.
pub(crate) fn themes() -> Vec<String> {
    let mut themes: Vec<_> = list().0.iter().map(|one| theme(&one.name).to_owned()).collect();
    themes.sort();
    themes.dedup();
    themes
}
