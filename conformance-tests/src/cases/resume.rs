//! Places to go on from, and places that the store has never given.

use std::{fmt::Debug, sync::Arc};

use annals_core::{
    Category, ErrorKind, EventStoreExt, ExpectedVersion, Filter, Message, Position, ReadAll,
    RecordedEvent, Result, Source, Start, Store, StreamId, Subscribe, SubscriberId, Version,
};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_due, assert_events, assert_kind, assert_same_events, catch_up, event, everything,
        extend, id, read_all, take,
    },
};

cases! { "resume":
    reads_beyond_the_end_are_refused [12] GlobalOrder;
    backward_reads_beyond_the_end_are_refused [12] GlobalOrder;
    filtered_reads_beyond_the_end_are_refused [12] GlobalOrder;
    subscriptions_beyond_the_end_are_refused [12, 15] GlobalOrder;
    a_stream_subscription_beyond_the_end_is_refused [12, 15] GlobalOrder;
    a_version_beyond_the_end_is_refused [15];
    nothing_is_beyond_the_start_of_an_empty_store [12, 15] GlobalOrder;
    the_last_position_is_a_place [12, 15] GlobalOrder;
    the_last_version_is_a_place [15];
    other_handles_know_the_end [12, 15] GlobalOrder;
    a_place_is_refused_until_it_is_given [12, 15] GlobalOrder;
    a_race_for_a_place_skips_nothing [15] GlobalOrder;
    a_refused_place_harms_nothing [12, 15] GlobalOrder;
    a_checkpoint_of_another_store_is_refused [15, 22] GlobalOrder Checkpoints;
    a_caught_up_position_is_a_place [15, 16] GlobalOrder;
}

/// Appends to three streams in turns.
pub(super) async fn fill(store: &Arc<dyn Store>, rounds: u64) -> Result<()> {
    for round in 0..rounds {
        for stream in ["a-1", "b-1", "plain"] {
            extend(store, &id(stream), round * 2, 2).await?;
        }
    }
    Ok(())
}

/// The greatest position that the store has given, as a subscription says that has caught up.
async fn end(cx: &Context, store: &Arc<dyn Store>) -> Result<Position> {
    let mut live = store.subscribe(Subscribe::default()).await?;
    Ok(catch_up(cx, &mut live).await.1)
}

fn beyond(end: Position) -> [Position; 6] {
    let [near, far] = [1, 1 << 40].map(|n| end.plus(n));
    [near, end.plus(2), end.plus(1_000_000), far, (i64::MAX as u64).into(), u64::MAX.into()]
}

fn of_category() -> Filter {
    Filter::default().with_category(Category::new("a").unwrap())
}

fn of_type() -> Filter {
    Filter::default().with_event_types(["Numbered".try_into().unwrap()])
}

/// The first message of a subscription, or its error.
pub(super) async fn first(
    cx: &Context,
    store: &Arc<dyn Store>,
    options: Subscribe,
) -> Result<Message> {
    let mut live = store.subscribe(options).await?;
    cx.within("the first message of a subscription", live.next()).await
}

/// Checks that a place was refused with an error that names it, and the end of the store.
async fn assert_refused<T: Debug>(
    cx: &Context,
    store: &Arc<dyn Store>,
    place: Position,
    answer: Result<T>,
) -> Result<()> {
    let answer = match answer {
        // On a server that others write to as well, the place may have been given by now.
        Ok(_) if end(cx, store).await? >= place => return Ok(()),
        answer => answer,
    };
    let last = store.last_position().await?.get();
    assert_names_both(answer, place.get(), last);
    Ok(())
}

#[track_caller]
fn assert_names_both<T: Debug>(answer: Result<T>, place: u64, last: u64) {
    let error = assert_kind(answer, ErrorKind::BeyondEnd);
    assert!(!error.is_retryable(), "the same call will not succeed: {error}");
    let text = error.to_string();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    assert!(numbers.clone().any(|n| place == n), "the error does not name {place}: {text}");
    let is_end = |n: u64| last <= n && n < place;
    assert!(numbers.any(is_end), "the error does not name the end, {last} or above: {text}");
}

