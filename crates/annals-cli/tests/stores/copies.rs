//! Copies that come to their end.

use annals::{
    EventStore, EventStoreExt, ExpectedVersion, Position, StreamState, SubscriberId, Version,
};
use annals_test_stores::{Fresh, Kind};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::command::{all, ends, fill, interrupt, kept, ok, piped, run, url_of};

pub(crate) async fn a_copy_follows_until_told_to_stop(kind: Kind) {
    let (from, to) = (Fresh::open(&kind).await, Fresh::open(&kind).await);
    fill(&from.store, 0, 30).await;
    let mut copy = piped(&["copy", "--follow", &from.url, &to.url]);
    let mut lines = BufReader::new(copy.stderr.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("it ended before it was in step");
        if line.starts_with("in step") {
            break;
        }
    }
    fill(&from.store, 30, 20).await;
    interrupt(&copy).await;
    // What had been appended before it was told to stop comes along.
    assert!(copy.wait().await.unwrap().success());
    assert_eq!(kept(&all(&to.store).await), kept(&all(&from.store).await));
    ok(&["verify", &from.url, &to.url]).await;
}

pub(crate) async fn a_copy_goes_to_postgres_and_comes_back(kind: Kind) {
    let from = Fresh::open(&kind).await;
    let postgres = Fresh::open(&postgres()).await;
    let back = Fresh::open(&kind).await;
    fill(&from.store, 0, 60).await;
    from.store.tombstone(&"order-1".try_into().unwrap(), ExpectedVersion::Any).await.unwrap();
    for (from, to) in [(&from, &postgres), (&postgres, &back)] {
        ok(&["copy", &from.url, &to.url]).await;
        ok(&["verify", &from.url, &to.url]).await;
    }
    let (before, after) = (all(&from.store).await, all(&back.store).await);
    assert_eq!(kept(&after), kept(&before));
    let times = |events: &[annals::RecordedEvent]| {
        events.iter().map(|event| event.recorded_at).collect::<Vec<_>>()
    };
    assert_eq!(times(&after), times(&before));
}

fn postgres() -> Kind {
    Kind::Postgres(annals_test_servers::postgres::Source::find())
}

/// A database that a .NET program has filled; see `annals-marten/tests/fixtures.rs`.
pub(crate) async fn what_marten_wrote_is_copied(kind: Kind) {
    use annals::marten::{
        MartenConfig,
        sqlx::{ConnectOptions, raw_sql},
    };
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/marten");
    let data = std::env::var("ANNALS_MARTEN_DATA").unwrap_or_else(|_| beside.to_owned());
    let script = std::path::Path::new(&data).join("guid_meta/schema-and-data.sql");
    let Ok(script) = std::fs::read_to_string(script) else {
        println!("there are no databases of Marten; name them by ANNALS_MARTEN_DATA");
        return;
    };
    // The fixture has its own schema on the same server.
    let url = Fresh::open(&kind).await.url;
    let (server, _) = url.split_once("create=string&schema=").unwrap();
    let url = format!("{server}schema=mp_guid_meta&mode=quick&read_only=true");
    let mut connection = MartenConfig::from_url(&url).unwrap().connect.connect().await.unwrap();
    raw_sql(annals::marten::sqlx::AssertSqlSafe(script)).execute(&mut connection).await.unwrap();
    let (hidden, whole) = (Fresh::open(&postgres()).await, Fresh::open(&postgres()).await);
    ok(&["copy", &url, &hidden.url]).await;
    ok(&["verify", &url, &hidden.url]).await;
    let with_archived = format!("{url}&archived=include");
    ok(&["copy", &with_archived, &whole.url]).await;
    ok(&["verify", &with_archived, &whole.url]).await;
    // Twenty rows, of which two are archived and one is a tombstone.
    assert_eq!((all(&hidden.store).await.len(), all(&whole.store).await.len()), (17, 19));
    let correlated = all(&whole.store).await;
    assert!(correlated[0].correlation_id().is_some());
}

