//! Appends, one by one.

use uuid::Uuid;

use crate::{
    ask::{
        Any, Ev, Exists, Exp, NoStream, Rev, Unset, append, ev, evs, options, read, read_all,
        string_id, structured_id,
    },
    given::State,
    play::{List, new_id},
};

pub(crate) const EXPECTED: [Exp; 6] = [Any, NoStream, Exists, Rev(0), Rev(1), Rev(9)];

pub(crate) fn add(list: &mut List) {
    for state in State::ALL {
        for expected in EXPECTED {
            list.add(
                format!("append/expect/{}/{}", state.name(), expected.name()),
                async move |p| {
                    let stream = p.given_state(state).await;
                    p.append(&stream, expected, &[ev("new", "{}")]).await;
                    p.see(&stream).await;
                    p.read(read(format!("$${stream}")).back().end()).await;
                },
            );
        }
    }
    for (name, expected) in [
        ("unset", Unset),
        ("i64max", Rev(i64::MAX as u64)),
        ("u64max", Rev(u64::MAX)),
        ("u64max-1", Rev(u64::MAX - 1)),
        ("u64max-3", Rev(u64::MAX - 3)),
    ] {
        list.add(format!("append/expect/odd/{name}"), async move |p| {
            for state in [State::Missing, State::Live] {
                let stream = p.given_state(state).await;
                p.append(&stream, expected, &[ev("new", "{}")]).await;
                p.see(&stream).await;
            }
        });
    }
    empty(list);
    ids(list);
    retries(list);
    sizes(list);
    contents(list);
    stream_names(list);
    shapes(list);
}

fn empty(list: &mut List) {
    for state in State::ALL {
        for expected in [Any, NoStream, Exists, Rev(1), Rev(9)] {
            list.add(
                format!("append/empty/{}/{}", state.name(), expected.name()),
                async move |p| {
                    let stream = p.given_state(state).await;
                    p.append(&stream, expected, &[]).await;
                    p.see(&stream).await;
                },
            );
        }
    }
    list.add("append/empty/then-events", async |p| {
        let stream = p.stream();
        let first = p.given(&stream, 1).await;
        p.append(&stream, Any, &[]).await;
        p.append(&stream, Rev(0), &[ev("after", "{}")]).await;
        p.see(&stream).await;
        if let Some(first) = first.first() {
            p.read(read_all().at(*first, *first)).await;
        }
    });
}

fn ids(list: &mut List) {
    for (name, id) in [
        ("nil-string", Some(string_id(Uuid::nil()))),
        ("nil-structured", Some(structured_id(Uuid::nil()))),
        ("missing", None),
        ("unset", Some(String::new())),
        ("empty-string", Some("string: \"\"".to_owned())),
        ("no-uuid", Some("string: \"no-uuid\"".to_owned())),
        ("max", Some(string_id(Uuid::max()))),
    ] {
        list.add(format!("append/id/{name}"), async move |p| {
            let stream = p.stream();
            let event = match &id {
                Some(id) => ev("t", "{}").id_text(id),
                None => ev("t", "{}").without_id(),
            };
            p.append(&stream, Any, &[event]).await;
            p.see(&stream).await;
        });
    }
    list.add("append/id/forms", async |p| {
        let stream = p.stream();
        let forms: [fn(Uuid) -> String; 5] = [
            string_id,
            structured_id,
            |id| format!("string: \"{}\"", id.to_string().to_uppercase()),
            |id| format!("string: \"{{{id}}}\""),
            |id| format!("string: \"{}\"", id.simple()),
        ];
        for form in forms {
            let id = form(new_id());
            p.append(&stream, Any, &[ev("t", "{}").id_text(&id)]).await;
        }
        p.see(&stream).await;
        p.read(read(&stream).ids("uuid_option { structured {} }")).await;
        p.read(read(&stream).ids("")).await;
    });
    for expected in [Any, NoStream, Rev(0), Exists] {
        list.add(format!("append/id/twice-in-one/{}", expected.name()), async move |p| {
            let stream = p.stream();
            if matches!(expected, Rev(_) | Exists) {
                p.given(&stream, 1).await;
            }
            let id = new_id();
            let events = [ev("a", "{}").id(id), ev("b", "{}").id(id), ev("c", "{}")];
            p.append(&stream, expected, &events).await;
            p.see(&stream).await;
            p.say("-- again");
            p.append(&stream, expected, &events).await;
            p.see(&stream).await;
        });
    }
    list.add("append/id/same-in-two-streams", async |p| {
        let (one, two) = (p.stream(), p.stream());
        let events = [ev("a", "{}")];
        for stream in [&one, &two] {
            p.append(stream, Any, &events).await;
            p.append(stream, NoStream, &events).await;
        }
        p.see(&two).await;
    });
}

