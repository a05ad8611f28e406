//! Files of events, whole, torn and broken.

use std::fs;

use annals::{EventStore, EventStoreExt};
use annals_test_stores::{Fresh, Kind, kinds};

use crate::command::{all, ends, fill, kept, ok, ok_with, url_of};

pub(crate) fn sqlite() -> Kind {
    kinds().into_iter().find(|kind| kind.name() == "sqlite").unwrap()
}

/// An export of a store, as lines.
pub(crate) async fn export(dir: &tempfile::TempDir) -> (Fresh, Vec<String>) {
    let fresh = Fresh::open(&sqlite()).await;
    fill(&fresh.store, 0, 30).await;
    ok(&["copy", &fresh.url, &url_of("jsonl", dir, "export")]).await;
    let text = fs::read_to_string(dir.path().join("export")).unwrap();
    (fresh, text.lines().map(str::to_owned).collect())
}

pub(crate) async fn what_breaks_the_contract_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (fresh, lines) = export(&dir).await;
    let url = url_of("jsonl", &dir, "broken");
    for (name, due) in [("missing", "comes after version"), ("swapped", "comes after")] {
        let mut broken = lines.clone();
        match name {
            "missing" => drop(broken.remove(10)),
            _ => broken.swap(10, 11),
        }
        fs::write(dir.path().join("broken"), broken.join("\n")).unwrap();
        let said = ends(&["verify", &url], 3).await;
        assert!(said.contains(due) && said.contains("of the contract"), "{name}: {said}");
        // Of two, it is said which.
        let said = ends(&["verify", &fresh.url, &url], 3).await;
        assert!(said.contains("/broken: version "), "{name}: {said}");
    }
    // As by somebody who goes past the store.
    let path = fresh.url.strip_prefix("sqlite://").unwrap();
    let connection = rusqlite::Connection::open(path).unwrap();
    let json = "UPDATE annals_events SET data = x'7b' WHERE position = \
                (SELECT min(position) FROM annals_events WHERE kinds & 1)";
    let gap = "DELETE FROM annals_events WHERE position = 10";
    for (harm, due) in [(json, "its data is no JSON"), (gap, "comes after version")] {
        assert_eq!(connection.execute(harm, []).unwrap(), 1);
        let said = ends(&["verify", &fresh.url], 3).await;
        assert!(said.contains(due), "{said}");
    }
}

pub(crate) async fn ids_seen_twice_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = Fresh::open(&sqlite()).await;
    let event = crate::command::event(1);
    for stream in ["a", "b"] {
        let none = annals::ExpectedVersion::NoStream;
        fresh.store.append_to(stream, none, [event.clone()]).await.unwrap();
    }
    let said = ok(&["verify", &fresh.url]).await;
    assert!(said.contains(&format!("id {} stands at position 1 and at 2", event.id())), "{said}");
    drop(dir);
}

pub(crate) async fn the_first_difference_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (fresh, lines) = export(&dir).await;
    let url = url_of("jsonl", &dir, "other");
    let place = lines.iter().rposition(|line| line.contains("\"data\":null")).unwrap();
    for (change, due) in [
        ("data", "another data"),
        ("metadata", "another metadata"),
        ("id", "another id"),
        ("last", "only in sqlite://"),
        ("time", "other record times"),
        ("order", "another order over all streams"),
        ("stream", "new-1: only in "),
    ] {
        let mut other = lines.clone();
        match change {
            "data" => other[place] = other[place].replace("\"data\":null", "\"data\": 0"),
            "metadata" => {
                let with = other.iter().rposition(|line| line.contains("\"c-")).unwrap();
                other[with] = other[with].replace("\"c-", "\"d-");
            }
            "id" => {
                let id = uuid::Uuid::now_v7().to_string();
                let at = other[place].find("\"id\":\"").unwrap() + 6;
                other[place].replace_range(at..at + 36, &id);
            }
            "last" => drop(other.pop()),
            "time" => {
                other[place] =
                    other[place].replacen("\"recorded_at\":\"20", "\"recorded_at\":\"19", 1)
            }
            "order" => swap_streams(&mut other),
            _ => {
                let mut line = other[0].replacen("\"position\":1,", "\"position\":99999,", 1);
                let from = line.find("\"stream\":\"").unwrap() + 10;
                let to = from + line[from..].find('"').unwrap();
                line.replace_range(from..to, "new-1");
                other.push(line);
            }
        }
        fs::write(dir.path().join("other"), other.join("\n")).unwrap();
        let said = ends(&["verify", &fresh.url, &url], 3).await;
        assert!(said.contains(due), "{change}: {said}");
    }
    fs::write(dir.path().join("other"), lines.join("\n")).unwrap();
    ok(&["verify", &fresh.url, &url]).await;
}

/// Exchanges two neighbours of different streams, with their positions as they were.
fn swap_streams(lines: &mut [String]) {
    let field = |line: &str, name: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value[name].to_string()
    };
    let at = (0..lines.len() - 1)
        .find(|&n| field(&lines[n], "stream") != field(&lines[n + 1], "stream"))
        .unwrap();
    let positions = [field(&lines[at], "position"), field(&lines[at + 1], "position")];
    lines.swap(at, at + 1);
    for (line, (is, due)) in lines[at..at + 2]
        .iter_mut()
        .zip([(&positions[1], &positions[0]), (&positions[0], &positions[1])])
    {
        *line = line.replacen(&format!("\"position\":{is},"), &format!("\"position\":{due},"), 1);
    }
}

