//! What a failing case says: the history, for someone who has not seen this program.

use std::fmt::Write;

use super::{describe, trial::Failure};

/// How to read the lines of a history.
const LEGEND: &str = "\
[a, b]: the call began at tick a of a common clock, and was answered at tick b (…: never). Streams are s0,
s1, …; e1, e2, … are events; s0/2=e5@17 is event e5 as version 2 of s0 at position 17. The last task is the
suite's own: it appends a mark to `marks`, at the end a mark to each stream, and then reads everything.
Lines with > are those that the fault is about.";

/// The report of a failure and of the smallest one that was found of it.
pub(super) fn report(
    nth: u64,
    first: &Failure,
    smallest: &Failure,
    tried: usize,
    replay: &str,
) -> String {
    let (all, left) = (first.program.size(), smallest.program.size());
    let mut text = format!("history {nth} has answers that no correct store gives.\n\n{LEGEND}\n");
    if left < all {
        let tried = format!("{left} of {all} calls are left, after {tried} smaller programs");
        write!(text, "\nThe smallest program that failed ({tried}):\n").unwrap();
        add(&mut text, smallest);
    }
    text += "\nThe history that failed first:\n";
    add(&mut text, first);
    write!(
        text,
        "\nThe seed determines the calls of each task, but not how those of different tasks interleave. This\n\
         runs the program of this history again and again, until it fails:\n\n    {replay}\n"
    )
    .unwrap();
    text
}

fn add(text: &mut String, failure: &Failure) {
    let Failure { history, verdict, .. } = failure;
    let mark = |time: u64| if verdict.about.contains(&time) { ">" } else { " " };
    let mut lines: Vec<_> =
        history.ops.iter().map(|op| (op.began, describe::op(history, op))).collect();
    let followed = history.followed.iter();
    lines.extend(followed.map(|one| (one.began, describe::followed(history, one))));
    lines.sort_unstable_by_key(|(began, _)| *began);
    for (began, line) in lines {
        writeln!(text, "{} {line}", mark(began)).unwrap();
    }
    writeln!(text, "What is wrong: {}", verdict.text).unwrap();
}
