//! What the suite needs to know of a store.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use annals_core::Store;
use async_trait::async_trait;

/// Anything that can go wrong outside the store.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Makes stores for the suite.
///
/// A *namespace* is what one case has for itself: a file, a schema, a table, a server. The suite
/// makes up its name (lower-case letters, digits and `_`, at most 30 bytes), opens it as often as
/// it likes, also at the same time, and cleans it up at the end.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The name that stands before every case, and in `ANNALS_REQUIRE`.
    fn name(&self) -> &str;

    /// Comes before a case opens its namespace: the harm that it will do there, most often none. A
    /// harness can give such a case a server of its own.
    async fn prepare(&self, _namespace: &str, _faults: &[Fault]) -> Result<(), BoxError> {
        Ok(())
    }

    /// Opens a namespace, which is created where it does not exist: each call gives another
    /// handle to the same store, as another process would have it.
    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError>;

    /// Removes a namespace. All handles have been dropped.
    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError>;

    /// Why no case can run, where the server that it takes cannot be reached: every case is then
    /// reported as ignored, for this reason, or as failed where `ANNALS_REQUIRE` names the harness.
    async fn unavailable(&self) -> Option<String> {
        None
    }

    /// Why this harm cannot be done here; the cases that need it are then ignored, for this reason.
    fn cannot_inject(&self, _fault: Fault) -> Option<String> {
        Some("the harness injects no faults".to_owned())
    }

    /// Does some harm to a namespace that [`Harness::cannot_inject`] did not exclude.
    async fn inject(&self, _namespace: &str, fault: Fault) -> Result<(), BoxError> {
        Err(format!("{fault:?} cannot be injected").into())
    }

    /// How long a case waits for something that has to happen soon before it fails.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// Harm that a case asks a [`Harness`] to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Cut every connection that handles have to the server. They may connect again.
    CutConnections,
    /// Stop the server without warning and start it again.
    RestartServer,
    /// Let the next append, or the next record of a lease, be written, and its answer be lost.
    LoseNextAnswer,
    /// Make the stored event at [`CORRUPT_EVENT`] unreadable.
    CorruptEvent,
    /// Make the store look as if a newer annals had created it.
    NewerSchema,
}

/// The stream and version of the event that [`Fault::CorruptEvent`] is about.
pub const CORRUPT_EVENT: (&str, u64) = ("order-1", 7);