pub(crate) async fn streams_are_left_as_they_were(kind: Kind) {
    let (from, to) = (Fresh::open(&kind).await, Fresh::open(&kind).await);
    fill(&from.store, 0, 40).await;
    let id = |text: &str| text.try_into().unwrap();
    let (truncated, deleted): (annals::StreamId, annals::StreamId) =
        (id("order-1"), id("stock ä-7"));
    let deleted_at = from.store.stream_info(&deleted).await.unwrap().version;
    if from.store.capabilities().list_streams {
        // Removed after it was copied: the target follows.
        ok(&["copy", &from.url, &to.url]).await;
    }
    from.store.truncate(&truncated, Version::new(3)).await.unwrap();
    from.store.delete(&deleted, ExpectedVersion::Any).await.unwrap();
    from.store.append_to("gone-1", ExpectedVersion::Any, [crate::command::event(1)]).await.unwrap();
    from.store.tombstone(&id("gone-1"), ExpectedVersion::Any).await.unwrap();
    ok(&["copy", &from.url, &to.url]).await;
    ok(&["copy", &from.url, &to.url]).await;
    let info = to.store.stream_info(&truncated).await.unwrap();
    assert_eq!(info.first_version, Some(Version::new(3)));
    assert_eq!(info, from.store.stream_info(&truncated).await.unwrap());
    assert!(!to.store.stream_info(&deleted).await.unwrap().exists());
    if from.store.capabilities().list_streams {
        let info = to.store.stream_info(&deleted).await.unwrap();
        assert_eq!((info.state, info.version), (StreamState::Deleted, deleted_at));
        let gone = to.store.stream_info(&id("gone-1")).await.unwrap();
        assert_eq!(gone.state, StreamState::Tombstoned);
    }
    ok(&["verify", &from.url, &to.url]).await;
}

pub(crate) async fn what_is_truncated_before_it_is_copied_stays_away(kind: Kind) {
    let (from, to) = (Fresh::open(&kind).await, Fresh::open(&kind).await);
    let stream: annals::StreamId = "order-1".try_into().unwrap();
    let more = |from: u64| (from..from + 4).map(crate::command::event);
    from.store.append_to(&stream, ExpectedVersion::Any, more(0)).await.unwrap();
    ok(&["copy", &from.url, &to.url]).await;
    from.store.append_to(&stream, ExpectedVersion::Any, more(4)).await.unwrap();
    // The target has versions 1 to 4, and 5 and 6 will never come.
    from.store.truncate(&stream, Version::new(7)).await.unwrap();
    ok(&["copy", &from.url, &to.url]).await;
    let info = to.store.stream_info(&stream).await.unwrap();
    assert_eq!(info, from.store.stream_info(&stream).await.unwrap());
    assert_eq!(info.first_version, Some(Version::new(7)));
    ok(&["verify", &from.url, &to.url]).await;
}

pub(crate) async fn several_lanes_keep_the_order_of_each_stream(kind: Kind) {
    let (from, to) = (Fresh::open(&kind).await, Fresh::open(&kind).await);
    fill(&from.store, 0, 80).await;
    ok(&["copy", &from.url, &to.url, "--lanes", "8"]).await;
    ok(&["verify", &from.url, &to.url, "--any-order"]).await;
    let said = ends(&["copy", &from.url, &to.url, "--lanes", "2", "--checkpoint", "a"], 2).await;
    assert!(said.contains("--lanes 1"), "{said}");
}

