//! The service `PersistentSubscriptions`: groups of consumers that share the events of a stream, a
//! category or `$all`. The server keeps a group's progress.
//!
//! `service` answers the calls, `request` parses them, and `connection` is one consumer's call.
//! Each group in use has a task, `worker`: it reads from a `subscription`, gives the events to
//! `consumers`, and stores the group's `progress`. Events that no consumer could handle are
//! `parked`. The `catalog` stores the groups themselves.
//!
//! An event is tried again if its consumer refuses it, does not answer in time, or disconnects. After
//! `max_retry_count` attempts it is parked. A group begins to read when it is created, so that it can tell
//! its state.
//!
//! One gateway runs a group at a time. If several gateways serve one store, the consumers of one of them
//! get the events, and those of the others wait for their `turn`.

mod catalog;
mod connection;
mod consumers;
mod handle;
mod info;
mod name;
mod parked;
mod progress;
mod request;
mod running;
mod service;
mod settings;
mod subscription;
mod turn;
mod waiting;
mod worker;

pub(crate) use service::PersistentService;
