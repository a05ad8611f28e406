//! Proves that the case with a dying process works: it passes on a store that writes each append to
//! its file, and fails on one that writes its buffer only when it is closed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    fs::OpenOptions,
    io::{BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use annals_conformance::{Arguments, BoxError, Harness, Outcome, cases, run, run_case};
use annals_core::{
    Append, Appended, Capabilities, Filter, NewEvent, Position, ReadAll, ReadStream, Result, Store,
    StreamId, StreamInfo, Version,
    adapter::{Adapter, Pages, Tail},
};
use annals_memory::MemoryStore;
use chrono::DateTime;
use libtest_mimic::{Failed, Trial};

/// The events are in memory; the file has a line for each.
#[derive(Clone, Debug)]
struct InAFile {
    memory: MemoryStore,
    capabilities: Capabilities,
    file: Arc<Mutex<BufWriter<std::fs::File>>>,
    /// Whether an append returns only after its events were written to the file.
    durable: bool,
}

impl InAFile {
    async fn open(path: PathBuf, durable: bool) -> Result<Self, BoxError> {
        let memory = MemoryStore::new();
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        for (position, line) in (1..).zip(log.lines()) {
            let [version, id, stream] = line.split(' ').collect::<Vec<_>>()[..] else {
                return Err(format!("the file has the line {line:?}").into());
            };
            let (version, stream) = (Version::new(version.parse()?), StreamId::new(stream)?);
            let event = NewEvent::json("Numbered", &version)?.with_id(id.parse()?);
            let event =
                event.recorded(stream, version, Position::new(position), DateTime::UNIX_EPOCH);
            Adapter::import(&memory, vec![event]).await?;
        }
        let mut capabilities = Capabilities::new("in-a-file");
        capabilities.durable = true;
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let file = Arc::new(Mutex::new(BufWriter::with_capacity(1 << 20, file)));
        Ok(Self { memory, capabilities, file, durable })
    }
}

impl Adapter for InAFile {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let (stream, events) = (appends[0].stream.clone(), appends[0].events.clone());
        let answers = Adapter::append(&self.memory, appends).await?;
        let mut file = self.file.lock().unwrap();
        for (event, base) in events.iter().zip(0..) {
            let version = answers[0].first_version.plus(base);
            writeln!(file, "{version} {} {stream}", event.id()).unwrap();
        }
        if self.durable {
            file.flush().unwrap();
        }
        Ok(answers)
    }

    fn stream_pages(&self, stream: StreamId, options: ReadStream) -> impl Pages {
        self.memory.stream_pages(stream, options)
    }

    fn all_pages(&self, options: ReadAll) -> impl Pages {
        self.memory.all_pages(options)
    }

    fn follow_stream(&self, stream: StreamId, after: Version, at: Position) -> impl Tail {
        self.memory.follow_stream(stream, after, at)
    }

    fn follow_all(&self, filter: Filter, after: Position) -> impl Tail {
        self.memory.follow_all(filter, after)
    }

    async fn last_position(&self) -> Result<Position> {
        Adapter::last_position(&self.memory).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        Adapter::stream_info(&self.memory, stream).await
    }
}

struct Files {
    dir: PathBuf,
    durable: bool,
}

/// The environment variable that tells a child process the directory of its parent.
const DIR: &str = "ANNALS_TEST_DIR";

impl Files {
    fn in_dir(durable: bool) -> (Self, Option<tempfile::TempDir>) {
        match std::env::var_os(DIR) {
            Some(dir) => (Self { dir: dir.into(), durable }, None),
            None => {
                let dir = tempfile::tempdir().unwrap();
                (Self { dir: dir.path().to_owned(), durable }, Some(dir))
            }
        }
    }
}

#[async_trait::async_trait]
impl Harness for Files {
    fn name(&self) -> &str {
        if self.durable { "durable" } else { "buffered" }
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        Ok(Arc::new(InAFile::open(self.dir.join(namespace), self.durable).await?))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        Ok(std::fs::remove_file(self.dir.join(namespace))?)
    }

    async fn another_process(&self) -> Option<Vec<(String, String)>> {
        Some(vec![(DIR.to_owned(), self.dir.to_str()?.to_owned())])
    }
}

fn outcome(durable: bool) -> Outcome {
    let (files, _dir) = Files::in_dir(durable);
    let case = cases().into_iter().find(|case| case.name == "what_a_dying_process_appended_stays");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run_case(Arc::new(files), case.unwrap(), 1))
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if std::env::var_os(DIR).is_some() {
        let harness = |durable| Arc::new(Files::in_dir(durable).0) as Arc<dyn Harness>;
        return run(&arguments, vec![harness(true), harness(false)]);
    }
    // The case panics here, as it should: do not print that.
    std::panic::set_hook(Box::new(|_| {}));
    let passes = || match outcome(true) {
        Outcome::Passed => Ok(()),
        other => Err(Failed::from(format!("{other:?}"))),
    };
    let fails = || match outcome(false) {
        Outcome::Failed(reason) if reason.contains("the stream has []") => Ok(()),
        other => Err(Failed::from(format!("{other:?}"))),
    };
    let trials = vec![
        Trial::test("a_store_that_writes_each_append_passes", passes),
        Trial::test("a_store_that_writes_when_it_is_closed_fails", fails),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}
