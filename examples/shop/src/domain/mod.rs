//! What the shop decides, and nothing else: no store, no clock, no I/O.

mod deadline;
mod order;
mod stock;

use std::{error::Error, fmt};

pub use deadline::{Deadline, DeadlineCommand, DeadlineEvent, DeadlineState};
pub use order::{Order, OrderCommand, OrderEvent, OrderState};
pub use stock::{Stock, StockCommand, StockEvent, StockState};

/// Why the shop refuses a command. A refusal is an answer, not a failure, and leaves no trace: the
/// same command can succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejection {
    TooLittleStock,
    UnknownOrder,
    DifferentOrder,
    DifferentDelivery,
    WrongPayment,
    NotPaid,
    Cancelled,
    Shipped,
    NothingReserved,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLittleStock => "too little stock",
            Self::UnknownOrder => "unknown order",
            Self::DifferentOrder => "order exists with other contents",
            Self::DifferentDelivery => "delivery exists with another quantity",
            Self::WrongPayment => "wrong payment",
            Self::NotPaid => "not paid",
            Self::Cancelled => "order was cancelled",
            Self::Shipped => "order was shipped",
            Self::NothingReserved => "nothing reserved",
        })
    }
}

impl Error for Rejection {}
