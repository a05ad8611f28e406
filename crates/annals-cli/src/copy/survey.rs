//! What a copy cannot keep, and `--dry-run`.

use std::process::ExitCode;

use annals::{Position, StoreUrl};
use indicatif::{HumanBytes, HumanCount};

use super::{Copy, target::Target};
use crate::{
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
    let (target, shown) = match EventFile::of(to) {
        Some(_) => (None, to.to_owned()),
        None => (Some(open_existing(to).await), StoreUrl::parse(to)?.to_string()),
    };
    let capabilities = match &target {
        Some(Ok(store)) => Some(store.capabilities()),
        _ => None,
    };
    anstream::println!("would copy from {}", source.shown());
    match &target {
        Some(Err(_)) => anstream::println!("        to   {shown}, which does not exist yet"),
        _ => anstream::println!("        to   {shown}"),
    }
    let known = EventFile::of(to).is_some() || capabilities.is_some();
    if known {
        for loss in of_stores(source, capabilities, copy) {
            anstream::println!("note: {loss}");
        }
    }
    let most = capabilities.map_or(usize::MAX, |capabilities| capabilities.max_event_bytes);
    let mut chunks = source.read(Position::START, select);
    let (mut events, mut bytes, mut refused) = (0_u64, 0_u64, 0_u64);
    while let Some(chunk) = chunks.recv().await {
        for event in chunk? {
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
                anstream::println!("{}", output::styled(output::BAD, text));
            }
        }
    }
    anstream::println!("{} events, {}", HumanCount(events), HumanBytes(bytes));
    if refused == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    anstream::println!("{} events would be refused", HumanCount(refused));
    Ok(Code::Found.into())
}
