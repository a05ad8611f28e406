//! The stores that the scenarios are played over.

use std::{sync::Arc, time::Duration};

use annals_core::Store;
use annals_memory::MemoryStore;
use tokio::runtime::{Builder, Runtime};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Memory,
    Sqlite,
}

impl StoreKind {
    pub(crate) const ALL: [Self; 2] = [Self::Memory, Self::Sqlite];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
        }
    }

    /// Whether scenarios of this theme are played over the store. Subscriptions and groups wait until
    /// nothing more comes, which takes time by the real clock.
    pub(crate) fn has_theme(self, theme: &str) -> bool {
        const WITHOUT_WAITING: [&str; 7] =
            ["append", "batch", "read", "all", "delete", "tombstone", "metadata"];
        self == Self::Memory || WITHOUT_WAITING.contains(&theme)
    }

    /// Whether this scenario is played over the store. Events get old by the real clock. By that clock, an
    /// append of very many events takes its time, and a deadline in a busy thread is chance.
    pub(crate) fn plays(self, scenario: &str) -> bool {
        match self {
            Self::Memory => scenario != "read/truncated/max-age-passed",
            Self::Sqlite => {
                !["append/size/40000-without-data", "batch/deadline/passes-between-chunks"]
                    .contains(&scenario)
            }
        }
    }

    /// How long an answer may take. By the clock of the scenarios over a store in memory, each answer that
    /// comes at all comes at once.
    pub(crate) fn deadline(self) -> Duration {
        Duration::from_secs(match self {
            Self::Memory => 5,
            Self::Sqlite => 60,
        })
    }

    /// How many scenarios are played at the same time. They wait for SQLite, but those over a store in
    /// memory would share a clock, and never be all quiet.
    pub(crate) fn at_a_time(self) -> usize {
        match self {
            Self::Memory => 1,
            Self::Sqlite => 16,
        }
    }

    pub(crate) fn runtime(self) -> Runtime {
        let mut builder = Builder::new_current_thread();
        builder.enable_all().start_paused(self == Self::Memory).build().unwrap()
    }

    pub(crate) async fn open(self) -> Arc<dyn Store> {
        match self {
            Self::Memory => Arc::new(MemoryStore::new()),
            Self::Sqlite => annals::connect("sqlite::memory:").await.unwrap(),
        }
    }
}
