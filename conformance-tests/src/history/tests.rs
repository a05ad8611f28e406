//! Histories written by hand: the judge has to find the right ones right and the wrong ones wrong.

use annals_core::{
    Appended, ExpectedVersion,
    ExpectedVersion::{Any, NoStream, StreamExists},
    StreamInfo, StreamState,
};

use super::{
    record::{
        Answer, Call, Followed, History, NEVER, Op, Read, ReadAll, Rules, Seen, Start, Told, Write,
    },
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

const NO_ORDER: &str = "no order of the calls on s0";

#[test]
fn concurrent_appends_may_come_in_any_order() {
    right(&history(vec![
        op(1, 6, append(Any, 1..2), got(3, 3, 3)),
        op(2, 5, append(Any, 2..4), got(1, 2, 2)),
        op(7, 8, read(0), events(&[(1, 2, 1), (2, 3, 2), (3, 1, 3)])),
    ]));
    // Not against the order in time.
    wrong(
        &history(vec![
            op(1, 2, append(Any, 1..2), got(2, 2, 2)),
            op(3, 4, append(Any, 2..3), got(1, 1, 1)),
        ]),
        NO_ORDER,
    );
}

#[test]
fn versions_have_no_gap() {
    wrong(&history(vec![op(1, 2, append(Any, 1..2), got(2, 2, 1))]), NO_ORDER);
}

#[test]
fn one_of_two_that_expect_the_same_succeeds() {
    let both = |second| {
        history(vec![
            op(1, 4, append(NoStream, 1..2), got(1, 1, 1)),
            op(2, 3, append(exact(0), 2..3), second),
        ])
    };
    right(&both(conflict(1)));
    wrong(&both(got(2, 2, 2)), NO_ORDER);
    wrong(&both(conflict(0)), NO_ORDER);
    wrong(&both(conflict(2)), NO_ORDER);
}

#[test]
fn what_was_answered_is_read() {
    let beside = |answered, seen: &[(u64, u32, u64)]| {
        history(vec![
            op(1, answered, append(Any, 1..2), got(1, 1, 1)),
            op(3, 5, read(0), events(seen)),
        ])
    };
    right(&beside(2, &[(1, 1, 1)]));
    right(&beside(4, &[]));
    right(&beside(4, &[(1, 1, 1)]));
    wrong(&beside(2, &[]), NO_ORDER);
}

#[test]
fn what_was_read_stays() {
    wrong(
        &history(vec![
            op(1, 9, append(Any, 1..2), got(1, 1, 1)),
            op(2, 3, read(0), events(&[(1, 1, 1)])),
            op(4, 5, read(0), events(&[])),
        ]),
        NO_ORDER,
    );
}

#[test]
fn a_reader_sees_whole_appends() {
    wrong(
        &history(vec![
            op(1, 4, append(Any, 1..3), got(1, 2, 2)),
            op(2, 3, read(0), events(&[(1, 1, 1)])),
        ]),
        NO_ORDER,
    );
}

#[test]
fn an_unknown_outcome_may_be_either() {
    let after = |seen: &[(u64, u32, u64)], later: &[(u64, u32, u64)]| {
        history(vec![
            op(1, NEVER, append(exact(0), 1..2), unknown()),
            op(2, 3, read(0), events(seen)),
            op(4, 5, read(0), events(later)),
        ])
    };
    right(&after(&[], &[]));
    right(&after(&[(1, 1, 1)], &[(1, 1, 1)]));
    right(&after(&[], &[(1, 1, 1)]));
    wrong(&after(&[(1, 1, 1)], &[]), NO_ORDER);
    // Only if its expectation can have held.
    wrong(
        &history(vec![
            op(1, 2, append(Any, 2..3), got(1, 1, 1)),
            op(3, NEVER, append(exact(0), 1..2), unknown()),
            op(4, 5, read(0), events(&[(1, 2, 1), (2, 1, 2)])),
        ]),
        NO_ORDER,
    );
}

#[test]
fn a_retry_writes_once() {
    let twice = |expected, again| {
        history(vec![
            op(1, 4, append(expected, 1..3), got(1, 2, 2)),
            op(2, 3, append(expected, 1..3), again),
        ])
    };
    for expected in [Any, NoStream, exact(0)] {
        right(&twice(expected, replayed(1, 2, 2)));
        wrong(&twice(expected, got(3, 4, 4)), NO_ORDER);
        wrong(&twice(expected, replayed(3, 4, 4)), NO_ORDER);
    }
    wrong(&twice(NoStream, conflict(2)), NO_ORDER);
}

#[test]
fn best_effort_recognises_the_last_append_only() {
    let again = |between: bool, answer| {
        let mut ops = vec![op(1, 2, append(Any, 1..2), got(1, 1, 1))];
        if between {
            ops.push(op(3, 4, append(Any, 2..3), got(2, 2, 2)));
        }
        ops.push(op(5, 6, append(Any, 1..2), answer));
        let mut history = history(ops);
        history.rules.guaranteed = false;
        history
    };
    right(&again(false, replayed(1, 1, 1)));
    wrong(&again(false, got(2, 2, 2)), NO_ORDER);
    right(&again(true, replayed(1, 1, 1)));
    right(&again(true, got(3, 3, 3)));
    let mut guaranteed = again(true, got(3, 3, 3));
    guaranteed.rules.guaranteed = true;
    wrong(&guaranteed, NO_ORDER);
}

#[test]
fn an_append_to_two_streams_is_one() {
    let both =
        Call::Append { writes: vec![write(0, Any, 1..2), write(1, Any, 2..3)], again: false };
    let answers = vec![appended(1, 1, 1, false), appended(1, 1, 2, false)];
    let both = op(1, 6, both, Answer::Appended(answers));
    let other = |events| Answer::Events(events);
    let half = |second| {
        history(vec![
            both.clone(),
            op(2, 3, read(0), events(&[(1, 1, 1)])),
            op(4, 5, read(1), second),
        ])
    };
    right(&half(other(vec![seen(1, 1, 2, 2)])));
    wrong(&half(other(Vec::new())), "no order of the calls on s0 and s1");
    let read_of_all = |seen| {
        history(vec![
            both.clone(),
            op(2, 3, read_all(), Answer::Events(seen)),
            op(7, 8, read_all(), other(vec![seen_of(1), seen_of(2)])),
        ])
    };
    fn seen_of(event: u32) -> Seen {
        seen(event as usize - 1, 1, event, event.into())
    }
    right(&read_of_all(vec![]));
    right(&read_of_all(vec![seen_of(1), seen_of(2)]));
    wrong(&read_of_all(vec![seen_of(1)]), "misses e2");
    wrong(&read_of_all(vec![seen_of(2)]), "misses e1");
}

#[test]
fn removals_are_calls_like_others() {
    let delete = |expected| Call::Delete { stream: 0, expected };
    let beside = |expected, answer, left: &[(u64, u32, u64)]| {
        history(vec![
            op(1, 2, append(Any, 1..2), got(1, 1, 1)),
            op(3, 6, append(exact(1), 2..3), got(2, 2, 2)),
            op(4, 5, delete(expected), answer),
            op(7, 8, read(0), events(left)),
        ])
    };
    right(&beside(Any, Answer::Done, &[]));
    right(&beside(Any, Answer::Done, &[(2, 2, 2)]));
    right(&beside(exact(2), Answer::Done, &[]));
    right(&beside(exact(1), conflict(2), &[(1, 1, 1), (2, 2, 2)]));
    // It removes everything, or what was there before.
    wrong(&beside(Any, Answer::Done, &[(1, 1, 1), (2, 2, 2)]), NO_ORDER);
    wrong(&beside(exact(2), Answer::Done, &[(2, 2, 2)]), NO_ORDER);
    wrong(&beside(exact(1), conflict(2), &[]), NO_ORDER);
}

#[test]
fn a_removal_that_may_have_found_nothing_may_have_found_something() {
    // First the append, then the deletion, although the deletion could come first, too.
    right(&history(vec![
        op(1, 6, append(exact(0), 1..2), got(1, 1, 1)),
        op(2, 3, Call::Delete { stream: 0, expected: Any }, Answer::Done),
        op(4, 5, append(exact(0), 2..3), got(2, 2, 2)),
    ]));
}

#[test]
fn states_of_streams_are_told() {
    let info = |state, version: u64, first: Option<u64>, deleted: u64| {
        let info = StreamInfo::new(state, version.into(), first.map(Into::into));
        Answer::Info(info.with_deleted_at(deleted.into()))
    };
    let then = |call, answer, told, next, after| {
        history(vec![
            op(1, 2, append(Any, 1..4), got(1, 3, 3)),
            op(3, 4, call, answer),
            op(5, 6, Call::Info(0), told),
            op(7, 8, append(StreamExists, 4..5), next),
            op(9, 10, append(NoStream, 5..6), after),
        ])
    };
    let truncate = Call::Truncate { stream: 0, before: 3 };
    let (live, gone, closed) = (StreamState::Live, StreamState::Deleted, StreamState::Tombstoned);
    let kept = info(live, 3, Some(3), 0);
    right(&then(truncate.clone(), Answer::Done, kept, got(4, 4, 4), conflict(4)));
    let delete = Call::Delete { stream: 0, expected: Any };
    let told = info(gone, 3, None, 3);
    right(&then(delete.clone(), Answer::Done, told.clone(), conflict(3), got(4, 4, 4)));
    wrong(&then(delete, Answer::Done, told, conflict(3), got(1, 1, 4)), NO_ORDER);
    let tombstone = Call::Tombstone { stream: 0, expected: exact(3) };
    let told = info(closed, 3, None, 3);
    right(&then(tombstone, Answer::Done, told, Answer::Closed, Answer::Closed));
    wrong(
        &then(truncate, Answer::Done, info(live, 3, Some(2), 0), got(4, 4, 4), conflict(4)),
        NO_ORDER,
    );
}

#[test]
fn readers_of_all_miss_nothing() {
    let three = |seen: &[(u64, u32, u64)]| {
        history(vec![
            op(1, 10, append(Any, 1..2), got(1, 1, 1)),
            op(2, 3, append(Any, 2..3), got(2, 2, 5)),
            op(4, 5, read_all(), events(seen)),
            op(6, 7, append(Any, 3..4), got(3, 3, 9)),
        ])
    };
    right(&three(&[(1, 1, 1), (2, 2, 5)]));
    wrong(&three(&[(2, 2, 5)]), "misses e1, version 1 of s0 at position 1");
    wrong(&three(&[(1, 1, 1)]), "misses e2");
    wrong(&three(&[(2, 2, 5), (1, 1, 1)]), "position 5, then 1");
    wrong(
        &three(&[(1, 1, 1), (2, 2, 6)]),
        "is e2 at position 5 in one answer, and e2 at position 6",
    );
}

#[test]
fn a_read_of_all_may_begin_and_end_anywhere() {
    let part = |read: ReadAll, seen: &[(u64, u32, u64)]| {
        history(vec![
            op(1, 2, append(Any, 1..5), got(1, 4, 4)),
            op(3, 4, read_all(), events(&[(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)])),
            op(5, 6, Call::ReadAll(read), events(seen)),
        ])
    };
    let all = ReadAll { after: 0, before: None, backwards: false, limit: None };
    let limited = ReadAll { after: 1, limit: Some(2), ..all.clone() };
    right(&part(limited.clone(), &[(2, 2, 2), (3, 3, 3)]));
    wrong(&part(limited.clone(), &[(2, 2, 2), (4, 4, 4)]), "misses e3");
    wrong(&part(limited, &[(2, 2, 2)]), "misses e3");
    let back = ReadAll { backwards: true, before: Some(4), ..all };
    right(&part(back.clone(), &[(3, 3, 3), (2, 2, 2), (1, 1, 1)]));
    wrong(&part(back.clone(), &[(2, 2, 2), (1, 1, 1)]), "misses e3");
    let back = ReadAll { limit: Some(2), ..back };
    right(&part(back.clone(), &[(3, 3, 3), (2, 2, 2)]));
    wrong(&part(back, &[(3, 3, 3), (1, 1, 1)]), "misses e2");
}

#[test]
fn removed_events_may_be_missing_from_the_removal_on() {
    let truncated = |began, seen: &[(u64, u32, u64)]| {
        history(vec![
            op(1, 2, append(Any, 1..3), got(1, 2, 2)),
            op(began, began + 1, Call::Truncate { stream: 0, before: 2 }, Answer::Done),
            op(5, 8, read_all(), events(seen)),
        ])
    };
    right(&truncated(6, &[(2, 2, 2)]));
    right(&truncated(6, &[(1, 1, 1), (2, 2, 2)]));
    wrong(&truncated(6, &[(1, 1, 1)]), "misses e2");
    let mut early = truncated(3, &[(1, 1, 1), (2, 2, 2)]);
    wrong(&early, "gives e1, version 1 of s0 at position 1, which was removed before");
    early.rules.at_once = false;
    right(&early);
    // The read has ended when the removal begins.
    wrong(&truncated(9, &[(2, 2, 2)]), "misses e1");
}

#[test]
fn later_appends_have_greater_positions() {
    let positions = |first, second| {
        let other = Call::Append { writes: vec![write(1, Any, 2..3)], again: false };
        history(vec![
            op(1, 2, append(Any, 1..2), got(1, 1, first)),
            op(3, 4, other, got(1, 1, second)),
        ])
    };
    right(&positions(1, 2));
    wrong(&positions(2, 1), "has position 2 and e2 the smaller position 1");
    wrong(&positions(1, 1), "the same position 1");
}

#[test]
fn subscriptions_give_everything_once() {
    let told = |start, told: &[Told]| {
        let mut history = history(vec![
            op(1, 2, append(Any, 1..2), got(1, 1, 1)),
            op(3, 60, append(Any, 2..3), got(2, 2, 2)),
            op(70, 71, append(Any, 3..4), got(3, 3, 3)),
            op(72, 73, append(Any, 4..5), got(4, 4, 4)),
        ]);
        history.followed.push(followed(start, told));
        history
    };
    let all = [event(1, 1, 1), event(2, 2, 2), event(3, 3, 3), event(4, 4, 4)];
    right(&told(Start::Beginning, &all));
    right(&told(Start::After(1), &all[1..]));
    right(&told(Start::End, &all[1..]));
    right(&told(Start::End, &all[2..]));
    right(&told(Start::After(1), &[Told::UpTo(1), all[1], Told::UpTo(2), all[2], all[3]]));
    wrong(&told(Start::Beginning, &all[1..]), "misses e1");
    wrong(&told(Start::Beginning, &[all[0], all[1], all[3]]), "misses e3");
    wrong(&told(Start::End, &all[3..]), "misses e3");
    wrong(&told(Start::End, &all), "whose append was answered before");
    wrong(&told(Start::After(1), &all), "up to position 1, and then told s0/1=e1@1");
    wrong(&told(Start::Beginning, &[all[0], all[0]]), "and then told s0/1=e1@1");
    wrong(&told(Start::Beginning, &[all[0], Told::UpTo(2), all[1]]), "up to position 2");
    let mut ended = told(Start::Beginning, &all[..1]);
    ended.followed[0].wrong = Some("lost".to_owned());
    wrong(&ended, "a subscription ended: lost");
}

#[test]
fn a_subscription_to_one_stream_is_judged_by_it() {
    let told = |ordered, all: &[(u64, u32)]| {
        let at = |position: u64| if ordered { position } else { 0 };
        let mut history = history(vec![
            op(1, 2, append(Any, 1..4), got(1, 3, at(3))),
            op(
                3,
                4,
                Call::Append { writes: vec![write(1, Any, 4..5)], again: false },
                got(1, 1, at(4)),
            ),
        ]);
        history.rules.ordered = ordered;
        let told: Vec<_> = all.iter().map(|(v, n)| event(*v, *n, at(*v))).collect();
        history.followed.push(Followed { stream: Some(0), ..followed(Start::Beginning, &told) });
        history
    };
    for ordered in [true, false] {
        right(&told(ordered, &[(1, 1), (2, 2), (3, 3)]));
        wrong(&told(ordered, &[(1, 1), (1, 1), (2, 2), (3, 3)]), "and then told");
    }
    wrong(&told(false, &[(1, 1), (3, 3)]), "misses e2");
}

#[test]
fn an_answer_that_no_call_may_get_is_wrong() {
    let broken = Answer::Wrong("Error { kind: Busy }".to_owned());
    wrong(&history(vec![op(1, 2, append(Any, 1..2), broken)]), "kind: Busy");
}
