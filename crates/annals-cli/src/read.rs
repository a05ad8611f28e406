//! `annals read` and `annals tail`.

use std::{process::ExitCode, sync::Arc};

use annals::{
    Direction, EventStream, Message, Position, ReadAll, ReadStream, RecordedEvent, Start, Store,
    Subscribe, TryStreamExt,
};
use clap::Args;
use futures::{StreamExt, stream::TryReadyChunksError};

use crate::{
    failure::{Code, Failure},
    interrupt::Interrupt,
    output,
    place::{Source, open_existing},
    select::Select,
    show::{Shape, print},
};

/// How many events are printed at once.
const AT_ONCE: usize = 500;

/// Prints events: position, time, stream, version, type, data, metadata.
///
/// In the order of positions; those of one stream, named by --stream, in the order of versions.
/// `annals append` reads back what --json prints.
#[derive(Args, Debug)]
pub(crate) struct Read {
    /// A store, or a file: jsonl:FILE, cloudevents:FILE.
    #[arg(env = "ANNALS_URL", hide_env_values = true)]
    url: String,
    #[command(flatten)]
    select: Select,
    /// Begin after this position (with --backwards: before it).
    #[arg(long, value_name = "POSITION")]
    after: Option<u64>,
    /// Begin at this version; needs one --stream.
    #[arg(long, value_name = "VERSION", conflicts_with = "after")]
    from: Option<u64>,
    /// The last first.
    #[arg(short, long)]
    backwards: bool,
    /// At most so many.
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
    /// A JSON object on each line.
    #[arg(long)]
    json: bool,
}

impl Read {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let mut interrupt = Interrupt::listen();
        tokio::select! {
            read = self.print() => read,
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
            let events = self.events(store)?.try_filter(matches).take(left);
            let mut batches = events.try_ready_chunks(AT_ONCE);
            while let Some(batch) = batches.next().await {
                let (events, error) = match batch {
                    Ok(events) => (events, None),
                    Err(TryReadyChunksError(events, error)) => (events, Some(error)),
                };
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
            return Err(Failure::usage("a file is read forwards, and from a position"));
        }
        let after = Position::new(self.after.unwrap_or(0));
        let mut batches = source.read(after, &self.select);
        while let Some(batch) = batches.recv().await {
            let mut batch = batch?;
            batch.truncate(left);
            left -= batch.len();
            if !print(&mut out, shape, &batch)? || left == 0 {
                break;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn events(&self, store: &Arc<dyn Store>) -> Result<EventStream, Failure> {
        let streams = &self.select.streams;
        let alone = streams.categories.is_empty() && streams.prefix.is_none();
        if let ([stream], true, None) = (streams.ids.as_slice(), alone, self.after) {
            let mut options = ReadStream::default();
            options.from = self.from.map(Into::into);
            if self.backwards {
                options.direction = Direction::Backwards;
            }
            return Ok(store.read_stream(stream, options));
        }
        if self.from.is_some() {
            return Err(Failure::usage("--from is a version, and needs one --stream"));
        }
        let mut options = ReadAll::default().with_filter(self.select.filter());
        options.from = self.after.map(Into::into);
        if self.backwards {
            options.direction = Direction::Backwards;
        }
        Ok(store.read_all(options))
    }
}

/// Prints the last events and, with --follow, those that come.
#[derive(Args, Debug)]
pub(crate) struct Tail {
    /// A store.
    #[arg(env = "ANNALS_URL", hide_env_values = true)]
    url: String,
    #[command(flatten)]
    select: Select,
    /// How many of those that are there.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    lines: usize,
    /// Go on with what comes, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// A JSON object on each line.
    #[arg(long)]
    json: bool,
}

impl Tail {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let mut interrupt = Interrupt::listen();
        tokio::select! {
            read = self.print() => read,
            // How it is meant to end.
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
                store.read_all(options.backwards())
            }
        };
        // The end is looked for before the events are, so that none can come between the two.
        let end = match stream {
            Some(_) => Position::START,
            None => annals::EventStoreExt::last_position(&store).await?,
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
        let mut live = store.subscribe(options).await?.ready_chunks(AT_ONCE);
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
