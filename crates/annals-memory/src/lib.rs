//! The event store of annals in memory: the reference that the other stores are compared with, and
//! a store for tests. It keeps every rule of the contract, and loses all events when its last
//! handle is dropped.
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
//! A clone of a [`MemoryStore`] is another handle to the same events.
//!
//! The crate has three parts: the events and every change to them, the pages that reads and
//! subscriptions are made of, and the [`Adapter`](annals_core::adapter::Adapter) that maps the
//! traits of a store to these two.

mod pages;
mod state;
mod store;

pub use store::MemoryStore;
