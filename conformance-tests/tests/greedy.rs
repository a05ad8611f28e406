//! Proves that the case which measures memory works: it passes on a store that copies its events a page
//! at a time, and fails on one that copies the whole stream first.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{process::ExitCode, sync::Arc};

use annals_conformance::{Arguments, BoxError, Harness, Outcome, cases, run, run_case};
use annals_core::{
    Append, Appended, Capabilities, Filter, Payload, Position, ReadAll, ReadStream, Result, Store,
    StreamId, StreamInfo, Version,
    adapter::{Adapter, Page, Pages, Tail},
};
use annals_memory::MemoryStore;
use async_trait::async_trait;
use libtest_mimic::{Failed, Trial};

/// The events are in memory. A read copies their bytes, as from a database.
#[derive(Clone, Debug)]
struct Copying {
    memory: MemoryStore,
    capabilities: Capabilities,
    /// Whether a read copies all events before it gives the first.
    greedy: bool,
}

struct CopyingPages<P> {
    pages: P,
    greedy: bool,
}

#[async_trait]
impl<P: Pages> Pages for CopyingPages<P> {
    async fn next_page(&mut self) -> Result<Page> {
        let mut page = self.pages.next_page().await?;
        while self.greedy && page.more {
            let next = self.pages.next_page().await?;
            page.events.extend(next.events);
            (page.considered, page.more) = (next.considered, next.more);
        }
        for event in &mut page.events {
            event.data = Payload::binary(event.data.bytes().to_vec());
        }
        Ok(page)
    }
}

#[async_trait]
impl<P: Tail> Tail for CopyingPages<P> {
    async fn changed(&mut self) -> Result<()> {
        self.pages.changed().await
    }
}

impl Adapter for Copying {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        Adapter::append(&self.memory, appends).await
    }

    fn stream_pages(&self, stream: StreamId, options: ReadStream) -> impl Pages {
        CopyingPages { pages: self.memory.stream_pages(stream, options), greedy: self.greedy }
    }

    fn all_pages(&self, options: ReadAll) -> impl Pages {
        CopyingPages { pages: self.memory.all_pages(options), greedy: self.greedy }
    }

    fn follow_stream(&self, stream: StreamId, after: Version, at: Position) -> impl Tail {
        CopyingPages { pages: self.memory.follow_stream(stream, after, at), greedy: self.greedy }
    }

    fn follow_all(&self, filter: Filter, after: Position) -> impl Tail {
        CopyingPages { pages: self.memory.follow_all(filter, after), greedy: self.greedy }
    }

    async fn last_position(&self) -> Result<Position> {
        Adapter::last_position(&self.memory).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo> {
        Adapter::stream_info(&self.memory, stream).await
    }
}

struct Stores(bool);

#[async_trait]
impl Harness for Stores {
    fn name(&self) -> &str {
        if self.0 { "greedy" } else { "paged" }
    }

    async fn open(&self, _namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        let mut capabilities = Capabilities::new("copying");
        capabilities.durable = true;
        let memory = MemoryStore::new();
        Ok(Arc::new(Copying { memory, capabilities, greedy: self.0 }))
    }

    async fn clean_up(&self, _namespace: &str) -> Result<(), BoxError> {
        Ok(())
    }

    async fn another_process(&self) -> Option<Vec<(String, String)>> {
        Some(vec![(CHILD.to_owned(), "1".to_owned())])
    }
}

/// The environment variable that tells a child process what it is.
const CHILD: &str = "ANNALS_TEST_CHILD";

fn outcome(greedy: bool) -> Outcome {
    let case = cases().into_iter().find(|case| case.theme == "memory").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run_case(Arc::new(Stores(greedy)), case, 1))
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if std::env::var_os(CHILD).is_some() {
        return run(&arguments, vec![Arc::new(Stores(true)), Arc::new(Stores(false))]);
    }
    let passes = || match outcome(false) {
        Outcome::Passed => Ok(()),
        other => Err(Failed::from(format!("{other:?}"))),
    };
    let fails = || match outcome(true) {
        Outcome::Failed(reason) if reason.contains("a read of a stream") => Ok(()),
        other => Err(Failed::from(format!("{other:?}"))),
    };
    let mut trials = Vec::new();
    // Elsewhere the case is ignored, and says why.
    if cfg!(target_os = "linux") {
        trials.push(Trial::test("a_store_that_reads_pages_passes", passes));
        trials.push(Trial::test("a_store_that_reads_the_whole_stream_first_fails", fails));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
