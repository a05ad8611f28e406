//! What `jsonb` can keep of JSON, and what of metadata goes into Marten's columns.
//!
//! `jsonb` refuses `\u0000`, halves of surrogate pairs and numbers that `numeric` cannot hold. The exact
//! bytes are kept beside Marten's tables; what is put into `mt_events.data` is what a .NET program can
//! read of them.

use std::{borrow::Cow, collections::BTreeMap};

use annals_core::{ContentKind, Error, ErrorKind, Payload, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::value::RawValue;

/// Deeper JSON is stored like binary data: PostgreSQL would run out of stack at some thousand levels.
const DEEPEST: usize = 500;
/// `numeric` has at most 131,072 digits before the point and 16,383 behind it.
const LONGEST_NUMBER: usize = 1_000;
const GREATEST_EXPONENT: u32 = 10_000;

/// The text for `mt_events.data`.
pub(crate) fn body(data: &Payload) -> Cow<'_, str> {
    let text = match data.kind() {
        ContentKind::Json => std::str::from_utf8(data.bytes()).ok().and_then(storable),
        _ => None,
    };
    text.unwrap_or_else(|| {
        Cow::Owned(format!("{{\"$binary\":\"{}\"}}", STANDARD.encode(data.bytes())))
    })
}

/// JSON that `jsonb` takes: what it refuses is replaced by U+FFFD, or a number by its text. `None` for
/// JSON that is too deep.
fn storable(text: &str) -> Option<Cow<'_, str>> {
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at, mut depth) = (String::new(), 0, 0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = string(text, at + 1, &mut out, &mut copied),
            b'-' | b'0'..=b'9' => {
                let rest = text.get(at..)?;
                let is_part = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
                let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                let number = rest.get(..length)?;
                if is_too_large(number) {
                    out.push_str(text.get(copied..at)?);
                    out.push('"');
                    out.push_str(number);
                    out.push('"');
                    copied = at + length;
                }
                at += length;
            }
            _ => {
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth > DEEPEST {
                    return None;
                }
                at += 1;
            }
        }
    }
    if copied == 0 {
        return Some(Cow::Borrowed(text));
    }
    out.push_str(text.get(copied..)?);
    Some(Cow::Owned(out))
}

/// Passes over a string, from behind its first quote to behind its last. Replaces escapes that `jsonb`
/// refuses.
fn string(text: &str, mut at: usize, out: &mut String, copied: &mut usize) -> usize {
    let bytes = text.as_bytes();
    let escaped = |at: usize| {
        let digits = text.get(at..).and_then(|rest| rest.strip_prefix("\\u"))?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => match escaped(at) {
                None => at += 2,
                Some(0xD800..=0xDBFF) if matches!(escaped(at + 6), Some(0xDC00..=0xDFFF)) => {
                    at += 12;
                }
                Some(0 | 0xD800..=0xDFFF) => {
                    out.push_str(text.get(*copied..at).unwrap_or_default());
                    out.push('\u{FFFD}');
                    at += 6;
                    *copied = at;
                }
                Some(_) => at += 6,
            },
            _ => at += 1,
        }
    }
    at
}

fn is_too_large(number: &str) -> bool {
    let exponent = number.split(['e', 'E']).nth(1).unwrap_or("0");
    let exponent = exponent.trim_start_matches(['+', '-']).parse::<u32>();
    number.len() > LONGEST_NUMBER || exponent.map_or(true, |e| e > GREATEST_EXPONENT)
}

/// Refuses an event that `jsonb` would not give back with the same values, or whose metadata has no place
/// in Marten's columns.
pub(crate) fn check(data: &Payload, metadata: &Payload, columns: Columns) -> Result<()> {
    let text = |payload: &Payload| std::str::from_utf8(payload.bytes()).map(str::to_owned);
    let is_kept = |text: &str| matches!(storable(text), Some(Cow::Borrowed(_)));
    let refused = |what: &str| {
        let message = format!(
            "PostgreSQL's `jsonb` cannot hold {what}: `\\u0000`, half of a surrogate pair, a number beyond \
             `numeric`, or {DEEPEST} levels; open the store with `payloads=exact`"
        );
        Err(Error::new(ErrorKind::InvalidInput, message))
    };
    if data.kind() == ContentKind::Json && !text(data).is_ok_and(|text| is_kept(&text)) {
        return refused("the data");
    }
    if metadata.bytes().is_empty() {
        return Ok(());
    }
    let members = match metadata.kind() {
        ContentKind::Json => {
            serde_json::from_slice::<BTreeMap<String, &RawValue>>(metadata.bytes())
        }
        _ => serde_json::from_str("[]"),
    };
    let Ok(members) = members else {
        return Err(Error::unsupported(
            "place for metadata that is no JSON object, with `payloads=jsonb`",
        ));
    };
    if !text(metadata).is_ok_and(|text| is_kept(&text)) {
        return refused("the metadata");
    }
    let Columns { headers, correlation, causation } = columns;
    let has_column = |(name, value): &(&String, &&RawValue)| {
        let is_text = value.get().starts_with('"');
        headers
            || is_text && correlation && *name == "$correlationId"
            || is_text && causation && *name == "$causationId"
    };
    match members.iter().find(|member| !has_column(member)) {
        None => Ok(()),
        Some((name, _)) => Err(Error::unsupported(&format!(
            "place for the metadata {name:?}, with `payloads=jsonb`: the .NET program has no column for it \
             (`Events.MetadataConfig`)"
        ))),
    }
}

