//! Versions and positions: two kinds of numbers that must not be confused.

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
            /// The version or position of this value.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The value.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// For adapters: the value as a signed integer. A value above `i64::MAX`, which no event
            /// has, becomes `i64::MAX`.
            #[must_use]
            pub fn to_i64(self) -> i64 {
                i64::try_from(self.0).unwrap_or(i64::MAX)
            }

            /// For adapters: the reverse of `to_i64`. A negative number, which no event has, becomes
            /// 0.
            #[must_use]
            pub fn from_i64(value: i64) -> Self {
                Self(u64::try_from(value).unwrap_or(0))
            }

            /// This value plus `count`, but at most `u64::MAX`.
            #[must_use]
            pub const fn plus(self, count: u64) -> Self {
                Self(self.0.saturating_add(count))
            }

            /// This value minus `count`, but at least 0.
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
    /// The version of a stream is the version of its last event. A stream that does not exist has
    /// [`Version::NONE`].
    ///
    /// ```
    /// use annals_core::Version;
    /// assert_eq!(Version::NONE.plus(1), Version::FIRST);
    /// ```
    Version
}

number! {
    /// An event's place in the whole store. Positions strictly increase in the order of commits and
    /// can have gaps. Only positions of the same store can be compared.
    ///
    /// No event has [`Position::START`], except in a store without an order over all streams
    /// ([`Capabilities::global_order`](crate::Capabilities::global_order) is `false`), in which
    /// every event has it.
    Position
}

impl Version {
    /// The version of a stream that does not exist.
    pub const NONE: Self = Self(0);
    /// The version of a stream's first event.
    pub const FIRST: Self = Self(1);
}

impl Position {
    /// The position before the first event.
    pub const START: Self = Self(0);
}
