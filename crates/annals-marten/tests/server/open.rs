//! What a store looks at when it is opened.

use annals_core::{
    CheckpointStore, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Filter, LeaseName,
    LeaseRecord, LeaseStore, Payload, Position, ReadAll, Snapshot, SnapshotStore, Source,
    Subscribe, SubscriberId, TransferStore, TryStreamExt, Version,
};
use annals_marten::MartenStore;

use crate::common::{Place, Tested, event, within};

pub(crate) async fn what_cannot_be_kept_is_refused() -> Tested {
    let mut place = Place::new().await?;
    let error = place.open("mode=quick").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("`create=guid`"), "{error}");
    drop(place.open("create=string").await?);
    let error = place.open("").await.unwrap_err();
    assert!(error.to_string().contains("say `mode=quick` or `mode=rich`"), "{error}");
    let error = place.open("create=guid").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let error = place.open("mode=quick&tenant=alpha").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    for (change, back, says) in [
        (
            "ALTER SEQUENCE {}.mt_events_sequence CACHE 20",
            "ALTER SEQUENCE {}.mt_events_sequence CACHE 1",
            "cache 20",
        ),
        (
            "ALTER SEQUENCE {}.mt_events_sequence INCREMENT 10",
            "ALTER SEQUENCE {}.mt_events_sequence INCREMENT 1",
            "increment 10",
        ),
        (
            "ALTER TABLE {}.mt_events ADD shard integer NOT NULL",
            "ALTER TABLE {}.mt_events DROP shard",
            "\"shard\", which this version of annals does not know",
        ),
        (
            "DROP INDEX {}.pk_mt_events_stream_and_version",
            "CREATE UNIQUE INDEX pk_mt_events_stream_and_version \
             ON {}.mt_events (stream_id, version)",
            "no unique index",
        ),
        (
            "ALTER TABLE {}.mt_events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; \
             CREATE ROLE {}_secured LOGIN PASSWORD 'r'; \
             GRANT USAGE, CREATE ON SCHEMA {}, {own} TO {}_secured; \
             GRANT ALL ON ALL TABLES IN SCHEMA {}, {own} TO {}_secured",
            "ALTER TABLE {}.mt_events DISABLE ROW LEVEL SECURITY; DROP OWNED BY {}_secured; \
             DROP ROLE {}_secured",
            "row security applies",
        ),
    ] {
        place.execute(change).await?;
        let mut config = place.config("mode=quick");
        if change.contains("SECURITY") {
            // It never applies to a superuser.
            let role = place.text("{}_secured");
            config.connect = config.connect.username(&role).password("r");
        }
        let error = MartenStore::open(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        place.execute(back).await?;
    }
    let row = place.row(7, "account-1", 1);
    place.execute(&row).await?;
    let error = place.open("mode=quick").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("setval("), "{error}");
    place.execute("SELECT setval('{}.mt_events_sequence', 7)").await?;
    // A column with a default, and a table of the program's own, are nobody's business.
    place
        .execute(
            "ALTER TABLE {}.mt_events ADD note text NOT NULL DEFAULT ''; \
             CREATE TABLE {}.mt_doc_account (id varchar)",
        )
        .await?;
    let store = place.open("mode=quick").await?;
    store.append_to("account-1", Version::FIRST, [event(1)]).await?;
    Ok(())
}

/// The blocks of `GRANT` in the crate's documentation, for this role and these schemas.
fn documented(place: &Place) -> Vec<String> {
    let text = include_str!("../../src/lib.rs").lines();
    let text: Vec<_> = text.filter_map(|line| line.strip_prefix("//! ")).collect();
    let text = text.join("\n");
    let blocks = text.split("```").filter(|block| block.starts_with("sql\nGRANT"));
    blocks
        .map(|block| {
            let block = block.trim_start_matches("sql\n").replace(" annals_events", " {own}");
            let block = block.replace(" events.", " {}.").replace(" events", " {}");
            place
                .text(&block.replace("TO shop", "TO {}_role").replace("TO reports", "TO {}_reader"))
        })
        .collect()
}

pub(crate) async fn the_documented_privileges_are_enough() -> Tested {
    let mut place = Place::new().await?;
    drop(place.open("create=string").await?);
    let blocks = documented(&place);
    let [writes, reads] = blocks.as_slice() else { panic!("two blocks: {blocks:?}") };
    place
        .execute("CREATE ROLE {}_role LOGIN PASSWORD 'r'; CREATE ROLE {}_reader LOGIN PASSWORD 'r'")
        .await?;
    let open = async |place: &Place, role: &str, parameters: &str| {
        let mut config = place.config(parameters);
        config.connect = config.connect.username(&place.text(role)).password("r");
        MartenStore::open(config).await
    };
    let error = open(&place, "{}_role", "mode=quick").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    place.execute(writes).await?;
    let store = open(&place, "{}_role", "mode=quick").await?;
    let mut live = store.subscribe(Subscribe::to(Source::All(Filter::default()))).await?;
    let stream = "account-1".try_into()?;
    store.append_to("account-1", ExpectedVersion::NoStream, [event(1), event(2)]).await?;
    within(live.next_event()).await?;
    let saved = Snapshot::new(Version::FIRST, Payload::json(&1)?);
    store.save_snapshot(&stream, saved).await?;
    store.save_checkpoint(&SubscriberId::new("a")?, Position::new(1)).await?;
    let ttl = std::time::Duration::from_secs(1);
    let record = LeaseRecord::new(1, 1, uuid::Uuid::from_u128(7), ttl);
    store.swap_lease(&LeaseName::new("a")?, &record).await?;
    store.truncate(&stream, Version::new(2)).await?;
    store.delete(&stream, ExpectedVersion::Any).await?;
    let events: Vec<_> = {
        store.append_to("account-2", ExpectedVersion::Any, [event(3)]).await?;
        store.load_stream(&"account-2".try_into()?).await?
    };
    store.import(events).await?;
    store.tombstone(&stream, ExpectedVersion::Any).await?;
    assert_eq!(store.list_streams(None, 10).await?.len(), 2);

    place.execute(reads).await?;
    let reader = open(&place, "{}_reader", "mode=quick&read_only=true").await?;
    assert_eq!(reader.read_all(ReadAll::default()).try_collect::<Vec<_>>().await?.len(), 1);
    place
        .execute(
            "DROP OWNED BY {}_role; DROP ROLE {}_role; DROP OWNED BY {}_reader; DROP ROLE {}_reader",
        )
        .await?;
    Ok(())
}

/// A .NET program that is upgraded while a store is open.
pub(crate) async fn tables_that_change_are_noticed() -> Tested {
    let mut place = Place::new().await?;
    let store = place.open("create=string").await?;
    store.append_to("account-1", ExpectedVersion::Any, [event(1)]).await?;
    place.execute("ALTER TABLE {}.mt_events ADD shard integer NOT NULL DEFAULT 1").await?;
    place.execute("ALTER TABLE {}.mt_events ALTER shard DROP DEFAULT").await?;
    let error = store.append_to("account-1", ExpectedVersion::Any, [event(2)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert!(error.to_string().contains("open the store again"), "{error}");
    place.execute("ALTER TABLE {}.mt_events DROP shard, ADD headers jsonb").await?;
    let store = place.open("mode=quick").await?;
    let written = event(2).with_correlation_id("c")?;
    store.append_to("account-1", ExpectedVersion::Any, [written]).await?;
    let headers: String =
        place.value("SELECT headers::text FROM {}.mt_events ORDER BY seq_id DESC LIMIT 1").await?;
    assert_eq!(headers, r#"{"$correlationId": "c"}"#);
    Ok(())
}
