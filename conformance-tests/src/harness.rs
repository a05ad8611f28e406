//! What the suite needs to know of a store.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use annals_core::{Store, StreamId, Version};
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

    /// Does some harm to a namespace. A harness that cannot leaves the case ignored.
    async fn inject(&self, _namespace: &str, _fault: Fault) -> Result<(), Impossible> {
        Err(Impossible("the harness injects no faults".into()))
    }

    /// How long a case waits for something that has to happen soon before it fails.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// Harm that a case asks a [`Harness`] to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Cut every connection that handles have to the server. They may connect again.
    CutConnections,
    /// Stop the server without warning and start it again.
    RestartServer,
    /// Let the next append be written, and its answer be lost.
    LoseNextAnswer,
    /// Make one stored event unreadable.
    CorruptEvent(StreamId, Version),
    /// Make the store look as if a newer annals had created it.
    NewerSchema,
}

/// Why a fault cannot be injected.
#[derive(Clone, Debug)]
pub struct Impossible(pub String);
