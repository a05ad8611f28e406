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
//! An application that has a configuration or a client of the AWS SDK opens its store with
//! [`DynamoDbStore::with_sdk_config`] or [`DynamoDbStore::with_client`]. To try the store without
//! AWS: `docker compose up dynamodb`, and the URL `dynamodb://shop?endpoint=http://localhost:8000`.
//!
//! # What it costs
//!
//! | a small append | write units | requests |
//! |---|---|---|
//! | without an order over all streams, to a stream whose version is known | 1 | 1 |
//! | the same, if the version is not known | 1, and a read | 2 |
//! | with an order over all streams | 5, or about 3 if 32 appends share a slot | 2 or fewer |
//!
//! A store knows the version of a stream that it has read or written, and needs none for a stream
//! that is expected not to exist. A write unit is one kilobyte, and in a transaction half of one;
//! events are compressed. `benches/README.md` has all figures.
//!
//! An order over all streams is on unless [`DynamoDbOptions::order`] turns it off when the table is
//! first used. Without it, the store refuses to read all streams or to subscribe to more than one.
//!
//! # How it works
//!
//! * An append writes one item, at the key of its first version. That key is free if and only if
//!   the version before is the last of the stream. Removed events leave their keys behind.
//! * With an order, the same transaction writes a slot of a log. A counter gives out the numbers of
//!   the slots. A reader that finds a slot empty closes it, and its writer takes a later one. So no
//!   reader skips an event, no clock decides, and a writer that dies delays readers by
//!   [`DynamoDbOptions::close_after`] at most. `docs/adr/0005-dynamodb.md` has the reasoning, the
//!   limits of throughput, and the other designs.
//! * While DynamoDB throttles the partition of a slot, its writer gives the slot up after two tries, and
//!   takes one in another partition, at most three times. Readers wait up to eight times as long before
//!   they close a slot there.
//! * After throttling, conflicts between transactions, failures and lost answers, the store sends a
//!   request again for [`DynamoDbOptions::retry_for`], with random pauses. It recognises what an
//!   earlier try has written, so that nothing is written twice. If it cannot tell whether an append
//!   was written, [`Error::outcome_unknown`] says so.
//! * An append wakes the subscribers of the same store at once. They poll for appends of other
//!   processes every [`DynamoDbOptions::poll_interval`], and sooner while they find some.
//! * Appends of one process to one stream follow each other. Those that expect
//!   [`Any`](annals_core::ExpectedVersion::Any) version and wait at the same time are written as one
//!   item.
//! * All reads are strongly consistent, but these polls, what a subscription reads while it catches up,
//!   and what a writer reads to settle the log: that costs half as much, and may have events that were
//!   removed a moment ago. What such an answer leaves out is read again.
//!
//! # Limits
//!
//! An event has at most 380 KiB, an append at most 1,000 events and 3 MiB. An append to several
//! streams writes to at most 99, because a transaction has at most 100 items.
//!
//! # The table
//!
//! The store uses one table. Its partition key is the string `pk`, its sort key the number `sk`:
//!
//! | `pk` | `sk` | the item |
//! |---|---|---|
//! | `s:` and a stream id | version of its first event | the events of an append, or the marker of a deletion |
//! | | 0 | how far events of the stream were removed |
//! | | -1 | the snapshot of the stream |
//! | `l:` and a stripe | slot number | a slot of the log: its events, or where they are, or that it is closed |
//! | `c:` and a subscriber | 0 | a checkpoint |
//! | `h:` and a name | 0 | a lease |
//! | `unfinished` | a random number | a removal that is under way: its stream |
//! | `counter` | 0 | the last slot number that was allocated |
//! | `settled` | 0 | the slot up to which no slot can be written any more |
//! | `meta` | 0 | the layout and the id of the table, and the number of stripes |
//!
//! Other programs should not read the attributes of these items, and must not change them;
//! `src/item/attribute.rs` describes them.
//!
//! A missing table is created with on-demand billing, unless [`DynamoDbOptions::create`] is off. In
//! production, better create it from `schema/table.yaml` (CloudFormation) or `schema/table.tf`
//! (Terraform). Each store needs a table of its own.
//!
//! # Permissions
//!
//! `schema/policy.json` is the least policy for using a store. `schema/policy-create.json` has what
//! is needed beside it to create the table, or to make an empty table a store when it is first
//! opened (`Scan`). A program that only reads all streams needs to write, too: it may have to close
//! a slot.
//!
//! [`Error::outcome_unknown`]: annals_core::Error::outcome_unknown

mod append;
mod codec;
mod config;
mod error;
mod head;
mod hot;
mod item;
mod locks;
mod log;
mod manage;
mod notify;
mod opening;
mod read;
mod read_all;
mod records;
mod schema;
mod shared;
mod store;
mod subscribe;
mod table;
mod url;
mod visibility;
mod waiting;
mod writer;

/// The AWS SDK whose types are in this crate's interface, in the version that it uses.
pub use aws_sdk_dynamodb;
pub use config::{DynamoDbConfig, DynamoDbOptions};
pub use opening::Inspection;
pub use store::DynamoDbStore;
