//! The place of a time in a store that reads only from positions which it gave.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use annals_core::{
    Append, Appended, Capabilities, ErrorKind, EventStore, EventStoreExt, EventStream,
    ExpectedVersion, NewEvent, Position, ReadAll, ReadStream, RecordedEvent, Result, StreamId,
    StreamInfo, Subscribe, Subscription, TransferStore, TryStreamExt, Version,
    adapter::failed_read,
};
use annals_memory::MemoryStore;
use async_trait::async_trait;
use chrono::DateTime;

/// Refuses to read from a position, as some servers do with a number between two positions.
#[derive(Debug)]
struct OnlyFromTheEnds(MemoryStore);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EventStore for OnlyFromTheEnds {
    fn capabilities(&self) -> &Capabilities {
        EventStore::capabilities(&self.0)
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        EventStore::append(&self.0, append).await
    }

    async fn append_multi(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.0.append_multi(appends).await
    }

    fn read_stream(&self, stream: &StreamId, options: ReadStream) -> EventStream {
        self.0.read_stream(stream, options)
    }

    fn read_all(&self, options: ReadAll) -> EventStream {
        match options.from {
            None => self.0.read_all(options),
            Some(_) => failed_read(annals_core::Error::new(ErrorKind::InvalidInput, "no place")),
        }
    }

    async fn subscribe(&self, options: Subscribe) -> Result<Subscription> {
        self.0.subscribe(options).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        EventStore::stream_info(&self.0, stream).await
    }

    async fn truncate(&self, stream: &StreamId, before: Version) -> Result<()> {
        EventStore::truncate(&self.0, stream, before).await
    }

    async fn delete(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        EventStore::delete(&self.0, stream, expected).await
    }

    async fn tombstone(&self, stream: &StreamId, expected: ExpectedVersion) -> Result<()> {
        EventStore::tombstone(&self.0, stream, expected).await
    }
}

#[tokio::test]
async fn is_found_from_the_end() {
    let store = MemoryStore::new();
    let stream = StreamId::new("order-1").unwrap();
    // The clocks of the two writers disagree by half a minute.
    let recorded = (1..=200_u32).map(|version| {
        let seconds = i64::from(version) * 10 + if version % 2 == 0 { 35 } else { 0 };
        let time = DateTime::from_timestamp(seconds, 0).unwrap();
        let event = NewEvent::json("Numbered", &version).unwrap();
        event.recorded(stream.clone(), u64::from(version).into(), Position::START, time)
    });
    store.import(recorded.collect()).await.unwrap();
    let all: Vec<RecordedEvent> = store.read_all(ReadAll::default()).try_collect().await.unwrap();
    let halves = OnlyFromTheEnds(store.clone());
    for event in &all {
        let time = event.recorded_at;
        let before = all.iter().take_while(|event| event.recorded_at < time).last();
        let due = before.map_or(Position::START, |event| event.position);
        assert_eq!(halves.position_before(time).await.unwrap(), due, "from the end, {time}");
        assert_eq!(store.position_before(time).await.unwrap(), due, "by halves, {time}");
    }
}
