//! What cannot be read: events that JSON cannot hold are refused, and those that are gone are missed.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use annals_core::{
    Error, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Position, Result, Store,
};
use annals_domain::{
    CommandHandler, Context, Decider, ExecuteError, RetryPolicy, SnapshotPolicy, Together,
};
use annals_test_stores::{Fresh, Hook, Hooked, Kind};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    account::{Account, Command, Event},
    execute::accounts,
    projection::within,
};

/// Events of many shapes: most of them JSON can hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Odd {
    Measured {
        value: f64,
    },
    Small(f32),
    Patched {
        name: Option<Option<String>>,
    },
    Nested(Vec<Option<Option<u8>>>),
    Unit(Option<()>),
    Any(Option<serde_json::Value>),
    Map(HashMap<String, f64>),
    Set(HashSet<u64>),
    Big(u128),
    Deep(Deep),
    Renamed {
        #[serde(rename(serialize = "is", deserialize = "was"))]
        field: u8,
    },
    Unread {
        #[serde(skip_deserializing)]
        field: u8,
    },
    Either(Either),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Deep(Option<Box<Deep>>, u8);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Either {
    Float(f64),
    Integer(i64),
}

struct Odds;

impl Decider for Odds {
    const CATEGORY: &'static str = "odd";
    type State = Vec<Odd>;
    type Command = Odd;
    type Event = Odd;
    type Rejection = Infallible;

    fn initial(&self) -> Vec<Odd> {
        Vec::new()
    }

    fn decide(&self, command: &Odd, _: &Vec<Odd>) -> std::result::Result<Vec<Odd>, Infallible> {
        Ok(vec![Odd::Big(0), command.clone()])
    }

    fn evolve(&self, state: &mut Vec<Odd>, event: &Odd) {
        state.push(event.clone());
    }
}

pub(crate) async fn what_json_cannot_hold_is_not_written(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let odds = CommandHandler::new(fresh.store.clone(), Odds).unwrap();
    let deep = (0..200).fold(Deep(None, 0), |inner, n| Deep(Some(Box::new(inner)), n));
    for event in [
        Odd::Measured { value: f64::NAN },
        Odd::Measured { value: f64::INFINITY },
        Odd::Small(f32::NEG_INFINITY),
        Odd::Patched { name: Some(None) },
        Odd::Nested(vec![None, Some(Some(1)), Some(None)]),
        Odd::Unit(Some(())),
        Odd::Any(Some(serde_json::Value::Null)),
        Odd::Map(HashMap::from([("a".into(), f64::NAN)])),
        Odd::Deep(deep),
        Odd::Renamed { field: 1 },
        Odd::Unread { field: 1 },
        Odd::Either(Either::Integer(1)),
    ] {
        let Err(ExecuteError::Store(error)) = odds.execute("a", &event, &Context::default()).await
        else {
            panic!("{event:?} was written");
        };
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{event:?}: {error}");
        assert_eq!(odds.load("a").await.unwrap().version.get(), 0, "{event:?}");
    }
    let map = (0..20).map(|n| (format!("k{n}"), f64::from(n) / 3.0)).collect();
    let events = [
        Odd::Measured { value: 0.1 + 0.2 },
        Odd::Measured { value: f64::MIN_POSITIVE },
        Odd::Small(f32::MAX),
        Odd::Patched { name: None },
        Odd::Patched { name: Some(Some("null".into())) },
        Odd::Nested(vec![None, Some(Some(1))]),
        Odd::Unit(None),
        Odd::Any(Some(serde_json::json!({ "a": [null, 1.5] }))),
        Odd::Map(map),
        Odd::Set((0..50).collect()),
        Odd::Big(u128::MAX),
        Odd::Unread { field: 0 },
        Odd::Either(Either::Float(1.5)),
    ];
    for event in &events {
        odds.execute("b", event, &Context::default()).await.unwrap();
    }
    let read: Vec<_> = odds.load("b").await.unwrap().state;
    let read: Vec<_> = read.into_iter().filter(|event| *event != Odd::Big(0)).collect();
    assert_eq!(read, events);
}

