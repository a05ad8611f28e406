//! For those who implement a store: everything that adapters have in common.
//!
//! An adapter implements [`Adapter`] for its store, and has the traits that applications use, from
//! [`EventStore`](crate::EventStore) to [`TransferStore`](crate::TransferStore), by blanket
//! implementations. These refuse what can be refused before anything is sent, turn the start of a
//! subscription into a version or position, and add the backend, the operation and the stream to
//! every error. What is left to the adapter is the database:
//!
//! * [`Pages`] read events a page at a time; [`Tail`] also waits for more. [`Live`] makes a tail of
//!   pages and a [`Wake`], [`Patient`] reads a page again while the database cannot be reached. A
//!   [`Cursor`] remembers what is left of a read, and fills pages from an iterator.
//! * [`StreamsMut`] makes appends, imports and removals of a few rows, where one transaction can ask
//!   for heads and ids ([`Streams`]) and then write; [`plan_append`] and [`plan_import`] only decide
//!   what is to be written. For other databases, [`StreamHead::judge`] decides on expected versions
//!   and retries (contract, rules 2 to 5), and [`StreamHead::compare_after`] and its neighbours decide
//!   on whole appends.
//! * [`Adapter::change_record`] is enough for snapshots, checkpoints and leases, where a transaction
//!   can change bytes under a name.
//! * [`encode_event`], [`content_kinds`], [`state_code`] and [`TypeCache`] are for what is stored,
//!   [`url::Parameters`] for the options in a URL, [`Backoff`] for waiting between tries.
//!
//! A wrapper around a store forwards every method, and so implements the traits themselves.

mod backoff;
mod check;
mod cursor;
mod head;
mod implement;
mod pages;
mod place;
mod plan;
mod record;
mod shell;
mod stored;
mod tail;
pub mod url;
mod write;

pub use backoff::Backoff;
pub use check::{check_append, check_checkpoint, check_snapshot, check_subscribe, check_writable};
pub use cursor::Cursor;
pub use head::{StreamHead, Verdict, all_or_none, written_after};
pub use implement::{Adapter, CheckpointSwap};
pub use pages::{Page, Pages, failed_read, read};
pub use plan::{Plan, Streams, plan_append, plan_import};
pub use record::{RecordChange, RecordKey};
pub use shell::context;
pub use stored::{
    TypeCache, content_kinds, decode_event, encode_event, payloads, state_code, state_of_code,
};
pub use tail::{CHECKPOINT_EVERY, Live, Patient, Tail, Wake, subscribe};
pub use write::StreamsMut;

pub use crate::transfer::{ImportVerdict, check_import, import_by_appends, import_conflict};
