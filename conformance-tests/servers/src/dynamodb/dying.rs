//! A process that dies between two requests, or between a request and its answer.

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

/// HTTP clients of a process that seems to die after a number of requests: calls after that never
/// return. A test waits for [`died`](Self::died), drops the clients, and looks at what they left.
#[derive(Clone, Debug)]
pub struct Dying(Arc<Life>);

#[derive(Debug)]
struct Life {
    /// How many requests are sent and answered.
    whole: u64,
    /// Whether one more request is sent, whose answer the caller does not get.
    one_more: bool,
    asked: AtomicU64,
    sent: AtomicU64,
    died: watch::Sender<bool>,
}

impl Dying {
    /// The process dies before it sends request `requests + 1`.
    pub fn before(requests: u64) -> Self {
        Self::new(requests, false)
    }

    /// The process dies after the server has executed request `requests + 1`, and before it knows
    /// the answer.
    pub fn after(requests: u64) -> Self {
        Self::new(requests, true)
    }

    fn new(whole: u64, one_more: bool) -> Self {
        let (asked, sent) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Life { whole, one_more, asked, sent, died: watch::Sender::new(false) }))
    }

    /// An HTTP client without TLS. All clients of this value count their requests together.
    pub fn http_client(&self) -> SharedHttpClient {
        self.around(layer::plain_http())
    }

    /// Like [`http_client`](Self::http_client), around another HTTP client.
    pub fn around(&self, inner: SharedHttpClient) -> SharedHttpClient {
        layer::around(&self.0, inner)
    }

    /// How many requests were sent.
    pub fn requests(&self) -> u64 {
        self.0.sent.load(SeqCst)
    }

    /// Whether the process has died.
    pub fn is_dead(&self) -> bool {
        *self.0.died.borrow()
    }

    /// Waits until the process has died: until a request was held back, or the last was executed.
    pub async fn died(&self) {
        // Cannot fail: `self` owns the sender.
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
            // The answer comes too late, whatever it is.
            let _ = next.call(request).await;
            self.died.send_replace(true);
        }
        pending().await
    }
}
