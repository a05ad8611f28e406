//! What clients are told about groups.

use annals_core::Store;

use super::config::{Group, GroupName};
use crate::{
    names::Target,
    proto::persistent::{SubscriptionInfo, subscription_info::ConnectionInfo},
    status::status,
};

/// How a group stands, as its task says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Of each consumer, how many events it can take, and how many it has.
    pub(crate) consumers: Vec<(usize, usize)>,
    pub(crate) waiting: usize,
    pub(crate) retries: usize,
    pub(crate) outstanding: usize,
    pub(crate) total: i64,
    pub(crate) kept: Option<u64>,
    pub(crate) known: Option<u64>,
}

/// A number, as large as there is room for it.
fn small(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A revision or a position, as text.
pub(crate) fn place(name: &GroupName, here: i64) -> String {
    match name.target() {
        Ok(Target::All) => format!("C:{here}/P:{here}"),
        _ => here.to_string(),
    }
}

pub(crate) async fn info(
    store: &dyn Store,
    group: &Group,
    counts: Option<Counts>,
) -> Result<SubscriptionInfo, tonic::Status> {
    let status_text = match &counts {
        Some(counts) if !counts.consumers.is_empty() => "Live",
        _ => "NotReady",
    };
    let parked = store.stream_info(&group.name.parked()?).await.map_err(|e| status(&e))?;
    let parked = match parked.first_version {
        Some(first) => parked.version.get() + 1 - first.get(),
        None => 0,
    };
    let counts = match counts {
        Some(counts) => counts,
        None => {
            let kept = store.load_checkpoint(&group.name.subscriber()?).await;
            let kept = kept.map_err(|e| status(&e))?.and_then(|kept| kept.get().checked_sub(1));
            Counts { kept, known: kept, ..Counts::default() }
        }
    };
    let known = |here: Option<u64>| {
        let here = here.and_then(|here| i64::try_from(here).ok());
        here.map_or_else(String::new, |here| place(&group.name, here))
    };
    let settings = &group.settings;
    let milliseconds = |ms: i64| i32::try_from(ms).unwrap_or(i32::MAX);
    let in_flight = counts.consumers.iter().map(|(_, given)| given).sum();
    let connections = counts.consumers.iter().map(|(slots, given)| ConnectionInfo {
        available_slots: small(*slots),
        in_flight_messages: small(*given),
        ..ConnectionInfo::default()
    });
    Ok(SubscriptionInfo {
        event_source: group.name.source.clone(),
        group_name: group.name.group.clone(),
        status: status_text.to_owned(),
        connections: connections.collect(),
        average_per_second: 0,
        total_items: counts.total,
        count_since_last_measurement: 0,
        last_checkpointed_event_position: known(counts.kept),
        last_known_event_position: known(counts.known),
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
        read_buffer_count: small(counts.waiting),
        live_buffer_count: 0,
        retry_buffer_count: small(counts.retries),
        total_in_flight_messages: small(in_flight),
        outstanding_messages_count: small(counts.outstanding),
        named_consumer_strategy: settings.strategy.name(),
        max_subscriber_count: settings.max_subscribers,
        parked_message_count: i64::try_from(parked).unwrap_or(i64::MAX),
    })
}
