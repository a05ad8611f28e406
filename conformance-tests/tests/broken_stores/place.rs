//! Where reads and subscriptions of a simulated server may begin. They are correct but for the bug
//! of the handle.

use std::sync::atomic::Ordering;

use annals_core::{
    Direction, Error, ErrorKind, EventStore, EventStoreExt, EventStream, Message, Position,
    ReadAll, Result, Source, Start, Subscribe, Subscription, Version,
    adapter::{self, Adapter},
};
use futures::{FutureExt, StreamExt, stream};

use crate::{bug::Bug, store::Handle};

impl Handle {
    /// The greatest position that the store has given.
    fn end(&self) -> Position {
        self.store().greatest_position().now_or_never().unwrap().unwrap()
    }

    /// The end, as the bug of the handle knows it.
    fn known_end(&self) -> Position {
        let end = self.end();
        match self.bug {
            Some(Bug::ForgetsRemovedPlaces) => {
                EventStoreExt::last_position(self.store()).now_or_never().unwrap().unwrap()
            }
            Some(Bug::RefusesTheLastPlace) => end.minus(1),
            Some(Bug::KnowsOnlyItsOwnEnd) => Position::new(self.own_end.load(Ordering::SeqCst)),
            Some(Bug::NeverLooksAgain) => {
                let refused = self.server.refused.load(Ordering::SeqCst);
                if refused > 0 { Position::new(refused).min(end) } else { end }
            }
            _ => end,
        }
    }

    /// What the store answers about a place beyond the end that it knows.
    fn check_place(&self, place: Position) -> Result<()> {
        let known = self.known_end();
        if place <= known || place == Position::START {
            return Ok(());
        }
        self.server.refused.store(known.get(), Ordering::SeqCst);
        Err(match self.bug {
            Some(Bug::RefusesWithoutNumbers) => Error::new(ErrorKind::BeyondEnd, "no such place"),
            Some(Bug::RefusesAsInvalid) => {
                let error = Error::beyond_end(place, known);
                Error::new(ErrorKind::InvalidInput, error.to_string())
            }
            _ => Error::beyond_end(place, known),
        })
    }

    /// Where a read of all begins; or all that it gives.
    pub(crate) fn begin_read(&self, options: &mut ReadAll) -> Option<EventStream> {
        let place = options.from?;
        let forwards = options.direction == Direction::Forwards;
        let is_beyond = place > self.end();
        match self.bug {
            Some(Bug::ReadsBeyondTheEnd) if forwards && is_beyond => {
                return Some(stream::empty().boxed());
            }
            Some(Bug::ReadsBackFromBeyond) if !forwards && is_beyond => options.from = None,
            Some(Bug::FilteredReadsGoBeyond) if is_beyond && options.filter.category.is_some() => {
                return Some(stream::empty().boxed());
            }
            Some(Bug::BetweenIsNowhere) if self.is_removed(place) => {
                return Some(stream::empty().boxed());
            }
            Some(Bug::SkipsAfterRemoved) if forwards && self.is_removed(place) => {
                options.from = Some(place.plus(1).min(self.end()));
            }
            _ => {
                if let Err(error) = self.check_place(place) {
                    return Some(adapter::failed_read(self.context("read_all")(error)));
                }
            }
        }
        None
    }

    /// Whether the event at a position was removed.
    fn is_removed(&self, place: Position) -> bool {
        let at = ReadAll::default().after(place.minus(1)).with_limit(1);
        let found = self.store().read_all(at).next().now_or_never().flatten();
        place <= self.end()
            && found.is_none_or(|event| event.is_ok_and(|event| event.position != place))
    }

    /// Where a subscription begins; or the subscription.
    pub(crate) async fn begin_subscription(
        &self,
        options: &mut Subscribe,
    ) -> Result<Option<Subscription>> {
        let is_stream = matches!(options.source, Source::Stream(_));
        let end = self.end();
        let blame = |error: Error| match &options.source {
            Source::Stream(stream) => self.context("subscribe")(error).with_stream(stream),
            Source::All(_) => self.context("subscribe")(error),
        };
        match (options.start, &options.source) {
            (Start::After(place), _) if place > end => {
                let lenient = match self.bug {
                    Some(Bug::SubscribesBeyondTheEnd) => !is_stream,
                    Some(Bug::StreamsSubscribeBeyond) => is_stream,
                    _ => false,
                };
                if lenient {
                    let waiting = stream::once(async move { Ok(Message::CaughtUp(place)) });
                    let waiting = waiting.chain(stream::pending());
                    return Ok(Some(Subscription::new(waiting)));
                }
                self.check_place(place).map_err(blame)?;
            }
            (Start::After(place), Source::Stream(_))
                if self.has(Bug::RemovedPlacesAreTheStart) && self.is_removed(place) =>
            {
                options.start = Start::Beginning;
            }
            (Start::After(place), _) => self.check_place(place).map_err(blame)?,
            (Start::AfterVersion(version), Source::Stream(stream)) => {
                let info = EventStore::stream_info(self.store(), stream).await?;
                match self.bug {
                    Some(Bug::VersionsBeyondTheEnd) if version > info.version => {
                        options.start = Start::End;
                    }
                    Some(Bug::ForgetsRemovedVersions) => {
                        let last =
                            if info.first_version.is_some() { info.version } else { Version::NONE };
                        if version > last {
                            return Err(blame(Error::version_beyond_end(version, last)));
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(None)
    }
}
