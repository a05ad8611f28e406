//! A role with only those privileges that the documentation of the crate lists.

use std::time::Duration;

use annals_core::{
    Append, CheckpointStore, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, LeaseName,
    LeaseRecord, LeaseStore, Payload, RecordedEvent, Result, Snapshot, SnapshotStore, Subscribe,
    SubscriberId, TransferStore, Version,
};
use annals_postgres::{PostgresConfig, PostgresStore};
use annals_test_servers::BoxError;
use uuid::Uuid;

use crate::{
    common::{Place, Tested, event, everything, id, tests},
    page,
};

tests! { "privileges":
    Any the_documented_ones_are_enough;
    Any who_owns_the_schema_needs_no_more;
}

/// A place, and a role without any privilege there.
struct Stranger {
    place: Place,
    role: String,
}

impl Stranger {
    async fn new() -> Result<Self, BoxError> {
        let place = Place::shared().await?;
        let role = format!("{}_role", place.schema);
        place.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD '{role}'")).await?;
        Ok(Self { place, role })
    }

    fn config(&self) -> PostgresConfig {
        let mut config = self.place.config();
        config.connect = config.connect.username(&self.role).password(&self.role);
        config
    }

    async fn open(&self) -> Result<PostgresStore> {
        PostgresStore::open(self.config()).await
    }

    /// The blocks of `GRANT` in the documentation, adapted to this role and schema.
    fn documented(&self) -> Vec<Vec<String>> {
        let documentation = include_str!("../../src/lib.rs").lines();
        let documentation: Vec<_> =
            documentation.filter_map(|line| line.strip_prefix("//! ")).collect();
        let blocks = documentation.join("\n");
        let blocks = blocks.split("```").filter(|block| block.starts_with("sql\nGRANT"));
        let adapted = |grant| self.adapted(grant);
        blocks.map(|block| block.lines().skip(1).map(adapted).collect()).collect()
    }

    fn adapted(&self, grant: &str) -> String {
        let on_schema = format!("SCHEMA {} ", self.place.schema);
        grant
            .replace("SCHEMA annals ", &on_schema)
            .replace("annals.", &format!("{}.", self.place.schema))
            .replace("TO shop;", &format!("TO {}", self.role))
    }

    async fn grant(&self, block: &[String]) -> Tested {
        for grant in block {
            self.place.execute(grant).await?;
        }
        Ok(())
    }

    async fn remove(self) -> Tested {
        self.place.execute(&format!("DROP OWNED BY {} CASCADE", self.role)).await?;
        self.place.execute(&format!("DROP ROLE {}", self.role)).await?;
        self.place.remove().await
    }
}

fn kind<T>(done: Result<T>) -> Option<ErrorKind> {
    done.err().map(|error| error.kind())
}

