//! Plays scenarios over a store.

use prost_reflect::DescriptorPool;

use crate::{
    gateway,
    play::{Play, Scenario, Setting},
    scenarios,
    stores::StoreKind,
};

/// The messages of the protocol, as their description.
static PROTOCOL: &[u8] = include_bytes!("protocol.bin");

/// Plays the scenarios that are wanted, each over a store of its own. Returns their names and what came
/// of them.
pub(crate) fn play(store: StoreKind, wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let pool = DescriptorPool::decode(PROTOCOL).unwrap();
    let list = scenarios::list().0.into_iter().enumerate();
    let mut list = list.filter(|(_, scenario)| wanted(&scenario.name)).peekable();
    let mut played = Vec::new();
    while list.peek().is_some() {
        let runtime = store.runtime();
        // Those of one runtime are played at the same time.
        let together = list.by_ref().take(store.at_a_time());
        let playing = together.map(|(number, scenario)| play_one(store, &pool, number, scenario));
        played.extend(runtime.block_on(futures::future::join_all(playing)));
        runtime.shutdown_background();
    }
    played
}

async fn play_one(
    store: StoreKind,
    pool: &DescriptorPool,
    number: usize,
    scenario: Scenario,
) -> (String, String) {
    let channel = gateway::connect(store.open().await).await;
    let mut other = Play::new(Setting::new(pool.clone(), channel.clone(), store.deadline()), 999);
    let stream = other.stream();
    // As on a server that is in use, the store's first event is another's.
    other.given(&stream, 1).await;
    let mut play = Play::new(Setting::new(pool.clone(), channel, store.deadline()), number);
    (scenario.play)(&mut play).await;
    (scenario.name, play.text())
}
