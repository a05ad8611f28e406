//! Files of events as other programs, editors and killed commands leave them.

use std::fs;

use annals::{EventStore, EventStoreExt};
use annals_test_stores::{Fresh, Kind};

use crate::{
    command::{all, ends, fill, kept, ok, ok_with, url_of},
    files::{export, sqlite},
};

/// Events with ids, as lines.
fn lines(count: u64) -> Vec<String> {
    (0..count)
        .map(|n| {
            let id = uuid::Uuid::now_v7();
            let stream = ["order-1", "order-2"][n as usize / 3 % 2];
            format!("{{\"stream\":\"{stream}\",\"id\":\"{id}\",\"type\":\"A\",\"data\":{n}}}\n")
        })
        .collect()
}

pub(crate) async fn a_file_that_is_appended_again_gives_each_event_once(kind: Kind) {
    let (fresh, dir) = (Fresh::open(&kind).await, tempfile::tempdir().unwrap());
    let (path, file) = (dir.path().join("in"), url_of("jsonl", &dir, "in"));
    let lines = lines(200);
    // Half of it, as if killed half-way; then the whole file twice; then in two halves.
    for part in [&lines[..90], &lines, &lines, &lines[..50], &lines[50..]] {
        fs::write(&path, part.concat()).unwrap();
        ok(&["append", &fresh.url, "--file", &file]).await;
    }
    // As it comes in from a pipe, in other pieces.
    ok_with(&["append", &fresh.url, "--quiet"], &lines.concat()).await;
    let ids = |text: &str| text.split("\"id\":\"").nth(1).unwrap()[..36].to_owned();
    let mut due: Vec<_> = lines.iter().map(|line| ids(line)).collect();
    let mut there: Vec<_> = all(&fresh.store).await.iter().map(|e| e.id.to_string()).collect();
    due.sort_unstable();
    there.sort_unstable();
    assert_eq!(there, due);
    let said = ok(&["append", &fresh.url, "--file", &file]).await;
    assert!(said.contains("events were written before"), "{said}");
    let one = ["append", &fresh.url, "--stream", "order-1", "--type", "A", "--id", &due[0]];
    let before = all(&fresh.store).await.len();
    for _ in 0..2 {
        ok(&one).await;
    }
    assert!(all(&fresh.store).await.len() <= before + 1);
}

pub(crate) async fn an_append_that_is_killed_can_be_run_again() {
    let (fresh, dir) = (Fresh::open(&sqlite()).await, tempfile::tempdir().unwrap());
    let file = url_of("jsonl", &dir, "in");
    let lines = lines(2_000);
    fs::write(dir.path().join("in"), lines.concat()).unwrap();
    for _ in 0..3 {
        let mut append = crate::command::command(["append", &fresh.url, "--file", &file]);
        let mut append = append.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut said = tokio::io::BufReader::new(append.stdout.take().unwrap());
        // Something is appended by the time that it speaks.
        tokio::io::AsyncBufReadExt::read_line(&mut said, &mut String::new()).await.unwrap();
        append.kill().await.unwrap();
    }
    ok(&["append", "--quiet", &fresh.url, "--file", &file]).await;
    assert_eq!(all(&fresh.store).await.len(), lines.len());
}

