//! Creating a group.

use super::common::{SETTINGS, acked, but, consume, info, named, on_all, on_stream, remove};
use crate::{
    ask::{ev, ident, prefix, quote, regex},
    given::State,
    play::List,
};

pub(super) fn create(list: &mut List) {
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
        p.call("Persistent/Create", std::slice::from_ref(&text)).await;
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
            p.call("Persistent/Create", std::slice::from_ref(&text)).await;
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