fn retries(list: &mut List) {
    const HOW: [Exp; 4] = [Any, NoStream, Rev(0), Exists];
    /// The stream, and an append of two events that was done.
    async fn done(p: &mut crate::play::Play, expected: Exp) -> (String, Vec<Ev>) {
        let stream = p.stream();
        if matches!(expected, Rev(_) | Exists) {
            p.given(&stream, 1).await;
        }
        let events = vec![ev("a", "{}"), ev("b", "{}")];
        p.append(&stream, expected, &events).await;
        (stream, events)
    }
    for expected in HOW {
        let name = expected.name();
        list.add(format!("append/retry/at-once/{name}"), async move |p| {
            let (stream, events) = done(p, expected).await;
            p.append(&stream, expected, &events).await;
            p.append(&stream, expected, &events).await;
            p.see(&stream).await;
        });
        list.add(format!("append/retry/after-more/{name}"), async move |p| {
            let (stream, events) = done(p, expected).await;
            p.given(&stream, 2).await;
            p.append(&stream, expected, &events).await;
            p.see(&stream).await;
        });
        list.add(format!("append/retry/first-only/{name}"), async move |p| {
            let (stream, events) = done(p, expected).await;
            p.append(&stream, expected, &events[..1]).await;
            p.see(&stream).await;
        });
        list.add(format!("append/retry/second-only/{name}"), async move |p| {
            let (stream, events) = done(p, expected).await;
            p.append(&stream, expected, &events[1..]).await;
            p.see(&stream).await;
        });
        list.add(format!("append/retry/and-one-more/{name}"), async move |p| {
            let (stream, mut events) = done(p, expected).await;
            events.push(ev("c", "{}"));
            p.append(&stream, expected, &events).await;
            p.see(&stream).await;
        });
        list.add(format!("append/retry/a-new-one-first/{name}"), async move |p| {
            let (stream, events) = done(p, expected).await;
            let mut more = vec![ev("c", "{}")];
            more.extend(events);
            p.append(&stream, expected, &more).await;
            p.see(&stream).await;
        });
        list.add(format!("append/retry/other-order/{name}"), async move |p| {
            let (stream, mut events) = done(p, expected).await;
            events.reverse();
            p.append(&stream, expected, &events).await;
            p.see(&stream).await;
        });
        list.add(format!("append/retry/other-data/{name}"), async move |p| {
            let (stream, events) = done(p, expected).await;
            let events: Vec<_> = events.into_iter().map(|event| event.data("{\"x\":1}")).collect();
            p.append(&stream, expected, &events).await;
            p.see(&stream).await;
        });
        list.add(format!("append/retry/after-delete/{name}"), async move |p| {
            let (stream, events) = done(p, expected).await;
            p.given_deleted(&stream).await;
            p.append(&stream, expected, &events).await;
            p.see(&stream).await;
            p.append(&stream, Any, &[ev("after", "{}")]).await;
            p.see(&stream).await;
        });
        list.add(format!("append/retry/after-delete-and-revival/{name}"), async move |p| {
            let (stream, events) = done(p, expected).await;
            p.given_deleted(&stream).await;
            p.append(&stream, Any, &[ev("after", "{}")]).await;
            p.append(&stream, expected, &events).await;
            p.see(&stream).await;
        });
        list.add(format!("append/retry/after-truncation/{name}"), async move |p| {
            let (stream, events) = done(p, expected).await;
            p.given(&stream, 1).await;
            let before = if matches!(expected, Rev(_) | Exists) { 3 } else { 2 };
            p.given_metadata(&stream, &format!("{{\"$tb\":{before}}}")).await;
            p.append(&stream, expected, &events).await;
            p.see(&stream).await;
        });
        list.add(format!("append/retry/after-max-count/{name}"), async move |p| {
            let (stream, events) = done(p, expected).await;
            p.given(&stream, 1).await;
            p.given_metadata(&stream, r#"{"$maxCount":1}"#).await;
            p.append(&stream, expected, &events).await;
            p.see(&stream).await;
        });
        list.add(format!("append/retry/after-tombstone/{name}"), async move |p| {
            let (stream, events) = done(p, expected).await;
            p.given_tombstone(&stream).await;
            p.append(&stream, expected, &events).await;
        });
        list.add(format!("append/retry/many-times-in-flight/{name}"), async move |p| {
            let stream = p.stream();
            if matches!(expected, Rev(_) | Exists) {
                p.given(&stream, 1).await;
            }
            let request = append(&stream, expected, &[ev("a", "{}")]);
            let mut calls: Vec<_> =
                (0..8).map(|_| p.open_all_unseen("Streams/Append", &request)).collect();
            p.say("-> Streams/Append, the same 8 times at once");
            let mut answers = Vec::new();
            for call in &mut calls {
                answers.push(p.result_unseen(call).await);
            }
            answers.sort();
            for answer in answers {
                p.say(format!("<- {answer}"));
            }
            p.see(&stream).await;
        });
    }
    for (name, expected) in
        [("old-revision", Rev(0)), ("current-revision", Rev(1)), ("exists", Exists)]
    {
        list.add(format!("append/retry/after-delete-with/{name}"), async move |p| {
            let stream = p.stream();
            let events = [ev("a", "{}"), ev("b", "{}")];
            p.append(&stream, NoStream, &events).await;
            p.given_deleted(&stream).await;
            p.append(&stream, expected, &events).await;
            p.see(&stream).await;
        });
    }
    list.add("append/retry/current-revision", async |p| {
        let stream = p.stream();
        let events = [ev("a", "{}")];
        p.append(&stream, NoStream, &events).await;
        p.append(&stream, Rev(0), &events).await;
        p.see(&stream).await;
    });
    list.add("append/retry/one-by-one-then-together", async |p| {
        let stream = p.stream();
        let events = [ev("a", "{}"), ev("b", "{}")];
        for event in &events {
            p.append(&stream, Any, std::slice::from_ref(event)).await;
        }
        p.append(&stream, Any, &events).await;
        p.append(&stream, NoStream, &events).await;
        p.see(&stream).await;
    });
    list.add("append/retry/any-then-others", async |p| {
        let stream = p.stream();
        let events = [ev("a", "{}"), ev("b", "{}")];
        for expected in [Any, NoStream, Exists, Rev(0), Rev(1), Rev(9)] {
            p.append(&stream, expected, &events).await;
        }
        p.see(&stream).await;
    });
}

fn sizes(list: &mut List) {
    const MIB: usize = 1024 * 1024;
    let text = |size: usize| "x".repeat(size);
    let cases: Vec<(&str, Vec<(usize, usize)>)> = vec![
        ("data-1MiB", vec![(MIB, 0)]),
        ("data-1MiB-and-1", vec![(MIB + 1, 0)]),
        ("data-1MiB-less-100", vec![(MIB - 100, 0)]),
        ("data-1MiB-less-10", vec![(MIB - 10, 0)]),
        ("data-and-metadata", vec![(MIB - 1000, 2000)]),
        ("metadata-2MiB", vec![(2, 2 * MIB)]),
        ("two-halves", vec![(MIB / 2, 0), (MIB / 2, 0)]),
        ("two-halves-and-1", vec![(MIB / 2, 0), (MIB / 2 + 1, 0)]),
        ("3MiB", vec![(3 * MIB, 0)]),
    ];
    for (name, parts) in cases {
        list.add(format!("append/size/{name}"), async move |p| {
            let stream = p.stream();
            let events: Vec<_> = parts
                .iter()
                .map(|(data, meta)| ev("t", "").binary().data(text(*data)).meta(text(*meta)))
                .collect();
            p.append(&stream, Any, &events).await;
            p.see(&stream).await;
        });
    }
    list.add("append/size/5000-without-data", async |p| {
        let stream = p.stream();
        let mut call = p.open_all_unseen(
            "Streams/Append",
            &append(&stream, Any, &(0..5000).map(|_| ev("t", "")).collect::<Vec<_>>()),
        );
        p.say("-> Streams/Append, 5000 events without data");
        p.finish(&mut call).await;
        p.read(read(&stream).back().end().count(1)).await;
    });
    list.add("append/size/40000-without-data", async |p| {
        let stream = p.stream();
        let mut call = p.open_all_unseen(
            "Streams/Append",
            &append(&stream, Any, &(0..40_000).map(|_| ev("t", "")).collect::<Vec<_>>()),
        );
        p.say("-> Streams/Append, 40000 events without data");
        p.finish(&mut call).await;
        p.read(read(&stream).back().end().count(1)).await;
    });
    for (name, size) in [("300", 300), ("3000", 3000), ("70000", 70_000)] {
        list.add(format!("append/size/type-of-{name}"), async move |p| {
            let stream = p.stream();
            p.append(&stream, Any, &[ev(&"t".repeat(size), "{}")]).await;
            p.see(&stream).await;
        });
        list.add(format!("append/size/stream-name-of-{name}"), async move |p| {
            let stream = format!("{}-{}", p.stream(), "n".repeat(size));
            p.append(&stream, Any, &evs(1)).await;
            p.see(&stream).await;
        });
    }
}

fn contents(list: &mut List) {
    let cases: Vec<(&str, Ev)> = vec![
        ("type-empty", ev("", "{}")),
        ("type-missing", ev("t", "{}").without("type")),
        ("content-type-missing", ev("t", "{}").without("content-type")),
        ("both-missing", ev("t", "{}").without("type").without("content-type")),
        ("content-type-empty", ev("t", "{}").header("content-type", "")),
        ("content-type-text", ev("t", "{}").header("content-type", "text/plain")),
        ("content-type-json-upper", ev("t", "{}").header("content-type", "Application/JSON")),
        (
            "content-type-json-charset",
            ev("t", "{}").header("content-type", "application/json; charset=utf-8"),
        ),
        ("type-system", ev("$system", "{}")),
        ("type-metadata", ev("$metadata", r#"{"$maxCount":1}"#)),
        ("type-link-to-nothing", ev("$>", "0@nothing")),
        ("type-stream-deleted", ev("$streamDeleted", "{}")),
        ("type-with-spaces", ev(" a b ", "{}")),
        ("type-not-ascii", ev("é€😀", "{}")),
        ("type-with-newline", ev("a\nb", "{}")),
        ("json-not-json", ev("t", "this is {no json")),
        ("json-empty", ev("t", "")),
        ("json-not-utf8", ev("t", "").data(b"\xff\xfe")),
        ("json-scalar", ev("t", "3")),
        ("binary", ev("t", "").binary().data([0_u8, 1, 255])),
        ("binary-empty", ev("t", "").binary()),
        ("metadata-json", ev("t", "{}").meta(r#"{"$correlationId":"x", "b" : 1}"#)),
        ("metadata-not-json", ev("t", "{}").meta("no json")),
        ("metadata-not-utf8", ev("t", "{}").meta(b"\xff\xfe")),
        ("more-headers", ev("t", "{}").header("x", "y").header("created", "1")),
    ];
    for (name, event) in cases {
        list.add(format!("append/content/{name}"), async move |p| {
            let stream = p.stream();
            // An id of its own for each run.
            p.append(&stream, Any, &[event.clone().id(new_id())]).await;
            p.see(&stream).await;
        });
    }
}

fn stream_names(list: &mut List) {
    for (name, stream) in [("empty", ""), ("dollars", "$$"), ("dollar", "$")] {
        list.add(format!("append/name/{name}"), async move |p| {
            p.call("Streams/Append", &append(stream, Any, &evs(1))).await;
            p.read(read(stream).count(1)).await;
        });
    }
    for (name, before, after) in [
        ("system", "$", ""),
        ("category", "$ce-", ""),
        ("event-type", "$et-", ""),
        ("by-correlation", "$bc-", ""),
        ("meta-of-system", "$$$", ""),
        ("meta-of-meta", "$$$$", ""),
        ("group", "$persistentsubscription-", "::g"),
        ("space", " ", " x "),
        ("newline", "", "\n"),
        ("not-ascii", "", "é€😀"),
        ("slash-at", "", "/a@b"),
        ("upper", "UPPER-", ""),
        ("like-the-gateways-own", "esdb:$", ""),
        ("nul", "", "\0"),
    ] {
        list.add(format!("append/name/{name}"), async move |p| {
            let stream = format!("{before}{}{after}", p.stream());
            p.append(&stream, Any, &evs(1)).await;
            p.append(&stream, Rev(7), &evs(1)).await;
            p.see(&stream).await;
            p.call("Streams/Tombstone", &[options(&stream, Any)]).await;
            p.see(&stream).await;
            p.append(&stream, Any, &evs(1)).await;
        });
    }
    list.add("append/name/not-utf8", async |p| {
        let mut stream = p.stream().into_bytes();
        stream.push(0xff);
        p.call("Streams/Append", &append(&stream, Any, &evs(1))).await;
        p.read(read(&stream)).await;
    });
    list.add("append/name/missing", async |p| {
        let mut request = append("", Any, &evs(1));
        request[0] = "options { any {} }".to_owned();
        p.call("Streams/Append", &request).await;
    });
    list.add("append/name/case-matters", async |p| {
        let stream = p.stream();
        let (lower, upper) = (format!("{stream}-a"), format!("{stream}-A"));
        p.append(&lower, NoStream, &evs(1)).await;
        p.append(&upper, NoStream, &evs(1)).await;
    });
}

fn shapes(list: &mut List) {
    list.add("append/shape/event-before-options", async |p| {
        let stream = p.stream();
        p.call("Streams/Append", &[ev("t", "{}").proposed(), options(&stream, Any)]).await;
        p.see(&stream).await;
    });
    list.add("append/shape/only-events", async |p| {
        p.call("Streams/Append", &[ev("t", "{}").proposed()]).await;
    });
    list.add("append/shape/options-twice-same-stream", async |p| {
        let stream = p.stream();
        let mut request = append(&stream, Any, &evs(1));
        request.extend(append(&stream, Any, &[ev("u", "{}")]));
        p.call("Streams/Append", &request).await;
        p.see(&stream).await;
    });
    list.add("append/shape/options-twice-two-streams", async |p| {
        let (one, two) = (p.stream(), p.stream());
        let mut request = append(&one, Any, &evs(1));
        request.extend(append(&two, NoStream, &[ev("u", "{}")]));
        p.call("Streams/Append", &request).await;
        p.see(&one).await;
        p.see(&two).await;
    });
    list.add("append/shape/empty-message-between", async |p| {
        let stream = p.stream();
        let mut request = append(&stream, Any, &evs(2));
        request.insert(2, String::new());
        p.call("Streams/Append", &request).await;
        p.see(&stream).await;
    });
    list.add("append/shape/two-expectations", async |p| {
        let stream = p.stream();
        let bytes = {
            // options { stream, no_stream, any } by hand.
            let length = u8::try_from(stream.len()).unwrap_or(0);
            let mut inner = vec![0x0a, length + 2, 0x1a, length];
            inner.extend(stream.as_bytes());
            inner.extend([0x1a, 0, 0x22, 0]);
            let mut all = vec![0x0a, u8::try_from(inner.len()).unwrap_or(0)];
            all.extend(inner);
            all
        };
        p.say("-> Streams/Append, no_stream and any in one message, by hand");
        let mut call = p.open_raw_unseen("/event_store.client.streams.Streams/Append", &[&bytes]);
        p.finish(&mut call).await;
    });
    list.add("append/shape/many-events", async |p| {
        let (before, stream) = (p.stream(), p.stream());
        let anchor = p.given(&before, 1).await;
        p.append(&stream, NoStream, &evs(4)).await;
        p.see(&stream).await;
        if let Some(anchor) = anchor.first() {
            p.read(read_all().at(*anchor, *anchor)).await;
        }
    });
}

/// To streams that everybody uses.
pub(crate) fn add_last(list: &mut List) {
    for (name, stream) in [("all", "$all"), ("metadata-of-all", "$$$all")] {
        list.add(format!("last/append-{name}"), async move |p| {
            p.names.label("$all", "$all");
            p.call("Streams/Append", &append(stream, Any, &evs(1))).await;
            p.call("Streams/BatchAppend", &[crate::ask::batch(new_id(), stream, Any, &evs(1))])
                .await;
            p.read(read(stream).count(1)).await;
        });
    }
}
