//! Tests of deciders and upcasters without a store.
//!
//! [`given`] tests a decider: given past events, when a command comes, then these events happen.
//! [`check_samples`] tests upcasters against events as they were once stored:
//!
//! ```
//! use annals_domain::{Schema, Upcasters, testing::check_samples};
//! # use serde::{Deserialize, Serialize};
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! enum OrderEvent {
//!     #[serde(rename = "order-placed")]
//!     Placed { cents: u64 },
//! }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let upcasters = Upcasters::new().renamed("placed", "order-placed");
//! let schema = Schema::<OrderEvent>::new()?.with_upcasters(upcasters)?;
//! let samples = r#"
//! {"type":"placed","data":{"cents":5},"becomes":[{"type":"order-placed","data":{"cents":5}}]}
//! "#;
//! assert_eq!(check_samples(&schema, samples)?, 1);
//! # Ok(()) }
//! ```

use std::fmt::{Debug, Write};

use annals_core::{Payload, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{Decider, Schema, codec};

/// Begins a test: the state of the aggregate is what these events lead to.
///
/// ```
/// # use annals_domain::{Decider, testing::given};
/// # #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)] enum Counted { By(u64) }
/// # #[derive(Debug, PartialEq)] struct TooMany;
/// # impl std::fmt::Display for TooMany {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("too many") }
/// # }
/// # impl std::error::Error for TooMany {}
/// # struct Counter;
/// # impl Decider for Counter {
/// #     const CATEGORY: &'static str = "counter";
/// #     type State = u64; type Command = u64; type Event = Counted; type Rejection = TooMany;
/// #     fn initial(&self) -> u64 { 0 }
/// #     fn decide(&self, by: &u64, total: &u64) -> Result<Vec<Counted>, TooMany> {
/// #         if by + total > 10 { Err(TooMany) } else { Ok(vec![Counted::By(*by)]) }
/// #     }
/// #     fn evolve(&self, total: &mut u64, Counted::By(by): &Counted) { *total += by; }
/// # }
/// let counter = given(Counter, [Counted::By(7)])
///     .when(3)
///     .then([Counted::By(3)])
///     .when(1)
///     .then_rejected(TooMany);
/// assert_eq!(*counter.state(), 10);
/// ```
#[must_use]
pub fn given<D: Decider>(decider: D, events: impl IntoIterator<Item = D::Event>) -> Given<D> {
    let mut state = decider.initial();
    events.into_iter().for_each(|event| decider.evolve(&mut state, &event));
    Given { decider, state }
}

/// A decider and its state, made by [`given`].
pub struct Given<D: Decider> {
    decider: D,
    state: D::State,
}

impl<D: Decider> Given<D> {
    /// The state after all events so far.
    pub fn state(&self) -> &D::State {
        &self.state
    }

    /// Lets the decider decide on a command.
    pub fn when(self, command: D::Command) -> When<D> {
        let decided = self.decider.decide(&command, &self.state);
        When { decider: self.decider, state: self.state, decided }
    }
}

/// What a decider has decided, made by [`Given::when`].
#[must_use = "nothing is checked before `then`"]
pub struct When<D: Decider> {
    decider: D,
    state: D::State,
    decided: Result<Vec<D::Event>, D::Rejection>,
}

impl<D: Decider<Event: Debug + PartialEq>> When<D> {
    /// Checks that the decider decided on exactly these events, and applies them to the state.
    ///
    /// # Panics
    /// If it decided otherwise. The message shows the difference, event by event.
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

    /// Checks that the decider decided on no event.
    ///
    /// # Panics
    /// If it decided on events, or rejected the command.
    #[track_caller]
    pub fn then_nothing(self) -> Given<D> {
        self.then([])
    }
}

impl<D: Decider<Event: Debug, Rejection: PartialEq>> When<D> {
    /// Checks that the decider rejected the command for exactly this reason.
    ///
    /// # Panics
    /// If it did not, or for another reason.
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

/// One line for each event: as expected, missing (-), or found instead (+).
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

/// An event as it was once stored, and the events that it must become.
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

/// Checks a schema against samples of stored events, each a JSON text on a line of its own:
/// `{"type": "order-placed", "data": {…}, "becomes": [{"type": "order-placed.v2", "data": {…}}]}`.
/// Each upcaster needs at least one sample. Returns how many samples there are.
///
/// # Errors
/// All faults, each on a line of its own with the number of the sample's line.
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
    let sample: Sample<'_> =
        serde_json::from_str(line).map_err(|e| format!("this is not a sample: {e}"))?;
    let payload = |text: &RawValue| Payload::json_text(text.get().to_owned());
    let found = payload(sample.data).and_then(|data| schema.read_type(&sample.event_type, &data));
    let found: Vec<E> = found.map_err(|e| chain(&e))?;
    let mut expected = Vec::new();
    for becomes in &sample.becomes {
        let event: E =
            codec::decode(&becomes.event_type, becomes.data.get().as_bytes()).map_err(|e| {
                format!("the expected event of type {:?} cannot be read: {e}", becomes.event_type)
            })?;
        expected.push(event);
    }
    if found == expected { Ok(sample.event_type) } else { Err(difference(&expected, &found)) }
}

/// The text of an error and of all its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        _ = write!(text, ": {source}");
        next = source.source();
    }
    text
}
