//! Limits that are declared are kept, up to the last byte: what can be written can also be read,
//! filtered, followed and removed.

use std::time::Duration;

use annals_core::{
    Append, Category, ErrorKind, EventStoreExt, EventType, ExpectedVersion, Filter, LeaseName,
    LeaseRecord, MAX_NAME_BYTES, NewEvent, Payload, Position, ReadAll, ReadStream, Snapshot,
    StreamPrefix, Subscribe, SubscriberId, Version,
};
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    case::{CaseResult, Context, cases},
    tools::{
        assert_due, assert_events, assert_kind, assert_same, catch_up, event, extend, id, number,
        read, read_all, take, typed,
    },
};

cases! { "size":
    the_largest_stream_id_can_be_used [7, 10];
    the_largest_stream_id_can_be_removed [7, 21] Truncate Delete Tombstone;
    the_largest_stream_id_has_a_snapshot [7, 22] Snapshots;
    the_largest_event_type_can_be_used [7, 10];
    the_largest_names_can_be_filtered_by [7, 12] GlobalOrder;
    the_largest_subscriber_id_has_a_checkpoint [7, 22] Checkpoints;
    the_largest_lease_name_has_a_lease [7, 24] Leases;
    the_size_of_an_event_is_that_of_data_and_metadata [7, 10];
    a_stream_of_many_pages_is_read_both_ways [11, 14];
    all_of_many_pages_are_read_both_ways [12, 14] GlobalOrder;
}

/// Names of the greatest length that differ only at their end: of one, two, three and four bytes a
/// character.
fn largest() -> Vec<String> {
    let name = |character: &str, end: &str| {
        let count = (MAX_NAME_BYTES - end.len()) / character.len();
        let text = character.repeat(count);
        let fill = "-".repeat(MAX_NAME_BYTES - end.len() - text.len());
        format!("{text}{fill}{end}")
    };
    let characters = ["x", "ü", "日", "\u{1f980}"];
    characters.iter().flat_map(|c| [name(c, "-1"), name(c, "-2")]).collect()
}

async fn the_largest_stream_id_can_be_used(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    for (count, name) in (1..).zip(largest()) {
        let stream = id(&name);
        let mut live = store.subscribe(Subscribe::to(stream.clone())).await?;
        extend(&store, &stream, 0, count).await?;
        let events = other.load_stream(&stream).await?;
        assert_eq!(events.len() as u64, count, "{name}");
        assert_due!(
            other.stream_info(&stream).await?.version.get(),
            count,
            "the version of the stream {name}"
        );
        assert_due!(
            take(&cx, &mut live, events.len()).await,
            events,
            "the events that a subscriber of {name} got"
        );
    }
    assert!(id("x").as_str().len() < MAX_NAME_BYTES);
    if store.capabilities().global_order {
        for (count, name) in (1..).zip(largest()) {
            let all = read_all(&store, ReadAll::default()).await?;
            let of_stream = all.iter().filter(|event| event.stream == id(&name));
            assert_eq!(of_stream.count(), count, "{name}");
        }
    }
    Ok(())
}

async fn the_largest_stream_id_can_be_removed(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let streams: Vec<_> = largest().into_iter().map(id).collect();
    for stream in &streams {
        extend(&store, stream, 0, 3).await?;
    }
    for pair in streams.chunks(2) {
        let [removed, kept] = [&pair[0], &pair[1]];
        store.truncate(removed, Version::new(3)).await?;
        assert_due!(
            store.load_stream(removed).await?.len(),
            1,
            "the number of events after a truncation before 3"
        );
        store.delete(removed, ExpectedVersion::Any).await?;
        assert_events("a read of a deleted stream", &store.load_stream(removed).await?, &[]);
        extend(&store, removed, 3, 1).await?;
        store.tombstone(removed, ExpectedVersion::Any).await?;
        let refused = extend(&store, removed, 4, 1).await;
        assert_kind(refused, ErrorKind::StreamClosed);
        assert_eq!(store.load_stream(kept).await?.len(), 3, "{kept:?}");
    }
    Ok(())
}

