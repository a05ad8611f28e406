//! What a store can do.

use annals_core::{Capabilities, Recognition};

use crate::{
    config::{MartenOptions, Payloads},
    error::BACKEND,
    shape::Shape,
};

/// What a store with default options can do.
pub(crate) static DECLARED: Capabilities = declared();

const fn declared() -> Capabilities {
    let mut capabilities = Capabilities::new(BACKEND);
    capabilities.durable = true;
    capabilities.retry_recognition = Recognition::Guaranteed;
    (capabilities.list_streams, capabilities.exact_import) = (true, true);
    // One statement locks and judges all of them.
    capabilities.max_append_streams = 1_000;
    capabilities
}

/// What a store can do with these options, on such tables.
pub(crate) fn of(
    options: &MartenOptions,
    shape: &Shape,
    is_rich: bool,
    is_durable: bool,
) -> Capabilities {
    let mut capabilities = DECLARED.clone();
    let is_writable = !options.read_only;
    let can_remove = options.removal && is_writable;
    capabilities.durable = is_durable;
    capabilities.tombstone = can_remove;
    // A foreign key keeps events in the partition of their stream.
    (capabilities.truncate, capabilities.delete) =
        (can_remove && !shape.partitioned, can_remove && !shape.partitioned);
    (capabilities.snapshots, capabilities.checkpoints, capabilities.leases) =
        (is_writable, is_writable, is_writable);
    capabilities.global_order = !is_rich || options.gap_wait.is_some();
    capabilities.gap_wait = options.gap_wait;
    capabilities.exact_payloads = options.payloads == Payloads::Exact;
    capabilities
}
