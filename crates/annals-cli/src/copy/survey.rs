//! What a copy cannot keep, and `--dry-run`.

use std::{fmt, io::Write, process::ExitCode, sync::Arc};

use annals::{Position, Store, StoreUrl, StreamId};
use indicatif::{HumanBytes, HumanCount};

use super::{Copy, target::Target};
use crate::{
    carry::{Carrier, Left, Limits, Treatment},
    check,
    failure::{Code, Failure},
    file::EventFile,
    interrupt::Interrupt,
    of_server::OfServer,
    output,
    select::Select,
    source::{Also, Chunk, Source, open_existing},
};

/// Messages about what will differ in the target.
pub(crate) fn losses(source: &Source, target: &Target, copy: &Copy) -> Vec<String> {
    match target {
        Target::Store(target) => of_stores(source, Some(target.store.capabilities()), copy),
        Target::File(_) => of_stores(source, None, copy),
    }
}

/// `to` is `None` for a file, which keeps everything of an event.
fn of_stores(source: &Source, to: Option<&annals::Capabilities>, copy: &Copy) -> Vec<String> {
    let from = source.store().map(|store| store.capabilities());
    let mut losses = Vec::new();
    let mut lose = |it: &str| losses.push(it.to_owned());
    if let Some(to) = to {
        if !to.exact_import {
            lose("record times are not kept: the target sets its own times");
            lose(
                "a stream that starts after version 1 is filled with placeholder events, which are \
                 truncated at once",
            );
        }
        if !to.global_order || copy.lanes > 1 {
            lose("the order over all streams is not kept, only the order within each stream");
        }
        if from.is_none_or(|from| from.max_event_bytes > to.max_event_bytes) {
            lose(&format!(
                "the target takes no event over {}: such events are found before anything is written",
                HumanBytes(to.max_event_bytes as u64)
            ));
        }
        lose(
            "the target has its own positions: --checkpoint carries subscribers over; snapshots and \
             leases are not copied",
        );
    }
    let lists = from.is_some_and(|from| from.list_streams);
    if to.is_none() || !lists || !copy.times.is_everything() {
        match source.exporter() {
            Some(_) if to.is_some() => lose(
                "of streams without events, only those are known of which a scavenge has left events",
            ),
            _ => lose("streams without events, such as deleted or tombstoned ones, are not copied"),
        }
    }
    losses
}

/// What a look through the source has found, before anything is written.
#[derive(Default)]
pub(crate) struct Survey {
    events: u64,
    bytes: u64,
    /// What would stay behind.
    pub(crate) left: Left,
    /// The streams of which events were removed, as far as the source still shows any.
    pub(crate) removed: Vec<StreamId>,
    /// The position of the last event. Events behind it were not looked at.
    pub(crate) end: Position,
    pub(crate) of_server: OfServer,
}

/// Whether a copy needs to look through its source before it writes: it may have events that the target
/// cannot take.
pub(crate) fn is_needed(source: &Source, limits: Limits, treatment: Treatment) -> bool {
    match source {
        Source::Store { exporter: Some(_), .. } => true,
        Source::Store { store, .. } => {
            treatment.is_given() || store.capabilities().max_event_bytes > limits.most_bytes
        }
        // Standard input can be read only once.
        Source::File(file) => !file.is_stdio() && (treatment.is_given() || !limits.system_names),
    }
}

impl Survey {
    /// Reads all selected events. The carrier counts those for which no option says what to do.
    pub(crate) async fn take(
        source: &Source,
        select: &Select,
        carrier: &mut Carrier,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let mut survey = Self::default();
        let also = Also { foreign: true, ..Also::default() };
        let mut chunks = source.read_with(source.start(select).await?, select, also);
        while let Some(chunk) = chunks.recv().await {
            if interrupt.is_set() {
                return Err(Failure::interrupted());
            }
            let Chunk { events, removed, .. } = chunk.map_err(|e| e.at("the source"))?;
            survey.removed.extend(removed);
            survey.end = events.last().map_or(survey.end, |event| event.position);
            for event in &carrier.carry(events).await? {
                survey.events += 1;
                survey.bytes += event.size() as u64;
            }
        }
        survey.left = std::mem::take(&mut carrier.left);
        survey.of_server = OfServer::look(source, select, interrupt).await?;
        survey.left.append(std::mem::take(&mut survey.of_server.left));
        Ok(survey)
    }
}

/// `--dry-run`: reads all events of the source, and writes nothing.
pub(crate) async fn run(
    source: &Source,
    to: &str,
    select: &Select,
    copy: &Copy,
) -> Result<ExitCode, Failure> {
    let target = Planned::look(to).await.map_err(|e| e.at("the target"))?;
    let mut out = output::stdout();
    // If nobody reads the report, its exit status still counts.
    let mut print =
        |text: String| output::written(writeln!(out, "{text}").and_then(|()| out.flush()));
    print(format!("would copy from {}", source.shown()))?;
    print(format!("        to   {target}"))?;
    let capabilities = match &target {
        Planned::Store(_, store) => Some(store.capabilities()),
        _ => None,
    };
    if !matches!(target, Planned::Missing(_)) {
        for loss in of_stores(source, capabilities, copy) {
            print(format!("note: {loss}"))?;
        }
    }
    let limits =
        Limits { system_names: matches!(target, Planned::File(_)), ..Limits::of(capabilities) };
    let mut carrier = Carrier::new(source, limits, copy.treatment);
    let survey = Survey::take(source, select, &mut carrier, &Interrupt::listen()).await?;
    if let Some(note) = survey.of_server.note() {
        print(format!("note: {note}"))?;
    }
    for line in carrier.undecided.lines() {
        print(output::styled(output::BAD, line))?;
    }
    for line in survey.left.lines() {
        print(format!("stays behind: {line}"))?;
    }
    print(format!("{} events, {}", HumanCount(survey.events), HumanBytes(survey.bytes)))?;
    carrier.check_decided()?;
    if survey.left.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    print(format!("{} would stay behind", survey.left.summary()))?;
    Ok(Code::LeftBehind.into())
}

/// A target that is not written to.
enum Planned {
    File(String),
    Store(StoreUrl, Arc<dyn Store>),
    /// A store that the copy would create, or migrate.
    Missing(StoreUrl),
}

impl Planned {
    /// Looks at the target. Whatever would keep a copy from writing there is an error; that there is
    /// no store yet would not.
    async fn look(to: &str) -> Result<Self, Failure> {
        if let Some(file) = EventFile::of(to) {
            file.check_writable()?;
            return Ok(Self::File(file.shown()));
        }
        let url = StoreUrl::parse(to)?;
        match open_existing(to).await {
            Ok(store) => {
                check::check_writable(&url).await?;
                Ok(Self::Store(url, store))
            }
            Err(failure) => match check::can_be_created(&url).await? {
                true => Ok(Self::Missing(url)),
                false => Err(failure),
            },
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(path),
            Self::Store(url, _) => url.fmt(f),
            Self::Missing(url) => write!(f, "{url}, which does not exist yet"),
        }
    }
}
