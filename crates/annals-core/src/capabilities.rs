//! What a store can do, said before it is asked.

/// How surely an append is recognised as a retry under `Any` and `StreamExists`. Under `Exact` and
/// `NoStream` it always is (contract, rule 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Recognition {
    /// Always, as long as the events are there.
    Guaranteed,
    /// Often: at least while nothing else was appended to the stream since.
    BestEffort,
}

/// When truncated and deleted events are gone from reads of all. From reads of their stream they
/// are gone at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Removal {
    /// Before the call returns.
    AtOnce,
    /// When the database has cleaned up, in its own time or when told to.
    AfterCleanUp,
}

/// What a store can do, and its limits. A call that it cannot serve is refused with
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), never half done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The name of the backend, as in `sqlite`.
    pub backend: &'static str,
    /// Whether what was appended is still there after the process has died.
    pub durable: bool,
    /// Whether there is an order over all streams: positions, `read_all`, and subscriptions to
    /// more than one stream.
    pub global_order: bool,
    /// Whether one append can write to several streams.
    pub multi_stream_append: bool,
    /// How surely a retry under `Any` or `StreamExists` is recognised.
    pub retry_recognition: Recognition,
    /// Whether [`Appended::replayed`](crate::Appended::replayed) is told: whether the answer to a
    /// retry differs from the answer to a first append. Where it does not, `replayed` is always
    /// false; all else that is promised of a retry stays: the same answer, and nothing written.
    pub tells_retries: bool,
    /// Whether streams can be truncated.
    pub truncate: bool,
    /// Whether streams can be deleted.
    pub delete: bool,
    /// Whether streams can be tombstoned.
    pub tombstone: bool,
    /// When removed events are gone from reads of all.
    pub removal: Removal,
    /// Whether snapshots can be kept.
    pub snapshots: bool,
    /// Whether checkpoints can be kept.
    pub checkpoints: bool,
    /// Whether leases can be kept.
    pub leases: bool,
    /// Whether its streams can be listed.
    pub list_streams: bool,
    /// Whether an [import](crate::TransferStore::import) keeps the record times, and begins a stream
    /// at any version without traces. Without it, an import goes by appends.
    pub exact_import: bool,
    /// The most bytes that data and metadata of one event may have together; for a snapshot too.
    pub max_event_bytes: usize,
    /// The most events of one append, over all its streams.
    pub max_append_events: usize,
    /// The most bytes of data and metadata of one append, over all its events.
    pub max_append_bytes: usize,
}

impl Capabilities {
    /// A store that can do everything, except what cannot be said without knowing it: it is not
    /// durable, recognises retries by best effort, lists no streams and imports by appends.
    #[must_use]
    pub const fn new(backend: &'static str) -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            backend,
            durable: false,
            global_order: true,
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
            max_append_bytes: 64 * MIB,
        }
    }

    /// What is declared, for people: a name and a value each, in a fixed order.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        // Taken apart in full, so that a new field cannot be forgotten here.
        let Self {
            backend: _,
            durable,
            global_order,
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
        vec![
            ("durable", yes_no(durable)),
            ("order over all streams", yes_no(global_order)),
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
            ("list of streams", yes_no(list_streams)),
            ("imports with their record times", yes_no(exact_import)),
            ("largest event", bytes(*max_event_bytes)),
            ("most events in an append", max_append_events.to_string()),
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
