//! Every statement of the store uses an index, under a custom plan as under a generic one.

use std::{ops::Range, path::PathBuf, sync::Arc};

use annals_core::{
    Append, Category, EventStore, EventStoreExt, EventType, ExpectedVersion, Filter, Position,
    ReadAll, ReadStream, Result, Start, StreamPrefix, Subscribe, TransferStore, TryStreamExt,
    Version,
};
use annals_postgres::PostgresStore;
use annals_test_servers::{
    BoxError,
    postgres::{Options, Source},
};

use crate::common::{Place, Tested, event, id, tests};

tests! { "plans":
    Local every_statement_takes_an_index;
}

const FILL: &str = "
    WITH made AS (
        INSERT INTO {schema}.streams (name, category)
        SELECT category || '-' || number, category
        FROM generate_series(0, 1999) AS number, concat('c', number % 100) AS category
        RETURNING id, category
    ), numbered AS (
        SELECT version, id, category, row_number() OVER (ORDER BY version, id) AS number
        FROM made, generate_series(1, 50) AS version
    )
    INSERT INTO {schema}.events (position, stream, version, recorded_at, id, flags, category, type,
        data, metadata)
    SELECT nextval('{schema}.positions'), id, version, now(), gen_random_uuid(),
        CASE WHEN version = 5 THEN 5 ELSE 1 END, category, concat('Type', number % 49),
        convert_to(repeat('1', 200), 'UTF8'), ''
    FROM numbered";

/// The plans in the server's log that belong to sessions of one application.
struct Log {
    path: PathBuf,
    application: String,
}

impl Log {
    fn end(&self) -> Result<usize, BoxError> {
        Ok(std::fs::read(&self.path)?.len())
    }

    /// The plans in a part of the log, each with its statement.
    fn plans(&self, part: Range<usize>) -> Result<Vec<String>, BoxError> {
        let log = std::fs::read(&self.path)?;
        let log = String::from_utf8_lossy(&log[part]).into_owned();
        // All lines of an entry after its first one are indented.
        let mut entries: Vec<String> = Vec::new();
        for line in log.lines() {
            match entries.last_mut() {
                Some(entry) if line.starts_with('\t') => *entry += &format!("\n{line}"),
                _ => entries.push(line.to_owned()),
            }
        }
        let is_plan = |entry: &String| {
            entry.starts_with(&format!("{}|", self.application)) && entry.contains("Query Text:")
        };
        Ok(entries.into_iter().filter(is_plan).collect())
    }
}

