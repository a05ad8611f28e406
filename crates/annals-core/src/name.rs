//! The names of streams, event types, categories, prefixes, subscribers and leases.
//!
//! Each is a newtype that cannot hold an illegal value and is cheap to clone.

use std::{borrow::Borrow, convert::Infallible, fmt, str::FromStr, sync::Arc};

use crate::{Error, ErrorKind};

/// The longest name, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 255;

/// Stream ids and event types that begin with this character belong to the backend: applications
/// can read them but not write them.
const SYSTEM_PREFIX: char = '$';

fn check_name(what: &str, text: &str) -> Result<(), Error> {
    let fault = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > MAX_NAME_BYTES {
        format!("has {} bytes", text.len())
    } else if let Some(control) = text.chars().find(|c| c.is_control()) {
        format!("holds the control character {control:?}")
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!(
            "{what} {fault}; use 1 to {MAX_NAME_BYTES} bytes of UTF-8 without control characters"
        ),
    ))
}

fn check_category(what: &str, text: &str) -> Result<(), Error> {
    check_name(what, text)?;
    if text.contains('-') {
        let message = format!(
            "{what} {text:?} holds a `-`; a category ends before the first `-` of a stream id"
        );
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and copies it.
            ///
            /// # Errors
            /// [`ErrorKind::InvalidInput`] if the text is empty or longer than 255 bytes, or has a
            /// character that is not allowed in such a name.
            pub fn new(text: impl AsRef<str>) -> Result<Self, Error> {
                let text = text.as_ref();
                $check($what, text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl From<&$name> for $name {
            fn from(name: &$name) -> Self {
                name.clone()
            }
        }
    };
}

name! {
    /// The id of a stream, which is usually one aggregate: `order-42`.
    ///
    /// An id has 1 to 255 bytes of UTF-8 without control characters, and is compared byte for byte.
    ///
    /// ```
    /// use annals_core::StreamId;
    /// let id = StreamId::new("order-42")?;
    /// assert_eq!(id.category().unwrap().as_str(), "order");
    /// assert!(StreamId::new("").is_err());
    /// # Ok::<(), annals_core::Error>(())
    /// ```
    StreamId, "the stream id", check_name
}

name! {
    /// The type of an event, such as `OrderPlaced`: 1 to 255 bytes of UTF-8 without control
    /// characters, compared byte for byte.
    EventType, "the event type", check_name
}

name! {
    /// A category of streams: the part of a [`StreamId`] before its first `-`. A category has no
    /// `-` itself.
    Category, "the category", check_category
}

name! {
    /// A prefix of stream ids, compared byte for byte: `%`, `_` and `*` have no special meaning.
    StreamPrefix, "the stream prefix", check_name
}

name! {
    /// The name under which a subscriber keeps its [checkpoint](crate::CheckpointStore).
    SubscriberId, "the subscriber id", check_name
}

name! {
    /// The name of a [lease](crate::LeaseStore), such as the piece of work that one process at a
    /// time may do.
    LeaseName, "the name of the lease", check_name
}

impl StreamId {
    /// The part before the first `-`; `None` if the id has no `-` or begins with it.
    #[must_use]
    pub fn category(&self) -> Option<Category> {
        self.category_str().map(|category| Category(category.into()))
    }

    /// [`StreamId::category`] as a string slice, without a copy.
    #[must_use]
    pub fn category_str(&self) -> Option<&str> {
        self.0.split_once('-').map(|(category, _)| category).filter(|category| !category.is_empty())
    }

    /// The part after the first `-`, by which the stream differs from others of its
    /// [category](StreamId::category): `42` for `order-42`. `None` if the stream has no category.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        let (category, id) = self.0.split_once('-')?;
        (!category.is_empty()).then_some(id)
    }

    /// Whether the id begins with `$`. Such streams belong to the backend: annals never writes to
    /// them, and reads of all leave them out unless [`Filter::include_system`] is set.
    ///
    /// [`Filter::include_system`]: crate::Filter::include_system
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with(SYSTEM_PREFIX)
    }
}

impl EventType {
    /// Whether the type begins with `$`. Such types belong to the backend, and annals never writes
    /// them.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with(SYSTEM_PREFIX)
    }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names() {
        let longest = "ü".repeat(127) + "x";
        for text in ["a", " a ", "%_\\'\"`", "日本-\u{1f980}", &longest] {
            assert_eq!(StreamId::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn illegal_names_say_what_to_do() {
        for text in ["", "a\nb", "a\0", "\u{85}", &"ü".repeat(128)] {
            let error = StreamId::new(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("1 to 255 bytes"), "{error}");
        }
    }

    #[test]
    fn categories() {
        let category = |id: &str| StreamId::new(id).unwrap().category_str().map(str::to_owned);
        assert_eq!(category("order-42-7").as_deref(), Some("order"));
        assert_eq!(category("order-").as_deref(), Some("order"));
        assert_eq!(category("order"), None);
        assert_eq!(category("-order"), None);
        let id = |id: &str| StreamId::new(id).unwrap().id().map(str::to_owned);
        assert_eq!(id("order-42-7").as_deref(), Some("42-7"));
        assert_eq!(id("order-").as_deref(), Some(""));
        assert_eq!((id("order"), id("-order")), (None, None));
        assert!(Category::new("order-42").unwrap_err().to_string().contains("holds a `-`"));
    }
}
