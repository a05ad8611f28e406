//! The conformance suite on the store in memory.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use annals_conformance::{BoxError, Harness};
use annals_core::Store;
use annals_memory::MemoryStore;

/// A handle to the same store for every `open` of a namespace.
#[derive(Default)]
struct Memory(Mutex<HashMap<String, MemoryStore>>);

#[async_trait::async_trait]
impl Harness for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        let mut stores = self.0.lock().unwrap();
        Ok(Arc::new(stores.entry(namespace.to_owned()).or_default().clone()))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        self.0.lock().unwrap().remove(namespace);
        Ok(())
    }

    fn histories(&self) -> u32 {
        10_000
    }
}

fn main() -> ExitCode {
    annals_conformance::main(Memory::default())
}
