//! The call `Read`: reads and subscriptions, of a stream and of `$all`.

use std::time::Duration;

use async_stream::try_stream;
use tonic::Status;
use uuid::Uuid;

use super::{
    cluster::{Fault, Node},
    filter::EventFilter,
    log::{GREATEST, Record, View},
    service::{Answers, stream_deleted, unforeseen},
};
use crate::{
    proto::{
        shared::{
            ReadEvent, StreamIdentifier, SubscriptionConfirmation, all_options::AllOption,
            read_event, stream_options::RevisionOption,
        },
        streams::{
            ReadReq, ReadResp,
            read_req::options::{CountOption, FilterOption, StreamOption},
            read_resp::{CaughtUp, Checkpoint, Content, StreamNotFound},
        },
    },
    wire::{IdFormat, headers},
};

/// How many records are looked at before the lock of the log is given back.
const BATCH: usize = 512;
/// How long a slow node takes for them.
const SLOW: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Start,
    End,
    At(u64),
}

pub(super) fn read(node: &Node, request: ReadReq) -> Result<Answers<ReadResp>, Status> {
    let options = request.options.unwrap_or_default();
    let invalid = |what: &str| Status::invalid_argument(what.to_owned());
    if options.uuid_option.is_none() {
        return Err(invalid("UuidOption is missing"));
    }
    let ids = IdFormat::requested(options.uuid_option);
    let backwards = options.read_direction == 1;
    let count = match options.count_option.ok_or_else(|| invalid("CountOption is missing"))? {
        CountOption::Count(count) => Some(count),
        CountOption::Subscription(_) if backwards => return Err(invalid("backwards")),
        CountOption::Subscription(_) => None,
    };
    let filter = match options.filter_option.ok_or_else(|| invalid("FilterOption is missing"))? {
        FilterOption::Filter(filter) => Some(EventFilter::new(filter)?),
        FilterOption::NoFilter(_) => None,
    };
    match options.stream_option.ok_or_else(|| invalid("StreamOption is missing"))? {
        StreamOption::Stream(stream) => {
            let name = stream.stream_identifier.ok_or_else(unforeseen)?;
            let name = String::from_utf8_lossy(&name.stream_name).into_owned();
            let from = match stream.revision_option.ok_or_else(|| invalid("no place"))? {
                RevisionOption::Start(_) => From::Start,
                RevisionOption::End(_) | RevisionOption::Revision(u64::MAX) => From::End,
                RevisionOption::Revision(revision) => From::At(revision),
            };
            match count {
                Some(count) => read_stream(node, name, from, backwards, count, ids),
                None => subscribe_stream(node, name, from, ids),
            }
        }
        StreamOption::All(all) => {
            let from = match all.all_option.ok_or_else(|| invalid("no place"))? {
                AllOption::Start(_) => From::Start,
                AllOption::End(_) => From::End,
                AllOption::Position(at) => match at.commit_position {
                    u64::MAX => From::End,
                    0 => From::Start,
                    position => From::At(position),
                },
            };
            match count {
                Some(count) => read_all(node, filter, from, backwards, count, ids),
                None => subscribe_all(node, filter, from, ids),
            }
        }
    }
}

fn said(content: Content) -> ReadResp {
    ReadResp { content: Some(content) }
}

fn event(record: &Record, ids: IdFormat) -> ReadResp {
    let stream_name = record.stream.clone().into();
    let recorded = read_event::RecordedEvent {
        id: Some(ids.write(record.event.id)),
        stream_identifier: Some(StreamIdentifier { stream_name }),
        stream_revision: record.revision,
        prepare_position: record.position,
        commit_position: record.position,
        metadata: headers(&record.event.event_type, record.event.is_json, record.created),
        custom_metadata: record.event.metadata.clone(),
        data: record.event.data.clone(),
    };
    said(Content::Event(ReadEvent {
        event: Some(Box::new(recorded)),
        link: None,
        position: Some(read_event::Position::CommitPosition(record.position)),
        count: None,
    }))
}