async fn reads_beyond_the_end_are_refused(cx: Context) -> CaseResult {
    let store = cx.open().await;
    fill(&store, 3).await?;
    for place in beyond(end(&cx, &store).await?) {
        for options in [ReadAll::default(), ReadAll::default().with_limit(1)] {
            let answer = read_all(&store, options.after(place)).await;
            assert_refused(&cx, &store, place, answer).await?;
        }
    }
    Ok(())
}

async fn backward_reads_beyond_the_end_are_refused(cx: Context) -> CaseResult {
    let store = cx.open().await;
    fill(&store, 3).await?;
    for place in beyond(end(&cx, &store).await?) {
        for options in [ReadAll::default(), ReadAll::default().with_limit(1)] {
            let answer = read_all(&store, options.before(place)).await;
            assert_refused(&cx, &store, place, answer).await?;
        }
    }
    Ok(())
}

async fn filtered_reads_beyond_the_end_are_refused(cx: Context) -> CaseResult {
    let store = cx.open().await;
    fill(&store, 3).await?;
    let nothing = Filter::default().with_category(Category::new("none")?);
    let prefix = Filter::default().with_prefix("pl".try_into()?);
    for place in beyond(end(&cx, &store).await?) {
        for filter in [of_category(), of_type(), nothing.clone(), prefix.clone()] {
            let options = ReadAll::default().with_filter(filter);
            for options in [options.clone().after(place), options.before(place)] {
                let answer = read_all(&store, options).await;
                assert_refused(&cx, &store, place, answer).await?;
            }
        }
    }
    Ok(())
}

async fn subscriptions_beyond_the_end_are_refused(cx: Context) -> CaseResult {
    let store = cx.open().await;
    fill(&store, 3).await?;
    for place in beyond(end(&cx, &store).await?) {
        for filter in [Filter::default(), of_category(), of_type()] {
            let answer = first(&cx, &store, Subscribe::to(filter).after(place)).await;
            assert_refused(&cx, &store, place, answer).await?;
        }
    }
    Ok(())
}

async fn a_stream_subscription_beyond_the_end_is_refused(cx: Context) -> CaseResult {
    let store = cx.open().await;
    fill(&store, 3).await?;
    for place in beyond(end(&cx, &store).await?) {
        for stream in ["a-1", "missing-1"] {
            let answer = first(&cx, &store, Subscribe::to(id(stream)).after(place)).await;
            assert_refused(&cx, &store, place, answer).await?;
        }
    }
    Ok(())
}

fn after_version(stream: &StreamId, version: u64) -> Subscribe {
    Subscribe::to(stream.clone()).with_start(Start::AfterVersion(version.into()))
}

async fn a_version_beyond_the_end_is_refused(cx: Context) -> CaseResult {
    let store = cx.open().await;
    extend(&store, &id("a-1"), 0, 3).await?;
    extend(&store, &id("a-10"), 0, 9).await?;
    for (stream, last) in [("a-1", 3), ("missing-1", 0)] {
        for version in [last + 1, last + 2, last + 1_000, i64::MAX as u64, u64::MAX] {
            let answer = first(&cx, &store, after_version(&id(stream), version)).await;
            assert_names_both(answer, version, last);
        }
    }
    Ok(())
}

async fn nothing_is_beyond_the_start_of_an_empty_store(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for options in [ReadAll::default().after(0), ReadAll::default().before(0)] {
        assert_events("a read of an empty store", &read_all(&store, options).await?, &[]);
    }
    for source in [Source::default(), of_category().into(), id("a-1").into()] {
        let mut live = store.subscribe(Subscribe::to(source).after(0)).await?;
        assert_events("a subscription to an empty store", &catch_up(&cx, &mut live).await.0, &[]);
    }
    for place in beyond(end(&cx, &store).await?) {
        let answer = read_all(&store, ReadAll::default().after(place)).await;
        assert_refused(&cx, &store, place, answer).await?;
        for source in [Source::default(), of_category().into(), id("a-1").into()] {
            let answer = first(&cx, &store, Subscribe::to(source).after(place)).await;
            assert_refused(&cx, &store, place, answer).await?;
        }
    }
    Ok(())
}

