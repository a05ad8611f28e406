//! Consumers of a group.

use std::time::Duration;

use super::common::{
    SETTINGS, acked, but, consume, correlation, given, id_of, ids_text, info, nacked, named,
    on_stream, reading, remove, replay, see_parked,
};
use crate::{
    ask::{Any, ev, evs, options, read},
    play::{List, new_id},
};

pub(super) fn consuming(list: &mut List) {
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

pub(super) fn strategies(list: &mut List) {
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

pub(super) fn ends(list: &mut List) {
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
