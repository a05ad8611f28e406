//! Streams are linearizable, or not.

use annals_core::{
    ExpectedVersion::{Any, NoStream, StreamExists},
    StreamInfo, StreamState,
};

use super::{
    super::record::{Answer, Call, NEVER},
    append, both_answers, both_streams, conflict, events, exact, got, history, op, read, replayed,
    right, seen, unknown, write, wrong,
};

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
fn an_answer_that_no_call_may_get_is_wrong() {
    let broken = Answer::Wrong("Error { kind: Busy }".to_owned());
    wrong(&history(vec![op(1, 2, append(Any, 1..2), broken)]), "kind: Busy");
}

#[test]
fn an_append_to_two_streams_is_one() {
    let then = |second| {
        history(vec![
            op(1, 6, both_streams(), both_answers()),
            op(2, 3, read(0), events(&[(1, 1, 1)])),
            op(4, 5, read(1), Answer::Events(second)),
        ])
    };
    right(&then(vec![seen(1, 1, 2, 2)]));
    wrong(&then(Vec::new()), "no order of the calls on s0 and s1");
}

#[test]
fn a_refused_append_to_two_streams_names_one_that_refuses() {
    let neither = Call::Append {
        writes: vec![write(0, exact(1), 1..2), write(1, exact(2), 2..3)],
        again: false,
    };
    let refused = |stream, actual| {
        let answer = Answer::Conflict { stream, actual };
        history(vec![op(1, 2, append(Any, 3..4), got(1, 1, 1)), op(3, 4, neither.clone(), answer)])
    };
    right(&refused(1, 0));
    wrong(&refused(0, 1), "no order of the calls on s0 and s1");
    wrong(&refused(1, 1), "no order of the calls on s0 and s1");
}

#[test]
fn what_is_too_much_for_the_checker_does_not_pass() {
    let missing = Answer::Info(StreamInfo::new(StreamState::Missing, 0.into(), None));
    let infos = (0..200).map(|n| op(2 * n, 2 * n + 1, Call::Info(0), missing.clone()));
    wrong(&history(infos.collect()), "the checker takes at most");
    let mut dropped: Vec<_> =
        (0..20).map(|n| op(n.into(), NEVER, append(Any, n..n + 1), unknown())).collect();
    dropped.push(op(30, 31, append(exact(20), 30..31), conflict(77)));
    wrong(&history(dropped), "the checker gave up");
}