async fn the_last_position_is_a_place(cx: Context) -> CaseResult {
    let store = cx.open().await;
    fill(&store, 2).await?;
    let all = everything(&store).await?;
    let last = all.last().unwrap().position;
    let ours = |events: Vec<RecordedEvent>| -> Vec<_> {
        events.into_iter().filter(|event| !event.stream.is_system()).collect()
    };
    assert_events(
        "a read after the last position",
        &ours(read_all(&store, ReadAll::default().after(last)).await?),
        &[],
    );
    let mut before = read_all(&store, ReadAll::default().before(last)).await?;
    before.reverse();
    assert_same_events(&before, &all[..all.len() - 1]);
    let mut lives = Vec::new();
    for source in [Source::default(), of_category().into(), id("a-1").into()] {
        let mut live = store.subscribe(Subscribe::to(source).after(last)).await?;
        assert_events(
            "a subscription after the last position",
            &catch_up(&cx, &mut live).await.0,
            &[],
        );
        lives.push(live);
    }
    extend(&store, &id("a-1"), 4, 1).await?;
    for mut live in lives {
        assert_due!(
            take(&cx, &mut live, 1).await[0].version.get(),
            5,
            "the version of the next event after the last position"
        );
    }
    Ok(())
}

async fn the_last_version_is_a_place(cx: Context) -> CaseResult {
    let store = cx.open().await;
    extend(&store, &id("a-1"), 0, 3).await?;
    for (stream, last) in [("a-1", 3), ("missing-1", 0)] {
        let mut live = store.subscribe(after_version(&id(stream), last)).await?;
        assert_events(
            "a subscription after the last version",
            &catch_up(&cx, &mut live).await.0,
            &[],
        );
        extend(&store, &id(stream), last, 2).await?;
        assert_due!(
            take(&cx, &mut live, 2).await[0].version.get(),
            last + 1,
            "the version of the next event after the last version"
        );
    }
    Ok(())
}

/// A handle that remembers the end must not take what another has written since for a place that
/// nobody gave.
async fn other_handles_know_the_end(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let stream = id("a-1");
    for base in 0..6 {
        let [writer, reader] = [0, 1].map(|n| &handles[(base as usize + n) % 2]);
        assert_due!(
            everything(reader).await?.len() as u64,
            base,
            "the number of events that the other handle reads"
        );
        let given = extend(writer, &stream, base, 1).await?.position;
        assert_events(
            "a read after the last position, by another handle",
            &read_all(reader, ReadAll::default().after(given)).await?,
            &[],
        );
        read_all(reader, ReadAll::default().before(given)).await?;
        for source in [Source::default(), stream.clone().into()] {
            let mut live = reader.subscribe(Subscribe::to(source).after(given)).await?;
            assert_events(
                "a subscription after the last position, by another handle",
                &catch_up(&cx, &mut live).await.0,
                &[],
            );
        }
        let mut live = reader.subscribe(after_version(&stream, base + 1)).await?;
        assert_events(
            "a subscription after the last version, by another handle",
            &catch_up(&cx, &mut live).await.0,
            &[],
        );
    }
    Ok(())
}

async fn a_place_is_refused_until_it_is_given(cx: Context) -> CaseResult {
    let store = cx.open().await;
    fill(&store, 1).await?;
    let place = end(&cx, &store).await?.plus(2);
    let mut given = Position::START;
    for base in 2.. {
        let options = Subscribe::default().after(place);
        if given >= place {
            let mut live = store.subscribe(options).await?;
            let (rest, _) = catch_up(&cx, &mut live).await;
            let later = everything(&store).await?.into_iter().filter(|e| e.position > place);
            assert_same_events(&rest, &later.collect::<Vec<_>>());
            read_all(&store, ReadAll::default().after(place)).await?;
            return Ok(());
        }
        let answer = first(&cx, &store, options).await;
        assert_refused(&cx, &store, place, answer).await?;
        let answer = read_all(&store, ReadAll::default().after(place)).await;
        assert_refused(&cx, &store, place, answer).await?;
        given = extend(&store, &id("a-1"), base, 1).await?.position;
    }
    Ok(())
}

