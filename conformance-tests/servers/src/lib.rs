//! Real servers that tests start and stop themselves, and a proxy that breaks the connections to
//! them.
//!
//! ```no_run
//! # async fn example() -> Result<(), annals_test_servers::BoxError> {
//! use annals_test_servers::{Proxy, postgres};
//!
//! let server = postgres::Source::find()?.start(postgres::Options::default()).await?;
//! let proxy = Proxy::between(server.addr(), postgres::Marked::new(".append(")).await?;
//! let url = server.url_at(proxy.addr());
//! // … a store at `url` …
//! proxy.lose_next_answer(); // the next append is written, but its caller gets no answer
//! server.kill_and_restart().await?;
//! # Ok(()) }
//! ```
//!
//! A server stops when its value is dropped. If the test's process is killed, a watchdog process
//! stops the server.
//!
//! * [`postgres`]: PostgreSQL, from `ANNALS_POSTGRES_URL`, from programs on this machine, or from
//!   Docker; and PgBouncer in front of it.
//! * [`dynamodb`]: DynamoDB, from `ANNALS_DYNAMODB_URL`, in this process, from moto, or from
//!   Docker; and HTTP clients that measure, disturb or stop the requests of an SDK.
//! * [`eventstoredb`]: EventStoreDB or KurrentDB, from `ANNALS_EVENTSTOREDB_URL`, or from Docker.
//! * [`Proxy`]: a TCP proxy that cuts, refuses and stalls connections, and loses answers. To lose
//!   an
//!   answer it needs a [`Protocol`], which finds the request and its answer in the bytes.
//! * [`until`]: waits for a condition, so that no test needs to sleep.

pub mod dynamodb;
pub mod eventstoredb;
mod ports;
pub mod postgres;
mod proxy;
mod wait;
mod watchdog;

pub use proxy::{Conversation, Fate, Losses, Protocol, Proxy};
pub use wait::until;

/// An error of a server, of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
