//! The order of locks, and what is left of a try that got in the way of another program.

use annals_core::{Append, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, TransferStore};
use annals_marten::sqlx::{AssertSqlSafe, Connection, raw_sql};

use crate::common::{Place, Tested, event};

/// Another program has made the next event of the stream, and does not commit yet.
pub(crate) async fn numbers_of_failed_tries_are_filled() -> Tested {
    let mut place = Place::new().await?;
    let store = place.open("create=string").await?;
    store.append_to("account-1", ExpectedVersion::Any, [event(1)]).await?;
    // With the foreign key, the row of the stream would be waited for, before any number is taken.
    place.execute("ALTER TABLE {}.mt_events DROP CONSTRAINT fkey_mt_events_stream_id").await?;
    let number = place.take().await?;
    let mut connection = place.connect().await?;
    let mut other = connection.begin().await?;
    let row = place.row(number, "account-1", 2);
    let insert = row.split("; ").nth(1).ok_or("two statements")?.to_owned();
    raw_sql(AssertSqlSafe(insert)).execute(&mut *other).await?;
    let append = tokio::spawn({
        let store = store.clone();
        async move { store.append_to("account-1", ExpectedVersion::Any, [event(2), event(3)]).await }
    });
    // It does not wait for the other one for longer than 30 milliseconds, and tries again.
    let tombstones = "FROM {}.mt_events WHERE stream_id = 'mt_tombstone'";
    let two = format!("SELECT count(*) >= 4 {tombstones}");
    place.until("two tries have left tombstones", &two).await?;
    other.rollback().await?;
    let appended = append.await??;
    assert_eq!(appended.first_version.get(), 2);
    let as_marten = format!(
        "SELECT bool_and(seq_id = version AND data = '{{{{}}}}' AND type = 'tombstone' \
             AND timestamp = '-infinity' AND tenant_id = '*DEFAULT*' AND NOT is_archived \
             AND mt_dotnet_type = 'JasperFx.Events.Tombstone, JasperFx.Events') {tombstones}"
    );
    // `{}` is JSON here, and the schema elsewhere.
    let as_marten = as_marten.replace("{{}}", "{\u{20}}");
    assert!(place.value::<bool>(&as_marten).await?);
    let row: bool = place
        .value(
            "SELECT version = 0 AND type IS NULL AND NOT is_archived FROM {}.mt_streams \
             WHERE id = 'mt_tombstone'",
        )
        .await?;
    assert!(row);
    // Only the number that the other program lost is missing.
    let missing: i64 = place.value("SELECT max(seq_id) - count(*) FROM {}.mt_events").await?;
    assert_eq!(missing, 1);
    assert_eq!(store.list_streams(None, 10).await?.len(), 1, "theirs is none of ours");
    Ok(())
}

/// Each waits for the row of the stream before it takes a number, so that no number is taken in vain.
pub(crate) async fn appends_of_annals_take_turns_at_a_stream() -> Tested {
    let mut place = Place::new().await?;
    let store = place.open("create=string").await?;
    store.append_to("account-1", ExpectedVersion::NoStream, [event(0)]).await?;
    let appends = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..20 {
                store.append_to("account-1", ExpectedVersion::Any, [event(number)]).await?;
            }
            Ok::<_, annals_core::Error>(())
        })
    });
    for append in appends.collect::<Vec<_>>() {
        append.await??;
    }
    let rows: bool =
        place.value("SELECT max(seq_id) = 161 AND count(*) = 161 FROM {}.mt_events").await?;
    assert!(rows, "as many numbers as events");
    let in_vain: i64 =
        place.value("SELECT count(*) FROM {}.mt_events WHERE stream_id = 'mt_tombstone'").await?;
    assert_eq!(in_vain, 0);
    Ok(())
}

