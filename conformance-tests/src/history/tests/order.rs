//! There is one order of all events, of which readers see a part without holes, or not.

use annals_core::ExpectedVersion::Any;

use super::{
    super::record::{Answer, Call, Followed, ReadAll, Start, Told},
    append, both_answers, both_streams, event, events, followed, got, history, op, read_all, right,
    seen, write, wrong,
};

#[test]
fn an_append_to_two_streams_is_seen_whole() {
    let one = |event: u32| seen(event as usize - 1, 1, event, event.into());
    let then = |found| {
        history(vec![
            op(1, 6, both_streams(), both_answers()),
            op(2, 3, read_all(), Answer::Events(found)),
            op(7, 8, read_all(), Answer::Events(vec![one(1), one(2)])),
        ])
    };
    right(&then(vec![]));
    right(&then(vec![one(1), one(2)]));
    wrong(&then(vec![one(1)]), "misses e2");
    wrong(&then(vec![one(2)]), "misses e1");
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
fn an_event_without_a_known_position_is_missed_too() {
    let then = |seen: &[(u64, u32, u64)]| {
        history(vec![op(1, 2, append(Any, 1..3), got(1, 2, 2)), op(3, 4, read_all(), events(seen))])
    };
    right(&then(&[(1, 1, 1), (2, 2, 2)]));
    wrong(&then(&[(2, 2, 2)]), "misses e1");
}

#[test]
fn readers_do_not_go_back() {
    let then = |began, seen: &[(u64, u32, u64)]| {
        history(vec![
            op(1, 10, append(Any, 1..2), got(1, 1, 1)),
            op(2, 4, read_all(), events(&[(1, 1, 1)])),
            op(began, began + 1, read_all(), events(seen)),
        ])
    };
    right(&then(5, &[(1, 1, 1)]));
    wrong(&then(5, &[]), "misses e1");
    right(&then(3, &[]));
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
