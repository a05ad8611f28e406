//! `annals check`: inspects a store without creating or migrating anything.

#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(feature = "eventstoredb")]
mod eventstoredb;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "dynamodb")),
    allow(dead_code, reason = "the other backends have no schema")
)]
mod report;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::process::ExitCode;

use annals::{Backend, ErrorKind, OpenMode, StoreUrl};
use clap::Args;

use crate::{check::report::CheckReport, failure::Failure, output};

#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct Check {
    /// The store.
    #[arg(env = "ANNALS_URL", hide_env_values = true)]
    url: String,
    /// First create the store if it is missing, or migrate it if its schema is older, as a program does
    /// that opens the store.
    #[arg(long)]
    create: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

const AFTER: &str = "\
Without --create nothing is created, migrated or written.

Exit status: 0 if all is well, 3 if there is a problem to fix, 1 if the store cannot be reached.";

impl Check {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let url = StoreUrl::parse(&self.url)?;
        let create = if self.create { annals::connect(&self.url).await.err() } else { None };
        let mut report = inspect(&url).await?;
        if let Some(error) = create {
            report.could_not_create(error);
        }
        let mut out = output::stdout();
        output::written(if self.json {
            report.write_json(&mut out, &url.to_string())
        } else {
            report.write(&mut out, &url.to_string())
        })?;
        Ok(report.code())
    }
}

/// Whether there is no store at a URL yet, or an older one, and nothing else is in the way of
/// creating or migrating it.
///
/// # Errors
/// Why the store could not be written to.
pub(crate) async fn can_be_created(url: &StoreUrl) -> Result<bool, Failure> {
    if let Backend::Registered(registered) = url.backend() {
        // Where the URL itself can be read, `InvalidInput` says that there is no store.
        let opened = registered.opener().open(url.as_str(), OpenMode::Existing).await;
        let is_missing = opened.is_err_and(|error| error.kind() == ErrorKind::InvalidInput);
        return Ok(url.check().is_ok() && is_missing);
    }
    let Ok(report) = inspect(url).await else { return Ok(false) };
    let can_be = report.lacks_only_schema();
    report.unwritable.map_or(Ok(can_be), |why| Err(Failure::new(why)))
}

/// Fails if a store that is there can be read, but not written to. Only a file can be so.
pub(crate) async fn check_writable(url: &StoreUrl) -> Result<(), Failure> {
    match url.backend() {
        #[cfg(feature = "sqlite")]
        Backend::Sqlite => match inspect(url).await?.unwritable {
            Some(why) => Err(Failure::new(why)),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

async fn inspect(url: &StoreUrl) -> Result<CheckReport, Failure> {
    match url.backend() {
        #[cfg(feature = "sqlite")]
        Backend::Sqlite => sqlite::inspect(url.as_str()).await,
        #[cfg(feature = "postgres")]
        Backend::Postgres => postgres::inspect(url.as_str()).await,
        #[cfg(feature = "dynamodb")]
        Backend::DynamoDb => dynamodb::inspect(url.as_str()).await,
        #[cfg(feature = "eventstoredb")]
        Backend::EventStoreDb => eventstoredb::inspect(url.as_str()).await,
        // A store in memory has nothing to inspect. For a backend that this build lacks, the error
        // of `connect` names the feature.
        backend => {
            let mode = match backend {
                Backend::Registered(_) | Backend::Marten => OpenMode::Existing,
                _ => OpenMode::Create,
            };
            let store = annals::connect_with(url.as_str(), mode).await?;
            let mut report = CheckReport::new(backend);
            report.capabilities = Some(store.capabilities().clone());
            Ok(report)
        }
    }
}
