//! The call `Read`: one consumer's connection to its group.

use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::{
    handle::{Action, Command, ConsumerName, GroupHandle},
    name::GroupName,
};
use crate::{
    proto::{
        persistent::{
            ReadReq, ReadResp,
            read_req::{self, Content},
            read_resp,
        },
        shared::SubscriptionConfirmation,
    },
    wire::{IdFormat, ResolvedEvent, read_event, uuid_from_wire},
};

/// The most events that a consumer can have before it has answered any.
const MAX_SLOTS: usize = 10_000;

/// Connects a consumer to the group's task. Returns what the consumer is sent.
pub(crate) async fn connect(
    group: GroupHandle,
    name: &GroupName,
    options: &read_req::Options,
    who: ConsumerName,
    requests: Streaming<ReadReq>,
) -> Result<impl Stream<Item = Result<ReadResp, Status>> + Send + use<>, Status> {
    let ids = IdFormat::requested(options.uuid_option);
    let slots = usize::try_from(options.buffer_size).unwrap_or(1).clamp(1, MAX_SLOTS);
    // One place more than the consumer has slots is for the error with which the group may end. The
    // others are for events that are sent again since their time is over, while the first ones wait
    // here for a consumer that is slow.
    let (sender, deliveries) = mpsc::channel(slots * 2 + 1);
    let consumer = group.connect(who, slots, sender).await?;
    let answers = AbortOnDropHandle::new(tokio::spawn(forward(requests, group.clone(), consumer)));
    let connection = Connection { group, consumer, _answers: answers };
    // The Python client parses the id, which has the format of EventStoreDB.
    let subscription_id = format!("{}::{}", name.source, name.group);
    let confirmation = SubscriptionConfirmation { subscription_id };
    let confirmation = message(read_resp::Content::SubscriptionConfirmation(confirmation));
    let events = ReceiverStream::new(deliveries).map(move |delivery| {
        let _held = &connection;
        let (mut event, retries) = delivery?;
        // To a group, an event that a link leads to is at the link's position.
        if let ResolvedEvent { event: Some(event), link: Some(link) } = &mut event {
            event.position = link.position;
        }
        Ok(message(read_resp::Content::Event(read_event(event, ids, Some(retries)))))
    });
    Ok(futures::stream::iter([Ok(confirmation)]).chain(events))
}

fn message(content: read_resp::Content) -> ReadResp {
    ReadResp { content: Some(content) }
}

/// Tells the group when the consumer has gone.
struct Connection {
    group: GroupHandle,
    consumer: u64,
    /// The task that forwards the consumer's answers. The call ends only after the task has.
    _answers: AbortOnDropHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let (group, consumer) = (self.group.clone(), self.consumer);
        // Without a runtime, the group's task has ended, too.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { group.send(Command::Disconnect { consumer }).await });
        }
    }
}

/// Forwards the consumer's answers to the group, and then the end of the consumer: a client that
/// can answer nothing any more gets no more events.
async fn forward(mut requests: Streaming<ReadReq>, group: GroupHandle, consumer: u64) {
    while let Ok(Some(request)) = requests.message().await {
        let ids =
            |ids: Vec<_>| ids.into_iter().filter_map(|id| uuid_from_wire(Some(id)).ok()).collect();
        let command = match request.content {
            Some(Content::Ack(ack)) => Command::Ack { consumer, ids: ids(ack.ids) },
            Some(Content::Nack(nack)) => {
                let action = match nack.action {
                    0 | 2 => Action::Retry,
                    1 => Action::Park,
                    // As in EventStoreDB, `Stop` leaves out the event, and stops nothing.
                    3 | 4 => Action::Skip,
                    _ => continue,
                };
                Command::Nack { consumer, ids: ids(nack.ids), action, reason: nack.reason }
            }
            _ => continue,
        };
        if !group.send(command).await {
            return;
        }
    }
    group.send(Command::Disconnect { consumer }).await;
}
