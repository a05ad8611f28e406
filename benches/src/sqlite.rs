//! Database files of annals-sqlite.

use std::path::PathBuf;

use annals_benches::{Shape, fill};
use annals_core::StreamId;
use annals_sqlite::{SqliteConfig, SqliteStore};
use tempfile::TempDir;

use crate::plan::Plan;

/// A file in a new directory, which is removed with it. Stores in the file wait for the disk.
pub(crate) struct StoreFile {
    dir: TempDir,
}

impl StoreFile {
    /// A file with the tables of annals-sqlite, and no events.
    pub(crate) fn empty(plan: &Plan) -> Self {
        let file = Self { dir: plan.place() };
        plan.run(close(file.open(plan)));
        file
    }

    /// A file with events. The WAL is empty: closing the store has written all of it to the file.
    pub(crate) fn filled(plan: &Plan, shape: Shape) -> (Self, Vec<StreamId>) {
        let file = Self { dir: plan.place() };
        let store = file.open(plan);
        let streams = plan.run(async move {
            let streams = fill(&store, shape).await;
            close(store).await;
            streams
        });
        (file, streams)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("events.db")
    }

    pub(crate) fn open(&self, plan: &Plan) -> SqliteStore {
        plan.run(open(self.path()))
    }
}

pub(crate) async fn open(path: PathBuf) -> SqliteStore {
    SqliteStore::open(SqliteConfig::new(path)).await.unwrap()
}

async fn close(store: SqliteStore) {
    store.close().await.unwrap();
}
