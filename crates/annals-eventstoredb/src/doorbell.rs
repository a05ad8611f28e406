//! Wakes a subscriber when the server has new events.
//!
//! A doorbell is a subscription on the server whose messages are not used: each only says that
//! there may be new events, and the subscriber then reads them. So a lost message costs time, but
//! no event.
//!
//! This is the one request that does not go through the client. When the server ends a subscription
//! of the client without an error, the client polls it for the next message in a loop that never
//! waits, and so blocks a thread of the runtime for ever (kurrentdb 1.2,
//! `Subscription::next_subscription_event`). Dropping such a subscription can also lose events.

use std::{sync::Arc, time::Duration};

use annals_core::adapter::{Backoff, Wake};
use async_trait::async_trait;
use base64::Engine;
use futures::FutureExt;
use kurrentdb::{ClientSettings, Credentials};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::ProstCodec,
    metadata::AsciiMetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::wire::{self, AnyMessage, ReadReq};

/// The first and the longest pause before a subscription that ended is made again.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How long a connection may be silent before it is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How often a subscriber reads while its doorbell has no subscription on the server.
const UNSUBSCRIBED_POLL: Duration = Duration::from_millis(100);

/// The most messages that are taken together and wake the subscriber once.
const MESSAGES_AT_ONCE: usize = 256;

/// The size of the largest message that the server sends: one event.
const MAX_MESSAGE_BYTES: usize = 17 * 1024 * 1024;

/// The connections of the doorbells of one store.
#[derive(Debug)]
pub(crate) struct Doorbells {
    /// One for each host of the URL. Every node of a cluster sends new events to its subscribers.
    channels: Vec<Channel>,
    authorization: Option<AsciiMetadataValue>,
}

impl Doorbells {
    /// Connects when the first subscriber comes. Without a usable connection, such as if
    /// certificates are not to be verified, subscribers poll.
    pub(crate) fn new(settings: &ClientSettings, credentials: Option<&Credentials>) -> Self {
        let channels = match channels(settings) {
            Ok(channels) => channels,
            Err(error) => {
                tracing::debug!(%error, "subscribers poll, since no connection can wake them");
                Vec::new()
            }
        };
        Self { channels, authorization: credentials.and_then(authorization) }
    }

    /// Subscribes at the next host: `attempt` counts up with each call. `None` without any host.
    async fn subscribe(
        &self,
        attempt: usize,
        request: ReadReq,
    ) -> Result<Option<Streaming<AnyMessage>>, Status> {
        let channel = attempt.checked_rem(self.channels.len()).and_then(|i| self.channels.get(i));
        let Some(channel) = channel else { return Ok(None) };
        let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let mut request = Request::new(request);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        let codec = ProstCodec::<ReadReq, AnyMessage>::default();
        let answer = grpc.server_streaming(request, wire::path(), codec).await?;
        Ok(Some(answer.into_inner()))
    }
}

/// Wakes one subscriber. Dropping it ends its subscription on the server.
#[derive(Debug)]
pub(crate) struct Doorbell {
    signal: watch::Receiver<Signal>,
    listening: JoinHandle<()>,
    poll_interval: Duration,
}

/// Sent to the subscriber whenever it should read.
#[derive(Clone, Copy, Debug, Default)]
struct Signal {
    /// True while a subscription on the server is running.
    subscribed: bool,
}

impl Doorbell {
    pub(crate) fn new(
        doorbells: Arc<Doorbells>,
        request: ReadReq,
        poll_interval: Duration,
    ) -> Self {
        let (sender, signal) = watch::channel(Signal::default());
        let listening = tokio::spawn(listen(doorbells, request, sender));
        Self { signal, listening, poll_interval }
    }
}

#[async_trait]
impl Wake for Doorbell {
    fn arm(&mut self) {
        self.signal.arm();
    }

