//! Reading `$all`.

use crate::{
    ask::{Any, Exists, NoStream, Read, Rev, ev, evs, options, prefix, read, read_all, regex},
    play::{List, Play},
};

/// Three streams, with an event of each in turn. Where the first event is, and the last.
async fn some(p: &mut Play) -> ([String; 3], Vec<u64>) {
    let streams = [p.stream(), p.stream(), p.stream()];
    let mut positions = Vec::new();
    for round in 0..2 {
        for (n, stream) in streams.iter().enumerate() {
            let event = ev(&format!("t{n}"), &format!("{{\"round\":{round}}}"));
            positions.extend(p.given_events(stream, &[event]).await);
        }
    }
    (streams, positions)
}

/// Asks from a place that is no event's, which is shown by this name.
async fn from(p: &mut Play, name: &str, position: u64, make: impl FnOnce(Read) -> Read) {
    p.names.call_it(position, name);
    p.read(make(read_all()).at(position, position)).await;
}

pub(crate) fn add(list: &mut List) {
    list.add("all/forwards-from-first", async |p| {
        let (_, at) = some(p).await;
        p.read(read_all().at(at[0], at[0])).await;
        p.read(read_all().at(at[3], at[3])).await;
    });
    list.add("all/backwards-from-end", async |p| {
        some(p).await;
        p.read(read_all().back().end()).await;
    });
    list.add("all/backwards-from-fourth", async |p| {
        let (_, at) = some(p).await;
        p.read(read_all().back().at(at[3], at[3])).await;
    });
    list.add("all/counts", async |p| {
        let (_, at) = some(p).await;
        for count in [0, 1, 2] {
            p.read(read_all().at(at[0], at[0]).count(count)).await;
            p.read(read_all().back().at(at[5], at[5]).count(count)).await;
        }
    });
    list.add("all/ends", async |p| {
        some(p).await;
        p.read(read_all().count(1)).await;
        p.read(read_all().back().count(1)).await;
        p.read(read_all().end().count(1)).await;
        p.read(read_all().from("").count(1)).await;
        p.read(read_all().back().from("").count(1)).await;
        p.read(read_all().at(0, 0).count(1)).await;
        p.read(read_all().back().at(0, 0).count(1)).await;
    });
    for name in ["forwards", "backwards"] {
        let back = name == "backwards";
        let turn = move |read: Read| if back { read.back() } else { read };
        list.add(format!("all/no-boundary/{name}/plus-1"), async move |p| {
            let (_, at) = some(p).await;
            from(p, "p3+1", at[2] + 1, turn).await;
        });
        list.add(format!("all/no-boundary/{name}/minus-1"), async move |p| {
            let (_, at) = some(p).await;
            from(p, "p3-1", at[2] - 1, turn).await;
        });
        list.add(format!("all/no-boundary/{name}/beyond-by-1"), async move |p| {
            let (_, at) = some(p).await;
            from(p, "p6+1", at[5] + 1, turn).await;
        });
        list.add(format!("all/no-boundary/{name}/beyond-by-1000000"), async move |p| {
            let (_, at) = some(p).await;
            from(p, "p6+1000000", at[5] + 1_000_000, turn).await;
        });
        list.add(format!("all/no-boundary/{name}/beyond-by-10-chunks"), async move |p| {
            let (_, at) = some(p).await;
            from(p, "p6+10GiB", at[5] + 10 * 1024 * 1024 * 1024, turn).await;
        });
        list.add(format!("all/no-boundary/{name}/1"), async move |p| {
            some(p).await;
            from(p, "1", 1, |r| turn(r).count(1)).await;
        });
        list.add(format!("all/no-boundary/{name}/i64max"), async move |p| {
            some(p).await;
            p.read(turn(read_all()).at(i64::MAX as u64, i64::MAX as u64)).await;
        });
        list.add(format!("all/no-boundary/{name}/u64max"), async move |p| {
            some(p).await;
            p.read(turn(read_all()).at(u64::MAX, u64::MAX)).await;
        });
        list.add(format!("all/no-boundary/{name}/within-an-append"), async move |p| {
            let (before, stream) = (p.stream(), p.stream());
            let anchor = p.given(&before, 1).await;
            let last = p.given_append(&stream, NoStream, &evs(4)).await;
            p.given(&before, 1).await;
            let read = p.read(read_all().at(anchor[0], anchor[0])).await;
            // From the position of each event that was read.
            for message in &read.messages {
                let position = crate::play::within(message, &["event", "commit_position"]);
                if let Some(position) = position.and_then(|position| position.as_u64()) {
                    p.read(turn(read_all()).at(position, position).count(2)).await;
                }
            }
            if let Some(last) = last {
                from(p, "last-1", last - 1, |r| turn(r).count(2)).await;
            }
        });
        list.add(format!("all/commit-is-not-prepare/{name}"), async move |p| {
            let (_, at) = some(p).await;
            p.names.call_it(at[2] - 1, "p3-1");
            p.names.call_it(at[2] + 1, "p3+1");
            p.read(turn(read_all()).at(at[2], at[2] - 1)).await;
            p.read(turn(read_all()).at(at[2], at[1])).await;
            p.read(turn(read_all()).at(at[2], at[2] + 1)).await;
            p.read(turn(read_all()).at(at[2], u64::MAX)).await;
            p.read(turn(read_all()).at(at[2], 0)).await;
        });
    }
    filters(list);
    list.add("all/what-a-tombstone-looks-like", async |p| {
        let stream = p.stream();
        let at = p.given(&stream, 2).await;
        p.call("Streams/Tombstone", &[options(&stream, Any)]).await;
        p.read(read_all().at(at[0], at[0])).await;
        p.read(read_all().back().end()).await;
        p.read(read_all().at(at[0], at[0]).links()).await;
        let only = prefix(&[&stream]);
        p.read(read_all().at(at[0], at[0]).filter("stream_identifier", &only, "max: 32", 1)).await;
        let deleted = prefix(&["$streamDeleted"]);
        p.read(read_all().at(at[0], at[0]).filter("event_type", &deleted, "max: 32", 1)).await;
    });
    list.add("all/what-a-tombstone-of-nothing-looks-like", async |p| {
        let (before, stream) = (p.stream(), p.stream());
        let at = p.given(&before, 1).await;
        p.call("Streams/Tombstone", &[options(&stream, NoStream)]).await;
        p.read(read_all().at(at[0], at[0])).await;
    });
    list.add("all/what-a-deletion-looks-like", async |p| {
        let stream = p.stream();
        let at = p.given(&stream, 2).await;
        p.given_metadata(&stream, r#"{"$maxCount":10,"own":"x"}"#).await;
        p.call("Streams/Delete", &[options(&stream, Any)]).await;
        p.read(read_all().at(at[0], at[0])).await;
        p.say("-- revived");
        p.append(&stream, NoStream, &[ev("new", "{}")]).await;
        p.read(read_all().at(at[0], at[0])).await;
        p.say("-- and deleted again");
        p.call("Streams/Delete", &[options(&stream, Rev(2))]).await;
        p.read(read_all().at(at[0], at[0])).await;
    });
    list.add("all/what-truncation-looks-like", async |p| {
        let stream = p.stream();
        let at = p.given(&stream, 3).await;
        p.given_metadata(&stream, r#"{"$tb":2}"#).await;
        p.read(read_all().at(at[0], at[0])).await;
        p.given_metadata(&stream, r#"{"$maxCount":1}"#).await;
        p.read(read_all().at(at[0], at[0])).await;
    });
    list.add("all/what-an-empty-append-looks-like", async |p| {
        let stream = p.stream();
        let at = p.given(&stream, 1).await;
        p.append(&stream, Any, &[]).await;
        p.append(&stream, Exists, &[ev("after", "{}")]).await;
        p.read(read_all().at(at[0], at[0])).await;
    });
    for level in [1, 2] {
        list.add(format!("all/compatibility{level}"), async move |p| {
            let (_, at) = some(p).await;
            p.read(read_all().at(at[0], at[0]).compatibility(level)).await;
            p.read(read_all().at(at[5], at[5]).back().compatibility(level).count(3)).await;
            p.read(read_all().end().compatibility(level).count(3)).await;
        });
    }
    list.add("all/uuid-structured", async |p| {
        let (_, at) = some(p).await;
        p.read(read_all().at(at[0], at[0]).ids("uuid_option { structured {} }").count(1)).await;
        p.read(read_all().at(at[0], at[0]).ids("").count(1)).await;
    });
    list.add("all/next-position", async |p| {
        let (_, at) = some(p).await;
        for from in &at {
            p.read(read_all().at(*from, *from).count(2)).await;
        }
        let _ = read("");
    });
}

fn filters(list: &mut List) {
    type Expression = fn(&[String; 3]) -> String;
    let cases: [(&str, &str, Expression, &str, u32); 28] = [
        ("stream-prefix", "stream_identifier", |s| prefix(&[&s[0]]), "max: 32", 1),
        ("stream-two-prefixes", "stream_identifier", |s| prefix(&[&s[0], &s[2]]), "max: 32", 1),
        ("stream-regex", "stream_identifier", |s| regex(&format!("^{}$", s[1])), "max: 32", 1),
        ("stream-regex-not-anchored", "stream_identifier", |s| regex(&s[1][2..]), "max: 32", 1),
        (
            "stream-regex-look-ahead",
            "stream_identifier",
            |s| regex(&format!("^(?!{}).*", s[1])),
            "max: 32",
            1,
        ),
        ("type-prefix", "event_type", |_| prefix(&["t1"]), "max: 32", 1),
        ("type-two-prefixes", "event_type", |_| prefix(&["t1", "t2"]), "max: 32", 1),
        ("type-regex", "event_type", |_| regex("^t[02]$"), "max: 32", 1),
        ("type-prefix-case", "event_type", |_| prefix(&["T1"]), "max: 32", 1),
        ("type-regex-case", "event_type", |_| regex("^T1"), "max: 32", 1),
        ("no-system", "event_type", |_| regex(r"^[^\$].*"), "max: 32", 1),
        ("nothing-matches", "stream_identifier", |_| prefix(&["no-such-stream-"]), "max: 32", 1),
        ("window-1", "stream_identifier", |s| prefix(&[&s[1]]), "max: 1", 1),
        ("window-2", "stream_identifier", |s| prefix(&[&s[1]]), "max: 2", 3),
        ("window-0", "stream_identifier", |s| prefix(&[&s[1]]), "max: 0", 1),
        ("window-count", "stream_identifier", |s| prefix(&[&s[1]]), "count {}", 1),
        ("window-missing", "stream_identifier", |s| prefix(&[&s[1]]), "", 1),
        ("multiplier-0", "stream_identifier", |s| prefix(&[&s[1]]), "max: 32", 0),
        (
            "prefix-and-regex",
            "stream_identifier",
            |s| format!("{} {}", prefix(&[&s[1]]), regex(&s[2])),
            "max: 32",
            1,
        ),
        ("empty-expression", "stream_identifier", |_| String::new(), "max: 32", 1),
        ("empty-prefix", "stream_identifier", |_| prefix(&[""]), "max: 32", 1),
        ("regex-malformed", "stream_identifier", |_| regex("("), "max: 32", 1),
        ("regex-dotnet-only", "event_type", |_| regex(r"^(?<x>t)(?(x)[01]|2)$"), "max: 32", 1),
        ("regex-unicode-class", "event_type", |_| regex(r"^\p{IsBasicLatin}1$"), "max: 32", 1),
        ("prefix-with-a-null", "event_type", |_| prefix(&["t1\0"]), "max: 32", 1),
        ("prefix-soft-hyphen", "event_type", |_| prefix(&["t\u{ad}1"]), "max: 32", 1),
        ("prefix-zero-width", "event_type", |_| prefix(&["\u{200b}t1"]), "max: 32", 1),
        ("type-prefix-dollar", "event_type", |_| prefix(&["$"]), "max: 32", 1),
    ];
    for (name, on, expression, window, multiplier) in cases {
        list.add(format!("all/filter/{name}"), async move |p| {
            let (streams, at) = some(p).await;
            p.names.label(&streams[1][2..], "S2[2..]");
            let expression = expression(&streams);
            let read = read_all().at(at[0], at[0]).filter(on, &expression, window, multiplier);
            p.read(read.clone()).await;
            p.read(read.clone().count(1)).await;
            let last = at.last().copied().unwrap_or_default();
            p.read(read.back().at(last, last)).await;
        });
    }
    list.add("all/filter/neither-filter-nor-no-filter", async |p| {
        let (_, at) = some(p).await;
        p.read(read_all().at(at[0], at[0]).filter_text("")).await;
    });
    list.add("all/filter/empty-filter", async |p| {
        let (_, at) = some(p).await;
        p.read(read_all().at(at[0], at[0]).filter_text("filter {}")).await;
        p.read(
            read_all()
                .at(at[0], at[0])
                .filter_text("filter { max: 5 checkpointIntervalMultiplier: 1 }"),
        )
        .await;
    });
    list.add("all/filter/prefix-before-a-combining-character", async |p| {
        let stream = p.stream();
        let names = [
            format!("{stream}-e"),
            format!("{stream}-e\u{301}"),
            format!("{stream}-\u{301}e"),
            format!("{stream}-ex"),
            format!("{stream}-e\u{200d}x"),
            format!("{stream}\u{301}"),
        ];
        let mut at = Vec::new();
        for name in &names {
            at.extend(p.given(name, 1).await);
        }
        for one in [stream.clone(), format!("{stream}-"), format!("{stream}-e")] {
            let only = prefix(&[&one]);
            p.read(read_all().at(at[0], at[0]).filter("stream_identifier", &only, "max: 32", 1))
                .await;
            let same = regex(&format!("^{one}"));
            p.read(read_all().at(at[0], at[0]).filter("stream_identifier", &same, "max: 32", 1))
                .await;
        }
    });
}
