//! Subscribers that note how long each event took, in this process or in another one.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write},
    process::Stdio,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use annals_core::{EventStore, NewEvent, RecordedEvent, Start, Subscribe, Subscription};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    runtime::Runtime,
    sync::mpsc,
    task::JoinHandle,
};

use crate::{postgres, sqlite};

/// The option with which this program runs as a subscriber.
pub(crate) const OPTION: &str = "subscriber";
/// The type of an event whose arrival the subscriber reports at once.
pub(crate) const SINGLE: &str = "Single";
/// The type of the last event.
pub(crate) const LAST: &str = "Last";

/// Puts the time into an event's metadata. All processes of a machine share the clock.
pub(crate) fn stamped(event: NewEvent) -> NewEvent {
    event.with_metadata(now().to_string())
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// Microseconds since the event was stamped.
fn age(event: &RecordedEvent) -> f64 {
    let sent: u128 = event.metadata.decode().unwrap();
    now().saturating_sub(sent) as f64 / 1e3
}

/// A subscriber that is running.
pub(crate) enum Subscriber {
    /// A task in this process.
    Task { arrivals: JoinHandle<Vec<f64>>, heard: mpsc::UnboundedReceiver<()> },
    /// Another process. It prints an empty line when it is ready and for each single event, and at
    /// the end all times.
    Process { process: Box<Child>, lines: Lines<BufReader<ChildStdout>> },
}

impl Subscriber {
    pub(crate) async fn task(store: &dyn EventStore) -> Self {
        let subscription = subscribe(store).await;
        let (hear, heard) = mpsc::unbounded_channel();
        let arrivals = tokio::spawn(listen(subscription, move || hear.send(()).unwrap()));
        Self::Task { arrivals, heard }
    }

    pub(crate) async fn process(store: &OsStr) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg(format!("--{OPTION}"))
            .arg(store)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut subscriber = Self::Process { process: process.into(), lines };
        subscriber.heard().await;
        subscriber
    }

    /// Waits until the next single event has arrived.
    pub(crate) async fn heard(&mut self) {
        match self {
            Self::Task { heard, .. } => heard.recv().await.unwrap(),
            Self::Process { lines, .. } => drop(lines.next_line().await.unwrap().unwrap()),
        }
    }

    /// Waits for the last event. Returns the microseconds that each event took.
    pub(crate) async fn arrivals(self) -> Vec<f64> {
        match self {
            Self::Task { arrivals, .. } => arrivals.await.unwrap(),
            Self::Process { mut process, mut lines } => {
                let mut arrivals = Vec::new();
                while let Some(line) = lines.next_line().await.unwrap() {
                    arrivals.push(line.parse().unwrap());
                }
                process.wait().await.unwrap();
                arrivals
            }
        }
    }
}

/// The main function of the other process.
pub(crate) fn main(store: OsString) -> io::Result<()> {
    let print = |line: &str| {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
    };
    let listen = async move {
        let store = open(store).await;
        let subscription = subscribe(store.as_ref()).await;
        print("");
        listen(subscription, || print("")).await
    };
    let runtime = Runtime::new()?;
    let arrivals = runtime.block_on(runtime.spawn(listen)).unwrap();
    let mut out = io::stdout().lock();
    arrivals.iter().try_for_each(|age| writeln!(out, "{age}"))
}

/// Opens the store in a file or at a URL.
pub(crate) async fn open(address: OsString) -> Arc<dyn EventStore> {
    match address.to_str().filter(|address| address.contains("://")) {
        Some(url) => Arc::new(postgres::open(url.to_owned()).await),
        None => Arc::new(sqlite::open(address.into()).await),
    }
}

async fn subscribe(store: &dyn EventStore) -> Subscription {
    store.subscribe(Subscribe::default().with_start(Start::End)).await.unwrap()
}

async fn listen(mut subscription: Subscription, heard: impl Fn() + Send) -> Vec<f64> {
    let mut arrivals = Vec::new();
    loop {
        let event = subscription.next_event().await.unwrap();
        if event.event_type.as_str() == LAST {
            return arrivals;
        }
        arrivals.push(age(&event));
        if event.event_type.as_str() == SINGLE {
            heard();
        }
    }
}
