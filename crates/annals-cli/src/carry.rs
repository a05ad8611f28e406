//! What a copy does with events that the target cannot take as they are, and the list of those that stay
//! behind.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use annals::{
    Capabilities, EventType, NewEvent, PLACEHOLDER, Payload, Position, RecordedEvent, StreamId,
    Version,
};
use clap::{Args, ValueEnum};
use indicatif::HumanCount;
use uuid::Uuid;

use crate::{
    failure::Failure,
    foreign::{Exporter, Original, renamed},
    select::Select,
    source::{Also, Source},
};

/// The type of a link, an event that leads to another one.
const LINK: &str = "$>";
/// The type of a link that a copy keeps in a store.
const KEPT_LINK: &str = "annals.link";

/// What is done with events that the target cannot take as they are. Without the option for a kind of
/// them, nothing is written if there is one.
#[derive(Args, Clone, Copy, Debug, Default)]
#[group(skip)]
pub(crate) struct Treatment {
    /// What to do with links, the events of EventStoreDB that lead to another event: put that event in
    /// the place of the link, leave links out, or keep them as events of the type annals.link (in a
    /// file: as they are).
    #[arg(long, value_name = "HOW", value_enum)]
    pub(crate) links: Option<Links>,
    /// What to do with events whose stream or type has a name that annals does not take: over 255 bytes,
    /// with control characters, or a type that begins with $. Leave them out, or write such characters as
    /// % and two digits, and a digest of the name after it.
    #[arg(long, value_name = "HOW", value_enum)]
    pub(crate) unnamable: Option<Unnamable>,
    /// What to do with events that are larger than the target takes: leave them out.
    #[arg(long, value_name = "HOW", value_enum)]
    pub(crate) oversized: Option<Oversized>,
}

impl Treatment {
    /// Whether an option says what to do, so that events may stay behind.
    pub(crate) fn is_given(self) -> bool {
        let Self { links, unnamable, oversized } = self;
        links.is_some() || unnamable.is_some() || oversized.is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Links {
    Resolve,
    Skip,
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unnamable {
    Skip,
    Rename,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Oversized {
    Skip,
}

/// Why an event cannot be taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Link,
    /// A link to an event that is gone.
    DeadLink,
    Unnamable,
    Oversized,
    /// An event that users have put into a stream of the server's own.
    #[cfg_attr(
        not(feature = "eventstoredb"),
        allow(dead_code, reason = "only EventStoreDB has such streams")
    )]
    OfUsers,
}

impl Kind {
    fn text(self, count: u64) -> String {
        let (one, many) = match self {
            Self::Link => ("link", "links"),
            Self::DeadLink => ("link to an event that is gone", "links to events that are gone"),
            Self::Unnamable => (
                "event under a name that annals does not take",
                "events under names that annals does not take",
            ),
            Self::Oversized => {
                ("event larger than the target takes", "events larger than the target takes")
            }
            Self::OfUsers => (
                "event of users in a stream whose name begins with $",
                "events of users in streams whose names begin with $",
            ),
        };
        format!("{} {}", HumanCount(count), if count == 1 { one } else { many })
    }

    /// The option that says what to do.
    fn option(self) -> &'static str {
        match self {
            Self::Link | Self::DeadLink => "--links resolve|skip|keep",
            Self::Unnamable => "--unnamable skip|rename",
            Self::Oversized => "--oversized skip",
            // These always stay behind.
            Self::OfUsers => "",
        }
    }
}

/// What the target takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Whether it takes names that begin with `$`, as a file does.
    pub(crate) system_names: bool,
    /// The most bytes of data and metadata of an event.
    pub(crate) most_bytes: usize,
}

impl Limits {
    /// What a store takes; `None` is a file.
    pub(crate) fn of(store: Option<&Capabilities>) -> Self {
        let most_bytes = store.map_or(usize::MAX, |store| store.max_event_bytes);
        Self { system_names: store.is_none(), most_bytes }
    }
}

/// Gives events the form in which the target takes them.
pub(crate) struct Carrier {
    pub(crate) treatment: Treatment,
    limits: Limits,
    exporter: Option<Exporter>,
    /// Streams of which an event was carried. Only if events may be left out.
    carried: HashSet<StreamId>,
    /// What stays behind.
    pub(crate) left: Left,
    /// What the options do not say anything about.
    pub(crate) undecided: Left,
}

/// What becomes of an event.
enum Verdict {
    Carry(RecordedEvent),
    Leave(Kind),
    Undecided(Kind),
}

impl Carrier {
    pub(crate) fn new(source: &Source, limits: Limits, treatment: Treatment) -> Self {
        let exporter = source.exporter().cloned();
        let (left, undecided) = (Left::default(), Left::default());
        Self { treatment, limits, exporter, carried: HashSet::new(), left, undecided }
    }

