//! Reading a stream.

use crate::{
    ask::{Any, NoStream, ev, evs, ident, options, read},
    given::State,
    play::{List, Play},
};

/// A stream of five events.
async fn five(p: &mut Play) -> String {
    let stream = p.stream();
    p.given(&stream, 5).await;
    stream
}

pub(crate) fn add(list: &mut List) {
    type Make = fn(crate::ask::Read) -> crate::ask::Read;
    let cases: [(&str, Make); 33] = [
        ("start-all", |r| r),
        ("start-2", |r| r.count(2)),
        ("start-0", |r| r.count(0)),
        ("start-5", |r| r.count(5)),
        ("start-u64max", |r| r.count(u64::MAX)),
        ("start-i32max-and-1", |r| r.count(1 << 31)),
        ("rev0-1", |r| r.rev(0).count(1)),
        ("rev2", |r| r.rev(2)),
        ("rev4-last", |r| r.rev(4)),
        ("rev5-next", |r| r.rev(5)),
        ("rev9-beyond", |r| r.rev(9)),
        ("rev-i64max", |r| r.rev(i64::MAX as u64)),
        ("rev-u64max", |r| r.rev(u64::MAX)),
        ("end", |r| r.end()),
        ("no-place", |r| r.from("")),
        ("back-end-all", |r| r.back().end()),
        ("back-end-2", |r| r.back().end().count(2)),
        ("back-end-0", |r| r.back().end().count(0)),
        ("back-rev2", |r| r.back().rev(2)),
        ("back-rev0", |r| r.back().rev(0)),
        ("back-start", |r| r.back()),
        ("back-rev5-next", |r| r.back().rev(5)),
        ("back-rev9-beyond", |r| r.back().rev(9)),
        ("back-rev-i64max", |r| r.back().rev(i64::MAX as u64)),
        ("back-rev-u64max", |r| r.back().rev(u64::MAX)),
        ("back-no-place", |r| r.back().from("")),
        ("no-count", |r| r.count_text("")),
        ("no-uuid-option", |r| r.ids("")),
        ("uuid-option-empty", |r| r.ids("uuid_option {}")),
        ("uuid-structured", |r| r.ids("uuid_option { structured {} }")),
        ("no-filter-option", |r| r.filter_text("")),
        ("with-a-filter", |r| r.filter_text("filter { event_type { prefix: \"t1\" } max: 10 }")),
        ("links", |r| r.links()),
    ];
    for (name, make) in cases {
        list.add(format!("read/five/{name}"), async move |p| {
            let stream = five(p).await;
            p.read(make(read(&stream))).await;
        });
    }
    for level in [1, 2] {
        let cases: [(&str, Make); 5] = [
            ("start", |r| r),
            ("start-2", |r| r.count(2)),
            ("back", |r| r.back().end()),
            ("beyond", |r| r.rev(9)),
            ("end", |r| r.end()),
        ];
        for (name, make) in cases {
            list.add(format!("read/compatibility{level}/{name}"), async move |p| {
                let stream = five(p).await;
                p.read(make(read(&stream)).compatibility(level)).await;
            });
        }
        list.add(format!("read/compatibility{level}/missing"), async move |p| {
            let stream = p.stream();
            p.read(read(&stream).compatibility(level)).await;
        });
        list.add(format!("read/compatibility{level}/truncated"), async move |p| {
            let stream = five(p).await;
            p.given_metadata(&stream, r#"{"$tb":2}"#).await;
            p.read(read(&stream).compatibility(level)).await;
        });
    }
    for state in State::ALL {
        list.add(format!("read/state/{}", state.name()), async move |p| {
            let stream = p.given_state(state).await;
            p.read(read(&stream)).await;
            p.read(read(&stream).rev(1)).await;
            p.read(read(&stream).rev(7)).await;
            p.read(read(&stream).end()).await;
            p.read(read(&stream).count(0)).await;
            p.read(read(&stream).back().end()).await;
            p.read(read(&stream).back().rev(0)).await;
            p.read(read(&stream).back().end().count(0)).await;
        });
        list.add(format!("read/metadata-of/{}", state.name()), async move |p| {
            let stream = p.given_state(state).await;
            let metadata = format!("$${stream}");
            p.read(read(&metadata)).await;
            p.read(read(&metadata).back().end().count(1)).await;
        });
    }
    for (name, metadata) in [
        ("max-count-2", r#"{"$maxCount":2}"#),
        ("max-count-1", r#"{"$maxCount":1}"#),
        ("max-count-0", r#"{"$maxCount":0}"#),
        ("max-count-negative", r#"{"$maxCount":-1}"#),
        ("max-count-text", r#"{"$maxCount":"2"}"#),
        ("max-count-too-large", r#"{"$maxCount":99999999999}"#),
        ("tb-2", r#"{"$tb":2}"#),
        ("tb-5-next", r#"{"$tb":5}"#),
        ("tb-9-beyond", r#"{"$tb":9}"#),
        ("tb-i64max", r#"{"$tb":9223372036854775807}"#),
        ("tb-negative", r#"{"$tb":-1}"#),
        ("tb-and-max-count", r#"{"$tb":1,"$maxCount":3}"#),
        ("max-age-long", r#"{"$maxAge":1000}"#),
        ("not-json", "no json"),
        ("array", "[1]"),
        ("empty", ""),
    ] {
        list.add(format!("read/truncated/{name}"), async move |p| {
            let stream = five(p).await;
            p.given_metadata(&stream, metadata).await;
            p.read(read(&stream)).await;
            p.read(read(&stream).count(1)).await;
            p.read(read(&stream).rev(1).count(2)).await;
            p.read(read(&stream).back().end()).await;
            p.read(read(&stream).back().rev(1)).await;
            p.say("-- and appending");
            p.append(&stream, NoStream, &[ev("no", "{}")]).await;
            p.append(&stream, crate::ask::Exists, &[ev("u", "{}")]).await;
            p.append(&stream, crate::ask::Rev(5), &[ev("v", "{}")]).await;
            p.read(read(&stream)).await;
            p.read(read(format!("$${stream}")).back().end()).await;
        });
    }
    list.add("read/truncated/max-age-passed", async |p| {
        let stream = p.stream();
        p.given(&stream, 2).await;
        p.given_metadata(&stream, r#"{"$maxAge":1}"#).await;
        p.pause(2100).await;
        p.read(read(&stream)).await;
        p.read(read(&stream).back().end()).await;
        p.append(&stream, Any, &[ev("young", "{}")]).await;
        p.read(read(&stream)).await;
        p.read(read(&stream).back().end()).await;
    });
    links(list);
    for (name, stream) in [
        ("all", "$all"),
        ("empty", ""),
        ("dollars", "$$"),
        ("ce", "$ce-nothing-here"),
        ("dollar", "$"),
    ] {
        list.add(format!("read/name/{name}"), async move |p| {
            p.call("Streams/Read", &[read(stream).count(1).text()]).await;
            p.call("Streams/Read", &[read(stream).count(1).back().end().text()]).await;
        });
    }
    list.add("read/name/missing-in-request", async |p| {
        let text =
            "options { stream { start {} } count: 1 no_filter {} uuid_option { string {} } }";
        p.call("Streams/Read", &[text.to_owned()]).await;
    });
    list.add("read/name/category", async |p| {
        let stream = p.stream();
        p.given(&stream, 1).await;
        let category = stream.split_once('-').map_or("", |(category, _)| category).to_owned();
        p.names.label(&category, "CATEGORY");
        p.read(read(format!("$ce-{category}")).count(0).back().end()).await;
    });
    list.add("read/name/not-ascii-tombstoned", async |p| {
        let stream = format!("{}-é€", p.stream());
        p.append(&stream, NoStream, &evs(1)).await;
        p.append(&stream, NoStream, &evs(1)).await;
        p.call("Streams/Delete", &[options(&stream, crate::ask::Rev(9))]).await;
        p.call("Streams/Tombstone", &[options(&stream, Any)]).await;
        p.append(&stream, Any, &evs(1)).await;
        p.read(read(&stream)).await;
        p.call("Streams/Delete", &[options(&stream, Any)]).await;
    });
    list.add("read/direction/unknown", async |p| {
        let stream = five(p).await;
        let text = format!(
            "options {{ stream {{ {} start {{}} }} read_direction: 7 count: 3 no_filter {{}} uuid_option {{ string {{}} }} }}",
            ident(&stream)
        );
        p.call("Streams/Read", &[text]).await;
    });
}

fn links(list: &mut List) {
    /// What a link leads to.
    #[derive(Clone, Copy, PartialEq)]
    enum To {
        Live,
        MissingStream,
        MissingEvent,
        Deleted,
        Tombstoned,
        Truncated,
        Link,
        Malformed,
        Empty,
        Metadata,
        Negative,
        Spaces,
    }
    use To::{
        Deleted, Empty, Link, Live, Malformed, Metadata, MissingEvent, MissingStream, Negative,
        Spaces, Tombstoned, Truncated,
    };
    for (name, to) in [
        ("live", Live),
        ("missing-stream", MissingStream),
        ("missing-event", MissingEvent),
        ("deleted", Deleted),
        ("tombstoned", Tombstoned),
        ("truncated", Truncated),
        ("another-link", Link),
        ("malformed", Malformed),
        ("empty", Empty),
        ("metadata", Metadata),
        ("negative", Negative),
        ("spaces", Spaces),
    ] {
        list.add(format!("read/link-to/{name}"), async move |p| {
            let (stream, target) = (p.stream(), p.stream());
            if to != MissingStream {
                p.given(&target, 2).await;
            }
            let mut data = format!("1@{target}");
            match to {
                MissingEvent => data = format!("5@{target}"),
                Deleted => p.given_deleted(&target).await,
                Tombstoned => p.given_tombstone(&target).await,
                Truncated => p.given_metadata(&target, r#"{"$tb":2}"#).await,
                Link => {
                    let link = ev("$>", &format!("0@{target}")).binary();
                    p.given_events(&target, &[link]).await;
                    data = format!("2@{target}");
                }
                Malformed => data = "this is no link".to_owned(),
                Empty => data = String::new(),
                Metadata => {
                    p.given_metadata(&target, r#"{"x":1}"#).await;
                    data = format!("0@$${target}");
                }
                Negative => data = format!("-1@{target}"),
                Spaces => data = format!(" 1 @ {target} "),
                Live | MissingStream => {}
            }
            let link = ev("$>", &data).binary().meta(r#"{"m":1}"#);
            let positions = p.given_events(&stream, &[link, ev("plain", "{}")]).await;
            p.read(read(&stream).links()).await;
            p.read(read(&stream).links().back().end()).await;
            p.read(read(&stream)).await;
            if let Some(first) = positions.first() {
                p.read(crate::ask::read_all().at(*first, *first).links()).await;
            }
        });
    }
    list.add("read/link-to/content-type-json", async |p| {
        let (stream, target) = (p.stream(), p.stream());
        p.given(&target, 1).await;
        p.given_events(&stream, &[ev("$>", &format!("0@{target}"))]).await;
        p.read(read(&stream).links()).await;
    });
}
