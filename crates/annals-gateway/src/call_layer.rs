//! A layer around every call: notes whether the request arrived whole, and limits how long the call
//! may take.

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

use futures::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use tonic::{Status, body::Body, transport::server::TlsConnectInfo};
use tower::{Layer, Service};

use crate::{request_memory::RequestMemory, socket::ConnectionInfo};

/// Tells whether a request was cut off before its end. Tonic ends the messages of such a request as
/// if the client had sent all of them, so a call that acts at the end of its messages has to ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestState {
    cut_off: Arc<AtomicBool>,
}

impl RequestState {
    /// Refuses a request that was cut off: the client cancelled it, or the connection was lost.
    pub(crate) fn check_whole(&self) -> Result<(), Status> {
        if self.cut_off.load(SeqCst) {
            return Err(Status::cancelled("the request was cut off; nothing was done"));
        }
        Ok(())
    }
}

/// Adds a [`RequestState`] to each request, limits the memory of requests, and ends calls that take too
/// long to answer.
#[derive(Clone, Debug)]
pub(crate) struct CallLayer {
    pub(crate) timeout: Duration,
    pub(crate) memory: RequestMemory,
}

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> CallService<S> {
        CallService { inner, timeout: self.timeout, memory: self.memory.clone() }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct CallService<S> {
    inner: S,
    timeout: Duration,
    memory: RequestMemory,
}

impl<S> Service<Request<Body>> for CallService<S>
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let timeout = client_timeout(request.headers());
        let timeout = timeout.map_or(self.timeout, |timeout| timeout.min(self.timeout));
        note_request(request.extensions());
        let state = RequestState::default();
        request.extensions_mut().insert(state.clone());
        let request = request.map(|body| {
            let body = self.memory.limit(body);
            Body::new(body.map_err(move |error| {
                state.cut_off.store(true, SeqCst);
                error
            }))
        });
        // Create this timer before tonic creates its own, so that this one ends first: tonic would
        // answer with another status.
        let sleep = tokio::time::sleep(timeout);
        let answer = self.inner.call(request);
        async move {
            tokio::select! {
                biased;
                answer = answer => answer,
                () = sleep => {
                    let message = format!("the call took longer than {timeout:?}");
                    Ok(Status::deadline_exceeded(message).into_http())
                }
            }
        }
        .boxed()
    }
}

/// Tells the connection of a request that its client has asked for something.
fn note_request(extensions: &http::Extensions) {
    let plain = extensions.get::<ConnectionInfo>();
    let encrypted = extensions.get::<TlsConnectInfo<ConnectionInfo>>();
    if let Some(connection) = plain.or(encrypted.map(TlsConnectInfo::get_ref)) {
        connection.note_request();
    }
}

/// The timeout that the client set: digits, then a letter for the unit.
fn client_timeout(headers: &http::HeaderMap) -> Option<Duration> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read() {
        let read = |text: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            client_timeout(&headers)
        };
        assert_eq!(read("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        for wrong in ["", "S", "x", "1", "1y", "-1S"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
