//! The event store of annals in memory: the reference that the others are compared with, and a
//! store for tests. It keeps every rule of the contract, and nothing once its last handle is
//! dropped.
//!
//! ```
//! # use annals_core::{EventStore, EventStoreExt, ExpectedVersion, NewEvent, Result, StreamId};
//! # use annals_memory::MemoryStore;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
//! let store = MemoryStore::new();
//! let placed = NewEvent::json("OrderPlaced", &serde_json::json!({ "total": 40 }))?;
//! store.append_to("order-42", ExpectedVersion::NoStream, [placed]).await?;
//! assert_eq!(store.load_stream(&StreamId::new("order-42")?).await?.len(), 1);
//! # Ok(()) }
//! ```
//!
//! Cloning a [`MemoryStore`] gives another handle to the same events.

mod read;
mod state;
mod store;

pub use store::MemoryStore;
