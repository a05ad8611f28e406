//! Append, read, tail, streams, info.

use annals::{EventStore, EventStoreExt, ExpectedVersion, Version};
use annals_test_stores::{Fresh, Kind};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::command::{all, both, ends, event, fill, interrupt, kept, ok, ok_with, piped, run};

pub(crate) async fn what_is_appended_is_read(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let url = fresh.url.as_str();
    let append = ["append", url, "--stream", "order-1", "--type", "Placed", "--data"];
    let data = "{ \"total\":  4.50, \"a\": null }";
    let said =
        ok(&[&append[..], &[data, "--metadata", "{\"$correlationId\":\"c\"}"]].concat()).await;
    assert!(said.starts_with("order-1: version 1, position "), "{said}");
    ok(&[&append[..], &["7", "--expect", "1"]].concat()).await;
    ok(&["append", url, "--stream", "stock-1", "--type", "Counted", "--expect", "none"]).await;
    let read = ok(&["read", url]).await;
    let lines: Vec<_> = read.lines().collect();
    assert_eq!(lines.len(), 3, "{read}");
    assert!(lines[0].contains("order-1") && lines[0].contains("Placed"), "{read}");
    assert!(lines[0].contains(data) && lines[0].contains("$correlationId"), "{read}");
    assert!(!read.contains('\u{1b}'), "coloured in a pipe: {read:?}");
    let read = ok(&["read", url, "--stream", "order-1", "--backwards", "-n", "1"]).await;
    assert!(read.trim_end().ends_with('7') && read.lines().count() == 1, "{read}");
    let read = ok(&["read", url, "--category", "stock"]).await;
    assert!(read.contains("Counted") && read.lines().count() == 1, "{read}");
    let read = ok(&["read", url, "--type", "Placed", "--stream", "order-1", "--from", "2"]).await;
    assert_eq!(read.lines().count(), 1, "{read}");
    let none = ok(&["read", url, "--until", "2001-01-01T00:00:00Z"]).await;
    assert!(none.is_empty(), "{none}");
}

pub(crate) async fn what_is_printed_can_be_appended(kind: Kind) {
    let (from, to) = (Fresh::open(&kind).await, Fresh::open(&kind).await);
    fill(&from.store, 0, 40).await;
    let printed = ok(&["read", &from.url, "--json"]).await;
    ok_with(&["append", &to.url, "--quiet"], &printed).await;
    assert_eq!(kept(&all(&to.store).await), kept(&all(&from.store).await));
}

