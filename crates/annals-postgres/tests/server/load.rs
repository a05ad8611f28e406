//! Load on a store while a test does harm to it, and the check of what the load has left.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::{
    Append, Appended, Category, EventStore, EventStoreExt, ExpectedVersion, NewEvent, Position,
    RecordedEvent, Result, Source, Subscribe, Version,
};
use annals_postgres::PostgresStore;
use annals_test_servers::BoxError;
use fastrand::Rng;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use uuid::Uuid;

use crate::common::{PATIENCE, Place, Tested, event, everything, id};

/// How long the load waits before it tries again, as an application would.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

pub(crate) async fn within<F: Future>(what: &str, future: F) -> Result<F::Output, BoxError> {
    timeout(PATIENCE, future).await.map_err(|_| format!("{what}: not after {PATIENCE:?}").into())
}

pub(crate) async fn write(store: &PostgresStore, appends: &[Append]) -> Result<Vec<Appended>> {
    match appends {
        [append] => store.append(append.clone()).await.map(|appended| vec![appended]),
        _ => store.append_multi(appends.to_vec()).await,
    }
}

/// How many tasks append at the same time.
pub(crate) const TASKS: usize = 12;
/// How many streams they share.
pub(crate) const SHARED: usize = 3;

/// Tasks that append for as long as the test goes on.
pub(crate) struct Load {
    tasks: JoinSet<Tested>,
    ledger: Arc<Ledger>,
    store: PostgresStore,
    followers: Vec<(Source, JoinHandle<Result<Vec<RecordedEvent>>>)>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    acknowledged: Mutex<Vec<(Append, Appended)>>,
    /// The ids of events whose append failed and, as its error said, wrote nothing.
    refused: Mutex<HashSet<Uuid>>,
    count: watch::Sender<usize>,
    unknown: AtomicU64,
    /// The highest versions of the shared streams that a task has learned of.
    versions: [AtomicU64; SHARED],
    is_over: AtomicBool,
}

/// The type of the event after which subscribers end.
pub(crate) const LAST: &str = "Last";

impl Load {
    /// Starts load on a store, and subscribers on it and on another handle.
    pub(crate) async fn start(
        store: &PostgresStore,
        other: &PostgresStore,
        rng: &mut Rng,
    ) -> Result<Self, BoxError> {
        let category = Source::category(Category::new("shared")?);
        let sources = [
            (store, Source::default()),
            (store, category.clone()),
            (store, Source::Stream(id("shared-0"))),
            (other, Source::default()),
            (other, Source::Stream(id("shared-0"))),
        ];
        let mut followers = Vec::new();
        for (store, source) in sources {
            let subscription = store.subscribe(Subscribe::to(source.clone())).await?;
            followers.push((source, tokio::spawn(follow(subscription))));
        }
        let ledger = Arc::new(Ledger::default());
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            tasks.spawn(ledger.clone().work(store.clone(), task, rng.fork()));
        }
        Ok(Self { tasks, ledger, store: store.clone(), followers })
    }

    /// Waits until this many more appends have been acknowledged.
    pub(crate) async fn more(&mut self, appends: usize) -> Tested {
        let mut count = self.ledger.count.subscribe();
        let goal = *count.borrow() + appends;
        tokio::select! {
            // A task ends only if it fails.
            ended = self.tasks.join_next() => ended.unwrap()?,
            reached = within("the load goes on", count.wait_for(|count| *count >= goal)) => {
                reached?.map(drop).map_err(BoxError::from)
            }
        }
    }

    /// Ends the load. Verifies that the store has the acknowledged events and no others, and that
    /// every subscriber saw its events.
    pub(crate) async fn end(mut self, place: &Place) -> Tested {
        self.more(50).await?;
        self.ledger.is_over.store(true, SeqCst);
        while let Some(ended) = within("the load ends", self.tasks.join_next()).await? {
            ended??;
        }
        // Appended by `store`, so that the subscribers of `other` have to be notified.
        let last = NewEvent::json(LAST, &0)?;
        let last_id = last.id();
        self.store.append_to("shared-0", ExpectedVersion::StreamExists, [last]).await?;

        let events = everything(&place.open().await?).await?;
        let mut found: HashMap<Uuid, &RecordedEvent> = HashMap::new();
        for event in &events {
            assert!(found.insert(event.id, event).is_none(), "twice: {event:?}");
        }
        assert!(found.remove(&last_id).is_some());
        let acknowledged = std::mem::take(&mut *self.ledger.acknowledged.lock().unwrap());
        for (append, appended) in &acknowledged {
            assert_eq!(appended.last_version, appended.first_version.plus(append.count() - 1));
            let mut last = Position::START;
            for (version, event) in (appended.first_version.get()..).zip(&append.events) {
                let found = found.remove(&event.id());
                let found = found.unwrap_or_else(|| panic!("lost: {append:?}, {appended:?}"));
                assert_eq!((&found.stream, found.version.get()), (&append.stream, version));
                assert_eq!(found.data, *event.data());
                last = found.position;
            }
            assert_eq!(last, appended.position);
        }
        let refused = self.ledger.refused.lock().unwrap().clone();
        assert!(!found.keys().any(|id| refused.contains(id)), "refused, but there: {found:?}");
        assert!(found.is_empty(), "never acknowledged: {found:?}");
        eprintln!(
            "{} appends, of which {} once unknown; {} events refused",
            acknowledged.len(),
            self.ledger.unknown.load(SeqCst),
            refused.len()
        );

        for (source, follower) in self.followers {
            let seen = within(&format!("the end of {source:?}"), follower).await???;
            let place = |event: &RecordedEvent| (event.position, event.id);
            let expected = events.iter().filter(|event| source.matches(event)).map(place);
            let seen = seen.iter().map(place);
            assert!(seen.eq(expected), "{source:?} did not give its events, in order, once each");
        }
        Ok(())
    }
}

