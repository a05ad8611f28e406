//! Groups of consumers: which consumer gets an event, and what happens if it does not handle it.

use std::{collections::HashMap, time::Duration};

use annals_core::{EventStoreExt, ExpectedVersion, NewEvent, Payload};
use annals_gateway::proto::{
    persistent::{
        GetInfoReq, ReadReq, get_info_req,
        persistent_subscriptions_client::PersistentSubscriptionsClient, read_req,
    },
    shared::StreamIdentifier,
};
use futures::StreamExt as _;
use tonic::{Code, transport::Channel};

use kurrentdb::{
    Client, Error, NakAction, PersistentSubscription, PersistentSubscriptionEvent,
    PersistentSubscriptionOptions, PersistentSubscriptionToAllOptions, Position, ResolvedEvent,
    StreamPosition, SubscribeToAllOptions, SubscribeToPersistentSubscriptionOptions,
    SubscriptionEvent, SystemConsumerStrategy,
};

use crate::common::{DEADLINE, Served, fill, soon};

const STREAM: &str = "order-1";
const GROUP: &str = "workers";

fn options() -> PersistentSubscriptionOptions {
    PersistentSubscriptionOptions::default()
        .start_from(StreamPosition::Start)
        .checkpoint_lower_bound(1)
        .checkpoint_upper_bound(1)
}

async fn with_group(options: PersistentSubscriptionOptions, events: u64) -> (Served, Client) {
    let served = Served::new().await;
    if events > 0 {
        fill(&served.store, STREAM, 0..events).await;
    }
    let client = served.client();
    client.create_persistent_subscription(STREAM, GROUP, &options).await.unwrap();
    (served, client)
}

async fn join(client: &Client, slots: usize) -> PersistentSubscription {
    let options = SubscribeToPersistentSubscriptionOptions::default().buffer_size(slots);
    soon(
        "a connection to the group",
        client.subscribe_to_persistent_subscription(STREAM, GROUP, &options),
    )
    .await
    .unwrap()
}

/// The next event, and how often it was given to a consumer before.
async fn next(consumer: &mut PersistentSubscription) -> (ResolvedEvent, usize) {
    loop {
        let message = soon("the next event", consumer.next_subscription_event()).await.unwrap();
        if let PersistentSubscriptionEvent::EventAppeared { event, retry_count } = message {
            return (event, retry_count);
        }
    }
}

fn revision(event: &ResolvedEvent) -> u64 {
    event.get_original_event().revision
}

#[tokio::test]
async fn acknowledged_events_are_not_given_again() {
    let (served, client) = with_group(options(), 5).await;
    let mut one = join(&client, 10).await;
    for expected in 0..3 {
        let (event, _) = next(&mut one).await;
        assert_eq!(revision(&event), expected);
        one.ack(&event).await.unwrap();
    }
    // The two events that this consumer did not answer go to the next consumer.
    wait(async || {
        let options = Default::default();
        let info = client.get_persistent_subscription_info(STREAM, GROUP, &options).await;
        info.unwrap().stats.outstanding_messages_count == 2
    })
    .await;
    drop(one);
    let mut other = join(&client, 10).await;
    for expected in 3..5 {
        let (event, retries) = next(&mut other).await;
        // They count as tried once.
        assert_eq!((revision(&event), retries), (expected, 1));
        other.ack(&event).await.unwrap();
    }
    served.stop().await;
}

