//! A process that ends between two requests, or between a request and its answer.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, SharedHttpClient, SharedHttpConnector},
    orchestrator::HttpRequest,
};
use tokio::sync::watch;

use super::layer::{self, Answer, Layer};

/// HTTP clients after whose first requests the process seems to have ended: later calls never
/// return. A test drops them once [`died`](Self::died) returns, and looks at what was left.
#[derive(Clone, Debug)]
pub struct Dying(Arc<Life>);

#[derive(Debug)]
struct Life {
    /// How many requests are sent and answered.
    whole: u64,
    /// Whether one more is sent, and its answer not given to the caller.
    one_more: bool,
    asked: AtomicU64,
    sent: AtomicU64,
    died: watch::Sender<bool>,
}

impl Dying {
    /// It ends before request `requests + 1` is sent.
    pub fn before(requests: u64) -> Self {
        Self::new(requests, false)
    }

    /// It ends after request `requests + 1` has been executed, and before its answer is known.
    pub fn after(requests: u64) -> Self {
        Self::new(requests, true)
    }

    fn new(whole: u64, one_more: bool) -> Self {
        let (asked, sent) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Life { whole, one_more, asked, sent, died: watch::Sender::new(false) }))
    }

    /// An HTTP client without TLS that shares this end with all others of this value.
    pub fn http_client(&self) -> SharedHttpClient {
        self.around(layer::plain_http())
    }

    /// The same around another HTTP client.
    pub fn around(&self, inner: SharedHttpClient) -> SharedHttpClient {
        layer::around(&self.0, inner)
    }

    /// How many requests were sent.
    pub fn requests(&self) -> u64 {
        self.0.sent.load(SeqCst)
    }

    /// Whether it has ended.
    pub fn is_dead(&self) -> bool {
        *self.0.died.borrow()
    }

    /// Waits until it has ended: a request is not sent, or the last one has been executed.
    pub async fn died(&self) {
        // The sender lives in `self`, so that this cannot fail.
        let _ = self.0.died.subscribe().wait_for(|died| *died).await;
    }
}

impl Layer for Life {
    async fn call(self: Arc<Self>, request: HttpRequest, next: SharedHttpConnector) -> Answer {
        let before = self.asked.fetch_add(1, SeqCst);
        if before < self.whole {
            self.sent.fetch_add(1, SeqCst);
            return next.call(request).await;
        }
        if !self.one_more {
            self.died.send_replace(true);
        } else if before == self.whole {
            self.sent.fetch_add(1, SeqCst);
            // Whatever the answer is, it has not arrived in time.
            let _ = next.call(request).await;
            self.died.send_replace(true);
        }
        pending().await
    }
}
