//! Snapshots.

use std::{sync::Arc, time::Duration};

use annals_core::{
    Append, ErrorKind, EventStore, ExpectedVersion, NewEvent, Payload, Snapshot, SnapshotStore,
    Store,
};
use annals_domain::{CommandHandler, Context, Decider, SnapshotPolicy};
use annals_test_stores::{Fresh, Kind};

use crate::{
    account::{Account, Command, State},
    crash::rng,
    execute::accounts,
    faulty::{Fault, Faulty},
};

fn with_snapshots(store: &Arc<dyn Store>, policy: SnapshotPolicy) -> CommandHandler<Account> {
    accounts(store).with_snapshots(policy).unwrap()
}

async fn run(accounts: &CommandHandler<Account>, commands: &[Command]) {
    for command in commands {
        drop(accounts.execute("a", command, &Context::default()).await);
    }
}

fn deposits(count: usize) -> Vec<Command> {
    let mut commands = vec![Command::Open("Ada".into())];
    commands.extend((1..count).map(|cents| Command::Deposit(cents as u64)));
    commands
}

/// Random commands under random policies. After each command, the state from the snapshot and the
/// events after it is the fold of all events.
pub(crate) async fn state_is_the_fold_at_every_boundary(kind: Kind) {
    let mut rng = rng("state_is_the_fold_at_every_boundary");
    let mut taken = 0;
    for case in 0..6 {
        let fresh = Fresh::open(&kind).await;
        let plain = accounts(&fresh.store);
        let mut folded = Account.initial();
        let mut version = 0;
        for step in 0..12 {
            // Each time as another process with a policy of its own would do it.
            let policy = match rng.u8(..3) {
                0 => SnapshotPolicy::every(rng.u64(1..5)),
                1 => SnapshotPolicy::every(u64::MAX).or_bytes(rng.u64(1..100)),
                _ => SnapshotPolicy::every(u64::MAX),
            };
            let mine = with_snapshots(&fresh.store, policy);
            let command = match rng.u8(..5) {
                0 => Command::Open(format!("owner {step}")),
                1 | 2 => Command::Deposit(rng.u64(1..100)),
                3 => Command::Withdraw(rng.u64(1..100)),
                _ => Command::Close,
            };
            if let Ok(done) = mine.execute("a", &command, &Context::default()).await {
                done.events.iter().for_each(|event| Account.evolve(&mut folded, event));
                version = done.version.get();
            }
            for handler in [&mine, &plain] {
                let loaded = handler.load("a").await.unwrap();
                assert_eq!(loaded.state, folded, "case {case}, step {step}, after {command:?}");
                assert_eq!(loaded.version.get(), version);
            }
            let kept = fresh.store.load_snapshot(&plain.stream("a").unwrap()).await.unwrap();
            taken = taken.max(kept.map_or(0, |kept| kept.version.get()));
        }
    }
    assert!(taken > 0, "no snapshot was ever taken");
}

pub(crate) async fn one_that_does_not_fit_is_made_anew(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let old = with_snapshots(&fresh.store, SnapshotPolicy::every(5));
    run(&old, &deposits(7)).await;
    let stream = old.stream("a").unwrap();
    let kept = fresh.store.load_snapshot(&stream).await.unwrap().unwrap();
    assert_eq!(kept.version.get(), 5);

    // A snapshot of another schema version, and one whose data is not a state.
    let wrong = Snapshot::new(5, Payload::json(&["?"]).unwrap()).with_metadata(kept.metadata);
    for (version, unfit) in [(2, None), (2, Some(wrong))] {
        if let Some(unfit) = unfit {
            fresh.store.delete_snapshot(&stream).await.unwrap();
            fresh.store.save_snapshot(&stream, unfit).await.unwrap();
        }
        let new = SnapshotPolicy::every(5).with_schema_version(version);
        let loaded = with_snapshots(&fresh.store, new).load("a").await.unwrap();
        assert_eq!(loaded.state, accounts(&fresh.store).load("a").await.unwrap().state);
        let kept = fresh.store.load_snapshot(&stream).await.unwrap().unwrap();
        assert_eq!(kept.version.get(), 7, "made anew");
        assert_eq!(kept.data.decode::<State>().unwrap(), loaded.state);
    }
}