pub(crate) async fn a_copy_that_is_told_to_stop_goes_on_later(kind: Kind) {
    let (from, to) = (Fresh::open(&kind).await, Fresh::open(&kind).await);
    fill(&from.store, 0, 600).await;
    let mut copy = piped(&["copy", &from.url, &to.url]);
    let mut said = BufReader::new(copy.stderr.take().unwrap()).lines();
    // It listens by the time that it speaks.
    said.next_line().await.unwrap().unwrap();
    interrupt(&copy).await;
    let mut last = String::new();
    while let Some(line) = said.next_line().await.unwrap() {
        last = line;
    }
    // A fast one may have been done before.
    let slow = !to.store.capabilities().exact_import;
    match copy.wait().await.unwrap().code() {
        Some(130) => assert!(last.starts_with("stopped; the same command continues"), "{last}"),
        Some(0) if !slow => assert!(last.starts_with("done"), "{last}"),
        other => panic!("{other:?}: {last}"),
    }
    let there = kept(&all(&to.store).await);
    let due = kept(&all(&from.store).await);
    assert!(due.starts_with(&there), "something else than the beginning was copied");
    ok(&["copy", &from.url, &to.url]).await;
    ok(&["verify", &from.url, &to.url]).await;
}

pub(crate) async fn a_subscriber_is_carried_over(kind: Kind) {
    let (from, to) = (Fresh::open(&kind).await, Fresh::open(&kind).await);
    // So that positions cannot be the same by chance.
    to.store.append_to("before-1", ExpectedVersion::Any, [crate::command::event(1)]).await.unwrap();
    fill(&from.store, 0, 20).await;
    let reader = SubscriberId::new("invoices").unwrap();
    let events = all(&from.store).await;
    from.store.save_checkpoint(&reader, events[7].position).await.unwrap();
    ok(&["copy", &from.url, &to.url, "--checkpoint", "invoices"]).await;
    let position = to.store.load_checkpoint(&reader).await.unwrap().unwrap();
    let there = all(&to.store).await;
    let found = there.iter().find(|event| event.position == position).unwrap();
    assert_eq!(found.id, events[7].id);
    let said = ends(&["copy", &from.url, &to.url, "--checkpoint", "nobody"], 2).await;
    assert!(said.contains("no checkpoint of nobody"), "{said}");
}

pub(crate) async fn a_target_with_other_events_is_left_alone(kind: Kind) {
    let (from, to) = (Fresh::open(&kind).await, Fresh::open(&kind).await);
    fill(&from.store, 0, 10).await;
    fill(&to.store, 0, 10).await;
    let before = all(&to.store).await;
    let said = ends(&["copy", &from.url, &to.url], 4).await;
    assert!(said.contains("the target has other events in"), "{said}");
    assert_eq!(all(&to.store).await, before);
    let said = ends(&["verify", &from.url, &to.url], 3).await;
    assert!(said.contains("version 1: another id"), "{said}");
}

pub(crate) async fn what_is_not_of_the_source_is_not_removed(kind: Kind) {
    let (from, to) = (Fresh::open(&kind).await, Fresh::open(&kind).await);
    fill(&from.store, 0, 10).await;
    let own: annals::StreamId = "own-1".try_into().unwrap();
    for store in [&from.store, &to.store] {
        let events = [crate::command::event(1), crate::command::event(2)];
        store.append_to(&own, ExpectedVersion::Any, events).await.unwrap();
    }
    let before = all(&to.store).await;
    // Deleted, and truncated whole.
    from.store.delete(&own, ExpectedVersion::Any).await.unwrap();
    for _ in 0..2 {
        let output = run(&["copy", &from.url, &to.url]).await;
        let refused = from.store.capabilities().list_streams;
        assert_eq!(output.status.code(), Some(if refused { 4 } else { 0 }), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            said.contains("has events in own-1 that the source has removed"),
            refused,
            "{said}"
        );
        assert_eq!(to.store.load_stream(&own).await.unwrap(), before);
    }
}

