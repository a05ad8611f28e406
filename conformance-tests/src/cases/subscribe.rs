//! Where subscriptions begin, which messages they give, and how they resume.

use annals_core::{
    Category, ErrorKind, EventStoreExt, ExpectedVersion, Filter, Message, Position, Source, Start,
    Subscribe, SubscriberId, Version,
};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_due, assert_events, assert_kind, assert_same_events, catch_up, event, events,
        everything, extend, id, take, typed,
    },
};

cases! { "subscribe":
    all_from_the_beginning [15] GlobalOrder;
    a_stream_from_the_beginning [15];
    all_resumes_exactly_after_every_position [15] GlobalOrder;
    a_stream_resumes_exactly_after_every_position [15] GlobalOrder;
    a_stream_resumes_exactly_after_every_version [15];
    the_end_means_what_comes [15] GlobalOrder;
    the_end_of_a_stream_means_what_comes [15];
    a_long_history_is_not_cut [15, 18] GlobalOrder;
    says_once_that_it_has_caught_up [16] GlobalOrder;
    an_empty_source_is_caught_up_at_once [16];
    checkpoints_cover_what_the_filter_leaves_out [16] GlobalOrder;
    live_checkpoints_cover_what_the_filter_leaves_out [16] GlobalOrder;
    a_live_checkpoint_covers_one_left_out_event [16] GlobalOrder;
    every_message_is_a_checkpoint [15, 16] GlobalOrder;
    a_version_needs_one_stream [15] GlobalOrder;
    many_subscriptions_are_independent [15] GlobalOrder;
    a_stored_checkpoint_resumes_on_another_handle [15, 22] GlobalOrder Checkpoints;
}

/// Appends to three streams in turns.
async fn fill(cx: &Context) -> annals_core::Result<()> {
    let store = cx.open().await;
    for round in 0..4 {
        for stream in ["a-1", "b-1", "a-2"] {
            extend(&store, &id(stream), round * 2, 2).await?;
        }
    }
    Ok(())
}

async fn all_from_the_beginning(cx: Context) -> CaseResult {
    fill(&cx).await?;
    let store = cx.open().await;
    let mut live = store.subscribe(Subscribe::default()).await?;
    let (history, _) = catch_up(&cx, &mut live).await;
    assert_same_events(&history, &everything(&store).await?);
    for base in 8..12 {
        extend(&store, &id("a-1"), base, 1).await?;
    }
    let later = take(&cx, &mut live, 4).await;
    assert_same_events(&[history, later].concat(), &everything(&store).await?);
    Ok(())
}

async fn a_stream_from_the_beginning(cx: Context) -> CaseResult {
    fill(&cx).await?;
    let (store, stream) = (cx.open().await, id("a-1"));
    let mut live = store.subscribe(Subscribe::to(stream.clone())).await?;
    let (history, _) = catch_up(&cx, &mut live).await;
    assert_same_events(&history, &store.load_stream(&stream).await?);
    for base in 8..12 {
        extend(&store, &id("a-2"), base, 1).await?;
        extend(&store, &stream, base, 1).await?;
    }
    let later = take(&cx, &mut live, 4).await;
    assert_same_events(&[history, later].concat(), &store.load_stream(&stream).await?);
    Ok(())
}

async fn all_resumes_exactly_after_every_position(cx: Context) -> CaseResult {
    fill(&cx).await?;
    let store = cx.open().await;
    let all = everything(&store).await?;
    let category = |source: &Source| all.iter().filter(|e| source.matches(e)).cloned().collect();
    for source in [Source::default(), Source::category(Category::new("a")?)] {
        let wanted: Vec<_> = category(&source);
        for from in std::iter::once(Position::START).chain(all.iter().map(|e| e.position)) {
            let mut live = store.subscribe(Subscribe::to(source.clone()).after(from)).await?;
            let (got, _) = catch_up(&cx, &mut live).await;
            let due: Vec<_> = wanted.iter().filter(|e| e.position > from).cloned().collect();
            assert_same_events(&got, &due);
        }
    }
    Ok(())
}

async fn a_stream_resumes_exactly_after_every_position(cx: Context) -> CaseResult {
    fill(&cx).await?;
    let (store, stream) = (cx.open().await, id("b-1"));
    let wanted = store.load_stream(&stream).await?;
    for from in everything(&store).await?.iter().map(|e| e.position) {
        let to = Subscribe::to(stream.clone()).after(from);
        let (got, _) = catch_up(&cx, &mut store.subscribe(to).await?).await;
        let due: Vec<_> = wanted.iter().filter(|e| e.position > from).cloned().collect();
        assert_same_events(&got, &due);
    }
    Ok(())
}

