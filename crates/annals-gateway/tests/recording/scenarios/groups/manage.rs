//! Changing and deleting a group, and what is told of it.

use super::common::{
    SETTINGS, acked, but, consume, given, id_of, info, nacked, named, on_all, on_stream, remove,
    see_parked,
};
use crate::{
    ask::{quote, read},
    play::List,
};

pub(super) fn manage(list: &mut List) {
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

/// What everybody else's groups hear, too.
pub(super) fn add_last(list: &mut List) {
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
