//! Tests of deciders and upcasters without a store.

use std::fmt::{Debug, Write};

use annals_core::{Payload, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{Decider, Schema, codec};

/// A decider to which something has happened.
#[must_use]
pub fn given<D: Decider>(decider: D, events: impl IntoIterator<Item = D::Event>) -> Given<D> {
    let mut state = decider.initial();
    events.into_iter().for_each(|event| decider.evolve(&mut state, &event));
    Given { decider, state }
}

/// See [`given`].
pub struct Given<D: Decider> {
    decider: D,
    state: D::State,
}

impl<D: Decider> Given<D> {
    /// The state it is in.
    pub fn state(&self) -> &D::State {
        &self.state
    }

    /// What it decides on a command.
    pub fn when(self, command: D::Command) -> When<D> {
        let decided = self.decider.decide(&command, &self.state);
        When { decider: self.decider, state: self.state, decided }
    }
}

/// See [`Given::when`].
#[must_use = "nothing is checked before `then`"]
pub struct When<D: Decider> {
    decider: D,
    state: D::State,
    decided: Result<Vec<D::Event>, D::Rejection>,
}

impl<D: Decider<Event: Debug + PartialEq>> When<D> {
    /// Checks that just these events happen, and goes on from them.
    ///
    /// # Panics
    /// Where it decides otherwise; the message shows both, event by event.
    #[track_caller]
    pub fn then(mut self, expected: impl IntoIterator<Item = D::Event>) -> Given<D> {
        let expected: Vec<_> = expected.into_iter().collect();
        match self.decided {
            Ok(events) if events == expected => {
                events.iter().for_each(|event| self.decider.evolve(&mut self.state, event));
                Given { decider: self.decider, state: self.state }
            }
            Ok(events) => fail(&difference(&expected, &events)),
            Err(rejection) => fail(&format!(
                "rejected: {rejection}\nexpected instead:\n{}",
                difference(&expected, &[])
            )),
        }
    }

    /// Checks that nothing happens.
    ///
    /// # Panics
    /// Where something does, or the command is rejected.
    #[track_caller]
    pub fn then_nothing(self) -> Given<D> {
        self.then([])
    }
}

impl<D: Decider<Event: Debug, Rejection: PartialEq>> When<D> {
    /// Checks that the command is rejected, for just this reason.
    ///
    /// # Panics
    /// Where it is not, or for another.
    #[track_caller]
    pub fn then_rejected(self, expected: D::Rejection) -> Given<D> {
        match self.decided {
            Err(rejection) if rejection == expected => {
                Given { decider: self.decider, state: self.state }
            }
            Err(rejection) => fail(&format!(
                "rejected for another reason\n  expected {expected:?}\n  found    {rejection:?}"
            )),
            Ok(events) => {
                fail(&format!("not rejected\n  expected {expected:?}\n  found    {events:#?}"))
            }
        }
    }
}

#[track_caller]
#[allow(clippy::panic, reason = "this is how a test fails")]
fn fail(message: &str) -> ! {
    panic!("{message}")
}

/// One line for each event: what is as expected, what is missing (-), what came instead (+).
fn difference<E: Debug + PartialEq>(expected: &[E], found: &[E]) -> String {
    let mut text = String::from("other events than expected (- missing, + found instead)");
    for at in 0..expected.len().max(found.len()) {
        let (expected, found) = (expected.get(at), found.get(at));
        let line = |text: &mut String, mark, event: &E| {
            _ = write!(text, "\n  {mark} {event:?}");
        };
        match (expected, found) {
            (Some(expected), Some(found)) if expected == found => line(&mut text, ' ', found),
            _ => {
                expected.into_iter().for_each(|event| line(&mut text, '-', event));
                found.into_iter().for_each(|event| line(&mut text, '+', event));
            }
        }
    }
    text
}

/// An event as it was once stored, and what it has to become.
#[derive(Deserialize)]
struct Sample<'a> {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    becomes: Vec<Becomes<'a>>,
}

#[derive(Deserialize)]
struct Becomes<'a> {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Checks a schema against samples of what was stored, one JSON text a line:
/// `{"type": "order-placed", "data": {…}, "becomes": [{"type": "order-placed.v2", "data": {…}}]}`.
/// Every upcaster needs a sample. Answers how many samples there are.
///
/// # Errors
/// All that is wrong, a line each, with the number of the sample's line.
pub fn check_samples<E: Serialize + DeserializeOwned + Debug + PartialEq>(
    schema: &Schema<E>,
    samples: &str,
) -> Result<usize, String> {
    let (mut faults, mut seen) = (String::new(), Vec::new());
    for (number, line) in (1..).zip(samples.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        match check_sample(schema, line) {
            Ok(event_type) => seen.push(event_type),
            Err(fault) => _ = writeln!(faults, "line {number}: {fault}"),
        }
    }
    for event_type in schema.upcasters().types() {
        if !seen.iter().any(|seen| seen == event_type) {
            _ = writeln!(faults, "the upcaster of {event_type:?} has no sample");
        }
    }
    if faults.is_empty() { Ok(seen.len()) } else { Err(faults) }
}

fn check_sample<E: Serialize + DeserializeOwned + Debug + PartialEq>(
    schema: &Schema<E>,
    line: &str,
) -> Result<String, String> {
    let sample: Sample<'_> = serde_json::from_str(line).map_err(|e| format!("no sample: {e}"))?;
    let payload = |text: &RawValue| Payload::json_text(text.get().to_owned());
    let found = payload(sample.data).and_then(|data| schema.read_type(&sample.event_type, &data));
    let found: Vec<E> = found.map_err(|e| chain(&e))?;
    let mut expected = Vec::new();
    for becomes in &sample.becomes {
        let event: E =
            codec::decode(&becomes.event_type, becomes.data.get().as_bytes()).map_err(|e| {
                format!("{:?} of what it becomes cannot be read: {e}", becomes.event_type)
            })?;
        expected.push(event);
    }
    if found == expected { Ok(sample.event_type) } else { Err(difference(&expected, &found)) }
}

/// An error, and all that led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        _ = write!(text, ": {source}");
        next = source.source();
    }
    text
}