/// Waits until `condition` is true.
async fn wait(mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_checkpoint_survives_a_restart_of_the_gateway() {
    let (served, client) = with_group(options(), 5).await;
    let mut one = join(&client, 10).await;
    for _ in 0..3 {
        let (event, _) = next(&mut one).await;
        // The second event is not answered, so the checkpoint must not pass it.
        if revision(&event) != 1 {
            one.ack(&event).await.unwrap();
        }
    }
    let subscriber = "$persistentsubscription-order-1::workers".try_into().unwrap();
    let store = served.store.clone();
    wait(async || store.load_checkpoint(&subscriber).await.unwrap().is_some()).await;
    served.stop().await;
    let served = Served::over(store).await;
    let client = served.client();
    let mut one = join(&client, 10).await;
    for expected in 1..5 {
        assert_eq!(revision(&next(&mut one).await.0), expected);
    }
    served.stop().await;
}

#[tokio::test]
async fn events_that_fail_too_often_are_parked_and_replayed() {
    let (served, client) = with_group(options().max_retry_count(2), 2).await;
    let mut one = join(&client, 1).await;
    for expected in 0..3 {
        let (event, retries) = next(&mut one).await;
        assert_eq!((revision(&event), retries), (0, expected));
        one.nack(&event, NakAction::Retry, "not now").await.unwrap();
    }
    let (event, _) = next(&mut one).await;
    assert_eq!(revision(&event), 1);
    one.nack(&event, NakAction::Park, "never").await.unwrap();
    let parked = async || {
        let options = Default::default();
        let info = client.get_persistent_subscription_info(STREAM, GROUP, &options).await;
        info.unwrap().stats.parked_message_count
    };
    wait(async || parked().await == 2).await;
    client.replay_parked_messages(STREAM, GROUP, &Default::default()).await.unwrap();
    for expected in 0..2 {
        let (event, _) = next(&mut one).await;
        assert_eq!(revision(&event), expected);
        one.ack(&event).await.unwrap();
    }
    assert_eq!(parked().await, 0);
    served.stop().await;
}

#[tokio::test]
async fn an_event_that_is_not_answered_in_time_is_given_again() {
    let (served, client) =
        with_group(options().message_timeout(Duration::from_millis(50)), 1).await;
    let mut one = join(&client, 1).await;
    for expected in 0..3 {
        let (event, retries) = next(&mut one).await;
        assert_eq!((revision(&event), retries), (0, expected));
    }
    served.stop().await;
}

#[tokio::test]
async fn consumers_get_events_in_turn_or_the_first_gets_all() {
    for (strategy, expected) in [
        (SystemConsumerStrategy::RoundRobin, [4, 4]),
        (SystemConsumerStrategy::DispatchToSingle, [8, 0]),
    ] {
        let (served, client) = with_group(options().consumer_strategy_name(strategy), 0).await;
        let (mut one, mut other) = (join(&client, 20).await, join(&client, 20).await);
        fill(&served.store, STREAM, 0..8).await;
        for (consumer, count) in [(&mut one, expected[0]), (&mut other, expected[1])] {
            for _ in 0..count {
                let (event, _) = next(consumer).await;
                consumer.ack(&event).await.unwrap();
            }
        }
        served.stop().await;
    }
}

#[tokio::test]
async fn pinned_streams_keep_their_consumer() {
    let served = Served::new().await;
    let client = served.client();
    let options = PersistentSubscriptionToAllOptions::default()
        .start_from(StreamPosition::Start)
        .filter(kurrentdb::SubscriptionFilter::on_stream_name().add_prefix("order-"))
        .consumer_strategy_name(SystemConsumerStrategy::Pinned);
    client.create_persistent_subscription_to_all(GROUP, &options).await.unwrap();
    let join = async || {
        let options = SubscribeToPersistentSubscriptionOptions::default().buffer_size(2);
        client.subscribe_to_persistent_subscription_to_all(GROUP, &options).await.unwrap()
    };
    let mut consumers = [join().await, join().await];
    for round in 0..5 {
        for stream in 0..8 {
            fill(&served.store, &format!("order-{stream}"), round..round + 1).await;
            fill(&served.store, &format!("other-{stream}"), round..round + 1).await;
        }
    }
    let mut seen: HashMap<String, Vec<(usize, u64)>> = HashMap::new();
    let [one, other] = &mut consumers;
    for _ in 0..40 {
        let (who, message) = soon("an event", async {
            // Both reads are cancel-safe: the one that is dropped goes on in the next round.
            tokio::select! {
                message = one.next() => (0, message),
                message = other.next() => (1, message),
            }
        })
        .await;
        let event = message.unwrap();
        let recorded = event.get_original_event();
        seen.entry(recorded.stream_id().to_owned()).or_default().push((who, recorded.revision));
        [&mut *one, &mut *other][who].ack(&event).await.unwrap();
    }
    assert_eq!(seen.len(), 8);
    for (stream, events) in seen {
        let who = events[0].0;
        assert_eq!(events, (0..5).map(|n| (who, n)).collect::<Vec<_>>(), "{stream}");
    }
    served.stop().await;
}

#[tokio::test]
async fn full_missing_and_existing_groups_are_refused() {
    let (served, client) = with_group(options().max_subscriber_count(1), 0).await;
    let again = client.create_persistent_subscription(STREAM, GROUP, &options()).await;
    assert!(matches!(again, Err(Error::ResourceAlreadyExists)), "{again:?}");
    let _one = join(&client, 1).await;
    let subscribe = SubscribeToPersistentSubscriptionOptions::default();
    let full = client.subscribe_to_persistent_subscription(STREAM, GROUP, &subscribe).await;
    assert!(full.err().unwrap().to_string().contains("Maximum subscriptions reached"));
    let missing = client.subscribe_to_persistent_subscription(STREAM, "none", &subscribe).await;
    assert!(matches!(missing, Err(Error::ResourceNotFound)));
    served.stop().await;
}

#[tokio::test]
async fn consumers_of_a_deleted_group_are_told() {
    let (served, client) = with_group(options(), 1).await;
    let mut one = join(&client, 1).await;
    let (event, _) = next(&mut one).await;
    one.ack(&event).await.unwrap();
    client.delete_persistent_subscription(STREAM, GROUP, &Default::default()).await.unwrap();
    let ended = soon("the end", one.next()).await.unwrap_err();
    assert!(ended.to_string().contains("dropped"), "{ended}");
    // A new group of the same name begins at the start.
    client.create_persistent_subscription(STREAM, GROUP, &options()).await.unwrap();
    assert_eq!(revision(&next(&mut join(&client, 1).await).await.0), 0);
    served.stop().await;
}

/// A checkpoint of another server must not become a subscription that gets nothing.
#[tokio::test]
async fn positions_of_another_server_are_refused() {
    let served = Served::new().await;
    fill(&served.store, STREAM, 0..3).await;
    let client = served.client();
    let far = Position { commit: 1_000_000, prepare: 1_000_000 };
    let from = StreamPosition::Position(far);
    let subscribe = SubscribeToAllOptions::default().position(from);
    let error = soon("an answer", client.subscribe_to_all(&subscribe).await.next()).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("position 1000000") && error.contains("this store is 3"), "{error}");
    let options = PersistentSubscriptionToAllOptions::default().start_from(from);
    let error = client.create_persistent_subscription_to_all(GROUP, &options).await.unwrap_err();
    let missing = client.get_persistent_subscription_info_to_all(GROUP, &Default::default()).await;
    assert!(matches!(missing, Err(Error::ResourceNotFound)), "{error}: {missing:?}");

    // Old clients send the end as the greatest number.
    let end = Position { commit: u64::MAX, prepare: u64::MAX };
    let options = SubscribeToAllOptions::default().position(StreamPosition::Position(end));
    let mut live = client.subscribe_to_all(&options).await;
    loop {
        if let SubscriptionEvent::CaughtUp(_) =
            soon("the end of the old events", live.next_subscription_event()).await.unwrap()
        {
            break;
        }
    }
    fill(&served.store, STREAM, 3..4).await;
    assert_eq!(revision(&soon("an event", live.next()).await.unwrap()), 3);
    served.stop().await;
}

