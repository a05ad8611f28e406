//! How a simulated server filters. It is correct but for the bug of the handle.

use std::sync::atomic::{AtomicU64, Ordering};

use annals_core::{
    Direction, EventStore, EventStream, EventType, Filter, Message, ReadAll, ReadStream,
    RecordedEvent, Source, StreamId, Subscription,
};
use futures::{StreamExt, TryStreamExt, future, stream};

use crate::{bug::Bug, store::Handle};

/// How many events that do not match are looked at.
const SCANNED: u64 = 4_096;

impl Handle {
    /// What the filter of the bug lets through; `None` if the filter is right.
    fn wrong_filter(
        &self,
        filter: &Filter,
    ) -> Option<impl Fn(&RecordedEvent) -> bool + Send + use<>> {
        let (bug, filter) = (self.bug?, filter.clone());
        let concerns = match bug {
            Bug::PrefixComparesCharacters | Bug::PrefixEndsTooEarly => filter.prefix.is_some(),
            Bug::TypesIgnoreCase => !filter.event_types.is_empty(),
            Bug::FiltersByAHundredTypes => filter.event_types.len() > 100,
            _ => false,
        };
        concerns.then_some(move |event: &RecordedEvent| {
            let (id, mut others) = (event.stream.as_str(), filter.clone());
            let lets_through = match bug {
                Bug::PrefixComparesCharacters => {
                    let prefix = others.prefix.take().unwrap();
                    let count = prefix.as_str().chars().count();
                    id.as_bytes().starts_with(&prefix.as_str().as_bytes()[..count])
                }
                Bug::PrefixEndsTooEarly => {
                    let prefix = others.prefix.clone().unwrap();
                    id < format!("{prefix}\u{ffff}").as_str()
                }
                Bug::TypesIgnoreCase => {
                    let lower = |name: &EventType| name.as_str().to_lowercase();
                    let wanted: Vec<_> = others.event_types.drain(..).map(|t| lower(&t)).collect();
                    wanted.contains(&lower(&event.event_type))
                }
                _ => {
                    others.event_types.truncate(100);
                    true
                }
            };
            lets_through && others.matches(&event.stream, &event.event_type)
        })
    }

    /// A read of all that the handle filters itself.
    pub(crate) fn scan(&self, options: &ReadAll) -> Option<EventStream> {
        let mut unfiltered = options.clone();
        (unfiltered.filter, unfiltered.limit) = (Filter::default(), None);
        let limit =
            options.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let is_filtered = options.filter != Filter::default();
        if let Some(wanted) = self.wrong_filter(&options.filter) {
            let events = self.store().read_all(unfiltered);
            let wanted = move |event: &RecordedEvent| future::ready(wanted(event));
            return Some(events.try_filter(wanted).take(limit).boxed());
        }
        match self.bug? {
            Bug::EndsAtAStretch if is_filtered && options.direction == Direction::Forwards => {}
            Bug::EndsBackwardsAtAStretch
                if is_filtered && options.direction == Direction::Backwards => {}
            Bug::DeletesOneBatchOfAll => return Some(self.with_ghosts(options)),
            _ => return None,
        }
        let (filter, misses) = (options.filter.clone(), AtomicU64::new(0));
        let events = self.store().read_all(unfiltered).take_while(move |event| {
            let is_hit = event.as_ref().is_ok_and(|e| filter.matches(&e.stream, &e.event_type));
            let missed = if is_hit { 0 } else { misses.load(Ordering::SeqCst) + 1 };
            misses.store(missed, Ordering::SeqCst);
            future::ready(missed < SCANNED)
        });
        let filter = options.filter.clone();
        let wanted =
            move |e: &RecordedEvent| future::ready(filter.matches(&e.stream, &e.event_type));
        Some(events.try_filter(wanted).take(limit).boxed())
    }

    /// A read of all that also gives events which a removal has left.
    fn with_ghosts(&self, options: &ReadAll) -> EventStream {
        let (handle, options) = (self.clone(), options.clone());
        let read = async move {
            let mut all: Vec<_> = {
                let mut whole = options.clone();
                whole.limit = None;
                handle.store().read_all(whole).try_collect().await?
            };
            let ghosts = handle.server.ghosts.lock().unwrap().clone();
            let backwards = options.direction == Direction::Backwards;
            all.extend(ghosts.into_iter().filter(|event| {
                let at = event.position;
                options.filter.matches(&event.stream, &event.event_type)
                    && options.from.is_none_or(|from| if backwards { at < from } else { at > from })
            }));
            all.sort_by_key(|event| event.position);
            if backwards {
                all.reverse();
            }
            let limit = options.limit.and_then(|limit| usize::try_from(limit).ok());
            all.truncate(limit.unwrap_or(usize::MAX));
            Ok::<_, annals_core::Error>(stream::iter(all.into_iter().map(Ok)))
        };
        stream::once(read).try_flatten().boxed()
    }

    /// The messages of a filtered subscription that cannot look far.
    pub(crate) fn short_sighted(&self, source: &Source, messages: Subscription) -> Subscription {
        let Source::All(filter) = source else { return messages };
        if *filter == Filter::default() {
            return messages;
        }
        let mut at = 0;
        match self.bug {
            // It says that it has caught up where it has looked at so many events.
            Some(Bug::CatchesUpAtAStretch) => Subscription::new(messages.map(move |message| {
                let message = message?;
                let before = std::mem::replace(&mut at, message.position().get());
                Ok(match message {
                    Message::Checkpoint(place) if place.get() > before + SCANNED => {
                        Message::CaughtUp(place)
                    }
                    other => other,
                })
            })),
            Some(Bug::StallsAtAStretch) => Subscription::new(
                messages
                    .take_while(move |message| {
                        let Ok(message) = message else { return future::ready(true) };
                        let before = std::mem::replace(&mut at, message.position().get());
                        future::ready(message.position().get() < before + SCANNED)
                    })
                    .chain(stream::pending()),
            ),
            _ => messages,
        }
    }

    /// A read of a stream whose pages are counted from its first event.
    pub(crate) fn by_offset(&self, id: &StreamId, options: &ReadStream) -> EventStream {
        const PAGE: usize = 100;
        let (handle, id, options) = (self.clone(), id.clone(), options.clone());
        let page = move |offset: usize| {
            let (handle, id, options) = (handle.clone(), id.clone(), options.clone());
            async move {
                let all = handle.store().read_stream(&id, options);
                let events: Vec<_> = all.skip(offset).take(PAGE).try_collect().await?;
                let next = (!events.is_empty()).then_some(offset + PAGE);
                Ok::<_, annals_core::Error>((stream::iter(events.into_iter().map(Ok)), next))
            }
        };
        let pages = stream::try_unfold(Some(0), move |offset| {
            let page = offset.map(&page);
            async move {
                match page {
                    Some(page) => page.await.map(|(events, next)| Some((events, next))),
                    None => Ok(None),
                }
            }
        });
        pages.try_flatten().boxed()
    }
}
