//! The README's table of backends and capabilities is what the stores declare.
//!
//! `ANNALS_UPDATE=1 cargo test -p annals --all-features --test readme` writes the table again.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]
// A build without one of the backends would lack its column.
#![cfg(all(
    feature = "memory",
    feature = "sqlite",
    feature = "postgres",
    feature = "marten",
    feature = "dynamodb",
    feature = "eventstoredb"
))]

use std::fmt::Write;

use annals::{Capabilities, connect};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
const BEGIN: &str = "<!-- capabilities: begin -->\n";
const END: &str = "<!-- capabilities: end -->";

/// A row for each capability, a column for each backend.
fn table(backends: &[Capabilities]) -> String {
    let columns: Vec<_> = backends.iter().map(Capabilities::rows).collect();
    let mut lines = vec![vec![String::new()], vec!["---".to_owned()]];
    for backend in backends {
        lines[0].push(backend.backend.to_owned());
        lines[1].push("---".to_owned());
    }
    for (index, (name, _)) in columns[0].iter().enumerate() {
        let values = columns.iter().map(|column| column[index].1.clone());
        lines.push(std::iter::once((*name).to_owned()).chain(values).collect());
    }
    lines.iter().fold(String::new(), |mut table, cells| {
        writeln!(table, "| {} |", cells.join(" | ")).unwrap();
        table
    })
}

#[tokio::test]
async fn the_readme_says_what_the_stores_declare() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}", dir.path().join("readme.db").display());
    let mut backends = Vec::new();
    for url in ["memory:", &sqlite] {
        backends.push(connect(url).await.unwrap().capabilities().clone());
    }
    // What these declare is known without a server.
    backends.push(annals::postgres::PostgresStore::declared().clone());
    backends.push(annals::marten::MartenStore::declared().clone());
    backends.push(annals::dynamodb::DynamoDbStore::declared().clone());
    backends.push(annals::eventstoredb::EventStoreDbStore::declared().clone());
    let table = table(&backends);

    let readme = std::fs::read_to_string(README).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the README has the begin marker");
    let (found, after) = rest.split_once(END).expect("the README has the end marker");
    if std::env::var_os("ANNALS_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(README, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert!(found == table, "the README has another table; run with ANNALS_UPDATE=1\n{table}");
    }
}
