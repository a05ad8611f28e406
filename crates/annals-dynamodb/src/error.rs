//! The one place where errors of DynamoDB become ours.

use std::{borrow::Cow, error::Error as StdError, io};

use annals_core::{Error, ErrorKind};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

/// The name of this backend.
pub(crate) const BACKEND: &str = "dynamodb";

/// Adds where an error came from.
pub(crate) fn context(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.with_backend(BACKEND).with_operation(operation)
}

/// Something stored is not what this crate has written.
pub(crate) fn corrupt(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

pub(crate) fn internal(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Internal, what)
}

/// What an error says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing was done; the same request may succeed later.
    Passing,
    /// It may have been done or not; asking again tells.
    Unclear,
    /// Nothing was done, and will not be.
    Refused,
}

/// The codes are those of the API reference of DynamoDB, "Common Errors", and of its developer
/// guide, "Error handling with DynamoDB".
const PASSING: [&str; 9] = [
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
const DENIED: [&str; 9] = [
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "UnrecognizedClientException",
];

pub(crate) fn fault<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Fault {
    match error {
        SdkError::ConstructionFailure(_) => Fault::Refused,
        SdkError::DispatchFailure(failure) if failure.is_user() => Fault::Refused,
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(cause) if caused_by::<CredentialsError>(cause).is_some() => Fault::Refused,
            Some(cause) if was_refused(cause) => Fault::Passing,
            _ => Fault::Unclear,
        },
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or_default();
            let status = answer.raw().status();
            if PASSING.contains(&code) {
                Fault::Passing
            } else if status.is_server_error() {
                Fault::Unclear
            } else {
                Fault::Refused
            }
        }
        _ => Fault::Unclear,
    }
}

/// Nobody listens, so that nothing can have been sent.
fn was_refused(error: &(dyn StdError + 'static)) -> bool {
    caused_by::<io::Error>(error).is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// The first cause of this type.
fn caused_by<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An error of the driver, with what can be done about it.
pub(crate) fn driver<E>(error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let (kind, message) = match &error {
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or_default();
            of_service(code, answer.raw().status().is_server_error())
        }
        SdkError::DispatchFailure(failure)
            if failure
                .as_connector_error()
                .is_some_and(|cause| caused_by::<CredentialsError>(cause).is_some()) =>
        {
            (ErrorKind::Denied, NO_CREDENTIALS)
        }
        SdkError::ConstructionFailure(_) if caused_by::<CredentialsError>(&error).is_some() => {
            (ErrorKind::Denied, NO_CREDENTIALS)
        }
        SdkError::ConstructionFailure(_) => (
            ErrorKind::InvalidInput,
            "no request could be made of it; look at the region and the endpoint",
        ),
        SdkError::TimeoutError(_) => (ErrorKind::Unavailable, "DynamoDB did not answer in time"),
        _ => (ErrorKind::Unavailable, "DynamoDB cannot be reached, or the connection was lost"),
    };
    Error::new(kind, message).with_source(error)
}

const NO_CREDENTIALS: &str = "no credentials were found; set AWS_ACCESS_KEY_ID and \
    AWS_SECRET_ACCESS_KEY, a profile, or a role (the default chain of the AWS SDK)";

fn of_service(code: &str, server_error: bool) -> (ErrorKind, &'static str) {
    match code {
        "TransactionConflictException"
        | "TransactionInProgressException"
        | "TransactionCanceledException"
        | "ReplicatedWriteConflictException" => {
            (ErrorKind::Busy, "others kept writing the same items for as long as it was tried")
        }
        code if PASSING.contains(&code) => (
            ErrorKind::Busy,
            "DynamoDB throttled it for as long as it was tried; try again later, or raise the \
             limits of the table",
        ),
        "ResourceNotFoundException" => {
            (ErrorKind::Incompatible, "the table is not there, or not yet, or no longer")
        }
        code if DENIED.contains(&code) => (
            ErrorKind::Denied,
            "the credentials do not allow it; the documentation of annals-dynamodb has the policy",
        ),
        _ if server_error => (ErrorKind::Unavailable, "DynamoDB failed; try again"),
        _ => (ErrorKind::Internal, "DynamoDB refused the request"),
    }
}
