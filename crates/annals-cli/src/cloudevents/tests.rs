//! What is written is read, whoever wrote it.

use super::*;

#[test]
fn what_was_written_is_read() {
    for event in crate::lines::tests::odd() {
        let mut line = Vec::new();
        write(&event, None, &mut line).unwrap();
        let line = String::from_utf8(line).unwrap();
        let read = parse(line.trim_end()).unwrap().into_recorded().unwrap();
        assert_eq!(read, event, "{line}");
    }
}

#[test]
fn takes_events_of_others() {
    let line = r#"{"specversion":"1.0","id":"A234-1234","source":"/mycontext","type":"x.y",
        "subject":"order-1","datacontenttype":"text/xml","data":"<much/>","comexample":"v"}"#;
    let event = parse(line).unwrap();
    assert_eq!(event.stream.as_ref().unwrap().as_str(), "order-1");
    assert_eq!(event.data, Payload::binary("<much/>"));
    assert_eq!(event.id, parse(line).unwrap().id);
    assert_eq!(event.into_recorded().unwrap_err(), "version");
    assert!(parse(&line.replace("1.0", "2.0")).unwrap_err().contains("only 1.0"));
}

fn parsed(line: &str) -> RecordedEvent {
    let place = "\"annalsversion\":\"1\",\"annalsposition\":\"7\"";
    let place = format!("{{{place},\"time\":\"2026-01-31T12:00:00Z\",\"specversion\":\"1.0\",");
    parse(&line.replacen('{', &place, 1)).unwrap().into_recorded().unwrap()
}

#[test]
fn media_types_have_no_case_and_no_one_spelling() {
    for media in [
        "text/json",
        "Application/JSON",
        "application/vnd.acme+JSON",
        "application/cloudevents+json; charset=utf-8",
        "APPLICATION/JSON ;charset=UTF-8",
    ] {
        let line = format!(
            "{{\"id\":\"1\",\"source\":\"/a\",\"type\":\"x\",\"subject\":\"a-1\",\
             \"datacontenttype\":\"{media}\",\"data\":{{\"a\":1.50}}}}"
        );
        let event = parsed(&line);
        assert_eq!(event.data, Payload::json_text("{\"a\":1.50}").unwrap(), "{media}");
        let mut out = Vec::new();
        write(&event, None, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains(&format!("\"datacontenttype\":\"{media}\"")), "{out}");
        assert_eq!(parse(&out).unwrap().into_recorded().unwrap(), event);
    }
    for media in ["text/xml", "application/jsonx", "json/text", "application/x+json+zip"] {
        let line = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/a\",\"type\":\"x\",\
             \"datacontenttype\":\"{media}\",\"data\":{{}}}}"
        );
        assert!(parse(&line).unwrap_err().contains(media), "{media}");
    }
}

#[test]
fn attributes_of_others_come_back_in_an_export() {
    let line = r#"{"id":"A-1","source":"/shop","type":"x","subject":"a-1","data":[1],
        "traceparent":"00-1","urgent":true,"level":7,"gone":null,"dataschema":"http://s",
        "datacontenttype":"text/json"}"#;
    let event = parsed(line);
    let metadata: Value = event.metadata.decode().unwrap();
    let kept = serde_json::json!({"cloudevents": {
        "id": "A-1", "source": "/shop", "datacontenttype": "text/json", "traceparent": "00-1",
        "urgent": true, "level": 7, "dataschema": "http://s",
    }});
    assert_eq!(metadata, kept);
    let mut out = Vec::new();
    write(&event, None, &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    let written: Map<String, Value> = serde_json::from_str(&out).unwrap();
    for (name, value) in kept["cloudevents"].as_object().unwrap() {
        assert_eq!(written.get(name), Some(value), "{out}");
    }
    assert_eq!(parse(&out).unwrap().into_recorded().unwrap(), event);
    // Another program adds an attribute to an export.
    let more = out.replacen("\"level\":7", "\"level\":8,\"added\":\"x\"", 1);
    let more: Value = parse(&more).unwrap().metadata.decode().unwrap();
    assert_eq!(
        (&more["cloudevents"]["level"], &more["cloudevents"]["id"]),
        (&8.into(), &"A-1".into())
    );
    assert_eq!(more["cloudevents"]["added"], "x");
    let error = parse(&line.replacen('{', "{\"specversion\":\"1.0\",\"odd\":[1],", 1)).unwrap_err();
    assert!(error.contains("`odd`"), "{error}");
    let binary = out.replacen("\"annalsmeta\":", "\"annalsmetab64\":\"AAA=\",\"x\":", 1);
    assert!(parse(&binary).unwrap_err().contains("metadata"), "{binary}");
}
