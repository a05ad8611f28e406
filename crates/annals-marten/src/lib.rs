//! The event tables of Marten, the event store for .NET on PostgreSQL, as an event store of annals.
//!
//! A Rust program reads, subscribes to and appends to the events of a .NET program, which goes on
//! writing them with Marten 9. Both keep their guarantees.
//!
//! **Inline projections and inline snapshots of the .NET program do not run for what annals appends.**
//! Its `FetchForWriting` of such an aggregate then decides on the old state, without an error, and its
//! next append saves that state with the new version. A rebuild of the projection repairs the document.
//! Live aggregation, and async projections and snapshots, are right. So append with annals only to
//! streams whose aggregates are live or async in the .NET program.
//!
//! ```no_run
//! # use annals_core::{EventStoreExt, ExpectedVersion, NewEvent, Result};
//! use annals_marten::{MartenConfig, MartenStore};
//! # #[tokio::main] async fn main() -> Result<()> {
//! let config = MartenConfig::from_url("marten://shop:secret@db.example/shop?schema=events")?;
//! let store = MartenStore::open(config).await?;
//! let placed = NewEvent::json("order_placed", &serde_json::json!({ "Total": 40 }))?;
//! store.append_to("order-42", ExpectedVersion::Any, [placed]).await?;
//! # Ok(()) }
//! ```
//!
//! # How it works
//!
//! * Marten's tables are never altered. Snapshots, checkpoints, leases, the exact bytes of payloads and
//!   what was removed are kept in a schema of annals' own (`annals_` and the name of Marten's), whose functions
//!   are made for the tables that are found. `schema/` has both.
//! * An append is one statement. It locks the row of each stream, judges the expected versions, and then
//!   takes numbers. Marten takes its locks in another order. So nothing after the first row is waited for
//!   longer than 30 milliseconds; then the append is sent again. `Any` never conflicts. Numbers that a
//!   failed try took are filled with tombstones, as Marten does, since its daemon would wait for them.
//! * Whoever takes a number of the sequence holds a lock on it until his transaction ends. So a reader
//!   that finds a gap asks `pg_locks` which transactions may still fill it, and skips no event. Only
//!   transactions that write events make it wait.
//! * A commit of annals wakes subscribers at once, and also a daemon with
//!   `UseListenNotifyForEventAppends`. Commits of a .NET program are noticed within
//!   [`MartenOptions::look_interval`], or at once if it notifies.
//!
//! # What a .NET program reads
//!
//! * The event type is Marten's alias: `order_placed` for a class `OrderPlaced`. The program should
//!   register every type that annals writes (`Events.AddEventType<T>()`). Annals writes the .NET type that
//!   the alias has in the table or in [`MartenOptions::dotnet_types`]. If there is none, it warns and
//!   writes an empty one: the program's reads of that stream fail until it registers the alias.
//! * Data is JSON with members as the program's serializer wants them: by default as in C#, `Total` and
//!   not `total`. Binary data becomes `{"$binary": "…"}`.
//! * Metadata that is a JSON object goes into the columns for headers, correlation and causation, if the
//!   program has switched them on.
//! * A stream that annals truncates or deletes has archived events; one that it tombstones is archived,
//!   and the other way round: nobody appends to a stream that the .NET program has archived.
//!
//! # Ids
//!
//! With `StreamIdentity.AsString` the id is the key. With `AsGuid` it is the stream's type, `-` and the
//! Guid in lower case, or 32 hexadecimal digits for a stream without a type. With
//! [`MartenOptions::named`] a stream may have any other id, too: its Guid is made of the name.
//!
//! # What cannot be kept
//!
//! * A program in append mode `Rich`, the default up to Marten 8, takes numbers before its transaction
//!   begins, and nothing shows that. Then reads of all and subscriptions to more than one stream are
//!   refused, unless [`MartenOptions::gap_wait`] says how long the program may take to begin. A reader then
//!   waits for so long at each missing number, also once after the store was opened. If the program takes
//!   longer after all, subscriptions end with an error that names the event. In this mode two events of a
//!   stream may have positions in the other order than their versions.
//! * An event that a .NET program inserts at a chosen number (`BulkInsertEventStreamAsync` with
//!   `PreserveSourceSequence`) below those that readers have passed is not seen by them.
//! * With archived-stream partitioning, streams cannot be truncated or deleted.
//! * With [`Payloads::Jsonb`], bytes are not kept, only values.
//! * A .NET program may delete or change rows: `TombstoneStream`, compacting, masking. Annals then reads
//!   what is there.
//! * Filters on types, prefixes and categories have no index in Marten's tables: reads with them go over
//!   all events.
//! * Refused when opening: events partitioned by tenant, a sequence with a cache, row security that
//!   applies to the role, a standby.
//!
//! # Privileges
//!
//! Annals' own schema is made by whoever opens the store first: a role that may create a schema in the
//! database and read Marten's tables. Later ones, with Marten in the schema `events`, need no more than
//!
//! ```sql
//! GRANT USAGE ON SCHEMA events, annals_events TO shop;
//! GRANT SELECT, INSERT, UPDATE, DELETE ON events.mt_streams, events.mt_events TO shop;
//! GRANT USAGE, SELECT ON SEQUENCE events.mt_events_sequence, annals_events.trial TO shop;
//! GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA annals_events TO shop;
//! ```
//!
//! `DELETE` on Marten's tables is for [tombstones](annals_core::EventStore::tombstone) with archived-stream
//! partitioning. A table `mt_streams_identity` needs `INSERT`. When the .NET program has changed its
//! tables, the owner of annals' schema has to open the store once.
//!
//! With [`MartenOptions::read_only`] nothing is created, and a role needs
//!
//! ```sql
//! GRANT USAGE ON SCHEMA events, annals_events TO reports;
//! GRANT SELECT ON events.mt_streams, events.mt_events, events.mt_events_sequence TO reports;
//! GRANT SELECT ON ALL TABLES IN SCHEMA annals_events TO reports;
//! ```
//!
//! and nothing in `annals_events` if there is no such schema.
//!
//! # What has not been tested
//!
//! The tests run beside stand-ins for a .NET program, written after what was measured with Marten 9.58, and
//! on 36 databases that Marten 9.29 and 9.58 wrote. In ten minutes beside such writers a reader missed none
//! of 292,647 events in the quick modes, and none of 144,551 in mode `Rich`. `dotnet/` has a program that runs Marten itself beside
//! annals; see there whether it has been run. Databases of Marten 7 and 8 were not tried, nor those with
//! Newtonsoft's JSON.

mod append;
mod batch;
mod capabilities;
mod config;
mod database;
mod digest;
mod dotnet;
mod error;
mod import;
mod json;
mod manage;
mod open;
mod read;
mod read_all;
mod shape;
mod sql;
mod store;
mod words;

pub use config::{AppendMode, Create, MartenConfig, MartenOptions, Payloads, StreamType};
/// The driver, in the version whose types are part of this crate's interface.
pub use sqlx;
pub use store::MartenStore;
