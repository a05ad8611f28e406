//! What the caller of an append asks for, and what the store answers.

use crate::{Error, ErrorKind, ExpectedVersion, NewEvent, Position, Result, StreamId, Version};

/// A request to write events to one stream: all or none, next to each other, in this order. The
/// answer is an [`Appended`].
///
/// ```
/// use annals_core::{Append, ExpectedVersion, NewEvent, StreamId};
/// let paid = NewEvent::json("OrderPaid", &serde_json::json!({ "cents": 4000 }))?;
/// let append = Append::new(StreamId::new("order-42")?, ExpectedVersion::Exact(1.into()), [paid]);
/// assert_eq!(append.count(), 1);
/// # Ok::<(), annals_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Append {
    /// The stream to write to.
    pub stream: StreamId,
    /// What the writer believes about the stream.
    pub expected: ExpectedVersion,
    /// The events, at least one.
    pub events: Vec<NewEvent>,
}

impl Append {
    /// A request to write these events to a stream, under an expectation.
    pub fn new(
        stream: StreamId,
        expected: impl Into<ExpectedVersion>,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        Self { stream, expected: expected.into(), events: events.into_iter().collect() }
    }

    /// The number of events, in the type that versions are counted in.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.events.len() as u64
    }
}

/// The answer to an [`Append`]: where its events stand now.
///
/// ```
/// use annals_core::{EventStore, EventStoreExt, ExpectedVersion, NewEvent, Result};
///
/// async fn pay(store: &dyn EventStore) -> Result<()> {
///     let placed = NewEvent::json("OrderPlaced", &serde_json::json!({ "total": 40 }))?;
///     let appended = store.append_to("order-42", ExpectedVersion::NoStream, [placed]).await?;
///     // The next append expects the version that this one has made.
///     let paid = NewEvent::json("OrderPaid", &serde_json::json!({ "cents": 4000 }))?;
///     store.append_to("order-42", appended.last_version, [paid]).await?;
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The version of the first event.
    pub first_version: Version,
    /// The version of the last event, which is now the version of the stream.
    pub last_version: Version,
    /// The position of the last event.
    pub position: Position,
    /// Whether the store had written this very append before, so that this call wrote nothing: the
    /// call was a retry. Always `false` if the store cannot
    /// [tell a retry](crate::Capabilities::tells_retries) from a first append.
    pub replayed: bool,
}

impl Appended {
    /// For adapters: `count` events were written after the version `base`, the last of them at
    /// `position`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if `count` is 0.
    pub fn after(base: Version, count: u64, position: Position, replayed: bool) -> Result<Self> {
        if count == 0 {
            return Err(Error::new(ErrorKind::Internal, "an append without events has no answer"));
        }
        let (first_version, last_version) = (base.plus(1), base.plus(count));
        Ok(Self { first_version, last_version, position, replayed })
    }
}
