//! `annals append`.

use std::{process::ExitCode, sync::Arc};

use annals::{Appended, EventType, ExpectedVersion, NewEvent, Payload, Store, StreamId, Version};
use clap::Args;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    failure::Failure,
    file::EventFile,
    interrupt::Interrupt,
    select::{event_type, stream},
};

/// Appends one event, or many from JSON lines.
///
/// With --type, appends one event to --stream. Without --type, appends the events of standard input
/// or of --file, in the format of `annals read --json`. Ids, types and payloads are kept; the store
/// gives new versions, positions and times. Consecutive events of one stream are written together if
/// they are available at the same time.
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
        let appended =
            store.append(annals::Append::new(stream.clone(), self.expect, [event])).await?;
        self.report(&stream, &appended);
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
        let (mut count, mut batch) = (0_u64, Vec::with_capacity(AHEAD));
        // Not a blocking task of the runtime: when the command ends, the runtime would wait for a
        // task that waits for standard input.
        std::thread::spawn(move || {
            let read = file.for_each_line(None, |text, number| {
                let entry = file.format.parse(text).map_err(|e| file.bad_line(number, &e))?;
                let Some(stream) = entry.stream.clone().or_else(|| default.clone()) else {
                    let what = "the event has no stream; name one by --stream";
                    return Err(file.bad_line(number, what));
                };
                Ok(sender.blocking_send(Ok((stream, entry.into_new()))).is_ok())
            });
            if let Err(error) = read {
                // If this fails, the receiver was dropped: nobody wants the error.
                let _ = sender.blocking_send(Err(error));
            }
        });
        loop {
            let read = tokio::select! {
                biased;
                () = interrupt.wait() => return Err(Failure::interrupted().at(format!("{count} events appended"))),
                read = entries.recv_many(&mut batch, AHEAD) => read,
            };
            if read == 0 {
                return Ok(ExitCode::SUCCESS);
            }
            if let Err(error) = self.append(&store, batch.drain(..), &mut count).await {
                return Err(error.at(format!("after {count} events were appended")));
            }
        }
    }

    /// Appends consecutive events of one stream together, and adds to `count`.
    async fn append(
        &self,
        store: &Arc<dyn Store>,
        entries: impl Iterator<Item = Result<(StreamId, NewEvent), Failure>>,
        count: &mut u64,
    ) -> Result<(), Failure> {
        let capabilities = store.capabilities();
        let mut run: Option<(StreamId, Vec<NewEvent>)> = None;
        let (mut bytes, mut failed) = (0, None);
        for entry in entries {
            let (stream, event) = match entry {
                Ok(entry) => entry,
                // The events before the bad line are still appended.
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            let full = bytes + event.size() > capabilities.max_append_bytes;
            bytes += event.size();
            match &mut run {
                Some((of, events))
                    if *of == stream && !full && events.len() < capabilities.max_append_events =>
                {
                    events.push(event);
                }
                _ => {
                    *count += self.flush(store, run.take()).await?;
                    bytes = event.size();
                    run = Some((stream, vec![event]));
                }
            }
        }
        *count += self.flush(store, run).await?;
        failed.map_or(Ok(()), Err)
    }

    async fn flush(
        &self,
        store: &Arc<dyn Store>,
        run: Option<(StreamId, Vec<NewEvent>)>,
    ) -> Result<u64, Failure> {
        let Some((stream, events)) = run else { return Ok(0) };
        let append = annals::Append::new(stream.clone(), ExpectedVersion::Any, events);
        let appended = store.append(append).await?;
        self.report(&stream, &appended);
        Ok(appended.last_version.get() + 1 - appended.first_version.get())
    }

    fn report(&self, stream: &StreamId, appended: &Appended) {
        if self.quiet {
            return;
        }
        let Appended { first_version, last_version, position, replayed, .. } = appended;
        let versions = if first_version == last_version {
            format!("version {first_version}")
        } else {
            format!("versions {first_version} to {last_version}")
        };
        let again = if *replayed { ", written before" } else { "" };
        anstream::println!("{stream}: {versions}, position {position}{again}");
    }
}
