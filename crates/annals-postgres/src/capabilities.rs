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
    (capabilities.list_streams, capabilities.exact_import) = (true, true);
    capabilities
}
