//! What a run has left behind in the place where its namespaces were.

use std::path::Path;

use annals::{
    dynamodb::DynamoDbConfig,
    postgres::{
        PostgresConfig,
        sqlx::{ConnectOptions, Row, query},
    },
};
use annals_test_stores::Kind;

/// The path in the URL of an SQLite store.
pub(crate) fn file(url: &str) -> &Path {
    Path::new(url.strip_prefix("sqlite://").unwrap())
}

/// The names of the namespaces that a process has at this URL.
pub(crate) async fn of(kind: &Kind, url: &str, pid: u32) -> Vec<String> {
    let all: Vec<String> = match kind.name() {
        "sqlite" => {
            let files = file(url).parent().unwrap().read_dir().unwrap();
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
        }
        "postgres" => {
            let config = PostgresConfig::from_url(url).unwrap();
            let mut connection = config.connect.connect().await.unwrap();
            let text = "SELECT nspname::text FROM pg_catalog.pg_namespace";
            let rows = query(text).fetch_all(&mut connection).await.unwrap();
            rows.iter().map(|row| row.try_get(0).unwrap()).collect()
        }
        "dynamodb" => {
            let client = DynamoDbConfig::from_url(url).unwrap().client().await;
            let mut pages = client.list_tables().into_paginator().items().send();
            let mut names = Vec::new();
            while let Some(name) = pages.next().await {
                names.push(name.unwrap());
            }
            names
        }
        // Nothing of the memory of another process is left, and streams stay by design.
        _ => Vec::new(),
    };
    let is_of_run = |name: &String| name.contains("annals_tmp_") && name.contains(&pid.to_string());
    all.into_iter().filter(is_of_run).collect()
}
