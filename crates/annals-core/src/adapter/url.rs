//! The options of a store in its URL.

mod credentials;

use std::{fmt, str::FromStr, time::Duration};

use percent_encoding::percent_decode_str;

pub use self::credentials::{check_authority, has_credentials, without_credentials};
use crate::{Error, ErrorKind, Result};

/// The parameters of a URL, decoded: what stands after its `?`, as in `a=1&b=2`. A name is given at
/// most once.
///
/// ```
/// use annals_core::adapter::url::Parameters;
///
/// let mut readers = 8;
/// let known = "`readers`";
/// for parameter in Parameters::parse("readers=4")? {
///     match parameter.name() {
///         "readers" => readers = parameter.parsed("a number from 1 to 64")?,
///         _ => return Err(parameter.unknown(known)),
///     }
/// }
/// assert_eq!(readers, 4);
/// let error = Parameters::parse("readers=4&readers=8").unwrap_err();
/// assert!(error.to_string().contains("`readers` is given twice"));
/// # Ok::<(), annals_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Parameters(Vec<Parameter>);

/// A parameter of a URL.
#[derive(Debug)]
pub struct Parameter {
    name: String,
    value: String,
}

impl Parameters {
    /// Takes the query of a URL apart. A parameter without `=` has the empty value.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a name that is given twice, whatever its case, and for a `%`
    /// that encodes no byte of UTF-8.
    pub fn parse(query: &str) -> Result<Self> {
        let mut parameters: Vec<Parameter> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode("the name of a parameter", name)?;
            let value = decode(&name, value)?;
            if parameters.iter().any(|before| before.name.eq_ignore_ascii_case(&name)) {
                return Err(invalid(format!("the parameter `{name}` is given twice")));
            }
            parameters.push(Parameter { name, value });
        }
        Ok(Self(parameters))
    }
}

impl IntoIterator for Parameters {
    type Item = Parameter;
    type IntoIter = std::vec::IntoIter<Parameter>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Parameter {
    /// The name, as it is written.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The value as something else, which is described as in "a number from 1 to 64".
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`].
    pub fn parsed<T: FromStr>(&self, expected: &str) -> Result<T> {
        self.value.parse().map_err(|_| self.invalid(expected))
    }

    /// The value as a time: `500ms`, `10s`, `2m`, `1h` or `1d`, or a number of milliseconds.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`].
    pub fn milliseconds(&self) -> Result<Duration> {
        let expected = "a number of milliseconds, or a time such as `500ms`, `10s` or `2m`";
        time(&self.value, "ms").ok_or_else(|| self.invalid(expected))
    }

    /// The value as a time: `500ms`, `10s`, `2m`, `1h` or `1d`, or a number of seconds.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`].
    pub fn seconds(&self) -> Result<Duration> {
        let expected = "a number of seconds, or a time such as `90s`, `10m` or `30d`";
        time(&self.value, "s").ok_or_else(|| self.invalid(expected))
    }

    /// What the value stands for, by a table of all values.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], with the values.
    pub fn one_of<T, const N: usize>(&self, values: [(&str, T); N]) -> Result<T> {
        let names = values.each_ref().map(|(name, _)| format!("`{name}`"));
        let found = values.into_iter().find(|(name, _)| *name == self.value);
        found.map(|(_, meaning)| meaning).ok_or_else(|| {
            let expected = match names.split_last() {
                Some((last, before)) if !before.is_empty() => {
                    format!("{} or {last}", before.join(", "))
                }
                _ => names.concat(),
            };
            self.invalid(&expected)
        })
    }

    /// The value as `true` or `false`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`].
    pub fn flag(&self) -> Result<bool> {
        self.parsed("`true` or `false`")
    }

    /// The error for a value that is not what is expected.
    #[must_use]
    pub fn invalid(&self, expected: &str) -> Error {
        invalid(format!("`{}` is {:?}; use {expected}", self.name, self.value))
    }

    /// The error for a name that is not known, with those that are.
    #[must_use]
    pub fn unknown(&self, known: impl fmt::Display) -> Error {
        invalid(format!("there is no parameter `{}`; there are {known}", self.name))
    }
}

/// Replaces each `%` and the two hexadecimal digits after it by the byte that they stand for.
/// `what` names the text in the error.
///
/// # Errors
/// [`ErrorKind::InvalidInput`].
pub fn decode(what: &str, text: &str) -> Result<String> {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let is_encoded = |at| is_hex(bytes.get(at + 1)) && is_hex(bytes.get(at + 2));
    if !text.match_indices('%').all(|(at, _)| is_encoded(at)) {
        let message = format!("{what} holds a `%` without two hexadecimal digits; write `%25`");
        return Err(invalid(message));
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|e| invalid(format!("{what} is not UTF-8 once decoded")).with_source(e))
}

/// A whole number and its unit; without a unit, the `default` one.
fn time(text: &str, default: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds = match if unit.is_empty() { default } else { unit } {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(milliseconds).map(Duration::from_millis)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Vec<(String, String)>> {
        Ok(Parameters::parse(query)?.into_iter().map(|p| (p.name, p.value)).collect())
    }

    #[test]
    fn names_and_values_are_decoded() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(parse("").unwrap(), []);
        let read = parse("a=1&&b=x%26%3Dy&c&d=%C3%BC+=").unwrap();
        assert_eq!(read, [pair("a", "1"), pair("b", "x&=y"), pair("c", ""), pair("d", "ü+=")]);
    }

    #[test]
    fn mistakes_are_named() {
        for (query, says) in [
            ("a=1&A=2", "`A` is given twice"),
            ("a=%", "a holds a `%`"),
            ("a=%4", "%25"),
            ("a=%4g", "%25"),
            ("a=%+4", "%25"),
            ("a=%ff", "a is not UTF-8"),
            ("%zz=1", "the name of a parameter holds a `%`"),
        ] {
            let error = parse(query).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{query}");
            assert!(error.to_string().contains(says), "{query}: {error}");
        }
        let of = |query| Parameters::parse(query).unwrap().into_iter().next().unwrap();
        assert!(of("a=x").milliseconds().unwrap_err().to_string().contains("milliseconds"));
        assert!(of("a=1").flag().unwrap_err().to_string().contains("`true` or `false`"));
        assert!(of("a=1").unknown("`b`").to_string().contains("no parameter `a`; there are `b`"));
        for (query, milliseconds, seconds) in [
            ("a=20", 20, 20_000),
            ("a=500ms", 500, 500),
            ("a=10s", 10_000, 10_000),
            ("a=2m", 120_000, 120_000),
            ("a=1h", 3_600_000, 3_600_000),
            ("a=30d", 2_592_000_000, 2_592_000_000),
        ] {
            assert_eq!(of(query).milliseconds().unwrap().as_millis(), milliseconds, "{query}");
            assert_eq!(of(query).seconds().unwrap().as_millis(), seconds, "{query}");
        }
        for query in ["a", "a=s", "a=-1s", "a=1.5s", "a=1 s", "a=10S", "a=99999999999999999999d"] {
            assert!(of(query).milliseconds().is_err() && of(query).seconds().is_err(), "{query}");
        }
        assert!(!of("a=false").flag().unwrap());
    }
}
