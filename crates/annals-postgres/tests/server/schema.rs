//! What `open` creates, what it refuses, and what it leaves alone in a database.

use std::{sync::Arc, thread};

use annals_core::{
    Append, CheckpointStore, Error, ErrorKind, EventStore, EventStoreExt, ExpectedVersion,
    NewEvent, Payload, Subscribe, SubscriberId, Version,
};
use annals_postgres::{
    PostgresConfig, PostgresStore,
    sqlx::{AssertSqlSafe, Row, postgres::PgPoolOptions, query, query_scalar},
};
use annals_test_servers::{
    BoxError,
    postgres::{Options, Source},
};
use tokio::{runtime::Builder, task::JoinSet};

use crate::common::{Place, Tested, event, everything, id, tests};

tests! { "schema":
    Any many_open_an_empty_database_at_once;
    Any what_is_not_ours_is_refused_and_left_alone;
    Any a_database_that_cannot_be_used_is_refused;
    Local wrong_credentials_are_refused;
    Any nothing_is_created_without_leave;
    Any stores_in_one_database_do_not_see_each_other;
    Any any_plain_name_is_a_schema;
    Any a_serializable_database_is_worked_around_or_refused;
    Any people_can_read_the_events;
}

/// How many threads open a store at once, each with a runtime and connections of its own.
const OPENERS: u64 = 10;

async fn many_open_an_empty_database_at_once() -> Tested {
    let place = Place::in_database("").await?;
    let barrier = Arc::new(std::sync::Barrier::new(usize::try_from(OPENERS)?));
    let openers: Vec<_> = (0..OPENERS)
        .map(|number| {
            let (config, barrier) = (place.config().with_connections(3), barrier.clone());
            thread::spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                barrier.wait();
                runtime.block_on(async {
                    let store = PostgresStore::open(config).await?;
                    let append = Append::new(id("a-1"), ExpectedVersion::Any, [event(number)]);
                    store.append(append).await?;
                    Ok::<_, BoxError>(())
                })
            })
        })
        .collect();
    let joined = tokio::task::spawn_blocking(|| {
        openers.into_iter().map(thread::JoinHandle::join).collect::<Vec<_>>()
    });
    for opened in joined.await? {
        opened.map_err(|_| "a thread has panicked")??;
    }
    assert_eq!(everything(&place.open().await?).await?.len(), usize::try_from(OPENERS)?);
    let mut connection = place.connect().await?;
    let sql =
        format!("SELECT array_agg(version ORDER BY version) FROM {}.migrations", place.schema);
    let versions: Vec<i32> = query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await?;
    assert!(versions.iter().copied().eq((1..).take(versions.len())), "{versions:?}");
    assert_eq!(place.execute("SELECT FROM {schema}.store").await?, 1);
    place.remove().await
}

/// Everything in a schema, with the number of rows.
async fn contents(place: &Place) -> Result<Vec<String>, BoxError> {
    let mut connection = place.connect().await?;
    let sql = "SELECT 'column ' || c.relname || '.' || a.attname || ' ' || a.atttypid::regtype \
               FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid \
               WHERE c.relnamespace = to_regnamespace($1) AND a.attnum > 0 \
               UNION ALL SELECT 'function ' || p.oid::regprocedure || md5(p.prosrc) \
               FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace($1) \
               UNION ALL SELECT 'rows ' || (xpath('/row/n/text()', query_to_xml( \
                   format('SELECT count(*) AS n FROM %s', c.oid::regclass), false, true, '')))[1] \
               FROM pg_class AS c WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r' \
               UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = $1 \
               ORDER BY 1";
    let rows = query_scalar(sql).bind(&place.schema).fetch_all(&mut connection).await?;
    Ok(rows)
}

fn assert_refused<T>(opened: Result<T, Error>, kind: ErrorKind, says: &str, what: &str) {
    let error = opened.err().unwrap_or_else(|| panic!("{what}: was not refused"));
    assert_eq!(error.kind(), kind, "{what}: {error:?}");
    assert!(error.to_string().contains(says), "{what}: {error}");
    assert_eq!((error.backend(), error.operation()), (Some("postgres"), Some("open")));
}

