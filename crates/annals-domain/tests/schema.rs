//! Typed events: how they are stored, upcast and skipped.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::{convert::Infallible, sync::Arc};

use annals_core::{
    Error, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, NewEvent, Payload, Position,
    ReadAll, RecordedEvent, StreamId, TryStreamExt,
};
use annals_domain::{
    CommandHandler, Context, Decider, Decoded, ExecuteError, Schema, Upcast, Upcasters,
    personal::{KeyStore, MemoryKeys, PersonalData, Subject},
    testing,
};
use annals_memory::MemoryStore;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    #[serde(rename = "placed.v3")]
    Placed { sku: String, cents: u64 },
    #[serde(rename = "noted")]
    Noted { text: String },
    #[serde(rename = "moved", alias = "shifted")]
    Moved(i64, Option<f64>),
    #[serde(rename = "ended")]
    Ended,
}

/// An event as a store returns it.
fn stored(event_type: &str, data: &str) -> RecordedEvent {
    let new =
        NewEvent::new(event_type.try_into().unwrap(), Payload::json_text(data.to_owned()).unwrap());
    let recorded_at = chrono::DateTime::UNIX_EPOCH;
    new.recorded(StreamId::new("order-7").unwrap(), 3.into(), Position::new(9), recorded_at)
}

#[derive(Deserialize)]
struct PlacedV1 {
    sku: String,
    whole: u64,
}

#[derive(Serialize, Deserialize)]
struct PlacedV2 {
    sku: String,
    cents: u64,
    note: Option<String>,
}

fn upcasters() -> Upcasters {
    Upcasters::new()
        .one("placed", "placed.v2", |old: PlacedV1| PlacedV2 {
            sku: old.sku,
            cents: old.whole * 100,
            note: None,
        })
        .many("placed.v2", &["placed.v3", "noted"], |old: PlacedV2| {
            let PlacedV2 { sku, cents, note } = old;
            let mut events = vec![Upcast::new("placed.v3", &Event::content(&sku, cents))?];
            if let Some(text) = note {
                events.push(Upcast::new("noted", &serde_json::json!({ "text": text }))?);
            }
            Ok(events)
        })
        .none("viewed")
        .renamed("finished", "ended")
}

impl Event {
    fn content(sku: &str, cents: u64) -> serde_json::Value {
        serde_json::json!({ "sku": sku, "cents": cents })
    }

    fn placed(sku: &str, cents: u64) -> Self {
        Self::Placed { sku: sku.into(), cents }
    }
}

async fn read(schema: &Schema<Event>, event_type: &str, data: &str) -> Vec<Event> {
    schema.decode(&stored(event_type, data)).await.unwrap().into_events().collect()
}