pub(crate) async fn what_editors_and_other_programs_write_is_read_or_named() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("in"), url_of("jsonl", &dir, "in"));
    let lines = lines(3);
    let text = lines.concat();
    for text in [
        text.trim_end().to_owned(),
        format!("\u{feff}{text}"),
        text.replace('\n', "\r\n"),
        format!("\n\n  \n{}\n\n", text.replace('\n', "\n\n")),
    ] {
        let fresh = Fresh::open(&sqlite()).await;
        fs::write(&path, &text).unwrap();
        ok(&["append", &fresh.url, "--file", &file]).await;
        assert_eq!(all(&fresh.store).await.len(), 3, "{text:?}");
    }
    let utf_16 = text.encode_utf16().flat_map(u16::to_le_bytes);
    for (bytes, due) in [
        (b"\x1f\x8b\x08\0\0\0".to_vec(), "line 1: the file is compressed by gzip"),
        ([0x28, 0xb5, 0x2f, 0xfd, 4].to_vec(), "compressed by zstd"),
        (b"PK\x03\x04".to_vec(), "a ZIP archive"),
        ([0xff, 0xfe].into_iter().chain(utf_16).collect(), "the file is UTF-16"),
        (format!("[{}]", lines[0]).into_bytes(), "the file is a JSON array"),
        (format!("{text}# a comment\n").into_bytes(), "line 4: expected value at column 1"),
        (format!("{text}{{\"type\":\"A\"").into_bytes(), "line 4: EOF"),
        ([text.as_bytes(), b"\xff\n"].concat(), "line 4: the line is not UTF-8"),
    ] {
        fs::write(&path, &bytes).unwrap();
        for command in [vec!["append", "memory:", "--file", &file], vec!["copy", &file, "memory:"]]
        {
            let said = ends(&command, 2).await;
            assert!(
                said.contains(due) || (command[0] == "copy" && said.contains("line 1: ")),
                "{said}"
            );
        }
    }
    let directory = format!("jsonl:{}", dir.path().display());
    for arguments in [
        ["read", &directory],
        ["verify", &directory],
        ["streams", &directory],
        ["read", "jsonl:/nowhere/at.all"],
    ] {
        let said = ends(&arguments, 1).await;
        assert!(said.contains("s a directory") || said.contains("No such file"), "{said}");
    }
    for arguments in [["copy", "memory:", &directory], ["copy", "memory:", "jsonl:/nowhere/at.all"]]
    {
        for arguments in [arguments.to_vec(), [&arguments[..], &["--dry-run"]].concat()] {
            let said = ends(&arguments, 1).await;
            assert!(said.contains("s a directory") || said.contains("No such file"), "{said}");
        }
    }
}

pub(crate) async fn data_called_json_that_is_none_is_exported_and_restored() {
    let (from, dir) = (Fresh::open(&sqlite()).await, tempfile::tempdir().unwrap());
    let not_json = |bytes: &[u8]| {
        let payload = || annals::Payload::from_stored(annals::ContentKind::Json, bytes.to_vec());
        let event_type = annals::EventType::new("Odd").unwrap();
        annals::NewEvent::from_stored(uuid::Uuid::now_v7(), event_type, payload(), payload())
    };
    let events = [&b"not json"[..], b"\xff\xfe", b"", b"{} {}", b"\xef\xbb\xbf{}"].map(not_json);
    from.store.append_to("odd-1", annals::ExpectedVersion::Any, events).await.unwrap();
    fill(&from.store, 0, 5).await;
    for scheme in ["jsonl", "cloudevents"] {
        let (file, to) = (url_of(scheme, &dir, scheme), Fresh::open(&sqlite()).await);
        ok(&["copy", &from.url, &file]).await;
        ok(&["copy", &file, &to.url]).await;
        assert_eq!(kept(&all(&to.store).await), kept(&all(&from.store).await));
        ok(&["verify", &from.url, &file]).await;
        ok(&["verify", &from.url, &to.url]).await;
    }
    let appended = Fresh::open(&sqlite()).await;
    let printed = ok(&["read", &from.url, "--json"]).await;
    ok_with(&["append", &appended.url, "--quiet"], &printed).await;
    assert_eq!(kept(&all(&appended.store).await), kept(&all(&from.store).await));
}

pub(crate) async fn an_export_goes_on_after_a_line_without_an_end_and_into_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let (fresh, lines) = export(&dir).await;
    let (file, url) = (dir.path().join("export"), url_of("jsonl", &dir, "export"));
    // An editor has taken the last line break, and the source has lost the event since.
    fs::write(&file, lines.join("\n")).unwrap();
    let last = all(&fresh.store).await.pop().unwrap();
    fill(&fresh.store, 30, 3).await;
    fresh.store.truncate(&last.stream, last.version.plus(1)).await.unwrap();
    let said = ends(&["copy", &fresh.url, &url], 2).await;
    assert!(said.contains("events of another source"), "{said}");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(&last.id.to_string()) && text.ends_with('\n'), "an event was cut off");
    // A file that is refused stays as it is.
    let refused = format!("something else\n{}", text.trim_end());
    fs::write(&file, &refused).unwrap();
    ends(&["copy", &fresh.url, &url], 2).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), refused);
    let shell = format!(
        "'{}' copy -q '{}' jsonl:/dev/stdout | cat",
        env!("CARGO_BIN_EXE_annals"),
        fresh.url
    );
    let output = std::process::Command::new("bash").args(["-c", &shell]).output().unwrap();
    let count = all(&fresh.store).await.len();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), count);
}
