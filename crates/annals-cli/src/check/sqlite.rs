//! Inspects an SQLite file.

use std::path::Path;

use annals::{
    Backend, EventStore,
    sqlite::{Location, SqliteConfig, SqliteStore},
};

use crate::{check::CheckReport, failure::Failure};

pub(super) async fn inspect(url: &str) -> Result<CheckReport, Failure> {
    let config = SqliteConfig::from_url(url)?;
    let mut report = CheckReport::new(Backend::Sqlite);
    report.server = Some(format!("SQLite {}", SqliteStore::library_version()));
    if let Err(error) = examine(config, &mut report).await {
        report.error(error);
    }
    Ok(report)
}

async fn examine(config: SqliteConfig, report: &mut CheckReport) -> annals::Result<()> {
    if let Location::File(path) = &config.location {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
            let what = format!("the directory {} does not exist", parent.display());
            report.problem(what, "create it, or name another");
            return Ok(());
        }
        if path.is_dir() {
            let what = format!("{} is a directory", path.display());
            report.problem(what, "add the name of a file to the URL");
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
            report.facts.push(("file", sizes(path, metadata.len())));
        }
        let parent = parent.unwrap_or(Path::new("."));
        let unwritable = if found.exists {
            (!found.writable).then(|| format!("{} cannot be written to", path.display()))
        } else {
            // Nobody sees this file: it has no name, and is gone when it is closed.
            let error = tempfile::tempfile_in(parent).err();
            error.map(|e| format!("the directory {} cannot be written to: {e}", parent.display()))
        };
        if let Some(what) = &unwritable {
            let fix = "let this user write to the file and to its directory";
            report.problem(what.clone(), fix);
        }
        report.unwritable = unwritable;
        let is_current = report.schema((version > 0).then_some(version), needed, &place);
        if !is_current || !found.writable {
            return Ok(());
        }
    }
    // The tables exist, so that opening the store creates nothing.
    let store = SqliteStore::open(config.with_create(false)).await?;
    report.capabilities = Some(store.capabilities().clone());
    store.close().await
}

/// The size of the file, and of its log, which holds the latest events until SQLite moves them.
fn sizes(path: &Path, bytes: u64) -> String {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    match std::fs::metadata(log).map_or(0, |log| log.len()) {
        0 => format!("{bytes} bytes"),
        log => format!("{bytes} bytes, and {log} bytes in its write-ahead log"),
    }
}
