//! `annals bench`.

use annals_test_stores::{Fresh, Kind};
use quick_xml::{Reader, events::Event};

use crate::{annals, interrupt, leftovers};

pub(crate) async fn on(kind: Kind) {
    let (fresh, dir) = (Fresh::open(&kind).await, tempfile::tempdir().unwrap());
    let svg = dir.path().join("bench.svg");
    let arguments = [
        "bench",
        &fresh.url,
        "--writers=3",
        "--batch=2",
        "--duration=200ms",
        "--warm-up=20ms",
        "--read",
        "--json",
        "--svg",
        svg.to_str().unwrap(),
    ];
    let ran = annals(&arguments).ended_with(0);
    let found = ran.json();
    let store = &found["stores"][0];
    let number = |name: &str| store[name].as_f64().unwrap();
    assert!(number("appends") >= 3.0, "{found:#}");
    assert_eq!(number("events"), 2.0 * number("appends"));
    let rate = number("appends") / number("seconds");
    assert!((number("appends_per_second") - rate).abs() <= rate / 1000.0, "{found:#}");
    let latency: Vec<f64> = ["p50", "p90", "p99", "p99.9", "max"]
        .map(|name| store["latency_ms"][name].as_f64().unwrap())
        .into();
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{found:#}");
    // With those of the warm-up.
    assert!(store["read"]["events"].as_f64().unwrap() >= number("events"), "{found:#}");
    assert_eq!(found["interrupted"], false);
    assert_drawn(&std::fs::read_to_string(svg).unwrap());
    assert_eq!(leftovers::of(&kind, &fresh.url, ran.pid).await, [""; 0]);
}

#[track_caller]
fn assert_drawn(svg: &str) {
    let (mut reader, mut lines) = (Reader::from_str(svg), 0);
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => break,
            Event::Start(tag) | Event::Empty(tag) => {
                lines += u32::from(tag.name().as_ref() == "polyline".as_bytes());
            }
            _ => {}
        }
    }
    assert!(lines >= 2, "{svg}");
    for part in ["<svg", "Latency of appends", "Throughput", "99 %", "events/s"] {
        assert!(svg.contains(part), "{part}");
    }
}

/// Ends at once, with what it has, and cleans up.
pub(crate) async fn interrupted_on(kind: Kind) {
    if !cfg!(unix) || matches!(kind.name(), "memory" | "eventstoredb") {
        // There is no telling from outside that it has begun.
        return;
    }
    let fresh = Fresh::open(&kind).await;
    let arguments = ["bench", &fresh.url, "--duration=1h", "--warm-up=0s"];
    let ran = interrupt(&arguments, &kind, &fresh.url).await.ended_with(130);
    assert!(ran.stdout.contains("ended early"), "{}", ran.stdout);
    assert_eq!(leftovers::of(&kind, &fresh.url, ran.pid).await, [""; 0]);
}

pub(crate) fn two_stores_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("events.db").display());
    let arguments =
        ["bench", "memory:", "--vs", &url, "--rounds=2", "--duration=100ms", "--warm-up=0s"];
    let text = annals(&arguments).ended_with(0).stdout;
    let words: Vec<_> = text.split_whitespace().collect();
    for word in ["ratio", "appends/s", "p99.9", "max"] {
        assert!(words.contains(&word), "{word} in {text}");
    }
    assert!(
        words.iter().filter(|word| word.ends_with('x') && word.len() > 2).count() >= 7,
        "{text}"
    );
    let found = annals(&[&arguments[..], &["--json", "--streams=1"]].concat()).ended_with(0).json();
    for store in 0..2 {
        let rounds = &found["stores"][store]["rounds_appends_per_second"];
        assert_eq!(rounds.as_array().unwrap().len(), 2, "{found:#}");
    }
    // What is written to a disk takes longer.
    assert!(found["second_to_first"]["p50_ms"].as_f64().unwrap() > 1.0, "{found:#}");
    assert!(found["second_to_first"]["appends_per_second"].as_f64().unwrap() < 1.0, "{found:#}");
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

pub(crate) fn what_cannot_be_measured_is_refused() {
    for (arguments, says) in [
        (&["bench", "memory:", "--duration=soon"][..], "500ms, 10s, 1m"),
        (&["bench", "memory:", "--duration=0s"], "--duration is 0"),
        (&["bench", "memory:", "--writers=0"], "0 is not in"),
        (&["bench", "memory:", "--rounds=2"], "--vs"),
        (&["bench", "memory:", "--size=99999999", "--warm-up=0"], "this store takes at most"),
    ] {
        let ran = annals(arguments).ended_with(2);
        assert!(ran.stderr.contains(says), "{says} in {}", ran.stderr);
    }
}
