//! Calls whose messages are bytes, so that a scenario can also send what is no message.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::Channel,
};

/// Messages stay bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What comes from the server.
#[derive(Debug)]
pub(crate) enum Incoming {
    Headers(MetadataMap),
    Message(Bytes),
    End(Box<End>),
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) details: Bytes,
    pub(crate) metadata: MetadataMap,
}

/// A call that is under way. Dropped, it is cancelled.
#[derive(Debug)]
pub(crate) struct Wire {
    to_server: Option<mpsc::UnboundedSender<Bytes>>,
    from_server: mpsc::UnboundedReceiver<Incoming>,
    task: JoinHandle<()>,
}

const MOST: usize = 256 * 1024 * 1024;

impl Wire {
    pub(crate) fn start(channel: Channel, path: &str, headers: &[(String, String)]) -> Self {
        let (to_server, requests) = mpsc::unbounded_channel();
        let (answers, from_server) = mpsc::unbounded_channel();
        let path: PathAndQuery = path.parse().expect("a path");
        let mut request = Request::new(UnboundedReceiverStream::new(requests));
        for (name, value) in headers {
            let name: tonic::metadata::AsciiMetadataKey = name.parse().expect("a name");
            if let Ok(value) = value.parse() {
                request.metadata_mut().append(name, value);
            }
        }
        let task = tokio::spawn(async move {
            let end = match run(channel, path, request, &answers).await {
                Ok(trailers) => End {
                    code: Code::Ok,
                    message: String::new(),
                    details: Bytes::new(),
                    metadata: trailers,
                },
                Err(status) => End {
                    code: status.code(),
                    message: status.message().to_owned(),
                    details: Bytes::copy_from_slice(status.details()),
                    metadata: status.metadata().clone(),
                },
            };
            let _ = answers.send(Incoming::End(Box::new(end)));
        });
        Self { to_server: Some(to_server), from_server, task }
    }

    pub(crate) fn send(&self, message: Bytes) {
        if let Some(to_server) = &self.to_server {
            let _ = to_server.send(message);
        }
    }

    /// Nothing more is sent.
    pub(crate) fn close(&mut self) {
        self.to_server = None;
    }

    /// None when nothing came in time.
    pub(crate) async fn next(&mut self, wait: Duration) -> Option<Incoming> {
        tokio::time::timeout(wait, self.from_server.recv()).await.ok().flatten()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    channel: Channel,
    path: PathAndQuery,
    request: Request<UnboundedReceiverStream<Bytes>>,
    answers: &mpsc::UnboundedSender<Incoming>,
) -> Result<MetadataMap, Status> {
    let mut grpc =
        Grpc::new(channel).max_decoding_message_size(MOST).max_encoding_message_size(MOST);
    let unavailable = |error| Status::unavailable(format!("no connection: {error}"));
    grpc.ready().await.map_err(unavailable)?;
    let response = grpc.streaming(request, path, Raw).await?;
    let (headers, mut stream, _) = response.into_parts();
    let _ = answers.send(Incoming::Headers(headers));
    while let Some(message) = stream.message().await? {
        let _ = answers.send(Incoming::Message(message));
    }
    Ok(stream.trailers().await?.unwrap_or_default())
}