async fn the_largest_stream_id_has_a_snapshot(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    for (version, name) in (1..).zip(largest()) {
        store.save_snapshot(&id(name), Snapshot::new(version, Payload::json(&version)?)).await?;
    }
    for (version, name) in (1..).zip(largest()) {
        let snapshot = other.load_snapshot(&id(&name)).await?.unwrap();
        assert_eq!(snapshot.version.get(), version, "{name}");
        other.delete_snapshot(&id(&name)).await?;
        assert_due!(
            store.load_snapshot(&id(&name)).await?,
            None,
            "the snapshot of {name} after it was deleted"
        );
    }
    Ok(())
}

async fn the_largest_event_type_can_be_used(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let written: Vec<_> = (1..).zip(largest()).map(|(n, name)| typed(&name, n)).collect();
    store.append_to(&stream, ExpectedVersion::NoStream, written.clone()).await?;
    for (written, read) in written.iter().zip(store.load_stream(&stream).await?) {
        assert_same(written, &read);
    }
    for name in largest() {
        let too_long = EventType::new(format!("{name}x"));
        assert_kind(too_long, ErrorKind::InvalidInput);
    }
    Ok(())
}

async fn the_largest_names_can_be_filtered_by(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let category = "c".repeat(MAX_NAME_BYTES - 1);
    let mut count = 0;
    for name in largest() {
        count += 1;
        store.append_to(id(&name), ExpectedVersion::NoStream, [typed(&name, count)]).await?;
    }
    // The longest category leaves room for the `-` alone.
    for stream in [format!("{category}-"), category[1..].to_owned() + "-1"] {
        store.append_to(id(stream), ExpectedVersion::NoStream, [event(0)]).await?;
    }
    let numbers = async |filter: Filter| {
        let events = read_all(&store, ReadAll::default().with_filter(filter.clone())).await?;
        let mut live = store.subscribe(Subscribe::to(filter)).await?;
        let (followed, _) = catch_up(&cx, &mut live).await;
        assert_due!(followed, events, "the events that a subscriber got");
        Ok::<_, annals_core::Error>(events.iter().map(number).collect::<Vec<_>>())
    };
    for (n, name) in (1..).zip(largest()) {
        let by_type = Filter::default().with_event_types([EventType::new(&name)?]);
        assert_eq!(numbers(by_type).await?, [n], "type {name}");
        let by_prefix = Filter::default().with_prefix(StreamPrefix::new(&name)?);
        assert_eq!(numbers(by_prefix).await?, [n], "prefix {name}");
    }
    let by_category = Filter::default().with_category(Category::new(&category)?);
    assert_eq!(numbers(by_category).await?, [0], "category {category}");
    Ok(())
}

async fn the_largest_subscriber_id_has_a_checkpoint(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    for (at, name) in (1u64..).zip(largest()) {
        store.save_checkpoint(&SubscriberId::new(name)?, at.into()).await?;
    }
    for (at, name) in (1u64..).zip(largest()) {
        let subscriber = SubscriberId::new(&name)?;
        assert_eq!(other.load_checkpoint(&subscriber).await?, Some(at.into()), "{name}");
        other.reset_checkpoint(&subscriber, None).await?;
        assert_due!(
            store.load_checkpoint(&subscriber).await?,
            None,
            "the checkpoint of {name} after it was removed"
        );
    }
    Ok(())
}

async fn the_largest_lease_name_has_a_lease(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    let record = |token| LeaseRecord::new(1, token, Uuid::from_u128(1), Duration::from_secs(1));
    for (token, name) in (1..).zip(largest()) {
        assert!(
            store.swap_lease(&LeaseName::new(name)?, &record(token)).await?,
            "the first record of a lease must be written"
        );
    }
    for (token, name) in (1..).zip(largest()) {
        let found = other.load_lease(&LeaseName::new(&name)?).await?;
        assert_eq!(found, Some(record(token)), "{name}");
    }
    Ok(())
}

