//! The typed layer on top of an event store: aggregates that decide on commands, events as Rust enums,
//! snapshots, and projections with checkpoints.
//!
//! A store keeps events as types and bytes, without knowing their meaning. The parts of this crate add
//! that. Most of them are made over an `Arc<dyn Store>`, and each can be used without the others.
//! Applications use this crate as `annals::domain`. The book in `docs/book` has a chapter on each part.
//!
//! ```
//! use std::{fmt, sync::Arc};
//!
//! use annals_domain::{CommandHandler, Context, Decider, testing};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//! enum StockEvent {
//!     #[serde(rename = "stock-received")]
//!     Received { pieces: u32 },
//!     #[serde(rename = "stock-reserved")]
//!     Reserved { pieces: u32 },
//! }
//! enum StockCommand { Receive(u32), Reserve(u32) }
//!
//! #[derive(Debug, PartialEq)]
//! struct TooLittle;
//! # impl fmt::Display for TooLittle {
//! #     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str("too little") }
//! # }
//! # impl std::error::Error for TooLittle {}
//!
//! struct Stock;
//! impl Decider for Stock {
//!     const CATEGORY: &'static str = "stock";
//!     type State = u32; // pieces that are free
//!     type Command = StockCommand;
//!     type Event = StockEvent;
//!     type Rejection = TooLittle;
//!
//!     fn initial(&self) -> u32 { 0 }
//!
//!     fn decide(&self, command: &StockCommand, free: &u32) -> Result<Vec<StockEvent>, TooLittle> {
//!         match *command {
//!             StockCommand::Receive(pieces) => Ok(vec![StockEvent::Received { pieces }]),
//!             StockCommand::Reserve(pieces) if pieces <= *free => {
//!                 Ok(vec![StockEvent::Reserved { pieces }])
//!             }
//!             StockCommand::Reserve(_) => Err(TooLittle),
//!         }
//!     }
//!
//!     fn evolve(&self, free: &mut u32, event: &StockEvent) {
//!         match event {
//!             StockEvent::Received { pieces } => *free += pieces,
//!             StockEvent::Reserved { pieces } => *free -= pieces,
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Test the decider without a store:
//! testing::given(Stock, [StockEvent::Received { pieces: 5 }])
//!     .when(StockCommand::Reserve(6))
//!     .then_rejected(TooLittle);
//!
//! // Run it on any store. A command that conflicts with another writer is decided again:
//! let stock = CommandHandler::new(Arc::new(annals_memory::MemoryStore::new()), Stock)?;
//! stock.execute("mug", &StockCommand::Receive(5), &Context::new()).await?;
//! stock.execute("mug", &StockCommand::Reserve(2), &Context::new()).await?;
//! assert_eq!(stock.load("mug").await?.state, 3);
//! # Ok(()) }
//! ```
//!
//! # Where to look
//!
//! | to | see |
//! |---|---|
//! | write an aggregate as pure functions | [`Decider`] |
//! | run its commands | [`CommandHandler`], [`Executed`], [`ExecuteError`] |
//! | change several aggregates atomically | [`Together`] |
//! | set how often to retry | [`RetryPolicy`] |
//! | store an enum of events | [`Schema`], [`Decoded`] |
//! | read events of older versions of the program | [`Upcasters`] |
//! | load long streams faster | [`SnapshotPolicy`], [`CommandHandler::with_cache`] |
//! | build read models, and react to events | [`projection::Projection`] |
//! | run a projection in one of several processes, or in all of them | [`projection::Projection::lead`], [`projection::Workers`] |
//! | wait for a projection, see how far it is and who leads | [`projection::ProjectionHandle`] |
//! | write rows and checkpoint in one transaction | [`projection::Sink`] |
//! | forget a person | the module `personal` |
//! | record what led to an event | [`Context`] |
//! | get traces and metrics | [`observe::Observed`], the module `trace` |
//! | test deciders and upcasters | [`testing`] |
//!
//! # Features
//!
//! No feature is on by default. `personal` adds the module `personal`. `opentelemetry` adds the module
//! `trace`, and makes the spans of projections a part of the traces of their events. The features of
//! the same names in the crate `annals` turn these on.
//!
//! The sinks for SQLite and PostgreSQL are in `annals-sqlite` and `annals-postgres`, behind their
//! feature `projection`; the crate `annals` has them as `annals::domain::projection::sqlite` and
//! `annals::domain::projection::postgres`.

mod cache;
mod codec;
mod command_handler;
mod context;
mod decider;
mod execute;
mod load;
pub mod observe;
mod outcome;
#[cfg(feature = "personal")]
pub mod personal;
pub mod projection;
mod retry;
mod schema;
mod snapshot;
mod step;
pub mod testing;
mod together;
#[cfg(feature = "opentelemetry")]
pub mod trace;
mod upcast;

pub use command_handler::CommandHandler;
pub use context::Context;
pub use decider::Decider;
pub use load::Loaded;
pub use outcome::{ExecuteError, Executed};
pub use retry::RetryPolicy;
pub use schema::{Decoded, Schema};
pub use snapshot::SnapshotPolicy;
pub use step::Step;
pub use together::{AnyRejection, Done, Together, TogetherError};
pub use upcast::{Upcast, Upcasters};
