//! Real servers for tests, started and stopped by the tests themselves, and a proxy that harms the
//! connections to them.
//!
//! ```no_run
//! # async fn example() -> Result<(), annals_test_servers::BoxError> {
//! use annals_test_servers::{Proxy, postgres};
//!
//! let server = postgres::Source::find()?.start(postgres::Options::default()).await?;
//! let proxy = Proxy::between(server.addr(), postgres::Marked::new(".append(")).await?;
//! let url = server.url_at(proxy.addr());
//! // … a store at `url` …
//! proxy.lose_next_answer(); // the next append is written, and its caller does not learn of it
//! server.kill_and_restart().await?;
//! # Ok(()) }
//! ```
//!
//! Whatever is started here ends with the value that stands for it, and with the process however
//! that ends: a watchdog outside the process stops what a killed test has left.
//!
//! * [`postgres`]: PostgreSQL, from `ANNALS_POSTGRES_URL`, from programs on this machine, or from
//!   Docker.
//! * [`dynamodb`]: DynamoDB, from `ANNALS_DYNAMODB_URL`, in this process, from moto, or from
//!   Docker; and HTTP clients that measure, disturb or stop the requests of an SDK.
//! * [`eventstoredb`]: EventStoreDB or KurrentDB, from `ANNALS_EVENTSTOREDB_URL`, or from Docker.
//! * [`Proxy`]: a TCP proxy that cuts, refuses and stalls connections, and loses answers. What it
//!   has to know of a protocol for the last, it is told by a [`Protocol`].
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

/// Anything that can go wrong with a server.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