async fn a_stream_resumes_exactly_after_every_version(cx: Context) -> CaseResult {
    fill(&cx).await?;
    let (store, stream) = (cx.open().await, id("b-1"));
    let mut lives = Vec::new();
    for version in 0..=8 {
        let start = Start::AfterVersion(Version::new(version));
        let mut live = store.subscribe(Subscribe::to(stream.clone()).with_start(start)).await?;
        let (got, _) = catch_up(&cx, &mut live).await;
        let all = store.load_stream(&stream).await?;
        assert_same_events(&got, &all[usize::try_from(version).unwrap()..]);
        lives.push(live);
    }
    extend(&store, &stream, 8, 1).await?;
    for mut live in lives {
        assert_due!(
            take(&cx, &mut live, 1).await[0].version.get(),
            9,
            "the version of the next live event"
        );
    }
    Ok(())
}

async fn the_end_means_what_comes(cx: Context) -> CaseResult {
    fill(&cx).await?;
    let store = cx.open().await;
    for round in 0..5 {
        let end = Subscribe::default().with_start(Start::End);
        let mut live = store.subscribe(end).await?;
        // Append before the subscription is polled for the first time.
        let written = events(0..3);
        let sent: Vec<_> = written.iter().map(annals_core::NewEvent::id).collect();
        store.append_to(format!("new-{round}"), ExpectedVersion::Any, written).await?;
        assert_due!(
            crate::tools::ids(&take(&cx, &mut live, 3).await),
            sent,
            "the ids of the events after the end"
        );
    }
    Ok(())
}

async fn the_end_of_a_stream_means_what_comes(cx: Context) -> CaseResult {
    fill(&cx).await?;
    let store = cx.open().await;
    for (stream, base) in [("a-1", 8), ("missing-1", 0)] {
        let to = Subscribe::to(id(stream)).with_start(Start::End);
        let mut live = store.subscribe(to).await?;
        extend(&store, &id(stream), base, 2).await?;
        assert_due!(
            take(&cx, &mut live, 2).await[0].version.get(),
            base + 1,
            "the version of the first event after the end"
        );
    }
    Ok(())
}

async fn a_long_history_is_not_cut(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let most = store.capabilities().max_append_events.min(100) as u64;
    let mut count = 0;
    while count < 3_000 {
        store.append_to("order-1", Version::new(count), events(count..count + most)).await?;
        count += most;
    }
    for to in [Subscribe::default(), Subscribe::to(id("order-1"))] {
        let mut live = store.subscribe(to).await?;
        let (history, _) = catch_up(&cx, &mut live).await;
        assert_same_events(&history, &everything(&store).await?);
    }
    Ok(())
}

async fn says_once_that_it_has_caught_up(cx: Context) -> CaseResult {
    fill(&cx).await?;
    let store = cx.open().await;
    let last = store.last_position().await?;
    let mut live = store.subscribe(Subscribe::default()).await?;
    let (history, caught_up) = catch_up(&cx, &mut live).await;
    assert_eq!(history.len(), 24, "the subscription caught up before the end of its history");
    assert!(caught_up >= last, "caught up at {caught_up}, before the end {last}");
    for base in 8..14 {
        extend(&store, &id("a-1"), base, 1).await?;
        let message = cx.within("a live event", live.next()).await?;
        assert!(matches!(message, Message::Event(_)), "expected an event, got {message:?}");
    }
    Ok(())
}

async fn an_empty_source_is_caught_up_at_once(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let mut live = store.subscribe(Subscribe::to(id("order-1"))).await?;
    let (history, _) = catch_up(&cx, &mut live).await;
    assert_events("a subscription to a missing stream", &history, &[]);
    extend(&store, &id("order-1"), 0, 1).await?;
    assert_due!(
        take(&cx, &mut live, 1).await[0].version,
        Version::FIRST,
        "the version of the first event of a source that was empty"
    );
    Ok(())
}

/// Appends `count` events that the filter of `wanted` leaves out.
async fn leave_out(cx: &Context, count: u64) -> annals_core::Result<Position> {
    let store = cx.open().await;
    let most = store.capabilities().max_append_events.min(500) as u64;
    let mut position = Position::START;
    for _ in 0..count.div_ceil(most) {
        let batch: Vec<_> = (0..most).map(|n| typed("Other", n)).collect();
        position = store.append_to("other-1", ExpectedVersion::Any, batch).await?.position;
    }
    Ok(position)
}

fn wanted() -> Subscribe {
    Subscribe::to(Filter::default().with_category(Category::new("wanted").unwrap()))
}

async fn checkpoints_cover_what_the_filter_leaves_out(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let first = store.append_to("wanted-1", ExpectedVersion::Any, [event(1)]).await?.position;
    let last = leave_out(&cx, 3_000).await?;
    let mut live = store.subscribe(wanted()).await?;
    let (history, caught_up) = catch_up(&cx, &mut live).await;
    assert_due!(history.len(), 1, "the number of events of the wanted category");
    assert!(caught_up >= last, "caught up at {caught_up}, between {first} and {last}");
    let second = store.append_to("wanted-1", ExpectedVersion::Any, [event(2)]).await?.position;
    let mut resumed = store.subscribe(wanted().after(caught_up)).await?;
    assert_due!(
        take(&cx, &mut resumed, 1).await[0].position,
        second,
        "the position of the next event of the wanted category"
    );
    Ok(())
}

