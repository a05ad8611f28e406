//! What a scheme is, and the error of a URL without one.

use std::borrow::Cow;

use annals_core::{Error, ErrorKind};

pub(crate) fn is_scheme(text: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "+.-".contains(c);
    // A scheme of one letter is a drive, as in `C:\shop.db`.
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(is_legal)
}

pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}
