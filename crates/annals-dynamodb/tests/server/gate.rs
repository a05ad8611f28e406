//! An HTTP client that lets a test decide what happens to each request.

use std::{fmt, sync::Arc, time::Duration};

use annals_dynamodb::aws_sdk_dynamodb::config::http::HttpResponse;
use annals_test_servers::dynamodb::plain_http;
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::HttpRequest,
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use serde_json::Value;
use tokio::sync::watch;

/// What happens to a request.
pub(crate) enum Fate {
    Pass,
    /// The request waits until the door is open.
    Wait(Door),
    /// The request is sent after this time.
    Late(Duration),
    /// The request is executed, and its answer is lost.
    Unanswered,
    /// The request is sent with this body.
    Changed(Value),
    /// The request is not sent, and this is its answer.
    Answered(Value),
}

type Judge = dyn Fn(&str, &Value) -> Fate + Send + Sync;

/// Decides by the operation of a request, such as `PutItem`, and its body.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Judge>);

impl Gate {
    pub(crate) fn new(judge: impl Fn(&str, &Value) -> Fate + Send + Sync + 'static) -> Self {
        Self(Arc::new(judge))
    }

    pub(crate) fn http_client(&self) -> SharedHttpClient {
        self.around(plain_http())
    }

    pub(crate) fn around(&self, inner: SharedHttpClient) -> SharedHttpClient {
        SharedHttpClient::new(Gated { gate: self.clone(), inner })
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// Requests wait before a door until it is opened. It is never closed again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Door(Arc<(watch::Sender<u64>, watch::Sender<bool>)>);

impl Door {
    /// Waits until this many requests have come to the door.
    pub(crate) async fn reached_by(&self, requests: u64) {
        self.0.0.subscribe().wait_for(|came| *came >= requests).await.unwrap();
    }

    pub(crate) fn open(&self) {
        self.0.1.send_replace(true);
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.0.1.borrow()
    }

    async fn pass(&self) {
        self.0.0.send_modify(|came| *came += 1);
        self.0.1.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

#[derive(Debug)]
struct Gated<C> {
    gate: Gate,
    inner: C,
}

impl HttpClient for Gated<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Gated { gate: self.gate.clone(), inner })
    }
}

impl HttpConnector for Gated<SharedHttpConnector> {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default();
        let body = serde_json::from_slice(request.body().bytes().unwrap_or_default());
        let fate = self.gate.0(operation, &body.unwrap_or_default());
        let inner = self.inner.clone();
        HttpConnectorFuture::new(async move {
            match fate {
                Fate::Pass => {}
                Fate::Wait(door) => door.pass().await,
                Fate::Late(time) => tokio::time::sleep(time).await,
                Fate::Unanswered => {
                    inner.call(request).await?;
                    return Err(ConnectorError::io("the answer is lost".into()));
                }
                Fate::Changed(body) => {
                    let bytes = body.to_string().into_bytes();
                    request.headers_mut().insert("content-length", bytes.len().to_string());
                    *request.body_mut() = SdkBody::from(bytes);
                }
                Fate::Answered(body) => {
                    let status = if body.get("__type").is_some() { 400 } else { 200 };
                    let mut answer = HttpResponse::new(
                        status.try_into().unwrap(),
                        SdkBody::from(body.to_string()),
                    );
                    answer.headers_mut().insert("content-type", "application/x-amz-json-1.0");
                    return Ok(answer);
                }
            }
            inner.call(request).await
        })
    }
}
