//! The data of the events: JSON like an application's.

use std::fmt::Write;

const FIRST_NAMES: [&str; 12] = [
    "Ada", "Boris", "Chloe", "Dmitri", "Elena", "Farid", "Greta", "Hiro", "Ines", "Jonas", "Kemal",
    "Lucia",
];
const LAST_NAMES: [&str; 12] = [
    "Andersen", "Bianchi", "Costa", "Dubois", "Eriksson", "Fischer", "Garcia", "Horvat", "Ivanova",
    "Jansen", "Kowalski", "Laine",
];
const ADJECTIVES: [&str; 8] =
    ["oak", "steel", "folding", "small", "waxed", "blue", "heavy", "spare"];
const GOODS: [&str; 8] =
    ["chair", "lamp", "kettle", "shelf", "jacket", "hammer", "curtain", "bottle"];
const WORDS: [&str; 16] = [
    "please",
    "ring",
    "twice",
    "leave",
    "with",
    "the",
    "neighbour",
    "before",
    "noon",
    "gift",
    "wrap",
    "fragile",
    "call",
    "ahead",
    "back",
    "door",
];

/// The `n`th order of the sequence of `seed`: JSON of exactly `bytes` bytes. It is ASCII without
/// spaces between its parts and without floating-point numbers, so that a crate that parses it and
/// writes it again writes as many bytes.
///
/// # Panics
///
/// If `bytes` is below 120, which is too short for an order.
#[must_use]
pub fn payload(seed: u64, n: u64, bytes: usize) -> String {
    const TAIL: [&str; 2] = [r#"],"note":""#, r#""}"#];
    let tail = TAIL[0].len() + TAIL[1].len();
    let mut random = Random(seed ^ n.wrapping_mul(0xd605_bbb5_8c8a_bc2d));
    let mut text = format!(
        r#"{{"order":"{:016x}","customer":"{} {}","at":"2026-{:02}-{:02}T{:02}:{:02}:{:02}Z","lines":["#,
        random.next(),
        random.pick(&FIRST_NAMES),
        random.pick(&LAST_NAMES),
        1 + random.below(12),
        1 + random.below(28),
        random.below(24),
        random.below(60),
        random.below(60),
    );
    assert!(text.len() + tail <= bytes, "an order takes more than {bytes} bytes");

    let mut comma = "";
    loop {
        let line = format!(
            r#"{comma}{{"sku":"{:06x}","name":"{} {}","count":{},"cents":{}}}"#,
            random.below(1 << 24),
            random.pick(&ADJECTIVES),
            random.pick(&GOODS),
            1 + random.below(9),
            100 + random.below(90_000),
        );
        if text.len() + line.len() + tail > bytes {
            break;
        }
        text.push_str(&line);
        comma = ",";
    }

    text.push_str(TAIL[0]);
    let note_ends = bytes - TAIL[1].len();
    while text.len() < note_ends {
        let _ = write!(text, "{} ", random.pick(&WORDS));
    }
    text.truncate(note_ends);
    text.push_str(TAIL[1]);
    text
}

/// SplitMix64: short, and the same on every platform for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::payload;
    use serde_json::Value;

    #[test]
    fn has_exactly_so_many_bytes_also_when_written_again() {
        for bytes in [120, 200, 201, 500, 4_096, 102_400] {
            for n in 0..200 {
                let text = payload(7, n, bytes);
                assert_eq!(text.len(), bytes);
                let value: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(value.to_string().len(), bytes);
            }
        }
    }

    #[test]
    fn differs_from_event_to_event_and_not_from_run_to_run() {
        assert_ne!(payload(7, 1, 200), payload(7, 2, 200));
        assert_ne!(payload(7, 1, 200), payload(8, 1, 200));
        assert_eq!(payload(7, 1, 200), payload(7, 1, 200));
    }
}
