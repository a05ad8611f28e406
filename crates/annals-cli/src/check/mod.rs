//! `annals check`: looks at a store without creating or migrating anything.

#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(feature = "eventstoredb")]
mod eventstoredb;
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "dynamodb")),
    allow(dead_code, reason = "the others have no schema")
)]
mod findings;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::process::ExitCode;

use annals::EventStore;
use clap::Args;

use crate::{check::findings::Findings, failure::Failure, output, url::shown};

#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct Check {
    /// The store.
    #[arg(env = "ANNALS_URL", hide_env_values = true)]
    url: String,
    /// First create what is missing, or migrate what is older than this build, as a program does that
    /// opens the store.
    #[arg(long)]
    create: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

const AFTER: &str = "\
Without --create nothing is created, migrated or written.

Exit status: 0 where all is well, 3 where something has to be mended, 1 where the store cannot be \
reached.";

impl Check {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let created = if self.create { annals::connect(&self.url).await.err() } else { None };
        let mut findings = look(&self.url).await?;
        if let Some(error) = created {
            findings.could_not_create(error);
        }
        let mut out = output::stdout();
        let store = shown(&self.url);
        output::written(if self.json {
            findings.write_json(&mut out, &store)
        } else {
            findings.write(&mut out, &store)
        })?;
        Ok(findings.code())
    }
}

async fn look(url: &str) -> Result<Findings, Failure> {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    let scheme = scheme.to_ascii_lowercase();
    // Schemes have no case; only the text of a URL without one may not be changed.
    let url = if scheme.is_empty() { url.to_owned() } else { format!("{scheme}:{rest}") };
    match scheme.as_str() {
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite::look(&url).await,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => postgres::look(&url).await,
        #[cfg(feature = "dynamodb")]
        "dynamodb" => dynamodb::look(&url).await,
        #[cfg(feature = "eventstoredb")]
        "esdb" | "esdb+discover" | "kurrentdb" | "kurrentdb+discover" => {
            eventstoredb::look(&url).await
        }
        // In memory, where there is nothing to look at; or else this says what is wrong.
        _ => {
            let store = annals::connect(&url).await?;
            let mut findings = Findings::new(store.capabilities().backend);
            findings.capabilities = Some(store.capabilities().clone());
            Ok(findings)
        }
    }
}
