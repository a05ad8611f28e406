//! The conformance suite on `redb`, with a file for each case.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use annals_conformance::{BoxError, Harness};
use annals_core::Store;
use annals_redb::RedbStore;

/// The directory of the files.
struct Files(PathBuf);

/// The environment variable that tells a child process the directory of its parent.
const DIR: &str = "ANNALS_REDB_DIR";

#[async_trait::async_trait]
impl Harness for Files {
    fn name(&self) -> &str {
        "redb"
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        Ok(Arc::new(RedbStore::open(self.0.join(namespace)).await?))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        Ok(std::fs::remove_file(self.0.join(namespace))?)
    }

    async fn another_process(&self) -> Option<Vec<(String, String)>> {
        Some(vec![(DIR.to_owned(), self.0.to_str()?.to_owned())])
    }

    fn random_programs(&self) -> u32 {
        100
    }
}

fn main() -> ExitCode {
    let own = tempfile::tempdir().unwrap();
    let dir = std::env::var_os(DIR).map_or_else(|| own.path().to_owned(), PathBuf::from);
    annals_conformance::main(Files(dir))
}
