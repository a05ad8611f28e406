//! What people see: colours and progress on a terminal, and neither of them elsewhere.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::{
    io::Read,
    process::{Command, Output},
};

use annals::{EventStoreExt, ExpectedVersion, NewEvent};
use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use tempfile::TempDir;

const ANNALS: &str = env!("CARGO_BIN_EXE_annals");

/// What a command writes to a terminal, with the codes that move and colour, and its exit code.
fn on_terminal(arguments: &[&str], environment: &[(&str, &str)]) -> (String, u32) {
    let size = PtySize { rows: 40, cols: 120, pixel_width: 0, pixel_height: 0 };
    let pair = native_pty_system().openpty(size).unwrap();
    let mut command = CommandBuilder::new(ANNALS);
    command.args(arguments);
    command.env("TERM", "xterm-256color");
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "ANNALS_URL", "CI"] {
        command.env_remove(name);
    }
    environment.iter().for_each(|(name, value)| command.env(name, value));
    let mut child = pair.slave.spawn_command(command).unwrap();
    drop(pair.slave);
    let mut reader = pair.master.try_clone_reader().unwrap();
    let mut text = Vec::new();
    // Linux ends it with an error once nobody has the other side.
    let _ = reader.read_to_end(&mut text);
    let status = child.wait().unwrap();
    (String::from_utf8_lossy(&text).into_owned(), status.exit_code())
}

fn in_pipe(arguments: &[&str]) -> Output {
    Command::new(ANNALS).args(arguments).env_remove("CLICOLOR_FORCE").output().unwrap()
}

/// The last screen of a terminal that was given this.
fn screen(text: &str) -> String {
    let mut terminal = vt100::Parser::new(40.try_into().unwrap(), 120.try_into().unwrap(), 0);
    terminal.process(text.as_bytes());
    terminal.screen().contents()
}

async fn store(dir: &TempDir, events: u64) -> String {
    let url = format!("sqlite://{}?synchronous=normal", dir.path().join("shop.db").display());
    let store = annals::connect(&url).await.unwrap();
    for from in (0..events).step_by(1_000) {
        let batch = (from..events.min(from + 1_000))
            .map(|n| NewEvent::json("Counted", &serde_json::json!({ "n": n })).unwrap());
        let stream = format!("order-{}", from / 1_000 % 7);
        store.append_to(stream.as_str(), ExpectedVersion::Any, batch).await.unwrap();
    }
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_coloured_on_a_terminal_only() {
    let dir = tempfile::tempdir().unwrap();
    let url = store(&dir, 3).await;
    for command in ["read", "tail", "streams", "info", "verify"] {
        let (text, status) = on_terminal(&[command, &url], &[]);
        assert_eq!(status, 0, "{text}");
        assert!(text.contains("\u{1b}["), "{command} has no colour: {text:?}");
        assert!(screen(&text).contains("order-0") || command == "verify", "{text}");
        let (plain, _) = on_terminal(&[command, &url], &[("NO_COLOR", "1")]);
        let colours = plain.matches("\u{1b}[").count();
        assert!(colours == 0 || command == "verify", "{command}: {plain:?}");
        let piped = in_pipe(&[command, &url]);
        assert!(piped.status.success());
        assert!(!piped.stdout.contains(&0x1b) && !piped.stderr.contains(&0x1b), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_shows_its_progress_on_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let url = store(&dir, 30_000).await;
    let to =
        |name: &str| format!("sqlite://{}?synchronous=normal", dir.path().join(name).display());
    let (text, status) = on_terminal(&["copy", &url, &to("a.db")], &[]);
    assert_eq!(status, 0, "{text}");
    // The bar was there, with how far it is, how fast, and how long it will take.
    assert!(text.contains('%') && text.contains("left"), "{text:?}");
    let bar = text.split(['\r', '\n']).rfind(|part| part.contains('%')).unwrap();
    assert!(bar.contains("events") && bar.contains("/s"), "{bar:?}");
    // And left no trace.
    let screen = screen(&text);
    assert!(!screen.contains('%'), "{screen}");
    assert!(screen.contains("done: 30,000 events"), "{screen}");

    let piped = in_pipe(&["copy", &url, &to("b.db")]);
    let said = String::from_utf8(piped.stderr).unwrap();
    assert!(said.contains("done: 30,000 events") && !said.contains(['\r', '\u{1b}']), "{said:?}");
    let quiet = in_pipe(&["copy", "--quiet", &url, &to("c.db")]);
    assert!(quiet.stderr.is_empty() && quiet.stdout.is_empty(), "{quiet:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moves_a_cursor_is_not_printed() {
    let dir = tempfile::tempdir().unwrap();
    let url = store(&dir, 1).await;
    let store = annals::connect(&url).await.unwrap();
    let event = NewEvent::json("Odd", "\u{1b}[2J\u{7}").unwrap();
    store.append_to("odd-1", ExpectedVersion::Any, [event]).await.unwrap();
    let binary = NewEvent::binary("Odd", b"\x1b[2J".to_vec()).unwrap();
    store.append_to("odd-1", ExpectedVersion::Any, [binary]).await.unwrap();
    let piped = in_pipe(&["read", &url]);
    assert!(!piped.stdout.contains(&0x1b), "{piped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_read_enough_may_go() {
    let dir = tempfile::tempdir().unwrap();
    let url = store(&dir, 20_000).await;
    for command in ["read", "streams"] {
        let shell = format!("'{ANNALS}' {command} '{url}' | head -n 1; exit ${{PIPESTATUS[0]}}");
        let output = Command::new("bash").args(["-c", &shell]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
    }
}
