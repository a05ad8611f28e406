//! Values as literals in the text of a statement.
//!
//! A driver sends a statement with bound values in two requests. A statement whose values are literals
//! is one request: see [`Statement::written_out`](crate::sql::Statement::written_out).
//!
//! Each literal has the form `E'…'::type`, in which PostgreSQL reads a backslash in the same way
//! whatever its settings are. Within it, a quote and a backslash follow a backslash. That is safe
//! because the text of a session of sqlx is always UTF-8, where no other character contains those
//! bytes.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A value that can be a literal.
pub trait Literal {
    /// Appends the name of its type in PostgreSQL.
    fn write_type(to: &mut String)
    where
        Self: Sized;

    /// Appends the value as PostgreSQL reads it from text.
    fn write(&self, to: &mut String);

    fn is_null(&self) -> bool {
        false
    }

    /// About how many bytes its text takes, if it may take many.
    fn size(&self) -> usize {
        0
    }
}

/// Appends a value to the text of a statement.
pub(crate) fn write<T: Literal>(value: &T, to: &mut String) {
    if value.is_null() {
        to.push_str("NULL");
    } else {
        let mut text = String::new();
        value.write(&mut text);
        to.push_str("E'");
        for character in text.chars() {
            match character {
                '\'' | '\\' => to.extend(['\\', character]),
                // The server refuses it, as it refuses a bound one. By itself it would end the request.
                '\0' => to.push_str("\\000"),
                _ => to.push(character),
            }
        }
        to.push('\'');
    }
    to.push_str("::");
    T::write_type(to);
}

macro_rules! displayed {
    ($($type:ty => $name:literal,)*) => {
        $(impl Literal for $type {
            fn write_type(to: &mut String) {
                to.push_str(concat!("pg_catalog.", $name));
            }

            fn write(&self, to: &mut String) {
                // Writing to a string does not fail.
                let _ = write!(to, "{self}");
            }
        })*
    };
}

displayed! {
    bool => "bool",
    i16 => "int2",
    i32 => "int4",
    i64 => "int8",
    Uuid => "uuid",
}

impl Literal for DateTime<Utc> {
    fn write_type(to: &mut String) {
        to.push_str("pg_catalog.timestamptz");
    }

    fn write(&self, to: &mut String) {
        to.push_str(&self.to_rfc3339());
    }
}

impl Literal for &str {
    fn write_type(to: &mut String) {
        to.push_str("pg_catalog.text");
    }

    fn write(&self, to: &mut String) {
        to.push_str(self);
    }

    fn size(&self) -> usize {
        self.len()
    }
}

impl Literal for String {
    fn write_type(to: &mut String) {
        <&str>::write_type(to);
    }

    fn write(&self, to: &mut String) {
        self.as_str().write(to);
    }

    fn size(&self) -> usize {
        self.len()
    }
}

impl Literal for &[u8] {
    fn write_type(to: &mut String) {
        to.push_str("pg_catalog.bytea");
    }

    fn write(&self, to: &mut String) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        to.push_str("\\x");
        for byte in *self {
            let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
            to.extend([digit(byte >> 4), digit(byte & 15)]);
        }
    }

    fn size(&self) -> usize {
        2 * self.len()
    }
}

impl<T: Literal> Literal for Option<T> {
    fn write_type(to: &mut String) {
        T::write_type(to);
    }

    fn write(&self, to: &mut String) {
        if let Some(value) = self {
            value.write(to);
        }
    }

    fn is_null(&self) -> bool {
        self.is_none()
    }

    fn size(&self) -> usize {
        self.as_ref().map_or(0, T::size)
    }
}

impl<T: Literal> Literal for &[T] {
    fn write_type(to: &mut String) {
        T::write_type(to);
        to.push_str("[]");
    }

    fn write(&self, to: &mut String) {
        to.push('{');
        for (number, value) in self.iter().enumerate() {
            if number > 0 {
                to.push(',');
            }
            if value.is_null() {
                to.push_str("NULL");
                continue;
            }
            let mut text = String::new();
            value.write(&mut text);
            to.push('"');
            for character in text.chars() {
                if matches!(character, '"' | '\\') {
                    to.push('\\');
                }
                to.push(character);
            }
            to.push('"');
        }
        to.push('}');
    }

    fn size(&self) -> usize {
        self.iter().map(T::size).sum()
    }
}

impl<T: Literal> Literal for Vec<T> {
    fn write_type(to: &mut String) {
        <&[T]>::write_type(to);
    }

    fn write(&self, to: &mut String) {
        self.as_slice().write(to);
    }

    fn size(&self) -> usize {
        self.as_slice().size()
    }
}

impl<T: Literal> Literal for &T {
    fn write_type(to: &mut String) {
        T::write_type(to);
    }

    fn write(&self, to: &mut String) {
        (*self).write(to);
    }

    fn is_null(&self) -> bool {
        (*self).is_null()
    }

    fn size(&self) -> usize {
        (*self).size()
    }
}
