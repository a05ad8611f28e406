//! Subscribers that wait, are slow, or cancel.

use annals_core::{
    Append, EventStoreExt, ExpectedVersion, Filter, Message, Start, StreamId, Subscribe, Version,
};
use futures::{StreamExt, poll};
use std::pin::pin;

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_same_events, catch_up, done, event, events, everything, exact, extend, id, number,
        take, take_until, typed,
    },
};

cases! { "live":
    a_waiting_subscriber_is_woken [17] GlobalOrder;
    a_waiting_subscriber_of_a_stream_is_woken [17];
    a_waiting_subscriber_with_a_filter_is_woken [17] GlobalOrder;
    another_handle_wakes_a_subscriber [17] GlobalOrder;
    another_handle_wakes_a_subscriber_of_a_stream [17];
    a_multi_stream_append_wakes_the_subscribers_of_each_stream [9, 17] MultiStreamAppend;
    every_waiting_subscriber_is_woken [17] GlobalOrder;
    an_unpolled_subscriber_holds_up_no_other [17] GlobalOrder;
    a_slow_consumer_misses_nothing [18] GlobalOrder;
    a_consumer_that_falls_behind_catches_up_again [16, 18] GlobalOrder;
    a_cancelled_next_loses_nothing [20] GlobalOrder;
    a_cancelled_wait_loses_nothing [20];
    every_way_to_wait_gives_the_same_events [15, 20];
    a_subscription_outlives_its_handle [19] GlobalOrder;
    a_deletion_does_not_disturb_a_subscription [15, 21] GlobalOrder Delete;
    a_revived_stream_goes_on [15, 21] Delete;
    a_truncation_does_not_disturb_a_subscription [15, 21] Truncate;
}

async fn a_waiting_subscriber_is_woken(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let mut live = store.subscribe(Subscribe::default()).await?;
    catch_up(&cx, &mut live).await;
    for base in 0..20 {
        let mut waiting = Box::pin(live.next_event());
        assert!(poll!(&mut waiting).is_pending(), "an event before its append");
        extend(&store, &id("order-1"), base, 1).await?;
        let event = cx.within("a waiting subscriber to be woken", waiting).await?;
        assert_eq!(event.version.get(), base + 1);
    }
    Ok(())
}

async fn a_waiting_subscriber_of_a_stream_is_woken(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut live = store.subscribe(Subscribe::to(stream.clone())).await?;
    catch_up(&cx, &mut live).await;
    for base in 0..20 {
        let mut waiting = Box::pin(live.next_event());
        extend(&store, &id("order-2"), base, 1).await?;
        assert!(poll!(&mut waiting).is_pending(), "the subscriber got an event of another stream");
        extend(&store, &stream, base, 1).await?;
        let event = cx.within("a waiting subscriber to be woken", waiting).await?;
        assert_eq!(event.version.get(), base + 1);
    }
    Ok(())
}

async fn another_handle_wakes_a_subscriber(cx: Context) -> CaseResult {
    let (reader, writer) = (cx.open().await, cx.open().await);
    let mut live = reader.subscribe(Subscribe::default()).await?;
    catch_up(&cx, &mut live).await;
    for base in 0..20 {
        let mut waiting = Box::pin(live.next_event());
        assert!(poll!(&mut waiting).is_pending(), "an event before its append");
        extend(&writer, &id("order-1"), base, 1).await?;
        let event = cx.within("another handle to wake a subscriber", waiting).await?;
        assert_eq!(event.version.get(), base + 1);
    }
    Ok(())
}

