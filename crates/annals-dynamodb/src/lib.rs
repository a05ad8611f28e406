//! The event store of annals in one DynamoDB table, with nothing beside it.
//!
//! ```no_run
//! # use annals_core::{EventStore, EventStoreExt, ExpectedVersion, NewEvent, Result, StreamId};
//! use annals_dynamodb::{DynamoDbConfig, DynamoDbStore};
//! # #[tokio::main] async fn main() -> Result<()> {
//! let config = DynamoDbConfig::from_url("dynamodb://shop?region=eu-west-1")?;
//! let store = DynamoDbStore::open(config).await?;
//! let placed = NewEvent::json("OrderPlaced", &serde_json::json!({ "total": 40 }))?;
//! store.append_to("order-42", ExpectedVersion::NoStream, [placed]).await?;
//! assert_eq!(store.load_stream(&StreamId::new("order-42")?).await?.len(), 1);
//! # Ok(()) }
//! ```
//!
//! An application that has a configuration or a client of the SDK hands it over:
//! [`DynamoDbStore::with_sdk_config`], [`DynamoDbStore::with_client`]. To try it on this machine:
//! `docker compose up dynamodb`, and `dynamodb://shop?endpoint=http://localhost:8000`.
//!
//! # What it costs
//!
//! | a small append | write units | requests |
//! |---|---|---|
//! | without an order over all streams, the version known | 1 | 1 |
//! | the same, the version not known | 1, and a read | 2 |
//! | with the order | 5, about 3 where 32 share a slot | 2, or fewer |
//!
//! The version is known to a store that has read or written it, and where a stream is expected not
//! to exist. Units are kilobytes, twice that in a transaction; events are compressed.
//! `benches/README.md` has all figures. An order over all streams is on unless
//! [`DynamoDbOptions::order`] turns it off when the table is first used; then reading all and
//! subscriptions to more than one stream are refused.
//!
//! # How it works
//!
//! * An append is one item, at the key of its first version, which is free only after the last
//!   version of the stream. What was removed keeps its key.
//! * With the order, the same transaction writes a slot of a log, whose number a counter has given.
//!   A reader that finds a slot empty closes it, so that its writer has to take a later one: nothing
//!   is skipped, no clock is asked, and a dead writer holds nobody up for longer than
//!   [`DynamoDbOptions::close_after`]. `docs/adr/0005-dynamodb.md` has the reasoning, the ceiling,
//!   and the other ways.
//! * Throttling, conflicts between transactions, failures and lost answers are tried again with full
//!   jitter for [`DynamoDbOptions::retry_for`]. What was written already is recognised, so that
//!   nothing is written twice; where that remains open, [`Error::outcome_unknown`] says so.
//! * Subscribers are woken at once by appends of the same store, and look for those of others every
//!   [`DynamoDbOptions::poll_interval`], more often while there are some.
//! * All reads are consistent, except that look.
//!
//! # Limits
//!
//! An event has at most 380 KiB, an append 1,000 events and 3 MiB; one to several streams at most 99
//! of them, since a transaction has at most 100 items.
//!
//! # The table
//!
//! One table, its partition key the string `pk`, its sort key the number `sk`:
//!
//! | `pk` | `sk` | |
//! |---|---|---|
//! | `s:` and a stream | version of the first event | the events of an append; or `k`, the marker of a deletion |
//! | | 0 | what was removed: `f` first version left, `c` how far it was cleaned |
//! | | -1 | the snapshot |
//! | `l:` and a stripe | slot | what was written under this number; or `k`, void |
//! | `c:` and a subscriber | 0 | a checkpoint |
//! | `h:` and the name of a lease | 0 | who holds it |
//! | `counter`, `settled` | 0 | the last slot given out; up to where none can be written |
//! | `meta` | 0 | the layout, and the number of stripes |
//!
//! It is created where it is missing, with on-demand billing, unless [`DynamoDbOptions::create`] says
//! otherwise. In production it rather comes from `schema/table.yaml` (CloudFormation) or
//! `schema/table.tf` (Terraform). Several stores take several tables.
//!
//! # Permissions
//!
//! `schema/policy.json` is the least policy to use a store, `schema/policy-create.json` what it takes
//! beyond that to create the table, or to make an empty one a store when it is first opened (`Scan`).
//! Who only reads over all streams writes, too: it may have to close a slot.
//!
//! [`Error::outcome_unknown`]: annals_core::Error::outcome_unknown

mod append;
mod codec;
mod commit;
mod config;
mod error;
mod head;
mod inspect;
mod item;
mod keep;
mod locks;
mod log;
mod manage;
mod notify;
mod open;
mod read;
mod read_all;
mod store;
mod subscribe;
mod table;
mod url;

/// The driver, in the version whose types this crate's interface has.
pub use aws_sdk_dynamodb;
pub use config::{DynamoDbConfig, DynamoDbOptions};
pub use inspect::Inspection;
pub use store::DynamoDbStore;
