//! What other roles and administrators do in the same database: their functions are not called, their
//! locks stall nobody, and a schema that is another one now is noticed.

use annals_core::{
    ErrorKind, EventStore, EventStoreExt, ExpectedVersion, Filter, ReadAll, Subscribe,
    TransferStore, TryStreamExt, Version,
};
use annals_postgres::sqlx::{AssertSqlSafe, ConnectOptions, Executor, query, query_scalar};
use annals_test_servers::{
    BoxError,
    postgres::{Options, Source},
    until,
};

use crate::common::{PATIENCE, Place, Tested, everything, id, tests};
use crate::{beside::Listener, beside::Raw, load::within, lock::*};

tests! { "strangers":
    Any functions_of_others_are_not_called;
    Any locks_of_a_role_without_privileges_stall_nobody;
    Any an_append_that_waits_for_a_table_lock_stalls_nobody;
    Any a_renamed_schema_is_refused;
    Any a_schema_made_again_under_a_store_is_noticed;
    Ours what_only_looks_like_postgresql_is_refused;
}

/// Functions that fit the calls of the store better than PostgreSQL's own: a session that searches
/// `public` would call them with the privileges of its role.
const TRAPS: [&str; 7] = [
    "nextval(text) RETURNS bigint",
    "cardinality(text[]) RETURNS integer",
    "cardinality(boolean[]) RETURNS integer",
    "unnest(text[]) RETURNS SETOF text",
    "array_position(bigint[], bigint) RETURNS integer",
    "pg_sequence_last_value(text) RETURNS bigint",
    "hashtextextended(text, integer) RETURNS bigint",
];

async fn functions_of_others_are_not_called() -> Tested {
    let place = Place::in_database("").await?;
    for trap in TRAPS {
        let create = format!(
            "CREATE FUNCTION public.{trap} LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'the trap {trap} was called'; END $$"
        );
        place.execute(&create).await?;
    }
    place
        .execute(
            "CREATE OPERATOR public.& (FUNCTION = pg_catalog.int24eq, LEFTARG = smallint, \
             RIGHTARG = integer)",
        )
        .await?;
    let store = place.open().await?;
    let mut live = Listener::on(&store, Subscribe::default()).await?;
    for number in 0..2 {
        store.append(any("a-1", number)).await?;
    }
    store.append_multi(vec![any("a-1", 1), any("b-1", 2), any("c-1", 3)]).await?;
    let mut copied = store.load_stream(&id("c-1")).await?;
    copied[0].stream = id("d-1");
    copied[0].version = Version::new(7);
    store.import(copied.clone()).await?;
    store.import(copied).await?;
    let types = Filter::default().with_event_types(["Counted".try_into()?, "Other".try_into()?]);
    let options = ReadAll::default().with_filter(types);
    let found: Vec<_> = store.read_all(options).try_collect().await?;
    assert_eq!(found.len(), 6);
    for position in 1..=6 {
        assert_eq!(live.next().await?, position);
    }
    store.truncate(&id("a-1"), Version::new(2)).await?;
    store.delete(&id("b-1"), ExpectedVersion::Any).await?;
    assert_eq!(store.list_streams(None, 9).await?.len(), 4);
    place.remove().await
}

/// Leaves a gap before an event, so that a process that starts has to ask which appends are under
/// way.
async fn leave_gap(place: &Place) -> Tested {
    let mut writer = Raw::new(place).await?;
    writer.run("BEGIN").await?;
    writer.append_one("gap-1", "Counted").await?;
    writer.run("ROLLBACK").await?;
    writer.append_one("a-1", "Counted").await?;
    Ok(())
}

async fn locks_of_a_role_without_privileges_stall_nobody() -> Tested {
    let place = Place::shared().await?;
    place.open().await?;
    leave_gap(&place).await?;
    let role = format!("{}_role", place.schema);
    place.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD '{role}'")).await?;
    let key = format!("SELECT lock_key FROM {}.store", place.schema);
    let key: i32 = query_scalar(AssertSqlSafe(key)).fetch_one(&mut place.connect().await?).await?;
    let mut config = place.config();
    config.connect = config.connect.username(&role).password(&role);
    let mut stranger = config.connect.connect().await?;
    stranger.execute("BEGIN").await?;
    query("SELECT pg_advisory_xact_lock($1, 1)").bind(key).execute(&mut stranger).await?;
    let lock_table = format!("LOCK TABLE {}.events IN ROW EXCLUSIVE MODE", place.schema);
    let refused = stranger.execute(AssertSqlSafe(lock_table)).await;
    assert!(refused.is_err(), "may take the lock that an append takes");
    stranger.execute("ROLLBACK").await?;
    query("SELECT pg_advisory_lock($1, 1)").bind(key).execute(&mut stranger).await?;

    let store = place.open().await?;
    assert_eq!(within("a read", everything(&store)).await??.len(), 1);
    let mut live = Listener::on(&store, Subscribe::default()).await?;
    assert_eq!(live.next().await?, 2);
    drop(stranger);
    place.execute(&format!("DROP ROLE {role}")).await?;
    place.remove().await
}

