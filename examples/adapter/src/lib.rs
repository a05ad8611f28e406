//! An event store in a [`redb`] file: a complete adapter, to read and to copy from.
//!
//! [`RedbStore`] implements [`annals_core::adapter::Adapter`], and so has every trait of a store. Each
//! method runs one transaction of `redb`, on a thread where it may block. Write transactions run one
//! after the other, so it is enough that each judges before it writes.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use annals_core::{EventStoreExt, ExpectedVersion, NewEvent};
//! use annals_redb::RedbStore;
//!
//! # let dir = tempfile::tempdir()?;
//! # std::env::set_current_dir(&dir)?;
//! let store = RedbStore::open("shop.redb").await?;
//! let placed = NewEvent::json("OrderPlaced", "a book")?;
//! store.append_to("order-42", ExpectedVersion::NoStream, [placed]).await?;
//! # Ok(()) }
//! ```

mod read;
mod store;
mod tables;
mod write;

pub use store::RedbStore;
