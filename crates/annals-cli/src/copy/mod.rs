//! `annals copy`: from any store, or file, to any other.

mod progress;
mod resume;
mod states;
mod survey;
mod target;

use std::{process::ExitCode, sync::Arc, time::Duration};

use annals::{
    EventStoreExt, Message, Position, RecordedEvent, Start, Store, Subscribe, SubscriberId,
};
use clap::Args;
use futures::StreamExt;
use tokio::time::Instant;

use crate::{
    failure::{Code, Failure},
    interrupt::Interrupt,
    place::{EventFile, Source},
    select::{Select, Streams, Times, subscriber},
};
use progress::Progress;
use target::Target;

/// Moves events from one store to another, as they were recorded: ids, types, bytes, versions, and
/// the order over all streams.
///
/// FROM and TO are URLs of stores, or files of events: jsonl:FILE, cloudevents:FILE, with - for
/// standard input and output. Stopped, or killed, at any point, the same command goes on where it
/// was.
///
/// Streams that the source has truncated, deleted or tombstoned become so in the target, too, at the
/// end of each run; only where the target was empty when the copy began.
#[derive(Args, Debug)]
pub(crate) struct Copy {
    /// Where the events are. Others may go on writing there.
    from: String,
    /// Where they go. A store that is not there is created.
    to: String,
    #[command(flatten)]
    streams: Streams,
    #[command(flatten)]
    times: Times,
    /// Go on with what comes, until Ctrl-C; then copy what has come until then, and end.
    #[arg(short, long)]
    follow: bool,
    /// Only say what would be done, and what would be lost.
    #[arg(long)]
    dry_run: bool,
    /// Carry this subscriber's checkpoint over to the position that the same event has in the target;
    /// may be given several times.
    #[arg(long = "checkpoint", value_name = "SUBSCRIBER", value_parser = subscriber)]
    checkpoints: Vec<SubscriberId>,
    /// How many streams to write at once. More than one is faster where the target is far away, and
    /// loses the order over all streams; the order within each is kept.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    lanes: u16,
    /// Do not show progress.
    #[arg(short, long)]
    quiet: bool,
}

/// How often it is noted how far the copy has come.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// How many messages of a subscription are taken at once.
const AT_ONCE: usize = 1_000;

/// Why copying paused.
#[derive(PartialEq, Eq)]
enum End {
    /// All is copied that was there.
    Reached,
    Interrupted,
}

struct Run {
    source: Source,
    target: Target,
    select: Select,
    name: SubscriberId,
    progress: Progress,
    interrupt: Interrupt,
    /// Everything up to it is written.
    done: Position,
    noted: Instant,
}

impl Copy {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        self.check()?;
        let source = Source::open(&self.from).await.map_err(|e| e.at("the source"))?;
        let select = Select::of(self.streams.clone(), self.times.clone());
        if self.dry_run {
            return survey::run(&source, &self.to, &select, &self).await;
        }
        let mut target =
            Target::open(&self.to, self.lanes.into()).await.map_err(|e| e.at("the target"))?;
        let interrupt = Interrupt::listen();
        let progress = Progress::new(self.quiet, &source.shown(), &target.shown());
        for loss in survey::losses(&source, &target, &self) {
            progress.say(&format!("note: {loss}"));
        }
        let name = resume::name(&crate::url::shown(&self.from), &format!("{select:?}"))?;
        let start = resume::start(&source, &mut target, name, &select).await?;
        if let Target::Store(target) = &mut target {
            target.is_ours = start.is_ours;
        }
        let resume::Start { after: done, name, .. } = start;
        if done > Position::START {
            progress.say(&format!("going on after position {done}"));
        }
        let noted = Instant::now();
        let mut run = Run { source, target, select, name, progress, interrupt, done, noted };
        let mut end = run.copy().await?;
        if self.follow && end == End::Reached {
            run.follow().await?;
            // Told to stop: what was written until now comes along.
            end = run.copy().await?;
        }
        run.finish(&self, end).await
    }

    fn check(&self) -> Result<(), Failure> {
        if self.from == self.to && self.from != "memory:" {
            return Err(Failure::usage("the source and the target are the same"));
        }
        if self.follow && EventFile::of(&self.from).is_some() {
            return Err(Failure::usage("--follow needs a store to follow, not a file"));
        }
        if self.follow && self.times.until.is_some() {
            return Err(Failure::usage("--follow and --until exclude each other"));
        }
        if !self.checkpoints.is_empty() {
            let files = EventFile::of(&self.from).or_else(|| EventFile::of(&self.to)).is_some();
            if files || self.lanes > 1 {
                return Err(Failure::usage(
                    "--checkpoint needs two stores, and --lanes 1: positions must be in one order",
                ));
            }
        }
        Ok(())
    }
}

