//! What people write on top of every event store.

mod cache;
mod codec;
mod context;
mod decider;
mod execute;
mod load;
pub mod observe;
#[cfg(feature = "personal")]
pub mod personal;
pub mod projection;
mod retry;
mod schema;
mod snapshot;
pub mod testing;
mod together;
#[cfg(feature = "opentelemetry")]
pub mod trace;
mod upcast;

pub use context::Context;
pub use decider::Decider;
pub use execute::{CommandHandler, ExecuteError, Executed};
pub use load::Loaded;
pub use retry::RetryPolicy;
pub use schema::{Decoded, Schema};
pub use snapshot::SnapshotPolicy;
pub use together::{AnyRejection, Step, Together, TogetherError};
pub use upcast::{Upcast, Upcasters};
