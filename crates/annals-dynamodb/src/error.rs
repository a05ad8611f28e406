//! Turns errors of DynamoDB and its SDK into errors of annals.

use std::{borrow::Cow, error::Error as StdError, io, sync::Arc};

use annals_core::{Error, ErrorKind};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use tokio::sync::oneshot::error::RecvError;

/// The name of this backend.
pub(crate) const BACKEND: &str = "dynamodb";

/// Stored data is not what this crate writes.
pub(crate) fn corrupt(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

pub(crate) fn internal(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Internal, what)
}

/// The error of a caller whose append was handed to a task that is gone.
pub(crate) fn runtime_ended(dropped: RecvError) -> Error {
    let message = "the runtime that wrote the append has shut down";
    let error = Error::new(ErrorKind::Unavailable, message).with_source(dropped);
    error.with_outcome_unknown()
}

/// An error for one of several callers whose appends were written together.
pub(crate) fn share(error: &Arc<Error>) -> Error {
    let message = "the transaction with this append failed";
    let one = Error::new(error.kind(), message).with_source(error.clone());
    if error.outcome_unknown() { one.with_outcome_unknown() } else { one }
}

/// What an error says about the request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing was done. The same request may succeed later.
    Transient,
    /// The request may have been executed or not. The same request, sent again, finds out.
    Unknown,
    /// Nothing was done, and the same request would fail again.
    Permanent,
}

/// Codes of transient errors. These and the next are from "Common Errors" in the API reference of
/// DynamoDB, and "Error handling with DynamoDB" in its developer guide.
const TRANSIENT: [&str; 10] = [
    // The SDK renews credentials that expire.
    EXPIRED,
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "RequestThrottledException",
    "ThrottlingException",
    "Throttling",
    "TransactionConflictException",
    "TransactionInProgressException",
];
const EXPIRED: &str = "ExpiredTokenException";
/// Codes of requests that the credentials do not allow.
const DENIED: [&str; 8] = [
    "AccessDeniedException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "UnrecognizedClientException",
];

/// What an error says about a request other than a transaction.
pub(crate) fn failure<E>(error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    if let Some(cause) = credentials_error(error) {
        // Without credentials nothing was sent.
        return if are_missing(cause) { Failure::Permanent } else { Failure::Transient };
    }
    match error {
        SdkError::ConstructionFailure(_) => Failure::Permanent,
        SdkError::DispatchFailure(dispatch) if dispatch.is_user() => Failure::Permanent,
        SdkError::DispatchFailure(dispatch) => match dispatch.as_connector_error() {
            Some(cause) if is_connection_refused(cause) => Failure::Transient,
            _ => Failure::Unknown,
        },
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or_default();
            let status = answer.raw().status();
            if TRANSIENT.contains(&code) {
                Failure::Transient
            } else if status.is_server_error() {
                Failure::Unknown
            } else {
                Failure::Permanent
            }
        }
        _ => Failure::Unknown,
    }
}

/// Whether no server listens at the endpoint, so that the request cannot have been sent.
fn is_connection_refused(error: &(dyn StdError + 'static)) -> bool {
    caused_by::<io::Error>(error).is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// The first error of this type in the chain of causes.
fn caused_by<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(cause) = error.downcast_ref() {
            return Some(cause);
        }
        next = error.source();
    }
    None
}

/// An error of the SDK as one of annals, whose message says what the caller can do.
pub(crate) fn driver<E>(error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    if let Some(cause) = credentials_error(&error) {
        let (kind, message) = match are_missing(cause) {
            true => (ErrorKind::Denied, NO_CREDENTIALS),
            false => (ErrorKind::Unavailable, NO_ANSWER_ABOUT_CREDENTIALS),
        };
        return Error::new(kind, message).with_source(error);
    }
    let (kind, message) = match &error {
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or_default();
            of_service(code, answer.raw().status().is_server_error())
        }
        SdkError::ConstructionFailure(_) => (
            ErrorKind::InvalidInput,
            "the SDK could not build the request; check the region and the endpoint",
        ),
        SdkError::TimeoutError(_) => {
            (ErrorKind::Unavailable, "DynamoDB did not answer within the request timeout")
        }
        _ => (ErrorKind::Unavailable, "DynamoDB cannot be reached, or the connection was lost"),
    };
    Error::new(kind, message).with_source(error)
}

const NO_CREDENTIALS: &str = "the AWS SDK found no credentials; set AWS_ACCESS_KEY_ID and \
    AWS_SECRET_ACCESS_KEY, a profile, or a role (the default chain of the SDK)";

const NO_ANSWER_ABOUT_CREDENTIALS: &str = "the service that gives out credentials did not answer for \
    as long as it was asked; try again";

/// Why there were no credentials for a request.
fn credentials_error<E>(error: &SdkError<E, HttpResponse>) -> Option<&CredentialsError>
where
    E: StdError + 'static,
{
    caused_by(error)
}

/// Whether nobody has credentials to give, so that asking again would not help.
fn are_missing(error: &CredentialsError) -> bool {
    matches!(
        error,
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_)
    )
}

/// The kind and message for an error that DynamoDB itself answered.
fn of_service(code: &str, server_error: bool) -> (ErrorKind, &'static str) {
    match code {
        "TransactionConflictException"
        | "TransactionInProgressException"
        | "TransactionCanceledException"
        | "ReplicatedWriteConflictException" => (
            ErrorKind::Busy,
            "other transactions kept writing to the same items for as long as this one was \
                 tried; try again",
        ),
        EXPIRED => (
            ErrorKind::Unavailable,
            "the credentials have expired, and the SDK has got no others; renew them, and try again",
        ),
        code if TRANSIENT.contains(&code) => (
            ErrorKind::Busy,
            "DynamoDB throttled the request for as long as it was tried; try again later, or raise \
             the limits of the table",
        ),
        "ResourceNotFoundException" => {
            (ErrorKind::Incompatible, "the table does not exist, is not ready yet, or was deleted")
        }
        code if DENIED.contains(&code) => (
            ErrorKind::Denied,
            "the credentials do not allow the request; the documentation of annals-dynamodb has \
             the policy that a store needs",
        ),
        _ if server_error => {
            (ErrorKind::Unavailable, "DynamoDB reported a failure of its own; try again")
        }
        _ => (ErrorKind::Internal, "DynamoDB refused the request"),
    }
}
