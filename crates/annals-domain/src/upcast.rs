//! Upcasting: turning events of older versions of a program into those that this version reads.

use std::{collections::HashMap, fmt, sync::Arc};

use annals_core::{Error, ErrorKind, Payload, Result};
use serde::{Serialize, de::DeserializeOwned};

/// An event that an upcaster made from an older one.
#[derive(Clone, Debug, PartialEq)]
pub struct Upcast {
    /// The event's type.
    pub event_type: String,
    /// The event's data.
    pub data: Payload,
}

impl Upcast {
    /// An event whose data is this value as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the value cannot be serialised.
    pub fn new<T: Serialize + ?Sized>(event_type: impl Into<String>, data: &T) -> Result<Self> {
        Ok(Self { event_type: event_type.into(), data: Payload::json(data)? })
    }
}

/// Functions that turn stored events of old types into events of newer types. The version of an
/// event is part of its type, as in `order-placed` and `order-placed.v2`, so the type alone says
/// which upcaster applies, and filters by type tell versions apart. The result of one upcaster is
/// passed to the next, until no upcaster applies. When a [`Schema`](crate::Schema) is built, it
/// checks that each chain ends at a type that it reads.
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
    /// By the type that they read.
    upcasters: HashMap<String, Upcaster>,
}

#[derive(Clone)]
struct Upcaster {
    to: Vec<String>,
    apply: Arc<dyn Fn(Payload) -> Result<Vec<Upcast>> + Send + Sync>,
}

impl Upcasters {
    /// An empty set of upcasters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Turns an event of the type `from` into one of the type `to`.
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

    /// Turns an event of the type `from` into any number of events, whose types must be among `to`.
    /// If the closure returns an error, the event cannot be read.
    #[must_use]
    pub fn many<O: DeserializeOwned>(
        self,
        from: &str,
        to: &[&str],
        upcast: impl Fn(O) -> Result<Vec<Upcast>> + Send + Sync + 'static,
    ) -> Self {
        self.with(from, to, move |data| upcast(data.decode()?))
    }

    /// Drops events of the type `from`, which mean nothing any more.
    #[must_use]
    pub fn none(self, from: &str) -> Self {
        self.with(from, &[], |_| Ok(Vec::new()))
    }

    /// Gives events of the type `from` the type `to`, and leaves their data as it is.
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
        self.upcasters.insert(from.to_owned(), Upcaster { to, apply: Arc::new(apply) });
        self
    }

    /// The old types, which upcasters read.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.upcasters.keys().map(String::as_str)
    }

    /// Whether there is an upcaster for this type.
    pub(crate) fn has(&self, event_type: &str) -> bool {
        !self.upcasters.is_empty() && self.upcasters.contains_key(event_type)
    }

    /// Refuses upcasters that lead in a circle, or to a type that is not among `readable`.
    pub(crate) fn check(&self, readable: &[&str]) -> Result<()> {
        let refuse = |message| Err(Error::new(ErrorKind::InvalidInput, message));
        for (from, upcaster) in &self.upcasters {
            let mut pending: Vec<&str> = upcaster.to.iter().map(String::as_str).collect();
            // Follow each type once: a type that comes again is part of a circle that does not
            // include `from`, or is reached in two ways.
            let mut seen = Vec::new();
            while let Some(to) = pending.pop() {
                if to == from {
                    return refuse(format!("the upcasters lead from {from:?} back to it"));
                }
                match self.upcasters.get(to) {
                    _ if seen.contains(&to) => {}
                    Some(next) => pending.extend(next.to.iter().map(String::as_str)),
                    None if readable.contains(&to) => {}
                    None => {
                        return refuse(format!(
                            "the upcaster of {from:?} leads to {to:?}, for which there is neither \
                             a variant nor an upcaster"
                        ));
                    }
                }
                seen.push(to);
            }
        }
        Ok(())
    }

    /// The events that an event becomes when all upcasters have been applied, in order.
    pub(crate) fn apply(&self, event_type: &str, data: Payload) -> Result<Vec<Upcast>> {
        let mut done = Vec::new();
        let mut pending = vec![Upcast { event_type: event_type.to_owned(), data }];
        while let Some(next) = pending.pop() {
            let Some(upcaster) = self.upcasters.get(&next.event_type) else {
                done.push(next);
                continue;
            };
            let made = (upcaster.apply)(next.data)?;
            if let Some(other) = made.iter().find(|made| !upcaster.to.contains(&made.event_type)) {
                let message = format!(
                    "the upcaster of {:?} made an event of type {:?}, which it does not name",
                    next.event_type, other.event_type
                );
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            pending.extend(made.into_iter().rev());
        }
        Ok(done)
    }
}

impl fmt::Debug for Upcasters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types = self.upcasters.iter().map(|(from, upcaster)| (from, &upcaster.to));
        let mut types: Vec<_> = types.collect();
        types.sort();
        f.debug_map().entries(types).finish()
    }
}
