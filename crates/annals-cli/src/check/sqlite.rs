//! A look at an SQLite file.

use annals::{
    EventStore,
    sqlite::{Location, SqliteConfig, SqliteStore},
};

use crate::{check::Findings, failure::Failure};

pub(super) async fn look(url: &str) -> Result<Findings, Failure> {
    let config = SqliteConfig::from_url(url)?;
    let mut findings = Findings::new("sqlite");
    findings.server = Some(format!("SQLite {}", SqliteStore::library_version()));
    if let Err(error) = examine(config, &mut findings).await {
        findings.error(error);
    }
    Ok(findings)
}

async fn examine(config: SqliteConfig, findings: &mut Findings) -> annals::Result<()> {
    if let Location::File(path) = &config.location {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
            let what = format!("the directory {} does not exist", parent.display());
            findings.problem(what, "create it, or name another");
            return Ok(());
        }
        if path.is_dir() {
            let what = format!("{} is a directory", path.display());
            findings.problem(what, "add the name of a file to the URL");
            return Ok(());
        }
        let found = SqliteStore::inspect(config.clone()).await?;
        let (version, needed) = (found.schema_version, SqliteStore::SCHEMA_VERSION);
        let place = if found.exists {
            format!("the schema (tables `{}_…`) of {}", config.prefix, path.display())
        } else {
            format!("the file {}", path.display())
        };
        if let Ok(metadata) = std::fs::metadata(path) {
            findings.facts.push(("file", format!("{} bytes", metadata.len())));
        }
        if !found.writable {
            let mend = "let this user write to the file and to its directory";
            findings.problem(format!("{} cannot be written to", path.display()), mend);
        }
        let is_current = findings.schema((version > 0).then_some(version), needed, &place);
        if !is_current || !found.writable {
            return Ok(());
        }
    }
    // There is nothing left for it to create.
    let store = SqliteStore::open(config.with_create(false)).await?;
    findings.capabilities = Some(store.capabilities().clone());
    store.close().await
}
