//! Subscriptions to a stream, and to `$all`.

use crate::{
    ask::{Any, NoStream, Read, ev, evs, options, prefix, read_all, subscribe, subscribe_all},
    given::State,
    play::{Call, List, Play},
};

const PATH: &str = "Streams/Read";

/// Subscribes, and takes what is there.
async fn begin(p: &mut Play, read: &Read) -> Call {
    let mut call = p.open(PATH, &[read.text()]);
    p.drain(&mut call).await;
    call
}

pub(crate) fn add(list: &mut List) {
    type Make = fn(Read) -> Read;
    let cases: [(&str, Make); 14] = [
        ("start", |r| r),
        ("end", |r| r.end()),
        ("rev0", |r| r.rev(0)),
        ("rev1", |r| r.rev(1)),
        ("rev2-last", |r| r.rev(2)),
        ("rev3-next", |r| r.rev(3)),
        ("rev9-beyond", |r| r.rev(9)),
        ("rev-i64max", |r| r.rev(i64::MAX as u64)),
        ("rev-u64max", |r| r.rev(u64::MAX)),
        ("no-place", |r| r.from("")),
        ("backwards", |r| r.back().end()),
        ("with-filter", |r| {
            r.filter_text(
                "filter { event_type { prefix: \"t1\" } max: 10 checkpointIntervalMultiplier: 1 }",
            )
        }),
        ("compatibility1", |r| r.compatibility(1)),
        ("uuid-structured", |r| r.ids("uuid_option { structured {} }")),
    ];
    for (name, make) in cases {
        list.add(format!("subscribe/stream/{name}"), async move |p| {
            let stream = p.stream();
            p.given(&stream, 3).await;
            let mut call = begin(p, &make(subscribe(&stream))).await;
            p.given_events(&stream, &[ev("live", "{}")]).await;
            p.drain(&mut call).await;
        });
    }
    for state in State::ALL {
        for from in ["start", "end"] {
            list.add(format!("subscribe/to/{}/{from}", state.name()), async move |p| {
                let stream = p.given_state(state).await;
                let read = subscribe(&stream);
                let read = if from == "end" { read.end() } else { read };
                let mut call = begin(p, &read).await;
                p.given_append(&stream, Any, &[ev("live", "{}"), ev("live2", "{}")]).await;
                p.drain(&mut call).await;
            });
        }
    }
    list.add("subscribe/stream/many-at-once", async |p| {
        let stream = p.stream();
        let mut call = begin(p, &subscribe(&stream)).await;
        p.given_append(&stream, NoStream, &evs(4)).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/stream/tombstoned-while-live", async |p| {
        let stream = p.given_state(State::Live).await;
        let mut call = begin(p, &subscribe(&stream)).await;
        p.given_tombstone(&stream).await;
        p.drain(&mut call).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/stream/deleted-while-live", async |p| {
        let stream = p.given_state(State::Live).await;
        let mut call = begin(p, &subscribe(&stream)).await;
        p.given_deleted(&stream).await;
        p.drain(&mut call).await;
        p.given_append(&stream, Any, &[ev("new", "{}")]).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/stream/truncated", async |p| {
        let stream = p.stream();
        p.given(&stream, 4).await;
        p.given_metadata(&stream, r#"{"$tb":2}"#).await;
        begin(p, &subscribe(&stream)).await;
        begin(p, &subscribe(&stream).rev(0)).await;
    });
    list.add("subscribe/stream/truncated-to-nothing", async |p| {
        let stream = p.stream();
        p.given(&stream, 2).await;
        p.given_metadata(&stream, r#"{"$tb":2}"#).await;
        let mut call = begin(p, &subscribe(&stream)).await;
        p.given_events(&stream, &[ev("live", "{}")]).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/stream/max-count", async |p| {
        let stream = p.stream();
        p.given(&stream, 4).await;
        p.given_metadata(&stream, r#"{"$maxCount":1}"#).await;
        let mut call = begin(p, &subscribe(&stream)).await;
        p.given_append(&stream, Any, &evs(3)).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/stream/metadata-stream", async |p| {
        let stream = p.stream();
        p.given_metadata(&stream, r#"{"a":1}"#).await;
        p.given_metadata(&stream, r#"{"a":2}"#).await;
        let mut call = begin(p, &subscribe(format!("$${stream}"))).await;
        p.given_metadata(&stream, r#"{"a":3}"#).await;
        p.drain(&mut call).await;
    });
    for resolved in [true, false] {
        list.add(format!("subscribe/stream/links-resolved-{resolved}"), async move |p| {
            let (stream, target, gone) = (p.stream(), p.stream(), p.stream());
            p.given(&target, 2).await;
            p.given(&gone, 1).await;
            p.given_deleted(&gone).await;
            let link = |to: String| ev("$>", &to).binary();
            p.given_events(&stream, &[link(format!("1@{target}")), link(format!("0@{gone}"))])
                .await;
            let read = subscribe(&stream);
            let mut call = begin(p, &if resolved { read.links() } else { read }).await;
            p.given_events(&stream, &[link(format!("0@{target}")), link("0@nothing".to_owned())])
                .await;
            p.drain(&mut call).await;
        });
    }
    list.add("subscribe/stream/empty-append-while-live", async |p| {
        let stream = p.given_state(State::Live).await;
        let mut call = begin(p, &subscribe(&stream)).await;
        p.append(&stream, Any, &[]).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/stream/$all-as-a-stream", async |p| {
        let mut call = p.open(PATH, &[subscribe("$all").end().text()]);
        p.drain(&mut call).await;
    });
    list.add("subscribe/stream/empty-name", async |p| {
        let mut call = p.open(PATH, &[subscribe("").text()]);
        p.drain(&mut call).await;
    });
    all(list);
    checkpoints(list);
}

fn all(list: &mut List) {
    list.add("subscribe/all/from-first", async |p| {
        let (stream, other) = (p.stream(), p.stream());
        let at = p.given(&stream, 2).await;
        p.given(&other, 1).await;
        let mut call = begin(p, &subscribe_all().at(at[0], at[0])).await;
        p.given_events(&other, &[ev("live", "{}")]).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/all/from-last", async |p| {
        let stream = p.stream();
        let at = p.given(&stream, 2).await;
        let mut call = begin(p, &subscribe_all().at(at[1], at[1])).await;
        p.given_events(&stream, &[ev("live", "{}")]).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/all/end", async |p| {
        let stream = p.stream();
        p.given(&stream, 1).await;
        let mut call = begin(p, &subscribe_all().end()).await;
        p.given_append(&stream, Any, &evs(3)).await;
        p.drain(&mut call).await;
    });
    for (name, by) in [("plus-1", 1_i64), ("minus-1", -1), ("plus-1000000", 1_000_000)] {
        list.add(format!("subscribe/all/no-boundary/{name}"), async move |p| {
            let stream = p.stream();
            let at = p.given(&stream, 3).await;
            let from = if by > 1 { at[2] } else { at[1] }.saturating_add_signed(by);
            p.names.call_it(from, &format!("p{}{by:+}", if by > 1 { 3 } else { 2 }));
            let mut call = p.open(PATH, &[subscribe_all().at(from, from).text()]);
            p.drain(&mut call).await;
            p.given_events(&stream, &[ev("live", "{}")]).await;
            p.drain(&mut call).await;
        });
    }
    for (name, position) in [("i64max", i64::MAX as u64), ("u64max", u64::MAX)] {
        list.add(format!("subscribe/all/no-boundary/{name}"), async move |p| {
            let stream = p.stream();
            p.given(&stream, 1).await;
            let mut call = p.open(PATH, &[subscribe_all().at(position, position).text()]);
            p.drain(&mut call).await;
            p.given_events(&stream, &[ev("live", "{}")]).await;
            p.drain(&mut call).await;
        });
    }
    list.add("subscribe/all/tombstone", async |p| {
        let (before, stream) = (p.stream(), p.stream());
        let at = p.given(&before, 1).await;
        p.given(&stream, 1).await;
        p.given_tombstone(&stream).await;
        let mut call = begin(p, &subscribe_all().at(at[0], at[0])).await;
        p.given(&before, 1).await;
        p.given_tombstone(&before).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/all/deletion", async |p| {
        let stream = p.stream();
        let at = p.given(&stream, 1).await;
        let mut call = begin(p, &subscribe_all().at(at[0], at[0])).await;
        p.given_deleted(&stream).await;
        p.given_append(&stream, Any, &[ev("new", "{}")]).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/all/links", async |p| {
        let (stream, target) = (p.stream(), p.stream());
        let at = p.given(&target, 1).await;
        p.given_events(&stream, &[ev("$>", &format!("0@{target}")).binary()]).await;
        begin(p, &subscribe_all().at(at[0], at[0]).links()).await;
    });
    list.add("subscribe/all/backwards", async |p| {
        let mut call = p.open(PATH, &[subscribe_all().back().end().text()]);
        p.drain(&mut call).await;
    });
    list.add("subscribe/all/compatibility1", async |p| {
        let stream = p.stream();
        let at = p.given(&stream, 2).await;
        begin(p, &subscribe_all().at(at[0], at[0]).compatibility(1)).await;
    });
    let _ = read_all();
}

fn checkpoints(list: &mut List) {
    /// Twelve events of another stream, then one that is wanted, then seven others.
    async fn twenty(p: &mut Play) -> (String, String, Vec<u64>) {
        let (wanted, other) = (p.stream(), p.stream());
        let mut at = p.given(&wanted, 1).await;
        at.extend(p.given(&other, 12).await);
        at.extend(p.given(&wanted, 1).await);
        at.extend(p.given(&other, 7).await);
        (wanted, other, at)
    }
    for (name, window, multiplier) in [
        ("max-1-by-1", "max: 1", 1),
        ("max-1-by-5", "max: 1", 5),
        ("max-5-by-1", "max: 5", 1),
        ("max-5-by-2", "max: 5", 2),
        ("max-4-by-3", "max: 4", 3),
        ("max-32-by-1", "max: 32", 1),
        ("count-by-1", "count {}", 1),
        ("max-5-by-0", "max: 5", 0),
        ("max-0-by-1", "max: 0", 1),
        ("no-window", "", 1),
    ] {
        list.add(format!("subscribe/filter/checkpoint/{name}"), async move |p| {
            let (wanted, other, at) = twenty(p).await;
            let read = subscribe_all().at(at[0], at[0]);
            let read = read.filter("stream_identifier", &prefix(&[&wanted]), window, multiplier);
            let mut call = begin(p, &read).await;
            p.say("-- live: six others, one that is wanted, six others");
            p.given(&other, 6).await;
            p.given_events(&wanted, &[ev("live", "{}")]).await;
            p.given(&other, 6).await;
            p.drain(&mut call).await;
        });
    }
    list.add("subscribe/filter/all-wanted", async |p| {
        let stream = p.stream();
        let at = p.given(&stream, 13).await;
        let read = subscribe_all().at(at[0], at[0]);
        let mut call =
            begin(p, &read.filter("stream_identifier", &prefix(&[&stream]), "max: 4", 1)).await;
        p.given(&stream, 9).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/filter/from-end", async |p| {
        let (wanted, other) = (p.stream(), p.stream());
        p.given(&wanted, 1).await;
        let read = subscribe_all().end();
        let mut call =
            begin(p, &read.filter("stream_identifier", &prefix(&[&wanted]), "max: 4", 1)).await;
        p.given(&other, 9).await;
        p.given(&wanted, 1).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/filter/by-type", async |p| {
        let stream = p.stream();
        let at = p.given(&stream, 6).await;
        let read = subscribe_all().at(at[0], at[0]);
        let mut call =
            begin(p, &read.filter("event_type", &prefix(&["t3", "t4", "w"]), "max: 32", 1)).await;
        p.given_events(&stream, &[ev("w", "{}"), ev("x", "{}")]).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/filter/tombstone", async |p| {
        let stream = p.stream();
        let at = p.given(&stream, 1).await;
        let read = subscribe_all().at(at[0], at[0]);
        let mut call =
            begin(p, &read.filter("stream_identifier", &prefix(&[&stream]), "max: 32", 1)).await;
        p.call("Streams/Tombstone", &[options(&stream, Any)]).await;
        p.drain(&mut call).await;
    });
    list.add("subscribe/filter/no-boundary", async |p| {
        let stream = p.stream();
        let at = p.given(&stream, 3).await;
        p.names.call_it(at[1] + 1, "p2+1");
        let read = subscribe_all().at(at[1] + 1, at[1] + 1);
        let mut call = p.open(
            PATH,
            &[read.filter("stream_identifier", &prefix(&[&stream]), "max: 32", 1).text()],
        );
        p.drain(&mut call).await;
    });
    list.add("subscribe/filter/regex-malformed", async |p| {
        let mut call = p.open(
            PATH,
            &[subscribe_all().end().filter("event_type", "regex: \"(\"", "max: 32", 1).text()],
        );
        p.drain(&mut call).await;
    });
    list.add("subscribe/filter/neither", async |p| {
        let mut call = p.open(PATH, &[subscribe_all().end().filter_text("").text()]);
        p.drain(&mut call).await;
    });
}
