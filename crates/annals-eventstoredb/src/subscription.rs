//! A subscription on the server: its messages, and what happens when it is lost.

use std::{sync::Arc, time::Duration};

use annals_core::adapter::Backoff;
use futures::FutureExt;
use tokio::time::{sleep, timeout};

use crate::{
    connection::{Node, Target},
    error::Failure,
    rpc::{Messages, ReadMessage, ReadRequest},
    server::Server,
};

/// The first and the longest pause before a subscription that ended is made again.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// One subscription after the other, until one is refused for good.
pub(crate) struct Source {
    pub(crate) server: Arc<Server>,
    open: Option<Messages>,
    /// A message that was waited for, and not taken yet.
    peeked: Option<ReadMessage>,
    backoff: Backoff,
}

/// What comes of waiting for a message.
pub(crate) enum Incoming {
    Message(ReadMessage),
    /// Nothing came in time.
    Silence,
    /// The subscription is lost, and has to be made again.
    Lost,
}

impl Source {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        Self { server, open: None, peeked: None, backoff: first_backoff() }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The node at which to subscribe. `None` if it failed, and is worth another try.
    pub(crate) async fn node(&mut self) -> Result<Option<Arc<Node>>, Failure> {
        let node = self.server.connection.node(Target::Events).await;
        self.or_pause(node).await
    }

    /// Subscribes. False if it failed, and is worth another try.
    pub(crate) async fn subscribe(
        &mut self,
        node: &Arc<Node>,
        request: &ReadRequest,
    ) -> Result<bool, Failure> {
        self.peeked = None;
        let read = self.server.connection.read_from(node, Target::Events, request).await;
        self.open = self.or_pause(read).await?;
        Ok(self.is_open())
    }

    /// Waits a moment after a failure that may pass.
    pub(crate) async fn or_pause<T>(
        &mut self,
        result: Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(failure) if failure.is_transient() => {
                tracing::debug!(%failure, "a subscription will be made again");
                sleep(self.backoff.next_pause()).await;
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Ends the subscription.
    pub(crate) fn close(&mut self) {
        self.open = None;
        self.peeked = None;
    }

    /// Waits for a message, for so long if a time is given.
    pub(crate) async fn next(&mut self, patience: Option<Duration>) -> Result<Incoming, Failure> {
        if let Some(message) = self.peeked.take() {
            return Ok(Incoming::Message(message));
        }
        let Some(open) = &mut self.open else { return Ok(Incoming::Lost) };
        let received = match patience {
            None => open.next().await,
            Some(patience) => match timeout(patience, open.next()).await {
                Ok(received) => received,
                Err(_) => return Ok(Incoming::Silence),
            },
        };
        self.take(received).await
    }

    /// The next message, if it is there already.
    pub(crate) async fn at_hand(&mut self) -> Result<Option<ReadMessage>, Failure> {
        if let Some(message) = self.peeked.take() {
            return Ok(Some(message));
        }
        let Some(received) = self.open.as_mut().and_then(|open| open.next().now_or_never()) else {
            return Ok(None);
        };
        Ok(match self.take(received).await? {
            Incoming::Message(message) => Some(message),
            _ => None,
        })
    }

    /// Waits until there is a message, or the subscription is lost.
    pub(crate) async fn wait(&mut self) -> Result<(), Failure> {
        if let Incoming::Message(message) = self.next(None).await? {
            self.peeked = Some(message);
        }
        Ok(())
    }

    async fn take(
        &mut self,
        received: Result<Option<ReadMessage>, Failure>,
    ) -> Result<Incoming, Failure> {
        match received {
            Ok(Some(message)) => {
                // The confirmation says nothing about how long the subscription will last.
                if !matches!(message, ReadMessage::Other) {
                    self.backoff = first_backoff();
                }
                Ok(Incoming::Message(message))
            }
            // The server ended it without an error.
            Ok(None) => {
                self.open = None;
                sleep(self.backoff.next_pause()).await;
                Ok(Incoming::Lost)
            }
            Err(failure) => {
                if let Some(open) = self.open.take() {
                    self.server.connection.note(open.node(), &failure);
                }
                self.or_pause(Err::<(), _>(failure)).await?;
                Ok(Incoming::Lost)
            }
        }
    }
}

fn first_backoff() -> Backoff {
    Backoff::new(RETRY.0, RETRY.1)
}
