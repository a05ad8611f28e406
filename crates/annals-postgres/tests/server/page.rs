//! The commands of the book's page on operating PostgreSQL, which the tests run as they stand there.

use std::{
    env,
    ffi::OsString,
    os::unix::{fs::MetadataExt, process::CommandExt},
    process::Command,
};

use annals_test_servers::{
    BoxError,
    postgres::{Options, Source},
};

use crate::common::{Place, Tested};

const PAGE: &str = include_str!("../../../../docs/book/src/postgres.md");

/// The lines of the page's code block that contains this text.
pub(crate) fn block(containing: &str) -> Result<String, BoxError> {
    // The text outside of blocks is at even places.
    let blocks = PAGE.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    let mut found = blocks.filter(|(_, block)| block.contains(containing));
    match (found.next(), found.next()) {
        (Some((_, block)), None) => Ok(block.lines().map(str::trim).collect::<Vec<_>>().join("\n")),
        _ => Err(format!("the page has none or several blocks with {containing:?}").into()),
    }
}

/// Takes over a block of settings.
pub(crate) fn with_settings(mut options: Options, block: &str) -> Options {
    for line in block.lines() {
        if let Some((name, value)) = line.split_once(" = ") {
            options = options.with_setting(name, value.trim_matches('\''));
        }
    }
    options
}

/// Runs commands as an administrator would, whose environment names the place's server and database.
pub(crate) async fn shell(place: &Place, commands: &str) -> Tested {
    let Source::Local(programs) = Source::find()? else { return Err("no programs".into()) };
    let mut path = OsString::from(programs);
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    let connect = place.config().connect;
    // As the user of the server: some programs refuse to run as root.
    let owner = place.server.data_directory().ok_or("the server is elsewhere")?.metadata()?;
    let mut shell = Command::new("sh");
    shell
        .args(["-ec", commands])
        .current_dir("/tmp")
        .uid(owner.uid())
        .gid(owner.gid())
        .env("PATH", path)
        .env("PGHOST", connect.get_host())
        .env("PGPORT", connect.get_port().to_string())
        .env("PGUSER", connect.get_username())
        .env("PGDATABASE", connect.get_database().unwrap_or("postgres"));
    let output = tokio::task::spawn_blocking(move || shell.output()).await??;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{commands}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Runs a block of statements, each as a transaction of its own.
pub(crate) async fn sql(place: &Place, block: &str) -> Tested {
    let schema = format!("{}.", place.schema);
    for statement in block.replace("annals.", &schema).split_terminator(';') {
        place.execute(statement).await?;
    }
    Ok(())
}
