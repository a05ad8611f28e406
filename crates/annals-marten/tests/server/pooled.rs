//! Behind a pooler of transactions.

use std::sync::Arc;

use annals_core::{
    Append, EventStore, EventStoreExt, ExpectedVersion, Filter, NewEvent, Payload, ReadAll, Source,
    Subscribe, TransferStore, TryStreamExt, Version,
};
use annals_marten::{MartenConfig, MartenStore};
use annals_test_servers::postgres::{self, PgBouncer};

use crate::common::{Place, Tested, event, within};

pub(crate) async fn a_store_works_behind_a_pooler() -> Tested {
    if PgBouncer::program().is_none() {
        println!("ignored: there is no PgBouncer");
        return Ok(());
    }
    let place = Place::new().await?;
    let server = postgres::shared().await?;
    let bouncer = Arc::new(PgBouncer::start(&server, "transaction", 4).await?);
    let open = async |parameters: &str| {
        let url = place.url(parameters);
        let url = url.replace(&server.addr().to_string(), &bouncer.addr().to_string());
        MartenStore::open(MartenConfig::from_url(&url)?).await
    };
    let store = open("create=string&poll_interval=20ms").await?;
    let mut live = store.subscribe(Subscribe::to(Source::All(Filter::default()))).await?;
    let odd = NewEvent::new("it's \\ odd ü".try_into()?, Payload::binary(vec![0, 39, 92, 255]))
        .with_metadata(br#"{"a": "\\ ' $1 \u0000"}"#.to_vec());
    let json = NewEvent::new(
        "money_paid".try_into()?,
        Payload::json_text(br#"{"b": "\u0000 $2 '", "a": 1e2}"#.to_vec())?,
    );
    let events = [odd.clone(), json.clone()];
    let appended = store.append_to("it's-1", ExpectedVersion::NoStream, events.clone()).await?;
    let again = store.append_to("it's-1", ExpectedVersion::NoStream, events).await?;
    assert!(again.replayed && again.position == appended.position);
    let append =
        |stream: &str| Append::new(stream.try_into().unwrap(), ExpectedVersion::Any, [event(1)]);
    store.append_multi(vec![append("account-2"), append("account-1")]).await?;
    for written in [&odd, &json] {
        let read = within(live.next_event()).await?;
        assert_eq!((&read.data, &read.metadata), (written.data(), written.metadata()));
        assert_eq!(read.event_type, *written.event_type());
    }
    let error = store.append_to("it's-1", Version::new(1), [event(2)]).await.unwrap_err();
    assert!(error.conflict().is_some_and(|conflict| conflict.actual == Version::new(2)));
    store.truncate(&"it's-1".try_into()?, Version::new(2)).await?;
    store.tombstone(&"account-2".try_into()?, ExpectedVersion::Any).await?;
    let all: Vec<_> = store.read_all(ReadAll::default()).try_collect().await?;
    let reader = open("mode=quick&read_only=true").await?;
    assert_eq!(reader.read_all(ReadAll::default()).try_collect::<Vec<_>>().await?, all);
    assert_eq!(all.len(), 2);
    assert_eq!(reader.list_streams(None, 10).await?, store.list_streams(None, 10).await?);
    let rich = open("mode=rich&gap_wait=20ms").await?;
    assert_eq!(rich.read_all(ReadAll::default()).try_collect::<Vec<_>>().await?, all);
    drop((store, reader, rich, live));
    // Dropping it blocks until it has ended.
    Ok(tokio::task::spawn_blocking(move || drop(bouncer)).await?)
}
