//! A process that appends is killed.

use std::{
    collections::BTreeMap,
    process::{ExitCode, Stdio},
};

use annals_core::{EventStore, EventStoreExt, ExpectedVersion, ReadAll, TryStreamExt};
use annals_marten::{MartenConfig, MartenStore};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::common::{Place, Tested, event, within};

/// The environment variable that makes this program a child, and has the URL of its store.
const CHILD: &str = "ANNALS_MARTEN_CHILD";
const STREAMS: u64 = 5;
const TASKS: u64 = 4;

pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Appends until it is killed, and says what was acknowledged: the stream, the id and the version.
pub(crate) fn child() -> ExitCode {
    let url = std::env::var(CHILD).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = MartenStore::open(MartenConfig::from_url(&url).unwrap()).await.unwrap();
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    for number in task.. {
                        let stream = format!("account-{}", number % STREAMS);
                        let event = event(number);
                        let id = event.id();
                        let appended =
                            store.append_to(stream.as_str(), ExpectedVersion::Any, [event]).await;
                        println!("{stream} {id} {}", appended.unwrap().first_version);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    ExitCode::FAILURE
}

pub(crate) async fn whatever_was_acknowledged_is_there_once() -> Tested {
    let mut place = Place::new().await?;
    let store = place.open("create=string").await?;
    let mut acknowledged = BTreeMap::new();
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe()?)
            .env(CHILD, place.url("mode=quick"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let mut said = 0;
        while let Some(line) = within(lines.next_line()).await? {
            let mut words = line.split(' ');
            let mut word = || words.next().ok_or("a short line").map(str::to_owned);
            let (stream, id, version) = (word()?, word()?, word()?);
            acknowledged.insert(id, (stream, version.parse::<u64>()?));
            said += 1;
            if said == 20 * round {
                child.start_kill()?;
            }
        }
        child.wait().await?;
    }
    // What was under way in the server may still be committed, and then this waits for it.
    for stream in 0..STREAMS {
        let stream = format!("account-{stream}");
        store.append_to(stream.as_str(), ExpectedVersion::Any, [event(0)]).await?;
    }
    let events: Vec<_> = store.read_all(ReadAll::default()).try_collect().await?;
    let mut versions: BTreeMap<_, u64> = BTreeMap::new();
    for event in &events {
        let version = versions.entry(event.stream.to_string()).or_default();
        *version += 1;
        assert_eq!(event.version.get(), *version, "without a hole, and in order");
        if let Some(told) = acknowledged.remove(&event.id.to_string()) {
            assert_eq!(told, (event.stream.to_string(), event.version.get()));
        }
    }
    assert!(acknowledged.is_empty(), "lost: {acknowledged:?}");
    let rows: bool = place
        .value(
            "SELECT bool_and(s.version = (SELECT max(e.version) FROM {}.mt_events AS e \
             WHERE e.stream_id = s.id)) FROM {}.mt_streams AS s WHERE s.id <> 'mt_tombstone'",
        )
        .await?;
    assert!(rows, "the rows of the streams say the last version");
    Ok(())
}