fn read_stream(
    node: &Node,
    name: String,
    from: From,
    backwards: bool,
    count: u64,
    ids: IdFormat,
) -> Result<Answers<ReadResp>, Status> {
    if node.view(|view| view.is_tombstoned(&name)) {
        return Err(stream_deleted(&name));
    }
    if count == 0 || (from == From::End && !backwards) {
        return Err(Status::unknown("Unexpected ReadStreamResult: Error"));
    }
    let node = node.clone();
    Ok(Box::pin(try_stream! {
        let (missing, (first, end)) = node.view(|view| {
            let missing = view.last_revision(&name) < 0 || view.is_deleted(&name);
            (missing, view.range(&name))
        });
        if missing {
            let stream_identifier = Some(StreamIdentifier { stream_name: name.clone().into() });
            yield said(Content::StreamNotFound(StreamNotFound { stream_identifier }));
            return;
        }
        let mut left = count;
        if backwards {
            let mut next = match from {
                From::Start => 1,
                From::At(revision) => revision.saturating_add(1).min(end),
                From::End => end,
            };
            while left > 0 && next > 0 {
                next -= 1;
                let found = node.view(|view| view.readable(&name, next).map(|r| event(r, ids)));
                let Some(found) = found else { break };
                left -= 1;
                yield found;
            }
        } else {
            let mut next = if let From::At(revision) = from { revision } else { 0 }.max(first);
            while left > 0 {
                let most = left.min(BATCH as u64);
                let batch = node.view(|view| -> Vec<_> {
                    let revisions = next..next.saturating_add(most);
                    let found = revisions.map_while(|at| view.readable(&name, at));
                    found.map(|record| event(record, ids)).collect()
                });
                if batch.is_empty() {
                    break;
                }
                next += batch.len() as u64;
                left -= batch.len() as u64;
                for found in batch {
                    yield found;
                }
            }
        }
    }))
}

/// The index of the first record at or after a position, and whether it is at just that position.
fn find(view: View<'_>, position: u64) -> (usize, bool) {
    let records = view.records();
    let index = records.partition_point(|record| record.position < position);
    (index, records.get(index).is_some_and(|record| record.position == position))
}

fn read_all(
    node: &Node,
    filter: Option<EventFilter>,
    from: From,
    backwards: bool,
    count: u64,
    ids: IdFormat,
) -> Result<Answers<ReadResp>, Status> {
    let error = || {
        let kind = if filter.is_some() { "FilteredReadAllResult" } else { "ReadAllResult" };
        Status::unknown(format!("Unexpected {kind}: Error"))
    };
    if count == 0 {
        return Err(error());
    }
    let length = node.view(|view| view.records().len());
    let mut next = match from {
        From::Start => 0,
        From::End => length,
        From::At(position) => {
            let (index, exact) = node.view(|view| find(view, position));
            if !exact && (backwards || index < length) {
                return Err(error());
            }
            index
        }
    };
    let node = node.clone();
    Ok(Box::pin(try_stream! {
        let mut left = count;
        while left > 0 {
            let (batch, looked) = node.view(|view| {
                let records = view.records();
                let range = if backwards {
                    records.get(next.saturating_sub(BATCH)..next.min(records.len()))
                } else {
                    records.get(next..records.len().min(next + BATCH))
                };
                let range = range.unwrap_or_default();
                let wanted = |r: &&Record| filter.as_ref().is_none_or(|f| f.matches(r));
                let mut batch: Vec<_> =
                    range.iter().filter(wanted).map(|r| event(r, ids)).collect();
                if backwards {
                    batch.reverse();
                }
                (batch, range.len())
            });
            if looked == 0 {
                break;
            }
            next = if backwards { next - looked } else { next + looked };
            look_slowly(&node).await;
            for found in batch.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                left -= 1;
                yield found;
            }
        }
    }))
}

async fn look_slowly(node: &Node) {
    if node.fault() == Fault::Slow {
        tokio::time::sleep(SLOW).await;
    }
}

fn confirmation() -> ReadResp {
    let subscription_id = Uuid::now_v7().to_string();
    said(Content::Confirmation(SubscriptionConfirmation { subscription_id }))
}

