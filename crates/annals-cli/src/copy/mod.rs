//! `annals copy`: copies events from any store or file to any other.

mod file_target;
mod follow;
mod progress;
mod resume;
mod states;
mod survey;
mod target;
#[cfg(all(test, feature = "memory"))]
mod tests;

use std::{process::ExitCode, sync::Arc, time::Duration};

use annals::{EventStoreExt, Position, RecordedEvent, Store, SubscriberId, adapter::Backoff};
use clap::Args;
use tokio::time::Instant;

use crate::{
    carry::{Carrier, Left, Treatment},
    deletions::Deletions,
    failure::{Code, Failure},
    file::EventFile,
    interrupt::Interrupt,
    output,
    select::{Select, SelectStreams, SelectTimes, subscriber},
    source::{Also, Source},
};
use progress::Progress;
use survey::Survey;
use target::Target;

/// Copies events from one store to another as they were recorded: with their ids, types, payloads,
/// versions, and their order over all streams.
///
/// FROM and TO are URLs of stores, or files of events: jsonl:FILE or cloudevents:FILE, with - for
/// standard input or output. If the command is stopped or killed at any point, the same command
/// continues where it was.
///
/// At the end of each run, streams that were truncated, deleted or tombstoned in the source are
/// treated alike in the target, if the target was empty when the copy began. A stream that was deleted
/// and then written to again is deleted in the target before its new events are written; a file says so
/// with the first of them.
///
/// Before it writes, the command looks through the source for events that the target cannot take: links
/// of EventStoreDB, names that annals does not take, events that are too large. If there is one, it stops,
/// unless --links, --unnamable or --oversized says what to do. At the end it lists the events that stay
/// behind, and ends with status 5. In the middle of a stream a placeholder of the type annals.placeholder
/// stands for such an event, since the versions of the next ones stay what they are. The list also has
/// what only EventStoreDB keeps and no option carries over: settings of streams, such as $maxAge and $acl,
/// and what users have put into streams whose names begin with $.
///
/// --since begins at the place where everything before was recorded earlier. It is found without
/// reading all events; if the clocks that recorded them disagree by more than a minute, events may be
/// missed.
#[derive(Args, Debug)]
pub(crate) struct Copy {
    /// The source. Other programs may write to it meanwhile.
    #[arg(env = "ANNALS_FROM", hide_env_values = true)]
    from: String,
    /// The target. A store or file that is missing is created.
    #[arg(env = "ANNALS_TO", hide_env_values = true)]
    to: String,
    #[command(flatten)]
    streams: SelectStreams,
    #[command(flatten)]
    times: SelectTimes,
    #[command(flatten)]
    treatment: Treatment,
    /// Then copy new events as they come, until Ctrl-C. Before it ends, the command copies all events
    /// that the source has at that time. While a store cannot be reached, the command waits for it.
    #[arg(short, long)]
    follow: bool,
    /// Write nothing; report what would be copied, and what would be lost.
    #[arg(long)]
    dry_run: bool,
    /// Set this subscriber's checkpoint in the target to the position that the same event has there.
    /// May be repeated.
    #[arg(long = "checkpoint", value_name = "SUBSCRIBER", value_parser = subscriber)]
    checkpoints: Vec<SubscriberId>,
    /// How many streams to write at once. More than one is faster if the target is far away. It keeps
    /// the order within each stream, but not the order over all streams.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    lanes: u16,
    /// Do not show progress.
    #[arg(short, long)]
    quiet: bool,
}

/// What the command says when Ctrl-C has stopped it.
const STOPPED: &str = "stopped; the same command continues from here";

/// How often the progress is saved in the target.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Why [`Run::copy`] returned.
#[derive(PartialEq, Eq)]
enum End {
    /// All events of the source are copied.
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
    /// All events up to this position are written.
    done: Position,
    /// Deletions that the target does not know yet.
    deletions: Deletions,
    carrier: Carrier,
    /// What was found in the source before the copy.
    survey: Survey,
    saved: Instant,
    /// With --follow: a store cannot be reached, and these are the pauses between tries.
    outage: Option<Backoff>,
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
        let limits = target.limits();
        let carrier = || Carrier::new(&source, limits, self.treatment);
        let mut survey = Survey::default();
        if survey::is_needed(&source, limits, self.treatment) {
            progress.say("looking through the source first");
            let mut carrier = carrier();
            let taken = Survey::take(&source, &select, &mut carrier, &interrupt).await;
            if interrupt.is_set() {
                progress.end(STOPPED);
                return Ok(Code::Interrupted.into());
            }
            survey = taken?;
            if let Some(note) = survey.of_server.note() {
                progress.say(&format!("note: {note}"));
            }
            carrier.check_decided()?;
        }
        let name = resume::name(&source, &self.from, &select)?;
        let start = resume::start(&source, &mut target, name, &select).await?;
        if let Target::Store(target) = &mut target {
            target.may_remove = start.may_remove;
        }
        let resume::Start { after: done, name, .. } = start;
        if done > Position::START {
            progress.say(&format!("continuing after position {done}"));
        }
        let done = done.max(source.start(&select).await.map_err(|e| e.at("the source"))?);
        let mut carrier = carrier();
        if done > Position::START && survey.left.has_events_of_applications() {
            carrier.resume(&source, &select, done).await?;
        }
        let mut run = Run {
            source,
            target,
            select,
            name,
            progress,
            interrupt,
            done,
            deletions: Deletions::new(),
            carrier,
            survey,
            saved: Instant::now(),
            outage: None,
        };
        let end = if self.follow { run.follow().await? } else { run.copy().await? };
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
                    "--checkpoint needs two stores and --lanes 1, so that the target has the source's order",
                ));
            }
        }
        Ok(())
    }
}

