//! Persistent subscriptions.

use std::time::Duration;

use prost_reflect::DynamicMessage;

use crate::{
    ask::{Any, ev, evs, ident, options, prefix, quote, read, regex},
    play::{Call, List, Play, State, new_id, within},
};

/// As clients send them unless told otherwise.
const SETTINGS: &str = "max_retry_count: 10 min_checkpoint_count: 10 max_checkpoint_count: 1000 \
    live_buffer_size: 500 read_batch_size: 20 history_buffer_size: 500 message_timeout_ms: 30000 \
    checkpoint_after_ms: 2000 consumer_strategy: \"RoundRobin\"";

/// Sets one thing otherwise.
fn but(changed: &str) -> String {
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

fn on_stream(stream: &str, from: &str, group: &str, settings: &str) -> String {
    format!(
        "options {{ stream {{ {} {from} }} group_name: {} settings {{ {settings} }} }}",
        ident(stream),
        quote(group)
    )
}

fn on_all(from: &str, filter: &str, group: &str, settings: &str) -> String {
    format!(
        "options {{ all {{ {from} {filter} }} group_name: {} settings {{ {settings} }} }}",
        quote(group)
    )
}

/// Of deletion and of information.
fn named(stream: &str, group: &str) -> String {
    let place = if stream == "$all" { "all {}".to_owned() } else { ident(stream) };
    format!("options {{ {place} group_name: {} }}", quote(group))
}

fn reading(stream: &str, group: &str, buffer: i32) -> String {
    let place = if stream == "$all" { "all {}".to_owned() } else { ident(stream) };
    format!(
        "options {{ {place} group_name: {} buffer_size: {buffer} uuid_option {{ string {{}} }} }}",
        quote(group)
    )
}

fn replay(stream: &str, group: &str, stop: &str) -> String {
    let place = if stream == "$all" { "all {}".to_owned() } else { ident(stream) };
    format!("options {{ group_name: {} {place} {stop} }}", quote(group))
}

/// The id by which an event is answered: the link's, where there is one.
fn id_of(message: &DynamicMessage) -> Option<String> {
    let of = |part| within(message, &["event", part, "id", "string"]);
    let id = of("link").or_else(|| of("event"))?;
    Some(id.as_str()?.to_owned())
}

fn correlation(message: &DynamicMessage) -> String {
    let metadata = within(message, &["event", "event", "custom_metadata"]);
    let metadata = metadata.as_ref().and_then(|value| value.as_bytes()).cloned();
    String::from_utf8_lossy(&metadata.unwrap_or_default()).into_owned()
}

fn acked(messages: &[DynamicMessage]) -> String {
    let ids: Vec<_> = messages.iter().filter_map(id_of).collect();
    format!("ack {{ {} }}", ids_text(&ids))
}

fn nacked(messages: &[DynamicMessage], action: &str, reason: &str) -> String {
    let ids: Vec<_> = messages.iter().filter_map(id_of).collect();
    format!("nack {{ {} action: {action} reason: {} }}", ids_text(&ids), quote(reason))
}

fn ids_text(ids: &[String]) -> String {
    ids.iter().map(|id| format!("ids {{ string: {} }} ", quote(id))).collect()
}

fn parked_stream(stream: &str, group: &str) -> String {
    format!("$persistentsubscription-{stream}::{group}-parked")
}

/// A stream with events, and a group on it that begins at its start.
async fn given(p: &mut Play, events: usize, settings: &str) -> (String, String) {
    let (stream, group) = (p.stream(), p.group());
    p.given(&stream, events).await;
    let message = on_stream(&stream, "start {}", &group, settings);
    p.given_call("a group on S1 from its start", "Persistent/Create", &message).await;
    p.say(format!("   settings {settings}"));
    (stream, group)
}

async fn consume(
    p: &mut Play,
    stream: &str,
    group: &str,
    buffer: i32,
) -> (Call, Vec<DynamicMessage>) {
    let mut call = p.open("Persistent/Read", &[reading(stream, group, buffer)]);
    let messages = p.drain(&mut call).await;
    (call, messages)
}

async fn see_parked(p: &mut Play, stream: &str, group: &str) {
    p.say("-- what is parked");
    let parked = parked_stream(stream, group);
    p.read(read(&parked)).await;
    p.read(read(&parked).links()).await;
    p.read(read(format!("$${parked}"))).await;
}

async fn info(p: &mut Play, stream: &str, group: &str) {
    p.call("Persistent/GetInfo", &[named(stream, group)]).await;
}

async fn remove(p: &mut Play, stream: &str, group: &str) {
    let message = named(stream, group);
    p.given_call("the group is deleted", "Persistent/Delete", &message).await;
}

pub(crate) fn add(list: &mut List) {
    create(list);
    manage(list);
    consuming(list);
    parking(list);
    strategies(list);
    ends(list);
}

fn create(list: &mut List) {
    let strategies = [
        "DispatchToSingle",
        "RoundRobin",
        "Pinned",
        "PinnedByCorrelation",
        "Nothing",
        "roundrobin",
    ];
    let mut cases: Vec<(String, String)> = vec![
        ("defaults".to_owned(), SETTINGS.to_owned()),
        ("empty".to_owned(), String::new()),
        ("no-timeout".to_owned(), SETTINGS.replace("message_timeout_ms: 30000", "")),
        ("no-checkpoint-after".to_owned(), SETTINGS.replace("checkpoint_after_ms: 2000", "")),
        (
            "ticks".to_owned(),
            SETTINGS
                .replace("message_timeout_ms: 30000", "message_timeout_ticks: 50000000")
                .replace("checkpoint_after_ms: 2000", "checkpoint_after_ticks: 30000000"),
        ),
        (
            "enum-pinned".to_owned(),
            SETTINGS
                .replace("consumer_strategy: \"RoundRobin\"", "named_consumer_strategy: Pinned"),
        ),
        ("enum-and-name".to_owned(), format!("{SETTINGS} named_consumer_strategy: Pinned")),
        (
            "enum-unknown".to_owned(),
            SETTINGS.replace("consumer_strategy: \"RoundRobin\"", "named_consumer_strategy: 9"),
        ),
        ("no-strategy".to_owned(), SETTINGS.replace("consumer_strategy: \"RoundRobin\"", "")),
    ];
    for changed in [
        "message_timeout_ms: -1",
        "checkpoint_after_ms: -1",
        "max_retry_count: -1",
        "max_retry_count: 0",
        "live_buffer_size: 0",
        "live_buffer_size: -1",
        "history_buffer_size: 0",
        "history_buffer_size: 20",
        "history_buffer_size: 19",
        "read_batch_size: 0",
        "read_batch_size: 500",
        "read_batch_size: -1",
        "min_checkpoint_count: -1",
        "min_checkpoint_count: 2000",
        "max_checkpoint_count: 0",
        "max_subscriber_count: -1",
        "max_subscriber_count: 3",
        "resolve_links: true",
        "extra_statistics: true",
    ] {
        cases.push((changed.replace(": ", "="), but(changed)));
    }
    for strategy in strategies {
        cases.push((
            format!("strategy-{strategy}"),
            but(&format!("consumer_strategy: \"{strategy}\"")),
        ));
    }
    for (name, settings) in cases {
        list.add(format!("group/create/{name}"), async move |p| {
            let (stream, group) = (p.stream(), p.group());
            p.given(&stream, 1).await;
            p.call("Persistent/Create", &[on_stream(&stream, "start {}", &group, &settings)]).await;
            info(p, &stream, &group).await;
            p.call("Persistent/Delete", &[named(&stream, &group)]).await;
        });
    }
    list.add("group/create/no-settings", async |p| {
        let (stream, group) = (p.stream(), p.group());
        let text = format!(
            "options {{ stream {{ {} start {{}} }} group_name: {} }}",
            ident(&stream),
            quote(&group)
        );
        p.call("Persistent/Create", &[text]).await;
    });
    for (name, from) in [
        ("start", "start {}"),
        ("end", "end {}"),
        ("rev1", "revision: 1"),
        ("rev9-beyond", "revision: 9"),
        ("u64max", "revision: 18446744073709551615"),
        ("no-place", ""),
    ] {
        list.add(format!("group/create/from/{name}"), async move |p| {
            let (stream, group) = (p.stream(), p.group());
            p.given(&stream, 3).await;
            p.call("Persistent/Create", &[on_stream(&stream, from, &group, SETTINGS)]).await;
            info(p, &stream, &group).await;
            let (mut call, messages) = consume(p, &stream, &group, 10).await;
            p.send(&mut call, &acked(&messages));
            p.given_events(&stream, &[ev("live", "{}")]).await;
            p.drain(&mut call).await;
            drop(call);
            remove(p, &stream, &group).await;
        });
    }
    for state in State::ALL {
        list.add(format!("group/create/on/{}", state.name()), async move |p| {
            let group = p.group();
            let stream = p.given_state(state).await;
            p.call("Persistent/Create", &[on_stream(&stream, "start {}", &group, SETTINGS)]).await;
            let (call, _) = consume(p, &stream, &group, 10).await;
            info(p, &stream, &group).await;
            drop(call);
            remove(p, &stream, &group).await;
        });
    }
    list.add("group/create/twice", async |p| {
        let (stream, group) = (p.stream(), p.group());
        let text = on_stream(&stream, "start {}", &group, SETTINGS);
        p.call("Persistent/Create", &[text.clone()]).await;
        p.call("Persistent/Create", &[text]).await;
        remove(p, &stream, &group).await;
    });
    list.add("group/create/by-the-old-fields", async |p| {
        let (stream, group) = (p.stream(), p.group());
        p.given(&stream, 3).await;
        let text = format!(
            "options {{ {} group_name: {} settings {{ revision: 1 {SETTINGS} }} }}",
            ident(&stream),
            quote(&group)
        );
        p.call("Persistent/Create", &[text]).await;
        info(p, &stream, &group).await;
        let (call, _) = consume(p, &stream, &group, 10).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    for (name, group) in
        [("empty", ""), ("colons", "a::b"), ("not-ascii", "é€"), ("slash", "a/b"), ("space", " ")]
    {
        list.add(format!("group/create/name/{name}"), async move |p| {
            let stream = p.stream();
            let text = on_stream(&stream, "start {}", group, SETTINGS);
            p.call("Persistent/Create", &[text.clone()]).await;
            p.call("Persistent/Create", &[text]).await;
            p.call("Persistent/Delete", &[named(&stream, group)]).await;
            p.call("Persistent/Delete", &[named(&stream, group)]).await;
        });
    }
    for (name, stream) in [("empty", ""), ("all", "$all"), ("dollars", "$$")] {
        list.add(format!("group/create/stream-name/{name}"), async move |p| {
            let group = p.group();
            p.call("Persistent/Create", &[on_stream(stream, "start {}", &group, SETTINGS)]).await;
            let text = format!("options {{ {} group_name: {} }}", ident(stream), quote(&group));
            p.call("Persistent/Delete", &[text]).await;
        });
    }
    for (name, from, filter) in [
        ("start", "start {}", "no_filter {}"),
        ("end", "end {}", "no_filter {}"),
        ("neither-filter", "end {}", ""),
        (
            "u64max",
            "position { commit_position: 18446744073709551615 prepare_position: 18446744073709551615 }",
            "no_filter {}",
        ),
        (
            "beyond",
            "position { commit_position: 1000000000000 prepare_position: 1000000000000 }",
            "no_filter {}",
        ),
        (
            "commit-before-prepare",
            "position { commit_position: 1 prepare_position: 2 }",
            "no_filter {}",
        ),
        (
            "window-missing",
            "end {}",
            "filter { event_type { prefix: \"t\" } checkpointIntervalMultiplier: 1 }",
        ),
        ("multiplier-0", "end {}", "filter { event_type { prefix: \"t\" } max: 32 }"),
        (
            "window-0",
            "end {}",
            "filter { event_type { prefix: \"t\" } max: 0 checkpointIntervalMultiplier: 1 }",
        ),
        ("filter-empty", "end {}", "filter { max: 32 checkpointIntervalMultiplier: 1 }"),
        (
            "regex-malformed",
            "end {}",
            "filter { event_type { regex: \"(\" } max: 32 checkpointIntervalMultiplier: 1 }",
        ),
    ] {
        list.add(format!("group/create/all/{name}"), async move |p| {
            let group = p.group();
            p.call("Persistent/Create", &[on_all(from, filter, &group, SETTINGS)]).await;
            info(p, "$all", &group).await;
            p.call("Persistent/Delete", &[named("$all", &group)]).await;
        });
    }
    for by_regex in [false, true] {
        list.add(format!("group/all/filtered-{}", if by_regex { "regex" } else { "prefix" }), async move |p| {
            let (stream, other, group) = (p.stream(), p.stream(), p.group());
            let at = p.given(&stream, 2).await;
            p.given(&other, 2).await;
            let expression = if by_regex { regex(&format!("^{stream}$")) } else { prefix(&[&stream]) };
            let from = format!("position {{ commit_position: {0} prepare_position: {0} }}", at[0]);
            let filter = format!("filter {{ stream_identifier {{ {expression} }} max: 32 checkpointIntervalMultiplier: 1 }}");
            p.call("Persistent/Create", &[on_all(&from, &filter, &group, SETTINGS)]).await;
            p.call("Persistent/Create", &[on_all(&from, &filter, &group, SETTINGS)]).await;
            let (mut call, messages) = consume(p, "$all", &group, 10).await;
            p.send(&mut call, &acked(&messages));
            p.given_events(&stream, &[ev("live", "{}")]).await;
            p.given_events(&other, &[ev("live", "{}")]).await;
            p.drain(&mut call).await;
            info(p, "$all", &group).await;
            drop(call);
            remove(p, "$all", &group).await;
        });
    }
}

fn manage(list: &mut List) {
    list.add("group/update/settings", async |p| {
        let (stream, group) = given(p, 3, SETTINGS).await;
        let settings = but("max_retry_count: 3");
        p.call("Persistent/Update", &[on_stream(&stream, "revision: 2", &group, &settings)]).await;
        info(p, &stream, &group).await;
        let (call, _) = consume(p, &stream, &group, 10).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/update/missing", async |p| {
        let (stream, group) = (p.stream(), p.group());
        p.call("Persistent/Update", &[on_stream(&stream, "start {}", &group, SETTINGS)]).await;
        p.call("Persistent/Update", &[on_all("start {}", "", &group, SETTINGS)]).await;
    });
    list.add("group/update/odd-settings", async |p| {
        let (stream, group) = given(p, 1, SETTINGS).await;
        for settings in [
            String::new(),
            but("consumer_strategy: \"Nothing\""),
            but("history_buffer_size: 10"),
            but("message_timeout_ms: -1"),
        ] {
            p.call("Persistent/Update", &[on_stream(&stream, "start {}", &group, &settings)]).await;
        }
        info(p, &stream, &group).await;
        remove(p, &stream, &group).await;
    });
    list.add("group/update/while-reading", async |p| {
        let (stream, group) = given(p, 2, SETTINGS).await;
        let (mut call, _) = consume(p, &stream, &group, 10).await;
        p.call(
            "Persistent/Update",
            &[on_stream(&stream, "start {}", &group, &but("max_retry_count: 3"))],
        )
        .await;
        p.drain(&mut call).await;
        drop(call);
        let (call, _) = consume(p, &stream, &group, 10).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/delete/twice", async |p| {
        let (stream, group) = given(p, 1, SETTINGS).await;
        p.call("Persistent/Delete", &[named(&stream, &group)]).await;
        p.call("Persistent/Delete", &[named(&stream, &group)]).await;
        p.call("Persistent/Delete", &[named("$all", &group)]).await;
    });
    list.add("group/delete/while-reading", async |p| {
        let (stream, group) = given(p, 2, SETTINGS).await;
        let (mut call, _) = consume(p, &stream, &group, 10).await;
        p.call("Persistent/Delete", &[named(&stream, &group)]).await;
        p.drain(&mut call).await;
    });
    list.add("group/delete/and-create-again", async |p| {
        let (stream, group) = given(p, 3, &but("min_checkpoint_count: 1")).await;
        let (mut call, messages) = consume(p, &stream, &group, 10).await;
        let events: Vec<_> = messages.into_iter().filter(|m| id_of(m).is_some()).collect();
        let (first, rest) = events.split_at(1.min(events.len()));
        p.send(&mut call, &nacked(first, "Park", "bad"));
        p.send(&mut call, &acked(rest));
        p.pause(2500).await;
        drop(call);
        p.pause(300).await;
        p.call("Persistent/Delete", &[named(&stream, &group)]).await;
        see_parked(p, &stream, &group).await;
        p.read(read(format!("$persistentsubscription-{stream}::{group}-checkpoint"))).await;
        p.call("Persistent/Create", &[on_stream(&stream, "start {}", &group, SETTINGS)]).await;
        let (call, _) = consume(p, &stream, &group, 10).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/info/missing", async |p| {
        let (stream, group) = (p.stream(), p.group());
        info(p, &stream, &group).await;
        info(p, "$all", &group).await;
    });
    list.add("group/info/with-a-consumer", async |p| {
        let (stream, group) = given(p, 3, SETTINGS).await;
        p.set.headers.push(("connection-name".to_owned(), "the-name".to_owned()));
        let (mut call, messages) = consume(p, &stream, &group, 2).await;
        info(p, &stream, &group).await;
        p.send(&mut call, &acked(&messages));
        p.drain(&mut call).await;
        info(p, &stream, &group).await;
        drop(call);
        p.pause(500).await;
        info(p, &stream, &group).await;
        remove(p, &stream, &group).await;
    });
    list.add("group/info/statistics", async |p| {
        let (stream, group) = given(p, 2, &but("extra_statistics: true")).await;
        let (mut call, messages) = consume(p, &stream, &group, 10).await;
        p.send(&mut call, &acked(&messages));
        p.drain(&mut call).await;
        info(p, &stream, &group).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/list/all", async |p| {
        let (stream, group) = given(p, 1, SETTINGS).await;
        let other = p.group();
        let text = on_stream(&stream, "end {}", &other, SETTINGS);
        p.given_call("another group on S1", "Persistent/Create", &text).await;
        let text = on_all("end {}", "no_filter {}", &group, SETTINGS);
        p.given_call("a group on $all", "Persistent/Create", &text).await;
        p.call("Persistent/List", &["options { list_all_subscriptions {} }".to_owned()]).await;
        p.call("Persistent/List", &["options {}".to_owned()]).await;
        let of = format!(
            "options {{ list_for_stream {{ stream {{ stream_name: {} }} }} }}",
            quote(&stream)
        );
        p.call("Persistent/List", &[of]).await;
        p.call("Persistent/List", &["options { list_for_stream { all {} } }".to_owned()]).await;
        p.call("Persistent/List", &["options { list_for_stream {} }".to_owned()]).await;
        remove(p, &stream, &group).await;
        remove(p, &stream, &other).await;
        remove(p, "$all", &group).await;
        let of = format!(
            "options {{ list_for_stream {{ stream {{ stream_name: {} }} }} }}",
            quote(&stream)
        );
        p.call("Persistent/List", &[of]).await;
    });
    list.add("group/list/of-a-stream-without", async |p| {
        let stream = p.stream();
        let of = format!(
            "options {{ list_for_stream {{ stream {{ stream_name: {} }} }} }}",
            quote(&stream)
        );
        p.call("Persistent/List", &[of]).await;
    });
}

fn consuming(list: &mut List) {
    list.add("group/read/missing", async |p| {
        let (stream, group) = (p.stream(), p.group());
        p.call("Persistent/Read", &[reading(&stream, &group, 10)]).await;
        p.call("Persistent/Read", &[reading("$all", &group, 10)]).await;
    });
    for buffer in [1, 2, 10, 0, -1] {
        list.add(format!("group/read/buffer{buffer}"), async move |p| {
            let (stream, group) = given(p, 4, SETTINGS).await;
            let (mut call, mut messages) = consume(p, &stream, &group, buffer).await;
            for _ in 0..4 {
                if messages.iter().all(|message| id_of(message).is_none()) || call.ended {
                    break;
                }
                p.send(&mut call, &acked(&messages));
                messages = p.drain(&mut call).await;
            }
            drop(call);
            remove(p, &stream, &group).await;
        });
    }
    list.add("group/read/uuid-structured", async |p| {
        let (stream, group) = given(p, 1, SETTINGS).await;
        let text = reading(&stream, &group, 10).replace("uuid_option { string {} }", "");
        let mut call = p.open("Persistent/Read", &[text]);
        p.drain(&mut call).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/read/ack-first", async |p| {
        p.call("Persistent/Read", &[format!("ack {{ {} }}", ids_text(&[new_id().to_string()]))])
            .await;
    });
    list.add("group/read/options-twice", async |p| {
        let (stream, group) = given(p, 1, SETTINGS).await;
        let (mut call, _) = consume(p, &stream, &group, 10).await;
        p.send(&mut call, &reading(&stream, &group, 10));
        p.drain(&mut call).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/read/no-more-from-the-client", async |p| {
        let (stream, group) = given(p, 1, SETTINGS).await;
        let (mut call, _) = consume(p, &stream, &group, 10).await;
        p.close(&mut call);
        p.drain(&mut call).await;
        p.given_events(&stream, &[ev("live", "{}")]).await;
        p.drain(&mut call).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/ack/unknown-and-twice", async |p| {
        let (stream, group) = given(p, 2, SETTINGS).await;
        let (mut call, messages) = consume(p, &stream, &group, 10).await;
        p.send(&mut call, &format!("ack {{ {} }}", ids_text(&[new_id().to_string()])));
        p.send(&mut call, &acked(&messages));
        p.send(&mut call, &acked(&messages));
        p.send(&mut call, "ack {}");
        p.send(&mut call, "");
        p.given_events(&stream, &[ev("live", "{}")]).await;
        p.drain(&mut call).await;
        info(p, &stream, &group).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/ack/no-uuid", async |p| {
        let (stream, group) = given(p, 1, SETTINGS).await;
        let (mut call, _) = consume(p, &stream, &group, 10).await;
        p.send(&mut call, "ack { ids { string: \"no-uuid\" } }");
        p.drain(&mut call).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    for action in ["Unknown", "Park", "Retry", "Skip", "Stop", "9"] {
        list.add(format!("group/nack/{action}"), async move |p| {
            let (stream, group) = given(p, 3, &but("max_retry_count: 1")).await;
            let (mut call, messages) = consume(p, &stream, &group, 10).await;
            let first: Vec<_> =
                messages.iter().filter(|m| id_of(m).is_some()).take(1).cloned().collect();
            p.send(&mut call, &nacked(&first, action, "the reason"));
            p.drain(&mut call).await;
            p.say("-- again");
            p.send(&mut call, &nacked(&first, action, "another reason"));
            p.drain(&mut call).await;
            p.given_events(&stream, &[ev("live", "{}")]).await;
            p.drain(&mut call).await;
            info(p, &stream, &group).await;
            see_parked(p, &stream, &group).await;
            drop(call);
            p.say("-- and another consumer");
            p.pause(300).await;
            let (call, _) = consume(p, &stream, &group, 10).await;
            drop(call);
            remove(p, &stream, &group).await;
        });
    }
    list.add("group/retry/count-exceeded", async |p| {
        let (stream, group) = given(p, 2, &but("max_retry_count: 2")).await;
        let (mut call, messages) = consume(p, &stream, &group, 10).await;
        let mut first: Vec<_> =
            messages.iter().filter(|m| id_of(m).is_some()).take(1).cloned().collect();
        for _ in 0..4 {
            if first.is_empty() || call.ended {
                break;
            }
            p.send(&mut call, &nacked(&first, "Retry", "not now"));
            first = p.drain(&mut call).await;
        }
        see_parked(p, &stream, &group).await;
        info(p, &stream, &group).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/retry/time-out", async |p| {
        let (stream, group) = given(p, 1, &format!("{} ", but("message_timeout_ms: 400"))).await;
        let mut call = p.open("Persistent/Read", &[reading(&stream, &group, 10)]);
        // The confirmation and three tries.
        p.take_within(&mut call, 4, Duration::from_secs(4)).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/retry/time-out-and-parked", async |p| {
        let settings =
            but("message_timeout_ms: 300").replace("max_retry_count: 10", "max_retry_count: 1");
        let (stream, group) = given(p, 1, &settings).await;
        let mut call = p.open("Persistent/Read", &[reading(&stream, &group, 10)]);
        p.take_within(&mut call, 3, Duration::from_secs(4)).await;
        p.pause(3000).await;
        see_parked(p, &stream, &group).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/retry/no-timeout-at-all", async |p| {
        let settings = SETTINGS.replace("message_timeout_ms: 30000", "");
        let (stream, group) = given(p, 1, &settings).await;
        let mut call = p.open("Persistent/Read", &[reading(&stream, &group, 10)]);
        p.take_within(&mut call, 3, Duration::from_secs(3)).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/progress/kept", async |p| {
        let (stream, group) = given(
            p,
            4,
            &but("min_checkpoint_count: 1")
                .replace("checkpoint_after_ms: 2000", "checkpoint_after_ms: 300"),
        )
        .await;
        let (mut call, messages) = consume(p, &stream, &group, 10).await;
        let two: Vec<_> = messages.iter().filter(|m| id_of(m).is_some()).take(2).cloned().collect();
        p.send(&mut call, &acked(&two));
        p.pause(2500).await;
        info(p, &stream, &group).await;
        let checkpoint = format!("$persistentsubscription-{stream}::{group}-checkpoint");
        p.read(read(&checkpoint)).await;
        p.read(read(format!("$${checkpoint}"))).await;
        drop(call);
        p.pause(300).await;
        let (call, _) = consume(p, &stream, &group, 10).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/links/resolved", async |p| {
        let (stream, target, gone, group) = (p.stream(), p.stream(), p.stream(), p.group());
        p.given(&target, 2).await;
        p.given(&gone, 1).await;
        p.given_deleted(&gone).await;
        let link = |to: String| ev("$>", &to).binary();
        p.given_events(
            &stream,
            &[link(format!("1@{target}")), link(format!("0@{gone}")), ev("plain", "{}")],
        )
        .await;
        p.call(
            "Persistent/Create",
            &[on_stream(&stream, "start {}", &group, &but("resolve_links: true"))],
        )
        .await;
        let (mut call, messages) = consume(p, &stream, &group, 10).await;
        p.send(&mut call, &nacked(&messages, "Park", "links"));
        p.drain(&mut call).await;
        see_parked(p, &stream, &group).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/links/not-resolved", async |p| {
        let (stream, target, group) = (p.stream(), p.stream(), p.group());
        p.given(&target, 2).await;
        p.given_events(&stream, &[ev("$>", &format!("1@{target}")).binary(), ev("plain", "{}")])
            .await;
        p.call("Persistent/Create", &[on_stream(&stream, "start {}", &group, SETTINGS)]).await;
        let (call, _) = consume(p, &stream, &group, 10).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
}

fn parking(list: &mut List) {
    for (name, stop) in [
        ("no-limit", "no_limit {}"),
        ("stop-at-0", "stop_at: 0"),
        ("stop-at-1", "stop_at: 1"),
        ("stop-at-2", "stop_at: 2"),
        ("stop-at-9", "stop_at: 9"),
        ("stop-at-negative", "stop_at: -1"),
        ("unset", ""),
    ] {
        list.add(format!("group/replay/{name}"), async move |p| {
            let (stream, group) = given(p, 3, SETTINGS).await;
            let (mut call, messages) = consume(p, &stream, &group, 10).await;
            for message in messages.iter().filter(|message| id_of(message).is_some()) {
                p.send(&mut call, &nacked(std::slice::from_ref(message), "Park", "bad"));
                // One after the other.
                p.pause(150).await;
            }
            p.pause(300).await;
            see_parked(p, &stream, &group).await;
            p.call("Persistent/ReplayParked", &[replay(&stream, &group, stop)]).await;
            let again = p.drain(&mut call).await;
            p.send(&mut call, &acked(&again));
            p.pause(500).await;
            see_parked(p, &stream, &group).await;
            info(p, &stream, &group).await;
            drop(call);
            remove(p, &stream, &group).await;
        });
    }
    list.add("group/replay/parked-again", async |p| {
        let (stream, group) = given(p, 1, SETTINGS).await;
        let (mut call, messages) = consume(p, &stream, &group, 10).await;
        p.send(&mut call, &nacked(&messages, "Park", "once"));
        p.pause(400).await;
        p.call("Persistent/ReplayParked", &[replay(&stream, &group, "no_limit {}")]).await;
        let again = p.drain(&mut call).await;
        p.send(&mut call, &nacked(&again, "Park", "twice"));
        p.pause(400).await;
        see_parked(p, &stream, &group).await;
        p.call("Persistent/ReplayParked", &[replay(&stream, &group, "stop_at: 1")]).await;
        p.drain(&mut call).await;
        p.call("Persistent/ReplayParked", &[replay(&stream, &group, "stop_at: 2")]).await;
        p.drain(&mut call).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/replay/nothing-parked", async |p| {
        let (stream, group) = given(p, 1, SETTINGS).await;
        p.call("Persistent/ReplayParked", &[replay(&stream, &group, "no_limit {}")]).await;
        p.call("Persistent/ReplayParked", &[replay(&stream, &group, "stop_at: 1")]).await;
        remove(p, &stream, &group).await;
    });
    list.add("group/replay/missing", async |p| {
        let (stream, group) = (p.stream(), p.group());
        p.call("Persistent/ReplayParked", &[replay(&stream, &group, "no_limit {}")]).await;
        p.call("Persistent/ReplayParked", &[replay("$all", &group, "no_limit {}")]).await;
    });
    list.add("group/replay/of-all", async |p| {
        let (stream, group) = (p.stream(), p.group());
        let at = p.given(&stream, 2).await;
        let from = format!("position {{ commit_position: {0} prepare_position: {0} }}", at[0]);
        let filter = format!(
            "filter {{ stream_identifier {{ {} }} max: 32 checkpointIntervalMultiplier: 1 }}",
            prefix(&[&stream])
        );
        p.call("Persistent/Create", &[on_all(&from, &filter, &group, SETTINGS)]).await;
        let (mut call, messages) = consume(p, "$all", &group, 10).await;
        p.send(&mut call, &nacked(&messages, "Park", "bad"));
        p.pause(500).await;
        see_parked(p, "$all", &group).await;
        p.call("Persistent/ReplayParked", &[replay("$all", &group, "no_limit {}")]).await;
        p.drain(&mut call).await;
        drop(call);
        remove(p, "$all", &group).await;
    });
}

fn strategies(list: &mut List) {
    for strategy in ["RoundRobin", "DispatchToSingle", "Pinned", "PinnedByCorrelation"] {
        list.add(format!("group/two-consumers/{strategy}"), async move |p| {
            let settings = but(&format!("consumer_strategy: \"{strategy}\""));
            let (stream, group) = given(p, 0, &settings).await;
            let pinned = strategy.starts_with("Pinned");
            let buffer = if pinned { 10 } else { 3 };
            let (mut one, _) = consume(p, &stream, &group, buffer).await;
            let (mut two, _) = consume(p, &stream, &group, buffer).await;
            let events: Vec<_> = evs(5)
                .into_iter()
                .enumerate()
                .map(|(n, event)| event.meta(format!("{{\"$correlationId\":\"c{}\"}}", n % 2)))
                .collect();
            p.given_events(&stream, &events).await;
            p.pause(300).await;
            if pinned {
                // To which of both something is pinned is open.
                let got = [p.collect_unseen(&mut one).await, p.collect_unseen(&mut two).await];
                let total: usize = got.iter().map(Vec::len).sum();
                p.say(format!("   both together got {total}"));
                for wanted in ["c0", "c1"] {
                    let counts = got.each_ref().map(|got| {
                        got.iter().filter(|message| correlation(message).contains(wanted)).count()
                    });
                    let (most, least) = (counts[0].max(counts[1]), counts[0].min(counts[1]));
                    p.say(format!("   of {wanted} one got {most}, the other {least}"));
                }
            } else {
                p.say("-- the first");
                p.drain(&mut one).await;
                p.say("-- the second");
                p.drain(&mut two).await;
                drop(one);
                p.pause(300).await;
                p.say("-- the second, when the first is gone");
                p.drain(&mut two).await;
            }
            drop(two);
            remove(p, &stream, &group).await;
        });
    }
    list.add("group/max-subscribers", async |p| {
        let (stream, group) = given(p, 1, &but("max_subscriber_count: 1")).await;
        let (one, _) = consume(p, &stream, &group, 10).await;
        let (two, _) = consume(p, &stream, &group, 10).await;
        drop(two);
        drop(one);
        p.pause(300).await;
        let (three, _) = consume(p, &stream, &group, 10).await;
        drop(three);
        remove(p, &stream, &group).await;
    });
}

fn ends(list: &mut List) {
    list.add("group/source/tombstoned-while-reading", async |p| {
        let (stream, group) = given(p, 1, SETTINGS).await;
        let (mut call, messages) = consume(p, &stream, &group, 10).await;
        p.send(&mut call, &acked(&messages));
        p.given_tombstone(&stream).await;
        p.drain(&mut call).await;
        drop(call);
        p.call("Persistent/Delete", &[named(&stream, &group)]).await;
    });
    list.add("group/source/deleted-while-reading", async |p| {
        let (stream, group) = given(p, 1, SETTINGS).await;
        let (mut call, messages) = consume(p, &stream, &group, 10).await;
        p.send(&mut call, &acked(&messages));
        p.given_deleted(&stream).await;
        p.drain(&mut call).await;
        p.given_append(&stream, Any, &[ev("new", "{}")]).await;
        p.drain(&mut call).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/source/truncated", async |p| {
        let (stream, group) = (p.stream(), p.group());
        p.given(&stream, 3).await;
        p.given_metadata(&stream, r#"{"$tb":2}"#).await;
        p.call("Persistent/Create", &[on_stream(&stream, "start {}", &group, SETTINGS)]).await;
        let (call, _) = consume(p, &stream, &group, 10).await;
        drop(call);
        remove(p, &stream, &group).await;
    });
    list.add("group/source/parked-event-gone", async |p| {
        let (stream, group) = given(p, 1, SETTINGS).await;
        let (mut call, messages) = consume(p, &stream, &group, 10).await;
        p.send(&mut call, &nacked(&messages, "Park", "bad"));
        p.pause(400).await;
        p.given_call("S1 is tombstoned", "Streams/Tombstone", &options(&stream, Any)).await;
        p.call("Persistent/ReplayParked", &[replay(&stream, &group, "no_limit {}")]).await;
        p.drain(&mut call).await;
        drop(call);
        p.call("Persistent/Delete", &[named(&stream, &group)]).await;
    });
}

/// What everybody else's groups hear, too.
pub(crate) fn add_last(list: &mut List) {
    list.add("group/restart-subsystem", async |p| {
        let (stream, group) = given(p, 2, SETTINGS).await;
        let (mut call, _) = consume(p, &stream, &group, 10).await;
        p.call("Persistent/RestartSubsystem", &[String::new()]).await;
        p.drain(&mut call).await;
        drop(call);
        p.pause(2000).await;
        let (call, _) = consume(p, &stream, &group, 10).await;
        drop(call);
        p.call("Persistent/RestartSubsystem", &[String::new()]).await;
        p.call("Persistent/RestartSubsystem", &[String::new()]).await;
        p.pause(2000).await;
        info(p, &stream, &group).await;
        remove(p, &stream, &group).await;
    });
}
