//! Parked events, and their replay.

use super::common::{
    SETTINGS, acked, consume, given, id_of, info, nacked, on_all, remove, replay, see_parked,
};
use crate::{ask::prefix, play::List};

pub(super) fn parking(list: &mut List) {
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
