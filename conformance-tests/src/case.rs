//! A case of the suite, and the context that it runs in.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use annals_core::{Capabilities, Error, Recognition, Store, StreamId, contract};
use futures::future::BoxFuture;

use crate::{
    Fault, Harness, alone,
    child::{self, Death},
    watched::{Ledger, Watched},
};

/// One check of one promise of the contract.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Case {
    /// The theme that the case belongs to: `append`, `live`, …
    pub theme: &'static str,
    /// The name of the case, unique in its theme.
    pub name: &'static str,
    /// The numbers of the contract's rules that the case checks.
    pub rules: &'static [u8],
    /// The capabilities that the case uses. A store that lacks one is tested to refuse its use
    /// instead.
    pub(crate) needs: &'static [Need],
    /// The faults that the harness has to inject.
    pub(crate) faults: &'static [Fault],
    pub(crate) run: fn(Context) -> BoxFuture<'static, CaseResult>,
}

impl Case {
    /// Theme and name: `append::any_creates_a_stream`. It stays the same from version to version of the
    /// suite, so that scripts can choose and skip cases by it.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}::{}", self.theme, self.name)
    }

    /// The rules that the case checks, a line each: `rule 20: …`.
    #[must_use]
    pub fn rules_in_words(&self) -> String {
        let rule = |number: &u8| {
            let words = contract::rule(*number).unwrap_or_default();
            format!("rule {number} of the contract: {words}")
        };
        self.rules.iter().map(rule).collect::<Vec<_>>().join("\n")
    }
}

/// A capability that a case needs.
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

/// Why a case ended early. A case also fails by panicking.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(String),
    Ignored(String),
}

pub(crate) type CaseResult = Result<(), Stop>;

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(format!("a call that must succeed has failed: {error:?}"))
    }
}

/// What a case works with: a harness, a namespace of the case's own, and a seed.
#[derive(Clone)]
pub(crate) struct Context {
    harness: Arc<dyn Harness>,
    namespace: String,
    seed: u64,
    /// What the handles of this namespace have been told.
    ledger: Arc<Ledger>,
}

/// Counts the namespaces of this process, so that each has another name.
static NAMESPACES: AtomicU64 = AtomicU64::new(0);

impl Context {
    pub(crate) fn new(harness: Arc<dyn Harness>, seed: u64) -> Self {
        let count = NAMESPACES.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("c{}_{}_{count}", std::process::id(), fastrand::u32(..));
        Self { harness, namespace, seed, ledger: Arc::default() }
    }

    /// The same harness and seed, with another namespace.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.harness.clone(), self.seed)
    }

    /// Opens the store of this case. Each call gives another handle to it. Every answer of the
    /// handles is checked against those before.
    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        match self.try_open().await {
            Ok(store) => store,
            Err(e) => panic!("the harness cannot open {}: {e}", self.namespace),
        }
    }

    pub(crate) async fn try_open(&self) -> Result<Arc<dyn Store>, crate::BoxError> {
        let store = self.harness.open(&self.namespace).await?;
        Ok(Arc::new(Watched::new(store, self.ledger.clone())))
    }

    /// Opens the store `count` times.
    pub(crate) async fn open_many(&self, count: usize) -> Vec<Arc<dyn Store>> {
        futures::future::join_all((0..count).map(|_| self.open())).await
    }

    /// Opens the store `count` times. Nothing checks the answers: histories have a judge of their own,
    /// which sees all of them together.
    pub(crate) async fn open_unwatched(&self, count: usize) -> Vec<Arc<dyn Store>> {
        let opened = (0..count).map(|_| self.harness.open(&self.namespace));
        match futures::future::try_join_all(opened).await {
            Ok(stores) => stores,
            Err(e) => panic!("the harness cannot open {}: {e}", self.namespace),
        }
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

    /// Runs a process that appends to a stream until it dies. Returns the versions and positions of
    /// its answers.
    pub(crate) async fn child_dies(
        &self,
        stream: &StreamId,
        death: Death,
    ) -> Result<Vec<(u64, u64)>, Stop> {
        let Some(environment) = self.harness.another_process().await else {
            return Err(Stop::Ignored("another process cannot reach the stores".to_owned()));
        };
        let (cx, stream) = (self.clone(), stream.clone());
        let died = tokio::task::spawn_blocking(move || {
            child::dies(&environment, cx.harness.name(), &cx.namespace, &stream, death)
        });
        let answers = died.await.map_err(|e| Stop::Failed(e.to_string()))?;
        answers.map_err(|e| Stop::Failed(format!("{death:?} of a child: {e}")))
    }

    /// Runs one case in a process of its own: the suite's program, which runs itself once more with
    /// this case alone. It fails as the case fails there.
    pub(crate) async fn run_alone(&self, case: &str) -> CaseResult {
        let Some(environment) = self.harness.another_process().await else {
            return Err(Stop::Ignored("another process cannot reach the stores".to_owned()));
        };
        let name = format!("{}::{case}", self.harness.name());
        let ran = tokio::task::spawn_blocking(move || alone::run(&environment, &name));
        match ran.await.map_err(|e| Stop::Failed(e.to_string()))? {
            Ok(outcome) => outcome,
            Err(e) => Err(Stop::Failed(format!("the suite's program cannot run itself: {e}"))),
        }
    }

    /// How many random programs to run that are the same in every run.
    pub(crate) fn random_programs(&self) -> u32 {
        self.harness.random_programs()
    }

    /// How many histories to run, over all cases about them.
    pub(crate) fn histories(&self) -> u32 {
        self.harness.histories()
    }

    /// Why removals cannot be part of histories, if they cannot.
    pub(crate) fn removes_in_steps(&self) -> Option<String> {
        self.harness.removes_in_steps()
    }

    pub(crate) fn harness_name(&self) -> &str {
        self.harness.name()
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// How long to wait for something that has to happen soon.
    pub(crate) fn patience(&self) -> Duration {
        self.harness.patience()
    }

    /// Random numbers that the seed determines. Each `part` of a case has a sequence of its own.
    pub(crate) fn rng(&self, part: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_add(part.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Waits for a future that has to complete soon, and fails the case if it does not.
    pub(crate) async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let patience = self.harness.patience();
        match tokio::time::timeout(patience, future).await {
            Ok(value) => value,
            Err(_) => panic!("timed out after {patience:?} while waiting for {what}"),
        }
    }

    /// How long the whole case may take.
    pub(crate) fn deadline(&self) -> Duration {
        self.harness.patience() * 4
    }
}

/// Lists the cases of one theme, each with its rules, and the capabilities and faults that it
/// needs: `name [rules] Capability / Fault;`.
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
