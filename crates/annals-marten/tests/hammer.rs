//! Writers that take their locks and numbers as Marten does, beside appends of annals: no reader skips
//! an event, and no append of annals under `Any` gets an error. `ANNALS_MARTEN_HAMMER` is the number of
//! seconds, 3 unless set.
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
    let trial = match postgres::Source::find() {
        Err(reason) => {
            Trial::ignorable_test("hammer", move || Ok(Completion::ignored_with(reason)))
        }
        Ok(_) => Trial::test("hammer", || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(hammer()).map_err(|error| error.to_string().into())
        }),
    };
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}

/// Makes the function by which a .NET program appends, after its steps: the unique index before the row of
/// the stream, and nothing but the index decides on a race.
const QUICK: &str = "CREATE FUNCTION hammered.stand_in(stream varchar, count integer) RETURNS bigint \
    LANGUAGE plpgsql AS $$ \
    DECLARE last bigint; number bigint; \
    BEGIN \
        SELECT s.version INTO last FROM hammered.mt_streams AS s WHERE s.id = stream; \
        IF last IS NULL THEN \
            last := 0; \
            INSERT INTO hammered.mt_streams (id, version, timestamp, tenant_id) \
            VALUES (stream, count, now(), '*DEFAULT*'); \
        END IF; \
        FOR i IN 1..count LOOP \
            number := nextval('hammered.mt_events_sequence'); \
            INSERT INTO hammered.mt_events (seq_id, id, stream_id, version, data, type, timestamp, \
                tenant_id, mt_dotnet_type, is_archived) \
            VALUES (number, gen_random_uuid(), stream, last + i, '{}', 'quick', now(), \
                '*DEFAULT*', 'Shop.Quick, Shop', false); \
        END LOOP; \
        UPDATE hammered.mt_streams AS s SET version = greatest(s.version, last + count), \
            timestamp = now() WHERE s.id = stream; \
        RETURN number; \
    END $$";

async fn hammer() -> Result<(), BoxError> {
    let seconds = std::env::var("ANNALS_MARTEN_HAMMER").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(3);
    let server = postgres::shared().await?;
    let url = server.url().replacen("postgres", "marten", 1);
    let joint = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{joint}schema=hammered&create=string");
    let config = MartenConfig::from_url(&url)?;
    let store = MartenStore::open(config.clone()).await?;
    let mut connection = config.connect.clone().connect().await?;
    raw_sql(QUICK).execute(&mut connection).await?;
    // An unrelated transaction that stays open holds nobody up.
    let mut unrelated = config.connect.clone().connect().await?;
    raw_sql("BEGIN; CREATE TEMP TABLE unrelated (a integer)").execute(&mut unrelated).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..4_u32 {
        let (mut connection, stop) = (config.connect.clone().connect().await?, stop.clone());
        writers.spawn(async move {
            let mut random = fastrand::Rng::with_seed(number.into());
            while !stop.load(Relaxed) {
                // Lost races and deadlocks are what happens to a .NET program, too.
                drop(write_like_marten(&mut connection, &mut random, number).await);
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
    let rows: Vec<i64> = sqlx::query_scalar(
        "SELECT seq_id FROM hammered.mt_events WHERE type <> 'tombstone' ORDER BY seq_id",
    )
    .fetch_all(&mut connection)
    .await?;
    assert!(seen.is_sorted_by(|one, next| one < next), "in order, none twice");
    let seen: BTreeSet<i64> = seen.into_iter().collect();
    let missed = rows.iter().filter(|row| !seen.contains(row)).count();
    println!("{} events, {appended} appends of annals, {missed} missed", rows.len());
    assert_eq!(missed, 0, "of {} events", rows.len());
    assert!(appended > 0 && rows.len() > appended);
    let broken: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM hammered.mt_streams AS s WHERE s.version <> (SELECT count(*) \
         FROM hammered.mt_events AS e WHERE e.stream_id = s.id) AND s.id <> 'mt_tombstone'",
    )
    .fetch_one(&mut connection)
    .await?;
    assert_eq!(broken, 0, "versions are without a hole, and rows say them");
    Ok(())
}

/// One unit of work: some appends, a pause with the numbers taken, then a commit or a rollback.
async fn write_like_marten(
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
        let append = format!("SELECT hammered.stand_in('{stream}', {count})");
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