async fn the_documented_ones_are_enough() -> Tested {
    let stranger = Stranger::new().await?;
    let [to_use, to_remove] = &stranger.documented()[..] else {
        return Err("the documentation does not have two blocks of GRANT".into());
    };
    assert_eq!(kind(stranger.open().await), Some(ErrorKind::Denied), "may create a schema");
    stranger.place.open().await?;
    assert_eq!(kind(stranger.open().await), Some(ErrorKind::Denied), "may use the schema");
    stranger.grant(to_use).await?;
    let store = stranger.open().await?;
    let documented = [to_use.clone(), to_remove.clone()].concat();
    let of_page = page::block("GRANT USAGE")?;
    let of_page = of_page.lines().filter(|line| line.starts_with("GRANT"));
    let of_page: Vec<_> = of_page.map(|grant| stranger.adapted(grant)).collect();
    assert_eq!(of_page, documented, "the book's page says something else");
    page::sql(&stranger.place, &page::block("autovacuum_vacuum_insert")?).await?;

    let mut live = store.subscribe(Subscribe::default()).await?;
    let any = Append::new(id("a-1"), ExpectedVersion::Any, [event(1)]);
    store.append(any.clone()).await?;
    assert!(store.append(any).await?.replayed);
    store.append_to("a-1", Version::new(1), (0..3).map(event)).await?;
    store.append_to("a-1", ExpectedVersion::StreamExists, [event(1)]).await?;
    let conflict = store.append_to("a-1", ExpectedVersion::NoStream, [event(1)]).await;
    assert_eq!(kind(conflict), Some(ErrorKind::Conflict));
    let several = ["a-1", "a-2", "b"].map(|s| Append::new(id(s), ExpectedVersion::Any, [event(2)]));
    store.append_multi(several.into()).await?;
    assert_eq!(everything(&store).await?.len(), 8);
    assert_eq!(store.load_stream(&id("a-1")).await?.len(), 6);
    for number in 1..=8 {
        assert_eq!(live.next_event().await?.position.get(), number);
    }
    let subscriber = SubscriberId::new("projection")?;
    for position in [1, 2] {
        store.save_checkpoint(&subscriber, position.into()).await?;
    }
    assert_eq!(store.load_checkpoint(&subscriber).await?, Some(2.into()));
    store.reset_checkpoint(&subscriber, Some(1.into())).await?;
    store.reset_checkpoint(&subscriber, None).await?;
    let lease = LeaseName::new("projection")?;
    for revision in [1, 2] {
        let record = LeaseRecord::new(revision, 1, Uuid::nil(), Duration::from_secs(1));
        assert!(store.swap_lease(&lease, &record).await?);
        assert_eq!(store.load_lease(&lease).await?, Some(record));
    }
    for version in [1, 2] {
        store.save_snapshot(&id("a-1"), Snapshot::new(version, Payload::json(&1)?)).await?;
    }
    assert!(store.load_snapshot(&id("a-1")).await?.is_some());
    store.delete_snapshot(&id("a-1")).await?;

    let (stream, any) = (id("a-1"), ExpectedVersion::Any);
    assert_eq!(kind(store.delete(&stream, any).await), Some(ErrorKind::Denied));
    assert_eq!(kind(store.truncate(&stream, Version::new(3)).await), Some(ErrorKind::Denied));
    assert_eq!(kind(store.tombstone(&stream, any).await), Some(ErrorKind::Denied));
    assert_eq!(everything(&store).await?.len(), 8);

    let copied = store.load_stream(&id("a-2")).await?;
    let copied = |stream: &str, version: u64| {
        let RecordedEvent { position, recorded_at, .. } = copied[0];
        vec![event(version).recorded(id(stream), version.into(), position, recorded_at)]
    };
    store.import(copied("c-1", 7)).await?;
    assert_eq!(store.list_streams(None, 9).await?.len(), 4);

    // Another server takes over. This role may not set the sequence.
    stranger.place.execute("UPDATE {schema}.store SET history = 'another'").await?;
    let after = stranger.open().await?.append_to("a-2", any, [event(1)]).await?;
    assert!(after.position.get() > 1_000_000_000, "{after:?}");

    stranger.grant(to_remove).await?;
    store.truncate(&stream, Version::new(3)).await?;
    assert_eq!(store.load_stream(&stream).await?.len(), 4);
    store.delete(&stream, any).await?;
    let next = store.append_to("a-1", ExpectedVersion::NoStream, [event(1)]).await?;
    assert_eq!(next.last_version, Version::new(7));
    store.tombstone(&stream, any).await?;
    store.delete(&id("c-1"), any).await?;
    store.import(copied("c-1", 9)).await?;
    let closed = store.append_to("a-1", any, [event(1)]).await;
    assert_eq!(kind(closed), Some(ErrorKind::StreamClosed));
    assert_eq!(store.load_stream(&stream).await?.len(), 0);
    stranger.remove().await
}

/// A role that owns its schema need not be allowed to create schemas in the database.
async fn who_owns_the_schema_needs_no_more() -> Tested {
    let stranger = Stranger::new().await?;
    let create = format!("CREATE SCHEMA {{schema}} AUTHORIZATION {}", stranger.role);
    stranger.place.execute(&create).await?;
    let store = stranger.open().await?;
    store.append_to("a-1", ExpectedVersion::NoStream, [event(1)]).await?;
    store.delete(&id("a-1"), ExpectedVersion::Any).await?;
    stranger.remove().await
}
