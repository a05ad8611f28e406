//! Who writes the events.

use annals_core::{Append, ExpectedVersion, StreamId};

use crate::Events;

/// After how many events a writer begins a new stream: the life of an aggregate.
pub const STREAM_EVENTS: u64 = 100;

/// The appends of one writer: each to a stream of its own, under the version that it expects; a
/// new stream after [`STREAM_EVENTS`].
#[derive(Debug)]
pub struct Writer {
    events: Events,
    number: usize,
    streams: usize,
    stream: StreamId,
    version: u64,
}

impl Writer {
    /// A writer that shares its streams with none that has another number.
    #[must_use]
    pub fn new(number: usize) -> Self {
        let stream = Self::stream(number, 0);
        Self { events: Events::new(), number, streams: 0, stream, version: 0 }
    }

    fn stream(number: usize, streams: usize) -> StreamId {
        StreamId::new(format!("cart-{number:02}-{streams:06}")).unwrap()
    }

    /// The next append, of so many events.
    pub fn append(&mut self, count: usize) -> Append {
        if self.version >= STREAM_EVENTS {
            self.streams += 1;
            self.stream = Self::stream(self.number, self.streams);
            self.version = 0;
        }
        let expected = ExpectedVersion::Exact(self.version.into());
        self.version += count as u64;
        Append::new(self.stream.clone(), expected, self.events.take(count))
    }

    /// The same, to one stream that all writers share, whatever its version.
    pub fn append_hot(&mut self, count: usize) -> Append {
        self.append_to(StreamId::new("cart-hot").unwrap(), count)
    }

    /// The same, to a given stream.
    pub fn append_to(&mut self, stream: StreamId, count: usize) -> Append {
        Append::new(stream, ExpectedVersion::Any, self.events.take(count))
    }
}