/// A consumer that parks everything must not be given the links to what it has parked.
#[tokio::test]
async fn a_group_on_all_does_not_get_the_events_of_groups() {
    let served = Served::new().await;
    let client = served.client();
    fill(&served.store, STREAM, 0..2).await;
    let options = PersistentSubscriptionToAllOptions::default().start_from(StreamPosition::Start);
    client.create_persistent_subscription_to_all(GROUP, &options).await.unwrap();
    let options = SubscribeToPersistentSubscriptionOptions::default().buffer_size(10);
    let mut consumer =
        client.subscribe_to_persistent_subscription_to_all(GROUP, &options).await.unwrap();
    for round in 0..2 {
        for _ in 0..2 {
            let (event, _) = next(&mut consumer).await;
            assert_eq!(event.get_original_stream_id(), STREAM);
            consumer.nack(&event, NakAction::Park, "never").await.unwrap();
        }
        wait(async || {
            let options = Default::default();
            let info = client.get_persistent_subscription_info_to_all(GROUP, &options).await;
            info.unwrap().stats.parked_message_count == 2 * (round + 1)
        })
        .await;
        fill(&served.store, STREAM, 0..2).await;
    }
    served.stop().await;
}

/// A replayed event that no consumer has acknowledged is still parked after a restart.
#[tokio::test]
async fn replayed_events_survive_a_restart_of_the_gateway() {
    let (served, client) = with_group(options(), 3).await;
    let mut consumer = join(&client, 1).await;
    for _ in 0..3 {
        let (event, _) = next(&mut consumer).await;
        consumer.nack(&event, NakAction::Park, "not yet").await.unwrap();
    }
    let parked = async |client: &Client| {
        let options = Default::default();
        let info = client.get_persistent_subscription_info(STREAM, GROUP, &options).await;
        info.unwrap().stats.parked_message_count
    };
    wait(async || parked(&client).await == 3).await;
    client.replay_parked_messages(STREAM, GROUP, &Default::default()).await.unwrap();
    assert_eq!(parked(&client).await, 0);
    let (event, _) = next(&mut consumer).await;
    consumer.ack(&event).await.unwrap();
    assert_eq!(revision(&next(&mut consumer).await.0), 1);
    let store = served.store.clone();
    served.stop().await;

    let served = Served::over(store).await;
    let client = served.client();
    assert_eq!(parked(&client).await, 2);
    let mut consumer = join(&client, 2).await;
    client.replay_parked_messages(STREAM, GROUP, &Default::default()).await.unwrap();
    for expected in 1..3 {
        let (event, _) = next(&mut consumer).await;
        assert_eq!(revision(&event), expected);
        consumer.ack(&event).await.unwrap();
    }
    let links = "esdb:$persistentsubscription-order-1::workers-parked".try_into().unwrap();
    wait(async || served.store.load_stream(&links).await.unwrap().is_empty()).await;
    served.stop().await;
}

