//! What a copy cannot keep, and `--dry-run`.

use std::{fmt, io::Write, process::ExitCode, sync::Arc};

use annals::{Store, StoreUrl};
use indicatif::{HumanBytes, HumanCount};

use super::{Copy, target::Target};
use crate::{
    check,
    failure::{Code, Failure},
    file::EventFile,
    output,
    select::Select,
    source::{Source, open_existing},
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
                "the target takes no event over {}: --dry-run finds such events",
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
        lose("streams without events, such as deleted or tombstoned ones, are not copied");
    }
    losses
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
    let most = capabilities.map_or(usize::MAX, |capabilities| capabilities.max_event_bytes);
    let mut chunks = source.read(source.start(select).await?, select);
    let (mut events, mut bytes, mut refused) = (0_u64, 0_u64, 0_u64);
    while let Some(chunk) = chunks.recv().await {
        for event in chunk.map_err(|e| e.at("the source"))?.events {
            (events, bytes) = (events + 1, bytes + event.size() as u64);
            let why = if event.size() > most {
                "the event is larger than the target takes"
            } else if event.stream.is_system() || event.event_type.is_system() {
                "a name begins with $"
            } else {
                continue;
            };
            refused += 1;
            if refused <= 10 {
                let text = format!("version {} of {}: {why}", event.version, event.stream);
                print(output::styled(output::BAD, text))?;
            }
        }
    }
    print(format!("{} events, {}", HumanCount(events), HumanBytes(bytes)))?;
    if refused == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    print(format!("{} events would be refused", HumanCount(refused)))?;
    Ok(Code::Found.into())
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
