//! The headers of an event that was read: the entries of a map of strings, each as its bytes on the wire.
//! A `HashMap` for each event would cost more than all else of it.

use prost::{
    bytes::{BufMut, Bytes, BytesMut},
    encoding::{decode_varint, encode_varint},
};

/// The field of the key, with the wire type of bytes.
const KEY: u8 = (1 << 3) | 2;
/// The field of the value.
const VALUE: u8 = (2 << 3) | 2;

/// The entry of a header.
#[must_use]
pub fn encode(key: &str, value: &str) -> Bytes {
    let mut entry = BytesMut::with_capacity(key.len() + value.len() + 8);
    for (field, text) in [(KEY, key), (VALUE, value)] {
        entry.put_u8(field);
        encode_varint(text.len() as u64, &mut entry);
        entry.put_slice(text.as_bytes());
    }
    entry.freeze()
}

/// The key and the value of an entry. `None` if it is no such entry.
#[must_use]
pub fn decode(mut entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut key, mut value) = (&[][..], &[][..]);
    while let Some((field, mut rest)) = entry.split_first() {
        let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
        let (text, rest) = rest.split_at_checked(length)?;
        match *field {
            KEY => key = text,
            VALUE => value = text,
            _ => return None,
        }
        entry = rest;
    }
    Some((key, value))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use prost::Message;

    use super::*;
    use crate::shared::read_event::RecordedEvent;

    /// As the protocol describes it.
    #[derive(Clone, PartialEq, Message)]
    struct WithMap {
        #[prost(map = "string, string", tag = "6")]
        metadata: HashMap<String, String>,
    }

    #[test]
    fn headers_are_a_map_on_the_wire() {
        let headers = HashMap::from([
            ("type".to_owned(), "Placed".to_owned()),
            ("created".to_owned(), "9".repeat(200)),
            ("empty".to_owned(), String::new()),
        ]);
        let event = RecordedEvent {
            metadata: headers.iter().map(|(key, value)| encode(key, value)).collect(),
            ..RecordedEvent::default()
        };
        let map = WithMap::decode(&*event.encode_to_vec()).unwrap();
        assert_eq!(map.metadata, headers);
        let event = RecordedEvent::decode(&*map.encode_to_vec()).unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let read = event.metadata.iter().map(|entry| decode(entry).unwrap());
        assert_eq!(read.map(|(k, v)| (text(k), text(v))).collect::<HashMap<_, _>>(), headers);
        for wrong in [&[KEY][..], &[KEY, 9, b'a'], &[(3 << 3) | 2, 0], &[0, 0]] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }
}
