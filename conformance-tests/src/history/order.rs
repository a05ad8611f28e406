//! Whether the positions are one order of all events of a history, of which every reader of all and
//! every subscriber saw a part without holes.

use std::collections::{HashMap, HashSet};

use super::{
    describe,
    facts::{Fact, Facts, Removals},
    record::{Call, Followed, History, NEVER, Op, ReadAll, Seen, Start, Told},
    verdict::Verdict,
};

pub(super) fn judge(history: &History) -> Result<(), Verdict> {
    let judge = Judge { history, facts: Facts::of(history)?, removals: Removals::of(history) };
    if history.rules.ordered {
        judge.follows_time()?;
    }
    for op in &history.ops {
        if let Call::ReadAll(read) = &op.call {
            judge.read(op, read)?;
        }
    }
    history.followed.iter().try_for_each(|followed| judge.subscription(followed))
}

struct Judge<'a> {
    history: &'a History,
    facts: Facts,
    removals: Removals<'a>,
}

/// What a reader of all, or a subscriber, got.
struct Part<'a> {
    who: &'a str,
    about: u64,
    began: u64,
    ended: u64,
    seen: HashSet<(usize, u64)>,
}

impl Judge<'_> {
    fn with_position(&self) -> impl Iterator<Item = &Fact> {
        self.facts.all().filter(|fact| fact.position > 0)
    }

    /// Checks that position order is version order in each stream, and follows the order in time: an
    /// append that was answered before another was called has the smaller positions.
    fn follows_time(&self) -> Result<(), Verdict> {
        let mut facts: Vec<&Fact> = self.with_position().collect();
        facts.sort_unstable_by_key(|fact| fact.position);
        let mut latest: Option<&Fact> = None;
        let mut versions = HashMap::new();
        for fact in facts {
            if let Some(below) = versions.insert(fact.stream, fact)
                && below.version > fact.version
            {
                let text = format!(
                    "in {}, version {} has position {}, and version {} position {}",
                    describe::stream(self.history, fact.stream),
                    below.version,
                    below.position,
                    fact.version,
                    fact.position
                );
                return Err(Verdict::new(text, []));
            }
            if let Some(below) = latest.filter(|below| fact.answered < below.sent) {
                let text = format!(
                    "the append of e{} was answered at {}, and that of e{} began at {}, but e{} has \
                     position {} and e{} the smaller position {}",
                    fact.event,
                    fact.answered,
                    below.event,
                    below.sent,
                    fact.event,
                    fact.position,
                    below.event,
                    below.position
                );
                return Err(Verdict::new(text, [fact.sent, below.sent]));
            }
            if latest.is_none_or(|below| below.sent < fact.sent) {
                latest = Some(fact);
            }
        }
        Ok(())
    }

    fn read(&self, op: &Op, read: &ReadAll) -> Result<(), Verdict> {
        let seen = op.seen();
        let wrong = |text: String| Err(Verdict::new(text, [op.began]));
        let order = |pair: &[Seen]| (pair[0].position < pair[1].position) != read.backwards;
        if let Some(pair) = seen.windows(2).find(|pair| !order(pair)) {
            let (one, other) = (pair[0].position, pair[1].position);
            return wrong(format!("a read of all gives position {one}, then {other}"));
        }
        let is_full = read.limit == Some(seen.len() as u64);
        let (first, last) =
            if read.backwards { (seen.last(), seen.first()) } else { (seen.first(), seen.last()) };
        let greatest = last.map_or(0, |seen| seen.position);
        let mut low = read.after;
        // Everything up to here was there when the read began, or the reader has seen what is above.
        let mut high = greatest.max(self.told_before(op.began));
        if is_full && read.backwards {
            low = first.map_or(low, |first| first.position - 1);
        } else if is_full {
            high = greatest;
        }
        if !is_full || read.backwards {
            high = high.max(self.whole(seen));
        }
        if let Some(before) = read.before {
            high = high.min(before - 1);
        }
        let part = Part {
            who: "a read of all",
            about: op.began,
            began: op.began,
            ended: op.ended,
            seen: seen.iter().map(|seen| (seen.stream, seen.version)).collect(),
        };
        let due = self.with_position().filter(|fact| (low + 1..=high).contains(&fact.position));
        self.misses_nothing(&part, due)?;
        // Nobody was told the positions of these events, but a read of everything has them.
        let is_whole =
            !is_full && read.before.is_none() && read.after == self.facts.base(self.history);
        let is_due = |fact: &&Fact| fact.position == 0 && is_whole && fact.answered < op.began;
        self.misses_nothing(&part, self.facts.all().filter(is_due))?;
        self.has_nothing_removed(&part)
    }

    /// The greatest position that was told before this time, by the answer of an append, a read of
    /// all or a subscription.
    fn told_before(&self, time: u64) -> u64 {
        let answered = self.with_position().filter(|fact| fact.answered < time);
        let reads = self.history.ops.iter().filter(|op| op.ended < time);
        let reads = reads.filter(|op| matches!(op.call, Call::ReadAll(_))).flat_map(Op::seen);
        let of_all = self.history.followed.iter().filter(|followed| followed.stream.is_none());
        let told = of_all.flat_map(Followed::events).filter(|(at, _)| *at < time);
        let told = told.map(|(_, seen)| seen.position);
        let positions = answered.map(|fact| fact.position).chain(reads.map(|seen| seen.position));
        positions.chain(told).max().unwrap_or(0)
    }

    /// The greatest position of the appends of which a reader saw something.
    fn whole(&self, seen: &[Seen]) -> u64 {
        let mut counts: HashMap<u32, u32> = HashMap::new();
        self.facts.all().for_each(|fact| *counts.entry(fact.event).or_default() += 1);
        let appends: HashSet<u32> =
            seen.iter().map(|seen| self.facts.append_of(seen.event)).collect();
        let is_seen = |fact: &&Fact| appends.contains(&self.facts.append_of(fact.event));
        // A retry that was not recognised has written the append again.
        let is_twice = |append: u32| {
            let mut facts = self.facts.all().filter(|f| self.facts.append_of(f.event) == append);
            facts.any(|fact| counts.get(&fact.event) > Some(&1))
        };
        let once = self.with_position().filter(is_seen);
        let once = once.filter(|fact| !is_twice(self.facts.append_of(fact.event)));
        once.map(|fact| fact.position).max().unwrap_or(0)
    }

    fn subscription(&self, followed: &Followed) -> Result<(), Verdict> {
        if let Some(why) = &followed.wrong {
            return Err(Verdict::new(format!("a subscription ended: {why}"), [followed.began]));
        }
        let who = match followed.stream {
            None => "a subscription to all".to_owned(),
            Some(stream) => format!("a subscription to {}", describe::stream(self.history, stream)),
        };
        self.told_in_order(followed, &who)?;
        let seen: HashSet<_> =
            followed.events().map(|(_, seen)| (seen.stream, seen.version)).collect();
        // By versions on a store without positions, where a subscription has only one stream.
        let ordered = self.history.rules.ordered;
        let place = |version: u64, position: u64| if ordered { position } else { version };
        let places = || followed.events().map(|(_, seen)| place(seen.version, seen.position));
        let (first, last) = (places().min().unwrap_or(0), places().max().unwrap_or(0));
        let low = match followed.start {
            Start::Beginning => 0,
            Start::After(position) => position,
            Start::End => first.saturating_sub(1),
        };
        let ended = followed.told.last().map_or(NEVER, |(time, _)| *time);
        let Followed { began, .. } = *followed;
        let part = Part { who: &who, about: began, began, ended, seen };
        let is_source = |fact: &&Fact| followed.stream.is_none_or(|stream| stream == fact.stream);
        let is_due = |fact: &&Fact| {
            let place = place(fact.version, fact.position);
            let in_part = place > low && place <= last;
            let is_later = place > 0 && place <= last && fact.sent > followed.ended;
            in_part || is_later
        };
        self.misses_nothing(&part, self.facts.all().filter(is_source).filter(is_due))?;
        let is_early = |fact: &&Fact| {
            fact.answered < began && part.seen.contains(&(fact.stream, fact.version))
        };
        if followed.start == Start::End
            && let Some(early) = self.facts.all().find(is_early)
        {
            let text = format!(
                "{who} from the end gave e{}, whose append was answered before at {}",
                early.event, early.answered
            );
            return Err(Verdict::new(text, [began, early.sent]));
        }
        self.has_nothing_removed(&part)
    }

    /// Checks that a subscription told everything in order, and each event once.
    fn told_in_order(&self, followed: &Followed, who: &str) -> Result<(), Verdict> {
        let (mut position, mut version) = (0, 0);
        if let Start::After(after) = followed.start {
            position = after;
        }
        for (time, told) in &followed.told {
            let (follows, next) = match told {
                Told::UpTo(next) => (*next >= position, *next),
                Told::Event(seen) => {
                    let follows = match followed.stream {
                        Some(_) => seen.version > version,
                        None => true,
                    };
                    version = seen.version;
                    let is_after = seen.position > position || !self.history.rules.ordered;
                    (follows && is_after, seen.position)
                }
            };
            if !follows {
                let told = describe::told(self.history, told);
                let text = format!(
                    "at {time}, {who} had told everything up to position {position}, and then told {told}"
                );
                return Err(Verdict::new(text, [followed.began]));
            }
            position = next;
        }
        Ok(())
    }

    fn misses_nothing<'f>(
        &self,
        part: &Part<'_>,
        due: impl Iterator<Item = &'f Fact>,
    ) -> Result<(), Verdict> {
        for fact in due {
            let is_missing = !part.seen.contains(&(fact.stream, fact.version));
            if is_missing && !self.removals.may_have_removed(fact, part.ended) {
                let text = format!(
                    "{} misses {}; no removal had taken it away",
                    part.who,
                    describe::fact(self.history, fact)
                );
                return Err(Verdict::new(text, [part.about, fact.sent]));
            }
        }
        Ok(())
    }

    fn has_nothing_removed(&self, part: &Part<'_>) -> Result<(), Verdict> {
        if !self.history.rules.at_once {
            return Ok(());
        }
        let seen = |fact: &&Fact| part.seen.contains(&(fact.stream, fact.version));
        for fact in self.facts.all().filter(seen) {
            if let Some(removal) = self.removals.has_removed(fact, part.began) {
                let text = format!(
                    "{} gives {}, which was removed before",
                    part.who,
                    describe::fact(self.history, fact)
                );
                return Err(Verdict::new(text, [part.about, removal.began]));
            }
        }
        Ok(())
    }
}
