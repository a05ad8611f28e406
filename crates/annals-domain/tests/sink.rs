//! What every sink keeps to, and what only one of them can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::Duration,
};

use annals_core::{Error, ErrorKind, Position, SubscriberId};
use annals_domain::projection::{
    Sink,
    postgres::{
        PostgresSink,
        sqlx::{
            self, AssertSqlSafe, ConnectOptions, PgConnection, PgPool, Row,
            postgres::{PgConnectOptions, PgPoolOptions},
        },
    },
    sqlite::{
        SqliteSink,
        rusqlite::{self, Connection},
    },
};
use annals_test_servers::{
    BoxError,
    postgres::{self, Source},
    until,
};
use async_trait::async_trait;
use fastrand::Rng;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Runtime;

type Tested = Result<(), BoxError>;
type Run = fn() -> Pin<Box<dyn Future<Output = Tested> + Send>>;

/// How long a test waits for what has to happen soon.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where sinks write, with a table in which each handler writes the position of its event.
#[async_trait]
trait Place: Sized + Send + Sync + 'static {
    type Sink: Sink + Clone;

    async fn new() -> Result<Self, BoxError>;

    /// As another process would.
    async fn open(&self) -> Result<Self::Sink, Error>;

    /// What a handler does.
    async fn write(
        transaction: &mut <Self::Sink as Sink>::Transaction,
        name: &SubscriberId,
        row: Position,
    ) -> Tested;

    /// Checkpoint and rows of one moment.
    async fn read(&self, name: &SubscriberId) -> Result<(Option<i64>, Vec<i64>), BoxError>;

    /// Returns when somebody waits for a lock, where that can be known.
    async fn until_one_waits(&self) -> Tested;

    /// Returns when no transaction is open any more.
    async fn until_none_is_open(&self) -> Tested;
}

struct Server {
    options: PgConnectOptions,
    schema: String,
}

impl Server {
    async fn connect(&self) -> Result<PgConnection, BoxError> {
        Ok(self.options.clone().application_name("test").connect().await?)
    }

    fn pool(&self, connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(self.options.clone())
    }

    async fn execute(&self, sql: &str) -> Tested {
        let sql = sql.replace("{schema}", &self.schema);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connect().await?).await?;
        Ok(())
    }

    /// Waits until as many of the sinks' sessions as wanted are in a state.
    async fn until_sessions(&self, state: &str, wanted: fn(i64) -> bool) -> Tested {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND {state}"
        );
        until(state, PATIENCE, || async {
            let mut connection = self.connect().await.unwrap();
            let count = sqlx::query_scalar(AssertSqlSafe(sql.clone())).bind(&self.schema);
            wanted(count.fetch_one(&mut connection).await.unwrap())
        })
        .await
    }
}

#[async_trait]
impl Place for Server {
    type Sink = PostgresSink;

    async fn new() -> Result<Self, BoxError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("sink{}_{count}", std::process::id());
        let options: PgConnectOptions = postgres::shared().await?.url().parse()?;
        let options = options.application_name(&schema).options([("search_path", &schema)]);
        let place = Self { options, schema };
        place
            .execute(
                "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; \
                 CREATE TABLE {schema}.rows (name text, row bigint)",
            )
            .await?;
        Ok(place)
    }

    async fn open(&self) -> Result<PostgresSink, Error> {
        PostgresSink::open(self.pool(4)).await
    }

    async fn write(
        transaction: &mut <PostgresSink as Sink>::Transaction,
        name: &SubscriberId,
        row: Position,
    ) -> Tested {
        let insert = sqlx::query("INSERT INTO rows VALUES ($1, $2)").bind(name.as_str());
        insert.bind(row.to_i64()).execute(&mut **transaction).await?;
        Ok(())
    }

    async fn read(&self, name: &SubscriberId) -> Result<(Option<i64>, Vec<i64>), BoxError> {
        let row = sqlx::query(
            "SELECT (SELECT position FROM annals_projections WHERE name = $1), \
             ARRAY(SELECT row FROM rows WHERE name = $1 ORDER BY row)",
        );
        let row = row.bind(name.as_str()).fetch_one(&mut self.connect().await?).await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    async fn until_one_waits(&self) -> Tested {
        self.until_sessions("wait_event_type = 'Lock'", |count| count > 0).await
    }

    async fn until_none_is_open(&self) -> Tested {
        self.until_sessions("xact_start IS NOT NULL", |count| count == 0).await
    }
}

struct File(tempfile::TempDir);

