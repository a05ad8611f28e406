//! Appends of a single writer: what is written, what is answered, what is refused.

use annals_core::{
    Append, ErrorKind, EventStoreExt, ExpectedVersion, NewEvent, Payload, StreamState, Version,
};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{assert_kind, assert_same, event, events, everything, exact, extend, id},
};

cases! { "append":
    writes_events_in_the_order_given [1, 10];
    answers_what_readers_see [4] GlobalOrder;
    answers_versions [4];
    any_creates_a_stream [3];
    refuses_an_empty_append [7];
    refuses_names_of_the_backend [7];
    refuses_a_nil_event_id [7];
    refuses_an_event_over_the_limit [7];
    accepts_an_event_at_the_limit [7, 10];
    refuses_too_many_events [7];
    accepts_as_many_events_as_declared [1, 7];
    refuses_an_append_over_the_limit [7];
    says_where_an_error_came_from [7];
}

async fn writes_events_in_the_order_given(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let written = events(1..=40);
    store.append(Append::new(stream.clone(), ExpectedVersion::NoStream, written.clone())).await?;
    let read = store.load_stream(&stream).await?;
    assert_eq!(read.len(), written.len());
    for (place, (written, read)) in (1..).zip(written.iter().zip(&read)) {
        assert_same(written, read);
        assert_eq!(read.version, Version::new(place));
    }
    Ok(())
}

async fn answers_what_readers_see(cx: Context) -> CaseResult {
    let store = cx.open().await;
    for (stream, base, count) in [("a-1", 0, 1), ("b-1", 0, 5), ("a-1", 1, 3), ("b-1", 5, 1)] {
        let appended = extend(&store, &id(stream), base, count).await?;
        let all = everything(&store).await?;
        let read = all.iter().rfind(|e| e.stream == id(stream)).unwrap();
        assert_eq!(appended.last_version, read.version);
        assert_eq!(appended.position, read.position, "not the position that a reader sees");
        assert_eq!(all.last().unwrap().position, read.position);
    }
    Ok(())
}

async fn answers_versions(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut base = 0;
    for count in [1, 2, 7, 1] {
        let appended = extend(&store, &stream, base, count).await?;
        assert_eq!(appended.first_version.get(), base + 1);
        assert_eq!(appended.last_version.get(), base + count);
        assert!(!appended.replayed, "the answer says that a first append was a retry");
        base += count;
        let info = store.stream_info(&stream).await?;
        assert_eq!((info.state, info.version.get()), (StreamState::Live, base));
        assert_eq!(info.first_version, Some(Version::FIRST));
    }
    Ok(())
}

async fn any_creates_a_stream(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    for base in 0..3 {
        let appended = store.append_to(&stream, ExpectedVersion::Any, [event(base)]).await?;
        assert_eq!(appended.last_version.get(), base + 1);
    }
    assert_eq!(store.load_stream(&stream).await?.len(), 3);
    Ok(())
}

async fn refuses_an_empty_append(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    for expected in [ExpectedVersion::Any, ExpectedVersion::NoStream, exact(3)] {
        let empty = Append::new(stream.clone(), expected, []);
        assert_kind(store.append(empty).await, ErrorKind::InvalidInput);
    }
    assert_eq!(store.stream_info(&stream).await?.state, StreamState::Missing);
    Ok(())
}

async fn refuses_names_of_the_backend(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let system_stream = store.append_to("$settings", ExpectedVersion::Any, [event(1)]).await;
    assert_kind(system_stream, ErrorKind::InvalidInput);
    let system_type = NewEvent::json("$>", &1)?;
    let written = store.append_to("order-1", ExpectedVersion::Any, [event(1), system_type]).await;
    assert_kind(written, ErrorKind::InvalidInput);
    assert!(store.load_stream(&id("order-1")).await?.is_empty(), "a refused call has written");
    Ok(())
}

