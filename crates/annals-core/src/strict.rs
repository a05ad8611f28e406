//! A serializer that refuses what JSON cannot tell apart.
//!
//! `serde_json` writes a number that is not finite as `null`, and `Some` of a value that is written as
//! `null`, such as `Some(None)`, like `None`. The first cannot be read again, and the second is read as
//! another value. An event that was written so would stay unreadable, or wrong, for ever.

use serde::{
    Serialize, Serializer,
    ser::{
        Error as _, Impossible, SerializeMap, SerializeSeq, SerializeStruct,
        SerializeStructVariant, SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
    },
};

/// Passes everything on to another serializer, apart from what it refuses.
pub(crate) struct Strict<S>(pub(crate) S);

/// A value that is serialized by [`Strict`], whatever the serializer.
struct Checked<'a, T: ?Sized>(&'a T);

impl<T: Serialize + ?Sized> Serialize for Checked<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Strict(serializer))
    }
}

fn finite<E: serde::ser::Error>(is_finite: bool) -> Result<(), E> {
    if is_finite {
        return Ok(());
    }
    Err(E::custom("a number is infinite or not a number (NaN), which JSON cannot hold"))
}

macro_rules! pass_on {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        $(fn $name(self $(, $arg: $type)*) -> Result<S::Ok, S::Error> { self.0.$name($($arg),*) })*
    };
}

macro_rules! begin {
    ($($name:ident($($arg:ident: $type:ty),*) -> $made:ident;)*) => {
        $(
            type $made = Strict<S::$made>;
        )*
        $(fn $name(self $(, $arg: $type)*) -> Result<Strict<S::$made>, S::Error> {
            self.0.$name($($arg),*).map(Strict)
        })*
    };
}

impl<S: Serializer> Serializer for Strict<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_f32(self, v: f32) -> Result<S::Ok, S::Error> {
        finite(v.is_finite())?;
        self.0.serialize_f32(v)
    }

    fn serialize_f64(self, v: f64) -> Result<S::Ok, S::Error> {
        finite(v.is_finite())?;
        self.0.serialize_f64(v)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        if value.serialize(IsNull).is_ok() {
            let message = "`Some` of a value that JSON holds as `null`, such as `Some(None)` or \
                           `Some(())`, would be read as `None`";
            return Err(S::Error::custom(message));
        }
        self.0.serialize_some(&Checked(value))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Checked(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_variant(name, index, variant, &Checked(value))
    }

    pass_on! {
        serialize_bool(v: bool);
        serialize_i8(v: i8);
        serialize_i16(v: i16);
        serialize_i32(v: i32);
        serialize_i64(v: i64);
        serialize_i128(v: i128);
        serialize_u8(v: u8);
        serialize_u16(v: u16);
        serialize_u32(v: u32);
        serialize_u64(v: u64);
        serialize_u128(v: u128);
        serialize_char(v: char);
        serialize_str(v: &str);
        serialize_bytes(v: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: &'static str);
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str);
    }

    begin! {
        serialize_seq(len: Option<usize>) -> SerializeSeq;
        serialize_tuple(len: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(
            name: &'static str, index: u32, variant: &'static str, len: usize
        ) -> SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> SerializeMap;
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct;
        serialize_struct_variant(
            name: &'static str, index: u32, variant: &'static str, len: usize
        ) -> SerializeStructVariant;
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! parts {
    ($($of:ident: $($name:ident($($key:ident)?))+;)*) => {
        $(impl<S: $of> $of for Strict<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            $(fn $name<T: Serialize + ?Sized>(
                &mut self,
                $($key: &'static str,)?
                value: &T,
            ) -> Result<(), S::Error> {
                self.0.$name($($key,)? &Checked(value))
            })+

            fn end(self) -> Result<S::Ok, S::Error> {
                self.0.end()
            }
        })*
    };
}

parts! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeMap: serialize_key() serialize_value();
    SerializeStruct: serialize_field(key);
    SerializeStructVariant: serialize_field(key);
}

/// Succeeds if a value is written as `null`, and fails at once if not.
struct IsNull;

/// The value is not written as `null`.
#[derive(Debug)]
struct NotNull;

impl std::fmt::Display for NotNull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not null")
    }
}

impl std::error::Error for NotNull {}