    /// The events as the target takes them. Those that stay behind, and those for which no option says
    /// what to do, are counted.
    ///
    /// In the place of one that stays behind in the middle of a stream stands a placeholder, since the
    /// versions of the next ones stay what they are. A stream whose first events stay behind begins with
    /// the next one.
    pub(crate) async fn carry(
        &mut self,
        events: Vec<RecordedEvent>,
    ) -> Result<Vec<RecordedEvent>, Failure> {
        let mut carried = Vec::with_capacity(events.len());
        for event in events {
            let original = self.exporter.as_ref().and_then(|e| e.originals.take(&event));
            let (kind, list) = match self.judge(&event, original.as_ref()).await? {
                Verdict::Carry(event) => {
                    if self.treatment.is_given() && !self.carried.contains(&event.stream) {
                        self.carried.insert(event.stream.clone());
                    }
                    carried.push(event);
                    continue;
                }
                Verdict::Leave(kind) => (kind, &mut self.left),
                Verdict::Undecided(kind) => (kind, &mut self.undecided),
            };
            list.add(kind, &event, original.as_ref());
            if self.carried.contains(&event.stream) {
                carried.push(placeholder(&event)?);
            }
        }
        Ok(carried)
    }

    /// Learns what a copy that was started before has carried, up to a position.
    pub(crate) async fn resume(
        &mut self,
        source: &Source,
        select: &Select,
        done: Position,
    ) -> Result<(), Failure> {
        let also = Also { foreign: true, ..Also::default() };
        let mut chunks = source.read_with(source.start(select).await?, select, also);
        while let Some(chunk) = chunks.recv().await {
            let mut events = chunk.map_err(|e| e.at("the source"))?.events;
            let before = events.len();
            events.retain(|event| event.position <= done);
            let is_end = events.len() < before;
            self.carry(events).await?;
            if is_end {
                break;
            }
        }
        self.left = Left::default();
        Ok(())
    }

    async fn judge(
        &self,
        event: &RecordedEvent,
        original: Option<&Original>,
    ) -> Result<Verdict, Failure> {
        let mut event = event.clone();
        if original.is_some() {
            match self.treatment.unnamable {
                Some(Unnamable::Rename) => {}
                Some(Unnamable::Skip) => return Ok(Verdict::Leave(Kind::Unnamable)),
                None => return Ok(Verdict::Undecided(Kind::Unnamable)),
            }
        }
        if event.event_type.as_str() == LINK {
            match self.treatment.links {
                Some(Links::Resolve) => match self.resolve(&event).await? {
                    Some(found) => event = found,
                    None => return Ok(Verdict::Leave(Kind::DeadLink)),
                },
                Some(Links::Skip) => return Ok(Verdict::Leave(Kind::Link)),
                Some(Links::Keep) if !self.limits.system_names => {
                    event.event_type = EventType::new(KEPT_LINK)?;
                }
                Some(Links::Keep) => {}
                None if self.limits.system_names => {}
                None => return Ok(Verdict::Undecided(Kind::Link)),
            }
        }
        if event.event_type.is_system() && !self.limits.system_names {
            match self.treatment.unnamable {
                Some(Unnamable::Rename) => {
                    event.event_type =
                        EventType::new(renamed(event.event_type.as_str().as_bytes()).0)?;
                }
                Some(Unnamable::Skip) => return Ok(Verdict::Leave(Kind::Unnamable)),
                None => return Ok(Verdict::Undecided(Kind::Unnamable)),
            }
        }
        Ok(match (event.size() > self.limits.most_bytes, self.treatment.oversized) {
            (false, _) => Verdict::Carry(event),
            (true, Some(Oversized::Skip)) => Verdict::Leave(Kind::Oversized),
            (true, None) => Verdict::Undecided(Kind::Oversized),
        })
    }

    async fn resolve(&self, link: &RecordedEvent) -> Result<Option<RecordedEvent>, Failure> {
        match &self.exporter {
            Some(exporter) => exporter.resolve(link).await,
            None => Err(Failure::usage(
                "--links resolve needs EventStoreDB as the source: only there the events are found to \
                 which links lead",
            )),
        }
    }

    /// Fails if there are events for which no option says what to do.
    pub(crate) fn check_decided(&self) -> Result<(), Failure> {
        if self.undecided.is_empty() {
            return Ok(());
        }
        Err(Failure::found(self.undecided.undecided("the target")))
    }
}

