//! The gateway's limits, and the errors for calls beyond them.

use std::{convert::Infallible, sync::Arc, time::Duration};

use annals_core::{EventStoreExt, ExpectedVersion, NewEvent};
use annals_gateway::{GatewayOptions, Security};
use annals_memory::MemoryStore;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use kurrentdb::{AppendToStreamOptions, EventData, SubscribeToAllOptions};
use tokio::{io::AsyncReadExt, net::TcpStream, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};

use crate::{
    common::{DEADLINE, Served, fill, soon},
    counting::Counting,
};

async fn limited(options: GatewayOptions) -> Served {
    Served::with(Arc::new(MemoryStore::new()), options, Security::Insecure).await
}

#[tokio::test]
async fn appends_over_the_limit_are_refused() {
    let served = limited(GatewayOptions::default().with_max_append_bytes(10_000)).await;
    let client = served.client();
    let append = async |sizes: &[usize]| {
        let events: Vec<_> = sizes
            .iter()
            .map(|size| EventData::binary("Blob", Bytes::from(vec![7; *size])))
            .collect();
        let options = AppendToStreamOptions::default();
        client.append_to_stream("order-1", &options, events).await
    };
    append(&[9_900]).await.unwrap();
    append(&[10_000]).await.unwrap();
    append(&[100; 69]).await.unwrap();
    for sizes in [&[10_001][..], &[6_000, 6_000], &[1_000_000]] {
        let refused = append(sizes).await.unwrap_err().to_string();
        assert!(!refused.is_empty());
    }
    assert_eq!(served.store.load_stream(&"order-1".try_into().unwrap()).await.unwrap().len(), 71);
    served.stop().await;
}

#[tokio::test]
async fn subscriptions_over_the_limit_are_refused() {
    let served = limited(GatewayOptions::default().with_max_open(2)).await;
    fill(&served.store, "order-1", 0..1).await;
    let client = served.client();
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut live = client.subscribe_to_all(&SubscribeToAllOptions::default()).await;
        soon("an event", live.next()).await.unwrap();
        open.push(live);
    }
    let mut refused = client.subscribe_to_all(&SubscribeToAllOptions::default()).await;
    let error = soon("a refusal", refused.next()).await.unwrap_err().to_string();
    assert!(error.contains("too many"), "{error}");
    // After one subscription was dropped and the gateway has noticed, another can be opened.
    drop(open.pop());
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let mut live = client.subscribe_to_all(&SubscribeToAllOptions::default()).await;
        match soon("an answer", live.next()).await {
            Ok(_) => break,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_ended() {
    let store = Arc::new(Counting::new());
    store.appends.forget_permits(usize::MAX);
    let options = GatewayOptions::default().with_timeout(Duration::from_millis(50));
    let served = Served::with(store.clone(), options, Security::Insecure).await;
    let event = EventData::json("Counted", &1).unwrap();
    let options = AppendToStreamOptions::default();
    let append = served.client().append_to_stream("order-1", &options, event).await;
    assert!(matches!(append, Err(kurrentdb::Error::DeadlineExceeded)), "{append:?}");
    served.stop().await;
}

/// The gateway does not read events from the store that the client does not take.
#[tokio::test]
async fn a_client_that_stops_reading_costs_little_memory() {
    const EVENTS: usize = 1_000;
    let store = Arc::new(Counting::new());
    let blob = vec![7; 100_000];
    for _ in 0..EVENTS / 100 {
        let events = (0..100).map(|_| NewEvent::binary("Blob", blob.clone()).unwrap());
        store.append_to("order-1", ExpectedVersion::Any, events).await.unwrap();
    }
    let served = Served::over(store.clone()).await;
    let mut live = served.client().subscribe_to_all(&SubscribeToAllOptions::default()).await;
    soon("an event", live.next()).await.unwrap();
    // The gateway reads on until the connection's windows are full, and then stops.
    let mut read = 0;
    while read != store.read() {
        read = store.read();
        for _ in 0..200 {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(read < EVENTS / 4, "{read} events of {EVENTS} were read for a client that takes none");
    for _ in 1..EVENTS {
        soon("the next event", live.next()).await.unwrap();
    }
    served.stop().await;
}

/// Connections that say nothing must not take the places of others.
#[tokio::test]
async fn silent_connections_make_room_for_others() {
    let options = GatewayOptions::default()
        .with_max_connections(8)
        .with_max_silence(Duration::from_millis(300));
    let served = limited(options).await;
    let mut silent = Vec::new();
    for _ in 0..24 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    let client = served.client();
    let event = EventData::json("Counted", &1).unwrap();
    let options = AppendToStreamOptions::default();
    soon("an append", client.append_to_stream("order-1", &options, event)).await.unwrap();
    // Each of them was disconnected.
    for mut connection in silent {
        let closed = soon("the end", connection.read(&mut [0; 64])).await;
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
    served.stop().await;
}

/// Messages that never arrive whole hold at most the memory that is allowed, and small ones pass by.
#[tokio::test]
async fn half_sent_messages_wait_for_memory() {
    const MIB: usize = 1024 * 1024;
    let served = limited(GatewayOptions::default().with_max_request_memory(4 * MIB)).await;
    let channel = Channel::from_shared(format!("http://{}", served.address)).unwrap();
    let channel = channel.connect().await.unwrap();
    let (mut calls, mut sent) = (Vec::new(), Vec::new());
    for _ in 0..16 {
        let (sender, frames) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
        let body = tonic::body::Body::new(StreamBody::new(ReceiverStream::new(frames)));
        let path = "/event_store.client.streams.Streams/Append";
        let request = http::Request::post(format!("http://{}{path}", served.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap();
        let mut channel = channel.clone();
        calls.push(tokio::spawn(async move { channel.ready().await.unwrap().call(request).await }));
        // The length says that 8 MiB follow.
        let begin = [&[0, 0, 0x80, 0, 0][..], &vec![0; 64 * 1024]].concat();
        sender.send(Ok(Frame::data(begin.into()))).await.unwrap();
        sent.push(tokio::spawn(async move {
            let part = Bytes::from(vec![0; 64 * 1024]);
            let mut count = 0;
            while count < 64 {
                let sending = sender.send(Ok(Frame::data(part.clone())));
                if timeout(Duration::from_millis(300), sending).await.is_err() {
                    break;
                }
                count += 1;
            }
            (count, sender)
        }));
    }
    let (mut parts, mut open) = (0, Vec::new());
    for sent in sent {
        let (count, sender) = sent.await.unwrap();
        parts += count;
        open.push(sender);
    }
    // Besides, each has some on its way.
    assert!(parts * 64 * 1024 < 16 * MIB, "{parts} parts of 64 KiB were taken");
    let client = served.client();
    let event = EventData::json("Counted", &1).unwrap();
    let options = AppendToStreamOptions::default();
    soon("an append", client.append_to_stream("order-1", &options, event)).await.unwrap();
    calls.iter().for_each(JoinHandle::abort);
    served.stop().await;
}