impl File {
    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("sink.db")
    }
}

/// One sink, since another would be another database.
struct Memory(SqliteSink);

fn create_rows(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("CREATE TABLE rows (name TEXT, row INTEGER) STRICT")
}

fn write_row(connection: &Connection, name: &SubscriberId, row: Position) -> Tested {
    connection.execute("INSERT INTO rows VALUES (?1, ?2)", (name.as_str(), row.to_i64()))?;
    Ok(())
}

fn read_rows(
    connection: &Connection,
    name: &SubscriberId,
) -> Result<(Option<i64>, Vec<i64>), BoxError> {
    let sql = "SELECT (SELECT position FROM annals_projections WHERE name = ?1), \
               (SELECT group_concat(row) FROM (SELECT row FROM rows WHERE name = ?1 ORDER BY row))";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?));
    let (position, rows) = connection.query_row(sql, [name.as_str()], read)?;
    let rows = rows.iter().flat_map(|rows| rows.split(',')).map(|row| row.parse().unwrap());
    Ok((position, rows.collect()))
}

#[async_trait]
impl Place for File {
    type Sink = SqliteSink;

    async fn new() -> Result<Self, BoxError> {
        let place = Self(tempfile::tempdir()?);
        create_rows(&Connection::open(place.path())?)?;
        Ok(place)
    }

    async fn open(&self) -> Result<SqliteSink, Error> {
        Ok(SqliteSink::open(self.path())?.with_busy_timeout(PATIENCE))
    }

    async fn write(
        transaction: &mut <SqliteSink as Sink>::Transaction,
        name: &SubscriberId,
        row: Position,
    ) -> Tested {
        write_row(transaction, name, row)
    }

    async fn read(&self, name: &SubscriberId) -> Result<(Option<i64>, Vec<i64>), BoxError> {
        read_rows(&Connection::open(self.path())?, name)
    }

    async fn until_one_waits(&self) -> Tested {
        Ok(())
    }

    async fn until_none_is_open(&self) -> Tested {
        drop(self.open().await?.begin().await?);
        Ok(())
    }
}

#[async_trait]
impl Place for Memory {
    type Sink = SqliteSink;

    async fn new() -> Result<Self, BoxError> {
        let sink = SqliteSink::in_memory()?.with_busy_timeout(PATIENCE);
        let transaction = sink.begin().await?;
        create_rows(&transaction)?;
        sink.commit(transaction).await?;
        Ok(Self(sink))
    }

    async fn open(&self) -> Result<SqliteSink, Error> {
        Ok(self.0.clone())
    }

    async fn write(
        transaction: &mut <SqliteSink as Sink>::Transaction,
        name: &SubscriberId,
        row: Position,
    ) -> Tested {
        write_row(transaction, name, row)
    }

    async fn read(&self, name: &SubscriberId) -> Result<(Option<i64>, Vec<i64>), BoxError> {
        let transaction = self.0.begin().await?;
        read_rows(&transaction, name)
    }

    async fn until_one_waits(&self) -> Tested {
        Ok(())
    }

    async fn until_none_is_open(&self) -> Tested {
        drop(self.0.begin().await?);
        Ok(())
    }
}

fn name(name: &str) -> SubscriberId {
    SubscriberId::new(name).unwrap()
}

fn at(position: u64) -> Position {
    Position::new(position)
}

/// The position after another, as the number of its row says.
fn next(from: Option<Position>) -> Position {
    from.unwrap_or_default().plus(1)
}

/// One event, as a projection handles it. Says whether the checkpoint was where it was said to be.
async fn step<P: Place>(
    sink: &P::Sink,
    name: &SubscriberId,
    from: Option<Position>,
    to: Position,
) -> Result<bool, BoxError> {
    let mut transaction = sink.begin().await?;
    if !sink.advance(&mut transaction, name, from, to).await? {
        return Ok(false);
    }
    P::write(&mut transaction, name, to).await?;
    sink.commit(transaction).await?;
    Ok(true)
}

async fn begins_with_nothing<P: Place>() -> Tested {
    let place = P::new().await?;
    let sink = place.open().await?;
    assert_eq!(sink.position(&name("a")).await?, None);
    drop(sink.begin().await?);
    assert_eq!(sink.position(&name("a")).await?, None);
    Ok(())
}

