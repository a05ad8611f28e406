//! The typed layer on top of every event store: aggregates that decide, events that stay readable,
//! projections that know how far they are.
//!
//! A store knows names and bytes. Here are the parts that know what they mean, each a value over an
//! `Arc<dyn Store>`, each of use without the others. Applications find all of it as
//! `annals::domain`; the book in `docs/book` has a chapter on each part.
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
//!     type State = u32; // pieces that can be had
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
//! // Without a store:
//! testing::given(Stock, [StockEvent::Received { pieces: 5 }])
//!     .when(StockCommand::Reserve(6))
//!     .then_rejected(TooLittle);
//!
//! // On any store, with optimistic retries:
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
//! | run its commands, and know what came of them | [`CommandHandler`], [`Executed`], [`ExecuteError`] |
//! | change several aggregates, or none | [`Together`] |
//! | say how often to try again | [`RetryPolicy`] |
//! | store an enum of events, and read it again | [`Schema`], [`Decoded`] |
//! | read what older versions stored | [`Upcasters`] |
//! | not read a long stream each time | [`SnapshotPolicy`], [`CommandHandler::with_cache`] |
//! | make read models, and react to events | [`projection::Projection`] |
//! | have that in one of several processes, or spread over them | [`projection::Projection::lead`], [`projection::Workers`] |
//! | write rows and checkpoint in one transaction | [`projection::Sink`] |
//! | forget somebody | the module `personal` |
//! | know what led to an event | [`Context`] |
//! | see what a store is asked, in traces and metrics | [`observe::Observed`], the module `trace` |
//! | test deciders and upcasters | [`testing`] |
//!
//! # Features
//!
//! None is on by default. `personal`: the module of that name. `opentelemetry`: the module `trace`,
//! and projections whose spans are part of the traces of their events. `sqlite` and `postgres`: the
//! sinks in `projection::sqlite` and `projection::postgres`, and the drivers' types in the API. In
//! the crate `annals` the features of those names turn these on.

mod cache;
mod codec;
mod context;
mod decider;
mod execute;
mod load;
pub mod observe;
#[cfg(feature = "personal")]
pub mod personal;
pub mod projection;
mod retry;
mod schema;
mod snapshot;
pub mod testing;
mod together;
#[cfg(feature = "opentelemetry")]
pub mod trace;
mod upcast;

pub use context::Context;
pub use decider::Decider;
pub use execute::{CommandHandler, ExecuteError, Executed};
pub use load::Loaded;
pub use retry::RetryPolicy;
pub use schema::{Decoded, Schema};
pub use snapshot::SnapshotPolicy;
pub use together::{AnyRejection, Step, Together, TogetherError};
pub use upcast::{Upcast, Upcasters};
