//! The runtime of the caller.

use annals_core::{Error, ErrorKind, Result};
use tokio::runtime::Handle;

/// The Tokio runtime in which the caller polls a call of the store.
pub(crate) fn current() -> Result<Handle> {
    Handle::try_current().map_err(|e| {
        let message = "the call was polled outside a Tokio runtime, which it needs";
        Error::new(ErrorKind::InvalidInput, message).with_source(e)
    })
}

/// Runs work that may block on a thread of the runtime that is made for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    current()?.spawn_blocking(work).await.map_err(|e| {
        let message = "the Tokio runtime shut down before the call had ended";
        Error::new(ErrorKind::Unavailable, message).with_source(e)
    })?
}