pub(crate) async fn an_expectation_that_fails_has_its_own_status(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    let append = ["append", &fresh.url, "--stream", "a-1", "--type", "A", "--expect"];
    ok(&[&append[..], &["none"]].concat()).await;
    for expect in ["none", "0", "2"] {
        let said = ends(&[&append[..], &[expect]].concat(), 4).await;
        assert!(said.contains("the stream is at version 1"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(
        fresh.store.stream_info(&"a-1".try_into().unwrap()).await.unwrap().version,
        Version::FIRST
    );
}

pub(crate) async fn a_tail_follows(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&fresh.store, 0, 30).await;
    let last: Vec<_> = all(&fresh.store).await.into_iter().rev().take(3).collect();
    let mut tail = piped(&["tail", &fresh.url, "-n", "3", "-f", "--json"]);
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    for due in last.iter().rev() {
        let line = lines.next_line().await.unwrap().unwrap();
        assert!(line.contains(&due.id.to_string()), "{line}");
    }
    for n in 0..3 {
        let event = event(n);
        let id = event.id().to_string();
        fresh.store.append_to("later-1", ExpectedVersion::Any, [event]).await.unwrap();
        let line = lines.next_line().await.unwrap().unwrap();
        assert!(line.contains(&id), "{line}");
    }
    interrupt(&tail).await;
    assert!(tail.wait().await.unwrap().success());
    let filtered = ok(&["tail", &fresh.url, "--category", "later", "-n", "2"]).await;
    assert_eq!(filtered.lines().count(), 2, "{filtered}");
}

pub(crate) async fn streams_and_stores_are_described(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    fill(&fresh.store, 0, 20).await;
    fresh.store.truncate(&"order-1".try_into().unwrap(), Version::new(3)).await.unwrap();
    let listed = ok(&["streams", &fresh.url]).await;
    let names: Vec<_> =
        listed.lines().map(|line| line.split("  ").next().unwrap().trim()).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(names, sorted);
    let order = listed.lines().find(|line| line.starts_with("order-1 ")).unwrap();
    assert!(order.contains("live with versions 3 to "), "{listed}");
    let json = ok(&["streams", &fresh.url, "--json", "--prefix", "order-1"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["stream"], &json["first_version"]), (&"order-1".into(), &3.into()));
    let info = ok(&["info", &fresh.url]).await;
    assert!(info.contains("last position") && !info.contains('\u{1b}'), "{info}");
    let info = ok(&["info", &fresh.url, "--stream", "order-1", "--json"]).await;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert!(info["state"].as_str().unwrap().starts_with("live with versions 3 to"), "{info}");
}

pub(crate) async fn what_cannot_work_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let missing = format!("sqlite://{}", dir.path().join("missing.db").display());
    for (arguments, status, due) in [
        (vec!["read", &missing], 2, "does not exist"),
        (vec!["copy", &missing, "memory:"], 2, "the source: "),
        (vec!["read", "shop.db"], 2, "did you mean sqlite://shop.db?"),
        (vec!["read", "mysql://h/d"], 2, "annals knows no URLs that begin with `mysql:`"),
        (vec!["read", "memory:", "--from", "3"], 2, "needs one --stream"),
        (vec!["read", "jsonl:/nowhere/at.all"], 1, "/nowhere/at.all"),
        (vec!["append", "memory:", "--stream", "a", "--type", "A", "--data", "{"], 2, "--data"),
        (vec!["append", "memory:", "--stream", "$a", "--type", "A"], 2, "`$`"),
        (vec!["copy", "sqlite://a.db", "sqlite://a.db"], 2, "are the same"),
        (vec!["info", "memory:", "--stream", "nope"], 2, "there is no stream nope"),
        (vec!["copy", "memory:", "memory:", "--lanes", "0"], 2, "--lanes"),
        (vec!["verify", "memory:", "--since", "noon"], 2, "2026-01-31T12:00:00Z"),
    ] {
        let said = ends(&arguments, status).await;
        assert!(said.contains(due), "{arguments:?}: {said}");
        // What clap says of a command line has several.
        let of_clap = said.starts_with("error: ");
        assert!(of_clap || said.lines().count() == 1, "{said}");
    }
    assert!(!dir.path().join("missing.db").exists(), "a store was created to be read");
}

pub(crate) async fn no_secret_is_shown() {
    let secrets = [
        "postgres://shop:hunter2@127.0.0.1:1/shop?connections=3",
        "dynamodb://key:hunter2@127.0.0.1:1/events",
        "esdb://admin:hunter2@127.0.0.1:1?tls=false",
        "my_user:hunter2@db/shop",
        "mysql://root:hunter2@db/shop",
    ];
    let mut runs = Vec::new();
    for url in secrets {
        for command in ["read", "tail", "streams", "info", "verify", "check"] {
            runs.push(vec![command, url]);
        }
        runs.push(vec!["copy", url, "memory:"]);
        runs.push(vec!["copy", "memory:", url]);
        runs.push(vec!["copy", "--dry-run", "memory:", url]);
        runs.push(vec!["append", url, "--stream", "a", "--type", "A"]);
    }
    for arguments in runs {
        let mut command = crate::command::command(&arguments);
        let output = command.env("RUST_LOG", "trace").output().await.unwrap();
        let said = both(&output);
        assert!(!said.contains("hunter2"), "{arguments:?}: {said}");
        let dry = arguments.contains(&"--dry-run");
        assert!(dry || !output.status.success(), "{arguments:?} worked: {said}");
    }
    // What is not shown is not a name either.
    let output = run(&["read", "--help"]).await;
    assert!(both(&output).contains("ANNALS_URL"));
}