async fn what_is_not_ours_is_refused_and_left_alone() -> Tested {
    const FOREIGN: &str = "choose another `schema`";
    for (sql, says) in [
        ("CREATE TABLE {schema}.migrations (name text)", FOREIGN),
        ("CREATE TABLE {schema}.migrations (version integer)", FOREIGN),
        ("CREATE TABLE {schema}.migrations AS SELECT '2024-01-01' AS version", FOREIGN),
        ("CREATE TABLE {schema}.migrations AS SELECT 20240101000000 AS version", FOREIGN),
        ("CREATE TABLE {schema}.migrations AS SELECT 1 AS version", "of the store is missing"),
        (
            "CREATE FUNCTION {schema}.migrations() RETURNS integer RETURN 1; \
          CREATE TABLE {schema}.events (id uuid)",
            FOREIGN,
        ),
        ("CREATE VIEW {schema}.events AS SELECT 1 AS id", FOREIGN),
        ("CREATE SEQUENCE {schema}.positions", FOREIGN),
        (
            "CREATE FUNCTION {schema}.to_jsonb(payload bytea) RETURNS jsonb RETURN NULL::jsonb",
            FOREIGN,
        ),
    ] {
        let place = Place::shared().await?;
        place.execute("CREATE SCHEMA {schema}").await?;
        for statement in sql.split("; ") {
            place.execute(statement).await?;
        }
        let before = contents(&place).await?;
        assert_refused(place.open().await, ErrorKind::Incompatible, says, sql);
        assert_eq!(contents(&place).await?, before, "{sql}");
        place.remove().await?;
    }
    // A schema that a newer annals created.
    let place = Place::shared().await?;
    place.open().await?.append_to("a-1", ExpectedVersion::Any, [event(1)]).await?;
    place.execute("INSERT INTO {schema}.migrations (version) VALUES (1000)").await?;
    let before = contents(&place).await?;
    assert_refused(place.open().await, ErrorKind::Incompatible, "upgrade annals", "newer");
    assert_eq!(contents(&place).await?, before);
    place.remove().await
}

async fn a_database_that_cannot_be_used_is_refused() -> Tested {
    let place = Place::shared().await?;
    let mut config = place.config();
    config.connect = config.connect.database("annals_no_such_database");
    let opened = PostgresStore::open(config).await;
    assert_refused(opened, ErrorKind::Incompatible, "create it", "no database");

    let place = Place::in_database("ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0").await?;
    assert_refused(place.open().await, ErrorKind::Incompatible, "one with UTF8", "encoding");
    assert_eq!(contents(&place).await?, [""; 0]);
    place.remove().await
}

async fn wrong_credentials_are_refused() -> Tested {
    let access =
        "host all secured all scram-sha-256\nhost all all all trust\nlocal all all trust\n";
    let options = Options::default().with_file("pg_hba.conf", access);
    let place = Place::on(Arc::new(Source::find()?.start(options).await?));
    place.execute("CREATE ROLE secured LOGIN PASSWORD 'right'").await?;
    for (role, password) in [("secured", "hunter2"), ("nobody_of_that_name", "hunter2")] {
        let mut config = place.config();
        config.connect = config.connect.username(role).password(password);
        let opened = PostgresStore::open(config).await;
        let text = format!("{:?}", opened.as_ref().err());
        assert!(!text.contains("hunter2"), "{text}");
        assert_refused(opened, ErrorKind::Denied, "refused the credentials", role);
    }
    assert_eq!(contents(&place).await?, [""; 0]);
    // Dropping the server blocks until it has ended.
    Ok(tokio::task::spawn_blocking(move || drop(place)).await?)
}

async fn nothing_is_created_without_leave() -> Tested {
    let place = Place::shared().await?;
    let mut config = place.config();
    config.options.migrate = false;
    let opened = PostgresStore::open(config.clone()).await;
    assert_refused(opened, ErrorKind::Incompatible, "with `migrate` on", "no schema");
    assert_eq!(contents(&place).await?, [""; 0]);
    place.open().await?.append_to("a-1", ExpectedVersion::Any, [event(1)]).await?;
    assert_eq!(everything(&PostgresStore::open(config).await?).await?.len(), 1);
    place.remove().await
}

async fn stores_in_one_database_do_not_see_each_other() -> Tested {
    let places = [Place::shared().await?, Place::shared().await?];
    let mut stores = Vec::new();
    for place in &places {
        stores.push(place.open().await?);
    }
    let subscriber = SubscriberId::new("projection")?;
    for (store, count) in stores.iter().zip([1, 2]) {
        let events = (0..count).map(event);
        store.append_to("a-1", ExpectedVersion::NoStream, events).await?;
        store.save_checkpoint(&subscriber, count.into()).await?;
    }
    stores[0].delete(&id("a-1"), ExpectedVersion::Any).await?;
    assert_eq!(everything(&stores[0]).await?.len(), 0);
    assert_eq!(everything(&stores[1]).await?.len(), 2);
    assert_eq!(stores[1].load_checkpoint(&subscriber).await?, Some(2.into()));
    for place in places {
        place.remove().await?;
    }
    Ok(())
}