async fn live_checkpoints_cover_what_the_filter_leaves_out(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let mut live = store.subscribe(wanted()).await?;
    let (_, mut told) = catch_up(&cx, &mut live).await;
    for _ in 0..3 {
        leave_out(&cx, 5_000).await?;
        let message = cx.within("a checkpoint over 5,000 left-out events", live.next()).await?;
        assert!(!matches!(message, Message::Event(_)), "a left-out event: {message:?}");
        assert!(message.position() > told, "checkpoint {told}, then {}", message.position());
        told = message.position();
    }
    Ok(())
}

/// A subscriber that waits until it has seen an append is told so, even if its filter leaves the last
/// event of the append out.
async fn a_live_checkpoint_covers_one_left_out_event(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let mut live = store.subscribe(wanted()).await?;
    catch_up(&cx, &mut live).await;
    for n in 0..3 {
        store.append_to("wanted-1", ExpectedVersion::Any, [event(n)]).await?;
        let last = store.append_to("other-1", ExpectedVersion::Any, [event(n)]).await?.position;
        let (mut events, mut told) = (0, Position::START);
        while told < last {
            let message = cx.within("a checkpoint over a left-out event", live.next()).await?;
            told = message.position();
            events += usize::from(matches!(message, Message::Event(_)));
        }
        assert_eq!(events, 1, "before the checkpoint {told}");
    }
    Ok(())
}

/// Resuming after the position of any message gives just the events that were not delivered before
/// it.
async fn every_message_is_a_checkpoint(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for round in 0..3 {
        store.append_to("wanted-1", ExpectedVersion::Any, events(0..=round)).await?;
        leave_out(&cx, 1_500).await?;
    }
    let all: Vec<_> = everything(&store).await?;
    let all: Vec<_> = all.into_iter().filter(|e| wanted().source.matches(e)).collect();
    let mut live = store.subscribe(wanted()).await?;
    let (mut delivered, mut before) = (0, Position::START);
    loop {
        let message = cx.within("a subscription to catch up", live.next()).await?;
        let position = message.position();
        assert!(position >= before, "a checkpoint went back from {before} to {position}");
        before = position;
        delivered += usize::from(matches!(message, Message::Event(_)));
        let mut resumed = store.subscribe(wanted().after(position)).await?;
        let (rest, _) = catch_up(&cx, &mut resumed).await;
        assert_same_events(&rest, &all[delivered..]);
        if let Message::CaughtUp(_) = message {
            break;
        }
    }
    assert_due!(delivered, all.len(), "the number of events delivered");
    Ok(())
}

async fn a_version_needs_one_stream(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let start = Start::AfterVersion(Version::FIRST);
    let refused = store.subscribe(Subscribe::default().with_start(start)).await;
    assert_kind(refused, ErrorKind::InvalidInput);
    Ok(())
}

async fn many_subscriptions_are_independent(cx: Context) -> CaseResult {
    fill(&cx).await?;
    let store = cx.open().await;
    let mut lives = Vec::new();
    for n in 0..20 {
        let to = if n % 2 == 0 { Subscribe::default() } else { Subscribe::to(id("a-1")) };
        let mut live = store.subscribe(to).await?;
        if n % 3 != 0 {
            catch_up(&cx, &mut live).await;
        }
        // Every fourth subscription is dropped while the others wait.
        if n % 4 != 0 {
            lives.push(live);
        }
    }
    let last = event(0);
    extend(&store, &id("a-1"), 8, 3).await?;
    store.append_to("a-1", ExpectedVersion::Any, [last.clone()]).await?;
    for mut live in lives {
        let seen = crate::tools::take_until(&cx, &mut live, last.id()).await;
        assert!([4, 12, 28].contains(&seen.len()), "{} events", seen.len());
    }
    Ok(())
}

async fn a_stored_checkpoint_resumes_on_another_handle(cx: Context) -> CaseResult {
    fill(&cx).await?;
    let (one, subscriber) = (cx.open().await, SubscriberId::new("report")?);
    let mut live = one.subscribe(Subscribe::default()).await?;
    let first = take(&cx, &mut live, 10).await;
    one.save_checkpoint(&subscriber, first[9].position).await?;
    drop((live, one));
    let other = cx.open().await;
    let from = other.load_checkpoint(&subscriber).await?.unwrap();
    let mut live = other.subscribe(Subscribe::default().after(from)).await?;
    let (rest, _) = catch_up(&cx, &mut live).await;
    assert_same_events(&[first, rest].concat(), &everything(&other).await?);
    Ok(())
}