impl Run {
    /// Copies the events that the source has now.
    async fn copy(&mut self) -> Result<End, Failure> {
        if let Some(store) = self.source.store()
            && store.capabilities().global_order
        {
            let last =
                store.last_position().await.map_err(|e| Failure::from(e).at("the source"))?;
            self.progress.until(self.done, last);
        }
        let also = Also { deletions: true, foreign: true };
        let mut chunks = self.source.read_with(self.done, &self.select, also);
        let mut import = Import::new(self.target.import_limits());
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk.map_err(|e| e.at("the source"))?;
            self.deletions.extend(chunk.deletions);
            for event in self.carried(chunk.events).await? {
                if let Some(full) = import.push(event) {
                    self.write(full).await?;
                }
            }
            if self.interrupt.is_set() && !self.progress.is_following() {
                break;
            }
        }
        self.write(import.take()).await?;
        self.save().await?;
        self.has_worked();
        let stopped = self.interrupt.is_set() && !self.progress.is_following();
        Ok(if stopped { End::Interrupted } else { End::Reached })
    }

    /// The events as the target takes them.
    async fn carried(
        &mut self,
        mut events: Vec<RecordedEvent>,
    ) -> Result<Vec<RecordedEvent>, Failure> {
        let seen = events.partition_point(|event| event.position <= self.survey.end);
        let more = events.split_off(seen);
        self.survey.end = more.last().map_or(self.survey.end, |event| event.position);
        let mut carried = self.carrier.carry(events).await?;
        // What the survey has seen is counted already.
        self.carrier.left = Left::default();
        carried.extend(self.carrier.carry(more).await?);
        self.survey.left.append(std::mem::take(&mut self.carrier.left));
        self.carrier.check_decided()?;
        Ok(carried)
    }

    async fn write(&mut self, events: Vec<RecordedEvent>) -> Result<(), Failure> {
        let Some(last) = events.last().map(|event| event.position) else { return Ok(()) };
        let (count, bytes) = (events.len(), events.iter().map(RecordedEvent::size).sum());
        let deletions = std::mem::take(&mut self.deletions);
        let write = self.target.write(&self.source, events, deletions);
        write.await.map_err(|e| e.at("the target"))?;
        self.done = self.done.max(last);
        self.has_worked();
        self.progress.copied(count, bytes, last);
        self.save_if_due().await
    }

    async fn save_if_due(&mut self) -> Result<(), Failure> {
        if self.saved.elapsed() < SAVE_EVERY { Ok(()) } else { self.save().await }
    }

    /// Saves in the target how far the copy has come.
    async fn save(&mut self) -> Result<(), Failure> {
        self.saved = Instant::now();
        self.target.save_progress(&self.name, self.done).await.map_err(|e| e.at("the target"))
    }

    async fn finish(self, copy: &Copy, end: End) -> Result<ExitCode, Failure> {
        if end == End::Interrupted {
            self.progress.end(STOPPED);
            return Ok(Code::Interrupted.into());
        }
        if let (Some(from), Target::Store(to)) = (self.source.store(), &self.target) {
            if copy.times.is_everything() {
                let followed = match from.capabilities().list_streams {
                    true => states::follow(from, to, &copy.streams).await?,
                    false => states::follow_these(from, to, &self.survey.removed).await?,
                };
                if followed.changed > 0 {
                    self.progress.say(&format!(
                        "{} streams were truncated, deleted or tombstoned as in the source",
                        followed.changed
                    ));
                }
                for stream in followed.not_deleted {
                    self.progress.say(&format!(
                        "note: {stream} was deleted and written to again while it was copied; the \
                         target has truncated it instead, so that programs miss the events before; \
                         to have it alike, copy into an empty store"
                    ));
                }
            }
            for checkpoint in &copy.checkpoints {
                let message = carry_checkpoint(from, &to.store, checkpoint).await?;
                self.progress.say(&message);
            }
        }
        if self.survey.left.is_empty() {
            self.progress.end("done");
            return Ok(ExitCode::SUCCESS);
        }
        // The list is the result, so it is printed with --quiet as well.
        for line in self.survey.left.lines() {
            output::say(format!("stays behind: {line}"));
        }
        self.progress.end(&format!("done, but {} stay behind", self.survey.left.summary()));
        Ok(Code::LeftBehind.into())
    }
}

/// Events that one import writes.
struct Import {
    events: Vec<RecordedEvent>,
    bytes: usize,
    most_events: usize,
    most_bytes: usize,
}

impl Import {
    fn new((most_events, most_bytes): (usize, usize)) -> Self {
        Self { events: Vec::new(), bytes: 0, most_events, most_bytes }
    }

    /// Adds an event. If the import is too full for it, returns the events before it.
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

/// Sets a subscriber's checkpoint in the target to the position of the last event that it has
/// handled. Returns a message for the user.
async fn carry_checkpoint(
    from: &Arc<dyn Store>,
    to: &Arc<dyn Store>,
    subscriber: &SubscriberId,
) -> Result<String, Failure> {
    let Some(position) = from.load_checkpoint(subscriber).await? else {
        return Err(Failure::usage(format!("the source has no checkpoint of {subscriber}")));
    };
    if position == Position::START {
        return Ok(format!(
            "{subscriber} has handled no event: it starts at the beginning of the target"
        ));
    }
    let Some(found) = resume::last_of_both(from, to, position).await? else {
        let what = format!("the target has none of the last events that {subscriber} has handled");
        return Err(Failure::usage(what));
    };
    let kept = to.save_checkpoint(subscriber, found.position).await?;
    Ok(format!("{subscriber}: position {position} of the source is position {kept} of the target"))
}
