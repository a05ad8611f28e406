//! The bytes of a sealed payload, format 1:
//!
//! | bytes | content |
//! |---|---|
//! | 16 | [`MAGIC`] |
//! | 1 | the format: 1 |
//! | 1 | the content kind of the data: 1 JSON, 2 binary |
//! | 1 | the length of the subject |
//! | 1–255 | the subject |
//! | 8 | a check sum: the first bytes of the SHA-256 of everything before it |
//! | 12 | the nonce |
//! | as the data | the data, encrypted by AES-256-GCM |
//! | 16 | the tag of AES-256-GCM |
//!
//! The associated data of AES-GCM is everything before the check sum, then the length of the stream
//! id in eight bytes, the stream id, the sixteen bytes of the event id, and the event type.

use std::fmt;

use annals_core::{
    ContentKind, Error, ErrorKind, EventType, MAX_NAME_BYTES, Payload, Result, StreamId,
};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
};
use uuid::Uuid;

use super::{Key, Subject, random::random};

/// The first bytes of every sealed payload. They are random, so that no other payload begins with
/// them by chance, and not valid UTF-8, so that no JSON text can.
const MAGIC: [u8; 16] = [
    0xd6, 0xd6, 0xb1, 0xd6, 0xdf, 0xfc, 0xd1, 0x7d, 0x10, 0x7c, 0x38, 0x59, 0x02, 0x6c, 0x9b, 0xf1,
];

/// A binary payload that differs from the magic in at most this many bits counts as a damaged sealed
/// payload. Random bytes come that near with a probability of 2⁻⁸⁷.
const NEAR_MAGIC: u32 = 8;

const FORMAT: u8 = 1;

/// The length of the check sum. It reveals a damaged header even without the key: the tag of AES-GCM
/// can only be checked with it.
const CHECK_LEN: usize = 8;

const TAG_LEN: usize = 16;

/// The length of everything but the subject and the data: magic, format, content kind, length of the
/// subject, check sum, nonce, tag.
pub(super) const OVERHEAD: usize = MAGIC.len() + 3 + CHECK_LEN + NONCE_LEN + TAG_LEN;

/// The event that a sealed payload is bound to.
pub(super) struct Binding<'a> {
    pub(super) stream: &'a StreamId,
    pub(super) id: Uuid,
    pub(super) event_type: &'a EventType,
}

/// Why a sealed payload cannot be opened.
#[derive(Debug)]
pub(super) enum Fault {
    /// A part is missing, or the check sum is wrong.
    Damaged,
    /// The format is unknown.
    Format(u8),
    /// Decryption failed.
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
            Self::Format(format) => write!(
                f,
                "the data is sealed in format {format}, which this version of annals does not know"
            ),
            Self::Refused => f.write_str(
                "the sealed data is damaged, or was sealed with another key or for another event",
            ),
        }
    }
}

/// Why a payload is not a sealed one that can be opened.
pub(super) enum Unsealed {
    /// It was never sealed.
    Plain,
    Fault(Fault),
}

/// The parts of a sealed payload.
pub(super) struct Sealed<'a> {
    pub(super) subject: Subject,
    kind: ContentKind,
    /// Everything before the check sum.
    head: &'a [u8],
    nonce: [u8; NONCE_LEN],
    /// The encrypted data and the tag.
    body: &'a [u8],
}

impl<'a> Sealed<'a> {
    pub(super) fn parse(payload: &'a Payload) -> Result<Self, Unsealed> {
        let (magic, rest) = payload.bytes().split_first_chunk().ok_or(Unsealed::Plain)?;
        match distance(magic) {
            0 => Self::parse_parts(payload.bytes(), rest).map_err(Unsealed::Fault),
            1..=NEAR_MAGIC if payload.kind() == ContentKind::Binary => {
                Err(Unsealed::Fault(Fault::Damaged))
            }
            _ => Err(Unsealed::Plain),
        }
    }

    /// `rest` is what follows the magic in `bytes`.
    fn parse_parts(bytes: &'a [u8], rest: &'a [u8]) -> Result<Self, Fault> {
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

    pub(super) fn open(&self, key: &Key, binding: &Binding<'_>) -> Result<Payload, Fault> {
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let mut bytes = self.body.to_vec();
        let len = cipher(key)
            .map_err(|_| Fault::Refused)?
            .open_in_place(nonce, associated_data(self.head, binding), &mut bytes)
            .map_err(|_| Fault::Refused)?
            .len();
        bytes.truncate(len);
        Ok(Payload::from_stored(self.kind, bytes))
    }
}

pub(super) fn seal(
    key: &Key,
    subject: &Subject,
    binding: &Binding<'_>,
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
    let aad = associated_data(&sealed, binding);

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

/// The length of each part but the last is fixed or written down, so that no two events give the
/// same bytes.
fn associated_data(head: &[u8], binding: &Binding<'_>) -> Aad<Vec<u8>> {
    let stream = binding.stream.as_str().as_bytes();
    let len = (stream.len() as u64).to_be_bytes();
    let event_type = binding.event_type.as_str().as_bytes();
    Aad::from([head, &len, stream, binding.id.as_bytes(), event_type].concat())
}

fn check_sum(head: &[u8]) -> [u8; CHECK_LEN] {
    let digest = digest::digest(&digest::SHA256, head);
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

/// The number of bits that differ from the magic.
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
