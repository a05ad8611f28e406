//! The event store of annals in a PostgreSQL database, version 14 or newer.
//!
//! ```no_run
//! # use annals_core::{EventStore, EventStoreExt, ExpectedVersion, NewEvent, Result, StreamId};
//! use annals_postgres::{PostgresConfig, PostgresStore};
//! # #[tokio::main] async fn main() -> Result<()> {
//! let config = PostgresConfig::from_url("postgres://shop:secret@db.example/shop?schema=orders")?;
//! let store = PostgresStore::open(config).await?;
//! let placed = NewEvent::json("OrderPlaced", &serde_json::json!({ "total": 40 }))?;
//! store.append_to("order-42", ExpectedVersion::NoStream, [placed]).await?;
//! assert_eq!(store.load_stream(&StreamId::new("order-42")?).await?.len(), 1);
//! # Ok(()) }
//! ```
//!
//! An application that has a `sqlx::PgPool` hands it over: [`PostgresStore::with_pool`]. A
//! projection into the same database writes its rows and its checkpoint in one transaction:
//! [`PostgresStore::advance_checkpoint`].
//!
//! # How it works
//!
//! * An append is one statement, and so one round trip: a function of the schema takes a lock on the
//!   stream, judges the expectation, takes positions, inserts. Appends that wait share a
//!   transaction, and its commit; each is still judged by itself.
//! * Transactions commit in another order than they took their positions. A reader that comes to a
//!   gap asks who could fill it yet, and goes on when those are gone: it skips no event, and nothing
//!   but an append to this store holds it up. `docs/adr/0003-order.md` has the reasoning, and what
//!   the other ways cost.
//! * Subscribers are woken at once by commits of their own process, and by `LISTEN` and `NOTIFY`
//!   by those of others. The notification follows the commit, is sent for many at once, and may be
//!   lost: then they look by themselves after [`PostgresOptions::poll_interval`].
//! * Reads are pages, one statement each: an open read keeps no connection and no transaction.
//! * When a connection is lost, an append is sent once more, since a retry is always recognised; a
//!   subscription goes on where it was for as long as it takes.
//! * An import is a statement for every few thousand events: it takes the locks and judges the
//!   streams as an append does, once for each stream, and may be repeated.
//!
//! # The schema
//!
//! Everything is in one schema, [`PostgresOptions::schema`]. `schema/0001.sql` of this crate is
//! what it is made of, and explains it. Payloads are `bytea`, since the JSON types change what they
//! are given; the view `readable_events` is for people:
//!
//! ```sql
//! SELECT stream, version, type, data->>'total' FROM annals.readable_events ORDER BY position;
//! ```
//!
//! # Privileges
//!
//! Who opens the store for the first time, or with a newer annals, must be allowed to create the
//! schema. After that a role needs no more than this to append, read and subscribe:
//!
//! ```sql
//! GRANT USAGE ON SCHEMA annals TO shop;
//! GRANT SELECT ON ALL TABLES IN SCHEMA annals TO shop;
//! GRANT INSERT ON annals.events, annals.streams TO shop;
//! GRANT USAGE ON SEQUENCE annals.positions TO shop;
//! GRANT INSERT, UPDATE, DELETE ON annals.checkpoints, annals.snapshots TO shop;
//! GRANT INSERT, UPDATE ON annals.leases TO shop;
//! ```
//!
//! To remove events, to append to a stream that was deleted, and to import into one that has no
//! events left, also:
//!
//! ```sql
//! GRANT UPDATE ON annals.streams TO shop;
//! GRANT DELETE ON annals.events TO shop;
//! ```
//!
//! # What it needs of the server
//!
//! * The encoding UTF8.
//! * The isolation level READ COMMITTED, which is PostgreSQL's default. Connections of the store's
//!   own are set to it; a pool that is handed over must have it.
//! * The primary: a standby takes no writes, and does not know which appends are under way.
//! * Connections: at most [`PostgresConfig::connections`], one of which listens.
//! * A connection that stays: a pooler between the store and the server pools sessions, as PgBouncer
//!   does with `pool_mode=session`. One that pools transactions is refused, as far as `open` can
//!   find it out.
//! * `jit = off` and `enable_seqscan = off` are better for all of its statements. Connections of the
//!   store's own are set to both.

mod append;
mod config;
mod connections;
mod error;
mod horizon;
mod import;
mod manage;
mod migrate;
mod notify;
mod pooler;
mod projection;
mod read;
mod resend;
mod rows;
mod sql;
mod store;
mod subscribe;
mod url;
mod writer;

pub use config::{PostgresConfig, PostgresOptions};
/// The driver, in the version whose types this crate's interface has.
pub use sqlx;
pub use store::PostgresStore;