fn caught_up() -> ReadResp {
    said(Content::CaughtUp(CaughtUp { timestamp: None, stream_revision: None, position: None }))
}

fn subscribe_stream(
    node: &Node,
    name: String,
    from: From,
    ids: IdFormat,
) -> Result<Answers<ReadResp>, Status> {
    let closed = node.view(|view| view.is_tombstoned(&name));
    if closed && from != From::End {
        return Err(stream_deleted(&name));
    }
    let (node, mut changes) = (node.clone(), node.changes());
    Ok(Box::pin(try_stream! {
        yield confirmation();
        let mut next = match from {
            From::Start => 0,
            From::At(revision) => revision.saturating_add(1),
            From::End => node.view(|view| view.range(&name).1),
        };
        // From the start of a stream that has no events, the server says this only after the first.
        let mut told = false;
        loop {
            changes.borrow_and_update();
            let (batch, later, exists, tombstone) = node.view(|view| {
                let (first, end) = view.range(&name);
                let start = next.max(first.min(end));
                let revisions = start..end.min(start.saturating_add(BATCH as u64));
                let later = revisions.end.max(next);
                let found: Vec<_> = revisions
                    .filter_map(|at| view.readable(&name, at))
                    .map(|record| event(record, ids))
                    .collect();
                let exists = end > 0 && !view.is_deleted(&name);
                let tombstone = view.records().iter().rev().take(if view.is_tombstoned(&name) {
                    usize::MAX
                } else {
                    0
                });
                let tombstone = tombstone
                    .clone()
                    .find(|record| record.stream == name && record.revision == GREATEST);
                (found, later, exists, tombstone.map(|record| event(record, ids)))
            });
            let caught = batch.is_empty();
            next = later;
            for found in batch {
                yield found;
            }
            if !caught {
                continue;
            }
            if !told && (exists || from != From::Start) {
                told = true;
                yield caught_up();
            }
            if let Some(tombstone) = tombstone
                && !closed
            {
                yield tombstone;
                Err(stream_deleted(&name))?;
            }
            // An error means that the cluster is gone.
            if changes.changed().await.is_err() {
                break;
            }
        }
    }))
}

fn subscribe_all(
    node: &Node,
    filter: Option<EventFilter>,
    from: From,
    ids: IdFormat,
) -> Result<Answers<ReadResp>, Status> {
    let length = node.view(|view| view.records().len());
    let mut next = match from {
        From::Start => 0,
        From::End => length,
        From::At(position) => {
            let (index, exact) = node.view(|view| find(view, position));
            if !exact && index < length {
                return Err(unforeseen());
            }
            // It begins after the position.
            if exact { index + 1 } else { index }
        }
    };
    let (node, mut changes) = (node.clone(), node.changes());
    let every = filter.as_ref().map(|filter| filter.checkpoint_every);
    Ok(Box::pin(try_stream! {
        yield confirmation();
        let (mut told, mut considered) = (false, 0);
        loop {
            changes.borrow_and_update();
            let batch = node.view(|view| -> Vec<_> {
                let records = view.records();
                let range = records.get(next..records.len().min(next + BATCH));
                let wanted = |r: &Record| filter.as_ref().is_none_or(|f| f.matches(r));
                let found = |r: &Record| (r.position, wanted(r).then(|| event(r, ids)));
                range.unwrap_or_default().iter().map(found).collect()
            });
            next += batch.len();
            if !batch.is_empty() {
                look_slowly(&node).await;
            }
            if batch.is_empty() {
                if !told {
                    told = true;
                    yield caught_up();
                }
                if changes.changed().await.is_err() {
                    break;
                }
            }
            for (position, found) in batch {
                if let Some(found) = found {
                    yield found;
                }
                considered += 1;
                if every.is_some_and(|every| considered >= every) {
                    considered = 0;
                    // While it catches up, only the commit position counts.
                    let prepare_position = if told { position } else { 0 };
                    let timestamp = None;
                    let commit_position = position;
                    let checkpoint = Checkpoint { commit_position, prepare_position, timestamp };
                    yield said(Content::Checkpoint(checkpoint));
                }
            }
        }
    }))
}
