//! The events that are stored: the same in every run, with their ids.

use annals_core::{NewEvent, Payload, StreamId};
use fastrand::Rng;
use uuid::Builder;

#[allow(unreachable_pub, clippy::indexing_slicing, reason = "shared with the peers' program")]
#[path = "../../peers-dynamodb/src/payload.rs"]
mod payload;

/// The peers' data comes from the same seed.
const SEED: u64 = 20_260_801;
const TYPE: &str = "OrderChanged";
/// A moment in 2025, which the ids of version 7 begin with.
const MILLIS: u64 = 0x0198_f5a2_7c31;

/// What the data is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An application's JSON.
    Orders,
    /// JSON with one text of random letters, as of Base64: who compresses it gains a quarter at
    /// most.
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

    /// The events from the `n`th on, so many and so long.
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

/// As long as a UUID, which the peers' aggregates have for an id.
pub(super) fn stream(n: usize) -> StreamId {
    StreamId::new(format!("0198f5a2-7c31-7d40-9b1e-{n:012x}")).unwrap()
}

/// What so many events have to cost to be read: their data, ids, types and times, in read units of
/// 4 KiB.
pub(super) fn least_read_units(events: usize, bytes: usize) -> usize {
    const ID: usize = 16;
    const TIME: usize = 8;
    (events * (bytes + ID + TYPE.len() + TIME)).div_ceil(4_096)
}