/// Opens an account and makes deposits of 1, so that there are this many events.
async fn deposits(accounts: &CommandHandler<Account>, events: u64) {
    let none = Context::default();
    accounts.execute("a", &Command::Open("Ada".into()), &none).await.unwrap();
    for _ in 1..events {
        accounts.execute("a", &Command::Deposit(1), &none).await.unwrap();
    }
}

/// With neither a snapshot nor the events, no command is decided on what is left.
pub(crate) async fn truncated_events_are_missed(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let plain = accounts(&fresh.store);
    let taking = accounts(&fresh.store).with_snapshots(SnapshotPolicy::every(4)).unwrap();
    deposits(&taking, 7).await;
    let stream = plain.stream("a").unwrap();
    let none = Context::default();
    let is_missed = async |accounts: &CommandHandler<Account>, versions: &str| {
        let mut errors = vec![accounts.load("a").await.unwrap_err()];
        for command in [Command::Deposit(1), Command::Withdraw(1_000), Command::Open("B".into())] {
            match accounts.execute("a", &command, &none).await {
                Err(ExecuteError::Store(error)) => errors.push(error),
                other => panic!("{command:?} on what is left: {other:?}"),
            }
        }
        for error in errors {
            assert_eq!((error.kind(), error.stream()), (ErrorKind::Corrupt, Some(&stream)));
            assert!(error.to_string().contains(versions), "{error}");
        }
    };
    // The events that the snapshot covers.
    fresh.store.truncate(&stream, 5.into()).await.unwrap();
    assert_eq!(taking.load("a").await.unwrap().state.cents, 6);
    is_missed(&plain, "versions 1 to 4").await;
    // The snapshot expires, as with `snapshot_ttl` of DynamoDB.
    let snapshot = fresh.store.load_snapshot(&stream).await.unwrap().unwrap();
    fresh.store.delete_snapshot(&stream).await.unwrap();
    is_missed(&taking, "versions 1 to 4").await;
    fresh.store.save_snapshot(&stream, snapshot).await.unwrap();
    fresh.store.truncate(&stream, 6.into()).await.unwrap();
    is_missed(&taking, "version 5").await;
    fresh.store.truncate(&stream, 8.into()).await.unwrap();
    is_missed(&plain, "versions 1 to 7").await;
    is_missed(&taking, "versions 5 to 7").await;
    if fresh.store.capabilities().multi_stream_append {
        let together = Together::new(fresh.store.clone()).unwrap();
        for command in [Command::Deposit(1), Command::Withdraw(1_000)] {
            let step = plain.step("a", command);
            let missed = together.execute(vec![step], &none).await;
            let Err(ExecuteError::Store(error)) = missed else { panic!("{missed:?}") };
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }
}

/// Deleted events are not missed, but what was truncated since is.
pub(crate) async fn a_stream_that_was_deleted_begins_anew(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let plain = accounts(&fresh.store);
    let stream = plain.stream("a").unwrap();
    for round in 1..=2 {
        deposits(&plain, 4).await;
        let loaded = plain.load("a").await.unwrap();
        assert_eq!((loaded.version.get(), loaded.state.folded), (round * 4, 4));
        fresh.store.delete(&stream, ExpectedVersion::Any).await.unwrap();
        let loaded = plain.load("a").await.unwrap();
        assert_eq!((loaded.version.get(), loaded.state.folded), (0, 0));
    }
    deposits(&plain, 4).await;
    fresh.store.truncate(&stream, 11.into()).await.unwrap();
    let error = plain.load("a").await.unwrap_err();
    assert!(error.to_string().contains("versions 9 to 10"), "{error}");
}

pub(crate) async fn a_cached_state_begins_anew(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let cached = accounts(&fresh.store).with_cache(NonZeroUsize::new(10).unwrap());
    deposits(&cached, 3).await;
    let (other, stream) = (accounts(&fresh.store), cached.stream("a").unwrap());
    deposits_more(&other, 1).await;
    fresh.store.delete(&stream, ExpectedVersion::Any).await.unwrap();
    deposits(&other, 2).await;
    let none = Context::default();
    let closed = cached.execute("a", &Command::Close, &none).await.unwrap();
    assert_eq!(closed.events, [Event::Withdrawn { cents: 1 }, Event::Closed]);
}

async fn deposits_more(accounts: &CommandHandler<Account>, events: u64) {
    for _ in 0..events {
        accounts.execute("a", &Command::Deposit(1), &Context::default()).await.unwrap();
    }
}

/// A store that never answers an append, or always says that it is busy.
#[derive(Debug)]
struct Down {
    hangs: bool,
}

impl Hook for Down {
    async fn write<T: Send>(&self, _: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Err(Error::new(ErrorKind::Unavailable, "connection refused"))
    }
}

pub(crate) async fn retries_end_at_the_deadline(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let deadline = Duration::from_millis(200);
    let policy = RetryPolicy::default()
        .with_max_failures(u32::MAX)
        .with_pauses(Duration::from_millis(5), Duration::from_millis(5))
        .with_deadline(deadline);
    for hangs in [true, false] {
        let store: Arc<dyn Store> = Hooked::new(&fresh.store, Down { hangs });
        let accounts = CommandHandler::new(store, Account).unwrap().with_retry(policy.clone());
        let began = Instant::now();
        let (open, none) = (Command::Open("Ada".into()), Context::default());
        let failed = within("the deadline", accounts.execute("a", &open, &none)).await;
        let Err(ExecuteError::Store(error)) = failed else { panic!("{failed:?}") };
        assert!(error.is_retryable(), "{error}");
        assert_eq!(error.outcome_unknown(), hangs, "{error}");
        assert!(hangs || error.to_string().contains("connection refused"), "{error}");
        assert!(began.elapsed() < 100 * deadline, "{:?}", began.elapsed());
    }
}

pub(crate) async fn an_empty_id_is_refused(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let accounts = accounts(&fresh.store);
    let refused = accounts.execute("", &Command::Open("Ada".into()), &Context::default()).await;
    let Err(ExecuteError::Store(error)) = refused else { panic!("{refused:?}") };
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(accounts.load("").await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(fresh.store.last_position().await.unwrap(), Position::START);
}

/// What was decided, and a position to wait for, also where nothing happened.
pub(crate) async fn together_says_what_was_decided(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let accounts = accounts(&fresh.store).with_snapshots(SnapshotPolicy::every(1)).unwrap();
    let none = Context::default();
    assert_eq!(accounts.load("a").await.unwrap().position, None);
    let open = Command::Open("Ada".into());
    let opened = accounts.execute("a", &open, &none).await.unwrap();
    assert!(opened.position.is_some() && opened.as_of == opened.position);
    // From a snapshot, after which there are no events.
    let again = accounts.execute("a", &open, &none).await.unwrap();
    assert_eq!((again.position, again.as_of), (None, opened.position));
    assert_eq!(accounts.load("a").await.unwrap().position, opened.position);
    if !fresh.store.capabilities().multi_stream_append {
        return;
    }
    accounts.execute("b", &open, &none).await.unwrap();
    let together = Together::new(fresh.store.clone()).unwrap();
    let steps = vec![
        accounts.step("a", Command::Deposit(3)),
        accounts.step("b", open),
        accounts.step("c", Command::Open("Bob".into())),
    ];
    let done = together.execute(steps, &none).await.unwrap();
    let first = done[0].as_ref().unwrap();
    assert_eq!(first.events::<Account>(), Some(&[Event::Deposited { cents: 3 }][..]));
    assert!(first.events::<Odds>().is_none());
    assert_eq!(first.last_version.get(), 2);
    assert!(done[1].is_none());
    assert_eq!(done[2].as_ref().unwrap().events::<Account>().unwrap().len(), 1);
    let stream = accounts.stream("a").unwrap();
    let events = fresh.store.load_stream(&stream).await.unwrap();
    assert_eq!(events.last().unwrap().position, first.position);
}