pub(crate) async fn follow(
    mut subscription: annals_core::Subscription,
) -> Result<Vec<RecordedEvent>> {
    let mut seen = Vec::new();
    loop {
        let event = subscription.next_event().await?;
        let is_last = event.event_type.as_str() == LAST;
        seen.push(event);
        if is_last {
            return Ok(seen);
        }
    }
}

impl Ledger {
    /// What one task of the load does.
    pub(crate) async fn work(
        self: Arc<Self>,
        store: PostgresStore,
        task: usize,
        mut rng: Rng,
    ) -> Tested {
        let own = format!("own-{task}");
        let (mut version, mut number) = (Version::NONE, 0);
        while !self.is_over.load(SeqCst) {
            number += 1;
            let events: Vec<_> = (0..rng.u64(1..=4)).map(|_| event(number)).collect();
            let shared = rng.usize(..SHARED);
            let known = Version::new(self.versions[shared].load(SeqCst));
            let [to_own, to_new, to_shared] =
                [own.clone(), format!("new-{task}-{number}"), format!("shared-{shared}")].map(
                    |stream| {
                        move |expected: ExpectedVersion, events| {
                            Append::new(id(&stream), expected, events)
                        }
                    },
                );
            let appends = match rng.u32(..10) {
                0..3 => vec![to_own(version.into(), events)],
                3..5 => vec![to_new(ExpectedVersion::NoStream, events)],
                5..7 => vec![to_shared(ExpectedVersion::Any, events)],
                7 => vec![to_shared(known.into(), events)],
                8 => vec![
                    to_own(version.into(), events),
                    to_shared(ExpectedVersion::Any, vec![event(number)]),
                ],
                _ => vec![
                    to_shared(known.into(), events),
                    to_own(ExpectedVersion::Any, vec![event(number)]),
                ],
            };
            let Some(done) = self.insist(&store, &appends, &mut rng).await? else { continue };
            for (append, appended) in appends.into_iter().zip(done) {
                if append.stream == id(&own) {
                    assert_eq!(appended.first_version, version.plus(1), "{append:?}");
                    version = appended.last_version;
                } else if append.stream.category_str() == Some("shared") {
                    self.versions[shared].fetch_max(appended.last_version.get(), SeqCst);
                }
                self.acknowledged.lock().unwrap().push((append, appended));
            }
            self.count.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Appends, and tries again with the same events while that is safe. It gives up after a
    /// conflict on a shared stream, and at random after other errors, but only if nothing was
    /// written.
    pub(crate) async fn insist(
        &self,
        store: &PostgresStore,
        appends: &[Append],
        rng: &mut Rng,
    ) -> Result<Option<Vec<Appended>>, BoxError> {
        let mut is_unknown = false;
        loop {
            let error = match within("an append ends", write(store, appends)).await? {
                Ok(done) => return Ok(Some(done)),
                Err(error) => error,
            };
            is_unknown |= error.outcome_unknown();
            self.unknown.fetch_add(u64::from(error.outcome_unknown()), SeqCst);
            let is_lost_race = error.conflict().is_some_and(|conflict| {
                conflict.stream.category_str() == Some("shared") && !error.outcome_unknown()
            });
            if !is_lost_race && !error.is_retryable() {
                return Err(error.into());
            }
            if is_lost_race || !is_unknown && rng.bool() {
                let ids = appends.iter().flat_map(|append| &append.events).map(NewEvent::id);
                self.refused.lock().unwrap().extend(ids);
                return Ok(None);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
