//! Records that the gateway keeps in streams of its own: of tombstones, and of nothing.
//!
//! Tombstones are events to clients. EventStoreDB writes an event `$streamDeleted` to a stream that is tombstoned,
//! which `$all` shows, and which ends subscriptions to the stream. A store of annals has no such event,
//! so the gateway writes a record for each tombstone to a stream of its own.

use std::{sync::Arc, time::Duration};

use annals_core::{
    Append, Error, EventType, ExpectedVersion, Message, NewEvent, Payload, Position, RecordedEvent,
    Start, Store, StreamId, Subscribe, Subscription, adapter::Backoff,
};
use tokio::sync::{OnceCell, broadcast};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::{
    names::{PREFIX, stream_from_wire, to_wire, type_from_wire},
    status::status,
    wire::{ResolvedEvent, WireEvent},
};

/// The stream with the records, as clients would call it.
pub(crate) const STREAM: &str = "$#tombstones";
/// The stream, and the type, of the records of nothing.
const NOTHING: &str = "$#nothing";
/// The type of the events, as clients see it.
const TYPE: &str = "$streamDeleted";
/// How many tombstones a subscription may lag behind before it has to ask the store.
const LAG: usize = 1_000;
/// The first and the longest pause before the records are subscribed to again after an error.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// Writes the record of a tombstone. Returns its position.
pub(crate) async fn record(store: &dyn Store, stream: &StreamId) -> Result<u64, Status> {
    let name = to_wire(stream.as_str()).to_owned();
    let event = NewEvent::new(type_from_wire(TYPE)?, Payload::binary(name));
    let append = Append::new(stream_from_wire(STREAM)?, ExpectedVersion::Any, [event]);
    Ok(store.append(append).await.map_err(|e| status(&e))?.position.get())
}

/// The event that clients see for a record. `None` if `event` is no record.
pub(crate) fn shown(event: &WireEvent) -> Option<WireEvent> {
    (event.stream == STREAM).then(|| WireEvent {
        stream: String::from_utf8_lossy(&event.data).into_owned(),
        revision: i64::MAX as u64,
        data: bytes::Bytes::new(),
        ..event.clone()
    })
}

/// True if clients would call the stream so in which the gateway keeps records.
pub(crate) fn is_own(stream: &str) -> bool {
    stream == STREAM || stream == NOTHING
}

/// Writes a record that clients never see, for a request that has no effect. EventStoreDB writes one, too,
/// and answers its position, which this returns.
pub(crate) async fn record_nothing(store: &dyn Store) -> Result<Position, Error> {
    let stream = StreamId::new(format!("{PREFIX}{NOTHING}"))?;
    let event = NewEvent::new(EventType::new(format!("{PREFIX}{NOTHING}"))?, Payload::binary(""));
    Ok(store.append(Append::new(stream, ExpectedVersion::Any, [event])).await?.position)
}

/// True for the records that clients never see.
pub(crate) fn is_hidden(event: &WireEvent) -> bool {
    event.stream == NOTHING
}

/// Tells subscriptions when their stream is tombstoned. One subscription to the records serves all.
#[derive(Clone, Debug)]
pub(crate) struct Tombstones(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    following: OnceCell<(broadcast::Sender<Arc<WireEvent>>, AbortOnDropHandle<()>)>,
}

impl Tombstones {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self(Arc::new(Inner { store, following: OnceCell::new() }))
    }

    /// Watches a stream from now on.
    pub(crate) async fn watch(&self, stream: &StreamId) -> Result<Watch, Status> {
        let Inner { store, following } = &*self.0;
        let following = following.get_or_try_init(|| follow(store.clone()));
        let (sender, _) = following.await.map_err(|e| status(&e))?;
        Ok(Watch { stream: to_wire(stream.as_str()).to_owned(), records: sender.subscribe() })
    }
}

/// Waits for the tombstone of one stream.
pub(crate) struct Watch {
    stream: String,
    records: broadcast::Receiver<Arc<WireEvent>>,
}

impl Watch {
    /// The event with which the stream ended. `None` if there were more tombstones at a time than are
    /// kept, so that this one may be among those that were missed. Cancel-safe.
    pub(crate) async fn tombstoned(&mut self) -> Option<ResolvedEvent> {
        loop {
            match self.records.recv().await {
                Ok(event) if event.stream == self.stream => {
                    return Some(ResolvedEvent::unlinked((*event).clone()));
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return None,
                // The gateway has ended, and with it this subscription will.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

async fn follow(
    store: Arc<dyn Store>,
) -> Result<(broadcast::Sender<Arc<WireEvent>>, AbortOnDropHandle<()>), Error> {
    let stream = StreamId::new(format!("{PREFIX}{STREAM}"))?;
    let (sender, _) = broadcast::channel(LAG);
    let mut last = store.stream_info(&stream).await?.version;
    let open = move |version| {
        let (store, stream) = (store.clone(), stream.clone());
        async move {
            let options = Subscribe::to(stream).with_start(Start::AfterVersion(version));
            store.subscribe(options).await
        }
    };
    let mut records = open(last).await?;
    let told = sender.clone();
    let task = tokio::spawn(async move {
        let mut backoff = Backoff::new(PAUSES[0], PAUSES[1]);
        loop {
            match records.next().await {
                Ok(Message::Event(event)) => {
                    last = event.version;
                    backoff = Backoff::new(PAUSES[0], PAUSES[1]);
                    tell(&told, &event);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "the subscription to tombstones ended");
                    records = reopen(&mut backoff, || open(last)).await;
                }
            }
        }
    });
    Ok((sender, AbortOnDropHandle::new(task)))
}

async fn reopen<F>(backoff: &mut Backoff, open: impl Fn() -> F) -> Subscription
where
    F: Future<Output = Result<Subscription, Error>>,
{
    loop {
        tokio::time::sleep(backoff.next_pause()).await;
        match open().await {
            Ok(records) => return records,
            Err(error) => tracing::warn!(%error, "could not subscribe to tombstones"),
        }
    }
}

fn tell(subscriptions: &broadcast::Sender<Arc<WireEvent>>, record: &RecordedEvent) {
    // An error means that there is no subscription.
    let _ = subscriptions.send(Arc::new(WireEvent::new(record)));
}
