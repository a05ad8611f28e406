//! The person whose data an event holds.

use std::{fmt, str::FromStr};

use annals_core::{Error, ErrorKind, MAX_NAME_BYTES, Result};

/// The name of the person whose data an event holds: 1 to 255 bytes of UTF-8 without control
/// characters, compared byte for byte.
///
/// The name is stored unencrypted in every sealed event, and is not forgotten with the key. Use an id
/// that means nothing outside the application, never an e-mail address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(String);

impl Subject {
    /// A subject with this name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the name is empty, is longer than 255 bytes, or contains a
    /// control character.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let fault = if text.is_empty() {
            "is empty"
        } else if text.len() > MAX_NAME_BYTES {
            "is too long"
        } else if text.contains(char::is_control) {
            "contains a control character"
        } else {
            return Ok(Self(text));
        };
        let message = format!(
            "the subject {fault}; use 1 to {MAX_NAME_BYTES} bytes of UTF-8 without control \
             characters"
        );
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Subject {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Subject {
    type Error = Error;
    fn try_from(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for Subject {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::new(text)
    }
}