async fn commits<P: Place>() -> Tested {
    let place = P::new().await?;
    let (sink, a) = (place.open().await?, name("a"));
    assert!(step::<P>(&sink, &a, None, at(1)).await?);
    assert_eq!(sink.position(&a).await?, Some(at(1)));
    // Several in one transaction.
    let mut transaction = sink.begin().await?;
    assert!(sink.advance(&mut transaction, &a, Some(at(1)), at(2)).await?);
    assert!(sink.advance(&mut transaction, &a, Some(at(2)), Position::from_i64(i64::MAX)).await?);
    sink.commit(transaction).await?;
    assert_eq!(place.open().await?.position(&a).await?, Some(Position::from_i64(i64::MAX)));
    assert_eq!(place.read(&a).await?, (Some(i64::MAX), vec![1]));
    Ok(())
}

async fn is_undone_when_dropped<P: Place>() -> Tested {
    let place = P::new().await?;
    let (sink, a) = (place.open().await?, name("a"));
    for from in [None, Some(at(1))] {
        let before = place.read(&a).await?;
        let mut transaction = sink.begin().await?;
        assert!(sink.advance(&mut transaction, &a, from, next(from)).await?);
        P::write(&mut transaction, &a, next(from)).await?;
        drop(transaction);
        assert_eq!(sink.position(&a).await?, from);
        assert_eq!(place.read(&a).await?, before);
        assert!(step::<P>(&sink, &a, from, next(from)).await?);
    }
    assert_eq!(place.read(&a).await?, (Some(2), vec![1, 2]));
    Ok(())
}

async fn moves_only_from_where_it_is<P: Place>() -> Tested {
    let place = P::new().await?;
    let (sink, a) = (place.open().await?, name("a"));
    for from in [Some(Position::START), Some(at(1))] {
        assert!(!step::<P>(&sink, &a, from, at(9)).await?, "nothing is there");
    }
    assert!(step::<P>(&sink, &a, None, at(5)).await?);
    for from in [None, Some(Position::START), Some(at(4)), Some(at(6))] {
        let mut transaction = sink.begin().await?;
        assert!(!sink.advance(&mut transaction, &a, from, at(9)).await?, "from {from:?}");
        sink.commit(transaction).await?;
        assert_eq!(place.read(&a).await?, (Some(5), vec![5]), "from {from:?}");
    }
    // Back, as for a projection that is done again.
    assert!(step::<P>(&sink, &a, Some(at(5)), at(3)).await?);
    assert_eq!(sink.position(&a).await?, Some(at(3)));
    Ok(())
}

async fn second_waits_for_the_first<P: Place>() -> Tested {
    let place = P::new().await?;
    for commits in [false, true] {
        for from in [None, Some(at(1))] {
            let (first, second) = (place.open().await?, place.open().await?);
            let a = name(&format!("{commits} {from:?}"));
            if from.is_some() {
                assert!(step::<P>(&first, &a, None, at(1)).await?);
            }
            let mut transaction = first.begin().await?;
            assert!(first.advance(&mut transaction, &a, from, at(2)).await?);
            P::write(&mut transaction, &a, at(2)).await?;
            let other = a.clone();
            let other = tokio::spawn(async move { step::<P>(&second, &other, from, at(3)).await });
            place.until_one_waits().await?;
            assert!(!other.is_finished(), "the second does not wait");
            if commits {
                first.commit(transaction).await?;
            } else {
                drop(transaction);
            }
            assert_eq!(other.await??, !commits);
            let (position, rows) = place.read(&a).await?;
            assert_eq!(position, Some(if commits { 2 } else { 3 }));
            assert_eq!(rows.last().copied(), position);
            assert_eq!(rows.len(), 1 + usize::from(from.is_some()));
        }
    }
    Ok(())
}

async fn keeps_names_apart<P: Place>() -> Tested {
    let place = P::new().await?;
    let sink = place.open().await?;
    let names = ["a", "A", "a ", "a'; DROP TABLE rows --", "ä", "%"].map(name);
    for (to, name) in (1..).zip(&names) {
        assert!(step::<P>(&sink, name, None, at(to)).await?);
    }
    for (to, name) in (1..).zip(&names) {
        assert_eq!(sink.position(name).await?, Some(at(to)));
        assert_eq!(place.read(name).await?, (to.try_into().ok(), vec![to.try_into()?]));
    }
    Ok(())
}