    /// Returns also when it is time to poll.
    async fn wait(&mut self) -> annals_core::Result<()> {
        let subscribed = self.signal.borrow().subscribed;
        let poll =
            if subscribed { self.poll_interval } else { self.poll_interval.min(UNSUBSCRIBED_POLL) };
        // If the listening task has ended, polling goes on.
        if let Ok(Err(_)) = timeout(poll, self.signal.changed()).await {
            sleep(poll).await;
        }
        Ok(())
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Subscribes on the server again and again, and passes on that messages came.
async fn listen(doorbells: Arc<Doorbells>, request: ReadReq, sender: watch::Sender<Signal>) {
    // Begins with any host, so that the subscribers of many processes spread over the hosts.
    let first_backoff = || Backoff::new(RETRY.0, RETRY.1);
    let (mut backoff, mut attempt) = (first_backoff(), fastrand::usize(..));
    loop {
        match doorbells.subscribe(attempt, request.clone()).await {
            Ok(None) => return futures::future::pending().await,
            Ok(Some(mut messages)) => loop {
                match messages.message().await {
                    Ok(Some(AnyMessage {})) => {
                        backoff = first_backoff();
                        // One signal is enough for all messages that have arrived already.
                        for _ in 0..MESSAGES_AT_ONCE {
                            if !matches!(messages.message().now_or_never(), Some(Ok(Some(_)))) {
                                break;
                            }
                        }
                        sender.send_replace(Signal { subscribed: true });
                    }
                    Ok(None) => break,
                    Err(status) => {
                        tracing::debug!(code = ?status.code(), "a doorbell's subscription failed");
                        break;
                    }
                }
            },
            Err(status) => tracing::debug!(code = ?status.code(), "a doorbell cannot subscribe"),
        }
        sender.send_replace(Signal { subscribed: false });
        sleep(backoff.next_pause()).await;
        attempt = attempt.wrapping_add(1);
    }
}

fn channels(settings: &ClientSettings) -> Result<Vec<Channel>, Box<dyn std::error::Error>> {
    let secure = settings.is_secure_mode_enabled();
    if secure && !settings.is_tls_certificate_verification_enabled() {
        return Err("the settings turn off the verification of certificates".into());
    }
    let scheme = if secure { "https" } else { "http" };
    let tls = secure.then(|| tls(settings)).transpose()?;
    settings
        .hosts()
        .iter()
        .map(|host| {
            let endpoint =
                Endpoint::from_shared(format!("{scheme}://{}:{}", host.host, host.port))?
                    .connect_timeout(KEEP_ALIVE)
                    .http2_keep_alive_interval(KEEP_ALIVE)
                    .keep_alive_timeout(KEEP_ALIVE)
                    .keep_alive_while_idle(true);
            let endpoint = match &tls {
                Some(tls) => endpoint.tls_config(tls.clone())?,
                None => endpoint,
            };
            Ok(endpoint.connect_lazy())
        })
        .collect()
}

fn tls(settings: &ClientSettings) -> Result<ClientTlsConfig, Box<dyn std::error::Error>> {
    let tls = match settings.tls_ca_file() {
        Some(file) => {
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(std::fs::read(file)?))
        }
        None => ClientTlsConfig::new().with_native_roots(),
    };
    Ok(match settings.user_certificate() {
        Some((certificate, key)) => {
            tls.identity(Identity::from_pem(std::fs::read(certificate)?, std::fs::read(key)?))
        }
        None => tls,
    })
}

/// The header with the credentials. The client's type has no getters, so this serialises it.
fn authorization(credentials: &Credentials) -> Option<AsciiMetadataValue> {
    let parts = serde_json::to_value(credentials).ok()?;
    let bytes =
        |name: &str| -> Option<Vec<u8>> { serde_json::from_value(parts.get(name)?.clone()).ok() };
    let pair = [bytes("login")?, bytes("password")?].join(&b':');
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    let mut value = AsciiMetadataValue::try_from(format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_sent_and_not_shown() {
        let value = authorization(&Credentials::new("admin", "changeit")).unwrap();
        assert_eq!(value.to_str().unwrap(), "Basic YWRtaW46Y2hhbmdlaXQ=");
        assert!(!format!("{value:?}").contains("YWRt"), "{value:?}");
    }
}
