//! Runs the command, and makes events.

use std::{
    ffi::OsStr,
    process::{Output, Stdio},
    sync::Arc,
};

use annals::{
    EventStoreExt, EventType, ExpectedVersion, NewEvent, Payload, ReadAll, RecordedEvent, Store,
    TryStreamExt,
};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};

pub(crate) fn command<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annals"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    for name in ["ANNALS_URL", "ANNALS_FROM", "ANNALS_TO", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

pub(crate) async fn run(arguments: &[&str]) -> Output {
    command(arguments).output().await.unwrap()
}

/// What a command prints that must succeed.
pub(crate) async fn ok(arguments: &[&str]) -> String {
    succeeded(arguments, run(arguments).await)
}

/// What a command prints, with its errors, that must end so.
pub(crate) async fn ends(arguments: &[&str], status: i32) -> String {
    let output = run(arguments).await;
    let text = both(&output);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
    text
}

pub(crate) fn both(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).join("")
}

fn succeeded(arguments: &[&str], output: Output) -> String {
    assert!(output.status.success(), "{arguments:?}: {}", both(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The same with something on standard input.
pub(crate) async fn ok_with(arguments: &[&str], input: &str) -> String {
    let mut child = piped(arguments);
    let mut stdin = child.stdin.take().unwrap();
    let (written, output) = tokio::join!(
        async move { stdin.write_all(input.as_bytes()).await },
        child.wait_with_output()
    );
    written.unwrap();
    succeeded(arguments, output.unwrap())
}

/// A command that goes on.
pub(crate) fn piped(arguments: &[&str]) -> Child {
    let mut command = command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// What Ctrl-C does.
pub(crate) async fn interrupt(child: &Child) {
    let id = child.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().await.unwrap();
    assert!(sent.success());
}

/// Events that no two are alike, and that no store and no file may change.
pub(crate) fn event(n: u64) -> NewEvent {
    let event_type = EventType::new(["Placed", "Paid \"late\"", "größer"][n as usize % 3]).unwrap();
    let data = match n % 5 {
        0 => Payload::json_text(format!("{{ \"n\": {n}.50, \"n\":\"\\u0000\" }}")).unwrap(),
        1 => Payload::json_text(format!("[{n},\n  null]\n")).unwrap(),
        2 => Payload::binary(vec![0, 255, n as u8]),
        3 => Payload::empty(),
        _ => Payload::json_text("null").unwrap(),
    };
    let event = NewEvent::new(event_type, data);
    match n % 3 {
        0 => event.with_correlation_id(format!("c-{n}")).unwrap(),
        1 => event.with_metadata(vec![7, n as u8]),
        _ => event,
    }
}

const STREAMS: [&str; 4] = ["order-1", "order-2", "stock ä-7", "Order-1"];

/// Appends events from `from` on to several streams, in an order that no one stream has.
pub(crate) async fn fill(store: &Arc<dyn Store>, from: u64, count: u64) {
    for n in from..from + count {
        let stream = STREAMS[(n * 7 + n / 3) as usize % STREAMS.len()];
        let events = (0..1 + n % 3).map(|k| event(n + k));
        store.append_to(stream, ExpectedVersion::Any, events).await.unwrap();
    }
}

pub(crate) async fn all(store: &Arc<dyn Store>) -> Vec<RecordedEvent> {
    store.read_all(ReadAll::default()).try_collect().await.unwrap()
}

/// What every store keeps of an event.
pub(crate) fn kept(
    events: &[RecordedEvent],
) -> Vec<(String, u64, uuid::Uuid, String, Payload, Payload)> {
    let one = |e: &RecordedEvent| {
        let (stream, event_type) = (e.stream.to_string(), e.event_type.to_string());
        (stream, e.version.get(), e.id, event_type, e.data.clone(), e.metadata.clone())
    };
    events.iter().map(one).collect()
}

pub(crate) fn url_of(scheme: &str, dir: &tempfile::TempDir, name: &str) -> String {
    format!("{scheme}:{}", dir.path().join(name).display())
}
