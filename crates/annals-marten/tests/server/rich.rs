//! Beside a program in mode `Rich`, which takes numbers before its transaction begins.

use std::time::Duration;

use annals_core::{
    ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Filter, ReadAll, Source, Start,
    Subscribe, TryStreamExt, Version,
};
use annals_marten::sqlx::{AssertSqlSafe, Connection, raw_sql};

use crate::common::{Place, Tested, event, within};

pub(crate) async fn it_needs_a_declared_wait() -> Tested {
    let place = Place::new().await?;
    let store = place.open("create=string&mode=rich").await?;
    store.append_to("account-1", ExpectedVersion::Any, [event(1)]).await?;
    assert_eq!(store.load_stream(&"account-1".try_into()?).await?.len(), 1);
    let all: annals_core::Result<Vec<_>> = store.read_all(ReadAll::default()).try_collect().await;
    let subscribed = store.subscribe(Subscribe::to(Source::All(Filter::default()))).await;
    for error in [all.unwrap_err(), subscribed.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("add `gap_wait=10s`"), "{error}");
    }
    assert!(!store.capabilities().global_order);
    let error = place.open("mode=quick&gap_wait=10s").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("`mode=rich`"), "{error}");
    let store = place.open("mode=rich&gap_wait=10s").await?;
    assert_eq!(store.capabilities().gap_wait, Some(Duration::from_secs(10)));
    // There is no gap, so that nothing is waited for.
    assert_eq!(store.read_all(ReadAll::default()).try_collect::<Vec<_>>().await?.len(), 1);
    Ok(())
}

/// A tombstone that comes late says that no event will come.
pub(crate) async fn an_event_that_comes_too_late_ends_subscriptions() -> Tested {
    let mut place = Place::new().await?;
    let store = place.open("create=string&mode=rich&gap_wait=50ms&poll_interval=50ms").await?;
    let all = || Subscribe::to(Source::All(Filter::default()));
    let mut subscription = store.subscribe(all()).await?;
    let (filled, late) = (place.take().await?, place.take().await?);
    let appended = store.append_to("account-1", ExpectedVersion::Any, [event(1)]).await?;
    let seen = within(subscription.next_event()).await?;
    assert_eq!(seen.position, appended.position, "both numbers were passed");
    let tombstone = place.row(filled, "mt_tombstone", filled);
    let tombstone =
        tombstone.replace("Shop.MoneyPaid, Shop", "JasperFx.Events.Tombstone, JasperFx");
    place.execute(&tombstone).await?;
    let row = place.row(late, "account-2", 1);
    place.execute(&row).await?;
    let error = within(subscription.next_event()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains(&format!("come at position {late} after")), "{error}");
    // Whoever begins again before it reads it, and is not told of it once more.
    let from = Start::After(annals_core::Position::START);
    let mut again = store.subscribe(all().with_start(from)).await?;
    for position in [late, i64::try_from(appended.position.get())?] {
        let event = within(again.next_event()).await?;
        assert_eq!(i64::try_from(event.position.get())?, position);
    }
    let next = store.append_to("account-1", ExpectedVersion::Any, [event(2)]).await?;
    assert_eq!(within(again.next_event()).await?.position, next.position);
    Ok(())
}

/// A transaction that began in time may take as long as it likes.
pub(crate) async fn a_reader_waits_for_transactions_that_began_in_time() -> Tested {
    let mut place = Place::new().await?;
    let store = place.open("create=string&mode=rich&gap_wait=50ms&poll_interval=50ms").await?;
    let mut subscription = store.subscribe(Subscribe::to(Source::All(Filter::default()))).await?;
    let slow = place.take().await?;
    let mut connection = place.connect().await?;
    let mut transaction = connection.begin().await?;
    // Only the row of the stream yet, and no event.
    let row = place.text(
        "INSERT INTO {}.mt_streams (id, version, tenant_id) VALUES ('account-1', 1, '*DEFAULT*')",
    );
    raw_sql(AssertSqlSafe(row)).execute(&mut *transaction).await?;
    let ours = store.append_to("account-2", ExpectedVersion::Any, [event(1)]).await?;
    // This gap is passed: by then, so would have been the one before it.
    let dead = place.take().await?;
    let other = place.open("mode=rich&gap_wait=50ms").await?;
    let later = other.append_to("account-3", ExpectedVersion::Any, [event(2)]).await?;
    assert!(i64::try_from(later.position.get())? > dead);
    let waited = tokio::time::timeout(Duration::from_millis(300), subscription.next_event()).await;
    assert!(waited.is_err(), "it did not wait for the transaction under way: {waited:?}");
    raw_sql(AssertSqlSafe(place.row(slow, "account-1", 1))).execute(&mut *transaction).await?;
    transaction.commit().await?;
    for position in [u64::try_from(slow)?, ours.position.get(), later.position.get()] {
        assert_eq!(within(subscription.next_event()).await?.position.get(), position);
    }
    Ok(())
}

/// Two writers of a stream may commit in the order other than that of their numbers.
pub(crate) async fn versions_need_not_be_in_order() -> Tested {
    let mut place = Place::new().await?;
    let store = place.open("create=string&mode=rich&gap_wait=50ms").await?;
    let numbers = [place.take().await?, place.take().await?, place.take().await?];
    for (number, version) in [(numbers[0], 1), (numbers[2], 2), (numbers[1], 3)] {
        let row = place.row(number, "account-1", version);
        place.execute(&row).await?;
    }
    let stream: annals_core::StreamId = "account-1".try_into()?;
    for (at, next) in [(numbers[0], 2), (numbers[2], 3)] {
        let start = Start::After(annals_core::Position::new(u64::try_from(at)?));
        let subscribe = Subscribe::to(Source::Stream(stream.clone())).with_start(start);
        let mut subscription = store.subscribe(subscribe).await?;
        assert_eq!(within(subscription.next_event()).await?.version, Version::new(next));
    }
    Ok(())
}
