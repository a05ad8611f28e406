//! What a store has to provide to be tested by the suite.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use annals_core::Store;
use async_trait::async_trait;

/// An error of a harness, of any type.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Opens stores for the suite.
///
/// Each case has a *namespace* that no other case uses: a file, a schema, a table, a server. The
/// suite chooses its name (lower-case letters, digits and `_`, at most 30 bytes), opens it any
/// number of times, also concurrently, and cleans it up at the end.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The name of the store: the first part of each case's name, and its name in `ANNALS_REQUIRE`.
    fn name(&self) -> &str;

    /// Called before a case opens its namespace, with the faults that the case will inject there;
    /// for most cases there are none. A harness can give a case with faults a server of its own.
    async fn prepare(&self, _namespace: &str, _faults: &[Fault]) -> Result<(), BoxError> {
        Ok(())
    }

    /// Opens a namespace, and creates it if it does not exist. Each call gives another handle to
    /// the same store, as if another process had opened it.
    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError>;

    /// Removes a namespace. The case has dropped all its handles by then.
    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError>;

    /// Says why no case can run, if the server cannot be reached. Every case is then reported as
    /// ignored with this reason, or as failed if `ANNALS_REQUIRE` names this harness.
    async fn unavailable(&self) -> Option<String> {
        None
    }

    /// Says why this fault cannot be injected. The cases that need it are then ignored with this
    /// reason.
    fn cannot_inject(&self, _fault: Fault) -> Option<String> {
        Some("the harness injects no faults".to_owned())
    }

    /// Injects a fault into a namespace. The suite only asks for faults that
    /// [`Harness::cannot_inject`] does not exclude.
    async fn inject(&self, _namespace: &str, fault: Fault) -> Result<(), BoxError> {
        Err(format!("{fault:?} cannot be injected").into())
    }

    /// Cases that are not run, by their full names, each with the reason: what is known and not mended
    /// yet. They are reported as ignored with this reason. A name that no case has is a failure.
    fn skips(&self) -> &[(&str, &str)] {
        &[]
    }

    /// The environment variables with which this test program opens the same namespaces when it is
    /// started once more, in another process. `None` if another process cannot reach the stores: then
    /// the case in which a process dies is ignored. The program has to call [`run`](crate::run) or
    /// [`main`](crate::main) with a harness of the same name before it does anything else.
    async fn another_process(&self) -> Option<Vec<(String, String)>> {
        None
    }

    /// How many random programs to run that are the same in every run, each with at most 40 calls and
    /// in a namespace of its own. A thousand programs take seconds on a store that opens a namespace
    /// in a few milliseconds; a harness of a slower store says less.
    fn random_programs(&self) -> u32 {
        1_000
    }

    /// How many histories to record and judge in a run, over all cases of the theme `history`. Each
    /// has some 30 calls of several tasks, and 100 share a namespace. A store in memory runs 10,000 in
    /// ten seconds.
    fn histories(&self) -> u32 {
        200
    }

    /// Says why a truncation, deletion or tombstone of this store is not one step beside other calls, if
    /// it is not. Histories have no removals then, and the case about them is ignored with this reason.
    fn removes_in_steps(&self) -> Option<String> {
        None
    }

    /// How long a case waits for something that has to happen soon, before the case fails. A whole case
    /// may take four times as long. Cases run at the same time, and some of them are busy.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// A fault that a case asks its [`Harness`] to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Cut every connection between the handles and the server. The handles may connect again.
    CutConnections,
    /// Kill the server and start it again.
    RestartServer,
    /// Let the server execute the next append, or the next swap of a lease, and lose its answer.
    LoseNextAnswer,
    /// Make the stored event at [`CORRUPT_EVENT`] undecodable.
    CorruptEvent,
    /// Make the store look as if a newer annals had created it.
    NewerSchema,
}

/// The stream and version of the event that [`Fault::CorruptEvent`] is about.
pub const CORRUPT_EVENT: (&str, u64) = ("order-1", 7);
