//! Sending a request until it has an answer.

use std::{error::Error as StdError, time::Duration};

use annals_core::{Error, Result, adapter::Backoff};
use aws_sdk_dynamodb::{
    Client,
    config::{http::HttpResponse, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    config::DynamoDbOptions,
    error::{Failure, driver},
};

/// The first and the longest pause before a request is sent again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// The most items of a transaction, and the most keys of a `BatchGetItem` (quotas of DynamoDB).
pub(crate) const MOST_ITEMS: usize = 100;

/// One table, and for how long its requests are tried.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) client: Client,
    pub(crate) name: String,
    request_timeout: Duration,
    pub(super) retry_for: Duration,
}

/// Why a request failed after all tries.
pub(crate) struct RequestError<E> {
    pub(crate) error: SdkError<E, HttpResponse>,
    /// Whether one of the tries may have been executed.
    outcome_unknown: bool,
}

impl<E: ProvideErrorMetadata + StdError + Send + Sync + 'static> From<RequestError<E>> for Error {
    fn from(failed: RequestError<E>) -> Self {
        driver(failed.error)
    }
}

impl<E: ProvideErrorMetadata + StdError + Send + Sync + 'static> RequestError<E> {
    /// The error of a write, which says whether the write may have happened.
    pub(super) fn of_write(self) -> Error {
        let error = driver(self.error);
        if self.outcome_unknown { error.with_outcome_unknown() } else { error }
    }
}

impl Table {
    /// Turns off the retries of the SDK: [`Self::call`] tries for longer, and after more kinds of
    /// errors.
    pub(crate) fn new(client: &Client, name: String, options: &DynamoDbOptions) -> Self {
        let config = client.config().to_builder().retry_config(RetryConfig::disabled()).build();
        Self {
            client: Client::from_conf(config),
            name,
            request_timeout: options.request_timeout,
            retry_for: options.retry_for,
        }
    }

    /// Sends a request until DynamoDB answers or refuses it, or `retry_for` is over.
    pub(crate) async fn call<T, E, F>(
        &self,
        request: impl Fn() -> F,
        judge: impl Fn(&SdkError<E, HttpResponse>) -> Failure,
    ) -> Result<T, RequestError<E>>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata,
    {
        let began = Instant::now();
        let mut outcome_unknown = false;
        let mut backoff = pauses();
        loop {
            let error = match timeout(self.request_timeout, request()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(elapsed) => SdkError::timeout_error(elapsed),
            };
            let failure = judge(&error);
            outcome_unknown |= failure == Failure::Unknown;
            if failure == Failure::Permanent || began.elapsed() >= self.retry_for {
                return Err(RequestError { error, outcome_unknown });
            }
            tracing::debug!(code = error.code(), ?failure, "a request failed and is sent again");
            sleep(backoff.next_pause()).await;
        }
    }
}

/// The pauses between tries of one request.
pub(super) fn pauses() -> Backoff {
    Backoff::new(PAUSE.0, PAUSE.1)
}
