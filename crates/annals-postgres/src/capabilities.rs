//! What a store can do.

use annals_core::{Capabilities, Recognition};

use crate::error::BACKEND;

/// What a store can do.
pub(crate) static CAPABILITIES: Capabilities = capabilities(true);
/// What it can do if the server acknowledges commits before they are on its disk.
pub(crate) static NOT_DURABLE: Capabilities = capabilities(false);

const fn capabilities(is_durable: bool) -> Capabilities {
    let mut capabilities = Capabilities::new(BACKEND);
    capabilities.durable = is_durable;
    capabilities.retry_recognition = Recognition::Guaranteed;
    // Each stream takes a lock, and with its default settings the server has 6,400 locks for all
    // sessions together.
    capabilities.max_append_streams = 1_000;
    (capabilities.list_streams, capabilities.exact_import) = (true, true);
    capabilities
}
