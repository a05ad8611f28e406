//! Around every call: whether its request was complete, and how long it may take.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

/// Whether a request broke off. Where a client cancels, or its connection is lost, the messages of
/// its request end as if it had said that they do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Broken(Arc<AtomicBool>);

impl Broken {
    /// Refuses a request that broke off.
    pub(crate) fn check(&self) -> Result<(), Status> {
        if self.0.load(SeqCst) {
            return Err(Status::cancelled("the request broke off: nothing was done"));
        }
        Ok(())
    }
}

/// Puts [`Broken`] into each request, and ends calls that take too long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around {
    pub(crate) timeout: Duration,
}

impl<S> Layer<S> for Around {
    type Service = Watching<S>;

    fn layer(&self, inner: S) -> Watching<S> {
        Watching { inner, timeout: self.timeout }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Watching<S> {
    inner: S,
    timeout: Duration,
}

impl<S> Service<Request<Body>> for Watching<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let broken = Broken::default();
        let (mut parts, inner) = request.into_parts();
        let timeout = asked(&parts.headers).map_or(self.timeout, |asked| asked.min(self.timeout));
        parts.extensions.insert(broken.clone());
        let request = Request::from_parts(parts, Body::new(Watched { inner, broken }));
        // Begins before the timeout of `tonic`, which answers with another status.
        let sleep = tokio::time::sleep(timeout);
        let answer = self.inner.call(request);
        async move {
            tokio::select! {
                biased;
                answer = answer => answer,
                () = sleep => {
                    let message = format!("it took longer than {timeout:?}");
                    Ok(Status::deadline_exceeded(message).into_http())
                }
            }
        }
        .boxed()
    }
}

/// How long the client waits: digits, and a letter for the unit.
fn asked(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count.saturating_mul(3600)),
        "M" => Duration::from_secs(count.saturating_mul(60)),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The body of a request, whose failure is noted.
struct Watched {
    inner: Body,
    broken: Broken,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &frame {
            self.broken.0.store(true, SeqCst);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read() {
        let read = |text: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            asked(&headers)
        };
        assert_eq!(read("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        for wrong in ["", "S", "x", "1", "1y", "-1S"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