/// Subscribes after a place that is given meanwhile. Each try is refused, or misses nothing.
async fn a_race_for_a_place_skips_nothing(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let stream = id("a-1");
    extend(&handles[0], &stream, 0, 1).await?;
    for round in 0..10 {
        let place = end(&cx, &handles[0]).await?.plus(1 + round % 3);
        let base = 1 + round * 5;
        let appending = async {
            for base in base..base + 5 {
                extend(&handles[0], &stream, base, 1).await?;
            }
            crate::tools::done()
        };
        let subscribing = handles[1].subscribe(Subscribe::default().after(place));
        let (appended, live) = tokio::join!(appending, subscribing);
        appended?;
        let mut live = match live {
            Ok(live) => live,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::BeyondEnd, "{error:?}");
                continue;
            }
        };
        let last = event(0);
        handles[0].append_to("last-1", ExpectedVersion::Any, [last.clone()]).await?;
        let seen = crate::tools::take_until(&cx, &mut live, last.id()).await;
        let all = everything(&handles[0]).await?;
        let due: Vec<_> = all.into_iter().filter(|e| e.position > place).collect();
        assert_same_events(&seen, &due);
    }
    Ok(())
}

async fn a_refused_place_harms_nothing(cx: Context) -> CaseResult {
    let store = cx.open().await;
    fill(&store, 2).await?;
    let mut before = store.subscribe(Subscribe::default()).await?;
    let (all, last) = catch_up(&cx, &mut before).await;
    let place = last.plus(1 << 40);
    // More calls than a pool has connections: a refused call has to give its connection back.
    for _ in 0..40 {
        let options = Subscribe::default().after(place);
        assert_kind(first(&cx, &store, options).await, ErrorKind::BeyondEnd);
        let options = ReadAll::default().after(place);
        assert_kind(read_all(&store, options).await, ErrorKind::BeyondEnd);
    }
    assert_same_events(&everything(&store).await?, &all);
    extend(&store, &id("a-1"), 4, 1).await?;
    assert_due!(
        take(&cx, &mut before, 1).await[0].version,
        Version::new(5),
        "the version of the next event for the subscription that was there before"
    );
    let mut after = store.subscribe(Subscribe::default().after(last)).await?;
    assert_due!(
        take(&cx, &mut after, 1).await[0].version,
        Version::new(5),
        "the version of the next event for a subscription after the refusals"
    );
    Ok(())
}

/// What happens to a projection whose read model is kept, and whose store is restored or exchanged.
async fn a_checkpoint_of_another_store_is_refused(cx: Context) -> CaseResult {
    let (store, subscriber) = (cx.open().await, SubscriberId::new("report")?);
    fill(&store, 1).await?;
    let foreign = end(&cx, &store).await?.plus(100_000);
    store.save_checkpoint(&subscriber, foreign).await?;
    for base in 2..6 {
        let from = store.load_checkpoint(&subscriber).await?.unwrap();
        for source in [Source::default(), of_category().into(), id("a-1").into()] {
            let answer = first(&cx, &store, Subscribe::to(source).after(from)).await;
            assert_refused(&cx, &store, from, answer).await?;
        }
        extend(&store, &id("a-1"), base, 1).await?;
    }
    let last = store.last_position().await?;
    store.reset_checkpoint(&subscriber, Some(last)).await?;
    let mut live = store.subscribe(Subscribe::default().after(last)).await?;
    extend(&store, &id("a-1"), 6, 1).await?;
    assert_due!(
        take(&cx, &mut live, 1).await[0].version,
        Version::new(7),
        "the version of the next event after the checkpoint was reset"
    );
    Ok(())
}

/// Nothing that is appended after a subscription has caught up is at or below the position that it
/// told: the checks of every answer see to that.
async fn a_caught_up_position_is_a_place(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for base in 0..6 {
        for source in [Source::default(), of_category().into(), id("a-1").into()] {
            let mut live = store.subscribe(Subscribe::to(source.clone())).await?;
            let (_, told) = catch_up(&cx, &mut live).await;
            let mut resumed = store.subscribe(Subscribe::to(source).after(told)).await?;
            let (events, again) = catch_up(&cx, &mut resumed).await;
            assert!(events.is_empty() && again >= told, "{told}, then {again} and {events:?}");
            read_all(&store, ReadAll::default().after(told)).await?;
        }
        extend(&store, &id("a-1"), base, 1).await?;
    }
    Ok(())
}
