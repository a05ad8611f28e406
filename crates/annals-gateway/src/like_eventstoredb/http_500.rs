//! Where a name beyond printable ASCII would stand in a trailer, the real server answers HTTP 500 and
//! no gRPC status.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures::FutureExt;
use http::{Request, Response, StatusCode};
use tonic::{Status, body::Body, metadata::MetadataValue};
use tower::{Layer, Service};

const MARK: &str = "x-http-500";

/// A status that the layer turns into HTTP 500.
pub(super) fn http_500() -> Status {
    let mut status = Status::unknown("HTTP 500");
    status.metadata_mut().insert(MARK, MetadataValue::from_static("yes"));
    status
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Http500Layer;

impl<S> Layer<S> for Http500Layer {
    type Service = Http500<S>;

    fn layer(&self, inner: S) -> Http500<S> {
        Http500(inner)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Http500<S>(S);

impl<S> Service<Request<Body>> for Http500<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        async move {
            let answer = answer.await?;
            if !answer.headers().contains_key(MARK) {
                return Ok(answer);
            }
            let mut failed = Response::new(Body::empty());
            *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            Ok(failed)
        }
        .boxed()
    }
}
