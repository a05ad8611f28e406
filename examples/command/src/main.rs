//! The command `annals` and the server `annals-gateway` for stores that annals does not know: those of
//! `examples/adapter`, by URLs such as `redb://shop.redb`.
//!
//! ```text
//! my-annals copy sqlite://shop.db redb://shop.redb
//! my-annals conformance redb://shop.redb --html=report.html
//! my-annals gateway --store redb://shop.redb --insecure
//! ```

use std::{
    io::ErrorKind::NotFound,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use annals::{Error, ErrorKind, OpenMode, Opener, Result, Store};
use annals_redb::RedbStore;

struct Redb;

/// The file that a URL names: `redb://shop.redb`, or `redb:///var/lib/shop.redb`.
fn file(url: &str) -> Result<PathBuf> {
    let rest = url.strip_prefix("redb:").unwrap_or(url);
    match rest.strip_prefix("//").unwrap_or(rest) {
        "" => Err(Error::new(ErrorKind::InvalidInput, "name a file, such as redb://shop.redb")),
        path => Ok(path.into()),
    }
}

#[async_trait::async_trait]
impl Opener for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["redb"]
    }

    fn check(&self, url: &str) -> Result<()> {
        file(url).map(drop)
    }

    async fn open(&self, url: &str, mode: OpenMode) -> Result<Arc<dyn Store>> {
        let file = file(url)?;
        if mode == OpenMode::Existing && !Path::new(&file).exists() {
            let message = format!("the file {file:?} does not exist");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(Arc::new(RedbStore::open(file).await?))
    }

    fn sibling(&self, url: &str, name: &str) -> Result<String> {
        Ok(format!("{url}.{name}"))
    }

    async fn remove(&self, url: &str) -> Result<()> {
        match std::fs::remove_file(file(url)?) {
            Err(error) if error.kind() != NotFound => {
                Err(Error::new(ErrorKind::Denied, "the file stays").with_source(error))
            }
            _ => Ok(()),
        }
    }
}

fn main() -> ExitCode {
    if let Err(error) = annals::register(Redb) {
        eprintln!("my-annals: {error}");
        return ExitCode::FAILURE;
    }
    let mut arguments = std::env::args_os();
    let program = arguments.next();
    match arguments.next() {
        Some(first) if first == "gateway" => {
            annals_gateway::main_with(program.into_iter().chain(arguments))
        }
        _ => annals_cli::main(),
    }
}