/// Which columns for metadata the .NET program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) headers: bool,
    pub(crate) correlation: bool,
    pub(crate) causation: bool,
}

/// What of an event's metadata goes into these columns.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) headers: Option<String>,
    pub(crate) correlation: Option<String>,
    pub(crate) causation: Option<String>,
}

/// Only an object goes there: a .NET program cannot read other headers.
pub(crate) fn headers(metadata: &Payload, columns: Columns) -> Headers {
    let mut found = Headers::default();
    let Columns { headers, correlation, causation } = columns;
    if metadata.kind() != ContentKind::Json || !(headers || correlation || causation) {
        return found;
    }
    let Ok(mut members) =
        serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(metadata.bytes())
    else {
        return found;
    };
    let mut take = |name: &str, has_column: bool| {
        let text: Option<String> =
            members.get(name).and_then(|value| serde_json::from_str(value.get()).ok());
        let text = text.filter(|text| has_column && !text.contains('\0'));
        if text.is_some() {
            members.remove(name);
        }
        text
    };
    found.correlation = take("$correlationId", correlation);
    found.causation = take("$causationId", causation);
    if headers && !members.is_empty() {
        let text = serde_json::to_string(&members).ok();
        found.headers = text.and_then(|text| storable(&text).map(Cow::into_owned));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_jsonb_refuses_is_replaced() {
        for text in [
            r#"{"a":[1,-0,1e2,1.50],"b":"\u00e9 \\u0000 \ud83d\ude00 \"","c":null}"#,
            "1",
            "\"e1200000\"",
            "[]",
        ] {
            assert!(matches!(storable(text), Some(Cow::Borrowed(same)) if same == text), "{text}");
        }
        for (text, stored) in [
            (r#"{"a\u0000":"x\u0000y"}"#, "{\"a\u{FFFD}\":\"x\u{FFFD}y\"}"),
            (
                r#"["\ud800","\udc00\ud800","\uD83D\uDE00"]"#,
                "[\"\u{FFFD}\",\"\u{FFFD}\u{FFFD}\",\"\\uD83D\\uDE00\"]",
            ),
            ("[1e200000,-1E-200000,2]", "[\"1e200000\",\"-1E-200000\",2]"),
        ] {
            assert_eq!(storable(text).as_deref(), Some(stored), "{text}");
        }
        assert_eq!(storable(&"[".repeat(DEEPEST + 1)), None);
        assert_eq!(body(&Payload::binary(vec![0, 255])), r#"{"$binary":"AP8="}"#);
    }

    #[test]
    fn what_jsonb_cannot_hold_is_refused_without_the_bytes() {
        let none = Columns { headers: false, correlation: false, causation: false };
        let all = Columns { headers: true, correlation: true, causation: true };
        let json = |text: &str| Payload::json_text(text.as_bytes().to_vec()).unwrap();
        let empty = Payload::empty();
        assert!(check(&json(r#"{"a":1e2}"#), &empty, none).is_ok());
        assert!(check(&Payload::binary(vec![0]), &empty, none).is_ok());
        for data in [r#"{"a":"\u0000"}"#, "1e200000", r#""\ud800""#] {
            let error = check(&json(data), &empty, all).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{data}");
        }
        let data = json("{}");
        let correlated = json(r#"{"$correlationId":"c"}"#);
        assert!(check(&data, &correlated, Columns { correlation: true, ..none }).is_ok());
        assert!(check(&data, &json(r#"{"a":{"b":[1]}}"#), all).is_ok());
        for (metadata, columns) in [
            (correlated, none),
            (json(r#"{"$correlationId":1}"#), Columns { correlation: true, ..none }),
            (json("[1]"), all),
            (Payload::binary(vec![1]), all),
        ] {
            let error = check(&data, &metadata, columns).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{metadata:?}");
        }
    }

    #[test]
    fn metadata_goes_to_the_columns_that_are_there() {
        let all = Columns { headers: true, correlation: true, causation: true };
        let metadata = Payload::json_text(
            r#"{"$correlationId":"c","$causationId":"d","user":{"n":1.10}}"#.as_bytes(),
        )
        .unwrap();
        let found = headers(&metadata, all);
        assert_eq!(found.headers.as_deref(), Some(r#"{"user":{"n":1.10}}"#));
        assert_eq!(
            (found.correlation.as_deref(), found.causation.as_deref()),
            (Some("c"), Some("d"))
        );
        let found = headers(&metadata, Columns { causation: false, ..all });
        assert_eq!(found.headers.as_deref(), Some(r#"{"$causationId":"d","user":{"n":1.10}}"#));
        let none = Columns { headers: false, correlation: false, causation: false };
        for (metadata, columns) in [
            (metadata, none),
            (Payload::json_text(&b"[1]"[..]).unwrap(), all),
            (Payload::binary(&b"{}"[..]), all),
            (Payload::empty(), all),
        ] {
            assert_eq!(headers(&metadata, columns), Headers::default());
        }
    }
}
