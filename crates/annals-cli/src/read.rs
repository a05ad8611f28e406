//! `annals read` and `annals tail`.

use std::{future::ready, process::ExitCode, sync::Arc};

use annals::{
    Direction, EventStoreExt, EventStream, Message, Position, ReadAll, ReadStream, RecordedEvent,
    Start, Store, Subscribe, TryStreamExt, Version,
};
use chrono::{DateTime, Utc};
use clap::Args;
use futures::StreamExt;

use crate::{
    failure::{Code, Failure},
    interrupt::Interrupt,
    output, piece,
    select::Select,
    show::{Shape, print},
    source::{Source, open_existing},
};

/// The most messages of a subscription that are printed at once.
const CHUNK: usize = 500;

/// Prints events: position, time, version, stream, type, data, metadata.
///
/// Events are printed in the order of their positions, or of their versions if one --stream is
/// named. `annals append` reads the output of --json.
#[derive(Args, Debug)]
pub(crate) struct Read {
    /// A store, or a file: jsonl:FILE, cloudevents:FILE.
    #[arg(env = "ANNALS_URL", hide_env_values = true)]
    url: String,
    #[command(flatten)]
    select: Select,
    /// Begin after this position (before it with --backwards). A position above every one that the
    /// store has given, or that the file has, is an error.
    #[arg(long, value_name = "POSITION")]
    after: Option<u64>,
    /// Begin at this version. Needs one --stream.
    #[arg(long, value_name = "VERSION", conflicts_with = "after")]
    from: Option<u64>,
    /// Print the last event first.
    #[arg(short, long)]
    backwards: bool,
    /// Print at most this many events.
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
    /// Print each event as a JSON object on a line.
    #[arg(long)]
    json: bool,
}

impl Read {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let mut interrupt = Interrupt::listen();
        tokio::select! {
            read = self.print() => read,
            () = output::reader_gone() => Ok(ExitCode::SUCCESS),
            () = interrupt.wait() => Ok(Code::Interrupted.into()),
        }
    }

    async fn print(&self) -> Result<ExitCode, Failure> {
        let source = Source::open(&self.url).await?;
        let mut out = output::stdout();
        let shape = Shape::of(self.json);
        let mut left = self.limit.unwrap_or(usize::MAX);
        if let Some(store) = source.store() {
            let select = self.select.clone();
            let matches =
                move |event: &RecordedEvent| futures::future::ready(select.matches(event));
            let mut events = self.events(store).await?.try_filter(matches).take(left).fuse();
            while let Some((events, error)) = piece::next(&mut events).await {
                if !print(&mut out, shape, &events)? {
                    break;
                }
                if let Some(error) = error {
                    return Err(error.into());
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        if self.backwards || self.from.is_some() {
            return Err(Failure::usage(
                "--backwards and --from need a store: a file is read forwards",
            ));
        }
        let after = Position::new(self.after.unwrap_or(0));
        let mut chunks = source.read(after, &self.select);
        while let Some(chunk) = chunks.recv().await {
            let mut chunk = chunk?.events;
            chunk.truncate(left);
            left -= chunk.len();
            if !print(&mut out, shape, &chunk)? || left == 0 {
                break;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn events(&self, store: &Arc<dyn Store>) -> Result<EventStream, Failure> {
        let since = self.select.times.since;
        let streams = &self.select.streams;
        let alone = streams.categories.is_empty() && streams.prefix.is_none();
        if let ([stream], true, None) = (streams.ids.as_slice(), alone, self.after) {
            let mut options = ReadStream::default();
            options.from = self.from.map(Into::into);
            let before = match since {
                Some(time) => store.version_before(stream, time).await?,
                None => Version::NONE,
            };
            if self.backwards {
                options.direction = Direction::Backwards;
                let events = store.read_stream(stream, options);
                return Ok(events.try_take_while(move |e| ready(Ok(e.version > before))).boxed());
            }
            options.from = options.from.max(Some(before.plus(1)));
            return Ok(store.read_stream(stream, options));
        }
        if self.from.is_some() {
            return Err(Failure::usage("--from is a version, and needs one --stream"));
        }
        let mut options = ReadAll::default().with_filter(self.select.filter());
        options.from = self.after.map(Into::into);
        if self.backwards {
            options.direction = Direction::Backwards;
            return until(store, options, since).await;
        }
        // Without a place to begin, skip what was recorded before --since.
        if let (None, Some(time)) = (options.from, since) {
            options.from = Some(store.position_before(time).await?);
        }
        Ok(store.read_all(options))
    }
}

/// A read backwards that ends where everything was recorded before a time.
async fn until(
    store: &Arc<dyn Store>,
    options: ReadAll,
    since: Option<DateTime<Utc>>,
) -> Result<EventStream, Failure> {
    let before = match since {
        Some(time) => store.position_before(time).await?,
        None => Position::START,
    };
    let events = store.read_all(options);
    Ok(events.try_take_while(move |event| ready(Ok(event.position > before))).boxed())
}

/// Prints the last events, and with --follow also new ones.
#[derive(Args, Debug)]
pub(crate) struct Tail {
    /// A store.
    #[arg(env = "ANNALS_URL", hide_env_values = true)]
    url: String,
    #[command(flatten)]
    select: Select,
    /// How many of the stored events to print.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    lines: usize,
    /// Then print new events, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Print each event as a JSON object on a line.
    #[arg(long)]
    json: bool,
}

impl Tail {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let mut interrupt = Interrupt::listen();
        tokio::select! {
            read = self.print() => read,
            () = output::reader_gone() => Ok(ExitCode::SUCCESS),
            // With --follow, Ctrl-C is the regular end.
            () = interrupt.wait() => {
                Ok(if self.follow { ExitCode::SUCCESS } else { Code::Interrupted.into() })
            }
        }
    }

    async fn print(&self) -> Result<ExitCode, Failure> {
        let store = open_existing(&self.url).await?;
        let (mut out, shape) = (output::stdout(), Shape::of(self.json));
        let stream = match self.select.streams.ids.as_slice() {
            [stream] if !store.capabilities().global_order => Some(stream),
            _ => None,
        };
        let backwards = match stream {
            Some(stream) => store.read_stream(stream, ReadStream::default().backwards()),
            None => {
                let options = ReadAll::default().with_filter(self.select.filter());
                until(&store, options.backwards(), self.select.times.since).await?
            }
        };
        // Look up the last position before reading, so that no event falls between the events that
        // are read here and the subscription.
        let end = match stream {
            Some(_) => Position::START,
            None => store.last_position().await?,
        };
        let matches = |event: &RecordedEvent| {
            let known = event.position <= end || stream.is_some();
            futures::future::ready(known && self.select.matches(event))
        };
        let last = backwards.try_filter(matches).take(self.lines);
        let mut last: Vec<RecordedEvent> = last.try_collect().await?;
        last.reverse();
        let version = last.last().map(|event| event.version);
        if !print(&mut out, shape, &last)? || !self.follow {
            return Ok(ExitCode::SUCCESS);
        }
        let options = match stream {
            Some(stream) => Subscribe::to(stream.clone())
                .with_start(version.map_or(Start::End, Start::AfterVersion)),
            None => Subscribe::to(self.select.filter()).with_start(Start::After(end)),
        };
        let mut live = store.subscribe(options).await?.ready_chunks(CHUNK);
        while let Some(messages) = live.next().await {
            let mut events = Vec::new();
            for message in messages {
                match message? {
                    Message::Event(event) if self.select.matches(&event) => events.push(event),
                    _ => {}
                }
            }
            if !events.is_empty() && !print(&mut out, shape, &events)? {
                break;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
