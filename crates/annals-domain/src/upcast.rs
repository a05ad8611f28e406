//! Upcasting: what older versions of a program stored, brought to what this one reads.

use std::{collections::HashMap, fmt, sync::Arc};

use annals_core::{Error, ErrorKind, Payload, Result};
use serde::{Serialize, de::DeserializeOwned};

/// One stored form of an event, made from an older one.
#[derive(Clone, Debug, PartialEq)]
pub struct Upcast {
    /// Its type, as stored.
    pub event_type: String,
    /// Its data.
    pub data: Payload,
}

impl Upcast {
    /// With a value for data, as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where it cannot be serialised.
    pub fn new<T: Serialize + ?Sized>(event_type: impl Into<String>, data: &T) -> Result<Self> {
        Ok(Self { event_type: event_type.into(), data: Payload::json(data)? })
    }
}

/// From old types of stored events to newer ones. The version of an event is part of its type, as
/// in `order-placed` and `order-placed.v2`: so nothing has to be looked up to know it, and filters
/// by type tell versions apart. What one upcaster gives, the next takes on, until nothing is left
/// to do; [`Schema`](crate::Schema) checks when it is built that this leads to types it reads.
///
/// ```
/// # use annals_domain::{Upcast, Upcasters};
/// # use serde::{Deserialize, Serialize};
/// #[derive(Deserialize)]
/// struct PlacedV1 { name: String, cents: u64 }
/// #[derive(Serialize)]
/// struct PlacedV2 { first: String, last: String, cents: u64 }
///
/// let upcasters = Upcasters::new()
///     .one("order-placed", "order-placed.v2", |old: PlacedV1| {
///         let (first, last) = old.name.split_once(' ').unwrap_or(("", &old.name));
///         PlacedV2 { first: first.into(), last: last.into(), cents: old.cents }
///     })
///     .renamed("order-payed", "order-paid")
///     .none("order-viewed");
/// ```
#[derive(Clone, Default)]
pub struct Upcasters {
    steps: HashMap<String, Step>,
}

#[derive(Clone)]
struct Step {
    to: Vec<String>,
    apply: Arc<dyn Fn(Payload) -> Result<Vec<Upcast>> + Send + Sync>,
}

impl Upcasters {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One event to another.
    #[must_use]
    pub fn one<O: DeserializeOwned, N: Serialize>(
        self,
        from: &str,
        to: &str,
        upcast: impl Fn(O) -> N + Send + Sync + 'static,
    ) -> Self {
        let event_type = to.to_owned();
        self.with(from, &[to], move |data| {
            Ok(vec![Upcast::new(event_type.clone(), &upcast(data.decode()?))?])
        })
    }

    /// One event to any number of others, each of one of the types named.
    ///
    /// An error of the closure makes the event unreadable.
    #[must_use]
    pub fn many<O: DeserializeOwned>(
        self,
        from: &str,
        to: &[&str],
        upcast: impl Fn(O) -> Result<Vec<Upcast>> + Send + Sync + 'static,
    ) -> Self {
        self.with(from, to, move |data| upcast(data.decode()?))
    }

    /// An event that means nothing any more.
    #[must_use]
    pub fn none(self, from: &str) -> Self {
        self.with(from, &[], |_| Ok(Vec::new()))
    }

    /// A new name for the same data.
    #[must_use]
    pub fn renamed(self, from: &str, to: &str) -> Self {
        let event_type = to.to_owned();
        self.with(from, &[to], move |data| {
            Ok(vec![Upcast { event_type: event_type.clone(), data }])
        })
    }

    fn with(
        mut self,
        from: &str,
        to: &[&str],
        apply: impl Fn(Payload) -> Result<Vec<Upcast>> + Send + Sync + 'static,
    ) -> Self {
        let to = to.iter().map(|to| (*to).to_owned()).collect();
        self.steps.insert(from.to_owned(), Step { to, apply: Arc::new(apply) });
        self
    }

    /// The types that are brought to others.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.steps.keys().map(String::as_str)
    }

    /// Whether this has nothing to do with a type.
    pub(crate) fn knows(&self, event_type: &str) -> bool {
        !self.steps.is_empty() && self.steps.contains_key(event_type)
    }

    /// Refuses what leads in circles, or to something that is not read.
    pub(crate) fn check(&self, read: &[&str]) -> Result<()> {
        let refuse = |message| Err(Error::new(ErrorKind::InvalidInput, message));
        for (from, step) in &self.steps {
            let mut open: Vec<&str> = step.to.iter().map(String::as_str).collect();
            // Each type is followed once from each start: what comes again is a circle or a
            // second way to the same.
            let mut seen = Vec::new();
            while let Some(to) = open.pop() {
                if to == from {
                    return refuse(format!("the upcasters lead from {from:?} back to it"));
                }
                match self.steps.get(to) {
                    _ if seen.contains(&to) => {}
                    Some(step) => open.extend(step.to.iter().map(String::as_str)),
                    None if read.contains(&to) => {}
                    None => {
                        return refuse(format!(
                            "the upcaster of {from:?} leads to {to:?}, which is neither a variant \
                             that can be read nor upcast further"
                        ));
                    }
                }
                seen.push(to);
            }
        }
        Ok(())
    }

    /// All that an event becomes in the end, in order.
    pub(crate) fn apply(&self, event_type: &str, data: Payload) -> Result<Vec<Upcast>> {
        let mut done = Vec::new();
        let mut open = vec![Upcast { event_type: event_type.to_owned(), data }];
        while let Some(next) = open.pop() {
            let Some(step) = self.steps.get(&next.event_type) else {
                done.push(next);
                continue;
            };
            let made = (step.apply)(next.data)?;
            if let Some(other) = made.iter().find(|made| !step.to.contains(&made.event_type)) {
                let message = format!(
                    "the upcaster of {:?} made a {:?}, which it does not name",
                    next.event_type, other.event_type
                );
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            open.extend(made.into_iter().rev());
        }
        Ok(done)
    }
}

impl fmt::Debug for Upcasters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut steps: Vec<_> = self.steps.iter().map(|(from, step)| (from, &step.to)).collect();
        steps.sort();
        f.debug_map().entries(steps).finish()
    }
}
