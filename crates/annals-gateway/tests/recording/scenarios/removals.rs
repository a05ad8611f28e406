//! Deleting and tombstoning.

use super::appends::EXPECTED;
use crate::{
    ask::{Any, Exists, NoStream, Rev, Unset, ev, evs, options, read, read_all},
    given::State,
    play::List,
};

pub(crate) fn add(list: &mut List) {
    for method in ["Delete", "Tombstone"] {
        let path = format!("Streams/{method}");
        let low = method.to_lowercase();
        for state in State::ALL {
            for expected in EXPECTED {
                let path = path.clone();
                list.add(
                    format!("{low}/expect/{}/{}", state.name(), expected.name()),
                    async move |p| {
                        let stream = p.given_state(state).await;
                        p.call(&path, &[options(&stream, expected)]).await;
                        p.see(&stream).await;
                        p.read(read(format!("$${stream}")).back().end()).await;
                    },
                );
            }
        }
        for (name, expected) in
            [("unset", Unset), ("u64max", Rev(u64::MAX)), ("i64max", Rev(i64::MAX as u64))]
        {
            let path = path.clone();
            list.add(format!("{low}/expect/odd/{name}"), async move |p| {
                let stream = p.given_state(State::Live).await;
                p.call(&path, &[options(&stream, expected)]).await;
                p.see(&stream).await;
            });
        }
        let again = path.clone();
        list.add(format!("{low}/twice"), async move |p| {
            let stream = p.given_state(State::Live).await;
            for expected in [Any, Any, Exists, Rev(1), NoStream] {
                p.call(&again, &[options(&stream, expected)]).await;
            }
        });
        let where_ = path.clone();
        list.add(format!("{low}/position"), async move |p| {
            let (stream, other) = (p.stream(), p.stream());
            let at = p.given(&stream, 1).await;
            p.call(&where_, &[options(&stream, Any)]).await;
            p.given(&other, 1).await;
            p.read(read_all().at(at[0], at[0])).await;
        });
        for (name, before) in
            [("metadata-stream", "$$"), ("system-stream", "$"), ("metadata-of-system", "$$$")]
        {
            let path = path.clone();
            list.add(format!("{low}/name/{name}"), async move |p| {
                let base = p.stream();
                let stream = format!("{before}{base}");
                p.append(&stream, Any, &[ev("$metadata", r#"{"$maxCount":3}"#)]).await;
                p.call(&path, &[options(&stream, Any)]).await;
                p.see(&stream).await;
                p.append(&stream, Any, &[ev("$metadata", r#"{"$maxCount":4}"#)]).await;
                p.see(&stream).await;
                p.see(&base).await;
                p.append(&base, Any, &evs(1)).await;
            });
        }
        for (name, stream) in [("empty", ""), ("dollars", "$$")] {
            let path = path.clone();
            list.add(format!("{low}/name/{name}"), async move |p| {
                p.call(&path, &[options(stream, NoStream)]).await;
                p.call(&path, &[options(stream, Rev(99))]).await;
            });
        }
        let missing = path.clone();
        list.add(format!("{low}/name/missing-in-request"), async move |p| {
            p.call(&missing, &["options { any {} }".to_owned()]).await;
        });
    }
    list.add("delete/then/append-by-each", async |p| {
        for expected in [Any, NoStream, Exists, Rev(0), Rev(1)] {
            let stream = p.given_state(State::Deleted).await;
            p.append(&stream, expected, &[ev("new", "{}")]).await;
            p.see(&stream).await;
        }
    });
    list.add("delete/then/tombstone", async |p| {
        for expected in [Any, Exists, NoStream, Rev(1)] {
            let stream = p.given_state(State::Deleted).await;
            p.call("Streams/Tombstone", &[options(&stream, expected)]).await;
            p.see(&stream).await;
        }
    });
    list.add("delete/then/delete", async |p| {
        for expected in [Any, Exists, NoStream, Rev(1)] {
            let stream = p.given_state(State::Deleted).await;
            p.call("Streams/Delete", &[options(&stream, expected)]).await;
            p.see(&stream).await;
        }
    });
    list.add("delete/revive/many-times", async |p| {
        let stream = p.stream();
        for _ in 0..3 {
            p.append(&stream, NoStream, &evs(2)).await;
            p.call("Streams/Delete", &[options(&stream, Exists)]).await;
        }
        p.see(&stream).await;
        p.append(&stream, Any, &evs(1)).await;
        p.see(&stream).await;
        p.read(read(format!("$${stream}")).back().end()).await;
    });
    list.add("delete/revive/metadata-that-was-there", async |p| {
        let stream = p.stream();
        p.given(&stream, 3).await;
        p.given_metadata(&stream, r#"{"$maxCount":2,"$acl":{"$r":"$all"},"own":1}"#).await;
        p.given_deleted(&stream).await;
        p.read(read(format!("$${stream}"))).await;
        p.append(&stream, Any, &evs(4)).await;
        p.read(read(format!("$${stream}"))).await;
        p.see(&stream).await;
    });
    list.add("delete/revive/by-writing-metadata", async |p| {
        let stream = p.given_state(State::Deleted).await;
        let metadata = format!("$${stream}");
        p.append(&metadata, Any, &[ev("$metadata", r#"{"own":1}"#)]).await;
        p.see(&stream).await;
        p.read(read(&metadata).back().end()).await;
        p.append(&stream, Any, &evs(1)).await;
        p.see(&stream).await;
        p.read(read(&metadata).back().end()).await;
    });
    list.add("delete/revive/by-a-batch", async |p| {
        let stream = p.given_state(State::Deleted).await;
        let text = crate::ask::batch(crate::play::new_id(), &stream, NoStream, &evs(1));
        p.call("Streams/BatchAppend", &[text]).await;
        p.see(&stream).await;
        p.read(read(format!("$${stream}")).back().end()).await;
    });
    list.add("delete/revive/read-at-once", async |p| {
        let stream = p.stream();
        p.given(&stream, 1).await;
        let (mut missing, mut refused) = (0, 0);
        for _ in 0..60 {
            p.unseen("Streams/Delete", &[options(&stream, Exists)]).await;
            let appended =
                p.unseen("Streams/Append", &crate::ask::append(&stream, NoStream, &evs(1))).await;
            refused += usize::from(appended.position().is_none());
            let found = p.unseen("Streams/Read", &[read(&stream).text()]).await;
            missing += usize::from(
                found
                    .messages
                    .iter()
                    .any(|message| crate::play::within(message, &["stream_not_found"]).is_some()),
            );
        }
        p.say(format!("deleted, revived and read 60 times: {refused} refused, {missing} missing"));
    });
    list.add("delete/an-empty-live-stream", async |p| {
        let stream = p.given_state(State::Live).await;
        p.given_metadata(&stream, r#"{"$tb":2}"#).await;
        p.see(&stream).await;
        p.call("Streams/Delete", &[options(&stream, Exists)]).await;
        p.append(&stream, NoStream, &evs(1)).await;
        p.see(&stream).await;
    });
}

/// On streams that everybody uses.
pub(crate) fn add_last(list: &mut List) {
    for method in ["Delete", "Tombstone"] {
        list.add(format!("last/{}-all", method.to_lowercase()), async move |p| {
            p.names.label("$all", "$all");
            let path = format!("Streams/{method}");
            p.call(&path, &[options("$all", Rev(99))]).await;
            p.call(&path, &[options("$all", NoStream)]).await;
            p.read(read_all().back().end().count(1)).await;
        });
    }
}
