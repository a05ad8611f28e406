//! Places to go on from. A position or version that the store has never given is refused: events
//! that get it later would be passed over in silence (contract, rules 12 and 15).

use async_trait::async_trait;

use super::{Adapter, Page, Pages};
use crate::{Direction, Error, ErrorKind, Position, ReadStream, Result, Start, StreamId, Version};

/// Refuses a position that is greater than every one that the store has given.
pub(super) async fn check_position(store: &impl Adapter, asked: Position) -> Result<()> {
    if asked == Position::START {
        return Ok(());
    }
    // A position that is given between the caller's question and this one is accepted, too.
    let greatest = store.greatest_position().await?;
    if asked <= greatest { Ok(()) } else { Err(Error::beyond_end(asked, greatest)) }
}

/// Refuses the start of a subscription to one stream if it is beyond the end of the store, or of the
/// stream.
pub(super) async fn check_start(
    store: &impl Adapter,
    stream: &StreamId,
    start: Start,
) -> Result<()> {
    match start {
        Start::After(position) => check_position(store, position).await,
        Start::AfterVersion(version) if version.get() > 0 => {
            let greatest = store.greatest_version(stream).await?;
            if version <= greatest {
                Ok(())
            } else {
                Err(Error::version_beyond_end(version, greatest))
            }
        }
        Start::AfterVersion(_) | Start::At(_) | Start::Beginning | Start::End => Ok(()),
    }
}

/// The version of the last event of a stream at or before a position: a search by halves, of which each
/// step reads one event.
pub(super) async fn version_at(
    store: &impl Adapter,
    stream: &StreamId,
    position: Position,
) -> Result<Version> {
    let info = store.stream_info(stream).await?;
    // Each event up to `low` stands at or before the position, or was removed; each event from `high`
    // on stands after it.
    let mut low = info.first_version.map_or(info.version, |first| first.minus(1));
    let mut high = info.version.plus(1);
    while high > low.plus(1) {
        let middle = Version::new(low.get() + (high.get() - low.get()) / 2);
        let options = ReadStream::default().with_from(middle).with_limit(1);
        let page = store.stream_pages(stream.clone(), options).next_page().await?;
        match page.events.first() {
            // If the event at `middle` was removed meanwhile, this is the first event behind it.
            Some(event) if event.position <= position => low = event.version,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The pages of a read of all that begins at a position.
pub(super) struct FromPlace<A, P> {
    store: A,
    pages: P,
    direction: Direction,
    /// The position, until it is known that the store has given it.
    unknown: Option<Position>,
}

impl<A, P> FromPlace<A, P> {
    pub(super) fn new(store: A, pages: P, from: Option<Position>, direction: Direction) -> Self {
        let unknown = from.filter(|from| *from > Position::START);
        Self { store, pages, direction, unknown }
    }
}

#[async_trait]
impl<A: Adapter, P: Pages> Pages for FromPlace<A, P> {
    async fn next_page(&mut self) -> Result<Page> {
        let Some(place) = self.unknown else { return self.pages.next_page().await };
        if self.direction == Direction::Backwards {
            check_position(&self.store, place).await?;
            self.unknown = None;
            return self.pages.next_page().await;
        }
        // An event after the place proves that the place is not beyond the end, so most reads need
        // no further question.
        match self.pages.next_page().await {
            Ok(page) if !page.events.is_empty() => {
                self.unknown = None;
                Ok(page)
            }
            Ok(page) if page.more => Ok(page),
            Ok(page) => check_position(&self.store, place).await.map(|()| page),
            Err(error) if error.is_retryable() => Err(error),
            // A database may refuse such a place in its own words.
            Err(error) => match check_position(&self.store, place).await {
                Err(beyond) if beyond.kind() == ErrorKind::BeyondEnd => {
                    Err(beyond.with_source(error))
                }
                _ => Err(error),
            },
        }
    }
}
