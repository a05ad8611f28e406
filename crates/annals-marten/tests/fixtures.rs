//! Reads databases that Marten itself wrote, event by event, and appends to them. The data is in the
//! directory `ANNALS_MARTEN_DATA`, or else in `shared/data/marten` beside the repository.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use annals_conformance::BoxError;
use annals_core::{
    ContentKind, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, NewEvent, ReadAll,
    RecordedEvent, StreamId, TransferStore, TryStreamExt,
};
use annals_marten::{
    MartenConfig, MartenStore,
    sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, Row, raw_sql},
};
use annals_test_servers::postgres;
use libtest_mimic::{Arguments, Completion, Trial};
use serde_json::Value;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let data = directory();
    let source = postgres::Source::find();
    let missing = match (&data, &source) {
        (Err(reason), _) | (_, Err(reason)) => Some(reason.clone()),
        _ => None,
    };
    let trials = if let Some(reason) = missing {
        vec![Trial::ignorable_test("fixtures", move || Ok(Completion::ignored_with(reason)))]
    } else {
        let entries = std::fs::read_dir(data.unwrap()).unwrap();
        let directories = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
        directories
            .map(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                Trial::test(format!("fixtures::{name}"), move || {
                    let runtime = tokio::runtime::Runtime::new().unwrap();
                    runtime.block_on(check(&path)).map_err(|error| error.to_string().into())
                })
            })
            .collect()
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn directory() -> Result<PathBuf, String> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/marten");
    let data = std::env::var_os("ANNALS_MARTEN_DATA").map_or_else(beside, PathBuf::from);
    match data.join("string").is_dir() {
        true => Ok(data),
        false => {
            Err("there are no databases of Marten; name them by ANNALS_MARTEN_DATA".to_owned())
        }
    }
}

/// Loads a database, opens it, and compares what is read with what Marten read.
async fn check(path: &Path) -> Result<(), BoxError> {
    let sql = std::fs::read_to_string(path.join("schema-and-data.sql"))?;
    let schema = sql.split("CREATE SCHEMA ").nth(1).and_then(|rest| rest.split(';').next());
    let schema = schema.ok_or("no schema")?.to_owned();
    let server = postgres::shared().await?;
    let database = path.file_name().unwrap().to_string_lossy().into_owned();
    // A database of its own: several fixtures have the same schema.
    let address = server.url();
    let config = MartenConfig::from_url(&address.replacen("postgres", "marten", 1))?;
    let mut connection = config.connect.clone().connect().await?;
    let create = format!("CREATE DATABASE fixture_{database}");
    raw_sql(AssertSqlSafe(create)).execute(&mut connection).await?;
    let connect = config.connect.clone().database(&format!("fixture_{database}"));
    let mut connection = connect.clone().connect().await?;
    raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    let expected = std::fs::read_to_string(path.join("expected.jsonl"))?;
    let expected: Vec<Value> =
        expected.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let open = async |tenant: Option<&str>| {
        let mut config = config.clone();
        config.connect = connect.clone();
        config.options.schema.clone_from(&schema);
        config.options.own_schema = None;
        config.options.tenant = tenant.map(str::to_owned);
        config.options.mode = annals_marten::AppendMode::Quick;
        MartenStore::open(config).await
    };
    if database.contains("tenant_part") {
        let error = open(None).await.err().ok_or("it was not refused")?;
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        assert!(error.to_string().contains("partitioned by"), "{error}");
        return Ok(());
    }
    let tenants: &[Option<&str>] =
        if database.contains("conjoined") { &[Some("alpha"), Some("beta")] } else { &[None] };
    if tenants[0].is_some() {
        let error = open(None).await.err().ok_or("no tenant was named")?;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    for tenant in tenants {
        let store = open(*tenant).await?;
        read_back(&store, &expected, *tenant).await?;
        let mut rows = Rows { connection: &mut connection, schema: &schema, tenant: *tenant };
        let before = (rows.events("").await?, rows.streams("").await?);
        append(&store).await?;
        rows.compare(before).await?;
    }
    Ok(())
}

/// The rows of one tenant, as they stand in the tables.
struct Rows<'a> {
    connection: &'a mut PgConnection,
    schema: &'a str,
    tenant: Option<&'a str>,
}

