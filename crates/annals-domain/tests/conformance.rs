//! The conformance suite on a store inside [`Observed`], which must forward every call.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use annals_conformance::{BoxError, Harness};
use annals_core::Store;
use annals_domain::observe::Observed;
use annals_memory::MemoryStore;

#[derive(Default)]
struct Memory(Mutex<HashMap<String, MemoryStore>>);

#[async_trait::async_trait]
impl Harness for Memory {
    fn name(&self) -> &str {
        "observed-memory"
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        let store = self.0.lock().unwrap().entry(namespace.to_owned()).or_default().clone();
        Ok(Arc::new(Observed::new(Arc::new(store))))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        self.0.lock().unwrap().remove(namespace);
        Ok(())
    }
}

fn main() -> ExitCode {
    annals_conformance::main(Memory::default())
}