async fn every_statement_takes_an_index() -> Tested {
    let options = [
        ("session_preload_libraries", "auto_explain"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_nested_statements", "on"),
        ("log_line_prefix", "%a|"),
        ("autovacuum", "off"),
    ];
    let options =
        options.iter().fold(Options::default(), |o, (name, value)| o.with_setting(*name, *value));
    let place = Place::on(Arc::new(Source::find()?.start(options).await?));
    let data = place.server.data_directory().ok_or("the server is elsewhere")?;
    let path = data.parent().ok_or("no directory")?.join("log");
    place.open().await?;
    place.execute(FILL).await?;
    place.execute("ANALYZE").await?;
    for mode in ["force_custom_plan", "force_generic_plan", "auto"] {
        let mut config = place.config();
        config.connect = config.connect.application_name(mode).options([("plan_cache_mode", mode)]);
        let store = PostgresStore::open(config).await?;
        let log = Log { path: path.clone(), application: mode.to_owned() };
        check(&store, &log).await?;
    }
    // Dropping the server blocks until it has ended.
    Ok(tokio::task::spawn_blocking(move || drop(place)).await?)
}

const POSITION: &str = "events_pkey";
const VERSION: &str = "events_stream_version_key";
const CATEGORY: &str = "events_by_category";
const TYPE: &str = "events_by_type";
const FIRST_ID: &str = "events_by_first_id";
const NAME: &str = "streams_name_key";

/// Reads begin in the middle of the store, and are short.
const FROM: u64 = 50_000;
const LIMIT: u64 = 20;

async fn check(store: &PostgresStore, log: &Log) -> Tested {
    let stream = id("c3-3");
    let category = || Filter::default().with_category(Category::new("c3").unwrap());
    let types = ["Type1", "Type7"].map(|name| EventType::new(name).unwrap());
    let prefix = Filter::default().with_prefix(StreamPrefix::new("c").unwrap());
    let both = category().with_event_types(types.clone());
    let types = Filter::default().with_event_types(types);
    let filters = [
        ("all", Filter::default(), POSITION),
        ("category", category(), CATEGORY),
        ("category and types", both, CATEGORY),
        ("types", types, TYPE),
        ("prefix", prefix, POSITION),
    ];

    let begin = log.end()?;
    let mut from = begin;
    let mut expect = |what: &str, indexes: &[&str]| -> Tested {
        let end = log.end()?;
        let plans = log.plans(from..end)?;
        from = end;
        let text = plans.join("\n");
        for index in indexes {
            assert!(text.contains(index), "{what}: {index} was not used:\n{text}");
        }
        for plan in &plans {
            assert!(!plan.contains("Seq Scan on events"), "{what}: {plan}");
        }
        Ok(())
    };
    for (name, filter, index) in filters {
        let read = ReadAll::default().with_filter(filter.clone()).with_limit(LIMIT);
        for read in [read.clone().after(FROM), read.backwards().before(FROM)] {
            let what = format!("{name}, {:?}", read.direction);
            let found: Vec<_> = store.read_all(read).try_collect().await?;
            assert!(!found.is_empty(), "{what}");
            expect(&what, &[index])?;
        }
        let after = store.subscribe(Subscribe::to(filter).after(FROM)).await?.next_event().await?;
        assert!(after.position.get() > FROM);
        expect(&format!("{name}, subscribed"), &[index])?;
    }
    for read in [ReadStream::default().with_from(3), ReadStream::default().backwards()] {
        let found: Vec<_> = store.read_stream(&stream, read.with_limit(3)).try_collect().await?;
        assert_eq!(found.len(), 3);
        expect("a stream", &[VERSION, NAME])?;
    }
    let end = Subscribe::to(stream.clone()).with_start(Start::End);
    let _live = store.subscribe(end).await?;
    expect("the version at a position", &[VERSION, NAME])?;
    store.stream_info(&stream).await?;
    expect("the head of a stream", &[VERSION, NAME])?;
    store.last_position().await?;
    expect("the last position", &[POSITION])?;

    for count in [1, 2] {
        let any = Append::new(stream.clone(), ExpectedVersion::Any, (0..count).map(event));
        store.append(any.clone()).await?;
        expect("an append", &[NAME, VERSION, FIRST_ID])?;
        assert!(store.append(any).await?.replayed);
        expect("a retry", &[NAME, VERSION, FIRST_ID])?;
    }
    let several = ["c1-1", "c2-2", "c4-4"];
    let several = several.map(|name| Append::new(id(name), ExpectedVersion::Any, [event(1)]));
    store.append_multi(several.into()).await?;
    expect("several appends", &[NAME, VERSION, FIRST_ID])?;
    let conflict = store.append_to("c3-3", Version::new(1), [event(1)]).await;
    assert!(conflict.is_err());
    expect("a conflict", &[NAME, VERSION])?;

    let mut read: Vec<_> = store.load_stream(&id("c5-5")).await?;
    expect("a stream", &[VERSION, NAME])?;
    let next = read.len() as u64 + 1;
    let new = event(next).recorded(id("c5-5"), next.into(), Position::START, read[0].recorded_at);
    let other = event(1).recorded(id("c-new"), next.into(), Position::START, read[0].recorded_at);
    read.extend([new, other]);
    store.import(read).await?;
    expect("an import", &[NAME, VERSION])?;
    assert_eq!(store.list_streams(Some(&id("c5")), 3).await?.len(), 3);
    expect("a list of streams", &[NAME, VERSION])?;

    store.truncate(&stream, Version::new(3)).await?;
    expect("a removal", &[NAME, VERSION])?;
    assert!(log.plans(begin..from)?.len() > 50, "the server does not log its plans");
    Ok(())
}
