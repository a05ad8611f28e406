//! What a store declares that it can do, and its limits.

use std::time::Duration;

/// How surely a store recognises that an append under `Any` or `StreamExists` is a retry. Under
/// `Exact` and `NoStream` every store recognises it (contract, rule 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Recognition {
    /// The store always recognises a retry, unless the events were removed.
    Guaranteed,
    /// The store recognises a retry at least as long as nothing else was appended to the stream.
    BestEffort,
}

/// When truncated and deleted events disappear from reads of all. From reads of their stream they
/// disappear before the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Removal {
    /// Before the call returns.
    AtOnce,
    /// After a clean-up, which the database makes when it chooses or when an operator starts it.
    AfterCleanUp,
}

/// What a store can do, and its limits. A store refuses a call that it cannot serve with
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported); it never does half of it.
///
/// ```
/// use annals_core::EventStore;
/// fn can_project(store: &dyn EventStore) -> bool {
///     store.capabilities().global_order && store.capabilities().checkpoints
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The name of the backend, such as `sqlite`.
    pub backend: &'static str,
    /// Whether events survive the death of the process.
    pub durable: bool,
    /// Whether the store keeps an order over all streams: positions, `read_all`, and subscriptions
    /// to more than one stream.
    pub global_order: bool,
    /// How late a position may be filled. `None` for a store that passes no event, however late its
    /// append is committed. Other programs may take positions before their transactions begin, so that
    /// nothing shows that events will still come. Then a reader of all streams waits for a missing
    /// position as long as this. If an event comes later, subscriptions that have passed it end with an
    /// error.
    pub gap_wait: Option<Duration>,
    /// Whether data and metadata are read back byte for byte (contract, rule 10). If not, JSON is read
    /// back with the same values.
    pub exact_payloads: bool,
    /// Whether one append can write to several streams.
    pub multi_stream_append: bool,
    /// How surely the store recognises a retry under `Any` or `StreamExists`.
    pub retry_recognition: Recognition,
    /// Whether the store can tell a retry from a first append, and so sets
    /// [`Appended::replayed`](crate::Appended::replayed). If it cannot, `replayed` is always
    /// `false`, but a retry still gets the first answer and writes nothing.
    pub tells_retries: bool,
    /// Whether streams can be truncated.
    pub truncate: bool,
    /// Whether streams can be deleted.
    pub delete: bool,
    /// Whether streams can be tombstoned.
    pub tombstone: bool,
    /// When removed events disappear from reads of all.
    pub removal: Removal,
    /// Whether the store keeps snapshots.
    pub snapshots: bool,
    /// Whether the store keeps checkpoints.
    pub checkpoints: bool,
    /// Whether the store keeps leases.
    pub leases: bool,
    /// Whether the store can list its streams.
    pub list_streams: bool,
    /// Whether an [import](crate::TransferStore::import) keeps the times at which the events were
    /// recorded, and can begin a stream at any version without placeholders. If not, an import is
    /// made of appends.
    pub exact_import: bool,
    /// The most bytes that data and metadata of one event may have together, and those of a
    /// snapshot.
    pub max_event_bytes: usize,
    /// The most events that one append may have, over all its streams.
    pub max_append_events: usize,
    /// The most streams that one append may write to, if it can write to several.
    pub max_append_streams: usize,
    /// The most bytes of data and metadata that one append may have, over all its events.
    pub max_append_bytes: usize,
}

impl Capabilities {
    /// The capabilities of a store that has everything which adapters usually have. An adapter
    /// changes what differs: this store is not durable, recognises retries by best effort, does not
    /// list its streams and imports by appends.
    #[must_use]
    pub const fn new(backend: &'static str) -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            backend,
            durable: false,
            global_order: true,
            gap_wait: None,
            exact_payloads: true,
            multi_stream_append: true,
            retry_recognition: Recognition::BestEffort,
            tells_retries: true,
            truncate: true,
            delete: true,
            tombstone: true,
            removal: Removal::AtOnce,
            snapshots: true,
            checkpoints: true,
            leases: true,
            list_streams: false,
            exact_import: false,
            max_event_bytes: 16 * MIB,
            max_append_events: 10_000,
            max_append_streams: 10_000,
            max_append_bytes: 64 * MIB,
        }
    }

    /// The capabilities as text for people: a name and a value each, in a fixed order.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        // Name every field, so that the compiler rejects this function when a field is added.
        let Self {
            backend: _,
            durable,
            global_order,
            gap_wait,
            exact_payloads,
            multi_stream_append,
            retry_recognition,
            tells_retries,
            truncate,
            delete,
            tombstone,
            removal,
            snapshots,
            checkpoints,
            leases,
            list_streams,
            exact_import,
            max_event_bytes,
            max_append_events,
            max_append_streams,
            max_append_bytes,
        } = self;
        let yes_no = |value: &bool| if *value { "yes" } else { "no" }.to_owned();
        let recognition = match retry_recognition {
            Recognition::Guaranteed => "guaranteed",
            Recognition::BestEffort => "best effort",
        };
        let removal = match removal {
            Removal::AtOnce => "at once",
            Removal::AfterCleanUp => "after a clean-up",
        };
        let most_streams = if *multi_stream_append { *max_append_streams } else { 1 };
        let waits = match gap_wait {
            None => "as long as it takes".to_owned(),
            Some(wait) => format!("{} ms", wait.as_millis()),
        };
        let from_time = if *global_order { "yes" } else { "of one stream" };
        vec![
            ("durable", yes_no(durable)),
            ("order over all streams", yes_no(global_order)),
            ("readers of all wait for events under way", waits),
            ("payloads byte for byte", yes_no(exact_payloads)),
            ("multi-stream append", yes_no(multi_stream_append)),
            ("retry recognised under `Exact`, `NoStream`", "guaranteed".to_owned()),
            ("retry recognised under `Any`, `StreamExists`", recognition.to_owned()),
            ("retry told from a first append", yes_no(tells_retries)),
            ("truncate", yes_no(truncate)),
            ("delete", yes_no(delete)),
            ("tombstone", yes_no(tombstone)),
            ("removed events leave reads of all", removal.to_owned()),
            ("snapshots", yes_no(snapshots)),
            ("checkpoints", yes_no(checkpoints)),
            ("leases", yes_no(leases)),
            // What every store does (contract, rules 12, 15 and 21).
            ("going on from a place never given", "refused".to_owned()),
            ("reads and subscriptions from a time", from_time.to_owned()),
            ("deleted events told from truncated ones", "yes".to_owned()),
            ("list of streams", yes_no(list_streams)),
            ("imports with their record times", yes_no(exact_import)),
            ("largest event", bytes(*max_event_bytes)),
            ("most events in an append", max_append_events.to_string()),
            ("most streams in an append", most_streams.to_string()),
            ("largest append", bytes(*max_append_bytes)),
        ]
    }
}

fn bytes(count: usize) -> String {
    match count {
        n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{} MiB", n >> 20),
        n if n >= 1 << 10 && n % (1 << 10) == 0 => format!("{} KiB", n >> 10),
        n => format!("{n} B"),
    }
}