/// The filter may run in the store: an event that it lets through wakes the subscriber all the same.
async fn a_waiting_subscriber_with_a_filter_is_woken(cx: Context) -> CaseResult {
    let (reader, writer) = (cx.open().await, cx.open().await);
    for (n, filter) in [
        Filter::default().with_category("order".try_into()?),
        Filter::default().with_prefix("order-".try_into()?),
        Filter::default().with_event_types(["Placed".try_into()?]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut live = reader.subscribe(Subscribe::to(filter.clone())).await?;
        catch_up(&cx, &mut live).await;
        let stream = id(format!("order-{n}"));
        for base in 0..10 {
            writer.append_to("other-1", ExpectedVersion::Any, [event(0)]).await?;
            let mut waiting = Box::pin(live.next_event());
            assert!(poll!(&mut waiting).is_pending(), "{filter:?} gave an event before its append");
            writer.append_to(&stream, exact(base), [typed("Placed", base + 1)]).await?;
            let waited = format!("a subscriber with {filter:?} to be woken");
            let event = cx.within(&waited, waiting).await?;
            assert!(number(&event) == base + 1, "{filter:?} gave {event:?}");
        }
    }
    Ok(())
}

async fn another_handle_wakes_a_subscriber_of_a_stream(cx: Context) -> CaseResult {
    let (reader, writer, stream) = (cx.open().await, cx.open().await, id("order-1"));
    let mut live = reader.subscribe(Subscribe::to(stream.clone())).await?;
    catch_up(&cx, &mut live).await;
    for base in 0..20 {
        let mut waiting = Box::pin(live.next_event());
        assert!(poll!(&mut waiting).is_pending(), "an event before its append");
        extend(&writer, &stream, base, 1).await?;
        let waited = "another handle to wake a subscriber of a stream";
        let event = cx.within(waited, waiting).await?;
        assert!(event.version.get() == base + 1, "version {} was due: {event:?}", base + 1);
    }
    Ok(())
}

async fn a_multi_stream_append_wakes_the_subscribers_of_each_stream(cx: Context) -> CaseResult {
    let (reader, writer) = (cx.open().await, cx.open().await);
    let streams = ["a-1", "b-1", "c-1"].map(id);
    let mut lives = Vec::new();
    for stream in &streams {
        let mut live = reader.subscribe(Subscribe::to(stream.clone())).await?;
        catch_up(&cx, &mut live).await;
        lives.push(live);
    }
    for base in 0..10 {
        let mut waiting: Vec<_> =
            lives.iter_mut().map(|live| Box::pin(live.next_event())).collect();
        for waiting in &mut waiting {
            assert!(poll!(waiting).is_pending(), "an event before its append");
        }
        let append =
            |stream: &StreamId| Append::new(stream.clone(), exact(base), [event(base + 1)]);
        writer.append_multi(streams.iter().map(append).collect()).await?;
        for (stream, waiting) in streams.iter().zip(waiting) {
            let waited = format!("a subscriber of {stream} to be woken by an append to 3 streams");
            let event = cx.within(&waited, waiting).await?;
            assert!(event.version.get() == base + 1, "version {} was due: {event:?}", base + 1);
        }
    }
    Ok(())
}

async fn every_waiting_subscriber_is_woken(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let mut waiting = Vec::new();
    for n in 0..30 {
        let to = if n % 2 == 0 { Subscribe::default() } else { Subscribe::to(id("order-1")) };
        let mut live = store.subscribe(to).await?;
        catch_up(&cx, &mut live).await;
        waiting.push(tokio::spawn(async move { live.next_event().await }));
    }
    extend(&store, &id("order-1"), 0, 1).await?;
    for waiting in waiting {
        let event = cx.within("every subscriber to be woken", waiting).await.unwrap()?;
        assert_eq!(event.version, Version::FIRST);
    }
    Ok(())
}

/// Subscribers that wait but are never polled again must not keep events from other subscribers.
async fn an_unpolled_subscriber_holds_up_no_other(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    let mut abandoned = Vec::new();
    for handle in [&store, &other, &store] {
        let mut live = handle.subscribe(Subscribe::default()).await?;
        catch_up(&cx, &mut live).await;
        let mut waiting = Box::pin(async move { live.next_event().await });
        assert!(poll!(&mut waiting).is_pending(), "an event before its append");
        abandoned.push(waiting);
    }
    for handle in [&store, &other] {
        let mut live = handle.subscribe(Subscribe::default().with_start(Start::End)).await?;
        catch_up(&cx, &mut live).await;
        for _ in 0..5 {
            let mut waiting = Box::pin(live.next_event());
            assert!(poll!(&mut waiting).is_pending(), "an event before its append");
            store.append_to(id("order-1"), ExpectedVersion::Any, [event(1)]).await?;
            cx.within("a subscriber beside others that are not polled", waiting).await?;
        }
    }
    drop(abandoned);
    Ok(())
}

async fn a_slow_consumer_misses_nothing(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut all = store.subscribe(Subscribe::default()).await?;
    let mut one = store.subscribe(Subscribe::to(stream.clone())).await?;
    for live in [&mut all, &mut one] {
        catch_up(&cx, live).await;
    }
    let most = store.capabilities().max_append_events.min(100) as u64;
    let mut count = 0;
    while count < 6_000 {
        let batch = events(count..count + most);
        store.append_to(&stream, Version::new(count), batch).await?;
        count += most;
    }
    let wanted = everything(&store).await?;
    for live in [&mut all, &mut one] {
        // Read up to the last event: an event that was dropped before it will not come later.
        let last = wanted.last().unwrap().id;
        assert_same_events(&take_until(&cx, live, last).await, &wanted);
    }
    Ok(())
}

async fn a_consumer_that_falls_behind_catches_up_again(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut live = store.subscribe(Subscribe::default()).await?;
    catch_up(&cx, &mut live).await;
    for round in 0..3 {
        let most = store.capabilities().max_append_events.min(100) as u64;
        let mut due = Vec::new();
        for _ in 0..20 {
            let batch = events(0..most);
            due.extend(batch.iter().map(annals_core::NewEvent::id));
            store.append_to(&stream, ExpectedVersion::Any, batch).await?;
        }
        let got = take_until(&cx, &mut live, *due.last().unwrap()).await;
        assert_eq!(crate::tools::ids(&got), due, "round {round}");
    }
    let (rest, position) = {
        extend(&store, &id("order-2"), 0, 1).await?;
        (take(&cx, &mut live, 1).await, store.last_position().await?)
    };
    assert_eq!(rest[0].position, position);
    Ok(())
}

/// Polls `next` once and drops it, again and again, while events arrive.
async fn a_cancelled_next_loses_nothing(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut live = store.subscribe(Subscribe::default()).await?;
    let writing = {
        let (store, stream) = (store.clone(), stream.clone());
        tokio::spawn(async move {
            for base in 0..60 {
                extend(&store, &stream, base * 3, 3).await?;
            }
            done()
        })
    };
    let mut seen = Vec::new();
    let all = async {
        while seen.len() < 180 {
            let polled = poll!(pin!(live.next()));
            match polled {
                std::task::Poll::Ready(message) => seen.extend(message?.into_event()),
                std::task::Poll::Pending => tokio::task::yield_now().await,
            }
        }
        done()
    };
    cx.within("180 events, by polling once and cancelling", all).await?;
    writing.await.unwrap()?;
    assert_same_events(&seen, &everything(&store).await?);
    Ok(())
}

async fn a_cancelled_wait_loses_nothing(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut live = store.subscribe(Subscribe::to(stream.clone())).await?;
    catch_up(&cx, &mut live).await;
    for base in 0..20 {
        for _ in 0..3 {
            let mut waiting = Box::pin(live.next());
            assert!(poll!(&mut waiting).is_pending());
        }
        let mut waiting = Box::pin(live.next());
        assert!(poll!(&mut waiting).is_pending());
        extend(&store, &stream, base, 1).await?;
        // The waiting future is woken, and perhaps ready, but is dropped without another poll.
        tokio::task::yield_now().await;
        drop(waiting);
        let event = cx.within("the event of a cancelled wait", live.next_event()).await?;
        assert_eq!(event.version.get(), base + 1, "the event of a cancelled wait is lost");
    }
    Ok(())
}

async fn every_way_to_wait_gives_the_same_events(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 10).await?;
    let to = || Subscribe::to(stream.clone());
    let mut by_next = store.subscribe(to()).await?;
    let mut by_event = store.subscribe(to()).await?;
    let mut by_stream = store.subscribe(to()).await?;
    for number in 1..=10 {
        let one = loop {
            if let Message::Event(event) = cx.within("a message", by_next.next()).await? {
                break event;
            }
        };
        let other = cx.within("an event", by_event.next_event()).await?;
        let third = loop {
            let item = cx.within("an item", StreamExt::next(&mut by_stream)).await;
            if let Message::Event(event) = item.unwrap()? {
                break event;
            }
        };
        assert_eq!([&one, &other, &third].map(crate::tools::number), [number; 3]);
    }
    Ok(())
}