impl Rows<'_> {
    async fn of(&mut self, table: &str, order: &str, and: &str) -> Result<Vec<Value>, BoxError> {
        let tenant = self.tenant.unwrap_or("*DEFAULT*");
        let sql = format!(
            "SELECT to_jsonb(t)::text FROM {}.{table} AS t WHERE NOT is_archived \
             AND tenant_id = '{tenant}' {and} ORDER BY {order}",
            self.schema
        );
        let rows = raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *self.connection).await?;
        rows.iter().map(|row| Ok(serde_json::from_str(&row.try_get::<String, _>(0)?)?)).collect()
    }

    async fn events(&mut self, and: &str) -> Result<Vec<Value>, BoxError> {
        let and = format!("AND mt_dotnet_type NOT LIKE '%Tombstone%' {and}");
        self.of("mt_events", "seq_id", &and).await
    }

    async fn streams(&mut self, and: &str) -> Result<Vec<Value>, BoxError> {
        self.of("mt_streams", "id", &format!("AND version > 0 {and}")).await
    }

    /// Compares the rows that annals has written with those that Marten had written before: no column
    /// has a value of a kind that Marten did not write there.
    async fn compare(
        &mut self,
        (events, streams): (Vec<Value>, Vec<Value>),
    ) -> Result<(), BoxError> {
        let last = events.last().ok_or("no events")?["seq_id"].to_string();
        let ours = self.events(&format!("AND seq_id > {last}")).await?;
        assert_eq!(ours.len(), 3);
        let known = events.iter().find(|row| row["type"] == "money_paid");
        let dotnet_type = known.map_or(Value::from(""), |row| row["mt_dotnet_type"].clone());
        for row in &ours {
            assert_like(row, &events);
            assert_eq!(
                (&row["is_archived"], &row["mt_dotnet_type"]),
                (&false.into(), &dotnet_type)
            );
            assert_eq!(row.get("is_skipped").unwrap_or(&false.into()), false);
            assert_eq!(row.get("bdata").unwrap_or(&Value::Null), &Value::Null);
            assert_eq!(row["data"], serde_json::json!({ "Note": "annals", "Cents": 7 }));
            if row.get("correlation_id").is_some() {
                assert_eq!(
                    (&row["correlation_id"], &row["causation_id"]),
                    (&"c-1".into(), &Value::Null)
                );
            }
        }
        let recent = "AND timestamp BETWEEN now() - interval '5 minutes' AND now()";
        assert_eq!(self.events(&format!("AND seq_id > {last} {recent}")).await?.len(), 3);
        // The stream that annals appended to, and the one that it began.
        let after = self.streams(recent).await?;
        assert_eq!(after.len(), 2);
        for row in &after {
            let begun = ours.iter().filter(|event| event["stream_id"] == row["id"]);
            let versions: Vec<_> = begun.map(|event| event["version"].clone()).collect();
            assert_eq!(versions.last(), Some(&row["version"]));
            let Some(before) = streams.iter().find(|before| before["id"] == row["id"]) else {
                assert_eq!((&row["type"], versions.len()), (&"annals".into(), 1));
                let typed: Vec<_> = streams.iter().filter(|row| row["type"].is_string()).collect();
                assert_like(row, typed);
                continue;
            };
            for (column, value) in before.as_object().ok_or("no object")? {
                let is_changed = ["version", "timestamp"].contains(&column.as_str());
                assert_eq!(row[column] != *value, is_changed, "{column}");
            }
        }
        Ok(())
    }
}

/// Each column has a value of a kind that is in one of these rows, too.
fn assert_like<'a>(row: &Value, others: impl IntoIterator<Item = &'a Value> + Clone) {
    for (column, value) in row.as_object().unwrap() {
        let is_kind =
            |other: &Value| std::mem::discriminant(&other[column]) == std::mem::discriminant(value);
        let like = others.clone().into_iter().any(is_kind);
        assert!(like, "no row of Marten has such a {column}: {value}");
    }
}