pub(crate) async fn an_export_is_a_source(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let dir = tempfile::tempdir().unwrap();
    fill(&fresh.store, 0, 40).await;
    for scheme in ["jsonl", "cloudevents"] {
        let file = url_of(scheme, &dir, scheme);
        ok(&["copy", &fresh.url, &file]).await;
        fill(&fresh.store, 40, 5).await;
        // Goes on where the file ends.
        ok(&["copy", &fresh.url, &file]).await;
        ok(&["verify", &fresh.url, &file]).await;
        ok(&["verify", &file]).await;
        let restored = Fresh::open(&kind).await;
        ok(&["copy", &file, &restored.url]).await;
        ok(&["verify", &file, &restored.url]).await;
        assert_eq!(kept(&all(&restored.store).await), kept(&all(&fresh.store).await));
        let other = Fresh::open(&kind).await;
        fill(&other.store, 0, 40).await;
        let said = ends(&["copy", &other.url, &file], 2).await;
        assert!(said.contains("holds events of another source"), "{said}");
    }
}

pub(crate) async fn what_a_copy_loses_is_said_before() {
    let kind = annals_test_stores::kinds().into_iter().find(|kind| kind.name() == "eventstoredb");
    let (from, to) = (Fresh::open(&sqlite()).await, Fresh::open(&kind.unwrap()).await);
    fill(&from.store, 0, 10).await;
    let large = annals::NewEvent::binary("Large", vec![0; 2_000_000]).unwrap();
    from.store.append_to("large-1", ExpectedVersion::Any, [large]).await.unwrap();
    let said = ends(&["copy", "--dry-run", &from.url, &to.url], 3).await;
    let due = "large-1: 1 event larger than the target takes, version 1";
    assert!(said.contains("record times are not kept") && said.contains(due), "{said}");
    let urls = [from.url.as_str(), to.url.as_str()];
    let said = ends(&["copy", urls[0], urls[1]], 3).await;
    assert!(said.contains("say what to do with them: --oversized skip"), "{said}");
    assert!(all(&to.store).await.is_empty(), "it wrote before it told what it cannot copy");
    let skip = ["--oversized", "skip"];
    let last = ["copy", "--dry-run", urls[0], urls[1]];
    ends(&[&last[..], &skip].concat(), 5).await;
    // Again, with nothing left to write, as well.
    for _ in 0..2 {
        let said = ends(&[&["copy", urls[0], urls[1]], &skip[..]].concat(), 5).await;
        assert!(said.contains(&format!("stays behind: {due}")), "{said}");
    }
    assert_eq!(all(&to.store).await.len(), all(&from.store).await.len() - 1);
    let said = ends(&[&["verify", urls[0], urls[1]], &skip[..]].concat(), 5).await;
    assert!(said.contains(&format!("stays behind: {due}")), "{said}");
    ends(&["verify", urls[0], urls[1]], 3).await;
}

pub(crate) async fn a_part_can_be_copied() {
    let from = Fresh::open(&sqlite()).await;
    fill(&from.store, 0, 60).await;
    let middle = all(&from.store).await[50].recorded_at;
    let time = middle.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    for (selection, holds) in [
        (vec!["--stream", "order-1", "--stream", "order-2"], 0),
        (vec!["--category", "order"], 1),
        (vec!["--prefix", "stock ä"], 2),
        (vec!["--since", &time], 3),
        (vec!["--until", &time, "--category", "order", "--category", "Order"], 4),
    ] {
        let to = Fresh::open(&sqlite()).await;
        let both = [from.url.as_str(), to.url.as_str()];
        ok(&[&["copy"], &both[..], &selection].concat()).await;
        let due = all(&from.store).await.into_iter().filter(|event| {
            let stream = event.stream.as_str();
            match holds {
                0 => ["order-1", "order-2"].contains(&stream),
                1 => stream.starts_with("order-"),
                2 => stream.starts_with("stock ä"),
                3 => event.recorded_at >= middle,
                _ => event.recorded_at < middle && stream.to_lowercase().starts_with("order-"),
            }
        });
        let there = all(&to.store).await;
        assert_eq!(kept(&there), kept(&due.collect::<Vec<_>>()), "{selection:?}");
        assert!(there.iter().all(|event| event.position > Position::START) && !there.is_empty());
        let verified = run(&[&["verify"], &both[..], &selection].concat()).await;
        // A part of a stream is another state than the whole of it.
        assert!(verified.status.success() || holds > 2, "{selection:?} {verified:?}");
    }
}

