//! The event store of annals in one DynamoDB table.

mod append;
mod codec;
mod commit;
mod config;
mod error;
mod head;
mod item;
mod keep;
mod locks;
mod log;
mod manage;
mod notify;
mod open;
mod read;
mod read_all;
mod store;
mod subscribe;
mod table;
mod url;

/// The driver, in the version whose types this crate's interface has.
pub use aws_sdk_dynamodb;
pub use config::{DynamoDbConfig, DynamoDbOptions};
pub use store::DynamoDbStore;
