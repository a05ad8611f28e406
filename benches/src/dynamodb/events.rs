//! The events to store. Data and ids are the same in every run.

use annals_core::{NewEvent, Payload, StreamId};
use fastrand::Rng;
use uuid::Builder;

#[allow(unreachable_pub, clippy::indexing_slicing, reason = "shared with the peers' program")]
#[path = "../../peers-dynamodb/src/payload.rs"]
mod payload;

/// The peers' program uses the same seed.
const SEED: u64 = 20_260_801;
const TYPE: &str = "OrderChanged";
/// The time in the ids, which are UUIDs of version 7: a moment in 2025.
const MILLIS: u64 = 0x0198_f5a2_7c31;

/// The kind of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// JSON like an application's.
    Orders,
    /// JSON with one string of random Base64 letters. Compression saves a quarter of it at most.
    Random,
}

impl Kind {
    pub(super) const BOTH: [Self; 2] = [Self::Orders, Self::Random];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Random => "random text",
        }
    }

    /// `count` events of this many bytes, from the `n`th on.
    pub(super) fn events(self, n: u64, count: usize, bytes: usize) -> Vec<NewEvent> {
        (n..).take(count).map(|n| self.event(n, bytes)).collect()
    }

    fn event(self, n: u64, bytes: usize) -> NewEvent {
        let mut rng = Rng::with_seed(SEED ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let text = match self {
            Self::Orders => payload::payload(SEED, n, bytes),
            Self::Random => random(&mut rng, bytes),
        };
        assert_eq!(text.len(), bytes);
        let id = Builder::from_unix_timestamp_millis(MILLIS, &std::array::from_fn(|_| rng.u8(..)));
        let data = Payload::json_text(text).unwrap();
        NewEvent::new(TYPE.try_into().unwrap(), data).with_id(id.into_uuid())
    }
}

fn random(rng: &mut Rng, bytes: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
    let around = r#"{"data":""}"#.len();
    let letter = |_| char::from(*rng.choice(LETTERS).unwrap());
    let letters: String = (0..bytes - around).map(letter).collect();
    format!(r#"{{"data":"{letters}"}}"#)
}

/// A stream id as long as a UUID, since the peers' aggregates have UUIDs as ids.
pub(super) fn stream(n: usize) -> StreamId {
    StreamId::new(format!("0198f5a2-7c31-7d40-9b1e-{n:012x}")).unwrap()
}

/// The least read units, of 4 KiB, for reading this many events: their data, ids, types and times.
pub(super) fn least_read_units(events: usize, bytes: usize) -> usize {
    const ID: usize = 16;
    const TIME: usize = 8;
    (events * (bytes + ID + TYPE.len() + TIME)).div_ceil(4_096)
}