async fn a_subscription_outlives_its_handle(cx: Context) -> CaseResult {
    let reader = cx.open().await;
    let mut live = reader.subscribe(Subscribe::default()).await?;
    catch_up(&cx, &mut live).await;
    drop(reader);
    for base in 0..5 {
        let writer = cx.open().await;
        extend(&writer, &id("order-1"), base, 1).await?;
        drop(writer);
        let event = cx.within("an event of a short-lived handle", live.next_event()).await?;
        assert_eq!(number(&event), base + 1);
    }
    Ok(())
}

async fn a_deletion_does_not_disturb_a_subscription(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let mut live = store.subscribe(Subscribe::default().with_start(Start::End)).await?;
    extend(&store, &id("a-1"), 0, 2).await?;
    extend(&store, &id("gone-1"), 0, 2).await?;
    assert_eq!(take(&cx, &mut live, 4).await.len(), 4);
    store.delete(&id("gone-1"), ExpectedVersion::Any).await?;
    let last = event(3);
    store.append_to("a-1", Version::new(2), [last.clone()]).await?;
    let seen = take_until(&cx, &mut live, last.id()).await;
    assert_eq!(seen.len(), 1, "the subscriber got events twice after a deletion");
    Ok(())
}

async fn a_revived_stream_goes_on(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut live = store.subscribe(Subscribe::to(stream.clone())).await?;
    let mut version = 0;
    for _ in 0..3 {
        extend(&store, &stream, version, 2).await?;
        let seen = take(&cx, &mut live, 2).await;
        version += 2;
        assert_eq!(seen[1].version.get(), version);
        store.delete(&stream, ExpectedVersion::Any).await?;
    }
    Ok(())
}

async fn a_truncation_does_not_disturb_a_subscription(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 10).await?;
    let mut live = store.subscribe(Subscribe::to(stream.clone())).await?;
    catch_up(&cx, &mut live).await;
    store.truncate(&stream, Version::new(8)).await?;
    extend(&store, &stream, 10, 2).await?;
    assert_eq!(take(&cx, &mut live, 2).await[0].version.get(), 11);
    let mut late = store.subscribe(Subscribe::to(stream)).await?;
    assert_eq!(take(&cx, &mut late, 5).await[0].version.get(), 8);
    Ok(())
}
