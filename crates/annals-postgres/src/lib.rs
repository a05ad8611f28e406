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
//! An application that has a `sqlx::PgPool` opens the store on it: [`PostgresStore::with_pool`]. It can
//! write its own rows and the events in one transaction: [`PostgresStore::append_in`]. With
//! the feature `projection`, `PostgresSink` lets a projection write its rows and its checkpoint in
//! one transaction, in the same database or another.
//!
//! # How it works
//!
//! * An append is one statement, and so one round trip: a function of the schema takes a lock on
//!   the stream, judges the expected version, takes positions and inserts the events. Appends that
//!   wait share a transaction and its commit, but each is judged by itself.
//! * Transactions do not commit in the order in which they took their positions. So a reader that
//!   finds a gap between positions asks the server which appends may still fill it, and waits until
//!   these have ended. It skips no event, and only appends to the same store make it wait.
//!   `docs/adr/0003-order.md` has the reasons, and what other ways cost.
//! * A commit wakes the subscribers in the same process directly, and those in other processes by
//!   `LISTEN` and `NOTIFY`. The notification is sent after the commit, one for many commits. If one
//!   is lost, subscribers find the events after [`PostgresOptions::poll_interval`].
//! * Each page of a read is one statement, so an open read keeps no connection and no transaction.
//! * After a lost connection an append is sent once more, since the store recognises a retry, and a
//!   subscription goes on at its last event as soon as the server can be reached.
//! * An import writes a few thousand events in one statement. It locks and judges each stream once,
//!   as an append does, and can be repeated.
//!
//! # The schema
//!
//! A store has one schema, [`PostgresOptions::schema`]. The file `schema/0001.sql` of this crate
//! creates and explains it. Payloads are `bytea`, since the JSON types would change them; the view
//! `readable_events` shows them to people:
//!
//! ```sql
//! SELECT stream, version, type, data->>'total' FROM annals.readable_events ORDER BY position;
//! ```
//!
//! # Privileges
//!
//! The role that opens the store for the first time, or with a newer annals, must be allowed to
//! create the schema. Later a role needs these privileges to append, read and subscribe:
//!
//! ```sql
//! GRANT USAGE ON SCHEMA annals TO shop;
//! GRANT SELECT ON ALL TABLES IN SCHEMA annals TO shop;
//! GRANT INSERT ON annals.events, annals.streams TO shop;
//! GRANT USAGE ON ALL SEQUENCES IN SCHEMA annals TO shop;
//! GRANT INSERT, UPDATE, DELETE ON annals.checkpoints, annals.snapshots TO shop;
//! GRANT INSERT, UPDATE ON annals.leases TO shop;
//! ```
//!
//! It needs these too to remove events, to append to a deleted stream, and to import into a stream
//! without events:
//!
//! ```sql
//! GRANT UPDATE ON annals.streams TO shop;
//! GRANT DELETE ON annals.events TO shop;
//! GRANT UPDATE (removed) ON annals.store TO shop;
//! ```
//!
//! # What the server must be like
//!
//! * Its encoding is UTF8.
//! * Its isolation level is READ COMMITTED, PostgreSQL's default. The store sets it on its own
//!   connections; an application's pool must have it.
//! * It is the primary. A standby takes no writes, and does not know which appends are under way.
//!   Opening a store on a standby fails. If a connection that is made later leads to a standby, the
//!   call fails with `Unavailable`, and a subscription waits for the primary.
//! * It never gives a position twice. If a restore has left the sequence of positions behind the
//!   events, opening the store fails and says how to mend it. If another server takes over, which may
//!   lack the last commits, the store passes over many positions. Reads and subscriptions that have
//!   seen an event that was lost end with an error, however late they come.
//! * It is PostgreSQL. Servers that only speak its protocol, such as YugabyteDB and CockroachDB, are
//!   refused by their name, or because their sessions do not see each other's locks at once, or
//!   because their sequences give each session a range of numbers.
//! * It allows [`PostgresConfig::connections`] connections, one of which listens, and two more while a
//!   store is opened.
//! * `jit = off` and `enable_seqscan = off` make all statements of a store faster. The store sets
//!   both on its own connections, and a `statement_timeout` a little below
//!   [`PostgresOptions::request_timeout`]. The connections of an application's pool are left as they
//!   are: set `statement_timeout` on them too.
//!
//! # Connection poolers
//!
//! Behind a pooler that pools sessions, as PgBouncer does with `pool_mode=session`, nothing changes. A
//! pooler that pools transactions, as PgBouncer does with `pool_mode=transaction` and as the URLs of
//! many hosted databases do, is found out when the store is opened. Then:
//!
//! * Each statement is sent in a transaction of its own, with its settings, and leaves nothing behind
//!   in the session. That takes one round trip, as without a pooler, for a statement whose values are
//!   short: they are literals in its text. A page of a read, or an append of more than 256 KiB, takes
//!   four.
//! * Nobody listens for notifications, which would go to another client. Events of other processes come
//!   after [`PostgresOptions::poll_interval`] at most. Give [`PostgresConfig::listen`] (`listen_url` in
//!   a URL) the address of the server itself, and they come at once.
//! * A pool of the application has to work behind the pooler too: its connection options must not have
//!   `extra_float_digits`. `PostgresSink` prepares statements on it, which PgBouncer keeps with
//!   `max_prepared_statements` from version 1.21 on. Logs of statements contain the data of events then:
//!   turn off those of sqlx (`log_slow_statements`, `log_statements`) if that must not be. The store does
//!   so on connections that it makes itself.

mod append;
mod append_in;
mod call;
mod capabilities;
mod config;
mod connect;
mod database;
mod error;
mod import;
mod manage;
mod queue;
mod read;
mod read_all;
mod recent;
#[cfg(feature = "projection")]
mod sink;
mod sql;
mod store;
mod url;
mod writer;

use annals_postgres_shared::{
    connections, horizon, identity, notify, page, records, resend, rows, session, subscribe,
};
pub use config::{PostgresConfig, PostgresOptions};
#[cfg(feature = "projection")]
pub use sink::PostgresSink;
/// The driver, in the version whose types are part of this crate's interface.
pub use sqlx;
pub use store::PostgresStore;
