//! The service `Streams`.

use std::{pin::Pin, sync::Arc};

use annals_core::{
    Append, Error, EventStoreExt, ExpectedVersion, NewEvent, Store, StreamId, StreamState, Version,
};
use async_stream::try_stream;
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::{
    append::{self, write},
    filter::EventFilter,
    metadata,
    names::{Target, identifier, metadata_of, out, type_in},
    open::{Open, Permit},
    proto::{
        shared::SubscriptionConfirmation,
        streams::{
            AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, ReadReq, ReadResp, RemoveReq,
            RemoveResp, read_req, read_resp, remove_resp::PositionOption, streams_server::Streams,
        },
    },
    request::Broken,
    source::{From, Item, Items, Query},
    status::{status, stream_deleted},
    wire::{Ids, at, read_event, timestamp},
};

/// Serves the streams of a store.
#[derive(Clone, Debug)]
pub(crate) struct StreamsService {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) max_append_bytes: usize,
    pub(crate) open: Open,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl StreamsService {
    /// Deletes, and says so in the stream's metadata; the position of that.
    async fn soft_delete(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
    ) -> Result<Option<u64>, Status> {
        let Some(metadata) = metadata_of(stream) else {
            let message = "the metadata of a stream cannot be deleted; write other metadata";
            return Err(Status::invalid_argument(message));
        };
        let store = &*self.store;
        let deleted = store.delete(stream, expected).await;
        let info = store.stream_info(stream).await.map_err(|e| status(&e))?;
        match (deleted, info.state) {
            // As EventStoreDB has it: what is not there, or not any more, is not deleted.
            (Ok(()), StreamState::Missing) => {
                return Err(status(&Error::lost_race(stream, expected, Version::NONE)));
            }
            (Err(_), StreamState::Deleted) if expected == ExpectedVersion::StreamExists => {
                return Err(stream_deleted(out(stream.as_str())));
            }
            (Err(error), _) => return Err(status(&error)),
            (Ok(()), StreamState::Deleted) => {}
            // Somebody has written to it since.
            (Ok(()), _) => return Ok(None),
        }
        let properties = metadata::of_deleted(store, stream).await?;
        let event = NewEvent::json(type_in(metadata::TYPE)?, &properties);
        let event = event.map_err(|e| status(&e))?;
        match write(store, Append::new(metadata, ExpectedVersion::Any, [event])).await {
            Ok(written) => Ok(written.position),
            Err(error) => {
                // It is deleted all the same.
                tracing::warn!(%stream, %error, "the metadata of a deleted stream is not written");
                Ok(None)
            }
        }
    }
}

#[tonic::async_trait]
impl Streams for StreamsService {
    type ReadStream = Answers<ReadResp>;

    async fn read(&self, request: Request<ReadReq>) -> Result<Response<Answers<ReadResp>>, Status> {
        let permit = self.open.permit()?;
        let plan = Plan::new(self.store.clone(), request.into_inner())?;
        Ok(Response::new(plan.run(permit).await?))
    }

    async fn append(
        &self,
        request: Request<Streaming<AppendReq>>,
    ) -> Result<Response<AppendResp>, Status> {
        let broken = request.extensions().get::<Broken>().cloned().unwrap_or_default();
        let (messages, most) = (request.into_inner(), self.max_append_bytes);
        append::append(&*self.store, messages, &broken, most).await.map(Response::new)
    }

    async fn delete(&self, request: Request<RemoveReq>) -> Result<Response<RemoveResp>, Status> {
        let (stream, expected) = append::target(&request.into_inner().options.unwrap_or_default())?;
        Ok(removed(self.soft_delete(&stream, expected).await?))
    }

    async fn tombstone(&self, request: Request<RemoveReq>) -> Result<Response<RemoveResp>, Status> {
        let (stream, expected) = append::target(&request.into_inner().options.unwrap_or_default())?;
        self.store.tombstone(&stream, expected).await.map_err(|e| status(&e))?;
        // The store gives a tombstone no position; this one is not before it.
        let position = self.store.last_position().await.map_err(|e| status(&e))?;
        Ok(removed(Some(position.get())))
    }

    type BatchAppendStream = Answers<BatchAppendResp>;

