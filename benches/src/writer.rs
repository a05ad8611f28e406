//! The appends that a writer makes.

use annals_core::{Append, ExpectedVersion, StreamId};

use crate::EventGenerator;

/// A writer begins a new stream after this many events, the assumed length of an aggregate's life.
pub const STREAM_EVENTS: u64 = 100;

/// Makes the appends of one writer, each with the exact version of the writer's own stream. The
/// writer begins a new stream after [`STREAM_EVENTS`].
#[derive(Debug)]
pub struct Writer {
    events: EventGenerator,
    number: usize,
    streams: usize,
    stream: StreamId,
    version: u64,
}

impl Writer {
    /// Writers with different numbers have different streams.
    #[must_use]
    pub fn new(number: usize) -> Self {
        let stream = Self::stream(number, 0);
        Self { events: EventGenerator::new(), number, streams: 0, stream, version: 0 }
    }

    fn stream(number: usize, streams: usize) -> StreamId {
        StreamId::new(format!("cart-{number:02}-{streams:06}")).unwrap()
    }

    /// The next append, with `count` events.
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

    /// An append to the one stream that all writers share, with any version.
    pub fn append_hot(&mut self, count: usize) -> Append {
        self.append_to(StreamId::new("cart-hot").unwrap(), count)
    }

    /// An append to this stream, with any version.
    pub fn append_to(&mut self, stream: StreamId, count: usize) -> Append {
        Append::new(stream, ExpectedVersion::Any, self.events.take(count))
    }
}
