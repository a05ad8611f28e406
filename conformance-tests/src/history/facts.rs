//! Which event stands where, as all answers of a history say together. An event has one version, one
//! position and one content, whoever reads it.

use std::collections::{BTreeMap, HashMap};

use super::{
    describe,
    record::{Answer, Call, History, NEVER, Op, Seen},
    verdict::Verdict,
};

/// Where an event stands, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fact {
    pub(super) stream: usize,
    pub(super) version: u64,
    pub(super) event: u32,
    /// Unknown (0) if only an answer to an append of several events tells of the event.
    pub(super) position: u64,
    /// When an append of the event began first: the event was not there before.
    pub(super) sent: u64,
    /// When an append of the event was answered first: the event was there before.
    pub(super) answered: u64,
}

/// All events of a history.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// By stream and version.
    all: BTreeMap<(usize, u64), Fact>,
    /// When an append of each event began first, and the first event of that append.
    sent: HashMap<u32, (u64, u32)>,
}

impl Facts {
    pub(super) fn of(history: &History) -> Result<Self, Verdict> {
        let mut facts = Self::default();
        for op in &history.ops {
            let first = op.writes().next().map_or(0, |(write, _)| write.events.start);
            for event in op.writes().flat_map(|(write, _)| write.events.clone()) {
                facts.sent.entry(event).or_insert((op.began, first));
            }
        }
        for op in &history.ops {
            facts.answers(history, op)?;
        }
        for op in &history.ops {
            for seen in op.seen() {
                facts.note(history, seen, NEVER, op.began)?;
            }
        }
        for followed in &history.followed {
            for (_, seen) in followed.events() {
                facts.note(history, seen, NEVER, followed.began)?;
            }
        }
        facts.check_positions(history)?;
        Ok(facts)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Fact> {
        self.all.values()
    }

    /// The position of the first mark, after which the events of the history begin.
    pub(super) fn base(&self, history: &History) -> u64 {
        self.all.get(&(history.streams - 1, 1)).map_or(0, |mark| mark.position)
    }

    /// The first event of the append that an event belongs to.
    pub(super) fn append_of(&self, event: u32) -> u32 {
        self.sent.get(&event).map_or(event, |(_, first)| *first)
    }

    fn answers(&mut self, history: &History, op: &Op) -> Result<(), Verdict> {
        for (write, answer) in op.writes() {
            let Some(answer) = answer else { continue };
            for (version, event) in (answer.first_version.get()..).zip(write.events.clone()) {
                let is_last = event + 1 == write.events.end;
                let position = if is_last { answer.position.get() } else { 0 };
                let seen = Seen { stream: write.stream, version, event, position };
                self.note(history, &seen, op.ended, op.began)?;
            }
        }
        Ok(())
    }

    fn note(
        &mut self,
        history: &History,
        seen: &Seen,
        answered: u64,
        about: u64,
    ) -> Result<(), Verdict> {
        let Seen { stream, version, event, position } = *seen;
        let Some((sent, _)) = self.sent.get(&event).copied() else {
            let text = format!("event e{event} was seen, but never sent");
            return Err(Verdict::new(text, [about]));
        };
        let new = Fact { stream, version, event, position, sent, answered };
        let fact = self.all.entry((stream, version)).or_insert(new);
        fact.answered = fact.answered.min(answered);
        if fact.position == 0 {
            fact.position = position;
        }
        if fact.event != event || (position > 0 && fact.position != position) {
            let at = |event: u32, position: u64| match position {
                0 => format!("e{event}"),
                _ => format!("e{event} at position {position}"),
            };
            let text = format!(
                "version {version} of {} is {} in one answer, and {} in another",
                describe::stream(history, stream),
                at(fact.event, fact.position),
                at(event, position),
            );
            return Err(Verdict::new(text, [about]));
        }
        Ok(())
    }

    fn check_positions(&self, history: &History) -> Result<(), Verdict> {
        let mut taken: HashMap<u64, &Fact> = HashMap::new();
        for fact in self.all() {
            if fact.position == 0 && history.rules.ordered {
                continue;
            }
            if !history.rules.ordered && fact.position > 0 {
                let text =
                    format!("e{} has a position, which the store does not declare", fact.event);
                return Err(Verdict::new(text, []));
            }
            if let Some(other) = taken.insert(fact.position, fact).filter(|_| history.rules.ordered)
            {
                let text = format!(
                    "e{} and e{} have the same position {}",
                    other.event, fact.event, fact.position
                );
                return Err(Verdict::new(text, []));
            }
        }
        Ok(())
    }
}

/// The removals of a history.
pub(super) struct Removals<'a>(Vec<(usize, &'a Op)>);

impl<'a> Removals<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let took_place =
            |op: &&Op| op.call.removes() && matches!(op.answer, Answer::Done | Answer::Unknown(_));
        let removals = history.ops.iter().filter(took_place);
        Self(removals.flat_map(|op| op.call.streams().into_iter().map(move |s| (s, op))).collect())
    }

    /// Whether a reader that ended at this time may have missed the event because of a removal.
    pub(super) fn may_have_removed(&self, fact: &Fact, before: u64) -> bool {
        self.0.iter().any(|(stream, op)| {
            *stream == fact.stream
                && op.began < before
                && covers(&op.call, fact)
                && fact.sent < op.ended
        })
    }

    /// The removal that certainly took the event away before this time.
    pub(super) fn has_removed(&self, fact: &Fact, before: u64) -> Option<&'a Op> {
        let found = self.0.iter().find(|(stream, op)| {
            *stream == fact.stream
                && op.ended < before
                && covers(&op.call, fact)
                && fact.answered < op.began
        });
        found.map(|(_, op)| *op)
    }
}

fn covers(call: &Call, fact: &Fact) -> bool {
    match call {
        Call::Truncate { before, .. } => fact.version < *before,
        _ => true,
    }
}