/// An event that crashes every consumer is parked, so that the others go on.
#[tokio::test]
async fn an_event_whose_consumers_disconnect_is_parked() {
    let (served, client) = with_group(options().max_retry_count(2), 2).await;
    for expected in 0..3 {
        let mut consumer = join(&client, 1).await;
        let (event, retries) = next(&mut consumer).await;
        assert_eq!((revision(&event), retries), (0, expected));
    }
    let mut consumer = join(&client, 1).await;
    let (event, retries) = next(&mut consumer).await;
    assert_eq!((revision(&event), retries), (1, 0));
    let options = Default::default();
    let info = client.get_persistent_subscription_info(STREAM, GROUP, &options).await;
    assert_eq!(info.unwrap().stats.parked_message_count, 1);
    served.stop().await;
}

/// A group that was deleted by a gateway that died before it was done has left its progress.
#[tokio::test]
async fn a_group_that_is_made_anew_begins_where_it_is_told() {
    let served = Served::new().await;
    fill(&served.store, STREAM, 0..3).await;
    let left = "$persistentsubscription-order-1::workers".try_into().unwrap();
    served.store.save_checkpoint(&left, 3.into()).await.unwrap();
    let client = served.client();
    client.create_persistent_subscription(STREAM, GROUP, &options()).await.unwrap();
    let mut consumer = join(&client, 10).await;
    assert_eq!(revision(&next(&mut consumer).await.0), 0);
    served.stop().await;
}

/// The name of a group has its stream's name in it, and both may be long.
#[tokio::test]
async fn a_group_with_long_names_keeps_its_progress() {
    let served = Served::new().await;
    let (stream, group) = ("s".repeat(255), "g".repeat(255));
    fill(&served.store, &stream, 0..2).await;
    let client = served.client();
    client.create_persistent_subscription(&*stream, &*group, &options()).await.unwrap();
    let join = async || {
        let options = SubscribeToPersistentSubscriptionOptions::default();
        let joining = client.subscribe_to_persistent_subscription(&*stream, &*group, &options);
        soon("a connection to the group", joining).await.unwrap()
    };
    let mut consumer = join().await;
    let (first, _) = next(&mut consumer).await;
    consumer.ack(&first).await.unwrap();
    let (second, _) = next(&mut consumer).await;
    consumer.nack(&second, NakAction::Park, "bad").await.unwrap();
    wait(async || {
        let options = Default::default();
        let info = client.get_persistent_subscription_info(&*stream, &*group, &options).await;
        info.unwrap().stats.parked_message_count == 1
    })
    .await;
    drop(consumer);
    client.replay_parked_messages(&*stream, &*group, &Default::default()).await.unwrap();
    let mut consumer = join().await;
    let (again, _) = next(&mut consumer).await;
    assert_eq!(again.event.unwrap().revision, 1);
    served.stop().await;
}

