//! `annals check`.

use annals::{
    dynamodb::{DynamoDbConfig, aws_sdk_dynamodb::types::AttributeValue},
    postgres::{
        PostgresConfig,
        sqlx::{AssertSqlSafe, ConnectOptions, raw_sql},
    },
};
use annals_test_stores::{Fresh, Kind};

use crate::{Ran, annals, free_port, leftovers};

/// Runs `check` twice, once with `--json`: both end with the same exit status.
fn check(url: &str, code: i32) -> (Ran, serde_json::Value) {
    let ran = annals(&["check", url]).ended_with(code);
    let json = annals(&["check", url, "--json"]).ended_with(code).json();
    assert_eq!(json["ok"], code == 0, "{json:#}");
    (ran, json)
}

pub(crate) async fn good(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let (ran, json) = check(&fresh.url, 0);
    for part in ["all is well", "what it can do", env!("CARGO_PKG_VERSION"), kind.name()] {
        assert!(ran.stdout.contains(part), "{part} in {}", ran.stdout);
    }
    assert_eq!(json["backend"], kind.name());
    assert_eq!(json["capabilities"]["checkpoints"], "yes");
    let has_schema = ["sqlite", "postgres", "dynamodb"].contains(&kind.name());
    assert_eq!(json["schema"]["found"].is_number(), has_schema, "{json:#}");
    assert_eq!(json["schema"]["found"], json["schema"]["needed"]);
    let tells = ["sqlite", "postgres", "eventstoredb"].contains(&kind.name());
    assert_eq!(json["server"].is_string(), tells, "{json:#}");
    assert_eq!(ran.stderr, "");
}

/// `check` creates nothing without `--create`.
pub(crate) async fn missing(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let url = match kind.name() {
        "sqlite" => fresh.url.replace("events.db", "other.db"),
        "postgres" | "dynamodb" => fresh.url.replace("test_", "other_"),
        _ => return,
    };
    let (ran, json) = check(&url, 3);
    assert!(ran.stdout.contains("is missing\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("annals check --create URL"), "{}", ran.stdout);
    assert!(json["schema"]["found"].is_null(), "{json:#}");
    // The first call has created nothing.
    check(&url, 3);
    if kind.name() == "sqlite" {
        assert!(!leftovers::file(&url).exists());
    }
    annals(&["check", &url, "--create"]).ended_with(0);
    check(&url, 0);
}

pub(crate) async fn newer(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    match kind.name() {
        "sqlite" => {
            let connection = rusqlite::Connection::open(leftovers::file(&fresh.url)).unwrap();
            let set = "UPDATE annals_meta SET value = 1000 WHERE key = 'schema_version'";
            assert_eq!(connection.execute(set, []).unwrap(), 1);
        }
        "postgres" => {
            let config = PostgresConfig::from_url(&fresh.url).unwrap();
            let schema = config.options.schema;
            run(&fresh.url, &format!("INSERT INTO {schema}.migrations (version) VALUES (1000)"))
                .await;
        }
        "dynamodb" => {
            let config = DynamoDbConfig::from_url(&fresh.url).unwrap();
            let update = config.client().await.update_item().table_name(&config.table);
            let update = update
                .key("pk", AttributeValue::S("meta".to_owned()))
                .key("sk", AttributeValue::N("0".to_owned()))
                .update_expression("SET layout = :layout")
                .expression_attribute_values(":layout", AttributeValue::N("1000".to_owned()));
            update.send().await.unwrap();
        }
        _ => return,
    }
    let (ran, json) = check(&fresh.url, 3);
    assert!(ran.stdout.contains("upgrade annals"), "{}", ran.stdout);
    assert_eq!(json["schema"]["found"], 1000);
    annals(&["check", &fresh.url, "--create"]).ended_with(3);
}

async fn run(url: &str, sql: &str) {
    let connect = PostgresConfig::from_url(url).unwrap().connect;
    let mut connection = connect.connect().await.unwrap();
    raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
}

/// The URL, for another role.
fn as_role(url: &str, role: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    format!("{scheme}://{role}:hunter2@{rest}")
}

/// A role that may read only.
pub(crate) async fn privileges(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let schema = PostgresConfig::from_url(&fresh.url).unwrap().options.schema;
    let role = format!("reader_of_{schema}");
    let create = format!("CREATE ROLE {role} LOGIN PASSWORD 'hunter2'");
    run(&fresh.url, &create).await;
    let url = as_role(&fresh.url, &role);
    let (ran, _) = check(&url, 3);
    assert!(ran.stdout.contains(&format!("lacks USAGE on the schema {schema}")), "{}", ran.stdout);
    let grant = format!(
        "GRANT USAGE ON SCHEMA {schema} TO {role}; \
         GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}"
    );
    run(&fresh.url, &grant).await;
    let (ran, _) = check(&url, 3);
    for lacking in ["INSERT on", "DELETE on", "USAGE on the sequence"] {
        assert!(ran.stdout.contains(lacking), "{lacking} in {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("hunter2"), "{}", ran.stdout);
    run(&fresh.url, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

pub(crate) async fn credentials(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let (ran, json) = check(&as_role(&fresh.url, "no_such_role"), 3);
    let all = format!("{}{}{json}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("look at user, password and privileges"), "{all}");
    assert!(!all.contains("hunter2"), "{all}");
}

pub(crate) fn nobody_there() {
    let port = free_port();
    for url in [
        format!("postgres://me:hunter2@127.0.0.1:{port}/shop"),
        format!("dynamodb://shop?endpoint=http://127.0.0.1:{port}"),
        format!("esdb://me:hunter2@127.0.0.1:{port}?tls=false&maxDiscoverAttempts=1"),
    ] {
        let (ran, json) = check(&url, 1);
        let all = format!("{}{}{json}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("to fix:"), "{all}");
        assert!(ran.stdout.contains("see that it runs"), "{all}");
        assert_eq!((&json["reachable"], ran.stderr.as_str()), (&false.into(), ""), "{all}");
        assert!(!all.contains("hunter2"), "{all}");
    }
}

pub(crate) fn files_that_cannot_be_stores() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text.db"), "no database, but a text that is long enough")
        .unwrap();
    for (file, says) in [
        ("no/such/shop.db", "create it, or name another"),
        ("", "add the name of a file"),
        ("text.db", "not an SQLite database"),
    ] {
        let (ran, _) = check(&format!("sqlite://{}/{file}", dir.path().display()), 3);
        assert!(ran.stdout.contains(says), "{says} in {}", ran.stdout);
    }
    let ran = annals(&["check", "shop.db"]).ended_with(2);
    assert!(ran.stderr.contains("did you mean sqlite://shop.db?"), "{}", ran.stderr);
    assert_eq!(dir.path().read_dir().unwrap().count(), 1);
}

/// The latest events of an open store stand beside the file.
pub(crate) async fn the_log_counts(kind: Kind) {
    if kind.name() != "sqlite" {
        return;
    }
    let fresh = Fresh::open(&kind).await;
    let event = annals::NewEvent::binary("Large", vec![0; 100_000]).unwrap();
    annals::EventStoreExt::append_to(&fresh.store, "a-1", annals::ExpectedVersion::Any, [event])
        .await
        .unwrap();
    let (ran, _) = check(&fresh.url, 0);
    assert!(ran.stdout.contains("bytes in its write-ahead log"), "{}", ran.stdout);
}
