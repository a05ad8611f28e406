//! Histories written by hand: the judge has to find the right ones right and the wrong ones wrong.

mod order;
mod streams;

use annals_core::{Appended, ExpectedVersion, ExpectedVersion::Any};

use super::{
    record::{Answer, Call, Followed, History, Op, Read, ReadAll, Rules, Seen, Start, Told, Write},
    trial::judge,
};

const RULES: Rules = Rules { guaranteed: true, tells_retries: true, at_once: true, ordered: true };

/// A history of two streams and the marks.
fn history(ops: Vec<Op>) -> History {
    History { streams: 3, ops, followed: Vec::new(), rules: RULES }
}

fn exact(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exact(version.into())
}

fn op(began: u64, ended: u64, call: Call, answer: Answer) -> Op {
    Op { task: 0, call, began, ended, answer }
}

fn write(stream: usize, expected: ExpectedVersion, events: std::ops::Range<u32>) -> Write {
    Write { stream, expected, events }
}

/// An append of events to the first stream.
fn append(expected: ExpectedVersion, events: std::ops::Range<u32>) -> Call {
    Call::Append { writes: vec![write(0, expected, events)], again: false }
}

fn appended(first: u64, last: u64, position: u64, replayed: bool) -> Appended {
    Appended::after((first - 1).into(), last + 1 - first, position.into(), replayed).unwrap()
}

fn got(first: u64, last: u64, position: u64) -> Answer {
    Answer::Appended(vec![appended(first, last, position, false)])
}

fn replayed(first: u64, last: u64, position: u64) -> Answer {
    Answer::Appended(vec![appended(first, last, position, true)])
}

/// An append of an event to each of the two streams.
fn both_streams() -> Call {
    Call::Append { writes: vec![write(0, Any, 1..2), write(1, Any, 2..3)], again: false }
}

fn both_answers() -> Answer {
    Answer::Appended(vec![appended(1, 1, 1, false), appended(1, 1, 2, false)])
}

fn unknown() -> Answer {
    Answer::Unknown("dropped".to_owned())
}

fn conflict(actual: u64) -> Answer {
    Answer::Conflict { stream: 0, actual }
}

fn read(stream: usize) -> Call {
    Call::Read(Read { stream, from: None, backwards: false, limit: None })
}

fn read_all() -> Call {
    Call::ReadAll(ReadAll { after: 0, before: None, backwards: false, limit: None })
}

fn seen(stream: usize, version: u64, event: u32, position: u64) -> Seen {
    Seen { stream, version, event, position }
}

/// Events of the first stream: version, event and position each.
fn events(all: &[(u64, u32, u64)]) -> Answer {
    Answer::Events(all.iter().map(|(v, event, at)| seen(0, *v, *event, *at)).collect())
}

fn followed(start: Start, told: &[Told]) -> Followed {
    let told = told.iter().enumerate().map(|(n, told)| (100 + n as u64, *told)).collect();
    Followed { stream: None, start, began: 50, ended: 51, told, wrong: None }
}

fn event(version: u64, event: u32, position: u64) -> Told {
    Told::Event(seen(0, version, event, position))
}

#[track_caller]
fn right(history: &History) {
    if let Err(verdict) = judge(history) {
        panic!("a right history was found wrong: {}", verdict.text);
    }
}

#[track_caller]
fn wrong(history: &History, why: &str) {
    let verdict = judge(history).expect_err("a wrong history was found right");
    assert!(verdict.text.contains(why), "wrong, but for another reason: {}", verdict.text);
}
