//! Versions and positions: two counts that must not be confused.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The value as such.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// For databases whose integers are signed: values beyond their range, which no event
            /// has, become the greatest one.
            #[must_use]
            pub fn to_i64(self) -> i64 {
                i64::try_from(self.0).unwrap_or(i64::MAX)
            }

            /// The reverse of `to_i64`; negative numbers, which no event has, become 0.
            #[must_use]
            pub fn from_i64(value: i64) -> Self {
                Self(u64::try_from(value).unwrap_or(0))
            }

            /// The number `count` further on, or the greatest there is.
            #[must_use]
            pub const fn plus(self, count: u64) -> Self {
                Self(self.0.saturating_add(count))
            }

            /// The number `count` before, or 0.
            #[must_use]
            pub const fn minus(self, count: u64) -> Self {
                Self(self.0.saturating_sub(count))
            }
        }

        impl From<u64> for $name {
            fn from(value: u64) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// An event's place in its stream, counted from 1 without gaps.
    ///
    /// The version of a stream is that of its last event; a stream that does not exist is at
    /// [`Version::NONE`].
    Version
}

number! {
    /// An event's place in the whole store: strictly increasing in the order of commits, not
    /// necessarily dense, comparable within one store only.
    ///
    /// No event stands at [`Position::START`]; where a store keeps no order over all streams
    /// ([`Capabilities::global_order`](crate::Capabilities::global_order) is off) every event says
    /// so by carrying it.
    Position
}

impl Version {
    /// The version of a stream that does not exist.
    pub const NONE: Self = Self(0);
    /// The version of a stream's first event.
    pub const FIRST: Self = Self(1);
}

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);
}