async fn an_append_that_waits_for_a_table_lock_stalls_nobody() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    leave_gap(&place).await?;
    let mut holder = place.connect().await?;
    // What `CREATE INDEX` takes.
    let lock = format!("BEGIN; LOCK TABLE {}.events IN SHARE MODE", place.schema);
    holder.execute(AssertSqlSafe(lock)).await?;
    let appending = spawn(&store, any("a-2", 1));
    let waiting =
        "SELECT FROM pg_locks WHERE NOT granted AND relation = '{schema}.events'::regclass";
    until("the append waits", PATIENCE, || async {
        place.execute(waiting).await.is_ok_and(|waiting| waiting == 1)
    })
    .await?;
    let other = place.open().await?;
    assert_eq!(within("a read", everything(&other)).await??.len(), 1);
    holder.execute("COMMIT").await?;
    within("the append ends", appending).await???;
    assert_eq!(everything(&other).await?.len(), 2);
    place.remove().await
}

async fn a_renamed_schema_is_refused() -> Tested {
    let place = Place::shared().await?;
    place.open().await?.append(any("a-1", 1)).await?;
    place.execute("ALTER SCHEMA {schema} RENAME TO {schema}_archive").await?;
    let mut archive = Place::on(place.server.clone());
    archive.schema = format!("{}_archive", place.schema);
    let error = archive.open().await.expect_err("a renamed schema is opened");
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    assert!(error.to_string().contains("ALTER SCHEMA"), "{error}");
    place.execute("ALTER SCHEMA {schema}_archive RENAME TO {schema}").await?;
    assert_eq!(everything(&place.open().await?).await?.len(), 1);
    place.remove().await
}

fn is_noticed<T: std::fmt::Debug>(done: annals_core::Result<T>) -> Result<(), BoxError> {
    let error = done.expect_err("another store is used");
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    assert!(error.to_string().contains("open the store again"), "{error}");
    Ok(())
}

async fn a_schema_made_again_under_a_store_is_noticed() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    let mut live = store.subscribe(Subscribe::default()).await?;
    store.append(any("a-1", 1)).await?;
    assert_eq!(live.next_event().await?.position.get(), 1);
    for change in ["ALTER SCHEMA {schema} RENAME TO {schema}_old", "DROP SCHEMA {schema} CASCADE"] {
        place.execute(change).await?;
        let new = place.open().await?;
        let appended = new.append(any("b-1", 2)).await?;
        assert_eq!(appended.position.get(), 1, "the schema is new");
        is_noticed(store.append(any("a-1", 2)).await)?;
        is_noticed(store.append_multi(vec![any("a-1", 2), any("a-2", 2)]).await)?;
        is_noticed(store.delete(&id("b-1"), ExpectedVersion::Any).await)?;
        let read: annals_core::Result<Vec<_>> =
            store.read_all(ReadAll::default()).try_collect().await;
        is_noticed(read)?;
        let ended = within("the subscription ends", live.next_event()).await?;
        assert_eq!(ended.expect_err("it goes on").kind(), ErrorKind::Incompatible);
        live = new.subscribe(Subscribe::default()).await?;
        assert_eq!(live.next_event().await?.position.get(), 1);
        assert_eq!(everything(&new).await?.len(), 1, "the old store has written to the new one");
    }
    place.execute("DROP SCHEMA {schema}_old CASCADE").await?;
    place.remove().await
}

/// Makes the server behave like others that speak its protocol: those give each session a range of
/// numbers, show no lock until it is old, or say who they are.
const IMITATIONS: [(&str, &str); 3] = [
    ("ALTER SEQUENCE {schema}.trial CACHE 100", "range of numbers"),
    (
        "SET allow_system_table_mods = on; CREATE OR REPLACE VIEW pg_catalog.pg_locks AS \
         SELECT * FROM pg_lock_status() AS l WHERE l.waitstart < now() - interval '1s'",
        "does not see the locks",
    ),
    (
        "SET allow_system_table_mods = on; CREATE OR REPLACE FUNCTION pg_catalog.version() \
         RETURNS text LANGUAGE sql STABLE AS \
         $$ SELECT 'PostgreSQL 15.12-YB-2025.1.0.0-b168 on x86_64-pc-linux-gnu' $$",
        "the server is YugabyteDB",
    ),
];

async fn what_only_looks_like_postgresql_is_refused() -> Tested {
    let place = Place::on(Source::find()?.start(Options::default()).await?.into());
    place.open().await?.append(any("a-1", 1)).await?;
    for (imitation, says) in IMITATIONS {
        place.open().await?;
        let mut administrator = Raw::new(&place).await?;
        administrator.run(imitation).await?;
        let error = place.open().await.expect_err("another server is opened");
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
        if imitation.contains("CACHE") {
            administrator.run("ALTER SEQUENCE {schema}.trial CACHE 1").await?;
        } else if imitation.contains("VIEW") {
            let mended =
                "CREATE OR REPLACE VIEW pg_catalog.pg_locks AS SELECT * FROM pg_lock_status() AS l";
            administrator.run(mended).await?;
        }
    }
    // Dropping the server blocks until it has ended.
    Ok(tokio::task::spawn_blocking(move || drop(place)).await?)
}
