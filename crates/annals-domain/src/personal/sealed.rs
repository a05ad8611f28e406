//! The bytes of a sealed payload, format 1:
//!
//! | bytes | what |
//! |---|---|
//! | 16 | [`MAGIC`] |
//! | 1 | the format: 1 |
//! | 1 | the content kind of the data: 1 JSON, 2 binary |
//! | 1 | the length of the subject |
//! | 1–255 | the subject |
//! | 8 | the first bytes of the SHA-256 of all before |
//! | 12 | the nonce |
//! | as the data | the data, by AES-256-GCM |
//! | 16 | its tag |
//!
//! The associated data of AES-GCM is all before the check sum, then the stream id after its length
//! in eight bytes, the sixteen bytes of the event id, and the event type.

use std::fmt;

use annals_core::{
    ContentKind, Error, ErrorKind, EventType, MAX_NAME_BYTES, Payload, Result, StreamId,
};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
};
use uuid::Uuid;

use super::{Key, Subject, random};

/// What every sealed payload begins with: random, so that nothing else does; and not UTF-8, so
/// that no JSON text can.
const MAGIC: [u8; 16] = [
    0xd6, 0xd6, 0xb1, 0xd6, 0xdf, 0xfc, 0xd1, 0x7d, 0x10, 0x7c, 0x38, 0x59, 0x02, 0x6c, 0x9b, 0xf1,
];

/// With so many bits of the magic wrong, a binary payload is a damaged sealed one: that random bytes
/// come so near has a chance of 2⁻⁸⁷.
const NEAR_MAGIC: u32 = 8;

const FORMAT: u8 = 1;

/// Tells a damaged header from that of another subject where there is no key to check the tag with.
const CHECK_LEN: usize = 8;

const TAG_LEN: usize = 16;

/// All but the subject and the data: magic, format, content kind, length of the subject, check sum,
/// nonce, tag.
pub(super) const OVERHEAD: usize = MAGIC.len() + 3 + CHECK_LEN + NONCE_LEN + TAG_LEN;

/// The event that a payload belongs to.
pub(super) struct Place<'a> {
    pub(super) stream: &'a StreamId,
    pub(super) id: Uuid,
    pub(super) event_type: &'a EventType,
}

/// Why a sealed payload cannot be opened.
#[derive(Debug)]
pub(super) enum Fault {
    Damaged,
    Format(u8),
    Refused,
}

impl Fault {
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged | Self::Refused => ErrorKind::Corrupt,
            Self::Format(_) => ErrorKind::Incompatible,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str("the sealed data is damaged"),
            Self::Format(format) => write!(f, "it is sealed in the unknown format {format}"),
            Self::Refused => f.write_str(
                "the sealed data is damaged, or was sealed with another key or for another event",
            ),
        }
    }
}

/// What a payload is found to be.
pub(super) enum Found<'a> {
    Plain,
    Sealed(Sealed<'a>),
    Damaged(Fault),
}

/// A sealed payload, taken apart.
pub(super) struct Sealed<'a> {
    pub(super) subject: Subject,
    kind: ContentKind,
    /// All before the check sum.
    head: &'a [u8],
    nonce: [u8; NONCE_LEN],
    /// The encrypted data, and the tag.
    body: &'a [u8],
}

impl<'a> Sealed<'a> {
    pub(super) fn find(payload: &'a Payload) -> Found<'a> {
        let Some((magic, rest)) = payload.bytes().split_first_chunk() else {
            return Found::Plain;
        };
        match distance(magic) {
            0 => Self::parse(payload.bytes(), rest).map_or_else(Found::Damaged, Found::Sealed),
            1..=NEAR_MAGIC if payload.kind() == ContentKind::Binary => {
                Found::Damaged(Fault::Damaged)
            }
            _ => Found::Plain,
        }
    }

    fn parse(bytes: &'a [u8], rest: &'a [u8]) -> Result<Self, Fault> {
        let (&[format, kind, subject_len], rest) =
            rest.split_first_chunk().ok_or(Fault::Damaged)?;
        if format != FORMAT {
            return Err(Fault::Format(format));
        }
        let head_len = MAGIC.len() + 3 + usize::from(subject_len);
        let parts = || {
            let head = bytes.get(..head_len)?;
            let (subject, rest) = rest.split_at_checked(subject_len.into())?;
            let (check, rest) = rest.split_first_chunk()?;
            let (nonce, body) = rest.split_first_chunk()?;
            (*check == check_sum(head) && body.len() >= TAG_LEN).then_some(())?;
            let subject = Subject::new(std::str::from_utf8(subject).ok()?).ok()?;
            Some(Self { subject, kind: kind_of(kind)?, head, nonce: *nonce, body })
        };
        parts().ok_or(Fault::Damaged)
    }

    pub(super) fn open(&self, key: &Key, place: &Place<'_>) -> Result<Payload, Fault> {
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let mut bytes = self.body.to_vec();
        let len = cipher(key)
            .map_err(|_| Fault::Refused)?
            .open_in_place(nonce, associated(self.head, place), &mut bytes)
            .map_err(|_| Fault::Refused)?
            .len();
        bytes.truncate(len);
        Ok(Payload::from_stored(self.kind, bytes))
    }
}

pub(super) fn seal(
    key: &Key,
    subject: &Subject,
    place: &Place<'_>,
    data: &Payload,
) -> Result<Payload> {
    let subject_len = u8::try_from(subject.as_str().len()).map_err(|_| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("the subject has more than {MAX_NAME_BYTES} bytes"),
        )
    })?;
    let nonce: [u8; NONCE_LEN] = random()?;

    let mut sealed = Vec::with_capacity(OVERHEAD + subject.as_str().len() + data.len());
    sealed.extend_from_slice(&MAGIC);
    sealed.extend_from_slice(&[FORMAT, kind_byte(data.kind()), subject_len]);
    sealed.extend_from_slice(subject.as_str().as_bytes());
    let aad = associated(&sealed, place);

    let mut body = data.bytes().to_vec();
    cipher(key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body)
        .map_err(|_| Error::new(ErrorKind::LimitExceeded, "the data is too long to be sealed"))?;

    let check = check_sum(&sealed);
    sealed.extend_from_slice(&check);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(&body);
    Ok(Payload::binary(sealed))
}

fn cipher(key: &Key) -> Result<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key.as_bytes())
        .map(LessSafeKey::new)
        .map_err(|_| Error::new(ErrorKind::Internal, "the key cannot be used"))
}

/// Only the last part has no length of its own, so that no two places give the same bytes.
fn associated(head: &[u8], place: &Place<'_>) -> Aad<Vec<u8>> {
    let stream = place.stream.as_str().as_bytes();
    let len = (stream.len() as u64).to_be_bytes();
    let event_type = place.event_type.as_str().as_bytes();
    Aad::from([head, &len, stream, place.id.as_bytes(), event_type].concat())
}

fn check_sum(head: &[u8]) -> [u8; CHECK_LEN] {
    let digest = digest::digest(&digest::SHA256, head);
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

/// How many bits differ from the magic.
fn distance(bytes: &[u8; MAGIC.len()]) -> u32 {
    (u128::from_be_bytes(*bytes) ^ u128::from_be_bytes(MAGIC)).count_ones()
}

const fn kind_byte(kind: ContentKind) -> u8 {
    match kind {
        ContentKind::Json => 1,
        ContentKind::Binary => 2,
    }
}

const fn kind_of(byte: u8) -> Option<ContentKind> {
    match byte {
        1 => Some(ContentKind::Json),
        2 => Some(ContentKind::Binary),
        _ => None,
    }
}
