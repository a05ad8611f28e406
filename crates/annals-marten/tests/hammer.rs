//! Writers that take their locks and numbers as Marten does, beside appends of annals: no reader skips
//! an event, and no append of annals under `Any` gets an error. Once for the mode `Quick`, and once for
//! the mode `Rich` with a wait at gaps. `ANNALS_MARTEN_HAMMER` is the number of seconds, 3 unless set.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use annals_conformance::BoxError;
use annals_core::{
    EventStore, EventStoreExt, ExpectedVersion, Filter, Message, NewEvent, Source, Subscribe,
};
use annals_marten::{
    MartenConfig, MartenStore,
    sqlx::{self, AssertSqlSafe, ConnectOptions, Connection, PgConnection, raw_sql},
};
use annals_test_servers::postgres;
use libtest_mimic::{Arguments, Completion, Trial};

/// How many streams all writers share.
const STREAMS: u32 = 20;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let unavailable = postgres::Source::find().err();
    let trials = [Mode::Quick, Mode::Rich].map(|mode| {
        let unavailable = unavailable.clone();
        Trial::ignorable_test(mode.schema(), move || match unavailable {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => {
                let runtime = tokio::runtime::Runtime::new()?;
                runtime.block_on(hammer(mode)).map_err(|error| error.to_string())?;
                Ok(Completion::Completed)
            }
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

/// How the writers append that stand in for those of a .NET program.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Quick,
    Rich,
}

/// How long the reader waits at gaps in mode `Rich`, and the longest that a writer takes to begin its
/// transaction. On a busy machine it may take a while until it can.
const GAP_WAIT: Duration = Duration::from_secs(2);
const PREPARATION: u64 = 200;
/// The longest, in milliseconds, that a transaction of such a writer stays open: longer than the wait.
const LONG: u64 = 3_000;

impl Mode {
    fn schema(self) -> &'static str {
        match self {
            Self::Quick => "hammer_quick",
            Self::Rich => "hammer_rich",
        }
    }

    fn parameters(self) -> String {
        match self {
            Self::Quick => "mode=quick".to_owned(),
            Self::Rich => format!("mode=rich&gap_wait={}", GAP_WAIT.as_millis()),
        }
    }
}

/// Makes the function by which a .NET program appends, after its steps: the unique index before the row of
/// the stream, and nothing but the index decides on a race.
const QUICK: &str = "CREATE FUNCTION {}.stand_in(stream varchar, count integer) RETURNS bigint \
    LANGUAGE plpgsql AS $$ \
    DECLARE last bigint; number bigint; \
    BEGIN \
        SELECT s.version INTO last FROM {}.mt_streams AS s WHERE s.id = stream; \
        IF last IS NULL THEN \
            last := 0; \
            INSERT INTO {}.mt_streams (id, version, timestamp, tenant_id) \
            VALUES (stream, count, now(), '*DEFAULT*'); \
        END IF; \
        FOR i IN 1..count LOOP \
            number := nextval('{}.mt_events_sequence'); \
            INSERT INTO {}.mt_events (seq_id, id, stream_id, version, data, type, timestamp, \
                tenant_id, mt_dotnet_type, is_archived) \
            VALUES (number, gen_random_uuid(), stream, last + i, '{ }', 'quick', now(), \
                '*DEFAULT*', 'Shop.Quick, Shop', false); \
        END LOOP; \
        UPDATE {}.mt_streams AS s SET version = greatest(s.version, last + count), \
            timestamp = now() WHERE s.id = stream; \
        RETURN number; \
    END $$";

async fn hammer(mode: Mode) -> Result<(), BoxError> {
    let schema = mode.schema();
    let seconds = std::env::var("ANNALS_MARTEN_HAMMER").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(3);
    let server = postgres::shared().await?;
    let url = server.url().replacen("postgres", "marten", 1);
    let joint = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{joint}schema={schema}&create=string&{}", mode.parameters());
    let config = MartenConfig::from_url(&url)?;
    let store = MartenStore::open(config.clone()).await?;
    let mut connection = config.connect.clone().connect().await?;
    raw_sql(AssertSqlSafe(QUICK.replace("{}", schema))).execute(&mut connection).await?;
    // An unrelated transaction that stays open holds nobody up.
    let mut unrelated = config.connect.clone().connect().await?;
    raw_sql("BEGIN; CREATE TEMP TABLE unrelated (a integer)").execute(&mut unrelated).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..4_u32 {
        let (mut connection, stop) = (config.connect.clone().connect().await?, stop.clone());
        let mut other = config.connect.clone().connect().await?;
        writers.spawn(async move {
            let mut random = fastrand::Rng::with_seed(number.into());
            while !stop.load(Relaxed) {
                // Lost races and deadlocks are what happens to a .NET program, too.
                drop(match mode {
                    Mode::Quick => quick(&mut connection, &mut random, number).await,
                    Mode::Rich => rich(&mut connection, &mut other, &mut random).await,
                });
            }
            Ok::<_, annals_core::Error>(0)
        });
    }
    for number in 4..8_u64 {
        let (store, stop) = (store.clone(), stop.clone());
        writers.spawn(async move {
            let mut random = fastrand::Rng::with_seed(number);
            let mut appended = 0;
            while !stop.load(Relaxed) {
                let stream = format!("hot-{}", random.u32(0..STREAMS));
                let event = NewEvent::json("ours", &number)?;
                store.append_to(stream.as_str(), ExpectedVersion::Any, [event]).await?;
                appended += 1;
            }
            Ok(appended)
        });
    }

    let reader = tokio::spawn(follow(store.clone()));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Relaxed);
    let mut appended = 0;
    while let Some(done) = writers.join_next().await {
        appended += done??;
    }
    store.append_to("end", ExpectedVersion::Any, [NewEvent::json("end", &0)?]).await?;
    let seen = reader.await??;
    let rows: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT seq_id FROM {schema}.mt_events WHERE type <> 'tombstone' ORDER BY seq_id",
    )))
    .fetch_all(&mut connection)
    .await?;
    assert!(seen.is_sorted_by(|one, next| one < next), "in order, none twice");
    let seen: BTreeSet<i64> = seen.into_iter().collect();
    let missed = rows.iter().filter(|row| !seen.contains(row)).count();
    println!("{mode:?}: {} events, {appended} appends of annals, {missed} missed", rows.len());
    assert_eq!(missed, 0, "of {} events", rows.len());
    assert!(appended > 0 && rows.len() > appended);
    let broken: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT count(*) FROM {schema}.mt_streams AS s WHERE s.version <> (SELECT count(*) \
         FROM {schema}.mt_events AS e WHERE e.stream_id = s.id) AND s.id <> 'mt_tombstone'",
    )))
    .fetch_one(&mut connection)
    .await?;
    assert_eq!(broken, 0, "versions are without a hole, and rows say them");
    Ok(())
}

