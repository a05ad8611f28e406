//! What the stores of annals in PostgreSQL have in common: `annals-postgres`, which has tables of its
//! own, and `annals-marten`, which uses those of a .NET program.
//!
//! This is no interface for applications: any release may change it.

#[doc(hidden)]
pub mod connections;
#[doc(hidden)]
pub mod dial;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod horizon;
#[doc(hidden)]
pub mod identity;
#[doc(hidden)]
pub mod imitation;
#[doc(hidden)]
pub mod import;
mod literal;
#[doc(hidden)]
pub mod migrate;
#[doc(hidden)]
pub mod notify;
#[doc(hidden)]
pub mod page;
mod reach;
#[doc(hidden)]
pub mod read_all;
#[doc(hidden)]
pub mod records;
#[doc(hidden)]
pub mod resend;
#[doc(hidden)]
pub mod rows;
#[doc(hidden)]
pub mod session;
#[doc(hidden)]
pub mod sql;
#[doc(hidden)]
pub mod streams;
#[doc(hidden)]
pub mod subscribe;
#[doc(hidden)]
pub mod url;
