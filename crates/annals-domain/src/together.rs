//! Commands to several aggregates, all executed or none.

use std::{any::Any, error::Error as StdError, fmt, ops::Deref, sync::Arc};

use annals_core::{Appended, Error, Result, Store};

use crate::{Context, Decider, ExecuteError, RetryPolicy, Step};

/// Executes commands to several aggregates, of the same kind or of different kinds, with one atomic
/// append to all their streams.
///
/// ```
/// # use annals_domain::{CommandHandler, Context, Decider, Together};
/// # use std::{convert::Infallible, sync::Arc};
/// # #[derive(serde::Serialize, serde::Deserialize)] enum Counted { #[serde(rename = "counted")] By(i64) }
/// # struct Account;
/// # impl Decider for Account {
/// #     const CATEGORY: &'static str = "account";
/// #     type State = i64; type Command = i64; type Event = Counted; type Rejection = Infallible;
/// #     fn initial(&self) -> i64 { 0 }
/// #     fn decide(&self, by: &i64, _: &i64) -> Result<Vec<Counted>, Infallible> { Ok(vec![Counted::By(*by)]) }
/// #     fn evolve(&self, state: &mut i64, Counted::By(by): &Counted) { *state += by; }
/// # }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Arc::new(annals_memory::MemoryStore::new());
/// let accounts = CommandHandler::new(store.clone(), Account)?;
/// let together = Together::new(store)?;
/// let transfer = vec![accounts.step("a", -100), accounts.step("b", 100)];
/// together.execute(transfer, &Context::new()).await?;
/// assert_eq!(accounts.load("b").await?.state, 100);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Together {
    store: Arc<dyn Store>,
    retry: RetryPolicy,
}

/// What one of the commands that were executed [together](Together) has led to: where its events were
/// appended (it dereferences to [`Appended`]), and the events.
pub struct Done {
    pub(crate) appended: Appended,
    /// The events, a `Vec` of the type that the decider has.
    pub(crate) events: Box<dyn Any + Send + Sync>,
}

impl Done {
    /// The events that the decider `D` decided on, or `None` if another decider did.
    #[must_use]
    pub fn events<D: Decider>(&self) -> Option<&[D::Event]> {
        self.events.downcast_ref::<Vec<D::Event>>().map(Vec::as_slice)
    }

    /// Where the events were appended.
    #[must_use]
    pub fn appended(&self) -> &Appended {
        &self.appended
    }
}

impl Deref for Done {
    type Target = Appended;

    fn deref(&self) -> &Appended {
        &self.appended
    }
}

impl PartialEq for Done {
    /// Two are equal if their events stand at the same places.
    fn eq(&self, other: &Self) -> bool {
        self.appended == other.appended
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done").field("appended", &self.appended).finish_non_exhaustive()
    }
}

/// Why commands that were executed together failed. A rejection is that of the first command that
/// was rejected.
pub type TogetherError<R = AnyRejection> = ExecuteError<R>;

/// A rejection by one of several deciders. For an enum of your own, which a `match` covers, see
/// [`step_as`](crate::CommandHandler::step_as).
#[derive(Debug)]
pub struct AnyRejection(pub(crate) Box<dyn StdError + Send + Sync>);

impl AnyRejection {
    /// The rejection by the decider `D`, or `None` if another decider rejected its command.
    #[must_use]
    pub fn of<D: Decider>(&self) -> Option<&D::Rejection> {
        self.0.downcast_ref()
    }
}

impl fmt::Display for AnyRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for AnyRejection {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl Together {
    /// For aggregates on this store.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](annals_core::ErrorKind::Unsupported) if the store cannot append to
    /// several streams at once.
    pub fn new(store: Arc<dyn Store>) -> Result<Self> {
        if !store.capabilities().multi_stream_append {
            return Err(Error::unsupported("append to several streams at once"));
        }
        Ok(Self { store, retry: RetryPolicy::default() })
    }

    /// Sets how often failed calls and conflicts are retried.
    #[must_use]
    pub fn with_retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Executes the commands, each to another aggregate of this store. The answers are in the order
    /// of the commands, with the events that were decided; `None` stands for a command that led to no
    /// event.
    ///
    /// The events are appended on condition that nobody else has appended to any of their streams
    /// since the aggregates were loaded; otherwise all of them decide again. An aggregate that
    /// decides on no event is *not* part of the append, since stores check only the streams that they
    /// write to: it may change before the append happens. If the others may be written only as long as
    /// an aggregate is as it was decided on, let that aggregate decide on an event, too: see
    /// [`CommandHandler::step`](crate::CommandHandler::step).
    ///
    /// # Errors
    /// [`ExecuteError`];
    /// [`ErrorKind::InvalidInput`](annals_core::ErrorKind::InvalidInput) for two commands to one
    /// aggregate.
    pub async fn execute<R>(
        &self,
        mut steps: Vec<Box<dyn Step<R> + '_>>,
        context: &Context,
    ) -> Result<Vec<Option<Done>>, TogetherError<R>> {
        let mut conflicts = self.retry.conflicts();
        loop {
            let (mut appends, mut indexes) = (Vec::new(), Vec::new());
            for (index, step) in steps.iter_mut().enumerate() {
                if let Some(append) = step.prepare(context).await? {
                    appends.push(append);
                    indexes.push(index);
                }
            }
            let mut answers: Vec<Option<Done>> = steps.iter().map(|_| None).collect();
            if appends.is_empty() {
                return Ok(answers);
            }
            let append = || self.store.append_multi(appends.clone());
            match self.retry.write(append).await {
                Ok(appended) => {
                    for (index, appended) in indexes.into_iter().zip(appended) {
                        if let (Some(step), Some(answer)) =
                            (steps.get_mut(index), answers.get_mut(index))
                        {
                            *answer = step.appended(appended).await;
                        }
                    }
                    return Ok(answers);
                }
                Err(error) => conflicts.pause_after(error).await?,
            }
        }
    }
}