async fn the_size_of_an_event_is_that_of_data_and_metadata(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let most = store.capabilities().max_event_bytes;
    // Bytes that no codec makes smaller.
    let mut bytes = vec![0; most + 1];
    cx.rng(0).fill(&mut bytes);
    // All events share these bytes, so that this needs the memory of one event only.
    let bytes = Bytes::from(bytes);
    let sized = |data: usize, metadata: usize| {
        let event = NewEvent::binary("Sized", bytes.slice(..data)).unwrap();
        event.with_metadata(bytes.slice(..metadata))
    };
    let half = most / 2;
    let mut version = 0;
    for (data, metadata) in [(most, 0), (0, most), (half, most - half)] {
        let over = sized(data, metadata + 1);
        let refused = store.append_to(&stream, Version::new(version), [over]).await;
        assert_kind(refused, ErrorKind::LimitExceeded);
        let written = sized(data, metadata);
        let append = Append::new(stream.clone(), Version::new(version), [written.clone()]);
        store.append(append).await?;
        version += 1;
        let backwards = ReadStream::default().backwards().with_limit(1);
        assert_same(&written, &read(&store, &stream, backwards).await?[0]);
        if store.capabilities().global_order {
            let options = ReadAll::default().backwards().with_limit(1);
            assert_same(&written, &read_all(&store, options).await?[0]);
        }
    }
    let (history, _) = {
        let mut live = store.subscribe(Subscribe::to(stream.clone())).await?;
        catch_up(&cx, &mut live).await
    };
    assert_due!(history.len() as u64, version, "the number of events that a subscriber got");
    Ok(())
}

/// Appends more events than any store reads in one page, in two streams.
async fn fill(cx: &Context) -> annals_core::Result<(u64, Vec<Position>)> {
    let store = cx.open().await;
    let most = store.capabilities().max_append_events.min(250) as u64;
    let mut base = 0;
    while base < 1_300 {
        extend(&store, &id("order-1"), base, most).await?;
        extend(&store, &id("other-1"), base, most).await?;
        base += most;
    }
    let events = store.load_stream(&id("order-1")).await?;
    Ok((base, events.iter().map(|event| event.position).collect()))
}

async fn a_stream_of_many_pages_is_read_both_ways(cx: Context) -> CaseResult {
    let (last, _) = fill(&cx).await?;
    let (store, stream) = (cx.open().await, id("order-1"));
    for from in [1, 512, 513, 1_025, last] {
        for limit in [513, last + 1] {
            let options = ReadStream::default().with_from(from).with_limit(limit);
            let forwards = read(&store, &stream, options.clone()).await?;
            let due: Vec<_> = (from..=last).take(usize::try_from(limit).unwrap()).collect();
            assert_eq!(forwards.iter().map(number).collect::<Vec<_>>(), due, "{options:?}");
            let options = options.backwards();
            let backwards = read(&store, &stream, options.clone()).await?;
            let due: Vec<_> = (1..=from).rev().take(usize::try_from(limit).unwrap()).collect();
            assert_eq!(backwards.iter().map(number).collect::<Vec<_>>(), due, "{options:?}");
        }
    }
    Ok(())
}

async fn all_of_many_pages_are_read_both_ways(cx: Context) -> CaseResult {
    let (last, positions) = fill(&cx).await?;
    let store = cx.open().await;
    let category = || Filter::default().with_category(Category::new("order").unwrap());
    for from in [1, 513, last] {
        let at = positions[usize::try_from(from - 1).unwrap()];
        for limit in [513, last + 1] {
            let options = ReadAll::default().with_filter(category()).with_limit(limit);
            let forwards = read_all(&store, options.clone().after(at)).await?;
            let due: Vec<_> = (from + 1..=last).take(usize::try_from(limit).unwrap()).collect();
            assert_eq!(forwards.iter().map(number).collect::<Vec<_>>(), due, "after {at}");
            let backwards = read_all(&store, options.before(at)).await?;
            let due: Vec<_> = (1..from).rev().take(usize::try_from(limit).unwrap()).collect();
            assert_eq!(backwards.iter().map(number).collect::<Vec<_>>(), due, "before {at}");
        }
    }
    Ok(())
}