    async fn batch_append(
        &self,
        request: Request<Streaming<BatchAppendReq>>,
    ) -> Result<Response<Answers<BatchAppendResp>>, Status> {
        let permit = self.open.permit()?;
        let answers =
            append::batch_append(self.store.clone(), request.into_inner(), self.max_append_bytes);
        Ok(Response::new(Box::pin(permit.hold_until_closing(answers))))
    }
}

fn removed(position: Option<u64>) -> Response<RemoveResp> {
    let position_option = position.map(at).map(PositionOption::Position);
    Response::new(RemoveResp { position_option })
}

/// What a request to read asks for.
struct Plan {
    query: Query,
    backwards: bool,
    /// None for a subscription.
    count: Option<u64>,
    ids: Ids,
}

impl Plan {
    fn new(store: Arc<dyn Store>, request: ReadReq) -> Result<Self, Status> {
        use read_req::options::{CountOption, FilterOption, StreamOption};
        let options = request.options.unwrap_or_default();
        let missing = |what| Status::invalid_argument(format!("{what} is missing"));
        let (target, from) = match options.stream_option.ok_or_else(|| missing("the stream"))? {
            StreamOption::Stream(stream) => {
                let target = Target::of(stream.stream_identifier.as_ref())?;
                (target, From::in_stream(stream.revision_option))
            }
            StreamOption::All(all) => (Target::All, From::in_all(all.all_option)),
        };
        let filter = match options.filter_option {
            Some(FilterOption::Filter(filter)) if target == Target::All => {
                Some(Arc::new(EventFilter::new(filter)?))
            }
            Some(FilterOption::Filter(_)) => {
                return Err(Status::invalid_argument("only $all can be filtered"));
            }
            _ => None,
        };
        let count = match options.count_option.ok_or_else(|| missing("the count"))? {
            CountOption::Count(count) => Some(count),
            CountOption::Subscription(_) => None,
        };
        let backwards = match options.read_direction {
            0 => false,
            1 if count.is_some() => true,
            1 => return Err(Status::invalid_argument("a subscription goes forwards")),
            other => return Err(Status::invalid_argument(format!("no direction {other}"))),
        };
        let resolve_links = options.resolve_links;
        Ok(Self {
            query: Query { store, target, from, filter, resolve_links },
            backwards,
            count,
            ids: Ids::asked(options.uuid_option),
        })
    }

    async fn run(self, permit: Permit) -> Result<Answers<ReadResp>, Status> {
        let Self { query, backwards, count, ids } = self;
        let target = query.target.clone();
        let Some(count) = count else {
            let items = query.subscribe().await?;
            return Ok(Box::pin(permit.hold_until_closing(subscription(items, target, ids))));
        };
        let answers = query.read(backwards, count).map(move |item| {
            Ok(answer(match item? {
                Item::Event(found) => read_resp::Content::Event(read_event(found, ids, None)),
                _ => not_found(&target),
            }))
        });
        Ok(Box::pin(permit.hold(answers)))
    }
}

fn subscription(
    mut items: Items,
    target: Target,
    ids: Ids,
) -> impl Stream<Item = Result<ReadResp, Status>> + Send {
    use read_resp::Content;
    try_stream! {
        let subscription_id = Uuid::now_v7().to_string();
        yield answer(Content::Confirmation(SubscriptionConfirmation { subscription_id }));
        while let Some(item) = items.next().await {
            yield answer(match item? {
                Item::Event(found) => Content::Event(read_event(found, ids, None)),
                Item::Checkpoint(position) => Content::Checkpoint(read_resp::Checkpoint {
                    commit_position: position,
                    prepare_position: position,
                    timestamp: Some(timestamp()),
                }),
                Item::CaughtUp(seen) => Content::CaughtUp(caught_up(&target, seen)),
                Item::NotFound => not_found(&target),
            });
        }
    }
}

fn caught_up(target: &Target, seen: Option<u64>) -> read_resp::CaughtUp {
    let (mut stream_revision, mut position) = (None, None);
    match target {
        Target::All => position = seen.map(at),
        _ => stream_revision = seen.and_then(|revision| i64::try_from(revision).ok()),
    }
    read_resp::CaughtUp { timestamp: Some(timestamp()), stream_revision, position }
}

fn not_found(target: &Target) -> read_resp::Content {
    read_resp::Content::StreamNotFound(read_resp::StreamNotFound {
        stream_identifier: Some(identifier(&target.name())),
    })
}

fn answer(content: read_resp::Content) -> ReadResp {
    ReadResp { content: Some(content) }
}
