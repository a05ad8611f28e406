//! A history in words, for people who have not seen this program.

use annals_core::{ExpectedVersion, StreamInfo, StreamState};

use super::{
    facts::Fact,
    ids::Batch,
    model::{Due, Stream},
    record::{Answer, Call, Followed, History, NEVER, Op, Read, ReadAll, Seen, Start, Told, Write},
};

pub(super) fn stream(history: &History, number: usize) -> String {
    if number + 1 == history.streams { "marks".to_owned() } else { format!("s{number}") }
}

pub(super) fn streams(history: &History, numbers: &[usize]) -> String {
    let names: Vec<_> = numbers.iter().map(|number| stream(history, *number)).collect();
    names.join(" and ")
}

fn batch(events: &Batch) -> String {
    match events.len() {
        1 => format!("e{}", events.start),
        _ => format!("e{}–e{}", events.start, events.end - 1),
    }
}

fn seen(history: &History, seen: &Seen) -> String {
    let Seen { version, event, position, .. } = *seen;
    let name = stream(history, seen.stream);
    let at = if position > 0 { format!("@{position}") } else { String::new() };
    format!("{name}/{version}=e{event}{at}")
}

pub(super) fn fact(history: &History, fact: &Fact) -> String {
    let Fact { version, event, position, .. } = *fact;
    let at = if position > 0 { format!(" at position {position}") } else { String::new() };
    format!("e{event}, version {version} of {}{at}", stream(history, fact.stream))
}

/// A call with its answer on one line.
pub(super) fn op(history: &History, op: &Op) -> String {
    let ended = if op.ended == NEVER { "  …".to_owned() } else { format!("{:3}", op.ended) };
    let times = format!("[{:3}, {ended}]", op.began);
    format!(
        "{times} task {}: {} → {}",
        op.task,
        call(history, &op.call),
        answer(history, &op.answer)
    )
}

fn call(history: &History, call: &Call) -> String {
    let name = |number: &usize| stream(history, *number);
    match call {
        Call::Append { writes, again } => {
            let write = |write: &Write| {
                let Write { stream, expected, events } = write;
                format!("{} to {} ({})", batch(events), name(stream), expectation(*expected))
            };
            let writes: Vec<_> = writes.iter().map(write).collect();
            let again = if *again { " again" } else { "" };
            format!("append{again} {}", writes.join(" and "))
        }
        Call::Truncate { stream, before } => format!("truncate {} before {before}", name(stream)),
        Call::Delete { stream, expected } => {
            format!("delete {} ({})", name(stream), expectation(*expected))
        }
        Call::Tombstone { stream, expected } => {
            format!("tombstone {} ({})", name(stream), expectation(*expected))
        }
        Call::Read(Read { stream, from, backwards, limit }) => {
            let from = from.map_or(String::new(), |from| format!(" from {from}"));
            let limit = limit.map_or(String::new(), |limit| format!(", at most {limit}"));
            let back = if *backwards { " backwards" } else { "" };
            format!("read {}{back}{from}{limit}", name(stream))
        }
        Call::Info(stream) => format!("info of {}", name(stream)),
        Call::ReadAll(ReadAll { after, before, backwards, limit }) => {
            let before = before.map_or(String::new(), |before| format!(" before {before}"));
            let limit = limit.map_or(String::new(), |limit| format!(", at most {limit}"));
            let back = if *backwards { " backwards" } else { "" };
            format!("read all{back} after {after}{before}{limit}")
        }
    }
}

fn expectation(expected: ExpectedVersion) -> String {
    match expected {
        ExpectedVersion::Exact(version) => format!("Exact({version})"),
        other => format!("{other:?}"),
    }
}

fn answer(history: &History, answer: &Answer) -> String {
    match answer {
        Answer::Appended(all) => {
            let one = |a: &annals_core::Appended| {
                let again = if a.replayed { ", replayed" } else { "" };
                let (first, last) = (a.first_version, a.last_version);
                format!("versions {first}–{last} at {}{again}", a.position)
            };
            all.iter().map(one).collect::<Vec<_>>().join(" and ")
        }
        Answer::Done => "done".to_owned(),
        Answer::Conflict { stream: of, actual } => conflict(history, *of, *actual),
        Answer::Closed => "the stream is closed".to_owned(),
        Answer::Events(events) => {
            let events: Vec<_> = events.iter().map(|event| seen(history, event)).collect();
            format!("[{}]", events.join(" "))
        }
        Answer::Info(info) => self::info(info),
        Answer::Unknown(why) => format!("unknown outcome: {why}"),
        Answer::Wrong(why) => format!("WRONG: {why}"),
    }
}

fn conflict(history: &History, of: usize, actual: u64) -> String {
    format!("conflict, {} is at version {actual}", stream(history, of))
}

fn info(info: &StreamInfo) -> String {
    let StreamInfo { state, version, first_version, deleted_at, .. } = info;
    let first = first_version.map_or("none".to_owned(), |first| first.to_string());
    format!("{state:?}, version {version}, first version {first}, deleted at {deleted_at}")
}

/// An answer that would have been right.
pub(super) fn due(history: &History, due: &Due) -> String {
    match due {
        Due::Appended(all, replayed) => {
            let again = if *replayed { ", replayed" } else { "" };
            let one = |(first, last): &(u64, u64)| format!("versions {first}–{last}{again}");
            all.iter().map(one).collect::<Vec<_>>().join(" and ")
        }
        Due::Done => "done".to_owned(),
        Due::Conflict { stream, actual } => conflict(history, *stream, *actual),
        Due::Closed => "the stream is closed".to_owned(),
        Due::Events(events) => {
            let events: Vec<_> = events.iter().map(|(v, event)| format!("{v}=e{event}")).collect();
            format!("[{}]", events.join(" "))
        }
        Due::Info(info) => self::info(info),
    }
}

pub(super) fn state(history: &History, number: usize, of: &Stream) -> String {
    let events: Vec<_> =
        of.events().map(|(version, event)| format!("{version}=e{event}")).collect();
    let state = match of.state {
        StreamState::Missing => "missing",
        StreamState::Live => "live",
        StreamState::Deleted => "deleted",
        StreamState::Tombstoned => "tombstoned",
        _ => "of another state",
    };
    let (name, version) = (stream(history, number), of.version);
    format!("{name} is {state} at version {version} with [{}]", events.join(" "))
}

pub(super) fn told(history: &History, told: &Told) -> String {
    match told {
        Told::Event(event) => seen(history, event),
        Told::UpTo(position) => format!("up to {position}"),
    }
}

/// A subscription with everything that it told, on one line.
pub(super) fn followed(history: &History, followed: &Followed) -> String {
    let source = followed.stream.map_or("all".to_owned(), |number| stream(history, number));
    let start = match followed.start {
        Start::Beginning => "the beginning".to_owned(),
        Start::After(position) => format!("position {position}"),
        Start::End => "the end".to_owned(),
    };
    let all: Vec<_> = followed
        .told
        .iter()
        .map(|(at, told)| format!("{at}: {}", self::told(history, told)))
        .collect();
    let (began, ended) = (followed.began, followed.ended);
    let wrong = followed.wrong.as_deref().map_or(String::new(), |why| format!(" WRONG: {why}"));
    format!(
        "[{began:3}, {ended:3}] subscribe to {source} from {start} → [{}]{wrong}",
        all.join("; ")
    )
}