impl serde::ser::Error for NotNull {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

macro_rules! not_null {
    ($($name:ident($($type:ty),*) -> $made:ty;)*) => {
        $(fn $name(self $(, _: $type)*) -> Result<$made, NotNull> { Err(NotNull) })*
    };
}

type Never = Impossible<(), NotNull>;

impl Serializer for IsNull {
    type Ok = ();
    type Error = NotNull;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    fn serialize_none(self) -> Result<(), NotNull> {
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), NotNull> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), NotNull> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotNull> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), NotNull> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), NotNull> {
        Err(NotNull)
    }

    not_null! {
        serialize_bool(bool) -> ();
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_i128(i128) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_u128(u128) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_seq(Option<usize>) -> Never;
        serialize_tuple(usize) -> Never;
        serialize_tuple_struct(&'static str, usize) -> Never;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
        serialize_map(Option<usize>) -> Never;
        serialize_struct(&'static str, usize) -> Never;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    #[derive(Serialize)]
    struct Unit;
    #[derive(Serialize)]
    struct Newtype<T>(T);
    #[derive(Serialize)]
    struct Tuple<T>(u8, T);
    #[derive(Serialize)]
    struct Struct<T> {
        field: T,
    }
    #[derive(Serialize)]
    enum Enum<T> {
        Unit,
        Newtype(T),
        Tuple(u8, T),
        Struct { field: T },
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Untagged<T> {
        Unit,
        Value(T),
    }
    #[derive(Serialize)]
    #[serde(tag = "type", content = "content")]
    enum Tagged<T> {
        Value(T),
    }
    #[derive(Serialize)]
    struct Flat<T> {
        #[serde(flatten)]
        rest: BTreeMap<&'static str, T>,
    }

    fn strict<T: Serialize>(value: &T) -> serde_json::Result<Value> {
        value.serialize(Strict(serde_json::value::Serializer))
    }

    /// Serializes a value wherever a value can stand. Returns how often it is refused, and of how many.
    fn everywhere<T: Serialize + Copy>(value: T) -> (usize, usize) {
        let map = BTreeMap::from([("key", value)]);
        let written = [
            strict(&value),
            strict(&[value]),
            strict(&vec![value]),
            strict(&(1, value)),
            strict(&map),
            strict(&Flat { rest: map }),
            strict(&Newtype(value)),
            strict(&Tuple(1, value)),
            strict(&Struct { field: value }),
            strict(&Enum::Newtype(value)),
            strict(&Enum::Tuple(1, value)),
            strict(&Enum::Struct { field: value }),
            strict(&Untagged::Value(value)),
            strict(&Tagged::Value(value)),
            strict(&vec![Some(Newtype(Struct { field: (value, 1) }))]),
        ];
        (written.iter().filter(|written| written.is_err()).count(), written.len())
    }

    #[test]
    fn what_json_cannot_hold_is_refused_wherever_it_stands() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let (refused, all) = everywhere(number);
            assert_eq!(refused, all, "{number}");
            #[allow(clippy::cast_possible_truncation, reason = "no number is finite")]
            let (refused, all) = everywhere(number as f32);
            assert_eq!(refused, all, "{number}");
        }
        let (refused, all) = everywhere(Some(None::<u8>));
        assert_eq!(refused, all);
        let (refused, all) = everywhere(Some(()));
        assert_eq!(refused, all);
        for refused in [
            strict(&Some(Unit)),
            strict(&Some(Newtype(None::<u8>))),
            strict(&Some(Value::Null)),
            strict(&Some(Untagged::<u8>::Unit)),
            strict(&Some(Some(Some(None::<u8>)))),
        ] {
            assert!(refused.is_err(), "{refused:?}");
        }
        // As a key, too.
        assert!(strict(&BTreeMap::from([(Some(None::<u8>), 1)])).is_err());
    }

    #[test]
    fn all_else_is_written_as_it_is() {
        assert_eq!(everywhere(1.5).0 + everywhere(f32::MAX).0 + everywhere(u64::MAX).0, 0);
        assert_eq!(everywhere(None::<u8>).0 + everywhere(Some(0)).0 + everywhere(()).0, 0);
        let unit = Enum::<u8>::Unit;
        assert_eq!(strict(&(Some(unit), Some(""), Some([0; 0]))).unwrap(), json!(["Unit", "", []]));
        assert_eq!(strict(&Some(Newtype(false))).unwrap(), json!(false));
        assert_eq!(strict(&Some(Struct { field: None::<u8> })).unwrap(), json!({ "field": null }));
    }
}