/// What was recorded before `--since` need not be readable.
pub(crate) async fn a_part_begins_without_reading_the_rest() {
    let from = Fresh::open(&sqlite()).await;
    // More than a page.
    let many = (0..5_000).map(crate::command::event);
    from.store.append_to("order-1", ExpectedVersion::Any, many).await.unwrap();
    fill(&from.store, 0, 150).await;
    let events = all(&from.store).await;
    let middle = events[events.len() - 100].recorded_at;
    // An hour passes before these.
    let path = from.url.strip_prefix("sqlite://").unwrap();
    let connection = rusqlite::Connection::open(path).unwrap();
    let earlier = "UPDATE annals_events SET recorded_at = recorded_at - 3600000000 \
                   WHERE recorded_at < ?1";
    let middle_micros = middle.timestamp_micros();
    assert!(connection.execute(earlier, [middle_micros]).unwrap() > 50);
    // The kinds of content of the first event are none that annals knows.
    let broken = "UPDATE annals_events SET kinds = 99 WHERE position = 1";
    assert_eq!(connection.execute(broken, []).unwrap(), 1);
    let time = middle.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let since = ["--since", &time];
    let dir = tempfile::tempdir().unwrap();
    let to = Fresh::open(&sqlite()).await;
    let due = events.iter().filter(|event| event.recorded_at >= middle).count();
    assert!(due > 50);
    for target in [to.url.clone(), url_of("jsonl", &dir, "part")] {
        ends(&["copy", &from.url, &target], 1).await;
        for _ in 0..2 {
            ok(&[&["copy", &from.url, &target], &since[..]].concat()).await;
        }
        ends(&["copy", "--dry-run", &from.url, &target], 1).await;
        ok(&[&["copy", "--dry-run", &from.url, &target], &since[..]].concat()).await;
        let told = ok(&[&["verify", "--json", &target], &since[..]].concat()).await;
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["stores"][0]["events"], due);
    }
    ends(&["verify", &from.url], 1).await;
    ok(&[&["verify", &from.url], &since[..]].concat()).await;
    let read = ok(&[&["read", "--json", &from.url], &since[..]].concat()).await;
    assert_eq!(read.lines().count(), due);
    let read = ok(&[&["read", "--json", "--backwards", &from.url], &since[..]].concat()).await;
    assert_eq!(read.lines().count(), due);
    let lines = ["tail", "--json", "-n", "100000", &from.url];
    assert_eq!(ok(&[&lines[..], &since[..]].concat()).await.lines().count(), due);
    ends(&lines, 1).await;
}

pub(crate) async fn another_source_of_the_same_name_is_noticed() {
    let (from, other) = (Fresh::open(&sqlite()).await, Fresh::open(&sqlite()).await);
    let to = Fresh::open(&sqlite()).await;
    fill(&from.store, 0, 20).await;
    fill(&other.store, 0, 40).await;
    ok(&["copy", &from.url, &to.url]).await;
    // What is noted in the target speaks of a file that is gone.
    let path = |url: &str| url.strip_prefix("sqlite://").unwrap().to_owned();
    let (from_path, other_path) = (path(&from.url), path(&other.url));
    drop((from.store, other.store));
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{from_path}{end}"));
        let _ = std::fs::rename(format!("{other_path}{end}"), format!("{from_path}{end}"));
    }
    let said = ends(&["copy", &from.url, &to.url], 4).await;
    assert!(said.contains("the target has other events in"), "{said}");
}

