//! Persistent subscriptions.

mod common;
mod consume;
mod create;
mod manage;
mod park;

use crate::play::List;

pub(crate) fn add(list: &mut List) {
    create::create(list);
    manage::manage(list);
    consume::consuming(list);
    park::parking(list);
    consume::strategies(list);
    consume::ends(list);
}

/// What everybody else's groups hear, too.
pub(crate) fn add_last(list: &mut List) {
    manage::add_last(list);
}
