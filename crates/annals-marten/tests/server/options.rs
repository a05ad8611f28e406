//! What the parameters of the URL change.

use annals_core::{
    CheckpointStore, ContentKind, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Filter,
    NewEvent, Payload, ReadAll, RecordedEvent, Source, StreamState, Subscribe, SubscriberId,
    TransferStore, TryStreamExt, Version,
};
use annals_marten::MartenStore;

use crate::common::{Place, Tested, event, within};

async fn all(store: &MartenStore) -> annals_core::Result<Vec<RecordedEvent>> {
    store.read_all(ReadAll::default()).try_collect().await
}

fn json(text: &str) -> NewEvent {
    NewEvent::new(
        "money_paid".try_into().unwrap(),
        Payload::json_text(text.as_bytes().to_vec()).unwrap(),
    )
}

/// By a role that may only read, in transactions that are read-only.
pub(crate) async fn a_store_that_only_reads_creates_nothing() -> Tested {
    let mut place = Place::new().await?;
    let elsewhere = place.text("create=string&own_schema=elsewhere_{}");
    drop(place.open(&elsewhere).await?);
    for version in 1..=3 {
        let number = place.take().await?;
        let row = place.row(number, "account-1", version);
        place.execute(&row).await?;
    }
    place
        .execute(
            "CREATE ROLE {}_reader LOGIN PASSWORD 'r'; \
             ALTER ROLE {}_reader SET default_transaction_read_only = on; \
             GRANT USAGE ON SCHEMA {} TO {}_reader; \
             GRANT SELECT ON {}.mt_streams, {}.mt_events, {}.mt_events_sequence TO {}_reader",
        )
        .await?;
    let role = place.text("{}_reader");
    let open = async |place: &Place, parameters: &str| {
        let mut config = place.config(parameters);
        config.connect = config.connect.username(&role).password("r");
        MartenStore::open(config).await
    };
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE '%{}%'";
    let before: i64 = place.value(schemas).await?;
    let store = open(&place, "mode=quick&read_only=true").await?;
    let mut subscription = store.subscribe(Subscribe::to(Source::All(Filter::default()))).await?;
    for version in 1..=3 {
        let event = within(subscription.next_event()).await?;
        assert_eq!((event.stream.as_str(), event.version.get()), ("account-1", version));
    }
    let stream = "account-1".try_into()?;
    assert_eq!(store.load_stream(&stream).await?, all(&store).await?);
    let listed = store.list_streams(None, 10).await?;
    assert_eq!((listed.len(), listed[0].1.version.get()), (1, 3));
    let error = store.append_to("account-1", ExpectedVersion::Any, [event(1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let error = store.import(all(&store).await?).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let error = store.load_checkpoint(&SubscriberId::new("a")?).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = store.tombstone(&stream, ExpectedVersion::Any).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(place.value::<i64>(schemas).await?, before, "nothing was created");

    // What another store keeps beside Marten's tables is read, too.
    let writer = place.open("mode=quick").await?;
    let exact = json(r#"{"b": 1e2, "a":"\u0000"}"#);
    let appended = writer.append_to("account-1", ExpectedVersion::Any, [exact.clone()]).await?;
    let live = within(subscription.next_event()).await?;
    assert_eq!(live.position, appended.position);
    assert_ne!(live.data, *exact.data(), "it was opened when there was no such schema");
    writer.delete(&stream, ExpectedVersion::Any).await?;
    writer.append_to("account-1", ExpectedVersion::NoStream, [exact.clone()]).await?;
    place
        .execute(
            "GRANT USAGE ON SCHEMA {own} TO {}_reader; \
             GRANT SELECT ON ALL TABLES IN SCHEMA {own} TO {}_reader",
        )
        .await?;
    let store = open(&place, "mode=quick&read_only=true").await?;
    let read = store.load_stream(&stream).await?;
    assert_eq!((read.len(), &read[0].data), (1, exact.data()));
    place.execute("DROP OWNED BY {}_reader; DROP ROLE {}_reader").await?;
    Ok(())
}

pub(crate) async fn archived_events_are_read_if_asked_for() -> Tested {
    let place = Place::new().await?;
    let store = place.open("create=string").await?;
    for stream in ["kept-1", "deleted-1", "closed-1"] {
        store.append_to(stream, ExpectedVersion::Any, [event(1), event(2)]).await?;
    }
    store.delete(&"deleted-1".try_into()?, ExpectedVersion::Any).await?;
    store.tombstone(&"closed-1".try_into()?, ExpectedVersion::Any).await?;
    assert_eq!(all(&store).await?.len(), 2);
    let whole = place.open("mode=quick&read_only=true&archived=include").await?;
    assert_eq!(all(&whole).await?.len(), 6);
    for (stream, info) in whole.list_streams(None, 10).await? {
        assert_eq!((info.state, info.version.get()), (StreamState::Live, 2), "{stream}");
        assert_eq!(info.first_version, Some(Version::FIRST));
        assert_eq!(whole.load_stream(&stream).await?.len(), 2);
    }
    Ok(())
}

pub(crate) async fn jsonb_alone_keeps_values() -> Tested {
    let mut place = Place::new().await?;
    let store = place.open("create=string&payloads=jsonb").await?;
    assert!(!store.capabilities().exact_payloads);
    let one = json(r#"{"b": 1, "a": [1.50, "x"]}"#);
    let two = NewEvent::new("money_paid".try_into()?, Payload::binary(vec![0, 255, 7]));
    let append = || store.append_to("account-1", ExpectedVersion::Any, [one.clone(), two.clone()]);
    let appended = append().await?;
    let again = append().await?;
    assert!(again.replayed && again.position == appended.position, "{again:?}");
    let read = store.load_stream(&"account-1".try_into()?).await?;
    let [first, second] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!(first.data.bytes().as_ref(), br#"{"a": [1.50, "x"], "b": 1}"#);
    assert_eq!((second.data.kind(), &second.data), (ContentKind::Binary, two.data()));
    let kept: i64 =
        place.value("SELECT count(*) FROM {own}.payloads WHERE data IS NOT NULL").await?;
    assert_eq!(kept, 0);
    let append = |event| store.append_to("account-1", ExpectedVersion::Any, [event]);
    let error = append(json(r#""\u0000""#)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let error = append(event(1).with_correlation_id("c")?).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("$correlationId"), "{error}");
    place
        .execute(
            "ALTER TABLE {}.mt_events ADD correlation_id varchar, ADD causation_id varchar, \
             ADD headers jsonb",
        )
        .await?;
    let store = place.open("mode=quick&payloads=jsonb").await?;
    let written = event(1).with_correlation_id("c")?;
    store.append_to("account-2", ExpectedVersion::Any, [written]).await?;
    let read = store.load_stream(&"account-2".try_into()?).await?;
    assert_eq!(read[0].correlation_id().as_deref(), Some("c"));
    Ok(())
}

pub(crate) async fn removal_can_be_off() -> Tested {
    let place = Place::new().await?;
    let store = place.open("create=string&removal=off").await?;
    store.append_to("account-1", ExpectedVersion::Any, [event(1)]).await?;
    let stream = "account-1".try_into()?;
    for error in [
        store.truncate(&stream, Version::new(2)).await.unwrap_err(),
        store.delete(&stream, ExpectedVersion::Any).await.unwrap_err(),
        store.tombstone(&stream, ExpectedVersion::Any).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    assert_eq!(all(&store).await?.len(), 1);
    Ok(())
}

/// The bytes that annals keeps are not those of an event that the .NET program has changed since.
pub(crate) async fn what_was_masked_is_read_masked() -> Tested {
    let mut place = Place::new().await?;
    let store = place.open("create=string").await?;
    let secret = json(r#"{"Name": "Ada", "Cents": 1}"#);
    store.append_to("account-1", ExpectedVersion::Any, [secret.clone(), secret.clone()]).await?;
    place
        .execute(
            "UPDATE {}.mt_events SET data = '{\"Name\": \"***\", \"Cents\": 1}' WHERE version = 1; \
             UPDATE {}.mt_events SET is_archived = false WHERE version = 2",
        )
        .await?;
    let read = all(&store).await?;
    let data: serde_json::Value = read[0].data.decode()?;
    assert_eq!(data["Name"], "***");
    assert_eq!(read[1].data, *secret.data(), "another change does not concern the data");
    Ok(())
}

pub(crate) async fn unknown_types_are_refused_if_told_to() -> Tested {
    let mut place = Place::new().await?;
    let store = place
        .open("create=string&unknown_types=refuse&dotnet_type.known=Shop.Known,%20Shop")
        .await?;
    let append = |name: &str| {
        store.append_to("account-1", ExpectedVersion::Any, [NewEvent::json(name, &1).unwrap()])
    };
    let error = append("unknown").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("`dotnet_type.unknown`"), "{error}");
    append("known").await?;
    let number = place.take().await?;
    let row = place.row(number, "account-2", 1);
    place.execute(&row).await?;
    append("money_paid").await?;
    let written: String = place
        .value(
            "SELECT string_agg(mt_dotnet_type, '|' ORDER BY version) FROM {}.mt_events \
             WHERE stream_id = 'account-1'",
        )
        .await?;
    assert_eq!(written, "Shop.Known, Shop|Shop.MoneyPaid, Shop");
    Ok(())
}

/// Another tenant has a stream of the same id, at other versions.
pub(crate) async fn streams_of_other_tenants_are_none_of_ours() -> Tested {
    let mut place = Place::new().await?;
    drop(place.open("create=string").await?);
    place
        .execute(
            "ALTER TABLE {}.mt_events DROP CONSTRAINT fkey_mt_events_stream_id; \
             ALTER TABLE {}.mt_streams DROP CONSTRAINT pkey_mt_streams_id; \
             ALTER TABLE {}.mt_streams ADD CONSTRAINT pkey_mt_streams_tenant_id_id \
                 PRIMARY KEY (tenant_id, id); \
             DROP INDEX {}.pk_mt_events_stream_and_version; \
             CREATE UNIQUE INDEX pk_mt_events_stream_and_version \
                 ON {}.mt_events (tenant_id, stream_id, version); \
             DROP SCHEMA {own} CASCADE",
        )
        .await?;
    let alpha = place.open("mode=quick&tenant=alpha").await?;
    let beta = place.open("mode=quick&tenant=beta").await?;
    for number in 1..=3 {
        beta.append_to("account-1", ExpectedVersion::Any, [event(number)]).await?;
    }
    let first = alpha.append_to("account-1", ExpectedVersion::NoStream, [event(1)]).await?;
    let second = alpha.append_to("account-1", ExpectedVersion::Any, [event(2)]).await?;
    assert_eq!(all(&alpha).await?.len(), 2);
    let start = annals_core::Start::After(first.position);
    let subscribe = Subscribe::to(Source::Stream("account-1".try_into()?)).with_start(start);
    let mut subscription = alpha.subscribe(subscribe).await?;
    assert_eq!(within(subscription.next_event()).await?.position, second.position);
    Ok(())
}