pub(crate) async fn several_streams_are_locked_in_one_order() -> Tested {
    let mut place = Place::new().await?;
    let store = place.open("create=string").await?;
    for stream in ["account-1", "account-2"] {
        store.append_to(stream, ExpectedVersion::Any, [event(1)]).await?;
    }
    let mut connection = place.connect().await?;
    let mut other = connection.begin().await?;
    let lock = |stream: &str| {
        place.text(&format!("SELECT FROM {{}}.mt_streams WHERE id = '{stream}' FOR UPDATE"))
    };
    raw_sql(AssertSqlSafe(lock("account-2"))).execute(&mut *other).await?;
    let append = tokio::spawn({
        let store = store.clone();
        async move {
            let append = |stream: &str| {
                Append::new(stream.try_into().unwrap(), ExpectedVersion::Any, [event(2)])
            };
            store.append_multi(vec![append("account-2"), append("account-1")]).await
        }
    });
    // While it waits for the second one in order, it holds the first one.
    let held = "SELECT count(*) = 0 FROM (SELECT FROM {}.mt_streams WHERE id = 'account-1' \
                FOR UPDATE SKIP LOCKED) AS free";
    place.until("the first stream is locked", held).await?;
    other.rollback().await?;
    assert_eq!(append.await??.len(), 2);
    Ok(())
}

pub(crate) async fn an_id_that_must_be_unique_leaves_no_gap() -> Tested {
    let mut place = Place::new().await?;
    let store = place.open("create=string").await?;
    place.execute("CREATE UNIQUE INDEX idx_mt_events_event_id ON {}.mt_events (id)").await?;
    let twice = event(1);
    store.append_to("account-1", ExpectedVersion::NoStream, [twice.clone()]).await?;
    let again = store.append_to("account-2", ExpectedVersion::NoStream, [twice]).await;
    let error = again.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("EnableUniqueIndexOnEventId"), "{error}");
    let missing: i64 = place
        .value("SELECT (SELECT last_value FROM {}.mt_events_sequence) - count(*) FROM {}.mt_events")
        .await?;
    assert_eq!(missing, 0, "its number is filled");
    Ok(())
}

/// Also if the stream is there a second time, live, as a .NET program makes it in the partitioned
/// layout.
pub(crate) async fn an_archived_row_closes_a_stream() -> Tested {
    let mut place = Place::new().await?;
    let store = place.open("create=string").await?;
    store.append_to("account-1", ExpectedVersion::Any, [event(1)]).await?;
    place.execute("UPDATE {}.mt_streams SET is_archived = true").await?;
    for expected in [ExpectedVersion::Any, ExpectedVersion::NoStream, ExpectedVersion::StreamExists]
    {
        let error = store.append_to("account-1", expected, [event(2)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StreamClosed, "{error}");
    }
    place
        .execute(
            "DROP SCHEMA {own} CASCADE; DROP TABLE {}.mt_events, {}.mt_streams CASCADE; \
             CREATE TABLE {}.mt_streams (id varchar, type varchar, version bigint, \
                 timestamp timestamptz, created timestamptz, tenant_id varchar, \
                 is_archived boolean NOT NULL, PRIMARY KEY (id, is_archived)) \
                 PARTITION BY LIST (is_archived); \
             CREATE TABLE {}.mt_streams_archived PARTITION OF {}.mt_streams FOR VALUES IN (true); \
             CREATE TABLE {}.mt_streams_default PARTITION OF {}.mt_streams DEFAULT; \
             CREATE TABLE {}.mt_events (seq_id bigint, id uuid, stream_id varchar, version bigint, \
                 data jsonb, type varchar, timestamp timestamptz, tenant_id varchar, \
                 mt_dotnet_type varchar, is_archived boolean NOT NULL, \
                 PRIMARY KEY (seq_id, is_archived)) PARTITION BY LIST (is_archived); \
             CREATE TABLE {}.mt_events_archived PARTITION OF {}.mt_events FOR VALUES IN (true); \
             CREATE TABLE {}.mt_events_default PARTITION OF {}.mt_events DEFAULT; \
             CREATE UNIQUE INDEX ON {}.mt_events (stream_id, version, is_archived); \
             CREATE SEQUENCE IF NOT EXISTS {}.mt_events_sequence; \
             INSERT INTO {}.mt_streams (id, version, tenant_id, is_archived) \
             VALUES ('account-1', 5, '*DEFAULT*', true), ('account-1', 1, '*DEFAULT*', false)",
        )
        .await?;
    let store = place.open("mode=quick").await?;
    let error = store.append_to("account-1", ExpectedVersion::Any, [event(2)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StreamClosed, "{error}");
    Ok(())
}
