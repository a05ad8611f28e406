//! Connections are cut at random points and the server is restarted, while others write and read:
//! no event is lost, none is there twice, and every subscriber goes on.

use std::{sync::Arc, time::Duration};

use annals_core::{EventStore, EventStoreExt, Subscribe};
use annals_eventstoredb::EventStoreDbOptions;
use fastrand::Rng;
use futures::future::join_all;

use crate::tools::{Server, WRITERS, assert_complete, id, within, write};

const APPENDS: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_twice() {
    let given = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("nothing_is_lost_and_nothing_twice: replay with ANNALS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut server = Server::start().await;
    let store = Arc::new(server.open(EventStoreDbOptions::default()).await);
    let follow = || {
        let store = store.clone();
        tokio::spawn(async move {
            let mut live = store.subscribe(Subscribe::default()).await.unwrap();
            let mut events = Vec::new();
            while events.len() < (WRITERS * APPENDS) as usize {
                events.push(live.next_event().await.unwrap());
            }
            events
        })
    };
    let (one, other) = (follow(), follow());
    let writers = (0..WRITERS)
        .map(|writer| tokio::spawn(write(store.clone(), id(&format!("order-{writer}")), APPENDS)));
    let writing = join_all(writers.collect::<Vec<_>>());
    tokio::pin!(writing);
    // Until the writers are done, a fault happens every few milliseconds.
    loop {
        let pause = Duration::from_micros(rng.u64(500..20_000));
        tokio::select! {
            done = &mut writing => {
                done.into_iter().for_each(Result::unwrap);
                break;
            }
            () = tokio::time::sleep(pause) => match rng.u8(..10) {
                0 => {
                    server.gateway.kill().await;
                    server.gateway.revive(server.store.clone()).await.unwrap();
                }
                _ => server.gateway.proxy().cut().await,
            },
        }
    }
    for (reading, what) in [(one, "one subscriber"), (other, "the other")] {
        assert_complete(&within("all events", reading).await.unwrap(), APPENDS, what);
    }
    let mut all = Vec::new();
    for writer in 0..WRITERS {
        all.extend(store.load_stream(&id(&format!("order-{writer}"))).await.unwrap());
    }
    assert_complete(&all, APPENDS, "a read");
}
