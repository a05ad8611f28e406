//! The service `Streams`.

use std::{pin::Pin, sync::Arc};

use annals_core::Store;
use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    append::{Appender, Limits, append, batch_append, write_target},
    call_layer::RequestState,
    delete::{delete, tombstone},
    open_calls::OpenCalls,
    proto::streams::{
        AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, ReadReq, ReadResp, RemoveReq,
        RemoveResp, remove_resp::PositionOption, streams_server::Streams,
    },
    read::ReadCall,
    tombstones::Tombstones,
    wire::wire_position,
};

/// Serves the streams of a store.
#[derive(Clone, Debug)]
pub(crate) struct StreamsService {
    appender: Appender,
    tombstones: Tombstones,
    open_calls: OpenCalls,
}

impl StreamsService {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        tombstones: Tombstones,
        limits: Limits,
        open_calls: OpenCalls,
    ) -> Self {
        Self { appender: Appender::new(store, limits), tombstones, open_calls }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Streams for StreamsService {
    type ReadStream = Answers<ReadResp>;

    async fn read(&self, request: Request<ReadReq>) -> Result<Response<Answers<ReadResp>>, Status> {
        let open_call = self.open_calls.admit()?;
        let call = ReadCall::parse(
            self.appender.store.clone(),
            self.tombstones.clone(),
            request.into_inner(),
        )?;
        Ok(Response::new(call.run(open_call).await?))
    }

    async fn append(
        &self,
        request: Request<Streaming<AppendReq>>,
    ) -> Result<Response<AppendResp>, Status> {
        let state = request.extensions().get::<RequestState>().cloned().unwrap_or_default();
        let messages = request.into_inner();
        append(&self.appender, messages, &state).await.map(Response::new)
    }

    async fn delete(&self, request: Request<RemoveReq>) -> Result<Response<RemoveResp>, Status> {
        let options = request.into_inner().options.unwrap_or_default();
        let (stream, expected) = write_target(&options)?;
        Ok(removed(delete(&self.appender, &stream, expected).await?))
    }

    async fn tombstone(&self, request: Request<RemoveReq>) -> Result<Response<RemoveResp>, Status> {
        let options = request.into_inner().options.unwrap_or_default();
        let (stream, expected) = write_target(&options)?;
        Ok(removed(Some(tombstone(&*self.appender.store, &stream, expected).await?)))
    }

    type BatchAppendStream = Answers<BatchAppendResp>;

    async fn batch_append(
        &self,
        request: Request<Streaming<BatchAppendReq>>,
    ) -> Result<Response<Answers<BatchAppendResp>>, Status> {
        let open_call = self.open_calls.admit()?;
        let messages = request.into_inner();
        let answers = batch_append(self.appender.clone(), messages);
        Ok(Response::new(Box::pin(open_call.hold_until_stopped(answers))))
    }
}

fn removed(position: Option<u64>) -> Response<RemoveResp> {
    let position_option = position.map(wire_position).map(PositionOption::Position);
    Response::new(RemoveResp { position_option })
}
