//! Services beside streams and groups; what is no right request.

use crate::{
    ask::{Any, append, evs, options, read, subscribe},
    play::List,
};

fn none() -> [String; 1] {
    [String::new()]
}

pub(crate) fn add(list: &mut List) {
    list.add("features/supported-methods", async |p| {
        p.call("Features/GetSupportedMethods", &none()).await;
    });
    list.add("gossip/read", async |p| {
        p.call("Gossip/Read", &none()).await;
    });
    list.add("transport/unknown-method", async |p| {
        let mut call = p.open_raw("/event_store.client.streams.Streams/Nothing", &[b""]);
        p.finish(&mut call).await;
    });
    list.add("transport/unknown-service", async |p| {
        let mut call = p.open_raw("/event_store.client.nothing.Nothing/Read", &[b""]);
        p.finish(&mut call).await;
    });
    list.add("transport/bytes-that-are-no-message", async |p| {
        let mut call = p.open_raw("/event_store.client.streams.Streams/Read", &[b"\xff\xff\xff"]);
        p.finish(&mut call).await;
        let mut call = p.open_raw("/event_store.client.streams.Streams/Append", &[b"\xff\xff"]);
        p.finish(&mut call).await;
    });
    list.add("transport/no-message-at-all", async |p| {
        p.call("Streams/Read", &[]).await;
        p.call("Streams/Append", &[]).await;
        p.call("Streams/Delete", &[]).await;
        p.call("Streams/BatchAppend", &[]).await;
        p.call("Persistent/Read", &[]).await;
    });
    list.add("transport/empty-messages", async |p| {
        p.call("Streams/Read", &none()).await;
        p.call("Streams/Append", &none()).await;
        p.call("Streams/Delete", &none()).await;
        p.call("Streams/Tombstone", &none()).await;
        p.call("Streams/BatchAppend", &none()).await;
        p.call("Persistent/Create", &none()).await;
        p.call("Persistent/Update", &none()).await;
        p.call("Persistent/Delete", &none()).await;
        p.call("Persistent/GetInfo", &none()).await;
        p.call("Persistent/ReplayParked", &none()).await;
        p.call("Persistent/List", &none()).await;
        p.call("Persistent/Read", &none()).await;
    });
    for (name, value) in [
        ("wrong-password", "Basic YWRtaW46d3Jvbmc="),
        ("unknown-user", "Basic bm9ib2R5Om5vdGhpbmc="),
        ("not-base64", "Basic %%%"),
        ("no-colon", "Basic YWRtaW4="),
        ("bearer", "Bearer abc"),
        ("default-admin", "Basic YWRtaW46Y2hhbmdlaXQ="),
    ] {
        list.add(format!("auth/{name}"), async move |p| {
            let stream = p.stream();
            p.set.headers = vec![("authorization".to_owned(), value.to_owned())];
            p.say(format!("   authorization: {value}"));
            p.append(&stream, Any, &evs(1)).await;
            p.see(&stream).await;
            p.call("Streams/Delete", &[options(&stream, Any)]).await;
            p.call("Gossip/Read", &none()).await;
        });
    }
    for (name, value) in
        [("requires-leader", "true"), ("requires-leader", "no"), ("connection-name", "x")]
    {
        list.add(format!("header/{name}-{value}"), async move |p| {
            let stream = p.stream();
            p.set.headers.push((name.to_owned(), value.to_owned()));
            p.append(&stream, Any, &evs(1)).await;
            p.see(&stream).await;
            let mut call = p.open("Streams/Read", &[subscribe(&stream).text()]);
            p.drain(&mut call).await;
        });
    }
    list.add("transport/many-calls-at-once", async |p| {
        let stream = p.stream();
        p.given(&stream, 1).await;
        let text = subscribe(&stream).text();
        let mut calls = Vec::new();
        for _ in 0..120 {
            calls.push(p.open_unseen("Streams/Read", &text));
        }
        let mut confirmed = 0;
        p.pause(1500).await;
        for call in &mut calls {
            confirmed += usize::from(p.heard(call).await);
        }
        p.say(format!("of 120 subscriptions on one connection, {confirmed} were answered"));
        drop(calls);
        p.read(read(&stream)).await;
    });
    list.add("transport/append-cut-off", async |p| {
        let stream = p.stream();
        let mut call = p.open("Streams/Append", &append(&stream, Any, &evs(2)));
        p.pause(300).await;
        p.say("-> (cancelled)");
        p.take_within(&mut call, 1, std::time::Duration::from_millis(10)).await;
        drop(call);
        p.pause(300).await;
        p.see(&stream).await;
    });
}

/// What disturbs others.
pub(crate) fn add_last(list: &mut List) {
    super::appends::add_last(list);
    super::removals::add_last(list);
    super::groups::add_last(list);
}
