//! A store gives back what was appended, byte for byte.

use annals_core::{
    Append, ContentKind, EventStoreExt, EventType, ExpectedVersion, NewEvent, Payload, ReadAll,
    Snapshot,
};
use chrono::{TimeDelta, Utc};
use uuid::Uuid;

use crate::{
    case::{CaseResult, Context, Stop, cases},
    tools::{assert_same, event, everything, id, read_all},
};

cases! { "payload":
    json_is_kept_byte_for_byte [10];
    binary_is_kept_byte_for_byte [10];
    metadata_is_kept_byte_for_byte [10];
    correlation_and_causation_are_kept [10];
    ids_are_kept [10];
    stream_ids_are_kept_apart [10];
    event_types_are_kept [10];
    the_time_is_now_in_microseconds [10];
    a_large_append_is_kept [10, 14];
    a_real_event_log_is_kept [10, 11, 12] GlobalOrder;
}

/// JSON that some databases rewrite, refuse or truncate.
const JSON: &[&str] = &[
    "{}",
    "null",
    " { \"b\" : 1 ,\n\t\"a\" : 2 } ",
    r#"{"b":1,"a":2,"b":3}"#,
    r#"{"n":1.10,"m":1e2,"huge":123456789012345678901234567890,"tiny":-0.0,"e":1E+400}"#,
    r#"{"nul":"\u0000","quote":"\"'`","slash":"\/\\","astral":"\ud83e\udd80","lone":"\ud800"}"#,
    "\"\u{feff}\u{200b}é e\u{301} ﬁ 日本 🦀\"",
    r#"["%_?$1:name@p0","'; DROP TABLE events; --","{{}}","\\x00"]"#,
    "123",
    "\"\"",
];

async fn assert_kept(cx: &Context, written: Vec<NewEvent>) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    let stream = id("order-1");
    store.append(Append::new(stream.clone(), ExpectedVersion::NoStream, written.clone())).await?;
    let read = other.load_stream(&stream).await?;
    assert_eq!(read.len(), written.len());
    written.iter().zip(&read).for_each(|(written, read)| assert_same(written, read));
    if store.capabilities().global_order {
        assert_eq!(everything(&other).await?, read, "reads of all and of the stream differ");
    }
    Ok(())
}

fn kind(name: &str) -> EventType {
    EventType::new(name).unwrap()
}

async fn json_is_kept_byte_for_byte(cx: Context) -> CaseResult {
    let json = |text: &&str| Payload::json_text(text.to_string()).unwrap();
    let written = JSON.iter().map(|text| NewEvent::new(kind("Json"), json(text)));
    assert_kept(&cx, written.collect()).await
}

async fn binary_is_kept_byte_for_byte(cx: Context) -> CaseResult {
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut bytes = vec![Vec::new(), vec![0], vec![0; 100], vec![0xff; 3], every_byte];
    // Binary data stays binary, also if its bytes are valid JSON.
    bytes.extend(JSON.iter().map(|text| text.as_bytes().to_vec()));
    let written = bytes.into_iter().map(|b| NewEvent::new(kind("Binary"), Payload::binary(b)));
    assert_kept(&cx, written.collect()).await
}

async fn metadata_is_kept_byte_for_byte(cx: Context) -> CaseResult {
    let json = JSON.iter().map(|text| event(1).with_metadata(text.to_string()));
    let binary = [&b""[..], b"\0", b"\xff\xfe", b"{not json"].map(|b| event(1).with_metadata(b));
    let written: Vec<_> = json.chain(binary).collect();
    assert_eq!(written[0].metadata().kind(), ContentKind::Json);
    assert_eq!(written.last().unwrap().metadata().kind(), ContentKind::Binary);
    assert_kept(&cx, written).await
}

async fn correlation_and_causation_are_kept(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    let written = event(1)
        .with_metadata(r#"{"user":"né","n":1.10}"#)
        .with_correlation_id("checkout-7")?
        .with_causation_id(Uuid::nil().to_string())?;
    store.append_to(&stream, ExpectedVersion::Any, [written.clone()]).await?;
    let read = store.load_stream(&stream).await?.remove(0);
    assert_same(&written, &read);
    assert_eq!(read.correlation_id().as_deref(), Some("checkout-7"));
    assert_eq!(read.causation_id(), Some(Uuid::nil().to_string()));
    Ok(())
}

async fn ids_are_kept(cx: Context) -> CaseResult {
    let chosen = [Uuid::max(), Uuid::new_v4(), Uuid::now_v7(), Uuid::from_u128(1)];
    assert_kept(&cx, chosen.map(|id| event(1).with_id(id)).to_vec()).await
}

/// Names that some databases change to another case, trim, truncate, or take for a pattern.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "a",
        "A",
        "ä",
        "Ä",
        "a\u{308}",
        "ß",
        "SS",
        "ss",
        "ı",
        "i",
        "I",
        " a",
        "a ",
        " a ",
        "a  ",
        "%",
        "_",
        "a%",
        "a_",
        "ab",
        "a\\",
        "\\",
        "\\_",
        "'",
        "\"",
        "`",
        "a'b\"c",
        "''",
        "null",
        "NULL",
        "0",
        "00",
        "-",
        "--",
        "-a",
        "a-",
        "a-b",
        "a-b-c",
        "a--b",
        "/",
        "a/b",
        "../a",
        "a:b",
        "a@b",
        "a#b",
        "?x=1&y=2",
        "%41",
        "{}",
        "[a]",
        "a*",
        ".",
        "日本語",
        "🦀",
        "\u{200b}",
        "\u{feff}a",
        "e\u{301}",
        "é",
        "ﬁ",
        "fi",
        "a$",
        "a$b",
        "N@a",
        "1a",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("x".repeat(255));
    names.push("x".repeat(254) + "y");
    names.push("🦀".repeat(63) + "xyz");
    names
}