pub(crate) async fn one_that_stood_for_truncated_events_is_missed(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let policy = SnapshotPolicy::every(4);
    let old = with_snapshots(&fresh.store, policy.clone());
    run(&old, &deposits(6)).await;
    let state = old.load("a").await.unwrap().state;
    let stream = old.stream("a").unwrap();
    let new = with_snapshots(&fresh.store, policy.clone().with_schema_version(2));
    let is_lost = async |accounts: &CommandHandler<Account>| {
        let error = accounts.load("a").await.unwrap_err();
        assert_eq!((error.kind(), error.stream()), (ErrorKind::Corrupt, Some(&stream)));
    };
    // First the events that the snapshot covers, then all events.
    fresh.store.truncate(&stream, 5.into()).await.unwrap();
    assert_eq!(old.load("a").await.unwrap().state, state);
    is_lost(&new).await;
    fresh.store.truncate(&stream, 6.into()).await.unwrap();
    is_lost(&old).await;
    fresh.store.truncate(&stream, 7.into()).await.unwrap();
    is_lost(&old).await;
    is_lost(&new).await;
    // A deleted stream begins with an empty state, whatever it contained.
    fresh.store.delete(&stream, ExpectedVersion::Any).await.unwrap();
    run(&old, &deposits(1)).await;
    for accounts in [&old, &new] {
        assert_eq!(accounts.load("a").await.unwrap().state.folded, 1);
    }
}

/// An event that is appended during loading is not taken for a gap.
pub(crate) async fn one_that_is_overtaken_is_read_on(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    run(&with_snapshots(&fresh.store, SnapshotPolicy::every(3)), &deposits(3)).await;
    let stream = accounts(&fresh.store).stream("a").unwrap();
    let event = NewEvent::json("deposited", &serde_json::json!({ "cents": 1 })).unwrap();
    let append = Append::new(stream, ExpectedVersion::Any, [event]);
    let store = Faulty::on(&fresh.store, Fault::IsOvertaken(append));
    let loaded = with_snapshots(&store, SnapshotPolicy::every(3)).load("a").await.unwrap();
    assert_eq!((loaded.version.get(), loaded.state.folded), (4, 4));
}

/// As after a restore of the events from a backup that is older than the snapshot.
pub(crate) async fn one_ahead_of_its_stream_is_ignored(kind: Kind) {
    let (fresh, other) = (Fresh::open(&kind).await, Fresh::open(&kind).await);
    let ahead = with_snapshots(&other.store, SnapshotPolicy::every(5));
    run(&ahead, &deposits(10)).await;
    let stream = ahead.stream("a").unwrap();
    let snapshot = other.store.load_snapshot(&stream).await.unwrap().unwrap();
    let mine = with_snapshots(&fresh.store, SnapshotPolicy::every(5));
    run(&mine, &deposits(3)).await;
    fresh.store.save_snapshot(&stream, snapshot).await.unwrap();
    let loaded = mine.load("a").await.unwrap();
    assert_eq!((loaded.version.get(), loaded.state.folded), (3, 3));
}

pub(crate) async fn limits_of_size_and_age(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let stream = accounts(&fresh.store).stream("a").unwrap();
    let version = async || {
        let kept = fresh.store.load_snapshot(&stream).await.unwrap();
        kept.map_or(0, |kept| kept.version.get())
    };
    let by_size = with_snapshots(&fresh.store, SnapshotPolicy::every(u64::MAX).or_bytes(25));
    run(&by_size, &deposits(2)).await;
    assert_eq!(version().await, 2, "15 bytes were too few, 26 are enough");
    let never = SnapshotPolicy::every(u64::MAX).or_age(Duration::MAX);
    run(&with_snapshots(&fresh.store, never), &[Command::Deposit(1)]).await;
    assert_eq!(version().await, 2);
    let at_once = SnapshotPolicy::every(u64::MAX).or_age(Duration::ZERO);
    run(&with_snapshots(&fresh.store, at_once), &[Command::Deposit(1)]).await;
    assert_eq!(version().await, 4);
}