/// One gateway gives events to its consumers, and those of the other wait until it is their turn.
#[tokio::test]
async fn two_gateways_over_one_store_share_a_group() {
    let (one, client) = with_group(options(), 4).await;
    let two = Served::over(one.store.clone()).await;
    let other_client = two.client();
    let mut first = join(&client, 2).await;
    let (event, _) = next(&mut first).await;
    assert_eq!(revision(&event), 0);
    let mut second = join(&other_client, 10).await;
    first.ack(&event).await.unwrap();
    let (event, _) = next(&mut first).await;
    first.ack(&event).await.unwrap();
    wait(async || {
        let options = Default::default();
        let info = client.get_persistent_subscription_info(STREAM, GROUP, &options).await;
        info.unwrap().stats.last_checkpointed_event_revision == Some(1)
    })
    .await;
    let refused = other_client.replay_parked_messages(STREAM, GROUP, &Default::default()).await;
    assert!(refused.is_err(), "a group was replayed beside its consumers");
    // The two events that it has not answered go to the other gateway with the turn.
    drop(first);
    for expected in 2..4 {
        let (event, _) = next(&mut second).await;
        assert_eq!(revision(&event), expected);
        second.ack(&event).await.unwrap();
    }
    fill(&one.store, STREAM, 4..5).await;
    assert_eq!(revision(&next(&mut second).await.0), 4);
    drop(second);
    one.stop().await;
    two.stop().await;
}

/// A consumer that takes nothing is told why it ends, after all that it was given before. The official
/// Rust client panics where the call ends without an error.
#[tokio::test]
async fn a_consumer_that_takes_nothing_is_dropped() {
    let options = options().message_timeout(Duration::from_millis(20)).max_retry_count(1_000);
    let (served, _) = with_group(options, 0).await;
    // Larger than what the connection takes before the client reads.
    let large = NewEvent::new("Large".try_into().unwrap(), Payload::binary(vec![0; 4_000_000]));
    served.store.append_to(STREAM, ExpectedVersion::Any, [large]).await.unwrap();
    let channel = Channel::from_shared(format!("http://{}", served.address)).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut groups =
        PersistentSubscriptionsClient::new(channel).max_decoding_message_size(16_000_000);
    let stream = StreamIdentifier { stream_name: STREAM.into() };
    let reading = read_req::Options {
        group_name: GROUP.to_owned(),
        buffer_size: 1,
        stream_option: Some(read_req::options::StreamOption::StreamIdentifier(stream.clone())),
        ..Default::default()
    };
    let first = ReadReq { content: Some(read_req::Content::Options(reading)) };
    let requests = futures::stream::iter([first]).chain(futures::stream::pending());
    let mut answers = groups.read(requests).await.unwrap().into_inner();
    let info = get_info_req::Options {
        group_name: GROUP.to_owned(),
        stream_option: Some(get_info_req::options::StreamOption::StreamIdentifier(stream)),
    };
    let mut asking = groups.clone();
    wait(async || {
        let info = asking.get_info(GetInfoReq { options: Some(info.clone()) }).await.unwrap();
        info.into_inner().subscription_info.unwrap().connections.is_empty()
    })
    .await;
    let end = loop {
        match soon("the end", answers.message()).await {
            Ok(message) => assert!(message.is_some(), "the call ended without an error"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Cancelled);
    let exception = end.metadata().get("exception").unwrap();
    assert_eq!(exception, "persistent-subscription-dropped");
    served.stop().await;
}

/// Whatever a client asks for, a group holds only so many bytes of events that no consumer takes.
#[tokio::test]
async fn a_group_does_not_read_ahead_without_a_bound() {
    let (served, client) = with_group(options().history_buffer_size(1_000_000), 0).await;
    for _ in 0..40 {
        let large = Payload::binary(vec![0; 1_000_000]);
        let large = NewEvent::new("Large".try_into().unwrap(), large);
        served.store.append_to(STREAM, ExpectedVersion::Any, [large]).await.unwrap();
    }
    wait(async || {
        let options = Default::default();
        let info = client.get_persistent_subscription_info(STREAM, GROUP, &options).await;
        let read = info.unwrap().stats.read_buffer_count;
        assert!(read <= 17, "{read} events of 1 MB were read");
        read == 17
    })
    .await;
    served.stop().await;
}