pub(crate) async fn a_torn_export_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let (fresh, lines) = export(&dir).await;
    let file = dir.path().join("export");
    let whole = fs::read(&file).unwrap();
    let url = url_of("jsonl", &dir, "export");
    let inside_a_character = 1 + whole.iter().position(|byte| *byte > 0x7f).unwrap();
    for cut in [
        0,
        1,
        inside_a_character,
        lines[0].len(),
        lines[0].len() + 1,
        lines[0].len() + 20,
        whole.len() - 1,
    ] {
        fs::write(&file, &whole[..cut]).unwrap();
        ok(&["copy", &fresh.url, &url]).await;
        assert!(fs::read(&file).unwrap() == whole, "cut off at {cut}");
    }
    // What is no export stays as it is.
    for (text, due) in [
        ("something\nelse\n", "line 1"),
        ("one line, and no end to it", "at its end"),
        ("{\"stream\": 1}", "at its end"),
    ] {
        fs::write(&file, text).unwrap();
        let said = ends(&["copy", &fresh.url, &url], 2).await;
        assert!(said.contains(due), "{said}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}

pub(crate) async fn a_file_of_others_is_no_source() {
    let dir = tempfile::tempdir().unwrap();
    let url = url_of("jsonl", &dir, "others");
    for (text, due) in [
        ("{\"type\":\"A\",\"stream\":\"a-1\"}", "line 1: the version is missing"),
        ("\n\n{\"type\":1}", "line 3: "),
        ("{", "line 1: "),
    ] {
        fs::write(dir.path().join("others"), text).unwrap();
        for arguments in [["verify", &url, "--json"], ["read", &url, "--json"]] {
            let said = ends(&arguments, 2).await;
            assert!(said.contains(due), "{said}");
        }
    }
}

pub(crate) async fn cloudevents_of_others_can_be_appended() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = Fresh::open(&sqlite()).await;
    let line = r#"{"specversion":"1.0","id":"A-1","source":"/shop","type":"com.shop.placed","subject":"order-1","data":{"total":4.50}}"#;
    let other = line.replace("A-1", "A-2").replace(",\"subject\":\"order-1\"", "");
    fs::write(dir.path().join("in"), format!("{line}\n{other}\n")).unwrap();
    let file = url_of("cloudevents", &dir, "in");
    ok(&["append", &fresh.url, "--file", &file, "--stream", "rest-1"]).await;
    let events = all(&fresh.store).await;
    let places: Vec<_> =
        events.iter().map(|e| (e.stream.as_str(), e.event_type.as_str())).collect();
    assert_eq!(places, [("order-1", "com.shop.placed"), ("rest-1", "com.shop.placed")]);
    assert_eq!(&**events[0].data.bytes(), br#"{"total":4.50}"#);
    assert_eq!(fresh.store.load_stream(&"order-1".try_into().unwrap()).await.unwrap().len(), 1);
}

/// A position beyond the end of a file is refused as that of a store is: nothing would come for ever.
pub(crate) async fn a_file_has_an_end() {
    let (fresh, dir) = (Fresh::open(&sqlite()).await, tempfile::tempdir().unwrap());
    fill(&fresh.store, 0, 5).await;
    let last = all(&fresh.store).await.last().unwrap().position.get();
    for scheme in ["jsonl", "cloudevents"] {
        let file = url_of(scheme, &dir, scheme);
        ok(&["copy", &fresh.url, &file]).await;
        assert_eq!(ok(&["read", &file, "--after", &last.to_string()]).await, "");
        assert_eq!(
            ok(&["read", &file, "--after", &(last - 1).to_string()]).await.lines().count(),
            1
        );
        // An option that selects nothing does not move the end.
        ok(&["read", &file, "--after", "1", "--stream", "nobody-1"]).await;
        let beyond = (last + 1).to_string();
        for options in [&[][..], &["--json"], &["-n", "1"], &["--stream", "order-1"]] {
            for url in [&file, &fresh.url] {
                let read = ["read", url.as_str(), "--after", &beyond];
                let said = ends(&[&read[..], options].concat(), 1).await;
                assert!(
                    said.contains(&format!("position {beyond} is beyond the end"))
                        && said.contains(&format!("is {last}")),
                    "{said}"
                );
            }
        }
    }
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let empty = format!("jsonl:{}", empty.display());
    ends(&["read", &empty, "--after", "1"], 1).await;
    assert_eq!(ok(&["read", &empty]).await, "");
}

pub(crate) async fn standard_input_and_output_are_files() {
    let (from, to) = (Fresh::open(&sqlite()).await, Fresh::open(&sqlite()).await);
    fill(&from.store, 0, 20).await;
    for scheme in ["jsonl:-", "cloudevents:-"] {
        let exported = ok(&["copy", &from.url, scheme]).await;
        ok_with(&["copy", scheme, &to.url], &exported).await;
        assert_eq!(kept(&all(&to.store).await), kept(&all(&from.store).await));
    }
    assert!(from.store.capabilities().durable);
}
