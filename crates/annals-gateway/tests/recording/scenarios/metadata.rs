//! The metadata of streams.

use crate::{
    ask::{Any, Exists, NoStream, Rev, append, ev, evs, options, read, read_all, subscribe},
    given::State,
    play::List,
};

pub(crate) fn add(list: &mut List) {
    for state in State::ALL {
        list.add(format!("metadata/write/{}", state.name()), async move |p| {
            let stream = p.given_state(state).await;
            let metadata = format!("$${stream}");
            for expected in [NoStream, NoStream, Rev(0), Rev(0), Rev(1), Exists, Any] {
                p.append(&metadata, expected, &[ev("$metadata", r#"{"$maxCount":10}"#)]).await;
            }
            p.read(read(&metadata)).await;
            p.read(read(&metadata).rev(1)).await;
            p.read(read(&metadata).back().end()).await;
            p.read(read(&metadata).back().rev(0)).await;
            p.see(&stream).await;
        });
    }
    list.add("metadata/only-the-last-is-kept", async |p| {
        let stream = p.stream();
        let metadata = format!("$${stream}");
        let request =
            append(&metadata, Any, &[ev("$metadata", r#"{"a":1}"#), ev("$metadata", r#"{"a":2}"#)]);
        p.call("Streams/Append", &request).await;
        p.read(read(&metadata)).await;
        p.read(read(&metadata).rev(0).count(1)).await;
    });
    for (name, event) in [
        ("other-type", ev("other", r#"{"$maxCount":1}"#)),
        ("no-json", ev("$metadata", "no json")),
        ("json-called-binary", ev("$metadata", r#"{"$maxCount":1}"#).binary()),
        ("empty", ev("$metadata", "")),
        ("spaced", ev("$metadata", "{ \"$maxCount\" : 1 ,\n \"x\": [1, 2] }")),
        ("acl", ev("$metadata", r#"{"$acl":{"$r":["$admins"],"$w":"$admins"}}"#)),
        ("own-properties", ev("$metadata", r#"{"owner":"x","$cacheControl":5}"#)),
        ("duplicate-keys", ev("$metadata", r#"{"$maxCount":5,"$maxCount":1}"#)),
        ("byte-order-mark", ev("$metadata", "\u{feff}{\"$maxCount\":1}")),
        ("max-count-float", ev("$metadata", r#"{"$maxCount":1.0}"#)),
        ("max-age-text", ev("$metadata", r#"{"$maxAge":"1"}"#)),
    ] {
        list.add(format!("metadata/content/{name}"), async move |p| {
            let stream = p.given_state(State::Live).await;
            let metadata = format!("$${stream}");
            p.append(&metadata, Any, &[event.clone().id(crate::play::new_id())]).await;
            p.read(read(&metadata)).await;
            p.see(&stream).await;
            p.append(&stream, Any, &evs(1)).await;
            p.see(&stream).await;
        });
    }
    list.add("metadata/truncation-moves-back", async |p| {
        let stream = p.stream();
        p.given(&stream, 4).await;
        for before in [3, 1, 0] {
            p.given_metadata(&stream, &format!("{{\"$tb\":{before}}}")).await;
            p.see(&stream).await;
        }
        p.given_metadata(&stream, "{}").await;
        p.see(&stream).await;
    });
    list.add("metadata/max-count-grows", async |p| {
        let stream = p.stream();
        p.given(&stream, 4).await;
        for count in [1, 3, 10] {
            p.given_metadata(&stream, &format!("{{\"$maxCount\":{count}}}")).await;
            p.see(&stream).await;
        }
    });
    list.add("metadata/of-metadata", async |p| {
        let stream = p.given_state(State::Live).await;
        let meta_meta = format!("$$$${stream}");
        p.append(&meta_meta, Any, &[ev("$metadata", r#"{"$maxCount":1}"#)]).await;
        p.see(&meta_meta).await;
    });
    list.add("metadata/in-all", async |p| {
        let stream = p.stream();
        let at = p.given(&stream, 1).await;
        p.given_metadata(&stream, r#"{"a":1}"#).await;
        p.given_metadata(&stream, r#"{"a":2}"#).await;
        p.read(read_all().at(at[0], at[0])).await;
    });
    list.add("metadata/before-the-stream", async |p| {
        let stream = p.stream();
        p.given_metadata(&stream, r#"{"$maxCount":1}"#).await;
        p.see(&stream).await;
        p.append(&stream, NoStream, &evs(3)).await;
        p.see(&stream).await;
    });
    list.add("metadata/snapshot-stream-exists", async |p| {
        let stream = p.stream();
        p.given_metadata(&stream, r#"{"a":1}"#).await;
        p.append(&stream, Exists, &evs(1)).await;
        p.call("Streams/Delete", &[options(&stream, Exists)]).await;
        p.see(&stream).await;
        let _ = subscribe(&stream);
    });
}
