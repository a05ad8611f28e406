//! A table of the orders, compared with what their events say.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use annals::{
    Store, Subscribe,
    domain::projection::{
        postgres::sqlx::{self, AssertSqlSafe, PgPool},
        sqlite::rusqlite::Connection,
    },
};
use annals_test_servers::postgres;
use shop::{AnyError, COMMANDS, Options, view::View};
use tokio::sync::watch;

use crate::{
    dropped::dropped_again_and_again,
    interrupted::{start, write_on},
    runs::check,
    stores::{Fresh, Kind, commands_for, events, histories, run},
};

/// State, sku, quantity and cents, by name.
type Rows = BTreeMap<String, (String, String, i64, i64)>;

const SELECT: &str = "SELECT name, state, sku, quantity, cents FROM shop_orders";

async fn folded(store: &dyn Store) -> Rows {
    let mut rows = Rows::new();
    for event in events(store).await {
        let data: serde_json::Value = event.json().unwrap();
        let Some(name) = event.stream.as_str().strip_prefix("order-") else { continue };
        let state = match event.event_type.as_str() {
            "OrderPlaced" => {
                let (sku, number) = (data["sku"].as_str().unwrap(), |name| data[name].as_i64());
                let (quantity, cents) = (number("quantity").unwrap(), number("cents").unwrap());
                let row = ("placed".to_owned(), sku.to_owned(), quantity, cents);
                assert_eq!(rows.insert(name.to_owned(), row), None);
                continue;
            }
            other => other.strip_prefix("Order").unwrap().to_lowercase(),
        };
        rows.get_mut(name).unwrap().0 = state;
    }
    rows
}

fn compare(found: &Rows, expected: &Rows, what: &str) {
    for (name, row) in expected {
        assert_eq!(found.get(name), Some(row), "{name}: {what}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

fn first(count: usize) -> String {
    COMMANDS.lines().take(count).map(|line| format!("{line}\n")).collect()
}

/// Where to write, and what is read there.
pub(crate) enum Place {
    Sqlite(tempfile::TempDir),
    Postgres(String),
}

impl Place {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    /// A schema of its own.
    async fn postgres() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let schema = format!("view_{}_{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let url = postgres::shared().await.unwrap().url();
        let pool = PgPool::connect(&url).await.unwrap();
        let create = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&pool).await.unwrap();
        pool.close().await;
        let join = if url.contains('?') { '&' } else { '?' };
        Self::Postgres(format!("{url}{join}options[search_path]={schema}"))
    }

    fn name(&self) -> String {
        match self {
            Self::Sqlite(dir) => dir.path().join("view.db").to_str().unwrap().to_owned(),
            Self::Postgres(url) => url.clone(),
        }
    }

    async fn rows(&self) -> Rows {
        let row = |(name, state, sku, quantity, cents)| (name, (state, sku, quantity, cents));
        match self {
            Self::Sqlite(_) => {
                let connection = Connection::open(self.name()).unwrap();
                let mut select = connection.prepare(SELECT).unwrap();
                let rows = select.query_map([], |row| row.try_into()).unwrap();
                rows.map(|found| row(found.unwrap())).collect()
            }
            Self::Postgres(url) => {
                let pool = PgPool::connect(url).await.unwrap();
                let rows = sqlx::query_as(SELECT).fetch_all(&pool).await.unwrap();
                pool.close().await;
                rows.into_iter().map(row).collect()
            }
        }
    }
}

/// Kept while the shop runs, and after it has run without.
async fn kept_by_the_shop(kind: Kind, place: Place) {
    let fresh = Fresh::open(&kind).await;
    let with = Options { view: Some(place.name()), ..Options::default() };
    for (count, options) in [(600, &with), (1_000, &Options::default()), (1_200, &with)] {
        run(fresh.store.clone(), &first(count), options).await.unwrap();
    }
    let (found, expected) = (place.rows().await, folded(&*fresh.store).await);
    assert!(expected.len() > 200);
    compare(&found, &expected, &fresh.url);
}

async fn dropped_anywhere(kind: Kind, place: impl AsyncFn() -> Place) {
    let fresh = Fresh::open(&kind).await;
    run(fresh.store.clone(), &first(150), &Options::default()).await.unwrap();
    let expected = folded(&*fresh.store).await;
    for seed in 1..=4 {
        let place = place().await;
        let follow = async || {
            // A few events to a transaction, so that there are many.
            let mut view = match View::open(fresh.store.clone(), &place.name()).await? {
                View::Sqlite(projection) => View::Sqlite(projection.with_batch(5)),
                View::Postgres(projection) => View::Postgres(projection.with_batch(5)),
            };
            view.follow(watch::channel(true).1).await?;
            Ok::<_, AnyError>(())
        };
        dropped_again_and_again(seed, follow).await.unwrap();
        compare(&place.rows().await, &expected, &format!("seed {seed} on {}", fresh.url));
    }
}

pub(crate) async fn rows_are_what_the_events_say(kind: Kind) {
    kept_by_the_shop(kind, Place::sqlite()).await;
}

pub(crate) async fn rows_in_postgres_are_what_the_events_say(kind: Kind) {
    kept_by_the_shop(kind, Place::postgres().await).await;
}

pub(crate) async fn dropped_anywhere_no_row_is_wrong(kind: Kind) {
    dropped_anywhere(kind, async || Place::sqlite()).await;
}

pub(crate) async fn dropped_anywhere_no_row_in_postgres_is_wrong(kind: Kind) {
    dropped_anywhere(kind, async || Place::postgres().await).await;
}

/// The program with all that it can do, and deadlines that are over at once.
pub(crate) async fn killed_again_and_again_no_time_out_is_lost_and_no_row_is_wrong(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let place = Place::sqlite();
    let mut events = fresh.store.subscribe(Subscribe::default()).await.unwrap();
    let commands = commands_for(&kind);
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("commands.txt");
    std::fs::write(&script, &commands).unwrap();
    let script = script.to_str().unwrap();
    let whole = Fresh::memory().await;
    let expected = run(whole.store, &commands, &Options::default()).await.unwrap();
    let start = || start(&fresh.url, &["--payment-within", "0", "--view", &place.name(), script]);
    let mut killed = 0;
    for part in [20, 5, 4] {
        let mut child = start();
        write_on(&mut events, expected.events / part).await;
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break; // It was done before this test had heard of so many events.
        }
        killed += 1;
    }
    assert!(killed > 0, "this shows nothing");
    assert!(start().wait().unwrap().success());

    let summary = run(fresh.store.clone(), "", &Options::default()).await.unwrap();
    check(&*fresh.store, &summary.model).await;
    let rows = place.rows().await;
    compare(&rows, &folded(&*fresh.store).await, &fresh.url);
    let histories = histories(&*fresh.store).await;
    for (name, (state, ..)) in &rows {
        assert_ne!(state, "placed", "{name} on {}", fresh.url);
        let order = &histories[&format!("order-{name}")];
        let cancelled = order.iter().filter(|event| *event == "OrderCancelled").count();
        assert_eq!(cancelled, usize::from(state == "cancelled"), "{name}: {order:?}");
        assert_eq!(histories[&format!("timer-{name}")].len(), 2, "{name}");
    }
}