async fn stream_ids_are_kept_apart(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    let names = names();
    for (number, name) in (0..).zip(&names) {
        let written = store.append_to(id(name), ExpectedVersion::NoStream, [event(number)]).await;
        assert!(written.is_ok(), "{name:?} was not a new stream: {written:?}");
    }
    for (number, name) in (0..).zip(&names) {
        let read = other.load_stream(&id(name)).await?;
        assert_eq!(read.len(), 1, "{name:?} holds events of other streams");
        assert_eq!(read[0].stream.as_str(), name);
        assert_eq!(crate::tools::number(&read[0]), number, "{name:?} holds another's event");
    }
    if store.capabilities().global_order {
        let read = everything(&other).await?;
        let read: Vec<_> = read.iter().map(|event| event.stream.as_str()).collect();
        assert_eq!(read, names.iter().map(String::as_str).collect::<Vec<_>>());
    }
    Ok(())
}

async fn event_types_are_kept(cx: Context) -> CaseResult {
    let written = names().into_iter().map(|name| NewEvent::json(name, &1).unwrap());
    assert_kept(&cx, written.collect()).await
}

async fn the_time_is_now_in_microseconds(cx: Context) -> CaseResult {
    let (store, stream) = (cx.open().await, id("order-1"));
    // The clocks of the server and of this machine may differ by this much.
    let tolerance = TimeDelta::hours(1);
    let before = Utc::now() - tolerance;
    for _ in 0..20 {
        store.append_to(&stream, ExpectedVersion::Any, [event(1)]).await?;
    }
    let read = store.load_stream(&stream).await?;
    for event in &read {
        let at = event.recorded_at;
        assert!(at > before && at < Utc::now() + tolerance, "recorded at {at}");
        assert_eq!(at.timestamp_subsec_nanos() % 1_000, 0, "finer than microseconds: {at}");
    }
    // If the store kept milliseconds or seconds only, every time would end in zeros.
    let fine = read.iter().any(|event| event.recorded_at.timestamp_subsec_micros() % 1_000 != 0);
    assert!(fine, "all times are coarser than microseconds");
    Ok(())
}

/// Appends more than one page of any database's protocol: in one append, and in each event.
async fn a_large_append_is_kept(cx: Context) -> CaseResult {
    let capabilities = cx.open().await.capabilities().clone();
    let mut rng = cx.rng(0);
    let total = capabilities.max_append_bytes.min(4 << 20);
    let count = capabilities.max_append_events.min(20);
    let size = (total / count).min(capabilities.max_event_bytes);
    let written = (0..count).map(|_| {
        let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(size).collect();
        NewEvent::new(kind("Large"), Payload::binary(bytes))
    });
    assert_kept(&cx, written.collect()).await
}

/// The environment variable with the path of the log that `a_real_event_log_is_kept` loads.
const EVENT_LOG: &str = "ANNALS_EVENT_LOG";
const EVENT_LOG_DEFAULT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/permits.jsonl");

/// One line of the log: JSON with the fields `stream`, `type`, `time` and `data`.
#[derive(serde::Deserialize)]
struct Line<'a> {
    stream: String,
    #[serde(rename = "type")]
    event_type: String,
    time: String,
    #[serde(borrow)]
    data: &'a serde_json::value::RawValue,
}

/// Loads a log of JSON lines and reads it back: by stream, by position, and as the bytes of a
/// snapshot.
async fn a_real_event_log_is_kept(cx: Context) -> CaseResult {
    let path = std::env::var(EVENT_LOG).unwrap_or_else(|_| EVENT_LOG_DEFAULT.to_owned());
    let log = match std::fs::read_to_string(&path) {
        Ok(log) => log,
        Err(e) => return Err(Stop::Ignored(format!("no event log at {path} ({EVENT_LOG}): {e}"))),
    };
    let store = cx.open().await;
    let mut streams: Vec<(String, Vec<NewEvent>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for line in log.lines() {
        let line: Line<'_> = serde_json::from_str(line).map_err(|e| Stop::Failed(e.to_string()))?;
        let data = Payload::json_text(line.data.get().to_owned())?;
        let event = NewEvent::new(kind(&line.event_type), data)
            .with_json_metadata(&serde_json::json!({ "time": line.time }))?;
        let place = *places.entry(line.stream.clone()).or_insert_with(|| {
            streams.push((line.stream, Vec::new()));
            streams.len() - 1
        });
        streams[place].1.push(event);
    }
    for (stream, events) in &streams {
        store.append_to(id(stream), ExpectedVersion::NoStream, events.clone()).await?;
    }
    let all = read_all(&store, ReadAll::default()).await?;
    let written =
        streams.iter().flat_map(|(stream, events)| events.iter().map(move |e| (stream, e)));
    assert_eq!(all.len(), log.lines().count());
    for ((stream, written), read) in written.zip(&all) {
        assert_eq!(*stream, read.stream.as_str());
        assert_same(written, read);
    }
    for (stream, events) in &streams {
        let read = store.load_stream(&id(stream)).await?;
        assert_eq!(read.len(), events.len());
        events.iter().zip(&read).for_each(|(written, read)| assert_same(written, read));
    }
    if store.capabilities().snapshots {
        let state = Payload::binary(log.into_bytes());
        if state.len() <= store.capabilities().max_event_bytes {
            let stream = id(&streams[0].0);
            store.save_snapshot(&stream, Snapshot::new(1, state.clone())).await?;
            assert_eq!(store.load_snapshot(&stream).await?.unwrap().data, state);
        }
    }
    Ok(())
}