async fn read_back(
    store: &MartenStore,
    expected: &[Value],
    tenant: Option<&str>,
) -> Result<(), BoxError> {
    let read: Vec<RecordedEvent> = store.read_all(ReadAll::default()).try_collect().await?;
    // The rows as they stand in the database, without what is hidden.
    let rows = expected.iter().filter_map(|line| line.get("row")).filter(|row| {
        let is_tombstone = row["mt_dotnet_type"]
            .as_str()
            .is_some_and(|name| name.starts_with("JasperFx.Events.Tombstone,"));
        row["is_archived"] == false
            && !is_tombstone
            && tenant.is_none_or(|tenant| row["tenant_id"] == tenant)
    });
    let rows: BTreeMap<u64, &Value> =
        rows.map(|row| (row["seq_id"].as_u64().unwrap(), row)).collect();
    assert!(!rows.is_empty());
    assert_eq!(read.len(), rows.len());
    for (event, (number, row)) in read.iter().zip(&rows) {
        assert_eq!(event.position.get(), *number);
        assert_eq!(Some(event.version.get()), row["version"].as_u64());
        assert_eq!(Some(event.id.to_string().as_str()), row["id"].as_str());
        assert_eq!(Some(event.event_type.as_str()), row["type"].as_str());
        let key = row["stream_id"].as_str().unwrap();
        let is_stream = event.stream.as_str() == key
            || event.stream.as_str().ends_with(&format!("-{key}"))
            || event.stream.as_str() == key.replace('-', "");
        assert!(is_stream, "{} is not {key}", event.stream);
        if row.get("bdata").is_some_and(|bdata| !bdata.is_null()) {
            assert_eq!(event.data.kind(), ContentKind::Binary);
        } else {
            assert_eq!(event.data.decode::<Value>()?, row["data"], "{number}");
        }
        if let Some(Value::String(id)) = row.get("correlation_id") {
            assert_eq!(event.correlation_id().as_ref(), Some(id));
        }
        if let Some(Value::Object(headers)) = row.get("headers") {
            let metadata: Value = event.metadata.decode()?;
            assert!(headers.iter().all(|(name, value)| metadata[name] == *value));
        }
    }
    // Each stream, as Marten fetched it.
    let of_tenant = |line: &&Value| tenant.is_none_or(|tenant| line["tenant"] == tenant);
    let streams: Vec<&Value> = expected
        .iter()
        .filter(|line| line.get("stream").is_some())
        .filter(|line| line.get("fetched").is_some())
        .filter(of_tenant)
        .collect();
    let listed = store.list_streams(None, 1_000).await?;
    for line in streams {
        let key = line["stream"].as_str().unwrap();
        let is_it = |stream: &StreamId| {
            stream.as_str() == key
                || stream.as_str().ends_with(&format!("-{key}"))
                || stream.as_str() == key.replace('-', "")
        };
        let found = listed.iter().find(|(stream, _)| is_it(stream));
        if line["version"] == 0 {
            assert!(found.is_none(), "{key} is the stream of tombstones");
            continue;
        }
        let (stream, info) = found.ok_or_else(|| format!("{key} is not listed"))?;
        assert_eq!(Some(info.version.get()), line["version"].as_u64());
        let events = store.load_stream(stream).await?;
        let read: Vec<_> =
            events.iter().map(|event| (event.version.get(), event.position.get())).collect();
        let fetched = line["fetched"].as_array().unwrap().iter();
        let fetched: Vec<_> = fetched
            .map(|event| (event["Version"].as_u64().unwrap(), event["Sequence"].as_u64().unwrap()))
            .collect();
        assert_eq!(read, fetched, "{key}");
        let archived = line["archived"] == true;
        assert_eq!(info.state == annals_core::StreamState::Tombstoned, archived, "{key}");
    }
    Ok(())
}

/// Appends to a stream that Marten made, to a new one, and to an archived one.
async fn append(store: &MartenStore) -> Result<(), BoxError> {
    let listed = store.list_streams(None, 1_000).await?;
    let (live, info) =
        listed.iter().find(|(_, info)| info.state == annals_core::StreamState::Live).unwrap();
    let event = || {
        NewEvent::json("money_paid", &serde_json::json!({ "Note": "annals", "Cents": 7 }))
            .unwrap()
            .with_correlation_id("c-1")
            .unwrap()
    };
    let (first, second) = (event(), event());
    let appended =
        store.append_to(live.as_str(), info.version, [first.clone(), second.clone()]).await?;
    assert_eq!(appended.first_version, info.version.plus(1));
    let events = store.load_stream(live).await?;
    let [.., one, two] = events.as_slice() else { panic!("two events") };
    for (read, written) in [(one, &first), (two, &second)] {
        assert_eq!((read.id, &read.data), (written.id(), written.data()));
        assert_eq!(&read.metadata, written.metadata());
    }
    assert_eq!(two.position, appended.position);
    let again = store.append_to(live.as_str(), info.version, [first, second]).await?;
    assert!(again.replayed && again.position == appended.position);
    let new = "annals-11111111-1111-1111-1111-111111111111";
    store.append_to(new, ExpectedVersion::NoStream, [event()]).await?;
    let closed = listed.iter().find(|(_, info)| info.state == annals_core::StreamState::Tombstoned);
    let (closed, _) = closed.unwrap();
    let error = store.append_to(closed.as_str(), ExpectedVersion::Any, [event()]).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::StreamClosed);
    Ok(())
}