async fn refuses_a_nil_event_id(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let nil = || event(1).with_id(uuid::Uuid::nil());
    for sent in [vec![nil()], vec![event(1), nil()], vec![nil(), event(1)]] {
        let refused = store.append_to(&stream, ExpectedVersion::Any, sent.clone()).await;
        assert_kind(refused, ErrorKind::InvalidInput);
        if store.capabilities().multi_stream_append {
            let append = |stream, events| Append::new(stream, ExpectedVersion::Any, events);
            let appends = vec![append(id("order-2"), vec![event(1)]), append(stream.clone(), sent)];
            assert_kind(store.append_multi(appends).await, ErrorKind::InvalidInput);
        }
    }
    for stream in [stream, id("order-2")] {
        let info = store.stream_info(&stream).await?;
        assert!(info.state == StreamState::Missing, "a refused call has made {stream} {info:?}");
    }
    Ok(())
}

/// An event of `size` bytes, up to 100 of which are metadata.
fn sized(size: usize) -> NewEvent {
    let metadata = size.min(100);
    NewEvent::new("Large".try_into().unwrap(), Payload::binary(vec![b'd'; size - metadata]))
        .with_metadata(vec![b'm'; metadata])
}

async fn refuses_an_event_over_the_limit(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let most = store.capabilities().max_event_bytes;
    let written = store.append_to(&stream, ExpectedVersion::Any, [event(1), sized(most + 1)]).await;
    let error = assert_kind(written, ErrorKind::LimitExceeded);
    assert!(error.to_string().contains(&most.to_string()), "the limit must be named: {error}");
    assert!(store.load_stream(&stream).await?.is_empty(), "a refused call has written");
    Ok(())
}

async fn accepts_an_event_at_the_limit(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let large = sized(store.capabilities().max_event_bytes);
    store.append_to(&stream, ExpectedVersion::Any, [large.clone()]).await?;
    assert_same(&large, &store.load_stream(&stream).await?[0]);
    Ok(())
}

async fn refuses_too_many_events(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let most = store.capabilities().max_append_events;
    let many = events(0..=most as u64);
    let error = assert_kind(
        store.append_to(&stream, ExpectedVersion::Any, many).await,
        ErrorKind::LimitExceeded,
    );
    assert!(error.to_string().contains(&most.to_string()), "the limit must be named: {error}");
    assert!(store.load_stream(&stream).await?.is_empty(), "a refused call has written");
    Ok(())
}

async fn accepts_as_many_events_as_declared(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let most = store.capabilities().max_append_events as u64;
    let appended = extend(&store, &stream, 0, most).await?;
    assert_eq!(appended.last_version.get(), most);
    assert_eq!(crate::tools::assert_gapless(&store, &stream).await?, most);
    Ok(())
}

async fn refuses_an_append_over_the_limit(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let capabilities = store.capabilities();
    let largest = sized(capabilities.max_event_bytes);
    let count = capabilities.max_append_bytes / capabilities.max_event_bytes + 1;
    if count > capabilities.max_append_events {
        // No append can be too large without also having too many events.
        return Ok(());
    }
    // The clones share their bytes, so that this needs the memory of one event only.
    let too_large = (0..count).map(|_| largest.clone().with_id(uuid::Uuid::now_v7()));
    let too_large: Vec<_> = too_large.collect();
    let written = store.append_to(&stream, ExpectedVersion::Any, too_large).await;
    assert_kind(written, ErrorKind::LimitExceeded);
    assert!(store.load_stream(&stream).await?.is_empty(), "a refused call has written");
    Ok(())
}

async fn says_where_an_error_came_from(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let empty = Append::new(stream.clone(), ExpectedVersion::Any, []);
    let refused = assert_kind(store.append(empty).await, ErrorKind::InvalidInput);
    let conflict = assert_kind(extend(&store, &stream, 4, 1).await, ErrorKind::Conflict);
    for error in [refused, conflict] {
        assert_eq!(error.backend(), Some(store.capabilities().backend));
        assert_eq!(error.operation(), Some("append"));
        assert_eq!(error.stream(), Some(&stream));
        assert!(!error.is_retryable(), "the same call cannot succeed later: {error:?}");
    }
    Ok(())
}
