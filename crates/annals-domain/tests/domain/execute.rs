//! Command handlers.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use annals_core::{
    ErrorKind, EventStore, EventStoreExt, ExpectedVersion, NewEvent, Store, StreamId,
};
use annals_domain::{CommandHandler, Context, ExecuteError, RetryPolicy, Together};
use annals_test_stores::{Fresh, Kind};
use futures::future::try_join_all;

use crate::{
    account::{Account, Command, Event, Rejection},
    faulty::{Fault, Faulty},
    projection::PATIENCE,
};

pub(crate) fn accounts(store: &Arc<dyn Store>) -> CommandHandler<Account> {
    let quick = Duration::from_millis(1);
    CommandHandler::new(store.clone(), Account)
        .unwrap()
        .with_retry(RetryPolicy::default().with_max_conflicts(1_000).with_pauses(quick, 5 * quick))
}

fn cached(store: &Arc<dyn Store>) -> CommandHandler<Account> {
    accounts(store).with_cache(NonZeroUsize::new(100).unwrap())
}

fn open() -> Command {
    Command::Open("Ada".into())
}

pub(crate) async fn commands_lead_to_events(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    for (accounts, id) in [(accounts(&fresh.store), "a"), (cached(&fresh.store), "b")] {
        let none = Context::default();
        let rejected = accounts.execute(id, &Command::Deposit(1), &none).await;
        assert!(matches!(rejected, Err(ExecuteError::Rejected(Rejection::NotOpen))));
        let opened = accounts.execute(id, &open(), &none).await.unwrap();
        assert_eq!((opened.version.get(), opened.events.len()), (1, 1));
        let again = accounts.execute(id, &open(), &none).await.unwrap();
        assert_eq!((again.version.get(), again.events.len(), again.position), (1, 0, None));
        accounts.execute(id, &Command::Deposit(50), &none).await.unwrap();
        let closed = accounts.execute(id, &Command::Close, &none).await.unwrap();
        assert_eq!(closed.events, [Event::Withdrawn { cents: 50 }, Event::Closed]);
        let events = fresh.store.load_stream(&closed.stream).await.unwrap();
        let types: Vec<_> = events.iter().map(|event| event.event_type.as_str()).collect();
        assert_eq!(types, ["opened", "deposited", "withdrawn", "closed"]);
        assert_eq!(events[1].data.bytes().as_ref(), br#"{"cents":50}"#);
        assert_eq!(Some(events[3].position), closed.position);
        assert_eq!(accounts.load(id).await.unwrap().version, closed.version);
    }
}

pub(crate) async fn many_at_once_lose_nothing(kind: Kind) {
    const TASKS: u64 = 8;
    const EACH: u64 = 6;
    let fresh = Fresh::open(&kind).await;
    // Two handlers with caches, as in two processes, and one without a cache.
    let handlers = [cached(&fresh.store), cached(&fresh.store), accounts(&fresh.store)];
    let handlers = handlers.map(Arc::new);
    handlers[0].execute("a", &open(), &Context::default()).await.unwrap();
    let tasks = (0..TASKS).map(|task| {
        let accounts = handlers[task as usize % handlers.len()].clone();
        tokio::spawn(async move {
            for _ in 0..EACH {
                accounts.execute("a", &Command::Deposit(1), &Context::default()).await.unwrap();
            }
        })
    });
    try_join_all(tasks).await.unwrap();
    let state = handlers[2].load("a").await.unwrap().state;
    assert_eq!((state.cents, state.folded), (TASKS * EACH, TASKS * EACH + 1));
}

pub(crate) async fn a_cache_notices_what_others_wrote(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let (mine, others) = (cached(&fresh.store), accounts(&fresh.store));
    let none = Context::default();
    mine.execute("a", &open(), &none).await.unwrap();
    others.execute("a", &Command::Deposit(10), &none).await.unwrap();
    // In the cached state, this command would be rejected.
    let withdrawn = mine.execute("a", &Command::Withdraw(10), &none).await.unwrap();
    assert_eq!(withdrawn.version.get(), 3);
    others.execute("a", &Command::Close, &none).await.unwrap();
    // In the cached state, this command would lead to no event.
    assert_eq!(mine.execute("a", &open(), &none).await.unwrap().version.get(), 5);
    others.execute("a", &Command::Deposit(1), &none).await.unwrap();
    // In the cached state, this command would lead to an event.
    let closed = mine.execute("a", &Command::Close, &none).await.unwrap();
    assert_eq!(closed.events, [Event::Withdrawn { cents: 1 }, Event::Closed]);
    assert_eq!(closed.conflicts, 1);
    mine.forget("a").unwrap();
    assert_eq!(mine.load("a").await.unwrap().version, closed.version);
}

pub(crate) async fn a_lost_answer_is_asked_for_again(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let faulty = Faulty::on(&fresh.store, Fault::InTurn);
    for (accounts, id) in [(accounts(&faulty), "a"), (cached(&faulty), "b")] {
        let none = Context::default();
        accounts.execute(id, &open(), &none).await.unwrap();
        for _ in 0..5 {
            accounts.execute(id, &Command::Deposit(1), &none).await.unwrap();
        }
        let state = accounts.load(id).await.unwrap().state;
        assert_eq!((state.cents, state.folded), (5, 6), "each was written once");
    }
    let dying = Faulty::on(&fresh.store, Fault::Dies);
    let policy =
        RetryPolicy::default().with_max_failures(2).with_pauses(Duration::ZERO, Duration::ZERO);
    let accounts_there = accounts(&dying).with_retry(policy);
    let Err(ExecuteError::Store(error)) =
        accounts_there.execute("d", &open(), &Context::default()).await
    else {
        panic!("nobody answers");
    };
    assert!(error.outcome_unknown(), "the first try was written: {error}");
    assert_eq!(accounts_there.load("d").await.unwrap().version.get(), 1);

    let faulty = Faulty::on(&fresh.store, Fault::InTurn);
    let once = accounts(&faulty).with_retry(RetryPolicy::default().with_max_failures(0));
    let Err(ExecuteError::Store(error)) = once.execute("c", &open(), &Context::default()).await
    else {
        panic!("the first try fails");
    };
    assert_eq!(error.kind(), ErrorKind::Busy);
}

pub(crate) async fn events_say_what_caused_them(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let accounts = accounts(&fresh.store);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let context = Context::default().with_correlation_id("c-1").with_traceparent(trace);
    let opened = accounts.execute("a", &open(), &context).await.unwrap();
    let first = fresh.store.load_stream(&opened.stream).await.unwrap().remove(0);
    assert_eq!(first.correlation_id().as_deref(), Some("c-1"));
    assert_eq!(Context::of(&first), context);

    let caused = Context::caused_by(&first);
    accounts.execute("a", &Command::Deposit(1), &caused).await.unwrap();
    let second = fresh.store.load_stream(&opened.stream).await.unwrap().remove(1);
    assert_eq!(second.correlation_id().as_deref(), Some("c-1"));
    assert_eq!(second.causation_id(), Some(first.id.to_string()));
    assert_eq!(Context::of(&second).traceparent.as_deref(), Some(trace));

    // What the application adds goes on; what belongs to the event itself does not.
    let context = context.with("user", "ada").with("tenant", 7);
    let odd = context.clone().with("$odd", 1).with("traceparent", "of the field, if it is set");
    accounts.execute("c", &open(), &odd).await.unwrap();
    let third = fresh.store.load_stream(&accounts.stream("c").unwrap()).await.unwrap().remove(0);
    assert_eq!(Context::of(&third).get("user"), Some("ada"));
    let caused = Context::caused_by(&third);
    assert_eq!((&caused.entries, &caused.traceparent), (&context.entries, &context.traceparent));
    // One odd field hides no other.
    let metadata = r#"{"$correlationId":7,"$causationId":"c","user":["x"]}"#;
    let odd = NewEvent::json("opened", &serde_json::json!({ "owner": "Eve" })).unwrap();
    let stream = accounts.stream("d").unwrap();
    let odd = odd.with_metadata(metadata);
    fresh.store.append_to(stream.clone(), ExpectedVersion::Any, [odd]).await.unwrap();
    let odd = fresh.store.load_stream(&stream).await.unwrap().remove(0);
    let of = Context::of(&odd);
    assert_eq!((of.causation_id.as_deref(), of.entries.len()), (Some("c"), 2));
    assert_eq!(Context::caused_by(&odd).correlation_id, Some(odd.id.to_string()));

    accounts.execute("b", &open(), &Context::default()).await.unwrap();
    let plain = fresh.store.load_stream(&accounts.stream("b").unwrap()).await.unwrap().remove(0);
    assert!(plain.metadata.is_empty());
    let caused = Context::caused_by(&plain);
    assert_eq!(caused.correlation_id, Some(plain.id.to_string()), "the beginning of something");
}

pub(crate) async fn several_change_together(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    if !fresh.store.capabilities().multi_stream_append {
        let refused = Together::new(fresh.store.clone()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        return;
    }
    let accounts = Arc::new(cached(&fresh.store));
    let none = Context::default();
    for id in ["a", "b"] {
        accounts.execute(id, &open(), &none).await.unwrap();
        accounts.execute(id, &Command::Deposit(100), &none).await.unwrap();
    }
    // Transfers in both directions, and deposits in between.
    let faulty = Faulty::on(&fresh.store, Fault::InTurn);
    let quick = Duration::from_millis(1);
    let policy = RetryPolicy::default().with_max_conflicts(1_000).with_pauses(quick, 5 * quick);
    // A busy machine is no failure.
    let policy = policy.with_deadline(PATIENCE);
    let together = Arc::new(Together::new(faulty).unwrap().with_retry(policy));
    let tasks = (0..6).map(|task| {
        let (accounts, together) = (accounts.clone(), together.clone());
        tokio::spawn(async move {
            let (from, to) = if task % 2 == 0 { ("a", "b") } else { ("b", "a") };
            let context = Context::default();
            for _ in 0..3 {
                let withdraw = accounts.step(from, Command::Withdraw(5));
                let deposit = accounts.step(to, Command::Deposit(5));
                let done = together.execute(vec![withdraw, deposit], &context);
                assert!(done.await.unwrap().iter().all(Option::is_some));
                accounts.execute(to, &Command::Deposit(1), &context).await.unwrap();
            }
        })
    });
    try_join_all(tasks).await.unwrap();
    let cents = |id: &'static str| {
        let accounts = accounts.clone();
        async move { accounts.load(id).await.unwrap().state.cents }
    };
    assert_eq!(cents("a").await + cents("b").await, 200 + 18);

    let before = (cents("a").await, cents("b").await);
    let deposit = accounts.step("b", Command::Deposit(1_000));
    let withdraw = accounts.step("a", Command::Withdraw(1_000));
    let refused = together.execute(vec![deposit, withdraw], &none).await;
    let Err(ExecuteError::Rejected(rejection)) = refused else { panic!("{refused:?}") };
    assert_eq!(rejection.of::<Account>(), Some(&Rejection::Overdrawn));
    assert_eq!(before, (cents("a").await, cents("b").await));
    let nothing = accounts.step("a", open());
    assert_eq!(together.execute(vec![nothing], &none).await.unwrap(), [None]);
}

pub(crate) async fn an_event_that_cannot_be_read_is_an_error(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let accounts = accounts(&fresh.store);
    accounts.execute("a", &open(), &Context::default()).await.unwrap();
    for (id, event) in [
        ("a", NewEvent::json("melted", &()).unwrap()),
        ("b", NewEvent::json("deposited", &"much").unwrap()),
        ("c", NewEvent::binary("deposited", vec![0xff]).unwrap()),
    ] {
        let event_type = event.event_type().clone();
        let stream = accounts.stream(id).unwrap();
        fresh.store.append_to(stream.clone(), ExpectedVersion::Any, [event]).await.unwrap();
        let error = accounts.load(id).await.unwrap_err();
        assert_eq!((error.kind(), error.stream()), (ErrorKind::Corrupt, Some(&stream)));
        let version = if id == "a" { "2" } else { "1" };
        let text = error.to_string();
        assert!(text.contains(event_type.as_str()) && text.contains(version), "{text}");
        let failed = accounts.execute(id, &open(), &Context::default()).await;
        assert!(matches!(failed, Err(ExecuteError::Store(_))));
    }
    assert_eq!(StreamId::new("account-a").unwrap(), accounts.stream("a").unwrap());
}
