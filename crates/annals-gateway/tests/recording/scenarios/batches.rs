//! Appends in batches.

use uuid::Uuid;

use super::appends::EXPECTED;
use crate::{
    ask::{
        Any, Ev, Exists, NoStream, Rev, Unset, batch, chunk, ev, evs, ident, string_id,
        structured_id,
    },
    given::State,
    play::{List, Play, new_id},
};

const PATH: &str = "Streams/BatchAppend";

async fn one(p: &mut Play, stream: &str, expected: crate::ask::Exp, events: &[Ev]) {
    p.call(PATH, &[batch(new_id(), stream, expected, events)]).await;
}

pub(crate) fn add(list: &mut List) {
    for state in State::ALL {
        for expected in EXPECTED {
            list.add(
                format!("batch/expect/{}/{}", state.name(), expected.name()),
                async move |p| {
                    let stream = p.given_state(state).await;
                    one(p, &stream, expected, &[ev("new", "{}")]).await;
                    p.see(&stream).await;
                },
            );
        }
    }
    for state in [State::Missing, State::Live, State::Deleted, State::Tombstoned] {
        for expected in [Any, NoStream, Exists, Rev(9)] {
            list.add(format!("batch/empty/{}/{}", state.name(), expected.name()), async move |p| {
                let stream = p.given_state(state).await;
                one(p, &stream, expected, &[]).await;
                p.see(&stream).await;
            });
        }
    }
    for expected in [Any, NoStream, Rev(0), Exists] {
        list.add(format!("batch/retry/{}", expected.name()), async move |p| {
            let stream = p.stream();
            if matches!(expected, Rev(_) | Exists) {
                p.given(&stream, 1).await;
            }
            let events = [ev("a", "{}"), ev("b", "{}")];
            one(p, &stream, expected, &events).await;
            one(p, &stream, expected, &events).await;
            p.say("-- the first, and another");
            one(p, &stream, expected, &[events[0].clone(), ev("c", "{}")]).await;
            p.given_deleted(&stream).await;
            p.say("-- after a deletion");
            one(p, &stream, expected, &events).await;
            p.see(&stream).await;
        });
    }
    for (name, expected) in
        [("unset", Unset), ("i64max", Rev(i64::MAX as u64)), ("u64max", Rev(u64::MAX))]
    {
        list.add(format!("batch/expect/odd/{name}"), async move |p| {
            let stream = p.given_state(State::Live).await;
            one(p, &stream, expected, &[ev("new", "{}")]).await;
            p.see(&stream).await;
        });
    }
    let events: Vec<(&str, Ev)> = vec![
        ("nil-id", ev("t", "{}").id(Uuid::nil())),
        ("no-id", ev("t", "{}").without_id()),
        ("id-is-no-uuid", ev("t", "{}").id_text("string: \"x\"")),
        ("type-empty", ev("", "{}")),
        ("type-missing", ev("t", "{}").without("type")),
        ("content-type-missing", ev("t", "{}").without("content-type")),
        ("content-type-text", ev("t", "{}").header("content-type", "text/plain")),
        ("json-not-json", ev("t", "no json")),
        ("data-1MiB-and-1", ev("t", "").binary().data("x".repeat(1024 * 1024 + 1))),
        ("data-1MiB", ev("t", "").binary().data("x".repeat(1024 * 1024))),
        ("metadata-2MiB", ev("t", "").binary().meta("x".repeat(2 * 1024 * 1024))),
    ];
    for (name, event) in events {
        list.add(format!("batch/event/{name}"), async move |p| {
            let (stream, after) = (p.stream(), p.stream());
            let event =
                if name.contains("id") { event.clone() } else { event.clone().id(new_id()) };
            // Whether the call goes on.
            let mut call = p.open(PATH, &[batch(new_id(), &stream, Any, &[event])]);
            p.take(&mut call, 1).await;
            p.send(&mut call, &batch(new_id(), &after, Any, &evs(1)));
            p.finish(&mut call).await;
            p.see(&stream).await;
            p.see(&after).await;
        });
    }
    for (name, stream) in [("empty", ""), ("all", "$all"), ("dollars", "$$")] {
        list.add(format!("batch/name/{name}"), async move |p| {
            let after = p.stream();
            let mut call = p.open(PATH, &[batch(new_id(), stream, Any, &evs(1))]);
            p.take(&mut call, 1).await;
            p.send(&mut call, &batch(new_id(), &after, Any, &evs(1)));
            p.finish(&mut call).await;
        });
    }
    list.add("batch/chunks/three", async |p| {
        let stream = p.stream();
        let id = Some(new_id());
        let of = Some((stream.as_bytes(), NoStream));
        let mut call = p.open(PATH, &[chunk(id, of, &evs(1), false, "")]);
        p.send(&mut call, &chunk(id, None, &evs(2), false, ""));
        p.send(&mut call, &chunk(id, None, &evs(1), true, ""));
        p.finish(&mut call).await;
        p.see(&stream).await;
    });
    list.add("batch/chunks/last-one-empty", async |p| {
        let stream = p.stream();
        let id = Some(new_id());
        let of = Some((stream.as_bytes(), NoStream));
        let mut call = p.open(PATH, &[chunk(id, of, &evs(2), false, "")]);
        p.send(&mut call, &chunk(id, None, &[], true, ""));
        p.finish(&mut call).await;
        p.see(&stream).await;
    });
    list.add("batch/chunks/options-in-the-second", async |p| {
        let stream = p.stream();
        let id = Some(new_id());
        let of = Some((stream.as_bytes(), NoStream));
        let mut call = p.open(PATH, &[chunk(id, None, &evs(1), false, "")]);
        p.send(&mut call, &chunk(id, of, &evs(1), true, ""));
        p.finish(&mut call).await;
        p.see(&stream).await;
    });
    list.add("batch/chunks/options-in-both", async |p| {
        let (stream, other) = (p.stream(), p.stream());
        let id = Some(new_id());
        let first = chunk(id, Some((stream.as_bytes(), NoStream)), &evs(1), false, "");
        let mut call = p.open(PATH, &[first]);
        p.send(&mut call, &chunk(id, Some((other.as_bytes(), Any)), &evs(1), true, ""));
        p.finish(&mut call).await;
        p.see(&stream).await;
        p.see(&other).await;
    });
    list.add("batch/chunks/two-interleaved", async |p| {
        let (stream, other) = (p.stream(), p.stream());
        let (one, two) = (Some(new_id()), Some(new_id()));
        let mut call =
            p.open(PATH, &[chunk(one, Some((stream.as_bytes(), NoStream)), &evs(1), false, "")]);
        p.send(&mut call, &chunk(two, Some((other.as_bytes(), NoStream)), &evs(1), false, ""));
        p.send(&mut call, &chunk(one, None, &evs(1), true, ""));
        p.take(&mut call, 1).await;
        p.send(&mut call, &chunk(two, None, &evs(1), true, ""));
        p.finish(&mut call).await;
        p.see(&stream).await;
        p.see(&other).await;
    });
    list.add("batch/chunks/never-finished", async |p| {
        let stream = p.stream();
        let of = Some((stream.as_bytes(), NoStream));
        p.call(PATH, &[chunk(Some(new_id()), of, &evs(1), false, "")]).await;
        p.see(&stream).await;
    });
    list.add("batch/chunks/too-large-together", async |p| {
        let stream = p.stream();
        let id = Some(new_id());
        let of = Some((stream.as_bytes(), NoStream));
        let part = || [ev("t", "").binary().data("x".repeat(700_000))];
        let mut call = p.open(PATH, &[chunk(id, of, &part(), false, "")]);
        p.send(&mut call, &chunk(id, None, &part(), true, ""));
        p.finish(&mut call).await;
        p.see(&stream).await;
    });
    list.add("batch/options/none", async |p| {
        let after = p.stream();
        let mut call = p.open(PATH, &[chunk(Some(new_id()), None, &evs(1), true, "")]);
        p.take_within(&mut call, 1, std::time::Duration::from_secs(2)).await;
        p.send(&mut call, &batch(new_id(), &after, Any, &evs(1)));
        p.finish(&mut call).await;
    });
    list.add("batch/correlation/none", async |p| {
        let stream = p.stream();
        p.call(PATH, &[chunk(None, Some((stream.as_bytes(), Any)), &evs(1), true, "")]).await;
        p.see(&stream).await;
    });
    for (name, form) in [
        ("structured", structured_id as fn(Uuid) -> String),
        ("string", string_id),
        ("nil", |_| structured_id(Uuid::nil())),
    ] {
        list.add(format!("batch/correlation/{name}"), async move |p| {
            let stream = p.stream();
            let body = chunk(None, Some((stream.as_bytes(), Any)), &evs(1), true, "");
            p.call(PATH, &[format!("correlation_id {{ {} }} {body}", form(new_id()))]).await;
        });
    }
    list.add("batch/correlation/no-uuid", async |p| {
        let stream = p.stream();
        let body = chunk(None, Some((stream.as_bytes(), Any)), &evs(1), true, "");
        p.call(PATH, &[format!("correlation_id {{ string: \"x\" }} {body}")]).await;
    });
    list.add("batch/correlation/used-twice", async |p| {
        let stream = p.stream();
        let id = new_id();
        let mut call = p.open(PATH, &[batch(id, &stream, Any, &[ev("a", "{}")])]);
        p.take(&mut call, 1).await;
        p.send(&mut call, &batch(id, &stream, Any, &[ev("b", "{}")]));
        p.finish(&mut call).await;
        p.see(&stream).await;
    });
    for (name, deadline) in [
        ("long", "deadline { seconds: 30 }"),
        ("1ns", "deadline { nanos: 1 }"),
        ("zero", "deadline {}"),
        ("negative", "deadline { seconds: -1 }"),
        ("timestamp-past", "deadline_21_10_0 { seconds: 1000 }"),
        ("timestamp-future", "deadline_21_10_0 { seconds: 2900000000 }"),
    ] {
        list.add(format!("batch/deadline/{name}"), async move |p| {
            let stream = p.stream();
            let of = Some((stream.as_bytes(), Any));
            p.call(PATH, &[chunk(Some(new_id()), of, &evs(1), true, deadline)]).await;
            p.see(&stream).await;
        });
    }
    list.add("batch/deadline/passes-between-chunks", async |p| {
        let stream = p.stream();
        let id = Some(new_id());
        let of = Some((stream.as_bytes(), Any));
        let mut call =
            p.open(PATH, &[chunk(id, of, &evs(1), false, "deadline { nanos: 300000000 }")]);
        p.take_within(&mut call, 2, std::time::Duration::from_secs(1)).await;
        p.send(&mut call, &chunk(id, None, &evs(1), true, ""));
        p.finish(&mut call).await;
        p.see(&stream).await;
    });
    list.add("batch/order/one-stream-pipelined", async |p| {
        let stream = p.stream();
        let messages: Vec<_> = (0..6)
            .map(|n| {
                let expected = if n == 0 { NoStream } else { Rev(n - 1) };
                batch(new_id(), &stream, expected, &[ev(&format!("t{n}"), "{}")])
            })
            .collect();
        p.call(PATH, &messages).await;
        p.see(&stream).await;
    });
    list.add("batch/order/wrong-one-in-the-middle", async |p| {
        let stream = p.stream();
        let messages = [
            batch(new_id(), &stream, NoStream, &evs(1)),
            batch(new_id(), &stream, Rev(7), &evs(1)),
            batch(new_id(), &stream, Rev(0), &evs(1)),
        ];
        let mut call = p.open(PATH, &messages[..1]);
        p.take(&mut call, 1).await;
        p.send(&mut call, &messages[1]);
        p.take(&mut call, 1).await;
        p.send(&mut call, &messages[2]);
        p.take(&mut call, 1).await;
        p.finish(&mut call).await;
        p.see(&stream).await;
    });
    list.add("batch/cut-off", async |p| {
        let stream = p.stream();
        let of = Some((stream.as_bytes(), NoStream));
        let call = p.open(PATH, &[chunk(Some(new_id()), of, &evs(2), false, "")]);
        p.pause(200).await;
        drop(call);
        p.say("-> (cancelled before its last chunk)");
        p.pause(300).await;
        p.see(&stream).await;
    });
    list.add("batch/stream-missing-in-options", async |p| {
        let events = evs(1);
        let body = format!("options {{ any {{}} }} {} is_final: true", events[0].in_batch());
        let id = string_id(new_id());
        p.call(PATH, &[format!("correlation_id {{ {id} }} {body}")]).await;
    });
    list.add("batch/system-stream", async |p| {
        let stream = format!("$${}", p.stream());
        one(p, &stream, NoStream, &[ev("$metadata", r#"{"$maxCount":2}"#)]).await;
        one(p, &stream, NoStream, &[ev("$metadata", r#"{"$maxCount":2}"#)]).await;
        let _ = ident("");
    });
}