#[tokio::test]
async fn old_events_become_new_ones() {
    let schema = Schema::<Event>::new().unwrap().with_upcasters(upcasters()).unwrap();
    let placed = Event::placed("mug", 300);
    let noted = Event::Noted { text: "gift".into() };
    let v2 = r#"{"sku":"mug","cents":300,"note":"gift"}"#;
    assert_eq!(
        read(&schema, "placed", r#"{"sku":"mug","whole":3}"#).await,
        std::slice::from_ref(&placed)
    );
    assert_eq!(read(&schema, "placed.v2", v2).await, [placed.clone(), noted]);
    assert_eq!(read(&schema, "placed.v3", r#"{"sku":"mug","cents":300}"#).await, [placed]);
    assert_eq!(read(&schema, "viewed", "[]").await, []);
    assert_eq!(read(&schema, "finished", "7").await, [Event::Ended]);
    assert_eq!(read(&schema, "shifted", "[1,null]").await, [Event::Moved(1, None)]);
    let names: Vec<_> = schema.types().iter().map(ToString::to_string).collect();
    let every = "ended finished moved noted placed placed.v2 placed.v3 shifted viewed";
    assert_eq!(names.join(" "), every);
}

#[tokio::test]
async fn what_cannot_be_read_says_where_it_is() {
    let schema = Schema::<Event>::new().unwrap().with_upcasters(upcasters()).unwrap();
    for (event_type, data) in [
        ("unheard", "{}"),
        ("noted", r#"{"txt":""}"#),
        ("placed", r#"{"sku":"mug"}"#),
        ("Placed", r#"{"sku":"mug","cents":1}"#),
    ] {
        let error = schema.decode(&stored(event_type, data)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.stream().unwrap().as_str(), "order-7");
        let text = error.to_string();
        assert!(text.contains('3') && text.contains(event_type), "{text}");
    }
    let skipping = schema.skip_unreadable();
    let twin = skipping.clone();
    assert_eq!(skipping.decode(&stored("unheard", "{}")).await.unwrap(), Decoded::Skipped);
    assert_eq!(twin.decode(&stored("noted", "1")).await.unwrap(), Decoded::Skipped);
    assert_eq!((skipping.skipped(), twin.skipped()), (2, 2));
    assert_eq!(read(&skipping, "ended", "{}").await, [Event::Ended]);
}

#[test]
fn what_cannot_work_is_refused_at_once() {
    let refused = |upcasters: Upcasters| {
        let error = Schema::<Event>::new().unwrap().with_upcasters(upcasters).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.to_string()
    };
    let circle = Upcasters::new().renamed("a", "b").renamed("b", "c").renamed("c", "a");
    assert!(refused(circle).contains("back to it"));
    assert!(refused(Upcasters::new().renamed("ended", "ended")).contains("back to it"));
    assert!(refused(Upcasters::new().renamed("a", "nowhere")).contains("nowhere"));

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "type")]
    enum Tagged {
        A { a: u8 },
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Plain(u8);
    #[derive(Debug, Serialize, Deserialize)]
    enum Nameless {
        #[serde(rename = "")]
        A,
    }
    for error in [
        Schema::<Tagged>::new().unwrap_err(),
        Schema::<Plain>::new().unwrap_err(),
        Schema::<Nameless>::new().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[tokio::test]
async fn what_could_not_be_read_again_is_not_written() {
    #[derive(Debug, Serialize, Deserialize)]
    enum Uneven {
        #[serde(rename(serialize = "written", deserialize = "read"))]
        A,
    }
    let stream = StreamId::new("order-7").unwrap();
    let schema = Schema::<Uneven>::new().unwrap();
    let error = schema.encode(&stream, &Uneven::A, &Context::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("written"), "{error}");
}

/// An upcaster that makes an event of a type that it does not name is an error, whatever the type is.
#[tokio::test]
async fn an_upcaster_keeps_to_what_it_names() {
    let stray = Upcasters::new()
        .many("a", &["ended"], |(): ()| Ok(vec![Upcast::new("noted", &Event::content("", 0))?]))
        .many("b", &["ended"], |(): ()| Err(Error::new(ErrorKind::InvalidInput, "no idea")));
    let schema = Schema::<Event>::new().unwrap().with_upcasters(stray).unwrap();
    for event_type in ["a", "b"] {
        let error = schema.decode(&stored(event_type, "null")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any::<String>(), any::<u64>()).prop_map(|(sku, cents)| Event::Placed { sku, cents }),
        any::<String>().prop_map(|text| Event::Noted { text }),
        (any::<i64>(), proptest::option::of(-1e15..1e15)).prop_map(|(by, at)| Event::Moved(by, at)),
        Just(Event::Ended),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(event in any_event()) {
        let schema = Schema::<Event>::new().unwrap();
        let stream = StreamId::new("order-7").unwrap();
        let decoded = futures::executor::block_on(async {
            let new = schema.encode(&stream, &event, &Context::default()).await.unwrap();
            let data = new.data().bytes().clone();
            serde_json::from_slice::<serde_json::Value>(&data).expect("one JSON text");
            let (version, position) = (1.into(), Position::new(1));
            let recorded = new.recorded(stream, version, position, chrono::DateTime::UNIX_EPOCH);
            schema.decode(&recorded).await.unwrap()
        });
        prop_assert_eq!(decoded, Decoded::One(event));
    }
}

#[test]
fn samples_are_checked() {
    let schema = Schema::<Event>::new().unwrap().with_upcasters(upcasters()).unwrap();
    let good = r#"
{"type":"placed","data":{"sku":"mug","whole":3},"becomes":[{"type":"placed.v3","data":{"sku":"mug","cents":300}}]}
{"type":"placed.v2","data":{"sku":"a","cents":1,"note":"b"},"becomes":[{"type":"placed.v3","data":{"sku":"a","cents":1}},{"type":"noted","data":{"text":"b"}}]}
{"type":"viewed","data":1,"becomes":[]}
{"type":"finished","data":{},"becomes":[{"type":"ended","data":{}}]}
"#;
    assert_eq!(testing::check_samples(&schema, good), Ok(4));

    let without = good.replace("viewed", "ended");
    let faults = testing::check_samples(&schema, &without).unwrap_err();
    assert!(faults.contains(r#"the upcaster of "viewed" has no sample"#), "{faults}");
    assert!(faults.contains("line 4") && faults.contains("+ Ended"), "{faults}");

    let wrong = good.replace("300", "301") + "nonsense\n";
    let faults = testing::check_samples(&schema, &wrong).unwrap_err();
    assert!(
        faults.contains("line 2") && faults.contains("line 6: this is not a sample"),
        "{faults}"
    );
    assert!(faults.contains("- Placed { sku: \"mug\", cents: 301 }"), "{faults}");
}

#[derive(Debug)]
struct Orders;

impl Decider for Orders {
    const CATEGORY: &'static str = "order";
    type State = Vec<String>;
    type Command = Event;
    type Event = Event;
    type Rejection = Infallible;

    fn initial(&self) -> Vec<String> {
        Vec::new()
    }

    fn decide(&self, command: &Event, _: &Vec<String>) -> Result<Vec<Event>, Infallible> {
        Ok(vec![command.clone()])
    }

    fn evolve(&self, state: &mut Vec<String>, event: &Event) {
        state.push(format!("{event:?}"));
    }

    fn forgotten(&self, state: &mut Vec<String>, event_type: &str) -> bool {
        state.push(format!("forgotten: {event_type}"));
        event_type == "noted"
    }
}

#[test]
fn a_failing_test_says_what_is_missing() {
    let failure = |test: fn()| {
        let failed = std::panic::catch_unwind(test).unwrap_err();
        failed.downcast_ref::<String>().unwrap().clone()
    };
    let text = failure(|| {
        let placed = Event::placed("mug", 1);
        testing::given(Orders, []).when(placed).then([Event::Ended]);
    });
    assert!(text.contains("- Ended\n  + Placed { sku: \"mug\", cents: 1 }"), "{text}");
    let text = failure(|| {
        testing::given(Orders, []).when(Event::Ended).then_nothing();
    });
    assert!(text.contains("+ Ended"), "{text}");
    let given = testing::given(Orders, [Event::Ended]);
    assert_eq!(given.when(Event::Ended).then([Event::Ended]).state().len(), 2);
}

#[tokio::test]
async fn somebody_is_forgotten_and_nobody_else() {
    let keys = Arc::new(MemoryKeys::new());
    let personal = PersonalData::new(keys.clone());
    let schema =
        Schema::<Event>::new().unwrap().with_personal_data(personal, |event| match event {
            Event::Noted { text } => Subject::new(text.as_str()).map(Some),
            Event::Placed { sku, .. } => Subject::new(sku.as_str()).map(Some),
            _ => Ok(None),
        });
    let store = Arc::new(MemoryStore::new());
    let orders = CommandHandler::new(store.clone(), Orders).unwrap().with_schema(schema.clone());
    let none = Context::default();
    for (id, event) in [
        ("1", Event::Ended),
        ("1", Event::Noted { text: "ada".into() }),
        ("1", Event::Noted { text: "bob".into() }),
        ("2", Event::placed("ada", 1)),
        ("3", Event::placed("bob", 1)),
    ] {
        orders.execute(id, &event, &none).await.unwrap();
    }
    let bytes: Vec<_> = store.read_all(ReadAll::default()).try_collect().await.unwrap();
    assert!(
        !bytes.iter().any(|event| event.data.bytes().windows(6).any(|part| part == b"{\"text"))
    );
    assert_eq!(orders.load("1").await.unwrap().state.len(), 3);

    keys.forget(&Subject::new("ada").unwrap()).await.unwrap();
    let noted = format!("{:?}", Event::Noted { text: "bob".into() });
    let state = orders.load("1").await.unwrap().state;
    assert_eq!(state, ["Ended", "forgotten: noted", noted.as_str()]);
    let error = orders.load("2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forgotten);
    assert_eq!(error.stream().unwrap().as_str(), "order-2");
    assert_eq!(orders.load("3").await.unwrap().state.len(), 1);
    let event = store.load_stream(&StreamId::new("order-2").unwrap()).await.unwrap().remove(0);
    assert_eq!(schema.decode(&event).await.unwrap(), Decoded::Forgotten);
    let again = orders.execute("4", &Event::placed("ada", 1), &none).await;
    let Err(ExecuteError::Store(error)) = again else { panic!("{again:?}") };
    assert_eq!(error.kind(), ErrorKind::Forgotten);

    let nobody = orders.execute("4", &Event::placed("", 1), &none).await;
    assert!(matches!(nobody, Err(ExecuteError::Store(_))), "a subject without a name");

    // Data that was never encrypted is read as it is.
    let plain = NewEvent::json("noted", &serde_json::json!({ "text": "ada" })).unwrap();
    store.append_to("order-5", ExpectedVersion::NoStream, [plain]).await.unwrap();
    assert_eq!(orders.load("5").await.unwrap().state.len(), 1);
}
