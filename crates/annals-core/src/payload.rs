//! The bytes of an event, which no store changes.

use std::{error::Error as StdError, fmt};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned, de::IgnoredAny};

use crate::{Error, ErrorKind, Result, strict::Strict};

/// What the bytes of a [`Payload`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentKind {
    /// One JSON text in UTF-8.
    Json,
    /// Anything else.
    Binary,
}

/// Bytes with a content kind. Every store returns them byte for byte (contract, rule 10). Cloning
/// a payload copies no bytes.
///
/// ```
/// use annals_core::{ContentKind, Payload};
/// let payload = Payload::json(&serde_json::json!({ "total": 40 }))?;
/// assert_eq!(payload.bytes(), r#"{"total":40}"#.as_bytes());
/// assert_eq!(payload.kind(), ContentKind::Json);
/// # Ok::<(), annals_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    kind: ContentKind,
    bytes: Bytes,
}

impl Payload {
    /// A value, serialised as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if `serde_json` cannot serialise the value, and if the value has a
    /// part that would be read as another one: a number that is not finite, which `serde_json` writes
    /// as `null`, and `Some` of what is written as `null`, such as `Some(None)`.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        let mut bytes = Vec::with_capacity(128);
        let written = value.serialize(Strict(&mut serde_json::Serializer::new(&mut bytes)));
        written.map_err(|e| {
            let message = format!("the value cannot be written as JSON: {e}");
            Error::new(ErrorKind::InvalidInput, message).with_source(e)
        })?;
        Ok(Self { kind: ContentKind::Json, bytes: bytes.into() })
    }

    /// A JSON text, which is kept as it is: the order of its keys, the text of its numbers, and its
    /// white space.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the bytes are not exactly one JSON text.
    pub fn json_text(text: impl Into<Bytes>) -> Result<Self> {
        let bytes = text.into();
        match check_json(&bytes) {
            Ok(()) => Ok(Self { kind: ContentKind::Json, bytes }),
            Err(e) => Err(Error::new(
                ErrorKind::InvalidInput,
                "the bytes are not one JSON text; use `Payload::binary` for others",
            )
            .with_source(e)),
        }
    }

    /// Bytes of any kind.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self { kind: ContentKind::Binary, bytes: bytes.into() }
    }

    /// Bytes whose kind is inferred from them: JSON if they are exactly one JSON text, else binary.
    pub fn inferred(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let kind = if check_json(&bytes).is_ok() { ContentKind::Json } else { ContentKind::Binary };
        Self { kind, bytes }
    }

    /// For adapters: a payload from its stored parts. Nothing is checked, because everything was
    /// checked when the payload was written.
    pub fn from_stored(kind: ContentKind, bytes: impl Into<Bytes>) -> Self {
        Self { kind, bytes: bytes.into() }
    }

    /// A payload without bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self { kind: ContentKind::Binary, bytes: Bytes::new() }
    }

    /// What the bytes are.
    #[must_use]
    pub fn kind(&self) -> ContentKind {
        self.kind
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the payload has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Decodes the bytes, a JSON text.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the bytes are not JSON, or not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.bytes).map_err(|e| {
            let type_name = std::any::type_name::<T>();
            Error::new(ErrorKind::Corrupt, format!("the payload cannot be read as {type_name}"))
                .with_source(e)
        })
    }
}

/// Checks that the bytes are exactly one JSON text. `serde_json` does not check the encoding of
/// strings that it skips, so check for UTF-8 first.
fn check_json(bytes: &[u8]) -> Result<(), Box<dyn StdError + Send + Sync>> {
    serde_json::from_str::<IgnoredAny>(std::str::from_utf8(bytes)?)?;
    Ok(())
}

impl Default for Payload {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// How many bytes are shown: enough to recognise a payload, and few enough for a log.
        const SHOWN: usize = 200;
        let (head, more) = self.bytes.split_at(self.bytes.len().min(SHOWN));
        write!(f, "{:?} {:?}", self.kind, Bytes::copy_from_slice(head))?;
        if more.is_empty() { Ok(()) } else { write!(f, "… ({} bytes)", self.bytes.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_text_is_kept_as_it_is() {
        let text = r#" {"b": 1.10, "a": "\u0000", "a": 1e400} "#;
        let payload = Payload::json_text(text).unwrap();
        assert_eq!(payload.bytes(), text.as_bytes());
        assert_eq!(payload.kind(), ContentKind::Json);
    }

    #[test]
    fn what_is_not_json_is_refused_or_inferred() {
        for bytes in [&b""[..], b"{", b"1 2", b"\xff", b"\"\xff\"", b"nul"] {
            assert!(Payload::json_text(bytes).is_err(), "{bytes:?}");
            assert_eq!(Payload::inferred(bytes).kind(), ContentKind::Binary);
        }
        assert_eq!(Payload::inferred("[]").kind(), ContentKind::Json);
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert_eq!(Payload::inferred(deep).kind(), ContentKind::Json);
    }

    #[test]
    fn a_clone_shares_its_bytes() {
        let payload = Payload::binary(vec![7; 1000]);
        assert_eq!(payload.clone().bytes().as_ptr(), payload.bytes().as_ptr());
    }
}
