//! What the scenarios of groups begin with, and the messages that they send.

use prost_reflect::DynamicMessage;

use crate::{
    ask::{ident, quote, read},
    play::{Call, Play, within},
};

/// As clients send them unless told otherwise.
pub(super) const SETTINGS: &str = "max_retry_count: 10 min_checkpoint_count: 10 max_checkpoint_count: 1000 \
    live_buffer_size: 500 read_batch_size: 20 history_buffer_size: 500 message_timeout_ms: 30000 \
    checkpoint_after_ms: 2000 consumer_strategy: \"RoundRobin\"";

/// Sets one thing otherwise.
pub(super) fn but(changed: &str) -> String {
    let name = changed.split(':').next().unwrap_or_default();
    let mut words = SETTINGS.split_whitespace().peekable();
    let mut out = String::new();
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        if key.trim_end_matches(':') != name {
            out.push_str(&format!("{key} {value} "));
        }
    }
    out + changed
}

pub(super) fn on_stream(stream: &str, from: &str, group: &str, settings: &str) -> String {
    format!(
        "options {{ stream {{ {} {from} }} group_name: {} settings {{ {settings} }} }}",
        ident(stream),
        quote(group)
    )
}

pub(super) fn on_all(from: &str, filter: &str, group: &str, settings: &str) -> String {
    format!(
        "options {{ all {{ {from} {filter} }} group_name: {} settings {{ {settings} }} }}",
        quote(group)
    )
}

/// Of deletion and of information.
pub(super) fn named(stream: &str, group: &str) -> String {
    let place = if stream == "$all" { "all {}".to_owned() } else { ident(stream) };
    format!("options {{ {place} group_name: {} }}", quote(group))
}

pub(super) fn reading(stream: &str, group: &str, buffer: i32) -> String {
    let place = if stream == "$all" { "all {}".to_owned() } else { ident(stream) };
    format!(
        "options {{ {place} group_name: {} buffer_size: {buffer} uuid_option {{ string {{}} }} }}",
        quote(group)
    )
}

pub(super) fn replay(stream: &str, group: &str, stop: &str) -> String {
    let place = if stream == "$all" { "all {}".to_owned() } else { ident(stream) };
    format!("options {{ group_name: {} {place} {stop} }}", quote(group))
}

/// The id by which an event is answered: the link's, where there is one.
pub(super) fn id_of(message: &DynamicMessage) -> Option<String> {
    let of = |part| within(message, &["event", part, "id", "string"]);
    let id = of("link").or_else(|| of("event"))?;
    Some(id.as_str()?.to_owned())
}

pub(super) fn correlation(message: &DynamicMessage) -> String {
    let metadata = within(message, &["event", "event", "custom_metadata"]);
    let metadata = metadata.as_ref().and_then(|value| value.as_bytes()).cloned();
    String::from_utf8_lossy(&metadata.unwrap_or_default()).into_owned()
}

pub(super) fn acked(messages: &[DynamicMessage]) -> String {
    let ids: Vec<_> = messages.iter().filter_map(id_of).collect();
    format!("ack {{ {} }}", ids_text(&ids))
}

pub(super) fn nacked(messages: &[DynamicMessage], action: &str, reason: &str) -> String {
    let ids: Vec<_> = messages.iter().filter_map(id_of).collect();
    format!("nack {{ {} action: {action} reason: {} }}", ids_text(&ids), quote(reason))
}

pub(super) fn ids_text(ids: &[String]) -> String {
    ids.iter().map(|id| format!("ids {{ string: {} }} ", quote(id))).collect()
}

pub(super) fn parked_stream(stream: &str, group: &str) -> String {
    format!("$persistentsubscription-{stream}::{group}-parked")
}

/// A stream with events, and a group on it that begins at its start.
pub(super) async fn given(p: &mut Play, events: usize, settings: &str) -> (String, String) {
    let (stream, group) = (p.stream(), p.group());
    p.given(&stream, events).await;
    let message = on_stream(&stream, "start {}", &group, settings);
    p.given_call("a group on S1 from its start", "Persistent/Create", &message).await;
    p.say(format!("   settings {settings}"));
    (stream, group)
}

pub(super) async fn consume(
    p: &mut Play,
    stream: &str,
    group: &str,
    buffer: i32,
) -> (Call, Vec<DynamicMessage>) {
    let mut call = p.open("Persistent/Read", &[reading(stream, group, buffer)]);
    let messages = p.drain(&mut call).await;
    (call, messages)
}

pub(super) async fn see_parked(p: &mut Play, stream: &str, group: &str) {
    p.say("-- what is parked");
    let parked = parked_stream(stream, group);
    p.read(read(&parked)).await;
    p.read(read(&parked).links()).await;
    p.read(read(format!("$${parked}"))).await;
}

pub(super) async fn info(p: &mut Play, stream: &str, group: &str) {
    p.call("Persistent/GetInfo", &[named(stream, group)]).await;
}

pub(super) async fn remove(p: &mut Play, stream: &str, group: &str) {
    let message = named(stream, group);
    p.given_call("the group is deleted", "Persistent/Delete", &message).await;
}
