//! The parts into which workers divide all streams.

use std::{hash::Hasher, num::NonZeroU32};

use fnv::FnvHasher;

/// One of the parts into which [`Workers`](super::Workers) divide all streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Partition {
    /// The number of this partition, from 0.
    pub index: u32,
    /// The number of all partitions.
    pub count: NonZeroU32,
}

impl Partition {
    /// Whether a stream belongs to this partition. The hash (FNV-1a) is the same on every machine and
    /// in every version.
    #[must_use]
    pub fn has(&self, stream: &annals_core::StreamId) -> bool {
        let mut hasher = FnvHasher::default();
        hasher.write(stream.as_str().as_bytes());
        hasher.finish() % u64::from(self.count.get()) == u64::from(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_stay_in_their_partitions() {
        let count = NonZeroU32::new(1 << 16).unwrap();
        for (stream, index) in [("a", 0xec8c), ("order-42", 0x62d4), ("ä %", 0x4e39)] {
            let stream = annals_core::StreamId::new(stream).unwrap();
            assert!(Partition { index, count }.has(&stream), "{stream}");
        }
    }
}