impl Run {
    /// Copies what is there.
    async fn copy(&mut self) -> Result<End, Failure> {
        if let Some(store) = self.source.store()
            && store.capabilities().global_order
        {
            self.progress.until(self.done, store.last_position().await?);
        }
        let mut batches = self.source.read(self.done, &self.select);
        let mut batch = Batch::new(self.target.batch());
        while let Some(events) = batches.recv().await {
            for event in events.map_err(|e| e.at("the source"))? {
                if let Some(full) = batch.push(event) {
                    self.write(full).await?;
                }
            }
            if self.interrupt.is_set() && !self.progress.is_following() {
                break;
            }
        }
        self.write(batch.take()).await?;
        self.note().await?;
        let stopped = self.interrupt.is_set() && !self.progress.is_following();
        Ok(if stopped { End::Interrupted } else { End::Reached })
    }

    /// Copies what comes, until Ctrl-C.
    async fn follow(&mut self) -> Result<(), Failure> {
        let Some(store) = self.source.store().cloned() else { return Ok(()) };
        let options = Subscribe::to(self.select.filter()).with_start(Start::After(self.done));
        // Events that are there at once are written at once, and none waits for company.
        let mut live = store.subscribe(options).await?.ready_chunks(AT_ONCE);
        self.progress.follow();
        loop {
            let messages = tokio::select! {
                biased;
                () = self.interrupt.wait() => return Ok(()),
                messages = live.next() => messages.unwrap_or_default(),
            };
            let (mut batch, mut seen) = (Batch::new(self.target.batch()), self.done);
            for message in messages {
                let message = message.map_err(|e| Failure::from(e).at("the source"))?;
                seen = seen.max(message.position());
                if let Message::Event(event) = message
                    && self.select.matches(&event)
                    && let Some(full) = batch.push(event)
                {
                    self.write(full).await?;
                }
            }
            self.write(batch.take()).await?;
            self.done = self.done.max(seen);
            self.note_now_and_then().await?;
            self.progress.in_step();
        }
    }

    async fn write(&mut self, events: Vec<RecordedEvent>) -> Result<(), Failure> {
        let Some(last) = events.last().map(|event| event.position) else { return Ok(()) };
        let (count, bytes) = (events.len(), events.iter().map(RecordedEvent::size).sum());
        self.target.write(&self.source, events).await.map_err(|e| e.at("the target"))?;
        self.done = self.done.max(last);
        self.progress.copied(count, bytes, last);
        self.note_now_and_then().await
    }

    async fn note_now_and_then(&mut self) -> Result<(), Failure> {
        if self.noted.elapsed() < NOTE_EVERY { Ok(()) } else { self.note().await }
    }

    async fn note(&mut self) -> Result<(), Failure> {
        self.noted = Instant::now();
        self.target.note(&self.name, self.done).await.map_err(|e| e.at("the target"))
    }

    async fn finish(self, copy: &Copy, end: End) -> Result<ExitCode, Failure> {
        if end == End::Interrupted {
            self.progress.end("stopped; the same command goes on from here");
            return Ok(Code::Interrupted.into());
        }
        if let (Some(from), Target::Store(to)) = (self.source.store(), &self.target) {
            if from.capabilities().list_streams && copy.times.is_everything() {
                let changed = states::follow(from, to, &copy.streams).await?;
                if changed > 0 {
                    self.progress.say(&format!(
                        "{changed} streams truncated, deleted or tombstoned as in the source"
                    ));
                }
            }
            for checkpoint in &copy.checkpoints {
                let said = carry(from, &to.store, checkpoint).await?;
                self.progress.say(&said);
            }
        }
        self.progress.end("done");
        Ok(ExitCode::SUCCESS)
    }
}

/// Events that are imported together.
struct Batch {
    events: Vec<RecordedEvent>,
    bytes: usize,
    most_events: usize,
    most_bytes: usize,
}

impl Batch {
    fn new((most_events, most_bytes): (usize, usize)) -> Self {
        Self { events: Vec::new(), bytes: 0, most_events, most_bytes }
    }

    /// Adds an event; what was there before it, where that is enough.
    fn push(&mut self, event: RecordedEvent) -> Option<Vec<RecordedEvent>> {
        let size = event.size();
        let full = self.events.len() == self.most_events || self.bytes + size > self.most_bytes;
        let before = (full && !self.events.is_empty()).then(|| self.take());
        self.bytes += size;
        self.events.push(event);
        before
    }

    fn take(&mut self) -> Vec<RecordedEvent> {
        self.bytes = 0;
        std::mem::take(&mut self.events)
    }
}

/// Sets a subscriber's checkpoint to where the last event that it has handled stands in the target.
async fn carry(
    from: &Arc<dyn Store>,
    to: &Arc<dyn Store>,
    subscriber: &SubscriberId,
) -> Result<String, Failure> {
    let Some(position) = from.load_checkpoint(subscriber).await? else {
        return Err(Failure::usage(format!("the source has no checkpoint of {subscriber}")));
    };
    if position == Position::START {
        return Ok(format!("{subscriber} has handled no event: it begins at the beginning"));
    }
    let Some(found) = resume::last_of_both(from, to, position).await? else {
        let what = format!("no event that {subscriber} has handled last is in the target");
        return Err(Failure::usage(what));
    };
    let kept = to.save_checkpoint(subscriber, found.position).await?;
    Ok(format!("{subscriber}: position {position} is {kept} in the target"))
}
