//! What the HTTP clients here have in common: each stands between the SDK and another HTTP client.

use std::{fmt, sync::Arc};

use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::{
    connector_metadata::ConnectorMetadata,
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};
use bytes::Bytes;
use serde_json::Value;

/// An HTTP client that speaks no TLS. Its connections end with the runtime on which they were made.
pub fn plain_http() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_http()
}

/// An HTTP client that speaks TLS, for the real service.
pub(super) fn https() -> SharedHttpClient {
    let tls = Provider::Rustls(CryptoMode::Ring);
    aws_smithy_http_client::Builder::new().tls_provider(tls).build_https()
}

/// What a layer around an HTTP client does with a request.
pub(super) trait Layer: fmt::Debug + Send + Sync + 'static {
    /// Answers a request, with or without sending it to `next`.
    fn call(
        self: Arc<Self>,
        request: HttpRequest,
        next: SharedHttpConnector,
    ) -> impl Future<Output = Answer> + Send + 'static;
}

pub(super) type Answer = Result<HttpResponse, ConnectorError>;

/// Puts a layer around an HTTP client.
pub(super) fn around<L: Layer>(layer: &Arc<L>, inner: SharedHttpClient) -> SharedHttpClient {
    SharedHttpClient::new(Layered { layer: layer.clone(), inner })
}

#[derive(Debug)]
struct Layered<L, C> {
    layer: Arc<L>,
    inner: C,
}

impl<L: Layer> HttpClient for Layered<L, SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Layered { layer: self.layer.clone(), inner })
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.inner.connector_metadata()
    }
}

impl<L: Layer> HttpConnector for Layered<L, SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.layer.clone().call(request, self.inner.clone()))
    }
}

/// The start of the header `x-amz-target` of every request.
pub(super) const TARGET: &str = "DynamoDB_20120810.";

/// The operation of a request, such as `PutItem`.
pub(super) fn operation(request: &HttpRequest) -> String {
    let target = request.headers().get("x-amz-target").unwrap_or_default();
    target.strip_prefix(TARGET).unwrap_or(target).to_owned()
}

/// The body of a request; null if it is not JSON.
pub(super) fn body(request: &HttpRequest) -> Value {
    let bytes = request.body().bytes().unwrap_or_default();
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// Replaces the body of a request. The signature no longer matches, which only the real service
/// checks.
pub(super) fn set_body(request: &mut HttpRequest, body: &Value) {
    let bytes = body.to_string().into_bytes();
    request.headers_mut().insert("content-length", bytes.len().to_string());
    *request.body_mut() = SdkBody::from(bytes);
}

/// Reads a whole answer, and returns it together with the bytes of its body.
pub(super) async fn read(
    mut answer: HttpResponse,
) -> Result<(HttpResponse, Bytes), ConnectorError> {
    let body = ByteStream::new(answer.take_body()).collect().await;
    let bytes = body.map_err(|e| ConnectorError::io(e.into()))?.into_bytes();
    *answer.body_mut() = SdkBody::from(bytes.clone());
    Ok((answer, bytes))
}
