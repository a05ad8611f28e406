//! `annals append`.

mod once;

use std::{io::Write, process::ExitCode, sync::Arc};

use annals::{Appended, EventType, ExpectedVersion, NewEvent, Payload, Store, StreamId, Version};
use clap::Args;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use uuid::Uuid;

use self::once::{Once, Outcome};
use crate::{
    failure::Failure,
    file::EventFile,
    interrupt::Interrupt,
    output,
    select::{event_type, stream},
    show::printable,
};

/// Appends one event, or many from JSON lines.
///
/// With --type, appends one event to --stream. Without --type, appends the events of standard input
/// or of --file, in the format of `annals read --json`. Ids, types and payloads are kept; the store
/// gives new versions, positions and times. Consecutive events of one stream are written together if
/// they are available at the same time.
///
/// An event whose id its stream already has is not written again. So a file can be appended again
/// after a failure. Append needs memory for the ids of the streams that it writes to; events without
/// ids need none, and are written each time.
#[derive(Args, Debug)]
pub(crate) struct Append {
    /// The store. It is created if it is missing.
    #[arg(env = "ANNALS_URL", hide_env_values = true)]
    url: String,
    /// The stream of the one event, or of all events that name no stream.
    #[arg(long, value_name = "ID", value_parser = stream)]
    stream: Option<StreamId>,
    /// The type of the one event.
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type, requires = "stream")]
    event_type: Option<EventType>,
    /// The data of the one event, as JSON.
    #[arg(long, value_name = "JSON", requires = "event_type")]
    data: Option<String>,
    /// The metadata of the one event, as JSON.
    #[arg(long, value_name = "JSON", requires = "event_type")]
    metadata: Option<String>,
    /// The id of the one event. An append can be repeated with the same id and the same --expect.
    #[arg(long, value_name = "UUID", requires = "event_type")]
    id: Option<Uuid>,
    /// The expected version of the stream: any, none, exists, or a number.
    #[arg(long, value_name = "VERSION", default_value = "any", value_parser = expected, requires = "event_type")]
    expect: ExpectedVersion,
    /// The file of events: jsonl:FILE or cloudevents:FILE, with - for standard input.
    #[arg(long, value_name = "FILE", default_value = "jsonl:-", conflicts_with = "event_type")]
    file: String,
    /// Print nothing.
    #[arg(short, long)]
    quiet: bool,
}

/// The most lines that are read ahead, and appended at once.
const AHEAD: usize = 500;
/// The most KiB of payloads that are read ahead, unless one event has more.
const AHEAD_KIB: u32 = 8 << 10;

/// An event of a file.
struct Line {
    stream: StreamId,
    event: NewEvent,
    has_id: bool,
    /// The room that the event has among those that are read ahead. It is free once this is dropped.
    _room: OwnedSemaphorePermit,
}

/// Consecutive events of one stream, which are appended together.
struct Run {
    stream: StreamId,
    events: Vec<NewEvent>,
    bytes: usize,
    has_ids: bool,
}

impl Run {
    fn has_room(&self, line: &Line, store: &Arc<dyn Store>) -> bool {
        let capabilities = store.capabilities();
        self.stream == line.stream
            && self.events.len() < capabilities.max_append_events
            && self.bytes + line.event.size() <= capabilities.max_append_bytes
    }
}

fn expected(text: &str) -> Result<ExpectedVersion, String> {
    match text {
        "any" => Ok(ExpectedVersion::Any),
        "none" => Ok(ExpectedVersion::NoStream),
        "exists" => Ok(ExpectedVersion::StreamExists),
        _ => text
            .parse()
            .map(|version: u64| ExpectedVersion::Exact(Version::new(version)))
            .map_err(|_| "use any, none, exists, or a version".to_owned()),
    }
}

