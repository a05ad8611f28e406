//! What is encoded is decoded, and what cannot be is refused.

use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    #[serde(rename = "opened")]
    Opened {
        by: String,
        #[serde(default)]
        cents: u64,
    },
    #[serde(rename = "quo\"ted \\ ü")]
    Quoted(Vec<u8>),
    Two(i8, Option<i8>),
    #[serde(alias = "ended")]
    Closed,
}

#[test]
fn the_name_is_the_type_and_the_content_is_the_data() {
    for (event, name, data) in [
        (Event::Opened { by: "}\"{".into(), cents: 3 }, "opened", r#"{"by":"}\"{","cents":3}"#),
        (Event::Quoted(vec![1, 2]), "quo\"ted \\ ü", "[1,2]"),
        (Event::Two(-1, None), "Two", "[-1,null]"),
        (Event::Closed, "Closed", "{}"),
    ] {
        let (found, payload) = encode(&event).unwrap();
        assert_eq!((found.as_str(), payload.bytes().as_ref()), (name, data.as_bytes()));
        assert_eq!(decode::<Event>(name, data.as_bytes()).unwrap(), event);
    }
}

#[test]
fn older_content_is_read() {
    let opened = decode::<Event>("opened", br#" {"by":"me","gone":1} "#).unwrap();
    assert_eq!(opened, Event::Opened { by: "me".into(), cents: 0 });
    assert_eq!(decode::<Event>("ended", br#"{"was":"more"}"#).unwrap(), Event::Closed);
}

#[test]
fn what_does_not_fit_is_refused() {
    for (name, data) in [
        ("Opened", r#"{"by":"me"}"#),
        ("opened", r#"{}"#),
        ("opened", r#"{"by":"me"} 1"#),
        ("Two", "[1]"),
        ("Two", "[1,2,3]"),
        ("Two", ""),
    ] {
        assert!(decode::<Event>(name, data.as_bytes()).is_err(), "{name} {data}");
    }
}

#[test]
fn only_plain_enums_have_names() {
    #[derive(Deserialize)]
    #[serde(tag = "type")]
    enum Internal {
        #[expect(dead_code)]
        A { a: u8 },
    }
    #[derive(Deserialize)]
    #[serde(tag = "type", content = "data")]
    enum Adjacent {
        #[expect(dead_code)]
        A { a: u8 },
    }
    let found = names::<Event>().unwrap();
    for name in ["opened", "quo\"ted \\ ü", "Two", "Closed", "ended"] {
        assert!(found.contains(&name), "{name}");
    }
    assert_eq!(names::<Internal>(), None);
    assert_eq!(names::<Adjacent>(), None);
    assert_eq!(names::<Vec<u8>>(), None);
    assert!(encode(&5).is_err() && encode(&[1]).is_err());
}
