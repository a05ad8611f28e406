//! Expected versions, one writer at a time.

use annals_core::{EventStoreExt, ExpectedVersion, Version};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{assert_conflict, assert_due, event, events, everything, exact, extend, id},
};

cases! { "expect":
    exact_holds_only_at_that_version [2];
    exact_zero_means_no_stream [2];
    no_stream_holds_only_without_one [2];
    stream_exists_holds_only_with_one [2, 3];
    says_versions_of_many_digits [2];
    a_refused_append_writes_nothing [1, 2] GlobalOrder;
    a_conflict_takes_no_version [2, 4];
}

async fn exact_holds_only_at_that_version(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    for wrong in [1, 2, 17, u64::MAX] {
        let written = store.append_to(&stream, exact(wrong), [event(1)]).await;
        assert_conflict(written, &stream, exact(wrong), 0);
    }
    extend(&store, &stream, 0, 3).await?;
    for wrong in [1, 2, 4, 100, i64::MAX as u64, u64::MAX] {
        let written = store.append_to(&stream, exact(wrong), [event(1)]).await;
        assert_conflict(written, &stream, exact(wrong), 3);
    }
    let appended = store.append_to(&stream, Version::new(3), [event(4)]).await?;
    assert_due!(appended.last_version.get(), 4, "the version of an append at version 3");
    Ok(())
}

async fn exact_zero_means_no_stream(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    store.append_to(&stream, exact(0), [event(1)]).await?;
    let again = store.append_to(&stream, exact(0), [event(1)]).await;
    assert_conflict(again, &stream, exact(0), 1);
    Ok(())
}

async fn no_stream_holds_only_without_one(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    store.append_to(&stream, ExpectedVersion::NoStream, events(1..=2)).await?;
    let again = store.append_to(&stream, ExpectedVersion::NoStream, [event(3)]).await;
    assert_conflict(again, &stream, ExpectedVersion::NoStream, 2);
    store.append_to("order-2", ExpectedVersion::NoStream, [event(1)]).await?;
    Ok(())
}

async fn stream_exists_holds_only_with_one(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let early = store.append_to(&stream, ExpectedVersion::StreamExists, [event(1)]).await;
    assert_conflict(early, &stream, ExpectedVersion::StreamExists, 0);
    extend(&store, &stream, 0, 1).await?;
    let later = store.append_to(&stream, ExpectedVersion::StreamExists, events(2..=3)).await?;
    assert_due!(
        (later.first_version.get(), later.last_version.get()),
        (2, 3),
        "the versions of two events appended to a stream at version 1"
    );
    Ok(())
}

/// A store that parses the version out of its database's error text may only find one digit.
async fn says_versions_of_many_digits(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let mut base = 0;
    for count in [8, 1, 1, 88, 1, 1, 1] {
        extend(&store, &stream, base, count).await?;
        base += count;
        let written = store.append_to(&stream, exact(base - 1), [event(0)]).await;
        assert_conflict(written, &stream, exact(base - 1), base);
    }
    Ok(())
}

async fn a_refused_append_writes_nothing(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 2).await?;
    let before = everything(&store).await?;
    for expected in [exact(1), exact(5), ExpectedVersion::NoStream] {
        let written = store.append_to(&stream, expected, events(7..=9)).await;
        assert_conflict(written, &stream, expected, 2);
    }
    assert_eq!(everything(&store).await?, before, "a refused append has written something");
    Ok(())
}

async fn a_conflict_takes_no_version(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    for base in 0..10 {
        let wrong = store.append_to(&stream, exact(base + 1), [event(0)]).await;
        assert_conflict(wrong, &stream, exact(base + 1), base);
        extend(&store, &stream, base, 1).await?;
    }
    crate::tools::assert_gapless(&store, &stream).await?;
    Ok(())
}
