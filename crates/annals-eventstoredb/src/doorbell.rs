//! Wakes a subscriber when the server has something new.
//!
//! This is the one request that does not go through the client. A subscription of the client never
//! returns to its caller once the server has ended it in good order: it looks again for the next
//! message, is told again that there is none, and so on without ever waiting, on a thread that
//! other tasks need and that nothing can take away from it (kurrentdb 1.2,
//! `Subscription::next_subscription_event`). Nor does dropping it in the middle lose nothing. So
//! this crate subscribes by itself, and takes from it no more than the news that there is
//! something: the events are read, and a ring that is lost costs time and no event.

use std::{sync::Arc, time::Duration};

use base64::Engine;
use futures::FutureExt;
use kurrentdb::{ClientSettings, Credentials};
use tokio::{sync::watch, task::JoinHandle, time::sleep};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::ProstCodec,
    metadata::AsciiMetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::wire::{self, ReadReq, Ring};

/// The pause before a broken subscription is made again, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How long a connection may be silent before it is looked whether it is still there, and how long
/// that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The most messages that make one ring.
const AT_ONCE: usize = 256;

/// The largest message that the server sends, which is an event.
const MAX_MESSAGE_BYTES: usize = 17 * 1024 * 1024;

/// What it takes to subscribe, for all subscriptions of a store.
#[derive(Debug)]
pub(crate) struct Doorbells {
    /// One for each server of the URL: any of them knows of new events.
    channels: Vec<Channel>,
    authorization: Option<AsciiMetadataValue>,
}

impl Doorbells {
    /// Connects when the first subscriber comes. Where no connection can be had, as without the
    /// verification of certificates, subscribers look by themselves.
    pub(crate) fn new(settings: &ClientSettings, credentials: Option<&Credentials>) -> Self {
        let channels = match channels(settings) {
            Ok(channels) => channels,
            Err(error) => {
                tracing::debug!(%error, "subscribers are not woken, but look by themselves");
                Vec::new()
            }
        };
        Self { channels, authorization: credentials.and_then(authorization) }
    }

    async fn subscribe(
        &self,
        turn: usize,
        request: ReadReq,
    ) -> Result<Option<Streaming<Ring>>, Status> {
        let channel = turn.checked_rem(self.channels.len()).and_then(|i| self.channels.get(i));
        let Some(channel) = channel else { return Ok(None) };
        let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let mut request = Request::new(request);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        let codec = ProstCodec::<ReadReq, Ring>::default();
        let answer = grpc.server_streaming(request, wire::path(), codec).await?;
        Ok(Some(answer.into_inner()))
    }
}

/// Rings for one subscriber, until it is dropped.
#[derive(Debug)]
pub(crate) struct Doorbell {
    rings: watch::Receiver<State>,
    ringing: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    rings: u64,
    /// Whether the server would ring.
    works: bool,
}

impl Doorbell {
    pub(crate) fn new(bells: Arc<Doorbells>, request: ReadReq) -> Self {
        let (sender, rings) = watch::channel(State::default());
        Self { rings, ringing: tokio::spawn(ring(bells, request, sender)) }
    }

    /// Forgets the rings up to now.
    pub(crate) fn forget(&mut self) {
        self.rings.borrow_and_update();
    }

    /// Whether the server would ring.
    pub(crate) fn works(&self) -> bool {
        self.rings.borrow().works
    }

    /// Waits for a ring.
    pub(crate) async fn rung(&mut self) {
        if self.rings.changed().await.is_err() {
            futures::future::pending().await
        }
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.ringing.abort();
    }
}

async fn ring(bells: Arc<Doorbells>, request: ReadReq, sender: watch::Sender<State>) {
    let (mut pause, mut turn) = (PAUSE.0, fastrand::usize(..));
    loop {
        match bells.subscribe(turn, request.clone()).await {
            Ok(None) => return futures::future::pending().await,
            Ok(Some(mut messages)) => loop {
                match messages.message().await {
                    Ok(Some(Ring {})) => {
                        pause = PAUSE.0;
                        // What is here already need not wake anybody a second time.
                        for _ in 0..AT_ONCE {
                            if !matches!(messages.message().now_or_never(), Some(Ok(Some(_)))) {
                                break;
                            }
                        }
                        sender.send_modify(|state| {
                            *state = State { rings: state.rings.wrapping_add(1), works: true };
                        });
                    }
                    Ok(None) => break,
                    Err(status) => {
                        tracing::debug!(code = ?status.code(), "a subscription broke off");
                        break;
                    }
                }
            },
            Err(status) => tracing::debug!(code = ?status.code(), "no subscription was to be had"),
        }
        sender.send_modify(|state| {
            *state = State { rings: state.rings.wrapping_add(1), works: false };
        });
        sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        pause = (pause * 2).min(PAUSE.1);
        turn = turn.wrapping_add(1);
    }
}

fn channels(settings: &ClientSettings) -> Result<Vec<Channel>, Box<dyn std::error::Error>> {
    let secure = settings.is_secure_mode_enabled();
    if secure && !settings.is_tls_certificate_verification_enabled() {
        return Err("certificates are not to be verified".into());
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

/// The client keeps credentials to itself, but can be asked to write them down.
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
