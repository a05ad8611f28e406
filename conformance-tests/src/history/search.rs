//! Whether the calls on streams are linearizable: whether each can be given one moment between its
//! begin and its answer, such that a sequential store gives all these answers in this order.
//!
//! The search is that of Wing and Gong: it tries every call that may come next, and goes on from the
//! state behind it. Like Lowe's and the checker `porcupine`, it remembers where it has been: the same
//! calls done and the same state. A call whose answer says that it changed nothing is taken as soon as
//! the answer is right: no other call can tell when it took place.

use std::collections::HashSet;

use super::{
    describe,
    model::{Outcome, State, Stream, outcomes},
    record::{Call, History, Op},
    verdict::Verdict,
};

/// The most states to look at. A history of 40 calls needs some dozens.
const MOST_STATES: usize = 20_000;
/// The calls of a set are the bits of a number.
const MOST_CALLS: usize = 128;

/// Judges the streams of a history, those together that one append wrote to.
pub(super) fn judge(history: &History) -> Result<(), Verdict> {
    for streams in joined(history) {
        let is_one = |op: &&Op| op.call.streams().first().is_some_and(|s| streams.contains(s));
        let no_effect = |op: &Op| op.is_unknown() && !changes(&op.call);
        let ops: Vec<&Op> = history.ops.iter().filter(is_one).filter(|op| !no_effect(op)).collect();
        if ops.len() > MOST_CALLS {
            let text = format!("the checker takes at most {MOST_CALLS} calls, not {}", ops.len());
            return Err(Verdict::new(text, []));
        }
        Search::new(history, &streams, ops).run()?;
    }
    Ok(())
}

fn changes(call: &Call) -> bool {
    matches!(call, Call::Append { .. }) || call.removes()
}

/// The streams in groups: two are in one group if an append wrote to both.
fn joined(history: &History) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = (0..history.streams).map(|stream| vec![stream]).collect();
    for op in &history.ops {
        let streams = op.call.streams();
        if streams.len() > 1 {
            let (with, without): (Vec<_>, _) =
                groups.into_iter().partition(|group| group.iter().any(|s| streams.contains(s)));
            groups = without;
            groups.push(with.concat());
        }
    }
    groups
}

/// A set of calls, by their places in `ops`.
type Set = u128;

struct Search<'a> {
    history: &'a History,
    streams: &'a [usize],
    ops: Vec<&'a Op>,
    /// The calls that were answered: all of these need a place in the order.
    answered: Set,
    been: HashSet<(Set, State)>,
    /// The order so far, and the longest one that was found.
    order: Vec<usize>,
    longest: (Vec<usize>, State),
}

impl<'a> Search<'a> {
    fn new(history: &'a History, streams: &'a [usize], ops: Vec<&'a Op>) -> Self {
        let answered =
            set(ops.iter().enumerate().filter(|(_, op)| !op.is_unknown()).map(|(n, _)| n));
        let longest = (Vec::new(), vec![Stream::MISSING; history.streams]);
        let (been, order) = (HashSet::new(), Vec::new());
        Self { history, streams, ops, answered, been, order, longest }
    }

    fn run(mut self) -> Result<(), Verdict> {
        let begin = self.longest.1.clone();
        if self.goes_on(0, &begin) {
            return Ok(());
        }
        if self.been.len() >= MOST_STATES {
            let text = format!("the checker gave up after {MOST_STATES} states");
            return Err(Verdict::new(text, []));
        }
        Err(self.explain())
    }

    /// Whether the calls that are not done can follow in some order.
    fn goes_on(&mut self, mut done: Set, state: &State) -> bool {
        let so_far = self.order.len();
        let mut changing = Vec::new();
        loop {
            let next = self.next(done);
            changing.clear();
            let before = done;
            for n in next {
                for Outcome { due, next } in outcomes(state, &self.ops[n].call, &self.history.rules)
                {
                    let is_unknown = self.ops[n].is_unknown();
                    if !is_unknown && !due.is(&self.ops[n].answer) {
                        continue;
                    }
                    match next {
                        Some(next) => changing.push((is_unknown, n, next)),
                        None if is_unknown => {}
                        None if done & (1 << n) == 0 => {
                            done |= 1 << n;
                            self.order.push(n);
                        }
                        None => {}
                    }
                }
            }
            if done == before {
                break;
            }
        }
        if self.order.len() > self.longest.0.len() {
            self.longest = (self.order.clone(), state.clone());
        }
        if self.answered & !done == 0 {
            return true;
        }
        if self.been.len() < MOST_STATES && self.been.insert((done, state.clone())) {
            // What may not have happened at all comes last.
            changing.sort_by_key(|(is_unknown, ..)| *is_unknown);
            for (_, n, next) in changing {
                self.order.push(n);
                if self.goes_on(done | (1 << n), &next) {
                    return true;
                }
                self.order.pop();
            }
        }
        self.order.truncate(so_far);
        false
    }

    /// The calls that may come next: those that began before any other of those left was answered.
    fn next(&self, done: Set) -> Vec<usize> {
        let left = || (0..self.ops.len()).filter(|n| done & (1 << n) == 0);
        let first_end = left().map(|n| self.ops[n].ended).min().unwrap_or(0);
        left().filter(|n| self.ops[*n].began < first_end).collect()
    }

    fn explain(&self) -> Verdict {
        let (order, state) = &self.longest;
        let done = set(order.iter().copied());
        let count = self.answered.count_ones();
        let explained = (self.answered & done).count_ones();
        let mut text = format!(
            "no order of the calls on {} explains all answers. {explained} of the {count} answers can be \
             explained, the others not. After these, in this order:\n",
            describe::streams(self.history, self.streams),
        );
        for n in order {
            text += &format!("    {}\n", describe::op(self.history, self.ops[*n]));
        }
        for stream in self.streams {
            text += &format!("  {}\n", describe::state(self.history, *stream, &state[*stream]));
        }
        text += "  and none of these can come next:\n";
        let stuck: Vec<usize> =
            self.next(done).into_iter().filter(|n| self.answered & (1 << n) > 0).collect();
        for n in &stuck {
            let op = self.ops[*n];
            let due = outcomes(state, &op.call, &self.history.rules);
            let due: Vec<_> = due.iter().map(|o| describe::due(self.history, &o.due)).collect();
            let line = describe::op(self.history, op);
            text += &format!(
                "    {line}\n        where the answer had to be: {}\n",
                due.join(", or: ")
            );
        }
        Verdict::new(text, stuck.into_iter().map(|n| self.ops[n].began))
    }
}

fn set(places: impl Iterator<Item = usize>) -> Set {
    places.fold(0, |set, place| set | (1 << place))
}