/// Until each has moved it once, from wherever it is by then.
async fn many_take_turns<P: Place>() -> Tested {
    const TASKS: usize = 40;
    let (place, a) = (P::new().await?, name("a"));
    let mut sinks = Vec::new();
    for _ in 0..4 {
        sinks.push(place.open().await?);
    }
    let tasks = sinks.iter().cycle().take(TASKS).map(|sink| {
        let (sink, a) = (sink.clone(), a.clone());
        tokio::spawn(async move {
            loop {
                let from = sink.position(&a).await?;
                if step::<P>(&sink, &a, from, next(from)).await? {
                    return Ok::<_, BoxError>(());
                }
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for task in tasks {
        task.await??;
    }
    let rows: Vec<_> = (1..=TASKS as i64).collect();
    assert_eq!(place.read(&a).await?, (Some(TASKS as i64), rows));
    Ok(())
}

async fn many_create_the_table<P: Place>() -> Tested {
    for _ in 0..5 {
        let place = Arc::new(P::new().await?);
        let open = |to: String| {
            let place = place.clone();
            async move { step::<P>(&place.open().await?, &name(&to), None, at(1)).await }
        };
        let tasks: Vec<_> = (0..10).map(|task| tokio::spawn(open(task.to_string()))).collect();
        for task in tasks {
            assert!(task.await??);
        }
    }
    Ok(())
}

/// Polls a future so many times at most, then drops it: at once, or when it could be polled again.
async fn polls<T>(future: impl Future<Output = T>, mut count: usize, late: bool) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if count == 0 {
            return Poll::Ready(None);
        }
        count -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if count == 0 && !late => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Rows and checkpoint always agree, wherever a step is left.
async fn is_left_anywhere<P: Place>() -> Tested {
    const ROUNDS: usize = 300;
    /// More than a step takes.
    const POLLS: usize = 16;
    let given = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{}: replay with ANNALS_SEED={seed}", std::any::type_name::<P>());
    let mut random = Rng::with_seed(seed);
    let (place, a) = (P::new().await?, name("a"));
    let sink = place.open().await?;
    let (mut done, mut left) = (0, 0);
    for round in 0..ROUNDS {
        let from = sink.position(&a).await?;
        let work = step::<P>(&sink, &a, from, next(from));
        match polls(work, random.usize(..POLLS), random.bool()).await.transpose()? {
            Some(_) => done += 1,
            None => left += 1,
        }
        let (position, rows) = place.read(&a).await?;
        let reached = position.unwrap_or(0);
        let before = from.unwrap_or_default().to_i64();
        assert!((before..=before + 1).contains(&reached), "round {round}, seed {seed}");
        assert_eq!(rows, (1..=reached).collect::<Vec<_>>(), "round {round}, seed {seed}");
    }
    assert!(done > 0 && left > 0, "{done} steps were done and {left} left, with seed {seed}");
    place.until_none_is_open().await?;
    let from = sink.position(&a).await?;
    assert!(step::<P>(&sink, &a, from, next(from)).await?);
    Ok(())
}

/// Also where nothing follows that would end what was begun.
async fn begins_are_left_anywhere<P: Place>() -> Tested {
    let place = P::new().await?;
    let sink = place.open().await?;
    for round in 0..40 {
        drop(polls(sink.begin(), round % 5, round % 2 == 0).await.transpose()?);
        polls(sink.position(&name("a")), round % 4, round % 2 == 0).await.transpose()?;
    }
    place.until_none_is_open().await?;
    assert!(step::<P>(&sink, &name("a"), None, at(1)).await?);
    Ok(())
}

/// A sink says to create the table, by any name; where others have the name, that they do.
async fn says_what_to_do_about_the_table() -> Tested {
    let place = Server::new().await?;
    let sink = PostgresSink::new(place.pool(1));
    let error = sink.position(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("PostgresSink::prepare"), "{error}");
    let mut transaction = sink.begin().await?;
    let error = sink.advance(&mut transaction, &name("a"), None, at(1)).await.unwrap_err();
    assert!(error.to_string().contains("PostgresSink::prepare"), "{error}");
    drop(transaction);

    let elsewhere = sink.clone().with_table(&format!("{}.checkpoints", place.schema))?;
    for _ in 0..2 {
        elsewhere.prepare().await?;
    }
    let mut transaction = elsewhere.begin().await?;
    assert!(elsewhere.advance(&mut transaction, &name("a"), None, at(1)).await?);
    elsewhere.commit(transaction).await?;
    assert_eq!(elsewhere.position(&name("a")).await?, Some(at(1)));
    assert!(sink.position(&name("a")).await.is_err());

    for (table, part) in [("rows", "another"), ("nowhere.a", "create it")] {
        let error = sink.clone().with_table(table)?.prepare().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = sink.with_table("a; DROP TABLE rows").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    Ok(())
}

/// Whoever may only use the table can open the sink once it is there.
async fn needs_few_privileges() -> Tested {
    let place = Server::new().await?;
    place.open().await?;
    let role = format!("{}_role", place.schema);
    place
        .execute(&format!(
            "CREATE ROLE {role}; GRANT USAGE ON SCHEMA {{schema}} TO {role}; \
             GRANT SELECT, INSERT, UPDATE ON {{schema}}.annals_projections TO {role}"
        ))
        .await?;
    let options = place.options.clone().options([("role", &role)]);
    let pool = PgPoolOptions::new().acquire_timeout(PATIENCE).connect_lazy_with(options);
    let sink = PostgresSink::open(pool).await?;
    for from in [None, Some(at(1))] {
        let mut transaction = sink.begin().await?;
        assert!(sink.advance(&mut transaction, &name("a"), from, next(from)).await?);
        sink.commit(transaction).await?;
    }
    let other = sink.with_table("other")?.prepare().await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Denied, "{other}");
    place.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await
}

/// PostgreSQL undoes a transaction in which a statement failed, and calls the commit a success.
async fn finds_errors_that_a_handler_ignored() -> Tested {
    let place = Server::new().await?;
    let sink = place.open().await?;
    let mut transaction = sink.begin().await?;
    assert!(sink.advance(&mut transaction, &name("a"), None, at(1)).await?);
    assert!(sqlx::query("SELECT 1 / 0").execute(&mut *transaction).await.is_err());
    let error = sink.commit(transaction).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(step::<Server>(&sink, &name("a"), None, at(1)).await?);
    Ok(())
}

/// Transactions that are stricter than by default are told of a race by an error.
async fn keeps_to_it_in_stricter_transactions() -> Tested {
    for level in ["repeatable read", "serializable"] {
        let mut place = Server::new().await?;
        place.options = place.options.options([("default_transaction_isolation", level)]);
        let (first, second) = (place.open().await?, place.open().await?);
        let a = name("a");
        for from in [None, Some(at(1))] {
            let mut one = first.begin().await?;
            assert!(first.advance(&mut one, &a, from, next(from)).await?);
            Server::write(&mut one, &a, next(from)).await?;
            let (sink, b) = (second.clone(), a.clone());
            let two =
                tokio::spawn(async move { step::<Server>(&sink, &b, from, next(from)).await });
            place.until_one_waits().await?;
            first.commit(one).await?;
            assert!(!two.await??);
        }
        assert_eq!(place.read(&a).await?, (Some(2), vec![1, 2]));
    }
    Ok(())
}

/// A commit whose connection is gone may have been one.
async fn does_not_know_what_a_lost_commit_did() -> Tested {
    let place = Server::new().await?;
    let sink = place.open().await?;
    // A trigger that ends its own session when the commit comes to it.
    place
        .execute(
            "CREATE FUNCTION {schema}.die() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'; \
             CREATE CONSTRAINT TRIGGER die AFTER INSERT ON {schema}.rows \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {schema}.die()",
        )
        .await?;
    let error = step::<Server>(&sink, &name("a"), None, at(1)).await.unwrap_err();
    let error = error.downcast_ref::<Error>().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.outcome_unknown());
    place.execute("DROP TRIGGER die ON {schema}.rows").await?;
    assert!(step::<Server>(&sink, &name("a"), None, at(1)).await?);
    Ok(())
}

/// Neither who waits for this sink nor who waits for others waits for ever.
async fn gives_up_waiting() -> Tested {
    const SHORT: Duration = Duration::from_millis(10);
    let place = File::new().await?;
    let sink = place.open().await?;
    let other = SqliteSink::open(place.path())?.with_busy_timeout(SHORT);
    let transaction = sink.begin().await?;
    for waiting in [&sink.clone().with_busy_timeout(SHORT), &other] {
        let error = waiting.begin().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("with_busy_timeout"), "{error}");
    }
    // Reading needs its turn, and no lock.
    let error = sink.clone().with_busy_timeout(SHORT).position(&name("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert_eq!(other.position(&name("a")).await?, None);
    drop(transaction);
    let forever = other.with_busy_timeout(Duration::MAX);
    assert!(step::<File>(&forever, &name("a"), None, at(1)).await?);
    Ok(())
}

/// What ends a transaction under way leaves nothing that stands by itself.
async fn finds_a_transaction_that_is_over() -> Tested {
    let place = File::new().await?;
    let sink = place.open().await?;
    for end in ["ROLLBACK", "INSERT OR ROLLBACK INTO annals_projections VALUES ('a', 1, '')"] {
        let mut transaction = sink.begin().await?;
        assert!(sink.advance(&mut transaction, &name("a"), None, at(1)).await?);
        drop(transaction.execute_batch(end));
        let error = sink.advance(&mut transaction, &name("a"), None, at(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let error = sink.commit(transaction).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert_eq!(place.read(&name("a")).await?, (None, vec![]));
    }
    Ok(())
}

/// What cannot be opened says why.
async fn opens_what_it_can() -> Tested {
    let place = File::new().await?;
    let directory = place.0.path();
    let kind = |sink: Result<SqliteSink, Error>| sink.unwrap_err().kind();
    assert_eq!(kind(SqliteSink::open("")), ErrorKind::InvalidInput);
    assert_eq!(kind(SqliteSink::open(directory)), ErrorKind::Unavailable);
    assert_eq!(kind(SqliteSink::open(directory.join("no/sink.db"))), ErrorKind::Unavailable);
    let text = directory.join("text");
    std::fs::write(&text, "x".repeat(5_000))?;
    assert_eq!(kind(SqliteSink::open(text)), ErrorKind::Incompatible);

    for table in ["(a)", "(name TEXT, position INTEGER, moved_at TEXT)"] {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch(&format!("CREATE TABLE annals_projections {table}"))?;
        assert_eq!(kind(SqliteSink::with_connection(connection)), ErrorKind::Incompatible);
    }
    let connection = Connection::open_in_memory()?;
    connection.execute_batch("BEGIN")?;
    assert_eq!(kind(SqliteSink::with_connection(connection)), ErrorKind::InvalidInput);

    // Without a write-ahead log too, where a commit waits for who reads.
    let connection = Connection::open(directory.join("plain.db"))?;
    create_rows(&connection)?;
    let sink = SqliteSink::with_connection(connection)?;
    assert!(step::<File>(&sink, &name("a"), None, at(1)).await?);
    Ok(())
}

macro_rules! tests {
    ($($theme:literal $needs:literal: $($test:ident $(::<$place:ty>)?),+;)+) => {
        &[$($((concat!($theme, "::", stringify!($test)), $needs, {
            let run: Run = || Box::pin($test$(::<$place>)?());
            run
        })),+),+]
    };
}

macro_rules! sinks {
    ($($theme:literal $needs:literal $place:ty;)+) => {
        [$(tests! { $theme $needs:
            begins_with_nothing::<$place>,
            commits::<$place>,
            is_undone_when_dropped::<$place>,
            moves_only_from_where_it_is::<$place>,
            second_waits_for_the_first::<$place>,
            keeps_names_apart::<$place>,
            many_take_turns::<$place>,
            many_create_the_table::<$place>,
            is_left_anywhere::<$place>,
            begins_are_left_anywhere::<$place>;
        }),+]
    };
}

/// Name, whether it needs a server, and what it does.
type Test = (&'static str, bool, Run);

fn main() -> ExitCode {
    let every: [&[Test]; 3] = sinks! {
        "postgres" true Server;
        "sqlite" false File;
        "memory" false Memory;
    };
    let own: &[Test] = tests! {
        "postgres" true: says_what_to_do_about_the_table, needs_few_privileges,
            finds_errors_that_a_handler_ignored, keeps_to_it_in_stricter_transactions,
            does_not_know_what_a_lost_commit_did;
        "sqlite" false: gives_up_waiting, finds_a_transaction_that_is_over, opens_what_it_can;
    };
    let missing = Source::find().err();
    let runtime = Arc::new(Runtime::new().unwrap());
    let trials = every.into_iter().chain([own]).flatten().map(|&(name, needs_server, run)| {
        let missing = missing.clone().filter(|_| needs_server);
        let runtime = runtime.clone();
        Trial::ignorable_test(name, move || match missing {
            Some(reason) if is_required() => Err(Failed::from(reason)),
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => {
                let limit = PATIENCE * 4;
                let done = runtime
                    .block_on(async { tokio::time::timeout(limit, tokio::spawn(run())).await });
                done.map_err(|_| format!("the test has not ended after {limit:?}"))???;
                Ok(Completion::Completed)
            }
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// Whether no PostgreSQL is a failure.
fn is_required() -> bool {
    let required = std::env::var("ANNALS_REQUIRE").unwrap_or_default();
    required.split(',').any(|name| name.trim() == "postgres")
}