async fn any_plain_name_is_a_schema() -> Tested {
    let mut place = Place::in_database("").await?;
    for name in ["public", "user", "table", "_", "a2", &"x".repeat(63)] {
        name.clone_into(&mut place.schema);
        let store = place.open().await?;
        let mut live = store.subscribe(Subscribe::default()).await?;
        store.append_to("a-1", ExpectedVersion::NoStream, (0..2).map(event)).await?;
        assert_eq!(live.next_event().await?.version, Version::FIRST, "{name}");
        store.truncate(&id("a-1"), Version::new(2)).await?;
        let readable = format!("SELECT FROM \"{name}\".readable_events");
        assert_eq!(place.execute(&readable).await?, 1, "{name}");
    }
    for name in ["pg_annals", "information_schema", "Annals", "a b", "a\"b", "", "ä"] {
        name.clone_into(&mut place.schema);
        let opened = place.open().await;
        assert_refused(opened, ErrorKind::InvalidInput, "lower-case letter", name);
    }
    place.remove().await
}

async fn a_serializable_database_is_worked_around_or_refused() -> Tested {
    const ROUNDS: u64 = 20;
    const RIVALS: u64 = 6;
    let place = Place::in_database("").await?;
    let database = place.config().connect.get_database().unwrap_or_default().to_owned();
    place
        .execute(&format!(
            "ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'"
        ))
        .await?;
    let PostgresConfig { connect, options, .. } = place.config();
    let pool = PgPoolOptions::new().max_connections(5).connect_with(connect).await?;
    let opened = PostgresStore::with_pool(pool.clone(), options).await;
    assert_refused(opened, ErrorKind::Incompatible, "`default_transaction_isolation`", "pool");
    assert_eq!(contents(&place).await?, [""; 0]);
    pool.close().await;

    let stores = [place.open().await?, place.open().await?];
    for round in 0..ROUNDS {
        let mut rivals = JoinSet::new();
        for rival in 0..RIVALS {
            let store = stores[usize::try_from(rival)? % 2].clone();
            let version = Version::new(round);
            rivals.spawn(async move {
                store.append_to("a-1", version, [event(rival)]).await?;
                Ok::<_, Error>(())
            });
        }
        let mut won = 0;
        while let Some(done) = rivals.join_next().await {
            match done? {
                Ok(()) => won += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
            }
        }
        assert_eq!(won, 1, "in round {round}");
    }
    assert_eq!(everything(&stores[0]).await?.len(), usize::try_from(ROUNDS)?);
    place.remove().await
}

async fn people_can_read_the_events() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    let (object, huge) = ("{\"b\": 1.50, \"a\": \"ä\"}", "1e400000");
    let binary: &[u8] = &[0, 0xff, b'\\'];
    let json = |text: &'static str| {
        NewEvent::new("T".try_into().unwrap(), Payload::json_text(text).unwrap())
    };
    let events = [
        json("\"removed\""),
        json(object).with_json_metadata("m")?,
        json("\"\\u0000\""),
        json(huge),
        NewEvent::binary("T", binary)?.with_metadata(binary),
        json("null"),
    ];
    store.append_to("a-1", ExpectedVersion::NoStream, events).await?;
    store.append_to("gone", ExpectedVersion::NoStream, [event(1)]).await?;
    store.truncate(&id("a-1"), Version::new(2)).await?;
    store.delete(&id("gone"), ExpectedVersion::Any).await?;
    // An interrupted clean-up leaves a stream like this.
    store.append_to("hidden", ExpectedVersion::NoStream, [event(1)]).await?;
    place.execute("UPDATE {schema}.streams SET removed_to = 1 WHERE name = 'hidden'").await?;

    let mut connection = place.connect().await?;
    let sql = format!(
        "SELECT stream, version, category, data::text, metadata::text, data_text, data_bytes, \
         metadata_bytes, data->>'b' FROM {}.readable_events ORDER BY position",
        place.schema
    );
    let rows = query(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
    type Payloads<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>, &'a [u8], &'a [u8]);
    let mut found: Vec<Payloads<'_>> = Vec::new();
    for (row, version) in rows.iter().zip(2_i64..) {
        let place: (&str, i64, Option<&str>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        assert_eq!(place, ("a-1", version, Some("a")));
        found.push((
            row.try_get(3)?,
            row.try_get(4)?,
            row.try_get(5)?,
            row.try_get(6)?,
            row.try_get(7)?,
        ));
    }
    let wanted: [Payloads<'_>; 5] = [
        (
            Some("{\"a\": \"ä\", \"b\": 1.50}"),
            Some("\"m\""),
            Some(object),
            object.as_bytes(),
            b"\"m\"",
        ),
        (None, None, Some("\"\\u0000\""), b"\"\\u0000\"", b""),
        (None, None, Some(huge), huge.as_bytes(), b""),
        (None, None, None, binary, binary),
        (Some("null"), None, Some("null"), b"null", b""),
    ];
    assert_eq!(found, wanted);
    assert_eq!(rows[0].try_get::<&str, _>(8)?, "1.50");
    place.remove().await
}
