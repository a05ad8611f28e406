//! A wrapper that makes the writes of a store fail.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use annals_core::{Append, Error, ErrorKind, Result, Store, StreamId, StreamInfo};
use annals_test_stores::{Hook, Hooked};

#[derive(Debug)]
pub(crate) struct Faulty {
    fault: Fault,
    calls: AtomicU32,
}

#[derive(Debug)]
pub(crate) enum Fault {
    /// Of each three writes, the first is refused, and the answer to the second is lost.
    InTurn,
    /// The answer to the first write is lost, and all further writes are refused.
    Dies,
    /// Another writer appends this just before the first answer to `stream_info`.
    IsOvertaken(Append),
}

impl Faulty {
    pub(crate) fn on(store: &Arc<dyn Store>, fault: Fault) -> Arc<dyn Store> {
        Hooked::new(store, Self { fault, calls: AtomicU32::new(0) })
    }

    async fn in_turn<T>(&self, turn: u32, call: impl Future<Output = Result<T>>) -> Result<T> {
        match turn {
            0 => Err(Error::new(ErrorKind::Busy, "try again")),
            1 => {
                call.await?;
                Err(Error::new(ErrorKind::Unavailable, "no answer").with_outcome_unknown())
            }
            _ => call.await,
        }
    }
}

impl Hook for Faulty {
    async fn write<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let calls = self.calls.fetch_add(1, Relaxed);
        match self.fault {
            Fault::InTurn => self.in_turn(calls % 3, call).await,
            Fault::Dies if calls == 0 => self.in_turn(1, call).await,
            Fault::Dies => Err(Error::new(ErrorKind::Unavailable, "connection refused")),
            Fault::IsOvertaken(_) => call.await,
        }
    }

    async fn stream_info(&self, store: &Arc<dyn Store>, stream: &StreamId) -> Result<StreamInfo> {
        if let Fault::IsOvertaken(append) = &self.fault
            && self.calls.fetch_add(1, Relaxed) == 0
        {
            store.append(append.clone()).await?;
        }
        store.stream_info(stream).await
    }
}