impl Append {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match (&self.event_type, &self.stream) {
            (Some(event_type), Some(stream)) => self.one(event_type.clone(), stream.clone()).await,
            _ => self.many().await,
        }
    }

    async fn one(&self, event_type: EventType, stream: StreamId) -> Result<ExitCode, Failure> {
        let json = |name: &str, text: &Option<String>| match text {
            Some(text) => Payload::json_text(text.clone()).map_err(|e| Failure::from(e).at(name)),
            None => Ok(Payload::empty()),
        };
        let (data, metadata) = (json("--data", &self.data)?, json("--metadata", &self.metadata)?);
        let id = self.id.unwrap_or_else(Uuid::now_v7);
        let event = NewEvent::from_stored(id, event_type, data, metadata);
        let store = annals::connect(&self.url).await?;
        if self.id.is_some() && self.expect == ExpectedVersion::Any {
            let outcome = Once::default().append(&store, &stream, vec![event]).await?;
            self.report(&stream, &outcome)?;
            return Ok(ExitCode::SUCCESS);
        }
        let append = annals::Append::new(stream.clone(), self.expect, [event]);
        let appended = Some(store.append(append).await?);
        self.report(&stream, &Outcome { appended, written: 1, before: 0 })?;
        Ok(ExitCode::SUCCESS)
    }

    async fn many(&self) -> Result<ExitCode, Failure> {
        let Some(file) = EventFile::of(&self.file) else {
            return Err(Failure::usage("--file takes jsonl:FILE or cloudevents:FILE"));
        };
        let mut interrupt = Interrupt::listen();
        let store = annals::connect(&self.url).await?;
        let (sender, mut entries) = mpsc::channel(AHEAD);
        let default = self.stream.clone();
        let (mut count, mut batch, mut once) = (0_u64, Vec::with_capacity(AHEAD), Once::default());
        let room = Arc::new(Semaphore::new(AHEAD_KIB as usize));
        let runtime = tokio::runtime::Handle::current();
        // Not a blocking task of the runtime: when the command ends, the runtime would wait for a
        // task that waits for standard input.
        std::thread::spawn(move || {
            let read = file.for_each_line(None, |text, number| {
                let entry = file.format.parse(text).map_err(|e| file.bad_line(number, &e))?;
                let Some(stream) = entry.stream.clone().or_else(|| default.clone()) else {
                    let what = "the event has no stream; name one by --stream";
                    return Err(file.bad_line(number, what));
                };
                let has_id = entry.id.is_some();
                let event = entry.into_new();
                let kib = u32::try_from(event.size() >> 10).unwrap_or(u32::MAX).min(AHEAD_KIB);
                let wait = room.clone().acquire_many_owned(kib);
                let Ok(room) = runtime.block_on(wait) else { return Ok(false) };
                let line = Line { stream, event, has_id, _room: room };
                Ok(sender.blocking_send(Ok(line)).is_ok())
            });
            if let Err(error) = read {
                // If this fails, the receiver was dropped: nobody wants the error.
                let _ = sender.blocking_send(Err(error));
            }
        });
        loop {
            let appended = async {
                let read = entries.recv_many(&mut batch, AHEAD).await;
                self.append(&store, batch.drain(..), &mut once, &mut count).await.map(|()| read)
            };
            let appended = tokio::select! {
                biased;
                () = interrupt.wait() => Err(Failure::interrupted()),
                appended = appended => appended,
            };
            match appended {
                Ok(0) => return Ok(ExitCode::SUCCESS),
                Ok(_) => {}
                Err(error) => return Err(error.at(format!("after {count} events were appended"))),
            }
        }
    }

    /// Appends consecutive events of one stream together, and adds to `count`.
    async fn append(
        &self,
        store: &Arc<dyn Store>,
        lines: impl Iterator<Item = Result<Line, Failure>>,
        once: &mut Once,
        count: &mut u64,
    ) -> Result<(), Failure> {
        let (mut run, mut failed): (Option<Run>, _) = (None, None);
        for line in lines {
            let line = match line {
                Ok(line) => line,
                // The events before the bad line are still appended.
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            if let Some(full) = run.take_if(|run| !run.has_room(&line, store)) {
                self.flush(store, full, once, count).await?;
            }
            let Line { stream, event, has_id, .. } = line;
            let run = run.get_or_insert_with(|| Run {
                stream,
                events: Vec::new(),
                bytes: 0,
                has_ids: false,
            });
            run.bytes += event.size();
            run.has_ids |= has_id;
            run.events.push(event);
        }
        if let Some(run) = run {
            self.flush(store, run, once, count).await?;
        }
        failed.map_or(Ok(()), Err)
    }

    async fn flush(
        &self,
        store: &Arc<dyn Store>,
        run: Run,
        once: &mut Once,
        count: &mut u64,
    ) -> Result<(), Failure> {
        let Run { stream, events, has_ids, .. } = run;
        let outcome = if has_ids {
            once.append(store, &stream, events).await?
        } else {
            let written = events.len();
            let append = annals::Append::new(stream.clone(), ExpectedVersion::Any, events);
            Outcome { appended: Some(store.append(append).await?), written, before: 0 }
        };
        *count += outcome.written as u64;
        self.report(&stream, &outcome)
    }

    fn report(&self, stream: &StreamId, outcome: &Outcome) -> Result<(), Failure> {
        if self.quiet {
            return Ok(());
        }
        let mut lines = String::new();
        let stream = printable(stream.as_str());
        if outcome.before > 0 {
            lines += &format!("{stream}: {} events were written before\n", outcome.before);
        }
        if let Some(appended) = &outcome.appended {
            let Appended { first_version, last_version, position, replayed, .. } = appended;
            let versions = if first_version == last_version {
                format!("version {first_version}")
            } else {
                format!("versions {first_version} to {last_version}")
            };
            let again = if *replayed { ", written before" } else { "" };
            lines += &format!("{stream}: {versions}, position {position}{again}\n");
        }
        // Whoever reads the report may go: the events are appended all the same.
        output::written(anstream::stdout().write_all(lines.as_bytes()))
    }
}
