//! From a variant of an enum to a stored event and back: the name of the variant is the event's type,
//! and the content of the variant is the event's data, as JSON.
//!
//! `serde` itself sees a variant as a name and a content. So the content is stored without anything
//! around it, and no macros are needed beside those of `serde`.

use std::error::Error as StdError;

use annals_core::{ContentKind, ErrorKind, Payload};
use bytes::Bytes;
use serde::{
    Deserializer, Serialize,
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, VariantAccess,
        Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Value, de::SliceRead, error::Result};

/// The data of a variant without content. If the variant gets fields with defaults later, it can
/// still read this.
const NOTHING: &[u8] = b"{}";

/// The name and the content of the variant.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] if JSON cannot hold the event.
pub(crate) fn encode<E: Serialize>(event: &E) -> annals_core::Result<(String, Payload)> {
    // `serde_json` writes a variant as `{"name":content}` or `"name"`, always without spaces.
    let text = Payload::json(event)?.bytes().clone();
    let parts = match *text {
        [b'"', ..] => Some((0..text.len(), Bytes::from_static(NOTHING))),
        [b'{', b'"', ..] => end_of_string(&text, 2).and_then(|end| {
            let content = (end + 1)..text.len().checked_sub(1)?;
            (content.start < content.end).then(|| (1..end, text.slice(content)))
        }),
        _ => None,
    };
    let not_an_enum = || annals_core::Error::new(ErrorKind::InvalidInput, NOT_AN_ENUM);
    let (name, content) = parts.ok_or_else(not_an_enum)?;
    let name = serde_json::from_slice(text.get(name).unwrap_or_default());
    let name = name.map_err(|e: Error| not_an_enum().with_source(e))?;
    Ok((name, Payload::from_stored(ContentKind::Json, content)))
}

/// Why an event is not written: a text without the event's data, and the cause, which may quote it.
pub(crate) type Unreadable = (&'static str, Option<Box<dyn StdError + Send + Sync>>);

/// Checks that an event can be read again, and is then written as it was.
pub(crate) fn check_readable<E: Serialize + DeserializeOwned>(
    name: &str,
    data: &Payload,
) -> std::result::Result<(), Unreadable> {
    const OTHER: &str =
        "would be read as another one: some part of it is not read as it is written";
    let read: E =
        decode(name, data.bytes()).map_err(|e| ("could not be read again", Some(e.into())))?;
    let again = encode(&read).map_err(|e| (OTHER, Some(e.into())))?;
    if again.0 == name && is_same_json(again.1.bytes(), data.bytes()) {
        return Ok(());
    }
    Err((OTHER, None))
}

/// A state as JSON, for a snapshot.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] if the state would not be read as it is written.
pub(crate) fn encode_state<S: Serialize + DeserializeOwned>(
    state: &S,
) -> annals_core::Result<Payload> {
    let data = Payload::json(state)?;
    let again = Payload::json(&data.decode::<S>()?)?;
    if is_same_json(again.bytes(), data.bytes()) {
        return Ok(data);
    }
    let message =
        "the state would be read as another one: some part of it is not read as it is written";
    Err(annals_core::Error::new(ErrorKind::InvalidInput, message))
}

/// Whether two JSON texts are equal, apart from the order of members and elements: each `HashMap` and
/// `HashSet` has an order of its own.
fn is_same_json(one: &[u8], other: &[u8]) -> bool {
    fn sorted(value: Value) -> Value {
        match value {
            Value::Array(elements) => {
                let mut elements: Vec<_> = elements.into_iter().map(sorted).collect();
                elements.sort_by_cached_key(Value::to_string);
                Value::Array(elements)
            }
            Value::Object(members) => Value::Object(
                members.into_iter().map(|(name, value)| (name, sorted(value))).collect(),
            ),
            other => other,
        }
    }
    let parse = |text| serde_json::from_slice(text).map(sorted).ok();
    one == other || parse(one).is_some_and(|one| Some(one) == parse(other))
}

/// The index after the quote that ends the string whose content begins at `start`.
fn end_of_string(text: &[u8], start: usize) -> Option<usize> {
    let mut escaped = false;
    let mut rest = text.get(start..)?.iter();
    let length = rest.position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })?;
    Some(start + length + 1)
}

/// The variant with this name and this content.
pub(crate) fn decode<E: DeserializeOwned>(name: &str, data: &[u8]) -> Result<E> {
    E::deserialize(Variant { name, data })
}

/// The names of all variants, including those that are only read (`#[serde(alias)]`). `None` if the
/// type is not an enum whose variants can be stored.
pub(crate) fn names<E: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut names = None;
    // This always fails, after the type has passed the names of its variants.
    drop(E::deserialize(Probe { names: &mut names }));
    names
}

/// The error for a type that is not an enum whose variants can be stored.
pub(crate) const NOT_AN_ENUM: &str = "events must be an enum that derives `Serialize` and \
    `Deserialize` without `tag`, `content` or `untagged`: its variants are the types of events";

/// A deserializer of a variant whose name is not part of the data.
struct Variant<'de> {
    name: &'de str,
    data: &'de [u8],
}

impl<'de> Deserializer<'de> for Variant<'de> {
    type Error = Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_enum(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        Err(de::Error::custom(NOT_AN_ENUM))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Error;
    type Variant = Content<'de>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Content<'de>)> {
        let name: StrDeserializer<'de, Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Content { data: self.data }))
    }
}

struct Content<'de> {
    data: &'de [u8],
}

impl<'de> Content<'de> {
    fn read<T>(
        self,
        read: impl FnOnce(&mut serde_json::Deserializer<SliceRead<'de>>) -> Result<T>,
    ) -> Result<T> {
        let mut json = serde_json::Deserializer::from_slice(self.data);
        let value = read(&mut json)?;
        json.end()?;
        Ok(value)
    }
}

impl<'de> VariantAccess<'de> for Content<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<()> {
        // Ignore the data: an older version of the variant may have had content.
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value> {
        self.read(|json| seed.deserialize(json))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.read(|json| json.deserialize_tuple(len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.read(|json| json.deserialize_struct("", fields, visitor))
    }
}

/// A deserializer that only takes the names of an enum's variants.
struct Probe<'a> {
    names: &'a mut Option<&'static [&'static str]>,
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        _: V,
    ) -> Result<V::Value> {
        *self.names = Some(names);
        Err(de::Error::custom(NOT_AN_ENUM))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        Err(de::Error::custom(NOT_AN_ENUM))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests;
