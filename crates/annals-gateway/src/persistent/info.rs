//! What clients are told about a group.

use annals_core::{Store, Version};
use tonic::Status;

use super::{
    catalog::Group,
    handle::{ConsumerCounts, Counts},
    name::GroupName,
    progress::load_checkpoint,
};
use crate::{
    proto::persistent::{SubscriptionInfo, subscription_info::ConnectionInfo},
    status::status,
    wire_stream::WireStream,
};

/// `counts` come from the group's task, if it has one.
pub(crate) async fn info(
    store: &dyn Store,
    group: &Group,
    counts: Option<Counts>,
) -> Result<SubscriptionInfo, Status> {
    let counts = match counts {
        Some(counts) => counts,
        None => {
            let checkpoint = load_checkpoint(store, &group.name).await?;
            Counts { checkpoint, last_event: checkpoint, ..Counts::default() }
        }
    };
    let place_text = |place: Option<u64>| {
        let place = place.and_then(|place| i64::try_from(place).ok());
        place.map_or_else(String::new, |place| place_text(&group.name, place))
    };
    let settings = &group.settings;
    let milliseconds = |ms: i64| i32::try_from(ms).unwrap_or(i32::MAX);
    let in_flight = counts.consumers.iter().map(|consumer| consumer.in_flight).sum();
    Ok(SubscriptionInfo {
        event_source: group.name.source.clone(),
        group_name: group.name.group.clone(),
        // EventStoreDB has other states while a group catches up.
        status: "Live".to_owned(),
        connections: counts.consumers.iter().map(connection_info).collect(),
        average_per_second: 0,
        total_items: counts.total,
        count_since_last_measurement: 0,
        last_checkpointed_event_position: place_text(counts.checkpoint),
        last_known_event_position: place_text(counts.last_event),
        resolve_link_tos: settings.resolve_links,
        start_from: group.start_from.clone(),
        message_timeout_milliseconds: milliseconds(settings.message_timeout_ms),
        extra_statistics: settings.extra_statistics,
        max_retry_count: settings.max_retries,
        live_buffer_size: settings.live_buffer_size,
        buffer_size: settings.history_buffer_size,
        read_batch_size: settings.read_batch_size,
        check_point_after_milliseconds: milliseconds(settings.checkpoint_after_ms),
        min_check_point_count: settings.min_checkpoint_count,
        max_check_point_count: settings.max_checkpoint_count,
        read_buffer_count: saturating_i32(counts.waiting),
        // EventStoreDB keeps the last live events, also if they are done.
        live_buffer_count: saturating_i32(counts.live).min(settings.live_buffer_size).into(),
        retry_buffer_count: saturating_i32(counts.retries),
        total_in_flight_messages: saturating_i32(in_flight),
        outstanding_messages_count: saturating_i32(counts.outstanding),
        named_consumer_strategy: settings.strategy.name(),
        max_subscriber_count: settings.max_subscribers,
        parked_message_count: parked_count(store, &group.name, counts.replayed).await?,
    })
}

async fn parked_count(
    store: &dyn Store,
    name: &GroupName,
    replayed: Version,
) -> Result<i64, Status> {
    let parked = store.stream_info(&name.parked()?).await.map_err(|e| status(&e))?;
    let count = match parked.first_version {
        Some(first) => parked.version.get().saturating_sub(replayed.max(first.minus(1)).get()),
        None => 0,
    };
    Ok(i64::try_from(count).unwrap_or(i64::MAX))
}

fn connection_info(consumer: &ConsumerCounts) -> ConnectionInfo {
    ConnectionInfo {
        username: consumer.who.user.clone(),
        connection_name: consumer.who.connection.clone(),
        total_items: consumer.given,
        available_slots: saturating_i32(consumer.free_slots),
        in_flight_messages: saturating_i32(consumer.in_flight),
        ..ConnectionInfo::default()
    }
}

/// A revision, or a position of `$all`, as text.
pub(crate) fn place_text(name: &GroupName, place: i64) -> String {
    match name.stream() {
        Ok(WireStream::All) => format!("C:{place}/P:{place}"),
        _ => place.to_string(),
    }
}

fn saturating_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