/// Stands for an event that stays behind: the same for each try, so that an import that is repeated finds
/// it.
fn placeholder(event: &RecordedEvent) -> Result<RecordedEvent, Failure> {
    let new = NewEvent::new(EventType::new(PLACEHOLDER)?, Payload::empty());
    let new = new.with_id(placeholder_id(&event.stream, event.version));
    Ok(new.recorded(event.stream.clone(), event.version, event.position, event.recorded_at))
}

/// The id of the placeholder at a version of a stream.
pub(crate) fn placeholder_id(stream: &StreamId, version: Version) -> Uuid {
    let name = format!("{PLACEHOLDER} {version} {stream}");
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

/// What stays behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Left {
    /// Events, by stream and kind.
    streams: BTreeMap<(String, Kind), Versions>,
    /// The names of the settings of streams.
    settings: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Copy, Debug)]
struct Versions {
    count: u64,
    first: Version,
    last: Version,
}

impl Left {
    fn add(&mut self, kind: Kind, event: &RecordedEvent, original: Option<&Original>) {
        let stream = original.and_then(|original| original.stream.clone());
        self.add_version(stream.unwrap_or_else(|| event.stream.to_string()), kind, event.version);
    }

    fn add_version(&mut self, stream: String, kind: Kind, version: Version) {
        let (count, first, last) = (0, version, version);
        let versions =
            self.streams.entry((stream, kind)).or_insert(Versions { count, first, last });
        versions.count += 1;
        versions.last = version;
    }

    /// Adds an event that users have put into a stream of the server's own.
    #[cfg_attr(
        not(feature = "eventstoredb"),
        allow(dead_code, reason = "only EventStoreDB has such streams")
    )]
    pub(crate) fn add_of_users(&mut self, stream: &str, version: Version) {
        self.add_version(stream.to_owned(), Kind::OfUsers, version);
    }

    /// Notes the settings that a stream has now.
    #[cfg_attr(
        not(feature = "eventstoredb"),
        allow(dead_code, reason = "only EventStoreDB has such streams")
    )]
    pub(crate) fn set_settings(&mut self, stream: &str, names: Vec<String>) {
        match names.is_empty() {
            true => self.settings.remove(stream),
            false => self.settings.insert(stream.to_owned(), names),
        };
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.settings.is_empty()
    }

    /// Whether there are events of streams that are copied, and not only what no option can carry.
    pub(crate) fn has_events_of_applications(&self) -> bool {
        self.streams.keys().any(|(_, kind)| *kind != Kind::OfUsers)
    }

    /// How many events and settings of streams.
    pub(crate) fn count(&self) -> u64 {
        let events: u64 = self.streams.values().map(|versions| versions.count).sum();
        events + self.settings.len() as u64
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.settings.extend(other.settings);
        for (key, more) in other.streams {
            let versions = self.streams.entry(key).or_insert(Versions { count: 0, ..more });
            versions.count += more.count;
            versions.last = versions.last.max(more.last);
        }
    }

    /// How many of each kind.
    pub(crate) fn summary(&self) -> String {
        let mut kinds: BTreeMap<Kind, u64> = BTreeMap::new();
        for ((_, kind), versions) in &self.streams {
            *kinds.entry(*kind).or_default() += versions.count;
        }
        let mut texts: Vec<_> = kinds.into_iter().map(|(kind, count)| kind.text(count)).collect();
        match self.settings.len() as u64 {
            0 => {}
            1 => texts.push("the settings of 1 stream".to_owned()),
            count => texts.push(format!("the settings of {} streams", HumanCount(count))),
        }
        texts.join(", ")
    }

    /// Says that nobody has told what to do with these.
    pub(crate) fn undecided(&self, target: &str) -> String {
        format!(
            "{target} cannot take {}; say what to do with them: {} (copy --dry-run lists them)",
            self.summary(),
            self.options()
        )
    }

    /// The options that say what to do with them.
    fn options(&self) -> String {
        let mut options: Vec<_> = self.streams.keys().map(|(_, kind)| kind.option()).collect();
        options.sort_unstable();
        options.dedup();
        options.join(", ")
    }

    /// A line for each stream and kind.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let settings = self.settings.iter().map(|(stream, names)| {
            let names: Vec<_> = names.iter().map(|name| Shown(name).to_string()).collect();
            format!("{}: its settings {}", Shown(stream), names.join(", "))
        });
        let events =
            self.streams.iter().map(|((stream, kind), Versions { count, first, last })| {
                let versions = match first == last {
                    true => format!("version {first}"),
                    false => format!("versions {first} to {last}"),
                };
                // Names may have control characters.
                format!("{}: {}, {versions}", Shown(stream), kind.text(*count))
            });
        events.chain(settings)
    }
}

/// A name, in which characters that a terminal would obey are escaped.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.chars().any(char::is_control) {
            true => write!(f, "{:?}", self.0),
            false => f.write_str(self.0),
        }
    }
}
