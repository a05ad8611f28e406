//! What a case is, and what it has to work with.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use annals_core::{Capabilities, Error, Recognition, Store};
use futures::future::BoxFuture;

use crate::{Fault, Harness};

/// One check of one promise.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Case {
    /// What it belongs to.
    pub theme: &'static str,
    /// What it is called.
    pub name: &'static str,
    /// The rules of the contract that it checks.
    pub rules: &'static [u8],
    /// The capabilities without which the store is tested to refuse instead.
    pub(crate) needs: &'static [Need],
    /// The harm that the harness has to do.
    pub(crate) faults: &'static [Fault],
    pub(crate) run: fn(Context) -> BoxFuture<'static, CaseResult>,
}

/// A capability that a case cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    GlobalOrder,
    MultiStreamAppend,
    Truncate,
    Delete,
    Tombstone,
    Snapshots,
    Checkpoints,
    Leases,
    ListStreams,
    ExactImport,
    Durable,
    GuaranteedRecognition,
}

impl Need {
    pub(crate) fn is_met(self, capabilities: &Capabilities) -> bool {
        match self {
            Self::GlobalOrder => capabilities.global_order,
            Self::MultiStreamAppend => capabilities.multi_stream_append,
            Self::Truncate => capabilities.truncate,
            Self::Delete => capabilities.delete,
            Self::Tombstone => capabilities.tombstone,
            Self::Snapshots => capabilities.snapshots,
            Self::Checkpoints => capabilities.checkpoints,
            Self::Leases => capabilities.leases,
            Self::ListStreams => capabilities.list_streams,
            Self::ExactImport => capabilities.exact_import,
            Self::Durable => capabilities.durable,
            Self::GuaranteedRecognition => {
                capabilities.retry_recognition == Recognition::Guaranteed
            }
        }
    }
}

/// How a case ended without having passed; a panic is a failure as well.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(String),
    Ignored(String),
}

pub(crate) type CaseResult = Result<(), Stop>;

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(format!("a call that must succeed failed: {error:?}"))
    }
}

/// A namespace of its own, and a source of chance.
#[derive(Clone)]
pub(crate) struct Context {
    harness: Arc<dyn Harness>,
    namespace: String,
    seed: u64,
}

/// Namespaces of one process, counted.
static NAMESPACES: AtomicU64 = AtomicU64::new(0);

impl Context {
    pub(crate) fn new(harness: Arc<dyn Harness>, seed: u64) -> Self {
        let count = NAMESPACES.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("c{}_{}_{count}", std::process::id(), fastrand::u32(..));
        Self { harness, namespace, seed }
    }

    /// A context with another namespace.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.harness.clone(), self.seed)
    }

    /// A handle to the store of this case: each call opens another one.
    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        match self.harness.open(&self.namespace).await {
            Ok(store) => store,
            Err(e) => panic!("the harness cannot open {}: {e}", self.namespace),
        }
    }

    pub(crate) async fn try_open(&self) -> Result<Arc<dyn Store>, crate::BoxError> {
        self.harness.open(&self.namespace).await
    }

    /// Several handles, each opened by itself.
    pub(crate) async fn open_many(&self, count: usize) -> Vec<Arc<dyn Store>> {
        futures::future::join_all((0..count).map(|_| self.open())).await
    }

    pub(crate) async fn prepare(&self, faults: &[Fault]) -> Result<(), crate::BoxError> {
        self.harness.prepare(&self.namespace, faults).await
    }

    pub(crate) async fn clean_up(&self) -> Result<(), crate::BoxError> {
        self.harness.clean_up(&self.namespace).await
    }

    pub(crate) async fn inject(&self, fault: Fault) {
        if let Err(e) = self.harness.inject(&self.namespace, fault).await {
            panic!("the harness cannot inject {fault:?}: {e}");
        }
    }

    /// Chance that a seed replays, with a stream of its own for each `part`.
    pub(crate) fn rng(&self, part: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_add(part.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Waits for something that has to happen soon.
    pub(crate) async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let patience = self.harness.patience();
        match tokio::time::timeout(patience, future).await {
            Ok(value) => value,
            Err(_) => panic!("waited {patience:?} in vain for {what}"),
        }
    }

    /// The most time that a whole case may take.
    pub(crate) fn deadline(&self) -> Duration {
        self.harness.patience() * 4
    }
}

/// Lists the cases of one theme: a name, its rules, the capabilities and the faults it needs.
macro_rules! cases {
    ($theme:literal: $(
        $name:ident [$($rule:literal),+] $($need:ident)* $(/ $($fault:ident)+)?;
    )+) => {
        pub(crate) const CASES: &[$crate::Case] = &[$($crate::Case {
            theme: $theme,
            name: stringify!($name),
            rules: &[$($rule),+],
            needs: &[$($crate::case::Need::$need),*],
            faults: &[$($($crate::Fault::$fault),+)?],
            run: |cx| Box::pin($name(cx)),
        }),+];
    };
}
pub(crate) use cases;