/// One unit of work: some appends, a pause with the numbers taken, then a commit or a rollback.
async fn quick(
    connection: &mut PgConnection,
    random: &mut fastrand::Rng,
    number: u32,
) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    let appends = if random.u8(0..4) == 0 { 2 } else { 1 };
    for _ in 0..appends {
        let stream = match random.u8(0..8) {
            0 => format!("new-{number}-{}", random.u32(..)),
            _ => format!("hot-{}", random.u32(0..STREAMS)),
        };
        let count = random.u8(1..4);
        let append = format!("SELECT hammer_quick.stand_in('{stream}', {count})");
        sqlx::query(AssertSqlSafe(append)).execute(&mut *transaction).await?;
    }
    if random.u8(0..10) == 0 {
        tokio::time::sleep(Duration::from_millis(random.u64(1..30))).await;
    }
    match random.u8(0..10) {
        0 => transaction.rollback().await,
        _ => transaction.commit().await,
    }
}

/// One unit of work in mode `Rich`: numbers and the version of the stream first, each by itself; then code
/// of the user; then a transaction. What fails leaves a tombstone for each number, or a gap.
async fn rich(
    connection: &mut PgConnection,
    other: &mut PgConnection,
    random: &mut fastrand::Rng,
) -> sqlx::Result<()> {
    let stream = format!("hot-{}", random.u32(0..STREAMS));
    let count = random.i64(1..4);
    let take = "SELECT nextval('hammer_rich.mt_events_sequence') FROM generate_series(1, $1)";
    let numbers: Vec<i64> = sqlx::query_scalar(take).bind(count).fetch_all(&mut *other).await?;
    let version = "SELECT version FROM hammer_rich.mt_streams WHERE id = $1";
    let version: Option<i64> =
        sqlx::query_scalar(version).bind(&stream).fetch_optional(&mut *other).await?;
    if random.u8(0..10) == 0 {
        tokio::time::sleep(Duration::from_millis(random.u64(1..PREPARATION))).await;
    }
    let mut transaction = connection.begin().await?;
    let long = random.u8(0..100) == 0;
    let work = async {
        let row = match version {
            None => {
                "INSERT INTO hammer_rich.mt_streams (id, version, tenant_id) \
                     VALUES ($1, $2, '*DEFAULT*')"
            }
            Some(_) => {
                "UPDATE hammer_rich.mt_streams SET version = $2 \
                        WHERE id = $1 AND version = $2 - $3"
            }
        };
        let before = version.unwrap_or(0);
        let row = sqlx::query(row).bind(&stream).bind(before + count);
        let row = if version.is_some() { row.bind(count) } else { row };
        if row.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Err(sqlx::Error::RowNotFound);
        }
        let insert = "INSERT INTO hammer_rich.mt_events (seq_id, id, stream_id, version, data, type, \
                          timestamp, tenant_id, mt_dotnet_type, is_archived) \
                      SELECT number, gen_random_uuid(), $1, $2 + place, '{}', 'rich', now(), \
                          '*DEFAULT*', 'Shop.Rich, Shop', false \
                      FROM unnest($3::bigint[]) WITH ORDINALITY AS n (number, place)";
        let insert = sqlx::query(insert).bind(&stream).bind(before).bind(&numbers);
        insert.execute(&mut *transaction).await?;
        if long {
            tokio::time::sleep(Duration::from_millis(random.u64(1..LONG))).await;
        }
        if random.u8(0..10) == 0 { Err(sqlx::Error::RowNotFound) } else { Ok(()) }
    };
    match work.await {
        Ok(()) => return transaction.commit().await,
        Err(_) => transaction.rollback().await?,
    }
    if random.u8(0..20) == 0 {
        return Ok(());
    }
    let tombstones = "WITH stream AS (INSERT INTO hammer_rich.mt_streams (id, version, tenant_id) \
                          VALUES ('mt_tombstone', 0, '*DEFAULT*') ON CONFLICT DO NOTHING) \
                      INSERT INTO hammer_rich.mt_events (seq_id, id, stream_id, version, data, type, \
                          timestamp, tenant_id, mt_dotnet_type, is_archived) \
                      SELECT number, gen_random_uuid(), 'mt_tombstone', number, '{}', 'tombstone', \
                          '-infinity', '*DEFAULT*', 'JasperFx.Events.Tombstone, JasperFx.Events', false \
                      FROM unnest($1::bigint[]) AS number";
    sqlx::query(tombstones).bind(&numbers).execute(&mut *other).await.map(drop)
}

/// The positions of all events up to the last one.
async fn follow(store: MartenStore) -> annals_core::Result<Vec<i64>> {
    let mut subscription = store.subscribe(Subscribe::to(Source::All(Filter::default()))).await?;
    let mut seen = Vec::new();
    loop {
        if let Message::Event(event) = subscription.next().await? {
            seen.push(i64::try_from(event.position.get()).unwrap_or(i64::MAX));
            if event.event_type.as_str() == "end" {
                break;
            }
        }
    }
    Ok(seen)
}