pub(crate) async fn a_dry_run_reports_what_would_keep_a_copy_from_writing() {
    let (from, dir) = (Fresh::open(&sqlite()).await, tempfile::tempdir().unwrap());
    fill(&from.store, 0, 10).await;
    let path = |name: &str| format!("sqlite://{}", dir.path().join(name).display());
    let said = ok(&["copy", "--dry-run", &from.url, &path("new.db")]).await;
    assert!(said.contains("which does not exist yet") && said.contains(" events, "), "{said}");
    std::fs::write(dir.path().join("text.db"), "no database, but a text that is long enough")
        .unwrap();
    let newer = Fresh::open(&sqlite()).await;
    let connection =
        rusqlite::Connection::open(newer.url.strip_prefix("sqlite://").unwrap()).unwrap();
    let set = "UPDATE annals_meta SET value = 1000 WHERE key = 'schema_version'";
    assert_eq!(connection.execute(set, []).unwrap(), 1);
    let mut unwritable = Vec::new();
    if cfg!(target_os = "linux") {
        // Nobody can create a file here, not even the superuser.
        unwritable = ["sqlite:///proc/annals.db", "jsonl:/proc/annals"]
            .map(|target| (target.to_owned(), 1, "the target: "))
            .to_vec();
    }
    for (target, status, due) in [
        ("postgres://x:wrong@127.0.0.1:1/db".to_owned(), 1, "the target: "),
        (
            "esdb://127.0.0.1:1?tls=false&maxDiscoverAttempts=1&retry_for=0".to_owned(),
            1,
            "the target: ",
        ),
        ("postgres://h/db?schema=A".to_owned(), 2, "`schema` is \"A\""),
        ("mysql://h/db".to_owned(), 2, "annals knows no URLs"),
        (path("no/such/dir.db"), 2, "the target: "),
        (format!("sqlite://{}", dir.path().display()), 2, "the target: "),
        (path("text.db"), 1, "not an SQLite database"),
        (newer.url.clone(), 1, "version 1000"),
    ]
    .into_iter()
    .chain(unwritable)
    {
        let said = ends(&["copy", "--dry-run", &from.url, &target], status).await;
        assert!(said.contains(due) && !said.contains("exist yet"), "{target}: {said}");
        // A copy fails alike.
        ends(&["copy", &from.url, &target], status).await;
    }
}

/// Permissions do not bind the superuser, so another user runs the command.
#[cfg(target_os = "linux")]
pub(crate) async fn a_dry_run_reports_a_file_that_cannot_be_written() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    const NOBODY: u32 = 65_534;
    let dir = tempfile::tempdir().unwrap();
    let set_mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let from = Fresh::open(&sqlite()).await;
    fill(&from.store, 0, 10).await;
    for name in ["export", "events"] {
        let scheme = if name == "export" { "jsonl" } else { "sqlite" };
        ok(&["copy", &from.url, &url_of(scheme, &dir, name)]).await;
        set_mode(&dir.path().join(name), 0o444);
    }
    let binary = dir.path().join("annals");
    std::fs::copy(env!("CARGO_BIN_EXE_annals"), &binary).unwrap();
    set_mode(dir.path(), 0o555);
    let source = url_of("jsonl", &dir, "export");
    for (scheme, name) in
        [("sqlite", "events"), ("sqlite", "new"), ("jsonl", "export"), ("jsonl", "new")]
    {
        let url = url_of(scheme, &dir, name);
        // A file is not copied to itself.
        let source = if url == source { url_of("sqlite", &dir, "events") } else { source.clone() };
        let mut command = tokio::process::Command::new(&binary);
        command.args(["copy", "--dry-run", &source, &url]).current_dir("/");
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.output().await.unwrap();
        let said = crate::command::both(&output);
        assert_eq!(output.status.code(), Some(1), "{url}: {said}");
        assert!(said.contains("the target: "), "{url}: {said}");
    }
    set_mode(dir.path(), 0o755);
}

fn sqlite() -> Kind {
    annals_test_stores::kinds().into_iter().find(|kind| kind.name() == "sqlite").unwrap()
}
